"""Faults drawn from a seed: a swarm decides which kinds there are, then they strike.

Swarm testing (Groce et al. 2012): if every run had every kind of fault, some bugs would never
show, because one kind hides another. So each seed switches each kind on or off, and draws the
weather on the links once. ``Mischief.strike`` then plays one fault; what must end by itself
(a cut, a clog, a slow disk) ends after a while drawn with it, and ``cease`` ends all at once.

Kinds, by the name under which they are counted:

===============  ==========================================================================
power cut        one device loses its power, and gets it back after seconds
cut in a flush   the same, in the worst moment: what was sent is out, what was written is not
failed flush     the disk reports an error: the node stops, and is started again
crash loop       one device fails several times, each time soon after it started
blackout         every device loses its power at once
absence          everybody but one is away for days; the one that stays may write
partition        two groups that do not reach each other
one-way cut      what one device sends another is lost; the other way works
clogged link     messages of one way wait; then the queue overflows
flapping link    a link that goes and comes several times
slow disk        flushes of half a second
clock jump       a wall clock is set wrong, by minutes or by years
clock drift      a wall clock runs wrong
coup             the leader goes silent, and who would elect another dies while writing it down
silent leader    whatever its seat, a node's consensus messages are lost, its pings are not
===============  ==========================================================================

Loss, duplicates and overtaking are the weather, counted per message under their own names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random
from types import MappingProxyType
from typing import Final

from p2pmed.testing.network import LinkFaults
from p2pmed.testing.simulation import FLUSH_MS, SimNode, Simulation

__all__ = ["KINDS", "WEATHER", "Mischief"]

WEATHER: Final = frozenset({"loss", "duplicate", "reorder", "delay", "queue full"})
"""Counted per message; a scenario's number of faults leaves them out."""
DELAYS_MS: Final = ((1, 5), (1, 5), (5, 80), (5, 200), (1, 400))
"""Classes of links: a good router twice as often as a bad radio."""
SLOW_FLUSH_MS: Final = (50, 500)
DAY_MS: Final = 86_400_000
YEAR_MS: Final = 365 * DAY_MS


def _leader_of(node: SimNode) -> bytes | None:
    """Device key of whom ``node`` takes for the leader now."""
    home = node.home
    seat = home.engine.status()["leader"] if home and home.engine else None
    if home is None or not isinstance(seat, int) or seat < 0:
        return None
    return home.founding.genesis.validators[seat].node


class Mischief:
    """Faults for ``nodes`` of one simulation; all dice come from ``dice``."""

    def __init__(
        self,
        simulation: Simulation,
        nodes: Sequence[SimNode],
        dice: Random,
        *,
        days_alone_max: int = 30,
    ) -> None:
        self._simulation = simulation
        self._nodes = list(nodes)
        self._dice = dice
        self._days_alone_max = days_alone_max
        """How many days one device may be on alone: its timers cost the simulator time."""
        self.away_ms = 0
        """Virtual time in which nobody, or one device alone, was on."""
        self._round = 0
        """Raised by ``cease``: what was planned before does not happen after it."""
        self._off_until: dict[int, int] = {}
        """Device -> instant before which nothing switches it on."""
        self.kinds: tuple[str, ...] = self._draw()
        self.links = self._weather()

    def _draw(self) -> tuple[str, ...]:
        drawn = [kind for kind in KINDS if self._dice.random() < 0.5]
        return tuple(drawn) if len(drawn) > 1 else (*drawn, "power cut", "partition")

    def _weather(self) -> LinkFaults:
        dice = self._dice
        return LinkFaults(
            loss=dice.choice((0, 0, 1, 5, 15, 30)),
            duplicates=dice.choice((0, 0, 5, 30)),
            delay_ms=dice.choice(DELAYS_MS),
            reorder=dice.random() < 0.5,
        )

    def join(self, node: SimNode) -> None:
        """Faults strike this device, too, from now on."""
        self._nodes.append(node)

    @property
    def count(self) -> int:
        """Faults that struck, the weather left out."""
        injected = self._simulation.injected
        return sum(number for kind, number in injected.items() if kind not in WEATHER)

    def begin(self) -> None:
        """Let the weather of this seed begin."""
        self._simulation.faults = self.links

    def strike(self) -> str:
        """One fault of a kind that this seed has; its name."""
        kind = self._dice.choice(self.kinds)
        KINDS[kind](self)
        return kind

    def cease(self) -> None:
        """No more faults: all cables in, all devices on, disks and links healthy."""
        simulation = self._simulation
        self._round += 1
        simulation.faults = LinkFaults()
        simulation.heal()
        self._off_until.clear()
        for node in self._nodes:
            node.flush_ms = FLUSH_MS
            node.disk.fail_next_sync = False
            node.dies = ""
            node.clock.drift(0)
            simulation.start(node)

    # --- helpers ----------------------------------------------------------------------------

    def _one(self) -> SimNode:
        return self._dice.choice(self._nodes)

    def _two(self) -> tuple[SimNode, SimNode]:
        one, other = self._dice.sample(self._nodes, 2)
        return one, other

    def _later(self, wait_ms: int, action: Callable[[], None]) -> None:
        """Do it then, if faults still strike."""
        round_ = self._round

        def act() -> None:
            if self._round == round_:
                action()

        self._simulation.at(wait_ms, act)

    def _start_after(self, node: SimNode, wait_ms: int) -> None:
        until = self._simulation.now + wait_ms
        self._off_until[node.number] = max(until, self._off_until.get(node.number, 0))

        def start() -> None:
            if self._simulation.now >= self._off_until.get(node.number, 0):
                self._simulation.start(node)

        self._later(wait_ms, start)

    # --- power ------------------------------------------------------------------------------

    def _power_cut(self) -> None:
        node = self._one()
        self._simulation.crash(node)
        self._start_after(node, self._dice.choice((1, 200, 2_000, 8_000, 20_000)))

    def _cut_in_a_flush(self) -> None:
        node = self._one()
        self._simulation.struck("cut in a flush")
        node.dies = "in flush"
        self._later(self._dice.randint(500, 4_000), lambda: self._start_after(node, 1))

    def _failed_flush(self) -> None:
        node = self._one()
        self._simulation.struck("failed flush")
        node.disk.fail_next_sync = True
        self._later(2_000, lambda: self._start_after(node, 1))

    def _crash_loop(self) -> None:
        node = self._one()
        self._simulation.struck("crash loop")
        at = 0
        for _ in range(self._dice.randint(3, 6)):
            self._later(at, lambda: self._simulation.crash(node))
            off = self._dice.randint(1, 500)
            self._later(at, lambda off=off: self._start_after(node, off))  # type: ignore[misc]
            at += off + self._dice.randint(1, 1_500)

    def _blackout(self) -> None:
        self._simulation.struck("blackout")
        for node in self._nodes:
            self._simulation.crash(node)
            self._start_after(node, self._dice.randint(1, 3_000))

    def _absence(self) -> None:
        """Runs the simulation: days pass before this returns."""
        self._simulation.struck("absence")
        stays = self._one() if self._days_alone_max else None
        days = self._dice.randint(1, 30) if stays is None else self._days_alone_max
        wait_ms = self._dice.randint(1, days) * DAY_MS
        for node in self._nodes:
            if node is not stays:
                self._simulation.crash(node)
                self._start_after(node, wait_ms + self._dice.randint(1, 5_000))
        self._simulation.run_for(wait_ms)
        self.away_ms += wait_ms

    # --- cables -----------------------------------------------------------------------------

    def _partition(self) -> None:
        size = self._dice.randint(1, max(1, len(self._nodes) // 2))
        group = self._dice.sample(self._nodes, size)
        self._simulation.cut(group, [node for node in self._nodes if node not in group])
        self._later(self._dice.randint(500, 15_000), self._simulation.mend)

    def _one_way_cut(self) -> None:
        one, other = self._two()
        self._simulation.struck("one-way cut")
        network = self._simulation.network
        network.block(one.number, other.number)
        wait_ms = self._dice.randint(500, 25_000)
        self._later(wait_ms, lambda: network.unblock(one.number, other.number))

    def _clogged_link(self) -> None:
        one, other = self._two()
        self._simulation.struck("clogged link")
        network = self._simulation.network
        network.clog(one.number, other.number)
        wait_ms = self._dice.randint(200, 8_000)
        self._later(wait_ms, lambda: network.unclog(one.number, other.number))

    def _flapping_link(self) -> None:
        one, other = self._two()
        self._simulation.struck("flapping link")
        network = self._simulation.network
        for number in range(self._dice.randint(3, 8)):
            wait_ms = number * self._dice.randint(300, 1_500)
            self._later(wait_ms, lambda: network.unlink(one.number, other.number))

    def _coup(self) -> None:
        self._simulation.struck("coup")
        network = self._simulation.network
        leaders = {_leader_of(node) for node in self._nodes} - {None}
        for node in self._nodes:
            if node.key in leaders:
                network.mute(node.number, muted=True)
                self._later(6_000, lambda node=node: network.mute(node.number, muted=False))  # type: ignore[misc]
            elif self._dice.random() < 0.5:
                wait_ms = self._dice.randint(500, 1_500)
                self._later(wait_ms, lambda node=node: self._die_writing(node))  # type: ignore[misc]

    def _die_writing(self, node: SimNode) -> None:
        node.dies = "in vote" if self._dice.random() < 0.5 else "after vote"
        for wait_ms in range(100, 2_000, 100):
            self._later(wait_ms, lambda: self._start_after(node, 1))

    def _silent_leader(self) -> None:
        node = self._one()
        self._simulation.struck("silent leader")
        network = self._simulation.network
        network.mute(node.number, muted=True)
        wait_ms = self._dice.randint(1_000, 10_000)
        self._later(wait_ms, lambda: network.mute(node.number, muted=False))

    # --- disks and clocks -------------------------------------------------------------------

    def _slow_disk(self) -> None:
        node = self._one()
        self._simulation.struck("slow disk")
        node.flush_ms = SLOW_FLUSH_MS

        def heal() -> None:
            node.flush_ms = FLUSH_MS

        self._later(self._dice.randint(2_000, 15_000), heal)

    def _clock_jump(self) -> None:
        most = self._dice.choice((600_000, DAY_MS, 10 * YEAR_MS))
        self._simulation.jump_clock(self._one(), self._dice.randint(-most, most))

    def _clock_drift(self) -> None:
        self._simulation.struck("clock drift")
        self._one().clock.drift(self._dice.randint(-50_000, 50_000))


KINDS: Final[Mapping[str, Callable[[Mischief], None]]] = MappingProxyType(
    {
        "power cut": Mischief._power_cut,
        "cut in a flush": Mischief._cut_in_a_flush,
        "failed flush": Mischief._failed_flush,
        "crash loop": Mischief._crash_loop,
        "blackout": Mischief._blackout,
        "absence": Mischief._absence,
        "partition": Mischief._partition,
        "one-way cut": Mischief._one_way_cut,
        "clogged link": Mischief._clogged_link,
        "flapping link": Mischief._flapping_link,
        "coup": Mischief._coup,
        "silent leader": Mischief._silent_leader,
        "slow disk": Mischief._slow_disk,
        "clock jump": Mischief._clock_jump,
        "clock drift": Mischief._clock_drift,
    }
)
