"""What people type, found: a device by name, a patient or transaction by its first digits, a date.

Rule: one thing or none. What names several is refused with how many; nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar

import msgspec

from p2pmed.errors import ConfigError, InvalidTransaction
from p2pmed.identity.keys import short_id
from p2pmed.ledger.state import Readable
from p2pmed.medical.fhir import occurred_ms
from p2pmed.medical.fields import DAY_MS, check_body, check_gtin
from p2pmed.medical.membership import MEMBERS, member
from p2pmed.medical.patients import PATIENTS
from p2pmed.medical.rejections import MEANINGS, Rejection
from p2pmed.node.node import Node
from p2pmed.node.operations.arguments import Arguments
from p2pmed.node.operations.general import describe_receipt, wait_final
from p2pmed.node.receipts import Receipt
from p2pmed.wire.codec import Wire

__all__ = [
    "built",
    "calendar_day",
    "day_text",
    "describe_device",
    "find_device",
    "find_one",
    "find_patient",
    "gtin_of",
    "moment_ms",
    "now_ms",
    "outcome",
    "submitted",
]

DIGITS_MIN: Final = 4
"""Of an id or key, so that a slip does not name another by luck."""
GTIN_DIGITS: Final = (8, 12, 13, 14)
REFS_MOST: Final = 60
"""Transactions named as followed from; a few less than ``REFS_MAX``."""

T = TypeVar("T", bound=Wire)


def find_one(found: Iterable[bytes], text: str, what: str, hint: str) -> bytes:
    """The one of ``found`` whose hex digits begin with ``text``. Raises ``ConfigError``."""
    wanted = text.strip().lower()
    if len(wanted) < DIGITS_MIN or not set(wanted) <= set("0123456789abcdef"):
        raise ConfigError(
            f"{what}: at least {DIGITS_MIN} digits of its number are needed", hint=hint
        )
    matching = [item for item in found if item.hex().startswith(wanted)]
    if len(matching) != 1:
        raise ConfigError(f"{wanted[:64]} names {len(matching)} {what}s", hint=hint)
    return matching[0]


def find_device(node: Node, text: str) -> bytes:
    """A member's device key by its name, its short number, or the first digits of the key."""
    members = list(MEMBERS.scan(node.state()))
    wanted = text.strip()
    named = [
        key
        for key, row in members
        if row.name.casefold() == wanted.casefold() or short_id(key) == wanted.upper()
    ]
    if len(named) == 1:
        return named[0]
    if len(named) > 1:
        raise ConfigError(
            f"{len(named)} devices are called so", hint="give the first digits of the key instead"
        )
    if len(wanted) < DIGITS_MIN or not set(wanted.lower()) <= set("0123456789abcdef"):
        raise ConfigError(f"no member is called {wanted[:64]!r}", hint="see `p2pmed peers`")
    return find_one((key for key, _ in members), wanted, "device", "see `p2pmed peers`")


def describe_device(state: Readable, key: bytes) -> dict[str, Any]:
    """A device for people: key, name, place."""
    known = member(state, key)
    return {
        "device": key.hex(),
        "name": known.name if known else None,
        "place": known.place if known else None,
    }


def find_patient(node: Node, text: str) -> bytes:
    """A registered patient by the first digits of the pseudonym."""
    digits = text.strip().lower()[:32]
    try:
        start = bytes.fromhex(digits[: len(digits) // 2 * 2])
    except ValueError:
        start = b""  # refused below, by what it is
    found = [start + rest for rest, _ in PATIENTS.scan(node.state(), start)]
    return find_one(found, text, "patient", "see `p2pmed patient list`")


def gtin_of(text: str) -> str:
    """A GTIN of 8, 12, 13 or 14 digits, as 14. Raises ``ConfigError``."""
    gtin = text.strip()
    try:
        check_gtin(gtin.rjust(14, "0") if len(gtin) in GTIN_DIGITS else "")
    except InvalidTransaction as error:
        raise ConfigError(str(error)) from None
    return gtin.rjust(14, "0")


def calendar_day(text: str, name: str) -> int:
    """A date such as 2027-03-31 as days since 1970. Raises ``ConfigError``."""
    return moment_ms(text, name) // DAY_MS


def moment_ms(text: str, name: str, *, end_of_day: bool = False) -> int:
    """A date, or a time with its zone, in milliseconds since 1970 (UTC).

    Raises ``ConfigError``.
    """
    try:
        moment = occurred_ms(text, name)
    except InvalidTransaction:
        raise ConfigError(
            f"{name}: not a date", hint="write 2027-03-31, or 2027-03-31T08:00:00Z"
        ) from None
    return moment + DAY_MS - 1 if end_of_day and "T" not in text else moment


def day_text(day: int) -> str:
    """Days since 1970 as a date."""
    from datetime import date, timedelta

    return (date(1970, 1, 1) + timedelta(days=min(day, 2_900_000))).isoformat()


def now_ms(node: Node) -> int:
    """The time by which things expire: the ledger's, or without one the machine's."""
    home = node.replica.home
    return max(home.chain.time_ms, 0) if home and home.chain.height else node.world.clock.wall_ms()


def built(body: Callable[[], T]) -> T:
    """A body that others will accept. Raises ``InvalidTransaction`` that names the field."""
    made = body()
    try:
        check_body(made)
    except msgspec.ValidationError as error:
        raise InvalidTransaction(str(error)) from None
    return made


async def submitted(
    node: Node,
    arguments: Arguments,
    body: Wire,
    *,
    patient: bytes = b"",
    refs: Iterable[bytes] = (),
) -> dict[str, Any]:
    """Submit a body and, if asked (``wait_s``), wait until it is final; its outcome."""
    named = [ref for ref in dict.fromkeys(refs) if ref and node.find(ref) is not None]
    receipt = await node.submit(body, patient=patient, refs=named[-REFS_MOST:])
    await wait_final(receipt, arguments)
    return outcome(receipt)


def outcome(receipt: Receipt) -> dict[str, Any]:
    """A receipt as plain values, with its verdict in a sentence."""
    answer = describe_receipt(receipt)
    code = answer["verdict"]
    known = code in [reason.value for reason in Rejection]
    return {**answer, "meaning": MEANINGS[Rejection(code)] if known else ""}
