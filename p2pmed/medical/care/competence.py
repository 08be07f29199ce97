"""Who may do what, asked at the time of the act: a table from kinds to scopes, and flags.

Rule of this file: the person whose word it is (``Envelope.actor``; without one, the device
itself as a holder) is asked for a qualification that is valid at block time, for the act's scope
and the author's place.

* An *ordered* act of power (a dispense, a claim) is refused by the named reason.
* A *mergeable* one is care that was given: it is applied, and **flagged** with the reason, for
  ever and alike on every node; a later qualification does not lift the flag.
* A ledger that has never ordered a ``qual.issue`` knows nobody's qualification, and asks for
  none: a network without a register goes on working. From the first one on, all acts are asked.

Before an act is ordered, the same is said provisionally, at the estimated time. Implements
medical notes, section 1 row 22, and ``docs/protocols/care.md``, section 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from p2pmed.ledger.state import Readable, View
from p2pmed.medical.qualifications import qualified
from p2pmed.medical.registry import Act, Kind
from p2pmed.medical.rejections import Rejection
from p2pmed.medical.tables import Table
from p2pmed.wire.codec import Bytes32, Text, Wire

__all__ = ["SCOPES", "Flag", "flag_act", "flag_of", "flags", "refuse_act"]

SCOPES: Final[Mapping[str, str]] = {
    # ordered acts of power: refused
    "drug.dispense": "dispense",
    "claim.submit": "claim",
    # care that was given: flagged
    "record.add": "record",
    "record.amend": "record",
    "record.retract": "record",
    "referral.send": "refer",
    "referral.accept": "refer",
    "referral.close": "refer",
    "result.return": "record",
    "consult.request": "refer",
    "consult.reply": "consult",
    "consult.close": "refer",
    "surgery.plan": "surgery",
    "surgery.event": "record",
    "surgery.note": "record",
}
"""The scope that each clinical kind asks of its actor. Kinds with signers of their own (a surgical
checklist, an emergency) ask for each signer's scope themselves."""


class Flag(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """That an act was recorded although its actor was not qualified for it."""

    actor: Bytes32
    """The person, or the device that acted without one."""
    scope: Text
    reason: Text
    """Name of the ``Rejection`` that an ordered act would have had."""


_FLAGS: Final = Table("unqualified", Flag)


def flag_of(view: Readable, entry_id: bytes) -> Flag | None:
    """The flag of a transaction that was applied, or ``None`` if its actor was qualified."""
    return _FLAGS.get(view, entry_id)


def flags(view: Readable) -> Iterator[tuple[bytes, Flag]]:
    """Every flagged transaction's id, in ascending order, and its flag."""
    return _FLAGS.scan(view)


def refuse_act(kind: Kind[Any], act: Act[Any], view: Readable) -> Rejection | None:
    """Why an ordered act is refused for its actor's lack of a qualification."""
    return _unfit(act, view, SCOPES[kind.name]) if kind.ordered and kind.name in SCOPES else None


def flag_act(kind: Kind[Any], act: Act[Any], view: View) -> None:
    """Note at a mergeable act that was applied that its actor was not qualified."""
    scope = SCOPES.get(kind.name)
    if scope is None or kind.ordered:
        return
    unfit = _unfit(act, view, scope)
    if unfit is not None:
        flag = Flag(actor=_actor(act), scope=scope, reason=unfit.value)
        _FLAGS.put(view, flag, act.entry.id)


def _actor(act: Act[Any]) -> bytes:
    return act.entry.envelope.actor or act.entry.author


def _unfit(act: Act[Any], view: Readable, scope: str) -> Rejection | None:
    return qualified(view, _actor(act), scope, act.context.time_ms, place=act.member.place)
