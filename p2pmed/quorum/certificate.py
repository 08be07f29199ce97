"""Validators, votes and certificates: what a stranger needs to check an order.

A vote is an Ed25519 signature by a validator's *epoch key* over
``["p2pmed/1", "vote", ledger, epoch, kind, view, digest]``. A certificate is a quorum of
votes over that one byte string. Both engines use it: Raft members attest a committed block
with a ``FINALIZE`` vote whose view is the term, so that a county checks villages of either
kind alike.

Quorum: ``q = floor((n + f) / 2) + 1`` with ``0 <= f <= floor((n - 1) / 3)``, so that two
quorums share at least f + 1 validators (consensus notes, section 3.2).
Byte-exact: ``docs/protocols/certificate.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum
from functools import lru_cache
from typing import Annotated, Final

import msgspec

from p2pmed.errors import CredentialError, LocalProtocolError
from p2pmed.limits import VALIDATORS_MAX
from p2pmed.wire import cbor, codec, cose
from p2pmed.wire.codec import Bytes32, Bytes64, Count, Wire
from p2pmed.wire.hashing import digest

__all__ = [
    "Certificate",
    "Epoch",
    "Validator",
    "Verify",
    "VoteKind",
    "check_certificate",
    "epoch_digest",
    "make_certificate",
    "quorum_size",
    "vote_bytes",
]

Verify = Callable[[bytes, bytes, bytes], bool]
"""``verify(public_key, signature, message)``; ``cose.verify`` outside the simulator."""


class VoteKind(IntEnum):
    """What a validator says of a view."""

    NOTARIZE = 1
    NULLIFY = 2
    FINALIZE = 3


def quorum_size(members: int, liars: int) -> int:
    """Votes that make a certificate, among ``members`` of whom ``liars`` may lie."""
    return (members + liars) // 2 + 1


class Validator(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One seat: a device and the key it votes with in this epoch."""

    node: Bytes32
    vote_key: Bytes32


class Epoch(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Who decides: the seats in order, and how many liars they are prepared for."""

    ledger: Bytes32
    number: Count
    liars: Annotated[int, msgspec.Meta(ge=0, le=(VALIDATORS_MAX - 1) // 3)]
    validators: Annotated[
        tuple[Validator, ...], msgspec.Meta(min_length=1, max_length=VALIDATORS_MAX)
    ]

    @property
    def quorum(self) -> int:
        """Votes that make a certificate in this epoch."""
        return quorum_size(len(self.validators), self.liars)

    def index_of(self, node: bytes) -> int | None:
        """The seat of ``node``, or ``None`` if it has none."""
        for index, validator in enumerate(self.validators):
            if validator.node == node:
                return index
        return None

    def check(self) -> None:
        """Raises ``LocalProtocolError`` unless seats are distinct and ``liars`` is possible."""
        count = len(self.validators)
        if len({v.node for v in self.validators}) < count:
            raise LocalProtocolError("a device holds two seats")
        if len({v.vote_key for v in self.validators}) < count:
            raise LocalProtocolError("two seats share one vote key")
        if self.liars > (count - 1) // 3:
            raise LocalProtocolError(
                f"{count} validators cannot withstand {self.liars} liars",
                hint=f"at most {(count - 1) // 3}",
            )


def epoch_digest(epoch: Epoch) -> bytes:
    """What a block that ends an epoch commits to: the hash (32 bytes) of the next ``Epoch``."""
    return digest("epoch", codec.encode(epoch))


class Certificate(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A quorum's votes over one byte string; signatures in the order of the seats."""

    ledger: Bytes32
    epoch: Count
    kind: Annotated[int, msgspec.Meta(ge=1, le=3)]
    view: Count
    digest: Annotated[bytes, msgspec.Meta(max_length=32)]
    """Of the block's header; empty when the view was nullified."""
    signers: Annotated[int, msgspec.Meta(ge=1, lt=2**VALIDATORS_MAX)]
    """Bitmap: bit i is seat i."""
    signatures: Annotated[
        tuple[Bytes64, ...], msgspec.Meta(min_length=1, max_length=VALIDATORS_MAX)
    ]


STATEMENTS_KEPT: Final = 512
"""Statements whose bytes are remembered: those of the views and blocks voted on now."""


@lru_cache(STATEMENTS_KEPT)
def vote_bytes(ledger: bytes, epoch: int, kind: int, view: int, digest: bytes) -> bytes:
    """What a vote signs; spelt once for all who sign or check it."""
    return cbor.encode(["p2pmed/1", "vote", ledger, epoch, int(kind), view, digest])


def make_certificate(
    epoch: Epoch, kind: VoteKind, view: int, digest: bytes, votes: Sequence[tuple[int, bytes]]
) -> Certificate:
    """A certificate from ``(seat, signature)`` pairs, already checked, in any order."""
    ordered = sorted(votes)
    bitmap = 0
    for seat, _ in ordered:
        bitmap |= 1 << seat
    return Certificate(
        ledger=epoch.ledger,
        epoch=epoch.number,
        kind=int(kind),
        view=view,
        digest=digest,
        signers=bitmap,
        signatures=tuple(signature for _, signature in ordered),
    )


def check_certificate(
    certificate: Certificate, epoch: Epoch, *, verify: Verify = cose.verify
) -> None:
    """Raises ``CredentialError`` unless a quorum of distinct seats of ``epoch`` signed it.

    Proves agreement, not validity: what was agreed on is checked by who applies it.
    """
    if certificate.ledger != epoch.ledger or certificate.epoch != epoch.number:
        raise CredentialError("a certificate of another ledger or epoch")
    nullify = certificate.kind == VoteKind.NULLIFY
    if len(certificate.digest) != (0 if nullify else 32):
        raise CredentialError("a certificate whose digest does not fit its kind")
    seats = [i for i in range(VALIDATORS_MAX) if certificate.signers >> i & 1]
    if len(seats) != len(certificate.signatures) or seats[-1] >= len(epoch.validators):
        raise CredentialError("a certificate whose signers and signatures do not match")
    if len(seats) < epoch.quorum:
        raise CredentialError(f"{len(seats)} signers where {epoch.quorum} are needed")
    message = vote_bytes(
        certificate.ledger,
        certificate.epoch,
        certificate.kind,
        certificate.view,
        certificate.digest,
    )
    for seat, signature in zip(seats, certificate.signatures, strict=True):
        if not verify(epoch.validators[seat].vote_key, signature, message):
            raise CredentialError(f"seat {seat} did not sign this certificate")


def decode_certificate(raw: bytes) -> Certificate:
    """A certificate from its bytes. Raises ``DecodeError``."""
    return codec.decode(raw, Certificate)
