"""Who may say what of whom: credentials, and the rules of their chains."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl import bindings

from p2pmed.errors import CredentialError
from p2pmed.identity.credentials import (
    Credential,
    Role,
    Validity,
    check_chain,
    covers,
    issue_credential,
    open_credential,
    sort_roles,
)
from p2pmed.identity.keys import public_key
from p2pmed.identity.manifest import make_manifest, open_manifest

SEEDS = [bytes([n]) * 32 for n in range(1, 8)]
"""Of the root, and of each subject down a chain."""


class Fixed:
    """Entropy of one byte."""

    def token(self, size: int) -> bytes:
        return b"\x07" * size


MANIFEST, NETWORK = open_manifest(make_manifest("Lin", [SEEDS[0]], created_ms=0, entropy=Fixed()))


def statement(level: int, **changes: Any) -> Credential:
    """What the issuer ``level`` says of the subject below it, with ``changes``."""
    roles = [("county",), ("clinic",), ("device",), ("device",)][level]
    delegate = [("clinic", "device"), ("device",), ("device",), ()][level]
    fields: dict[str, Any] = {
        "version": 1,
        "network": NETWORK,
        "subject": public_key(SEEDS[level + 1]),
        "box_key": bindings.crypto_scalarmult_base(bytes([level + 100]) * 32),
        "name": f"Name {level}",
        "roles": sort_roles(roles),
        "place": ["lin", "lin/wu", "lin/wu", "lin/wu"][level],
        "delegate": sort_roles(delegate),
        "not_before": 1_000 + level,
        "not_after": 9_000 - level,
        "serial": bytes([level + 1]) * 16,
        "issuer": public_key(SEEDS[level]),
    }
    return Credential(**{**fields, **changes})


def link(level: int, **changes: Any) -> bytes:
    return issue_credential(statement(level, **changes), seed=SEEDS[level])


CHAIN = [link(0), link(1), link(2)]


def check(chain: list[bytes], at_ms: int | None = None) -> Credential:
    return check_chain(chain, manifest=MANIFEST, network_id=NETWORK, at_ms=at_ms)


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_sound_chain_gives_its_leaf(length: int) -> None:
    """One, two or three links, the one issued by a root first: the leaf is the last."""
    assert check(CHAIN[:length]) == statement(length - 1)
    assert check(CHAIN[:length], at_ms=5_000) == statement(length - 1)


def test_a_fourth_link_is_refused() -> None:
    """However sound each link, a chain ends at three."""
    with pytest.raises(CredentialError, match="a chain of 4 credentials where 3 are allowed"):
        check([*CHAIN, link(3)])


# What the second link may not say, and the one sentence that answers it.
BROKEN = [
    ({"roles": (Role.CLINIC, Role.INSURER)}, "may not issue the role insurer"),
    ({"roles": (Role.COUNTY,)}, "may not issue the role county"),
    ({"delegate": (Role.PHARMACY,)}, "may not issue the role pharmacy"),
    ({"place": "wei"}, "place lies outside"),
    ({"place": ""}, "place lies outside"),
    ({"place": "ling"}, "place lies outside"),
    ({"not_before": 999}, "validity exceeds"),
    ({"not_after": 9_001}, "validity exceeds"),
    ({"serial": b"\x01" * 16}, "twice in the chain"),
]


@pytest.mark.parametrize(("changes", "sentence"), BROKEN)
def test_a_delegate_stays_within_what_was_delegated(changes: dict[str, Any], sentence: str) -> None:
    """Roles, place and time only narrow down a chain; a serial number stands once."""
    with pytest.raises(CredentialError, match=sentence):
        check([CHAIN[0], link(1, **changes)])


def test_links_must_be_each_others_issuers() -> None:
    """A link missing, out of order, or twice: refused."""
    for chain, sentence in (
        ([], "no credential"),
        (CHAIN[1:], "not signed by a root"),
        (CHAIN[::-1], "not signed by a root"),
        ([CHAIN[0], CHAIN[2]], "not signed by the one before"),
        ([CHAIN[0], CHAIN[0]], "not signed by the one before"),
    ):
        with pytest.raises(CredentialError, match=sentence):
            check(chain)


def test_a_key_stands_once_in_a_chain() -> None:
    """Nobody is their own issuer's issuer."""
    loop = link(2, subject=public_key(SEEDS[1]))
    with pytest.raises(CredentialError, match="twice in the chain"):
        check([CHAIN[0], CHAIN[1], loop])


def test_another_network_is_named_as_such() -> None:
    """A credential of another network is refused in those words, with what to do."""
    other = bytes(32)
    raw = link(0, network=other)
    with pytest.raises(CredentialError, match="of another network") as caught:
        check([raw])
    assert "enrol" in caught.value.hint
    assert open_credential(raw, network_id=other).network == other


def test_time_is_judged_only_when_given() -> None:
    """Without a time nothing expires; with one, every link must hold at it, the end excluded."""
    assert check(CHAIN, at_ms=None)
    assert check(CHAIN, at_ms=1_002)
    assert check(CHAIN, at_ms=8_997)
    with pytest.raises(CredentialError, match="not valid yet"):
        check(CHAIN, at_ms=1_001)
    with pytest.raises(CredentialError, match="has expired"):
        check(CHAIN, at_ms=8_998)


@given(st.integers(0, 2), st.data())
@settings(max_examples=300)
def test_no_byte_of_a_chain_can_change(which: int, data: st.DataObject) -> None:
    """One byte of one link changed, cut off or added: refused, by ``CredentialError`` alone."""
    raw = CHAIN[which]
    at = data.draw(st.integers(0, len(raw) - 1))
    flip = data.draw(st.integers(1, 255))
    for changed in (
        raw[:at] + bytes([raw[at] ^ flip]) + raw[at + 1 :],
        raw[:at],
        raw[:at] + bytes([flip]) + raw[at:],
    ):
        with pytest.raises(CredentialError):
            check([*CHAIN[:which], changed, *CHAIN[which + 1 :]])


def test_every_single_bit_of_a_credential_is_covered() -> None:
    """Exhaustively: each bit of a credential flipped is refused."""
    raw = CHAIN[0]
    for bit in range(len(raw) * 8):
        changed = bytearray(raw)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CredentialError):
            check([bytes(changed)])


@given(st.binary(max_size=200))
def test_noise_is_no_credential(noise: bytes) -> None:
    """Any bytes are refused by ``CredentialError``, never by another exception."""
    with pytest.raises(CredentialError):
        check([noise])


@pytest.mark.parametrize(
    "changes",
    [
        {"roles": ()},
        {"roles": (Role.DEVICE, Role.CLINIC)},
        {"roles": (Role.DEVICE, Role.DEVICE)},
        {"not_after": 1_000},
        {"subject": public_key(SEEDS[0])},
        {"subject": b"\x01" + bytes(31)},
        {"box_key": bytes(32)},
        {"serial": bytes(16)},
        {"serial": bytes(15)},
        {"name": ""},
        {"name": "two\nlines"},
        {"name": " padded"},
        {"name": "a\u202eb"},
        {"name": "e\u0301"},
        {"name": "x" * 129},
        {"place": "/lin"},
        {"place": "lin/"},
        {"place": "lin//wu"},
        {"place": "lin/ wu"},
        {"place": "a/b/c/d/e/f/g/h/i"},
        {"place": "x" * 65},
        {"version": 2},
        {"not_after": 2**60},
    ],
    ids=str,
)
def test_what_no_credential_can_say_is_refused_before_signing(changes: dict[str, Any]) -> None:
    """An issuer cannot sign what its readers would refuse."""
    with pytest.raises(CredentialError):
        link(0, **changes)


def test_only_the_named_issuer_signs() -> None:
    """The seed must be that of the issuer which the credential names."""
    with pytest.raises(CredentialError, match="not the issuer"):
        issue_credential(statement(0), seed=SEEDS[3])


def test_the_longest_credential_fits_its_bound() -> None:
    """Every field at its longest, in the widest script, is still within the limit."""
    wide = "\U00020000"
    raw = link(
        0,
        name=wide * 128,
        place="/".join(wide * 31 for _ in range(8)),
        roles=tuple(sorted(Role)),
        delegate=tuple(sorted(Role)),
        not_before=-(2**53),
        not_after=2**53,
    )
    assert check([raw]).roles == tuple(sorted(Role))


@pytest.mark.parametrize(
    ("place", "inner", "inside"),
    [
        ("", "", True),
        ("", "lin/wu", True),
        ("lin", "lin", True),
        ("lin", "lin/wu", True),
        ("lin/wu", "lin", False),
        ("lin", "", False),
        ("lin", "ling", False),
        ("lin", "ling/wu", False),
        ("lin/wu", "lin/wu/east", True),
    ],
)
def test_a_place_covers_what_lies_in_it(place: str, inner: str, inside: bool) -> None:
    """Whole names count, not beginnings of names."""
    assert covers(place, inner) is inside


def test_validity_is_cut_to_the_outer() -> None:
    """The part of one validity within another."""
    assert Validity(0, 10).within(Validity(3, 20)) == Validity(3, 10)
    assert Validity(5, 10).within(Validity(3, 8)) == Validity(5, 8)


def test_an_unknown_role_is_refused_with_the_known_ones() -> None:
    """A word that is no role: the hint lists those there are."""
    with pytest.raises(CredentialError) as caught:
        sort_roles(["king"])
    assert "pharmacy" in caught.value.hint
    assert "king" not in str(caught.value)


def test_errors_name_no_holder() -> None:
    """No error repeats a name or a place from the credential."""
    for changes, _ in BROKEN:
        with pytest.raises(CredentialError) as caught:
            check([CHAIN[0], link(1, **{"name": "Wu Clinic", **changes})])
        assert "Wu" not in str(caught.value)
    assert repr(statement(0)) == "<Credential>"
    assert "Name 0" not in str(msgspec.structs.replace(statement(0)))


def test_another_verifier_can_be_handed_in() -> None:
    """The simulator's verifier is asked, once per link, about key, signature and structure."""
    asked: list[bytes] = []

    def verify(key: bytes, signature: bytes, message: bytes) -> bool:
        asked.append(key)
        return len(signature) == 64 and message.startswith(b"\x84\x6aSignature1")

    check_chain(CHAIN, manifest=MANIFEST, network_id=NETWORK, at_ms=None, verify=verify)
    assert asked == [public_key(seed) for seed in SEEDS[:3]]
