"""A whole node as one deterministic machine: everything below it wired, and no I/O.

Event in, effects out, one deadline (``engine.py``). What it may ask of the world synchronously
is the clock, dice, entropy and the staged disk of ``world.py``; everything else is an effect.

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

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from p2pmed.consensus.interface import Heard, Receive
from p2pmed.engine import DeadlineReached, Instant, Persist, Persisted, earliest
from p2pmed.errors import (
    CredentialError,
    DecodeError,
    DiskFull,
    InvariantError,
    LocalProtocolError,
    P2pmedError,
    StorageError,
)
from p2pmed.gossip import events as gossip
from p2pmed.gossip.engine import GossipEngine
from p2pmed.gossip.messages import HEADS_MAX, Push
from p2pmed.identity.credentials import check_chain
from p2pmed.identity.keys import DeviceKeys
from p2pmed.identity.manifest import Manifest
from p2pmed.ledger.chain import Decided, StoredBlock
from p2pmed.ledger.genesis import Founding, Genesis, ledger_id, sign_genesis
from p2pmed.ledger.hlc import HybridClock
from p2pmed.ledger.intake import Intake
from p2pmed.ledger.logs import Logs
from p2pmed.ledger.overlay import Overlay
from p2pmed.ledger.state import BlockContext, StateMachine
from p2pmed.ledger.transaction import Entry, LaneKey
from p2pmed.limits import PEERS_MAX
from p2pmed.medical.county import (
    ANCHOR,
    BLOCKS_PER_ANCHOR_MAX,
    Anchor,
    CountyMachine,
    anchored_height,
)
from p2pmed.medical.machine import MedicalMachine
from p2pmed.medical.membership import CredentialOpener, LogOpen, Revocation, member
from p2pmed.medical.registry import Registry
from p2pmed.medical.rejections import Rejection
from p2pmed.node import events
from p2pmed.node.branches import BranchAsk, BranchEntries, Branches
from p2pmed.node.county import COUNTY_ROLES, AnchorWatch, VillageBlocks, is_county
from p2pmed.node.empty import EmptyState
from p2pmed.node.events import Draft, NodeEffect, NodeEvent
from p2pmed.node.home_ledger import FORKED, LEDGER_FORKED, HomeLedger
from p2pmed.node.messages import ConsensusFrame, decode_message
from p2pmed.node.own_log import OwnLog
from p2pmed.node.turn import Turn
from p2pmed.quorum.certificate import Verify
from p2pmed.sync import chains as chain_events
from p2pmed.sync import founding as formation
from p2pmed.sync.chains import Chains
from p2pmed.sync.founding import Formation, MeshPolicy, Neighbour
from p2pmed.wire import codec, cose
from p2pmed.world import Space, World

__all__ = ["MUTED", "Identity", "Replica"]

MUTED: Final = b"muted"
"""META row: this home went back in time and has not been given its voice back."""

RECALL: Final = "drug.recall"
SHUN_MS: Final = 30_000
SHUNNED_MAX: Final = 256
SIGHT_MS: Final = 500
"""How often a node without a ledger looks at who is in sight."""
REVOKE: Final = "credential.revoke"
_REVOKED: Final = b"revoked"
REVOKED_MAX: Final = 4_096
"""Revoked devices remembered between a start and the first look at the state."""
ANCHOR_MS: Final = 1_000
"""How often a county looks for village blocks to execute."""
ANCHOR_REFUSED_MS: Final = 60_000
"""After an anchor that the county found to be wrong."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Identity:
    """Who this node is."""

    manifest: Manifest
    network: bytes
    keys: DeviceKeys
    chain: tuple[bytes, ...]
    incarnation: bytes
    boot: int
    muted: bool = False
    """Restored from a backup: it writes records, and neither votes nor founds (consensus R12)."""


class Replica:
    """One node. Its drivers are the asyncio shell and the simulator."""

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
        self.identity = identity
        self.registry = registry
        self.policy = policy
        self._world = world
        self._verify = verify
        self._engines = engines
        now = world.clock.now()
        self.me = identity.keys.node_id
        self.logs = Logs(world.disk, identity.network)
        self.opener = CredentialOpener(identity.manifest, identity.network, verify=verify)
        self.machine = MedicalMachine(registry, self.opener)
        self.intake = Intake(self.logs, identity.network, self._valid_opening)
        self.gossip = GossipEngine(
            me=self.me,
            store=self.logs,
            rng=world.rng,
            now=now,
            arriving=self.intake.reaches,
        )
        self.chains = Chains(
            disk=world.disk,
            network=identity.network,
            open_chain=self._open_chain,
            verify=verify,
            me=self.me,
        )
        self.branches = Branches(self.logs, identity.network, verify)
        self.villages = VillageBlocks(world.disk, self.logs, self.chains)
        self.county_machine = CountyMachine(self.machine, registry, self.villages)
        self.clock = HybridClock(self._last_hlc())
        self.own = OwnLog(
            keys=identity.keys,
            seed=identity.keys.signing_seed,
            chain=identity.chain,
            incarnation=identity.incarnation,
            boot=identity.boot,
            network=identity.network,
            logs=self.logs,
            registry=registry,
            clock=self.clock,
        )
        self.home: HomeLedger | None = None
        self.empty = EmptyState()
        self.overlay = self._make_overlay()
        self.watches: dict[bytes, AnchorWatch] = {}
        self.links: dict[bytes, tuple[bytes, ...]] = {}
        self._clocks_ahead: set[bytes] = set()
        """Connected peers whose clock was told to be far ahead."""
        self._walls: dict[bytes, int] = {}
        """Wall clocks of connected peers, as their last ping told."""
        self._shunned: dict[bytes, Instant] = {}
        """Who broke the protocol, and until when no channel with it is opened."""
        self._seats: dict[bytes, int] = {}
        self._told = 0
        """Place in the carried ledgers from which the next ping tells."""
        self._revoked = {
            key[len(_REVOKED) :]
            for key, _ in world.disk.scan(
                Space.LOCAL, _REVOKED, _REVOKED + b"\xff" * 33, limit=4096
            )
        }
        self._tokens = 0
        self._after: dict[int, list[Callable[[Turn], None]]] = {}
        self._checking: dict[int, tuple[bytes | None, int | None, str]] = {}
        """By token: where the entries came from, who is answered, what was wrong with others."""
        self._sight_at: Instant | None = None
        self._anchors_here = False
        """Whether the home ledger is a county's."""
        self._anchor_at: Instant | None = None
        self._anchor: Entry | None = None
        """The anchor last written here, until it has its verdict."""
        self._founding_request: int | None = None
        self.formation = self._make_formation(now)
        self._resume(now)

    # --- start ------------------------------------------------------------------------------

    def _make_formation(self, now: Instant) -> Formation:
        raw = self._world.disk.get(Space.LOCAL, b"genesis")
        open_genesis = (codec.decode(raw, Genesis), now) if raw else None
        return Formation(
            me=self.me,
            network=self.identity.network,
            rules=self.machine.rules_hash,
            chain=self.identity.chain,
            policy=self.policy,
            entropy=self._world.entropy,
            open_genesis=open_genesis,
        )

    def _resume(self, now: Instant) -> None:
        """Take up the home ledger and the county ledgers known from before."""
        home = self._world.disk.get(Space.META, b"home")
        for ledger, _ in self.chains.heads():
            self._watch(ledger)
        if home is not None:
            founding = self.chains.founding(home)
            if founding is None:
                raise InvariantError("the home ledger's founding is missing from the disk")
            self._live_in(founding)
        self._sight_at = now

    def start(self) -> list[NodeEffect]:
        """Open the own log if this incarnation has none; the driver's first call."""
        turn = Turn(self._world.clock.now())
        opening = self.own.opening()
        if opening is not None:
            self._write(turn, (opening,))
        if self.home is not None:
            self.home.work(turn)
        return self._finish(turn)

    def _last_hlc(self) -> int:
        lane = self.logs.lane(LaneKey(self.me, self.identity.incarnation))
        if lane is None or lane.next_seq == 0:
            return 0
        last = self.logs.entry(lane.key, lane.next_seq - 1)
        return last.envelope.hlc if last else 0

    # --- identity ---------------------------------------------------------------------------

    def authenticate(self, device: bytes, chain: tuple[bytes, ...]) -> None:
        """Whether a device that proved ``device`` may have a channel. ``CredentialError``."""
        if self._open_chain(chain) != device:
            raise CredentialError("a credential that speaks of another device")
        if self._world.clock.now() < self._shunned.get(device, self._world.clock.now()):
            raise CredentialError("this device broke the protocol a moment ago")
        if device in self._revoked and self._is_revoked(device):
            raise CredentialError("this device's credential was revoked")

    def _is_revoked(self, device: bytes) -> bool:
        """Whether a revocation that holds is stored here, final or not (design, section 12)."""
        known = member(self.overlay.state(), device)
        return known is not None and known.revoked

    def _enforce_revocations(self, turn: Turn, entries: list[Entry]) -> None:
        """Close the channels of devices that stored revocations speak of, and remember them."""
        for entry in entries:
            body = self.registry.body(entry) if entry.kind == REVOKE else None
            if not isinstance(body, Revocation) or not self._is_revoked(body.subject):
                continue
            self._revoked.add(body.subject)
            self._world.disk.stage(Space.LOCAL, _REVOKED + body.subject, b"")
            turn.staged = True
            if body.subject in self.links:
                turn.drop(body.subject, "this device's credential was revoked")

    def _open_chain(self, chain: Sequence[bytes]) -> bytes:
        leaf = check_chain(
            chain,
            manifest=self.identity.manifest,
            network_id=self.identity.network,
            at_ms=None,
            verify=self._verify,
        )
        return leaf.subject

    def _roles_of(self, chain: tuple[bytes, ...]) -> tuple[str, ...]:
        leaf = check_chain(
            chain,
            manifest=self.identity.manifest,
            network_id=self.identity.network,
            at_ms=None,
            verify=self._verify,
        )
        return tuple(role.value for role in leaf.roles)

    def _valid_opening(self, entry: Entry) -> bool:
        body = self.registry.body(entry)
        if not isinstance(body, LogOpen):
            return False
        return self.opener(body.chain, entry.author) is not None

    # --- the core ---------------------------------------------------------------------------

    @property
    def deadline(self) -> Instant | None:
        """The earliest of all that this node waits for."""
        return earliest(
            self.gossip.deadline,
            self.chains.deadline,
            self.formation.deadline,
            self.branches.deadline,
            self.home.deadline if self.home else None,
            self._sight_at,
            self._anchor_at,
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
                self._on_checked(turn, token, good)
            case DeadlineReached():
                self._on_deadline(turn)
            case events.LinkUp(peer, chain):
                self._on_link_up(turn, peer, chain)
            case events.LinkDown(peer):
                self._on_link_down(turn, peer)
            case _:
                self._on_command(turn, event)
        return self._finish(turn)

    def _on_persisted(self, turn: Turn, token: int) -> None:
        """What waited for this flush, and for any before it: a flush covers all that came first.

        So a driver need tell only the last token of a commit, and a hundred submissions that
        share a commit share the turn, one push to each peer and one look by consensus.
        """
        while self._after and (first := next(iter(self._after))) <= token:
            for then in self._after.pop(first):
                then(turn)

    def _finish(self, turn: Turn) -> list[NodeEffect]:
        """Let consensus act on what changed, then ask for one flush of all that was staged."""
        for grew in _merged(turn.grown):
            self._gossip(turn, grew)
        if turn.work and self.home is not None:
            turn.work = False
            self.home.work(turn)
        self._seek_branches(turn)
        if turn.staged:
            self._tokens += 1
            self._after[self._tokens] = turn.after
            turn.effects.append(Persist(self._tokens))
        return turn.effects

    def send_refused(self, peer: bytes, now: Instant) -> list[NodeEffect]:
        """The queue to ``peer`` was full: gossip repairs it later."""
        turn = Turn(now)
        self._gossip(turn, gossip.SendRefused(peer))
        return self._finish(turn)

    # --- links ------------------------------------------------------------------------------

    def _on_link_up(self, turn: Turn, peer: bytes, chain: tuple[bytes, ...]) -> None:
        if peer == self.me or len(self.links) >= PEERS_MAX:
            turn.drop(peer, "no room for another peer")
            return
        self.links[peer] = chain
        self._status()
        self._gossip(turn, gossip.PeerUp(peer))
        self._look(turn)

    def _on_link_down(self, turn: Turn, peer: bytes) -> None:
        if self.links.pop(peer, None) is None:
            return
        self._clocks_ahead.discard(peer)
        self._walls.pop(peer, None)
        self.branches.gone(peer)
        self._gossip(turn, gossip.PeerDown(peer))
        self._chain_effects(turn, self.chains.step(chain_events.PeerGone(peer), turn.now))
        self._look(turn)

    def _on_frame(self, turn: Turn, peer: bytes, raw: bytes) -> None:
        if peer not in self.links:
            return
        try:
            message = decode_message(raw)
        except DecodeError as error:
            turn.drop(peer, str(error))
            return
        seat = self._seats.get(peer)
        if isinstance(message, ConsensusFrame):
            if seat is not None and self.home and message.ledger == self.home.ledger:
                self.home.run(turn, Receive(seat, message.message))
            return
        if seat is not None and self.home:
            self.home.run(turn, Heard(seat))
        if isinstance(message, chain_events.ChainAsk | chain_events.ChainBlocks):
            event = chain_events.FromPeer(peer, message)
            self._chain_effects(turn, self.chains.step(event, turn.now))
        elif isinstance(
            message,
            formation.GenesisOffer
            | formation.GenesisConsent
            | formation.GenesisDone
            | formation.GenesisWithdraw,
        ):
            self._form(turn, formation.FromFounder(peer, message))
        elif isinstance(message, BranchAsk):
            answer = self.branches.answer(peer, message, turn.now)
            if answer is not None:
                turn.send(peer, answer, control=False)
        elif isinstance(message, BranchEntries):
            self._keep_branch(turn, self.branches.take(peer, message))
        else:
            self._gossip(turn, gossip.Received(peer, message))

    # --- gossip and entries -----------------------------------------------------------------

    def _status(self) -> None:
        wall = self._world.clock.wall_ms()
        self.gossip.set_status(self.clock.last, wall, self._heads())

    def _heads(self) -> list[tuple[bytes, int]]:
        """Ledgers for the next ping: the own one first, counties, and the others in turn.

        A ping tells few; a member that founds many ledgers must not crowd out the village's.
        """
        heads = dict(self.chains.heads())
        home = () if self.home is None else (self.home.ledger,)
        first = list(dict.fromkeys((*home, *sorted(self.watches)[: HEADS_MAX // 2])))
        others = [ledger for ledger in heads if ledger not in first]
        if others:
            self._told = (self._told + HEADS_MAX - len(first)) % len(others)
        turned = others[self._told :] + others[: self._told]
        return [(ledger, heads[ledger]) for ledger in (*first, *turned)]

    def _gossip(self, turn: Turn, event: gossip.GossipEvent) -> None:
        for effect in self.gossip.step(event, turn.now):
            match effect:
                case gossip.SendMessage(peer, message, control):
                    turn.send(peer, message, control=control)
                case gossip.Ingest(peer, entries):
                    self._offer(turn, peer, entries, None)
                case gossip.DropPeer(peer, reason):
                    turn.drop(peer, reason)
                case gossip.Holds(peer, lane, next_seq):
                    turn.work = turn.work or peer in self._seats
                    turn.notify(events.PeerHolds(peer, lane, next_seq))
                case gossip.PeerStatus(peer, ping):
                    self._on_ping(turn, peer, ping)

    def _on_ping(self, turn: Turn, peer: bytes, ping: Any) -> None:
        self._walls[peer] = ping.wall
        follows = self.clock.observe(ping.hlc, self._world.clock.wall_ms())
        if not follows and peer not in self._clocks_ahead:
            self._clocks_ahead.add(peer)  # told once, or it hides other alarms
            turn.notify(events.Alarm("clock", (peer,), "a peer's clock is far ahead"))
        heads = tuple((head.ledger, head.height) for head in ping.heads)
        event = chain_events.HeadsSeen(peer, heads)
        self._chain_effects(turn, self.chains.step(event, turn.now))

    def _offer(
        self, turn: Turn, source: bytes | None, raws: Iterable[bytes], request: int | None
    ) -> None:
        if self._is_full:  # peers are asked again when there is room
            if request is not None:
                turn.effects.append(events.Reply(request, error=_disk_full()))
            return
        offered = self.intake.offer(source, tuple(raws))
        if source is not None:
            for gap in offered.gaps:
                self._gossip(turn, gossip.Gap(gap.lane, gap.next_seq, gap.got_seq, source))
        if offered.token:
            self._checking[offered.token] = (source, request, offered.fault)
            turn.effects.append(events.CheckSignatures(offered.token, tuple(offered.checks)))
        if offered.fault and source is not None:
            self._shun(turn, source)
            self._gossip(turn, gossip.Bad(source, offered.fault))
        if request is not None and not offered.token:
            error = DecodeError(offered.fault) if offered.fault else None
            turn.effects.append(events.Reply(request, error=error))

    def _on_checked(self, turn: Turn, token: int, good: tuple[bool, ...]) -> None:
        source, request, fault = self._checking.pop(token)
        admitted = self.intake.checked(token, good)
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
            self._shun(turn, source)
            self._gossip(turn, gossip.Bad(source, admitted.fault))

    def _shun(self, turn: Turn, peer: bytes) -> None:
        """Open no channel with ``peer`` for a while: a new one costs it less than us.

        It gave what no honest node passes on: a false signature, a block that does not hold.
        """
        while len(self._shunned) >= SHUNNED_MAX:
            del self._shunned[next(iter(self._shunned))]
        self._shunned[peer] = Instant(turn.now + SHUN_MS)

    def _on_fork(self, turn: Turn, fork: Entry) -> None:
        """A log was just frozen: alarm, and show everybody, or they go on ordering branches."""
        turn.staged = True
        turn.notify(events.Alarm("fork", (fork.id, fork.author)))
        lane = self.logs.lane(fork.lane)
        mine = self.logs.entry(fork.lane, min(fork.seq, lane.next_seq - 1)) if lane else None
        both = tuple(entry.raw for entry in (mine, fork) if entry is not None)

        def then(later: Turn) -> None:
            for peer in self.links:
                later.send(peer, Push(both), control=False)

        turn.when_durable(then)

    def _keep_branch(self, turn: Turn, entries: list[Entry]) -> None:
        """Keep what a block orders beside the log that reads another branch."""
        for entry in entries:
            lane = self.logs.lane(entry.lane)
            if lane is None or lane.frozen:
                self.logs.keep_branch(entry)
            else:
                self.logs.freeze(entry)
                self._on_fork(turn, entry)
        if entries:
            turn.staged = turn.work = True
            turn.when_durable(self._advance_watches)

    def _seek_branches(self, turn: Turn) -> None:
        """Ask for what a block orders of a forked log; validators first, they voted for it."""
        if not self.logs.wanted and self.branches.deadline is None:
            return
        peers = sorted(self.links, key=lambda peer: peer not in self._seats)
        asked = self.branches.turn(peers, turn.now)
        if asked is not None:
            turn.send(asked[0], asked[1], control=False)

    def _observe(self, turn: Turn, entries: list[Entry]) -> None:
        wall = self._world.clock.wall_ms()
        for entry in entries:
            self.clock.observe(entry.envelope.hlc, wall)
        recalls = [entry for entry in entries if entry.kind == RECALL]
        if recalls:
            turn.when_durable(lambda later: self._alarm_recalls(later, recalls))

    def _alarm_recalls(self, turn: Turn, entries: list[Entry]) -> None:
        """Tell of recalls by who may recall: anybody could write one."""
        for entry in entries:
            if self.overlay.verdict_of(entry).applied:
                turn.notify(events.Alarm("recall", (entry.id,)))

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
                self.logs.settle(lane, next_seq)
            stored = tuple((entry.lane, entry.seq, entry.raw) for entry in entries)
            later.notify(events.EntriesStored(tuple(entries), source))
            if request is not None:
                count = len(entries)
                reply = events.Reply(request, entries=tuple(entries), count=count, error=error)
                later.effects.append(reply)
            later.grown.append(gossip.Grew(tuple(tips.items()), stored, source))
            later.work = True
            self._enforce_revocations(later, entries)
            self._advance_watches(later)

        turn.when_durable(then)

    def _write(self, turn: Turn, drafts: tuple[Draft, ...]) -> list[Entry]:
        """Sign drafts of the node's own into its log."""
        entries, _ = self._sign(drafts, None)
        self._append(turn, entries, (), None)
        return entries

    def _submit(self, turn: Turn, submit: events.Submit) -> None:
        """Sign a caller's drafts into the own log, all or none.

        The caller's functions run in here: what they raise is the caller's, and nothing of the
        submission was staged by then.
        """
        if self._is_full and not all(isinstance(d.body, Revocation) for d in submit.drafts):
            turn.effects.append(events.Reply(submit.request, error=_disk_full()))
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
        ledger = self.home.ledger if self.home else b""
        wall = self._world.clock.wall_ms()
        entries = self.own.sign(drafts, ledger=ledger, wall_ms=wall, clock=0)
        return entries, local([entry.id for entry in entries]) if local else ()

    def _append(
        self,
        turn: Turn,
        entries: list[Entry],
        rows: Sequence[tuple[bytes, bytes | None]],
        request: int | None,
    ) -> None:
        """Stage own entries, and ``rows`` in the same commit."""
        self.logs.extend(entries)
        for key, value in rows:
            self._world.disk.stage(Space.LOCAL, key, value)
        self._when_stored(turn, entries, None, request)

    # --- commands ---------------------------------------------------------------------------

    def _on_command(self, turn: Turn, command: NodeEvent) -> None:
        try:
            match command:
                case events.Submit():
                    self._submit(turn, command)
                case events.FoundMesh(request, propose):
                    self._refuse_if_muted()
                    self._look(turn)
                    self._form(turn, propose)  # raises if one is under way, which stays awaited
                    self._founding_request = request
                case events.AcceptOffer(request, proposer):
                    self._refuse_if_muted()
                    self._look(turn)
                    self._form(turn, formation.Accept(proposer))
                    self._founding_request = request
                case events.FollowLedger(request, ledger):
                    self._follow(turn, ledger)
                    reply = events.Reply(request, ledger=ledger)
                    turn.when_durable(lambda later: later.effects.append(reply))
                case events.ImportEntries(request, entries):
                    self._offer(turn, None, entries, request)
                case events.ImportChain():
                    self._import_chain(turn, command)
                case events.ResumeVoting(request):
                    self._resume_voting(turn, request)
        except (StorageError, InvariantError):
            raise  # the disk's or our own: the node stops
        except P2pmedError as error:
            request = getattr(command, "request", 0)
            turn.effects.append(events.Reply(request, error=error))

    def _refuse_if_muted(self) -> None:
        if self.identity.muted:
            raise LocalProtocolError(
                "this home was restored from a backup and may not found or vote",
                hint="read `p2pmed mesh resume --help`",
            )

    def _resume_voting(self, turn: Turn, request: int) -> None:
        """Give a restored home its voice back, from what its disk holds now."""
        self._world.disk.stage(Space.META, MUTED, None)
        self.identity = replace(self.identity, muted=False)
        if self.home is not None and self.home.engine is None and not self.home.halted:
            self._live_in(self.home.founding)
        turn.work = True
        reply = events.Reply(request)
        turn.when_durable(lambda later: later.effects.append(reply))

    def _import_chain(self, turn: Turn, command: events.ImportChain) -> None:
        before = self.chains.height(command.ledger)
        if command.founding:
            founding = codec.decode(command.founding, Founding)
            if self.chains.found(founding):
                self._on_founding(turn, founding)
        taken = self.chains.take(command.ledger, command.blocks)
        if taken is not None:
            self._chain_effects(turn, [taken])
        turn.staged = True
        count = self.chains.height(command.ledger) - before
        reply = events.Reply(command.request, count=count, ledger=command.ledger)
        turn.when_durable(lambda later: later.effects.append(reply))

    # --- ledgers ----------------------------------------------------------------------------

    def _chain_effects(self, turn: Turn, effects: Iterable[chain_events.ChainEffect]) -> None:
        for effect in effects:
            match effect:
                case chain_events.SendChain(peer, message):
                    turn.send(peer, message, control=False)
                case chain_events.Founded(founding):
                    self._on_founding(turn, founding)
                case chain_events.Verified(ledger, blocks):
                    self._on_verified(turn, ledger, blocks)
                case chain_events.Forked(ledger, _, second):
                    self._on_forked(turn, ledger, second)
                case chain_events.Faulty(peer, reason):
                    self._shun(turn, peer)
                    turn.drop(peer, reason)

    def _on_forked(self, turn: Turn, ledger: bytes, second: StoredBlock) -> None:
        """Two certified blocks at one height: the second is kept, and the proof names the guilty.

        Told once. It halts the home ledger for good, also after a restart.
        """
        key = FORKED + ledger
        if self._world.disk.get(Space.LOCAL, key) is not None:
            return
        self._world.disk.stage(Space.LOCAL, key, codec.encode(second))
        turn.staged = True
        turn.notify(events.Alarm("ledger_fork", (ledger,)))
        if self.home and self.home.ledger == ledger:
            self.home.halt(turn, LEDGER_FORKED)

    def _on_founding(self, turn: Turn, founding: Founding) -> None:
        """A ledger became known: ours if we are named in it, else perhaps one to follow."""
        turn.staged = True
        ledger = ledger_id(founding.genesis)
        self._watch(ledger)
        named = founding.genesis.epoch().index_of(self.me) is not None
        if self.home is None and (named or self._may_follow(founding)):
            self._take_home(turn, founding)

    def _may_follow(self, founding: Founding) -> bool:
        """Whether a ledger that others founded may become the home ledger without a word.

        It is for life: so not a county's, not one of a device known to be revoked, and, where
        this node founds meshes by itself, not a smaller one than it would found: anybody may
        found a ledger of one.
        """
        founders = [validator.node for validator in founding.genesis.validators]
        small = self.policy.auto and len(founders) < self.policy.size
        county = ledger_id(founding.genesis) in self.watches
        revoked = any(node in self._revoked for node in founders)
        return self.policy.follow and not (small or county or revoked)

    def _follow(self, turn: Turn, ledger: bytes) -> None:
        founding = self.chains.founding(ledger)
        if founding is None:
            raise LocalProtocolError("no such ledger is known here", hint="see `p2pmed status`")
        if self.home is not None:
            raise LocalProtocolError("this node lives in a ledger already")
        self._take_home(turn, founding)

    def _take_home(self, turn: Turn, founding: Founding) -> None:
        ledger = ledger_id(founding.genesis)
        self._world.disk.stage(Space.META, b"home", ledger)
        self._world.disk.stage(Space.LOCAL, b"genesis", None)
        self._live_in(founding)
        seat = founding.genesis.epoch().index_of(self.me)
        request, self._founding_request = self._founding_request, None

        def then(later: Turn) -> None:
            later.notify(events.LedgerFounded(ledger, seat))
            if request is not None:
                later.effects.append(events.Reply(request, ledger=ledger))
            later.work = True

        turn.when_durable(then)

    def _live_in(self, founding: Founding) -> None:
        machine: StateMachine = self.machine
        if is_county(founding, self._roles_of):
            machine = self.county_machine
            self._anchors_here = True
            self._anchor_at = self._world.clock.now()
        self.home = HomeLedger(
            world=self._world,
            logs=self.logs,
            keys=self.identity.keys,
            founding=founding,
            machine=machine,
            holds=self.gossip.peer_next_seq,
            ready=self._ready,
            on_decided=self._on_decided,
            on_behind=self._on_behind,
            engines=self._engines,
            muted=self.identity.muted,
            verify=self._verify,
        )
        self.chains.home = self.home.ledger
        self.formation.founded = True
        self._seats = {
            validator.node: seat
            for seat, validator in enumerate(founding.genesis.validators)
            if validator.node != self.me
        }
        self.overlay = self._make_overlay()

    def _ready(self, entry: Entry) -> bool:
        """Whether all that executing ``entry`` reads is here: for an anchor, the village."""
        if entry.kind != ANCHOR:
            return True
        body = self.registry.body(entry)
        if (
            not isinstance(body, Anchor)
            or not 0 < body.height - body.start <= BLOCKS_PER_ANCHOR_MAX
        ):
            return True  # refused whatever the village says
        home = self.home
        if home is not None and body.start < anchored_height(home.chain.state, body.ledger):
            return True
        held = 0
        for block in self.villages.blocks(body.ledger, body.start, body.height):
            held = block.height
        return held == body.height

    def _make_overlay(self) -> Overlay:
        home = self.home
        if home is None:
            return Overlay(
                base=self.empty,
                logs=self.logs,
                machine=self.machine,
                ordered_next=lambda lane: 0,
                context=lambda: self._context(b"", 0, self._world.clock.wall_ms()),
            )
        chain = home.chain
        return Overlay(
            base=chain.state,
            logs=self.logs,
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

    def _on_verified(self, turn: Turn, ledger: bytes, blocks: Sequence[Any]) -> None:
        turn.staged = True
        if self.home is not None and ledger == self.home.ledger:
            for stored in blocks:
                self.home.take(turn, stored.block, stored.certificate)
            return
        for stored in blocks:
            self.villages.index(ledger, stored.block.header.height)
        self._anchor_soon(turn.now)
        self._advance_watches(turn)

    def _on_decided(self, turn: Turn, decided: Decided) -> None:
        home = self.home
        assert home is not None
        self.chains.advance(decided.header)
        self.overlay.restart()
        self._status()
        self._anchor_soon(turn.now)
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
            later.notify(final)
            if any(entry.kind == ANCHOR for entry in final.entries):
                later.notify(events.AnchorsMoved(final.ledger, final.height))
            for alarm in alarms:
                later.notify(alarm)
            asks = self.chains.settle(decided.header.ledger, later.now)
            self._chain_effects(later, asks)

        turn.when_durable(then)

    def _on_behind(self, turn: Turn, node: bytes | None, height: int) -> None:
        assert self.home is not None
        peer = node if node in self.links else next(iter(self.links), None)
        if peer is not None:
            heads = ((self.home.ledger, height),)
            event = chain_events.HeadsSeen(peer, heads)
            self._chain_effects(turn, self.chains.step(event, turn.now))

    # --- county -----------------------------------------------------------------------------

    def _watch(self, ledger: bytes) -> None:
        founding = self.chains.founding(ledger)
        if founding is not None and is_county(founding, self._roles_of):
            self.watches[ledger] = AnchorWatch(
                ledger=ledger,
                disk=self._world.disk,
                logs=self.logs,
                chains=self.chains,
                registry=self.registry,
                speaks=self._speaks_for_county,
            )

    def _speaks_for_county(self, lane: LaneKey) -> bool:
        """Whether the log was opened with a county's or hospital's credential."""
        opening = self.logs.entry(lane, 0)
        body = self.registry.body(opening) if opening else None
        author = self.opener(body.chain, lane.author) if isinstance(body, LogOpen) else None
        return author is not None and not COUNTY_ROLES.isdisjoint(author.roles)

    def _advance_watches(self, turn: Turn) -> None:
        for ledger in sorted(self.watches):
            watch = self.watches[ledger]
            before = watch.height
            anchors = watch.advance()
            if watch.height == before:
                continue
            turn.staged = True
            moved = events.AnchorsMoved(ledger, watch.height)
            alarms = [
                events.Alarm("discrepancy", (refused.other, refused.id), refused.code)
                for anchor in anchors
                for refused in anchor.refused
                if refused.other
            ]
            for alarm in alarms:
                self._keep_alarm(alarm)
            turn.when_durable(lambda later, moved=moved: later.notify(moved))  # type: ignore[misc]
            for alarm in alarms:
                turn.notify(alarm)

    def is_anchored(self, entry: Entry) -> bool:
        """Whether a county's certified ledger has ``entry``; ``node/county.py`` says how."""
        home = self.home
        if home is not None and home.ledger in self.watches:
            ordered = home.chain.height_of(entry)
            if ordered is None or ordered > home.durable_height:
                return False
            return self._is_executed(
                entry, home.ledger, anchored_height(home.chain.state, entry.envelope.ledger)
            )
        return any(
            watch.orders(entry)
            and self._is_executed(entry, ledger, watch.village_height(entry.envelope.ledger))
            for ledger, watch in self.watches.items()
        )

    def _is_executed(self, entry: Entry, county: bytes, height: int) -> bool:
        """Whether an entry that ``county`` ordered counts there.

        What was written to be spent in a village's ledger counts with the anchor that covers
        the block which decided it; ``height`` is up to where that ledger is anchored.
        """
        ledger = entry.envelope.ledger
        kind = self.registry.find(entry.envelope.kind, entry.envelope.kind_version)
        spends = kind is not None and kind.ordered and not kind.everywhere
        if not spends or ledger in (b"", county):
            return True
        home = self.home
        if home is not None and home.ledger == ledger:
            decided = home.chain.height_of(entry)
        else:
            decided = self.villages.height_of(ledger, entry)
        return decided is not None and decided <= height

    def _keep_alarm(self, alarm: events.Alarm) -> None:
        """A contradiction that the county found: kept until people decide."""
        key = b"alarm" + b"".join(alarm.ids)
        self._world.disk.stage(Space.LOCAL, key, alarm.text.encode("utf-8"))

    def county_alarms(self) -> list[tuple[bytes, bytes, str]]:
        """Contradictions that county ledgers told of: first id, second id, reason."""
        rows = self._world.disk.scan(Space.LOCAL, b"alarm", b"alarn", limit=1_024)
        return [(key[5:37], key[37:69], value.decode("utf-8")) for key, value in rows]

    def village_progress(self) -> list[dict[str, Any]]:
        """Village ledgers known here: height here, and height executed by a county.

        At a county also whether an anchor is due: blocks that order nothing but anchors wait.
        """
        found = []
        for ledger, height in self.chains.heads():
            if ledger in self.watches:
                continue
            executed = max(
                (watch.village_height(ledger) for watch in self.watches.values()), default=0
            )
            row = {"ledger": ledger.hex(), "height": height, "executed": executed}
            if self.home is not None and self.home.ledger in self.watches:
                state = self.home.chain.state
                row["executed"] = anchored_height(state, ledger)
                row["due"] = self.county_machine.is_due(state, ledger, height)
            found.append(row)
        return found

    def _anchor_soon(self, now: Instant) -> None:
        """A village's block, or what it orders, has come: it may call for an anchor."""
        if self._anchors_here and self._anchor_at is None:
            self._anchor_at = Instant(now + ANCHOR_MS)

    def _import_villages(self, turn: Turn) -> None:
        """At a county: write the next anchor, if a village has moved on.

        One at a time: the next when this one has its verdict, which a decided block brings.
        """
        home = self.home
        self._anchor_at = None
        if home is None or home.engine is None or home.halted or self.own.frozen:
            return
        if self._anchor is not None:
            verdict = home.chain.verdict_of(self._anchor)
            if verdict is None:
                return
            if verdict.code == Rejection.ANCHOR_MISMATCH:
                # What is here differs from what the others hold: trying again is no cure.
                self._anchor, self._anchor_at = None, Instant(turn.now + ANCHOR_REFUSED_MS)
                return
        for ledger, height in self.chains.heads():
            if ledger == home.ledger or ledger in self.watches:
                continue
            state = home.chain.state
            anchor = self.county_machine.plan(state, self.identity.network, ledger, height)
            if anchor is not None:
                self._anchor = self._write(turn, (Draft(body=anchor),))[-1]
                return

    # --- formation --------------------------------------------------------------------------

    def _look(self, turn: Turn) -> None:
        """Tell the founding core who is in sight."""
        if self.home is not None:
            return
        seated = {
            validator.node
            for ledger, _ in self.chains.heads()
            if (founding := self.chains.founding(ledger)) is not None
            for validator in founding.genesis.validators
        }
        nodes = []
        for node in sorted([*self.links, self.me]):
            opening = self._opening_of(node)
            if opening is None or not opening.vote_keys:
                continue
            chain = self.identity.chain if node == self.me else self.links[node]
            nodes.append(
                Neighbour(
                    node=node,
                    vote_key=opening.vote_keys[0],
                    roles=self._roles_of(chain),
                    free=node not in seated,
                )
            )
        self._form(turn, formation.Neighbours(tuple(nodes)))

    def _opening_of(self, node: bytes) -> LogOpen | None:
        """The first entry of the node's newest log that is here."""
        newest: LogOpen | None = None
        for lane in self.logs:
            here = lane.next_seq if node == self.me else lane.durable_next
            if lane.key.author == node and here > 0:
                entry = self.logs.entry(lane.key, 0)
                body = self.registry.body(entry) if entry else None
                if isinstance(body, LogOpen) and (newest is None or body.boot >= newest.boot):
                    newest = body
        return newest

    def _form(self, turn: Turn, event: formation.FormationEvent) -> None:
        if self.identity.muted:  # it may have signed a genesis that it does not remember
            return
        self.formation.tell_time(self._common_wall())
        for effect in self.formation.step(event, turn.now):
            match effect:
                case formation.SendFormation(peer, message):
                    turn.send(peer, message, control=True)
                case formation.Sign(genesis):
                    self._sign_genesis(turn, genesis)
                case formation.Release():
                    self._world.disk.stage(Space.LOCAL, b"genesis", None)
                    turn.staged = True
                    self._refuse_founding(turn)
                case formation.Complete(founding):
                    teller = event.peer if isinstance(event, formation.FromFounder) else None
                    self._complete(turn, founding, teller)

    def _common_wall(self) -> int:
        """The median of the own wall clock and those that peers told: one may be years off."""
        walls = sorted([self._world.clock.wall_ms(), *self._walls.values()])
        return walls[(len(walls) - 1) // 2]

    def _refuse_founding(self, turn: Turn) -> None:
        request, self._founding_request = self._founding_request, None
        if request is not None:
            error = LocalProtocolError(
                "not every named node signed the founding in time",
                hint="check with `p2pmed peers` that all are in sight and accept",
            )
            turn.effects.append(events.Reply(request, error=error))

    def _sign_genesis(self, turn: Turn, genesis: Genesis) -> None:
        self._world.disk.stage(Space.LOCAL, b"genesis", codec.encode(genesis))
        seed = self.identity.keys.signing_seed
        signed = formation.Signed(
            ledger_id(genesis), sign_genesis(genesis, seed=seed, node=self.me)
        )
        turn.when_durable(lambda later: self._form(later, signed))

    def _complete(self, turn: Turn, founding: Founding, peer: bytes | None) -> None:
        """Take in a founding that ``peer`` says is complete."""
        try:
            if self.chains.found(founding):
                self._on_founding(turn, founding)
        except CredentialError as error:
            if peer is not None:
                turn.drop(peer, str(error))  # to check it costs signatures: not again and again

    # --- time -------------------------------------------------------------------------------

    def _on_deadline(self, turn: Turn) -> None:
        now = turn.now
        if self._due(self.gossip.deadline, now):
            self._status()
            self._gossip(turn, DeadlineReached())
        if self._due(self.chains.deadline, now):
            self._chain_effects(turn, self.chains.step(DeadlineReached(), now))
        if self.home is not None and self._due(self.home.deadline, now):
            self.home.run(turn, DeadlineReached())
        if self._due(self._sight_at, now):
            self._sight_at = None if self.home else Instant(now + SIGHT_MS)
            self._look(turn)
        if self._due(self.formation.deadline, now):
            self._form(turn, DeadlineReached())
        if self._due(self._anchor_at, now):
            self._import_villages(turn)

    @staticmethod
    def _due(deadline: Instant | None, now: Instant) -> bool:
        return deadline is not None and deadline <= now


def _merged(grown: Sequence[gossip.Grew]) -> list[gossip.Grew]:
    """What grew thanks to one source, as one: in the order of storing."""
    if len(grown) < 2:
        return list(grown)
    sources: dict[bytes | None, tuple[dict[LaneKey, int], list[tuple[LaneKey, int, bytes]]]] = {}
    for grew in grown:
        tips, entries = sources.setdefault(grew.source, ({}, []))
        tips.update(grew.lanes)
        entries.extend(grew.entries)
    return [
        gossip.Grew(tuple(tips.items()), tuple(entries), source)
        for source, (tips, entries) in sources.items()
    ]


def _disk_full() -> DiskFull:
    return DiskFull(
        "the disk is full: nothing new is recorded",
        hint="free some room and start the node again; what was recorded is safe",
    )
