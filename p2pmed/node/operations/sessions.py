"""Who is at the device: unlocking, locking, and the people who may."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from p2pmed.identity.staff import StaffFile
from p2pmed.identity.stretching import CHARS_MAX
from p2pmed.node import staff_files as files
from p2pmed.node.node import Node
from p2pmed.node.operations.arguments import Arguments, Operation, Report

__all__ = ["OPERATIONS"]


async def unlock(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Begin a staff member's session."""
    by_pin = arguments.flag("by_pin")
    words = arguments.text("words", limit=CHARS_MAX)
    return await node.sessions.unlock(words, name=arguments.text("name", ""), by_pin=by_pin)


async def lock(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """End the session."""
    node.sessions.lock()
    return node.sessions.status()


async def staff(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Who may unlock this device."""
    here = node.sessions.status()["staff"]
    rows = [{**_row(file), "unlocked": file.name == here} for file in node.sessions.staff()]
    return {"staff": rows}


async def add(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Let another person unlock this device."""
    words = arguments.text("words", limit=CHARS_MAX)
    person = await node.sessions.add(arguments.text("name", limit=64), words)
    return {"person": person.hex()}


async def reset(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """New keys and a new passphrase for a person who forgot theirs."""
    words = arguments.text("words", limit=CHARS_MAX)
    person = await node.sessions.reset(arguments.text("name", limit=64), words)
    return {"person": person.hex()}


async def remove(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Let a person unlock this device no more."""
    return {"person": node.sessions.remove(arguments.text("name", limit=64)).hex()}


async def passwd(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Another passphrase for whoever is unlocked."""
    await node.sessions.new_words(arguments.text("words", limit=CHARS_MAX))
    return node.sessions.status()


async def pin(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Another PIN, or none, for whoever is unlocked."""
    await node.sessions.new_pin(arguments.text("words", "", limit=CHARS_MAX))
    return node.sessions.status()


def _row(file: StaffFile) -> dict[str, Any]:
    return {
        "name": file.name,
        "person": file.person.hex(),
        "box_key": file.box_key.hex(),
        "created_ms": file.created_ms,
        "pin": file.pin is not None,
        "default": file.anonymous and file.name == files.DEFAULT_NAME,
    }


OPERATIONS: Final[Mapping[str, Operation]] = {
    "session.unlock": unlock,
    "session.lock": lock,
    "staff.list": staff,
    "staff.add": add,
    "staff.reset": reset,
    "staff.remove": remove,
    "staff.passwd": passwd,
    "staff.pin": pin,
}
