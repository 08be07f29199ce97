"""Key rings: what is handed to whom, and what stays shut."""

from __future__ import annotations

from typing import Any

import pytest

from p2pmed.errors import DecodeError, Denied, InvalidTransaction
from p2pmed.identity import sealing
from p2pmed.medical.keyring import (
    EVERY_CATEGORY,
    KEYS_MAX,
    WRAPPED_BYTES_MAX,
    Category,
    CategoryKey,
    KeyCache,
    KeyRing,
)
from p2pmed.wire import cbor

PATIENT, OTHER = bytes(16), b"\x01" * 16
SECRET = bytes(range(32))
PUBLIC = sealing.box_public(SECRET)
WHERE: dict[str, Any] = {"network": b"n" * 32, "purpose": "TREAT"}


def test_categories_are_those_of_the_protocol() -> None:
    """The twelve names are bytes that last: none may change."""
    assert [category.value for category in EVERY_CATEGORY] == [
        "demographics",
        "general",
        "medication",
        "laboratory",
        "imaging",
        "surgery",
        "immunization",
        "reproductive",
        "mental_health",
        "hiv_sti",
        "substance_use",
        "insurance",
    ]


def test_wrap_and_open(entropy: Any) -> None:
    """A grantee gets exactly the keys that were wrapped."""
    ring = KeyRing.generate(PATIENT, entropy)
    handed = ring.only([Category.GENERAL, Category.MEDICATION])
    wrapped = handed.wrap(PUBLIC, **WHERE)
    assert wrapped.grantee == sealing.box_id(PUBLIC)
    opened = KeyRing.open(wrapped.wrapped, SECRET, patient=PATIENT, **WHERE)
    assert {key.key_id: key.key for key in opened} == {key.key_id: key.key for key in handed}
    assert opened.current(Category.GENERAL).key == ring.current(Category.GENERAL).key
    with pytest.raises(Denied):
        opened.current(Category.HIV_STI)


def test_wrap_of_another_patient_stays_shut(entropy: Any) -> None:
    """Keys wrapped for one patient cannot be passed off as another's."""
    wrapped = KeyRing.generate(PATIENT, entropy).wrap(PUBLIC, **WHERE)
    with pytest.raises(Denied):
        KeyRing.open(wrapped.wrapped, SECRET, patient=OTHER, **WHERE)
    with pytest.raises(Denied):
        KeyRing.open(wrapped.wrapped, SECRET, patient=PATIENT, network=b"n" * 32, purpose="HRESCH")


def test_wrap_does_not_tell_the_category(entropy: Any) -> None:
    """Any single key makes a wrap of one length, whatever the category's name."""
    ring = KeyRing.generate(PATIENT, entropy)
    sizes = {len(ring.only([category]).wrap(PUBLIC, **WHERE).wrapped) for category in Category}
    assert len(sizes) == 1


def test_names_and_keys_are_all_different(entropy: Any) -> None:
    """No two keys share a name or a value, over epochs too."""
    ring = KeyRing.generate(PATIENT, entropy).rotated(entropy, epoch=1)
    assert len({key.key_id for key in ring}) == len({key.key for key in ring}) == 26


def test_new_epoch_is_what_new_records_use(entropy: Any) -> None:
    """After a rotation the new key is current, and the old one still opens old records."""
    ring = KeyRing.generate(PATIENT, entropy)
    old = ring.current(Category.GENERAL)
    rotated = ring.rotated(entropy, epoch=1)
    assert rotated.current(Category.GENERAL).epoch == rotated.epoch == 1
    assert rotated.find(old.key_id).key == old.key
    with pytest.raises(InvalidTransaction):
        rotated.rotated(entropy, epoch=1)


def test_two_keys_of_one_epoch_both_stay(entropy: Any) -> None:
    """Rotations on both sides of a cut: either order of joining gives the same current key."""
    ring = KeyRing.generate(PATIENT, entropy)
    left, right = ring.rotated(entropy, epoch=1), ring.rotated(entropy, epoch=1)
    one, two = left.joined(right), right.joined(left)
    assert len(one) == len(two) == 39
    for category in Category:
        assert one.current(category).key_id == two.current(category).key_id


def test_full_ring_fits_its_limit(entropy: Any) -> None:
    """The largest ring that is allowed makes a wrap that is allowed; one more key is refused."""
    keys = [
        CategoryKey(
            category=Category.SUBSTANCE_USE,
            epoch=2**31,
            key_id=entropy.token(16),
            key=entropy.token(32),
        )
        for _ in range(KEYS_MAX)
    ]
    wrapped = KeyRing(PATIENT, keys).wrap(PUBLIC, **WHERE)
    assert len(wrapped.wrapped) <= WRAPPED_BYTES_MAX
    assert len(KeyRing.open(wrapped.wrapped, SECRET, patient=PATIENT, **WHERE)) == KEYS_MAX
    more = KeyRing.generate(PATIENT, entropy, categories=[Category.GENERAL])
    with pytest.raises(InvalidTransaction):
        KeyRing(PATIENT, [*keys, *more])


@pytest.mark.parametrize(
    "rows",
    [
        [["general", 0, bytes(16)]],
        [["unheard-of", 0, bytes(16), bytes(32)]],
        [["general", 0, bytes(16), bytes(31)]],
        [["general", 0, bytes(16), bytes(32)], ["imaging", 0, bytes(16), bytes(32)]],
        {"general": 0},
    ],
)
def test_wrapped_nonsense_is_refused(rows: Any) -> None:
    """A grantor who wraps something else than keys is refused, not believed."""
    wrapped = sealing.wrap(
        PUBLIC,
        sealing.pad(cbor.encode(rows), 256),
        domain="keys",
        context=(b"n" * 32, PATIENT, "TREAT"),
    )
    with pytest.raises(DecodeError):
        KeyRing.open(wrapped, SECRET, patient=PATIENT, **WHERE)


def test_empty_ring_is_not_wrapped() -> None:
    """A grant of nothing is a mistake."""
    with pytest.raises(InvalidTransaction):
        KeyRing(PATIENT).wrap(PUBLIC, **WHERE)


def test_rings_of_two_patients_do_not_join(entropy: Any) -> None:
    """Keys never move from one patient to another."""
    with pytest.raises(InvalidTransaction):
        KeyRing.generate(PATIENT, entropy).joined(KeyRing(OTHER))


def test_cache_is_bounded_and_locks(entropy: Any) -> None:
    """A session keeps the patients used last, and none once it is locked."""
    cache = KeyCache(patients_max=2)
    rings = [KeyRing.generate(bytes([n]) * 16, entropy, epoch=0) for n in range(3)]
    cache.add(rings[0])
    cache.add(rings[1])
    assert cache.get(rings[0].patient) is not None
    cache.add(rings[2])
    assert cache.get(rings[1].patient) is None
    assert len(cache) == 2
    assert len(cache.add(KeyRing.generate(rings[0].patient, entropy, epoch=1))) == 26
    cache.drop(rings[0].patient)
    assert cache.get(rings[0].patient) is None
    cache.lock()
    assert len(cache) == 0
    assert cache.get(rings[2].patient) is None


def test_no_repr_shows_a_key(entropy: Any) -> None:
    """Printing a ring, a key, a wrap or a cache tells nothing."""
    ring = KeyRing.generate(PATIENT, entropy)
    cache = KeyCache()
    cache.add(ring)
    shown = repr([ring, list(ring), ring.wrap(PUBLIC, **WHERE), cache])
    for key in ring:
        for secret in (key.key, key.key_id):
            assert repr(secret)[2:-1] not in shown
            assert secret.hex() not in shown
