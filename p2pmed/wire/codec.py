"""Typed values to bytes and back: msgspec Structs over strict CBOR.

A Struct that travels is ``frozen``, ``array_like`` and forbids unknown fields, so that a
message is a CBOR array with one spelling, and a wrong field is named by its path.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

import msgspec

from p2pmed.errors import DecodeError
from p2pmed.limits import FRAME_BYTES_MAX, TEXT_CHARS_MAX
from p2pmed.wire import cbor

__all__ = [
    "Bytes16",
    "Bytes32",
    "Bytes64",
    "Count",
    "Id",
    "OptionalId",
    "Text",
    "TimeMs",
    "Wire",
    "convert",
    "decode",
    "encode",
    "plain",
]

T = TypeVar("T")

Bytes16 = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
Bytes32 = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Bytes64 = Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]
Id = Bytes32
"""A BLAKE2b-256 hash or an Ed25519 public key."""
OptionalId = Annotated[bytes, msgspec.Meta(max_length=32)]
"""An ``Id``, or empty; a length between is refused where it is used."""
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
TimeMs = Annotated[int, msgspec.Meta(ge=-(2**53), le=2**53)]
"""Milliseconds since 1970, UTC."""
Text = Annotated[str, msgspec.Meta(max_length=TEXT_CHARS_MAX)]


class Wire(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base of everything that travels or is signed: an array with one spelling.

    ``repr`` shows the type only: contents may be a patient's.
    """

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


def plain(value: Any) -> Any:
    """A Struct as lists, integers, text and bytes, ready for ``cbor.encode``."""
    return msgspec.to_builtins(value, builtin_types=(bytes,))


def encode(value: Any) -> bytes:
    """The bytes of a Struct. Raises ``InvalidTransaction`` if a field cannot be spelled."""
    return cbor.encode(plain(value))


def convert(value: Any, kind: type[T]) -> T:
    """A decoded CBOR value as ``kind``; ``DecodeError`` names the offending path."""
    try:
        return msgspec.convert(value, kind, builtin_types=(bytes,))
    except msgspec.ValidationError as error:
        raise DecodeError(f"{_name(kind)}: {_without_contents(str(error))}") from None


def decode(raw: bytes, kind: type[T], *, limit: int = FRAME_BYTES_MAX) -> T:
    """The Struct that ``raw`` spells. Raises ``DecodeError``."""
    return convert(cbor.decode(raw, limit=limit), kind)


def _name(kind: Any) -> str:
    return getattr(kind, "__name__", "message")


def _without_contents(text: str) -> str:
    """msgspec quotes an unknown tag or enum value; keep the complaint, drop the value."""
    if text.startswith("Invalid "):
        head, _, path = text.rpartition(" - at ")
        return f"invalid value at {path}" if head else "invalid value"
    return text
