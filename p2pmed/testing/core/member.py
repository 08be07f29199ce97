"""One seat of a simulated mesh: what the asyncio driver does for an engine, in virtual time.

Rules:

* Effects are carried out in their order. ``Store`` is staged; flushes are one at a time, and
  ``Persisted`` comes when its flush has landed.
* A crash loses the engine and whatever had not landed; a restart reads what had.
* A paused member gets its events late, and its clock goes on meanwhile.
* A clock may run fast or slow and may jump ahead; a monotonic clock never goes back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from p2pmed.consensus.interface import (
    Behind,
    Broadcast,
    Certified,
    ConsensusEffect,
    ConsensusEngine,
    ConsensusEvent,
    Decide,
    Evidence,
    Heard,
    Leave,
    Read,
    ReadAt,
    Receive,
    Recovered,
    SendTo,
    Store,
    Work,
)
from p2pmed.engine import DeadlineReached, Instant, Persisted
from p2pmed.testing.core.counters import Counters
from p2pmed.testing.core.disk import REMEMBERS, CoreDisk, Proved
from p2pmed.testing.core.keys import SeatSigner

if TYPE_CHECKING:
    from p2pmed.testing.core.world import CoreWorld

__all__ = ["Member"]

ABSTAINS_VIEWS = 8
"""A seat that recovered from amnesia says nothing in so many views, or fewer (R12)."""

FETCH_BLOCKS = 20
"""Blocks in one answer of the stand-in for ``sync/chains.py``."""


@dataclass(slots=True)
class LocalClock:
    """A monotonic clock with an error of its own."""

    offset: int = 0
    rate: int = 1_000
    """Milliseconds that it counts in a true second."""

    def read(self, now: int) -> Instant:
        """What it shows at the true instant ``now``."""
        return Instant(now * self.rate // 1_000 + self.offset)

    def wait(self, instant: int, now: int) -> int:
        """True milliseconds until it shows ``instant``; 0 if it has."""
        return max(0, -(-(instant - self.offset) * 1_000 // self.rate) - now)


class Member:
    """A driver, its engine, its disk, its application and its clock."""

    honest = True

    def __init__(self, world: CoreWorld, place: int, seat: int) -> None:
        self.world, self.place, self.seat = world, place, seat
        self.disk = CoreDisk()
        self.clock = LocalClock()
        self.application = Counters(empty_children=world.is_bft)
        self.engine: ConsensusEngine | None = None
        self.chain: list[Proved] = []
        """Decided blocks, staged included."""
        self.backup: CoreDisk | None = None
        """A copy of the disk that somebody made once."""
        self.forgot = False
        """It lost what it had signed: from then on it is nobody's fault if it contradicts."""
        self.gone = False
        """It stays down for good, or until the fault that took it ends."""
        self._free_at = 0
        self.life = 0
        self.sent = 0
        self._bodies: dict[int, None] = {}
        self._tokens: list[int] = []
        self._flushing = False
        self._fetching = False
        self._wake_at: int | None = None
        self._paused_until = 0
        self._parked: list[ConsensusEvent] = []

    @property
    def up(self) -> bool:
        """Whether an engine runs here."""
        return self.engine is not None

    @property
    def current(self) -> int:
        """The view or term in which its engine is; 0 while none runs."""
        status = {} if self.engine is None else self.engine.status()
        return int(status.get("view", status.get("term", 0)))

    @property
    def remembers(self) -> bool:
        """Whether it is here and may vote: not away, and not held back by what it forgot."""
        held_back = self._free_at and self.current <= self._free_at
        return not (self.gone or self.disk.amnesic or held_back)

    @property
    def busy(self) -> bool:
        """Whether its timers run or something waits to be ordered."""
        engine = self.engine
        return engine is not None and (engine.deadline is not None or self.application.pending())

    # --- life -----------------------------------------------------------------------------

    def start(self) -> None:
        """Make an engine from what is on the disk."""
        if self.engine is not None or self.gone:
            return
        world = self.world
        self.life += 1
        self.application = Counters(empty_children=world.is_bft)
        for item in self._bodies:
            self.application.learn(item)
        self.chain = list(self.disk.chain)
        for block, _ in self.chain:
            self.application.apply(block)
        flags: dict[str, Any] = {"amnesic": True} if self.disk.amnesic else {}
        tip, certificate = (None, None) if not self.chain else self.chain[-1]
        self.engine = world.factory(
            epoch=world.epoch,
            seat=self.seat,
            signer=SeatSigner(world.book, self.seat),
            application=self.application,
            rng=world.dice,
            records=dict(self.disk.rows),
            tip=None if tip is None else tip.header,
            tip_certificate=certificate,
            now=self.clock.read(world.now),
            verify=world.book.verify,
            **flags,
        )
        self.step(Work())

    def crash(self) -> None:
        """The power goes."""
        if self.engine is None:
            return
        self.life += 1
        self.engine = None
        self._wake_at = None
        if self._flushing and self.world.dice.random() < 0.5:
            self.disk.land()
        self.disk.lose()
        self._tokens.clear()
        self._parked.clear()
        self._paused_until = 0
        self._flushing = self._fetching = False

    def lose_disk(self, *, restored: bool) -> None:
        """The disk is replaced: by an empty one, or by the backup. Only while it is down."""
        copy = self.backup if restored and self.backup is not None else CoreDisk()
        self.disk = copy.backup()
        self.disk.amnesic = self.world.recovers

    def wake_now(self) -> None:
        """The clock was set, or a pause ends early: look at it."""
        if self.engine is not None:
            self._paused_until = 0
            self._resume(self.life)

    def pause(self, wait: int) -> None:
        """Nothing is processed for a while; nothing is lost either."""
        self._paused_until = self.world.now + wait
        self.world.after(wait, self._resume, self.life)

    def leave(self) -> None:
        """It is about to stop: whoever leads hands over first."""
        self.step(Leave())

    # --- events in ------------------------------------------------------------------------

    def receive(self, sender: int, message: bytes) -> None:
        """A message from the seat ``sender``."""
        self.step(Receive(sender, message))

    def heard(self, sender: int) -> None:
        """A ping from the seat ``sender``."""
        self.step(Heard(sender))

    def learn(self, item: int) -> None:
        """A body came by gossip; it is stored even while no engine runs."""
        if item not in self._bodies:
            self._bodies[item] = None
            self.application.learn(item)
            self.step(Work())

    def read(self, token: int) -> None:
        """Ask for a linearizable read."""
        self.step(Read(token))

    def step(self, event: ConsensusEvent) -> None:
        """Give one event to the engine and carry out what it wants."""
        world = self.world
        if self.engine is None:
            return
        if world.now < self._paused_until:
            self._parked.append(event)
            return
        world.note_step(self, event)
        life = self.life
        for effect in self.engine.step(event, self.clock.read(world.now)):
            self._perform(effect)
            if life != self.life:
                return
        world.oracle.on_step(self)
        self._schedule()

    # --- effects out ----------------------------------------------------------------------

    def _perform(self, effect: ConsensusEffect) -> None:
        match effect:
            case Broadcast():
                self.say(None, effect.message)
            case SendTo():
                self.say(effect.seat, effect.message)
            case Store():
                self.disk.staged.extend(effect.records)
                self.world.oracle.on_store(self, effect.records)
                self._tokens.append(effect.token)
                self._flush()
            case Decide():
                self.world.oracle.on_decide(self, effect.block, effect.certificate)
                self._take(effect.block, effect.certificate)
            case Behind():
                if not self._fetching:
                    self._fetching = True
                    wait = self.world.dice.randint(5, 50)
                    self.world.after(wait, self._fetch, effect.seat, self.life)
            case Evidence():
                self.world.oracle.on_evidence(self, effect)
            case ReadAt():
                self.world.oracle.on_read(self, effect)
            case Recovered():
                self.disk.staged.append(REMEMBERS)
                self._free_at = self.current + ABSTAINS_VIEWS

    def say(self, seat: int | None, message: bytes) -> None:
        """Put ``message`` on the wire to one seat, or to all others."""
        self.sent += 1
        self.world.send(self, seat, message)

    def _take(self, block: Any, certificate: Any) -> None:
        self.application.apply(block)
        self.chain.append((block, certificate))
        self.disk.staged.append((block, certificate))
        self._flush()

    def _flush(self) -> None:
        if self._flushing:
            return
        self._flushing = True
        self.disk.begin()
        tokens, self._tokens = self._tokens, []
        wait = self.world.dice.randint(*self.world.flush_of(self))
        self.world.after(wait, self._flushed, tokens, self.life)

    def _flushed(self, tokens: list[int], life: int) -> None:
        if life != self.life:
            return
        self.disk.land()
        self.world.oracle.on_landed(self)
        self._flushing = False
        if self.disk.staged:
            self._flush()
        for token in tokens:
            self.step(Persisted(token))
        if self._tokens:
            self._flush()

    def _fetch(self, seat: int | None, life: int) -> None:
        """Stands for ``sync/chains.py``: certified blocks above our own height, in order."""
        if life != self.life or self.engine is None:
            return
        self._fetching = False
        peers = [p for p in self.world.sources(self) if len(p.chain) > len(self.chain)]
        if not peers:
            return
        named = [p for p in peers if p.seat == seat]
        peer = self.world.choose(named or peers)
        news = peer.chain[len(self.chain) : len(self.chain) + FETCH_BLOCKS]
        while news and news[-1][1] is None:
            news.pop()
        for index, (block, certificate) in enumerate(news):
            if life != self.life or block.header.height != len(self.chain) + 1:
                continue
            proof = next(c for _, c in news[index:] if c is not None)
            self.world.oracle.on_fetch(self, block)
            self._take(block, certificate)
            self.step(Certified(header=block.header, certificate=proof))

    # --- time -----------------------------------------------------------------------------

    def _schedule(self) -> None:
        if self.engine is None:
            return
        deadline = self.engine.deadline
        if deadline is None:
            return
        wait = self.clock.wait(deadline, self.world.now)
        at = self.world.now + wait
        if self._wake_at is not None and self._wake_at <= at:
            return
        self._wake_at = at
        self.world.after(wait, self._wake, at, self.life)

    def _wake(self, at: int, life: int) -> None:
        if life != self.life or self.engine is None or self._wake_at != at:
            return
        self._wake_at = None
        if self.world.now < self._paused_until:
            return  # the resume will look at the clock
        deadline = self.engine.deadline
        if deadline is not None and deadline <= self.clock.read(self.world.now):
            self.step(DeadlineReached())
        else:
            self._schedule()

    def _resume(self, life: int) -> None:
        if life != self.life or self.world.now < self._paused_until:
            return
        parked, self._parked = self._parked, []
        for event in parked:
            self.step(event)
        self._wake_at = None
        self._schedule()
