"""From a committed entry to a decided block: checks, attestations, certificates, order.

A certificate is a quorum of FINALIZE votes over (term of the block, digest of its header).
A member signs for a block only when its own entry is durable, the application called the
block ``VALID``, and one of two things holds *at that moment*:

1. its current term is the block's term. Then the signature says no less than a Raft append
   answer in that term; a quorum of such signatures is a quorum of such answers, so the entry
   is committed by counting replicas in its own term (Raft, 5.4.2); or
2. it knows that the entry is committed.

If any signer of a quorum signed under 2, the block is committed; if all signed under 1, it
is committed. So a certificate always proves commitment, and rule 1 saves a round trip.

A tempting third rule is *wrong*: to sign a block of an old term because a durable entry of
the current term stands above it. One signature under 1 in the old term and one under that
rule make a quorum while neither term has a majority (Raft, figure 8, with a signature for
each answer); ``tests/consensus/raft/test_raft_figure8.py`` plays it.

``Decide`` needs the certificate and the application's ``VALID``, in order of height.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from p2pmed.consensus.interface import (
    Application,
    Block,
    Check,
    Decide,
    Header,
    Signer,
    header_digest,
)
from p2pmed.consensus.raft.bounds import CHECKS_PER_STEP_MAX, RESENT_ATTESTATIONS_MAX
from p2pmed.consensus.raft.log import Log
from p2pmed.consensus.raft.messages import Attestation
from p2pmed.errors import CredentialError
from p2pmed.quorum.certificate import (
    Certificate,
    Epoch,
    Verify,
    VoteKind,
    check_certificate,
    make_certificate,
    vote_bytes,
)

__all__ = ["Finality"]


@dataclass(slots=True, repr=False)
class _Tally:
    """Signatures for one block of the log, each checked once."""

    digest: bytes
    view: int
    message: bytes
    """What is signed; encoded once."""
    votes: dict[int, bytes] = field(default_factory=dict)
    """Seat -> signature; the own seat's is our own."""
    certificate: Certificate | None = None


class Finality:
    """What is decided, and how far the blocks above are checked, attested and certified."""

    def __init__(
        self,
        *,
        epoch: Epoch,
        seat: int,
        signer: Signer,
        application: Application,
        verify: Verify,
        tip: Header | None,
        tip_certificate: Certificate | None,
    ) -> None:
        self._epoch = epoch
        self._seat = seat
        self._signer = signer
        self._application = application
        self._verify = verify
        self.tip = tip
        self.tip_digest = epoch.ledger if tip is None else header_digest(tip)
        self.tip_certificate = tip_certificate
        self.checked = self.height
        """Height up to which the blocks of the log are ``VALID``; never below the tip."""
        self.invalid = b""
        """Digest of a block of the log that the application refuses."""
        self._stalled = False
        self._tallies: dict[int, _Tally] = {}

    @property
    def height(self) -> int:
        """Of the last decided block; 0 is genesis."""
        return 0 if self.tip is None else self.tip.height

    def retry(self) -> None:
        """What a check missed may have come."""
        self._stalled = False

    def check(self, log: Log, durable: int) -> bool:
        """Have the next durable blocks checked; whether more of them remain for later."""
        for _ in range(CHECKS_PER_STEP_MAX):
            slot = log.at_height(self.checked + 1)
            if self._stalled or slot is None or slot.block is None or slot.index > durable:
                return False
            if self.checked == self.height and slot.block.header.parent != self.tip_digest:
                self._stalled = True  # a leftover that the leader will replace
                return False
            self.note(slot.block, slot.digest, self._application.check(slot.block))
        return not self._stalled and log.at_height(self.checked + 1) is not None

    def note(self, block: Block, digest: bytes, answer: Check) -> bool:
        """Take the application's answer on the block above ``checked``; whether ``VALID``."""
        if answer is Check.VALID:
            self.checked = block.header.height
            return True
        self._stalled = True
        if answer is Check.INVALID:
            self.invalid = digest
        return False

    def cut(self, height: int) -> None:
        """The log lost its blocks from ``height`` up: they were never committed."""
        self.checked = max(self.height, min(self.checked, height - 1))
        self._tallies = {h: tally for h, tally in self._tallies.items() if h < height}
        self._stalled = False
        self.invalid = b""

    def sign(
        self, log: Log, *, above: int, durable: int, commit: int, term: int
    ) -> list[Attestation]:
        """Attest what may be attested and is not yet; the new signatures."""
        fresh: list[Attestation] = []
        for height in range(max(above, self.height) + 1, self.checked + 1):
            slot = log.at_height(height)
            if slot is None or slot.index > durable:
                break
            if slot.term != term and slot.index > commit:
                continue
            tally = self._tally(log, height)
            if tally is None or self._seat in tally.votes:
                continue
            signature = self._signer.sign(tally.message)
            tally.votes[self._seat] = signature
            fresh.append(Attestation(height=height, digest=tally.digest, signature=signature))
        return fresh

    def mine(self, above: int) -> tuple[Attestation, ...]:
        """Own signatures for blocks above ``above``, to be said again."""
        found: list[Attestation] = []
        for height in sorted(self._tallies):
            tally = self._tallies[height]
            signature = tally.votes.get(self._seat)
            if height > above and signature is not None:
                found.append(Attestation(height=height, digest=tally.digest, signature=signature))
        return tuple(found[:RESENT_ATTESTATIONS_MAX])

    def signers(self, height: int) -> frozenset[int]:
        """Seats that signed the block at ``height`` of the log; for looking up only."""
        tally = self._tallies.get(height)
        return frozenset(() if tally is None else tally.votes)

    @property
    def is_stalled(self) -> bool:
        """Whether the next block of the log waits for bodies, or is refused."""
        return self._stalled

    def count(self, log: Log, seat: int, attests: Sequence[Attestation]) -> None:
        """Take another member's signatures; one that does not verify is nobody's."""
        for attest in attests:
            if attest.height <= self.height:
                continue
            tally = self._tally(log, attest.height)
            if (
                tally is None
                or tally.certificate is not None
                or tally.digest != attest.digest
                or seat in tally.votes
            ):
                continue
            key = self._epoch.validators[seat].vote_key
            if self._verify(key, attest.signature, tally.message):
                tally.votes[seat] = attest.signature

    def certify(self) -> None:
        """Make certificates where a quorum has signed."""
        for tally in self._tallies.values():
            if tally.certificate is None and len(tally.votes) >= self._epoch.quorum:
                votes = sorted(tally.votes.items())[: self._epoch.quorum]
                tally.certificate = make_certificate(
                    self._epoch, VoteKind.FINALIZE, tally.view, tally.digest, votes
                )

    def learn(self, log: Log, height: int, certificate: Certificate) -> None:
        """Take a certificate that somebody else made, if it is for a block of our log."""
        tally = self._tally(log, height) if height > self.height else None
        if (
            tally is None
            or tally.certificate is not None
            or certificate.kind != VoteKind.FINALIZE
            or certificate.view != tally.view
            or certificate.digest != tally.digest
        ):
            return
        own_key = self._epoch.validators[self._seat].vote_key
        own_signature = tally.votes.get(self._seat)

        def verify(key: bytes, signature: bytes, message: bytes) -> bool:
            if key == own_key and signature == own_signature:
                return True  # we made it
            return self._verify(key, signature, message)

        try:
            check_certificate(certificate, self._epoch, verify=verify)
        except CredentialError:
            return
        tally.certificate = certificate

    def proven(self, log: Log) -> int:
        """Index of the highest entry that a certificate proves committed; 0 if none."""
        indexes = [
            slot.index
            for height, tally in self._tallies.items()
            if tally.certificate is not None and (slot := log.at_height(height)) is not None
        ]
        return max(indexes, default=0)

    def decide(self, log: Log) -> list[Decide]:
        """Move the tip over everything certified and checked."""
        target = max(
            (
                height
                for height, tally in self._tallies.items()
                if tally.certificate is not None and height <= self.checked
            ),
            default=0,
        )
        decided: list[Decide] = []
        for height in range(self.height + 1, target + 1):
            slot = log.at_height(height)
            assert slot is not None  # no block above the decided one is dropped but by a cut
            assert slot.block is not None
            tally = self._tallies.pop(height, None)
            certificate = None if tally is None else tally.certificate
            decided.append(Decide(block=slot.block, certificate=certificate))
            self.tip, self.tip_digest = slot.block.header, slot.digest
            self.tip_certificate = certificate
        return decided

    def move(self, log: Log, header: Header, certificate: Certificate) -> None:
        """A block was decided elsewhere: the next above the tip."""
        digest = header_digest(header)
        slot = log.at_height(header.height)
        if slot is None or slot.digest != digest:
            self.cut(header.height)
            self.checked = header.height
        self.tip, self.tip_digest, self.tip_certificate = header, digest, certificate
        self.checked = max(self.checked, header.height)
        self._tallies.pop(header.height, None)
        self._stalled = False

    def _tally(self, log: Log, height: int) -> _Tally | None:
        tally = self._tallies.get(height)
        if tally is not None:
            return tally
        slot = log.at_height(height)
        if slot is None:
            return None
        message = vote_bytes(
            self._epoch.ledger, self._epoch.number, VoteKind.FINALIZE, slot.term, slot.digest
        )
        tally = _Tally(digest=slot.digest, view=slot.term, message=message)
        self._tallies[height] = tally
        return tally
