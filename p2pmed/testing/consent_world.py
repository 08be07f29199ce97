"""The nodes of a consent race: their disks, what they make of them, and an oracle (``consent.py``).

The oracle reads the transactions themselves and no table, so that a mistake in a table's rules is
found and not shared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from random import Random
from types import MappingProxyType
from typing import Any, Final

from nacl import bindings

from p2pmed.identity.persons import PersonKeys
from p2pmed.identity.sealing import WRAP_BYTES, box_id
from p2pmed.ledger.state import BlockContext, Layer
from p2pmed.ledger.transaction import Entry, Envelope, LaneKey
from p2pmed.medical import consent as rules
from p2pmed.medical.consent import AccessGrant, AccessRevoke
from p2pmed.medical.keyring import Category
from p2pmed.medical.patients import PATIENT_KEYS, PATIENTS, PatientKeyRow, PatientRow
from p2pmed.medical.privacy import delegation, emergency, reads
from p2pmed.medical.privacy.delegation import AccessDelegate
from p2pmed.medical.privacy.emergency import (
    EmergencyClose,
    EmergencyOpen,
    emergency_row,
)
from p2pmed.medical.privacy.reads import AuditRead, Gate
from p2pmed.medical.registry import Act, Kind, Member
from p2pmed.wire.hashing import hash_bytes

__all__ = [
    "CATEGORIES",
    "GUARDIAN",
    "NETWORK",
    "PATIENT",
    "PATIENT_HAND",
    "RECORDS",
    "STAFF",
    "START_MS",
    "WRAPPED",
    "ConsentNode",
    "ConsentWorld",
    "Reading",
]


START_MS: Final = 1_700_000_000_000
NETWORK: Final = hash_bytes(b"consent")
PATIENT: Final = hash_bytes(b"patient")[:16]
REGISTRATION: Final = hash_bytes(b"registration")
WRAPPED: Final = bytes(WRAP_BYTES)
RECORDS: Final = tuple(hash_bytes(b"record" + bytes([number])) for number in range(12))
CATEGORIES: Final = (Category.GENERAL, Category.LABORATORY)

KINDS: Final[Mapping[type, Kind[Any]]] = MappingProxyType(
    {kind.body: kind for kind in (*rules.KINDS, *delegation.KINDS, *emergency.KINDS, *reads.KINDS)}
)


class _NoRows:
    """The state below everything."""

    def get(self, key: bytes) -> bytes | None:
        return None

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        return iter(())


@dataclass(frozen=True, slots=True)
class Item:
    """A transaction with its body as it was made."""

    entry: Entry
    body: Any


@dataclass(slots=True)
class Reading:
    """A batch that a node announced."""

    token: int
    audit: bytes
    records: tuple[bytes, ...]


@dataclass(slots=True)
class ConsentNode:
    """What one node has on its disk, in memory, and what it makes of it."""

    number: int
    key: bytes
    box: bytes
    base: Layer
    disk: list[Item] = field(default_factory=list)
    staged: list[Item] = field(default_factory=list)
    known: dict[bytes, Item] = field(default_factory=dict)
    view: Layer = field(init=False)
    gate: Gate = field(init=False)
    readings: list[Reading] = field(default_factory=list)
    broken: bytes = b""
    """The emergency whose keys are in memory, or empty."""
    written: int = 0
    saved: tuple[dict[bytes, bytes | None], dict[bytes, Item]] = field(
        default_factory=lambda: ({}, {})
    )
    """What the disk's transactions come to: read again after a crash."""

    def __post_init__(self) -> None:
        self.view, self.gate = Layer(self.base), Gate()

    def take(self, item: Item) -> None:
        """Append to the log: it counts at once, and is durable with the next flush."""
        self.staged.append(item)
        self._apply(item)

    def _apply(self, item: Item) -> None:
        self.known[item.entry.id] = item
        kind = KINDS[type(item.body)]
        context = BlockContext(
            network=NETWORK,
            ledger=b"",
            height=0,
            time_ms=item.entry.envelope.wall,
            provisional=True,
        )
        member = _member(item.entry.author)
        act = Act(body=item.body, entry=item.entry, member=member, context=context)
        if kind.check(act, self.view) is None:
            kind.apply(act, self.view)

    def flush(self) -> None:
        """The disk has it: what waited for it goes on."""
        if self.staged:
            self.saved = (dict(self.view.writes), dict(self.known))
        self.disk += self.staged
        done = {item.entry.id for item in self.staged}
        self.staged = []
        for reading in self.readings:
            if reading.audit in done:
                self.gate.stored(reading.token)

    def crash(self) -> None:
        """Lose what was not flushed, and all memory."""
        self.staged, self.readings, self.broken = [], [], b""
        self.gate = Gate()
        self.view = Layer(self.base)
        self.view.writes, self.known = dict(self.saved[0]), dict(self.saved[1])

    def leave(self, now: int) -> tuple[bytes, ...]:
        """By which grants or emergency this node may read now."""
        if self.broken:
            row = emergency_row(self.view, PATIENT, self.broken)
            if row is not None and row.is_open(now):
                return (self.broken,)
        own = box_id(self.box)
        found = rules.readers(self.view, PATIENT, now)
        return tuple(grant.id for grant in found if grant.row.grantee == own)


def _member(device: bytes) -> Member:
    return Member(
        name="clinic",
        roles=("clinic",),
        place="shan/mu",
        box_key=_box(device),
        issuer=bytes(32),
        serial=bytes(16),
        not_after=2**50,
    )


def _box(device: bytes) -> bytes:
    return hash_bytes(b"box" + device)


class _Signer:
    """An Ed25519 pair made from a name: signatures are real, randomness is none."""

    def __init__(self, name: bytes) -> None:
        self.public, self._secret = bindings.crypto_sign_seed_keypair(hash_bytes(name))

    def sign(self, message: bytes) -> bytes:
        return bindings.crypto_sign(message, self._secret)[:64]


PATIENT_HAND: Final = _Signer(b"hand")
GUARDIAN: Final = _Signer(b"guardian")
STAFF: Final = tuple(PersonKeys(hash_bytes(n), hash_bytes(b"box" + n)) for n in (b"1", b"2"))


def _base(registrar: bytes) -> Layer:
    layer = Layer(_NoRows())
    row = PatientRow(author=registrar, entry=REGISTRATION, patient_key=bytes(32), catchment="")
    PATIENTS.put(layer, row, PATIENT)
    key = PatientKeyRow(
        patient_key=bytes(32),
        sign_key=PATIENT_HAND.public,
        author=registrar,
        entry=REGISTRATION,
        released=False,
    )
    PATIENT_KEYS.put(layer, key, PATIENT, b"\x00", REGISTRATION)
    return layer


class ConsentWorld:
    """All nodes, time, cuts, and the oracle."""

    def __init__(self, seed: int) -> None:
        rng = Random(seed)
        keys = [hash_bytes(b"device" + bytes([number])) for number in range(3 + seed % 3)]
        base = _base(keys[0])
        self.nodes = [ConsentNode(number, key, _box(key), base) for number, key in enumerate(keys)]
        self.now = START_MS + rng.randrange(1_000)
        self.cuts: set[tuple[int, int]] = set()
        self.flushes = self.opened = self.refused = 0
        """Transactions that became durable; records opened, and refused."""
        self.violations: list[str] = []
        self.trace: list[bytes] = []

    def write(self, node: ConsentNode, body: Any, *refs: bytes) -> bytes:
        """A transaction of ``node``; its id."""
        node.written += 1
        envelope = Envelope(
            version=1,
            incarnation=bytes(16),
            seq=node.written,
            prev=bytes(32),
            ledger=b"",
            hlc=self.now << 16 | node.written & 0xFFFF,
            wall=self.now,
            clock=0,
            kind=KINDS[type(body)].name,
            kind_version=1,
            actor=b"",
            subject=PATIENT,
            refs=tuple(dict.fromkeys((REGISTRATION, *(ref for ref in refs if ref)))),
            body=[],
        )
        name = hash_bytes(node.key + self.now.to_bytes(8, "big") + node.written.to_bytes(4, "big"))
        lane = LaneKey(node.key, bytes(16))
        entry = Entry(
            id=name, lane=lane, envelope=envelope, raw=b"", signature=b"", to_be_signed=b""
        )
        node.take(Item(entry, body))
        return name

    def meet(self, one: ConsentNode, other: ConsentNode) -> None:
        """Both have what the other has on its disk, causes first."""
        if (min(one.number, other.number), max(one.number, other.number)) in self.cuts:
            return
        for source, target in ((one, other), (other, one)):
            for item in source.disk:
                refs = item.entry.envelope.refs
                if item.entry.id not in target.known and all(
                    ref == REGISTRATION or ref in target.known for ref in refs
                ):
                    target.take(item)

    def opens(self, node: ConsentNode, record: bytes) -> None:
        """``node`` opens a record: the oracle looks at the transactions it has."""
        self.opened += 1
        self.trace.append(bytes([node.number]) + record[:4] + self.now.to_bytes(8, "big"))
        told = any(
            isinstance(item.body, AuditRead)
            and item.entry.author == node.key
            and record in _named(item.body)
            for item in node.disk
        )
        if not told:
            self._broken("audited", node, "plaintext without a stored announcement")
        if not self._may(node):
            self._broken("leave", node, "a decrypt after what ended the leave was stored")

    def _broken(self, promise: str, node: ConsentNode, detail: str) -> None:
        self.violations.append(
            f"at {self.now - START_MS} ms: {promise}: node {node.number}: {detail}"
        )

    def _may(self, node: ConsentNode) -> bool:
        """Whether any transaction that the node has gives leave that none of them has ended."""
        bodies = {name: item.body for name, item in node.known.items()}
        ended = {body.grant for body in bodies.values() if isinstance(body, AccessRevoke)}
        over = {body.opening for body in bodies.values() if isinstance(body, EmergencyClose)}

        def stands(name: bytes) -> bool:
            body = bodies.get(name)
            if name in ended or not isinstance(body, AccessGrant | AccessDelegate):
                return False
            in_time = body.since <= self.now and (not body.until or self.now < body.until)
            return in_time and (not body.under or stands(body.under))

        for name, body in bodies.items():
            mine = getattr(body, "grantee_key", b"") == node.box
            if mine and stands(name):
                return True
            here = isinstance(body, EmergencyOpen) and name == node.broken
            if here and name not in over and self.now < body.until:
                return True
        return False


def _named(body: AuditRead) -> tuple[bytes, ...]:
    """The records of an announcement; here they stand in what would be sealed."""
    raw = body.sealed[WRAP_BYTES:]
    return tuple(raw[at : at + 32] for at in range(0, len(raw), 32))
