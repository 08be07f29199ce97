"""Who belongs, told by the first entry of each log; and who no longer does."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from p2pmed.errors import InvalidTransaction
from p2pmed.identity.revocation import EVERY_SERIAL, Revocation, RevocationReason
from p2pmed.medical.membership import LogOpen, incarnations, member, vote_keys


def revoke(h: Any, who: str, whom: str, serial: bytes = EVERY_SERIAL) -> str:
    reason = RevocationReason.KEY_COMPROMISED
    body = Revocation(subject=h.key(whom), serial=serial, reason=reason, text="")
    return h.write(who, body).code


def reopen(h: Any, who: str, number: int) -> str:
    """Open another log of the device."""
    h.lanes.pop(who, None)
    return h.write(who, h.opening(who), incarnation=bytes([number] * 16)).code


def test_a_log_that_opens_makes_a_member(hamlet: Any) -> None:
    """The credential's words are kept, with the box key and vote keys that the device gives."""
    device = hamlet.join("clinic", "clinic", place="county/west")
    row = member(hamlet.view, device)
    assert row is not None
    assert (row.roles, row.place, row.revoked) == (("clinic",), "county/west", False)
    assert row.box_key == hamlet.opening("clinic").box_key
    assert vote_keys(hamlet.view, device, bytes(16)) == (hamlet.vote_key("clinic").key,)
    assert vote_keys(hamlet.view, device, bytes([1] * 16)) == ()
    assert list(incarnations(hamlet.view, device)) == [bytes(16)]


def test_nobody_joins_with_another_devices_chain(hamlet: Any) -> None:
    """A chain replayed by another key makes no member."""
    hamlet.join("clinic", "clinic")
    done = hamlet.write("thief", hamlet.opening("clinic"))
    assert done.code == "author_unknown"
    assert member(hamlet.view, hamlet.key("thief")) is None


def test_a_log_opens_with_its_first_entry_only(hamlet: Any) -> None:
    """A second opening inside a log is malformed."""
    hamlet.join("clinic", "clinic")
    assert hamlet.write("clinic", hamlet.opening("clinic")).code == "malformed"


@pytest.mark.parametrize(
    ("who", "code"),
    [
        ("root", "applied"),
        ("county", "applied"),
        ("clinic", "applied"),
        ("next-county", "issuer_not_above"),
        ("other-clinic", "issuer_not_above"),
    ],
)
def test_who_may_revoke(hamlet: Any, who: str, code: str) -> None:
    """The issuer, a supervisor of the place, and the device itself; nobody beside or below."""
    hamlet.join("root", "authority", place="elsewhere")
    hamlet.join("county", "county", place="county")
    hamlet.join("next-county", "county", place="next")
    hamlet.join("other-clinic", "clinic")
    hamlet.join("clinic", "clinic", place="county/west")
    assert revoke(hamlet, who, "clinic") == code
    row = member(hamlet.view, hamlet.key("clinic"))
    assert row is not None
    assert row.revoked == (code == "applied")


def test_a_revoked_device_stays_out(hamlet: Any) -> None:
    """No new log of the same key brings it back."""
    hamlet.join("county", "county", place="county")
    hamlet.join("clinic", "clinic")
    revoke(hamlet, "county", "clinic")
    assert reopen(hamlet, "clinic", 1) == "author_revoked"


def test_a_revocation_may_come_before_the_log(hamlet: Any) -> None:
    """It is weighed when the log opens: one that holds marks the member, another does nothing."""
    hamlet.join("county", "county", place="county")
    hamlet.join("next-county", "county", place="next")
    hamlet.enrol("clinic", "clinic")
    hamlet.enrol("shop", "pharmacy")
    assert revoke(hamlet, "county", "clinic") == "applied"
    assert revoke(hamlet, "next-county", "shop") == "applied"
    assert reopen(hamlet, "clinic", 0) == "applied"
    assert reopen(hamlet, "shop", 0) == "applied"
    clinic, shop = (member(hamlet.view, hamlet.key(name)) for name in ("clinic", "shop"))
    assert clinic is not None
    assert shop is not None
    assert (clinic.revoked, shop.revoked) == (True, False)


def test_a_renewed_credential_survives_the_revocation_of_the_old(hamlet: Any) -> None:
    """A serial names one credential; the next one of the same key is another."""
    hamlet.join("county", "county", place="county")
    hamlet.join("clinic", "clinic")
    old = hamlet.members["clinic"]
    assert revoke(hamlet, "county", "clinic", old.serial) == "applied"
    assert reopen(hamlet, "clinic", 1) == "author_revoked"
    hamlet.members["clinic"] = msgspec.structs.replace(old, serial=bytes([5] * 16))
    assert reopen(hamlet, "clinic", 2) == "applied"
    row = member(hamlet.view, hamlet.key("clinic"))
    assert row is not None
    assert not row.revoked


def test_an_older_credential_shown_again_takes_nothing_back(hamlet: Any) -> None:
    """Of two live credentials the one that holds longer counts."""
    hamlet.join("clinic", "clinic", "pharmacy")
    new = hamlet.members["clinic"]
    hamlet.members["clinic"] = msgspec.structs.replace(
        new, roles=("clinic",), not_after=new.not_after - 1, serial=bytes([6] * 16)
    )
    assert reopen(hamlet, "clinic", 1) == "applied"
    row = member(hamlet.view, hamlet.key("clinic"))
    assert row is not None
    assert row.roles == ("clinic", "pharmacy")


@pytest.mark.parametrize("fields", [{"previous": b"1"}, {"previous_head": b"12"}])
def test_a_half_reference_to_an_earlier_log_is_named(hamlet: Any, fields: Any) -> None:
    """An incarnation has 16 bytes or none, an id 32 or none."""
    with pytest.raises(InvalidTransaction, match=next(iter(fields))):
        LogOpen(**{**msgspec.structs.asdict(hamlet.opening("clinic")), **fields})


def test_a_log_that_shows_anothers_vote_key_is_refused(hamlet: Any) -> None:
    """Whoever could take another's key would block every change that seats both."""
    hamlet.join("clinic", "clinic")
    hamlet.enrol("thief", "clinic")
    stolen = hamlet.opening("thief", vote_keys=(hamlet.vote_key("clinic"),))
    assert hamlet.write("thief", stolen).code == "vote_key_unproven"
    assert member(hamlet.view, hamlet.key("thief")) is None
