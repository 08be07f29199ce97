"""Seats of the home ledger from epoch to epoch: who sits where, and who is told that it changed.

Rule: an engine hears only messages of its own epoch, from who has a seat in it. Who speaks of an
epoch that is over is handed the seal that ended it; who speaks of a later one is asked for it.
A device keeps vote keys published ahead, so that its absence blocks no change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from p2pmed.consensus.interface import Receive
from p2pmed.engine import Instant
from p2pmed.errors import LocalProtocolError
from p2pmed.ledger.epochs import next_epoch_of
from p2pmed.limits import PEERS_MAX
from p2pmed.medical.seat_changes import MeshChange, MeshKeys
from p2pmed.medical.seats import KEYS_AHEAD, keys_ahead, lost_seats
from p2pmed.node import events
from p2pmed.node.events import Draft
from p2pmed.node.home_ledger import HomeLedger
from p2pmed.node.messages import ConsensusFrame
from p2pmed.node.turn import Turn
from p2pmed.node.vote_keys import VoteKeys
from p2pmed.quorum.certificate import Epoch
from p2pmed.sync import chains as chain_events

if TYPE_CHECKING:
    from p2pmed.node.ledgers import Ledgers

__all__ = ["Seating"]

SEAL_MS: Final = 500
"""A peer that speaks of another epoch is answered so often: its engine says much at once."""


class Seating:
    """The seats of one node's home ledger."""

    def __init__(
        self,
        *,
        vote_keys: VoteKeys,
        me: bytes,
        ledgers: Ledgers,
        links: Mapping[bytes, object],
        write: Callable[[Turn, tuple[Draft, ...]], object],
    ) -> None:
        self.vote_keys = vote_keys
        self.seats: dict[bytes, int] = {}
        """Of the home's other validators, by node."""
        self._me = me
        self._ledgers = ledgers
        self._links = links
        self._write = write
        self._told_at: dict[bytes, Instant] = {}
        """By peer: when it may be told again that one of us is in another epoch."""

    def take(self, home: HomeLedger) -> None:
        """Know who sits where in this epoch of the home ledger."""
        self.seats = {
            validator.node: seat
            for seat, validator in enumerate(home.epoch.validators)
            if validator.node != self._me
        }

    def hear(self, turn: Turn, peer: bytes, frame: ConsensusFrame) -> None:
        """An engine's message: for ours if it is of this epoch, else one of us is behind."""
        home = self._ledgers.home
        if home is None or frame.ledger != home.ledger:
            return
        if frame.epoch == home.epoch.number:
            seat = self.seats.get(peer)
            if seat is not None:
                home.run(turn, Receive(seat, frame.message))
        elif turn.now >= self._told_at.get(peer, turn.now):
            if len(self._told_at) > PEERS_MAX:
                self._told_at.clear()
            self._told_at[peer] = Instant(turn.now + SEAL_MS)
            if frame.epoch < home.epoch.number:
                self._offer_seal(turn, peer, frame.epoch)
            else:
                heads = ((home.ledger, self._ledgers.chains.height(home.ledger) + 1),)
                self._ledgers.hear(turn, chain_events.HeadsSeen(peer, heads))

    def _offer_seal(self, turn: Turn, peer: bytes, number: int) -> None:
        """Hand ``peer`` the seal that ended an epoch: whoever lacks it votes in vain."""
        home = self._ledgers.home
        assert home is not None
        begun = home.chain.epochs.begun_at(number + 1)
        offer = None if begun is None else self._ledgers.chains.offer(home.ledger, begun - 1)
        if offer is not None and peer in self._links:
            turn.send(peer, offer, control=False)

    def on_epoch(self, turn: Turn, old: Epoch, decided_here: bool) -> None:
        """The seal of ``old`` is durable, and the next epoch's engine runs if it has a seat."""
        home = self._ledgers.home
        assert home is not None
        self.take(home)
        self._told_at = {}
        turn.notify(events.EpochBegun(home.ledger, home.epoch.number, home.seat))
        self.publish_keys(turn)
        if not decided_here:
            return
        seated = {v.node for v in (*old.validators, *home.epoch.validators)}
        for peer in sorted(seated):
            if peer != self._me:
                self._offer_seal(turn, peer, old.number)

    def is_keyless(self) -> bool:
        """Whether this node has a seat and has lost the secret half of the seat's vote key."""
        home = self._ledgers.home
        if home is None or home.seat is None:
            return False
        return self.vote_keys.signer(home.epoch.validators[home.seat].vote_key) is None

    def publish_keys(self, turn: Turn) -> None:
        """Publish vote keys until there are enough ahead, so that absence blocks no change.

        Published ones whose secret half is gone, as after an old backup was restored, are named
        as lost: the next epoch would seat a device that cannot vote. If that of this epoch is
        gone, people are told, and the same seats with fresh keys are asked for.
        """
        home = self._ledgers.home
        if home is None or home.halted or home.seat is None:
            return
        keyless = self.is_keyless()
        if keyless:
            turn.notify(events.Alarm("vote_key_lost", (home.ledger,)))
        if self._ledgers.identity.muted:
            return
        state = self._ledgers.overlay.state()
        ahead = keys_ahead(state, self._me)
        final = keys_ahead(home.chain.state, self._me)  # their secret halves are durable, or gone
        lost = [key for key in ahead if key in final and self.vote_keys.signer(key) is None]
        lacking = KEYS_AHEAD - len(ahead) + len(lost)
        if keyless and self._me not in lost_seats(state, home.epoch):
            lost.append(home.epoch.validators[home.seat].vote_key)
        drafts: list[Draft] = []
        if lacking > 0 or lost:
            network = self._ledgers.identity.network
            made = self.vote_keys.make(max(0, lacking), network=network, ledger=home.ledger)
            drafts.append(Draft(body=MeshKeys(keys=made, lost=tuple(sorted(lost)))))
        if keyless and next_epoch_of(state) is None:
            number, liars = home.epoch.number, home.epoch.liars
            drafts.append(Draft(body=MeshChange(epoch=number, add=(), remove=(), liars=liars)))
        if drafts:
            turn.staged = True
            with suppress(LocalProtocolError):  # a log that forked takes nothing more
                self._write(turn, tuple(drafts))
