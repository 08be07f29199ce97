"""One step of a node: where its parts put their effects, and what waits for the flush.

Everything staged during a turn is made durable by one ``Persist`` at its end; what depends on
that is put in ``when_durable`` and runs in the turn that the matching ``Persisted`` begins.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from p2pmed.engine import Instant
from p2pmed.gossip.events import Grew
from p2pmed.node.events import DropLink, NodeEffect, Notice, Notify, SendFrame
from p2pmed.wire import cbor, codec

__all__ = ["Turn"]


class Turn:
    """Collects the effects of one step, in order."""

    def __init__(self, now: Instant) -> None:
        self.now = now
        self.effects: list[NodeEffect] = []
        self.after: list[Callable[[Turn], None]] = []
        self.staged = False
        self.work = False
        """Something changed that consensus may act on."""
        self.grown: list[Grew] = []
        """What is durable since the last turn, for gossip to tell at the end of this one."""
        self._spelled: dict[int, tuple[Any, bytes]] = {}
        """Messages by identity with their bytes: one that goes to all is spelled once."""

    def due(self, deadline: Instant | None) -> bool:
        """Whether a deadline has come."""
        return deadline is not None and deadline <= self.now

    def send(self, peer: bytes, message: Any, *, control: bool) -> None:
        """Queue a typed message."""
        known = self._spelled.get(id(message))
        if known is None:
            known = message, cbor.encode_trusted(codec.plain(message))
            self._spelled[id(message)] = known
        self.effects.append(SendFrame(peer, known[1], control))

    def drop(self, peer: bytes, reason: str) -> None:
        """Close a channel on the peer's fault."""
        self.effects.append(DropLink(peer, reason))

    def notify(self, notice: Notice) -> None:
        """Tell the embedding application."""
        self.effects.append(Notify(notice))

    def when_durable(self, then: Callable[[Turn], None]) -> None:
        """Run ``then`` once everything staged so far in this turn is on the disk."""
        self.staged = True
        self.after.append(then)
