"""The author log that this device writes in this incarnation.

The first entry opens the log with the device's credential chain and keys; a new incarnation
(first start, or a restored backup) names the last known head of the one before.
"""

from __future__ import annotations

from collections.abc import Sequence

from p2pmed.errors import LocalProtocolError
from p2pmed.ledger.hlc import HybridClock
from p2pmed.ledger.logs import Logs
from p2pmed.ledger.transaction import GENESIS_PREV, Entry, Envelope, LaneKey, sign_entry
from p2pmed.medical.membership import LogOpen
from p2pmed.medical.registry import Registry
from p2pmed.node.events import Draft
from p2pmed.node.identity import Identity
from p2pmed.quorum.possession import prove
from p2pmed.wire import codec

__all__ = ["OwnLog", "last_hlc"]


class OwnLog:
    """Signs drafts in order."""

    def __init__(
        self, *, identity: Identity, logs: Logs, registry: Registry, clock: HybridClock
    ) -> None:
        self.key = LaneKey(identity.keys.node_id, identity.incarnation)
        self._keys = identity.keys
        self._chain = identity.chain
        self._boot = identity.boot
        self._network = identity.network
        self._logs = logs
        self._registry = registry
        self._clock = clock

    @property
    def frozen(self) -> bool:
        """Whether this device's log forked: somebody else writes with its key."""
        lane = self._logs.lane(self.key)
        return lane is not None and lane.frozen

    def opening(self) -> Draft | None:
        """The log's first entry, or ``None`` if it is open already."""
        if self._logs.lane(self.key) is not None:
            return None
        earlier = [lane for lane in self._logs if lane.key.author == self.key.author]
        last = max(earlier, key=lambda lane: lane.number) if earlier else None
        return Draft(
            body=LogOpen(
                chain=self._chain,
                previous=last.key.incarnation if last else b"",
                previous_seq=last.next_seq - 1 if last else 0,
                previous_head=last.head if last else b"",
                box_key=self._keys.box_public,
                vote_keys=tuple(
                    prove(
                        self._keys.vote_signer(epoch),
                        network=self._network,
                        ledger=b"",
                        device=self._keys.node_id,
                    )
                    for epoch in self._keys.vote_epochs
                ),
                boot=self._boot,
            )
        )

    def sign(
        self, drafts: Sequence[Draft], *, ledger: bytes, wall_ms: int, clock: int
    ) -> list[Entry]:
        """Entries of ``drafts``, next in the log, for the caller to append all at once.

        Raises ``InvalidTransaction``, ``ConfigError``, ``LocalProtocolError`` if the log forked,
        and whatever a draft's own function raises.
        """
        if self.frozen:
            raise LocalProtocolError(
                "this device's log forked, and takes no more transactions",
                hint="somebody has a copy of its key: enrol the device anew",
            )
        lane = self._logs.lane(self.key)
        seq, prev = (lane.next_seq, lane.head) if lane else (0, GENESIS_PREV)
        entries: list[Entry] = []
        made: list[bytes] = []
        for draft in drafts:
            body = draft.body(made) if callable(draft.body) else draft.body
            kind = self._registry.of(body)
            envelope = Envelope(
                version=1,
                incarnation=self.key.incarnation,
                seq=seq,
                prev=prev,
                ledger=ledger,
                hlc=self._clock.tick(wall_ms),
                wall=wall_ms,
                clock=clock,
                kind=kind.name,
                kind_version=kind.version,
                actor=draft.actor,
                subject=draft.subject,
                refs=draft.refs,
                body=codec.plain(body),
            )
            entry = sign_entry(
                envelope,
                seed=self._keys.signing_seed,
                author=self.key.author,
                network=self._network,
            )
            entries.append(entry)
            made.append(entry.id)
            seq, prev = seq + 1, entry.id
        return entries


def last_hlc(logs: Logs, author: bytes, incarnation: bytes) -> int:
    """The hybrid time of the log's last entry, or 0: the next one is later."""
    lane = logs.lane(LaneKey(author, incarnation))
    if lane is None or lane.next_seq == 0:
        return 0
    last = logs.entry(lane.key, lane.next_seq - 1)
    return last.envelope.hlc if last else 0
