"""Typed values to bytes and back: msgspec Structs over strict CBOR.

A Struct that travels is ``frozen``, ``array_like`` and forbids unknown fields, so that a
message is a CBOR array with one spelling, and a wrong field is named by its path.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Any, Generic, TypeVar, get_args

import msgspec
from msgspec.inspect import StructType, Type, type_info

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
    "Tagged",
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
    """A decoded CBOR value as ``kind``; ``DecodeError`` names the offending path.

    A field with a default is one for who writes a Struct in a program: an array that leaves it
    out is a second spelling, and refused.
    """
    try:
        made = msgspec.convert(value, kind, builtin_types=(bytes,))
    except msgspec.ValidationError as error:
        raise DecodeError(f"{_name(kind)}: {_without_contents(str(error))}") from None
    if _may_be_cut(kind) and not _as_long(value, plain(made)):  # type: ignore[arg-type]
        raise DecodeError(f"{_name(kind)}: an array that leaves fields out")
    return made


def decode(raw: bytes, kind: type[T], *, limit: int = FRAME_BYTES_MAX) -> T:
    """The Struct that ``raw`` spells. Raises ``DecodeError``."""
    return convert(cbor.decode(raw, limit=limit), kind)


class Tagged(Generic[T]):
    """Decodes a union of Structs that integer tags tell apart: ``Tagged(A | B).decode(raw)``.

    For a Struct msgspec keeps what it worked out; for a union it works it out at each call,
    which costs ten times the decoding of a short message. So the tag chooses the Struct here.
    """

    def __init__(self, union: Any) -> None:
        self._union = union
        self._kinds = {kind.__struct_config__.tag: kind for kind in get_args(union)}
        if not all(type(tag) is int for tag in self._kinds):
            raise TypeError("a union whose members are not told apart by integer tags")

    def decode(self, raw: bytes) -> T:
        """The Struct that ``raw`` spells. Raises ``DecodeError``."""
        value = cbor.decode(raw)
        tag = value[0] if type(value) is list and value else None
        kind = self._kinds.get(tag) if type(tag) is int else None
        message: T = convert(value, self._union if kind is None else kind)
        return message


def _as_long(given: Any, made: Any) -> bool:
    """Whether every array of ``given`` has the length of the one that it was read as."""
    if not isinstance(made, list | tuple):
        return True
    return len(given) == len(made) and all(map(_as_long, given, made))


@lru_cache(maxsize=1_024)
def _may_be_cut(kind: Any) -> bool:
    """Whether ``kind`` or anything in it has a field with a default; worked out once a type."""
    waiting, seen = [type_info(kind)], []
    while waiting:
        info = waiting.pop()
        if isinstance(info, StructType):
            if info.cls in seen:
                continue
            seen.append(info.cls)
            if not all(field.required for field in info.fields):
                return True
            waiting += (field.type for field in info.fields)
        for name in ("type", "item_type", "key_type", "value_type"):
            inside = getattr(info, name, None)
            waiting += [inside] if isinstance(inside, Type) else []
        for name in ("types", "item_types"):
            waiting += getattr(info, name, ())
    return False


def _name(kind: Any) -> str:
    return getattr(kind, "__name__", "message")


def _without_contents(text: str) -> str:
    """msgspec quotes an unknown tag or enum value; keep the complaint, drop the value."""
    if text.startswith("Invalid "):
        head, _, path = text.rpartition(" - at ")
        return f"invalid value at {path}" if head else "invalid value"
    return text
