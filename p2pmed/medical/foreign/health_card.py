"""SMART Health Cards (framework 1.4): a FHIR bundle in a signed, deflated JWS, as QR numerals.

Numerals: each two digits are a character, 45 below its ASCII code. Cards in several chunks are
deprecated and still met. ES256 only; the key id is the thumbprint of a believed key.
"""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Sequence
from typing import Any, Final

from p2pmed.errors import CredentialError, DecodeError
from p2pmed.medical.foreign.card import ForeignCard, inflated, signed_by
from p2pmed.medical.foreign.issuers import Issuers, unpadded

__all__ = ["read_health_card"]

CHUNKS_MAX: Final = 32
RESOURCES_MAX: Final = 256
HEALTH_CARD: Final = "https://smarthealth.cards#health-card"
_QR: Final = re.compile(r"\Ashc:/(?:(\d{1,2})/(\d{1,2})/)?((?:\d\d)+)\Z")


def read_health_card(
    chunks: Sequence[str], issuers: Issuers, *, at_ms: int, revoked: Sequence[str] = ()
) -> ForeignCard:
    """See ``card.read_card``. ``revoked`` are ``rid`` or ``rid.seconds`` of the issuer's list."""
    jws = _joined(chunks) if chunks[0].startswith("shc:/") else chunks[0]
    try:
        head, payload, signature = jws.split(".")
        header = json.loads(unpadded(head))
        deflated, signed = unpadded(payload), unpadded(signature)
        kid = unpadded(header["kid"])
        claims = (header["alg"], header["zip"])
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error, RecursionError):
        raise DecodeError("not the JWS of a SMART Health Card") from None
    if claims != ("ES256", "DEF"):
        raise DecodeError("a SMART Health Card is signed with ES256 and deflated; this one is not")
    key = signed_by(issuers.of(kid), signed, f"{head}.{payload}".encode())
    return _card(inflated(deflated, raw=True), key.name, at_ms, revoked)


def _joined(chunks: Sequence[str]) -> str:
    parts: dict[int, str] = {}
    total = len(chunks)
    if total > CHUNKS_MAX:
        raise DecodeError(f"a card in {total} chunks where {CHUNKS_MAX} are allowed")
    for chunk in chunks:
        match = _QR.match(chunk)
        if match is None:
            raise DecodeError("not the numerals of a SMART Health Card's QR code")
        index, count = int(match[1] or 1), int(match[2] or 1)
        if count != total or not 1 <= index <= total or index in parts:
            raise DecodeError(f"chunk {index} of {count}, where {total} were given")
        digits = match[3]
        parts[index] = "".join(
            chr(int(digits[at : at + 2]) + 45) for at in range(0, len(digits), 2)
        )
    return "".join(parts[index] for index in sorted(parts))


def _card(raw: bytes, signer: str, at_ms: int, revoked: Sequence[str]) -> ForeignCard:
    try:
        payload = json.loads(raw)
        issuer, credential = payload["iss"], payload["vc"]
        issued = int(payload["nbf"] * 1000)
        expires = int(payload["exp"] * 1000) if "exp" in payload else None
        subject = credential["credentialSubject"]
        if HEALTH_CARD not in credential["type"] or not isinstance(issuer, str):
            raise ValueError
        bundle = [entry["resource"] for entry in subject["fhirBundle"]["entry"]]
        kinds = [resource["resourceType"] for resource in bundle]
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        raise DecodeError("a signed payload that is not a SMART Health Card's") from None
    if issued > at_ms:
        raise CredentialError("a card that is not valid yet, or this device's clock is behind")
    _check_revoked(credential.get("rid"), issued, revoked)
    if len(bundle) > RESOURCES_MAX or kinds.count("Patient") != 1:
        raise DecodeError("a card speaks of one patient, in at most 256 resources")
    whose = bundle.pop(kinds.index("Patient"))
    return ForeignCard(
        format="smart-health-card",
        issuer=issuer,
        signer=signer or issuer,
        issued_ms=issued,
        expires_ms=expires,
        expired=expires is not None and expires <= at_ms,
        patient=_spelled(whose),
        resources=tuple(_spelled(resource) for resource in bundle),
    )


def _check_revoked(rid: Any, issued_ms: int, revoked: Sequence[str]) -> None:
    """A revocation names a card, and with seconds only those issued before that moment."""
    for line in revoked:
        named, _, before = line.partition(".")
        if named == rid and (not before.isdigit() or issued_ms < int(before) * 1000):
            raise CredentialError("a card that its issuer has revoked")


def _spelled(resource: Any) -> bytes:
    return json.dumps(resource, ensure_ascii=False, separators=(",", ":")).encode()
