"""How entries come in: own ones signed, others' checked, and what follows when they are stored.

Rule: nothing is said of an entry, and nobody is answered, before it is on the disk. Signatures
are checked off the loop; whatever a batch was found to be, its source is named once.

Failure table:

======================================  ====================================================
a malformed or unsigned entry           gossip drops its source, which is shunned a while
a gap in a log                          gossip asks for what is missing
a fork                                  the log is frozen, both branches shown to all peers
a block orders another branch           fetched by id (``node/branches.py``), kept beside it
a draft's own function fails            nothing was appended; the caller is told
the own log forked                      ``LocalProtocolError``: it takes no more
the disk is nearly full                 ``DiskFull``, but for revocations; peers' not taken
======================================  ====================================================
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final

from p2pmed.engine import Instant
from p2pmed.errors import DecodeError, DiskFull, InvariantError, StorageError
from p2pmed.gossip import events as gossip
from p2pmed.gossip.messages import Push
from p2pmed.ledger.hlc import HybridClock
from p2pmed.ledger.intake import Intake
from p2pmed.ledger.logs import Logs
from p2pmed.ledger.transaction import Entry, LaneKey
from p2pmed.medical.membership import Revocation
from p2pmed.node import events
from p2pmed.node.anchoring import Anchoring
from p2pmed.node.branches import BranchAsk, BranchEntries, Branches
from p2pmed.node.events import Draft
from p2pmed.node.ledgers import Ledgers
from p2pmed.node.own_log import OwnLog
from p2pmed.node.trust import Trust
from p2pmed.node.turn import Turn
from p2pmed.quorum.certificate import Verify
from p2pmed.world import Space, World

__all__ = ["Admission"]

RECALL: Final = "drug.recall"


class Admission:
    """The gate of the author logs. ``spread`` hands an event to gossip and carries it out."""

    def __init__(
        self,
        *,
        world: World,
        network: bytes,
        verify: Verify,
        logs: Logs,
        own: OwnLog,
        clock: HybridClock,
        intake: Intake,
        trust: Trust,
        anchoring: Anchoring,
        ledgers: Ledgers,
        links: Collection[bytes],
        spread: Callable[[Turn, gossip.GossipEvent], None],
    ) -> None:
        self.branches = Branches(logs, network, verify)
        self._world = world
        self._logs = logs
        self._own = own
        self._clock = clock
        self._intake = intake
        self._trust = trust
        self._anchoring = anchoring
        self._ledgers = ledgers
        self._links = links
        self._spread = spread
        self._checking: dict[int, tuple[bytes | None, int | None, str]] = {}
        """By token: where the entries came from, who is answered, what was wrong with others."""

    @property
    def deadline(self) -> Instant | None:
        """When a silent peer is passed over that was asked for a branch."""
        return self.branches.deadline

    # --- others' entries --------------------------------------------------------------------

    def offer(
        self, turn: Turn, source: bytes | None, raws: Iterable[bytes], request: int | None
    ) -> None:
        """Entries from a peer, or from a file whose ``request`` is answered."""
        if source is not None and self._is_full:
            return  # asked for again when there is room; votes and blocks still find some
        offered = self._intake.offer(source, tuple(raws))
        if source is not None:
            for gap in offered.gaps:
                self._spread(turn, gossip.Gap(gap.lane, gap.next_seq, gap.got_seq, source))
        if offered.token:
            self._checking[offered.token] = (source, request, offered.fault)
            turn.effects.append(events.CheckSignatures(offered.token, tuple(offered.checks)))
        if offered.fault and source is not None:
            self._trust.shun(turn, source)
            self._spread(turn, gossip.Bad(source, offered.fault))
        if request is not None and not offered.token:
            error = DecodeError(offered.fault) if offered.fault else None
            turn.effects.append(events.Reply(request, error=error))

    def on_checked(self, turn: Turn, token: int, good: tuple[bool, ...]) -> None:
        """The signatures of an offer were checked: take in what is good."""
        source, request, fault = self._checking.pop(token)
        admitted = self._intake.checked(token, good)
        fault = fault or admitted.fault
        error = DecodeError(fault) if fault else None
        for fork in admitted.forks:
            self._on_fork(turn, fork)
        if admitted.entries:
            self._observe(turn, admitted.entries)
            self._when_stored(turn, admitted.entries, source, request, error)
        elif request is not None:
            reply = events.Reply(request, error=error)
            turn.when_durable(lambda later: later.effects.append(reply))
        if admitted.fault and source is not None:
            self._trust.shun(turn, source)
            self._spread(turn, gossip.Bad(source, admitted.fault))

    def _observe(self, turn: Turn, entries: list[Entry]) -> None:
        wall = self._world.clock.wall_ms()
        for entry in entries:
            self._clock.observe(entry.envelope.hlc, wall)
        recalls = [entry for entry in entries if entry.kind == RECALL]
        if recalls:
            turn.when_durable(lambda later: self._alarm_recalls(later, recalls))

    def _alarm_recalls(self, turn: Turn, entries: list[Entry]) -> None:
        """Tell of recalls by who may recall: anybody could write one."""
        for entry in entries:
            if self._ledgers.overlay.verdict_of(entry).applied:
                turn.notify(events.Alarm("recall", (entry.id,)))

    # --- forks ------------------------------------------------------------------------------

    def _on_fork(self, turn: Turn, fork: Entry) -> None:
        """A log was just frozen: alarm, and show everybody, or they go on ordering branches."""
        turn.staged = True
        turn.notify(events.Alarm("fork", (fork.id, fork.author)))
        lane = self._logs.lane(fork.lane)
        mine = self._logs.entry(fork.lane, min(fork.seq, lane.next_seq - 1)) if lane else None
        both = tuple(entry.raw for entry in (mine, fork) if entry is not None)
        if mine is not None:
            self._ledgers.accusing.log_fork(turn, mine, fork)

        def then(later: Turn) -> None:
            for peer in self._links:
                later.send(peer, Push(both), control=False)

        turn.when_durable(then)

    def answer_branch(self, turn: Turn, peer: bytes, ask: BranchAsk) -> None:
        """Give a peer what is here of a branch that it lacks."""
        answer = self.branches.answer(peer, ask, turn.now)
        if answer is not None:
            turn.send(peer, answer, control=False)

    def take_branch(self, turn: Turn, peer: bytes, message: BranchEntries) -> None:
        """Keep what a block orders beside the log that reads another branch."""
        entries = self.branches.take(peer, message)
        for entry in entries:
            lane = self._logs.lane(entry.lane)
            if lane is None or lane.frozen:
                self._logs.keep_branch(entry)
            else:
                self._logs.freeze(entry)
                self._on_fork(turn, entry)
        if entries:
            turn.staged = turn.work = True
            turn.when_durable(self._anchoring.advance)

    def seek_branches(self, turn: Turn) -> None:
        """Ask for what a block orders of a forked log; validators first, they voted for it."""
        if not self._logs.wanted and self.branches.deadline is None:
            return
        seats = self._ledgers.seating.seats
        peers = sorted(self._links, key=lambda peer: peer not in seats)
        asked = self.branches.turn(peers, turn.now)
        if asked is not None:
            turn.send(asked[0], asked[1], control=False)

    # --- the own log ------------------------------------------------------------------------

    def write(self, turn: Turn, drafts: tuple[Draft, ...]) -> list[Entry]:
        """Sign drafts of the node's own into its log. Raises what ``OwnLog.sign`` raises."""
        entries, _ = self._sign(drafts, None)
        self._append(turn, entries, (), None)
        return entries

    def submit(self, turn: Turn, submit: events.Submit) -> None:
        """Sign a caller's drafts into the own log, all or none.

        The caller's functions run in here: what they raise is the caller's, and nothing of the
        submission was staged by then.
        """
        if self._is_full and not all(isinstance(d.body, Revocation) for d in submit.drafts):
            full = DiskFull(
                "the disk is full: nothing new is recorded",
                hint="free some room and start the node again; what was recorded is safe",
            )
            turn.effects.append(events.Reply(submit.request, error=full))
            return
        try:
            entries, rows = self._sign(submit.drafts, submit.local)
        except (StorageError, InvariantError):
            raise
        except Exception as error:
            turn.effects.append(events.Reply(submit.request, error=error))
            return
        self._append(turn, entries, rows, submit.request)

    @property
    def _is_full(self) -> bool:
        """Whether the disk's last reserve is spent: what is left is for votes and revocations."""
        return bool(getattr(self._world.disk, "low", False))

    def _sign(
        self, drafts: tuple[Draft, ...], local: events.LocalRows | None
    ) -> tuple[list[Entry], Sequence[tuple[bytes, bytes | None]]]:
        """Entries of ``drafts``, and the rows to note with them; nothing is staged."""
        ledger = self._ledgers.home.ledger if self._ledgers.home else b""
        wall = self._world.clock.wall_ms()
        entries = self._own.sign(drafts, ledger=ledger, wall_ms=wall, clock=0)
        return entries, local([entry.id for entry in entries]) if local else ()

    def _append(
        self,
        turn: Turn,
        entries: list[Entry],
        rows: Sequence[tuple[bytes, bytes | None]],
        request: int | None,
    ) -> None:
        """Stage own entries, and ``rows`` in the same commit."""
        self._logs.extend(entries)
        for key, value in rows:
            self._world.disk.stage(Space.LOCAL, key, value)
        self._when_stored(turn, entries, None, request)

    # --- stored -----------------------------------------------------------------------------

    def _when_stored(
        self,
        turn: Turn,
        entries: list[Entry],
        source: bytes | None,
        request: int | None,
        error: DecodeError | None = None,
    ) -> None:
        """Everything that follows once ``entries`` are on the disk.

        ``error`` says why others of the same request are not among them.
        """
        tips: dict[LaneKey, int] = {}
        for entry in entries:
            tips[entry.lane] = entry.seq + 1

        def then(later: Turn) -> None:
            for lane, next_seq in tips.items():
                self._logs.settle(lane, next_seq)
            stored = tuple((entry.lane, entry.seq, entry.raw) for entry in entries)
            later.notify(events.EntriesStored(tuple(entries), source))
            if request is not None:
                count = len(entries)
                reply = events.Reply(request, entries=tuple(entries), count=count, error=error)
                later.effects.append(reply)
            later.grown.append(gossip.Grew(tuple(tips.items()), stored, source))
            later.work = True
            self._trust.enforce(later, entries, self._links)
            self._anchoring.advance(later)

        turn.when_durable(then)
