"""Consultations: ask, list, show, reply, close; leave to teach, and the copy for it.

Files are given as absolute paths: a running node has a working folder of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from mimetypes import guess_type
from pathlib import Path
from typing import Any, Final

from p2pmed.errors import ConfigError
from p2pmed.limits import RECORD_BYTES_MAX
from p2pmed.medical.care.consultations import Attachment
from p2pmed.node.care.consultations import Consultation
from p2pmed.node.new_file import NewFile
from p2pmed.node.node import Node
from p2pmed.node.operations.arguments import Arguments, Operation, Report
from p2pmed.node.operations.cards import hand_of
from p2pmed.node.operations.general import wait_final
from p2pmed.node.operations.lookup import (
    describe_device,
    find_one,
    find_patient,
    moment_ms,
    outcome,
)
from p2pmed.node.operations.patients import box_key

__all__ = ["OPERATIONS"]

FILES_MAX: Final = 32
UNKNOWN: Final = "application/octet-stream"


def _attachments(paths: Sequence[str]) -> list[Attachment]:
    """Blocking. Raises ``ConfigError`` for a path that is not absolute, or too much."""
    found, size = [], 0
    for text in paths:
        path = Path(text)
        if not path.is_absolute():
            raise ConfigError("attachments: absolute paths are needed")
        with path.open("rb") as file:
            content = file.read(RECORD_BYTES_MAX - size + 1)
        size += len(content)
        if size > RECORD_BYTES_MAX:
            raise ConfigError("the attachments are longer than 64 MiB together")
        kind = guess_type(path.name)[0] or UNKNOWN
        found.append(Attachment(name=path.name, type=kind, content=content))
    return found


async def ask(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Ask ``specialist`` about ``patient``: ``question``, ``attachments``, ``records``."""
    await node.catch_up()
    patient = find_patient(node, arguments.text("patient"))
    here = {entry.id for entry in node.patients.entries(patient)}
    texts = arguments.texts("records", count_max=FILES_MAX)
    records = [find_one(here, text, "record", "see `p2pmed patient timeline`") for text in texts]
    files = arguments.texts("attachments", count_max=FILES_MAX)
    deadline = arguments.text("deadline", None)
    receipt = await node.consultations.ask(
        patient,
        box_key(node, arguments.text("specialist")),
        arguments.text("question", limit=65_536),
        attachments=await asyncio.to_thread(_attachments, files),
        records=records,
        deadline_ms=moment_ms(deadline, "deadline", end_of_day=True) if deadline else 0,
    )
    await wait_final(receipt, arguments)
    return {"consultation": receipt.id.hex(), **outcome(receipt)}


def _described(node: Node, each: Consultation) -> dict[str, Any]:
    return {
        "consultation": each.id.hex(),
        "patient": each.patient.hex(),
        "from": describe_device(node.state(), each.row.author),
        "mine": each.mine,
        "deadline_ms": each.row.deadline,
        "replies": len(each.replies),
        "closed": bool(each.row.closed),
    }


async def list_all(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Consultations known here; ``mine``: those that this device is asked."""
    await node.catch_up()
    found = node.consultations.all(mine=arguments.flag("mine"))
    return {"consultations": [_described(node, each) for each in found]}


def _find(node: Node, arguments: Arguments) -> Consultation:
    known = {each.id: each for each in node.consultations.all()}
    hint = "see `p2pmed consult list`"
    return known[find_one(known, arguments.text("consultation"), "consultation", hint)]


async def show(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Question and answers; ``folder``: write the attachments there."""
    await node.catch_up()
    found = _find(node, arguments)
    question = await node.consultations.question(found.id)
    answers = await node.consultations.answers(found.id)
    folder = arguments.text("folder", "")
    attached = [*question.attachments, *(a for each in answers for a in each.reply.attachments)]
    if folder:
        await asyncio.to_thread(_write_all, Path(folder), attached)
    return {
        **_described(node, found),
        "question": question.words,
        "attachments": [
            {"name": each.name, "type": each.type, "bytes": len(each.content)} for each in attached
        ],
        "answers": [
            {"from": describe_device(node.state(), each.author), "words": each.reply.words}
            for each in answers
        ],
    }


def _write_all(folder: Path, attached: Sequence[Attachment]) -> None:
    """A number before each name: two may be called alike, and none may leave the folder."""
    if not folder.is_absolute() or not folder.is_dir():
        raise ConfigError("folder: an existing folder's absolute path is needed")
    for number, each in enumerate(attached, 1):
        safe = "".join(c if c.isalnum() or c in "._-" else "_" for c in each.name)[-100:]
        with NewFile(folder / f"{number:02d}-{safe}") as file:
            file.write(each.content)
            file.keep()


async def reply(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Answer with ``words`` and ``attachments``."""
    await node.catch_up()
    files = arguments.texts("attachments", count_max=FILES_MAX)
    receipt = await node.consultations.reply(
        _find(node, arguments).id,
        arguments.text("words", limit=65_536),
        attachments=await asyncio.to_thread(_attachments, files),
    )
    await wait_final(receipt, arguments)
    return outcome(receipt)


async def close(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """The specialist reads it no more."""
    await node.catch_up()
    receipt = await node.consultations.close(_find(node, arguments).id)
    await wait_final(receipt, arguments)
    return outcome(receipt)


async def teach(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """The patient's leave to teach with it: ``card``; ``until`` a date, in the past to end it."""
    await node.catch_up()
    hand = await hand_of(node, arguments)
    if hand is None:
        raise ConfigError("the patient's card is needed", hint="give --card")
    until = arguments.text("until", None)
    receipt = await node.consultations.teach(
        _find(node, arguments).id,
        by=hand,
        until_ms=moment_ms(until, "until", end_of_day=True) if until is not None else 0,
    )
    await wait_final(receipt, arguments)
    return outcome(receipt)


async def copy(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Write the copy for teaching, without identifiers, to the new file ``file``."""
    await node.catch_up()
    path = Path(arguments.text("file"))
    if not path.is_absolute():
        raise ConfigError("file: an absolute path is needed")
    raw = await node.consultations.teaching_copy(_find(node, arguments).id)
    await asyncio.to_thread(_write, path, raw)
    return {"file": str(path), "bytes": len(raw)}


def _write(path: Path, raw: bytes) -> None:
    with NewFile(path) as file:
        file.write(raw)
        file.keep()


OPERATIONS: Final[Mapping[str, Operation]] = {
    "consult.ask": ask,
    "consult.list": list_all,
    "consult.show": show,
    "consult.reply": reply,
    "consult.close": close,
    "consult.teach": teach,
    "consult.copy": copy,
}
