"""Sets of roles that several families ask for; the roles themselves are ``identity``'s."""

from __future__ import annotations

from typing import Final

from p2pmed.identity.credentials import Role

__all__ = ["CARERS", "OVERSEERS", "SUPERVISORS", "Role", "roles"]


def roles(*named: Role) -> frozenset[str]:
    """Roles as the plain text that a ``Kind`` and a ``Member`` hold."""
    return frozenset(role.value for role in named)


SUPERVISORS: Final = roles(Role.AUTHORITY, Role.COUNTY)
"""Who may withdraw power within their place."""
OVERSEERS: Final = roles(Role.AUTHORITY, Role.COUNTY, Role.REGULATOR)
"""Who may speak about other people's goods and quarrels."""
CARERS: Final = roles(Role.CLINIC, Role.HOSPITAL, Role.PHARMACY)
"""Who treats, hands out drugs and claims."""
