"""A ward without a network: devices sign entries, and kinds are applied one after another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from nacl import bindings

from p2pmed.ledger.state import BlockContext, Layer
from p2pmed.ledger.transaction import GENESIS_PREV, Entry, Envelope, sign_entry
from p2pmed.medical import consent, records
from p2pmed.medical.registry import Act, Member, Refusal, Registry
from p2pmed.wire import codec
from p2pmed.wire.codec import Wire
from p2pmed.wire.hashing import hash_bytes

NETWORK = hash_bytes(b"a network")


class SeededEntropy:
    """Bytes that look random and come again with the same seed."""

    def __init__(self, seed: bytes) -> None:
        self._seed = seed
        self._count = 0

    def token(self, size: int) -> bytes:
        """The next ``size`` bytes."""
        found = b""
        while len(found) < size:
            self._count += 1
            found += hash_bytes(self._seed + self._count.to_bytes(8, "big"))
        return found[:size]


class Nothing:
    """The state below the first layer."""

    def get(self, key: bytes) -> bytes | None:
        return None

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        return iter(())


@dataclass
class Device:
    """A key that signs, and who its ledger takes it for."""

    seed: bytes
    author: bytes
    member: Member
    box_secret: bytes
    log: list[Entry] = field(default_factory=list)


class Ward:
    """Signs, applies and answers with the verdict's code."""

    network = NETWORK

    def __init__(self) -> None:
        self.registry = Registry([*records.KINDS, *consent.KINDS])
        self.view = Layer(Nothing())
        self.context = BlockContext(
            network=NETWORK, ledger=b"", height=1, time_ms=1, provisional=False
        )

    def device(self, name: str, place: str = "") -> Device:
        """A device of the facility ``place``."""
        seed = hash_bytes(name.encode())
        author, _ = bindings.crypto_sign_seed_keypair(seed)
        box_secret = hash_bytes(seed)
        member = Member(
            name=name,
            roles=("clinic",),
            place=place,
            box_key=bindings.crypto_scalarmult_base(box_secret),
            issuer=bytes(32),
            serial=bytes(16),
            not_after=2**50,
        )
        return Device(seed, author, member, box_secret)

    def sign(self, device: Device, body: Wire, subject: bytes, refs: Iterable[bytes] = ()) -> Entry:
        """The next entry of the device's log."""
        kind = self.registry.of(body)
        envelope = Envelope(
            version=1,
            incarnation=bytes(16),
            seq=len(device.log),
            prev=device.log[-1].id if device.log else GENESIS_PREV,
            ledger=b"",
            hlc=0,
            wall=0,
            clock=0,
            kind=kind.name,
            kind_version=kind.version,
            actor=b"",
            subject=subject,
            refs=tuple(refs),
            body=codec.plain(body),
        )
        entry = sign_entry(envelope, seed=device.seed, author=device.author, network=NETWORK)
        device.log.append(entry)
        return entry

    def apply(self, device: Device, entry: Entry) -> str:
        """The verdict's code; what was applied is in ``view``."""
        kind = self.registry.find(entry.kind, 1)
        body = self.registry.body(entry)
        if kind is None or body is None:
            return "malformed"
        act: Act[Any] = Act(body=body, entry=entry, member=device.member, context=self.context)
        no = kind.check(act, self.view)
        if no is None:
            kind.apply(act, self.view)
            return "applied"
        return (no.reason if isinstance(no, Refusal) else no).value

    def write(
        self, device: Device, body: Wire, subject: bytes, refs: Iterable[bytes] = ()
    ) -> tuple[Entry, str]:
        """Sign and apply."""
        entry = self.sign(device, body, subject, refs)
        return entry, self.apply(device, entry)


@pytest.fixture
def ward() -> Ward:
    return Ward()


@pytest.fixture
def entropy() -> SeededEntropy:
    return SeededEntropy(b"test")
