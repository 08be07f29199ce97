"""Pseudonyms by purpose: stable for who holds the key, unrelated for who does not."""

from __future__ import annotations

import pytest

from p2pmed.errors import Denied
from p2pmed.medical.consent import Purpose
from p2pmed.medical.keyring import Category, KeyRing
from p2pmed.medical.privacy.pseudonyms import PURPOSES, mixed, purpose_pseudonym
from p2pmed.testing.clock import SimEntropy

PATIENT = b"p" * 16


def ring(seed: bytes = b"ring") -> KeyRing:
    return KeyRing.generate(PATIENT, SimEntropy(seed))


def test_every_purpose_and_audience_has_its_own() -> None:
    """No two of insurer, other insurer, study and statistic know one pseudonym."""
    found = [
        purpose_pseudonym(ring(), purpose, audience)
        for purpose in PURPOSES
        for audience in ("one", "other")
    ]
    assert len({*found, PATIENT}) == len(found) + 1
    assert all(len(pseudonym) == 16 for pseudonym in found)


def test_care_uses_the_patient_s_own() -> None:
    """Treatment and emergency find the record under the pseudonym that it has."""
    for purpose in (Purpose.TREATMENT, Purpose.EMERGENCY):
        assert purpose_pseudonym(ring(), purpose, "clinic") == PATIENT


def test_it_stays_when_keys_are_rotated() -> None:
    """A revocation gives new keys and no new insured person."""
    before = purpose_pseudonym(ring(), Purpose.PAYMENT, "insurer")
    later = ring().rotated(SimEntropy(b"new"), epoch=1)
    assert purpose_pseudonym(later, Purpose.PAYMENT, "insurer") == before


def test_one_category_s_keys_are_enough_and_no_other_s() -> None:
    """An insurer's grant makes the insurer's pseudonym, and not a study's."""
    insurer = ring().only([Category.INSURANCE])
    whole = purpose_pseudonym(ring(), Purpose.PAYMENT, "insurer")
    assert purpose_pseudonym(insurer, Purpose.PAYMENT, "insurer") == whole
    with pytest.raises(Denied):
        purpose_pseudonym(insurer, Purpose.RESEARCH, "study")


def test_another_patient_s_keys_make_another() -> None:
    """Even under one pseudonym of care: it is the key that decides."""
    one = purpose_pseudonym(ring(b"one"), Purpose.RESEARCH, "study")
    assert one != purpose_pseudonym(ring(b"two"), Purpose.RESEARCH, "study")


def test_mixed_things_are_in_the_order_of_their_pseudonyms() -> None:
    """So that the order of what is sent together says nothing of when it was made."""
    things = [b"c", b"a", b"b"]
    assert mixed(things, lambda thing: thing) == [b"a", b"b", b"c"]
