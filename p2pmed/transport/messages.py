"""What travels inside a channel: the proof of identity, and the chunks of a frame.

A frame is one Noise message and one WebSocket message. Its plaintext is, after the
handshake, a run of chunks ``kind (1 byte) | size (2 bytes, big-endian) | body``:

==========  ====  =====================================================================
kind        byte  body
==========  ====  =====================================================================
``BULK``    0     the last or only part of a message of the bulk lane
``BULK``+1  1     a part of such a message; more follows in a later chunk
``CTRL``    2     the last or only part of a message of the control lane
``CTRL``+1  3     a part of such a message; more follows
``ALIVE``   4     empty: nothing to say, still here
``REKEY``   5     empty, last in its frame: the sender's key changes after this frame
``BYE``     6     last in its frame: why the sender closes, a few words of ASCII
==========  ====  =====================================================================

Rule: one spelling. An empty part, a chunk behind ``REKEY`` or ``BYE``, an unknown kind, a
size beyond the frame: each is the peer's fault. Byte-exact: ``docs/protocols/channel.md``.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from typing import Annotated, Final

import msgspec

from p2pmed.errors import RemoteProtocolError
from p2pmed.limits import CREDENTIAL_CHAIN_MAX, ENTRY_BYTES_MAX, FRAME_BYTES_MAX
from p2pmed.transport.noise import PLAINTEXT_BYTES_MAX
from p2pmed.wire.codec import Bytes16, Bytes32, Bytes64, Wire

__all__ = [
    "CHUNK_HEAD_BYTES",
    "LINK_BYTES_MAX",
    "MORE",
    "PROOF_BYTES_MAX",
    "REASON_CHARS_MAX",
    "Chunk",
    "Hello",
    "Kind",
    "Limits",
    "Proof",
    "Role",
    "parse_chunks",
    "spell_reason",
    "write_chunk",
]

CHUNK_HEAD_BYTES: Final = 3
MORE: Final = 1
"""Added to the kind of a lane: the message goes on in a later chunk."""

LINK_BYTES_MAX: Final = 2_048
"""One credential of the chain, as in the identity protocol."""

PROOF_BYTES_MAX: Final = 8 * 1024
"""A whole proof: what a stranger may make us decode."""

assert CREDENTIAL_CHAIN_MAX * LINK_BYTES_MAX + 1024 < PROOF_BYTES_MAX <= PLAINTEXT_BYTES_MAX

REASON_CHARS_MAX: Final = 48
OFFERS_MAX: Final = 8
MESSAGE_BYTES_FLOOR: Final = ENTRY_BYTES_MAX + 1024
"""Whoever takes less cannot take part: one entry must fit."""

assert MESSAGE_BYTES_FLOOR <= FRAME_BYTES_MAX

_REASON_CHARS: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789 -")


class Role(IntEnum):
    """Who speaks, so that no proof can be turned round."""

    INITIATOR = 1
    RESPONDER = 2


class Kind(IntEnum):
    """Of a chunk; ``BULK`` and ``CTRL`` also exist with ``MORE`` added."""

    BULK = 0
    CTRL = 2
    ALIVE = 4
    REKEY = 5
    BYE = 6


class Limits(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What the sender is willing to take."""

    message_bytes: Annotated[int, msgspec.Meta(ge=MESSAGE_BYTES_FLOOR, le=2**31)]


class Hello(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Who speaks and what it speaks; the signed part of a proof."""

    versions: Annotated[
        tuple[Annotated[int, msgspec.Meta(ge=1, le=255)], ...],
        msgspec.Meta(min_length=1, max_length=OFFERS_MAX),
    ]
    """All channel versions on offer, ascending, each once."""
    role: Role
    device: Bytes32
    """The Ed25519 device key."""
    chain: Annotated[
        tuple[Annotated[bytes, msgspec.Meta(min_length=1, max_length=LINK_BYTES_MAX)], ...],
        msgspec.Meta(max_length=CREDENTIAL_CHAIN_MAX),
    ]
    """Credentials from the root's issue down to the device's own."""
    boot: Bytes16
    """Random per start of the process: tells a restart from a twin."""
    limits: Limits


class Proof(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A ``Hello`` as encoded bytes, and the device key's signature."""

    hello: Annotated[bytes, msgspec.Meta(max_length=PROOF_BYTES_MAX)]
    signature: Bytes64


class Chunk(msgspec.Struct, frozen=True):
    """One chunk of a frame, its kind still a byte."""

    kind: int
    body: bytes

    def __repr__(self) -> str:
        return f"<Chunk {self.kind} of {len(self.body)} bytes>"


def write_chunk(kind: int, body: bytes) -> bytes:
    """The bytes of one chunk; ``body`` fits into a frame."""
    return bytes((kind,)) + len(body).to_bytes(2, "big") + body


def parse_chunks(plaintext: bytes) -> Iterator[Chunk]:
    """The chunks of a frame. Raises ``RemoteProtocolError`` where one is malformed."""
    at, end = 0, len(plaintext)
    if end == 0:
        raise RemoteProtocolError("an empty frame")
    while at < end:
        body = at + CHUNK_HEAD_BYTES
        if body > end:
            raise RemoteProtocolError("a chunk cut off in its head")
        kind = plaintext[at]
        after = body + int.from_bytes(plaintext[at + 1 : body], "big")
        if after > end:
            raise RemoteProtocolError("a chunk longer than its frame")
        _check_chunk(kind, after - body, last=after == end)
        yield Chunk(kind, plaintext[body:after])
        at = after


def spell_reason(reason: str) -> str:
    """``reason`` with whatever a reason may not hold replaced by a hyphen."""
    lowered = reason.lower()[:REASON_CHARS_MAX]
    return "".join(char if char in _REASON_CHARS else "-" for char in lowered) or "-"


def read_reason(body: bytes) -> str:
    """The reason in a ``BYE``. Raises ``RemoteProtocolError`` unless spelled by our rules."""
    text = body.decode("ascii", "replace")
    if spell_reason(text) != text:
        raise RemoteProtocolError("a parting word that is not plain")
    return text


def _check_chunk(kind: int, size: int, *, last: bool) -> None:
    if kind > Kind.BYE:
        raise RemoteProtocolError("a chunk of unknown kind")
    empty = kind in (Kind.ALIVE, Kind.REKEY)
    if empty != (size == 0):
        raise RemoteProtocolError("a chunk of the wrong size for its kind")
    if kind in (Kind.REKEY, Kind.BYE) and not last:
        raise RemoteProtocolError("a chunk behind the last one")
