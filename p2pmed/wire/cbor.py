"""Strict deterministic CBOR: one spelling per value (RFC 8949, section 4.2.1).

Allowed: integers of 64 bits, byte strings, NFC text, booleans, null, arrays, and maps whose
keys are text. No float, no tag, no indefinite length, no duplicate key, bounded depth.
Keys of a map sort length-first, which for text keys under 24 bytes equals the bytewise
order of RFC 8949.

``decode`` re-encodes and compares, so that what is accepted has exactly one spelling.
It is done by cbor2, whose permissive defaults are all switched off here; built-in tags are
refused before they can build anything.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

import cbor2

from p2pmed.errors import DecodeError, InvalidTransaction
from p2pmed.limits import CBOR_DEPTH_MAX, CBOR_KEYS_MAX, FRAME_BYTES_MAX

__all__ = ["Value", "decode", "encode"]

Value = Any
"""An integer, bytes, text, boolean, ``None``, or a list or text-keyed dict of such values."""

FOREIGN_BYTES_MAX = 1024 * 1024
"""A document in a format of others; read whole, never kept as it is."""

_INT_MIN, _INT_MAX = -(2**63), 2**63 - 1


def _refuse_tag(*_: object) -> NoReturn:
    raise DecodeError("a CBOR tag where none is allowed")


class _EveryTag(Mapping[int, Callable[..., Any]]):
    """Claims to decode every tag, the built-in ones too, and refuses each."""

    def __getitem__(self, number: int) -> Callable[..., Any]:
        return _refuse_tag

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[int]:
        return iter((0,))


_EVERY_TAG = _EveryTag()


class _DatesAsWritten(_EveryTag):
    """Lets the tags of dates (RFC 8949, section 3.4) pass without building anything."""

    def __getitem__(self, number: int) -> Callable[..., Any]:
        if number in (0, 1):
            return lambda value, *_: value
        return _refuse_tag


_DATES_AS_WRITTEN = _DatesAsWritten()


def encode(value: Value) -> bytes:
    """The one spelling of ``value``.

    Raises ``InvalidTransaction`` for a value outside the allowed set.
    """
    fault = _fault(value, CBOR_DEPTH_MAX)
    if fault:
        raise InvalidTransaction(f"cannot be encoded: {fault}")
    return cbor2.dumps(value, canonical=True)


def encode_trusted(value: Value) -> bytes:
    """Like ``encode`` for values that a typed Struct has already bounded: no second walk."""
    return cbor2.dumps(value, canonical=True)


def decode(raw: bytes, *, limit: int = FRAME_BYTES_MAX) -> Value:
    """The value that ``raw`` spells.

    Raises ``DecodeError`` if ``raw`` is longer than ``limit`` bytes, is not exactly one
    deterministic CBOR item, or holds anything outside the allowed set.
    """
    if len(raw) > limit:
        raise DecodeError(f"{len(raw)} bytes of CBOR where {limit} are allowed")
    try:
        value = cbor2.loads(
            raw,
            max_depth=CBOR_DEPTH_MAX,
            allow_indefinite=False,
            allow_duplicate_keys=False,
            strict_hashable_types=True,
            semantic_decoders=_EVERY_TAG,
            tag_hook=_refuse_tag,
        )
        fault = _fault(value, CBOR_DEPTH_MAX)
        if not fault and cbor2.dumps(value, canonical=True) != raw:
            fault = "not the deterministic spelling"
    except DecodeError:
        raise
    except (cbor2.CBORDecodeError, cbor2.CBOREncodeError, ValueError, RecursionError) as error:
        raise DecodeError(f"not CBOR: {type(error).__name__}") from None
    if fault:
        raise DecodeError(f"refused CBOR: {fault}")
    return value


def decode_own(raw: bytes) -> Value:
    """What ``encode`` has just spelled, read back: nothing to check, nothing to compare."""
    return cbor2.loads(raw)


def decode_foreign(raw: bytes, *, tag: int | None = None) -> Value:
    """What others spelled, for formats that are not ours (EU certificates) and only read.

    Any length form, any key, floats; no tag but ``tag`` around the whole, and 0 and 1, whose
    dates stay the text or number they are. Raises ``DecodeError``.
    """
    if len(raw) > FOREIGN_BYTES_MAX:
        raise DecodeError(f"{len(raw)} bytes of CBOR where {FOREIGN_BYTES_MAX} are allowed")
    head = b"" if tag is None else bytes([0xC0 | tag])
    try:
        return cbor2.loads(
            raw.removeprefix(head) if tag is not None and tag < 24 else raw,
            max_depth=CBOR_DEPTH_MAX,
            allow_duplicate_keys=False,
            semantic_decoders=_DATES_AS_WRITTEN,
            tag_hook=_refuse_tag,
        )
    except DecodeError:
        raise
    except (cbor2.CBORDecodeError, ValueError, TypeError, RecursionError) as error:
        raise DecodeError(f"not CBOR: {type(error).__name__}") from None


def _fault(value: Value, depth: int) -> str:
    """What is wrong with ``value``, in a few words without its contents; empty if nothing."""
    kind = type(value)
    if kind is bytes or kind is bool or value is None:
        return ""
    if kind is int:
        return "" if _INT_MIN <= value <= _INT_MAX else "an integer beyond 64 bits"
    if kind is str:
        return _text_fault(value)
    if depth == 0:
        return "nested too deep"
    if kind is list or kind is tuple:
        for item in value:
            # The common kinds without another call: this walk is most of what encoding costs.
            if type(item) is bytes or (type(item) is int and _INT_MIN <= item <= _INT_MAX):
                continue
            if fault := _fault(item, depth - 1):
                return fault
        return ""
    if kind is dict:
        if len(value) > CBOR_KEYS_MAX:
            return f"a map of {len(value)} keys"
        for key, item in value.items():
            if type(key) is not str:
                return "a map key that is not text"
            if fault := _text_fault(key) or _fault(item, depth - 1):
                return fault
        return ""
    return f"a {kind.__name__}"


def _text_fault(text: str) -> str:
    if text.isascii():
        return "" if text.isprintable() or not _has_control(text) else "a control character"
    if not unicodedata.is_normalized("NFC", text):
        return "text that is not NFC"
    return "a control or direction character" if _has_control(text) else ""


def _has_control(text: str) -> bool:
    """Control, format (direction) and surrogate characters; line feed and tab are text."""
    return any(
        (unicodedata.category(char) in {"Cc", "Cs"} and char not in "\n\t")
        or char in "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
        for char in text
    )
