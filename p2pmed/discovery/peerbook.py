"""Where peers may be found, and when to dial there: for ever, but gently.

Hints come in (an advertisement, a typed address, an address that worked before), dials go
out. Rules:

* a hint is never more than a reason to dial soon; it evicts no address that a person typed
  or that once led to a peer (threats row 13);
* every address is redialled for ever, with full jitter between 0.5 and 60 s; nothing is
  given up after N failures (hashicorp/memberlist#222, n0-computer/iroh#1844);
* never two dials to one address at once, and none to an address whose peer is connected;
* addresses, dials at once and the share of both that strangers can take are bounded.

Also here, because both ends must judge alike: ``survives``, which of two channels to one
peer is kept. Implements: networking notes, section 4.1. Not here: sockets, and liveness,
which comes from authenticated channels only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, TypeAlias

from p2pmed.engine import DeadlineReached, Instant, Rng
from p2pmed.limits import ADDRESSES_REMEMBERED_MAX, PEER_SILENT_MS, REDIAL_MS_MAX, REDIAL_MS_MIN

__all__ = [
    "Connected",
    "DialEnded",
    "DialNow",
    "Disconnected",
    "Forget",
    "Hint",
    "PeerBook",
    "PeerBookEffect",
    "PeerBookEvent",
    "Remember",
    "Source",
    "Standing",
    "survives",
]

DISCOVERED_MAX: Final = 256
"""Addresses kept on a stranger's word: four times a full cell."""

DIALS_MAX: Final = 24
DISCOVERED_DIALS_MAX: Final = 16
"""Dials at once, and how many of them strangers' hints may take."""

RECHECK_MS: Final = 600_000
"""A hint for a second address of a connected peer is followed this seldom: routers reassign
addresses, and another node may live there now."""

QUIET_MS: Final = 7_500
"""A channel that has been silent for longer may be dead at the other end: a new one wins."""

assert DISCOVERED_MAX < ADDRESSES_REMEMBERED_MAX
assert DISCOVERED_DIALS_MAX < DIALS_MAX
assert REDIAL_MS_MIN < REDIAL_MS_MAX
assert QUIET_MS < PEER_SILENT_MS


class Source(IntEnum):
    """How an address became known; a larger one is never evicted for a smaller."""

    DISCOVERED = 1
    """Advertised on the LAN: anybody's word."""
    REMEMBERED = 2
    """It led to an authenticated peer before."""
    TYPED = 3
    """A person wrote it."""


# --- events and effects ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hint:
    """Somebody may be at ``address`` (``host:port``)."""

    address: str
    source: Source
    peer: bytes | None = None
    """Who was there last, where that is remembered."""


@dataclass(frozen=True, slots=True)
class Connected:
    """A channel to ``peer`` stands; ``address`` is what we dialled, ``None`` if it dialled us."""

    peer: bytes
    address: str | None


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The channel to ``peer`` is gone."""

    peer: bytes


@dataclass(frozen=True, slots=True)
class DialEnded:
    """A dial brought no channel; ``peer`` is set if somebody proved its key there all the same
    (it is connected already, or it is this very node)."""

    address: str
    peer: bytes | None = None


@dataclass(frozen=True, slots=True)
class Forget:
    """A person removed an address."""

    address: str


PeerBookEvent: TypeAlias = Hint | Connected | Disconnected | DialEnded | Forget | DeadlineReached


@dataclass(frozen=True, slots=True)
class DialNow:
    """Dial this address; the outcome comes back as ``Connected`` or ``DialEnded``."""

    address: str


@dataclass(frozen=True, slots=True)
class Remember:
    """``peer`` was reached at ``address``: worth keeping over a restart."""

    peer: bytes
    address: str


PeerBookEffect: TypeAlias = DialNow | Remember


class _Place:
    """One address and how it has fared."""

    __slots__ = ("dialled_at", "dialling", "failures", "hinted_at", "next_at", "peer", "source")

    def __init__(self, source: Source, peer: bytes | None, now: Instant) -> None:
        self.source = source
        self.peer = peer
        self.failures = 0
        self.dialling = False
        self.dialled_at: Instant | None = None
        self.hinted_at = now
        self.next_at = now


class PeerBook:
    """The core; one per node."""

    def __init__(self, *, own_key: bytes, rng: Rng) -> None:
        self._own_key = own_key
        self._rng = rng
        self._places: dict[str, _Place] = {}
        self._connected: dict[bytes, str | None] = {}
        """Peers with a channel, and the address it was dialled at."""

    def __len__(self) -> int:
        return len(self._places)

    @property
    def addresses(self) -> tuple[str, ...]:
        """All known addresses, the oldest first."""
        return tuple(self._places)

    @property
    def deadline(self) -> Instant | None:
        """When the next dial is due; ``None`` while none may start."""
        trusted, discovered = self._room()
        waiting = [
            place.next_at
            for place in self._places.values()
            if self._may_dial(place)
            and (discovered if place.source is Source.DISCOVERED else trusted) > 0
        ]
        return min(waiting) if waiting else None

    def step(self, event: PeerBookEvent, now: Instant) -> Sequence[PeerBookEffect]:
        """Take one event; return effects, to be carried out in this order."""
        effects: list[PeerBookEffect] = []
        if isinstance(event, Hint):
            self._on_hint(event, now)
        elif isinstance(event, Connected):
            self._on_connected(event, now, effects)
        elif isinstance(event, Disconnected):
            self._on_disconnected(event.peer, now)
        elif isinstance(event, DialEnded):
            self._on_dial_ended(event, now)
        elif isinstance(event, Forget):
            self._places.pop(event.address, None)
        effects.extend(self._dials(now))
        return effects

    # --- events -----------------------------------------------------------------------------

    def _on_hint(self, hint: Hint, now: Instant) -> None:
        place = self._places.get(hint.address)
        if place is None:
            if self._make_room(hint.source):
                self._places[hint.address] = _Place(hint.source, hint.peer, now)
            return
        place.source = max(place.source, hint.source)
        place.hinted_at = now
        if hint.peer is not None and place.peer is None:
            place.peer = hint.peer
        if place.peer == self._own_key:
            return  # redialled now and then by itself; nothing new to learn
        place.failures = 0
        soonest = now
        if place.dialled_at is not None:
            # However often strangers hint, an address is not hammered.
            soonest = Instant(max(now, place.dialled_at + REDIAL_MS_MIN))
        if place.peer in self._connected:
            self._recheck(hint.address, place, now)
        else:
            place.next_at = min(place.next_at, soonest)

    def _recheck(self, address: str, place: _Place, now: Instant) -> None:
        """Somebody else may have got an address that a connected peer had before."""
        assert place.peer is not None
        at_home = self._connected[place.peer] == address
        rested = place.dialled_at is None or now - place.dialled_at >= RECHECK_MS
        if not at_home and rested and not place.dialling:
            place.peer = None
            place.next_at = now

    def _on_connected(self, event: Connected, now: Instant, effects: list[PeerBookEffect]) -> None:
        self._connected[event.peer] = event.address
        if event.address is None:
            return
        place = self._places.get(event.address)
        if place is None:
            if not self._make_room(Source.REMEMBERED):
                return
            place = self._places[event.address] = _Place(Source.REMEMBERED, event.peer, now)
        place.source = max(place.source, Source.REMEMBERED)
        place.peer = event.peer
        place.dialling = False
        place.failures = 0
        effects.append(Remember(event.peer, event.address))

    def _on_disconnected(self, peer: bytes, now: Instant) -> None:
        self._connected.pop(peer, None)
        for place in self._places.values():
            if place.peer == peer and not place.dialling:
                place.failures = 0
                place.next_at = self._after_failure(place, now)

    def _on_dial_ended(self, event: DialEnded, now: Instant) -> None:
        place = self._places.get(event.address)
        if place is None:
            return
        place.dialling = False
        if event.peer is not None:
            place.peer = event.peer
        if event.peer == self._own_key:
            place.next_at = Instant(now + REDIAL_MS_MAX)
            return
        place.next_at = self._after_failure(place, now)
        place.failures += 1

    # --- dialling ---------------------------------------------------------------------------

    def _after_failure(self, place: _Place, now: Instant) -> Instant:
        """Full jitter below a ceiling that doubles with each failure in a row."""
        ceiling = min(REDIAL_MS_MAX, (2 * REDIAL_MS_MIN) << min(place.failures, 16))
        return Instant(now + self._rng.randint(REDIAL_MS_MIN, ceiling))

    def _dials(self, now: Instant) -> list[DialNow]:
        """Start what is due, the least failed first, within the bounds."""
        trusted, discovered = self._room()
        due = [
            (place.failures, place.next_at, order, address, place)
            for order, (address, place) in enumerate(self._places.items())
            if place.next_at <= now and self._may_dial(place)
        ]
        due.sort(key=lambda item: item[:3])
        dials: list[DialNow] = []
        for *_, address, place in due:
            stranger = place.source is Source.DISCOVERED
            if trusted <= 0 or (stranger and discovered <= 0):
                continue
            trusted -= 1
            discovered -= stranger
            place.dialling = True
            place.dialled_at = now
            dials.append(DialNow(address))
        return dials

    def _may_dial(self, place: _Place) -> bool:
        return not place.dialling and (place.peer is None or place.peer not in self._connected)

    def _room(self) -> tuple[int, int]:
        """Dials that may still start: in all, and on strangers' hints."""
        dialling = [place.source for place in self._places.values() if place.dialling]
        room = DIALS_MAX - len(dialling)
        return room, min(room, DISCOVERED_DIALS_MAX - dialling.count(Source.DISCOVERED))

    def _make_room(self, source: Source) -> bool:
        """Whether an address of ``source`` may be added, evicting a lesser one if need be."""
        strangers = [
            (place.hinted_at, order, address)
            for order, (address, place) in enumerate(self._places.items())
            if place.source is Source.DISCOVERED and not place.dialling
        ]
        if source is Source.DISCOVERED:
            full = len(strangers) >= DISCOVERED_MAX - DISCOVERED_DIALS_MAX
        else:
            full = False
        if not full and len(self._places) < ADDRESSES_REMEMBERED_MAX:
            return True
        victim: str | None = min(strangers)[2] if strangers else None
        if victim is None and source is Source.TYPED:
            remembered = [
                (place.hinted_at, order, address)
                for order, (address, place) in enumerate(self._places.items())
                if place.source is Source.REMEMBERED
                and not place.dialling
                and (place.peer is None or place.peer not in self._connected)
            ]
            victim = min(remembered)[2] if remembered else None
        if victim is None:
            return False
        del self._places[victim]
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What both ends of a channel know of it alike, and how long it has been quiet."""

    dialler: bytes
    """Device key of the side that dialled."""
    boot: bytes
    """The peer's boot id."""
    binding: bytes
    """The handshake hash."""
    quiet_ms: int = 0


def survives(new: Standing, old: Standing) -> bool:
    """Whether of two channels to one peer the new one is kept. Both ends decide alike.

    A peer that restarted, or an old channel long silent: the new one. Dialled by both at
    once: the dial of the smaller public key. Dialled twice by the same side: the smaller
    handshake hash, which is a coin that both ends see.
    """
    if new.boot != old.boot or old.quiet_ms > QUIET_MS:
        return True
    return (new.dialler, new.binding) < (old.dialler, old.binding)
