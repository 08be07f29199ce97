"""Readers who wait until what they read is linearizable.

The engine says, after a quorum confirmed it, up to which height anybody may have been told
*final* before the question (``Read`` and ``ReadAt`` of ``consensus/interface.py``). The reader is
answered when this node's own blocks are durable up to there: what the state shows then includes
everything that was final anywhere when the reader asked.

An answer that names the seal of its epoch, or an engine's tail above it, says nothing of the
epoch that follows. Its validators may be others, who decided already while a quorum of the old
ones, each still without the proof of the seal, answered truly: such a reader asks again, in the
next epoch. Any lower answer stands: whoever decides in the next epoch has the seal proved, so a
quorum of the old one had voted for it, and a question after that names it.
"""

from __future__ import annotations

from collections.abc import Callable
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
    """The readers of one ledger.

    ``begun_at(number)``: the height at which an epoch began, or ``None``.
    """

    def __init__(self, begun_at: Callable[[int], int | None]) -> None:
        self._begun_at = begun_at
        self._tokens = 0
        self._asked: dict[int, tuple[int, int]] = {}
        """Token -> request and epoch: waiting for the engine."""
        self._waiting: dict[int, tuple[int, int]] = {}
        """Request -> height and epoch: waiting for blocks."""

    def begin(self, request: int, epoch: int) -> int:
        """A token for the engine of ``epoch``.

        Raises ``LocalProtocolError`` if too many readers wait.
        """
        if len(self._asked) + len(self._waiting) >= READERS_MAX:
            raise LocalProtocolError(
                f"{READERS_MAX} readers wait already", hint="let them be answered first"
            )
        self._tokens += 1
        self._asked[self._tokens] = (request, epoch)
        return self._tokens

    def settle(self, turn: Turn, effect: ReadAt | ReadFailed, durable_height: int) -> None:
        """The engine answered."""
        asked = self._asked.pop(effect.token, None)
        if asked is None:
            return
        request, epoch = asked
        if isinstance(effect, ReadFailed):
            error = Unconfirmed(
                "no quorum of the ledger's validators confirmed the read",
                hint="it needs a majority of them in reach",
            )
            turn.effects.append(events.Reply(request, error=error))
            return
        self._waiting[request] = (effect.height, epoch)
        self.reached(turn, durable_height)

    def reached(self, turn: Turn, height: int) -> None:
        """Blocks are durable up to ``height``."""
        for request, (wanted, epoch) in list(self._waiting.items()):
            begun = self._begun_at(epoch + 1)
            if begun is not None and wanted >= begun - 1:
                del self._waiting[request]
                error = Unconfirmed(
                    "the epoch that confirmed the read is over", hint="ask again in the next one"
                )
                turn.effects.append(events.Reply(request, error=error))
            elif wanted <= height:
                del self._waiting[request]
                turn.effects.append(events.Reply(request, count=height))

    def give_up(self, turn: Turn) -> None:
        """The engine that was asked is no more: its readers ask again."""
        for token in list(self._asked):
            self.settle(turn, ReadFailed(token), 0)
