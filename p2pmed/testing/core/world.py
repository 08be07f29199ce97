"""A seeded mesh of consensus engines in virtual time: engines only, no node around them.

One heap of (millisecond, number, action), one ``random.Random(seed)``: a seed is a run, byte
for byte, under any hash seed. What a whole node adds (ledger, gossip, channels) is simulated
in ``testing/simulation.py``; here an engine meets thousands of worlds in the same time.

What the world itself checks is one thing: that cores do not keep each other busy for nothing
(``STORM_STEPS_MAX``). All else is the oracle's.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, TypeVar

from p2pmed.consensus.interface import ConsensusEngine, ConsensusEvent, Receive
from p2pmed.limits import PING_MS
from p2pmed.quorum.certificate import Epoch
from p2pmed.testing.core.keys import SignatureBook
from p2pmed.testing.core.member import Member
from p2pmed.testing.core.network import Net

if TYPE_CHECKING:
    from p2pmed.testing.core.oracle import Oracle

__all__ = ["CoreWorld", "Factory", "Violation"]

Factory = Callable[..., ConsensusEngine]
"""Makes an engine from the keywords that both engines take."""

T = TypeVar("T")

STORM_STEPS_MAX: Final = 4_000
"""Steps of one member within ``STORM_MS``: no protocol of twenty seats needs as many."""
STORM_MS: Final = 1_000


class Violation(AssertionError):
    """A promise was broken; the text begins with which."""


class CoreWorld:
    """Members at places, wires between them, time, and what must hold."""

    def __init__(
        self,
        *,
        engine: str,
        factory: Factory,
        epoch: Epoch,
        book: SignatureBook,
        oracle: Oracle,
        dice: random.Random,
    ) -> None:
        self.is_bft = engine == "bft"
        self.factory, self.epoch, self.book, self.oracle = factory, epoch, book, oracle
        self.dice = dice
        self.now = 0
        self.members: list[Member] = []
        """By place."""
        self.places: dict[int, list[Member]] = {}
        """By seat: two for twins."""
        self.net = Net(dice, self.after, self._deliver)
        self.slow_disks: dict[int, tuple[int, int]] = {}
        """Place -> how long a flush takes there."""
        self.steps = 0
        self.items = 0
        self.pings = True
        self.recovers = False
        """Whether engines take ``amnesic=True``: a member without memory recovers alone."""
        self.trace = blake2b(digest_size=16)
        self._heap: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._number = 0
        self._busy: dict[int, tuple[int, int]] = {}
        self._pinging = False

    # --- members --------------------------------------------------------------------------

    def add(self, make: Callable[[CoreWorld, int, int], Member], seat: int) -> Member:
        """Put a member on ``seat``."""
        member = make(self, len(self.members), seat)
        self.members.append(member)
        self.places.setdefault(seat, []).append(member)
        return member

    @property
    def honest(self) -> list[Member]:
        """Who must keep the promises."""
        return [member for member in self.members if member.honest]

    def sources(self, member: Member) -> list[Member]:
        """Whom ``member`` may ask for certified blocks: honest, up and connected."""
        cut = self.net.is_cut
        return [
            other
            for other in self.members
            if other is not member
            and other.honest
            and other.up
            and not cut(other.place, member.place)
            and not cut(member.place, other.place)
        ]

    def choose(self, options: Sequence[T]) -> T:
        """One of ``options``, by the world's dice."""
        return options[int(self.dice.random() * len(options))]

    def flush_of(self, member: Member) -> tuple[int, int]:
        """How long a flush takes at ``member``."""
        return self.slow_disks.get(member.place, self.net.weather.flush)

    # --- time -----------------------------------------------------------------------------

    def after(self, wait: int, action: Callable[..., None], *given: Any) -> None:
        """Have ``action`` happen ``wait`` milliseconds from now."""
        self._number += 1
        heapq.heappush(self._heap, (self.now + wait, self._number, action, given))

    def run(self, until: int, done: Callable[[], bool] | None = None) -> bool:
        """Let time pass up to ``until``, or until ``done``; whether it was ``done``."""
        heap = self._heap
        while heap and heap[0][0] <= until:
            at, _, action, given = heapq.heappop(heap)
            self.now = at
            action(*given)
            if done is not None and done():
                return True
        self.now = until
        return False

    def note_step(self, member: Member, event: ConsensusEvent) -> None:
        """One more step; raises ``Violation`` if a member cannot come to rest."""
        self.steps += 1
        trace = self.trace
        trace.update(b"%d %d %s" % (self.now, member.place, type(event).__name__.encode()))
        if isinstance(event, Receive):
            trace.update(event.message)
        window = self.now // STORM_MS
        since, count = self._busy.get(member.place, (window, 0))
        count = count + 1 if since == window else 1
        self._busy[member.place] = (window, count)
        if count > STORM_STEPS_MAX and not member.honest:
            return
        if count > STORM_STEPS_MAX:
            raise Violation(f"bounded: {count} steps of seat {member.seat} within a second")

    # --- network --------------------------------------------------------------------------

    def send(self, sender: Member, seat: int | None, message: bytes) -> None:
        """Carry ``message`` to everybody at ``seat``, or at every other seat."""
        self.oracle.on_send(sender, seat, message)
        now, place, net = self.now, sender.place, self.net
        if seat is not None:
            for member in self.places.get(seat, ()):
                if member is not sender:
                    net.send(now, place, member.place, message)
            return
        for member in self.members:
            if member.seat != sender.seat:
                net.send(now, place, member.place, message)

    def _deliver(self, sender: int, receiver: int, message: bytes) -> None:
        self.members[receiver].receive(self.members[sender].seat, message)

    def ping(self) -> None:
        """Everybody hears of everybody once; goes on by itself while anybody is busy."""
        if not self.pings or self._pinging:
            return
        self._pinging = True
        self._ping()

    def _ping(self) -> None:
        cut = self.net.is_cut
        for first in self.members:
            if first.up:
                for second in self.members:
                    if first.seat != second.seat and not cut(first.place, second.place):
                        second.heard(first.seat)
        # While all engines rest and none has work nothing would come of it, and work begins
        # with a ping. So weeks of silence cost nothing.
        if any(m.busy for m in self.members):
            self.after(PING_MS, self._ping)
        else:
            self._pinging = False

    # --- work -----------------------------------------------------------------------------

    def submit(
        self,
        spread: tuple[int, int] = (1, 20),
        *,
        everywhere: bool = True,
        first: Member | None = None,
    ) -> int:
        """A new counter at some member; gossip takes it to the others in its own time."""
        self.items += 1
        first = first or self.choose(self.honest)
        for member in self.members:
            if everywhere or member is first or self.dice.random() < 0.8:
                wait = 0 if member is first else self.dice.randint(*spread)
                self.after(wait, member.learn, self.items)
        self.after(0, self.ping)
        return self.items
