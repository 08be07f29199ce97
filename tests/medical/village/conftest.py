"""A hamlet without a network: devices sign, one medical machine applies, tests look at it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from nacl import bindings

from p2pmed.identity.keys import VoteSigner
from p2pmed.ledger.state import BlockContext, Layer, Verdict
from p2pmed.ledger.transaction import GENESIS_PREV, Entry, Envelope, sign_entry
from p2pmed.medical import kinds
from p2pmed.medical.machine import MedicalMachine
from p2pmed.medical.membership import LogOpen
from p2pmed.medical.records import RecordRow
from p2pmed.medical.registry import Member, Registry
from p2pmed.medical.tables import Table
from p2pmed.quorum.possession import ProvenKey, prove
from p2pmed.wire import codec
from p2pmed.wire.codec import Wire
from p2pmed.wire.hashing import hash_bytes

DAY_MS = 86_400_000
LEDGER = hash_bytes(b"the hamlet's ledger")
NETWORK = hash_bytes(b"a network")


class Nothing:
    """The state below the first layer."""

    def get(self, key: bytes) -> bytes | None:
        return None

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        return iter(())


@dataclass(frozen=True)
class Done:
    """What became of one transaction."""

    id: bytes
    code: str
    other: bytes
    entry: Entry


class Hamlet:
    """Signs in order per device, applies at once, keeps every entry for a second machine."""

    DAY_MS = DAY_MS
    LEDGER = LEDGER

    def __init__(self, extra: tuple[Any, ...] = ()) -> None:
        self.registry = Registry([*kinds(), *extra])
        self.keys: dict[str, tuple[bytes, bytes]] = {}
        self.members: dict[str, Member] = {}
        self.lanes: dict[str, tuple[int, bytes]] = {}
        self.past: list[tuple[Entry, BlockContext]] = []
        self.time_ms = 1_000 * DAY_MS
        self.height = 0
        self.machine = self.new_machine()
        self.view = Layer(Nothing())
        self._records = 0

    def new_machine(self) -> MedicalMachine:
        """Another machine with the same rules."""
        return MedicalMachine(self.registry, self.open_credential)

    def open_credential(self, chain: tuple[bytes, ...], device: bytes) -> Member | None:
        """A chain is the member's name here; only that member's device may show it."""
        name = chain[-1].decode()
        known = name in self.keys and self.keys[name][1] == device
        return self.members[name] if known else None

    def key(self, name: str) -> bytes:
        """The device key of ``name``."""
        if name not in self.keys:
            seed = hash_bytes(name.encode())
            self.keys[name] = (seed, bindings.crypto_sign_seed_keypair(seed)[0])
        return self.keys[name][1]

    def join(
        self, name: str, *roles: str, place: str = "", issuer: str = "root", **fields: Any
    ) -> bytes:
        """Give ``name`` a credential and open its log; its device key."""
        self.enrol(name, *roles, place=place, issuer=issuer, **fields)
        assert self.write(name, self.opening(name)).code == "applied"
        return self.key(name)

    def enrol(
        self, name: str, *roles: str, place: str = "", issuer: str = "root", **fields: Any
    ) -> None:
        """Give ``name`` a credential only."""
        self.key(name)
        self.members[name] = Member(
            name=name,
            roles=roles,
            place=place or f"county/{name}",
            box_key=bytes(32),
            issuer=self.key(issuer),
            serial=hash_bytes(name.encode())[:16],
            not_after=2**50,
        )
        if fields:
            self.members[name] = msgspec.structs.replace(self.members[name], **fields)

    def vote_key(self, name: str) -> ProvenKey:
        """A vote key of the device, proven to be its own."""
        signer = VoteSigner(hash_bytes(b"vote" + name.encode()))
        return prove(signer, network=NETWORK, ledger=b"", device=self.key(name))

    def opening(self, name: str, **fields: Any) -> LogOpen:
        """The body of a ``log.open``."""
        body = LogOpen(
            chain=(name.encode(),),
            previous=b"",
            previous_seq=0,
            previous_head=b"",
            box_key=hash_bytes(b"box" + name.encode()),
            vote_keys=(self.vote_key(name),),
            boot=1,
        )
        return msgspec.structs.replace(body, **fields) if fields else body

    def sign(self, who: str, body: Wire | list[Any], kind: str = "", **fields: Any) -> Entry:
        """The next entry of a device's log; ``fields`` replace the envelope's."""
        seq, prev = self.lanes.get(who, (0, GENESIS_PREV))
        envelope = Envelope(
            version=1,
            incarnation=bytes(16),
            seq=seq,
            prev=prev,
            ledger=LEDGER,
            hlc=0,
            wall=0,
            clock=0,
            kind=kind or self.registry.of(body).name,
            kind_version=1,
            actor=b"",
            subject=b"",
            refs=(),
            body=body if isinstance(body, list) else codec.plain(body),
        )
        if fields:
            envelope = msgspec.structs.replace(envelope, **fields)
        self.key(who)
        seed, author = self.keys[who]
        entry = sign_entry(envelope, seed=seed, author=author, network=NETWORK)
        self.lanes[who] = (seq + 1, entry.id)
        return entry

    def context(self, ledger: bytes = LEDGER) -> BlockContext:
        """Where the next entry is applied."""
        self.height += 1
        return BlockContext(
            network=NETWORK,
            ledger=ledger,
            height=self.height,
            time_ms=self.time_ms,
            provisional=False,
        )

    def apply(self, entry: Entry) -> Verdict:
        """Apply to the one state, and remember for ``replay``."""
        context = self.context()
        self.past.append((entry, context))
        return self.machine.apply(entry, self.view, context)

    def write(self, who: str, body: Wire | list[Any], kind: str = "", **fields: Any) -> Done:
        """Sign and apply."""
        entry = self.sign(who, body, kind, **fields)
        verdict = self.apply(entry)
        return Done(id=entry.id, code=verdict.code, other=verdict.other, entry=entry)

    def replay(self) -> tuple[list[Verdict], dict[bytes, bytes | None]]:
        """All of it again on a fresh machine and state."""
        machine, view = self.new_machine(), Layer(Nothing())
        verdicts = [machine.apply(entry, view, context) for entry, context in self.past]
        return verdicts, view.writes

    def rows(self) -> dict[bytes, bytes | None]:
        """The state as it is."""
        return dict(self.view.writes)

    def encounter(self, author: str, subject: bytes, **fields: Any) -> bytes:
        """A record in the state, as if added by ``author``; its id."""
        self._records += 1
        record = hash_bytes(b"record" + bytes([self._records]))
        row = RecordRow(
            subject=subject,
            author=self.key(author),
            retracted=False,
            superseded_by=b"",
            place=self.members[author].place,
        )
        Table("record", RecordRow).put(self.view, msgspec.structs.replace(row, **fields), record)
        return record


@pytest.fixture
def hamlet() -> Hamlet:
    return Hamlet()


@pytest.fixture
def new_hamlet() -> type[Hamlet]:
    """For tests that need many, or their own kinds."""
    return Hamlet
