"""What a simulated member has on its disk, and what a power cut takes from it.

Rules:

* Rows are staged in order and land in flushes; only what landed survives a crash.
* The flush in flight when the power goes may or may not have landed: the dice say.
* A decided block is staged like a row, so that it and the rows beside it land together.
* A backup is a copy of what had landed; a wiped disk has nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, TypeAlias

from p2pmed.consensus.interface import Block, Record
from p2pmed.quorum.certificate import Certificate

__all__ = ["REMEMBERS", "CoreDisk", "Proved"]

Proved: TypeAlias = tuple[Block, Certificate | None]
"""A decided block; without a certificate if a descendant's proves it."""


REMEMBERS: Final = Record(b"remembers", None)
"""Staged when an engine has recovered: what marks the loss goes in that very commit."""


@dataclass(slots=True)
class CoreDisk:
    """Rows of one engine, and the decided blocks."""

    rows: dict[bytes, bytes] = field(default_factory=dict)
    """What landed."""
    chain: list[Proved] = field(default_factory=list)
    """Decided blocks that landed, from height 1."""
    staged: list[Record | Proved] = field(default_factory=list)
    flying: int = 0
    """How many of ``staged`` the running flush covers."""
    flushes: int = 0
    amnesic: bool = False
    """What was signed is forgotten, and the engine has not yet learnt enough to vote."""

    def begin(self) -> None:
        """A flush of all that is staged begins."""
        self.flying = len(self.staged)
        self.flushes += 1

    def land(self) -> None:
        """The flush is done."""
        for what in self.staged[: self.flying]:
            if isinstance(what, tuple):
                self.chain.append(what)
            elif what is REMEMBERS:
                self.amnesic = False
            elif what.value is None:
                self.rows.pop(what.key, None)
            else:
                self.rows[what.key] = what.value
        del self.staged[: self.flying]
        self.flying = 0

    def lose(self) -> None:
        """The power is gone: nothing staged remains."""
        self.staged.clear()
        self.flying = 0

    def backup(self) -> CoreDisk:
        """A copy of what landed."""
        return CoreDisk(rows=dict(self.rows), chain=list(self.chain))
