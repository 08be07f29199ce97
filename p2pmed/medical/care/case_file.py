"""A case in one sealed file: everything a reviewer needs, with public keys only.

It holds the case's opening, every entry of the operation, the qualifications of who signed, the
records that were named; for each its author's credentials and its place in a certified block; and
the founding and the handovers that lead to those certificates. ``case_check.py`` says what it
proves. The file is sealed to the reviewers' keys; opened, it is the same file in the clear, which
a reviewer may hand to a court.

Rule of this file: one spelling. Entries stand by hybrid clock and id, blocks by height, chains by
their bytes, each once and each used, so that nothing can be put in that belongs to nothing.
Entries of the operation's devices that are about something else stand as their ids only.
Byte-exact: ``docs/protocols/case.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final, Literal

import msgspec

from p2pmed.engine import Entropy
from p2pmed.errors import DecodeError, Denied, InvalidTransaction
from p2pmed.identity import sealing
from p2pmed.identity.manifest import MANIFEST_BYTES_MAX
from p2pmed.ledger.genesis import Founding
from p2pmed.ledger.light import Handover, LightBlock, Placed
from p2pmed.limits import ENTRY_BYTES_MAX, RECORD_BYTES_MAX
from p2pmed.medical.care.cases import REVIEWERS_MAX
from p2pmed.medical.keyring import Wrapped
from p2pmed.medical.proof import Chain
from p2pmed.wire import cbor, codec
from p2pmed.wire.codec import Bytes16, Bytes32, Count, Wire

__all__ = [
    "CASE_BYTES_MAX",
    "CaseEntry",
    "CaseFile",
    "CaseLedger",
    "CaseLog",
    "CaseOpened",
    "CasePlace",
    "SealedCase",
    "decode_case",
    "open_sealed_case",
    "seal_case",
]

CASE_BYTES_MAX: Final = 64 * 1024 * 1024
ENTRIES_MAX: Final = 4_096
LEDGERS_MAX: Final = 8
BLOCKS_MAX: Final = 4_096
HANDOVERS_MAX: Final = 4_096
CHAINS_MAX: Final = 1_024
SKIPPED_MAX: Final = 65_536
DOMAIN: Final = "case file"
PAD_BYTES: Final = 4_096

Index = Annotated[int, msgspec.Meta(ge=0, le=SKIPPED_MAX)]


class CaseLedger(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One ledger, as far as its certificates concern the case."""

    founding: Founding
    handovers: Annotated[tuple[Handover, ...], msgspec.Meta(max_length=HANDOVERS_MAX)]
    blocks: Annotated[tuple[LightBlock, ...], msgspec.Meta(min_length=1, max_length=BLOCKS_MAX)]
    """In ascending height."""


class CasePlace(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Where an entry was ordered."""

    ledger: Index
    block: Index
    placed: Placed


class CaseEntry(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One transaction."""

    raw: Annotated[bytes, msgspec.Meta(max_length=ENTRY_BYTES_MAX)]
    chain: Index
    """Its author's credentials among ``CaseFile.chains``."""
    place: CasePlace | None
    """``None``: no ledger here has ordered it."""


class CaseLog(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a device of the operation wrote between its first and its last entry about it."""

    author: Bytes32
    incarnation: Bytes16
    skipped: Annotated[tuple[tuple[Count, Bytes32], ...], msgspec.Meta(max_length=SKIPPED_MAX)]
    """Place in the log and id of what is about something else, in ascending order."""


class CaseOpened(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What an entry commits to, shown by who could read it."""

    entry: Index
    salt: Bytes32
    resource: Annotated[bytes, msgspec.Meta(max_length=RECORD_BYTES_MAX)]


class CaseFile(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The case, opened."""

    format: Literal["p2pmed/1 case"]
    manifest: Annotated[bytes, msgspec.Meta(max_length=MANIFEST_BYTES_MAX)]
    case: Index
    """Which of ``entries`` is the ``case.open``."""
    ledgers: Annotated[tuple[CaseLedger, ...], msgspec.Meta(max_length=LEDGERS_MAX)]
    chains: Annotated[tuple[Chain, ...], msgspec.Meta(min_length=1, max_length=CHAINS_MAX)]
    entries: Annotated[tuple[CaseEntry, ...], msgspec.Meta(min_length=1, max_length=ENTRIES_MAX)]
    logs: Annotated[tuple[CaseLog, ...], msgspec.Meta(max_length=CHAINS_MAX)]
    opened: Annotated[tuple[CaseOpened, ...], msgspec.Meta(max_length=ENTRIES_MAX)]


class SealedCase(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The file as it is handed over."""

    format: Literal["p2pmed/1 sealed case"]
    network: Bytes32
    case: Bytes32
    """Id of the ``case.open``."""
    wraps: Annotated[tuple[Wrapped, ...], msgspec.Meta(min_length=1, max_length=REVIEWERS_MAX)]
    nonce: Annotated[
        bytes, msgspec.Meta(min_length=sealing.NONCE_BYTES, max_length=sealing.NONCE_BYTES)
    ]
    sealed: bytes


def decode_case(raw: bytes) -> CaseFile:
    """The opened file, nothing checked but its spelling. Raises ``DecodeError``."""
    return codec.decode(raw, CaseFile, limit=CASE_BYTES_MAX)


def seal_case(
    raw: bytes,
    *,
    network: bytes,
    case: bytes,
    reviewers: Sequence[bytes],
    entropy: Entropy,
    wrapper: sealing.Wrapper = sealing.HPKE,
) -> bytes:
    """The file for the holders of ``reviewers`` (X25519 public keys).

    Raises ``InvalidTransaction`` if it is too long, or a key is not usable.
    """
    if len(raw) > CASE_BYTES_MAX - CASE_BYTES_MAX // 4:
        raise InvalidTransaction("the case is too long for one file", hint="name fewer records")
    key, nonce = entropy.token(sealing.KEY_BYTES), entropy.token(sealing.NONCE_BYTES)
    wraps = tuple(
        Wrapped(
            grantee=sealing.box_id(reviewer),
            wrapped=sealing.wrap(
                reviewer, key, domain=DOMAIN, context=(network, case), wrapper=wrapper
            ),
        )
        for reviewer in dict.fromkeys(reviewers)
    )
    sealed = sealing.seal(key, nonce, sealing.pad(raw, PAD_BYTES), _associated(network, case))
    return codec.encode(
        SealedCase(
            format="p2pmed/1 sealed case",
            network=network,
            case=case,
            wraps=wraps,
            nonce=nonce,
            sealed=sealed,
        )
    )


def open_sealed_case(raw: bytes, secret: bytes | sealing.BoxSecret) -> bytes:
    """The opened file, by a reviewer's X25519 ``secret`` (32 bytes).

    Raises ``Denied`` if it is sealed to others, ``DecodeError`` if it was altered.
    """
    file = codec.decode(raw, SealedCase, limit=CASE_BYTES_MAX)
    own = sealing.box_id(sealing.box_public(secret))
    wrapped = next((each.wrapped for each in file.wraps if each.grantee == own), b"")
    if not wrapped:
        raise Denied("the case is not sealed to this reviewer's key")
    key = sealing.unwrap(secret, wrapped, domain=DOMAIN, context=(file.network, file.case))
    if len(key) != sealing.KEY_BYTES:
        raise DecodeError("a wrapped key that is none")
    associated = _associated(file.network, file.case)
    return sealing.unpad(sealing.open_sealed(key, file.nonce, file.sealed, associated))


def _associated(network: bytes, case: bytes) -> bytes:
    return cbor.encode([sealing.PROTOCOL, DOMAIN, sealing.SUITE, network, case])
