"""Evidence as a transaction: who is proven to have broken the protocol loses its seat.

``evidence.report`` carries a self-contained proof (``ledger/evidence.py``) and is judged by the
proof alone: any member may bring it, and whose device brought it does not matter. It opens a
*case* for each device that the proof names. Repeated evidence of one place (an epoch, an author
log) changes nothing, so that what people decided is not undone by telling the same story again.

While a case is open or confirmed its device takes no seat. It stays a member: it records care,
follows, carries. ``evidence.settle`` is the decision of people who supervise the device's place:
*restored* (a power cut, a restored backup) or *confirmed*. A power cut can look like malice, so
nothing else follows by itself.

Rule: the ledger's own epoch is believed before the one that evidence leads to.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Any, Final

import msgspec

from p2pmed.errors import CredentialError, DecodeError
from p2pmed.identity.credentials import covers
from p2pmed.ledger.epochs import epoch_of
from p2pmed.ledger.evidence import Case, Evidence, check_evidence, decode_evidence
from p2pmed.ledger.state import Readable, View
from p2pmed.medical.fields import Code
from p2pmed.medical.membership import member
from p2pmed.medical.registry import Act, Checked, Kind
from p2pmed.medical.rejections import Rejection
from p2pmed.medical.roles import SUPERVISORS
from p2pmed.medical.seats import exclude, restore
from p2pmed.medical.tables import Table
from p2pmed.wire.codec import Bytes32, Count, OptionalId, Text, TimeMs, Wire

__all__ = [
    "KINDS",
    "REPORT_BYTES_MAX",
    "CaseRow",
    "EvidenceReport",
    "EvidenceSettle",
    "Judgement",
    "cases",
    "is_known",
    "is_suspended",
]

REPORT_BYTES_MAX: Final = 64 * 1024
"""Encoded evidence in one transaction; longer proofs travel as files and in bundles."""
PROOFS_CACHED_MAX: Final = 64
"""Proofs checked and remembered, so that each overlay does not check them again."""


class Judgement(StrEnum):
    """What people decided; the values are part of the protocol."""

    RESTORED = "restored"
    CONFIRMED = "confirmed"


class EvidenceReport(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``evidence.report``: proof that somebody broke the protocol, for all to judge."""

    proof: Annotated[bytes, msgspec.Meta(min_length=1, max_length=REPORT_BYTES_MAX)]
    """An encoded ``Evidence``: the same bytes as in a file."""


class EvidenceSettle(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``evidence.settle``: a supervisor's decision about one case."""

    device: Bytes32
    place: Bytes32
    """Of the case: what was broken."""
    judgement: Judgement
    reason: Code


class CaseRow(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What this ledger knows of one device and one place."""

    kind: Text
    reported_by: Bytes32
    """The first ``evidence.report`` transaction."""
    ledger: OptionalId
    epoch: Count
    time: TimeMs
    settled_by: OptionalId = b""
    """The last ``evidence.settle``, or empty while open."""
    judgement: str = ""

    @property
    def suspends(self) -> bool:
        """Whether the device may take no seat on account of it."""
        return self.judgement != Judgement.RESTORED


_CASES: Final = Table("evidence", CaseRow)


def cases(view: Readable, device: bytes = b"") -> Iterator[tuple[bytes, bytes, CaseRow]]:
    """Device (or ledger, of a fork that names nobody), place and row of each case."""
    for rest, row in _CASES.scan(view, device):
        key = device + rest
        yield key[:32], key[32:], row


def is_suspended(view: Readable, device: bytes) -> bool:
    """Whether ``device`` stands accused by proof and was not restored: it takes no seat."""
    return any(row.suspends for _, _, row in cases(view, device))


def is_known(view: Readable, case: Case) -> bool:
    """Whether evidence of this case would tell the ledger nothing new."""
    return all(_CASES.get(view, subject, case.place) is not None for subject in subjects(case))


def subjects(case: Case) -> tuple[bytes, ...]:
    """Whom a case is about: the guilty, else the ledger whose fork names nobody yet."""
    return case.guilty or (case.ledger,)


@lru_cache(maxsize=PROOFS_CACHED_MAX)
def _judge(proof: bytes, network: bytes) -> tuple[Evidence, Case] | None:
    """What a proof proves in this network; ``None`` if nothing. A pure function of its bytes."""
    try:
        evidence = decode_evidence(proof)
        if evidence.network != network:
            return None
        return evidence, check_evidence(evidence)
    except (CredentialError, DecodeError):
        return None


def _check_report(act: Act[EvidenceReport], view: View) -> Checked:
    judged = _judge(act.body.proof, act.context.network)
    if judged is None:
        return Rejection.EVIDENCE_WRONG
    case = judged[1]
    ours = epoch_of(view) if case.ledger == act.context.ledger else None
    if ours is not None and case.epoch is not None:
        ahead = case.epoch.number > ours.number
        if ahead or (case.epoch.number == ours.number and case.epoch != ours):
            return Rejection.EVIDENCE_WRONG
    return None


def _apply_report(act: Act[EvidenceReport], view: View) -> None:
    judged = _judge(act.body.proof, act.context.network)
    assert judged is not None  # the check has judged it
    case = judged[1]
    for subject in subjects(case):
        if _CASES.get(view, subject, case.place) is not None:
            continue
        row = CaseRow(
            kind=case.kind,
            reported_by=act.entry.id,
            ledger=case.ledger,
            epoch=0 if case.epoch is None else case.epoch.number,
            time=act.context.time_ms,
        )
        _CASES.put(view, row, subject, case.place)
        if case.guilty and case.ledger in (b"", act.context.ledger):
            exclude(view, subject)


def _check_settle(act: Act[EvidenceSettle], view: View) -> Checked:
    body = act.body
    if body.device == act.entry.author:
        return Rejection.NOT_THE_PARTY
    target = member(view, body.device)
    if target is not None and not covers(act.member.place, target.place):
        return Rejection.ISSUER_NOT_ABOVE
    row = _CASES.get(view, body.device, body.place)
    if row is None:
        return Rejection.EVIDENCE_UNKNOWN
    return Rejection.EVIDENCE_SETTLED if row.judgement == body.judgement else None


def _apply_settle(act: Act[EvidenceSettle], view: View) -> None:
    body = act.body
    row = _CASES.get(view, body.device, body.place)
    assert row is not None  # the check has read it
    settled = msgspec.structs.replace(row, settled_by=act.entry.id, judgement=body.judgement.value)
    _CASES.put(view, settled, body.device, body.place)
    if row.ledger not in (b"", act.context.ledger):
        return  # another ledger's seat is that ledger's business
    ours = (b"", act.context.ledger)
    rows = cases(view, body.device)
    if any(case.suspends and case.ledger in ours for _, _, case in rows):
        exclude(view, body.device)
    else:
        restore(view, body.device)


KINDS: Final[tuple[Kind[Any], ...]] = (
    Kind(
        name="evidence.report",
        body=EvidenceReport,
        check=_check_report,
        apply=_apply_report,
        everywhere=True,
        rules="Refused `evidence_wrong` unless the proof holds by itself: every signature, every "
        "signer's seat in that epoch. Opens a case for each device it names, which then takes no "
        "seat; repeated evidence changes nothing.",
    ),
    Kind(
        name="evidence.settle",
        body=EvidenceSettle,
        check=_check_settle,
        apply=_apply_settle,
        everywhere=True,
        roles=SUPERVISORS,
        rules="Refused `not_the_party` in one's own case, `issuer_not_above` unless the author's "
        "place covers the device's, `evidence_unknown` without a case, `evidence_settled` if that "
        "is the decision already. A decision may be changed by a later one.",
    ),
)
