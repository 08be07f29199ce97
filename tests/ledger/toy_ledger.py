"""A ledger of toys: devices that sign, a machine with two rules, nodes without a network.

The machine knows ``toy.put`` (set a row) and ``toy.once`` (set it unless it is set; else refused
as ``taken``, naming who took it). What it does not know it refuses as ``unknown_type``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from nacl import bindings

from p2pmed.consensus.interface import Block, Check, Header, header_digest
from p2pmed.ledger.chain import Chain, Decided
from p2pmed.ledger.genesis import Founding, Genesis, sign_genesis
from p2pmed.ledger.logs import Logs
from p2pmed.ledger.state import APPLIED, BlockContext, Verdict, View
from p2pmed.ledger.transaction import GENESIS_PREV, Entry, Envelope, LaneKey, sign_entry
from p2pmed.quorum.certificate import (
    Certificate,
    Epoch,
    Validator,
    VoteKind,
    make_certificate,
    vote_bytes,
)
from p2pmed.storage.memory import MemoryDisk
from p2pmed.wire.hashing import hash_bytes

NETWORK = hash_bytes(b"a network")
CREATED_MS = 1_800_000_000_000


@dataclass(frozen=True)
class Device:
    """Two key pairs that follow from a name."""

    name: str

    @property
    def seed(self) -> bytes:
        return hash_bytes(self.name.encode())

    @property
    def key(self) -> bytes:
        public: bytes = bindings.crypto_sign_seed_keypair(self.seed)[0]
        return public

    @property
    def vote_seed(self) -> bytes:
        return hash_bytes(b"vote" + self.name.encode())

    @property
    def vote_key(self) -> bytes:
        public: bytes = bindings.crypto_sign_seed_keypair(self.vote_seed)[0]
        return public

    def vote(self, message: bytes) -> bytes:
        signature: bytes = bindings.crypto_sign(message, self.vote_seed + self.vote_key)[:64]
        return signature


def devices(count: int) -> list[Device]:
    """Named devices, in the order of their keys: the order of seats."""
    return sorted((Device(f"device {n}") for n in range(count)), key=lambda d: d.key)


@dataclass
class Writer:
    """One author log."""

    device: Device
    incarnation: bytes = bytes(16)
    ledger: bytes = b""
    seq: int = 0
    prev: bytes = GENESIS_PREV

    @property
    def lane(self) -> LaneKey:
        return LaneKey(self.device.key, self.incarnation)

    def envelope(self, kind: str, body: list[Any], **fields: Any) -> Envelope:
        values: dict[str, Any] = {
            "version": 1,
            "incarnation": self.incarnation,
            "seq": self.seq,
            "prev": self.prev,
            "ledger": self.ledger,
            "hlc": self.seq,
            "wall": CREATED_MS,
            "clock": 0,
            "kind": kind,
            "kind_version": 1,
            "actor": b"",
            "subject": b"",
            "refs": (),
            "body": body,
        }
        return Envelope(**{**values, **fields})

    def sign(self, kind: str, body: list[Any], **fields: Any) -> Entry:
        """An entry for the next place, which is not taken by it."""
        envelope = self.envelope(kind, body, **fields)
        return sign_entry(envelope, seed=self.device.seed, author=self.device.key, network=NETWORK)

    def write(self, kind: str = "toy.put", body: list[Any] | None = None, **fields: Any) -> Entry:
        """The next entry."""
        entry = self.sign(kind, [b"k", b"v"] if body is None else body, **fields)
        self.seq, self.prev = entry.seq + 1, entry.id
        return entry

    def many(self, count: int) -> list[Entry]:
        """Entries that each put a row of their own."""
        name = self.device.name.encode()
        return [self.write("toy.put", [name + bytes([n % 256]), b"v"]) for n in range(count)]

    def fork(self) -> Writer:
        """Another copy of this device, which goes on from here by itself."""
        return Writer(self.device, self.incarnation, self.ledger, self.seq, self.prev)


class ToyMachine:
    """See the module."""

    rules_hash = hash_bytes(b"rules of toys")

    def __init__(self) -> None:
        self.applied: list[bytes] = []
        """Every id it was given, in order."""

    def apply(self, entry: Entry, view: View, context: BlockContext) -> Verdict:
        self.applied.append(entry.id)
        if entry.kind not in ("toy.put", "toy.once"):
            return Verdict(code="unknown_type")
        key, value = entry.envelope.body
        known = view.get(b"toy" + key)
        if entry.kind == "toy.once" and known is not None:
            return Verdict(code="taken", other=known)
        view.put(b"toy" + key, entry.id if entry.kind == "toy.once" else value)
        return Verdict(code=APPLIED)


def genesis_of(
    seats: Sequence[Device], *, engine: str = "bft", liars: int | None = None, **fields: Any
) -> Genesis:
    """A genesis of ``seats``."""
    most = (len(seats) - 1) // 3 if engine == "bft" else 0
    values: dict[str, Any] = {
        "version": 1,
        "network": NETWORK,
        "name": "toys",
        "engine": engine,
        "liars": most if liars is None else liars,
        "validators": tuple(Validator(node=d.key, vote_key=d.vote_key) for d in seats),
        "rules": ToyMachine.rules_hash,
        "created": CREATED_MS,
        "nonce": bytes(16),
    }
    return Genesis(**{**values, **fields})


def founding_of(seats: Sequence[Device], genesis: Genesis) -> Founding:
    """All have signed; a device's credential chain is its key here (``open_chain``)."""
    return Founding(
        genesis=genesis,
        signatures=tuple(sign_genesis(genesis, seed=d.seed, node=d.key) for d in seats),
        chains=tuple((d.key,) for d in seats),
    )


def open_chain(chain: Sequence[bytes]) -> bytes:
    """The device that a toy credential speaks of."""
    return chain[0]


def certify(
    epoch: Epoch,
    seats: Sequence[Device],
    header: Header,
    *,
    kind: VoteKind = VoteKind.FINALIZE,
    signers: Iterable[int] | None = None,
) -> Certificate:
    """A certificate for ``header`` by a quorum, or by the named seats."""
    chosen = list(range(epoch.quorum)) if signers is None else list(signers)
    digest = header_digest(header)
    message = vote_bytes(epoch.ledger, epoch.number, kind, header.view, digest)
    votes = [(seat, seats[seat].vote(message)) for seat in chosen]
    return make_certificate(epoch, kind, header.view, digest, votes)


@dataclass
class ToyNode:
    """A chain on a disk, told by hand what its logs hold."""

    genesis: Genesis
    seat: int = 0
    wall_ms: int = CREATED_MS + 1_000
    disk: MemoryDisk = field(default_factory=MemoryDisk)
    available: Callable[[LaneKey], int] | None = None
    ready: Callable[[Entry], bool] = field(default=lambda entry: True)

    machine_type: type[ToyMachine] = ToyMachine

    def __post_init__(self) -> None:
        self.machine = self.machine_type()
        self.open()

    def open(self) -> None:
        """Start, or start again, from the disk."""
        self.logs = Logs(self.disk, NETWORK)
        self.chain = Chain(
            disk=self.disk,
            logs=self.logs,
            genesis=self.genesis,
            machine=self.machine,
            wall=lambda: self.wall_ms,
            available=self.available or self.logs.next_seq,
            ready=lambda entry: self.ready(entry),
            seat=self.seat,
        )

    def hold(self, *entries: Entry) -> None:
        """Entries arrive and are flushed."""
        for entry in entries:
            self.logs.append(entry)
        self.disk.commit()
        for entry in entries:
            self.logs.settle(entry.lane, entry.seq + 1)

    def propose(
        self, *, parent: Header | None = None, view: int | None = None, **fields: Any
    ) -> Block | None:
        """A block on ``parent`` (else on the head), as an engine would make it."""
        below = parent or self.chain.head
        height = below.height if below else 0
        at = header_digest(below) if below else self.chain.ledger
        view = height + 1 if view is None else view
        content = self.chain.build(at, view)
        if content is None:
            return None
        values: dict[str, Any] = {
            "version": 1,
            "ledger": self.chain.ledger,
            "epoch": 0,
            "view": view,
            "height": height + 1,
            "parent": at,
            "parent_view": below.view if below else 0,
            "proposer": self.seat,
            "content": content.hash,
        }
        return Block(header=Header(**{**values, **fields}), content=content.data)

    def order(self, *others: ToyNode) -> Decided:
        """Propose, let everybody check and decide, flush."""
        block = self.propose()
        assert block is not None
        made = [node.take(block) for node in (self, *others)]
        return made[0]

    def take(self, block: Block, certificate: Certificate | None = None) -> Decided:
        """Check and decide a block, flush."""
        assert self.chain.check(block) is Check.VALID
        decided = self.chain.decide(block, certificate)
        self.disk.commit()
        return decided
