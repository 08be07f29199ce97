"""The single place where things are wired, and the facade that an embedder sees."""
