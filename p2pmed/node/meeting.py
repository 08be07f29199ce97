"""Nodes that meet and have no ledger yet: who is in sight, and the founding they agree on.

Rule: a node that has no home tells the founding core (``sync/founding.py``) who could vote, and
carries out what that decides. The one open genesis is durable before it is signed, so that a
node never binds itself twice.

Failure table:

=====================================  =====================================================
not all named nodes signed in time     the genesis is released, the operator's request refused
a founding that is wrong               whoever told it is dropped: to check it costs signatures
a home restored from a backup          may have signed what it forgot: it founds nothing
a founding under way                   the second proposal is refused, the first stays awaited
=====================================  =====================================================
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from p2pmed.engine import DeadlineReached, Instant, earliest
from p2pmed.errors import CredentialError, LocalProtocolError
from p2pmed.ledger.genesis import Founding, Genesis, ledger_id, sign_genesis
from p2pmed.ledger.logs import Logs
from p2pmed.medical.membership import LogOpen, proves_keys
from p2pmed.medical.registry import Registry
from p2pmed.medical.seats import keys_ahead
from p2pmed.node import events
from p2pmed.node.ledgers import GENESIS, Ledgers
from p2pmed.node.trust import Trust
from p2pmed.node.turn import Turn
from p2pmed.sync import founding as formation
from p2pmed.sync.founding import Formation, FormationMessage, MeshPolicy, Neighbour
from p2pmed.wire import codec
from p2pmed.world import Space, World

__all__ = ["Meeting"]

SIGHT_MS: Final = 500
"""How often a node without a ledger looks at who is in sight."""


class Meeting:
    """Drives the founding core. ``links`` are the connected peers with their chains.

    ``common_wall()`` is the time that most of them tell.
    """

    def __init__(
        self,
        *,
        world: World,
        policy: MeshPolicy,
        rules: bytes,
        registry: Registry,
        logs: Logs,
        links: Mapping[bytes, tuple[bytes, ...]],
        trust: Trust,
        ledgers: Ledgers,
        common_wall: Callable[[], int],
    ) -> None:
        identity = ledgers.identity
        now = world.clock.now()
        raw = world.disk.get(Space.LOCAL, GENESIS)
        self.formation = Formation(
            me=identity.keys.node_id,
            network=identity.network,
            rules=rules,
            chain=identity.chain,
            policy=policy,
            entropy=world.entropy,
            open_genesis=(codec.decode(raw, Genesis), now) if raw else None,
        )
        self._world = world
        self._registry = registry
        self._logs = logs
        self._links = links
        self._trust = trust
        self._ledgers = ledgers
        self._common_wall = common_wall
        self._me = identity.keys.node_id
        self._chain = identity.chain
        self._sight_at: Instant | None = now
        self._request: int | None = None
        """The operator's word to found, while it waits for its answer."""

    @property
    def deadline(self) -> Instant | None:
        """When to look again, or to give a founding up."""
        return earliest(self._sight_at, self.formation.deadline)

    def on_deadline(self, turn: Turn) -> None:
        """Look who is in sight, and let the founding core act on time."""
        if turn.due(self._sight_at):
            self._sight_at = None if self._ledgers.home else Instant(turn.now + SIGHT_MS)
            self.look(turn)
        if turn.due(self.formation.deadline):
            self._form(turn, DeadlineReached())

    def settled(self) -> int | None:
        """There is a home, and nothing to found any more; returns the request that awaits it."""
        open_offer = self._world.disk.get(Space.LOCAL, GENESIS) is not None
        self.formation.settle(open_offer=open_offer)
        request, self._request = self._request, None
        return request

    # --- who is in sight --------------------------------------------------------------------

    def look(self, turn: Turn) -> None:
        """Tell the founding core who is in sight, if it may still found."""
        if self._ledgers.home is None:
            self._look(turn)

    def _look(self, turn: Turn) -> None:
        home = self._ledgers.home
        self.formation.survives = None
        if home is not None:  # a successor may follow it
            known = home.chain
            self.formation.survives = (home.ledger, known.height, known.head_digest)
        chains = self._ledgers.chains
        seated = {
            validator.node
            for ledger, _ in chains.heads()
            if (founding := chains.founding(ledger)) is not None
            for epoch in (founding.genesis, chains.epoch(ledger))
            if epoch is not None
            for validator in epoch.validators
        }
        nodes = []
        for node in sorted([*self._links, self._me]):
            opening = self._opening_of(node)
            if opening is None or not self._may_vote(node, opening):
                continue
            chain = self._chain if node == self._me else self._links[node]
            nodes.append(
                Neighbour(
                    node=node,
                    vote_key=self._vote_key_of(node, opening),
                    roles=self._trust.roles_of(chain),
                    free=home is not None or node not in seated,
                )
            )
        self._form(turn, formation.Neighbours(tuple(nodes)))

    def _may_vote(self, node: bytes, opening: LogOpen) -> bool:
        """Whether the device published vote keys, and proved that they are its own."""
        network = self._ledgers.identity.network
        return bool(opening.vote_keys) and proves_keys(opening, network, node)

    def _vote_key_of(self, node: bytes, opening: LogOpen) -> bytes:
        """A key that no epoch of the home ledger has used."""
        home = self._ledgers.home
        ahead = keys_ahead(home.chain.state, node) if home is not None else ()
        return ahead[0] if ahead else opening.vote_keys[0].key

    def _opening_of(self, node: bytes) -> LogOpen | None:
        """The first entry of the node's newest log that is here."""
        newest: LogOpen | None = None
        for lane in self._logs:
            here = lane.next_seq if node == self._me else lane.durable_next
            if lane.key.author == node and here > 0:
                entry = self._logs.entry(lane.key, 0)
                body = self._registry.body(entry) if entry else None
                if isinstance(body, LogOpen) and (newest is None or body.boot >= newest.boot):
                    newest = body
        return newest

    # --- founding ---------------------------------------------------------------------------

    def hear(self, turn: Turn, peer: bytes, message: FormationMessage) -> None:
        """A peer's word on a founding."""
        if self._ledgers.home is not None:
            self._look(turn)
        self._form(turn, formation.FromFounder(peer, message))

    def decide(self, turn: Turn, request: int, word: formation.Propose | formation.Accept) -> None:
        """The operator's word: to found, or to accept an offer; answered when the ledger exists.

        Raises ``LocalProtocolError`` if this node may not found, or does so already.
        """
        if self._ledgers.identity.muted:
            raise LocalProtocolError(
                "this home was restored from a backup and may not found or vote",
                hint="read `p2pmed mesh resume --help`",
            )
        self._look(turn)
        self._form(turn, word)  # raises if one is under way, which stays awaited
        self._request = request

    def _form(self, turn: Turn, event: formation.FormationEvent) -> None:
        if self._ledgers.identity.muted:  # it may have signed a genesis that it does not remember
            return
        self.formation.tell_time(self._common_wall())
        for effect in self.formation.step(event, turn.now):
            match effect:
                case formation.SendFormation(peer, message):
                    turn.send(peer, message, control=True)
                case formation.Sign(genesis):
                    self._sign_genesis(turn, genesis)
                case formation.Release():
                    self._world.disk.stage(Space.LOCAL, GENESIS, None)
                    turn.staged = True
                    self._refuse(turn)
                case formation.Complete(founding):
                    teller = event.peer if isinstance(event, formation.FromFounder) else None
                    self._complete(turn, founding, teller)

    def _refuse(self, turn: Turn) -> None:
        request, self._request = self._request, None
        if request is not None:
            error = LocalProtocolError(
                "not every named node signed the founding in time",
                hint="check with `p2pmed peers` that all are in sight and accept",
            )
            turn.effects.append(events.Reply(request, error=error))

    def _sign_genesis(self, turn: Turn, genesis: Genesis) -> None:
        self._world.disk.stage(Space.LOCAL, GENESIS, codec.encode(genesis))
        seed = self._ledgers.identity.keys.signing_seed
        signed = formation.Signed(
            ledger_id(genesis), sign_genesis(genesis, seed=seed, node=self._me)
        )
        turn.when_durable(lambda later: self._form(later, signed))

    def _complete(self, turn: Turn, founding: Founding, peer: bytes | None) -> None:
        """Take in a founding that ``peer`` says is complete."""
        try:
            self._ledgers.found(turn, founding)
        except CredentialError as error:
            if peer is not None:
                turn.drop(peer, str(error))  # to check it costs signatures: not again and again
