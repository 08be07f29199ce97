"""What the disk keeps of a ledger: decided blocks with their proof, and the state's rows.

A block is proven by its own certificate, by that of a descendant, or, if it is the seal of an
epoch, by that of an empty *tail* above it. Tails are proof and nothing else: they have no height
in the ledger, are never delivered and never stored as blocks (a tail and the first block of the
next epoch would bear one number). Byte-exact: ``docs/protocols/block.md``, sections 8 and 9.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Final

import msgspec

from p2pmed.consensus.interface import Block, Header, header_digest
from p2pmed.errors import CredentialError, InvariantError
from p2pmed.ledger.block import decode_body
from p2pmed.limits import BLOCK_CONTENT_BYTES_MAX
from p2pmed.quorum.certificate import (
    Certificate,
    Epoch,
    Verify,
    VoteKind,
    check_certificate,
)
from p2pmed.wire import cose
from p2pmed.wire.codec import Wire
from p2pmed.world import Disk, Space

__all__ = [
    "STORED_BYTES_MAX",
    "TAIL_MAX",
    "DurableState",
    "Proof",
    "StoredBlock",
    "carried_height",
    "check_proof",
    "is_tail",
    "next_epoch",
    "proof_of",
    "with_tail",
]

TAIL_MAX: Final = 64
"""Empty blocks above a seal that may be needed to make it final: each stands for a view in which
a quorum voted for a block and no quorum finalised it. Beyond, leaders wait for one of these."""
ROWS_CACHED_MAX: Final = 65_536
"""State rows kept decoded from the disk: members, lots and policies recur in every block."""
STORED_BYTES_MAX: Final = BLOCK_CONTENT_BYTES_MAX + 24 * 1024
"""With header, certificate and tail."""
assert TAIL_MAX * 192 < 16 * 1024


class StoredBlock(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A decided block as the disk keeps it."""

    block: Block
    tail: Annotated[tuple[Header, ...], msgspec.Meta(max_length=TAIL_MAX)] = ()
    """Of a seal that became final through empty blocks above it: their headers upward; the
    certificate is then that of the last."""
    certificate: Certificate | None = None
    """``None``: proven by the certificate of a descendant and the hash chain."""


class Proof(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What makes a block final, apart from the block: as a bundle carries it."""

    tail: Annotated[tuple[Header, ...], msgspec.Meta(max_length=TAIL_MAX)]
    certificate: Certificate


def next_epoch(stored: StoredBlock) -> Epoch | None:
    """Who decides above a stored block, if it is a seal. Raises ``DecodeError``."""
    return decode_body(stored.block.content, limit=BLOCK_CONTENT_BYTES_MAX).next_epoch


def is_tail(stored: StoredBlock) -> bool:
    """Whether a block only proves the seal below it. Raises ``DecodeError``."""
    body = decode_body(stored.block.content, limit=BLOCK_CONTENT_BYTES_MAX)
    return body.next_epoch is not None and body.summary.count == 0


def proof_of(stored: StoredBlock) -> Proof | None:
    """What makes a stored block final, if it is not a descendant that does."""
    if stored.certificate is None:
        return None
    return Proof(tail=stored.tail, certificate=stored.certificate)


def check_proof(
    header: Header,
    tail: tuple[Header, ...],
    certificate: Certificate,
    epoch: Epoch,
    *,
    verify: Verify = cose.verify,
) -> None:
    """Raises ``CredentialError`` unless ``certificate`` makes ``header`` final in ``epoch``.

    Directly, or through ``tail``: headers of the same epoch that name each other as parents,
    down to ``header``. That only a seal may have a tail is the caller's to check.
    """
    last = header
    for each in tail:
        if (each.ledger, each.epoch) != (header.ledger, header.epoch):
            raise CredentialError("a tail of another ledger or epoch")
        if each.parent != header_digest(last) or each.height != last.height + 1:
            raise CredentialError(f"a tail of block {header.height} that does not hang together")
        last = each
    if (certificate.digest, certificate.view) != (header_digest(last), last.view):
        raise CredentialError(f"block {header.height}: its certificate is that of another block")
    if certificate.kind != VoteKind.FINALIZE:
        raise CredentialError(
            f"block {header.height}: its certificate does not say that it is final"
        )
    check_certificate(certificate, epoch, verify=verify)


def with_tail(seal: StoredBlock, above: Sequence[StoredBlock]) -> StoredBlock:
    """A seal with its proof, which may be that of the tail ``above`` it; others as they are.

    Raises ``InvariantError`` for a seal that nothing proves: nothing of a later epoch can.
    """
    if seal.certificate is not None or next_epoch(seal) is None:
        return seal
    tail: list[Header] = []
    for each in above:
        tail.append(each.block.header)
        if each.certificate is not None:
            return StoredBlock(seal.block, tuple(tail), each.certificate)
    raise InvariantError(f"seal {seal.block.header.height} was decided without its proof")


def carried_height(disk: Disk, ledger: bytes) -> int:
    """Height of the last stored block: a ledger may be carried long before it is lived in."""
    rows = disk.scan(Space.BLOCK, ledger, ledger + b"\xff" * 9, limit=1, reverse=True)
    return int.from_bytes(rows[0][0][32:], "big") if rows else 0


class DurableState:
    """The state after the last decided block: a ``Readable`` over the disk."""

    def __init__(self, disk: Disk, ledger: bytes) -> None:
        self._disk = disk
        self._ledger = ledger
        self._cache: dict[bytes, bytes | None] = {}

    def get(self, key: bytes) -> bytes | None:
        """The row's value."""
        try:
            return self._cache[key]
        except KeyError:
            value = self._disk.get(Space.STATE, self._ledger + key)
            self._keep(key, value)
            return value

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Rows under ``prefix``, in key order, a page at a time."""
        skip = len(self._ledger)
        start = self._ledger + prefix
        end = start + b"\xff" * 64
        while True:
            rows = self._disk.scan(Space.STATE, start, end, limit=512)
            for key, value in rows:
                yield key[skip:], value
            if len(rows) < 512:
                return
            start = rows[-1][0] + b"\x00"

    def write(self, key: bytes, value: bytes | None) -> None:
        """Stage one change."""
        self._disk.stage(Space.STATE, self._ledger + key, value)
        self._keep(key, value)

    def _keep(self, key: bytes, value: bytes | None) -> None:
        if len(self._cache) >= ROWS_CACHED_MAX:
            self._cache.clear()
        self._cache[key] = value
