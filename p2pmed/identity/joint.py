"""An X25519 key that nobody holds: some number of its holders open together what is wrapped to it.

What is wrapped by HPKE (RFC 9180, DHKEM of X25519) is opened by ``secret * E``, where ``E`` is the
sender's ephemeral point. Here ``secret`` is cut by Shamir over the group's order; each holder gives
``share * E``, and Lagrange's weights put them together *in the exponent* (Desmedt and Frankel,
*Threshold cryptosystems*, 1989). So the secret itself is never put together, what the holders give
opens that one wrap and no other, and who wraps needs to know nothing of all this: the public half
is an ordinary X25519 key. Implements ``docs/protocols/emergency.md``, clauses 1 to 5.

X25519 knows points by one coordinate, which is too little to add them; they are lifted to the
Edwards curve (either sign will do: the result's coordinate is the same), and a point that is not in
the group of prime order is refused, so that no share leaks by a crafted one.

Rule of this file: a wrong partial is not told from a right one; what does not open was given wrong
by one of them. The dealer knows the secret while it deals, and must forget it. Scalars are
multiplied as Python integers when dealt, which takes a time that depends on them; at a desk, once.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from nacl import bindings
from nacl.exceptions import CryptoError

from p2pmed.engine import Entropy
from p2pmed.errors import DecodeError, Denied, InvalidTransaction
from p2pmed.identity import sealing

__all__ = ["HOLDERS_MAX", "JointSecret", "combine", "deal", "partial"]

HOLDERS_MAX: Final = 32
ORDER: Final = 2**252 + 27742317777372353535851937790883648493
"""Of the group; RFC 8032, section 5.1."""
FIELD: Final = 2**255 - 19
POINT_BYTES: Final = 32

_KEM: Final = b"KEM\x00\x20"
_HPKE: Final = b"HPKE\x00\x20\x00\x01\x00\x03"

Partial = Callable[[bytes], bytes]
"""From an ephemeral X25519 key (32 bytes) to a holder's partial (32 bytes)."""


def deal(*, threshold: int, count: int, entropy: Entropy) -> tuple[bytes, list[bytes]]:
    """A new public key (X25519) and ``count`` shares, the first of point 1.

    Raises ``InvalidTransaction`` unless ``2 <= threshold <= count <= HOLDERS_MAX``.
    """
    if not 2 <= threshold <= count <= HOLDERS_MAX:
        raise InvalidTransaction(f"{threshold} of {count} holders cannot be")
    rows = [
        int.from_bytes(bindings.crypto_core_ed25519_scalar_reduce(entropy.token(64)), "little")
        for _ in range(threshold)
    ]
    shares = [
        (sum(row * point**power for power, row in enumerate(rows)) % ORDER)
        for point in range(1, count + 1)
    ]
    public = bindings.crypto_scalarmult_ed25519_base_noclamp(rows[0].to_bytes(32, "little"))
    return _lower(public), [share.to_bytes(32, "little") for share in shares]


def partial(share: bytes, ephemeral: bytes) -> bytes:
    """What the holder of ``share`` gives for one wrap, whose ``ephemeral`` key it is.

    Raises ``DecodeError`` if that is no point that an honest sender uses.
    """
    try:
        return bindings.crypto_scalarmult_ed25519_noclamp(share, _lift(ephemeral))
    except (CryptoError, ValueError):
        raise DecodeError("an ephemeral key that is none, or a share that is none") from None


def combine(partials: Mapping[int, bytes]) -> bytes:
    """The shared X25519 secret, from partials by their points. Raises ``DecodeError``."""
    points, total = sorted(partials), b""
    for point in points:
        above, below = 1, 1
        for other in points:
            if other != point:
                above, below = above * other % ORDER, below * (other - point) % ORDER
        weight = (above * pow(below, -1, ORDER) % ORDER).to_bytes(32, "little")
        try:
            part = bindings.crypto_scalarmult_ed25519_noclamp(weight, partials[point])
            total = bindings.crypto_core_ed25519_add(total, part) if total else part
        except (CryptoError, ValueError):
            raise DecodeError("a partial that is no point of the group") from None
    return _lower(total)


class JointSecret:
    """The key, for as long as enough holders are at hand: a ``sealing.BoxSecret``."""

    def __init__(self, public: bytes, holders: Mapping[int, Partial]) -> None:
        """``holders`` by their points; as many as the threshold, or nothing opens."""
        self.public = public
        self._holders = dict(holders)

    def __repr__(self) -> str:
        return f"<JointSecret of {len(self._holders)} holders>"

    def unwrap(self, wrapped: bytes, *, domain: str, context: Sequence[bytes | str]) -> bytes:
        """As ``sealing.unwrap``. Raises ``DecodeError`` or ``Denied``."""
        if len(wrapped) < sealing.WRAP_BYTES:
            raise DecodeError(f"a wrapped key of {len(wrapped)} bytes")
        sealing.check_suite(wrapped[0])
        ephemeral, ciphertext = wrapped[1:33], wrapped[33:]
        shared = combine({point: give(ephemeral) for point, give in self._holders.items()})
        key, nonce = _schedule(shared, ephemeral, self.public, sealing.info_of(domain, context))
        try:
            return bindings.crypto_aead_chacha20poly1305_ietf_decrypt(ciphertext, b"", nonce, key)
        except (CryptoError, ValueError):
            raise Denied(
                "these keys do not open for those who are here",
                hint="two different holders of the emergency key are needed",
            ) from None


def _schedule(shared: bytes, ephemeral: bytes, public: bytes, info: bytes) -> tuple[bytes, bytes]:
    """Key and nonce of HPKE's base mode, single shot. RFC 9180, sections 4.1 and 5.1."""
    prk = _extract(b"", _KEM, b"eae_prk", shared)
    secret = _expand(prk, _KEM, b"shared_secret", ephemeral + public, 32)
    context = (
        b"\x00"
        + _extract(b"", _HPKE, b"psk_id_hash", b"")
        + _extract(b"", _HPKE, b"info_hash", info)
    )
    secret = _extract(secret, _HPKE, b"secret", b"")
    return (
        _expand(secret, _HPKE, b"key", context, 32),
        _expand(secret, _HPKE, b"base_nonce", context, 12),
    )


def _extract(salt: bytes, suite: bytes, label: bytes, key: bytes) -> bytes:
    return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite + label + key, "sha256")


def _expand(prk: bytes, suite: bytes, label: bytes, info: bytes, size: int) -> bytes:
    """One block: no output is longer than 32 bytes."""
    labelled = size.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info
    return hmac.digest(prk, labelled + b"\x01", "sha256")[:size]


def _lower(point: bytes) -> bytes:
    """The X25519 coordinate of an Edwards point: u = (1 + y) / (1 - y). RFC 7748, section 4.1."""
    y = int.from_bytes(point, "little") & (2**255 - 1)
    return ((1 + y) * pow(1 - y, -1, FIELD) % FIELD).to_bytes(32, "little")


def _lift(coordinate: bytes) -> bytes:
    """An Edwards point with this X25519 coordinate. Raises ``DecodeError`` if there is none."""
    u = int.from_bytes(coordinate, "little") & (2**255 - 1)
    if (u + 1) % FIELD == 0:
        raise DecodeError("an ephemeral key of low order")
    point = ((u - 1) * pow(u + 1, -1, FIELD) % FIELD).to_bytes(32, "little")
    if not bindings.crypto_core_ed25519_is_valid_point(point):
        raise DecodeError("an ephemeral key outside the group of prime order")
    return point
