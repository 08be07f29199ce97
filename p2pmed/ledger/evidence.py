"""Evidence: a self-contained proof that somebody broke the protocol, naming the guilty.

It carries what a stranger needs: the genesis with its founders' signatures, the handovers to the
epoch in question, and the contradicting statements as they were signed. Five kinds:

========================  =================================================================
``equivocation``          two notarize, or two finalize votes of one view for two blocks
``nullify_and_finalize``  both votes of one view
``attestations``          Raft: one member attested two blocks of one height
``log_fork``              two entries of one author log at one place
``ledger_fork``           two certified chains of one ledger: more liars than it withstands
========================  =================================================================

Rules:

* Every signature in it is checked, and that its seat had a place in that epoch; one that does
  not hold makes all of it worthless, so that nobody can wrap a lie in truth.
* Founders signed the genesis with their device keys: else whoever invents a ledger could give
  anybody's name a vote key of his own, and let it lie.
* A power cut can look like malice (amnesia). Evidence names who signed; people judge.

Of a ledger that forked, ``links`` are certificates that show how: without them two final blocks
of different views prove the fork and need not name anybody.

Byte-exact: ``docs/protocols/evidence.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec

from p2pmed.consensus.interface import Header, header_digest
from p2pmed.errors import CredentialError, LocalProtocolError
from p2pmed.ledger.genesis import Genesis, check_signature, ledger_id
from p2pmed.ledger.light import Handover, LightChain, genesis_checkpoint
from p2pmed.ledger.stored import TAIL_MAX, check_proof
from p2pmed.ledger.transaction import open_entry
from p2pmed.limits import ENTRY_BYTES_MAX, VALIDATORS_MAX
from p2pmed.quorum.certificate import Certificate, Epoch, Verify
from p2pmed.quorum.evidence import (
    EQUIVOCATION,
    NULLIFY_AND_FINALIZE,
    accused,
    check_statement,
    conflict,
)
from p2pmed.wire import cbor, codec, cose
from p2pmed.wire.codec import Bytes32, Wire
from p2pmed.wire.hashing import digest

__all__ = [
    "ATTESTATIONS",
    "EVIDENCE_BYTES_MAX",
    "LEDGER_FORK",
    "LOG_FORK",
    "Branch",
    "Case",
    "Evidence",
    "check_evidence",
    "decode_evidence",
    "log_fork",
]

ATTESTATIONS: Final = "attestations"
LOG_FORK: Final = "log_fork"
LEDGER_FORK: Final = "ledger_fork"
KINDS: Final = (EQUIVOCATION, NULLIFY_AND_FINALIZE, ATTESTATIONS, LOG_FORK, LEDGER_FORK)

HANDOVERS_MAX: Final = 256
LINKS_MAX: Final = 16
EVIDENCE_BYTES_MAX: Final = 1024 * 1024
"""A file; what is reported as a transaction must fit one of these."""
FOUNDER_BYTES_MAX: Final = 256


class Branch(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A block that somebody voted for: its header, and headers up to the one that is signed."""

    header: Header
    above: Annotated[tuple[Header, ...], msgspec.Meta(max_length=TAIL_MAX)]
    votes: Certificate

    @property
    def headers(self) -> tuple[Header, ...]:
        """All that is shown, upward."""
        return (self.header, *self.above)

    @property
    def places(self) -> dict[int, bytes]:
        """Digest by height of all that its signers called final."""
        found = {self.header.height - 1: self.header.parent}
        for header in self.headers:
            found[header.height] = header_digest(header)
        return found


class Evidence(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What was signed, and what a stranger needs to check who signed it."""

    version: Annotated[int, msgspec.Meta(ge=1, le=1)]
    kind: Annotated[str, msgspec.Meta(min_length=1, max_length=32)]
    network: Bytes32
    genesis: Genesis | None
    """``None`` for the fork of a log, which needs none."""
    founders: Annotated[
        tuple[Annotated[bytes, msgspec.Meta(max_length=FOUNDER_BYTES_MAX)], ...],
        msgspec.Meta(max_length=VALIDATORS_MAX),
    ]
    """Their signatures of the genesis, in the order of the seats."""
    handovers: Annotated[tuple[Handover, ...], msgspec.Meta(max_length=HANDOVERS_MAX)]
    first: Annotated[bytes, msgspec.Meta(max_length=ENTRY_BYTES_MAX)]
    """An encoded ``Certificate``, ``Branch`` or signed entry, as ``kind`` asks."""
    second: Annotated[bytes, msgspec.Meta(max_length=ENTRY_BYTES_MAX)]
    links: Annotated[tuple[Certificate, ...], msgspec.Meta(max_length=LINKS_MAX)] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What evidence proves."""

    kind: str
    guilty: tuple[bytes, ...]
    """Device keys; of a ``ledger_fork`` without the certificates between, perhaps nobody's."""
    ledger: bytes
    """Empty for the fork of a log."""
    epoch: Epoch | None
    place: bytes
    """Names what was broken: one of the epoch's, or one log. Repeated evidence of one place says
    nothing new."""
    height: int | None = None
    """Of a fork: where the two chains part, at the latest."""


def decode_evidence(raw: bytes) -> Evidence:
    """Evidence from its bytes, nothing checked but their spelling. Raises ``DecodeError``."""
    return codec.decode(raw, Evidence, limit=EVIDENCE_BYTES_MAX)


def log_fork(network: bytes, first: bytes, second: bytes) -> Evidence:
    """Evidence of two signed entries of one author log at one place."""
    low, high = sorted((first, second))
    return Evidence(
        version=1,
        kind=LOG_FORK,
        network=network,
        genesis=None,
        founders=(),
        handovers=(),
        first=low,
        second=high,
    )


def check_evidence(
    evidence: Evidence, *, epoch: Epoch | None = None, verify: Verify = cose.verify
) -> Case:
    """What ``evidence`` proves, and against whom.

    ``epoch`` is a record that the caller trusts, for a ledger of his own: statements must then be
    of that epoch, and nothing is asked of genesis and handovers but the name of the engine.
    Raises ``CredentialError`` if it proves nothing, ``DecodeError`` if its bytes are not in order.
    """
    if evidence.kind not in KINDS:
        raise CredentialError("evidence of no kind that is known here")
    if evidence.kind == LOG_FORK:
        return _log_fork(evidence, verify)
    genesis = evidence.genesis
    if genesis is None or genesis.network != evidence.network:
        raise CredentialError("evidence without the genesis of its ledger and network")
    seats = _trusted(evidence, genesis, epoch, verify)
    if evidence.kind in (EQUIVOCATION, NULLIFY_AND_FINALIZE):
        return _votes(evidence, seats, verify)
    if evidence.kind == ATTESTATIONS:
        return _attestations(evidence, seats, genesis.engine, verify)
    return _ledger_fork(evidence, seats, genesis.engine, verify)


def _trusted(evidence: Evidence, genesis: Genesis, known: Epoch | None, verify: Verify) -> Epoch:
    """The epoch to which founders' signatures and handovers lead, or the one that is known."""
    if known is not None:
        if known.ledger != ledger_id(genesis):
            raise CredentialError("evidence about another ledger")
        return known
    try:
        genesis.check()
    except LocalProtocolError as error:
        raise CredentialError(f"a genesis that cannot be: {error}") from None
    if len(evidence.founders) != len(genesis.validators):
        raise CredentialError("a genesis that not every founder has signed")
    for validator, raw in zip(genesis.validators, evidence.founders, strict=True):
        if check_signature(genesis, raw) != validator.node:
            raise CredentialError("a founder's signature in another founder's place")
    chain = LightChain(genesis_checkpoint(genesis.epoch()), verify=verify)
    for handover in evidence.handovers:
        chain.hand_over(handover)
    return chain.epoch


def _votes(evidence: Evidence, epoch: Epoch, verify: Verify) -> Case:
    first = codec.decode(evidence.first, Certificate)
    second = codec.decode(evidence.second, Certificate)
    if conflict(first, second) != evidence.kind:
        raise CredentialError(f"two votes that are no {evidence.kind}")
    _no_links(evidence)
    return _case(evidence, epoch, accused((first, second), epoch, verify=verify))


def _attestations(evidence: Evidence, epoch: Epoch, engine: str, verify: Verify) -> Case:
    """Raft attests what is committed, and of one height only one block ever is."""
    if engine != "raft":
        raise CredentialError("a BFT validator may finalise several blocks of one height")
    _no_links(evidence)
    branches = _branches(evidence)
    signed = [_signed_branch(branch, epoch, verify) for branch in branches]
    return _case(
        evidence,
        epoch,
        tuple(sorted(frozenset(signed[0]) & frozenset(signed[1]))),
        height=_parting(*branches),
    )


def _ledger_fork(evidence: Evidence, epoch: Epoch, engine: str, verify: Verify) -> Case:
    branches = _branches(evidence)
    for branch in branches:
        header, above = branch.header, branch.above
        if (header.ledger, header.epoch) != (epoch.ledger, epoch.number):
            raise CredentialError("a branch of another ledger or epoch")
        check_proof(header, above, branch.votes, epoch, verify=verify)
    height = _parting(*branches)
    seats: tuple[int, ...] = ()
    if engine == "raft":
        _no_links(evidence)
        signed = [frozenset(check_statement(b.votes, epoch, verify=verify)) for b in branches]
        seats = tuple(sorted(signed[0] & signed[1]))
    else:
        statements = (*(branch.votes for branch in branches), *evidence.links)
        seats = accused(statements, epoch, verify=verify)
    return _case(evidence, epoch, seats, height=height)


def _branches(evidence: Evidence) -> tuple[Branch, Branch]:
    return codec.decode(evidence.first, Branch), codec.decode(evidence.second, Branch)


def _signed_branch(branch: Branch, epoch: Epoch, verify: Verify) -> tuple[int, ...]:
    """Seats that attested the last header of ``branch``, and so all below it."""
    last = branch.header
    if (last.ledger, last.epoch) != (epoch.ledger, epoch.number):
        raise CredentialError("a branch of another ledger or epoch")
    for header in branch.above:
        if header.parent != header_digest(last) or header.height != last.height + 1:
            raise CredentialError("headers that do not hang together")
        last = header
    votes = branch.votes
    if (votes.kind, votes.view, votes.digest) != (3, last.view, header_digest(last)):
        raise CredentialError("an attestation of another block")
    return check_statement(votes, epoch, verify=verify)


def _parting(first: Branch, second: Branch) -> int:
    """The lowest height at which the branches name different blocks."""
    others = second.places
    heights = [h for h, name in first.places.items() if others.get(h, name) != name]
    if not heights:
        raise CredentialError("two branches that may well be one")
    return min(heights)


def _log_fork(evidence: Evidence, verify: Verify) -> Case:
    if evidence.genesis is not None or evidence.founders or evidence.handovers:
        raise CredentialError("the fork of a log with a ledger it has nothing to do with")
    _no_links(evidence)
    first = open_entry(evidence.first, network=evidence.network)
    second = open_entry(evidence.second, network=evidence.network)
    if (first.lane, first.seq) != (second.lane, second.seq):
        raise CredentialError("two entries of different places")
    if first.id == second.id:
        raise CredentialError("one entry, twice")
    for entry in (first, second):
        if not verify(entry.author, entry.signature, entry.to_be_signed):
            raise CredentialError("an entry that its author did not sign")
    place = digest("evidence", cbor.encode([LOG_FORK, first.lane.to_bytes()]))
    return Case(kind=LOG_FORK, guilty=(first.author,), ledger=b"", epoch=None, place=place)


def _case(
    evidence: Evidence, epoch: Epoch, seats: Sequence[int], *, height: int | None = None
) -> Case:
    if not seats and evidence.kind != LEDGER_FORK:
        raise CredentialError("evidence that names nobody")
    return Case(
        kind=evidence.kind,
        guilty=tuple(epoch.validators[seat].node for seat in seats),
        ledger=epoch.ledger,
        epoch=epoch,
        place=digest("evidence", cbor.encode(["epoch", epoch.ledger, epoch.number])),
        height=height,
    )


def _no_links(evidence: Evidence) -> None:
    if evidence.links:
        raise CredentialError("certificates that belong to no kind of evidence but a ledger's fork")
