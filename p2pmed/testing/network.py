"""The network of a simulation: links that come and go, and what happens to messages on them.

Rules:

* A link joins two devices that reach each other *both* ways when it is made, because a
  handshake needs both. Afterwards one way may fail alone; the link stays until an end gives up.
* An end learns late that its link is gone (up to ``NOTICE_MS_MAX``), each end at its own time.
  What it sends meanwhile is lost without a word. A new link is told only after the old is down.
* Messages of one link arrive in order unless ``reorder`` is set; nothing outlives its link.
* Devices are numbers; sets are asked, never walked. All dice are handed in.

What is not modelled: the Noise channel and discovery, which have their own tests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Final, Protocol

from p2pmed.testing.clock import Agenda

__all__ = ["Ends", "LinkFaults", "SimNetwork"]

DIAL_MS: Final = (20, 800)
"""How long after two devices reach each other they have a link."""
NOTICE_MS_MAX: Final = 4_000
DELAYED_MS: Final = 100
"""A message that takes longer counts as delayed."""
CLOG_BYTES_MAX: Final = 32 * 1024
"""What waits at a clogged link before the sender is told that its queue is full."""
CONSENSUS_HEAD: Final = b"\x84\x18\x28"
"""How a ``ConsensusFrame`` begins: an array of four, tag 40."""


@dataclass(slots=True, kw_only=True)
class LinkFaults:
    """What the network does to messages; shares are per cent."""

    loss: int = 0
    duplicates: int = 0
    delay_ms: tuple[int, int] = (1, 5)
    reorder: bool = False
    """Whether a later message may overtake an earlier one."""


class Ends(Protocol):
    """What the network tells the devices; implemented by ``Simulation``."""

    def has_power(self, number: int) -> bool:
        """Whether the device is on."""

    def link_up(self, number: int, peer: int) -> None:
        """The device has a new link to ``peer``."""

    def link_down(self, number: int, peer: int) -> None:
        """The device finds its link to ``peer`` gone."""

    def frame(self, number: int, source: int, message: bytes) -> None:
        """A message came."""

    def refused(self, number: int, peer: int) -> None:
        """The queue to ``peer`` is full; a message that is not control was not taken."""


@dataclass(slots=True)
class _Clog:
    """Messages that wait at one way of a link."""

    messages: list[tuple[int, bytes]] = field(default_factory=list)
    size: int = 0


class SimNetwork:
    """Every link between the devices of one simulation."""

    def __init__(
        self, agenda: Agenda, dice: Random, ends: Ends, struck: Callable[[str], None]
    ) -> None:
        self.faults = LinkFaults()
        self._agenda = agenda
        self._dice = dice
        self._ends = ends
        self._struck = struck
        self._groups: list[int] = []
        self._regions: list[int] = []
        self._blocked: set[tuple[int, int]] = set()
        self._apart: set[tuple[int, int]] = set()
        """Pairs that no cable joins, whatever else happens: twins share out the others."""
        self._muted: set[int] = set()
        self._clogs: dict[tuple[int, int], _Clog] = {}
        self._links: dict[tuple[int, int], int] = {}
        """Pair (smaller first) -> number of the link that carries messages now."""
        self._believed: dict[tuple[int, int], int] = {}
        """(end, far) -> number of the link that ``end`` thinks it has."""
        self._dialling: set[tuple[int, int]] = set()
        self._arrivals: dict[tuple[int, int], int] = {}
        self._made = 0

    def join(self) -> None:
        """One more device; they are numbered in the order of joining."""
        self._groups.append(0)
        self._regions.append(0)

    # --- reach ------------------------------------------------------------------------------

    def reaches(self, one: int, other: int) -> bool:
        """Whether a message could pass from ``one`` to ``other`` now, were there a link."""
        if one == other or (one, other) in self._blocked or _pair(one, other) in self._apart:
            return False
        return (
            self._together(one, other) and self._ends.has_power(one) and self._ends.has_power(other)
        )

    def _together(self, one: int, other: int) -> bool:
        return (
            self._regions[one] == self._regions[other] and self._groups[one] == self._groups[other]
        )

    def linked(self, one: int, other: int) -> bool:
        """Whether a link joins the two."""
        return _pair(one, other) in self._links

    def cut(self, groups: list[int]) -> None:
        """Only devices of one group reach each other; ``groups[number]`` is the device's."""
        self._groups = list(groups)
        self._settle()

    def separate(self, regions: list[int]) -> None:
        """As ``cut``, and no fault: no cable joins regions, and ``heal`` does not lay one."""
        self._regions = list(regions)
        self._settle()

    def block(self, one: int, other: int) -> None:
        """Nothing passes from ``one`` to ``other`` any more; the other way is as it was."""
        self._blocked.add((one, other))

    def unblock(self, one: int, other: int) -> None:
        """Messages from ``one`` to ``other`` pass again."""
        self._blocked.discard((one, other))
        self._dial(one, other)

    def keep_apart(self, one: int, other: int, *, apart: bool) -> None:
        """Whether no link may join the two; ``heal`` leaves it."""
        pair = _pair(one, other)
        if apart:
            self._apart.add(pair)
            self.unlink(one, other)
        else:
            self._apart.discard(pair)
            self._dial(one, other)

    def forget(self, end: int, far: int) -> bool:
        """``end`` takes another channel in place of the one to ``far``; whether it had one."""
        return self._believed.pop((end, far), None) is not None

    def believes(self, end: int, far: int) -> bool:
        """Whether ``end`` thinks that it has a link to ``far``."""
        return (end, far) in self._believed

    def heal(self) -> None:
        """All cables are in again, and nothing is blocked, clogged or muted."""
        self._groups = [0] * len(self._groups)
        self._blocked.clear()
        self._muted.clear()
        for way in list(self._clogs):
            self.unclog(*way)
        self._settle()

    def _settle(self) -> None:
        """Links follow reach."""
        for one in range(len(self._groups)):
            for other in range(one + 1, len(self._groups)):
                if not self._together(one, other):
                    self.unlink(one, other)
                else:
                    self._dial(one, other)

    def mute(self, number: int, *, muted: bool) -> None:
        """Whether the device's consensus messages are lost, while all else passes."""
        (self._muted.add if muted else self._muted.discard)(number)

    # --- links ------------------------------------------------------------------------------

    def dial_all(self, number: int) -> None:
        """Links to everybody in reach, soon."""
        for other in range(len(self._groups)):
            if other != number:
                self._dial(number, other)

    def _dial(self, one: int, other: int) -> None:
        pair = _pair(one, other)
        if pair in self._links or pair in self._dialling:
            return
        if not (self.reaches(one, other) and self.reaches(other, one)):
            return
        self._dialling.add(pair)

        def answer() -> None:
            self._dialling.discard(pair)
            self._link(*pair)

        self._agenda.at(self._dice.randint(*DIAL_MS), answer)

    def _link(self, one: int, other: int) -> None:
        pair = (one, other)
        both = self.reaches(one, other) and self.reaches(other, one)
        if pair in self._links or not both:
            return
        self._made += 1
        self._links[pair] = number = self._made
        for end, far in (pair, (other, one)):
            if self._believed.pop((end, far), None) is not None:
                self._ends.link_down(end, far)
        for end, far in (pair, (other, one)):
            if self._links.get(pair) == number and self._ends.has_power(end):
                self._believed[end, far] = number
                self._ends.link_up(end, far)

    def unlink(self, one: int, other: int, *, again: bool = True) -> None:
        """Nothing passes any more; the ends find out later, and then dial if ``again``."""
        pair = _pair(one, other)
        number = self._links.pop(pair, None)
        if number is None:
            return
        for way in (pair, (pair[1], pair[0])):
            self._clogs.pop(way, None)
            self._arrivals.pop(way, None)
            self._notice(*way, number, again=again)

    def _notice(self, end: int, far: int, number: int, *, again: bool) -> None:
        def notice() -> None:
            if self._believed.get((end, far)) == number:
                del self._believed[end, far]
                self._ends.link_down(end, far)
                if again:
                    self._dial(end, far)

        self._agenda.at(self._dice.randint(0, NOTICE_MS_MAX), notice)

    def drop(self, end: int, far: int, wait_ms: int) -> None:
        """``end`` closes its link to ``far`` on purpose; after ``wait_ms`` they dial again."""
        self.unlink(end, far, again=False)
        if self._believed.pop((end, far), None) is not None:
            self._ends.link_down(end, far)
        self._agenda.at(wait_ms, lambda: self._dial(end, far))

    def lose(self, number: int) -> None:
        """The device lost its power: it believes nothing any more."""
        for other in range(len(self._groups)):
            if other != number:
                self.unlink(number, other)
                self._believed.pop((number, other), None)

    # --- messages ---------------------------------------------------------------------------

    def send(self, source: int, target: int, message: bytes, *, control: bool) -> None:
        """Put one message on its way, with the faults of the day."""
        link = self._links.get(_pair(source, target))
        if link is None or self._believed.get((source, target)) != link:
            return
        way = (source, target)
        clog = self._clogs.get(way)
        if clog is not None:
            if clog.size + len(message) > CLOG_BYTES_MAX:
                self._struck("queue full")
                if not control:
                    self._ends.refused(source, target)
                return
            clog.messages.append((link, message))
            clog.size += len(message)
            return
        if source in self._muted and message.startswith(CONSENSUS_HEAD):
            return
        self._carry(way, link, message)

    def _carry(self, way: tuple[int, int], link: int, message: bytes) -> None:
        faults, dice = self.faults, self._dice
        if faults.loss and dice.randint(1, 100) <= faults.loss:
            self._struck("loss")
            return
        copies = 1
        if faults.duplicates and dice.randint(1, 100) <= faults.duplicates:
            self._struck("duplicate")
            copies = 2
        now = self._agenda.now
        for _ in range(copies):
            arrival = now + dice.randint(*faults.delay_ms)
            before = self._arrivals.get(way, 0)
            if arrival >= now + DELAYED_MS:
                self._struck("delay")
            if arrival < before and faults.reorder:
                self._struck("reorder")
            else:
                self._arrivals[way] = arrival = max(arrival, before)
            self._agenda.at(arrival - now, lambda: self._deliver(way, link, message))

    def _deliver(self, way: tuple[int, int], link: int, message: bytes) -> None:
        source, target = way
        if self._links.get(_pair(source, target)) != link or way in self._blocked:
            return
        if self._believed.get((target, source)) == link:
            self._ends.frame(target, source, message)

    def clog(self, one: int, other: int) -> None:
        """Messages from ``one`` to ``other`` wait from now on, as many as the queue holds."""
        self._clogs.setdefault((one, other), _Clog())

    def unclog(self, one: int, other: int) -> None:
        """What waited goes on, in order."""
        clog = self._clogs.pop((one, other), None)
        if clog is None:
            return
        for link, message in clog.messages:
            if self._links.get(_pair(one, other)) == link:
                self._carry((one, other), link, message)


def _pair(one: int, other: int) -> tuple[int, int]:
    return (one, other) if one < other else (other, one)
