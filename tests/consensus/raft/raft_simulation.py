"""A seeded world for Raft cores: one heap, one die, and judges that share no code with them.

A run draws its own faults (loss, duplicates, latency, partitions, crashes that lose what was
not flushed, slow disks), then heals and demands progress. Same seed, same run.
Signatures are ideal: a keyed hash that only the simulator can compute.

Judged at every step: election safety, log matching, agreement per height, leader
completeness, certificates; at the end: every member decides the same new blocks.
"""

from __future__ import annotations

import hashlib
import heapq
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from p2pmed.consensus.interface import (
    Behind,
    Block,
    Broadcast,
    Certified,
    Check,
    Content,
    Decide,
    Header,
    Receive,
    SendTo,
    Store,
    Work,
    header_digest,
)
from p2pmed.consensus.raft import RaftEngine, replica
from p2pmed.engine import DeadlineReached, Instant, Persisted
from p2pmed.quorum.certificate import Certificate, Epoch, Validator, VoteKind, check_certificate
from p2pmed.wire.hashing import hash_bytes

LEDGER = hash_bytes(b"a ledger")


STEPS_MAX = 100_000
"""Of one run; a run of chaos takes some thousand."""


class Violation(AssertionError):
    """A promise of Raft does not hold."""


def make_epoch(members: int, number: int = 0) -> Epoch:
    seats = tuple(
        Validator(node=hash_bytes(b"node%d" % i), vote_key=hash_bytes(b"vote%d" % i))
        for i in range(members)
    )
    return Epoch(ledger=LEDGER, number=number, liars=0, validators=seats)


class IdealSigner:
    """Unforgeable as long as nobody else calls it."""

    def __init__(self, public: bytes) -> None:
        self._public = public

    def sign(self, message: bytes) -> bytes:
        return hashlib.blake2b(message, key=self._public, digest_size=64).digest()


def ideal_verify(public: bytes, signature: bytes, message: bytes) -> bool:
    return hashlib.blake2b(message, key=public, digest_size=64).digest() == signature


@dataclass
class Book:
    """An application: orders numbers that it has heard of; every number at most once a chain."""

    heard: dict[int, None] = field(default_factory=dict)
    parents: dict[bytes, tuple[bytes, tuple[int, ...]]] = field(default_factory=dict)
    """Digest -> (parent digest, numbers): blocks called VALID or decided."""
    decided: dict[int, None] = field(default_factory=dict)
    batch_max: int = 3
    refuses: bytes = b""

    def chain(self, digest: bytes) -> dict[int, None]:
        found: dict[int, None] = {}
        while digest in self.parents:
            digest, numbers = self.parents[digest]
            found.update(dict.fromkeys(numbers))
        return found

    def _open(self, parent: bytes) -> dict[int, None]:
        seen = dict(self.decided)
        digest = parent
        while digest in self.parents and digest not in self.final:
            digest, numbers = self.parents[digest]
            seen.update(dict.fromkeys(numbers))
        return seen

    final: dict[bytes, None] = field(default_factory=dict)

    def build(self, parent: bytes, view: int) -> Content | None:
        seen = self._open(parent)
        numbers = [n for n in self.heard if n not in seen][: self.batch_max]
        if not numbers:
            return None
        data = b",".join(b"%d" % n for n in numbers)
        return Content(hash=hash_bytes(data), data=data)

    def check(self, block: Block) -> Check:
        if block.content == self.refuses:
            return Check.INVALID
        if hash_bytes(block.content) != block.header.content:
            return Check.INVALID
        parent = block.header.parent
        if parent != LEDGER and parent not in self.parents:
            return Check.MISSING
        numbers = tuple(int(n) for n in block.content.split(b","))
        if any(n not in self.heard for n in numbers):
            return Check.MISSING
        if any(n in self._open(parent) for n in numbers):
            return Check.INVALID
        self.parents[header_digest(block.header)] = (parent, numbers)
        return Check.VALID

    def decide(self, block: Block) -> None:
        digest = header_digest(block.header)
        numbers = tuple(int(n) for n in block.content.split(b","))
        self.parents[digest] = (block.header.parent, numbers)
        self.final[digest] = None
        self.decided.update(dict.fromkeys(numbers))
        self.heard.update(dict.fromkeys(numbers))

    def pending(self) -> bool:
        return any(n not in self.decided for n in self.heard)


@dataclass
class Disk:
    """What is durable, and what is staged; a crash loses the latter."""

    rows: dict[bytes, bytes] = field(default_factory=dict)
    chain: list[tuple[Block, Certificate | None]] = field(default_factory=list)
    staged: list[tuple[str, Any]] = field(default_factory=list)

    def flush(self, upto: int) -> None:
        for kind, what in self.staged[:upto]:
            if kind == "row":
                if what.value is None:
                    self.rows.pop(what.key, None)
                else:
                    self.rows[what.key] = what.value
            else:
                self.chain.append(what)
        del self.staged[:upto]


@dataclass
class Member:
    seat: int
    disk: Disk = field(default_factory=Disk)
    book: Book = field(default_factory=Book)
    engine: RaftEngine | None = None
    chain: list[tuple[Block, Certificate | None]] = field(default_factory=list)
    """Decided, staged included."""
    life: int = 0
    armed: Instant | None = None
    flush_ms: tuple[int, int] = (1, 10)
    syncing: bool = False
    tokens: list[tuple[int, int]] = field(default_factory=list)
    """(token, staged rows before it)."""


EngineMaker = Callable[..., RaftEngine]


class World:
    """Members, a network that may do anything but forge, disks that may forget the unflushed."""

    def __init__(self, seed: int, members: int, *, make: EngineMaker = RaftEngine) -> None:
        self.dice = random.Random(seed)
        self.epoch = make_epoch(members)
        self.make = make
        self.now = Instant(0)
        self.heap: list[tuple[int, int, str, Any]] = []
        self.order = 0
        self.members = [Member(seat=i) for i in range(members)]
        self.loss = 0.0
        self.duplicates = 0.0
        self.latency = (1, 5)
        self.cut: dict[tuple[int, int], None] = {}
        self.leaders: dict[int, int] = {}
        """Term -> seat, ever."""
        self.agreed: dict[int, bytes] = {}
        """Height -> digest, ever decided anywhere."""
        self.certified: dict[bytes, int] = {}
        self.committed: dict[int, tuple[int, bytes]] = {}
        """Index -> (term, raw) ever known committed by a leader."""
        self.steps = 0
        self.sent = 0
        self.sent_bytes = 0
        self.flushes = 0
        self.trace = hashlib.blake2b(digest_size=16)
        self.tap: Callable[[int, int, bytes], bool] | None = None
        """May veto a delivery: (from, to, message) -> deliver."""
        for member in self.members:
            self.boot(member)

    # --- time -----------------------------------------------------------------------------

    def at(self, when: int, kind: str, what: Any) -> None:
        self.order += 1
        heapq.heappush(self.heap, (when, self.order, kind, what))

    def run(self, until: int, *, stop: Callable[[], bool] | None = None) -> bool:
        while self.heap and self.heap[0][0] <= until:
            when, _, kind, what = heapq.heappop(self.heap)
            self.now = Instant(max(self.now, when))
            getattr(self, f"_on_{kind}")(what)
            if stop is not None and stop():
                return True
        self.now = Instant(max(self.now, until))
        return False

    # --- members --------------------------------------------------------------------------

    def boot(self, member: Member) -> None:
        member.life += 1
        member.armed = None
        member.syncing = False
        member.tokens = []
        member.disk.staged = []
        member.chain = list(member.disk.chain)
        heard = member.book.heard  # bodies are stored by gossip before they are announced
        member.book = Book(heard=heard, refuses=member.book.refuses)
        for block, _ in member.chain:
            member.book.decide(block)
        tip, certificate = self.tip(member)
        member.engine = self.make(
            epoch=self.epoch,
            seat=member.seat,
            signer=IdealSigner(self.epoch.validators[member.seat].vote_key),
            application=member.book,
            rng=self.dice,
            records=dict(member.disk.rows),
            tip=tip,
            tip_certificate=certificate,
            now=self.now,
            verify=ideal_verify,
        )
        self._arm(member)

    def tip(self, member: Member) -> tuple[Header | None, Certificate | None]:
        if not member.chain:
            return None, None
        block, certificate = member.chain[-1]
        return block.header, certificate

    def crash(self, seat: int) -> None:
        member = self.members[seat]
        member.engine = None
        member.life += 1

    def step(self, member: Member, event: Any) -> None:
        if member.engine is None:
            return
        self.steps += 1
        if self.steps > STEPS_MAX:
            raise Violation("a storm: cores keep each other busy for nothing")
        effects = member.engine.step(event, self.now)
        self.perform(member, effects)

    def perform(self, member: Member, effects: Any) -> None:
        for effect in effects:
            self._perform(member, effect)
        self._judge(member)
        self._arm(member)

    def _arm(self, member: Member) -> None:
        assert member.engine is not None
        deadline = member.engine.deadline
        if deadline is not None and (member.armed is None or deadline < member.armed):
            member.armed = deadline
            self.at(max(deadline, self.now), "deadline", (member, member.life))

    def _on_deadline(self, what: tuple[Member, int]) -> None:
        member, life = what
        if member.life != life or member.engine is None:
            return
        member.armed = None
        deadline = member.engine.deadline
        if deadline is not None and deadline <= self.now:
            self.step(member, DeadlineReached())
        else:
            self._arm(member)

    def _perform(self, member: Member, effect: Any) -> None:
        match effect:
            case SendTo():
                self._send(member.seat, effect.seat, effect.message)
            case Broadcast():
                for other in self.members:
                    if other.seat != member.seat:
                        self._send(member.seat, other.seat, effect.message)
            case Store():
                member.disk.staged.extend(("row", record) for record in effect.records)
                member.tokens.append((effect.token, len(member.disk.staged)))
                self._sync(member)
            case Decide():
                self._decided(member, effect)
            case Behind():
                self.at(self.now + self.dice.randint(5, 50), "fetch", (member, member.life))
            case _:
                raise Violation(f"unexpected effect {type(effect).__name__}")

    # --- disk -----------------------------------------------------------------------------

    def _sync(self, member: Member) -> None:
        if not member.syncing and member.tokens:
            member.syncing = True
            self.flushes += 1
            took = self.dice.randint(*member.flush_ms)
            covered, rows = [t for t, _ in member.tokens], len(member.disk.staged)
            self.at(self.now + took, "synced", (member, member.life, covered, rows))

    def _on_synced(self, what: tuple[Member, int, list[int], int]) -> None:
        member, life, covered, rows = what
        if member.life != life:
            return
        member.disk.flush(rows)
        member.syncing = False
        member.tokens = [(t, n - rows) for t, n in member.tokens if t not in covered]
        self._sync(member)
        for token in covered:
            self.step(member, Persisted(token))

    # --- network --------------------------------------------------------------------------

    def _send(self, sender: int, to: int, message: bytes) -> None:
        self.sent += 1
        self.sent_bytes += len(message)
        if (sender, to) in self.cut or self.dice.random() < self.loss:
            return
        for _ in range(2 if self.dice.random() < self.duplicates else 1):
            when = self.now + self.dice.randint(*self.latency)
            self.at(when, "deliver", (sender, to, message))

    def _on_deliver(self, what: tuple[int, int, bytes]) -> None:
        sender, to, message = what
        member = self.members[to]
        if (sender, to) in self.cut or member.engine is None:
            return
        if self.tap is not None and not self.tap(sender, to, message):
            return
        self.trace.update(b"%d %d %d " % (self.now, sender, to) + message)
        self.step(member, Receive(sender=sender, message=message))

    def partition(self, *groups: tuple[int, ...]) -> None:
        """Only members of one group hear each other."""
        self.cut = {
            (a, b): None
            for a in range(len(self.members))
            for b in range(len(self.members))
            if a != b and not any(a in group and b in group for group in groups)
        }

    def heal(self) -> None:
        self.cut = {}

    # --- gossip and sync, as far as the cores see them ------------------------------------

    def _on_fetch(self, what: tuple[Member, int]) -> None:
        """Blocks come from whoever has them: each with a certificate of its own or above it."""
        member, life = what
        if member.life != life or member.engine is None:
            return
        others = [m for m in self.members if (m.seat, member.seat) not in self.cut and m.engine]
        source = max(others, key=lambda m: len(m.chain))
        for block, certificate in source.chain[len(member.chain) :][:8]:
            if block.header.height != len(member.chain) + 1:
                continue  # decided meanwhile by the core itself
            proof = certificate or next(
                c for _, c in source.chain[block.header.height :] if c is not None
            )
            member.chain.append((block, proof))
            member.disk.staged.append(("block", (block, proof)))
            member.book.decide(block)
            self._agree(block)
            self.step(member, Certified(header=block.header, certificate=proof))
        if len(source.chain) > len(member.chain):
            self.at(self.now + 10, "fetch", (member, member.life))

    def submit(self, number: int, seats: tuple[int, ...] | None = None) -> None:
        for member in self.members:
            if seats is None or member.seat in seats:
                delay = self.dice.randint(0, 20)
                self.at(self.now + delay, "gossip", (member, number))

    def _on_gossip(self, what: tuple[Member, int]) -> None:
        member, number = what
        member.book.heard[number] = None
        self.step(member, Work())

    # --- judges ---------------------------------------------------------------------------

    def _decided(self, member: Member, effect: Decide) -> None:
        block, certificate = effect.block, effect.certificate
        digest = header_digest(block.header)
        parent = header_digest(member.chain[-1][0].header) if member.chain else LEDGER
        if block.header.height != len(member.chain) + 1 or block.header.parent != parent:
            raise Violation("a block was decided out of order")
        if certificate is not None:
            check_certificate(certificate, self.epoch, verify=ideal_verify)
            if (certificate.kind, certificate.view, certificate.digest) != (
                VoteKind.FINALIZE,
                block.header.view,
                digest,
            ):
                raise Violation("a certificate is for something else")
        if digest not in member.book.parents:
            raise Violation("a block was decided that the application did not call VALID")
        self._agree(block)
        member.chain.append((block, certificate))
        member.disk.staged.append(("block", (block, certificate)))
        member.book.decide(block)

    def _agree(self, block: Block) -> None:
        digest = header_digest(block.header)
        if self.agreed.setdefault(block.header.height, digest) != digest:
            raise Violation(f"two blocks at height {block.header.height}")

    def _judge(self, member: Member) -> None:
        assert member.engine is not None
        replica = member.engine._replica  # the judge sees everything
        status = member.engine.status()
        if status["role"] == "leader":
            term = replica.term
            known = self.leaders.get(term)
            if known is None:
                self.leaders[term] = member.seat
                self._complete(replica)
            elif known != member.seat:
                raise Violation(f"two leaders in term {term}")
        for index in range(max(replica.log.floor.index, 0) + 1, replica.commit + 1):
            slot = replica.log.slot(index)
            assert slot is not None
            known_entry = self.committed.setdefault(index, (slot.term, slot.raw))
            if known_entry != (slot.term, slot.raw):
                raise Violation(f"two entries committed at index {index}")

    def _complete(self, replica: Any) -> None:
        """Leader completeness (Raft, 5.4.3): a new leader has all that is committed."""
        for index, (term, raw) in self.committed.items():
            slot = replica.log.slot(index)
            if index <= replica.log.floor.index:
                continue
            if slot is None or slot.raw != raw or slot.term != term:
                raise Violation(f"leader of term {replica.term} lacks committed entry {index}")
        last = replica.log.last_block
        height = last.block.header.height if last else replica.log.floor.height
        for decided in self.agreed:
            if decided > height:
                raise Violation(f"leader of term {replica.term} lacks decided block {decided}")

    def match_logs(self) -> None:
        """Log matching (Raft, 5.3): the same (index, term) means the same prefix."""
        live = [m.engine._replica.log for m in self.members if m.engine is not None]
        for i, a in enumerate(live):
            for b in live[i + 1 :]:
                top = min(a.last_index, b.last_index)
                agreed = False
                for index in range(top, max(a.floor.index, b.floor.index), -1):
                    x, y = a.slot(index), b.slot(index)
                    assert x is not None
                    assert y is not None
                    agreed = agreed or x.term == y.term
                    if agreed and x.raw != y.raw:
                        raise Violation(f"logs differ at {index} below a common entry")

    # --- for tests ------------------------------------------------------------------------

    def leader(self) -> Member | None:
        """The live leader of the highest term, if any."""
        live = [
            m
            for m in self.members
            if m.engine is not None and m.engine.status()["role"] == "leader"
        ]
        return max(live, key=lambda m: m.engine.status()["term"], default=None)

    def disturb(self, seat: int) -> None:
        """Make a member campaign at once, as if its leader had told it to."""
        member = self.members[seat]
        if member.engine is None or member.engine._replica.role is replica.Role.LEADER:
            return
        member.engine._replica.now = self.now
        member.engine._election._campaign(forced=True)
        self.perform(member, member.engine._settle())

    def elect(self, within: int = 20_000) -> Member:
        self.run(self.now + within, stop=lambda: self.leader() is not None)
        leader = self.leader()
        assert leader is not None, "nobody was elected"
        return leader


@dataclass
class Faults:
    """What one seed draws."""

    members: int
    loss: float
    duplicates: float
    latency: tuple[int, int]
    flush_ms: tuple[int, int]
    crash: float
    partition: float
    restless: float
    """Chance a round of an election without need: Raft's safety may not depend on time."""
    keep: int
    """Decided entries that a log keeps: few, so that floors move within a run."""


@contextmanager
def keeping(entries: int) -> Iterator[None]:
    """Logs that keep so many decided entries."""
    before = replica.LOG_KEEP_ENTRIES
    replica.LOG_KEEP_ENTRIES = entries
    try:
        yield
    finally:
        replica.LOG_KEEP_ENTRIES = before


def draw(seed: int) -> Faults:
    dice = random.Random(f"faults {seed}")
    return Faults(
        members=dice.choice((1, 2, 3, 3, 3, 4, 5, 5)),
        loss=dice.choice((0.0, 0.02, 0.1, 0.3)),
        duplicates=dice.choice((0.0, 0.1, 0.5)),
        latency=dice.choice(((1, 5), (5, 100), (1, 400))),
        flush_ms=dice.choice(((0, 1), (1, 10), (5, 80), (20, 500))),
        crash=dice.choice((0.0, 0.1, 0.3, 0.6)),
        partition=dice.choice((0.0, 0.2, 0.5)),
        restless=dice.choice((0.0, 0.0, 0.3, 0.9)),
        keep=dice.choice((1, 4, 512)),
    )


def chaos(seed: int, *, make: EngineMaker = RaftEngine, rounds: int = 40) -> World:
    """One run: faults for a while, then health, then new work decided everywhere."""
    faults = draw(seed)
    with keeping(faults.keep):
        return _chaos(seed, faults, make, rounds)


def _chaos(seed: int, faults: Faults, make: EngineMaker, rounds: int) -> World:
    world = World(seed, faults.members, make=make)
    dice = random.Random(f"script {seed}")
    world.loss, world.duplicates, world.latency = faults.loss, faults.duplicates, faults.latency
    for member in world.members:
        member.flush_ms = faults.flush_ms
    number = 0
    for _ in range(rounds):
        for _ in range(dice.randint(0, 3)):
            number += 1
            some = tuple(m.seat for m in world.members if dice.random() < 0.8)
            world.submit(number, some)
        if dice.random() < faults.crash:
            world.crash(dice.randrange(faults.members))
        if dice.random() < faults.crash / 8:
            for member in world.members:
                world.crash(member.seat)
        if dice.random() < faults.partition:
            seats = list(range(faults.members))
            dice.shuffle(seats)
            split = dice.randint(0, faults.members)
            world.partition(tuple(seats[:split]), tuple(seats[split:]))
        elif dice.random() < 0.4:
            world.heal()
        leader = world.leader()
        if leader is not None and dice.random() < faults.partition / 2:
            _strand(world, leader, dice)
        if dice.random() < faults.restless:
            world.disturb(dice.randrange(faults.members))
        world.run(world.now + dice.choice((dice.randint(1, 30), dice.randint(50, 1_500))))
        world.match_logs()
        for member in world.members:
            if member.engine is None and dice.random() < 0.6:
                world.boot(member)
    recover(world, number)
    return world


def _strand(world: World, leader: Member, dice: random.Random) -> None:
    """Cut a leader off while its entries are on the way: some arrive, some do not."""
    world.run(world.now + dice.randint(0, 12))
    world.cut.update({(leader.seat, m.seat): None for m in world.members if dice.random() < 0.7})
    if dice.random() < 0.5:
        world.cut.update({(m.seat, leader.seat): None for m in world.members})
    if dice.random() < 0.3:
        world.run(world.now + dice.randint(0, 30))
        world.crash(leader.seat)


def recover(world: World, number: int) -> None:
    """Heal everything; whatever anybody heard of must become final everywhere, and more."""
    world.heal()
    world.loss, world.duplicates, world.latency = 0.0, 0.0, (1, 5)
    for member in world.members:
        member.flush_ms = (1, 10)
        if member.engine is None:
            world.boot(member)
    world.run(world.now + 25)  # gossip that is under way arrives
    everything = sorted({n for m in world.members for n in m.book.heard} | {number + 1})
    for n in everything:
        world.submit(n)

    def done() -> bool:
        return all(len(m.book.decided) == len(everything) for m in world.members)

    if not world.run(world.now + 30_000, stop=done):
        raise Violation("no progress after healing")
    world.match_logs()
