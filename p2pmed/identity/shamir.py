"""A secret cut into shares of which some number gives it back, and fewer give nothing.

Shamir, *How to share a secret* (1979), byte by byte over GF(256) with the polynomial of AES
(x^8 + x^4 + x^3 + x + 1). Share ``x`` holds, for each byte of the secret, the value at ``x`` of
a random polynomial whose value at 0 is that byte.

Rule of this file: shares say nothing of whether they are right. Who joins them checks what
comes out (here: the vault that the secret opens). Tables are indexed by secret bytes, so this
does not resist who times the processor's cache; it runs at a desk, for a person who waits.
No maintained package of the kind exists; vectors: ``tests/vectors/card.json``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from p2pmed.engine import Entropy
from p2pmed.errors import InvalidTransaction

__all__ = ["SHARES_MAX", "SecretShare", "join", "split"]

SHARES_MAX: Final = 255
"""The points of the field but 0, where the secret stands."""


@dataclass(frozen=True, slots=True, repr=False)
class SecretShare:
    """One share: its point (1 to 255), and as many bytes as the secret has."""

    point: int
    data: bytes


def _tables() -> tuple[list[int], list[int]]:
    """Powers of the generator 3, twice over, and their logarithms."""
    power, log, value = [0] * 510, [0] * 256, 1
    for exponent in range(255):
        power[exponent] = power[exponent + 255] = value
        log[value] = exponent
        value ^= (value << 1) ^ (0x11B if value & 0x80 else 0)
    return power, log


_POWER, _LOG = _tables()


def split(secret: bytes, *, threshold: int, count: int, entropy: Entropy) -> list[SecretShare]:
    """``count`` shares of ``secret``, any ``threshold`` of which give it back.

    Raises ``InvalidTransaction`` unless ``1 <= threshold <= count <= 255`` and there is a secret.
    """
    if not secret or not 1 <= threshold <= count <= SHARES_MAX:
        raise InvalidTransaction(f"{threshold} of {count} shares cannot be made")
    rows = [secret, *(entropy.token(len(secret)) for _ in range(threshold - 1))]
    return [SecretShare(point, _at(point, rows)) for point in range(1, count + 1)]


def join(shares: Sequence[SecretShare]) -> bytes:
    """The secret of ``shares``, if they are enough and right; else other bytes.

    Raises ``InvalidTransaction`` if there is none, two share a point, or their lengths differ.
    """
    points = [share.point for share in shares]
    sizes = {len(share.data) for share in shares}
    sound = all(1 <= point <= SHARES_MAX for point in points)
    if not shares or len(set(points)) < len(points) or len(sizes) != 1 or not sound:
        raise InvalidTransaction("shares that do not belong together")
    secret = bytes(sizes.pop())
    for share in shares:
        weight = 1
        for other in points:
            if other != share.point:
                weight = _times(weight, _over(other, other ^ share.point))
        secret = bytes(
            held ^ _times(weight, byte) for held, byte in zip(secret, share.data, strict=True)
        )
    return secret


def _at(point: int, rows: Sequence[bytes]) -> bytes:
    """The polynomials with coefficients ``rows`` (lowest first), evaluated at ``point``."""
    value = bytes(len(rows[0]))
    for row in reversed(rows):
        value = bytes(_times(held, point) ^ byte for held, byte in zip(value, row, strict=True))
    return value


def _times(one: int, other: int) -> int:
    return _POWER[_LOG[one] + _LOG[other]] if one and other else 0


def _over(one: int, other: int) -> int:
    return _POWER[_LOG[one] - _LOG[other] + 255] if one else 0
