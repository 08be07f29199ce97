"""A sealed body: what a transaction carries of a patient, readable with one key only.

Rule of this file: nothing in clear tells the category, the FHIR type, a name or a diagnosis.
In clear stand a suite number, two random names (of the key, of the body's place), a salted
commitment and ciphertext of a rounded length. Implements ``docs/protocols/records.md``,
clauses 5 to 9.

The key of one body is derived from the category key, the body's random place *and* the
commitment, so that a repeated nonce (a machine restored from a snapshot) still gives two
different contents two different keys. The associated data binds network, patient, author and
key: the body opens nowhere else. The transaction's id is not bound: it is not known before
signing.

A body too long for one transaction is cut into ``record.part`` transactions, which its author
signs first and the record then names in order.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec

from p2pmed.engine import Entropy
from p2pmed.errors import DecodeError, Denied, InvalidTransaction
from p2pmed.identity import sealing
from p2pmed.limits import RECORD_BYTES_MAX, SEALED_PART_BYTES_MAX
from p2pmed.medical.keyring import CategoryKey
from p2pmed.wire import cbor, codec
from p2pmed.wire.codec import Bytes16, Bytes32, TimeMs, Wire
from p2pmed.wire.hashing import digest

__all__ = [
    "OpenedBody",
    "Part",
    "Place",
    "Sealed",
    "SealedDraft",
    "body_key",
    "open_body",
    "open_body_with",
    "seal_body",
]

CONTENT_VERSION: Final = 1
RAW, DEFLATED = 0, 1
DEFLATE_LEVEL: Final = 6
CONTENT_BYTES_MAX: Final = RECORD_BYTES_MAX + 1024
"""The content with its head: salt, type, time."""
PAD_BYTES: Final = 64
PARTS_MAX: Final = 2 + (RECORD_BYTES_MAX + RECORD_BYTES_MAX // 8) // SEALED_PART_BYTES_MAX
"""The longest content, padded by an eighth at most; 1,154 ids fit one transaction."""

_INFO = b"p2pmed/1 record"


class Sealed(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A sealed body: inline in ``data``, or cut into the transactions ``parts`` names."""

    suite: Annotated[int, msgspec.Meta(ge=sealing.SUITE, le=sealing.SUITE)]
    key_id: Bytes16
    """Random name of the category key; it does not show the category."""
    nonce: Bytes16
    """Random place of this body; with the commitment it gives key and nonce."""
    commitment: Bytes32
    """BLAKE2b-256 of salt and content: to be proved later, not to be guessed."""
    data: Annotated[bytes, msgspec.Meta(max_length=SEALED_PART_BYTES_MAX)]
    parts: Annotated[tuple[Bytes32, ...], msgspec.Meta(max_length=PARTS_MAX)]

    @property
    def whole(self) -> bool:
        """Whether it is either inline or in parts, and not both or neither."""
        return bool(self.data) != bool(self.parts)


class Part(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``record.part``: a piece of a sealed body that is too long for one transaction."""

    index: Annotated[int, msgspec.Meta(ge=0, lt=PARTS_MAX)]
    total: Annotated[int, msgspec.Meta(ge=2, le=PARTS_MAX)]
    data: Annotated[bytes, msgspec.Meta(min_length=1, max_length=SEALED_PART_BYTES_MAX)]


class Content(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What is sealed: the bytes that came in, and what a timeline needs of them."""

    version: Annotated[int, msgspec.Meta(ge=CONTENT_VERSION, le=CONTENT_VERSION)]
    type: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    encoding: Annotated[int, msgspec.Meta(ge=RAW, le=DEFLATED)]
    salt: Bytes32
    occurred: TimeMs | None
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Place:
    """What a sealed body is bound to: it opens nowhere else."""

    network: bytes
    patient: bytes
    """Pseudonym, 16 bytes."""
    author: bytes
    """Device key of the transaction that carries the body, 32 bytes."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class OpenedBody:
    """An opened body: the resource's original bytes, its type, and when it happened."""

    resource: bytes
    type: str
    """The FHIR resource type, or a name of our own with a slash in it."""
    occurred_ms: int | None
    """Milliseconds since 1970, or ``None`` if the resource does not say."""
    salt: bytes
    """With the resource it proves the commitment, without any key."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class SealedDraft:
    """A sealed body before signing: sign ``parts`` first, then name their ids."""

    parts: tuple[Part, ...]
    """Empty if the body fits one transaction."""
    inline: Sealed

    def named(self, part_ids: Sequence[bytes] = ()) -> Sealed:
        """The body to sign, naming its parts' transaction ids in order.

        Raises ``InvalidTransaction`` unless there is one id for each part.
        """
        if len(part_ids) != len(self.parts):
            raise InvalidTransaction(f"{len(part_ids)} ids for {len(self.parts)} parts")
        return msgspec.structs.replace(self.inline, parts=tuple(part_ids))


def commitment(salt: bytes, resource: bytes) -> bytes:
    """What a record tells of its content to those who cannot read it."""
    return digest("p2pmed record", salt + resource)


def seal_body(
    resource: bytes,
    *,
    kind: str,
    key: CategoryKey,
    place: Place,
    entropy: Entropy,
    occurred_ms: int | None = None,
    salt: bytes = b"",
) -> SealedDraft:
    """Seal the original bytes of a resource of type ``kind`` under ``key`` for ``place``.

    ``salt`` (32 bytes) is given where the commitment of an earlier sealing must come again.
    Raises ``InvalidTransaction`` if it is longer than ``RECORD_BYTES_MAX``.
    """
    if len(resource) > RECORD_BYTES_MAX:
        raise InvalidTransaction(
            f"a resource of {len(resource)} bytes where {RECORD_BYTES_MAX} are allowed",
            hint="store large binaries as attachments",
        )
    salt, nonce = salt or entropy.token(32), entropy.token(16)
    committed = commitment(salt, resource)
    deflated = zlib.compress(resource, DEFLATE_LEVEL)
    shorter = len(deflated) < len(resource)
    content = codec.encode(
        Content(
            version=CONTENT_VERSION,
            type=kind,
            encoding=DEFLATED if shorter else RAW,
            salt=salt,
            occurred=occurred_ms,
            data=deflated if shorter else resource,
        )
    )
    derived = key.derive(salt=nonce, info=_INFO + committed)
    sealed = sealing.seal(
        derived[:32],
        derived[32:56],
        sealing.pad(content, PAD_BYTES),
        _associated(place, key.key_id, nonce),
    )
    pieces = _cut(sealed)
    return SealedDraft(
        parts=pieces,
        inline=Sealed(
            suite=sealing.SUITE,
            key_id=key.key_id,
            nonce=nonce,
            commitment=committed,
            data=b"" if pieces else sealed,
            parts=(),
        ),
    )


def open_body(
    sealed: Sealed, *, key: CategoryKey, place: Place, parts: Sequence[Part] = ()
) -> OpenedBody:
    """Open ``sealed``, whose parts are given in the order in which it names them.

    Raises ``Denied`` if ``key`` is not the one it was sealed under, and ``DecodeError`` if
    anything was altered, left out, exchanged or moved, or inflates beyond its limit.
    """
    return open_body_with(sealed, key=body_key(sealed, key), place=place, parts=parts)


def body_key(sealed: Sealed, key: CategoryKey) -> bytes:
    """Key (32 bytes) and nonce (24) of this one body: they open nothing else.

    Raises ``Denied`` if ``key`` is not the one it was sealed under.
    """
    sealing.check_suite(sealed.suite)
    if key.key_id != sealed.key_id:
        raise Denied("sealed under another key", hint="ask for a grant of that category and epoch")
    return key.derive(salt=sealed.nonce, info=_INFO + sealed.commitment)[:56]


def open_body_with(
    sealed: Sealed, *, key: bytes, place: Place, parts: Sequence[Part] = ()
) -> OpenedBody:
    """As ``open_body``, by the body's own ``body_key``. Raises ``DecodeError``."""
    padded = sealing.open_sealed(
        key[:32],
        key[32:56],
        _joined(sealed, parts),
        _associated(place, sealed.key_id, sealed.nonce),
    )
    content = codec.decode(sealing.unpad(padded), Content, limit=CONTENT_BYTES_MAX)
    resource = inflate(content.data) if content.encoding == DEFLATED else content.data
    if commitment(content.salt, resource) != sealed.commitment:
        raise DecodeError("a sealed body that is not what its record commits to")
    return OpenedBody(
        resource=resource, type=content.type, occurred_ms=content.occurred, salt=content.salt
    )


def inflate(data: bytes) -> bytes:
    """One zlib stream, at most ``RECORD_BYTES_MAX`` long when inflated, and nothing behind it."""
    stream = zlib.decompressobj()
    try:
        inflated = stream.decompress(data, RECORD_BYTES_MAX + 1)
    except zlib.error:
        raise DecodeError("a sealed body that does not inflate") from None
    if len(inflated) > RECORD_BYTES_MAX:
        raise DecodeError("a sealed body that inflates beyond its limit")
    if not stream.eof or stream.unused_data:
        raise DecodeError("a sealed body that is not one whole stream")
    return inflated


def _associated(place: Place, key_id: bytes, nonce: bytes) -> bytes:
    return cbor.encode(
        [
            sealing.PROTOCOL,
            "record",
            sealing.SUITE,
            place.network,
            place.patient,
            place.author,
            key_id,
            nonce,
        ]
    )


def _cut(sealed: bytes) -> tuple[Part, ...]:
    if len(sealed) <= SEALED_PART_BYTES_MAX:
        return ()
    starts = range(0, len(sealed), SEALED_PART_BYTES_MAX)
    return tuple(
        Part(index=index, total=len(starts), data=sealed[start : start + SEALED_PART_BYTES_MAX])
        for index, start in enumerate(starts)
    )


def _joined(sealed: Sealed, parts: Sequence[Part]) -> bytes:
    if not sealed.whole:
        raise DecodeError("a sealed body that is neither inline nor in parts")
    total = len(sealed.parts)
    if [(part.index, part.total) for part in parts] != [(i, total) for i in range(total)]:
        raise DecodeError("parts that are not those the sealed body names")
    return b"".join(part.data for part in parts) if parts else sealed.data
