"""The leader's block: made by one (R2), judged by all (R3, R4).

Rules:

* A leader builds on the highest certified block below its view and shows what admits it.
* A validator takes the first block that the leader of a view sends, from that leader only,
  and votes for it if certificates and application both allow it; what is missing is asked
  for in silence, what is wrong ends the view at once.
* The block may travel before the leader's own vote is durable: only votes bind.
"""

from __future__ import annotations

from p2pmed.consensus.bft.ballots import Ballots
from p2pmed.consensus.bft.execution import Execution
from p2pmed.consensus.bft.live import Lacks, Live, Parent, Standing
from p2pmed.consensus.bft.messages import CONTENT_BYTES_MAX, JUSTIFICATION_MAX, Proposal
from p2pmed.consensus.bft.outbox import Outbox
from p2pmed.consensus.interface import Application, Block, Check, Header, header_digest
from p2pmed.errors import LocalProtocolError
from p2pmed.quorum.certificate import Epoch, VoteKind

__all__ = ["Proposals"]


class Proposals:
    """Making and judging blocks, for one seat."""

    def __init__(
        self,
        *,
        epoch: Epoch,
        seat: int,
        application: Application,
        live: Live,
        ballots: Ballots,
        execution: Execution,
        outbox: Outbox,
    ) -> None:
        self._epoch, self._seat, self._application = epoch, seat, application
        self._live, self._ballots, self._execution = live, ballots, execution
        self._outbox = outbox

    def lead(self, view: int) -> Lacks | None:
        """R2: propose, if this view is ours and there is something to order.

        Returns what is missing for it. Raises ``LocalProtocolError`` if the application
        builds more than ``CONTENT_BYTES_MAX``.
        """
        if self._ballots.leader(view) != self._seat or not self._ballots.may_notarize(view):
            return None
        parent = self._live.parent_for(view, self._execution.is_valid)
        if isinstance(parent, Lacks):
            return parent
        block = self._build(parent, view)
        if block is None:
            return None
        digest = header_digest(block.header)
        self._live.add_block(digest, block)
        if self._execution.is_valid(digest):
            self._live.proposals[view] = digest
            self._outbox.broadcast(self.message(block))
            self._ballots.cast(VoteKind.NOTARIZE, view, digest, block)
        else:
            self._live.drop_block(digest)
        return None

    def judge(self, view: int, *, patient: bool = False) -> Lacks | None:
        """R3, R4: vote for the leader's block, or against it; returns what is missing.

        ``patient`` leaves the vote against it to the timer (``Pacemaker.patient``).
        """
        live = self._live
        digest = live.proposals.get(view)
        if digest is None or not self._ballots.may_notarize(view):
            return None
        block = live.blocks.get(digest)
        if block is None:  # its bytes were refused before
            if not patient:
                self._ballots.nullify(view)
            return None
        standing = live.standing(block.header)
        if isinstance(standing, Lacks):
            return standing
        verdict = Check.INVALID if standing is Standing.BROKEN else self._execution.check(digest)
        if verdict is Check.VALID:
            self._ballots.cast(VoteKind.NOTARIZE, view, digest, block)
        elif verdict is Check.INVALID:
            live.drop_block(digest)
            if not patient:
                self._ballots.nullify(view)
        return None

    def believable(self, sender: int, proposal: Proposal) -> bool:
        """Whether ``sender`` may propose this at all, in some view of this epoch."""
        header = proposal.block.header
        return (
            sender == header.proposer == self._ballots.leader(header.view)
            and header.epoch == self._epoch.number
            and header.ledger == self._epoch.ledger
            and len(proposal.block.content) <= CONTENT_BYTES_MAX
        )

    def keep(self, block: Block) -> None:
        """The first block of its view is judged in its time; a certified one is kept anyway."""
        live, view, digest = self._live, block.header.view, header_digest(block.header)
        first = view not in live.proposals
        if first:
            live.proposals[view] = digest
        if (first or digest in live.bodiless) and digest not in live.blocks:
            live.add_block(digest, block)

    def message(self, block: Block) -> Proposal:
        """The block, what admits its parent, and the skipped views nearest to it."""
        header, live = block.header, self._live
        at_floor = header.parent_view <= live.floor
        admits = live.tip_certificate if at_floor else live.certified(header.parent_view)
        first = max(header.parent_view + 1, header.view - (JUSTIFICATION_MAX - 1))
        views = range(first, header.view)
        skipped = tuple(live.nullified[view] for view in views if view in live.nullified)
        return Proposal(block=block, justification=(() if admits is None else (admits,)) + skipped)

    def _build(self, parent: Parent, view: int) -> Block | None:
        content = self._application.build(parent.digest, view)
        if content is None:
            return None
        if len(content.data) > CONTENT_BYTES_MAX:
            raise LocalProtocolError(
                f"a block of {len(content.data)} bytes where {CONTENT_BYTES_MAX} are allowed"
            )
        header = Header(
            version=1,
            ledger=self._epoch.ledger,
            epoch=self._epoch.number,
            view=view,
            height=parent.height + 1,
            parent=parent.digest,
            parent_view=parent.view,
            proposer=self._seat,
            content=content.hash,
        )
        return Block(header=header, content=content.data)
