"""The one shape of every protocol core: event in, effects out, one deadline.

Rules:

* A core is deterministic. Time is handed in; dice and entropy are injected; it does no I/O,
  reads no clock, and never iterates a set or relies on ``hash()`` order.
* Effects are carried out in the order returned: the order is a promise.
* ``Persist(token)`` asks that everything staged so far be durable. The driver groups such
  requests into one flush and answers with ``Persisted(token)``; a send that depends on the
  flush is returned only from that later step. ``Held`` keeps such effects meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, NewType, Protocol, TypeVar

__all__ = [
    "DeadlineReached",
    "Engine",
    "Entropy",
    "Held",
    "Instant",
    "Persist",
    "Persisted",
    "Rng",
    "earliest",
]

Instant = NewType("Instant", int)
"""Milliseconds on a monotonic clock with no meaning outside the process."""

EventT = TypeVar("EventT", contravariant=True)
EffectT = TypeVar("EffectT", covariant=True)
HeldT = TypeVar("HeldT")


class Rng(Protocol):
    """Dice: for jitter and choice, never for a key, a nonce or a salt."""

    def randint(self, low: int, high: int) -> int:
        """An integer in ``low..high``, both included."""


class Entropy(Protocol):
    """Secrets: for keys, nonces and salts, never for jitter."""

    def token(self, size: int) -> bytes:
        """``size`` unpredictable bytes."""


@dataclass(frozen=True, slots=True)
class DeadlineReached:
    """The engine's own deadline has come."""


@dataclass(frozen=True, slots=True)
class Persist:
    """Effect: make all that was staged before this effect durable, then say ``Persisted``."""

    token: int


@dataclass(frozen=True, slots=True)
class Persisted:
    """Event: everything staged before the ``Persist`` with this token is on the disk."""

    token: int


class Engine(Protocol[EventT, EffectT]):
    """What every core offers; know one and you know all."""

    @property
    def deadline(self) -> Instant | None:
        """When to come back even if nothing happens; ``None`` is never."""

    def step(self, event: EventT, now: Instant) -> Sequence[EffectT]:
        """Take one event; return effects, to be carried out in this order."""


class Held(Generic[HeldT]):
    """Effects that wait for a flush, by token; tokens rise and are used once."""

    def __init__(self) -> None:
        self._last = 0
        self._waiting: dict[int, tuple[HeldT, ...]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def hold(self, effects: Sequence[HeldT]) -> int:
        """Keep ``effects``; return the token whose flush sets them free."""
        self._last += 1
        self._waiting[self._last] = tuple(effects)
        return self._last

    def release(self, token: int) -> tuple[HeldT, ...]:
        """Hand out what waited for ``token``; nothing the second time."""
        return self._waiting.pop(token, ())


def earliest(*instants: Instant | None) -> Instant | None:
    """The first of several deadlines, where ``None`` is never."""
    known = [instant for instant in instants if instant is not None]
    return min(known) if known else None
