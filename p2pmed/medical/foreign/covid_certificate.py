"""EU Digital COVID Certificates: a COSE-signed CWT in base45, vaccination, test or recovery.

eHealth Network, "Technical Specifications for EU Digital COVID Certificates", volumes 1 and 3.
ES256 or PS256; the key id may stand in either header; certificates limit what they may sign.
The claims become FHIR: a vaccination an Immunization, a test an Observation, a recovery a
Condition. Codes are carried with their systems and not translated.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Final

from p2pmed.errors import CredentialError, DecodeError
from p2pmed.medical.foreign.card import ForeignCard, inflated, signed_by
from p2pmed.medical.foreign.issuers import IssuerKey, Issuers
from p2pmed.wire import base45, cbor

__all__ = ["read_covid_certificate"]

ES256, PS256 = -7, -37
ALGORITHM, KEY_ID = 1, 4
ISSUER, EXPIRY, ISSUED, CERTIFICATE = 1, 4, 6, -260
SIGN1_TAG: Final = 18
SNOMED: Final = "http://snomed.info/sct"
ATC: Final = "http://www.whocc.no/atc"
LOINC: Final = "http://loinc.org"
EU_PRODUCT: Final = "https://ec.europa.eu/health/documents/community-register/html/"
_DAY: Final = re.compile(r"\A\d{4}-\d\d-\d\d")
_BIRTH: Final = re.compile(r"\A\d{4}(-\d\d(-\d\d)?)?")


def read_covid_certificate(text: str, issuers: Issuers, *, at_ms: int) -> ForeignCard:
    """See ``card.read_card``."""
    packed = base45.decode(text.removeprefix("HC1:"))
    message = cbor.decode_foreign(inflated(packed, raw=False), tag=SIGN1_TAG)
    protected, payload, signature, kid, algorithm = _opened(message)
    structure = cbor.encode(["Signature1", protected, b"", payload])
    key = signed_by(issuers.of(kid), signature, structure, pss=algorithm == PS256)
    claims = cbor.decode_foreign(payload)
    try:
        issued, expires = int(claims[ISSUED]) * 1000, int(claims[EXPIRY]) * 1000
        certificate, issuer = claims[CERTIFICATE][1], str(claims.get(ISSUER, ""))
        family = next(name for name in ("v", "t", "r") if certificate.get(name))
        resource = _FAMILIES[family](certificate[family][0])
        patient = _patient(certificate)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, StopIteration):
        raise DecodeError("a signed payload that is not an EU certificate's") from None
    _check_key(key, family, issued)
    return ForeignCard(
        format="eu-dcc",
        issuer=issuer,
        signer=key.name,
        issued_ms=issued,
        expires_ms=expires,
        expired=expires <= at_ms,
        patient=patient,
        resources=(resource,),
    )


def _opened(message: Any) -> tuple[bytes, bytes, bytes, bytes, int]:
    """Protected header, payload, signature, key id and algorithm of a COSE_Sign1."""
    try:
        protected, unprotected, payload, signature = message
        header = cbor.decode_foreign(protected)
        kid, algorithm = header.get(KEY_ID) or unprotected[KEY_ID], header[ALGORITHM]
        whole = all(isinstance(part, bytes) for part in (payload, signature, kid))
    except (ValueError, TypeError, KeyError, AttributeError):
        raise DecodeError("not the COSE message of an EU certificate") from None
    if not whole or algorithm not in (ES256, PS256):
        raise DecodeError("an EU certificate is signed with ES256 or PS256; this one is not")
    return protected, payload, signature, kid, algorithm


def _check_key(key: IssuerKey, family: str, issued_ms: int) -> None:
    if key.uses and family not in key.uses:
        raise CredentialError("signed with a key whose certificate is for other kinds of card")
    if key.until_ms is not None and issued_ms > key.until_ms:  # some issuers date back, none ahead
        raise CredentialError("signed after the signer's certificate had ended")


def _patient(certificate: Any) -> bytes:
    name, birth = certificate["nam"], _BIRTH.match(certificate["dob"])
    human = {
        "family": name.get("fn") or name["fnt"],
        "given": [part] if (part := name.get("gn") or name.get("gnt")) else [],
    }
    whose: dict[str, Any] = {"resourceType": "Patient", "name": [_filled(human)]}
    if birth is not None and birth[0]:
        whose["birthDate"] = birth[0]
    return _spelled(whose)


def _vaccination(said: Any) -> bytes:
    return _spelled(
        {
            "resourceType": "Immunization",
            "status": "completed",
            "vaccineCode": _codes(
                (_vaccine_system(said["vp"]), said["vp"]), (EU_PRODUCT, said["mp"])
            ),
            "occurrenceDateTime": _day(said["dt"]),
            "primarySource": False,
            "reportOrigin": {"text": f"{_text(said['is'])} ({said['co'] or 'no country'})"},
            "identifier": [{"value": _text(said["ci"])}],
            "protocolApplied": [
                {
                    "targetDisease": [_coded(SNOMED, said["tg"])],
                    **_doses(said),
                }
            ],
        }
    )


def _test(said: Any) -> bytes:
    return _spelled(
        {
            "resourceType": "Observation",
            "status": "final",
            "code": _coded(LOINC, said["tt"]),
            "effectiveDateTime": _text(said["sc"]),
            "valueCodeableConcept": _coded(SNOMED, said["tr"]),
            "identifier": [{"value": _text(said["ci"])}],
            "performer": [{"display": _text(said.get("tc") or said["is"])}],
        }
    )


def _recovery(said: Any) -> bytes:
    return _spelled(
        {
            "resourceType": "Condition",
            "clinicalStatus": _coded(
                "http://terminology.hl7.org/CodeSystem/condition-clinical", "resolved"
            ),
            "code": _coded(SNOMED, said["tg"]),
            "onsetDateTime": _day(said["fr"]),
            "identifier": [{"value": _text(said["ci"])}],
        }
    )


_FAMILIES: Final[dict[str, Callable[[Any], bytes]]] = {
    "v": _vaccination,
    "t": _test,
    "r": _recovery,
}


def _vaccine_system(code: Any) -> str:
    return SNOMED if str(code).isdigit() else ATC


def _coded(system: str, code: Any) -> dict[str, Any]:
    return _codes((system, code))


def _codes(*coded: tuple[str, Any]) -> dict[str, Any]:
    """A CodeableConcept of those codes that are not empty: some issuers leave one out."""
    coding = [{"system": system, "code": _text(code)} for system, code in coded if code != ""]
    return {"coding": coding} if coding else {"text": "not stated on the certificate"}


def _text(value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 256:
        raise ValueError("not a text of a certificate")
    return value


def _doses(said: Any) -> dict[str, Any]:
    """Which dose of how many; where a number is 0, as some issuers write, only in words."""
    dose, series = said["dn"], said["sd"]
    if any(type(number) is not int or not 0 <= number <= 99 for number in (dose, series)):
        raise ValueError("not a number of doses")
    if not dose or not series:
        return {"doseNumberString": f"{dose} of {series}"}
    return {"doseNumberPositiveInt": dose, "seriesDosesPositiveInt": series}


def _day(value: Any) -> str:
    match = _DAY.match(_text(value))
    if match is None:
        raise ValueError("not a date")
    return match[0]


def _filled(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value}


def _spelled(resource: Any) -> bytes:
    return json.dumps(resource, ensure_ascii=False, separators=(",", ":")).encode()
