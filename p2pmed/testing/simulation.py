"""Whole nodes in virtual time, from a seed: network, disks, clocks and their faults.

The node code is the real one (``node/replica.py``); this is its other driver. One heap of
``(time, number, action)`` is the only order there is, so the same seed gives the same trace,
byte for byte, under any hash seed. Embedders use it to test their own application under
partitions and power cuts:

    simulation = Simulation(seed=7)
    clinics = [simulation.add_node(f"clinic-{i}", roles=("clinic",)) for i in range(4)]
    simulation.run_for(10_000)
    simulation.submit(clinics[0], MyBody(...))
    simulation.crash(clinics[1])

What is modelled: links that lose, duplicate, delay and reorder; cuts between groups of nodes,
found out late; power cuts that lose or tear what was not synced; slow flushes; wrong and
jumping wall clocks. What is not: the Noise channel and discovery, which have their own tests.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from random import Random
from typing import Any

from p2pmed.consensus.interface import header_digest
from p2pmed.engine import DeadlineReached, Instant, Persist, Persisted
from p2pmed.errors import StorageError
from p2pmed.identity.authority import Issuer
from p2pmed.identity.credentials import Validity
from p2pmed.identity.enrolment import make_request, open_request
from p2pmed.identity.keys import DeviceKeys
from p2pmed.identity.manifest import open_manifest
from p2pmed.medical import kinds
from p2pmed.medical.registry import Kind, Registry
from p2pmed.node import events
from p2pmed.node.events import Draft, NodeEffect, NodeEvent
from p2pmed.node.replica import Identity, Replica
from p2pmed.sync.founding import MeshPolicy, Propose
from p2pmed.testing.checkers import Oracle
from p2pmed.testing.clock import EPOCH_MS, SimClock, SimEntropy, SimTime, seeded
from p2pmed.testing.disk import SimDisk
from p2pmed.wire import cose
from p2pmed.world import World

__all__ = ["LinkFaults", "SimNode", "Simulation"]

YEAR_MS = 365 * 86_400_000


@dataclass(slots=True, kw_only=True)
class LinkFaults:
    """What the network does to messages; shares are per cent."""

    loss: int = 0
    duplicates: int = 0
    delay_ms: tuple[int, int] = (1, 5)
    reorder: bool = False
    """Whether a later message may overtake an earlier one."""


@dataclass(slots=True, eq=False)
class SimNode:
    """One simulated device; ``replica`` is ``None`` while it has no power."""

    name: str
    identity: Identity
    policy: MeshPolicy
    clock: SimClock
    disk: SimDisk
    rng: Random
    entropy: SimEntropy
    replica: Replica | None = None
    life: int = 0
    """How often it was started; what was scheduled for an earlier life is void."""
    wake_at: Instant | None = None
    waiting: list[int] = field(default_factory=list)
    flushing: bool = False
    flush_ms: tuple[int, int] = (1, 5)
    notices: list[events.Notice] = field(default_factory=list)

    @property
    def key(self) -> bytes:
        """The device key."""
        return self.identity.keys.node_id

    @property
    def up(self) -> bool:
        """Whether it has power."""
        return self.replica is not None

    def __repr__(self) -> str:
        return f"<SimNode {self.name}>"


class Simulation:
    """Nodes of one network, driven from one heap."""

    def __init__(
        self,
        seed: int,
        *,
        extra_kinds: Sequence[Kind[Any]] = (),
        make_replica: Callable[..., Replica] = Replica,
        early_flush: bool = False,
    ) -> None:
        self.seed = seed
        self.time = SimTime()
        self.oracle = Oracle()
        self.faults = LinkFaults()
        self.nodes: list[SimNode] = []
        self.replies: dict[int, events.Reply] = {}
        self.trace = blake2b(digest_size=16)
        self.steps = 0
        self.injected: dict[str, int] = {}
        """Faults by kind, as they struck."""
        self._make_replica = make_replica
        self._early_flush = early_flush
        """A planted defect: ``Persisted`` is told before the flush."""
        self._registry = Registry([*kinds(), *extra_kinds])
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._count = 0
        self._requests = 0
        self._net = seeded(seed, "net")
        self._fate = seeded(seed, "fate")
        self._groups: dict[str, int] = {}
        self._linked: set[tuple[str, str]] = set()
        self._last_arrival: dict[tuple[str, str], int] = {}
        self._checked: dict[tuple[bytes, bytes, bytes], bool] = {}
        entropy = SimEntropy(b"authority" + seed.to_bytes(8, "big"))
        self._issuer = Issuer.create_network("simulated", created_ms=EPOCH_MS, entropy=entropy)
        self._entropy = entropy
        self._manifest, self._network = open_manifest(self._issuer.manifest_raw)

    # --- making nodes -----------------------------------------------------------------------

    def add_node(
        self,
        name: str,
        *,
        roles: Sequence[str] = ("clinic",),
        place: str = "county/village",
        policy: MeshPolicy | None = None,
        clock_offset_ms: int = 0,
    ) -> SimNode:
        """A new device with a credential of the network, switched on."""
        entropy = SimEntropy(name.encode() + self.seed.to_bytes(8, "big"))
        keys = DeviceKeys.generate(entropy)
        request = open_request(make_request(keys, name=name, roles=roles, place=place))
        validity = Validity(EPOCH_MS - YEAR_MS, EPOCH_MS + 10 * YEAR_MS)
        answer = self._issuer.issue(request, validity=validity, entropy=self._entropy)
        identity = Identity(
            manifest=self._manifest,
            network=self._network,
            keys=keys,
            chain=tuple(answer.chain),
            incarnation=entropy.token(16),
            boot=1,
        )
        node = SimNode(
            name=name,
            identity=identity,
            policy=policy or MeshPolicy(),
            clock=SimClock(self.time, clock_offset_ms),
            disk=SimDisk(),
            rng=seeded(self.seed, f"node {name}"),
            entropy=entropy,
        )
        self.nodes.append(node)
        self._groups[name] = 0
        self.start(node)
        return node

    def start(self, node: SimNode) -> None:
        """Switch a device on, from what its disk holds."""
        world = World(
            clock=node.clock,
            rng=node.rng,
            entropy=node.entropy,
            disk=node.disk,
        )
        node.life += 1
        node.wake_at = None
        node.waiting.clear()
        node.flushing = False
        node.replica = self._make_replica(
            world=world,
            identity=node.identity,
            registry=self._registry,
            policy=node.policy,
            verify=self.verify,
        )
        self._check_kept(node)
        self._perform(node, node.replica.start())
        self._relink(node)

    def verify(self, key: bytes, signature: bytes, message: bytes) -> bool:
        """The real check, once per signature for all nodes together."""
        question = (key, signature, message)
        if question not in self._checked:
            self._checked[question] = cose.verify(*question)
        return self._checked[question]

    # --- faults -----------------------------------------------------------------------------

    def crash(self, node: SimNode) -> None:
        """Cut the power: what was not flushed is lost, torn, or by luck kept."""
        if node.replica is None:
            return
        self._struck("power cut")
        node.replica = None
        node.life += 1
        node.disk.crash(self._fate)
        for other in self.nodes:
            self._unlink(node, other)

    def cut(self, *groups: Sequence[SimNode]) -> None:
        """Only nodes of one group reach each other; unnamed nodes are a group of their own."""
        self._struck("partition")
        for node in self.nodes:
            self._groups[node.name] = 0
        for number, group in enumerate(groups, start=1):
            for node in group:
                self._groups[node.name] = number
        for i, one in enumerate(self.nodes):
            for other in self.nodes[i + 1 :]:
                if not self._reach(one, other):
                    self._unlink(one, other)

    def heal(self) -> None:
        """All cables are in again."""
        for node in self.nodes:
            self._groups[node.name] = 0
        for node in self.nodes:
            self._relink(node)

    def jump_clock(self, node: SimNode, by_ms: int) -> None:
        """Change a wall clock; monotonic time goes on."""
        self._struck("clock jump")
        node.clock.offset_ms += by_ms

    def _struck(self, kind: str) -> None:
        self.injected[kind] = self.injected.get(kind, 0) + 1

    # --- commands ---------------------------------------------------------------------------

    def submit(self, node: SimNode, *drafts: Draft) -> int:
        """Write to a node's log; the request's number, answered in ``replies``."""
        self._requests += 1
        self._step(node, events.Submit(self._requests, drafts))
        return self._requests

    def found(
        self, node: SimNode, members: Sequence[SimNode], *, engine: Any = "bft", name: str = "mesh"
    ) -> int:
        """The operator's word at ``node``."""
        self._requests += 1
        keys = tuple(member.key for member in members)
        propose = Propose(members=keys, engine=engine, liars=None, name=name)
        self._step(node, events.FoundMesh(self._requests, propose))
        return self._requests

    def command(self, node: SimNode, make: Callable[[int], events.Command]) -> int:
        """Any other command; ``make`` is given the request's number."""
        self._requests += 1
        self._step(node, make(self._requests))
        return self._requests

    # --- running ----------------------------------------------------------------------------

    def run_for(self, ms: int) -> None:
        """Let virtual time pass."""
        self.run_until(lambda: False, ms)

    def run_until(self, done: Callable[[], bool], limit_ms: int) -> bool:
        """Run until ``done`` or until ``limit_ms`` have passed; whether it was done."""
        end = self.time.now + limit_ms
        while not done():
            if not self._heap or self._heap[0][0] > end:
                self.time.now = Instant(end)
                return done()
            at, _, action = heapq.heappop(self._heap)
            self.time.now = Instant(max(at, self.time.now))
            action()
        return True

    def at(self, delay_ms: int, action: Callable[[], None]) -> None:
        """Do something later."""
        self._count += 1
        heapq.heappush(self._heap, (self.time.now + delay_ms, self._count, action))

    def _step(self, node: SimNode, event: NodeEvent) -> None:
        if node.replica is None:
            return
        self.steps += 1
        self.trace.update(f"{self.time.now} {node.name} {type(event).__name__}\n".encode())
        try:
            effects = node.replica.step(event, self.time.now)
        except StorageError:
            self.crash(node)
            return
        self._perform(node, effects)
        self._arm(node)

    def _arm(self, node: SimNode) -> None:
        """Come back at the node's deadline."""
        if node.replica is None:
            return
        deadline = node.replica.deadline
        if deadline is None or (node.wake_at is not None and node.wake_at <= deadline):
            return
        node.wake_at = deadline
        life = node.life

        def wake() -> None:
            if node.life != life or node.replica is None or node.wake_at != deadline:
                return
            node.wake_at = None
            due = node.replica.deadline
            if due is not None and due <= self.time.now:
                self._step(node, DeadlineReached())
            self._arm(node)

        self.at(max(0, deadline - self.time.now), wake)

    # --- effects ----------------------------------------------------------------------------

    def _perform(self, node: SimNode, effects: Sequence[NodeEffect]) -> None:
        for effect in effects:
            match effect:
                case Persist(token):
                    self._flush(node, token)
                case events.SendFrame(peer, message, _):
                    self._send(node, peer, message)
                case events.CheckSignatures(token, checks):
                    good = tuple(self.verify(*check) for check in checks)
                    self._later(node, 0, events.SignaturesChecked(token, good))
                case events.DropLink(peer, _):
                    other = self._by_key(peer)
                    if other is not None:
                        self._unlink(node, other)
                        self.at(1_000, lambda node=node: self._relink(node))  # type: ignore[misc]
                case events.Reply():
                    self.replies[effect.request] = effect
                    self.oracle.stored(node.name, [entry.id for entry in effect.entries])
                case events.Notify(notice):
                    self._note(node, notice)
        self._arm(node)

    def _note(self, node: SimNode, notice: events.Notice) -> None:
        node.notices.append(notice)
        if isinstance(notice, events.Final):
            assert node.replica is not None
            home = node.replica.home
            assert home is not None
            stored = home.chain.block_at(notice.height)
            assert stored is not None
            digest = header_digest(stored.block.header)
            self.oracle.final(self.time.now, node.name, notice.ledger, notice.height, digest)

    def _later(self, node: SimNode, delay_ms: int, event: NodeEvent) -> None:
        life = node.life

        def deliver() -> None:
            if node.life == life:
                self._step(node, event)

        self.at(delay_ms, deliver)

    def _flush(self, node: SimNode, token: int) -> None:
        """Group commit: one flush at a time, tokens that come meanwhile share the next."""
        if self._early_flush:
            self._later(node, 0, Persisted(token))
        else:
            node.waiting.append(token)
        if not node.flushing:
            self._begin_flush(node)

    def _begin_flush(self, node: SimNode) -> None:
        tokens, node.waiting = node.waiting, []
        try:
            batch = node.disk.begin()
        except StorageError:
            self.crash(node)
            return
        node.flushing = True
        life = node.life

        def finish() -> None:
            if node.life != life:
                return
            try:
                node.disk.finish(batch)
            except StorageError:
                self.crash(node)
                return
            node.flushing = False
            for token in tokens:
                self._step(node, Persisted(token))
            more = node.waiting or node.disk.dirty
            if more and node.replica is not None and not node.flushing:
                self._begin_flush(node)

        self.at(self._fate.randint(*node.flush_ms), finish)

    # --- links ------------------------------------------------------------------------------

    def _by_key(self, key: bytes) -> SimNode | None:
        return next((node for node in self.nodes if node.key == key), None)

    def _reach(self, one: SimNode, other: SimNode) -> bool:
        same = self._groups[one.name] == self._groups[other.name]
        return same and one.up and other.up and one is not other

    def _send(self, node: SimNode, peer: bytes, message: bytes) -> None:
        other = self._by_key(peer)
        if other is None or _pair(node, other) not in self._linked:
            return
        if self._net.randint(1, 100) <= self.faults.loss:
            self._struck("loss")
            return
        copies = 1
        if self._net.randint(1, 100) <= self.faults.duplicates:
            self._struck("duplicate")
            copies = 2
        way = (node.name, other.name)
        for _ in range(copies):
            arrival = self.time.now + self._net.randint(*self.faults.delay_ms)
            if not self.faults.reorder:
                arrival = max(arrival, self._last_arrival.get(way, 0))
                self._last_arrival[way] = arrival
            self._arrive(node, other, message, arrival - self.time.now)

    def _arrive(self, node: SimNode, other: SimNode, message: bytes, delay_ms: int) -> None:
        life, source = other.life, node.key

        def deliver() -> None:
            if other.life == life and _pair(node, other) in self._linked:
                self._step(other, events.Frame(source, message))

        self.at(delay_ms, deliver)

    def _relink(self, node: SimNode) -> None:
        """Channels to everybody in reach, soon."""
        for other in self.nodes:
            if self._reach(node, other) and _pair(node, other) not in self._linked:
                delay = self._net.randint(20, 800)
                self.at(delay, lambda other=other: self._link(node, other))  # type: ignore[misc]

    def _link(self, node: SimNode, other: SimNode) -> None:
        pair = _pair(node, other)
        if pair in self._linked or not self._reach(node, other):
            return
        assert node.replica is not None
        assert other.replica is not None
        self._linked.add(pair)
        self._step(node, events.LinkUp(other.key, other.identity.chain))
        self._step(other, events.LinkUp(node.key, node.identity.chain))

    def _unlink(self, node: SimNode, other: SimNode) -> None:
        """Nothing passes any more; the ends find out some seconds later."""
        pair = _pair(node, other)
        if pair not in self._linked:
            return
        self._linked.discard(pair)
        for end, far in ((node, other), (other, node)):
            life = end.life

            def down(end: SimNode = end, far: SimNode = far, life: int = life) -> None:
                if end.life != life:
                    return
                if _pair(end, far) in self._linked:  # back before it was missed
                    self._linked.discard(_pair(end, far))
                    self._step(far, events.LinkDown(end.key))
                self._step(end, events.LinkDown(far.key))
                self._relink(end)

            self.at(self._net.randint(0, 4_000), down)

    # --- checks -----------------------------------------------------------------------------

    def _check_kept(self, node: SimNode) -> None:
        """After a start: everything acknowledged is there, and so is what was said final."""
        replica = node.replica
        assert replica is not None
        for entry_id in self.oracle.acknowledged.get(node.name, ()):
            if replica.logs.find(entry_id) is None:
                self.oracle.report(self.time.now, "nothing acknowledged is lost", node.name)
        height = replica.home.chain.height if replica.home else 0
        if height < self.oracle.heights.get(node.name, 0):
            self.oracle.report(self.time.now, "nothing final is lost", node.name)
        self.oracle.heights[node.name] = height

    def settled(self) -> bool:
        """Whether all nodes that are up hold the same logs, and all is final and equal."""
        ups = [node.replica for node in self.nodes if node.replica is not None]
        frontiers = [replica.logs.frontier() for replica in ups]
        if any(frontier != frontiers[0] for frontier in frontiers):
            return False
        states: dict[bytes, tuple[int, bytes]] = {}
        for replica in ups:
            if replica.home is None:
                continue
            chain = replica.home.chain
            if any(chain.ordered_next(lane) < next_seq for lane, next_seq in frontiers[0]):
                return False
            if states.setdefault(chain.ledger, (chain.height, chain.state_root)) != (
                chain.height,
                chain.state_root,
            ):
                return False
        return True

    @property
    def trace_digest(self) -> str:
        """Hash of all that happened, in order: equal for equal seeds."""
        return self.trace.hexdigest()


def _pair(one: SimNode, other: SimNode) -> tuple[str, str]:
    return (one.name, other.name) if one.name < other.name else (other.name, one.name)
