"""Readers who wait until what they read is linearizable.

The engine says, after a quorum confirmed it, up to which height anybody may have been told
*final* before the question (``Read`` and ``ReadAt`` of ``consensus/interface.py``). The reader is
answered when this node's own blocks are durable up to there: what the state shows then includes
everything that was final anywhere when the reader asked.
"""

from __future__ import annotations

from typing import Final

from p2pmed.consensus.interface import ReadAt, ReadFailed
from p2pmed.errors import LocalProtocolError, P2pmedError
from p2pmed.node import events
from p2pmed.node.turn import Turn

__all__ = ["Barriers", "Unconfirmed"]

READERS_MAX: Final = 1_024


class Unconfirmed(P2pmedError):
    """No quorum stood behind a read in time; nothing changed, and it may be asked again."""


class Barriers:
    """The readers of one ledger."""

    def __init__(self) -> None:
        self._tokens = 0
        self._asked: dict[int, int] = {}
        """Token -> request: waiting for the engine."""
        self._waiting: dict[int, int] = {}
        """Request -> height: waiting for blocks."""

    def begin(self, request: int) -> int:
        """A token for the engine. Raises ``LocalProtocolError`` if too many readers wait."""
        if len(self._asked) + len(self._waiting) >= READERS_MAX:
            raise LocalProtocolError(
                f"{READERS_MAX} readers wait already", hint="let them be answered first"
            )
        self._tokens += 1
        self._asked[self._tokens] = request
        return self._tokens

    def settle(self, turn: Turn, effect: ReadAt | ReadFailed, durable_height: int) -> None:
        """The engine answered."""
        request = self._asked.pop(effect.token, None)
        if request is None:
            return
        if isinstance(effect, ReadFailed):
            error = Unconfirmed(
                "no quorum of the ledger's validators confirmed the read",
                hint="it needs a majority of them in reach",
            )
            turn.effects.append(events.Reply(request, error=error))
            return
        self._waiting[request] = effect.height
        self.reached(turn, durable_height)

    def reached(self, turn: Turn, height: int) -> None:
        """Blocks are durable up to ``height``."""
        for request, wanted in list(self._waiting.items()):
            if wanted <= height:
                del self._waiting[request]
                turn.effects.append(events.Reply(request, count=height))

    def give_up(self, turn: Turn) -> None:
        """The engine that was asked is no more: its readers ask again."""
        for token in list(self._asked):
            self.settle(turn, ReadFailed(token), 0)
