"""Summaries and disputes: put together, printed, checked; raised, listed, answered, mended.

Answers hold what this device's keys open: they are for who asked, and for nobody's log.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from p2pmed.errors import ConfigError, DecodeError
from p2pmed.limits import RECORD_BYTES_MAX
from p2pmed.medical.care.dispute_rows import DISPUTES
from p2pmed.medical.care.disputes import WORDS_BYTES_MAX
from p2pmed.medical.care.ips_profile import profile_faults
from p2pmed.medical.care.summary_code import described, parse_code
from p2pmed.medical.membership import member
from p2pmed.node.care.disputes import Dispute
from p2pmed.node.node import Node
from p2pmed.node.operations.arguments import Arguments, Operation, Report
from p2pmed.node.operations.cards import hand_of
from p2pmed.node.operations.general import wait_final
from p2pmed.node.operations.lookup import describe_device, find_one, find_patient, now_ms, outcome
from p2pmed.node.operations.patients import moment_text

__all__ = ["OPERATIONS"]

CODE_CHARS: Final = 4_000
DAY_MS: Final = 86_400_000


async def make(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """A patient's summary: the FHIR document (``document``), its headings, the signed code."""
    patient = await _patient(node, arguments)
    made = await node.summaries.printed(patient)
    summary = made.summary
    return {
        "patient": patient.hex(),
        "person": made.person,
        "made_ms": summary.made_ms,
        "maker": ", ".join(filter(None, (made.maker.name, made.maker.place))),
        "document": summary.document.decode(),
        "faults": profile_faults(summary.document),
        "headings": [
            {
                "title": heading.section.title,
                "code": heading.section.loinc,
                "lines": list(heading.lines),
                "left_out": heading.left_out,
            }
            for heading in summary.headings
        ],
        "closed": summary.closed,
        "code": made.code,
    }


async def check(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """What a printed code says (``code``, its text), and whether its signer is a member."""
    try:
        found = parse_code(arguments.text("code", limit=CODE_CHARS))
    except DecodeError as error:
        raise ConfigError(str(error), hint="scan the code again") from None
    await node.catch_up()
    state = node.state()
    signer = member(state, found.signer)
    ours = found.code.network == node.network
    return {
        **described(found.code),
        "network": found.code.network.hex(),
        "signer": describe_device(state, found.signer),
        "trusted": ours and signer is not None and not signer.revoked,
    }


async def dispute(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """The patient (``card``) says that ``record`` is wrong, and why (``words``).

    With ``patient``, the card is a guardian's, who acts under ``delegation``.
    """
    words = arguments.text("words", limit=WORDS_BYTES_MAX)
    hand = await hand_of(node, arguments)
    if hand is None:
        raise ConfigError("the patient's card is needed", hint="give --card FILE, or --card -")
    await node.catch_up()
    ward = arguments.text("patient", "")
    if ward:
        patient = find_patient(node, ward)
        hand = hand.standing_in(patient, arguments.key("delegation"))
    with node.opener.lent(hand.patient, hand.secrets):
        record = await _record(node, arguments, hand.patient)
        receipt = await node.disputes.dispute(record, words, by=hand)
    await wait_final(receipt, arguments)
    return {"patient": hand.patient.hex(), **outcome(receipt)}


async def disputes(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Objections of ``patient``, or, without one, all that nobody has answered."""
    await node.catch_up()
    named = arguments.text("patient", "")
    if named:
        found = await node.disputes.of(find_patient(node, named))
    else:
        found = await node.disputes.waiting()
    return {"disputes": [_described(node, each) for each in found]}


async def answer(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Answer a dispute (``dispute``) in ``words``."""
    await node.catch_up()
    receipt = await node.disputes.answer(
        _dispute(node, arguments), arguments.text("words", limit=WORDS_BYTES_MAX)
    )
    await wait_final(receipt, arguments)
    return outcome(receipt)


async def amend(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Put ``fhir`` in the place of ``record``, for ``reason``; settles ``dispute``, if given."""
    patient = await _patient(node, arguments)
    record = await _record(node, arguments, patient)
    raw = arguments.text("fhir", limit=RECORD_BYTES_MAX).encode()
    receipt = await node.patients.amend(
        record, raw, reason=arguments.text("reason"), answers=_settled(node, arguments)
    )
    await wait_final(receipt, arguments)
    return outcome(receipt)


async def retract(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Say that ``record`` should not have been written; settles ``dispute``, if given."""
    patient = await _patient(node, arguments)
    record = await _record(node, arguments, patient)
    receipt = await node.patients.retract(
        record, reason=arguments.text("reason"), answers=_settled(node, arguments)
    )
    await wait_final(receipt, arguments)
    return outcome(receipt)


async def _patient(node: Node, arguments: Arguments) -> bytes:
    await node.catch_up()
    return find_patient(node, arguments.text("patient"))


async def _record(node: Node, arguments: Arguments, patient: bytes) -> bytes:
    """A record of ``patient`` by its first digits."""
    names = (entry.id for entry in node.patients.entries(patient))
    return find_one(names, arguments.text("record"), "record", "see `p2pmed patient timeline`")


def _dispute(node: Node, arguments: Arguments) -> bytes:
    names: Iterable[bytes] = (name[16:] for name, _ in DISPUTES.scan(node.state()))
    return find_one(names, arguments.text("dispute"), "dispute", "see `p2pmed patient disputes`")


def _settled(node: Node, arguments: Arguments) -> bytes:
    return _dispute(node, arguments) if arguments.text("dispute", "") else b""


def _described(node: Node, each: Dispute) -> dict[str, Any]:
    return {
        "dispute": each.id.hex(),
        "patient": each.patient.hex(),
        "record": each.record.hex(),
        "words": each.words,
        "raised": moment_text(each.raised_ms),
        "days": each.age_ms(now_ms(node)) // DAY_MS,
        "by": "guardian" if each.by_guardian else "patient",
        "open": each.is_open,
        "answer": each.answer.hex() or None,
        "answer_words": each.answer_words,
    }


OPERATIONS: Final[Mapping[str, Operation]] = {
    "summary.make": make,
    "summary.check": check,
    "dispute.raise": dispute,
    "dispute.list": disputes,
    "dispute.answer": answer,
    "patient.amend": amend,
    "patient.retract": retract,
}
