"""Following a ledger by its certificates alone: no bodies, no state, public keys only.

A *light block* is a header, the summary that it commits to, and what makes it final: a
certificate, of the header itself or of the last of some headers above it. A *handover* is the
light block that seals an epoch, with the next epoch, whose hash is in the seal's summary. So a
chain of handovers leads from the genesis, or from a checkpoint that somebody trusted vouches
for, through every change of members to the seats that certified a block today.

Rules:

* An epoch's seats certify blocks of that epoch only, above the seal that made them seats.
* A seal orders something: an empty block that names the next epoch is a tail above the seal.
* Certificates prove agreement. Whether verdicts are right is for whoever executes the block.
* Nothing here expires: who was away for years follows as well. What is old is trusted as far as
  the checkpoint (or the genesis) is, for keys of past epochs may have been stolen since.

Consensus notes, section 3.4. Byte-exact: ``docs/protocols/proof.md``, sections 1 to 3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec

from p2pmed.consensus.interface import Header, header_digest
from p2pmed.errors import CredentialError, LocalProtocolError
from p2pmed.ledger.block import Summary, content_hash, decode_body, verdict_leaf
from p2pmed.ledger.epochs import Epochs
from p2pmed.ledger.genesis import Founding, OpenChain, check_founding
from p2pmed.ledger.merkle import verify_merkle_proof
from p2pmed.ledger.state import Verdict
from p2pmed.ledger.stored import TAIL_MAX, StoredBlock, check_proof
from p2pmed.limits import BLOCK_CONTENT_BYTES_MAX, BLOCK_ENTRIES_MAX
from p2pmed.quorum.certificate import (
    Certificate,
    Epoch,
    Verify,
    VoteKind,
    check_certificate,
    epoch_digest,
)
from p2pmed.wire import codec, cose
from p2pmed.wire.codec import Bytes32, Wire
from p2pmed.wire.hashing import hash_bytes

__all__ = [
    "PATH_MAX",
    "Checkpoint",
    "Handover",
    "LightBlock",
    "LightChain",
    "Placed",
    "check_placed",
    "handovers_to",
    "lighten",
]

PATH_MAX: Final = 12
"""Siblings above one leaf: as many as the fullest block has levels."""
assert 1 << PATH_MAX >= BLOCK_ENTRIES_MAX
HEADER_BYTES_MAX: Final = 192


StoredAt = Callable[[int], StoredBlock | None]
"""The stored block of one ledger at a height, or ``None``."""


class LightBlock(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A final block without what it orders."""

    header: Header
    summary: Summary
    above: Annotated[tuple[Header, ...], msgspec.Meta(max_length=TAIL_MAX)]
    """Headers upward to the one that the certificate names; empty if it names this one."""
    certificate: Certificate


class Handover(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The seal of an epoch, and who decides from there on."""

    seal: LightBlock
    following: Epoch


class Placed(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """That a transaction stands in a block, and with which verdict."""

    index: Annotated[int, msgspec.Meta(ge=0, lt=BLOCK_ENTRIES_MAX)]
    """From 0, in the order of the block."""
    path: Annotated[tuple[Bytes32, ...], msgspec.Meta(max_length=PATH_MAX)]
    """Siblings from its id up to ``Summary.entries``."""
    code: Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"\A[a-z0-9_.]+\Z")]
    """``applied``, or the name of the refusal."""
    other: Annotated[bytes, msgspec.Meta(max_length=32)]
    """Id of the transaction that this one contradicts; empty if none."""
    verdict_path: Annotated[tuple[Bytes32, ...], msgspec.Meta(max_length=PATH_MAX)]
    """Siblings from the verdict's leaf up to ``Summary.verdicts``."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where following begins: ``epoch`` decides the blocks above ``height``."""

    epoch: Epoch
    height: int
    digest: bytes
    """Of the header at ``height``; the ledger id at height 0."""


class LightChain:
    """One ledger as far as handovers and headers have led; ``height`` and ``digest`` are trusted.

    ``verify(key, signature, message)`` checks one vote. A call that raises changes nothing.
    """

    def __init__(self, start: Checkpoint, *, verify: Verify = cose.verify) -> None:
        self.epoch = start.epoch
        self.height = start.height
        self.digest = start.digest
        self.epochs_passed = 0
        """Handovers followed."""
        self.signatures = 0
        """Votes checked."""
        self._verify = verify

    @classmethod
    def founded(
        cls,
        founding: Founding,
        *,
        network: bytes,
        open_chain: OpenChain,
        verify: Verify = cose.verify,
    ) -> LightChain:
        """From the genesis. Raises ``CredentialError`` unless every founder signed it."""
        check_founding(founding, network=network, open_chain=open_chain)
        return cls(genesis_checkpoint(founding.genesis.epoch()), verify=verify)

    def verify(self, handovers: Sequence[Handover], block: LightBlock) -> None:
        """Follow ``handovers``, then check that the seats they lead to made ``block`` final.

        Raises ``CredentialError``.
        """
        for handover in handovers:
            self.hand_over(handover)
        self.check(block)

    def check(self, block: LightBlock) -> None:
        """Raises ``CredentialError`` unless the present epoch made ``block`` final."""
        header = block.header
        if (header.ledger, header.epoch) != (self.epoch.ledger, self.epoch.number):
            raise CredentialError(
                f"block {header.height} is of another ledger or epoch than the handovers lead to"
            )
        if header.height <= self.height:
            raise CredentialError(f"block {header.height} stands below the start of its epoch")
        if header.height == self.height + 1 and header.parent != self.digest:
            raise CredentialError(f"block {header.height} does not follow the block below it")
        if header.proposer >= len(self.epoch.validators):
            raise CredentialError(f"block {header.height} was proposed by nobody")
        if content_hash(block.summary) != header.content:
            raise CredentialError(f"block {header.height} with the summary of another")
        check_proof(header, block.above, block.certificate, self.epoch, verify=self._verify)
        self.signatures += len(block.certificate.signatures)

    def hand_over(self, handover: Handover) -> None:
        """Follow the ledger into its next epoch. Raises ``CredentialError``."""
        seal, following = handover.seal, handover.following
        if seal.summary.next_epoch != epoch_digest(following):
            raise CredentialError("a handover to another epoch than its seal names")
        if seal.summary.count == 0:
            raise CredentialError("a seal that orders nothing: it is a tail above the seal")
        if (following.ledger, following.number) != (self.epoch.ledger, self.epoch.number + 1):
            raise CredentialError("a handover that leaves out an epoch, or leaves the ledger")
        try:
            following.check()
        except LocalProtocolError as error:
            raise CredentialError(f"an epoch that cannot be: {error}") from None
        self.check(seal)
        self.epoch = following
        self.height, self.digest = seal.header.height, header_digest(seal.header)
        self.epochs_passed += 1

    def extend(self, headers: Sequence[bytes], certificate: Certificate) -> None:
        """Go up by encoded ``headers``, the last of which ``certificate`` makes final.

        All are of the present epoch.
        Raises ``CredentialError``, and ``DecodeError`` for bytes that are no header.
        """
        height, digest, view = self.height, self.digest, 0
        ledger, number = self.epoch.ledger, self.epoch.number
        for raw in headers:
            header = codec.decode(raw, Header, limit=HEADER_BYTES_MAX)
            if header.ledger != ledger or header.epoch != number:
                raise CredentialError("a header of another ledger or epoch")
            if header.height != height + 1 or header.parent != digest:
                raise CredentialError(f"header {height + 1} does not follow the one below it")
            height, digest, view = height + 1, hash_bytes(raw), header.view
        if not headers or (certificate.digest, certificate.view) != (digest, view):
            raise CredentialError("headers whose last one is not what the certificate names")
        if certificate.kind != VoteKind.FINALIZE:
            raise CredentialError("a certificate that makes nothing final")
        check_certificate(certificate, self.epoch, verify=self._verify)
        self.signatures += len(certificate.signatures)
        self.height, self.digest = height, digest


def genesis_checkpoint(epoch: Epoch) -> Checkpoint:
    """The start of a ledger; ``epoch`` is its first."""
    return Checkpoint(epoch, 0, epoch.ledger)


def check_placed(placed: Placed, entry_id: bytes, summary: Summary) -> None:
    """Raises ``CredentialError`` unless ``summary`` orders ``entry_id`` with that verdict."""
    if len(placed.other) not in (0, 32) or placed.other == bytes(32):
        raise CredentialError("a verdict that contradicts no id")
    index, count = placed.index, summary.count
    if not verify_merkle_proof(entry_id, index, count, placed.path, summary.entries):
        raise CredentialError("the transaction is not where the proof says it is in the block")
    leaf = verdict_leaf(entry_id, Verdict(code=placed.code, other=placed.other))
    if not verify_merkle_proof(leaf, index, count, placed.verdict_path, summary.verdicts):
        raise CredentialError("the verdict is not the one that the block states")


def lighten(stored_at: StoredAt, height: int) -> LightBlock | None:
    """The light block at ``height`` from stored blocks; ``None`` if its proof is not here.

    A block that a descendant proves gets the headers up to that one.
    """
    stored = stored_at(height)
    if stored is None:
        return None
    above: list[Header] = []
    top = stored
    while top.certificate is None and len(above) < TAIL_MAX:
        following = stored_at(height + len(above) + 1)
        if following is None:
            return None
        above.append(following.block.header)
        top = following
    above += top.tail
    if top.certificate is None or len(above) > TAIL_MAX:
        return None
    return LightBlock(
        header=stored.block.header,
        summary=decode_body(stored.block.content, limit=BLOCK_CONTENT_BYTES_MAX).summary,
        above=tuple(above),
        certificate=top.certificate,
    )


def handovers_to(number: int, epochs: Epochs, stored_at: StoredAt) -> tuple[Handover, ...]:
    """Every handover of a ledger from its first epoch to epoch ``number``.

    Raises ``LocalProtocolError`` if one is not here.
    """
    found = []
    for each in range(1, number + 1):
        begun, following = epochs.begun_at(each), epochs.numbered(each)
        seal = None if begun is None else lighten(stored_at, begun - 1)
        if seal is None or following is None:
            raise LocalProtocolError(f"the handover to epoch {each} is not here")
        found.append(Handover(seal=seal, following=following))
    return tuple(found)
