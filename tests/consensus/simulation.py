"""A seeded mesh of consensus engines in virtual time, for any ``ConsensusEngine``.

One heap of (millisecond, number, action), one ``random.Random(seed)``: a seed is a run.

* Network: latency, loss, duplication, reordering, one-way and two-way partitions.
* Disk: rows are lost in a crash unless synced; a sync takes time; the one in flight may or
  may not have reached the disk.
* Node: crash, restart from durable rows, all at once too; blocks fetched only on ``Behind``.
* Application: orders counters, executes blocks on their parents, and lacks bodies at times.

Signatures are ideal: a keyed hash that nobody without the key can make.

What is always checked, at each decision: agreement per height, heights in order, the hash
chain, certificates (``check_certificate``), and that nothing is decided twice. Afterwards,
once faults have ceased: every counter is decided everywhere.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Protocol

from p2pmed.consensus.interface import (
    Behind,
    Block,
    Broadcast,
    Certified,
    Check,
    ConsensusEffect,
    ConsensusEngine,
    ConsensusEvent,
    Content,
    Decide,
    Evidence,
    Header,
    Heard,
    ReadAt,
    ReadFailed,
    Receive,
    SendTo,
    Store,
    Work,
    header_digest,
)
from p2pmed.engine import DeadlineReached, Instant, Persisted
from p2pmed.quorum.certificate import (
    Certificate,
    Epoch,
    Validator,
    VoteKind,
    check_certificate,
)
from p2pmed.wire import cbor, codec
from p2pmed.wire.hashing import hash_bytes

LEDGER = hash_bytes(b"a ledger in a simulation")
PING_MS = 500
BLOCK_ITEMS_MAX = 8


class Violation(AssertionError):
    """A promise was broken."""


# --- ideal signatures --------------------------------------------------------------------


def seat_secret(seat: int) -> bytes:
    return hash_bytes(b"secret of seat %d" % seat)


def seat_key(seat: int) -> bytes:
    return hash_bytes(b"public " + seat_secret(seat))


_SECRETS = {seat_key(seat): seat_secret(seat) for seat in range(20)}


class IdealSigner:
    """Signs with a keyed hash; only who holds the secret can."""

    def __init__(self, seat: int) -> None:
        self._secret = seat_secret(seat)

    def sign(self, message: bytes) -> bytes:
        return blake2b(message, digest_size=64, key=self._secret).digest()


def ideal_verify(key: bytes, signature: bytes, message: bytes) -> bool:
    secret = _SECRETS.get(key)
    return secret is not None and (
        blake2b(message, digest_size=64, key=secret).digest() == signature
    )


def make_epoch(seats: int, liars: int | None = None) -> Epoch:
    validators = tuple(
        Validator(node=hash_bytes(b"node %d" % seat), vote_key=seat_key(seat))
        for seat in range(seats)
    )
    count = (seats - 1) // 3 if liars is None else liars
    return Epoch(ledger=LEDGER, number=0, liars=count, validators=validators)


# --- the application ---------------------------------------------------------------------


class Counters:
    """Orders counters: a block is a list of those its ancestors do not hold."""

    def __init__(self) -> None:
        self.known: dict[int, None] = {}
        self.decided: dict[int, int] = {}
        self.tip = LEDGER
        self._live: dict[bytes, tuple[Header, tuple[int, ...]]] = {}

    def build(self, parent: bytes, view: int) -> Content | None:
        used = self._used(parent)
        if used is None:
            raise Violation("asked to build on a parent that was never checked")
        items = [i for i in self.known if i not in self.decided and i not in used]
        if not items and not self._stuck(parent, view):
            return None
        data = cbor.encode(sorted(items)[:BLOCK_ITEMS_MAX])
        return Content(hash=hash_bytes(data), data=data)

    def check(self, block: Block) -> Check:
        if hash_bytes(block.content) != block.header.content:
            return Check.INVALID
        used = self._used(block.header.parent)
        if used is None:
            return Check.MISSING
        items = tuple(cbor.decode(block.content))
        if any(item in used or item in self.decided for item in items):
            return Check.INVALID
        if any(item not in self.known for item in items):
            return Check.MISSING
        self._live[header_digest(block.header)] = (block.header, items)
        return Check.VALID

    def pending(self) -> bool:
        return len(self.known) > len(self.decided)

    def apply(self, block: Block) -> None:
        """What the driver does with a decided block."""
        if block.header.parent != self.tip:
            raise Violation("a decided block does not follow the one before")
        for item in cbor.decode(block.content):
            if item in self.decided:
                raise Violation(f"counter {item} was decided twice")
            self.known[item] = None
            self.decided[item] = block.header.height
        self.tip = header_digest(block.header)
        height = block.header.height
        self._live = {d: b for d, b in self._live.items() if b[0].height > height}

    def _used(self, parent: bytes) -> set[int] | None:
        used: set[int] = set()
        while parent != self.tip:
            if parent not in self._live:
                return None
            header, items = self._live[parent]
            used.update(items)
            parent = header.parent
        return used

    def _stuck(self, parent: bytes, view: int) -> bool:
        """A parent that stays undecided for a whole view needs a child to be decided."""
        return parent != self.tip and view > self._live[parent][0].view + 1


# --- the mesh ----------------------------------------------------------------------------


class Factory(Protocol):
    """Makes an engine; the keywords are those of both engines."""

    def __call__(
        self,
        *,
        epoch: Epoch,
        seat: int,
        signer: IdealSigner,
        application: Counters,
        rng: random.Random,
        records: Mapping[bytes, bytes],
        tip: Header | None,
        tip_certificate: Certificate | None,
        now: Instant,
        verify: Callable[[bytes, bytes, bytes], bool],
    ) -> ConsensusEngine: ...


@dataclass(kw_only=True)
class Weather:
    """How bad things are; times in milliseconds, probabilities from 0 to 1."""

    latency: tuple[int, int] = (1, 5)
    sync: tuple[int, int] = (1, 8)
    loss: float = 0.0
    duplication: float = 0.0
    crash_every: int = 0
    """Mean time between crashes in the whole mesh; 0 is never."""
    outage: float = 0.0
    """Share of crashes that hit everybody at once."""
    cut_every: int = 0
    item_every: int = 120
    body_delay: tuple[int, int] = (1, 40)

    @classmethod
    def draw(cls, dice: random.Random) -> Weather:
        """Each seed has its own weather."""
        return cls(
            latency=dice.choice([(1, 5), (1, 60), (1, 300)]),
            sync=dice.choice([(1, 5), (5, 30), (1, 200)]),
            loss=dice.choice([0.0, 0.0, 0.05, 0.3]),
            duplication=dice.choice([0.0, 0.2, 0.5]),
            crash_every=dice.choice([0, 1500, 700]),
            outage=dice.choice([0.0, 0.2]),
            cut_every=dice.choice([0, 1500, 600]),
            item_every=dice.choice([60, 150, 600]),
            body_delay=dice.choice([(1, 5), (1, 400)]),
        )


class Process(Protocol):
    """Whatever sits on a seat and receives messages."""

    seat: int
    honest: bool

    def receive(self, sender: int, message: bytes) -> None: ...

    def heard(self, sender: int) -> None: ...


class Observer:
    """Sees what is said and decided; a protocol's own invariants live in subclasses."""

    def on_send(self, sender: Process, message: bytes) -> None: ...

    def on_decide(self, node: Node, decide: Decide) -> None: ...

    def on_evidence(self, node: Node, evidence: Evidence) -> None: ...

    def on_step(self, node: Node) -> None: ...


@dataclass
class Disk:
    """Rows in order of staging; only what was synced survives."""

    durable: dict[bytes, bytes] = field(default_factory=dict)
    staged: list[tuple[bytes, bytes | None]] = field(default_factory=list)
    flying: int = 0
    """How many of ``staged`` the running sync covers."""

    def land(self, count: int) -> None:
        for key, value in self.staged[:count]:
            if value is None:
                self.durable.pop(key, None)
            else:
                self.durable[key] = value
        del self.staged[:count]


class Node:
    """A driver in virtual time: what the asyncio shell does, without a shell."""

    def __init__(self, mesh: Mesh, seat: int, factory: Factory, *, honest: bool = True) -> None:
        self.mesh, self.seat, self.honest, self._factory = mesh, seat, honest, factory
        self.disk = Disk()
        self.engine: ConsensusEngine | None = None
        self.application = Counters()
        self.chain: list[tuple[Block, Certificate | None]] = []
        self.stores = 0
        self.reads: list[ReadAt | ReadFailed] = []
        self._bodies: dict[int, None] = {}
        self._life = 0
        self._wake_at: Instant | None = None
        self._tokens: list[int] = []
        self._sync_running = False
        self._fetching = False

    # life

    def start(self) -> None:
        if self.engine is not None:
            return
        self._life += 1
        self.application = Counters()
        self.application.known.update(self._bodies)
        self.chain = []
        for key in sorted(k for k in self.disk.durable if k[:1] == b"D"):
            block, certificate = _read_block(self.disk.durable[key])
            self.application.apply(block)
            self.chain.append((block, certificate))
        tip, certificate = None, None
        if self.chain:
            tip, certificate = self.chain[-1][0].header, self.chain[-1][1]
        rows = {k[1:]: v for k, v in self.disk.durable.items() if k[:1] == b"E"}
        self.engine = self._factory(
            epoch=self.mesh.epoch,
            seat=self.seat,
            signer=IdealSigner(self.seat),
            application=self.application,
            rng=random.Random(self.mesh.dice.getrandbits(32)),
            records=rows,
            tip=tip,
            tip_certificate=certificate,
            now=self.mesh.now,
            verify=ideal_verify,
        )
        self.step(Work())

    def crash(self) -> None:
        if self.engine is None:
            return
        self._life += 1
        self.engine = None
        self._wake_at = None
        if self._sync_running and self.mesh.dice.random() < 0.5:
            self.disk.land(self.disk.flying)
        self.disk.staged.clear()
        self._tokens.clear()
        self._sync_running = self._fetching = False

    # events in

    def receive(self, sender: int, message: bytes) -> None:
        self.step(Receive(sender=sender, message=message))

    def heard(self, sender: int) -> None:
        self.step(Heard(sender=sender))

    def learn(self, item: int) -> None:
        """A body came by gossip; it is stored even while the engine is down."""
        if item not in self._bodies:
            self._bodies[item] = None
            self.application.known[item] = None
            self.step(Work())

    def step(self, event: ConsensusEvent) -> None:
        if self.engine is None:
            return
        mesh = self.mesh
        mesh.trace(self, event)
        life = self._life
        for effect in self.engine.step(event, mesh.now):
            self._perform(effect)
            if life != self._life:
                return
        if self.disk.staged or self._tokens:
            self._sync()  # one commit for all that one step staged
        for observer in mesh.observers:
            observer.on_step(self)
        self._schedule()

    # effects out

    def _perform(self, effect: ConsensusEffect) -> None:
        match effect:
            case Broadcast():
                for seat in range(len(self.mesh.epoch.validators)):
                    if seat != self.seat:
                        self._send(seat, effect.message)
            case SendTo():
                self._send(effect.seat, effect.message)
            case Store():
                self.stores += 1
                for record in effect.records:
                    self.disk.staged.append((b"E" + record.key, record.value))
                self._tokens.append(effect.token)
            case Decide():
                self._decide(effect.block, effect.certificate)
                if self.honest:
                    for observer in self.mesh.observers:
                        observer.on_decide(self, effect)
            case Behind():
                if not self._fetching:
                    self._fetching = True
                    life = self._life
                    self.mesh.after(
                        self.mesh.dice.randint(5, 50), lambda: self._fetch(effect.seat, life)
                    )
            case ReadAt() | ReadFailed():
                self.reads.append(effect)
            case Evidence():
                if self.honest:
                    for observer in self.mesh.observers:
                        observer.on_evidence(self, effect)

    def _send(self, seat: int, message: bytes) -> None:
        self.mesh.send(self, seat, message)

    def _decide(self, block: Block, certificate: Certificate | None) -> None:
        if self.honest:
            self.mesh.check_decision(self, block, certificate)
        self.application.apply(block)
        self.chain.append((block, certificate))
        key = b"D" + block.header.height.to_bytes(8, "big")
        self.disk.staged.append((key, _write_block(block, certificate)))

    def _sync(self) -> None:
        if self._sync_running:
            return
        self._sync_running = True
        self.disk.flying = len(self.disk.staged)
        tokens, self._tokens = self._tokens, []
        life = self._life
        wait = self.mesh.dice.randint(*self.mesh.weather.sync)
        self.mesh.after(wait, lambda: self._synced(tokens, life))

    def _synced(self, tokens: list[int], life: int) -> None:
        if life != self._life:
            return
        self.disk.land(self.disk.flying)
        self._sync_running = False
        if self.disk.staged:
            self._sync()
        for token in tokens:
            self.step(Persisted(token))
        if self._tokens:
            self._sync()

    def _fetch(self, seat: int | None, life: int) -> None:
        """Stands for ``sync/chains.py``: blocks from above our own height, in order."""
        if life != self._life or self.engine is None:
            return
        self._fetching = False
        peers = [p for p in self.mesh.nodes if p is not self and p.honest and p.engine is not None]
        peers = [p for p in peers if not self.mesh.cut(p, self) and not self.mesh.cut(self, p)]
        named = [p for p in peers if p.seat == seat]
        if not peers:
            return
        peer = self.mesh.dice.choice(named or peers)
        news = peer.chain[len(self.chain) : len(self.chain) + 20]
        while news and news[-1][1] is None:
            news.pop()
        for index, (block, certificate) in enumerate(news):
            if block.header.height != len(self.chain) + 1:
                continue  # the engine decided it meanwhile
            proof = next(c for _, c in news[index:] if c is not None)
            self._decide(block, certificate)
            self.step(Certified(header=block.header, certificate=proof))

    # time

    def _schedule(self) -> None:
        if self.engine is None:
            return
        deadline = self.engine.deadline
        if deadline is None or (self._wake_at is not None and self._wake_at <= deadline):
            return
        self._wake_at = deadline
        life = self._life
        self.mesh.after(max(0, deadline - self.mesh.now), lambda: self._wake(deadline, life))

    def _wake(self, at: Instant, life: int) -> None:
        if life != self._life or self.engine is None or self._wake_at != at:
            return
        self._wake_at = None
        deadline = self.engine.deadline
        if deadline is not None and deadline <= self.mesh.now:
            self.step(DeadlineReached())
        else:
            self._schedule()


class Mesh:
    """The world: time, network, faults, and what must hold."""

    def __init__(
        self,
        factory: Factory,
        *,
        seats: int,
        seed: int,
        weather: Weather | None = None,
        liars: int | None = None,
        byzantine: tuple[int, ...] = (),
        observers: tuple[Observer, ...] = (),
        epoch: Epoch | None = None,
    ) -> None:
        self.dice = random.Random(seed)
        self.epoch = make_epoch(seats, liars) if epoch is None else epoch
        self.weather = Weather.draw(self.dice) if weather is None else weather
        self.now = Instant(0)
        self.observers = observers
        self.nodes = [Node(self, s, factory) for s in range(seats) if s not in byzantine]
        self.processes: list[Process] = list(self.nodes)
        self.decisions: dict[int, bytes] = {}
        self.steps = 0
        self.items = 0
        self.digest = blake2b(digest_size=16)
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._number = 0
        self._blocked: dict[tuple[int, int], None] = {}
        self._calm = False

    # time

    def after(self, wait: int, action: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._heap, (self.now + wait, self._number, action))

    def run(self, until: int, done: Callable[[], bool] | None = None) -> None:
        """Let time pass up to ``until``, or until ``done``."""
        while self._heap and self._heap[0][0] <= until:
            at, _, action = heapq.heappop(self._heap)
            self.now = Instant(at)
            action()
            if done is not None and done():
                return
        self.now = Instant(until)

    def trace(self, node: Node, event: ConsensusEvent) -> None:
        self.steps += 1
        self.digest.update(b"%d %d %s" % (self.now, node.seat, type(event).__name__.encode()))
        if isinstance(event, Receive):
            self.digest.update(event.message)

    # network

    def send(self, sender: Process, seat: int, message: bytes) -> None:
        for observer in self.observers:
            observer.on_send(sender, message)
        for process in self.processes:
            if process.seat == seat and process is not sender:
                self._carry(sender, process, message)

    def _carry(self, sender: Process, process: Process, message: bytes) -> None:
        if self.cut(sender, process):
            return
        weather, dice = self.weather, self.dice
        copies = 1
        if not self._calm:
            if dice.random() < weather.loss:
                return
            if dice.random() < weather.duplication:
                copies = 2
        for _ in range(copies):
            wait = dice.randint(*weather.latency)
            self.after(wait, lambda: self._arrive(sender, process, message))

    def _arrive(self, sender: Process, process: Process, message: bytes) -> None:
        if not self.cut(sender, process):
            process.receive(sender.seat, message)

    def cut(self, sender: Process, process: Process) -> bool:
        return (id(sender), id(process)) in self._blocked

    # faults

    def begin(self) -> None:
        """Start every node, the faults, the pings and the work."""
        for node in self.nodes:
            node.start()
        self._ping()
        if self.weather.item_every:
            self._work()
        if self.weather.crash_every:
            self.after(self._soon(self.weather.crash_every), self._crash)
        if self.weather.cut_every:
            self.after(self._soon(self.weather.cut_every), self._partition)

    def heal(self) -> None:
        """Faults cease: everybody is up, every message arrives."""
        self._calm = True
        self._blocked.clear()
        for node in self.nodes:
            node.start()

    def _soon(self, mean: int) -> int:
        return self.dice.randint(1, 2 * mean)

    def _crash(self) -> None:
        if self._calm:
            return
        everybody = self.dice.random() < self.weather.outage
        for node in self.nodes if everybody else [self.dice.choice(self.nodes)]:
            node.crash()
            self.after(self.dice.randint(20, 1500), node.start)
        self.after(self._soon(self.weather.crash_every), self._crash)

    def _partition(self) -> None:
        if self._calm:
            return
        self._blocked.clear()
        if self.dice.random() < 0.7:
            sides = [(p, self.dice.random() < 0.5) for p in self.processes]
            both_ways = self.dice.random() < 0.7
            for first, left in sides:
                for second, right in sides:
                    if left != right and (both_ways or left):
                        self._blocked[id(first), id(second)] = None
        self.after(self._soon(self.weather.cut_every), self._partition)

    def _ping(self) -> None:
        for first in self.processes:
            if isinstance(first, Node) and first.engine is None:
                continue
            for second in self.processes:
                if first is not second and not self.cut(first, second):
                    second.heard(first.seat)
        self.after(PING_MS, self._ping)

    def submit(self) -> int:
        """A new counter at a random node; gossip takes it to the others in its own time."""
        self.items += 1
        item = self.items
        first = self.dice.choice(self.nodes)
        for node in self.nodes:
            wait = 0 if node is first else self.dice.randint(*self.weather.body_delay)
            self.after(wait, lambda node=node: node.learn(item))
        return item

    def _work(self) -> None:
        if self._calm:
            return
        self.submit()
        self.after(self._soon(self.weather.item_every), self._work)

    # what must hold

    def check_decision(self, node: Node, block: Block, certificate: Certificate | None) -> None:
        header, digest = block.header, header_digest(block.header)
        if header.height != len(node.chain) + 1:
            raise Violation(f"height {header.height} decided after {len(node.chain)}")
        if self.decisions.setdefault(header.height, digest) != digest:
            raise Violation(f"two blocks at height {header.height}")
        if certificate is not None:
            check_certificate(certificate, self.epoch, verify=ideal_verify)
            if certificate.digest != digest or certificate.kind != VoteKind.FINALIZE:
                raise Violation("a certificate of something else")

    def all_decided(self) -> bool:
        return all(
            node.engine is not None and len(node.application.decided) == self.items
            for node in self.nodes
            if node.honest
        )


def run_and_heal(mesh: Mesh, *, chaos_ms: int = 6_000, patience_ms: int = 180_000) -> None:
    """Faults, then none; then all that was submitted must be decided everywhere."""
    mesh.begin()
    mesh.run(chaos_ms)
    mesh.heal()
    mesh.submit()
    mesh.run(mesh.now + 500)  # bodies travel
    mesh.run(mesh.now + patience_ms, done=mesh.all_decided)
    if not mesh.all_decided():
        states = [dict(n.engine.status()) for n in mesh.nodes if n.engine is not None]
        raise Violation(f"no progress {patience_ms} ms after faults ceased: {states}")


def _write_block(block: Block, certificate: Certificate | None) -> bytes:
    proof = b"" if certificate is None else codec.encode(certificate)
    return cbor.encode([codec.encode(block), proof])


def _read_block(raw: bytes) -> tuple[Block, Certificate | None]:
    block, proof = cbor.decode(raw)
    return codec.decode(block, Block), codec.decode(proof, Certificate) if proof else None
