"""Engines alone in a seeded world: thousands of seeds where whole nodes take hundreds.

``raft.py`` and ``bft.py`` below ``consensus`` decide; everything else of a node is left out, and
what an engine asks of its driver is played by ``member.py``. See ``world.py`` for how a run is
made, ``oracle.py`` for what is checked, ``strategies.py`` for who lies.
"""

from __future__ import annotations
