"""Emergencies and the audit of readings, as people ask for them.

Staff speak by their own key files (``card person``): two to open, another one to review.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, TypeVar

from p2pmed.errors import ConfigError
from p2pmed.identity.keystore import KEYSTORE_BYTES_MAX, open_keystore
from p2pmed.identity.persons import PersonKeys
from p2pmed.medical.keyring import EVERY_CATEGORY, Category
from p2pmed.medical.privacy.emergency import Finding, Reason
from p2pmed.node.care.emergency import EmergencyEvent
from p2pmed.node.care.reads import ReadEvent
from p2pmed.node.node import Node
from p2pmed.node.operations.arguments import Arguments, Operation, Report
from p2pmed.node.operations.lookup import (
    describe_device,
    find_device,
    find_one,
    find_patient,
    outcome,
)
from p2pmed.node.operations.patients import moment_text

__all__ = ["OPERATIONS"]

CodeT = TypeVar("CodeT", bound=StrEnum)

STAFF_MAX: Final = 32
MINUTES_MAX: Final = 240


def _staff(arguments: Arguments, count: int) -> list[PersonKeys]:
    """People by ``person_files`` and ``person_passphrases``, one for each."""
    files = arguments.texts("person_files", count_max=STAFF_MAX)
    words = arguments.texts("person_passphrases", count_max=STAFF_MAX)
    if len(files) != len(words) or len(files) < count:
        raise ConfigError(f"key files of at least {count} people are needed", hint="give --person")
    return [_opened(Path(file), passphrase) for file, passphrase in zip(files, words, strict=True)]


def _opened(path: Path, passphrase: str) -> PersonKeys:
    with path.open("rb") as file:
        raw = file.read(KEYSTORE_BYTES_MAX + 1)
    return PersonKeys.from_secret_bytes(open_keystore(raw, passphrase))


def _one_of(arguments: Arguments, name: str, codes: type[CodeT]) -> CodeT:
    text, known = arguments.text(name), {code.value: code for code in codes}
    if text not in known:
        raise ConfigError(f"{name}: {text!r} is none", hint=", ".join(known))
    return known[text]


def _categories(names: Iterable[str]) -> list[Category]:
    known = {each.value: each for each in EVERY_CATEGORY}
    for name in names:
        if name not in known:
            raise ConfigError(f"no category is called {name!r}", hint=", ".join(known))
    return [known[name] for name in names] or list(EVERY_CATEGORY)


def _told(node: Node, event: EmergencyEvent) -> dict[str, Any]:
    row, now = event.row, node.opener.now_ms()
    return {
        "opening": event.opening.hex(),
        "patient": event.patient.hex(),
        "reason": row.reason.value,
        "categories": [category.value for category in row.categories],
        "opened": moment_text(row.opened),
        "until": moment_text(row.until),
        "people": [row.first.hex(), row.second.hex()],
        "device": describe_device(node.state(), row.author)["name"],
        "open": row.is_open(now),
        "finding": row.finding,
        "overdue": event.is_overdue(now),
    }


async def key(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Make this place's emergency key, shared by the people whose key files are given."""
    await node.catch_up()
    staff = _staff(arguments, 2)
    receipt = await node.emergency.publish({each.person: each.box_public for each in staff})
    return {**outcome(receipt), "holders": len(staff)}


async def open_record(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Open a patient's record on two people's word, for at most four hours."""
    await node.catch_up()
    event = await node.emergency.open(
        find_patient(node, arguments.text("patient")),
        _staff(arguments, 2),
        reason=_one_of(arguments, "reason", Reason),
        categories=_categories(arguments.texts("categories", count_max=len(Category))),
        for_ms=arguments.number("minutes", 60, low=1, high=MINUTES_MAX) * 60_000,
    )
    return _told(node, event)


def _opening(node: Node, arguments: Arguments) -> bytes:
    known = [event.opening for event in node.emergency.known()]
    return find_one(known, arguments.text("opening"), "emergency", "see `p2pmed emergency list`")


async def close(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """End an emergency before its time."""
    await node.catch_up()
    return outcome(await node.emergency.close(_opening(node, arguments)))


async def review(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """What somebody found who was not involved."""
    await node.catch_up()
    finding = _one_of(arguments, "finding", Finding)
    [person, *_] = _staff(arguments, 1)
    return outcome(await node.emergency.review(_opening(node, arguments), finding, person))


async def list_all(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Every emergency known here, the newest first; ``overdue``: only those without a review."""
    await node.catch_up()
    text = arguments.text("patient", "")
    patient = find_patient(node, text) if text else b""
    events = node.emergency.known(patient)
    if arguments.flag("overdue"):
        events = node.emergency.overdue()
    return {"emergencies": [_told(node, event) for event in events]}


def _read(node: Node, event: ReadEvent) -> dict[str, Any]:
    categories = None
    if event.records is not None:
        categories = sorted({category.value for category, _ in event.records})
    return {
        "time": moment_text(event.time_ms),
        "patient": event.patient.hex(),
        "device": describe_device(node.state(), event.author)["name"],
        "person": event.actor.hex(),
        "purpose": event.purpose,
        "grants": [grant.hex() for grant in event.grants],
        "records": event.count,
        "categories": categories,
    }


async def patient_reads(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Who has read what of a patient; which categories, where the patient's key is here."""
    await node.catch_up()
    patient = find_patient(node, arguments.text("patient"))
    return {"reads": [_read(node, event) for event in node.reads.of(patient)]}


async def audit_reads(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """What a device has read: for who supervises, without contents."""
    await node.catch_up()
    device = find_device(node, arguments.text("device"))
    return {"reads": [_read(node, event) for event in node.reads.by(device)]}


OPERATIONS: Final[Mapping[str, Operation]] = {
    "emergency.key": key,
    "emergency.open": open_record,
    "emergency.close": close,
    "emergency.review": review,
    "emergency.list": list_all,
    "patient.reads": patient_reads,
    "audit.reads": audit_reads,
}
