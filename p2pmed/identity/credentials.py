"""Credentials: signed statements that a key is a clinic, a pharmacy, a practitioner.

A chain leads from a root key of the manifest down to the credential in question, the *leaf*.
It is a sequence, **the one issued by a root first, the leaf last**, of at most three links,
and proves itself offline. Each link after the first must satisfy, against the one before:

* its issuer is the key that the link before names, and that key signed it;
* its roles, and the roles it may itself issue, are among those the link before may issue;
* its place lies in the place of the link before;
* its validity lies in the validity of the link before, so that the leaf's own ``not_after``
  is all that a ledger has to remember of the chain.

Rule: time is judged only if the caller hands in a time. A ledger judges expiry by block
time; the handshake hands in ``None`` or an estimate (design, sections 6 and 12).
Not here: revocation, which is an ordered transaction and a matter of the ledger.
Byte-exact: ``docs/protocols/identity.md``, section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Final

import msgspec

from p2pmed.errors import CredentialError, DecodeError, InvalidTransaction
from p2pmed.identity.keys import check_box_key, check_signing_key, public_key
from p2pmed.identity.manifest import Manifest
from p2pmed.limits import CREDENTIAL_CHAIN_MAX
from p2pmed.wire import codec, cose
from p2pmed.wire.codec import Bytes16, Bytes32, TimeMs, Wire

__all__ = [
    "CREDENTIAL_BYTES_MAX",
    "Credential",
    "Name",
    "Place",
    "Role",
    "Roles",
    "Validity",
    "check_chain",
    "check_words",
    "covers",
    "issue_credential",
    "open_credential",
    "sort_roles",
]

PURPOSE: Final = "credential"

CREDENTIAL_BYTES_MAX: Final = 2_048
"""Three of them and a manifest travel in one answer and in each first log entry."""

PLACE_PARTS_MAX: Final = 8

Verify = Callable[[bytes, bytes, bytes], bool]
"""``verify(public_key, signature, message)``; ``cose.verify`` outside the simulator."""


class Role(StrEnum):
    """What a key may be; the values are part of the protocol."""

    AUTHORITY = "authority"
    COUNTY = "county"
    CLINIC = "clinic"
    HOSPITAL = "hospital"
    PHARMACY = "pharmacy"
    INSURER = "insurer"
    MANUFACTURER = "manufacturer"
    REGULATOR = "regulator"
    PRACTITIONER = "practitioner"
    DEVICE = "device"


Name = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
"""One line of text, for people."""
Place = Annotated[str, msgspec.Meta(max_length=256)]
"""A catchment: ``county/village``, from the widest down; empty is everywhere."""
Roles = Annotated[tuple[Role, ...], msgspec.Meta(max_length=len(Role))]
"""Distinct, in the order of their names."""


class Credential(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One statement about one key."""

    version: Annotated[int, msgspec.Meta(ge=1, le=1)]
    network: Bytes32
    subject: Bytes32
    """The Ed25519 key it speaks about."""
    box_key: Bytes32
    """The X25519 key to which others seal for the subject."""
    name: Name
    roles: Roles
    """At least one."""
    place: Place
    delegate: Roles
    """The roles that the subject may issue in its place; empty: none."""
    not_before: TimeMs
    not_after: TimeMs
    """The first millisecond in which it no longer holds."""
    serial: Bytes16
    """Random; never all zeros."""
    issuer: Bytes32
    """The Ed25519 key that signed it."""


@dataclass(frozen=True, slots=True)
class Validity:
    """From when until when, in milliseconds since 1970; the end is excluded."""

    not_before_ms: int
    not_after_ms: int

    def within(self, outer: Validity) -> Validity:
        """The part of it that lies in ``outer``."""
        return Validity(
            max(self.not_before_ms, outer.not_before_ms),
            min(self.not_after_ms, outer.not_after_ms),
        )


def sort_roles(roles: Iterable[Role | str]) -> tuple[Role, ...]:
    """Roles in their one spelling. Raises ``CredentialError`` for a word that is no role."""
    try:
        return tuple(sorted({Role(role) for role in roles}))
    except ValueError:
        raise CredentialError("an unknown role", hint=f"roles are {', '.join(Role)}") from None


def covers(place: str, inner: str) -> bool:
    """Whether ``inner`` lies in ``place``, or is it; the empty place is everywhere."""
    return place in ("", inner) or inner.startswith(f"{place}/")


def check_words(name: str, place: str) -> None:
    """Raises ``CredentialError`` unless ``name`` and ``place`` are written as they must be."""
    if not name.isprintable() or name != name.strip():
        raise CredentialError("a name that is not one line of text without white space around it")
    parts = place.split("/") if place else []
    sound = all(0 < len(part) <= 64 and part == part.strip() for part in parts)
    if not sound or len(parts) > PLACE_PARTS_MAX or not place.isprintable():
        raise CredentialError(
            "a place that is not written as one",
            hint=f"at most {PLACE_PARTS_MAX} names with / between them, like county/village",
        )


def issue_credential(credential: Credential, *, seed: bytes) -> bytes:
    """The signed bytes of ``credential``; ``seed`` (32 bytes) is its issuer's.

    Raises ``CredentialError`` if the statement breaks a rule that needs no chain.
    """
    try:
        payload = codec.encode(credential)
        _check_statement(codec.decode(payload, Credential))
    except (DecodeError, InvalidTransaction) as error:
        raise CredentialError(f"no credential can say this: {error}") from None
    if public_key(seed) != credential.issuer:
        raise CredentialError("the issuing key is not the issuer that the credential names")
    raw = cose.sign(
        payload,
        seed=seed,
        signer=credential.issuer,
        external=cose.external_data(PURPOSE, credential.network),
    )
    if len(raw) > CREDENTIAL_BYTES_MAX:
        raise CredentialError(f"a credential longer than {CREDENTIAL_BYTES_MAX} bytes")
    return raw


def open_credential(raw: bytes, *, network_id: bytes, verify: Verify = cose.verify) -> Credential:
    """One credential, its own words and signature checked; its place in a chain is not.

    Raises ``CredentialError``, also for bytes that are no credential.
    """
    try:
        signed = cose.open_signed(
            raw, external=cose.external_data(PURPOSE, network_id), limit=CREDENTIAL_BYTES_MAX
        )
        credential = codec.decode(signed.payload, Credential)
    except DecodeError as error:
        raise CredentialError(f"not a credential: {error}") from None
    if credential.network != network_id:
        raise CredentialError(
            "the credential is of another network",
            hint="enrol the device in this network; it gets a credential of its own here",
        )
    _check_statement(credential)
    if signed.signer != credential.issuer:
        raise CredentialError("the credential is not signed by the issuer it names")
    if not verify(signed.signer, signed.signature, signed.to_be_signed):
        raise CredentialError("the credential's signature does not hold")
    return credential


def check_chain(
    chain: Sequence[bytes],
    *,
    manifest: Manifest,
    network_id: bytes,
    at_ms: int | None,
    verify: Verify = cose.verify,
) -> Credential:
    """The leaf of ``chain`` (issued by a root first, the leaf last), every rule checked.

    ``manifest`` and ``network_id`` are what ``open_manifest`` gave. ``at_ms`` is a time in
    milliseconds since 1970, or ``None`` where expiry is judged elsewhere.
    Raises ``CredentialError`` with one sentence.
    """
    if not chain:
        raise CredentialError("no credential was shown")
    if len(chain) > CREDENTIAL_CHAIN_MAX:
        raise CredentialError(
            f"a chain of {len(chain)} credentials where {CREDENTIAL_CHAIN_MAX} are allowed",
            hint="have the credential issued by somebody nearer to the authority",
        )
    links: list[Credential] = []
    for raw in chain:
        link = open_credential(raw, network_id=network_id, verify=verify)
        if links:
            _check_delegation(links[-1], link)
        elif link.issuer not in manifest.root_keys:
            raise CredentialError("the first credential is not signed by a root of this network")
        if any(link.subject == other.subject or link.serial == other.serial for other in links):
            raise CredentialError("a key or a serial number stands twice in the chain")
        if at_ms is not None:
            _check_time(link, at_ms)
        links.append(link)
    return links[-1]


def _check_statement(credential: Credential) -> None:
    """What must hold of a credential by itself."""
    if not credential.roles:
        raise CredentialError("a credential without a role")
    for roles in (credential.roles, credential.delegate):
        if list(roles) != sorted(set(roles)):
            raise CredentialError("roles that are not distinct and in the order of their names")
    check_words(credential.name, credential.place)
    if credential.not_before >= credential.not_after:
        raise CredentialError("a credential that ends before it begins")
    if credential.subject == credential.issuer:
        raise CredentialError("a credential issued by its own subject")
    if not any(credential.serial):
        raise CredentialError("a serial number of zeros, which a revocation reads as every one")
    check_signing_key(credential.subject)
    check_box_key(credential.box_key)


def _check_delegation(above: Credential, below: Credential) -> None:
    """Whether ``above``'s subject may say what ``below`` says."""
    if below.issuer != above.subject:
        raise CredentialError("the credential is not signed by the one before it in the chain")
    for role in (*below.roles, *below.delegate):
        if role not in above.delegate:
            raise CredentialError(f"the issuer may not issue the role {role.value}")
    if not covers(above.place, below.place):
        raise CredentialError("the credential's place lies outside its issuer's")
    if below.not_before < above.not_before or below.not_after > above.not_after:
        raise CredentialError("the credential's validity exceeds its issuer's")


def _check_time(credential: Credential, at_ms: int) -> None:
    if at_ms < credential.not_before:
        raise CredentialError(
            "the credential is not valid yet", hint="check this machine's date and time"
        )
    if at_ms >= credential.not_after:
        raise CredentialError("the credential has expired", hint="request a new one and enrol it")
