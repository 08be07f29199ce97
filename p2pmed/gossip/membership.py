"""Who is alive in the cell: a ping per peer and interval, an answer, a round-trip time.

Liveness comes from authenticated channels only, and any message is a sign of life. Silence
removes a connection, never a member: membership is ledger state, and redialling never ends
(networking notes, 4.3). A node that notices its own stalls doubts itself first and waits
longer (Lifeguard).

The interval grows with the number of peers, so that a node hears about four digests a second
whatever the size of the cell, and idle cost stays level.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from p2pmed.engine import Instant, Rng
from p2pmed.gossip.messages import HEALTH_MAX
from p2pmed.limits import PEER_SILENT_MS, PING_MS

__all__ = ["PINGS_MISSED_SUSPECT", "STALL_MS", "Liveness", "Membership"]

PEERS_PER_PING: Final = 4
PING_STRETCH_MAX: Final = 5
"""Each peer is pinged every ``PING_MS`` times (peers / 4, at most 5)."""

assert PING_STRETCH_MAX * PING_MS * 5 // 4 * 2 < PEER_SILENT_MS  # two pings may be lost

PINGS_MISSED_SUSPECT: Final = 2
"""Unanswered in a row before a peer is shown as suspect (wild guess)."""

STALL_MS: Final = 100
"""A deadline served this late is our own fault, not the peers' (memberlist)."""


_LONG_AGO: Final = Instant(0)


@dataclass(slots=True)
class Liveness:
    """What is known of one peer's life."""

    heard_at: Instant
    ping_due: Instant
    ping_seq: int = 0
    ping_at: Instant = _LONG_AGO
    missed: int = 0
    """Pings in a row without an answer."""
    rtt_ms: int | None = None
    health: int = 0
    """What it says of itself."""

    @property
    def suspect(self) -> bool:
        """Whether several pings in a row went unanswered."""
        return self.missed > PINGS_MISSED_SUSPECT


class Membership:
    """The connected peers, in order of their arrival."""

    def __init__(self, rng: Rng) -> None:
        self._rng = rng
        self._peers: dict[bytes, Liveness] = {}
        self.health = 0
        """Our own doubt, 0 to ``HEALTH_MAX``."""

    def __len__(self) -> int:
        return len(self._peers)

    def __contains__(self, peer: bytes) -> bool:
        return peer in self._peers

    def up(self, peer: bytes, now: Instant) -> None:
        """A channel opened; its first ping is due at once."""
        self._peers[peer] = Liveness(heard_at=now, ping_due=now)

    def down(self, peer: bytes) -> None:
        """The channel is gone."""
        self._peers.pop(peer, None)

    def get(self, peer: bytes) -> Liveness | None:
        """What is known of ``peer``, if it is connected."""
        return self._peers.get(peer)

    def peers(self) -> list[bytes]:
        """The connected peers."""
        return list(self._peers)

    def heard(self, peer: bytes, now: Instant) -> None:
        """Any message came."""
        self._peers[peer].heard_at = now

    def pong(self, peer: bytes, seq: int, now: Instant) -> None:
        """An answer came; only one to the newest ping measures the way."""
        live = self._peers[peer]
        if seq != live.ping_seq or live.missed == 0:
            return
        live.missed = 0
        sample = now - live.ping_at
        live.rtt_ms = sample if live.rtt_ms is None else (7 * live.rtt_ms + sample) // 8

    def stalled(self, late_ms: int) -> None:
        """Our deadline was served ``late_ms`` too late."""
        if late_ms > STALL_MS:
            self.health = min(HEALTH_MAX, self.health + 1)

    @property
    def silence_ms_max(self) -> int:
        """How long a peer may be silent; longer when we doubt ourselves."""
        return PEER_SILENT_MS * (1 + self.health)

    @property
    def interval_ms(self) -> int:
        """Between two pings to one peer, before jitter."""
        stretch = -(-len(self._peers) // PEERS_PER_PING)
        return PING_MS * max(1, min(PING_STRETCH_MAX, stretch))

    def turn(self, now: Instant) -> tuple[list[tuple[bytes, int]], list[bytes]]:
        """The pings due, as ``(peer, seq)``, and the peers silent for too long."""
        pings, silent = [], []
        for peer, live in self._peers.items():
            if live.ping_due > now:
                continue
            if now - live.heard_at >= self.silence_ms_max:
                silent.append(peer)
                continue
            self._judge_ourselves(live)
            live.ping_seq += 1
            live.missed += 1
            live.ping_at = now
            interval = self.interval_ms
            live.ping_due = Instant(
                now + interval + self._rng.randint(-interval // 4, interval // 4)
            )
            pings.append((peer, live.ping_seq))
        return pings, silent

    def deadline(self) -> Instant | None:
        """When the next ping is due."""
        return min((live.ping_due for live in self._peers.values()), default=None)

    def _judge_ourselves(self, live: Liveness) -> None:
        """If most peers owe an answer at once, the fault is more likely ours."""
        owing = sum(other.missed > 1 for other in self._peers.values())
        if live.missed and 2 * owing > len(self._peers) > 1:
            self.health = min(HEALTH_MAX, self.health + 1)
        elif not live.missed:
            self.health = max(0, self.health - 1)
