"""Sealing and wrapping open for the one reader, in the one place, and for nobody else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmed.errors import DecodeError, Denied, InvalidTransaction
from p2pmed.identity import sealing

SECRET = bytes(range(32))
PUBLIC = sealing.box_public(SECRET)
CONTEXT = (b"network", b"patient", "TREAT")


def _wrap(plaintext: bytes = b"sixteen key bytes") -> bytes:
    return sealing.wrap(PUBLIC, plaintext, domain="keys", context=CONTEXT)


@given(st.binary(max_size=400))
def test_wrap_opens_for_its_reader(plaintext: bytes) -> None:
    """Whatever is wrapped to a key comes out with that key, 49 bytes longer on the way."""
    wrapped = _wrap(plaintext)
    assert len(wrapped) == len(plaintext) + sealing.WRAP_BYTES
    assert sealing.unwrap(SECRET, wrapped, domain="keys", context=CONTEXT) == plaintext


def test_another_reader_cannot_open() -> None:
    """A grant to one is nothing to another."""
    with pytest.raises(Denied):
        sealing.unwrap(bytes(31) + b"\x01", _wrap(), domain="keys", context=CONTEXT)


@pytest.mark.parametrize(
    ("domain", "context"),
    [
        ("other", CONTEXT),
        ("keys", (b"another", b"patient", "TREAT")),
        ("keys", (b"network", b"another", "TREAT")),
        ("keys", (b"network", b"patient", "HRESCH")),
        ("keys", (b"network", b"patient")),
        ("keys", (b"networkpatient", b"", "TREAT")),
    ],
)
def test_another_context_cannot_open(domain: str, context: tuple[bytes | str, ...]) -> None:
    """A wrap moved to another patient, network or purpose stays shut."""
    with pytest.raises(Denied):
        sealing.unwrap(SECRET, _wrap(), domain=domain, context=context)


def test_each_altered_byte_is_refused() -> None:
    """No bit of a wrap can be changed: suite, ephemeral key, ciphertext, tag."""
    wrapped = _wrap()
    for place in range(len(wrapped)):
        altered = bytearray(wrapped)
        altered[place] ^= 1
        with pytest.raises((Denied, DecodeError)):
            sealing.unwrap(SECRET, bytes(altered), domain="keys", context=CONTEXT)


@pytest.mark.parametrize("suite", [0, 2, 255])
def test_unknown_suite_is_refused(suite: int) -> None:
    """Nobody talks a reader into another suite: DES has no number here, nor has anything."""
    with pytest.raises(DecodeError, match="suite"):
        sealing.unwrap(SECRET, bytes([suite]) + _wrap()[1:], domain="keys", context=CONTEXT)
    with pytest.raises(DecodeError, match="suite"):
        sealing.check_suite(suite)


@pytest.mark.parametrize("size", [0, 1, sealing.WRAP_BYTES - 1])
def test_short_wrap_is_refused(size: int) -> None:
    """What cannot hold a key and a tag is not tried."""
    with pytest.raises(DecodeError):
        sealing.unwrap(SECRET, _wrap()[:size], domain="keys", context=CONTEXT)


@pytest.mark.parametrize("key", [bytes(32), bytes(31), b"\x01" + bytes(31)])
def test_unusable_recipient_is_refused(key: bytes) -> None:
    """A key of low order, or of another length, is the caller's mistake."""
    with pytest.raises(InvalidTransaction):
        sealing.wrap(key, b"x", domain="keys", context=CONTEXT)


def test_sealed_opens_with_one_exact_set() -> None:
    """Key, nonce, ciphertext and associated data: another of any, and it stays shut."""
    right = [bytes(32), bytes(24), b"", b"associated"]
    right[2] = sealing.seal(right[0], right[1], b"content", right[3])
    assert sealing.open_sealed(*right) == b"content"
    for place in range(4):
        for index in range(len(right[place])):
            wrong = list(right)
            flipped = bytearray(right[place])
            flipped[index] ^= 0x80
            wrong[place] = bytes(flipped)
            with pytest.raises(DecodeError):
                sealing.open_sealed(*wrong)
    with pytest.raises(DecodeError):
        sealing.open_sealed(right[0], right[1], b"", right[3])


def test_xchacha_published_vector() -> None:
    """draft-irtf-cfrg-xchacha-03, appendix A.3.1."""
    sealed = sealing.seal(
        bytes(range(0x80, 0xA0)),
        bytes(range(0x40, 0x58)),
        b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for"
        b" the future, sunscreen would be it.",
        bytes.fromhex("50515253c0c1c2c3c4c5c6c7"),
    )
    assert sealed.hex().startswith("bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c")
    assert sealed.hex().endswith("c0875924c1c7987947deafd8780acf49")


def test_hkdf_published_vector() -> None:
    """RFC 5869, appendix A.1: the first 42 bytes are those of the standard."""
    made = sealing.derive(b"\x0b" * 22, salt=bytes(range(13)), info=bytes(range(0xF0, 0xFA)))
    assert made[:42].hex() == (
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    )


@given(st.binary(max_size=5000), st.sampled_from([64, 256]))
def test_padding_comes_off_and_tells_little(plaintext: bytes, step: int) -> None:
    """Padding is reversible, costs an eighth or one step, and shows a length in steps only."""
    padded = sealing.pad(plaintext, step)
    assert sealing.unpad(padded) == plaintext
    assert len(padded) % step == 0
    assert len(padded) <= len(plaintext) + 1 + max(step, len(plaintext) // 8 + 1)


@pytest.mark.parametrize("padded", [b"", bytes(64), b"content", b"content\x00"])
def test_missing_padding_is_refused(padded: bytes) -> None:
    """Content without its end mark is not ours."""
    with pytest.raises(DecodeError):
        sealing.unpad(padded)


def test_key_names_are_hashes() -> None:
    """A reader is named by half of a hash of the public key, which hides nothing and is short."""
    assert len(sealing.box_id(PUBLIC)) == 16
    assert sealing.box_id(PUBLIC) != sealing.box_id(sealing.box_public(bytes(31) + b"\x02"))
