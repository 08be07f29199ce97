"""Raft: crash-only order for a mesh with one administrative owner (``engine.py`` first)."""

from __future__ import annotations

from p2pmed.consensus.raft.engine import RaftEngine

__all__ = ["RaftEngine"]
