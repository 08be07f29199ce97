"""Another pseudonym for every purpose: an insurer's, a study's, and the record's do not meet.

Rule of this file: a pseudonym for a purpose and an audience is derived from the patient's own
keys; without the key of that category nobody can tell that two pseudonyms are of one person.
It stays the same when keys are rotated: it comes from the oldest key of its category.
Implements medical notes, section 1 row 30, and ``docs/protocols/search.md``, clauses 35 to 39.

What it does not hide: that one device wrote two transactions within a minute of one another.
``mixed`` takes the order away from what is sent together; how much time still tells is
measured in ``tests/medical/privacy/test_leakage.py`` and told in the documentation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, TypeVar

from p2pmed.errors import Denied
from p2pmed.medical.consent import Purpose
from p2pmed.medical.keyring import Category, KeyRing
from p2pmed.wire import cbor

__all__ = ["PURPOSES", "mixed", "purpose_pseudonym"]

PURPOSES: Final = {
    Purpose.PAYMENT: Category.INSURANCE,
    Purpose.RESEARCH: Category.GENERAL,
    Purpose.PUBLIC_HEALTH: Category.DEMOGRAPHICS,
}
"""Whose key makes the pseudonym; care itself uses the one of the registration."""
PSEUDONYM_BYTES: Final = 16

T = TypeVar("T")


def purpose_pseudonym(ring: KeyRing, purpose: Purpose, audience: str) -> bytes:
    """The pseudonym (16 bytes) under which ``audience`` knows the patient of ``ring``.

    ``audience`` names an insurer, a study, a statistic; another one, another pseudonym. For
    care it is the patient's own. Raises ``Denied`` if the ring has no key of the category.
    """
    category = PURPOSES.get(purpose)
    if category is None:
        return ring.patient
    held = [key for key in ring if key.category is category]
    if not held:
        raise Denied(
            "no key of this patient makes that pseudonym",
            hint=f"ask the patient for a grant of {category.value}",
        )
    oldest = min(held, key=lambda key: (key.epoch, key.key_id))
    info = cbor.encode(["p2pmed/1 pseudonym", purpose.value, audience])
    return oldest.derive(salt=ring.patient, info=info)[:PSEUDONYM_BYTES]


def mixed(things: Iterable[T], pseudonym: Callable[[T], bytes]) -> list[T]:
    """``things`` in the order of their pseudonyms, so that their order tells nothing else."""
    return sorted(things, key=pseudonym)
