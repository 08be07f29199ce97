"""Simplex with one mistake each in what it signs, keeps and remembers.

Each is a mistake of a real system or of the prototype; rules are those
of ``docs/protocols/bft.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from p2pmed.consensus.bft.ballots import Ballots
from p2pmed.consensus.bft.greeting import Greeting, Phase
from p2pmed.consensus.bft.journal import Journal, Recovered
from p2pmed.consensus.bft.proposals import Proposals
from p2pmed.consensus.bft.restraint import SKIP_MAX, Restraint
from p2pmed.consensus.bft.rounds import Rounds
from p2pmed.consensus.interface import Recovered as HasRecovered
from p2pmed.consensus.interface import Store, header_digest
from p2pmed.quorum.certificate import Epoch
from p2pmed.testing.core.defect import CoreDefect, defect, set_to
from p2pmed.testing.core.patching import Patch

__all__ = ["VOTE_DEFECTS"]


def _small_quorum(patch: Patch) -> None:
    real = Epoch.quorum.fget  # type: ignore[attr-defined]
    patch(Epoch, "quorum", property(lambda self: max(1, real(self) - 1)))


def _finalize_after_nullify(self: Restraint, view: int) -> bool:
    mine = self._mine.get(view)
    return self._free(view) and (mine is None or mine.finalize is None)


def _nullify_after_finalize(self: Restraint, view: int) -> bool:
    mine = self._mine.get(view)
    return self._free(view) and (mine is None or not mine.nullified)


def _notarize_twice(patch: Patch) -> None:
    """The last proposal of a view wins, and is voted for."""

    def may_notarize(self: Ballots, view: int) -> bool:
        mine = self._mine.get(view)
        fresh = mine is None or mine.notarize != self._live.proposals.get(view)
        return self._free(view) and fresh and (mine is None or not mine.nullified)

    def keep(self: Proposals, block: Any) -> None:
        digest = header_digest(block.header)
        self._live.proposals[block.header.view] = digest
        self._live.add_block(digest, block)

    patch(Restraint, "may_notarize", may_notarize)
    patch(Proposals, "keep", keep)


def _before_the_flush(self: Ballots) -> None:
    if self._journal.urgent:
        token = self._held.hold(self._cast)
        self._cast = []
        self._outbox.put(Store(token=token, records=self._journal.take()))
        self.persisted(token)


def _counted_at_once(patch: Patch) -> None:
    real = Ballots.cast

    def cast(self: Ballots, *given: Any) -> None:
        real(self, *given)
        self._release(self._cast[-1])

    patch(Ballots, "cast", cast)


def _flags_dropped(patch: Patch) -> None:
    """What was signed is forgotten when its view ends, not when it is decided."""
    real = Rounds._enter

    def enter(self: Rounds, view: int, now: Any) -> None:
        real(self, view, now)
        self._ballots.drop(view - 1)

    patch(Rounds, "_enter", enter)


def _recovering(change: Any) -> Any:
    def plant(patch: Patch) -> None:
        real = Journal.recover

        def recover(self: Journal, records: Any, floor: int) -> Recovered:
            recovered = real(self, records, floor)
            change(recovered)
            return recovered

        patch(Journal, "recover", recover)

    return plant


def _no_votes(recovered: Recovered) -> None:
    recovered.votes.clear()


def _only_the_last(recovered: Recovered) -> None:
    del recovered.votes[:-1]
    del recovered.certificates[:-1]
    del recovered.blocks[:-1]


def _blocks_not_kept(patch: Patch) -> None:
    patch(Journal, "block", lambda self, digest, block: None)
    patch(Journal, "certificate", lambda self, certificate: None)


def _rows_kept(self: Journal, floor: int) -> None:
    """Rows of decided views stay for ever."""


def _amnesia_ignored(patch: Patch) -> None:
    real = Greeting.__init__

    def made(self: Greeting, **given: Any) -> None:
        real(self, **{**given, "amnesic": False})
        if given["amnesic"]:
            self.phase = Phase.VOTING
            self._ballots.muted = False
            self._outbox.put(HasRecovered())

    patch(Greeting, "__init__", made)


def _finish_with(bound_of: Any) -> Any:
    """A recovery whose bound is ``bound_of(current, voted)``."""

    def finish(self: Greeting) -> None:
        if self.phase is Phase.RECOVERING:
            current = max(self._ballots.view, *(proven for proven, _ in self._answers.values()))
            voted = max(voted for _, voted in self._answers.values())
            bound = bound_of(current, voted)
            if bound:
                self._journal.abstain(bound)
                self._ballots.abstain(bound)
            self._outbox.put(HasRecovered())
        self.phase = Phase.VOTING
        self._ballots.muted = False
        self._live.changed = True

    return set_to(Greeting, "_finish", finish)


def _bound(current: int, voted: int) -> int:
    return max(current, min(voted, current + SKIP_MAX)) + SKIP_MAX


VOTE_DEFECTS: Final[Mapping[str, CoreDefect]] = MappingProxyType(
    {
        "bft: quorum one too small": defect(
            "bft", "q = floor((n + f) / 2) + 1", "bft.md, 1", "certificates", _small_quorum
        ),
        "bft: finalize after nullify": defect(
            "bft",
            "never both nullify and finalize (R5)",
            "ava-labs/Simplex#280",
            "not both",
            set_to(Restraint, "may_finalize", _finalize_after_nullify),
        ),
        "bft: nullify after finalize": defect(
            "bft",
            "never both nullify and finalize (R6)",
            "ava-labs/Simplex#280",
            "not both",
            set_to(Restraint, "may_nullify", _nullify_after_finalize),
            within=400,
        ),
        "bft: two notarize votes": defect(
            "bft",
            "one notarize vote a view (R4)",
            "consensus notes, 3.5",
            "one vote",
            _notarize_twice,
        ),
        "bft: vote sent before fsync": defect(
            "bft",
            "a vote is durable before it is sent",
            "aptos-core#18298",
            "disk before wire",
            set_to(Ballots, "store", _before_the_flush),
        ),
        "bft: own vote counted before fsync": defect(
            "bft",
            "an own vote counts after its flush (R7)",
            "consensus notes, 3.7",
            "one vote",
            _counted_at_once,
            within=400,
        ),
        "bft: flags dropped with the view": defect(
            "bft",
            "what was signed is remembered until it is decided (R8)",
            "ava-labs/Simplex#280",
            "not both",
            _flags_dropped,
        ),
        "bft: votes forgotten at restart": defect(
            "bft", "votes are read back (R11)", "NodeDB#161", "one vote", _recovering(_no_votes)
        ),
        "bft: only the last row read": defect(
            "bft",
            "all rows are read back (R11)",
            "ava-labs/Simplex PR#328",
            "one vote",
            _recovering(_only_the_last),
            within=400,
        ),
        "bft: certificates not persisted": defect(
            "bft",
            "blocks and certificates lie beside the vote (R4)",
            "consensus notes, 3.3",
            "progress",
            _blocks_not_kept,
            within=400,
        ),
        "bft: rows never deleted": defect(
            "bft",
            "rows of decided views go",
            "consensus notes, 3.3",
            "bounded",
            set_to(Journal, "forget", _rows_kept),
        ),
        "bft: amnesia ignored": defect(
            "bft",
            "who forgot votes after R12 only",
            "consensus notes, R12",
            "one vote",
            _amnesia_ignored,
        ),
        "bft: R12 without abstaining": defect(
            "bft",
            "a recovered seat abstains (R12)",
            "consensus notes, R12",
            "one vote",
            _finish_with(lambda current, voted: 0),
        ),
        "bft: R12 with one reply": defect(
            "bft",
            "q others answer (R12)",
            "consensus notes, 4: the prototype missed it",
            "one vote",
            set_to(Greeting, "needed", property(lambda self: 1)),
            within=400,
        ),
        "bft: R12 with V instead of V + 1": defect(
            "bft",
            "abstain up to V + 1 (R12)",
            "consensus notes, 4: the prototype missed it",
            "one vote",
            _finish_with(_bound),
            within=400,
        ),
    }
)
"""By name."""
