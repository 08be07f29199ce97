"""Effects of one step, in the order in which they must be carried out."""

from __future__ import annotations

from p2pmed.consensus.bft.messages import Message, encode_message
from p2pmed.consensus.interface import Broadcast, ConsensusEffect, SendTo

__all__ = ["Outbox"]


class Outbox:
    """A list that knows how to spell messages."""

    def __init__(self) -> None:
        self._effects: list[ConsensusEffect] = []

    def put(self, effect: ConsensusEffect) -> None:
        """One more effect, after all before."""
        self._effects.append(effect)

    def broadcast(self, *messages: Message) -> None:
        """To every other validator."""
        for message in messages:
            self._effects.append(Broadcast(message=encode_message(message)))

    def send(self, seat: int, *messages: Message) -> None:
        """To one validator."""
        for message in messages:
            self._effects.append(SendTo(seat=seat, message=encode_message(message)))

    def take(self) -> list[ConsensusEffect]:
        """Everything, once."""
        effects, self._effects = self._effects, []
        return effects
