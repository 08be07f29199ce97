"""Asking the application what a block means: each block once, its ancestors first.

Rules:

* A block is executed on its parent's state, so that parents are checked before children.
* ``MISSING`` is asked again only after something may have changed (``look_again``), never
  on every message.
* Bytes that the application refuses are not kept: with a certified header they are a lie
  about the content, and the true bytes can still be asked for.
"""

from __future__ import annotations

from p2pmed.consensus.bft.live import Live
from p2pmed.consensus.interface import Application, Block, Check

__all__ = ["Execution"]


class Execution:
    """Verdicts on live blocks; the valid ones are remembered in ``Live.valid``."""

    def __init__(self, live: Live, application: Application) -> None:
        self._live = live
        self._application = application
        self._unsure: dict[bytes, None] = {}

    def look_again(self) -> None:
        """What was missing may have come."""
        self._unsure.clear()
        self._live.changed = True

    def is_valid(self, digest: bytes) -> bool:
        """Whether the block and all its live ancestors were executed."""
        return self.check(digest) is Check.VALID

    def check(self, digest: bytes) -> Check:
        """The verdict on a live block; ``MISSING`` also if an ancestor is in doubt."""
        live = self._live
        if digest == live.tip_digest or digest in live.valid:
            return Check.VALID
        path = live.path(digest)
        if path is None:
            return Check.MISSING
        for name, block in path:
            verdict = self._verdict(name, block)
            if verdict is not Check.VALID:
                return verdict if name == digest else Check.MISSING
        return Check.VALID

    def _verdict(self, digest: bytes, block: Block) -> Check:
        if digest in self._live.valid:
            return Check.VALID
        if digest in self._unsure:
            return Check.MISSING
        verdict = self._application.check(block)
        match verdict:
            case Check.VALID:
                self._live.valid[digest] = None
            case Check.MISSING:
                self._unsure[digest] = None
            case Check.INVALID:
                self._live.drop_block(digest)
        return verdict
