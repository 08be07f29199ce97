"""Consent: granted, asked for, handed on, ended; who can read what; the patient's passphrase.

``card`` (the text that a scanner reads) and ``card_pin`` make it the patient's own word.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, Final

from p2pmed.errors import ConfigError
from p2pmed.identity.sealing import box_id
from p2pmed.medical.consent import Purpose
from p2pmed.medical.keyring import EVERY_CATEGORY, Category
from p2pmed.medical.membership import MEMBERS
from p2pmed.medical.privacy.emergency import emergency_of
from p2pmed.medical.privacy.policy import Audience
from p2pmed.node.care.readers import Reader
from p2pmed.node.node import Node
from p2pmed.node.operations.arguments import Arguments, Operation, Report
from p2pmed.node.operations.cards import TEXT_CHARS_MAX, hand_of
from p2pmed.node.operations.general import wait_final
from p2pmed.node.operations.lookup import (
    describe_device,
    find_device,
    find_one,
    find_patient,
    moment_ms,
    outcome,
)
from p2pmed.node.operations.patients import box_key, moment_text

__all__ = ["OPERATIONS"]

CATEGORIES_MAX: Final = len(Category)


def _one_of(kind: Any, text: str, name: str) -> Any:
    try:
        return kind(text)
    except ValueError:
        raise ConfigError(f"{name}: one of {', '.join(kind)} is needed") from None


def _categories(arguments: Arguments) -> tuple[Category, ...]:
    chosen = arguments.texts("categories", count_max=CATEGORIES_MAX)
    return tuple(_one_of(Category, text, "category") for text in chosen) or EVERY_CATEGORY


def _until(arguments: Arguments) -> int:
    until = arguments.text("until", None)
    return moment_ms(until, "until", end_of_day=True) if until is not None else 0


async def _patient(node: Node, arguments: Arguments) -> bytes:
    await node.catch_up()
    return find_patient(node, arguments.text("patient"))


async def grant(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Let another device or facility read: all of the patient's record, or ``categories``."""
    pseudonym = await _patient(node, arguments)
    purpose = _one_of(Purpose, arguments.text("purpose", Purpose.TREATMENT.value), "purpose")
    hand = await hand_of(node, arguments)
    answers = arguments.text("request", "")
    asked = {each.request: each for each in node.consent.requests.of(pseudonym)}
    hint = "see `p2pmed patient readers`"
    request = find_one(asked, answers, "request", hint) if answers else b""
    with node.opener.lent(pseudonym, hand.secrets) if hand else nullcontext():
        receipt = await node.consent.grant(
            pseudonym,
            asked[request].requester_key if request else box_key(node, arguments.text("reader")),
            categories=_categories(arguments),
            purpose=purpose,
            until_ms=_until(arguments),
            by=hand,
            answers=request,
        )
    await wait_final(receipt, arguments)
    return {"grant": receipt.id.hex(), **outcome(receipt)}


async def revoke(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """End a grant: its reader opens nothing here any more, and nothing new anywhere."""
    pseudonym = await _patient(node, arguments)
    held = [each.grant for each in node.consent.readers(pseudonym)]
    wanted = find_one(held, arguments.text("grant"), "grant", "see `p2pmed patient readers`")
    hand = await hand_of(node, arguments)
    with node.opener.lent(pseudonym, hand.secrets) if hand else nullcontext():
        receipt = await node.consent.revoke(pseudonym, wanted)
    await wait_final(receipt, arguments)
    return outcome(receipt)


async def delegate(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Make a guardian: the patient's ``card``, and the guardian's own (``guardian_card``)."""
    hand = await hand_of(node, arguments)
    if hand is None:
        raise ConfigError("the patient's card is needed", hint="give --card")
    guard = await node.cards.open(
        arguments.text("guardian_card", limit=TEXT_CHARS_MAX),
        pin=arguments.text("guardian_pin", "", limit=256),
    )
    with node.opener.lent(hand.patient, hand.secrets):
        receipt = await node.consent.delegate(
            hand.patient,
            guard.secrets.patient_key,
            guard.secrets.sign_key,
            by=hand,
            until_ms=_until(arguments),
            depth=arguments.number("depth", 0, high=1),
        )
    await wait_final(receipt, arguments)
    return {"patient": hand.patient.hex(), "grant": receipt.id.hex(), **outcome(receipt)}


async def request(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Ask a patient for leave to read."""
    pseudonym = await _patient(node, arguments)
    purpose = _one_of(Purpose, arguments.text("purpose", Purpose.TREATMENT.value), "purpose")
    receipt = await node.consent.requests.ask(
        pseudonym,
        _categories(arguments),
        purpose=purpose,
        until_ms=_until(arguments),
        words=arguments.text("words", "", limit=256),
    )
    await wait_final(receipt, arguments)
    return {"request": receipt.id.hex(), **outcome(receipt)}


async def readers(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Who can read a patient's record now, or one ``category`` of it, and who asks to."""
    pseudonym = await _patient(node, arguments)
    wanted = arguments.text("category", "")
    category = _one_of(Category, wanted, "category") if wanted else None
    hand = await hand_of(node, arguments)
    with node.opener.lent(pseudonym, hand.secrets) if hand else nullcontext():
        found = node.consent.readers(pseudonym, category)
        asked = node.consent.requests.of(pseudonym)
    state = node.state()
    names = {box_id(row.box_key): key for key, row in MEMBERS.scan(state)}
    return {
        "patient": pseudonym.hex(),
        "readers": [_reader(node, each, names) for each in found],
        "requests": [
            {
                "request": each.request.hex(),
                **describe_device(state, each.author),
                "purpose": each.purpose,
                "categories": list(each.categories) if each.categories is not None else None,
                "words": each.words,
            }
            for each in asked
            if not each.answered
        ],
    }


def _reader(node: Node, held: Reader, names: Mapping[bytes, bytes]) -> dict[str, Any]:
    state = node.state()
    device = names.get(held.grantee)
    who = describe_device(state, device) if device else {"device": None, "name": None}
    if held.facility:
        who = {"device": None, "name": f"everybody at {held.facility}", "place": held.facility}
    elif place := emergency_of(node.state(), held.grantee):
        who = {"device": None, "name": f"two at {place} in an emergency", "place": place}
    categories = held.categories
    return {
        "grant": held.grant.hex(),
        **who,
        "purpose": held.purpose,
        "until": moment_text(held.until_ms) if held.until_ms else None,
        "categories": [each.value for each in categories] if categories is not None else None,
        "by": "patient" if held.proven else "clinic",
        "under": held.under.hex() or None,
    }


async def policy(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """What a registration here wraps to whom; ``category`` and ``audiences`` change a row."""
    await node.catch_up()
    wanted = arguments.text("category", "")
    if wanted:
        category = _one_of(Category, wanted, "category")
        named = arguments.texts("audiences", count_max=len(Audience))
        chosen = [_one_of(Audience, text, "audience") for text in named]
        rows = {**node.consent.facility.policy(), category: tuple(chosen)}
        await node.consent.facility.set_policy(rows)
        await node.catch_up()
    found = node.consent.facility.policy()
    return {"policy": {key.value: [each.value for each in found[key]] for key in Category}}


async def facility(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Renew this facility's key for its staff's ``devices``, and patients' keys that need it."""
    await node.catch_up()
    named = [find_device(node, text) for text in arguments.texts("devices", count_max=32)]
    receipt = await node.consent.facility.publish(named or None)
    await node.catch_up()
    due = node.consent.facility.due()
    for number, patient in enumerate(due):
        report({"done": number, "of": len(due), "what": "patients"})
        await node.consent.rotate(patient, reason="staff-changed")
    return {"place": node.consent.facility.place, "patients": len(due), **outcome(receipt)}


async def passphrase(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Close a ``category`` with a passphrase of the patient's own, or (``open``) open it."""
    pseudonym = await _patient(node, arguments)
    category = _one_of(Category, arguments.text("category"), "category")
    words = arguments.text("words", "", limit=256)
    if arguments.flag("open"):
        await node.consent.passphrases.open(pseudonym, category, words)
        return {"patient": pseudonym.hex(), "open": category.value}
    receipt = await node.consent.passphrases.set(pseudonym, category, words)
    await wait_final(receipt, arguments)
    return outcome(receipt)


OPERATIONS: Final[Mapping[str, Operation]] = {
    "patient.grant": grant,
    "patient.revoke": revoke,
    "patient.delegate": delegate,
    "patient.request": request,
    "patient.readers": readers,
    "patient.policy": policy,
    "patient.facility": facility,
    "patient.passphrase": passphrase,
}
