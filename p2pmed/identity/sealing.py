"""Secrecy of bytes: sealing under a key, and wrapping to the one who may read.

Rule of this file: one suite, named by a small number in everything sealed or wrapped. Another
number is refused, so nobody can talk a reader down to something weaker (DES, which older
papers name, included). Implements ``docs/protocols/records.md``, clauses 1 to 4.

Suite 1:

* wrapping: HPKE base mode (RFC 9180), DHKEM(X25519, HKDF-SHA256), HKDF-SHA256,
  ChaCha20-Poly1305, by the ``cryptography`` package;
* sealing: XChaCha20-Poly1305 (libsodium) with associated data;
* deriving: HKDF-SHA256 (RFC 5869), 64 bytes;
* padding: ISO/IEC 7816-4, to a length that tells little.

What it does not do: it does not prove who sealed (transactions are signed), keeps no key, and
cannot erase one: Python has no way to overwrite ``bytes``. A nonce, salt or key comes from the
injected ``Entropy`` only. The one exception is HPKE's ephemeral key, which the ``cryptography``
package draws itself; a seeded simulator hands in another ``Wrapper`` (``testing/wrapping.py``)
that writes the same format.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Final, Protocol

from nacl import bindings
from nacl.exceptions import CryptoError

from p2pmed.errors import DecodeError, Denied, InvalidTransaction
from p2pmed.wire import cbor
from p2pmed.wire.hashing import hash_bytes

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.hpke import Suite

__all__ = [
    "BOX_ID_BYTES",
    "HPKE",
    "KEY_BYTES",
    "SUITE",
    "TAG_BYTES",
    "WRAP_BYTES",
    "BoxSecret",
    "HpkeWrapper",
    "Wrapper",
    "box_id",
    "box_public",
    "check_suite",
    "derive",
    "info_of",
    "open_sealed",
    "pad",
    "seal",
    "unpad",
    "unwrap",
    "wrap",
]

SUITE: Final = 1
"""The only suite there is."""
KEY_BYTES: Final = 32
NONCE_BYTES: Final = 24
TAG_BYTES: Final = 16
BOX_ID_BYTES: Final = 16
WRAP_BYTES: Final = 1 + 32 + TAG_BYTES
"""What wrapping adds: suite, ephemeral public key, tag."""

PROTOCOL: Final = "p2pmed/1"


class Wrapper(Protocol):
    """The sending half of HPKE base mode in suite 1."""

    def wrap(self, recipient: bytes, plaintext: bytes, info: bytes) -> bytes:
        """The ephemeral public key (32 bytes) and the ciphertext with its tag.

        ``recipient`` is an X25519 public key (32 bytes). Raises ``ValueError`` if no secret
        can be shared with it (a point of low order).
        """


class HpkeWrapper:
    """HPKE by the ``cryptography`` package, which draws the ephemeral key itself."""

    def wrap(self, recipient: bytes, plaintext: bytes, info: bytes) -> bytes:
        """See ``Wrapper.wrap``."""
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

        return _suite().encrypt(plaintext, X25519PublicKey.from_public_bytes(recipient), info)


HPKE: Final[Wrapper] = HpkeWrapper()


class BoxSecret(Protocol):
    """An X25519 secret that somebody else keeps: it can be used, and not be read."""

    @property
    def public(self) -> bytes:
        """The public half (32 bytes)."""

    def unwrap(self, wrapped: bytes, *, domain: str, context: Sequence[bytes | str]) -> bytes:
        """As ``sealing.unwrap``."""


@cache
def _suite() -> Suite:
    """Loaded when first used: the package takes longer to import than a record to seal."""
    from cryptography.hazmat.primitives import hpke

    return hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.CHACHA20_POLY1305)


def box_public(secret: bytes | BoxSecret) -> bytes:
    """The X25519 public key (32 bytes) of ``secret`` (32 bytes, or kept elsewhere)."""
    if not isinstance(secret, bytes):
        return secret.public
    return bindings.crypto_scalarmult_base(secret)


def box_id(public: bytes) -> bytes:
    """16 bytes that name an X25519 public key: the first half of its BLAKE2b-256."""
    return hash_bytes(public)[:BOX_ID_BYTES]


def check_suite(suite: int) -> None:
    """Raises ``DecodeError`` unless ``suite`` is the one there is."""
    if suite != SUITE:
        raise DecodeError(f"sealed with suite {suite}, and only {SUITE} is known")


def wrap(
    recipient: bytes,
    plaintext: bytes,
    *,
    domain: str,
    context: Sequence[bytes | str],
    wrapper: Wrapper = HPKE,
) -> bytes:
    """``plaintext`` readable by the holder of ``recipient``'s secret alone.

    It opens only under the same ``domain`` and ``context``. The result is ``WRAP_BYTES`` longer.
    Raises ``InvalidTransaction`` if ``recipient`` is no usable X25519 public key.
    """
    try:
        sent = wrapper.wrap(recipient, plaintext, info_of(domain, context))
    except ValueError:
        raise InvalidTransaction("the grantee's encryption key is not a usable one") from None
    return bytes([SUITE]) + sent


def unwrap(
    secret: bytes | BoxSecret, wrapped: bytes, *, domain: str, context: Sequence[bytes | str]
) -> bytes:
    """Inverse of ``wrap``, by the X25519 ``secret`` (32 bytes, or kept elsewhere).

    Raises ``DecodeError`` for a suite or a length that cannot be, ``Denied`` if it was wrapped
    to another key, under another context, or has been altered: the three look alike.
    """
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    if not isinstance(secret, bytes):
        return secret.unwrap(wrapped, domain=domain, context=context)
    if len(wrapped) < WRAP_BYTES:
        raise DecodeError(f"a wrapped key of {len(wrapped)} bytes")
    check_suite(wrapped[0])
    try:
        return _suite().decrypt(
            wrapped[1:], X25519PrivateKey.from_private_bytes(secret), info_of(domain, context)
        )
    except (InvalidTag, ValueError):
        raise Denied(
            "these keys are not wrapped to this reader",
            hint="ask the patient, or two custodians, for a grant",
        ) from None


def seal(key: bytes, nonce: bytes, plaintext: bytes, associated: bytes) -> bytes:
    """XChaCha20-Poly1305 of ``plaintext``, ``TAG_BYTES`` longer.

    ``key`` has 32 bytes and ``nonce`` 24; a pair is used for one plaintext only.
    """
    return bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(plaintext, associated, nonce, key)


def open_sealed(key: bytes, nonce: bytes, sealed: bytes, associated: bytes) -> bytes:
    """Inverse of ``seal``. Raises ``DecodeError`` if anything but one bit-exact set is given."""
    try:
        return bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(sealed, associated, nonce, key)
    except (CryptoError, ValueError):
        raise DecodeError("a sealed body that does not open: altered, or not this key's") from None


def derive(key: bytes, *, salt: bytes, info: bytes) -> bytes:
    """64 bytes by HKDF-SHA256 from ``key``; other ``salt`` or ``info``, other bytes."""
    extracted = hmac.digest(salt, key, "sha256")
    first = hmac.digest(extracted, info + b"\x01", "sha256")
    return first + hmac.digest(extracted, first + info + b"\x02", "sha256")


def pad(plaintext: bytes, step_min: int) -> bytes:
    """``plaintext``, 0x80, zeros: up to a multiple of a step.

    The step is ``step_min`` bytes, or for longer plaintext the power of two between a
    sixteenth and an eighth of it: a length tells its first four bits, and padding costs at
    most an eighth.
    """
    size = len(plaintext) + 1
    step = max(step_min, 1 << max(size.bit_length() - 4, 0))
    return plaintext + b"\x80" + bytes(-size % step)


def unpad(padded: bytes) -> bytes:
    """Inverse of ``pad``. Raises ``DecodeError`` if there is no padding."""
    plaintext = padded.rstrip(b"\x00")
    if plaintext[-1:] != b"\x80":
        raise DecodeError("a sealed body without its padding")
    return plaintext[:-1]


def info_of(domain: str, context: Sequence[bytes | str]) -> bytes:
    """HPKE's ``info``: protocol, domain, suite and context, in the one spelling."""
    # ``str`` of an enumeration's member is its plain value, which alone has a spelling.
    plain = [str(part) if isinstance(part, str) else part for part in context]
    return cbor.encode([PROTOCOL, domain, SUITE, *plain])
