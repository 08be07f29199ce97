"""Consent under crashes and cuts: the rules of leave and of reading, with 3 to 5 nodes, by seed.

What is real here: grants, revocations, delegations and emergencies with their rules
(``medical/consent.py``, ``privacy/delegation.py``, ``privacy/emergency.py``), who may read by what
a node has stored (``readers``), and the gate that readings pass (``privacy/reads.py``). What is
played: disks that lose what was not flushed, cuts, and time. No ciphers: whether a key opens is a
matter of cryptography, tested elsewhere; here it is a matter of *when*.

Two promises, kept by an oracle that reads the transactions themselves and no table:

* no plaintext without an earlier ``audit.read`` on that node's disk;
* no decrypt by a node after it stored what ends its leave: a revocation, of the delegation too,
  the last moment of a grant, the end of an emergency.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from random import Random
from types import MappingProxyType
from typing import Any, Final

import msgspec
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
    Reason,
    emergency_row,
    open_digest,
)
from p2pmed.medical.privacy.proofs import said
from p2pmed.medical.privacy.reads import AuditRead, Gate
from p2pmed.medical.registry import Act, Kind, Member
from p2pmed.testing.planting import Patch, Plant, sown
from p2pmed.testing.scenario import SeedOptions, SeedReport, Step
from p2pmed.wire.hashing import hash_bytes

__all__ = ["CONSENT_DEFECTS", "play"]

STEPS: Final = 220
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

WEIGHTS: Final[Mapping[str, int]] = MappingProxyType(
    {
        "grant": 8,
        "revoke": 7,
        "delegate": 3,
        "grant under": 4,
        "open emergency": 4,
        "close emergency": 3,
        "begin reading": 22,
        "open records": 30,
        "end reading": 6,
        "flush": 34,
        "meet": 24,
        "crash": 8,
        "cut": 8,
        "heal": 7,
    }
)
FAULTS: Final = ("crash", "cut")


class _NoRows:
    """The state below everything."""

    def get(self, key: bytes) -> bytes | None:
        return None

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        return iter(())


@dataclass(frozen=True, slots=True)
class _Item:
    """A transaction with its body as it was made."""

    entry: Entry
    body: Any


@dataclass(slots=True)
class _Reading:
    """A batch that a node announced."""

    token: int
    audit: bytes
    records: tuple[bytes, ...]


@dataclass(slots=True)
class _Node:
    """What one node has on its disk, in memory, and what it makes of it."""

    number: int
    key: bytes
    box: bytes
    base: Layer
    disk: list[_Item] = field(default_factory=list)
    staged: list[_Item] = field(default_factory=list)
    known: dict[bytes, _Item] = field(default_factory=dict)
    view: Layer = field(init=False)
    gate: Gate = field(init=False)
    readings: list[_Reading] = field(default_factory=list)
    broken: bytes = b""
    """The emergency whose keys are in memory, or empty."""
    written: int = 0
    saved: tuple[dict[bytes, bytes | None], dict[bytes, _Item]] = field(
        default_factory=lambda: ({}, {})
    )
    """What the disk's transactions come to: read again after a crash."""

    def __post_init__(self) -> None:
        self.view, self.gate = Layer(self.base), Gate()

    def take(self, item: _Item) -> None:
        """Append to the log: it counts at once, and is durable with the next flush."""
        self.staged.append(item)
        self._apply(item)

    def _apply(self, item: _Item) -> None:
        self.known[item.entry.id] = item
        kind = KINDS[type(item.body)]
        context = BlockContext(
            network=NETWORK,
            ledger=b"",
            height=0,
            time_ms=item.entry.envelope.wall,
            provisional=True,
        )
        act = Act(body=item.body, entry=item.entry, member=MEMBER, context=context)
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


MEMBER: Final = Member(
    name="clinic",
    roles=("clinic",),
    place="shan/mu",
    box_key=bytes(32),
    issuer=bytes(32),
    serial=bytes(16),
    not_after=2**50,
)


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


class _World:
    """All nodes, time, cuts, and the oracle."""

    def __init__(self, seed: int) -> None:
        rng = Random(seed)
        keys = [hash_bytes(b"device" + bytes([number])) for number in range(3 + seed % 3)]
        base = _base(keys[0])
        self.nodes = [
            _Node(number, key, hash_bytes(b"box" + key), base) for number, key in enumerate(keys)
        ]
        self.now = START_MS + rng.randrange(1_000)
        self.cuts: set[tuple[int, int]] = set()
        self.flushes = self.opened = self.refused = 0
        """Transactions that became durable; records opened, and refused."""
        self.violations: list[str] = []
        self.trace: list[bytes] = []

    def write(self, node: _Node, body: Any, *refs: bytes) -> bytes:
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
        node.take(_Item(entry, body))
        return name

    def meet(self, one: _Node, other: _Node) -> None:
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

    def opens(self, node: _Node, record: bytes) -> None:
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

    def _broken(self, promise: str, node: _Node, detail: str) -> None:
        self.violations.append(
            f"at {self.now - START_MS} ms: {promise}: node {node.number}: {detail}"
        )

    def _may(self, node: _Node) -> bool:
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


# --- what can happen --------------------------------------------------------------------------


def _leave(reader: _Node, until: int, under: bytes = b"") -> AccessGrant:
    body = AccessGrant(
        grantee_key=reader.box,
        purpose="TREAT",
        epoch=0,
        since=0,
        until=until,
        wrapped=WRAPPED,
        told=b"",
        under=under,
        proof=b"",
    )
    if not under:
        return body
    message = said("grant", NETWORK, PATIENT, body.words)
    return msgspec.structs.replace(body, proof=GUARDIAN.sign(message))


def _grant(world: _World, dice: Random) -> None:
    until = world.now + dice.choice((5_000, 60_000, 600_000)) if dice.random() < 0.4 else 0
    world.write(world.nodes[0], _leave(dice.choice(world.nodes[1:]), until))


def _delegations(node: _Node) -> list[bytes]:
    return [name for name, item in node.known.items() if isinstance(item.body, AccessDelegate)]


def _grant_under(world: _World, dice: Random) -> None:
    known = _delegations(world.nodes[0])
    if known:
        under = dice.choice(known)
        holders = [node for node in world.nodes if under in node.known]
        node = dice.choice(holders)
        until = node.known[under].body.until
        world.write(node, _leave(dice.choice(world.nodes[1:]), until, under), under)


def _delegate(world: _World, dice: Random) -> None:
    body = AccessDelegate(
        grantee_key=dice.choice(world.nodes[1:]).box,
        sign_key=GUARDIAN.public,
        epoch=0,
        since=0,
        until=world.now + 300_000 if dice.random() < 0.5 else 0,
        depth=0,
        under=b"",
        wrapped=WRAPPED,
        told=b"",
        proof=b"",
    )
    message = said("delegate", NETWORK, PATIENT, body.words)
    world.write(world.nodes[0], msgspec.structs.replace(body, proof=PATIENT_HAND.sign(message)))


def _revoke(world: _World, dice: Random) -> None:
    """By any node, of what it knows: also twice, and on both sides of a cut."""
    node = dice.choice(world.nodes)
    known = [
        name
        for name, item in node.known.items()
        if isinstance(item.body, AccessGrant | AccessDelegate)
    ]
    if known:
        grant = dice.choice(known)
        world.write(node, AccessRevoke(grant=grant, epoch=1, wraps=()), grant)


def _open_emergency(world: _World, dice: Random) -> None:
    node = dice.choice(world.nodes[1:])
    until = world.now + dice.choice((10_000, 60_000, 3_600_000))
    message = open_digest(PATIENT, node.key, Reason.UNCONSCIOUS, CATEGORIES, until)
    words = [person.countersign(NETWORK, "emergency.open", message) for person in STAFF]
    body = EmergencyOpen(
        reason=Reason.UNCONSCIOUS,
        categories=CATEGORIES,
        until=until,
        first=words[0],
        second=words[1],
    )
    name = world.write(node, body)
    node.flush()  # the node waits for it before any share is used
    node.broken = name


def _close_emergency(world: _World, dice: Random) -> None:
    node = dice.choice(world.nodes)
    known = [name for name, item in node.known.items() if isinstance(item.body, EmergencyOpen)]
    if known:
        opening = dice.choice(known)
        world.write(node, EmergencyClose(opening=opening), opening)


def _begin_reading(world: _World, dice: Random) -> None:
    node = dice.choice(world.nodes[1:])
    leave = node.leave(world.now)
    if not leave or len(node.readings) > 4:
        world.refused += not leave
        return
    records = tuple(dice.sample(RECORDS, dice.randrange(1, 5)))
    token = node.gate.announce(records)
    body = AuditRead(
        purpose="TREAT",
        grants=leave[:1],
        count=len(records),
        root=bytes(32),
        sealed=WRAPPED + b"".join(records),
    )
    audit = world.write(node, body)
    node.readings.append(_Reading(token, audit, records))


def _open_records(world: _World, dice: Random) -> None:
    """The next slice of a long reading; between slices anything may be stored."""
    busy = [node for node in world.nodes if node.readings]
    if not busy:
        return
    node = dice.choice(busy)
    reading = dice.choice(node.readings)
    for record in reading.records:
        if node.gate.may(record) and node.leave(world.now):
            world.opens(node, record)
        else:
            world.refused += 1


def _end_reading(world: _World, dice: Random) -> None:
    busy = [node for node in world.nodes if node.readings]
    if busy:
        node = dice.choice(busy)
        node.gate.done(node.readings.pop(0).token)


def _flush(world: _World, dice: Random) -> None:
    node = dice.choice(world.nodes)
    world.flushes += len(node.staged)
    node.flush()


def _meet(world: _World, dice: Random) -> None:
    world.meet(*dice.sample(world.nodes, 2))


def _crash(world: _World, dice: Random) -> None:
    dice.choice(world.nodes).crash()


def _cut(world: _World, dice: Random) -> None:
    one, other = sorted(dice.sample(range(len(world.nodes)), 2))
    world.cuts.add((one, other))


def _heal(world: _World, dice: Random) -> None:
    world.cuts.clear()


ACTS: Final[Mapping[str, Callable[[_World, Random], None]]] = MappingProxyType(
    {
        "grant": _grant,
        "revoke": _revoke,
        "delegate": _delegate,
        "grant under": _grant_under,
        "open emergency": _open_emergency,
        "close emergency": _close_emergency,
        "begin reading": _begin_reading,
        "open records": _open_records,
        "end reading": _end_reading,
        "flush": _flush,
        "meet": _meet,
        "crash": _crash,
        "cut": _cut,
        "heal": _heal,
    }
)


def _story(seed: int) -> tuple[Step, ...]:
    rng = Random(f"consent {seed}")
    names = rng.choices(list(WEIGHTS), weights=list(WEIGHTS.values()), k=STEPS)
    return tuple(
        {"do": name, "dice": rng.getrandbits(32), "after": rng.choice((20, 400, 2_000, 9_000))}
        for name in names
    )


def play(seed: int, options: SeedOptions) -> SeedReport:
    """Play one seed. Raises ``KeyError`` for a defect that is not in ``CONSENT_DEFECTS``."""
    plant = CONSENT_DEFECTS[options.planted] if options.planted else Plant()
    story = options.steps if options.steps is not None else _story(seed)
    faults: dict[str, int] = {}
    with sown(plant):
        world = _World(seed)
        for step in story:
            world.now += step["after"]
            ACTS[step["do"]](world, Random(step["dice"]))
            if step["do"] in FAULTS:
                faults[step["do"]] = faults.get(step["do"], 0) + 1
    return SeedReport(
        scenario="consent",
        seed=seed,
        virtual_ms=world.now - START_MS,
        steps=len(story),
        faults=dict(sorted(faults.items())),
        commits=world.flushes,
        acknowledged=world.opened,
        violations=tuple(dict.fromkeys(world.violations)),
        digest=hash_bytes(b"".join(world.trace)).hex(),
        notes={"opened": world.opened, "refused": world.refused},
        story=tuple(story),
    )


# --- defects on purpose -------------------------------------------------------------------------


def _at_once(announce: Any) -> Any:
    def hasty(gate: Gate, records: Any) -> int:
        token: int = announce(gate, records)
        gate.stored(token)
        return token

    return hasty


def _never_revoked(real: Any) -> Any:
    return lambda row, at_ms: real(msgspec.structs.replace(row, revoked=False), at_ms)


def _never_over(real: Any) -> Any:
    return lambda row, at_ms: real(msgspec.structs.replace(row, until=0), at_ms)


def _given_once(real: Any) -> Any:
    seen: dict[int, tuple[bytes, ...]] = {}

    def kept(node: _Node, now: int) -> tuple[bytes, ...]:
        seen[id(node)] = seen.get(id(node)) or real(node, now)
        return seen[id(node)]

    return kept


GATE: Final = "p2pmed.medical.privacy.reads:Gate"
CONSENT: Final = "p2pmed.medical.consent"
ROW: Final = "p2pmed.medical.privacy.emergency:EmergencyRow"

CONSENT_DEFECTS: Final[Mapping[str, Plant]] = MappingProxyType(
    {
        "audit after plaintext": Plant(
            rule="an announcement is durable before what it announces is opened",
            source="reads.md 4",
            promise="audited",
            found_within=60,
            patches=(Patch(GATE, "announce", _at_once),),
        ),
        "gate left open": Plant(
            rule="only what was announced is opened",
            source="reads.md 4",
            promise="audited",
            found_within=60,
            patches=(Patch(GATE, "may", lambda real: lambda gate, record: True),),
        ),
        "revocation not asked": Plant(
            rule="a revocation counts as soon as it is stored",
            source="records.md 24.1",
            promise="leave",
            found_within=60,
            patches=(Patch(CONSENT, "grant_in_force", _never_revoked),),
        ),
        "last moment not asked": Plant(
            rule="a grant ends with its time",
            source="records.md 24.1",
            promise="leave",
            found_within=60,
            patches=(Patch(CONSENT, "grant_in_force", _never_over),),
        ),
        "delegation not asked": Plant(
            rule="what was given under a delegation ends with it",
            source="records.md 26.4",
            promise="leave",
            found_within=60,
            patches=(Patch(CONSENT, "delegation_holds", lambda real: lambda *given: True),),
        ),
        "emergency without end": Plant(
            rule="an emergency ends with its time, and when it is closed",
            source="emergency.md 9",
            promise="leave",
            found_within=60,
            patches=(Patch(ROW, "is_open", lambda real: lambda row, at_ms: True),),
        ),
        "leave asked once": Plant(
            rule="leave is asked at each opening",
            source="records.md 24.1",
            promise="leave",
            found_within=60,
            patches=(Patch("p2pmed.testing.consent:_Node", "leave", _given_once),),
        ),
    }
)
