"""A proof with everything in it, made from keys alone: two ledgers, three epochs, an anchor.

Nothing of a node is here: whoever checks a proof has no node either.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
from light_story import Story, place
from nacl import bindings
from toy_ledger import Device, devices

from p2pmed.consensus.interface import header_digest
from p2pmed.identity.credentials import Credential, Role, issue_credential
from p2pmed.identity.manifest import make_manifest, open_manifest
from p2pmed.ledger.state import Verdict
from p2pmed.ledger.transaction import GENESIS_PREV, Entry, Envelope, sign_entry
from p2pmed.medical.county import ANCHOR, Anchor
from p2pmed.medical.proof import Anchored, Opened, Ordered, RecordProof
from p2pmed.medical.records import RecordAdd
from p2pmed.medical.sealed import Sealed, commitment
from p2pmed.testing.clock import SimEntropy
from p2pmed.wire import codec
from p2pmed.wire.codec import Wire
from p2pmed.wire.hashing import hash_bytes

TIME_MS = 1_800_000_000_000
YEAR_MS = 366 * 86_400_000
ROOT = hash_bytes(b"the authority")
RESOURCE = b'{"resourceType":"Observation","status":"final"}'
SALT = hash_bytes(b"salt")


def public(seed: bytes) -> bytes:
    key: bytes = bindings.crypto_sign_seed_keypair(seed)[0]
    return key


@dataclass
class Land:
    """An authority, and whoever it speaks of; a delegate issues the clinics' credentials."""

    def __post_init__(self) -> None:
        entropy = SimEntropy(b"land")
        self.manifest_raw = make_manifest("Shan", [ROOT], created_ms=TIME_MS, entropy=entropy)
        self.manifest, self.network = open_manifest(self.manifest_raw)
        self.health_office = Device("health office")
        self.delegate = self._issue(
            self.health_office, "health office", (Role.COUNTY,), ROOT, (Role.CLINIC, Role.HOSPITAL)
        )

    def _issue(
        self,
        device: Device,
        name: str,
        roles: tuple[Role, ...],
        issuer: bytes,
        delegate: tuple[Role, ...] = (),
    ) -> bytes:
        box: bytes = bindings.crypto_scalarmult_base(hash_bytes(b"box" + device.seed))
        credential = Credential(
            version=1,
            network=self.network,
            subject=device.key,
            box_key=box,
            name=name,
            roles=roles,
            place="shan/mu",
            delegate=delegate,
            not_before=TIME_MS - YEAR_MS,
            not_after=TIME_MS + YEAR_MS,
            serial=hash_bytes(device.seed)[:16],
            issuer=public(issuer),
        )
        return issue_credential(credential, seed=issuer)

    def clinic(self, device: Device) -> tuple[bytes, ...]:
        own = self._issue(device, device.name, (Role.CLINIC,), self.health_office.seed)
        return (self.delegate, own)

    def hospital(self, device: Device) -> tuple[bytes, ...]:
        own = self._issue(device, device.name, (Role.HOSPITAL,), self.health_office.seed)
        return (self.delegate, own)

    def sign(self, device: Device, kind: str, body: Wire, **fields: Any) -> Entry:
        values: dict[str, Any] = {
            "version": 1,
            "incarnation": bytes(16),
            "seq": 5,
            "prev": hash_bytes(b"before"),
            "ledger": b"",
            "hlc": 1,
            "wall": TIME_MS,
            "clock": 1,
            "kind": kind,
            "kind_version": 1,
            "actor": b"",
            "subject": b"",
            "refs": (),
            "body": codec.plain(body),
        }
        envelope = Envelope(**{**values, **fields})
        assert envelope.prev != GENESIS_PREV
        return sign_entry(envelope, seed=device.seed, author=device.key, network=self.network)


def record_body() -> RecordAdd:
    """A sealed body whose ciphertext nobody here opens."""
    return RecordAdd(
        sealed=Sealed(
            suite=1,
            key_id=bytes(16),
            nonce=bytes(16),
            commitment=commitment(SALT, RESOURCE),
            data=b"sealed",
            parts=(),
        )
    )


def ordered(land: Land, story: Story, entry: Entry, chain: tuple[bytes, ...]) -> Ordered:
    """A block of five that orders ``entry`` in the middle."""
    ids = [hash_bytes(bytes([n])) for n in range(4)]
    ids.insert(2, entry.id)
    verdicts = [Verdict(code="applied")] * 5
    verdicts[0] = Verdict(code="unit_dispensed", other=ids[1])
    block = story.block(ids, verdicts)
    return Ordered(
        founding=story.founding,
        handovers=tuple(story.handovers),
        block=block,
        placed=place(ids, verdicts, 2),
        entry=entry.raw,
        chain=chain,
    )


def village_of(land: Land) -> Story:
    """Four clinics, then five, then seven."""
    everybody = devices(9)
    story = Story(everybody[:4], network=land.network, chain_of=land.clinic)
    story.block([hash_bytes(b"first")])
    story.seal(everybody[2:7])
    story.seal(everybody[1:8], tails=1)
    return story


def full_proof(land: Land | None = None) -> tuple[Land, RecordProof]:
    """A record, its content opened, and a county's anchor two blocks above it."""
    land = land or Land()
    village = village_of(land)
    author = village.seats[1]
    entry = land.sign(author, "record.add", record_body(), subject=bytes([7] * 16))
    record = ordered(land, village, entry, land.clinic(author))
    headers = []
    for _ in range(2):
        header = village.header(village.summary([hash_bytes(b"later")]))
        village.take(header)
        headers.append(header)
    hospitals = sorted((Device(f"hospital {n}") for n in range(3)), key=lambda d: d.key)
    county = Story(hospitals, engine="raft", network=land.network, chain_of=land.hospital)
    body = Anchor(
        ledger=village.epoch.ledger,
        start=1,
        height=headers[-1].height,
        head=header_digest(headers[-1]),
        refused=(),
    )
    anchor = land.sign(hospitals[0], ANCHOR, body, ledger=county.epoch.ledger)
    proof = RecordProof(
        format="p2pmed/1 proof",
        manifest=land.manifest_raw,
        record=record,
        anchored=Anchored(
            headers=tuple(headers),
            anchor=ordered(land, county, anchor, land.hospital(hospitals[0])),
        ),
        opened=Opened(salt=SALT, resource=RESOURCE),
    )
    return land, proof


replace = msgspec.structs.replace
