"""Who belongs: the first entry of every author log, and the withdrawal of a credential.

Rule: what a key signed is judged by its place in the order, not by a clock (design, section 6).
A revocation therefore marks the member; entries ordered after it are ``author_revoked``.
It names one credential by its serial number, which a renewed credential survives, or the key
itself, which nothing survives (``identity/revocation.py``).

A revocation may be ordered before the log it speaks of is known here. It is then kept with the
standing of its author, and weighed when the log opens and the revoked device's place is known.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec

from p2pmed.errors import CredentialError
from p2pmed.identity.credentials import CREDENTIAL_BYTES_MAX, Verify, check_chain, covers
from p2pmed.identity.enrolment import VOTE_KEYS_MAX
from p2pmed.identity.manifest import Manifest
from p2pmed.identity.revocation import EVERY_SERIAL, Revocation, Standing, may_revoke
from p2pmed.ledger.state import Readable, View
from p2pmed.limits import CREDENTIAL_CHAIN_MAX
from p2pmed.medical.fields import FieldFault, check_optional_id
from p2pmed.medical.registry import Act, Checked, Kind, Member
from p2pmed.medical.rejections import Rejection
from p2pmed.medical.roles import SUPERVISORS
from p2pmed.medical.tables import Table
from p2pmed.quorum.possession import ProvenKey, is_proven
from p2pmed.wire import cose
from p2pmed.wire.codec import Bytes32, Count, OptionalId, Text, TimeMs, Wire

__all__ = [
    "KINDS",
    "MEMBERS",
    "CredentialOpener",
    "Incarnation",
    "LogOpen",
    "Revocation",
    "incarnations",
    "may_withdraw",
    "member",
    "proves_keys",
    "vote_keys",
]

CHAINS_CACHED_MAX: Final = 1_024
"""Verified chains remembered, so that a log is checked once and not on each overlay."""


class LogOpen(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``log.open``: the first entry of an author log; it proves who writes."""

    chain: Annotated[
        tuple[Annotated[bytes, msgspec.Meta(max_length=CREDENTIAL_BYTES_MAX)], ...],
        msgspec.Meta(min_length=1, max_length=CREDENTIAL_CHAIN_MAX),
    ]
    """Credentials, the one issued by a root first, this device's own last."""
    previous: Annotated[bytes, msgspec.Meta(max_length=16)]
    """The device's incarnation before this one, or empty."""
    previous_seq: Count
    previous_head: OptionalId
    """Id of the last entry known of that incarnation, or empty."""
    box_key: Bytes32
    """X25519 key to which others wrap; the device's own signed word."""
    vote_keys: Annotated[tuple[ProvenKey, ...], msgspec.Meta(max_length=VOTE_KEYS_MAX)]
    """Ed25519 keys for the coming epochs, in order, each proven to be this device's."""
    boot: Count
    """How often this device has opened a log."""

    def __post_init__(self) -> None:
        check_optional_id("previous_head", self.previous_head)
        if len(self.previous) not in (0, 16):
            raise FieldFault("previous: neither empty nor 16 bytes")


class Incarnation(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One log of a device, as its first entry told."""

    opened_by: Bytes32
    previous: Annotated[bytes, msgspec.Meta(max_length=16)]
    previous_seq: Count
    previous_head: OptionalId
    vote_keys: tuple[Bytes32, ...]
    boot: Count
    time: TimeMs


class _Revoked(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A revocation, with the standing of its author at that time."""

    id: Bytes32
    roles: tuple[Text, ...]
    place: Text
    issuer: Bytes32


MEMBERS: Final = Table("member", Member)
_REVOKED: Final = Table("revocation", _Revoked)
_INCARNATIONS: Final = Table("incarnation", Incarnation)


class CredentialOpener:
    """What ``MedicalMachine`` asks of a chain: the member it makes of this device, or ``None``.

    Pure but for a bounded memory of chains already verified. Expiry is not judged here.
    """

    def __init__(
        self, manifest: Manifest, network_id: bytes, *, verify: Verify = cose.verify
    ) -> None:
        self._manifest = manifest
        self._network_id = network_id
        self._verify = verify
        self._known: dict[tuple[tuple[bytes, ...], bytes], Member | None] = {}

    def __call__(self, chain: tuple[bytes, ...], device: bytes) -> Member | None:
        """The member, if ``chain`` leads from a root of the network to ``device`` (32 bytes)."""
        question = (chain, device)
        if question not in self._known:
            if len(self._known) >= CHAINS_CACHED_MAX:
                self._known.clear()
            self._known[question] = self._open(chain, device)
        return self._known[question]

    def _open(self, chain: tuple[bytes, ...], device: bytes) -> Member | None:
        try:
            leaf = check_chain(
                chain,
                manifest=self._manifest,
                network_id=self._network_id,
                at_ms=None,
                verify=self._verify,
            )
        except CredentialError:
            return None
        if leaf.subject != device:
            return None  # somebody else's chain, replayed
        return Member(
            name=leaf.name,
            roles=tuple(role.value for role in leaf.roles),
            place=leaf.place,
            box_key=leaf.box_key,
            issuer=leaf.issuer,
            serial=leaf.serial,
            not_after=leaf.not_after,
        )


def member(view: Readable, device: bytes) -> Member | None:
    """What this ledger knows of the device with this key."""
    return MEMBERS.get(view, device)


def incarnations(view: Readable, device: bytes) -> dict[bytes, Incarnation]:
    """The logs that a device has opened, by incarnation."""
    return dict(_INCARNATIONS.scan(view, device))


def vote_keys(view: Readable, device: bytes, incarnation: bytes) -> tuple[bytes, ...]:
    """The vote keys that a log published, in order of use; empty if it is unknown."""
    row = _INCARNATIONS.get(view, device, incarnation)
    return row.vote_keys if row else ()


def may_withdraw(author: bytes, author_member: Member, issuer: bytes, place: str) -> bool:
    """Whether ``author`` issued something at ``place`` itself, or supervises that place."""
    supervises = not SUPERVISORS.isdisjoint(author_member.roles)
    return author == issuer or (supervises and covers(author_member.place, place))


def proves_keys(body: LogOpen, network: bytes, device: bytes) -> bool:
    """Whether ``device`` has the secret halves of the vote keys that its log publishes."""
    return all(
        is_proven(published, network=network, ledger=b"", device=device)
        for published in body.vote_keys
    )


def _standing(key: bytes, known: Member) -> Standing:
    return Standing(key=key, roles=known.roles, place=known.place, issuer=known.issuer)


def _revoked(view: Readable, device: bytes, shown: Member) -> bool:
    """Whether a revocation that holds speaks of this credential of ``device``."""
    target = _standing(device, shown)
    for rest, row in _REVOKED.scan(view, device):
        author, serial = rest[:32], rest[32:]
        if serial not in (EVERY_SERIAL, shown.serial):
            continue
        revoker = Standing(key=author, roles=row.roles, place=row.place, issuer=row.issuer)
        if may_revoke(revoker, target):
            return True
    return False


def _check_open(act: Act[LogOpen], view: View) -> Checked:
    if act.entry.seq != 0:
        return Rejection.MALFORMED
    if not proves_keys(act.body, act.context.network, act.entry.author):
        return Rejection.VOTE_KEY_UNPROVEN
    known = member(view, act.entry.author)
    if known is not None and _revoked(view, act.entry.author, act.member):
        return Rejection.AUTHOR_REVOKED
    return None  # if unknown, it is noted as revoked: what follows says so, not "unknown"


def _apply_open(act: Act[LogOpen], view: View) -> None:
    body, device = act.body, act.entry.author
    known, shown = member(view, device), act.member
    if known is not None and not known.revoked and known.not_after > shown.not_after:
        shown = known  # an older credential shown again takes nothing back
    revoked = _revoked(view, device, shown)
    row = msgspec.structs.replace(shown, box_key=body.box_key, revoked=revoked)
    MEMBERS.put(view, row, device)
    opened = Incarnation(
        opened_by=act.entry.id,
        previous=body.previous,
        previous_seq=body.previous_seq,
        previous_head=body.previous_head,
        vote_keys=tuple(published.key for published in body.vote_keys),
        boot=body.boot,
        time=act.context.time_ms,
    )
    _INCARNATIONS.put(view, opened, device, act.entry.lane.incarnation)


def _check_revoke(act: Act[Revocation], view: View) -> Checked:
    device = act.body.subject
    target = member(view, device)
    if target is None:
        return None  # kept until the log opens: a revocation must not be lost by arriving early
    if not may_revoke(_standing(act.entry.author, act.member), _standing(device, target)):
        return Rejection.ISSUER_NOT_ABOVE
    return None


def _apply_revoke(act: Act[Revocation], view: View) -> None:
    device, serial, author = act.body.subject, act.body.serial, act.member
    row = _Revoked(id=act.entry.id, roles=author.roles, place=author.place, issuer=author.issuer)
    _REVOKED.put(view, row, device, act.entry.author, serial)
    target = member(view, device)
    if target is not None and serial in (EVERY_SERIAL, target.serial):
        MEMBERS.put(view, msgspec.structs.replace(target, revoked=True), device)


KINDS: Final[tuple[Kind[Any], ...]] = (
    Kind(
        name="log.open",
        body=LogOpen,
        check=_check_open,
        apply=_apply_open,
        ordered=False,
        rules="Refused `author_unknown` if the credential chain does not lead from the authority "
        "to this device, `author_revoked` if that credential was revoked, `malformed` if it is "
        "not the first entry of its log, `vote_key_unproven` if a vote key did not sign for this "
        "device.",
    ),
    Kind(
        name="credential.revoke",
        body=Revocation,
        check=_check_revoke,
        apply=_apply_revoke,
        everywhere=True,
        rules="Refused `issuer_not_above` unless the author is the device itself, issued the "
        "credential, or supervises the device's roles in its place. Repeating it changes "
        "nothing; one that comes before the log it speaks of is weighed when that log opens.",
    ),
)
