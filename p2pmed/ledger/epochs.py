"""Epochs of a ledger: who decides now, who decides next, and who decided at which height.

A ledger is a sequence of epochs. An epoch ends with a *seal*: the block whose execution leaves a
next epoch in the state. The first block of the next epoch has the height above the seal, the
seal's digest as its parent, and starts again at view (or term) 1. In force is what is *decided*,
never what is merely executed: a seal that is undone by another branch changes nobody's quorum.

Rule: two rows of the state say who decides, so that every node's state machine sees the same
seats: ``00 65`` holds the epoch of the last executed block, ``00 6e`` the next one, which stands
from the seal until the first block above it. Beside the state, each node keeps for every ledger
at which height each epoch began: what a block of the past is checked against.

Byte-exact: ``docs/protocols/block.md``, section 9.
"""

from __future__ import annotations

from typing import Final

from p2pmed.errors import CredentialError, LocalProtocolError
from p2pmed.ledger.state import Readable, View
from p2pmed.quorum.certificate import Epoch
from p2pmed.wire import codec
from p2pmed.world import Disk, Space

__all__ = ["Epochs", "begin", "check_next", "epoch_of", "next_epoch_of", "seal"]

_EPOCH: Final = b"\x00e"
_NEXT: Final = b"\x00n"
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


def begin(view: View, epoch: Epoch) -> None:
    """The block in execution is of ``epoch``; if it is the first, nothing is next any more."""
    raw = codec.encode(epoch)
    if view.get(_EPOCH) != raw:
        view.put(_EPOCH, raw)
        if view.get(_NEXT) is not None:
            view.delete(_NEXT)


class Epochs:
    """At which height each epoch of one ledger began, as the disk keeps it."""

    def __init__(self, disk: Disk, first: Epoch) -> None:
        self._disk = disk
        self._first = first
        self._prefix = _ROW + first.ledger

    def at(self, height: int) -> Epoch:
        """Who decides the block at ``height``, as far as seals are known."""
        key = self._prefix + height.to_bytes(8, "big")
        rows = self._disk.scan(Space.META, self._prefix, key + b"\x00", limit=1, reverse=True)
        return codec.decode(rows[0][1], Epoch) if rows else self._first

    def numbered(self, number: int) -> Epoch | None:
        """The epoch with this number, or ``None`` if it has not begun as far as is known."""
        if number == self._first.number:
            return self._first
        start = self._prefix
        while rows := self._disk.scan(Space.META, start, self._prefix + b"\xff" * 9, limit=64):
            for _, raw in rows:
                epoch = codec.decode(raw, Epoch)
                if epoch.number == number:
                    return epoch
            start = rows[-1][0] + b"\x00"
        return None

    def stage(self, epoch: Epoch, height: int) -> None:
        """``epoch`` decides from ``height`` on: the seal below it is stored in this commit."""
        self._disk.stage(Space.META, self._prefix + height.to_bytes(8, "big"), codec.encode(epoch))
