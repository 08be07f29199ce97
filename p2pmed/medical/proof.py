"""One record's proof in one file: for a court's expert with public keys and no copy of anything.

It leads from the network's manifest to the ledger's founders, by handovers through every change
of members to the seats that made one block final, from there by Merkle paths to one signed
transaction and its verdict, and from its signature back to the manifest by its author's
credentials. It may add a county's anchor (a second ledger that vouches for the block), and, at
the word of who holds the patient's keys, the content with the salt that proves its commitment.

Rules:

* Nothing in a file is taken on trust, every byte of it is covered by a signature or a hash, and
  one byte changed is a refusal. Only the network's id must be known from elsewhere.
* What is not proven is part of the answer (``Checked.limits``): a proof that says less than
  people think is worse than none.

Byte-exact: ``docs/protocols/proof.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

import msgspec

from p2pmed.consensus.interface import Header, header_digest
from p2pmed.errors import CredentialError, DecodeError
from p2pmed.identity.credentials import CREDENTIAL_BYTES_MAX, Credential, check_chain
from p2pmed.identity.manifest import MANIFEST_BYTES_MAX, Manifest, open_manifest
from p2pmed.ledger.genesis import Founding, ledger_id
from p2pmed.ledger.light import Handover, LightBlock, LightChain, Placed, check_placed
from p2pmed.ledger.state import APPLIED
from p2pmed.ledger.transaction import Entry, open_entry
from p2pmed.limits import CREDENTIAL_CHAIN_MAX, ENTRY_BYTES_MAX, RECORD_BYTES_MAX
from p2pmed.medical.county import ANCHOR, Anchor
from p2pmed.medical.patients import PatientRegister
from p2pmed.medical.records import RecordAdd, RecordAmend
from p2pmed.medical.roles import Role, roles
from p2pmed.medical.sealed import Sealed, commitment
from p2pmed.quorum.certificate import Verify
from p2pmed.wire import codec, cose
from p2pmed.wire.codec import Bytes32, Wire

__all__ = [
    "PROOF_BYTES_MAX",
    "Anchored",
    "Checked",
    "Opened",
    "Ordered",
    "RecordProof",
    "Standing",
    "check_proof",
    "decode_proof",
]

FORMAT: Final = "p2pmed/1 proof"
HANDOVERS_MAX: Final = 4_096
HEADERS_MAX: Final = 65_536
"""From a record's block up to the one that an anchor names."""
PROOF_BYTES_MAX: Final = RECORD_BYTES_MAX + 32 * 1024 * 1024
COUNTY_ROLES: Final = roles(Role.COUNTY, Role.HOSPITAL)

Chain = Annotated[
    tuple[Annotated[bytes, msgspec.Meta(max_length=CREDENTIAL_BYTES_MAX)], ...],
    msgspec.Meta(min_length=1, max_length=CREDENTIAL_CHAIN_MAX),
]
"""Credentials, the one issued by a root first."""

_SEALED: Final[dict[str, type[Any]]] = {
    "record.add": RecordAdd,
    "record.amend": RecordAmend,
    "patient.register": PatientRegister,
}
"""Kinds whose body holds a sealed resource."""


class Ordered(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """That a ledger ordered a transaction, and what came of it."""

    founding: Founding
    handovers: Annotated[tuple[Handover, ...], msgspec.Meta(max_length=HANDOVERS_MAX)]
    """From the first epoch to that of ``block``, in order."""
    block: LightBlock
    placed: Placed
    entry: Annotated[bytes, msgspec.Meta(max_length=ENTRY_BYTES_MAX)]
    """The transaction as it was signed."""
    chain: Chain
    """Its author's credentials."""


class Anchored(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """That a county's ledger vouches for the block: an anchor at or above it."""

    headers: Annotated[tuple[Header, ...], msgspec.Meta(max_length=HEADERS_MAX)]
    """Of the record's ledger, above the record's block, up to the one that the anchor names."""
    anchor: Ordered


class Opened(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What the transaction commits to, shown by who could read it."""

    salt: Bytes32
    resource: Annotated[bytes, msgspec.Meta(max_length=RECORD_BYTES_MAX)]


class RecordProof(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The file."""

    format: Literal["p2pmed/1 proof"]
    manifest: Annotated[bytes, msgspec.Meta(max_length=MANIFEST_BYTES_MAX)]
    record: Ordered
    anchored: Anchored | None
    opened: Opened | None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Standing:
    """What was proven of one transaction in one ledger."""

    ledger: bytes
    name: str
    """The ledger's, as its founders called it."""
    engine: str
    entry: Entry
    author: Credential
    height: int
    time_ms: int
    """Block time: milliseconds since 1970, UTC."""
    verdict: str
    contradicts: bytes
    epoch: int
    signers: tuple[tuple[int, bytes], ...]
    """Seats that certified, and their devices."""
    seats: int
    quorum: int
    liars: int
    valid_then: bool
    """Whether block time lies in the validity of the author's credential."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Checked:
    """What a proof proves, and what it does not."""

    network: bytes
    network_name: str
    record: Standing
    anchored: Standing | None
    anchor_height: int | None
    """Height of the record's ledger up to which the county has executed it."""
    refused_by_county: str
    """The county's verdict if its anchor refuses this very transaction; else empty."""
    resource: bytes | None
    committed: bytes | None
    """The commitment, if the transaction carries a sealed resource."""
    limits: tuple[str, ...]
    """Sentences: what nobody should read into it."""
    pinned: bool
    """Whether the caller knew the network's id from elsewhere."""


def decode_proof(raw: bytes) -> RecordProof:
    """The file, nothing checked but its spelling. Raises ``DecodeError``."""
    return codec.decode(raw, RecordProof, limit=PROOF_BYTES_MAX)


def check_proof(
    raw: bytes, *, network: bytes | None = None, verify: Verify = cose.verify
) -> Checked:
    """What the file ``raw`` proves; ``network`` is the id (32 bytes) known from elsewhere.

    Raises ``DecodeError`` or ``CredentialError`` with one sentence if any part does not hold.
    """
    proof = decode_proof(raw)
    manifest, network_id = open_manifest(proof.manifest)
    if network is not None and network_id != network:
        raise CredentialError("the proof is of another network than the one that was named")
    ground = _Ground(manifest, network_id, verify)
    record = ground.stand(proof.record)
    anchored, height, refused = None, None, ""
    if proof.anchored is not None:
        anchored, anchor = ground.anchor(proof.anchored, proof.record)
        height = anchor.height
        refused = next((r.code for r in anchor.refused if r.id == record.entry.id), "")
    sealed = _sealed(record.entry)
    if proof.opened is not None:
        _check_opened(proof.opened, sealed)
    return Checked(
        network=network_id,
        network_name=manifest.name,
        record=record,
        anchored=anchored,
        anchor_height=height,
        refused_by_county=refused,
        resource=None if proof.opened is None else proof.opened.resource,
        committed=None if sealed is None else sealed.commitment,
        limits=_limits(proof, record, network is not None),
        pinned=network is not None,
    )


class _Ground:
    """What everything in one proof stands on: the manifest."""

    def __init__(self, manifest: Manifest, network: bytes, verify: Verify) -> None:
        self._manifest = manifest
        self._network = network
        self._verify = verify

    def stand(self, ordered: Ordered) -> Standing:
        """Check one transaction of one ledger. Raises ``CredentialError`` or ``DecodeError``."""
        founding, block = ordered.founding, ordered.block
        chain = LightChain.founded(
            founding, network=self._network, open_chain=self._device, verify=self._verify
        )
        chain.verify(ordered.handovers, block)
        entry = open_entry(ordered.entry, network=self._network)
        if not self._verify(entry.author, entry.signature, entry.to_be_signed):
            raise CredentialError("the transaction's author did not sign it")
        check_placed(ordered.placed, entry.id, block.summary)
        author = self._credential(ordered.chain)
        if author.subject != entry.author:
            raise CredentialError("the credentials speak of another device than signed")
        epoch, votes = chain.epoch, block.certificate.signers
        return Standing(
            ledger=ledger_id(founding.genesis),
            name=founding.genesis.name,
            engine=founding.genesis.engine,
            entry=entry,
            author=author,
            height=block.header.height,
            time_ms=block.summary.time,
            verdict=ordered.placed.code,
            contradicts=ordered.placed.other,
            epoch=epoch.number,
            signers=tuple(
                (seat, validator.node)
                for seat, validator in enumerate(epoch.validators)
                if votes >> seat & 1
            ),
            seats=len(epoch.validators),
            quorum=epoch.quorum,
            liars=epoch.liars,
            valid_then=author.not_before <= block.summary.time < author.not_after,
        )

    def anchor(self, anchored: Anchored, record: Ordered) -> tuple[Standing, Anchor]:
        """Check that a county's applied anchor covers the record's block."""
        standing = self.stand(anchored.anchor)
        if standing.entry.kind != ANCHOR or standing.verdict != APPLIED:
            raise CredentialError("what should be a county's anchor is none that was applied")
        if COUNTY_ROLES.isdisjoint(role.value for role in standing.author.roles):
            raise CredentialError("an anchor by a device that speaks for no county")
        for founder in anchored.anchor.founding.chains:
            if COUNTY_ROLES.isdisjoint(r.value for r in self._credential(founder).roles):
                raise CredentialError("an anchor in a ledger that no county founded")
        anchor = codec.convert(standing.entry.envelope.body, Anchor)
        last = record.block.header
        if anchor.ledger != last.ledger or not anchor.start < last.height <= anchor.height:
            raise CredentialError("an anchor that does not cover the record's block")
        for header in anchored.headers:
            if header.parent != header_digest(last) or header.height != last.height + 1:
                raise CredentialError("headers up to the anchor that do not hang together")
            last = header
        if (last.height, header_digest(last)) != (anchor.height, anchor.head):
            raise CredentialError("an anchor of another block than the headers lead to")
        return standing, anchor

    def _device(self, chain: Sequence[bytes]) -> bytes:
        return self._credential(chain).subject

    def _credential(self, chain: Sequence[bytes]) -> Credential:
        return check_chain(
            chain,
            manifest=self._manifest,
            network_id=self._network,
            at_ms=None,
            verify=self._verify,
        )


def _sealed(entry: Entry) -> Sealed | None:
    """The sealed resource in a transaction, if its kind has one and its body fits."""
    kind = _SEALED.get(entry.kind)
    if kind is None:
        return None
    try:
        body = codec.convert(entry.envelope.body, kind)
    except DecodeError:
        return None
    found: Sealed = body.sealed
    return found


def _check_opened(opened: Opened, sealed: Sealed | None) -> None:
    if sealed is None:
        raise CredentialError("content beside a transaction that commits to none")
    if commitment(opened.salt, opened.resource) != sealed.commitment:
        raise CredentialError("the content is not what the transaction commits to")


def _limits(proof: RecordProof, record: Standing, pinned: bool) -> tuple[str, ...]:
    """What is not proven, in sentences, the weightiest first."""
    told = [
        "that what was recorded is true: a signature says who wrote it, not that it happened",
        "that the named device was in its owner's hands",
        "that nothing later amended, retracted, revoked or contradicted it",
        f"that the mesh was honest: {record.liars} of {record.seats} liars were provided for",
    ]
    if not pinned:
        told.insert(0, "that this is your network: compare its id with one you trust")
    if proof.anchored is None:
        told.append("that a county's ledger has it: the proof holds no anchor")
    if proof.opened is None:
        told.append("what it says: the content is sealed, and its commitment was not opened")
    if record.entry.envelope.actor:
        told.append("that the named person agreed: the device says so")
    return tuple(told)
