"""Votes that no honest validator signs together: what they show, and who signed them.

Of what an honest validator has signed, over all its lives, these never stand side by side:

* two *notarize* votes, or two *finalize* votes, of one view for different blocks
  (``equivocation``);
* a *nullify* and a *finalize* vote of one view (``nullify_and_finalize``).

They are the first two rules of safety (consensus notes, section 3.5), so beyond ``f`` liars every
fork holds such a pair of at least ``f + 1`` validators. A validator that forgot what it signed
(a restored backup, a lost flush) leaves the same pairs: evidence says who signed, never why.

Rule: nobody is named whose signatures were not checked, and no statement counts unless *all* of
its signatures hold under seats of that epoch (cometbft#1749: a false signature in evidence must
not punish the innocent). A statement is a ``Certificate`` of any number of votes, one too.

Byte-exact: ``docs/protocols/evidence.md``, section 2.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from p2pmed.errors import CredentialError
from p2pmed.limits import VALIDATORS_MAX
from p2pmed.quorum.certificate import Certificate, Epoch, Verify, VoteKind, vote_bytes
from p2pmed.wire import cose

__all__ = [
    "EQUIVOCATION",
    "NULLIFY_AND_FINALIZE",
    "accused",
    "check_statement",
    "conflict",
    "signers",
]

EQUIVOCATION: Final = "equivocation"
NULLIFY_AND_FINALIZE: Final = "nullify_and_finalize"


def signers(statement: Certificate) -> tuple[int, ...]:
    """The seats whose votes ``statement`` claims to hold, in rising order."""
    return tuple(seat for seat in range(VALIDATORS_MAX) if statement.signers >> seat & 1)


def check_statement(
    statement: Certificate, epoch: Epoch, *, verify: Verify = cose.verify
) -> tuple[int, ...]:
    """The seats of ``epoch`` that signed ``statement``; a quorum is not asked for.

    Raises ``CredentialError`` unless every signature in it is that of its seat.
    """
    if (statement.ledger, statement.epoch) != (epoch.ledger, epoch.number):
        raise CredentialError("a vote of another ledger or epoch")
    if len(statement.digest) != (0 if statement.kind == VoteKind.NULLIFY else 32):
        raise CredentialError("a vote whose digest does not fit its kind")
    seats = signers(statement)
    if len(seats) != len(statement.signatures) or seats[-1] >= len(epoch.validators):
        raise CredentialError("a statement whose signers and signatures do not match")
    message = vote_bytes(
        statement.ledger, statement.epoch, statement.kind, statement.view, statement.digest
    )
    for seat, signature in zip(seats, statement.signatures, strict=True):
        if not verify(epoch.validators[seat].vote_key, signature, message):
            raise CredentialError(f"seat {seat} did not sign this vote")
    return seats


def conflict(first: Certificate, second: Certificate) -> str | None:
    """What it shows if one validator signed both; ``None`` if an honest one may have."""
    if (first.ledger, first.epoch, first.view) != (second.ledger, second.epoch, second.view):
        return None
    kinds = sorted((first.kind, second.kind))
    if kinds == [VoteKind.NULLIFY, VoteKind.FINALIZE]:
        return NULLIFY_AND_FINALIZE
    if first.kind == second.kind and first.digest != second.digest:
        return EQUIVOCATION
    return None


def accused(
    statements: Sequence[Certificate], epoch: Epoch, *, verify: Verify = cose.verify
) -> tuple[int, ...]:
    """Seats of ``epoch`` that signed two of ``statements`` which conflict, in rising order.

    Raises ``CredentialError`` if any signature in any of them does not hold.
    """
    signed = [frozenset(check_statement(each, epoch, verify=verify)) for each in statements]
    found: list[int] = []
    for upper, second in enumerate(statements):
        for lower in range(upper):
            if conflict(statements[lower], second) is not None:
                found += sorted(signed[lower] & signed[upper])
    return _distinct(found)


def _distinct(seats: Iterable[int]) -> tuple[int, ...]:
    return tuple(sorted(dict.fromkeys(seats)))
