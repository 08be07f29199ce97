"""Epochs of a ledger: who decides now, who decides next, and who decided at which height.

A ledger is a sequence of epochs. An epoch ends with a *seal*: the block whose execution leaves a
next epoch in the state. The first block of the next epoch has the height above the seal, the
seal's digest as its parent, and starts again at view (or term) 1. In force is what is *decided*,
never what is merely executed: a seal that is undone by another branch changes nobody's quorum.

Rule: two rows of the state say who decides, so that every node's state machine sees the same
seats: ``00 65`` holds the epoch of the last executed block, ``00 6e`` the next one, which stands
from the seal until the first block above it. ``00 67`` names the engine, and ``00 62`` the last
headers, by which a node that joins proves that it has caught up. Beside the state, each node
keeps for every ledger at which height each epoch began: what a block of the past is checked
against.

Byte-exact: ``docs/protocols/block.md``, section 9.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from p2pmed.errors import CredentialError, LocalProtocolError
from p2pmed.ledger.state import Readable, View
from p2pmed.quorum.certificate import Epoch
from p2pmed.wire import codec
from p2pmed.world import Disk, Space

__all__ = [
    "BLOCKS_NOTED",
    "Epochs",
    "begin",
    "check_next",
    "engine_of",
    "epoch_of",
    "next_epoch_of",
    "note_block",
    "noted_block",
    "seal",
]

_EPOCH: Final = b"\x00e"
_NEXT: Final = b"\x00n"
_ENGINE: Final = b"\x00g"
_BLOCK: Final = b"\x00b"
BLOCKS_NOTED: Final = 1_024
"""Headers remembered in the state: a node that joins has caught up to one of them."""
_ROW: Final = b"epoch"
"""META row, before a ledger's id and the height of the first block of an epoch."""


def epoch_of(state: Readable) -> Epoch | None:
    """The epoch of the last executed block; ``None`` before the first (see the genesis)."""
    raw = state.get(_EPOCH)
    return None if raw is None else codec.decode(raw, Epoch)


def next_epoch_of(state: Readable) -> Epoch | None:
    """The epoch that follows, if ``state`` is that after a seal."""
    raw = state.get(_NEXT)
    return None if raw is None else codec.decode(raw, Epoch)


def seal(view: View, following: Epoch) -> None:
    """Let the block in execution be the last of its epoch; ``following`` was checked."""
    view.put(_NEXT, codec.encode(following))


def check_next(epoch: Epoch, following: Epoch) -> None:
    """Raises ``CredentialError`` unless ``following`` may come after ``epoch``."""
    if following.ledger != epoch.ledger or following.number != epoch.number + 1:
        raise CredentialError(f"an epoch that does not follow epoch {epoch.number}")
    try:
        following.check()
    except LocalProtocolError as error:
        raise CredentialError(f"a next epoch that cannot be: {error}") from None


def begin(view: View, epoch: Epoch, engine: str) -> None:
    """The block in execution is of ``epoch``; if it is the first, nothing is next any more."""
    raw = codec.encode(epoch)
    if view.get(_EPOCH) != raw:
        view.put(_EPOCH, raw)
        view.put(_ENGINE, engine.encode("ascii"))
        if view.get(_NEXT) is not None:
            view.delete(_NEXT)


def engine_of(state: Readable) -> str:
    """``bft`` or ``raft``; empty before the first block."""
    return (state.get(_ENGINE) or b"").decode("ascii")


def note_block(view: View, height: int, digest: bytes) -> None:
    """Remember a decided header, for who proves later that it holds the chain so far."""
    view.put(
        _BLOCK + (height % BLOCKS_NOTED).to_bytes(2, "big"), height.to_bytes(8, "big") + digest
    )


def noted_block(state: Readable, height: int) -> bytes | None:
    """Digest of the header at ``height``, if it is among the last ones below this state."""
    raw = state.get(_BLOCK + (height % BLOCKS_NOTED).to_bytes(2, "big"))
    return raw[8:] if raw is not None and int.from_bytes(raw[:8], "big") == height else None


class Epochs:
    """At which height each epoch of one ledger began, as the disk keeps it."""

    def __init__(self, disk: Disk, first: Epoch) -> None:
        self._disk = disk
        self._first = first
        self._prefix = _ROW + first.ledger

    def founded_by(self, node: bytes) -> bool:
        """Whether ``node`` had a seat in the first epoch."""
        return self._first.index_of(node) is not None

    def at(self, height: int) -> Epoch:
        """Who decides the block at ``height``, as far as seals are known."""
        key = self._prefix + height.to_bytes(8, "big")
        rows = self._disk.scan(Space.META, self._prefix, key + b"\x00", limit=1, reverse=True)
        return codec.decode(rows[0][1], Epoch) if rows else self._first

    def numbered(self, number: int) -> Epoch | None:
        """The epoch with this number, or ``None`` if it has not begun as far as is known."""
        if number == self._first.number:
            return self._first
        return next((epoch for _, epoch in self._rows() if epoch.number == number), None)

    def begun_at(self, number: int) -> int | None:
        """The height of the first block of this epoch, or ``None``: one above a seal, but 1."""
        if number == self._first.number:
            return 1
        return next((height for height, epoch in self._rows() if epoch.number == number), None)

    def beginnings(self) -> list[int]:
        """The heights at which epochs after the first began, rising."""
        return sorted(height for height, _ in self._rows())

    def _rows(self) -> Iterator[tuple[int, Epoch]]:
        """The epochs after the first, newest first."""
        end = self._prefix + b"\xff" * 9
        while rows := self._disk.scan(Space.META, self._prefix, end, limit=16, reverse=True):
            for key, raw in rows:
                yield int.from_bytes(key[-8:], "big"), codec.decode(raw, Epoch)
            end = rows[-1][0]

    def stage(self, epoch: Epoch, height: int) -> None:
        """``epoch`` decides from ``height`` on: the seal below it is stored in this commit."""
        self._disk.stage(Space.META, self._prefix + height.to_bytes(8, "big"), codec.encode(epoch))
