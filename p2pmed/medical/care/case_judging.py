"""People in a case file: their words checked, their qualifications executed again.

Rule of this file: the ledger's own rules judge, on what the file shows, at the times of the blocks.
An entry that the ledger called applied must come out so: if it does not, a qualification was
left out, or the ledger lied, and the file is refused. What no ledger has ordered is judged at
the time its device gave. Implements ``docs/protocols/case.md``, section 5.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from p2pmed.errors import CredentialError
from p2pmed.identity.credentials import Credential
from p2pmed.ledger.state import APPLIED, BlockContext, Layer
from p2pmed.ledger.transaction import Entry
from p2pmed.medical import qualifications
from p2pmed.medical.care.checklist import SCOPE_OF_ROLE, TeamRole
from p2pmed.medical.care.competence import SCOPES
from p2pmed.medical.care.surgery import SurgeryChecklist, SurgeryClose, signers_fault
from p2pmed.medical.qualifications import qualified
from p2pmed.medical.registry import Act, Member, Registry
from p2pmed.medical.rejections import Rejection
from p2pmed.wire.codec import Wire

__all__ = ["Line", "Signer", "judge"]

_QUALIFICATIONS = Registry(qualifications.KINDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """One person behind an entry."""

    person: bytes
    role: str
    """For what; empty for the acting person whom the device names."""
    proven: bool
    """Signed by the person's own key; else the device says so."""
    unfit: str
    """Why not qualified, by the name of the ``Rejection``; empty: qualified, or no register."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Line:
    """One entry of a case, proven."""

    entry: Entry
    body: Wire
    author: Credential
    ledger: bytes = b""
    """Empty: no ledger in the file has ordered it."""
    ledger_name: str = ""
    height: int = 0
    index: int = 0
    """Place in the block."""
    time_ms: int = 0
    """Block time."""
    verdict: str = ""
    valid_then: bool | None = None
    """Whether block time lies in the validity of the device's credential."""
    signers: tuple[Signer, ...] = ()


class _Nothing:
    """The state before the first qualification."""

    def get(self, key: bytes) -> bytes | None:
        return None

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        return iter(())


def judge(lines: Sequence[Line], network: bytes) -> list[Line]:
    """The lines in the order given, with the people behind each.

    Raises ``CredentialError`` if a word does not hold in an entry that was called applied, or an
    applied entry's signer comes out unqualified.
    """
    views: dict[bytes, Layer] = {}
    judged: dict[bytes, Line] = {}
    for line in sorted(lines, key=_order):
        view = views.setdefault(line.ledger, Layer(_Nothing()))
        kind = _QUALIFICATIONS.find(line.entry.kind, line.entry.envelope.kind_version)
        if kind is not None:
            if line.verdict == APPLIED:
                act = _act(line, network)
                if kind.check(act, view) is not None:
                    raise CredentialError("a qualification that does not follow from the others")
                kind.apply(act, view)
            judged[line.entry.id] = line
        else:
            judged[line.entry.id] = replace(line, signers=_signers(line, view, network))
    return [judged[line.entry.id] for line in lines]


def _order(line: Line) -> tuple[bool, bytes, int, int, int, bytes]:
    """By ledger and place in it; what is not ordered comes last, by its clock."""
    return (
        not line.ledger,
        line.ledger,
        line.height,
        line.index,
        line.entry.envelope.hlc,
        line.entry.id,
    )


def _act(line: Line, network: bytes) -> Act[Any]:
    author = line.author
    member = Member(
        name=author.name,
        roles=tuple(role.value for role in author.roles),
        place=author.place,
        box_key=author.box_key,
        issuer=author.issuer,
        serial=author.serial,
        not_after=author.not_after,
    )
    context = BlockContext(
        network=network,
        ledger=line.ledger,
        height=line.height,
        time_ms=line.time_ms,
        provisional=not line.ledger,
    )
    return Act(body=line.body, entry=line.entry, member=member, context=context)


def _signers(line: Line, view: Layer, network: bytes) -> tuple[Signer, ...]:
    body, found = line.body, []
    time_ms = line.time_ms if line.ledger else line.entry.envelope.wall
    place = line.author.place
    if isinstance(body, SurgeryChecklist | SurgeryClose):
        fault = signers_fault(body, network)
        if fault is not None and line.verdict in ("", APPLIED):
            raise CredentialError("a person's signature that does not hold, or was given twice")
        for signed in body.signers:
            unfit = qualified(
                view, signed.word.signer, SCOPE_OF_ROLE[signed.role], time_ms, place=place
            )
            if unfit is not None and line.verdict == APPLIED:
                raise CredentialError(
                    "somebody signed whom the file does not show to be qualified, and the ledger "
                    "found qualified: a qualification was left out"
                )
            found.append(_signer(signed.word.signer, signed.role, unfit, proven=fault is None))
    actor, scope = line.entry.envelope.actor, SCOPES.get(line.entry.kind)
    if actor and scope is not None:
        unfit = qualified(view, actor, scope, time_ms, place=place)
        found.append(_signer(actor, None, unfit, proven=False))
    return tuple(found)


def _signer(
    person: bytes, role: TeamRole | None, unfit: Rejection | None, *, proven: bool
) -> Signer:
    return Signer(
        person=person,
        role=role.name.lower() if role is not None else "",
        proven=proven,
        unfit="" if unfit is None else unfit.value,
    )
