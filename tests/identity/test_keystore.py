"""Secrets at rest: opened by the passphrase, by nothing else, at a bounded cost."""

from __future__ import annotations

import traceback
import tracemalloc
import unicodedata
from typing import Any

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pmed.errors import ConfigError, Locked
from p2pmed.identity import keystore
from p2pmed.identity.keystore import (
    FAST_MEMLIMIT_BYTES,
    FAST_OPSLIMIT,
    KEYSTORE_BYTES_MAX,
    open_keystore,
    seal_keystore,
)
from p2pmed.wire.hashing import digest

SECRET = b"the device's secret keys"
PASSPHRASE = "correct horse"


class Fixed:
    """Entropy of one byte."""

    def token(self, size: int) -> bytes:
        return b"\x05" * size


def seal(secret: bytes = SECRET, passphrase: str = PASSPHRASE, **cost: Any) -> bytes:
    cheap = {"opslimit": FAST_OPSLIMIT, "memlimit_bytes": FAST_MEMLIMIT_BYTES}
    return seal_keystore(secret, passphrase, entropy=Fixed(), **{**cheap, **cost})


RAW = seal()


def forged(at: int, value: object) -> bytes:
    """The keystore with another header field and a checksum made to fit."""
    header, sealed, _ = cbor2.loads(RAW)
    header[at] = value
    associated = cbor2.dumps(header, canonical=True)
    return cbor2.dumps([header, sealed, digest("keystore", associated + sealed)], canonical=True)


def test_the_passphrase_opens_it() -> None:
    """What was sealed comes back; the file holds it nowhere in the clear."""
    assert open_keystore(RAW, PASSPHRASE) == SECRET
    assert SECRET not in RAW
    assert PASSPHRASE.encode() not in RAW


def test_another_passphrase_is_one_sentence() -> None:
    """A wrong passphrase is ``Locked``, with neither passphrase nor secret in the traceback."""
    with pytest.raises(Locked, match="the passphrase does not open this keystore") as caught:
        open_keystore(RAW, "wrong horse")
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    text = "".join(traceback.format_exception(caught.value))
    assert SECRET.decode() not in text
    assert "correct horse" not in text.replace('PASSPHRASE = "correct horse"', "")


@given(st.integers(0, len(RAW) - 1), st.integers(1, 255))
@settings(max_examples=300)
def test_no_byte_of_the_file_can_change(at: int, flip: int) -> None:
    """One byte changed, or the rest cut off, is damage: told before any cost is paid."""
    for changed in (RAW[:at] + bytes([RAW[at] ^ flip]) + RAW[at + 1 :], RAW[:at], RAW + b"\x00"):
        with pytest.raises(ConfigError):
            open_keystore(changed, PASSPHRASE)


def test_every_header_field_is_bound_to_the_secret() -> None:
    """Whoever changes the header and makes the checksum fit still meets the seal."""
    for at, value in ((3, FAST_OPSLIMIT + 1), (4, FAST_MEMLIMIT_BYTES + 1024), (5, bytes(16))):
        with pytest.raises(Locked):
            open_keystore(forged(at, value), PASSPHRASE)
    with pytest.raises(Locked):
        open_keystore(forged(7, bytes(24)), PASSPHRASE)


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (0, "age-encryption.org"),
        (1, 0),
        (1, 2),
        (2, "scrypt"),
        (3, 0),
        (3, 1),
        (3, 11),
        (3, 2**40),
        (4, 1024),
        (4, FAST_MEMLIMIT_BYTES - 1),
        (4, 1024**3 + 1),
        (4, 2**60),
        (5, bytes(15)),
        (6, "des"),
        (6, "aes256gcm"),
        (7, bytes(12)),
    ],
)
def test_a_hostile_header_is_refused_before_any_cost(at: int, value: object) -> None:
    """Another version, algorithm, or a cost outside the caps: refused without paying it."""
    tracemalloc.start()
    with pytest.raises(ConfigError):
        open_keystore(forged(at, value), PASSPHRASE)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1024 * 1024


def test_the_cost_is_not_paid_for_what_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Argon2 is reached by a sound file only."""
    reached = []
    monkeypatch.setattr(
        keystore.bindings, "crypto_pwhash_alg", lambda *_: reached.append(1) or bytes(32)
    )
    for hostile in (forged(4, 2**30 + 1), forged(3, 11), RAW[:-1], RAW[:-1] + b"\x00", b""):
        with pytest.raises(ConfigError):
            open_keystore(hostile, PASSPHRASE)
    assert reached == []
    with pytest.raises(Locked):
        open_keystore(RAW, PASSPHRASE)
    assert reached == [1]


def test_a_file_over_the_bound_is_refused() -> None:
    """More than 64 KiB is no keystore, and more than 32 KiB of secrets is not sealed."""
    with pytest.raises(ConfigError):
        open_keystore(RAW + bytes(KEYSTORE_BYTES_MAX), PASSPHRASE)
    largest = seal(bytes(32 * 1024))
    assert len(largest) < KEYSTORE_BYTES_MAX
    assert open_keystore(largest, PASSPHRASE) == bytes(32 * 1024)
    with pytest.raises(ConfigError, match="32769 bytes where 32768"):
        seal(bytes(32 * 1024 + 1))


@pytest.mark.parametrize(
    "cost",
    [
        {"opslimit": 1},
        {"opslimit": 11},
        {"memlimit_bytes": FAST_MEMLIMIT_BYTES - 1},
        {"memlimit_bytes": 2 * 1024**3},
    ],
)
def test_a_cost_outside_the_bounds_is_not_sealed(cost: dict[str, int]) -> None:
    """Neither weaker than the floor nor dearer than a reader would accept."""
    with pytest.raises(ConfigError, match="cost outside the bounds"):
        seal(**cost)


def test_the_same_word_typed_on_another_keyboard_opens_it() -> None:
    """A passphrase counts as its characters, composed or not."""
    raw = seal(passphrase=unicodedata.normalize("NFC", "clé"))
    assert open_keystore(raw, unicodedata.normalize("NFD", "clé")) == SECRET


@pytest.mark.parametrize("passphrase", ["", "x" * 1025, "\ud800"])
def test_an_unusable_passphrase_is_refused(passphrase: str) -> None:
    """None, endless, or not text: refused in words, on both sides."""
    with pytest.raises(ConfigError) as caught:
        seal(passphrase=passphrase)
    assert caught.value.__cause__ is None
    with pytest.raises(ConfigError):
        open_keystore(RAW, passphrase)


def test_two_keystores_of_one_secret_differ(entropy: Any) -> None:
    """Salt and nonce are fresh each time."""
    cost = {"opslimit": FAST_OPSLIMIT, "memlimit_bytes": FAST_MEMLIMIT_BYTES}
    first, second = (
        cbor2.loads(seal_keystore(SECRET, PASSPHRASE, entropy=entropy, **cost)) for _ in range(2)
    )
    assert first[0][5] != second[0][5]
    assert first[0][7] != second[0][7]
    assert first[1] != second[1]


def test_the_default_cost_is_three_passes_over_64_mib() -> None:
    """What is not asked for is the strong profile."""
    raw = seal_keystore(SECRET, PASSPHRASE, entropy=Fixed())
    assert cbor2.loads(raw)[0][3:5] == [3, 64 * 1024 * 1024]
    assert open_keystore(raw, PASSPHRASE) == SECRET
