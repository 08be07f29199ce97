"""The ledgers a node knows, and the one it lives in.

All are carried (``sync/chains.py``); one may be *home*: executed, and voted in with a seat. It
is a founding that names this node, or another's by policy or word, and for life.

The overlay is the home's state with what is provisional on top, or nothing below if there is
no home; a decided block begins it anew.

Failure table:

=====================================  =====================================================
a peer's wrong founding or block       its link is dropped, it is shunned a while
two certified blocks at one height     the second is kept, told once; the home halts for good
the home's founding is not on disk     ``InvariantError``: the node does not start
a home restored from a backup          it follows, and votes when the operator says so
=====================================  =====================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from p2pmed.consensus.interface import Resumed
from p2pmed.engine import DeadlineReached, Instant, earliest
from p2pmed.errors import InvariantError, LocalProtocolError
from p2pmed.ledger.chain import Decided
from p2pmed.ledger.genesis import Founding, ledger_id
from p2pmed.ledger.inheriting import inherit
from p2pmed.ledger.logs import Logs
from p2pmed.ledger.overlay import Overlay
from p2pmed.ledger.state import BlockContext, StateMachine
from p2pmed.ledger.stored import StoredBlock
from p2pmed.ledger.transaction import LaneKey
from p2pmed.medical.county import ANCHOR
from p2pmed.node import events
from p2pmed.node.accusing import Accusing
from p2pmed.node.anchoring import Anchoring
from p2pmed.node.empty import EmptyState
from p2pmed.node.events import Draft
from p2pmed.node.home_ledger import FORKED, LEDGER_FORKED, HomeLedger
from p2pmed.node.identity import MUTED, Identity
from p2pmed.node.seating import Seating
from p2pmed.node.succession import Succession
from p2pmed.node.trust import Trust
from p2pmed.node.turn import Turn
from p2pmed.node.vote_keys import VoteKeys
from p2pmed.quorum.certificate import Verify
from p2pmed.sync import chains as chain_events
from p2pmed.sync.chains import Chains
from p2pmed.sync.founding import MeshPolicy
from p2pmed.wire import codec
from p2pmed.world import Space, World

__all__ = ["GENESIS", "Ledgers"]

HOME: Final = b"home"
"""META row: the ledger this node lives in."""
GENESIS: Final = b"genesis"
"""Row of ``Space.LOCAL``: the one open genesis this node is bound to, until it has a home."""


class Ledgers:
    """Known ledgers and the home.

    ``holds`` says how far a peer has a log; ``tell_heads`` renews what pings say; ``settled``
    tells whoever founds that there is a home now, and returns the request that waits for it.
    """

    def __init__(
        self,
        *,
        world: World,
        identity: Identity,
        policy: MeshPolicy,
        machine: StateMachine,
        verify: Verify,
        engines: dict[str, Any] | None,
        logs: Logs,
        chains: Chains,
        trust: Trust,
        anchoring: Anchoring,
        links: Mapping[bytes, object],
        holds: Callable[[bytes, LaneKey], int],
        tell_heads: Callable[[], None],
        settled: Callable[[], int | None],
        write: Callable[[Turn, tuple[Draft, ...]], object],
    ) -> None:
        self.identity = identity
        self.machine = machine
        self.chains = chains
        self.home: HomeLedger | None = None
        self.empty = EmptyState()
        self._world = world
        self._verify = verify
        self._engines = engines
        self._logs = logs
        self._trust = trust
        self._anchoring = anchoring
        self._links = links
        self._holds = holds
        self._tell_heads = tell_heads
        self._settled = settled
        self._me = identity.keys.node_id
        self.succession = Succession(
            me=self._me,
            disk=world.disk,
            policy=policy,
            chains=chains,
            links=links,
            is_revoked=trust.saw_revoked,
        )
        self.seating = Seating(
            vote_keys=VoteKeys(world.disk, identity.keys, world.entropy),
            me=self._me,
            ledgers=self,
            links=links,
            write=write,
        )
        self.accusing = Accusing(
            disk=world.disk,
            network=identity.network,
            chains=chains,
            verify=verify,
            state=lambda: self.overlay.state(),  # noqa: PLW0108 (it is replaced)
            write=write,
        )
        self.overlay = self._make_overlay()

    def resume(self) -> None:
        """Take up the home ledger and the county ledgers known from before."""
        home = self._world.disk.get(Space.META, HOME)
        for ledger, _ in self.chains.heads():
            self._anchoring.watch(ledger)
        if home is None:
            return
        founding = self.chains.founding(home)
        if founding is None:
            raise InvariantError("the home ledger's founding is missing from the disk")
        self._live_in(founding)
        self._settled()

    @property
    def deadline(self) -> Instant | None:
        """When an ask for blocks runs out, or the home's engine acts."""
        return earliest(self.chains.deadline, self.home.deadline if self.home else None)

    def on_deadline(self, turn: Turn) -> None:
        """Ask others, and let the home's engine act, as far as it is time to."""
        if turn.due(self.chains.deadline):
            self.hear(turn, DeadlineReached())
        if self.home is not None and turn.due(self.home.deadline):
            self.home.run(turn, DeadlineReached())

    # --- known ledgers ----------------------------------------------------------------------

    def hear(self, turn: Turn, event: chain_events.ChainEvent) -> None:
        """What happened to the chains, and all that follows from it."""
        self._carry_out(turn, self.chains.step(event, turn.now))
        if isinstance(event, chain_events.PeerGone):
            self._succeed(turn)

    def _carry_out(self, turn: Turn, effects: Iterable[chain_events.ChainEffect]) -> None:
        for effect in effects:
            match effect:
                case chain_events.SendChain(peer, message):
                    turn.send(peer, message, control=False)
                case chain_events.Founded(founding):
                    self._on_founding(turn, founding)
                case chain_events.Verified(ledger, blocks):
                    self._on_verified(turn, ledger, blocks)
                case chain_events.Forked(ledger, first, second):
                    self._on_forked(turn, ledger, first, second)
                case chain_events.Faulty(peer, reason):
                    self._trust.shun(turn, peer)
                    turn.drop(peer, reason)

    def found(self, turn: Turn, founding: Founding) -> None:
        """Take in a founding said to be complete. Raises ``CredentialError`` if it is wrong."""
        if self.chains.found(founding):
            self._on_founding(turn, founding)

    def import_chain(self, turn: Turn, command: events.ImportChain) -> None:
        """A founding and blocks from a file; answered with how many blocks were new."""
        before = self.chains.height(command.ledger)
        if command.founding:
            self.found(turn, codec.decode(command.founding, Founding))
        taken = self.chains.take(command.ledger, command.blocks)
        if taken is not None:
            self._carry_out(turn, [taken])
        turn.staged = True
        count = self.chains.height(command.ledger) - before
        reply = events.Reply(command.request, count=count, ledger=command.ledger)
        turn.when_durable(lambda later: later.effects.append(reply))

    def _on_founding(self, turn: Turn, founding: Founding) -> None:
        """A ledger became known: ours if we are named in it, else perhaps one to follow."""
        turn.staged = True
        ledger = ledger_id(founding.genesis)
        self._anchoring.watch(ledger)
        named = founding.genesis.epoch().index_of(self._me) is not None
        county = ledger in self._anchoring.watches
        if self.home is not None:
            self._succeed(turn)
        elif named or self.succession.may_follow(founding, county=county):
            self._take_home(turn, founding)

    def _succeed(self, turn: Turn) -> None:
        """Move to a successor of the home, if one is known in which this node is to live."""
        if self.home is not None and (heir := self.succession.heir(self.home)) is not None:
            self._take_home(turn, heir)

    def _on_verified(self, turn: Turn, ledger: bytes, blocks: Sequence[StoredBlock]) -> None:
        turn.staged = True
        if self.home is not None and ledger == self.home.ledger:
            for stored in blocks:
                self.home.take(turn, stored)
            return
        for stored in blocks:
            self._anchoring.villages.index(ledger, stored.block.header.height)
        turn.work = True  # an anchor that waits for these blocks holds up the home's
        self._anchoring.soon(turn.now)
        self._anchoring.advance(turn)

    def _on_forked(
        self, turn: Turn, ledger: bytes, first: StoredBlock, second: StoredBlock
    ) -> None:
        """Two certified blocks at one height: the second is kept, and the proof names the guilty.

        Told once. It halts the home ledger for good, also after a restart.
        """
        key = FORKED + ledger
        if self._world.disk.get(Space.LOCAL, key) is not None:
            return
        self._world.disk.stage(Space.LOCAL, key, codec.encode(second))
        turn.staged = True
        turn.notify(events.Alarm("ledger_fork", (ledger,)))
        self.accusing.ledger_fork(turn, first, second)
        if self.home and self.home.ledger == ledger:
            self.home.halt(turn, LEDGER_FORKED)

    # --- the home ---------------------------------------------------------------------------

    def follow(self, turn: Turn, request: int, ledger: bytes) -> None:
        """Live in a known ledger without a seat. Raises ``LocalProtocolError``."""
        founding = self.chains.founding(ledger)
        if founding is None:
            raise LocalProtocolError("no such ledger is known here", hint="see `p2pmed status`")
        if self.home is not None and founding.genesis.predecessor != self.home.ledger:
            raise LocalProtocolError("this node lives in a ledger already")
        self._take_home(turn, founding)
        reply = events.Reply(request, ledger=ledger)
        turn.when_durable(lambda later: later.effects.append(reply))

    def _take_home(self, turn: Turn, founding: Founding) -> None:
        ledger = ledger_id(founding.genesis)
        if self.home is not None:
            inherit(self._world.disk, founding.genesis)
            self.home.retire()
        self._world.disk.stage(Space.META, HOME, ledger)
        self._world.disk.stage(Space.LOCAL, GENESIS, None)
        self._live_in(founding)
        seat = founding.genesis.epoch().index_of(self._me)
        request = self._settled()

        def then(later: Turn) -> None:
            later.notify(events.LedgerFounded(ledger, seat))
            if request is not None:
                later.effects.append(events.Reply(request, ledger=ledger))
            later.work = True

        turn.when_durable(then)

    def _live_in(self, founding: Founding, *, resumed: bool = False) -> None:
        machine = self.machine
        if self._anchoring.is_county(founding):
            machine = self._anchoring.machine
            self._anchoring.begin()
        self.home = HomeLedger(
            world=self._world,
            logs=self._logs,
            keys=self.identity.keys,
            founding=founding,
            machine=machine,
            holds=self._holds,
            ready=self._anchoring.ready,
            on_decided=self._on_decided,
            on_behind=self._on_behind,
            on_epoch=self.seating.on_epoch,
            vote_keys=self.seating.vote_keys,
            on_evidence=self.accusing.hear,
            on_recovered=self._on_recovered,
            engines=self._engines,
            muted=self.identity.muted,
            resumed=resumed,
            verify=self._verify,
        )
        self.chains.home = self.home.ledger
        self.seating.take(self.home)
        self.overlay = self._make_overlay()

    def resume_voting(self, turn: Turn, request: int) -> None:
        """Give a restored home its voice back, from what its disk holds now."""
        muted = self.identity.muted
        self._on_recovered(turn)
        if muted and self.home is not None and not self.home.halted:
            self._live_in(self.home.founding, resumed=True)
        elif self.home is not None:
            self.home.run(turn, Resumed())
        turn.work = True
        reply = events.Reply(request)
        turn.when_durable(lambda later: later.effects.append(reply))

    def _on_recovered(self, turn: Turn) -> None:
        """This home has its voice again; what keeps it from contradicting itself is staged."""
        self._world.disk.stage(Space.META, MUTED, None)
        self.identity = replace(self.identity, muted=False)
        turn.staged = True

    def ask_home(self, turn: Turn, command: events.ReadBarrier | events.Leave) -> None:
        """What the home's engine is asked. Raises ``LocalProtocolError``."""
        if isinstance(command, events.Leave):
            if self.home is not None:
                self.home.leave(turn)
        elif self.home is None:
            raise LocalProtocolError("this node lives in no ledger yet", hint="found a mesh first")
        else:
            self.home.read_barrier(turn, command.request)

    def _on_decided(self, turn: Turn, decided: Decided) -> None:
        home = self.home
        assert home is not None
        self.chains.advance(decided.header, decided.next_epoch)
        self.overlay.restart()
        self._tell_heads()
        self._anchoring.soon(turn.now)
        final = events.Final(
            decided.header.ledger,
            decided.header.height,
            tuple(decided.entries),
            tuple(decided.verdicts),
        )
        pairs = zip(decided.entries, decided.verdicts, strict=True)
        alarms = [
            events.Alarm("discrepancy", (verdict.other, entry.id), verdict.code)
            for entry, verdict in pairs
            if verdict.other
        ]

        def then(later: Turn) -> None:
            home.durable_height = final.height
            home.barriers.reached(later, final.height)
            later.notify(final)
            if any(entry.kind == ANCHOR for entry in final.entries):
                later.notify(events.AnchorsMoved(final.ledger, final.height))
            for alarm in alarms:
                later.notify(alarm)
            asks = self.chains.settle(decided.header.ledger, later.now)
            self._carry_out(later, asks)
            self._succeed(later)

        turn.when_durable(then)

    def _on_behind(self, turn: Turn, node: bytes | None, height: int) -> None:
        assert self.home is not None
        peer = node if node in self._links else next(iter(self._links), None)
        if peer is not None:
            heads = ((self.home.ledger, height),)
            self.hear(turn, chain_events.HeadsSeen(peer, heads))

    # --- what is provisional ----------------------------------------------------------------

    def _make_overlay(self) -> Overlay:
        home = self.home
        if home is None:
            return Overlay(
                base=self.empty,
                logs=self._logs,
                machine=self.machine,
                ordered_next=lambda lane: 0,
                context=lambda: self._context(b"", 0, self._world.clock.wall_ms()),
            )
        chain = home.chain
        return Overlay(
            base=chain.state,
            logs=self._logs,
            machine=self.machine,
            ordered_next=chain.ordered_next,
            context=lambda: self._context(chain.ledger, chain.height + 1, chain.time_ms),
        )

    def _context(self, ledger: bytes, height: int, time_ms: int) -> BlockContext:
        return BlockContext(
            network=self.identity.network,
            ledger=ledger,
            height=height,
            time_ms=time_ms,
            provisional=True,
        )
