"""Finding people and records, and duplicates: search, index keys, links.

Answers hold what this device's keys open: they are for who asked, and for nobody's log.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from p2pmed.ledger.state import Readable
from p2pmed.medical.membership import member
from p2pmed.medical.privacy.blind_index import SCOPES, IndexUse
from p2pmed.medical.privacy.links import Link
from p2pmed.medical.privacy.matching import CANDIDATE_SCORE_MIN
from p2pmed.medical.privacy.names import resident_id_fault
from p2pmed.node.fhir.describe import describe_person
from p2pmed.node.node import Node
from p2pmed.node.operations.arguments import Arguments, Operation, Report
from p2pmed.node.operations.general import wait_final
from p2pmed.node.operations.lookup import (
    describe_device,
    find_device,
    find_one,
    find_patient,
    outcome,
)

__all__ = ["OPERATIONS"]

LIMIT_MAX: Final = 100
RESIDENT_ID_CHARS: Final = 18


async def patient(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """People by ``name``, ``birth``, ``identifier`` or ``phone``, the surest first."""
    number = arguments.text("identifier", "", limit=256)
    answer = await node.search.patients(
        name=arguments.text("name", "", limit=256),
        birth=arguments.text("birth", "", limit=32),
        identifier=number,
        phone=arguments.text("phone", "", limit=64),
        limit=arguments.number("limit", 20, low=1, high=LIMIT_MAX),
    )
    rows = [
        {
            "patient": found.patient.hex(),
            "score": found.score,
            **describe_person(found.demographics),
            "why": list(found.reasons),
            "linked": len(node.linking.person(found.patient)) - 1,
        }
        for found in answer.patients
    ]
    return {
        "patients": rows,
        "closed": answer.closed,
        "more": answer.more,
        "note": _number_note(number),
    }


def _number_note(text: str) -> str:
    """What is wrong with a resident's number that was typed; empty if it is none, or right."""
    plain = "".join(char for char in text.upper() if char.isalnum())
    looks = len(plain) == RESIDENT_ID_CHARS and plain[:-1].isdigit()
    fault = resident_id_fault(plain) if looks else ""
    return f"identifier: {fault}" if fault else ""


async def record(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Records with a ``code`` (diagnosis, procedure) or a ``drug``'s code."""
    found = await node.search.records(
        code=arguments.text("code", "", limit=64),
        drug=arguments.text("drug", "", limit=64),
        limit=arguments.number("limit", LIMIT_MAX, low=1, high=LIMIT_MAX),
    )
    return {"records": [{"patient": r.patient.hex(), "record": r.record.hex()} for r in found]}


async def begin(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Begin the index of a place, for searching or (``linkage``) for finding duplicates."""
    await node.catch_up()
    keys = node.search.keys
    receipt = await keys.begin(_use(arguments), arguments.text("place", None, limit=256))
    await wait_final(receipt, arguments)
    return outcome(receipt)


async def admit(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Wrap the newest index keys of a place to another ``device``."""
    place, reader = await _place_and_reader(node, arguments)
    receipt = await node.search.keys.admit(_use(arguments), place, reader)
    await wait_final(receipt, arguments)
    return outcome(receipt)


async def expel(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Begin a new epoch of index keys without ``device``, and index anew."""
    place, reader = await _place_and_reader(node, arguments)
    use = _use(arguments)
    receipt = await node.search.keys.expel(use, place, reader)
    again = await (node.search.index() if use is IndexUse.SEARCH else node.linking.encode())
    await wait_final(receipt, arguments)
    return {**outcome(receipt), "indexed": again}


async def index(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Index all that this device can open and that no index names yet."""
    await node.catch_up()
    places = [row.place for _, row in SCOPES.scan(node.state())]
    return {"indexed": await node.search.index(), "places": sorted(dict.fromkeys(places))}


async def _place_and_reader(node: Node, arguments: Arguments) -> tuple[str, bytes]:
    await node.catch_up()
    place = arguments.text("place", None, limit=256)
    known = member(node.state(), find_device(node, arguments.text("device")))
    assert known is not None  # it was found among the members
    return node.search.keys.own_place() if place is None else place, known.box_key


def _use(arguments: Arguments) -> IndexUse:
    return IndexUse.LINKAGE if arguments.flag("linkage") else IndexUse.SEARCH


# --- duplicates -----------------------------------------------------------------------------


async def candidates(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Pairs that may be one person; encodes first whomever this device may open."""
    encoded = await node.linking.encode()
    least = arguments.number("score", CANDIDATE_SCORE_MIN, low=1, high=100)
    rows = [
        {
            "one": match.one.hex(),
            "other": match.other.hex(),
            "score": match.score,
            "why": list(match.reasons),
        }
        for match in await node.linking.candidates(score_min=least)
    ]
    return {"candidates": rows, "encoded": encoded}


async def join(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Say that patients ``one`` and ``other`` are one person, and why (``reason``, a code)."""
    await node.catch_up()
    receipt = await node.linking.link(
        find_patient(node, arguments.text("one")),
        find_patient(node, arguments.text("other")),
        reason=arguments.text("reason", limit=32),
        score=arguments.number("score", 0, low=0, high=100),
    )
    await wait_final(receipt, arguments)
    return {"link": receipt.id.hex(), **outcome(receipt)}


async def undo(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Take back a link of ``patient``, named by the first digits of its number."""
    await node.catch_up()
    links = node.linking.links(find_patient(node, arguments.text("patient")))
    held = [link.id for link in links if link.in_force]
    wanted = find_one(held, arguments.text("link"), "link", "see `p2pmed link show`")
    receipt = await node.linking.unlink(wanted, reason=arguments.text("reason", limit=32))
    await wait_final(receipt, arguments)
    return outcome(receipt)


async def show(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Links of ``patient``, those taken back too, and who is this person by them."""
    await node.catch_up()
    pseudonym = find_patient(node, arguments.text("patient"))
    state = node.state()
    return {
        "patient": pseudonym.hex(),
        "person": [one.hex() for one in node.linking.person(pseudonym)],
        "links": [_link(state, link, pseudonym) for link in node.linking.links(pseudonym)],
    }


def _link(state: Readable, link: Link, patient: bytes) -> dict[str, Any]:
    row = link.row
    return {
        "link": link.id.hex(),
        "other": (row.other if row.one == patient else row.one).hex(),
        "reason": row.reason,
        "score": row.score,
        "by": describe_device(state, row.author)["name"],
        "in_force": link.in_force,
    }


OPERATIONS: Final[Mapping[str, Operation]] = {
    "find.patient": patient,
    "find.record": record,
    "find.begin": begin,
    "find.admit": admit,
    "find.expel": expel,
    "find.index": index,
    "link.candidates": candidates,
    "link.join": join,
    "link.undo": undo,
    "link.show": show,
}
