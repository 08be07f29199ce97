"""The authenticated channel: Noise, proof of identity, lanes of frames."""
