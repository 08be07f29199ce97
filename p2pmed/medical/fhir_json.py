"""JSON read strictly: one value per key, no NaN, every number as it was written.

Rule of this file: bytes in, bytes or plain values out; whatever is not exactly JSON (RFC 8259,
UTF-8, without a byte order mark) is refused with a sentence that names the place and never the
contents. Implements ``docs/protocols/records.md``, clause 30 (the canonical form).

What it does not do: know FHIR; that is ``fhir.py``.
"""

from __future__ import annotations

import json
import zlib
from json.encoder import encode_basestring
from typing import Any, Final, NoReturn, TypeVar

import msgspec

from p2pmed.errors import InvalidTransaction

__all__ = ["Number", "canonical_json", "gunzip_bounded", "parse", "spelled", "typed"]

T = TypeVar("T")

_GZIP_WBITS: Final = 31
_CONSTANTS: Final = {None: "null", True: "true", False: "false"}


class Number(str):
    """A JSON number as it was written: 6.50 is not 6.5."""

    __slots__ = ()


class _TwiceError(ValueError):
    """A key stands twice in one object."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _TwiceError
    return members


def _refuse_constant(_: str) -> NoReturn:
    raise ValueError


def parse(text: str | bytes, path: str) -> Any:
    """The value that ``text`` spells, numbers as ``Number``.

    Raises ``InvalidTransaction``, naming ``path``, if it is not JSON, or a key stands twice.
    """
    try:
        return json.loads(
            text if isinstance(text, str) else text.decode("utf-8"),
            object_pairs_hook=_once,
            parse_int=Number,
            parse_float=Number,
            parse_constant=_refuse_constant,
        )
    except _TwiceError:
        raise InvalidTransaction(f"{path}: a key stands twice in one object") from None
    except RecursionError:
        raise InvalidTransaction(f"{path}: nested too deep") from None
    except ValueError:
        raise InvalidTransaction(f"{path}: not JSON in UTF-8") from None


def typed(raw: bytes | msgspec.Raw, kind: type[T], path: str) -> T:
    """``raw`` as ``kind``, what ``kind`` does not name left aside.

    Raises ``InvalidTransaction`` that names the field under ``path``.
    """
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as error:
        raise InvalidTransaction(_named(str(error), path)) from None
    except RecursionError:
        raise InvalidTransaction(f"{path or 'document'}: nested too deep") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise InvalidTransaction(f"{path or 'document'}: not JSON in UTF-8") from None


def canonical_json(raw: bytes) -> bytes:
    """The one spelling of a JSON document: keys sorted, no space, numbers as written.

    Two documents are equal when their canonical forms are. Raises ``InvalidTransaction``.
    """
    return spelled(parse(raw, "document"))


def spelled(value: Any) -> bytes:
    """The one spelling of a value as ``parse`` reads it. Raises ``InvalidTransaction``."""
    written: list[str] = []
    try:
        _write(value, written)
        return "".join(written).encode("utf-8")
    except RecursionError:
        raise InvalidTransaction("document: nested too deep") from None
    except UnicodeEncodeError:
        raise InvalidTransaction("document: half of a surrogate pair") from None


def _write(value: Any, written: list[str]) -> None:
    if isinstance(value, Number):
        written.append(value)
    elif isinstance(value, str):
        written.append(encode_basestring(value))
    elif isinstance(value, dict):
        mark = "{"
        for key in sorted(value):
            written += (mark, encode_basestring(key), ":")
            _write(value[key], written)
            mark = ","
        written.append("}" if value else "{}")
    elif isinstance(value, list):
        mark = "["
        for item in value:
            written.append(mark)
            _write(item, written)
            mark = ","
        written.append("]" if value else "[]")
    else:
        written.append(_CONSTANTS[value])


def gunzip_bounded(raw: bytes, limit: int) -> bytes:
    """The contents of a gzip file (RFC 1952), at most ``limit`` bytes.

    Raises ``InvalidTransaction`` if it is no gzip file, cut short, damaged, or too long.
    """
    contents: list[bytes] = []
    room = limit
    while raw:
        stream = zlib.decompressobj(_GZIP_WBITS)
        try:
            piece = stream.decompress(raw, room + 1)
        except zlib.error:
            raise InvalidTransaction("not a gzip file, or a damaged one") from None
        if len(piece) > room:
            raise InvalidTransaction(
                f"a gzip file that unpacks to more than {limit} bytes",
                hint="split it into smaller bundles",
            )
        if not stream.eof:
            raise InvalidTransaction("the gzip file is cut short", hint="copy it again")
        contents.append(piece)
        room -= len(piece)
        raw = stream.unused_data
    if not contents:
        raise InvalidTransaction("the gzip file is empty", hint="copy it again")
    return b"".join(contents)


def _named(complaint: str, path: str) -> str:
    """msgspec's complaint with its place in front: ``entry[3].fullUrl: expected str, got int``."""
    what, _, at = complaint.replace("`", "").partition(" - at ")
    at = at.removeprefix("$").removeprefix(".")
    if what.startswith("Object missing required field "):
        at = ".".join(filter(None, (at, what.rpartition(" ")[2])))
        what = "missing"
    if what.startswith("Invalid "):
        what = "an invalid value"
    place = ".".join(filter(None, (path, at))).replace(".[", "[") or "document"
    return f"{place}: {what[:1].lower()}{what[1:]}"
