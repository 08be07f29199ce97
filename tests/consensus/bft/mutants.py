"""Engines with one planted bug each: what the simulation must be able to find."""

from __future__ import annotations

from typing import Any

from p2pmed.consensus.bft.ballots import Ballots
from p2pmed.consensus.bft.engine import BftEngine
from p2pmed.consensus.bft.journal import Journal, Recovered
from p2pmed.consensus.bft.live import Lacks, Live, Standing
from p2pmed.consensus.interface import Header, Store
from p2pmed.quorum.certificate import Epoch


class _EasyEpoch(Epoch, frozen=True):
    @property
    def quorum(self) -> int:
        return max(1, super().quorum - 1)


class QuorumLessOne(BftEngine):
    """Takes one vote too few for a certificate."""

    def __init__(self, *, epoch: Epoch, **rest: Any) -> None:
        fields = {name: getattr(epoch, name) for name in epoch.__struct_fields__}
        super().__init__(epoch=_EasyEpoch(**fields), **rest)


class _HastyBallots(Ballots):
    def store(self) -> None:
        if self._journal.urgent:
            token = self._held.hold(self._cast)
            self._cast = []
            self._outbox.put(Store(token=token, records=self._journal.take()))
            self.persisted(token)


class VoteBeforeSync(BftEngine):
    """Sends a vote while its row is still on the way to the disk."""

    def __init__(self, **rest: Any) -> None:
        super().__init__(**rest)
        self._ballots.__class__ = _HastyBallots


class _TornBallots(Ballots):
    def may_finalize(self, view: int) -> bool:
        mine = self._mine.get(view)
        return view > self._live.low and (mine is None or mine.finalize is None)


class FinalizeAfterNullify(BftEngine):
    """Votes to finalize a view that it voted to nullify."""

    def __init__(self, **rest: Any) -> None:
        super().__init__(**rest)
        self._ballots.__class__ = _TornBallots


class _LeapingLive(Live):
    def skipped(self, header: Header) -> Standing | Lacks:
        return Standing.READY


class SkippedUnchecked(BftEngine):
    """Accepts a block that leaps over views which nobody proved nullified."""

    def __init__(self, **rest: Any) -> None:
        super().__init__(**rest)
        self._live.__class__ = _LeapingLive


class _OrphanLive(Live):
    def standing(self, header: Header) -> Standing | Lacks:
        if header.parent != self.tip_digest and header.parent not in self.blocks:
            return Lacks(header.parent_view)
        return self.skipped(header)


class ParentUnchecked(BftEngine):
    """Accepts any block it holds as a parent, certified or not."""

    def __init__(self, **rest: Any) -> None:
        super().__init__(**rest)
        self._live.__class__ = _OrphanLive


class _ForgetfulJournal(Journal):
    def recover(self, records: Any, floor: int) -> Recovered:
        recovered = super().recover(records, floor)
        recovered.votes.clear()
        return recovered


class VotesForgotten(BftEngine):
    """Restarts without the votes it has on disk."""

    def _recover(self, records: Any) -> None:
        self._journal.__class__ = _ForgetfulJournal
        super()._recover(records)


MUTANTS: tuple[type[BftEngine], ...] = (
    QuorumLessOne,
    VoteBeforeSync,
    FinalizeAfterNullify,
    SkippedUnchecked,
    ParentUnchecked,
    VotesForgotten,
)
