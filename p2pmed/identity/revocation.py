"""Revoking a credential: what is said, and who may say it.

The body of the ordered transaction ``credential.revoke``; its kind is registered by
``medical``. It names a key and one serial number, so that a renewed credential survives the
revocation of the one before, unless the serial is all zeros: then the key itself is finished.

Rule: what the key signed is judged by its position in the order, not by anybody's clock
(design, section 6). ``may_revoke`` looks at standing only, a pure function of what a ledger
remembers of two members.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Final

import msgspec

from p2pmed.identity.credentials import Role, covers
from p2pmed.wire.codec import Bytes16, Bytes32, Wire

__all__ = ["EVERY_SERIAL", "Revocation", "RevocationReason", "Standing", "may_revoke"]

EVERY_SERIAL: Final = bytes(16)
"""In place of a serial number: every credential of the key, past and to come."""


class RevocationReason(StrEnum):
    """Why; the values are part of the protocol."""

    KEY_COMPROMISED = "key_compromised"
    """The device was stolen, copied or broken into."""
    LOG_FORKED = "log_forked"
    """The key signed two entries at one place of its log."""
    SUPERSEDED = "superseded"
    """A new device or credential took its place."""
    AFFILIATION_ENDED = "affiliation_ended"
    """The holder left, or the facility closed."""
    ISSUED_IN_ERROR = "issued_in_error"


class Revocation(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Body of ``credential.revoke``."""

    subject: Bytes32
    """The key whose credential ends."""
    serial: Bytes16
    """Of that credential, or ``EVERY_SERIAL``."""
    reason: RevocationReason
    text: Annotated[str, msgspec.Meta(max_length=256)]
    """For people; it stands in the ledger in the clear, so it names no patient."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What a ledger remembers of a member that bears on revoking."""

    key: bytes
    roles: tuple[str, ...]
    place: str
    issuer: bytes
    """The key that issued the member's credential."""


_SUPERVISES: Final[Mapping[str, frozenset[str]]] = {
    Role.AUTHORITY: frozenset(Role) - {Role.AUTHORITY},
    Role.COUNTY: frozenset(
        {Role.CLINIC, Role.HOSPITAL, Role.PHARMACY, Role.PRACTITIONER, Role.DEVICE}
    ),
    Role.CLINIC: frozenset({Role.PRACTITIONER, Role.DEVICE}),
    Role.HOSPITAL: frozenset({Role.PRACTITIONER, Role.DEVICE}),
}
"""Whose credentials a role may revoke within its own place, besides those it issued."""


def may_revoke(author: Standing, target: Standing) -> bool:
    """Whether ``author`` may revoke ``target``'s credential.

    A key may always give itself up; an issuer may take back what it issued; and a role that
    supervises all of the target's roles may revoke in its own place.
    """
    if author.key in (target.key, target.issuer):
        return True
    if not covers(author.place, target.place):
        return False
    return any(set(target.roles) <= _SUPERVISES.get(role, frozenset()) for role in author.roles)
