"""What every test shares: property tests are never judged by the clock."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("p2pmed", deadline=None)
settings.load_profile("p2pmed")
