"""A facility as a reader: one key that its qualified staff's devices share, by epoch.

Rule of this file: a facility is a *place* of the members' credentials; only a device of that
place, of a caring role, may publish its key or its policy. The secret half is wrapped to each
device, with those of the epochs before, so that who joins reads what the facility may read. A
device that leaves gets no newer epoch, and patients' keys are wrapped to the newest only.
Implements ``docs/protocols/records.md``, clauses 26.5 to 26.7.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final

import msgspec

from p2pmed.errors import DecodeError
from p2pmed.identity import sealing
from p2pmed.identity.sealing import box_id
from p2pmed.ledger.state import Readable, View
from p2pmed.medical.keyring import Category, Wrapped
from p2pmed.medical.patients import wraps_fault
from p2pmed.medical.privacy.policy import Audience, Policy, read_policy
from p2pmed.medical.registry import Act, Kind
from p2pmed.medical.rejections import Rejection
from p2pmed.medical.roles import CARERS
from p2pmed.medical.tables import Table
from p2pmed.wire.codec import Bytes32, Count, Text, Wire
from p2pmed.wire.hashing import digest

__all__ = [
    "FACILITY_EPOCHS_MAX",
    "KINDS",
    "MEMBERS_MAX",
    "FacilityKey",
    "FacilityKeyRow",
    "FacilityPolicy",
    "current_facility_key",
    "facility_keys",
    "facility_of",
    "open_facility_secrets",
    "policy_of",
    "wrap_facility_secrets",
]

MEMBERS_MAX: Final = 32
SECRETS_KEPT_MAX: Final = 64
"""Epochs whose keys a device that joins is given: who left sixty-four times ago is history."""
FACILITY_EPOCHS_MAX: Final = 10_000
DOMAIN: Final = "facility"


class FacilityKey(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``facility.key``: a new epoch of the key that the devices of the author's place share."""

    epoch: Annotated[int, msgspec.Meta(ge=0, lt=FACILITY_EPOCHS_MAX)]
    public: Bytes32
    """X25519 public key."""
    wraps: Annotated[tuple[Wrapped, ...], msgspec.Meta(min_length=1, max_length=MEMBERS_MAX)]
    """The secret half, to each device of the staff."""


class FacilityPolicy(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``facility.policy``: to whom a registration at the author's place wraps what."""

    rows: Annotated[
        tuple[tuple[Category, tuple[Audience, ...]], ...], msgspec.Meta(max_length=len(Category))
    ]


class FacilityKeyRow(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """State of one epoch of a facility's key."""

    epoch: Count
    public: Bytes32
    entry: Bytes32
    author: Bytes32


class FacilityBoxRow(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Whose a facility's key is."""

    place: Text


class FacilityPolicyRow(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """State of a facility's policy: the newest by hybrid clock, then by id."""

    hlc: Annotated[int, msgspec.Meta(ge=0, le=2**62)]
    entry: Bytes32
    rows: tuple[tuple[Category, tuple[Audience, ...]], ...]


KEYS: Final = Table("facility_key", FacilityKeyRow)
BOXES: Final = Table("facility_box", FacilityBoxRow)
POLICIES: Final = Table("facility_policy", FacilityPolicyRow)


def facility_keys(view: Readable, place: str) -> list[FacilityKeyRow]:
    """Every epoch of the key of ``place``, the current one last.

    Of two of one epoch, made on both sides of a cut, the smaller id counts.
    """
    rows = [row for _, row in KEYS.scan(view, _name(place))]
    rows.sort(key=lambda row: row.entry, reverse=True)
    rows.sort(key=lambda row: row.epoch)
    return rows


def current_facility_key(view: Readable, place: str) -> bytes | None:
    """The X25519 public key that patients' keys are wrapped to, or ``None``."""
    rows = facility_keys(view, place) if place else []
    return rows[-1].public if rows else None


def facility_of(view: Readable, grantee: bytes) -> str | None:
    """The place whose key (of any epoch) has the ``box_id`` ``grantee``, or ``None``."""
    row = BOXES.get(view, grantee)
    return None if row is None else row.place


def policy_of(view: Readable, place: str) -> Policy:
    """What a registration at ``place`` wraps to whom: its own policy, or the default."""
    row = POLICIES.get(view, _name(place)) if place else None
    return read_policy(row.rows if row is not None else ())


def wrap_facility_secrets(
    secrets: Sequence[bytes],
    device_key: bytes,
    *,
    network: bytes,
    place: str,
    epoch: int,
    wrapper: sealing.Wrapper = sealing.HPKE,
) -> Wrapped:
    """The secret halves, newest first, for one device (X25519 public key)."""
    wrapped = sealing.wrap(
        device_key,
        b"".join(secrets[:SECRETS_KEPT_MAX]),
        domain=DOMAIN,
        context=(network, place, str(epoch)),
        wrapper=wrapper,
    )
    return Wrapped(grantee=box_id(device_key), wrapped=wrapped)


def open_facility_secrets(
    body: FacilityKey, secret: bytes, *, network: bytes, place: str
) -> list[bytes]:
    """The secret halves for the device of the X25519 ``secret``, newest first; empty if none.

    Raises ``Denied`` or ``DecodeError`` if what was wrapped does not open.
    """
    own = box_id(sealing.box_public(secret))
    for wrapped in body.wraps:
        if wrapped.grantee == own:
            context = (network, place, str(body.epoch))
            joined = sealing.unwrap(secret, wrapped.wrapped, domain=DOMAIN, context=context)
            found = [joined[start : start + 32] for start in range(0, len(joined), 32)]
            if not found or any(len(each) != 32 for each in found):
                raise DecodeError("a facility's keys that are none")
            return found
    return []


def _name(place: str) -> bytes:
    return digest("facility", place.encode())


def _place_fault(act: Act[Any]) -> Rejection | None:
    if act.entry.envelope.subject:
        return Rejection.MALFORMED
    return None if act.member.place else Rejection.NOT_THE_PARTY


def _check_key(act: Act[FacilityKey], view: View) -> Rejection | None:
    if fault := _place_fault(act) or wraps_fault(act.body.wraps):
        return fault
    known = facility_of(view, box_id(act.body.public))
    return Rejection.NOT_THE_PARTY if known not in (None, act.member.place) else None


def _apply_key(act: Act[FacilityKey], view: View) -> None:
    body, entry, place = act.body, act.entry, act.member.place
    row = FacilityKeyRow(epoch=body.epoch, public=body.public, entry=entry.id, author=entry.author)
    KEYS.put(view, row, _name(place), body.epoch.to_bytes(4, "big"), entry.id)
    BOXES.put(view, FacilityBoxRow(place=place), box_id(body.public))


def _check_policy(act: Act[FacilityPolicy], view: View) -> Rejection | None:
    named = [category for category, _ in act.body.rows]
    return Rejection.MALFORMED if len(set(named)) < len(named) else _place_fault(act)


def _apply_policy(act: Act[FacilityPolicy], view: View) -> None:
    entry, name = act.entry, _name(act.member.place)
    held = POLICIES.get(view, name)
    if held is not None and (held.hlc, held.entry) > (entry.envelope.hlc, entry.id):
        return
    row = FacilityPolicyRow(hlc=entry.envelope.hlc, entry=entry.id, rows=act.body.rows)
    POLICIES.put(view, row, name)


KINDS: Final[tuple[Kind[Any], ...]] = (
    Kind(
        name="facility.key",
        body=FacilityKey,
        check=_check_key,
        apply=_apply_key,
        ordered=False,
        roles=CARERS,
        rules="Refused unless the author's credential names a place; it is that place's key.",
    ),
    Kind(
        name="facility.policy",
        body=FacilityPolicy,
        check=_check_policy,
        apply=_apply_policy,
        ordered=False,
        roles=CARERS,
        rules="Refused unless the author's credential names a place; each category stands once.",
    ),
)
