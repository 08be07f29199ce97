"""A staff member's file: opened by words and this device's pepper, and by nothing less."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from p2pmed.errors import ConfigError, Locked
from p2pmed.identity import sealing
from p2pmed.identity.staff import (
    make_staff,
    open_staff,
    read_staff,
    with_boxes,
    with_pin,
    with_words,
    without_pin,
)
from p2pmed.identity.stretching import CHEAP
from p2pmed.wire import codec

WORDS, PIN = "a row of six words", "4711"
DEVICE, PEPPER = b"d" * 32, b"p" * 32
BOXES = [b"b" * 32, b"o" * 32]


@pytest.fixture(scope="module")
def raw(entropy: Any) -> bytes:
    return make_staff(
        "Ma Aye",
        WORDS,
        boxes=BOXES,
        device=DEVICE,
        pepper=PEPPER,
        created_ms=7,
        entropy=entropy,
        cost=CHEAP,
    )


def opened(raw: bytes, words: str = WORDS, **other: Any) -> Any:
    return open_staff(raw, words, **{"device": DEVICE, "pepper": PEPPER, **other})


def test_the_words_give_the_keys_and_the_boxes(raw: bytes) -> None:
    """The passphrase opens the person's keys and the device's boxes; nothing is in clear."""
    held = opened(raw)
    file = read_staff(raw)
    assert held.boxes == tuple(BOXES)
    assert (file.person, file.box_key) == (held.keys.person, held.keys.box_public)
    for secret in (*BOXES, held.keys.signing_seed, held.keys.box_secret, held.pin_pepper):
        assert secret not in raw
        assert repr(secret) not in repr(held)


def test_a_copied_file_opens_nowhere_else(raw: bytes) -> None:
    """The right words with another device's pepper, or on another device, open nothing."""
    with pytest.raises(Locked):
        opened(raw, pepper=b"q" * 32)
    with pytest.raises(Locked):
        opened(raw, "a row of six word")
    with pytest.raises(ConfigError, match="another device"):
        opened(raw, device=b"e" * 32)


def test_a_pin_needs_the_pepper_that_is_under_the_passphrase(raw: bytes, entropy: Any) -> None:
    """All files of the device, its pepper among them, do not let anybody try a PIN."""
    held = opened(raw)
    both = with_pin(raw, PIN, held, entropy=entropy, cost=CHEAP)
    with pytest.raises(Locked):
        opened(both, PIN, by_pin=True)
    assert opened(both, PIN, by_pin=True, pepper=held.pin_pepper).boxes == tuple(BOXES)
    assert opened(both).keys.person == held.keys.person
    with pytest.raises(ConfigError, match="no PIN"):
        opened(without_pin(both), PIN, by_pin=True, pepper=held.pin_pepper)
    with pytest.raises(ConfigError, match="PIN of fewer"):
        with_pin(raw, "123", held, entropy=entropy, cost=CHEAP)


def test_new_words_end_the_old_ones(raw: bytes, entropy: Any) -> None:
    """After a change the old passphrase opens nothing, and the keys are the same."""
    held = opened(raw)
    new = with_words(raw, "eight other words", held, pepper=PEPPER, entropy=entropy, cost=CHEAP)
    assert opened(new, "eight other words").keys.person == held.keys.person
    with pytest.raises(Locked):
        opened(new)
    with pytest.raises(ConfigError, match="passphrase of fewer"):
        with_words(raw, "short", held, pepper=PEPPER, entropy=entropy, cost=CHEAP)


def test_boxes_are_wrapped_anew_without_the_person(raw: bytes) -> None:
    """Who holds the device's secret wraps it to a colleague who is away."""
    again = with_boxes(raw, [b"n" * 32, *BOXES], DEVICE)
    assert opened(again).boxes == (b"n" * 32, *BOXES)
    with pytest.raises(ConfigError):
        with_boxes(raw, [], DEVICE)


def test_an_altered_file_opens_nothing(raw: bytes) -> None:
    """Another name is for people only; another key or seal is found out."""
    file = read_staff(raw)
    other = codec.encode(msgspec.structs.replace(file, box_key=sealing.box_public(b"x" * 32)))
    with pytest.raises(ConfigError, match="not those it names"):
        opened(other)
    for cut in (b"", raw[:-1], raw + b"\x00"):
        with pytest.raises(ConfigError):
            read_staff(cut)
    with pytest.raises(ConfigError, match="one line"):
        read_staff(codec.encode(msgspec.structs.replace(file, name="a\nb")))
