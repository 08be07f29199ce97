"""What clients of real processes asked and were told, one event after the other.

Kept as Jepsen keeps it: every operation is *invoked* and then *ok* (it happened), *fail* (it
certainly did not), or *info* (nobody knows: its process was killed, its answer lost). One clock
for all clients, that of the process which records. A client whose operation ended in *info* goes
on under a new number, since the old one may still be at work.

Beside operations it keeps *promises*: a transaction that a node called final, with height and
verdict. Such a word stands for ever, so it is compared with what any node says later.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from p2pmed.testing.census import Census
from p2pmed.testing.linearizable import UNKNOWN, Operation, Register, check

__all__ = ["Event", "History", "Outcome", "Promise", "prefix_faults", "unlinearizable"]

Outcome: TypeAlias = Literal["invoke", "ok", "fail", "info"]
ENDS: Final[tuple[Outcome, ...]] = ("ok", "fail", "info")


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One line of a history."""

    at: int
    """Nanoseconds on the recorder's clock."""
    process: int
    what: Outcome
    key: str
    """The object."""
    call: tuple[Any, ...]
    output: Any = None
    """Of an *ok*; of others, why, for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """A node said that a transaction is final."""

    entry: str
    """Its id, in hex."""
    height: int
    verdict: str
    told_by: str


@dataclass(slots=True)
class History:
    """Events in the order of their instants, and promises."""

    clock: Callable[[], int] = time.monotonic_ns
    events: list[Event] = field(default_factory=list)
    promises: dict[str, Promise] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    """Sentences about words that were taken back."""
    _clients: int = 0

    def client(self) -> int:
        """A number for a client, never given before."""
        self._clients += 1
        return self._clients

    def invoke(self, process: int, key: str, call: tuple[Any, ...]) -> Event:
        """Note that an operation begins now; pass the event to ``end``."""
        return self._add(process, "invoke", key, call)

    def end(self, begun: Event, what: Outcome, output: Any = None) -> Event:
        """Note how it ended, now."""
        assert what in ENDS
        return self._add(begun.process, what, begun.key, begun.call, output)

    def _add(
        self, process: int, what: Outcome, key: str, call: tuple[Any, ...], output: Any = None
    ) -> Event:
        event = Event(
            at=self.clock(), process=process, what=what, key=key, call=call, output=output
        )
        self.events.append(event)
        return event

    def promise(self, said: Promise) -> None:
        """Compare what a node says is final with what was said before, by anybody."""
        before = self.promises.setdefault(said.entry, said)
        if (before.height, before.verdict) != (said.height, said.verdict):
            self.broken.append(
                f"{said.entry[:12]}: {before.told_by} said {before.verdict} at {before.height}, "
                f"{said.told_by} says {said.verdict} at {said.height}"
            )

    def operations(self) -> list[tuple[str, Operation]]:
        """Object and operation, for the checker; what certainly failed did not happen."""
        found: list[tuple[str, Operation]] = []
        open_by: dict[int, Event] = {}
        for event in self.events:
            if event.what == "invoke":
                assert event.process not in open_by, "a client does one thing at a time"
                open_by[event.process] = event
                continue
            begun = open_by.pop(event.process)
            if event.what == "info":
                open_by[-event.at] = begun  # its number is not used again; its outcome is open
            elif event.what == "ok":
                found.append((event.key, _operation(begun, event.at, event.output)))
        found += [(begun.key, _operation(begun, None, UNKNOWN)) for begun in open_by.values()]
        return found

    def counts(self) -> Mapping[str, int]:
        """How many operations ended in which way; *open*: still under way."""
        counted = Counter(event.what for event in self.events)
        ends = {str(what): counted[what] for what in ENDS}
        return {**ends, "open": counted["invoke"] - sum(ends.values())}

    def write(self, path: Path) -> None:
        """Keep the events, a JSON object a line."""
        lines = (
            json.dumps({name: getattr(event, name) for name in Event.__slots__})
            for event in self.events
        )
        path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> History:
        """What ``write`` kept."""
        rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
        return cls(events=[Event(**{**row, "call": tuple(row["call"])}) for row in rows])


def _operation(begun: Event, ended: int | None, output: Any) -> Operation:
    return Operation(
        process=begun.process, began=begun.at, ended=ended, call=begun.call, output=output
    )


def unlinearizable(history: History, initial: Hashable = None) -> tuple[list[str], list[str]]:
    """Registers whose history no order explains, and those whose search was given up."""
    wrong, given_up = [], []
    objects: dict[str, list[Operation]] = {}
    for key, operation in history.operations():
        objects.setdefault(key, []).append(operation)
    for key, operations in objects.items():
        found = check(operations, Register(initial)).linearizable
        if found is None:
            given_up.append(key)
        elif not found:
            wrong.append(key)
    return wrong, given_up


def prefix_faults(census: Census, ledger: bytes) -> list[str]:
    """What is wrong with the ledgers of stopped homes: each is a prefix of the longest.

    The census has checked parents and certificates; here homes are compared.
    """
    faults = [f"{name}: {fault}" for name, home in census.homes.items() for fault in home.faults]
    chains = {name: _chain(home.blocks, ledger) for name, home in census.homes.items()}
    longest = max(chains.values(), key=len, default=[])
    for name, chain in chains.items():
        for height, (ours, theirs) in enumerate(zip(chain, longest, strict=False), start=1):
            if ours != theirs:
                faults.append(f"{name}: another block at height {height}")
                break
    return faults


def _chain(blocks: Mapping[tuple[bytes, int], bytes], ledger: bytes) -> list[bytes]:
    """Digests from height 1 on."""
    found: list[bytes] = []
    while (digest := blocks.get((ledger, len(found) + 1))) is not None:
        found.append(digest)
    return found
