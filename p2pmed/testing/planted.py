"""Defects on purpose: each breaks one rule of the node, and the checkers must find each.

A simulator that finds nothing has proved nothing. Each defect is of a kind that real systems
had, and each is found by the general checkers of ``checkers.py``, which know nothing of it,
within ``found_within`` seeds of the village scenario: ``p2pmed sim --planted all`` shows it.

Rule: production code has no switch. A defect is a subclass or an injected engine, reachable
through ``Simulation(planted=...)`` alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final

from p2pmed.consensus.bft.engine import BftEngine
from p2pmed.consensus.interface import (
    ConsensusEffect,
    ConsensusEngine,
    ConsensusEvent,
    Store,
)
from p2pmed.consensus.raft.engine import RaftEngine
from p2pmed.engine import Instant, Persisted
from p2pmed.errors import DecodeError
from p2pmed.ledger.chain import Decided
from p2pmed.ledger.genesis import Founding
from p2pmed.ledger.state import BlockContext, StateMachine, Verdict, View
from p2pmed.ledger.transaction import Entry
from p2pmed.node import events
from p2pmed.node.admission import Admission
from p2pmed.node.ledgers import Ledgers
from p2pmed.node.replica import Replica
from p2pmed.node.turn import Turn
from p2pmed.quorum.certificate import Epoch
from p2pmed.testing.defects import PATCHED
from p2pmed.testing.planting import Plant
from p2pmed.wire import codec
from p2pmed.world import Clock

__all__ = ["PLANTED", "Plant", "plant"]


# --- engines ----------------------------------------------------------------------------------


class _SmallEpoch(Epoch, frozen=True, array_like=True, forbid_unknown_fields=True):
    """An epoch that asks for one vote too few."""

    @property
    def quorum(self) -> int:
        return super().quorum - 1


class _Hasty:
    """An engine whose votes are sent and counted before the flush that it asked for."""

    def __init__(self, inner: ConsensusEngine) -> None:
        self._inner = inner

    @property
    def deadline(self) -> Instant | None:
        return self._inner.deadline

    def status(self) -> Mapping[str, int | str]:
        return self._inner.status()

    def step(self, event: ConsensusEvent, now: Instant) -> Sequence[ConsensusEffect]:
        effects: list[ConsensusEffect] = []
        for effect in self._inner.step(event, now) if not isinstance(event, Persisted) else ():
            effects.append(effect)
            if isinstance(effect, Store):
                effects += self._at_once(Persisted(effect.token), now)
        return effects

    def _at_once(self, event: Persisted, now: Instant) -> list[ConsensusEffect]:
        effects: list[ConsensusEffect] = []
        for effect in self._inner.step(event, now):
            effects.append(effect)
            if isinstance(effect, Store):
                effects += self._at_once(Persisted(effect.token), now)
        return effects


def _hasty_bft(**given: Any) -> ConsensusEngine:
    return _Hasty(BftEngine(**given))


def _hasty_raft(**given: Any) -> ConsensusEngine:
    return _Hasty(RaftEngine(**given))


def _small_quorum(**given: Any) -> ConsensusEngine:
    epoch = codec.decode(codec.encode(given["epoch"]), _SmallEpoch)
    return BftEngine(**{**given, "epoch": epoch})


def _small_majority(**given: Any) -> ConsensusEngine:
    epoch = codec.decode(codec.encode(given["epoch"]), _SmallEpoch)
    return RaftEngine(**{**given, "epoch": epoch})


def _amnesia(**given: Any) -> ConsensusEngine:
    return BftEngine(**{**given, "records": {}})


# --- parts of a node --------------------------------------------------------------------------


class _FinalTooSoon(Ledgers):
    """Says *final* in the step that decides."""

    def _on_decided(self, turn: Turn, decided: Decided) -> None:
        super()._on_decided(turn, decided)
        entries, verdicts = tuple(decided.entries), tuple(decided.verdicts)
        header = decided.header
        turn.notify(events.Final(header.ledger, header.height, entries, verdicts))


class _StoredTooSoon(Admission):
    """Answers a submit in the step that signs."""

    def _when_stored(
        self,
        turn: Turn,
        entries: list[Entry],
        source: bytes | None,
        request: int | None,
        error: DecodeError | None = None,
    ) -> None:
        if request is not None:
            turn.effects.append(events.Reply(request, entries=tuple(entries)))
        super()._when_stored(turn, entries, source, None, error)


class _SharedTooSoon(Admission):
    """Counts entries as durable, and hands them on, in the step that took them."""

    def _when_stored(
        self,
        turn: Turn,
        entries: list[Entry],
        source: bytes | None,
        request: int | None,
        error: DecodeError | None = None,
    ) -> None:
        super()._when_stored(turn, entries, source, None, error)
        turn.after.pop()(turn)
        if request is not None:
            reply = events.Reply(request, entries=tuple(entries), error=error)
            turn.when_durable(lambda later: later.effects.append(reply))


class _OwnTime:
    """Rules that read the node's own clock."""

    def __init__(self, inner: StateMachine, clock: Clock) -> None:
        self._inner = inner
        self._clock = clock

    @property
    def rules_hash(self) -> bytes:
        return self._inner.rules_hash

    def apply(self, entry: Entry, view: View, context: BlockContext) -> Verdict:
        own = replace(context, time_ms=self._clock.wall_ms())
        return self._inner.apply(entry, view, own)


class _RulesReadTheClock(Ledgers):
    """Judges by the time that the node believes it is."""

    def _live_in(self, founding: Founding, *, resumed: bool = False) -> None:
        self.machine = _OwnTime(self.machine, self._world.clock)
        super()._live_in(founding, resumed=resumed)


def _node(
    *, ledgers: type[Ledgers] = Ledgers, admission: type[Admission] = Admission
) -> type[Replica]:
    """A node made of these parts."""

    class Made(Replica):
        ledgers_type = ledgers
        admission_type = admission

    return Made


PLANTED: Final[Mapping[str, Plant]] = MappingProxyType(
    {
        **PATCHED,
        "vote before sync": Plant(
            rule="a vote is durable before it is sent",
            source="consensus.md 3.7; aptos-core#18298",
            promise="progress",
            found_within=30,
            engines={"bft": _hasty_bft},
        ),
        "ballot before sync": Plant(
            rule="a ballot and a log entry are durable before they are answered (Raft, 5.2)",
            source="Raft, 5.2; PySyncObj#84, #201",
            promise="progress",
            engine="raft",
            found_within=30,
            engines={"raft": _hasty_raft},
        ),
        "flush said too early": Plant(
            rule="the disk says durable when it is",
            source="consensus.md 3.7",
            promise="final means durable",
            found_within=30,
            early_flush=True,
        ),
        "forgotten votes": Plant(
            rule="votes are read back after a restart",
            source="R11; tendermint#3295",
            promise="one vote",
            found_within=30,
            engines={"bft": _amnesia},
        ),
        "quorum one too small": Plant(
            rule="a certificate holds floor((n + f) / 2) + 1 votes",
            source="consensus.md 3.2",
            promise="final means certified",
            engines={"bft": _small_quorum},
        ),
        "majority one too small": Plant(
            rule="a certificate holds a majority's votes",
            source="Raft, 5.2",
            promise="final means certified",
            engine="raft",
            found_within=30,
            engines={"raft": _small_majority},
        ),
        "final before durable": Plant(
            rule="block, state and certificate are flushed before anybody is told",
            source="etcd-io/etcd#13766",
            promise="final means durable",
            found_within=30,
            replica=_node(ledgers=_FinalTooSoon),
        ),
        "stored before durable": Plant(
            rule="an entry is flushed before its submitter is told",
            source="design, 5",
            promise="nothing acknowledged is lost",
            found_within=30,
            replica=_node(admission=_StoredTooSoon),
        ),
        "shared before durable": Plant(
            rule="an entry is flushed before it is handed on, or counted as a block's body",
            source="design, 5",
            promise="honest logs do not fork",
            found_within=30,
            replica=_node(admission=_SharedTooSoon),
        ),
        "rules read the clock": Plant(
            rule="verdicts depend on the block's time alone",
            source="design, 12; tendermint#2840",
            promise="progress",
            found_within=30,
            replica=_node(ledgers=_RulesReadTheClock),
        ),
    }
)


def plant(name: str) -> Plant:
    """The defect called ``name``. Raises ``KeyError``."""
    return PLANTED[name]
