"""The file on the stick: one stream of length-prefixed frames, self-checking and resumable.

Why a stream: it can be written to any folder of any file system without seeking, read by a
courier's phone, and cut anywhere; there is no path, no archive and no database in it, so
nothing can slip, inflate or run (threats row 48, ruling 9).

::

    frame    = length (4, big-endian) | kind (1) | payload | checksum (16)
    checksum = BLAKE2b-256("p2pmed bundle", number (8) | length | kind | payload)[:16]
    file     = HEADER, then any of CREDENTIAL, LANE, LEDGER, BLOCK, then MANIFEST

Rules:

* Nothing of a frame is handed out before its checksum fits; the checksum covers the frame's
  number, so frames cannot be swapped, dropped or repeated unnoticed.
* A torn file gives its good prefix and says ``TORN``; only a file whose manifest, signed by the
  writing device, covers every byte says ``COMPLETE``. The contents prove themselves anyway
  (entries, certificates, credentials), so a good prefix is worth keeping and a good seal is
  not worth trusting.
* The reader keeps one frame at most, and looks at a length before it waits for the bytes.

Not here: files, the order of what is exported, the outer encryption of a stick, ingest.
Byte-exact: ``docs/protocols/bundle.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from hashlib import blake2b
from typing import Any, Final, TypeAlias

from p2pmed.errors import DecodeError, LocalProtocolError
from p2pmed.ledger.transaction import LaneKey
from p2pmed.limits import BATCH_BYTES_MAX, BATCH_ENTRIES_MAX
from p2pmed.quorum.certificate import Verify
from p2pmed.sync.bundle_frames import (
    CHECKSUM_BYTES,
    KINDS,
    MAGIC,
    NUMBER,
    PREFIX_BYTES,
    VERSION,
    BlockFrame,
    BundleFrame,
    Counts,
    CredentialFrame,
    FrameKind,
    HeaderFrame,
    LaneFrame,
    LedgerFrame,
    ManifestFrame,
    Sealed,
    checksum,
)
from p2pmed.wire import cbor, codec, cose
from p2pmed.wire.hashing import HASH_BYTES

__all__ = [
    "BUNDLE_BYTES_MAX",
    "BUNDLE_FRAMES_MAX",
    "BlockFrame",
    "BundleFault",
    "BundleFrame",
    "BundleReader",
    "BundleStatus",
    "BundleWriter",
    "Counts",
    "CredentialFrame",
    "HeaderFrame",
    "LaneFrame",
    "LedgerFrame",
    "ManifestFrame",
    "SealBytes",
    "bundle_external",
]

PURPOSE: Final = "bundle"

BUNDLE_BYTES_MAX: Final = 16 * 1024**3
"""A 16 GB stick: 30 million transactions."""

BUNDLE_FRAMES_MAX: Final = 4 * 1024**2
"""More frames than these bytes need at 4 KiB each."""

SealBytes: TypeAlias = Callable[[bytes], bytes]
"""``seal(payload)``: the writing device's COSE_Sign1 over it, external data as below."""


def bundle_external(network: bytes) -> bytes:
    """The external data of a bundle's seal."""
    return cose.external_data(PURPOSE, network)


class BundleWriter:
    """Makes the file's bytes, piece by piece; the caller writes each piece before the next.

    A full stick costs nothing but the rest: what was written is a good prefix. Raises
    ``LocalProtocolError`` if a frame is too large or the bundle is sealed already.
    """

    def __init__(
        self,
        seal: SealBytes,
        *,
        network: bytes,
        author: bytes,
        created_ms: int,
        counts: Counts | None = None,
    ) -> None:
        self._seal = seal
        self._hash = blake2b(digest_size=HASH_BYTES)
        self._sealed = False
        self.frames = 0
        """Frames made so far."""
        self.size = 0
        """Bytes made so far."""
        self._header = HeaderFrame(MAGIC, VERSION, network, created_ms, author, counts or Counts())

    def header(self) -> bytes:
        """The first piece."""
        if self.frames:
            raise LocalProtocolError("a bundle has one header, and it comes first")
        return self._frame(self._header)

    def credential(self, chain: Sequence[bytes]) -> bytes:
        """A credential chain."""
        return self._frame(CredentialFrame(tuple(chain)))

    def lane(self, lane: LaneKey, start: int, entries: Iterable[bytes]) -> Iterable[bytes]:
        """Consecutive entries of one log, as one piece per frame."""
        batch: list[bytes] = []
        size = 0
        for raw in entries:
            if batch and (len(batch) >= BATCH_ENTRIES_MAX or size + len(raw) > BATCH_BYTES_MAX):
                yield self._frame(LaneFrame(lane.author, lane.incarnation, start, tuple(batch)))
                start += len(batch)
                batch, size = [], 0
            batch.append(raw)
            size += len(raw)
        if batch:
            yield self._frame(LaneFrame(lane.author, lane.incarnation, start, tuple(batch)))

    def ledger(self, genesis: bytes) -> bytes:
        """A ledger's founding."""
        return self._frame(LedgerFrame(genesis))

    def block(self, ledger: bytes, height: int, block: bytes, certificate: bytes) -> bytes:
        """A block with its certificate."""
        return self._frame(BlockFrame(ledger, height, block, certificate))

    def finish(self) -> bytes:
        """The last piece: the manifest."""
        sealed = Sealed(VERSION, self.frames, self.size, self._hash.digest())
        piece = self._frame(ManifestFrame(self._seal(codec.encode(sealed))))
        self._sealed = True
        return piece

    def _frame(self, frame: BundleFrame) -> bytes:
        if self._sealed:
            raise LocalProtocolError("this bundle is sealed", hint="start another one")
        if not self.frames and not isinstance(frame, HeaderFrame):
            raise LocalProtocolError("a bundle begins with its header")
        kind = NUMBER[type(frame)]
        payload = codec.encode(frame)
        if len(payload) > KINDS[kind][1] or self.frames >= BUNDLE_FRAMES_MAX:
            raise LocalProtocolError(
                f"a {FrameKind(kind).name.lower()} of {len(payload)} bytes does not fit a bundle"
            )
        head = len(payload).to_bytes(4, "big") + bytes([kind])
        piece = b"".join((head, payload, checksum(self.frames, head, payload)))
        if self.size + len(piece) > BUNDLE_BYTES_MAX:
            raise LocalProtocolError("the bundle is full", hint="write the rest to another one")
        self.frames += 1
        self.size += len(piece)
        self._hash.update(piece)
        return piece


class BundleStatus(Enum):
    """What became of a file."""

    READING = "reading"
    COMPLETE = "complete"
    """Sealed by its writer, every byte covered."""
    TORN = "torn"
    """It ends early; all frames before are good."""
    DAMAGED = "damaged"
    """A frame does not fit its checksum, its type or its seal; all before it are good."""
    REFUSED = "refused"
    """Not a bundle, of an unknown version, or of another network."""


@dataclass(frozen=True, slots=True)
class BundleFault:
    """Why reading stopped, and where."""

    frame: int
    """Number of the frame, from 0."""
    offset: int
    """Of its first byte in the file."""
    reason: str


class BundleReader:
    """Takes the file's bytes in pieces of any size; gives frames whose checksum fits.

    ``network`` is ours; ``None`` accepts any (to inspect). After a fault, further bytes are
    ignored: ``status`` and ``fault`` say what became of the file. Raises nothing.
    """

    def __init__(self, network: bytes | None, *, verify: Verify = cose.verify) -> None:
        self._network = network
        self._verify = verify
        self._buffer = bytearray()
        self._wanted = PREFIX_BYTES
        self._hash = blake2b(digest_size=HASH_BYTES)
        self.header: HeaderFrame | None = None
        self.status = BundleStatus.READING
        self.fault: BundleFault | None = None
        self.frames = 0
        """Good frames so far."""
        self.offset = 0
        """Bytes of the good frames so far."""

    def feed(self, chunk: bytes) -> list[BundleFrame]:
        """The frames that ``chunk`` completes, in the order of the file."""
        found: list[BundleFrame] = []
        at = 0
        while at < len(chunk) and self.fault is None:
            if self.status is BundleStatus.COMPLETE:
                self._stop(BundleStatus.DAMAGED, "bytes follow the manifest")
                break
            piece = chunk[at : at + self._wanted - len(self._buffer)]
            self._buffer += piece
            at += len(piece)
            if len(self._buffer) < self._wanted:
                break
            if self._wanted == PREFIX_BYTES:
                self._begin()
            elif (frame := self._end()) is not None:
                found.append(frame)
        return found

    def finish(self) -> BundleStatus:
        """No more bytes come; what became of the file."""
        if self.status is BundleStatus.READING:
            self._stop(BundleStatus.TORN, "the file ends before its manifest")
        return self.status

    def _begin(self) -> None:
        """A frame's length and kind are here: whether to wait for the rest."""
        size, kind = int.from_bytes(self._buffer[:4], "big"), self._buffer[4]
        whole = PREFIX_BYTES + size + CHECKSUM_BYTES
        if self.frames == 0 and kind != FrameKind.HEADER:
            self._stop(BundleStatus.REFUSED, "not a p2pmed bundle")
        elif self.frames and kind == FrameKind.HEADER:
            self._stop(BundleStatus.DAMAGED, "a second header")
        elif size == 0 and kind == 0:
            self._stop(BundleStatus.TORN, "zeros, as a stick leaves that was pulled too early")
        elif kind not in KINDS or size > KINDS[kind][1]:
            self._stop(BundleStatus.DAMAGED, f"a frame of kind {kind} and {size} bytes")
        elif self.frames >= BUNDLE_FRAMES_MAX or self.offset + whole > BUNDLE_BYTES_MAX:
            self._stop(BundleStatus.DAMAGED, "larger than any bundle")
        else:
            self._wanted = whole

    def _end(self) -> BundleFrame | None:
        """All of a frame is here: take it, or stop."""
        raw = bytes(self._buffer)
        head, payload = raw[:PREFIX_BYTES], raw[PREFIX_BYTES:-CHECKSUM_BYTES]
        if checksum(self.frames, head, payload) != raw[-CHECKSUM_BYTES:]:
            self._stop(BundleStatus.DAMAGED, "a frame whose checksum does not fit")
            return None
        try:
            frame = self._decode(head[4], payload)
        except DecodeError as error:
            self._stop(BundleStatus.DAMAGED, str(error))
            return None
        if frame is None:
            return None
        self._hash.update(raw)
        self.frames += 1
        self.offset += len(raw)
        self._buffer.clear()
        self._wanted = PREFIX_BYTES
        return frame

    def _decode(self, kind: int, payload: bytes) -> BundleFrame | None:
        """The frame's value; ``None`` if it ends the reading. Raises ``DecodeError``."""
        value = cbor.decode(payload)
        if kind == FrameKind.HEADER and (reason := self._refusal(value)):
            self._stop(BundleStatus.REFUSED, reason)
            return None
        frame: BundleFrame = codec.convert(value, KINDS[kind][0])
        if isinstance(frame, HeaderFrame):
            self.header = frame
        elif isinstance(frame, ManifestFrame):
            self._check_seal(frame)
            self.status = BundleStatus.COMPLETE
        return frame

    def _refusal(self, value: Any) -> str:
        """Why a header is not for us; the start of its array is the same in all versions."""
        if not isinstance(value, list) or len(value) < 3 or value[0] != MAGIC:
            return "not a p2pmed bundle"
        if value[1] != VERSION:
            return "a bundle of another version; a newer p2pmed may read it"
        if self._network is not None and value[2] != self._network:
            return "a bundle of another network"
        return ""

    def _check_seal(self, frame: ManifestFrame) -> None:
        """Raises ``DecodeError`` unless the header's author signed just these bytes."""
        assert self.header is not None  # _begin lets no other frame come first
        external = bundle_external(self.header.network)
        signed = cose.open_signed(frame.seal, external=external)
        expected = Sealed(VERSION, self.frames, self.offset, self._hash.digest())
        if signed.payload != codec.encode(expected) or signed.signer != self.header.author:
            raise DecodeError("the manifest is not about this file")
        if not self._verify(signed.signer, signed.signature, signed.to_be_signed):
            raise DecodeError("the manifest's signature is false")

    def _stop(self, status: BundleStatus, reason: str) -> None:
        self.status = status
        self.fault = BundleFault(self.frames, self.offset, reason)
        self._buffer.clear()
