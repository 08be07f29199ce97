"""What can happen to a channel and what it can ask for: two closed sets."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from p2pmed.engine import DeadlineReached
from p2pmed.transport.messages import Hello

__all__ = [
    "ChannelEffect",
    "ChannelEvent",
    "CloseAsked",
    "Closed",
    "Deliver",
    "Established",
    "FrameIn",
    "FrameOut",
    "Opened",
    "SendMessage",
    "Writable",
]

# --- events ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Opened:
    """The connection under the channel stands; the first event, once."""


@dataclass(frozen=True, slots=True)
class FrameIn:
    """One binary WebSocket message arrived."""

    frame: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class SendMessage:
    """Queue a message. The caller has asked ``fits`` first."""

    message: bytes = field(repr=False)
    control: bool = False


@dataclass(frozen=True, slots=True)
class Writable:
    """All frames given out so far have been written; one more may come."""


@dataclass(frozen=True, slots=True)
class CloseAsked:
    """Our side wants to end it; ``reason`` in a few plain words, which the peer may see."""

    reason: str


ChannelEvent: TypeAlias = Opened | FrameIn | SendMessage | Writable | CloseAsked | DeadlineReached


# --- effects --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FrameOut:
    """Send one binary WebSocket message."""

    frame: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Established:
    """The peer has proved its key and its credential holds."""

    peer: bytes
    chain: tuple[bytes, ...] = field(repr=False)
    hello: Hello


@dataclass(frozen=True, slots=True)
class Deliver:
    """One whole message from the peer."""

    message: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Closed:
    """The channel is over; the last effect, once."""

    reason: str


ChannelEffect: TypeAlias = FrameOut | Established | Deliver | Closed
