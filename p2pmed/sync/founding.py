"""Meshes that form on the spot: neighbours, an offer, every founder's signature, a ledger.

States of a node: ``free`` -> ``signed`` (durably, one open genesis at a time) -> ``founded``.
Messages: ``GenesisOffer`` -> ``GenesisConsent`` from each named -> ``GenesisDone`` with the
complete founding; ``GenesisWithdraw`` aborts an offer. A genesis exists when all named have
signed it; whoever misses ``GenesisDone`` learns of the ledger from any peer's ping.

By the operator's word (``Propose``), or with ``auto`` when enough eligible, free neighbours
have been in sight for a while: then the one with the smallest key proposes.

Failure table: a founder that does not answer: the proposer withdraws after ``OFFER_MS`` and
tries again later; the proposer dies: a signer lets its open genesis go after ``SIGNED_MS``
(its signature may still complete a ledger; it then follows whichever was completed first,
and never votes in two); lost ``GenesisDone``: ledgers are advertised in every ping.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Final, Literal, TypeAlias

import msgspec

from p2pmed.engine import DeadlineReached, Entropy, Instant, earliest
from p2pmed.errors import CredentialError, LocalProtocolError
from p2pmed.ledger.genesis import Founding, Genesis, check_signature, ledger_id
from p2pmed.limits import CREDENTIAL_CHAIN_MAX, HLC_AHEAD_MS_MAX, VALIDATORS_MAX
from p2pmed.quorum.certificate import Validator
from p2pmed.wire.codec import Bytes32, Wire

__all__ = [
    "Accept",
    "Formation",
    "FormationMessage",
    "FromFounder",
    "GenesisConsent",
    "GenesisDone",
    "GenesisOffer",
    "GenesisWithdraw",
    "MeshPolicy",
    "Neighbour",
    "Neighbours",
    "Propose",
    "SendFormation",
    "Sign",
    "Signed",
]

OFFER_MS: Final = 10_000
"""How long a proposer waits for consents that policies give."""
OFFERS_MAX: Final = 16
"""Offers kept for an operator's answer, one a proposer."""
SIGNED_MS: Final = 60_000
"""How long a signature binds a node whose proposer has gone silent."""
assert SIGNED_MS > OFFER_MS
WITHDREW_MS: Final = 1_000
"""After which an offer of who withdrew one is answered again: each costs two flushes here."""


class GenesisOffer(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=30):
    """Will you found this?"""

    genesis: Genesis


class GenesisConsent(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=31):
    """I will: my signature and my credential chain."""

    ledger: Bytes32
    signature: bytes
    chain: Annotated[tuple[bytes, ...], msgspec.Meta(max_length=CREDENTIAL_CHAIN_MAX)]


class GenesisDone(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=32):
    """All have signed: the ledger exists."""

    founding: Founding


class GenesisWithdraw(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=33):
    """The offer is off."""

    ledger: Bytes32


FormationMessage: TypeAlias = GenesisOffer | GenesisConsent | GenesisDone | GenesisWithdraw


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshPolicy:
    """When a node founds or joins a mesh without being told to."""

    auto: bool = False
    engine: Literal["bft", "raft"] = "bft"
    size: int = 4
    """Eligible nodes in sight, the own one included, before one proposes."""
    roles: tuple[str, ...] = ("clinic", "pharmacy")
    """Who is eligible."""
    quiet_ms: int = 2_000
    """For how long the same nodes must have been in sight."""
    name: str = "mesh"
    follow: bool = True
    """A node with no ledger of its own follows the first village ledger it hears of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """A node in sight, as its author log and credential describe it."""

    node: bytes
    vote_key: bytes
    roles: tuple[str, ...]
    free: bool
    """It sits in no village ledger known here."""


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Event: who is in sight now, the own node included."""

    nodes: tuple[Neighbour, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Propose:
    """Event: the operator's word. ``members`` are device keys; the own one is implied."""

    members: tuple[bytes, ...]
    engine: Literal["bft", "raft"]
    liars: int | None
    name: str
    patience_ms: int = OFFER_MS
    """How long to wait for the others' signatures; people need longer than policies."""
    successor: bool = False
    """The new ledger follows the home ledger, whose quorum is gone for good."""


@dataclass(frozen=True, slots=True)
class Accept:
    """Event: the operator's word that the offer of ``proposer`` is to be signed."""

    proposer: bytes


@dataclass(frozen=True, slots=True)
class FromFounder:
    """Event: a message of this protocol over an authenticated channel."""

    peer: bytes
    message: FormationMessage


@dataclass(frozen=True, slots=True)
class Signed:
    """Event: answer to ``Sign``; the signature is durable as the one open genesis."""

    ledger: bytes
    signature: bytes


FormationEvent: TypeAlias = Neighbours | Propose | Accept | FromFounder | Signed | DeadlineReached


@dataclass(frozen=True, slots=True)
class Sign:
    """Effect: make this the one open genesis durably, sign it, answer ``Signed``."""

    genesis: Genesis


@dataclass(frozen=True, slots=True)
class Release:
    """Effect: forget the one open genesis, durably."""

    ledger: bytes


@dataclass(frozen=True, slots=True)
class SendFormation:
    """Effect: to one peer."""

    peer: bytes
    message: FormationMessage


@dataclass(frozen=True, slots=True)
class Complete:
    """Effect: a founding to check, keep and, being named in it, to take as the home ledger."""

    founding: Founding


FormationEffect: TypeAlias = Sign | Release | SendFormation | Complete


@dataclass(slots=True)
class _Offer:
    genesis: Genesis
    proposer: bytes
    until: Instant
    consents: dict[bytes, tuple[bytes, tuple[bytes, ...]]] = field(default_factory=dict)


class Formation:
    """The founding core of one node."""

    def __init__(
        self,
        *,
        me: bytes,
        network: bytes,
        rules: bytes,
        chain: Sequence[bytes],
        policy: MeshPolicy,
        entropy: Entropy,
        open_genesis: tuple[Genesis, Instant] | None = None,
    ) -> None:
        self._me = me
        self._network = network
        self._rules = rules
        self._chain = tuple(chain)
        self._policy = policy
        self._entropy = entropy
        self._wall_ms = 0
        self._seen: dict[bytes, Neighbour] = {}
        self._since: Instant | None = None
        self._offer: _Offer | None = None
        self._passed_over: dict[bytes, None] = {}
        """Who did not sign our last offer, until other nodes are in sight."""
        self._withdrew: tuple[bytes, Instant] | None = None
        """Who took an offer back last, and until when it is not taken at its word again."""
        self._offered: dict[bytes, Genesis] = {}
        """Offers that wait: for an operator's word, or until all they name are known here."""
        self.founded = False
        self.survives: tuple[bytes, int, bytes] | None = None
        """The home ledger that a successor may follow: id, last final height, its digest."""
        if open_genesis is not None:
            genesis, now = open_genesis
            self._offer = _Offer(genesis, b"", Instant(now + SIGNED_MS))

    @property
    def deadline(self) -> Instant | None:
        """When an offer runs out, or the same nodes have been in sight long enough."""
        offer = self._offer
        if self.founded:  # only a successor of its ledger may still be under way
            return offer.until if offer is not None and offer.genesis.predecessor else None
        return earliest(offer.until if offer else None, self._propose_at())

    def _propose_at(self) -> Instant | None:
        """When to propose by policy, should nobody else; ``None`` if that is not for us.

        The one with the smallest key first. Its operator may have told it not to, so each next
        one waits for as long as an offer takes; and whoever was asked and did not sign is left
        out while enough others are there: one silent clinic keeps no village from founding.
        """
        if not self._policy.auto or self._since is None or self._offer is not None:
            return None
        members = self._candidates()
        if self._me not in members or len(members) < self._policy.size:
            return None
        wait_ms = self._policy.quiet_ms + members.index(self._me) * OFFER_MS
        return Instant(self._since + wait_ms)

    def _candidates(self) -> list[bytes]:
        eligible = self._eligible(self._seen)
        willing = [node for node in eligible if node not in self._passed_over]
        return (willing if len(willing) >= self._policy.size else eligible)[:VALIDATORS_MAX]

    @property
    def in_sight(self) -> tuple[bytes, ...]:
        """Device keys, the own one included, that a founding here may name now."""
        return tuple(self._seen)

    def tell_time(self, wall_ms: int) -> None:
        """The time as this node and its peers believe, for when a genesis was made."""
        self._wall_ms = wall_ms

    def step(self, event: FormationEvent, now: Instant) -> list[FormationEffect]:
        """Take one event. ``Propose`` raises ``LocalProtocolError`` if it cannot be."""
        match event:
            case Neighbours(nodes):
                return self._on_neighbours(nodes, now)
            case Propose():
                return self._on_propose(event, now)
            case Accept(proposer):
                return self._on_accept(proposer, now)
            case FromFounder(peer, message):
                return self._on_message(peer, message, now)
            case Signed(ledger, signature):
                return self._on_signed(ledger, signature)
        return self._on_deadline(now)

    # --- proposing ------------------------------------------------------------------------

    def _on_neighbours(self, nodes: tuple[Neighbour, ...], now: Instant) -> list[FormationEffect]:
        seen = {n.node: n for n in sorted(nodes, key=lambda n: n.node)}
        if self._eligible(seen) != self._eligible(self._seen):
            self._since = now
            self._passed_over = {}
        self._seen = seen
        return self._consider(now)

    def _eligible(self, seen: Mapping[bytes, Neighbour]) -> list[bytes]:
        wanted = self._policy.roles
        return [n.node for n in seen.values() if n.free and any(r in wanted for r in n.roles)]

    def _on_deadline(self, now: Instant) -> list[FormationEffect]:
        if self.deadline is None:
            return []
        if self._offer is not None:
            return self._give_up(now) if now >= self._offer.until else []
        due = self._propose_at()
        if due is None or now < due:
            return []
        self._since = None
        members, policy = self._candidates(), self._policy
        word = Propose(members=tuple(members), engine=policy.engine, liars=None, name=policy.name)
        return self._on_propose(word, now)

    def _give_up(self, now: Instant) -> list[FormationEffect]:
        offer = self._offer
        assert offer is not None
        ledger = ledger_id(offer.genesis)
        self._offer, self._since = None, now
        effects: list[FormationEffect] = [Release(ledger)]
        if offer.proposer == self._me:
            seats = [validator.node for validator in offer.genesis.validators]
            self._passed_over = {node: None for node in seats if node not in offer.consents}
            effects += self._to_others(offer.genesis, GenesisWithdraw(ledger=ledger))
        return effects

    def _on_propose(self, word: Propose, now: Instant) -> list[FormationEffect]:
        if self.founded and not word.successor:
            raise LocalProtocolError("this node is in a mesh already", hint="leave it first")
        if word.successor and self.survives is None:
            raise LocalProtocolError("this node lives in no ledger that one could follow")
        if self._offer is not None:
            raise LocalProtocolError("a founding is under way", hint="wait a minute")
        members = sorted({*word.members, self._me})
        unknown = [node for node in members if node not in self._seen]
        if unknown:
            raise LocalProtocolError(f"{len(unknown)} of the named nodes are not in sight")
        liars = word.liars
        if liars is None:
            liars = (len(members) - 1) // 3 if word.engine == "bft" else 0
        genesis = Genesis(
            version=1,
            network=self._network,
            name=word.name,
            engine=word.engine,
            liars=liars,
            validators=tuple(
                Validator(node=node, vote_key=self._seen[node].vote_key) for node in members
            ),
            rules=self._rules,
            created=self._wall_ms,
            nonce=self._entropy.token(16),
        )
        if word.successor and self.survives is not None:
            ledger, height, digest = self.survives
            genesis = msgspec.structs.replace(
                genesis,
                predecessor=ledger,
                predecessor_height=height,
                predecessor_digest=digest,
            )
        genesis.check()
        self._offer = _Offer(genesis, self._me, Instant(now + word.patience_ms))
        return [Sign(genesis)]

    def _on_signed(self, ledger: bytes, signature: bytes) -> list[FormationEffect]:
        offer = self._offer
        if offer is None or ledger_id(offer.genesis) != ledger:
            return []
        if offer.proposer != self._me:
            consent = GenesisConsent(ledger=ledger, signature=signature, chain=self._chain)
            return [SendFormation(offer.proposer, consent)]
        offer.consents[self._me] = (signature, self._chain)
        effects = self._to_others(offer.genesis, GenesisOffer(genesis=offer.genesis))
        return effects + self._complete(offer)

    def _to_others(self, genesis: Genesis, message: FormationMessage) -> list[FormationEffect]:
        others = [v.node for v in genesis.validators if v.node != self._me]
        return [SendFormation(node, message) for node in others]

    def _complete(self, offer: _Offer) -> list[FormationEffect]:
        """The founding, once everybody has signed."""
        seats = [validator.node for validator in offer.genesis.validators]
        if any(node not in offer.consents for node in seats):
            return []
        founding = Founding(
            genesis=offer.genesis,
            signatures=tuple(offer.consents[node][0] for node in seats),
            chains=tuple(offer.consents[node][1] for node in seats),
        )
        done = GenesisDone(founding=founding)
        return [Complete(founding), *self._to_others(offer.genesis, done)]

    # --- answering ------------------------------------------------------------------------

    def _on_message(
        self, peer: bytes, message: FormationMessage, now: Instant
    ) -> list[FormationEffect]:
        match message:
            case GenesisOffer(genesis):
                return self._on_offer(peer, genesis, now)
            case GenesisConsent():
                return self._on_consent(peer, message)
            case GenesisDone(founding):
                return [Complete(founding)] if self._may_sign(founding.genesis) else []
            case GenesisWithdraw(ledger):
                offered = self._offered.get(peer)
                if offered is not None and ledger_id(offered) == ledger:
                    del self._offered[peer]
                offer = self._offer
                if offer and offer.proposer == peer and ledger_id(offer.genesis) == ledger:
                    self._offer, self._since = None, now
                    self._withdrew = (peer, Instant(now + WITHDREW_MS))
                    return [Release(ledger)]
        return []

    def _on_offer(self, peer: bytes, genesis: Genesis, now: Instant) -> list[FormationEffect]:
        """Keep an offer that could be; with ``auto`` it is signed as soon as all are known."""
        if not self._may_sign(genesis) or genesis.network != self._network:
            return []
        try:
            genesis.check()
        except LocalProtocolError:
            return []
        nodes = [validator.node for validator in genesis.validators]
        if self._me not in nodes or peer not in nodes or genesis.rules != self._rules:
            return []
        self._offered[peer] = genesis
        while len(self._offered) > OFFERS_MAX:
            del self._offered[next(iter(self._offered))]
        return self._consider(now)

    def _consider(self, now: Instant) -> list[FormationEffect]:
        """Sign, by policy, the first offer whose founders are all known here."""
        if self.founded or not self._policy.auto:
            return []
        for peer in sorted(self._offered):
            if self._withdrew is not None and self._withdrew[0] == peer and now < self._withdrew[1]:
                continue
            if effects := self._agree(peer, now):
                return effects
        return []

    def settle(self, *, open_offer: bool) -> None:
        """There is a home ledger; ``open_offer``: a successor of it may still be signed."""
        self.founded = True
        if not open_offer:
            self._offer = None
            self._offered = {}

    def _may_sign(self, genesis: Genesis) -> bool:
        """Whether this node is free for it: it has no ledger, or this one follows its own.

        A successor that forgets what is final here is none, and one that begins with a state
        that this node does not hold cannot be lived in.
        """
        if not self.founded:
            return True
        return self.survives == (
            genesis.predecessor,
            genesis.predecessor_height,
            genesis.predecessor_digest,
        )

    def offers(self) -> list[tuple[bytes, Genesis]]:
        """What others have offered and nobody here has answered: proposer and genesis."""
        return [(peer, self._offered[peer]) for peer in sorted(self._offered)]

    def _on_accept(self, proposer: bytes, now: Instant) -> list[FormationEffect]:
        offered = self._offered.get(proposer)
        if self.founded and (offered is None or not self._may_sign(offered)):
            raise LocalProtocolError("this node is in a mesh already", hint="leave it first")
        if offered is None:
            raise LocalProtocolError("no such offer stands", hint="see `p2pmed mesh offers`")
        effects = self._agree(proposer, now)
        if not effects:
            raise LocalProtocolError(
                "not every founder it names is in sight and free, or another offer was signed",
                hint="see `p2pmed peers`, and try again in a minute",
            )
        return effects

    def _agree(self, peer: bytes, now: Instant) -> list[FormationEffect]:
        """Sign the offer of ``peer``, unless somebody in it is unknown or another one binds."""
        genesis = self._offered[peer]
        if not all(self._knows(validator) for validator in genesis.validators):
            return []
        if self._wall_ms and genesis.created > self._wall_ms + HLC_AHEAD_MS_MAX:
            return []  # a ledger's time never goes back: it would begin in another century
        withdrawn: list[FormationEffect] = []
        if self._offer is not None:
            other = self._offer
            same = ledger_id(other.genesis) == ledger_id(genesis)
            if same and other.proposer == peer:
                return []  # answered; a flush for each repetition would wear the disk out
            # Two offers cross: the one of the smaller key stands, if ours binds only ourselves.
            yields = other.proposer == self._me and peer < self._me and len(other.consents) <= 1
            if not same and not yields:
                return []
            if not same:  # who signed ours in between need not wait for it to run out
                off = GenesisWithdraw(ledger=ledger_id(other.genesis))
                withdrawn = self._to_others(other.genesis, off)
        self._offer = _Offer(genesis, peer, Instant(now + SIGNED_MS))
        del self._offered[peer]
        return [*withdrawn, Sign(genesis)]

    def _knows(self, validator: Validator) -> bool:
        """Whether a named founder is in sight, free, and votes with the key it published.

        Else a proposer could fill the seats with devices that nobody here has met.
        """
        seen = self._seen.get(validator.node)
        return seen is not None and seen.free and seen.vote_key == validator.vote_key

    def _on_consent(self, peer: bytes, consent: GenesisConsent) -> list[FormationEffect]:
        offer = self._offer
        if offer is None or offer.proposer != self._me:
            return []
        if ledger_id(offer.genesis) != consent.ledger or peer in offer.consents:
            return []
        try:
            if check_signature(offer.genesis, consent.signature) != peer:
                return []
        except CredentialError:
            return []
        offer.consents[peer] = (consent.signature, consent.chain)
        return self._complete(offer)
