"""Operations in the theatre: plan, checklist, steps, notes, close; and what is odd about one.

``person_files``, ``person_roles`` and ``person_passphrases`` are lists side by side: who signs, for
what, and the passphrase of his key file.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from p2pmed.errors import ConfigError
from p2pmed.identity.keystore import KEYSTORE_BYTES_MAX, open_keystore
from p2pmed.identity.persons import PersonKeys
from p2pmed.limits import RECORD_BYTES_MAX
from p2pmed.medical.care.checklist import ITEMS, Answer, Phase, TeamRole
from p2pmed.medical.care.theatre import number_of
from p2pmed.node.node import Node
from p2pmed.node.operations.arguments import Arguments, Operation, Report
from p2pmed.node.operations.general import wait_final
from p2pmed.node.operations.lookup import (
    describe_device,
    find_one,
    find_patient,
    moment_ms,
    outcome,
)
from p2pmed.node.operations.patients import moment_text

__all__ = ["OPERATIONS", "named", "open_person"]

SIGNERS_MAX: Final = 12


def open_person(path: Path, passphrase: str) -> PersonKeys:
    """A person's keys from a file. Blocking, and slow on purpose. Raises ``Locked``."""
    with path.open("rb") as file:
        raw = file.read(KEYSTORE_BYTES_MAX + 1)
    return PersonKeys.from_secret_bytes(open_keystore(raw, passphrase))


def named(kind: Any, text: str, what: str) -> Any:
    """A member of an enumeration by its name, dashes allowed. Raises ``ConfigError``."""
    try:
        return kind[text.upper().replace("-", "_")]
    except KeyError:
        names = ", ".join(each.name.lower().replace("_", "-") for each in kind)
        raise ConfigError(f"{what}: one of {names} is needed") from None


async def _people(arguments: Arguments) -> list[tuple[PersonKeys, TeamRole]]:
    files = arguments.texts("person_files", count_max=SIGNERS_MAX)
    roles = arguments.texts("person_roles", count_max=SIGNERS_MAX)
    words = arguments.texts("person_passphrases", count_max=SIGNERS_MAX)
    if not len(files) == len(roles) == len(words):
        raise ConfigError("each signer needs a file, a role and a passphrase")
    return [
        (await asyncio.to_thread(open_person, Path(file), word), named(TeamRole, role, "role"))
        for file, role, word in zip(files, roles, words, strict=True)
    ]


def _find(node: Node, arguments: Arguments) -> bytes:
    known = node.surgery.all()
    return find_one(known, arguments.text("surgery"), "operation", "see `p2pmed surgery list`")


def _when(node: Node, arguments: Arguments) -> int:
    text = arguments.text("at", None)
    return moment_ms(text, "at") if text is not None else node.world.clock.wall_ms()


async def plan(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Plan an operation on ``patient``: ``fhir`` says which; ``at`` when."""
    await node.catch_up()
    patient = find_patient(node, arguments.text("patient"))
    raw = arguments.text("fhir", limit=RECORD_BYTES_MAX).encode()
    receipt = await node.surgery.plan(patient, raw, planned_ms=_when(node, arguments))
    await wait_final(receipt, arguments)
    return {"surgery": receipt.id.hex(), **outcome(receipt)}


async def checklist(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """One ``phase`` of the WHO checklist: all *yes*, but the items in ``no`` and ``skip``."""
    await node.catch_up()
    surgery = _find(node, arguments)
    phase = named(Phase, arguments.text("phase"), "phase")
    denied = set(arguments.texts("no", count_max=16))
    skipped = set(arguments.texts("skip", count_max=16))
    unknown = sorted((denied | skipped) - set(ITEMS[phase]))
    if unknown:
        raise ConfigError(
            f"{unknown[0][:64]!r} is no item of that phase", hint=", ".join(ITEMS[phase])
        )
    answers = [
        Answer.NO if item in denied else Answer.NOT_APPLICABLE if item in skipped else Answer.YES
        for item in ITEMS[phase]
    ]
    at = _when(node, arguments)
    signed = [
        node.surgery.sign(person, role, surgery, phase, answers, at)
        for person, role in await _people(arguments)
    ]
    receipt = await node.surgery.checklist(surgery, phase, answers, signed, occurred_ms=at)
    await wait_final(receipt, arguments)
    return outcome(receipt)


async def event(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """A ``step``, done now or ``at`` a time."""
    await node.catch_up()
    surgery, step = _find(node, arguments), arguments.text("step", limit=32)
    receipt = await node.surgery.event(surgery, step, occurred_ms=_when(node, arguments))
    await wait_final(receipt, arguments)
    return outcome(receipt)


async def note(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Words, sealed; ``media``: files (absolute paths) to commit to, which stay where they are."""
    await node.catch_up()
    files = [Path(text) for text in arguments.texts("media", count_max=64)]
    if not all(path.is_absolute() for path in files):
        raise ConfigError("media: absolute paths are needed")
    receipt = await node.surgery.note(
        _find(node, arguments),
        arguments.text("text", limit=65_536),
        media=await asyncio.to_thread(lambda: [path.read_bytes() for path in files]),
        occurred_ms=_when(node, arguments),
    )
    await wait_final(receipt, arguments)
    return outcome(receipt)


async def close(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """The record is complete, with ``outcome``, say those who sign, of whom one is a surgeon."""
    await node.catch_up()
    closing = await node.surgery.closing(
        _find(node, arguments),
        arguments.text("outcome", "done", limit=32),
        occurred_ms=_when(node, arguments),
    )
    signed = [
        node.surgery.sign_close(person, role, closing) for person, role in await _people(arguments)
    ]
    receipt = await node.surgery.close(closing, signed)
    await wait_final(receipt, arguments)
    return outcome(receipt)


async def list_all(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Operations known here."""
    await node.catch_up()
    rows = []
    for name in node.surgery.all():
        seen = await node.surgery.view(name)
        rows.append(
            {
                "surgery": name.hex(),
                "patient": seen.patient.hex(),
                "entries": len(seen.written),
                "closed": seen.closed,
                "odd": len(seen.told.missing) + len(seen.told.late) + len(seen.told.unmet),
            }
        )
    return {"operations": rows}


async def show(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Every entry, what is missing, what came late, what was answered with *no*."""
    seen = await node.surgery.view(_find(node, arguments))
    return {
        "surgery": seen.id.hex(),
        "patient": seen.patient.hex(),
        "closed": seen.closed,
        "entries": [
            {
                "id": each.entry.id.hex(),
                "kind": each.entry.kind,
                "number": number_of(each.body),
                "step": getattr(each.body, "step", "")
                or getattr(getattr(each.body, "phase", None), "name", "").lower(),
                "occurred": moment_text(getattr(each.body, "occurred", each.entry.envelope.wall)),
                "recorded": moment_text(each.entry.envelope.hlc >> 16),
                "applied": each.applied,
                "by": describe_device(node.state(), each.entry.author),
            }
            for each in seen.written
        ],
        "missing": list(seen.told.missing),
        "late": [{"id": name.hex(), "why": why} for name, why in seen.told.late],
        "answered_no": list(seen.told.unmet),
    }


OPERATIONS: Final[Mapping[str, Operation]] = {
    "surgery.plan": plan,
    "surgery.checklist": checklist,
    "surgery.event": event,
    "surgery.note": note,
    "surgery.close": close,
    "surgery.list": list_all,
    "surgery.show": show,
}
