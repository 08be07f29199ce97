"""Raft with one mistake in its log or its finality each, made in the real classes for a run.

Each is a known mistake of real implementations; sections are those of the Raft paper.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import msgspec

from p2pmed.consensus.raft.desk import Desk
from p2pmed.consensus.raft.engine import RaftEngine
from p2pmed.consensus.raft.finality import Finality
from p2pmed.consensus.raft.following import Following
from p2pmed.consensus.raft.leadership import Leadership
from p2pmed.consensus.raft.log import FloorRow, Log
from p2pmed.consensus.raft.replica import Replica
from p2pmed.testing.core.defect import CoreDefect, defect, set_to
from p2pmed.testing.core.patching import Patch

__all__ = ["LOG_DEFECTS"]


def _answer_early(patch: Patch) -> None:
    real = Replica.append

    def append(self: Replica, slot: Any) -> None:
        real(self, slot)
        self.durable = self.log.last_index

    patch(Replica, "append", append)


def _leader_counts_early(patch: Patch) -> None:
    def count(self: Leadership) -> None:
        r = self._replica
        others = (p.match for p in self.progress.values())
        matches = sorted([r.log.last_index, *others], reverse=True)
        index = matches[r.epoch.quorum - 1]
        if index > r.commit and r.log.term_at(index) == r.term:
            r.commit_to(index)

    patch(Leadership, "count", count)


def _old_terms_counted(patch: Patch) -> None:
    def count(self: Leadership) -> None:
        r = self._replica
        matches = sorted([r.durable, *(p.match for p in self.progress.values())], reverse=True)
        r.commit_to(matches[r.epoch.quorum - 1])

    patch(Leadership, "count", count)


def _inherited_attested(patch: Patch) -> None:
    real = Finality.sign

    def sign(self: Finality, log: Log, *, above: int, durable: int, commit: int, term: int) -> Any:
        covered = durable if log.term_at(durable) == term else commit
        return real(self, log, above=above, durable=durable, commit=covered, term=term)

    patch(Finality, "sign", sign)


def _attested_unflushed(patch: Patch) -> None:
    real = Finality.sign

    def sign(self: Finality, log: Log, *, above: int, durable: int, commit: int, term: int) -> Any:
        return real(self, log, above=above, durable=log.last_index, commit=commit, term=term)

    def check(self: Finality, log: Log, durable: int) -> bool:
        return real_check(self, log, log.last_index)

    real_check = Finality.check
    patch(Finality, "sign", sign)
    patch(Finality, "check", check)


def _commit_beyond_match(patch: Patch) -> None:
    real = Following.on_append

    def on_append(self: Following, message: Any, seat: int) -> None:
        real(self, message, seat)
        if self._replica.leader == seat:
            self._replica.commit_to(message.commit)

    patch(Following, "on_append", on_append)


def _commit_backwards(patch: Patch) -> None:
    def commit_to(self: Replica, index: int) -> None:
        self.commit = min(index, self.log.last_index)

    patch(Replica, "commit_to", commit_to)


def _prev_not_compared(patch: Patch) -> None:
    real = Following.on_append

    def on_append(self: Following, message: Any, seat: int) -> None:
        term = self._replica.log.term_at(message.prev_index)
        if term is not None:
            message = msgspec.structs.replace(message, prev_term=term)
        real(self, message, seat)

    patch(Following, "on_append", on_append)


def _cut_always(patch: Patch) -> None:
    """An append cuts what stands behind it, even if it says the same."""
    real = Following.on_append

    def on_append(self: Following, message: Any, seat: int) -> None:
        r = self._replica
        start = message.prev_index + 1
        known = r.log.floor.index < start <= r.log.last_index
        if message.entries and r.term == message.term and known:
            r.commit = min(r.commit, start - 1)
            r.cut(start)
        real(self, message, seat)

    patch(Following, "on_append", on_append)


def _cut_not_stored(patch: Patch) -> None:
    real = Desk.stage

    def stage(self: Desk, key: bytes, value: bytes | None) -> None:
        if value is not None or key[13:14] != b"\x03":
            real(self, key, value)

    patch(Desk, "stage", stage)


def _floor_without_term(patch: Patch) -> None:
    real = Log.raise_floor

    def raise_floor(self: Log, index: int) -> None:
        real(self, index)
        self.floor = msgspec.structs.replace(self.floor, term=0)

    patch(Log, "raise_floor", raise_floor)


def _floor_without_blocks(patch: Patch) -> None:
    real = Following.settle_floor

    def settle_floor(self: Following) -> None:
        r, offer = self._replica, self._floor
        if offer is None or r.finality.height >= offer.height:
            real(self)
            return
        r.stand_on(
            FloorRow(
                version=1,
                index=offer.index,
                term=offer.index_term,
                height=offer.height,
                digest=offer.digest,
            )
        )
        self._floor = None

    patch(Following, "settle_floor", settle_floor)


def _stale_attested(patch: Patch) -> None:
    """Whatever a member attested at a height counts for the block that is there now."""

    def count(self: Finality, log: Log, seat: int, attests: Sequence[Any]) -> None:
        for attest in attests:
            tally = self._tally(log, attest.height) if attest.height > self.height else None
            if tally is not None and tally.certificate is None:
                tally.votes.setdefault(seat, attest.signature)

    patch(Finality, "count", count)


def _undecided_checks(patch: Patch) -> None:
    def check(self: Finality, log: Log, durable: int) -> bool:
        heights = (h for h, i in log._index_of_height.items() if i <= durable)
        self.checked = max([self.checked, *heights])
        return False

    patch(Finality, "check", check)


def _certificate_once(patch: Patch) -> None:
    patch(Leadership, "tell_certificate", lambda self, seat: None)
    patch(RaftEngine, "_tell_certificate", lambda self, seat: None)


LOG_DEFECTS: Final[Mapping[str, CoreDefect]] = MappingProxyType(
    {
        "raft: acknowledged before fsync": defect(
            "raft",
            "entries are durable before they are answered",
            "PySyncObj#84",
            "disk before wire",
            _answer_early,
        ),
        "raft: leader counts itself early": defect(
            "raft",
            "the leader's copy counts after its flush",
            "thesis, 10.2.1",
            "quorum of disks",
            _leader_counts_early,
        ),
        "raft: old terms counted": defect(
            "raft",
            "only own-term entries commit by counting (5.4.2)",
            "PySyncObj#169",
            "state machine safety",
            _old_terms_counted,
        ),
        "raft: inherited block attested": defect(
            "raft",
            "an old block is signed when committed",
            "figure 8",
            "agreement",
            _inherited_attested,
        ),
        "raft: attested before fsync": defect(
            "raft",
            "who attests has it on the disk",
            "raft.md",
            "quorum of disks",
            _attested_unflushed,
        ),
        "raft: commit beyond the match": defect(
            "raft",
            "commit only what was compared (5.3)",
            "nats-server#7955",
            "state machine safety",
            _commit_beyond_match,
        ),
        "raft: commit index backwards": defect(
            "raft", "commitIndex rises (figure 2)", "PySyncObj#166", "monotone", _commit_backwards
        ),
        "raft: previous entry not compared": defect(
            "raft",
            "the entry before must match (5.3)",
            "figure 2",
            "log matching",
            _prev_not_compared,
        ),
        "raft: agreeing entries cut": defect(
            "raft", "only a conflict cuts the log (5.3)", "figure 2", "monotone", _cut_always
        ),
        "raft: cut not stored": defect(
            "raft", "a cut is durable like an entry", "PySyncObj#201", "no failure", _cut_not_stored
        ),
        "raft: floor without its term": defect(
            "raft",
            "a snapshot keeps its last term (7)",
            "figure 12",
            "progress",
            _floor_without_term,
        ),
        "raft: floor without blocks": defect(
            "raft",
            "a floor is taken once its blocks are decided",
            "raft.md",
            "progress",
            _floor_without_blocks,
        ),
        "raft: stale attestation counted": defect(
            "raft",
            "a signature counts for what it signed",
            "Rustchain#2256",
            "certificates",
            _stale_attested,
        ),
        "raft: decided unchecked": defect(
            "raft", "only what is valid is decided", "raft.md", "exactly once", _undecided_checks
        ),
        "raft: attestations said once": defect(
            "raft",
            "what may be lost is said again",
            "dbft#17",
            "progress",
            set_to(Finality, "mine", lambda self, above: ()),
        ),
        "raft: certificate said once": defect(
            "raft", "what may be lost is said again", "dbft#17", "progress", _certificate_once
        ),
    }
)
"""By name."""
