"""Ledgers on the move: from peer to peer, from village to county, on a stick."""
