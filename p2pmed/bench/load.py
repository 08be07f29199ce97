"""The load: signed ``record.add`` transactions of about 500 bytes, as a clinic writes them.

Rule: the real type, path and rules. The sealed part is random bytes of the usual length, as
ciphertext looks from outside; sealing itself is measured by the FHIR import, not here. Each
author registers one patient of its own first, so that every record is ``applied``.
"""

from __future__ import annotations

import secrets
from typing import Final

from nacl import bindings

from p2pmed.ledger.transaction import GENESIS_PREV, Entry, Envelope, sign_entry
from p2pmed.medical.patients import PatientRegister
from p2pmed.medical.privacy.holding import NOBODY
from p2pmed.medical.records import RecordAdd
from p2pmed.medical.sealed import Sealed
from p2pmed.node.events import Draft
from p2pmed.wire import codec

__all__ = ["ENTRY_BYTES", "NETWORK", "envelope_of", "records", "registration", "signed_entries"]

ENTRY_BYTES: Final = 500
_SEALED_BYTES: Final = 177
"""Brings the signed transaction to about ``ENTRY_BYTES``."""
NETWORK: Final = bytes(31) + b"\x01"


def _sealed() -> Sealed:
    return Sealed(
        suite=1,
        key_id=secrets.token_bytes(16),
        nonce=secrets.token_bytes(16),
        commitment=secrets.token_bytes(32),
        data=secrets.token_bytes(_SEALED_BYTES),
        parts=(),
    )


def registration(patient: bytes) -> Draft:
    """The draft that registers ``patient`` (16 bytes), readable by nobody."""
    body = PatientRegister(
        catchment="bench",
        patient_key=secrets.token_bytes(32),
        wraps=(),
        sealed=_sealed(),
        told=b"",
        holding=NOBODY,
    )
    return Draft(body=body, subject=patient)


def records(patient: bytes, count: int) -> list[Draft]:
    """``count`` records about ``patient``."""
    return [Draft(body=RecordAdd(sealed=_sealed()), subject=patient) for _ in range(count)]


def envelope_of(body: RecordAdd, seq: int, prev: bytes) -> Envelope:
    """The envelope around one record."""
    return Envelope(
        version=1,
        incarnation=bytes(16),
        seq=seq,
        prev=prev,
        ledger=NETWORK,
        hlc=1_700_000_000_000 << 16,
        wall=1_700_000_000_000,
        clock=0,
        kind="record.add",
        kind_version=1,
        actor=b"",
        subject=bytes(16),
        refs=(),
        body=codec.plain(body),
    )


def signed_entries(count: int) -> list[Entry]:
    """A log of ``count`` signed records by a new key."""
    seed = secrets.token_bytes(32)
    author, _ = bindings.crypto_sign_seed_keypair(seed)
    entries: list[Entry] = []
    prev = GENESIS_PREV
    for seq in range(count):
        envelope = envelope_of(RecordAdd(sealed=_sealed()), seq, prev)
        entries.append(sign_entry(envelope, seed=seed, author=author, network=NETWORK))
        prev = entries[-1].id
    return entries
