"""Base45 as RFC 9285 spells it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmed.errors import DecodeError
from p2pmed.wire import base45


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"AB", "BB8"),
        (b"Hello!!", "%69 VD92EX0"),
        (b"base-45", "UJCLQE7W581"),
        (b"ietf!", "QED8WEX0"),
    ],
)
def test_the_examples_of_the_rfc(raw, text):
    """RFC 9285, sections 4.3 and 4.4, in both directions."""
    assert base45.encode(raw) == text
    assert base45.decode(text) == raw


@given(st.binary(max_size=64))
def test_what_is_written_is_read(raw):
    """Any bytes come back, in at most three characters for two bytes."""
    text = base45.encode(raw)
    assert base45.decode(text) == raw
    assert len(text) <= (len(raw) * 3 + 1) // 2


@given(st.text(alphabet=base45.ALPHABET, max_size=24))
def test_one_spelling_per_value(text):
    """Text that decodes at all is what the encoder would write."""
    try:
        raw = base45.decode(text)
    except DecodeError:
        return
    assert base45.encode(raw) == text


@pytest.mark.parametrize("text", ["a", "AA", ":::", "A", "GGW", "zzz", "é00"])
def test_what_is_not_base45_is_refused(text):
    """Foreign characters, cut groups and values beyond two bytes raise ``DecodeError``."""
    with pytest.raises(DecodeError):
        base45.decode(text)
