"""A whole node as one deterministic machine: everything below it wired, and no I/O.

Event in, effects out, one deadline (``engine.py``). What it may ask of the world synchronously
is the clock, dice, entropy and the staged disk of ``world.py``; everything else is an effect.

Here events find their part, and each part owns what it decides:

=================  =====================================================================
``trust.py``       chains of credentials, revocations, who is shunned
``anchoring.py``   what a county writes, and a village learns, of anchors
``ledgers.py``     known ledgers, the home, the overlay
``admission.py``   entries: signed, checked, forked, stored
``spreading.py``   gossip: what is told and heard
``meeting.py``     who is in sight, and foundings
=================  =====================================================================

Each part knows those above it in this table; what goes up the table is a function given at
birth. A part puts its effects into the turn (``turn.py``), so their order is the order of calls.

What is synced before what is said:

==========================================  ============================================
before                                      must be durable
==========================================  ============================================
``Reply`` to a submit, pushes of an entry   the entry
``Have``, frontiers                         the entries they speak of
a vote, a Raft answer, a certificate made   the engine's rows (``consensus/interface.py``)
``Final``                                   block, certificate, state, verdicts: one commit
a genesis signature                         the open genesis it binds to
==========================================  ============================================

Failure table: a link that fails is dropped and redialled by the shell; a peer's fault drops
its link; the disk's fault stops the node; a rule's "no" is a verdict.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from p2pmed.consensus.interface import Heard
from p2pmed.engine import DeadlineReached, Instant, Persist, Persisted, earliest
from p2pmed.errors import DecodeError, InvariantError, P2pmedError, StorageError
from p2pmed.gossip import events as gossip
from p2pmed.gossip.engine import GossipEngine
from p2pmed.ledger.hlc import HybridClock
from p2pmed.ledger.intake import Intake
from p2pmed.ledger.logs import Logs
from p2pmed.ledger.overlay import Overlay
from p2pmed.ledger.state import Readable
from p2pmed.ledger.transaction import Entry
from p2pmed.limits import PEERS_MAX
from p2pmed.medical.machine import MedicalMachine
from p2pmed.medical.registry import Registry
from p2pmed.node import events
from p2pmed.node.admission import Admission
from p2pmed.node.anchoring import Anchoring
from p2pmed.node.branches import BranchAsk, BranchEntries
from p2pmed.node.events import Draft, NodeEffect, NodeEvent
from p2pmed.node.home_ledger import HomeLedger
from p2pmed.node.identity import MUTED, Identity
from p2pmed.node.ledgers import Ledgers
from p2pmed.node.meeting import Meeting
from p2pmed.node.messages import ConsensusFrame, decode_message
from p2pmed.node.own_log import OwnLog, last_hlc
from p2pmed.node.spreading import Spreading
from p2pmed.node.trust import Trust
from p2pmed.node.turn import Turn
from p2pmed.quorum.certificate import Verify
from p2pmed.sync import chains as chain_events
from p2pmed.sync.chains import Chains
from p2pmed.sync.founding import Accept, FormationMessage, MeshPolicy
from p2pmed.wire import cose
from p2pmed.world import World

__all__ = ["MUTED", "Identity", "Replica"]


class Replica:
    """One node. Its drivers are the asyncio shell and the simulator."""

    ledgers_type: ClassVar[type[Ledgers]] = Ledgers
    admission_type: ClassVar[type[Admission]] = Admission
    """For subclasses that break a rule on purpose (``p2pmed.testing``)."""

    def __init__(
        self,
        *,
        world: World,
        identity: Identity,
        registry: Registry,
        policy: MeshPolicy,
        verify: Verify = cose.verify,
        engines: dict[str, Any] | None = None,
    ) -> None:
        self.registry = registry
        self.policy = policy
        self.me = identity.keys.node_id
        self.links: dict[bytes, tuple[bytes, ...]] = {}
        """Connected peers, with their credential chains."""
        self._world = world
        self._tokens = 0
        self._after: dict[int, list[Callable[[Turn], None]]] = {}
        """By token of a flush: what is done when it is on the disk."""
        self.logs = Logs(world.disk, identity.network)
        self.trust = Trust(
            identity=identity,
            registry=registry,
            world=world,
            verify=verify,
            state=self._provisional,
        )
        self.machine = MedicalMachine(registry, self.trust.opener)
        self.intake = Intake(self.logs, identity.network, self.trust.valid_opening)
        self.gossip = GossipEngine(
            me=self.me,
            store=self.logs,
            rng=world.rng,
            now=world.clock.now(),
            arriving=self.intake.reaches,
        )
        self.chains = Chains(
            disk=world.disk,
            network=identity.network,
            open_chain=self.trust.open_chain,
            verify=verify,
            me=self.me,
        )
        self.clock = HybridClock(last_hlc(self.logs, self.me, identity.incarnation))
        self.own = OwnLog(identity=identity, logs=self.logs, registry=registry, clock=self.clock)
        self._make_ledgers(identity, verify, engines)
        self._make_gates(identity, verify)
        self.watches = self.anchoring.watches
        self.villages = self.anchoring.villages
        self.county_machine = self.anchoring.machine
        self.empty = self.ledgers.empty
        self.branches = self.admission.branches
        self.formation = self.meeting.formation
        self.ledgers.resume()

    # --- the parts --------------------------------------------------------------------------

    def _make_ledgers(
        self, identity: Identity, verify: Verify, engines: dict[str, Any] | None
    ) -> None:
        self.anchoring = Anchoring(
            world=self._world,
            network=identity.network,
            registry=self.registry,
            machine=self.machine,
            logs=self.logs,
            own=self.own,
            chains=self.chains,
            trust=self.trust,
            home=lambda: self.home,
            write=self._write,
        )
        self.ledgers = self.ledgers_type(
            world=self._world,
            identity=identity,
            policy=self.policy,
            machine=self.machine,
            verify=verify,
            engines=engines,
            logs=self.logs,
            chains=self.chains,
            trust=self.trust,
            anchoring=self.anchoring,
            links=self.links,
            holds=self.gossip.peer_next_seq,
            tell_heads=self._tell_heads,
            settled=self._settled,
            write=self._write,
        )

    def _make_gates(self, identity: Identity, verify: Verify) -> None:
        self.admission = self.admission_type(
            world=self._world,
            network=identity.network,
            verify=verify,
            logs=self.logs,
            own=self.own,
            clock=self.clock,
            intake=self.intake,
            trust=self.trust,
            anchoring=self.anchoring,
            ledgers=self.ledgers,
            links=self.links,
            spread=self._spread,
        )
        self.spreading = Spreading(
            gossip=self.gossip,
            wall=self._world.clock,
            clock=self.clock,
            admission=self.admission,
            anchoring=self.anchoring,
            ledgers=self.ledgers,
        )
        self.meeting = Meeting(
            world=self._world,
            policy=self.policy,
            rules=self.machine.rules_hash,
            registry=self.registry,
            logs=self.logs,
            links=self.links,
            trust=self.trust,
            ledgers=self.ledgers,
            common_wall=self.spreading.common_wall,
        )

    # What goes up the table: these parts are born later than those who call them.
    def _provisional(self) -> Readable:
        return self.overlay.state()

    def _write(self, turn: Turn, drafts: tuple[Draft, ...]) -> list[Entry]:
        return self.admission.write(turn, drafts)

    def _tell_heads(self) -> None:
        self.spreading.renew()

    def _settled(self) -> int | None:
        return self.meeting.settled()

    def _spread(self, turn: Turn, event: gossip.GossipEvent) -> None:
        self.spreading.spread(turn, event)

    # --- what is asked ----------------------------------------------------------------------

    @property
    def identity(self) -> Identity:
        """Who this node is; whether it is muted may change."""
        return self.ledgers.identity

    @property
    def home(self) -> HomeLedger | None:
        """The ledger this node lives in, if it has one."""
        return self.ledgers.home

    @property
    def overlay(self) -> Overlay:
        """What is provisional, on top of the home's state."""
        return self.ledgers.overlay

    def authenticate(self, device: bytes, chain: tuple[bytes, ...]) -> None:
        """Whether a device that proved ``device`` may have a channel. ``CredentialError``."""
        self.trust.authenticate(device, chain)

    def is_anchored(self, entry: Entry) -> bool:
        """Whether a county's certified ledger has ``entry``; ``node/county.py`` says how."""
        return self.anchoring.is_anchored(entry)

    def county_alarms(self) -> list[tuple[bytes, bytes, str]]:
        """Contradictions that county ledgers told of: first id, second id, reason."""
        return self.anchoring.county_alarms()

    def village_progress(self) -> list[dict[str, Any]]:
        """Village ledgers known here: height here, and height executed by a county."""
        return self.anchoring.village_progress()

    # --- the core ---------------------------------------------------------------------------

    def start(self) -> list[NodeEffect]:
        """Open the own log if this incarnation has none; the driver's first call."""
        turn = Turn(self._world.clock.now())
        opening = self.own.opening()
        if opening is not None:
            self.admission.write(turn, (opening,))
        if self.home is not None:
            self.ledgers.seating.publish_keys(turn)
            self.home.work(turn)
        return self._finish(turn)

    @property
    def deadline(self) -> Instant | None:
        """The earliest of all that this node waits for."""
        return earliest(
            self.spreading.deadline,
            self.ledgers.deadline,
            self.meeting.deadline,
            self.anchoring.deadline,
            self.admission.deadline,
        )

    def step(self, event: NodeEvent, now: Instant) -> list[NodeEffect]:
        """Take one event; return effects, to be carried out in this order."""
        turn = Turn(now)
        match event:
            case events.Frame(peer, message):
                self._on_frame(turn, peer, message)
            case Persisted(token):
                self._on_persisted(turn, token)
            case events.SignaturesChecked(token, good):
                self.admission.on_checked(turn, token, good)
            case DeadlineReached():
                for part in (self.spreading, self.ledgers, self.meeting, self.anchoring):
                    part.on_deadline(turn)
            case events.LinkUp(peer, chain):
                self._on_link_up(turn, peer, chain)
            case events.LinkDown(peer):
                self._on_link_down(turn, peer)
            case _:
                self._on_command(turn, event)
        return self._finish(turn)

    def _on_persisted(self, turn: Turn, token: int) -> None:
        """What waited for this flush, and for any before it: a flush covers all that came first.

        So a driver tells only the last token of a commit, and what shares it shares a turn.
        """
        while self._after and (first := next(iter(self._after))) <= token:
            for then in self._after.pop(first):
                then(turn)

    def _finish(self, turn: Turn) -> list[NodeEffect]:
        """Let consensus act on what changed, then ask for one flush of all that was staged."""
        self.spreading.tell_grown(turn)
        if turn.work and self.home is not None:
            turn.work = False
            self.home.work(turn)
        self.admission.seek_branches(turn)
        if turn.staged:
            self._tokens += 1
            self._after[self._tokens] = turn.after
            turn.effects.append(Persist(self._tokens))
        return turn.effects

    def send_refused(self, peer: bytes, now: Instant) -> list[NodeEffect]:
        """The queue to ``peer`` was full: gossip repairs it later."""
        turn = Turn(now)
        self.spreading.spread(turn, gossip.SendRefused(peer))
        return self._finish(turn)

    # --- links ------------------------------------------------------------------------------

    def _on_link_up(self, turn: Turn, peer: bytes, chain: tuple[bytes, ...]) -> None:
        if peer == self.me or len(self.links) >= PEERS_MAX:
            turn.drop(peer, "no room for another peer")
            return
        self.links[peer] = chain
        self.spreading.peer_up(turn, peer)
        self.meeting.look(turn)

    def _on_link_down(self, turn: Turn, peer: bytes) -> None:
        if self.links.pop(peer, None) is None:
            return
        self.branches.gone(peer)
        self.spreading.peer_down(turn, peer)
        self.ledgers.hear(turn, chain_events.PeerGone(peer))
        self.meeting.look(turn)

    def _on_frame(self, turn: Turn, peer: bytes, raw: bytes) -> None:
        if peer not in self.links:
            return
        try:
            message = decode_message(raw)
        except DecodeError as error:
            turn.drop(peer, str(error))
            return
        seat = self.ledgers.seating.seats.get(peer)
        if isinstance(message, ConsensusFrame):
            self.ledgers.seating.hear(turn, peer, message)
            return
        if seat is not None and self.home:
            self.home.run(turn, Heard(seat))
        if isinstance(message, chain_events.ChainMessage):
            self.ledgers.hear(turn, chain_events.FromPeer(peer, message))
        elif isinstance(message, FormationMessage):
            self.meeting.hear(turn, peer, message)
        elif isinstance(message, BranchAsk):
            self.admission.answer_branch(turn, peer, message)
        elif isinstance(message, BranchEntries):
            self.admission.take_branch(turn, peer, message)
        else:
            self.spreading.spread(turn, gossip.Received(peer, message))

    # --- commands ---------------------------------------------------------------------------

    def _on_command(self, turn: Turn, command: NodeEvent) -> None:
        try:
            match command:
                case events.Submit():
                    self.admission.submit(turn, command)
                case events.FoundMesh(request, propose):
                    self.meeting.decide(turn, request, propose)
                case events.AcceptOffer(request, proposer):
                    self.meeting.decide(turn, request, Accept(proposer))
                case events.FollowLedger(request, ledger):
                    self.ledgers.follow(turn, request, ledger)
                case events.ImportEntries(request, entries):
                    self.admission.offer(turn, None, entries, request)
                case events.ImportChain():
                    self.ledgers.import_chain(turn, command)
                case events.ResumeVoting(request):
                    self.ledgers.resume_voting(turn, request)
                case events.ReadBarrier() | events.Leave():
                    self.ledgers.ask_home(turn, command)
        except (StorageError, InvariantError):
            raise  # the disk's or our own: the node stops
        except P2pmedError as error:
            turn.effects.append(events.Reply(getattr(command, "request", 0), error=error))
