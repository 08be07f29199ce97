"""Simplex for a mesh that may hold liars: views, votes, certificates."""
