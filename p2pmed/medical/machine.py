"""The medical state machine: what gives the ledger's sequence its meaning.

Rule: deterministic, total and cheap. Every node that applies the same entries in the same
order answers the same verdicts and writes the same bytes; no entry makes it raise.

Theory of operation. An entry meets questions in the rank of ``Rejection``, and the first
that says no is the verdict:

1. is the type known (``unknown_type``), and does the body fit it (``malformed``)?
2. is it this ledger's to execute (``carried``)? An ordered type that names another ledger is
   only carried, unless its kind acts everywhere (design, section 12);
3. who speaks: ``author_unknown``, ``author_revoked``, ``author_expired``, ``role_missing``.
   Expiry is judged by block time and only for ordered types: care that was given is recorded;
4. is the acting person qualified (``care/competence.py``), where the type is ordered;
5. then the kind's own ``check``, and only if it has nothing to say, ``apply``; a mergeable act of
   somebody who was not qualified is applied and flagged.

A refused entry has written nothing, with one exception that is the point of it: a ``Refusal``
(two facts that cannot both be right) opens a discrepancy. The ledger therefore keeps what an
entry wrote whatever its verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from p2pmed.errors import DecodeError
from p2pmed.ledger.state import APPLIED, BlockContext, Verdict, View
from p2pmed.ledger.transaction import Entry
from p2pmed.medical.care.competence import flag_act, refuse_act
from p2pmed.medical.discrepancies import record_discrepancy
from p2pmed.medical.membership import MEMBERS, LogOpen
from p2pmed.medical.registry import Act, Checked, Kind, Member, Refusal, Registry
from p2pmed.medical.rejections import Rejection
from p2pmed.wire import codec
from p2pmed.wire.codec import Wire
from p2pmed.wire.hashing import digest

__all__ = ["RULES_VERSION", "MedicalMachine", "OpenCredential"]

RULES_VERSION: Final = 1
"""Raised when the meaning of a kind changes without a change of its fields."""

MEMBERS_CACHED_MAX: Final = 1_024
"""Decoded members; a village has tens, a county hundreds."""

OpenCredential = Callable[[tuple[bytes, ...], bytes], Member | None]
"""``open_credential(chain, device)``: the member whom a verified chain names, or ``None`` if the
chain does not lead from the network's authority to this device key. Pure: no clock."""

_APPLIED: Final = Verdict(code=APPLIED)
_REFUSED: Final[Mapping[Rejection, Verdict]] = {
    reason: Verdict(code=reason.value) for reason in Rejection
}
_FAULTS_OF_A_CHECK = (ArithmeticError, LookupError, TypeError, ValueError)


class MedicalMachine:
    """The ``StateMachine`` of the kinds in ``registry``."""

    def __init__(self, registry: Registry, open_credential: OpenCredential) -> None:
        self.registry = registry
        self._open_credential = open_credential
        self._members: dict[bytes, Member] = {}
        self._rules_hash = digest("medical", RULES_VERSION.to_bytes(4, "big") + registry.rules_hash)

    @property
    def rules_hash(self) -> bytes:
        """Names these kinds and this version of their meaning (32 bytes)."""
        return self._rules_hash

    def apply(self, entry: Entry, view: View, context: BlockContext) -> Verdict:
        """Give ``entry`` its verdict. Raises only ``StorageError``, for a rotten row."""
        envelope = entry.envelope
        kind = self.registry.find(envelope.kind, envelope.kind_version)
        if kind is None:
            return _REFUSED[Rejection.UNKNOWN_TYPE]
        try:
            body: Wire = codec.convert(envelope.body, kind.body)
        except DecodeError:
            return _REFUSED[Rejection.MALFORMED]
        if kind.ordered and not kind.everywhere and envelope.ledger not in (b"", context.ledger):
            return _REFUSED[Rejection.CARRIED]
        member = self._author(entry, body, view)
        if member is None:
            return _REFUSED[Rejection.AUTHOR_UNKNOWN]
        unheard = _unheard(kind, member, context)
        if unheard is not None:
            return _REFUSED[unheard]
        act = Act(body=body, entry=entry, member=member, context=context)
        no = refuse_act(kind, act, view) or _check(kind, act, view)
        if no is None:
            kind.apply(act, view)
            flag_act(kind, act, view)
            return _APPLIED
        if isinstance(no, Refusal):
            record_discrepancy(view, no.reason.value, no.other, entry.id, context.time_ms)
            return Verdict(code=no.reason.value, other=no.other)
        return _REFUSED[no]

    def _author(self, entry: Entry, body: Wire, view: View) -> Member | None:
        """Who speaks: from the credential in a log's first entry, else from the state."""
        if isinstance(body, LogOpen):
            return self._open_credential(body.chain, entry.author)
        raw = view.get(MEMBERS.prefix + entry.author)
        if raw is None:
            return None
        member = self._members.get(raw)
        if member is None:
            if len(self._members) >= MEMBERS_CACHED_MAX:
                self._members.clear()
            member = self._members[raw] = MEMBERS.read(raw)
        return member


def _unheard(kind: Kind[Any], member: Member, context: BlockContext) -> Rejection | None:
    """Why this author is not heard, in the order of rank."""
    if member.revoked:
        return Rejection.AUTHOR_REVOKED
    if kind.ordered and context.time_ms >= member.not_after:
        return Rejection.AUTHOR_EXPIRED
    if kind.roles and kind.roles.isdisjoint(member.roles):
        return Rejection.ROLE_MISSING
    return None


def _check(kind: Kind[Any], act: Act[Any], view: View) -> Checked:
    """The kind's own answer; a check that stumbles over a body refuses it, alike everywhere."""
    try:
        return kind.check(act, view)
    except _FAULTS_OF_A_CHECK:
        return Rejection.MALFORMED
