"""Whole nodes in virtual time, from a seed: network, disks, clocks and their faults.

The node code is the real one (``node/replica.py``); this is its other driver. One agenda of
``(time, number, action)`` is the only order there is, so the same seed gives the same trace,
byte for byte, under any hash seed. Embedders use it to test their own application under
partitions and power cuts:

    simulation = Simulation(seed=7)
    clinics = [simulation.add_node(f"clinic-{i}", roles=("clinic",)) for i in range(4)]
    simulation.run_for(10_000)
    simulation.submit(clinics[0], Draft(body=MyBody(...)))
    simulation.crash(clinics[1])
    simulation.run_for(10_000)
    assert not simulation.oracle.violations

What is modelled: links that lose, duplicate, delay and reorder (``network.py``); cuts, also of
one way, found out late; power cuts that lose or tear what was not synced (``disk.py``); slow and
failing flushes; wrong, drifting and jumping wall clocks. What must hold is said by
``checkers.py``, and is checked at every step without being asked for.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from random import Random
from typing import Any, Final, Literal

from p2pmed.consensus.interface import header_digest
from p2pmed.engine import DeadlineReached, Instant, Persist, Persisted
from p2pmed.errors import LocalProtocolError, StorageError
from p2pmed.identity.authority import Issuer
from p2pmed.identity.credentials import Validity
from p2pmed.identity.enrolment import make_request, open_request
from p2pmed.identity.keys import DeviceKeys
from p2pmed.identity.manifest import open_manifest
from p2pmed.ledger.stored import STORED_BYTES_MAX, StoredBlock
from p2pmed.ledger.transaction import Entry
from p2pmed.medical import kinds
from p2pmed.medical.registry import Kind, Registry
from p2pmed.node import events
from p2pmed.node.events import Draft, NodeEffect, NodeEvent
from p2pmed.node.home_ledger import HomeLedger
from p2pmed.node.replica import Identity, Replica
from p2pmed.sync.founding import MeshPolicy, Propose
from p2pmed.testing.bounds import overgrown
from p2pmed.testing.checkers import Oracle
from p2pmed.testing.clock import EPOCH_MS, Agenda, SimClock, SimEntropy, seeded
from p2pmed.testing.disk import SimDisk
from p2pmed.testing.liars import Liar
from p2pmed.testing.network import CONSENSUS_HEAD, LinkFaults, SimNetwork
from p2pmed.testing.planted import plant
from p2pmed.testing.planting import Plant
from p2pmed.testing.truths import Truths, certificate_fault, sum_of_rows
from p2pmed.testing.votes import VoteWatch
from p2pmed.wire import codec, cose
from p2pmed.world import Space, World

__all__ = ["LinkFaults", "SimNode", "Simulation"]

YEAR_MS: Final = 365 * 86_400_000
REDIAL_MS: Final = 1_000
"""Between dropping a peer for its fault and taking it back."""
FLUSH_MS: Final = (1, 5)
"""How long a healthy flush takes."""
BOUNDS_EVERY_STEPS: Final = 512
SETTLED_EVERY_MS: Final = 100
STEPS_PER_INSTANT_MAX: Final = 50_000
"""More steps within one millisecond mean that a node spins."""
STEPS_PER_SECOND_MAX: Final = 10_000
"""More within a second, thirty times what a busy village takes, are a storm."""


@dataclass(slots=True, eq=False)
class SimNode:
    """One simulated device; ``replica`` is ``None`` while it has no power."""

    name: str
    number: int
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
    flush_ms: tuple[int, int] = FLUSH_MS
    flushes: int = 0
    dies: Literal["", "in flush", "in vote", "after vote"] = ""
    """When the power goes: just before the next flush is done, or the next that holds a row of
    the consensus engine; or once that one was answered."""
    paused_until: int = 0
    """Until then the device stands still (``Simulation.pause``)."""
    held: list[NodeEvent] = field(default_factory=list)
    """What happened to it meanwhile."""
    flushes_lie: bool = False
    """Whether the disk says *durable* before it is."""
    notices: list[events.Notice] = field(default_factory=list)
    """All that the node told the application, in order, over all its lives."""

    @property
    def key(self) -> bytes:
        """The device key."""
        return self.identity.keys.node_id

    @property
    def up(self) -> bool:
        """Whether it has power."""
        return self.replica is not None

    @property
    def home(self) -> HomeLedger | None:
        """The ledger it lives in, if it is up and has one."""
        return self.replica.home if self.replica else None

    @property
    def height(self) -> int:
        """Of its home ledger; 0 without one."""
        return self.home.chain.height if self.home else 0

    def __repr__(self) -> str:
        return f"<SimNode {self.name}>"


class Simulation:
    """Nodes of one network, driven from one agenda.

    ``extra_kinds`` are transaction types of the embedder. ``planted`` names a defect of
    ``planted.py`` to be found. Nothing here raises for what a node does wrong: it is written
    down in ``oracle.violations``.
    """

    def __init__(
        self,
        seed: int,
        *,
        extra_kinds: Sequence[Kind[Any]] = (),
        make_replica: Callable[..., Replica] | None = None,
        planted: str = "",
    ) -> None:
        self.seed = seed
        self.agenda = Agenda()
        self.oracle = Oracle()
        self.nodes: list[SimNode] = []
        self._devices: list[SimNode] = []
        """By number, those that are gone for good included."""
        self.replies: dict[int, events.Reply] = {}
        self.trace = blake2b(digest_size=16)
        self.steps = 0
        self.injected: dict[str, int] = {}
        """Faults by kind, as they struck."""
        self._plant = plant(planted) if planted else Plant()
        self._make_replica = make_replica or self._plant.replica
        self._registry = Registry([*kinds(), *extra_kinds])
        self._requests = 0
        self._submitted = 0
        """The last request that writes."""
        self._net = seeded(seed, "net")
        self._fate = seeded(seed, "fate")
        self.network = SimNetwork(self.agenda, self._net, self, self.struck)
        self._by_key: dict[bytes, list[SimNode]] = {}
        """Devices by key: one, or two while it has a twin."""
        self._liars: dict[int, Liar] = {}
        self.suspects: set[bytes] = set()
        """Keys of devices that may lie: what they say of themselves proves nothing."""
        self.truths = Truths()
        self.votes = VoteWatch()
        self._checked: dict[tuple[bytes, bytes, bytes], bool] = {}
        self._instant = (Instant(0), 0)
        self._second = (0, 0)
        """A second, and the steps before it."""
        self._stopped = False
        """Whether the run proves nothing more and would never end."""
        entropy = SimEntropy(b"authority" + seed.to_bytes(8, "big"))
        self._issuer = Issuer.create_network("simulated", created_ms=EPOCH_MS, entropy=entropy)
        self._entropy = entropy
        self._manifest, self._network_id = open_manifest(self._issuer.manifest_raw)

    @property
    def now(self) -> int:
        """Virtual milliseconds since the beginning."""
        return self.agenda.now

    @property
    def network_id(self) -> bytes:
        """The network's id (32 bytes)."""
        return self._network_id

    @property
    def faults(self) -> LinkFaults:
        """What the network does to messages; may be set."""
        return self.network.faults

    @faults.setter
    def faults(self, faults: LinkFaults) -> None:
        self.network.faults = faults

    @property
    def trace_digest(self) -> str:
        """Hash of all that happened, in order: equal for equal seeds."""
        return self.trace.hexdigest()

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
            network=self._network_id,
            keys=keys,
            chain=tuple(answer.chain),
            incarnation=entropy.token(16),
            boot=1,
        )
        node = SimNode(
            name=name,
            number=len(self._devices),
            identity=identity,
            policy=policy or MeshPolicy(),
            clock=SimClock(self.agenda, clock_offset_ms),
            disk=SimDisk(),
            rng=seeded(self.seed, f"node {name}"),
            entropy=entropy,
        )
        self.nodes.append(node)
        self._devices.append(node)
        self._by_key[node.key] = [node]
        self.network.join()
        self.start(node)
        return node

    # --- devices that are not what they were --------------------------------------------------

    def liar_of(self, node: SimNode) -> Liar:
        """What changes the messages of ``node`` on their way; it is a suspect from now on."""
        self.suspects.add(node.key)
        return self._liars.setdefault(node.number, Liar(node))

    def twin_of(self, node: SimNode) -> SimNode | None:
        """The other device with this key, if there is one."""
        return next((each for each in self._by_key[node.key] if each is not node), None)

    def clone(self, node: SimNode, side: Sequence[SimNode]) -> SimNode:
        """A second device with the keys and the disk of ``node``, in touch with ``side`` alone."""
        self.suspects.add(node.key)
        name = f"{node.name}-twin-{len(self._devices)}"
        twin = replace(
            node,
            name=name,
            number=len(self._devices),
            disk=node.disk.image(),
            rng=seeded(self.seed, f"node {name}"),
            replica=None,
            waiting=[],
            flushing=False,
            wake_at=None,
            dies="",
            paused_until=0,
            held=[],
            notices=[],
        )
        self.nodes.append(twin)
        self._devices.append(twin)
        self._by_key[node.key].append(twin)
        self.network.join()
        self.take_sides(node, twin, side)
        self.start(twin)
        return twin

    def take_sides(self, node: SimNode, twin: SimNode, side: Sequence[SimNode]) -> None:
        """Those of ``side`` reach the twin, all others the original; nobody both."""
        for other in self.nodes:
            if other is not node and other is not twin:
                near = other in side
                self.network.keep_apart(node.number, other.number, apart=near)
                self.network.keep_apart(twin.number, other.number, apart=not near)
        self.network.keep_apart(node.number, twin.number, apart=True)

    def retire(self, node: SimNode, twin: SimNode) -> None:
        """The twin is found and switched off for good."""
        if twin in self._by_key[node.key]:
            self._by_key[node.key].remove(twin)
            if twin.replica is not None:
                self._power_off(twin)
            self.take_sides(node, twin, [])
            self.nodes.remove(twin)

    def inject(self, node: SimNode, event: NodeEvent) -> None:
        """Let something happen to a node that no device of the simulation did."""
        self._step(node, event)

    def _peer(self, node: SimNode, key: bytes) -> SimNode | None:
        """The device with this key that ``node`` talks to."""
        for other in self._by_key.get(key, ()):
            if self.network.believes(node.number, other.number):
                return other
        return None

    def _honest(self, node: SimNode) -> bool:
        return node.key not in self.suspects

    def start(self, node: SimNode) -> None:
        """Switch a device on, from what its disk holds; nothing happens if it is on."""
        if node.replica is not None:
            return
        world = World(clock=node.clock, rng=node.rng, entropy=node.entropy, disk=node.disk)
        node.life += 1
        node.wake_at = None
        node.waiting.clear()
        node.flushing = False

        def begin() -> list[NodeEffect]:
            node.replica = self._make_replica(
                world=world,
                identity=node.identity,
                registry=self._registry,
                policy=node.policy,
                verify=self.verify,
                engines=self._plant.engines,
            )
            self._check_kept(node)
            return node.replica.start()

        self._guarded(node, begin)
        self.network.dial_all(node.number)

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
        self.struck("power cut")
        self._power_off(node)

    def _power_off(self, node: SimNode) -> None:
        node.replica = None
        node.life += 1
        node.dies = ""
        node.paused_until = 0
        node.held.clear()
        node.disk.crash(self._fate)
        if node.disk.fate not in ("", "kept"):
            self.struck(f"unsynced writes {node.disk.fate}")
        self.network.lose(node.number)

    def pause(self, node: SimNode, ms: int) -> None:
        """Let a device stand still, as a busy or sleeping one does; what happens to it waits."""
        self.struck("pause")
        node.paused_until = max(node.paused_until, self.now + ms)
        self.agenda.at(ms, lambda: self.resume(node) if self.now >= node.paused_until else None)

    def resume(self, node: SimNode) -> None:
        """It goes on: what waited happens now, in order."""
        node.paused_until = 0
        held, node.held = node.held, []
        life = node.life
        for event in held:
            if node.life == life:
                self._step(node, event)
        node.wake_at = None
        self._arm(node)

    def cut(self, *groups: Sequence[SimNode]) -> None:
        """Only nodes of one group reach each other; unnamed nodes are a group of their own."""
        self.struck("partition")
        self.network.cut(self._numbered(groups))

    def separate(self, *regions: Sequence[SimNode]) -> None:
        """Lay cables within each region only: days of travel apart, and no fault.

        Unnamed nodes are a region of their own; without any region all are together. It is
        independent of ``cut``, and ``heal`` leaves it.
        """
        self.network.separate(self._numbered(regions))

    def _numbered(self, groups: Sequence[Sequence[SimNode]]) -> list[int]:
        numbers = [0] * len(self._devices)
        for number, group in enumerate(groups, start=1):
            for node in group:
                numbers[node.number] = number
        return numbers

    def mend(self) -> None:
        """The groups of ``cut`` reach each other again."""
        self.network.cut([0] * len(self._devices))

    def heal(self) -> None:
        """All cables are in again, both ways, and every queue runs."""
        self.network.heal()

    def jump_clock(self, node: SimNode, by_ms: int) -> None:
        """Change a wall clock; monotonic time goes on."""
        self.struck("clock jump")
        node.clock.offset_ms += by_ms

    def struck(self, kind: str) -> None:
        """Count a fault."""
        self.injected[kind] = self.injected.get(kind, 0) + 1

    # --- commands ---------------------------------------------------------------------------

    def submit(self, node: SimNode, *drafts: Draft) -> int:
        """Write to a node's log; the request's number, answered in ``replies``."""
        self._submitted = self._requests + 1
        return self.command(node, lambda request: events.Submit(request, drafts))

    def found(
        self, node: SimNode, members: Sequence[SimNode], *, engine: Any = "bft", name: str = "mesh"
    ) -> int:
        """The operator's word at ``node``; the request's number."""
        keys = tuple(member.key for member in members)
        propose = Propose(members=keys, engine=engine, liars=None, name=name)
        return self.command(node, lambda request: events.FoundMesh(request, propose))

    def command(self, node: SimNode, make: Callable[[int], events.Command]) -> int:
        """Any other command; ``make`` is given the request's number."""
        self._requests += 1
        request = self._requests
        self._step(node, make(request))
        return request

    # --- running ----------------------------------------------------------------------------

    def run_for(self, ms: int) -> None:
        """Let virtual time pass."""
        self.agenda.run_until(lambda: False, ms)

    def run_until(self, done: Callable[[], bool], limit_ms: int) -> bool:
        """Run until ``done`` or until ``limit_ms`` have passed; whether it was done.

        ``done`` is asked after each thing that happens: keep it cheap.
        """
        return self.agenda.run_until(done, limit_ms)

    def run_until_settled(self, limit_ms: int) -> bool:
        """Run until ``settled`` or until ``limit_ms`` have passed; whether it was."""
        end = self.now + limit_ms
        while not self.settled():
            if self.now >= end:
                return False
            self.run_for(min(SETTLED_EVERY_MS, end - self.now))
        return True

    def at(self, delay_ms: int, action: Callable[[], None]) -> None:
        """Do something later."""
        self.agenda.at(delay_ms, action)

    def _step(self, node: SimNode, event: NodeEvent) -> None:
        replica = node.replica
        if replica is None or self._stopped:
            return
        if self.agenda.now < node.paused_until:
            node.held.append(event)
            return
        self.steps += 1
        now = self.agenda.now
        self.trace.update(f"{now} {node.name} {type(event).__name__}\n".encode())
        if isinstance(event, events.Frame):
            self.trace.update(event.message)
        self._guarded(node, lambda: replica.step(event, now))
        at, count = self._instant
        self._instant = (now, count + 1) if at == now else (now, 1)
        if count == STEPS_PER_INSTANT_MAX:
            self._violated("no crash of its own", f"{node.name} spins: {type(event).__name__}")
            self._stopped = True
        if self.steps % BOUNDS_EVERY_STEPS == 0:
            self.check_bounds(node)
            self._check_storm(now)

    def _guarded(self, node: SimNode, work: Callable[[], list[NodeEffect]]) -> None:
        """Let a node work, and carry out what it asks; its own errors are violations."""
        try:
            effects = work()
        except Exception as error:
            bad_disk = node.disk.broken is not None or node.disk.read_failed
            if isinstance(error, StorageError) and bad_disk:
                self.struck("stopped by its disk")
                self._power_off(node)
                return
            line = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{line.filename.rpartition('/')[2]}:{line.lineno} {line.name}"
            self._violated(
                "no crash of its own", f"{node.name}: {type(error).__name__} {error} at {where}"
            )
            self._power_off(node)
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
            if due is not None and due <= self.agenda.now:
                self._step(node, DeadlineReached())
            self._arm(node)

        due_at = max(deadline, node.paused_until)
        self.agenda.at(max(0, due_at - self.agenda.now), wake)

    # --- effects ----------------------------------------------------------------------------

    def _perform(self, node: SimNode, effects: Sequence[NodeEffect]) -> None:
        life = node.life
        for effect in effects:
            if node.life != life:
                return  # a full disk or an own error ended it half-way, as a process ends
            match effect:
                case events.SendFrame(peer, message, control):
                    self._send(node, peer, message, control)
                case Persist(token):
                    self._flush(node, token)
                case events.CheckSignatures(token, checks):
                    good = tuple(self.verify(*check) for check in checks)
                    self._later(node, 0, events.SignaturesChecked(token, good))
                case events.DropLink(peer, _):
                    other = self._peer(node, peer)
                    if other is not None:
                        self.network.drop(node.number, other.number, REDIAL_MS)
                case events.Reply():
                    self.replies[effect.request] = effect
                    self._check_reply(node, effect)
                    if self._honest(node):
                        self.oracle.stored(node.name, [entry.id for entry in effect.entries])
                case events.Notify(notice):
                    self._note(node, notice)

    def _send(self, node: SimNode, peer: bytes, message: bytes, control: bool) -> None:
        other = self._peer(node, peer)
        if other is None:
            return
        liar = self._liars.get(node.number)
        if liar is not None:
            for said in liar.send(other.number, message):
                self.network.send(node.number, other.number, said, control=control)
            return
        home = node.home
        if home is not None and self._honest(node) and message.startswith(CONSENSUS_HEAD):
            engine = home.founding.genesis.engine
            fault = self.votes.saw(node.name, other.name, engine, message)
            if fault:
                self._violated("one vote", fault)
        self.network.send(node.number, other.number, message, control=control)

    def _later(self, node: SimNode, delay_ms: int, event: NodeEvent) -> None:
        life = node.life

        def deliver() -> None:
            if node.life == life:
                self._step(node, event)

        self.agenda.at(delay_ms, deliver)

    def _flush(self, node: SimNode, token: int) -> None:
        """Group commit: one flush at a time, tokens that come meanwhile share the next."""
        if self._plant.early_flush or node.flushes_lie:
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
        votes = Space.CONSENSUS in batch.rows

        def finish() -> None:
            if node.life != life:
                return
            if node.dies == "in flush" or (node.dies == "in vote" and votes):
                self.crash(node)
                return
            try:
                node.disk.finish(batch)
            except StorageError:
                self.crash(node)
                return
            node.flushing = False
            node.flushes += 1
            for token in tokens:
                self._step(node, Persisted(token))
            if node.dies == "after vote" and votes and node.life == life:
                self.crash(node)
                return
            more = node.waiting or node.disk.dirty
            if more and node.life == life and not node.flushing:
                self._begin_flush(node)

        self.agenda.at(self._fate.randint(*node.flush_ms), finish)

    # --- what the network tells (``network.Ends``) --------------------------------------------

    def has_power(self, number: int) -> bool:
        """See ``network.Ends``."""
        return self._devices[number].replica is not None

    def link_up(self, number: int, peer: int) -> None:
        """See ``network.Ends``."""
        node, other = self._devices[number], self._devices[peer]
        for twin in self._devices:
            if (
                twin is not other
                and twin.key == other.key
                and self.network.forget(number, twin.number)
            ):
                self._step(node, events.LinkDown(other.key))  # one channel for each key
        self._step(node, events.LinkUp(other.key, other.identity.chain))

    def link_down(self, number: int, peer: int) -> None:
        """See ``network.Ends``."""
        self._step(self._devices[number], events.LinkDown(self._devices[peer].key))

    def frame(self, number: int, source: int, message: bytes) -> None:
        """See ``network.Ends``."""
        self._step(self._devices[number], events.Frame(self._devices[source].key, message))

    def refused(self, number: int, peer: int) -> None:
        """See ``network.Ends``."""
        node, key = self._devices[number], self._devices[peer].key
        replica = node.replica
        if replica is not None:
            self._guarded(node, lambda: replica.send_refused(key, self.agenda.now))

    # --- checks -----------------------------------------------------------------------------

    def _violated(self, promise: str, detail: str) -> None:
        self.oracle.report(self.now, promise, detail)

    def _note(self, node: SimNode, notice: events.Notice) -> None:
        node.notices.append(notice)
        if not self._honest(node):
            return
        match notice:
            case events.Final():
                self._check_final(node, notice)
            case events.Halted(_, reason):
                self._violated("never halted", f"{node.name}: {reason}")
            case events.Alarm("fork" | "ledger_fork" | "equivocation" as kind, subjects):
                if not self.suspects.intersection(subjects):
                    self._violated("honest logs do not fork", f"{node.name} alarms: {kind}")
            case events.EntriesStored(entries):
                self._check_authors(node, entries)

    def _check_reply(self, node: SimNode, reply: events.Reply) -> None:
        """An honest device that is up takes what is written to it."""
        refused = reply.request == self._submitted and isinstance(reply.error, LocalProtocolError)
        if refused and self._honest(node):
            self._violated("what is written is taken", f"{node.name}: {reply.error}")

    def _check_authors(self, node: SimNode, entries: Sequence[Entry]) -> None:
        """Entries of honest devices are on their own disks before anybody else's."""
        for entry in entries:
            if entry.author == node.key:
                self.truths.wrote(entry)
            elif not self.verify(entry.author, entry.signature, entry.to_be_signed):
                self._violated("nobody writes in another's name", f"{node.name}: not signed")
            elif entry.author not in self.suspects and not self.truths.genuine(entry):
                self._violated(
                    "nobody writes in another's name", f"{node.name}: {entry.kind} {entry.seq}"
                )

    def _check_final(self, node: SimNode, final: events.Final) -> None:
        """*Final* was said: it must be durable here, and proven."""
        stored = self._durable_block(node, final.ledger, final.height)
        if stored is None:
            self._violated("final means durable", f"{node.name}: block {final.height}")
            return
        digest = header_digest(stored.block.header)
        self.oracle.final(self.now, node.name, final.ledger, final.height, digest)
        place = (final.ledger, final.height)
        self.oracle.decided(self.now, node.name, place, final.entries, final.verdicts)
        for entry in final.entries:
            branch = entry.lane.to_bytes() + entry.seq.to_bytes(8, "big") + entry.id
            here = node.disk.durable(Space.ENTRY_ID, entry.id)
            if here is None and node.disk.durable(Space.FORK, branch) is None:
                self._violated("final means durable", f"{node.name}: a body of {final.height}")
        root = node.home.chain.state_root if node.home and node.height == final.height else b""
        raw = self._durable_bytes(node, final.ledger, final.height)
        for fault in self.truths.block(raw, final.entries, final.verdicts, root):
            self._violated("final is true", f"{node.name}: {fault}")
        self._check_proof(node, final.ledger, final.height)

    def _check_proof(self, node: SimNode, ledger: bytes, height: int) -> None:
        assert node.home is not None
        epoch = node.home.chain.epochs.at(height)
        keys = [validator.vote_key for validator in epoch.validators]
        fault: str | None = ""
        at = height
        while fault == "":
            raw = self._durable_bytes(node, ledger, at)
            if not raw:
                self._violated("final means certified", f"{node.name}: no proof of {height}")
                return
            fault = certificate_fault(raw, keys, epoch.liars, self.verify)
            at += 1
        if fault is not None:
            self._violated("final means certified", f"{node.name}: {height}: {fault}")

    def _durable_bytes(self, node: SimNode, ledger: bytes, height: int) -> bytes:
        return node.disk.durable(Space.BLOCK, ledger + height.to_bytes(8, "big")) or b""

    def _durable_block(self, node: SimNode, ledger: bytes, height: int) -> StoredBlock | None:
        raw = node.disk.durable(Space.BLOCK, ledger + height.to_bytes(8, "big"))
        return codec.decode(raw, StoredBlock, limit=STORED_BYTES_MAX) if raw else None

    def _check_kept(self, node: SimNode) -> None:
        """After a start: everything acknowledged is there, and so is what was said final."""
        replica = node.replica
        assert replica is not None
        if not self._honest(node):
            return
        own = replica.own.key
        for entry in replica.logs.entries(own, self.truths.known(own), 1 << 53):
            self.truths.wrote(entry)  # a cut may keep what was not flushed
        for entry_id in self.oracle.acknowledged.get(node.name, ()):
            if replica.logs.find(entry_id) is None:
                self._violated("nothing acknowledged is lost", node.name)
        height = replica.home.chain.height if replica.home else 0
        if height < self.oracle.heights.get(node.name, 0):
            self._violated("nothing final is lost", node.name)
        self.oracle.heights[node.name] = height

    def check_bounds(self, node: SimNode) -> None:
        """No table of ``node`` is beyond its cap; also asked by itself every few hundred steps."""
        if node.replica is not None:
            for words in overgrown(node.replica):
                self._violated("bounded", f"{node.name}: {words}")

    def _check_storm(self, now: int) -> None:
        second, before = self._second
        if now // 1_000 != second:
            self._second = (now // 1_000, self.steps)
        elif self.steps - before > STEPS_PER_SECOND_MAX:
            self._violated("bounded", "nodes answer each other without end")
            self._stopped = True

    def check_everywhere(self) -> None:
        """For a settled simulation: what was acknowledged is final everywhere, verdicts equal."""
        honest = [node for node in self.nodes if self._honest(node)]
        ids = [name for node in honest for name in self.oracle.acknowledged.get(node.name, ())]
        rows: dict[bytes, list[tuple[bytes, bytes]]] = {}
        for node in honest:
            if node.replica is None:
                continue
            self.check_bounds(node)
            home = node.replica.home
            if home is not None:
                self._check_rows(node, home, rows)
            for entry_id in ids:
                entry = node.replica.logs.find(entry_id)
                if entry is None:
                    self._violated("nothing acknowledged is lost", f"{node.name} lacks one")
                    continue
                if home is None:
                    continue
                said = (home.chain.height_of(entry), home.chain.verdict_of(entry))
                if self.oracle.verdicts.get((home.ledger, entry_id)) != said:
                    self._violated("one verdict", f"{node.name} on {entry_id.hex()[:12]}")

    def _check_rows(
        self, node: SimNode, home: HomeLedger, first: dict[bytes, list[tuple[bytes, bytes]]]
    ) -> None:
        """The state root is the sum of the rows on the disk, which are the same everywhere."""
        start = home.ledger
        rows = node.disk.scan(Space.STATE, start, start + b"\xff" * 96, limit=1 << 30)
        if start in first:
            if rows != first[start]:
                self._violated("final is true", f"{node.name}: other rows than the others have")
            return
        first[start] = rows
        if sum_of_rows((key[32:], value) for key, value in rows) != home.chain.state_root:
            self._violated("final is true", f"{node.name}: a root that is not the sum of its rows")

    def settled(self) -> bool:
        """Whether honest nodes that are up hold the same logs, and all is final and equal.

        Logs of suspects are left out: who signs two entries for one place is read differently.
        """
        ups = [
            node.replica for node in self.nodes if node.replica is not None and self._honest(node)
        ]
        if any(lane.next_seq != lane.durable_next for replica in ups for lane in replica.logs):
            return False  # something is being flushed
        frontiers = [
            [place for place in replica.logs.frontier() if place[0].author not in self.suspects]
            for replica in ups
        ]
        if any(frontier != frontiers[0] for frontier in frontiers):
            return False
        states: dict[bytes, tuple[int, bytes]] = {}
        for replica in ups:
            if replica.home is None:
                continue
            chain = replica.home.chain
            if any(chain.ordered_next(lane) < next_seq for lane, next_seq in frontiers[0]):
                return False
            state = (chain.height, chain.state_root)
            if states.setdefault(chain.ledger, state) != state:
                return False
        return True
