"""What one validator may still sign, given what it signed before (R4 to R6, R11, R12).

Rules:

* What counts is what was signed, durable or not: at most one notarize vote in a view, never
  both nullify and finalize.
* While ``muted`` nothing is signed. After a loss nothing is signed that a forgotten vote could
  contradict (``greeting``).
* Nothing is ever signed at or below ``Live.low``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from p2pmed.consensus.bft.live import Live, drop_views
from p2pmed.consensus.bft.messages import Vote
from p2pmed.quorum.certificate import VoteKind

__all__ = ["SKIP_MAX", "Restraint"]

SKIP_MAX: Final = 6
"""Views of silent leaders that are given up in advance, with the vote in the view before.

Also how far a vote may lie above what its signer had proof of: R12 counts with it.
"""


@dataclass(slots=True)
class _Mine:
    """What we signed in one view, durable or about to be."""

    notarize: bytes | None = None
    nullified: bool = False
    in_advance: bool = False
    """Nullified before the view came: its leader was silent."""
    finalize: bytes | None = None


_NOTHING: Final = _Mine()


class Restraint:
    """Every vote of this seat above the floor, and what it forbids."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._mine: dict[int, _Mine] = {}
        self._abstain_until = 0
        self.view = live.floor + 1
        """The engine's current view: the middle of the window."""
        self.muted = False
        """Whether nothing may be signed yet (R11, R12)."""

    def notarized_by_us(self, view: int) -> bytes | None:
        """Digest of the block that we voted to notarize."""
        mine = self._mine.get(view)
        return None if mine is None else mine.notarize

    def voted(self) -> int:
        """The highest view in which we signed anything, or may have and forgot.

        Who recovers beside us rests its bound on this: what we forgot must not look like
        nothing (R12, two seats one after the other).
        """
        return max(self._live.low, self._abstain_until - SKIP_MAX, max(self._mine, default=0))

    def knows(self, vote: Vote) -> bool:
        """Whether our own ``vote`` is one that we remember, or of a view that is over."""
        mine = self._mine.get(vote.view, _NOTHING)
        match VoteKind(vote.kind):
            case VoteKind.NOTARIZE:
                known = mine.notarize == vote.digest
            case VoteKind.NULLIFY:
                known = mine.nullified
            case VoteKind.FINALIZE:
                known = mine.finalize == vote.digest
        return known or vote.view <= self._live.low

    def finalized_by_us(self) -> list[int]:
        """Undecided views in which we voted to finalize."""
        return [view for view, mine in self._mine.items() if mine.finalize is not None]

    def abstain(self, view: int) -> None:
        """R12: a forgotten vote may be of any view up to ``view``, see ``greeting``.

        Up to ``SKIP_MAX`` views below it may be any vote; above that only one to nullify,
        beside which only a vote to finalize is false.
        """
        self._abstain_until = max(self._abstain_until, view)

    def vote_again(self) -> None:
        """People gave their word: what was forgotten is nowhere."""
        self._abstain_until = 0

    @property
    def abstains_for(self) -> int:
        """In how many views from the present one on nothing is signed; 0 if in none."""
        return max(0, self._abstain_until - SKIP_MAX - self.view + 1)

    def _free(self, view: int) -> bool:
        return not self.muted and view > max(self._live.low, self._abstain_until - SKIP_MAX)

    def may_notarize(self, view: int) -> bool:
        """R4: no notarize and no nullify vote yet."""
        mine = self._mine.get(view, _NOTHING)
        return self._free(view) and mine.notarize is None and not mine.nullified

    def may_finalize(self, view: int) -> bool:
        """R5: no nullify and no finalize vote yet."""
        return self.may_nullify(view) and view > self._abstain_until

    def may_nullify(self, view: int) -> bool:
        """R6: no finalize vote, and not said before (ava-labs/Simplex#486)."""
        mine = self._mine.get(view, _NOTHING)
        return self._free(view) and mine.finalize is None and not mine.nullified

    def has_voted(self, view: int) -> bool:
        """Whether we notarized or nullified ``view``."""
        mine = self._mine.get(view, _NOTHING)
        return mine.nullified or mine.notarize is not None

    def skipped(self, view: int) -> bool:
        """Whether we gave ``view`` up before it came."""
        return self._mine.get(view, _NOTHING).in_advance

    def gave_up_by_us(self, view: int) -> bool:
        """Whether we voted to nullify ``view``."""
        return self._mine.get(view, _NOTHING).nullified

    def drop(self, low: int) -> None:
        """Views up to ``low`` are over."""
        drop_views(self._mine, low)

    def _note(self, vote: Vote) -> None:
        mine = self._mine.setdefault(vote.view, _Mine())
        match VoteKind(vote.kind):
            case VoteKind.NOTARIZE:
                mine.notarize = vote.digest
            case VoteKind.NULLIFY:
                mine.nullified = True
            case VoteKind.FINALIZE:
                mine.finalize = vote.digest
