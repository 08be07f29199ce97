"""Two and many engines in one seeded network: everything arrives, once, and cheaply."""

from __future__ import annotations

import heapq
import random
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise

import pytest

from p2pmed.engine import DeadlineReached, Instant
from p2pmed.gossip.admission import UNITS_BURST_MAX, UNITS_PER_SECOND
from p2pmed.gossip.engine import GossipEngine
from p2pmed.gossip.events import (
    Bad,
    DropPeer,
    Gap,
    Grew,
    Holds,
    Ingest,
    PeerDown,
    PeerStatus,
    PeerUp,
    Received,
    SendMessage,
    SendRefused,
)
from p2pmed.gossip.frontier import FOREIGN_LANES_MAX, digest_of
from p2pmed.gossip.messages import (
    HAVE_LANES_MAX,
    AskFrontier,
    Entries,
    Frontier,
    GossipMessage,
    Have,
    LaneRange,
    Mark,
    Ping,
    Pong,
    Push,
    Want,
    mark,
)
from p2pmed.ledger.transaction import LaneKey
from p2pmed.limits import BATCH_BYTES_MAX, BATCH_ENTRIES_MAX, PEER_SILENT_MS, PEERS_MAX
from p2pmed.wire import codec

FSYNC_MS = 3


def key(number: int) -> bytes:
    """A device key that sorts by its number, spread over the buckets."""
    return bytes([number * 37 % 256]) + number.to_bytes(31, "big")


def raw_entry(lane: LaneKey, seq: int, size: int = 200) -> bytes:
    """An entry whose place anybody can read; signatures are not gossip's business."""
    return lane.to_bytes() + seq.to_bytes(8, "big") + bytes(size)


class MemoryStore:
    """Author logs that survive the restart of an engine."""

    def __init__(self) -> None:
        self.lanes: dict[LaneKey, list[bytes]] = {}

    def frontier(self) -> list[tuple[LaneKey, int]]:
        return sorted((lane, len(log)) for lane, log in self.lanes.items())

    def next_seq(self, lane: LaneKey) -> int:
        return len(self.lanes.get(lane, ()))

    def read(self, lane: LaneKey, start: int, end: int, *, bytes_max: int) -> list[bytes]:
        found: list[bytes] = []
        for raw in self.lanes.get(lane, [])[start:end]:
            if found and sum(map(len, found)) + len(raw) > bytes_max:
                break
            found.append(raw)
        return found


@dataclass
class Node:
    me: bytes
    store: MemoryStore
    engine: GossipEngine
    incarnation: int = 0
    boot: int = 0
    up: dict[bytes, int] = field(default_factory=dict)
    """Peer -> number of the connection."""
    payloads: int = 0
    """Entries that arrived, new or not."""
    holds: dict[tuple[bytes, LaneKey], int] = field(default_factory=dict)
    sent_bytes: int = 0
    sent: Counter[str] = field(default_factory=Counter)
    dropped: list[str] = field(default_factory=list)
    honest: bool = True
    staged: dict[LaneKey, int] = field(default_factory=dict)
    """Where lanes end with what is being flushed."""


class Net:
    """A heap of moments, one seed, and links that may lose, repeat, reorder or be cut."""

    def __init__(self, count: int, seed: int, *, loss: int = 0, repeat: int = 0, measure=False):
        self.rng = random.Random(seed)
        self.now = 0
        self.loss, self.repeat, self.measure = loss, repeat, measure
        self.latency = (1, 8)
        self.heap: list[tuple[int, int, object]] = []
        self.count = 0
        self.links = 0
        self.last_arrival: Counter[tuple[bytes, bytes, bool]] = Counter()
        self.nodes = {key(n): self._node(key(n), MemoryStore()) for n in range(count)}
        self.armed: dict[bytes, int] = {}
        self.rings: Counter[tuple[int, bytes]] = Counter()

    def _node(self, me: bytes, store: MemoryStore) -> Node:
        rng = random.Random(self.rng.random())
        return Node(me, store, GossipEngine(me=me, store=store, rng=rng, now=Instant(self.now)))

    def at(self, delay: int, what) -> None:
        self.count += 1
        heapq.heappush(self.heap, (self.now + delay, self.count, what))

    # --- the world's acts

    def connect(self, a: bytes, b: bytes) -> None:
        if b in self.nodes[a].up:
            return
        self.links += 1
        self.nodes[a].up[b] = self.nodes[b].up[a] = self.links
        self.step(a, PeerUp(b))
        self.step(b, PeerUp(a))

    def cut(self, a: bytes, b: bytes) -> None:
        if self.nodes[a].up.pop(b, None) is not None:
            self.nodes[b].up.pop(a, None)
            self.step(a, PeerDown(b))
            self.step(b, PeerDown(a))

    def mesh(self) -> None:
        names = list(self.nodes)
        for i, a in enumerate(names):
            for b in names[i + 1 :]:
                self.connect(a, b)

    def restart(self, a: bytes) -> None:
        """Power off and on: the disk stays, the engine does not."""
        for b in list(self.nodes[a].up):
            self.cut(a, b)
        old = self.nodes[a]
        self.nodes[a] = self._node(a, old.store)
        self.nodes[a].boot = old.boot + 1

    def write(self, a: bytes, count: int = 1, size: int = 200) -> None:
        node = self.nodes[a]
        lane = LaneKey(a, node.boot.to_bytes(16, "big"))
        start = node.store.next_seq(lane)
        self._flush(
            a, [(lane, start + n, raw_entry(lane, start + n, size)) for n in range(count)], None
        )

    def _flush(self, a: bytes, fresh, source: bytes | None) -> None:
        boot = self.nodes[a].boot

        def durable() -> None:
            node = self.nodes[a]
            if node.boot != boot:
                return
            kept = []
            for lane, seq, raw in fresh:
                log = node.store.lanes.setdefault(lane, [])
                if seq == len(log):
                    log.append(raw)
                    kept.append((lane, seq, raw))
                elif not log:
                    del node.store.lanes[lane]
            if kept:
                ends = dict.fromkeys(lane for lane, _, _ in kept)
                lanes = tuple((lane, node.store.next_seq(lane)) for lane in ends)
                self.step(a, Grew(lanes, tuple(kept), source))

        self.at(FSYNC_MS, durable)

    # --- driving

    def step(self, a: bytes, event) -> None:
        node = self.nodes[a]
        for effect in node.engine.step(event, Instant(self.now)):
            self.perform(node, effect)
        self.arm(a)

    def arm(self, a: bytes) -> None:
        engine = self.nodes[a].engine
        due = engine.deadline
        if due is None or self.armed.get(a, -1) == due:
            return
        self.armed[a] = due

        def ring() -> None:
            node = self.nodes[a]
            if node.engine is engine and self.armed.get(a) == due:
                del self.armed[a]
                self.rings[self.now, a] += 1
                assert self.rings[self.now, a] < 3, "a deadline that does not pass"
                if engine.deadline is not None and engine.deadline <= self.now:
                    self.step(a, DeadlineReached())
                else:
                    self.arm(a)

        self.at(max(0, due - self.now), ring)

    def perform(self, node: Node, effect) -> None:
        if isinstance(effect, SendMessage):
            self.send(node, effect)
        elif isinstance(effect, Ingest):
            self.ingest(node, effect)
        elif isinstance(effect, Holds):
            held = self.nodes[effect.peer].store.next_seq(effect.lane)
            honest = self.nodes[effect.peer].honest
            assert effect.next_seq <= held or not honest, "a receipt was reported early"
            node.holds[effect.peer, effect.lane] = effect.next_seq
        elif isinstance(effect, DropPeer):
            node.dropped.append(effect.reason)
            self.at(0, lambda: self.cut(node.me, effect.peer))
        else:
            assert isinstance(effect, PeerStatus)

    def send(self, node: Node, effect: SendMessage) -> None:
        link = node.up.get(effect.peer)
        node.sent[type(effect.message).__name__] += 1
        if self.measure:
            node.sent_bytes += len(codec.encode(effect.message))
        if link is None:
            return
        copies = 0 if self.rng.randrange(100) < self.loss else 1
        copies += self.rng.randrange(100) < self.repeat
        for _ in range(copies):
            delay = self.rng.randint(*self.latency)
            if not self.loss and not self.repeat:  # a stream: in order, control apart from bulk
                lane = (node.me, effect.peer, effect.control)
                self.last_arrival[lane] = max(self.last_arrival[lane], self.now + delay)
                delay = self.last_arrival[lane] - self.now

            def arrive() -> None:
                receiver = self.nodes.get(effect.peer)
                if receiver and receiver.up.get(node.me) == link:
                    self.step(effect.peer, Received(node.me, effect.message))

            self.at(delay, arrive)

    def ingest(self, node: Node, effect: Ingest) -> None:
        node.payloads += len(effect.entries)
        fresh = []
        for raw in effect.entries:
            lane, seq = LaneKey.from_bytes(raw[:48]), int.from_bytes(raw[48:56], "big")
            due = max(node.store.next_seq(lane), node.staged.get(lane, 0))
            if seq == due:
                fresh.append((lane, seq, raw))
                node.staged[lane] = due + 1
            elif seq > due:
                gap = Gap(lane, due, seq, effect.peer)
                self.at(0, lambda gap=gap: self.step(node.me, gap))
                break
        if fresh:
            self._flush(node.me, fresh, effect.peer)

    def run(self, ms: int) -> None:
        until = self.now + ms
        while self.heap and self.heap[0][0] <= until:
            self.now, _, what = heapq.heappop(self.heap)
            what()
        self.now = until

    def settle(self, ms_max: int = 60_000) -> int:
        """Run until all stores are equal; return how long it took."""
        began = self.now
        self.run(FSYNC_MS + 1)  # what was just written is durable first
        while not self.equal():
            assert self.now - began < ms_max, f"not equal after {ms_max} ms"
            self.run(100)
        return self.now - began

    def equal(self) -> bool:
        first, *others = [node.store.frontier() for node in self.nodes.values()]
        return all(other == first for other in others)


def pair(seed: int = 1, **options) -> tuple[Net, bytes, bytes]:
    net = Net(2, seed, **options)
    return net, key(0), key(1)


def lane_of(author: bytes, boot: int = 0) -> LaneKey:
    return LaneKey(author, boot.to_bytes(16, "big"))


def only(effects, kind):
    return [each for each in effects if isinstance(each, kind)]


def sent(effects, kind) -> list:
    return [
        e.message for e in effects if isinstance(e, SendMessage) and isinstance(e.message, kind)
    ]


# --- the peaceful cell -----------------------------------------------------------------------


def test_a_write_reaches_a_peer_in_one_hop_and_its_receipt_comes_back() -> None:
    """A fresh entry is pushed when durable, and the author learns that the peer's disk has it."""
    net, a, b = pair()
    net.connect(a, b)
    net.run(2_000)
    net.write(a)
    net.run(60)
    assert net.nodes[b].store.next_seq(lane_of(a)) == 1
    assert net.nodes[a].holds[b, lane_of(a)] == 1
    assert net.nodes[a].engine.holders(lane_of(a), 0) == 1
    assert net.nodes[a].engine.holders(lane_of(a), 1) == 0
    assert net.nodes[a].engine.peer_next_seq(b, lane_of(a)) == 1


def test_redundancy_in_a_cell_of_eight_without_loss() -> None:
    """No payload travels twice in a whole mesh: at most 0.1 extra per delivery."""
    net = Net(8, 5)
    net.mesh()
    net.run(1_000)
    for _ in range(300):
        net.write(net.rng.choice(list(net.nodes)), net.rng.randint(1, 3))
        net.run(net.rng.randint(1, 30))
    net.settle(2_000)
    delivered = sum(
        len(log)
        for node in net.nodes.values()
        for lane, log in node.store.lanes.items()
        if lane.author != node.me
    )
    extra = sum(node.payloads for node in net.nodes.values()) / delivered - 1
    print(f"redundancy n=8: {extra:.4f} over {delivered} deliveries")
    assert extra <= 0.1


def test_steady_writing_needs_no_frontier_exchange() -> None:
    """Pings leave after the Have that their digest covers, so load alone never looks like loss."""
    net = Net(4, 9)
    net.mesh()
    net.run(3_000)
    before = sum(node.sent["AskFrontier"] for node in net.nodes.values())
    for _ in range(500):
        net.write(net.rng.choice(list(net.nodes)))
        net.run(10)
    assert sum(node.sent["AskFrontier"] for node in net.nodes.values()) == before


def test_a_relay_answers_those_who_are_not_connected_to_the_author() -> None:
    """In a line of five, an entry reaches the far end by Have and Want, each payload once."""
    net = Net(5, 3)
    names = list(net.nodes)
    for a, b in pairwise(names):
        net.connect(a, b)
    net.run(1_000)
    for node in net.nodes.values():
        node.payloads = 0
    net.write(names[0])
    assert net.settle(1_000) <= 300
    net.run(500)
    assert sum(node.payloads for node in net.nodes.values()) == 4


def test_equal_stores_meet_for_the_price_of_a_digest() -> None:
    """Two nodes that hold the same learn so, receipts included, from pings alone."""
    net, a, b = pair()
    net.connect(a, b)
    net.write(a, 50)
    net.write(b, 20)
    net.settle()
    net.cut(a, b)
    for node in net.nodes.values():
        node.sent.clear()
        node.holds.clear()
    net.connect(a, b)
    net.run(5_000)
    for node in net.nodes.values():
        assert set(node.sent) == {"Ping", "Pong"}
    assert net.nodes[a].holds[b, lane_of(a)] == 50
    assert all(view.in_step for view in net.nodes[a].engine.peers())


@pytest.mark.parametrize(("count", "limit"), [(4, 600), (20, 900), (50, 1_100)])
def test_idle_cost_stays_small(count: int, limit: int) -> None:
    """An idle cell sends little: the bytes of messages per node and second, before encryption."""
    net = Net(count, 2, measure=True)
    for node in net.nodes.values():
        node.engine.set_status(1 << 50, 1_700_000_000_000, [(bytes(32), 1_000)])
    net.mesh()
    net.measure = False
    net.run(5_000)
    net.measure = True
    for node in net.nodes.values():
        node.sent.clear()
        node.sent_bytes = 0
    net.run(10_000)
    rate = max(node.sent_bytes for node in net.nodes.values()) / 10
    messages = max(node.sent.total() for node in net.nodes.values()) / 10
    print(f"idle n={count}: {rate:.0f} B/s, {messages:.1f} messages/s per node")
    assert rate < limit


# --- trouble ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(100))
def test_all_lanes_equal_after_any_trouble(seed: int) -> None:
    """Loss, repeats, reordering, partitions and restarts: in the end all hold everything."""
    net = Net(2 + seed % 4, seed, loss=30 * (seed % 3 > 0), repeat=10 * (seed % 2))
    net.latency = (1, 40)
    names = list(net.nodes)
    net.mesh()
    for _ in range(25):
        dice = net.rng.randrange(10)
        a, b = net.rng.sample(names, 2)
        if dice < 5:
            net.write(a, net.rng.randint(1, 30))
        elif dice == 5:
            net.cut(a, b)
        elif dice == 6:
            net.connect(a, b)
        elif dice == 7:
            net.restart(a)
        elif dice == 8:
            net.step(a, SendRefused(b))
        net.run(net.rng.choice([5, 50, 500, 3_000]))
    net.mesh()
    net.settle(600_000)
    net.run(1)
    assert len({node.engine.frontier_digest() for node in net.nodes.values()}) == 1
    assert net.nodes[names[0]].engine.frontier_digest() == digest_of(
        net.nodes[names[0]].store.frontier()
    )


@pytest.mark.parametrize("hours", [0, 1, 24 * 10])
def test_a_partition_of_any_length_heals_in_seconds(hours: int) -> None:
    """However long two halves were apart, ten seconds after the link is back they are equal."""
    net = Net(4, 11)
    names = list(net.nodes)
    net.connect(names[0], names[1])
    net.connect(names[2], names[3])
    for name in names:
        net.write(name, 500)
    net.run(3_000)
    net.now += 0  # the halves are quiet
    for a in names:  # nothing but pings happens in a long night: skip it at once
        for b in list(net.nodes[a].up):
            net.cut(a, b)
    net.heap.clear()
    net.armed.clear()
    net.now += hours * 3_600_000
    net.mesh()
    assert net.settle() <= 10_000


def test_same_seed_same_trace() -> None:
    """Two runs of one seed send the same messages at the same moments."""

    def trace() -> list[tuple[int, bytes]]:
        net = Net(4, 77, loss=20, repeat=10)
        seen: list[tuple[int, bytes]] = []
        send = net.send
        net.send = lambda node, effect: (  # type: ignore[method-assign]
            seen.append((net.now, effect.peer + codec.encode(effect.message))),
            send(node, effect),
        )
        net.mesh()
        for _ in range(30):
            net.write(net.rng.choice(list(net.nodes)), 3)
            net.run(100)
        return seen

    assert trace() == trace()


def test_a_cut_costs_at_most_the_batch_in_flight() -> None:
    """Catching up over a line that is cut again and again resends no entry that was flushed."""
    net, a, b = pair()
    net.write(a, 5_000)
    net.run(100)
    cuts = 0
    while net.nodes[b].store.next_seq(lane_of(a)) < 5_000:
        net.connect(a, b)
        net.run(60)
        net.cut(a, b)
        net.run(10)  # what was being flushed is kept
        cuts += 1
        assert cuts < 100
    print(f"cuts {cuts}, payloads {net.nodes[b].payloads} for 5000 entries")
    assert cuts > 3
    assert net.nodes[b].payloads == 5_000  # what a cut swallowed never arrived, the rest once


def test_backlog_is_shared_among_sources() -> None:
    """A newcomer fetches many lanes from several peers, none of them twice."""
    net = Net(4, 8)
    names = list(net.nodes)
    logs = [lane_of(key(100 + n)) for n in range(200)]
    for name in names[:3]:
        net.nodes[name].store.lanes = {
            lane: [raw_entry(lane, s) for s in range(5)] for lane in logs
        }
        net.restart(name)
    net.mesh()
    net.settle(5_000)
    served = [net.nodes[name].sent["Entries"] for name in names[:3]]
    assert net.nodes[names[3]].payloads == 1_000
    assert all(served), served


def test_a_full_queue_pauses_pushes_and_the_digest_repairs() -> None:
    """After SendRefused nothing is pushed into the queue, and nothing is lost either."""
    net, a, b = pair()
    net.connect(a, b)
    net.run(1_000)
    net.step(a, SendRefused(b))
    assert net.nodes[a].engine.peers()[0].behind
    lane = lane_of(a)
    net.nodes[a].store.lanes[lane] = [raw_entry(lane, 0)]
    effects = net.nodes[a].engine.step(
        Grew(((lane, 1),), ((lane, 0, raw_entry(lane, 0)),), None), Instant(net.now)
    )
    assert not sent(effects, Push)
    net.settle(5_000)
    net.run(2_000)
    assert not net.nodes[a].engine.peers()[0].behind


def test_a_silent_peer_is_dropped_and_forgotten() -> None:
    """A peer that says nothing for PEER_SILENT_MS loses its connection, and only that."""
    net, a, b = pair(loss=100)
    net.connect(a, b)
    net.run(PEER_SILENT_MS - 1_000)
    assert net.nodes[a].engine.peers()[0].suspect
    net.run(3_000)
    assert net.nodes[a].dropped == ["silent"] or net.nodes[b].dropped == ["silent"]
    assert net.nodes[a].engine.peers() == []
    assert net.nodes[a].engine.deadline is None


def test_round_trip_time_is_measured() -> None:
    """Pongs to the newest ping give the way there and back."""
    net, a, b = pair()
    net.latency = (50, 50)
    net.connect(a, b)
    net.run(5_000)
    assert net.nodes[a].engine.peers()[0].rtt_ms == 100


def test_an_old_line_gets_small_batches() -> None:
    """Answers that take long halve the batch, so that a line cut often still moves forward."""
    engine, _, peer = lonely()
    lane, now, sizes = lane_of(key(9)), 0, []
    effects = engine.step(Received(peer, Have((mark(lane, 1_000),))), Instant(now))
    for seq in range(5):
        (want,) = sent(effects, Want)
        assert want.ranges[0].start == seq
        sizes.append(want.bytes_max)
        raw = raw_entry(lane, seq, 8_000)
        now += 5_000 if seq < 3 else 100
        engine.step(Received(peer, Entries(want.request, (1,), (raw,))), Instant(now))
        effects = engine.step(Grew(((lane, seq + 1),), ((lane, seq, raw),), peer), Instant(now))
    assert sizes == [32_768, 16_384, 8_192, 4_096, 8_192]


# --- hostile peers -----------------------------------------------------------------------------


def lonely() -> tuple[GossipEngine, bytes, bytes]:
    """An empty engine with one peer."""
    engine = GossipEngine(me=key(0), store=MemoryStore(), rng=random.Random(1), now=Instant(0))
    engine.step(PeerUp(key(1)), Instant(0))
    return engine, key(0), key(1)


def random_message(rng: random.Random) -> GossipMessage:
    """Any well-formed message, with numbers that hurt."""

    def number() -> int:
        return rng.choice([0, 1, 2, 5, rng.randrange(1 << 20), 2**53])

    def author() -> bytes:
        return rng.choice([key(rng.randrange(6)), rng.randbytes(32)])

    def marks(most: int) -> tuple[Mark, ...]:
        return tuple(
            Mark(author(), rng.choice([bytes(16), rng.randbytes(16)]), max(1, number()))
            for _ in range(rng.randrange(most))
        )

    def raws() -> tuple[bytes, ...]:
        return tuple(rng.randbytes(rng.choice([60, 500])) for _ in range(rng.randrange(20)))

    def ranges() -> tuple[LaneRange, ...]:
        return tuple(
            LaneRange(author(), bytes(16), number(), number()) for _ in range(rng.randint(1, 64))
        )

    def counts() -> tuple[int, ...]:
        return tuple(rng.randrange(3) for _ in range(rng.randrange(4)))

    makers = [
        lambda: Ping(number(), rng.randbytes(32), number(), number(), rng.randrange(8), ()),
        lambda: Pong(number()),
        lambda: Push(raws()),
        lambda: Have(marks(HAVE_LANES_MAX)),
        lambda: AskFrontier(number(), rng.choice([b"", rng.randbytes(4_096)]), b""),
        lambda: AskFrontier(number(), b"", rng.randbytes(48)),
        lambda: Frontier(rng.randrange(40), marks(1_024), rng.random() < 0.5, rng.randbytes(32)),
        lambda: Want(number(), BATCH_BYTES_MAX, ranges()),
        lambda: Entries(rng.randrange(40), counts(), raws()),
    ]
    return rng.choice(makers)()


@pytest.mark.parametrize("seed", range(8))
def test_a_hostile_peer_gains_nothing(seed: int) -> None:
    """Random well-formed messages stay within every cap, and two honest peers go on as before."""
    net = Net(3, seed)
    names = list(net.nodes)
    net.mesh()
    net.run(1_000)
    a, liar = names[0], key(3)
    engine = net.nodes[a].engine
    net.nodes[liar] = net._node(liar, MemoryStore())
    net.nodes[liar].honest = False
    net.nodes[liar].up[a] = net.nodes[a].up[liar] = net.links = 1_000
    engine.step(PeerUp(liar), Instant(net.now))
    out = 0
    for turn in range(400):
        if liar not in [view.peer for view in engine.peers()]:
            engine.step(PeerUp(liar), Instant(net.now))
        effects = engine.step(Received(liar, random_message(net.rng)), Instant(net.now))
        for each in effects:
            if isinstance(each, SendMessage) and each.peer == liar:
                out += len(codec.encode(each.message))
            elif isinstance(each, SendMessage):
                net.send(net.nodes[a], each)
            elif isinstance(each, Holds):
                assert each.next_seq <= net.nodes[a].store.next_seq(each.lane)
        mirror = engine._repair.mirrors.get(liar)
        assert mirror is None or mirror._foreign_count <= FOREIGN_LANES_MAX
        assert engine.lacking <= FOREIGN_LANES_MAX + 10
        assert len(engine._repair.wants._timers) <= 4 * (FOREIGN_LANES_MAX + 10) + 65
        net.arm(a)
        if turn % 10 == 0:
            net.write(net.rng.choice(names))
            net.run(20)
    net.nodes[a].up.pop(liar)
    del net.nodes[liar]
    engine.step(PeerDown(liar), Instant(net.now))
    net.settle(15_000)
    assert out < 8 * 1024 * 1024


def test_a_flood_is_forgotten_before_it_costs_a_signature_check() -> None:
    """Beyond its budget a peer's pushes do not reach ingest; its budget comes back with time."""
    engine, _, peer = lonely()
    push = Push(tuple(bytes([n]) * 100 for n in range(BATCH_ENTRIES_MAX)))

    def ingested(now: int, times: int) -> int:
        return sum(
            len(effect.entries)
            for _ in range(times)
            for effect in only(engine.step(Received(peer, push), Instant(now)), Ingest)
        )

    assert UNITS_BURST_MAX - 2 * BATCH_ENTRIES_MAX <= ingested(0, 1_000) <= UNITS_BURST_MAX
    assert ingested(500, 1_000) <= UNITS_PER_SECOND // 2
    assert engine.peers()[0].peer == peer


def test_a_boast_is_no_receipt_and_yields_to_an_honest_source() -> None:
    """A peer that claims absurd heights is asked, fails, and the honest holder serves the lane."""
    engine, _, liar = lonely()
    honest, lane = key(2), lane_of(key(9))
    engine.step(PeerUp(honest), Instant(0))
    effects = engine.step(Received(liar, Have((mark(lane, 2**53),))), Instant(10))
    assert not only(effects, Holds)
    (want,) = sent(effects, Want)
    assert want.ranges[0].end == BATCH_ENTRIES_MAX
    engine.step(Received(honest, Have((mark(lane, 3),))), Instant(20))
    effects = engine.step(Received(liar, Entries(want.request, (0,), ())), Instant(30))
    assert engine.peer_next_seq(liar, lane) == 0
    asked = [e.peer for e in only(effects, SendMessage) if isinstance(e.message, Want)]
    assert asked == [honest]


def test_a_want_that_is_not_answered_moves_to_another_peer() -> None:
    """After its patience a request is given up and the next holder is asked."""
    engine, _, first = lonely()
    second, lane = key(2), lane_of(key(9))
    engine.step(PeerUp(second), Instant(0))
    engine.step(Received(first, Have((mark(lane, 3),))), Instant(10))
    engine.step(Received(second, Have((mark(lane, 3),))), Instant(20))
    effects = engine.step(DeadlineReached(), Instant(4_020))
    asked = [e.peer for e in only(effects, SendMessage) if isinstance(e.message, Want)]
    assert asked == [second]


def test_a_lane_that_never_grows_is_asked_for_ever_more_rarely() -> None:
    """A fork or junk, which ingest refuses, costs a few requests a minute and not a loop."""
    engine, _, peer = lonely()
    lane, now, wants = lane_of(key(9)), 0, 0
    pending = sent(engine.step(Received(peer, Have((mark(lane, 5),))), Instant(0)), Want)
    while now < 600_000:
        wants += len(pending)
        for want in pending:
            answer = Entries(want.request, (1,), (b"junk",))
            engine.step(Received(peer, answer), Instant(now))
        engine.step(Received(peer, Pong(0)), Instant(now))
        due = engine.deadline
        assert due is not None
        now = max(now + 1, due)
        pending = sent(engine.step(DeadlineReached(), Instant(now)), Want)
    assert 3 < wants < 25


@pytest.mark.parametrize(
    "message",
    [
        AskFrontier(1, b"x" * 17, b""),
        AskFrontier(1, b"", b"x" * 5),
        AskFrontier(1, b"x" * 4_095, b""),
    ],
)
def test_an_impossible_question_drops_the_peer(message: GossipMessage) -> None:
    """Lengths that no version of ours sends end the channel."""
    engine, _, peer = lonely()
    effects = engine.step(Received(peer, message), Instant(0))
    assert [e.peer for e in only(effects, DropPeer)] == [peer]
    assert engine.peers() == []


def test_an_answer_that_does_not_add_up_drops_the_peer() -> None:
    """Counts and entries must agree; the lane is asked for elsewhere."""
    engine, _, peer = lonely()
    lane = lane_of(key(9))
    (want,) = sent(engine.step(Received(peer, Have((mark(lane, 5),))), Instant(0)), Want)
    effects = engine.step(Received(peer, Entries(want.request, (2,), (b"one",))), Instant(5))
    assert only(effects, DropPeer)
    assert not only(effects, Ingest)


def test_unasked_answers_are_forgotten() -> None:
    """Entries and frontier pages nobody asked for change nothing."""
    engine, _, peer = lonely()
    page = Frontier(7, (mark(lane_of(key(9)), 5),), False, bytes(32))
    assert not sent(engine.step(Received(peer, page), Instant(0)), Want)
    entries = Entries(7, (1,), (b"one",))
    assert not only(engine.step(Received(peer, entries), Instant(0)), Ingest)
    assert engine.lacking == 0


def test_a_false_signature_drops_the_peer() -> None:
    """What ingest calls bad ends the channel; messages still queued from it are ignored."""
    engine, _, peer = lonely()
    effects = engine.step(Bad(peer, "a false signature"), Instant(0))
    assert only(effects, DropPeer) == [DropPeer(peer, "a false signature")]
    assert list(engine.step(Received(peer, Push((b"x",))), Instant(1))) == []


def test_the_cell_has_a_last_seat() -> None:
    """Beyond PEERS_MAX a peer is turned away, and so is a mirror of ourselves."""
    engine, me, _ = lonely()
    for n in range(2, PEERS_MAX + 1):
        assert not only(engine.step(PeerUp(key(n)), Instant(0)), DropPeer)
    assert only(engine.step(PeerUp(key(200)), Instant(0)), DropPeer)
    assert only(engine.step(PeerUp(me), Instant(0)), DropPeer)


def test_large_tables_exchange_only_the_buckets_that_differ() -> None:
    """Two stores of 3,000 lanes that differ in ten meet with under 30 kB of frontier."""
    net, a, b = pair(measure=True)
    lanes = [LaneKey(random.Random(n).randbytes(32), bytes(16)) for n in range(3_000)]
    for name in (a, b):
        net.nodes[name].store.lanes = {lane: [raw_entry(lane, 0, 20)] for lane in lanes}
    for lane in lanes[:10]:
        net.nodes[a].store.lanes[lane].append(raw_entry(lane, 1, 20))
    net.restart(a)
    net.restart(b)
    net.connect(a, b)
    net.settle(5_000)
    total = net.nodes[a].sent_bytes + net.nodes[b].sent_bytes
    print(f"3,000 lanes, 10 differ: {total} bytes both ways")
    assert total < 45_000
    assert net.nodes[b].payloads == 10
    assert net.nodes[a].engine.peer_next_seq(b, sorted(lanes)[-1]) >= 1


def test_a_newcomer_fetches_more_lanes_than_it_has_room_to_list() -> None:
    """With more foreign lanes than one page, pages come as room comes, until all is here."""
    net, a, b = pair()
    lanes = [LaneKey(random.Random(n).randbytes(32), bytes(16)) for n in range(2_500)]
    net.nodes[a].store.lanes = {lane: [raw_entry(lane, 0, 20)] for lane in lanes}
    net.restart(a)
    net.connect(a, b)
    print(f"2,500 lanes fetched in {net.settle(60_000)} ms")
    assert net.nodes[b].payloads == 2_500


def test_the_store_of_a_test_is_sorted() -> None:
    """Lane keys sort as their bytes do, which the frontier's order relies on."""
    lanes = [LaneKey(random.Random(n).randbytes(32), bytes([n]) * 16) for n in range(50)]
    assert sorted(lanes) == [LaneKey.from_bytes(r) for r in sorted(x.to_bytes() for x in lanes)]
    assert bisect_left(sorted(lanes), lanes[3]) == sorted(lanes).index(lanes[3])
