"""Whose cards are believed: public keys from a JWKS or from X.509 certificates, held offline.

A key counts for what its certificate allows, in the time its certificate holds. There is no
chain building and no fetching: the operator gives the signers' keys themselves, as the EU's
and the SMART trust lists publish them.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from p2pmed.errors import ConfigError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

__all__ = ["IssuerKey", "Issuers", "read_certificate", "read_jwks", "unpadded"]

ISSUER_BYTES_MAX: Final = 256 * 1024
KEYS_MAX: Final = 1_024
_USES: Final = {
    "1.3.6.1.4.1.1847.2021.1.1": "t",
    "1.3.6.1.4.1.1847.2021.1.2": "v",
    "1.3.6.1.4.1.1847.2021.1.3": "r",
    "1.3.6.1.4.1.0.1847.2021.1.1": "t",
    "1.3.6.1.4.1.0.1847.2021.1.2": "v",
    "1.3.6.1.4.1.0.1847.2021.1.3": "r",
}
"""Extended key usages of EU document signers (eHealth Network, DCC volume 1): test,
vaccination, recovery; with the arc that some countries wrote by mistake."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class IssuerKey:
    """One signer's public key, and what it may sign."""

    name: str
    """For people: whose key this is."""
    kid: bytes
    public: PublicKeyTypes
    uses: frozenset[str] = frozenset()
    """``t``, ``v``, ``r``; empty: everything."""
    until_ms: int | None = None


class Issuers:
    """The keys that are believed, by key id; several may share one (ids are eight bytes)."""

    def __init__(self, keys: Iterable[IssuerKey]) -> None:
        self._keys: dict[bytes, list[IssuerKey]] = {}
        for count, key in enumerate(keys, 1):
            if count > KEYS_MAX:
                raise ConfigError(f"more than {KEYS_MAX} issuers' keys")
            self._keys.setdefault(key.kid, []).append(key)

    def of(self, kid: bytes) -> list[IssuerKey]:
        """Every key of this id; empty if none is believed."""
        return self._keys.get(kid, [])


def unpadded(text: str) -> bytes:
    """Base64url without padding (RFC 7515, section 2). Raises ``ValueError``."""
    if not text.isascii() or any(c in text for c in "+/="):
        raise ValueError("not base64url without padding")
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)


def read_jwks(raw: bytes, *, name: str = "") -> list[IssuerKey]:
    """The P-256 keys of a JWKS (RFC 7517), as SMART Health Card issuers publish it.

    A key whose ``kid`` is not its thumbprint (RFC 7638) is refused, as the framework demands.
    Raises ``ConfigError`` naming the key by its place.
    """
    if len(raw) > ISSUER_BYTES_MAX:
        raise ConfigError(f"a key file of {len(raw)} bytes where {ISSUER_BYTES_MAX} are allowed")
    try:
        keys = json.loads(raw)["keys"]
        if not isinstance(keys, list):
            raise TypeError
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ConfigError("not a JSON Web Key Set", hint='expected {"keys": [...]}') from None
    return [_jwk(key, place, name) for place, key in enumerate(keys)]


def _jwk(key: Any, place: int, name: str) -> IssuerKey:
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicNumbers

    try:
        if (key["kty"], key["crv"]) != ("EC", "P-256"):
            raise ConfigError(f"keys[{place}]: only EC P-256 keys sign SMART Health Cards")
        spelled = {part: key[part] for part in ("crv", "kty", "x", "y")}
        thumbprint = hashlib.sha256(
            json.dumps(spelled, separators=(",", ":"), sort_keys=True).encode()
        ).digest()
        if unpadded(key["kid"]) != thumbprint:
            raise ConfigError(f"keys[{place}].kid: not the thumbprint of the key")
        x, y = (int.from_bytes(unpadded(key[part]), "big") for part in "xy")
        public = EllipticCurvePublicNumbers(x, y, SECP256R1()).public_key()
    except (KeyError, TypeError, ValueError, AttributeError, binascii.Error):
        raise ConfigError(f"keys[{place}]: not a usable public key") from None
    return IssuerKey(name=name, kid=thumbprint, public=public)


def read_certificate(raw: bytes) -> IssuerKey:
    """A document signer's X.509 certificate, PEM or DER. Raises ``ConfigError``.

    Its key id is the first eight bytes of the SHA-256 of the DER form, as the EU defines it.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    if len(raw) > ISSUER_BYTES_MAX:
        raise ConfigError(f"a certificate of {len(raw)} bytes where {ISSUER_BYTES_MAX} are allowed")
    try:
        pem = raw.lstrip().startswith(b"-----")
        load = x509.load_pem_x509_certificate if pem else x509.load_der_x509_certificate
        certificate = load(raw)
        der = certificate.public_bytes(Encoding.DER)
        return IssuerKey(
            name=certificate.subject.rfc4514_string(),
            kid=hashlib.sha256(der).digest()[:8],
            public=certificate.public_key(),
            uses=_uses(certificate),
            until_ms=_milliseconds(certificate.not_valid_after_utc),
        )
    except (ValueError, TypeError):
        raise ConfigError("not an X.509 certificate with a usable key") from None


def _uses(certificate: Any) -> frozenset[str]:
    from cryptography import x509

    try:
        extension = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    except x509.ExtensionNotFound:
        return frozenset()
    named = (usage.dotted_string for usage in extension.value)
    return frozenset(_USES[oid] for oid in named if oid in _USES)


def _milliseconds(moment: datetime) -> int:
    return int(moment.astimezone(UTC).timestamp()) * 1000
