"""A request goes out as text, an answer comes back, and nothing in between can touch them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pmed.errors import ConfigError, CredentialError, DecodeError
from p2pmed.identity.credentials import Role
from p2pmed.identity.enrolment import (
    Answer,
    answer_from_text,
    answer_to_text,
    check_answer,
    make_request,
    open_answer,
    open_request,
    request_from_text,
    request_to_text,
)
from p2pmed.identity.keys import DeviceKeys
from p2pmed.wire import codec

KEYS = DeviceKeys(
    signing_seed=b"s" * 32, box_secret=b"b" * 32, vote_seeds={0: b"0" * 32, 1: b"1" * 32}
)
RAW = make_request(KEYS, name="伍村 clinic", roles=["pharmacy", "clinic"], place="lin/wu")
TEXT = request_to_text(RAW)

QR_ALPHANUMERIC = set("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ $%*+-./:")
QR_ALPHANUMERIC_MAX = 4_296
"""Characters in the largest QR code at the lowest level of correction."""


def test_a_request_says_what_the_device_wishes_and_holds() -> None:
    """Name, roles in their one order, place and public keys; no secret."""
    request = open_request(RAW)
    assert (request.name, request.place) == ("伍村 clinic", "lin/wu")
    assert request.roles == (Role.CLINIC, Role.PHARMACY)
    assert (request.device_key, request.box_key) == (KEYS.node_id, KEYS.box_public)
    assert [(vote.epoch, vote.key) for vote in request.vote_keys] == [
        (epoch, KEYS.vote_public(epoch)) for epoch in (0, 1)
    ]
    for secret in (KEYS.signing_seed, KEYS.box_secret, *KEYS.vote_seeds.values()):
        assert secret not in RAW


@given(st.integers(0, len(RAW) - 1), st.integers(1, 255))
@settings(max_examples=200)
def test_no_byte_of_a_request_can_change(at: int, flip: int) -> None:
    """One byte changed, or the rest cut off: refused."""
    for changed in (RAW[:at] + bytes([RAW[at] ^ flip]) + RAW[at + 1 :], RAW[:at]):
        with pytest.raises((DecodeError, CredentialError)):
            open_request(changed)


@given(st.integers(0, len(TEXT) - 1), st.characters(codec="ascii"))
@settings(max_examples=300)
def test_no_character_of_the_text_can_change(at: int, other: str) -> None:
    """One character replaced by another is refused with words, and by nothing else."""
    changed = TEXT[:at] + other + TEXT[at + 1 :]
    if changed == TEXT:
        return
    with pytest.raises(ConfigError) as caught:
        request_from_text(changed)
    assert caught.value.hint


def test_spare_bits_of_the_last_character_are_zero() -> None:
    """Base32 leaves bits over; a text that sets them is a second spelling, and refused."""
    seen = 0
    for length in range(1, 6):
        text = request_to_text(make_request(KEYS, name="x" * length, roles=["device"], place=""))
        last = text[-2]
        for other in "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567":
            if other != last:
                with pytest.raises(ConfigError):
                    request_from_text(f"{text[:-2]}{other}.")
                seen += 1
    assert seen == 5 * 31


def test_every_cut_is_told_from_every_change() -> None:
    """A text cut anywhere in its body is called cut off, not changed."""
    for end in range(len("P2PMED-REQUEST-1:"), len(TEXT)):
        with pytest.raises(ConfigError, match="cut off"):
            request_from_text(TEXT[:end])


@given(st.lists(st.integers(0, len(TEXT)), max_size=5), st.sampled_from(["\n", " ", "\r\n", "\t"]))
def test_white_space_changes_nothing(places: list[int], space: str) -> None:
    """Mail and editors may wrap, indent and end the text as they like."""
    spaced = TEXT
    for at in sorted(places, reverse=True):
        spaced = spaced[:at] + space + spaced[at:]
    assert request_from_text(f"\ufeff{spaced}\n") == open_request(RAW)


def test_texts_fit_one_qr_code(network: Any) -> None:
    """A request and an answer with a chain of three are of the alphabet and size of one code."""
    for text in (TEXT, answer_to_text(network.answer)):
        assert set(text) <= QR_ALPHANUMERIC
        assert len(text) < QR_ALPHANUMERIC_MAX / 2


def test_kinds_are_told_apart(network: Any) -> None:
    """A request in place of an answer is named as what it is, and the reverse."""
    with pytest.raises(ConfigError, match="this is an enrolment answer, where an enrolment req"):
        request_from_text(answer_to_text(network.answer))
    with pytest.raises(ConfigError, match="this is an enrolment request, where an enrolment ans"):
        answer_from_text(TEXT)
    with pytest.raises(ConfigError, match="of a version that this program does not know"):
        request_from_text(TEXT.replace("-1:", "-9:", 1))
    with pytest.raises(ConfigError, match="this is not an enrolment request"):
        request_from_text("<html>404</html>")


def test_an_endless_text_is_refused_by_its_length() -> None:
    """A file of megabytes is refused before it is looked at."""
    with pytest.raises(ConfigError, match="too many"):
        request_from_text("P2PMED-REQUEST-1:" + "A" * 1_000_000)


@pytest.mark.parametrize(
    ("name", "roles", "place"),
    [
        ("", ["clinic"], ""),
        ("two\nlines", ["clinic"], ""),
        ("x", [], ""),
        ("x", ["king"], ""),
        ("x", ["clinic"], "/lin"),
        ("e\u0301", ["clinic"], ""),
    ],
)
def test_impossible_wishes_are_refused_on_the_spot(name: str, roles: list[str], place: str) -> None:
    """What no issuer could grant is refused where it is typed."""
    with pytest.raises(ConfigError):
        make_request(KEYS, name=name, roles=roles, place=place)


def test_an_answer_comes_back_through_text_and_holds(network: Any) -> None:
    """The device learns its network and its own credential from the text alone."""
    answer = answer_from_text(answer_to_text(network.answer))
    enrolled = check_answer(answer, network.device_keys, at_ms=network.validity.not_before_ms)
    assert enrolled.network_id == network.authority.network_id
    assert enrolled.manifest.name == "Lin scheme"
    assert enrolled.credential.subject == network.device_keys.node_id
    assert enrolled.credential.place == "lin/wu"


def test_an_answer_is_for_one_device_of_one_network(network: Any, stranger: Any) -> None:
    """Another's answer, another network's, or a mixture: refused in words."""
    with pytest.raises(CredentialError, match="for another device"):
        check_answer(network.answer, KEYS)
    with pytest.raises(CredentialError, match="from another network"):
        check_answer(network.answer, network.device_keys, network_id=stranger.authority.network_id)
    mixed = Answer(version=1, manifest=stranger.answer.manifest, chain=network.answer.chain)
    with pytest.raises(CredentialError, match="of another network"):
        check_answer(mixed, network.device_keys)
    same_signer = DeviceKeys(
        signing_seed=network.device_keys.signing_seed, box_secret=b"b" * 32, vote_seeds={}
    )
    with pytest.raises(CredentialError, match="for another device"):
        check_answer(network.answer, same_signer)


def test_no_byte_of_an_answer_can_change(network: Any) -> None:
    """Every byte of an answer, changed in one bit, is refused by reading or by checking."""
    raw = codec.encode(network.answer)
    for at in range(len(raw)):
        changed = raw[:at] + bytes([raw[at] ^ 1 << at % 8]) + raw[at + 1 :]
        with pytest.raises((DecodeError, CredentialError)):
            check_answer(open_answer(changed), network.device_keys)


def test_an_expired_answer_is_refused_when_a_time_is_given(network: Any) -> None:
    """With a time the chain must hold at it; without one it need not."""
    assert check_answer(network.answer, network.device_keys)
    with pytest.raises(CredentialError, match="expired"):
        check_answer(network.answer, network.device_keys, at_ms=network.validity.not_after_ms)


def test_a_manifest_that_cannot_be_read_is_a_credential_error(network: Any) -> None:
    """Whatever stands in the manifest's place, the error is the one that callers expect."""
    broken = Answer(version=1, manifest=b"\x00", chain=network.answer.chain)
    with pytest.raises(CredentialError, match="manifest cannot be read"):
        check_answer(broken, network.device_keys)
