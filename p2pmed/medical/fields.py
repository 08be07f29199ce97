"""Field types shared by the families, and the check of a body before it is signed.

Identifiers of goods are GS1's (General Specifications, sections 3.2, 7.9 and 7.11): GTIN as 14
digits with its check digit; lot and serial as at most 20 characters of the GS1 set 82.
Money is integers of the currency's minor unit, dates are days since 1970-01-01, UTC.

A rule that a type annotation cannot say stands in ``__post_init__`` and raises ``FieldFault``,
which is an ``InvalidTransaction`` to who builds the body and a decoding error to who reads it.
Faults name the field, never its contents.
"""

from __future__ import annotations

import re
from typing import Annotated, Final

import msgspec

from p2pmed.errors import DecodeError, InvalidTransaction
from p2pmed.wire import codec
from p2pmed.wire.codec import Wire

__all__ = [
    "DAY_MS",
    "Amount",
    "Code",
    "Currency",
    "Day",
    "FieldFault",
    "Gtin",
    "Lot",
    "Pseudonym",
    "Serial",
    "check_body",
    "check_gtin",
    "check_optional_id",
    "gtin_check_digit",
]

DAY_MS: Final = 86_400_000

_SET_82 = r"\A[!\"%&'()*+,\-./0-9:;<=>?A-Z_a-z]{1,20}\Z"

Gtin = Annotated[str, msgspec.Meta(pattern=r"\A[0-9]{14}\Z")]
Serial = Annotated[str, msgspec.Meta(pattern=_SET_82)]
Lot = Annotated[str, msgspec.Meta(pattern=_SET_82)]
Code = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}\Z")]
"""An entry of some code list: a reason, an item, a scope."""
Currency = Annotated[str, msgspec.Meta(pattern=r"\A[A-Z]{3}\Z")]
"""ISO 4217."""
Amount = Annotated[int, msgspec.Meta(ge=0, le=2**53, title="minor units")]
"""Minor units of a currency; a hundred of them still fit 64 bits."""
Day = Annotated[int, msgspec.Meta(ge=0, le=10**6)]
"""Days since 1970-01-01, UTC."""
Pseudonym = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
"""A patient, as ``Envelope.subject`` names one."""


class FieldFault(InvalidTransaction, ValueError):
    """A field breaks a rule of its type; the message names the field."""


def gtin_check_digit(first_13: str) -> str:
    """The last digit of a GTIN-14 (GS1 General Specifications, section 7.9.1)."""
    weighted = sum(int(digit) * (3, 1)[place % 2] for place, digit in enumerate(first_13))
    return str(-weighted % 10)


def check_gtin(gtin: str) -> None:
    """Raises ``FieldFault`` unless ``gtin`` is 14 digits of which the last checks the others."""
    digits = len(gtin) == 14 and gtin.isascii() and gtin.isdigit()
    if not digits or gtin_check_digit(gtin[:13]) != gtin[13]:
        raise FieldFault("gtin: not 14 digits with a right check digit")


def check_optional_id(field: str, value: bytes) -> None:
    """Raises ``FieldFault`` unless ``value`` is empty or 32 bytes."""
    if len(value) not in (0, 32):
        raise FieldFault(f"{field}: neither empty nor 32 bytes")


def check_body(body: Wire) -> None:
    """Raises ``InvalidTransaction`` if a field would be refused by who reads ``body``.

    A Struct built in Python is not checked by msgspec; this reads it as a stranger would.
    """
    try:
        codec.convert(codec.plain(body), type(body))
        codec.encode(body)
    except (DecodeError, TypeError) as error:
        raise InvalidTransaction(_named(str(error), type(body))) from None


def _named(fault: str, body: type[Wire]) -> str:
    """``fault`` with msgspec's ``$[3]`` replaced by the field's name."""
    names = [field.name for field in msgspec.structs.fields(body)]

    def name(match: re.Match[str]) -> str:
        index = int(match.group(1))
        return names[index] if index < len(names) else match.group(0)

    return re.sub(r"\$\[(\d+)\]", name, fault)
