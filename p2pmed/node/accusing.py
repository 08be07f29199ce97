"""Evidence on one node: made self-contained, checked, kept, and reported once.

The engine, the chains and the author logs find two statements that cannot stand together; here
they become a proof that a stranger can check (``ledger/evidence.py``): genesis, handovers and
both statements. It is kept on the disk before anything is said of it, told as an alarm, and
written into the own log as ``evidence.report``: from there it travels like any entry, to peers,
into bundles, to the county, also where the ledger that forked orders nothing any more.

Rule: nothing is kept or reported that does not hold when it is checked as a stranger would.
One proof of a case is enough; repeated evidence is dropped, after a restart too.

Rows of ``Space.LOCAL``: ``evidence`` + place (32) + first of the guilty, or the ledger (32) ->
the encoded evidence; ``passed`` + ledger + view modulo 4,096 (2) -> the certificate that
nullified a view.

Failure table: a proof that does not hold, or lacks a handover, is dropped and the alarm stays;
one that is longer than a report is kept and exported as a file; a frozen own log reports nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Final

from p2pmed.consensus.interface import Decide, Header
from p2pmed.consensus.interface import Evidence as Accusation
from p2pmed.errors import CredentialError, DecodeError, LocalProtocolError
from p2pmed.ledger.epochs import Epochs
from p2pmed.ledger.evidence import (
    EVIDENCE_BYTES_MAX,
    LEDGER_FORK,
    LINKS_MAX,
    Branch,
    Case,
    Evidence,
    check_evidence,
    decode_evidence,
    log_fork,
)
from p2pmed.ledger.light import handovers_to
from p2pmed.ledger.state import Readable
from p2pmed.ledger.stored import TAIL_MAX, StoredBlock
from p2pmed.ledger.transaction import Entry
from p2pmed.medical.evidence import REPORT_BYTES_MAX, EvidenceReport, is_known, subjects
from p2pmed.node import events
from p2pmed.node.events import Draft
from p2pmed.node.turn import Turn
from p2pmed.quorum.certificate import Certificate, Epoch, Verify
from p2pmed.sync.chains import Chains
from p2pmed.wire import codec
from p2pmed.world import Disk, Space

__all__ = ["Accusing"]

KEPT: Final = b"evidence"
PASSED: Final = b"passed"
PASSED_KEPT: Final = 4_096
"""Nullified views of one ledger that are remembered: the newest, a kilobyte each at most."""
KEPT_MAX: Final = 1_024
"""Proofs that are kept and shown: one for each case of each device."""


class Accusing:
    """See the module. ``write`` signs drafts into the own log."""

    def __init__(
        self,
        *,
        disk: Disk,
        network: bytes,
        chains: Chains,
        verify: Verify,
        state: Callable[[], Readable],
        write: Callable[[Turn, tuple[Draft, ...]], Any],
    ) -> None:
        self._disk = disk
        self._network = network
        self._chains = chains
        self._verify = verify
        self._state = state
        self._write = write

    # --- what was found ---------------------------------------------------------------------

    def hear(self, turn: Turn, epoch: Epoch, found: Accusation | Decide) -> None:
        """From the home ledger's engine: two votes of one seat, or why views were passed over.

        That a view was nullified is kept for a while: if a block of it turns out to have been
        final elsewhere, that certificate is what names the liars.
        """
        if isinstance(found, Decide):
            for certificate in found.passed:
                key = _passed(epoch.ledger, certificate.view)
                self._disk.stage(Space.LOCAL, key, codec.encode(certificate))
                turn.staged = True
            return
        turn.notify(events.Alarm("equivocation", (epoch.validators[found.seat].node,), found.kind))
        self._of_ledger(turn, epoch, found.kind, found.first, found.second)

    def ledger_fork(self, turn: Turn, first: StoredBlock, second: StoredBlock) -> None:
        """Two certified chains of one ledger: the one that is kept here, and another."""
        header = second.block.header
        epoch = self._epochs(header.ledger).numbered(header.epoch)
        branches = (self._branch(first), self._branch(second))
        if epoch is None or branches[0] is None or branches[1] is None:
            return  # the fork itself is kept by who found it
        raws = [codec.encode(branch) for branch in branches]
        views = [each.view for branch in branches if branch for each in branch.headers]
        links = self._passed(epoch, views)
        self._of_ledger(turn, epoch, LEDGER_FORK, raws[0], raws[1], links)

    def _passed(self, epoch: Epoch, views: Sequence[int]) -> tuple[Certificate, ...]:
        """What is kept of ``views``: that they were nullified."""
        found = []
        for view in dict.fromkeys(views):
            raw = self._disk.get(Space.LOCAL, _passed(epoch.ledger, view))
            certificate = None if raw is None else codec.decode(raw, Certificate)
            if certificate and (certificate.epoch, certificate.view) == (epoch.number, view):
                found.append(certificate)
        return tuple(found[-LINKS_MAX:])

    def log_fork(self, turn: Turn, mine: Entry, other: Entry) -> None:
        """Two entries of one author log."""
        self.keep(turn, log_fork(self._network, mine.raw, other.raw))

    def _of_ledger(
        self,
        turn: Turn,
        epoch: Epoch,
        kind: str,
        first: bytes,
        second: bytes,
        links: tuple[Certificate, ...] = (),
    ) -> None:
        founding = self._chains.founding(epoch.ledger)
        if founding is None:
            return
        epochs = self._epochs(epoch.ledger)
        try:
            handovers = handovers_to(epoch.number, epochs, self._stored(epoch.ledger))
        except LocalProtocolError:
            return  # a ledger whose past was pruned: its own members still know the epoch
        evidence = Evidence(
            version=1,
            kind=kind,
            network=self._network,
            genesis=founding.genesis,
            founders=founding.signatures,
            handovers=handovers,
            first=first,
            second=second,
            links=links,
        )
        self.keep(turn, evidence)

    def _epochs(self, ledger: bytes) -> Epochs:
        founding = self._chains.founding(ledger)
        assert founding is not None  # blocks of unknown ledgers are not taken
        return Epochs(self._disk, founding.genesis.epoch())

    def _stored(self, ledger: bytes) -> Callable[[int], StoredBlock | None]:
        return lambda height: self._chains.block_at(ledger, height)

    def _branch(self, stored: StoredBlock) -> Branch | None:
        """A block with what makes it final, its own certificate or that of one above it here."""
        header, top = stored.block.header, stored
        above: list[Header] = []
        while top.certificate is None:
            following = self._chains.block_at(header.ledger, header.height + len(above) + 1)
            if following is None or len(above) >= TAIL_MAX // 2:
                return None
            above.append(following.block.header)
            top = following
        return Branch(header=header, above=(*above, *top.tail), votes=top.certificate)

    # --- kept and told ----------------------------------------------------------------------

    def keep(self, turn: Turn, evidence: Evidence) -> Case | None:
        """Keep and report evidence that holds and is news; what it proves, or ``None``."""
        try:
            case = check_evidence(evidence, verify=self._verify)
        except (CredentialError, DecodeError):
            return None
        key = KEPT + case.place + subjects(case)[0]
        raw = codec.encode(evidence)
        if self._disk.get(Space.LOCAL, key) is not None or len(raw) > EVIDENCE_BYTES_MAX:
            return None
        self._disk.stage(Space.LOCAL, key, raw)
        turn.staged = True
        fits = len(raw) <= REPORT_BYTES_MAX
        if fits and not is_known(self._state(), case):
            with suppress(LocalProtocolError):  # the own log forked: others will report
                self._write(turn, (Draft(body=EvidenceReport(proof=raw)),))
        return case

    def kept(self) -> Iterator[tuple[bytes, Evidence]]:
        """Every proof that is kept, with its bytes, in the order of the keys."""
        rows = self._disk.scan(Space.LOCAL, KEPT, KEPT + b"\xff" * 65, limit=KEPT_MAX)
        for _, raw in rows:
            yield raw, decode_evidence(raw)

    def __len__(self) -> int:
        return len(self._disk.scan(Space.LOCAL, KEPT, KEPT + b"\xff" * 65, limit=KEPT_MAX))


def _passed(ledger: bytes, view: int) -> bytes:
    return PASSED + ledger + (view % PASSED_KEPT).to_bytes(2, "big")
