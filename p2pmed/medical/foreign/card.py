"""A foreign card: what it is, who signed it, and what it says as FHIR resources.

``read_card`` tells the format by its first characters: ``shc:/`` a SMART Health Card's QR code,
``HC1:`` an EU certificate's, three dotted parts a card's JWS itself.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from p2pmed.errors import CredentialError, DecodeError
from p2pmed.medical.foreign.issuers import IssuerKey, Issuers

__all__ = ["ForeignCard", "inflated", "read_card", "signed_by"]

CARD_CHARS_MAX: Final = 64 * 1024
"""A whole International Patient Summary is 30,000 numerals in three chunks."""
CARD_BYTES_MAX: Final = 1024 * 1024
"""Inflated; a card is at most some kilobytes, and a bomb must stop early."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ForeignCard:
    """A card whose signature was checked."""

    format: str
    """``smart-health-card`` or ``eu-dcc``."""
    issuer: str
    """As the card names it."""
    signer: str
    """As the believed key's file names it."""
    issued_ms: int
    expires_ms: int | None
    expired: bool
    """At the moment that was asked for: shown, since a past vaccination stays true."""
    patient: bytes
    """FHIR Patient: name and birth date as on the card, to be compared with its holder."""
    resources: tuple[bytes, ...]
    """FHIR resources, without the patient."""


def read_card(
    chunks: Sequence[str], issuers: Issuers, *, at_ms: int, revoked: Sequence[str] = ()
) -> ForeignCard:
    """The card that ``chunks`` (one QR code's text, or all of a card cut in several) hold.

    ``at_ms`` is now, in milliseconds since 1970; ``revoked`` are SMART revocation ids.
    Raises ``DecodeError`` if it is no card, ``CredentialError`` if nobody believed signed it.
    """
    from p2pmed.medical.foreign.covid_certificate import read_covid_certificate
    from p2pmed.medical.foreign.health_card import read_health_card

    texts = [chunk.strip() for chunk in chunks]
    if not texts or sum(map(len, texts)) > CARD_CHARS_MAX:
        raise DecodeError(f"no card, or one of more than {CARD_CHARS_MAX} characters")
    if texts[0].startswith("HC1:"):
        if len(texts) > 1:
            raise DecodeError("an EU certificate is one QR code")
        return read_covid_certificate(texts[0], issuers, at_ms=at_ms)
    if texts[0].startswith("shc:/") or texts[0].count(".") == 2:
        return read_health_card(texts, issuers, at_ms=at_ms, revoked=revoked)
    raise DecodeError("not a card that is known here: it begins neither with shc:/ nor with HC1:")


def inflated(data: bytes, *, raw: bool) -> bytes:
    """One whole deflate stream (``raw``: without the zlib head). Raises ``DecodeError``."""
    stream = zlib.decompressobj(-15 if raw else 15)
    try:
        result = stream.decompress(data, CARD_BYTES_MAX)
    except zlib.error:
        raise DecodeError("a card that does not inflate") from None
    if stream.unconsumed_tail:
        raise DecodeError(f"a card that inflates beyond {CARD_BYTES_MAX} bytes")
    if not stream.eof or stream.unused_data:
        raise DecodeError("a card that is not one whole stream")
    return result


def signed_by(
    keys: Sequence[IssuerKey], signature: bytes, message: bytes, *, pss: bool = False
) -> IssuerKey:
    """Which of ``keys`` signed: ES256 (r and s, 64 bytes), or PS256 with ``pss``.

    Raises ``CredentialError`` if none did.
    """
    if not keys:
        raise CredentialError(
            "signed by nobody who is believed here", hint="give the issuer's public key"
        )
    for key in keys:
        if _holds(key, signature, message, pss=pss):
            return key
    raise CredentialError("a card whose signature does not hold: altered, or not this issuer's")


def _holds(key: IssuerKey, signature: bytes, message: bytes, *, pss: bool) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
    from cryptography.hazmat.primitives.hashes import SHA256

    try:
        if pss and isinstance(key.public, rsa.RSAPublicKey):
            mask = padding.PSS(mgf=padding.MGF1(SHA256()), salt_length=32)
            key.public.verify(signature, message, mask, SHA256())
            return True
        if not pss and isinstance(key.public, ec.EllipticCurvePublicKey) and len(signature) == 64:
            r, s = (int.from_bytes(half, "big") for half in (signature[:32], signature[32:]))
            der = utils.encode_dss_signature(r, s)
            key.public.verify(der, message, ec.ECDSA(SHA256()))
            return True
    except InvalidSignature:
        return False
    return False
