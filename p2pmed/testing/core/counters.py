"""The application of a simulated mesh: it orders counters, each of them once.

A block is a list of counters that none of its ancestors holds. Rules:

* A block is executed on its parent (``check``), with what the parent's ancestors ordered.
* A counter whose body is not here makes a block ``MISSING`` until it comes.
* Anything that cannot be read, and a counter ordered twice, makes a block ``INVALID``.
* A Simplex block that stays undecided for a view needs a child, so that it may be empty.
"""

from __future__ import annotations

from typing import Final

from p2pmed.consensus.interface import Block, Check, Content, Header, header_digest
from p2pmed.errors import DecodeError, InvariantError
from p2pmed.testing.core.keys import LEDGER
from p2pmed.wire import cbor
from p2pmed.wire.hashing import hash_bytes

__all__ = ["Counters"]

BLOCK_ITEMS_MAX: Final = 8
"""Counters in one block: a backlog then needs several."""


class Counters:
    """What one member knows, executes and has applied; an ``interface.Application``."""

    def __init__(self, *, empty_children: bool) -> None:
        self.known: dict[int, None] = {}
        """Counters whose bodies are here."""
        self.decided: dict[int, int] = {}
        """Counter -> height of its block."""
        self.tip = LEDGER
        """Digest of the last applied block."""
        self._empty_children = empty_children
        self._waiting: dict[int, None] = {}
        self._live: dict[bytes, tuple[Header, tuple[int, ...]]] = {}

    def learn(self, item: int) -> None:
        """The body of ``item`` came."""
        if item not in self.known:
            self.known[item] = None
            if item not in self.decided:
                self._waiting[item] = None

    def build(self, parent: bytes, view: int) -> Content | None:
        """See ``Application.build``. Raises ``InvariantError`` on a parent never checked."""
        used = self._used(parent)
        if used is None:
            raise InvariantError("asked to build on a parent that was never checked")
        items = [item for item in self._waiting if item not in used]
        if not items and not self._is_stuck(parent, view):
            return None
        data = cbor.encode(sorted(items)[:BLOCK_ITEMS_MAX])
        return Content(hash=hash_bytes(data), data=data)

    def check(self, block: Block) -> Check:
        """See ``Application.check``."""
        header = block.header
        if hash_bytes(block.content) != header.content:
            return Check.INVALID
        used = self._used(header.parent)
        if used is None:
            return Check.MISSING
        items = read_items(block.content)
        if items is None or any(item in used or item in self.decided for item in items):
            return Check.INVALID
        if any(item not in self.known for item in items):
            return Check.MISSING
        self._live[header_digest(header)] = (header, items)
        return Check.VALID

    def pending(self) -> bool:
        """Whether a counter waits to be ordered."""
        return bool(self._waiting)

    def apply(self, block: Block) -> None:
        """What a driver does with a decided block; the oracle has judged it before."""
        for item in read_items(block.content) or ():
            self.known[item] = None
            self.decided[item] = block.header.height
            self._waiting.pop(item, None)
        self.tip = header_digest(block.header)
        height = block.header.height
        self._live = {d: b for d, b in self._live.items() if b[0].height > height}

    def _used(self, parent: bytes) -> set[int] | None:
        used: set[int] = set()
        while parent != self.tip:
            found = self._live.get(parent)
            if found is None:
                return None
            used.update(found[1])
            parent = found[0].parent
        return used

    def _is_stuck(self, parent: bytes, view: int) -> bool:
        if not self._empty_children or parent == self.tip:
            return False
        return view > self._live[parent][0].view + 1


def read_items(content: bytes) -> tuple[int, ...] | None:
    """The distinct counters in ``content``, or ``None`` if it holds anything else."""
    try:
        items = cbor.decode(content)
    except DecodeError:
        return None
    if not isinstance(items, list) or not all(type(item) is int for item in items):
        return None
    return tuple(items) if len(set(items)) == len(items) <= BLOCK_ITEMS_MAX else None
