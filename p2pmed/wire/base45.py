"""Base45 (RFC 9285): bytes in the alphabet of a QR code's alphanumeric mode.

Rule of this file: one value has one spelling. What the RFC's encoder would not write (a group
over its range, a letter outside the alphabet, one left-over letter) is refused.
"""

from __future__ import annotations

from typing import Final

from p2pmed.errors import DecodeError

__all__ = ["decode", "encode"]

ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ $%*+-./:"
_VALUE: Final = {letter: value for value, letter in enumerate(ALPHABET)}


def encode(data: bytes) -> str:
    """``data`` as text, three letters for two bytes."""
    letters: list[str] = []
    for start in range(0, len(data), 2):
        pair = data[start : start + 2]
        value = int.from_bytes(pair, "big")
        for _ in range(len(pair) + 1):
            value, rest = divmod(value, 45)
            letters.append(ALPHABET[rest])
    return "".join(letters)


def decode(text: str) -> bytes:
    """Inverse of ``encode``. Raises ``DecodeError`` for any other spelling."""
    found = bytearray()
    for start in range(0, len(text), 3):
        group = text[start : start + 3]
        value = 0
        for letter in reversed(group):
            if letter not in _VALUE:
                raise DecodeError("a letter that is not one of base45")
            value = value * 45 + _VALUE[letter]
        size = len(group) - 1
        if size == 0 or value >= 1 << (8 * size):
            raise DecodeError("not a base45 text: cut off, or a group out of its range")
        found += value.to_bytes(size, "big")
    return bytes(found)
