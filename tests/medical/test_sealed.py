"""Sealed bodies: what goes in comes out, and only there, and only so."""

from __future__ import annotations

import zlib
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pmed import limits
from p2pmed.errors import DecodeError, Denied, InvalidTransaction
from p2pmed.identity import sealing
from p2pmed.medical import sealed as module
from p2pmed.medical.keyring import Category, CategoryKey
from p2pmed.medical.sealed import (
    PARTS_MAX,
    Content,
    OpenedBody,
    Part,
    Place,
    Sealed,
    open_body,
    seal_body,
)
from p2pmed.wire import codec

KEY = CategoryKey(
    category=Category.GENERAL, epoch=0, key_id=b"name of the key!", key=bytes(range(32))
)
PLACE = Place(network=b"n" * 32, patient=b"p" * 16, author=b"a" * 32)


class Counting:
    """Entropy that never repeats and is the same every time."""

    def __init__(self) -> None:
        self._count = 0

    def token(self, size: int) -> bytes:
        self._count += 1
        return self._count.to_bytes(size, "big")


class Stuck:
    """A broken machine: the same bytes for ever."""

    def token(self, size: int) -> bytes:
        return bytes(size)


def _seal(resource: bytes, **other: Any) -> Sealed:
    given_ = {"kind": "Observation", "key": KEY, "place": PLACE, "entropy": Counting()}
    return seal_body(resource, **(given_ | other)).named()


def _open(sealed: Sealed, **other: Any) -> OpenedBody:
    return open_body(sealed, **({"key": KEY, "place": PLACE} | other))


@given(
    st.binary(max_size=4000),
    st.none() | st.integers(-(2**53), 2**53),
    st.sampled_from(["Observation", "p2pmed/bundle"]),
)
def test_round_trip_of_any_bytes(resource: bytes, occurred: int | None, kind: str) -> None:
    """Whatever bytes come in come out, with their type and time; FHIR or not."""
    opened = _open(_seal(resource, kind=kind, occurred_ms=occurred))
    assert (opened.resource, opened.type, opened.occurred_ms) == (resource, kind, occurred)


@settings(max_examples=10)
@given(st.integers(60_000, 400_000))
def test_long_bodies_are_cut_and_come_together(size: int) -> None:
    """A body over the limit travels in parts, each within it, and opens from them in order."""
    resource = b"".join(bytes([n % 251, n % 241]) for n in range(0, size, 2))
    noise = sealing.derive(b"", salt=b"", info=b"") * (size // 64)
    mixed = bytes(a ^ b for a, b in zip(resource, noise, strict=False))
    scrambled = sealing.seal(bytes(32), bytes(24), mixed, b"")  # does not deflate
    draft = seal_body(scrambled, kind="Media", key=KEY, place=PLACE, entropy=Counting())
    ids = [bytes([n]) * 32 for n in range(len(draft.parts))]
    sealed = draft.named(ids)
    assert all(len(part.data) <= limits.SEALED_PART_BYTES_MAX for part in draft.parts)
    assert _open(sealed, parts=draft.parts).resource == scrambled
    if draft.parts:
        assert not sealed.data
        for wrong in (draft.parts[:-1], draft.parts[::-1], (*draft.parts, draft.parts[-1]), ()):
            with pytest.raises(DecodeError):
                _open(sealed, parts=wrong)
        with pytest.raises(InvalidTransaction):
            draft.named(ids[:-1])


def test_altered_part_is_refused() -> None:
    """One bit in one part spoils the whole, however its transaction is signed."""
    resource = sealing.seal(bytes(32), bytes(24), bytes(200_000), b"")
    draft = seal_body(resource, kind="Media", key=KEY, place=PLACE, entropy=Counting())
    sealed = draft.named([bytes(32)] * len(draft.parts))
    for index, part in enumerate(draft.parts):
        altered = Part(
            index=index, total=part.total, data=part.data[:-1] + bytes([part.data[-1] ^ 1])
        )
        parts = [*draft.parts[:index], altered, *draft.parts[index + 1 :]]
        with pytest.raises(DecodeError):
            _open(sealed, parts=parts)


def test_each_altered_field_is_refused() -> None:
    """Suite, key name, place, commitment, ciphertext: not a bit can change."""
    sealed = _seal(b'{"resourceType":"Observation"}')
    for field in ("nonce", "commitment", "data"):
        original = getattr(sealed, field)
        for index in range(len(original)):
            altered = bytearray(original)
            altered[index] ^= 1
            changed = msgspec.structs.replace(sealed, **{field: bytes(altered)})
            with pytest.raises(DecodeError):
                _open(changed)
    with pytest.raises(Denied):
        _open(msgspec.structs.replace(sealed, key_id=bytes(16)))
    with pytest.raises(DecodeError, match="suite"):
        _open(msgspec.structs.replace(sealed, suite=2))


def test_unknown_suite_is_not_even_decoded() -> None:
    """A body of another suite is malformed to the ledger, so no old reader is talked down."""
    fields = codec.plain(_seal(b"x"))
    assert codec.convert(fields, Sealed)
    with pytest.raises(DecodeError):
        codec.convert([2, *fields[1:]], Sealed)


@pytest.mark.parametrize("field", ["network", "patient", "author"])
def test_moved_body_is_refused(field: str) -> None:
    """A body copied to another network, patient or author does not open there."""
    place = {name: getattr(PLACE, name) for name in ("network", "patient", "author")}
    place[field] = b"x" * len(place[field])
    with pytest.raises(DecodeError):
        _open(_seal(b"content"), place=Place(**place))


def test_another_key_of_the_same_name_is_refused() -> None:
    """A key's name is no key."""
    other = CategoryKey(category=KEY.category, epoch=KEY.epoch, key_id=KEY.key_id, key=bytes(32))
    with pytest.raises(DecodeError):
        _open(_seal(b"content"), key=other)


def test_repeated_entropy_does_not_repeat_a_keystream() -> None:
    """Even a machine whose dice are stuck seals two contents under two keys."""
    one = _seal(b"a" * 64, entropy=Stuck())
    two = _seal(b"b" * 64, entropy=Stuck())
    assert one.nonce == two.nonce
    difference = bytes(x ^ y for x, y in zip(one.data, two.data, strict=True))
    assert difference.count(0) < 16  # one keystream would leave the common head as zeros


def test_length_tells_little() -> None:
    """Records of one step's length look alike."""
    sizes = {len(_seal(sealing.derive(bytes(32), salt=b"", info=b"")[:n]).data) for n in range(60)}
    assert len(sizes) <= 2


def test_same_content_looks_different_each_time() -> None:
    """Salt, place and key differ, so equal diagnoses cannot be matched without a key."""
    entropy = Counting()
    one, two = (_seal(b"the same", entropy=entropy) for _ in range(2))
    for field in ("nonce", "commitment", "data"):
        assert getattr(one, field) != getattr(two, field)


def test_commitment_is_provable_with_the_salt_alone() -> None:
    """Who was shown content and salt can check it against the ledger, without any key."""
    sealed = _seal(b"content")
    opened = _open(sealed)
    assert module.commitment(opened.salt, opened.resource) == sealed.commitment


def _sealed_by_hand(content: bytes, committed: bytes) -> Sealed:
    """What a dishonest holder of the key could seal."""
    nonce = bytes(16)
    derived = sealing.derive(KEY.key, salt=nonce, info=b"p2pmed/1 record" + committed)
    associated = codec.cbor.encode(
        ["p2pmed/1", "record", 1, PLACE.network, PLACE.patient, PLACE.author, KEY.key_id, nonce]
    )
    data = sealing.seal(derived[:32], derived[32:56], sealing.pad(content, 64), associated)
    return Sealed(
        suite=1, key_id=KEY.key_id, nonce=nonce, commitment=committed, data=data, parts=()
    )


def _content(data: bytes, encoding: int) -> bytes:
    return codec.encode(
        Content(
            version=1, type="Media", encoding=encoding, salt=bytes(32), occurred=None, data=data
        )
    )


def test_false_commitment_is_refused() -> None:
    """A writer cannot commit to one content and seal another."""
    good = module.commitment(bytes(32), b"x")
    assert _open(_sealed_by_hand(_content(b"x", 0), good)).resource == b"x"
    with pytest.raises(DecodeError, match="commits"):
        _open(_sealed_by_hand(_content(b"y", 0), good))


def test_bomb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deflated content that inflates beyond the limit stops at the limit."""
    monkeypatch.setattr(module, "RECORD_BYTES_MAX", 10_000)
    bomb = zlib.compress(bytes(10_001))
    with pytest.raises(DecodeError, match="beyond"):
        _open(_sealed_by_hand(_content(bomb, 1), bytes(32)))


@pytest.mark.parametrize(
    "data",
    [b"", b"no stream", zlib.compress(b"cut short")[:-1], zlib.compress(b"and more") + b"x"],
)
def test_broken_stream_is_refused(data: bytes) -> None:
    """Deflated content is one whole stream and nothing behind it."""
    with pytest.raises(DecodeError):
        _open(_sealed_by_hand(_content(data, 1), bytes(32)))


@pytest.mark.parametrize(
    "content", [b"", b"\xa0", _content(b"x", 0) + b"\x00\x01", b"\x86" + _content(b"x", 0)[1:-1]]
)
def test_content_of_another_shape_is_refused(content: bytes) -> None:
    """What opens and is not a content of ours is refused like any foreign bytes."""
    with pytest.raises(DecodeError):
        _open(_sealed_by_hand(content, bytes(32)))


def test_too_long_a_resource_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is told to who writes, before anything is sealed."""
    monkeypatch.setattr(module, "RECORD_BYTES_MAX", 10)
    with pytest.raises(InvalidTransaction, match="11 bytes"):
        _seal(bytes(11))


def test_limits_fit_each_other() -> None:
    """The longest resource, padded, still fits the parts that one record can name."""
    longest = limits.RECORD_BYTES_MAX + 100
    padded = len(sealing.pad(bytes(longest), 64)) + sealing.TAG_BYTES
    assert -(-padded // limits.SEALED_PART_BYTES_MAX) <= PARTS_MAX
    fullest = msgspec.structs.replace(_seal(b"x"), data=b"", parts=(bytes(32),) * PARTS_MAX)
    assert len(codec.encode(fullest)) < limits.ENTRY_BYTES_MAX - 4_096


def test_both_inline_and_in_parts_is_refused() -> None:
    """A body has one spelling: inline, or in parts."""
    sealed = msgspec.structs.replace(_seal(b"x"), parts=(bytes(32),))
    assert not sealed.whole
    with pytest.raises(DecodeError):
        _open(sealed, parts=[Part(index=0, total=2, data=b"x")])
