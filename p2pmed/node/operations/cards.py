"""Cards: made, read, revoked, and made again by custodians.

Answers of what makes a card hold its text, which is a secret: for who prints it, and nobody's
log. ``card`` in the arguments is the text that a scanner reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from p2pmed.identity.keystore import KEYSTORE_BYTES_MAX, open_keystore, seal_keystore
from p2pmed.identity.persons import PersonKeys
from p2pmed.limits import RECORD_BYTES_MAX
from p2pmed.medical.privacy.cards import (
    EMERGENCY_PREFIX,
    CardKind,
    EmergencySet,
    fallback_number,
    parse_emergency,
)
from p2pmed.medical.privacy.custody import card_requests
from p2pmed.node.care.cards import PrintedCard
from p2pmed.node.care.hands import Hand
from p2pmed.node.new_file import NewFile
from p2pmed.node.node import Node
from p2pmed.node.operations.arguments import Arguments, Operation, Report
from p2pmed.node.operations.general import wait_final
from p2pmed.node.operations.lookup import (
    describe_device,
    find_one,
    find_patient,
    now_ms,
    outcome,
)
from p2pmed.node.operations.patients import box_key, demographics_of, moment_text

__all__ = ["OPERATIONS", "hand_of"]

DAY_MS: Final = 86_400_000
TEXT_CHARS_MAX: Final = 2_000


def printed(card: PrintedCard) -> dict[str, Any]:
    """A card as plain values."""
    return {"card": card.card.hex(), "text": card.text, "number": card.number}


async def hand_of(node: Node, arguments: Arguments) -> Hand | None:
    """The patient's hand if a card's text was given (``card``, ``card_pin``), or ``None``."""
    text = arguments.text("card", "", limit=TEXT_CHARS_MAX)
    if not text:
        return None
    return await node.cards.open(text, pin=arguments.text("card_pin", "", limit=256))


async def enrol(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Register a patient with a card: as ``patient.register``, and ``pin``, ``guardian_card``."""
    raw = arguments.text("fhir", None, limit=RECORD_BYTES_MAX)
    readers = [box_key(node, text) for text in arguments.texts("readers", count_max=16)]
    guardian = arguments.text("guardian_card", "", limit=TEXT_CHARS_MAX)
    key = b""
    if guardian:
        pin = arguments.text("guardian_pin", "", limit=256)
        key = (await node.cards.open(guardian, pin=pin)).secrets.patient_key
    made = await node.cards.enrol(
        raw.encode() if raw is not None else demographics_of(node, arguments),
        pin=arguments.text("pin", "", limit=256),
        guardian=key,
        catchment=arguments.text("catchment", "", limit=256),
        readers=readers,
    )
    await wait_final(made.receipt, arguments)
    family = printed(made.family) if made.family else None
    return {
        "patient": made.patient.hex(),
        **outcome(made.receipt),
        "printed": printed(made.card),
        "family": family,
    }


async def issue(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """One more card, with a card of the patient; the first, for who was registered without."""
    await node.catch_up()
    pin = arguments.text("pin", "", limit=256)
    hand = await hand_of(node, arguments)
    if hand is not None:
        return {"patient": hand.patient.hex(), **printed(await node.cards.issue(hand, pin=pin))}
    patient = find_patient(node, arguments.text("patient"))
    return {"patient": patient.hex(), **printed(await node.cards.first(patient, pin=pin))}


async def revoke(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Say that nobody shall take a card any more: ``patient``, and the first digits of its id."""
    await node.catch_up()
    patient = find_patient(node, arguments.text("patient"))
    wanted = find_one(
        node.cards.known(patient), arguments.text("id"), "card", "see `p2pmed card list`"
    )
    receipt = await node.cards.revoke(wanted, reason=arguments.text("reason", "lost", limit=32))
    await wait_final(receipt, arguments)
    return outcome(receipt)


async def list_cards(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """A patient's cards."""
    await node.catch_up()
    patient = find_patient(node, arguments.text("patient"))
    rows = [
        {
            "card": name.hex(),
            "number": fallback_number(name),
            "family": row.kind == CardKind.FAMILY,
            "revoked": row.revoked,
        }
        for name, row in node.cards.known(patient).items()
    ]
    return {"patient": patient.hex(), "cards": rows}


async def scan(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """What a card or an emergency set says, checked offline. Nothing is opened."""
    await node.catch_up()
    text = arguments.text("card", limit=TEXT_CHARS_MAX)
    if text.strip().startswith(EMERGENCY_PREFIX):
        found, issuer = parse_emergency(text, network=node.network)
        return {
            "kind": "emergency",
            "issuer": describe_device(node.state(), issuer),
            "day": found.made,
            "blood": found.blood,
            "allergies": list(found.allergies),
            "drugs": list(found.drugs),
        }
    scanned = node.cards.scan(text)
    family = scanned.row is not None and scanned.row.kind == CardKind.FAMILY
    return {
        "kind": "family" if family else "patient",
        "patient": scanned.card.patient.hex(),
        "card": scanned.card.card.hex(),
        "number": fallback_number(scanned.card.card),
        "issuer": describe_device(node.state(), scanned.issuer),
        "trusted": scanned.trusted,
        "known": scanned.row is not None,
        "revoked": scanned.row.revoked if scanned.row else None,
        "good": scanned.good,
        "emergencies": [
            f"{moment_text(event.row.opened)} {event.row.reason.value}, "
            f"{event.row.finding or 'not reviewed'}"
            for event in node.emergency.known(scanned.card.patient)
        ],
    }


async def fallback(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """The patients whose card has a number of seven digits: one, or some to pick from."""
    await node.catch_up()
    found = node.cards.by_number(arguments.text("number", limit=16).strip())
    rows = [
        {"patient": row.patient.hex(), "card": name.hex(), "revoked": row.revoked}
        for name, row in found
    ]
    return {"cards": rows}


async def emergency(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """The text of a second code: blood group, allergies, drugs; signed, without any secret."""
    found = EmergencySet(
        version=1,
        made=max(0, now_ms(node) // DAY_MS),
        blood=arguments.text("blood", "", limit=16),
        allergies=tuple(arguments.texts("allergies", count_max=8)),
        drugs=tuple(arguments.texts("drugs", count_max=8)),
    )
    return {"text": node.cards.emergency(found)}


# --- lost, and made again -----------------------------------------------------------------------


async def request(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """A patient's card is lost: ask the custodians for their shares."""
    await node.catch_up()
    patient = find_patient(node, arguments.text("patient"))
    receipt = await node.cards.custodians.request(
        patient, reason=arguments.text("reason", "lost", limit=32)
    )
    await wait_final(receipt, arguments)
    return {"request": receipt.id.hex(), **outcome(receipt)}


async def requests(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Requests for which this device keeps a share that it has not given."""
    await node.catch_up()
    rows = [
        {"patient": patient.hex(), "request": name.hex()}
        for patient, name in node.cards.custodians.asked()
    ]
    return {"requests": rows}


async def person(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Make a staff member's own keys, in a file under a passphrase of theirs."""
    keys = PersonKeys.generate(node.world.entropy)
    sealed = seal_keystore(
        keys.to_secret_bytes(),
        arguments.text("person_passphrase", limit=256),
        entropy=node.world.entropy,
    )
    with NewFile(Path(arguments.text("file"))) as file:
        file.write(sealed)
        file.keep()
    return {"person": keys.person.hex()}


def _person(arguments: Arguments) -> PersonKeys:
    path = Path(arguments.text("person_file"))
    with path.open("rb") as file:
        raw = file.read(KEYSTORE_BYTES_MAX + 1)
    secret = open_keystore(raw, arguments.text("person_passphrase", limit=256))
    return PersonKeys.from_secret_bytes(secret)


def _request(node: Node, arguments: Arguments) -> tuple[bytes, bytes]:
    """Patient and request, by the first digits of the request."""
    known = {name: patient for patient, name in card_requests(node.state())}
    wanted = find_one(known, arguments.text("request"), "request", "see `p2pmed card requests`")
    return known[wanted], wanted


async def release(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Give this device's share, or a family card's (``card``), on a person's signed word."""
    await node.catch_up()
    patient, name = _request(node, arguments)
    word = _person(arguments)
    text = arguments.text("card", "", limit=TEXT_CHARS_MAX)
    if text:
        receipt = await node.cards.release_by_family(patient, name, text, word)
    else:
        receipt = await node.cards.custodians.release(patient, name, word)
    await wait_final(receipt, arguments)
    return outcome(receipt)


async def reissue(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """The new card, once two custodians released their shares; older cards are revoked."""
    await node.catch_up()
    patient, name = _request(node, arguments)
    pin = arguments.text("pin", "", limit=256)
    return {"patient": patient.hex(), **printed(await node.cards.reissue(patient, name, pin=pin))}


OPERATIONS: Final[Mapping[str, Operation]] = {
    "card.enrol": enrol,
    "card.issue": issue,
    "card.revoke": revoke,
    "card.list": list_cards,
    "card.scan": scan,
    "card.fallback": fallback,
    "card.emergency": emergency,
    "card.request": request,
    "card.requests": requests,
    "card.person": person,
    "card.release": release,
    "card.reissue": reissue,
}
