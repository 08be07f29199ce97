"""Cards that others signed (SMART, EU), read offline and taken into a patient's record.

Two steps on purpose: without ``patient`` the card is read and shown, nothing is kept; a person
compares it with its holder, then names the patient. What is kept is what the card says, and the
card itself, so that its issuer's signature can be checked again.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from p2pmed.errors import ConfigError, CredentialError, DecodeError
from p2pmed.medical.foreign import ForeignCard, Issuers, read_card, read_certificate, read_jwks
from p2pmed.medical.foreign.issuers import ISSUER_BYTES_MAX, IssuerKey
from p2pmed.medical.patients import patient_row
from p2pmed.node.fhir.describe import describe_person, describe_resource
from p2pmed.node.node import Node
from p2pmed.node.operations.arguments import Arguments, Operation, Report
from p2pmed.node.operations.general import wait_final
from p2pmed.node.operations.lookup import find_patient, now_ms

__all__ = ["OPERATIONS"]

CHUNKS_MAX: Final = 32
ISSUERS_MAX: Final = 64
_MEDIA: Final = {
    "smart-health-card": "application/smart-health-card",
    "eu-dcc": "application/vnd.eu.dcc",
}


async def take(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Read a card (``chunks``: QR texts) by ``issuers`` (key files in base64); keep it if a
    ``patient`` is named. ``same_person`` says that a person compared where birth dates differ.
    """
    chunks = arguments.texts("chunks", count_max=CHUNKS_MAX)
    keys: list[IssuerKey] = []
    for text in arguments.texts("issuers", count_max=ISSUERS_MAX):
        keys += _issuer_keys(text)
    revoked = arguments.texts("revoked", count_max=100_000)
    try:
        card = read_card(chunks, Issuers(keys), at_ms=now_ms(node), revoked=revoked)
    except (CredentialError, DecodeError) as error:
        raise ConfigError(f"card refused: {error}", hint=error.hint) from None
    holder = describe_person(card.patient)
    answer: dict[str, Any] = {
        "format": card.format,
        "issuer": card.issuer,
        "signer": card.signer,
        "expired": card.expired,
        "holder": holder,
        "records": [describe_resource(resource) for resource in card.resources],
        "patient": None,
        "kept": [],
    }
    if arguments.text("patient", None) is None:
        return answer
    await node.catch_up()
    pseudonym = find_patient(node, arguments.text("patient"))
    await _check_birth(node, pseudonym, card, same_person=arguments.flag("same_person"))
    for resource in (*card.resources, _document(card, chunks)):
        receipt = await node.patients.add(resource, patient=pseudonym)
        answer["kept"].append(receipt.id.hex())
    await wait_final(receipt, arguments)
    return {**answer, "patient": pseudonym.hex()}


def _issuer_keys(text: str) -> Sequence[IssuerKey]:
    try:
        raw = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        raise ConfigError("issuers: key files in base64 are needed") from None
    if len(raw) > ISSUER_BYTES_MAX:
        raise ConfigError(f"issuers: a key file of more than {ISSUER_BYTES_MAX} bytes")
    return read_jwks(raw) if raw.lstrip().startswith(b"{") else [read_certificate(raw)]


async def _check_birth(
    node: Node, pseudonym: bytes, card: ForeignCard, *, same_person: bool
) -> None:
    row = patient_row(node.state(), pseudonym)
    opened = await node.patients.opened(node.find(row.entry) if row else None)
    ours = json.loads(opened[1]).get("birthDate") if opened else None
    theirs = json.loads(card.patient).get("birthDate")
    if ours != theirs and not same_person:
        raise ConfigError(
            "the card's birth date is not that of the patient's record",
            hint="compare the card with its holder; if it is the same person add --same-person",
        )


def _document(card: ForeignCard, chunks: Sequence[str]) -> bytes:
    """The card as it was scanned: what a court or another clinic checks again."""
    text = "\n".join(chunk.strip() for chunk in chunks)
    attachment = {
        "contentType": _MEDIA[card.format],
        "data": base64.b64encode(text.encode()).decode(),
    }
    document = {
        "resourceType": "DocumentReference",
        "status": "current",
        "description": f"card signed by {card.issuer}"[:256],
        "content": [{"attachment": attachment}],
    }
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


OPERATIONS: Final[Mapping[str, Operation]] = {"card.take": take}
