"""Simplex with one mistake each in what it believes, and in how long it waits.

Each is a mistake of a real system or of the prototype; rules are those
of ``docs/protocols/bft.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from p2pmed.consensus.bft import ballots as ballots_module
from p2pmed.consensus.bft.ballots import Ballots
from p2pmed.consensus.bft.execution import Execution
from p2pmed.consensus.bft.live import Live, Standing
from p2pmed.consensus.bft.news import News
from p2pmed.consensus.bft.pacemaker import DELTA_MS, Pacemaker
from p2pmed.consensus.bft.tally import Ballot, Tally
from p2pmed.consensus.interface import Check, Header
from p2pmed.quorum.certificate import Certificate, Epoch, vote_bytes
from p2pmed.testing.core.defect import CoreDefect, defect, set_to
from p2pmed.testing.core.patching import Patch

__all__ = ["BLOCK_DEFECTS"]


def _any_parent(self: Live, header: Header) -> Any:
    if header.parent != self.tip_digest and header.parent not in self.blocks:
        return real_lacks(self, header)
    return self.skipped(header)


def real_lacks(live: Live, header: Header) -> Any:
    """What is missing is asked for, as ever."""
    from p2pmed.consensus.bft.live import Lacks

    return Lacks(header.parent_view)


def _any_height(patch: Patch) -> None:
    real = Live.standing

    def standing(self: Live, header: Header) -> Any:
        found = real(self, header)
        if found is Standing.BROKEN and header.parent in (self.tip_digest, *self.blocks):
            return self.skipped(header)
        return found

    patch(Live, "standing", standing)


def _unexecuted(self: Execution, digest: bytes, block: Any) -> Check:
    if self._application.check(block) is Check.MISSING:
        return Check.MISSING
    self._live.valid[digest] = None
    return Check.VALID


def _signatures_counted(certificate: Certificate, epoch: Epoch, *, verify: Any) -> None:
    """As many signatures as a quorum; who made them is not looked at twice."""
    from p2pmed.errors import CredentialError

    if len(certificate.signatures) < epoch.quorum:
        raise CredentialError("too few signatures")
    seats = [i for i in range(len(epoch.validators)) if certificate.signers >> i & 1]
    message = vote_bytes(
        certificate.ledger,
        certificate.epoch,
        certificate.kind,
        certificate.view,
        certificate.digest,
    )
    for index, signature in enumerate(certificate.signatures):
        seat = seats[min(index, len(seats) - 1)]
        if not verify(epoch.validators[seat].vote_key, signature, message):
            raise CredentialError("a false signature")


def _unsigned(certificate: Certificate, epoch: Epoch, *, verify: Any) -> None:
    """Certificates are believed as they come."""


def _pooled(patch: Patch) -> None:
    """Votes for one kind count together, whatever block they name."""
    real = Tally.put

    def put(self: Tally, seat: int, ballot: Ballot) -> int:
        real(self, seat, ballot)
        return len([key for key in self._slots if key[1] is ballot.kind])

    patch(Tally, "put", put)


def _anybodys_votes(patch: Patch) -> None:
    real = Ballots.__init__

    def made(self: Ballots, **given: Any) -> None:
        real(self, **{**given, "verify": lambda key, signature, message: True})

    patch(Ballots, "__init__", made)


def _accuse_the_leader(patch: Patch) -> None:
    real = Ballots._accuse

    def accuse(self: Ballots, seat: int, view: int, first: Any, second: Any) -> None:
        real(self, self.leader(view), view, first, second)

    patch(Ballots, "_accuse", accuse)


def _repeated_is_rival(self: Tally, seat: int, kind: Any, digest: bytes) -> Ballot | None:
    return self._slots.get((seat, kind))


def _delta_for_ever(patch: Patch) -> None:
    patch(Pacemaker, "decided", lambda self: None)
    patch(Pacemaker, "delta", property(lambda self: DELTA_MS << min(self._slow, 16)))


def _no_questions(self: News, seat: int, view: int, now: Any) -> None:
    """Nothing is ever asked."""


BLOCK_DEFECTS: Final[Mapping[str, CoreDefect]] = MappingProxyType(
    {
        "bft: skipped views unchecked": defect(
            "bft",
            "every skipped view is proved nullified (R3)",
            "consensus notes, 3.5",
            "admitted",
            set_to(Live, "skipped", lambda self, header: Standing.READY),
        ),
        "bft: parent not notarized": defect(
            "bft",
            "the parent is certified (R3)",
            "consensus notes, 4: the prototype missed it",
            "admitted",
            set_to(Live, "standing", _any_parent),
        ),
        "bft: parent fields unchecked": defect(
            "bft",
            "height and parent view follow the parent (R3)",
            "SeismicSystems/summit#173",
            "admitted",
            _any_height,
        ),
        "bft: content not executed": defect(
            "bft",
            "a vote only for what the application calls valid (R3)",
            "bft.md, 5",
            "exactly once",
            set_to(Execution, "_verdict", _unexecuted),
        ),
        "bft: duplicate signers counted": defect(
            "bft",
            "a certificate names distinct signers",
            "certificate.md, 4",
            "certificates",
            set_to(ballots_module, "check_certificate", _signatures_counted),
        ),
        "bft: certificates unverified": defect(
            "bft",
            "every signature of a certificate is checked",
            "ava-labs/Simplex#544",
            "certificates",
            set_to(ballots_module, "check_certificate", _unsigned),
        ),
        "bft: votes pooled": defect(
            "bft", "votes count per block", "Rustchain#2256", "certificates", _pooled
        ),
        "bft: votes unverified": defect(
            "bft",
            "a vote counts for who signed it (R0)",
            "Rustchain#2256",
            "certificates",
            _anybodys_votes,
        ),
        "bft: wrong seat accused": defect(
            "bft", "evidence names who signed", "cometbft#1749", "evidence", _accuse_the_leader
        ),
        "bft: repetition is evidence": defect(
            "bft",
            "the same vote twice is no lie (R0)",
            "cometbft#1749",
            "evidence",
            set_to(Tally, "rival", _repeated_is_rival),
        ),
        "bft: leader never given up": defect(
            "bft",
            "a view ends without its leader (R6)",
            "relab/hotstuff#106",
            "progress",
            set_to(Pacemaker, "give_up_at", lambda self, **given: None),
        ),
        "bft: timeouts grow for hours": defect(
            "bft",
            "waits fall back when a block is decided",
            "tendermint#1464",
            "progress",
            _delta_for_ever,
            within=400,
        ),
        "bft: nothing asked": defect(
            "bft",
            "what is missing is asked for (R10)",
            "dbft#17",
            "progress",
            set_to(News, "ask", _no_questions),
        ),
    }
)
"""By name."""
