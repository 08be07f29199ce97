"""One signed, typed fact: the entry of an author log.

A transaction is a COSE_Sign1 message (``wire/cose.py``) whose payload is the ``Envelope``.
Its author is the signer's device key; its place is ``(incarnation, seq)`` in that author's
log, linked to the entry before by ``prev``. Its id is the hash of what was signed.

The first entry of every log is ``log.open`` (``medical/membership.py``): it carries the author's
credential chain, so that a log proves by itself who wrote it.

Byte-exact: ``docs/protocols/transaction.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import msgspec

from p2pmed.errors import DecodeError, InvalidTransaction
from p2pmed.limits import ENTRY_BYTES_MAX, REFS_MAX
from p2pmed.wire import cbor, codec, cose
from p2pmed.wire.codec import Bytes16, Bytes32, Count, TimeMs, Wire

__all__ = [
    "GENESIS_PREV",
    "Entry",
    "Envelope",
    "LaneKey",
    "open_entry",
    "sign_entry",
]

GENESIS_PREV = bytes(32)
"""``prev`` of a log's first entry."""

PURPOSE = "transaction"
Kind = Annotated[
    str, msgspec.Meta(min_length=3, max_length=64, pattern=r"\A[a-z0-9_]+(\.[a-z0-9_]+)+\Z")
]
"""A type's name: dotted lower case; an embedder's begins with its own domain."""


class LaneKey(NamedTuple):
    """Which author log: the device key and one incarnation of the device."""

    author: bytes
    incarnation: bytes

    def to_bytes(self) -> bytes:
        """48 bytes: author (32), incarnation (16)."""
        return self.author + self.incarnation

    @classmethod
    def from_bytes(cls, raw: bytes) -> LaneKey:
        """Inverse of ``to_bytes``; the caller has checked the length."""
        return cls(raw[:32], raw[32:48])


class Envelope(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What is signed, beside the body: place, time, type and subject."""

    version: Annotated[int, msgspec.Meta(ge=1, le=1)]
    incarnation: Bytes16
    seq: Count
    prev: Bytes32
    ledger: Annotated[bytes, msgspec.Meta(max_length=32)]
    """The ledger this was written for; empty if the author had none."""
    hlc: Annotated[int, msgspec.Meta(ge=0, le=2**62)]
    """Hybrid logical clock: milliseconds << 16 | counter."""
    wall: TimeMs
    """The author's wall clock."""
    clock: Annotated[int, msgspec.Meta(ge=0, le=2)]
    """Confidence in ``wall``: 0 unknown, 1 plausible against peers, 2 set from the county."""
    kind: Kind
    kind_version: Annotated[int, msgspec.Meta(ge=1, le=65_535)]
    actor: Annotated[bytes, msgspec.Meta(max_length=32)]
    """The staff member (32-byte key) on whose word the device signed, or empty."""
    subject: Annotated[bytes, msgspec.Meta(max_length=32)]
    """The patient's pseudonym (16 bytes), or empty."""
    refs: Annotated[tuple[Bytes32, ...], msgspec.Meta(max_length=REFS_MAX)]
    """Transactions that this one follows from."""
    body: list[Any]
    """The type's own fields: an ``array_like`` Struct of the registered kind."""


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Entry:
    """A transaction whose spelling is checked; whether its signature was is up to its holder."""

    id: bytes
    lane: LaneKey
    envelope: Envelope
    raw: bytes
    signature: bytes
    to_be_signed: bytes

    @property
    def author(self) -> bytes:
        """The device key that signed it."""
        return self.lane.author

    @property
    def seq(self) -> int:
        """Its place in the author log, from 0."""
        return self.envelope.seq

    @property
    def kind(self) -> str:
        """The name of its type."""
        return self.envelope.kind

    def __repr__(self) -> str:
        return f"<Entry {self.id.hex()[:12]}>"


def sign_entry(envelope: Envelope, *, seed: bytes, author: bytes, network: bytes) -> Entry:
    """Sign ``envelope`` as device ``author``; the result is what ``open_entry`` gives back.

    Raises ``InvalidTransaction`` or ``DecodeError`` if a reader would refuse it.
    """
    payload = codec.encode(envelope)
    # Built in Python it was checked by nobody, and a tuple in it would be a list to others:
    # what is executed here is what they will read.
    checked = codec.convert(cbor.decode_own(payload), Envelope)
    _check_lengths(checked)
    signed = cose.sign_message(
        payload,
        seed=seed,
        signer=author,
        external=cose.external_data(PURPOSE, network),
    )
    if len(signed.raw) > ENTRY_BYTES_MAX:
        raise InvalidTransaction(
            f"a transaction of {len(signed.raw)} bytes where {ENTRY_BYTES_MAX} are allowed"
        )
    return _entry(signed, checked)


def open_entry(raw: bytes, *, network: bytes) -> Entry:
    """Take a transaction apart without checking its signature.

    Raises ``DecodeError`` if any byte is not where the one spelling puts it.
    """
    signed = cose.open_signed(raw, external=cose.external_data(PURPOSE, network))
    envelope = codec.decode(signed.payload, Envelope)
    _check_lengths(envelope)
    return _entry(signed, envelope)


def _check_lengths(envelope: Envelope) -> None:
    """What the types of ``Envelope`` cannot say. Raises ``DecodeError``."""
    if len(envelope.ledger) not in (0, 32) or len(envelope.actor) not in (0, 32):
        raise DecodeError("Envelope: a ledger or actor that is neither empty nor 32 bytes")
    if len(envelope.subject) not in (0, 16):
        raise DecodeError("Envelope: a subject that is neither empty nor 16 bytes")
    if (envelope.seq == 0) != (envelope.prev == GENESIS_PREV):
        raise DecodeError("Envelope: only a log's first entry has no predecessor")


def _entry(signed: cose.Signed, envelope: Envelope) -> Entry:
    return Entry(
        id=signed.id,
        lane=LaneKey(signed.signer, envelope.incarnation),
        envelope=envelope,
        raw=signed.raw,
        signature=signed.signature,
        to_be_signed=signed.to_be_signed,
    )
