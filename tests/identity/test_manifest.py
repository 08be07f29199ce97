"""A network is what its signed manifest hashes to."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pmed.errors import CredentialError, DecodeError, LocalProtocolError
from p2pmed.identity.keys import public_key
from p2pmed.identity.manifest import make_manifest, open_manifest
from p2pmed.wire.hashing import hash_bytes


class Fixed:
    """Entropy of one byte."""

    def token(self, size: int) -> bytes:
        return b"\x07" * size


RAW = make_manifest("Lin", [b"\x01" * 32, b"\x02" * 32], created_ms=5, entropy=Fixed())


def test_a_manifest_opens_to_what_was_said() -> None:
    """Name, roots, time and id come back; the id is the hash of all bytes."""
    manifest, network_id = open_manifest(RAW)
    assert manifest.name == "Lin"
    assert manifest.root_keys == (public_key(b"\x01" * 32), public_key(b"\x02" * 32))
    assert (manifest.created_ms, manifest.nonce) == (5, b"\x07" * 16)
    assert network_id == hash_bytes(RAW)


def test_the_same_words_twice_make_two_networks(entropy: Any) -> None:
    """The nonce keeps two networks of one name and one authority apart."""
    ids = {
        open_manifest(make_manifest("Lin", [bytes(32)], created_ms=0, entropy=entropy))[1]
        for _ in range(3)
    }
    assert len(ids) == 3


@given(st.integers(0, len(RAW) - 1), st.integers(1, 255))
@settings(max_examples=200)
def test_no_byte_of_a_manifest_can_change(at: int, flip: int) -> None:
    """One byte changed, or the rest cut off: refused."""
    for changed in (RAW[:at] + bytes([RAW[at] ^ flip]) + RAW[at + 1 :], RAW[:at]):
        with pytest.raises((DecodeError, CredentialError)):
            open_manifest(changed)


@pytest.mark.parametrize(
    ("name", "seeds", "created_ms"),
    [
        ("", [bytes(32)], 0),
        ("x" * 129, [bytes(32)], 0),
        ("two\nlines", [bytes(32)], 0),
        ("Lin", [], 0),
        ("Lin", [bytes([n]) * 32 for n in range(4)], 0),
        ("Lin", [bytes(32), bytes(32)], 0),
        ("Lin", [bytes(32)], 2**60),
    ],
)
def test_what_no_manifest_can_say_is_refused_before_signing(
    name: str, seeds: list[bytes], created_ms: int
) -> None:
    """An impossible name, number of roots or time is the caller's fault."""
    with pytest.raises(LocalProtocolError):
        make_manifest(name, seeds, created_ms=created_ms, entropy=Fixed())
