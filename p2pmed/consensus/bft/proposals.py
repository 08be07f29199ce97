"""The leader's block: made by one (R2), judged by all (R3, R4).

Rules:

* A leader builds on the highest certified block below its view and shows what admits it.
* The next leader need not wait for the certificate: with its own vote for a block it sends
  the block that will follow it, if that is notarized and the views between are nullified.
  Everybody then votes for both blocks with one flush. If it comes otherwise, it proposes
  again: two blocks of one view are no lie, two votes are.
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
        self._ahead: tuple[int, bytes] = (0, b"")
        """View and digest of our own block that went out before its view came."""

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
        block = self._foreseen(parent, view)
        if block is None:
            block = self._offer(parent, view)
        if block is not None:
            digest = header_digest(block.header)
            self._live.proposals[view] = digest
            self._ballots.cast(VoteKind.NOTARIZE, view, digest, block)
        return None

    def lead_ahead(self, view: int) -> None:
        """R2, in advance: having voted for the block of ``view``, offer the one that follows.

        Over views that we gave up in advance, if the first of the others is ours.
        """
        digest = self._ballots.notarized_by_us(view)
        following = view + 1
        while self._ballots.gave_up_by_us(following):
            following += 1
        if (
            digest is None
            or self._ahead[0] >= following
            or self._ballots.leader(following) != self._seat
            or self._epoch.quorum == 1
            or not self._execution.is_valid(digest)
        ):
            return
        height = self._live.blocks[digest].header.height
        block = self._offer(Parent(digest, view, height), following)
        self._ahead = (following, b"" if block is None else header_digest(block.header))

    def _foreseen(self, parent: Parent, view: int) -> Block | None:
        """The block that we sent in advance, if it came as foreseen."""
        block = self._live.blocks.get(self._ahead[1]) if self._ahead[0] == view else None
        if block is None or block.header.parent != parent.digest:
            return None
        return block

    def _offer(self, parent: Parent, view: int) -> Block | None:
        block = self._build(parent, view)
        if block is None:
            return None
        digest = header_digest(block.header)
        changed = self._live.changed
        self._live.add_block(digest, block)
        if not self._execution.is_valid(digest):
            self._live.drop_block(digest)
            self._live.changed = changed  # nothing is new: the rules would ask again for ever
            return None
        self._outbox.broadcast(self.message(block))
        return block

    def judge(self, view: int, *, patient: bool = False) -> Lacks | None:
        """R3, R4: vote for the leader's block, or against it; returns what is missing.

        ``patient`` leaves the vote against it to the timer (``Pacemaker.patient``).
        """
        live = self._live
        if not self._ballots.may_notarize(view):
            return None
        digest = live.proposals.get(view)
        if digest is None:
            return self._judge_early(view)
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

    def _judge_early(self, view: int) -> Lacks | None:
        """A block that came in advance is the leader's if all came as it foresaw."""
        digest = self._live.early.get(view, b"")
        block = self._live.blocks.get(digest)
        standing = Standing.BROKEN if block is None else self._live.standing(block.header)
        if isinstance(standing, Lacks):
            return standing
        if standing is Standing.BROKEN:
            return None
        self._live.proposals[view] = digest
        return self.judge(view)

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
        slots = live.early if view > self._ballots.view else live.proposals
        if slots is live.early and view in slots:
            slots = live.proposals  # the leader thought better of it, or we are behind
        first = view not in slots
        if first:
            slots[view] = digest
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
        content = self._application.build(parent.digest, self._age(parent, view))
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

    def _age(self, parent: Parent, view: int) -> int:
        """For the application: the parent's next view, unless a view was lost in between.

        An undecided parent that lost a view may need an empty child to become final. A view
        given up in advance is no such loss: the parent's votes are still on their way.
        """
        between = range(parent.view + 1, view)
        foreseen = all(self._ballots.skipped(each) for each in between)
        return parent.view + 1 if foreseen else view
