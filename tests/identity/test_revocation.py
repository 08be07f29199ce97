"""Who may take a credential back."""

from __future__ import annotations

import pytest

from p2pmed.errors import DecodeError
from p2pmed.identity.revocation import (
    EVERY_SERIAL,
    Revocation,
    RevocationReason,
    Standing,
    may_revoke,
)
from p2pmed.wire import cbor, codec


def member(key: int, *roles: str, place: str = "lin/wu", issuer: int = 99) -> Standing:
    return Standing(key=bytes([key]) * 32, roles=roles, place=place, issuer=bytes([issuer]) * 32)


CASES = [
    ("a key gives itself up", member(1, "device"), member(1, "device"), True),
    ("an issuer takes back", member(9, "pharmacy"), member(1, "clinic", issuer=9), True),
    ("a stranger of no rank", member(2, "pharmacy"), member(1, "device"), False),
    ("an equal", member(2, "clinic"), member(1, "clinic"), False),
    ("the clinic, of its device", member(2, "clinic"), member(1, "device"), True),
    ("the clinic, of another's", member(2, "clinic"), member(1, "device", place="lin/hu"), False),
    ("the county, of a clinic", member(2, "county", place="lin"), member(1, "clinic"), True),
    ("another county", member(2, "county", place="wei"), member(1, "clinic"), False),
    ("a place that begins alike", member(2, "county", place="li"), member(1, "clinic"), False),
    ("the county, of an insurer", member(2, "county", place="lin"), member(1, "insurer"), False),
    (
        "the county, of a clinic that is an insurer too",
        member(2, "county", place="lin"),
        member(1, "clinic", "insurer"),
        False,
    ),
    (
        "the county, of a county",
        member(2, "county", place="lin"),
        member(1, "county", place="lin"),
        False,
    ),
    (
        "the authority, of a county",
        member(2, "authority", place=""),
        member(1, "county", place="lin"),
        True,
    ),
    (
        "the authority, of an authority",
        member(2, "authority", place=""),
        member(1, "authority", place=""),
        False,
    ),
    ("a role from the future", member(2, "seer", place=""), member(1, "device"), False),
    ("of a role from the future", member(2, "county", place="lin"), member(1, "seer"), False),
]


@pytest.mark.parametrize(("what", "author", "target", "allowed"), CASES, ids=lambda x: str(x)[:40])
def test_standing_decides(what: str, author: Standing, target: Standing, allowed: bool) -> None:
    """Oneself, one's issuer, or who supervises all of one's roles in one's place."""
    assert may_revoke(author, target) is allowed, what


def test_a_revocation_is_spelled_in_one_way() -> None:
    """The body is four plain values; an unknown reason or a long text is refused."""
    body = Revocation(
        subject=bytes(32), serial=EVERY_SERIAL, reason=RevocationReason.KEY_COMPROMISED, text=""
    )
    raw = codec.encode(body)
    assert cbor.decode(raw) == [bytes(32), bytes(16), "key_compromised", ""]
    assert codec.decode(raw, Revocation) == body
    for wrong in (
        [bytes(32), bytes(16), "bored", ""],
        [bytes(32), bytes(15), "superseded", ""],
        [bytes(31), bytes(16), "superseded", ""],
        [bytes(32), bytes(16), "superseded", "x" * 257],
        [bytes(32), bytes(16), "superseded"],
    ):
        with pytest.raises(DecodeError):
            codec.convert(wrong, Revocation)
