"""What a registration hands out without being asked: a table by category.

Rule of this file: least surprise. Whoever registers must be able to write every category; the
rest of the facility and the readers named at the desk get what any nurse needs, and nothing of
the four categories that people hide from their neighbours, unless the patient says so
(``access.grant``). A facility may publish another table (``facility.policy``); a category that
it does not name keeps the default. Implements medical notes, section 3.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Final

from p2pmed.medical.keyring import Category

__all__ = ["DEFAULT_POLICY", "SENSITIVE", "Audience", "Policy", "read_policy"]


class Audience(StrEnum):
    """To whom a registration may wrap a category, beside the patient."""

    DEVICE = "device"
    """The device that registers."""
    FACILITY = "facility"
    """Everybody who holds the facility's key."""
    READERS = "readers"
    """Who is named at the desk."""
    EMERGENCY = "emergency"
    """Two of the qualified staff together, in an emergency."""


SENSITIVE: Final = frozenset(
    {
        Category.REPRODUCTIVE,
        Category.MENTAL_HEALTH,
        Category.HIV_STI,
        Category.SUBSTANCE_USE,
    }
)
"""HL7's labels of what is hidden most: never handed out unasked but to who writes it."""

_OPEN: Final = (Audience.DEVICE, Audience.FACILITY, Audience.READERS, Audience.EMERGENCY)
_CLOSED: Final = (Audience.DEVICE, Audience.EMERGENCY)

DEFAULT_POLICY: Final[Mapping[Category, tuple[Audience, ...]]] = {
    category: (
        _CLOSED
        if category in SENSITIVE
        else (Audience.DEVICE, Audience.FACILITY)
        if category is Category.CONSENT
        else _OPEN
    )
    for category in Category
}
Policy = Mapping[Category, tuple[Audience, ...]]


def read_policy(rows: Iterable[tuple[Category, Sequence[Audience]]]) -> Policy:
    """The default with ``rows`` in the place of those that they name.

    The registering device keeps every category: it could not write its notes otherwise.
    """
    changed = {
        category: tuple(dict.fromkeys((Audience.DEVICE, *audiences)))
        for category, audiences in rows
    }
    return {**DEFAULT_POLICY, **changed}
