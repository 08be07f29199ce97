"""The frames of a bundle: what each carries, how large it may be, what its checksum covers.

Rule: a frame's payload is one Struct in deterministic CBOR. Credentials, foundings, blocks and
entries are opaque here: they prove themselves to whoever takes them in.

Byte-exact: ``docs/protocols/bundle.md``.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Any, Final, TypeAlias

import msgspec

from p2pmed.ledger.transaction import LaneKey
from p2pmed.limits import (
    BATCH_ENTRIES_MAX,
    CREDENTIAL_CHAIN_MAX,
    ENTRY_BYTES_MAX,
    FRAME_BYTES_MAX,
)
from p2pmed.wire.codec import Bytes16, Bytes32, Count, TimeMs, Wire
from p2pmed.wire.hashing import digest

__all__ = [
    "CHECKSUM_BYTES",
    "KINDS",
    "MAGIC",
    "NUMBER",
    "PREFIX_BYTES",
    "VERSION",
    "BlockFrame",
    "BundleFrame",
    "Counts",
    "CredentialFrame",
    "FrameKind",
    "HeaderFrame",
    "LaneFrame",
    "LedgerFrame",
    "ManifestFrame",
    "Sealed",
    "checksum",
]

MAGIC: Final = "p2pmed-bundle"
VERSION: Final = 1

PREFIX_BYTES: Final = 5
"""Length and kind."""
CHECKSUM_BYTES: Final = 16


class FrameKind(IntEnum):
    """What a frame carries."""

    HEADER = 1
    CREDENTIAL = 2
    LANE = 3
    LEDGER = 4
    BLOCK = 5
    MANIFEST = 15


class Counts(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What the writer meant to write: for progress bars; the manifest tells what it did."""

    lanes: Count = 0
    entries: Count = 0
    ledgers: Count = 0
    blocks: Count = 0


class HeaderFrame(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """First, once: of which network, when (its clock, never trusted), by which device."""

    magic: Annotated[str, msgspec.Meta(pattern=rf"\A{MAGIC}\Z")]
    version: Annotated[int, msgspec.Meta(ge=VERSION, le=VERSION)]
    network: Bytes32
    created: TimeMs
    author: Bytes32
    counts: Counts


class CredentialFrame(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A device's credential chain, opaque here: whoever wrote entries may be unknown there."""

    chain: Annotated[
        tuple[Annotated[bytes, msgspec.Meta(min_length=1, max_length=ENTRY_BYTES_MAX)], ...],
        msgspec.Meta(min_length=1, max_length=CREDENTIAL_CHAIN_MAX),
    ]


class LaneFrame(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Consecutive entries of one author log, from ``start``."""

    author: Bytes32
    incarnation: Bytes16
    start: Count
    entries: Annotated[
        tuple[Annotated[bytes, msgspec.Meta(min_length=1, max_length=ENTRY_BYTES_MAX)], ...],
        msgspec.Meta(min_length=1, max_length=BATCH_ENTRIES_MAX),
    ]

    @property
    def lane(self) -> LaneKey:
        """Which author log."""
        return LaneKey(self.author, self.incarnation)


class LedgerFrame(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A ledger's founding, opaque here; before its blocks."""

    genesis: Annotated[bytes, msgspec.Meta(min_length=1, max_length=FRAME_BYTES_MAX)]


class BlockFrame(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One block and what makes it final, opaque here; heights of a ledger rise."""

    ledger: Bytes32
    height: Count
    block: Annotated[bytes, msgspec.Meta(min_length=1, max_length=FRAME_BYTES_MAX)]
    certificate: Annotated[bytes, msgspec.Meta(max_length=ENTRY_BYTES_MAX)]
    """Empty where a later block's certificate proves this one through the chain."""


class ManifestFrame(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Last, once: the writing device's signature over all before it."""

    seal: Annotated[bytes, msgspec.Meta(max_length=1_024)]
    """COSE_Sign1 of a ``Sealed``."""


class Sealed(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What the manifest signs."""

    version: Annotated[int, msgspec.Meta(ge=VERSION, le=VERSION)]
    frames: Count
    size: Count
    hash: Bytes32
    """BLAKE2b-256 of all frames before the manifest, as they stand in the file."""


BundleFrame: TypeAlias = (
    HeaderFrame | CredentialFrame | LaneFrame | LedgerFrame | BlockFrame | ManifestFrame
)

KINDS: Final[dict[int, tuple[type[Any], int]]] = {
    FrameKind.HEADER: (HeaderFrame, 256),
    FrameKind.CREDENTIAL: (CredentialFrame, FRAME_BYTES_MAX),
    FrameKind.LANE: (LaneFrame, FRAME_BYTES_MAX),
    FrameKind.LEDGER: (LedgerFrame, FRAME_BYTES_MAX),
    FrameKind.BLOCK: (BlockFrame, FRAME_BYTES_MAX),
    FrameKind.MANIFEST: (ManifestFrame, 1_100),
}
"""Kind -> its type and the longest payload."""

NUMBER: Final = {kind: number for number, (kind, _) in KINDS.items()}


def checksum(number: int, head: bytes, payload: bytes) -> bytes:
    """The 16 bytes after frame ``number`` of prefix ``head``."""
    covered = b"".join((number.to_bytes(8, "big"), head, payload))
    return digest("p2pmed bundle", covered)[:CHECKSUM_BYTES]
