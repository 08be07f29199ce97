"""Faults drawn from a seed: a swarm decides which kinds there are, then they strike.

Swarm testing (Groce et al. 2012): if every run had every kind of fault, some bugs would never
show, because one kind hides another. So each seed switches each kind on or off, and draws the
weather on the links once. ``Mischief.strike`` then plays one fault; what must end by itself
(a cut, a clog, a slow disk) ends after a while drawn with it, and ``cease`` ends all at once.

Kinds, by the name under which they are counted:

===============  ==========================================================================
power cut        one device loses its power, and gets it back after seconds
cut in a flush   the same, in the worst moment: what was sent is out, what was written is not
cut in a vote    the same, while or just after a row of the consensus engine is written
failed flush     the disk reports an error: the node stops, and is started again
full disk        no room: the node stops at its next flush, until somebody makes room
read corruption  rows of a disk fail their checksum for a while: the node stops when it reads one
pause            a device stands still for seconds and goes on, as a busy or sleeping one does
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

Loss, duplicates, overtaking and long delays are the weather, counted per message under their own
names; so is what a power cut did to writes that were not flushed (``disk.py``). Devices that lie,
are copied, or were restored are in ``misdeeds.py``.

Rule: all dice of one fault are rolled when it strikes, from dice of its own, so that a fault
left out changes nothing in the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

from p2pmed.testing.network import LinkFaults
from p2pmed.testing.simulation import FLUSH_MS, SimNode, Simulation

__all__ = ["KINDS", "WEATHER", "Fault", "Mischief"]

WEATHER: Final = frozenset({"loss", "duplicate", "reorder", "delay", "queue full"})
"""Counted per message; a scenario's number of faults leaves them out."""
DELAYS_MS: Final = ((1, 5), (1, 5), (5, 80), (5, 200), (1, 400))
"""Classes of links: good routers, and bad radios."""
LIE_SHARE: Final = 0.5
"""Where a device lies: of the faults, the lies. Of other kinds a seed has one of ``SHARES``."""
LIES_TOLD: Final = (1, 1, 2, 3)
SHARES: Final = (0.15, 0.4, 0.7)
FLUSHES_MS: Final = (FLUSH_MS, FLUSH_MS, (5, 60), (20, 200))
"""Classes of disks: good ones, and worn cards."""
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


Fault: TypeAlias = "Callable[[Mischief], None]"


class Mischief:
    """Faults for ``nodes`` of one simulation; the swarm is drawn from ``dice``.

    ``kinds`` are those that a seed may have. The ``liar`` is the one device that kinds of
    ``misdeeds.py`` concern, if this seed has one: a mesh withstands so many, and no more.
    """

    def __init__(
        self,
        simulation: Simulation,
        nodes: Sequence[SimNode],
        dice: Random,
        *,
        days_alone_max: int = 30,
        kinds: Mapping[str, Fault] | None = None,
        lies: Mapping[str, int] = MappingProxyType({}),
        liar: SimNode | None = None,
    ) -> None:
        self.simulation = simulation
        self.nodes = list(nodes)
        self.dice = dice
        """Of the fault that strikes."""
        self.liar = liar
        self._kinds = KINDS if kinds is None else kinds
        self._lies = lies
        """Kinds that concern the liar, and how often each is drawn beside the others."""
        self._days_alone_max = days_alone_max
        """How many days one device may be on alone: its timers cost the simulator time."""
        self.away_ms = 0
        """Virtual time in which nobody, or one device alone, was on."""
        self._round = 0
        """Raised by ``cease``: what was planned before does not happen after it."""
        self._off_until: dict[int, int] = {}
        """Device -> instant before which nothing switches it on."""
        self._endings: list[Callable[[], None]] = []
        """What ``cease`` must undo, beside what it undoes for every device."""
        self.kinds: tuple[str, ...] = self._draw(dice)
        self.links = self._weather(dice)
        self._flush_ms = dice.choice(FLUSHES_MS)

    def _draw(self, dice: Random) -> tuple[str, ...]:
        """Few kinds, or most; and few lies, each told often: many would hide each other."""
        share = dice.choice(SHARES if self.liar is None else SHARES[:2])
        drawn = [kind for kind in self._kinds if kind not in self._lies and dice.random() < share]
        drawn += ["power cut", "partition"] if len(drawn) < 2 else []
        lies = [lie for lie in self._lies if lie in self._kinds]
        if self.liar is not None and lies:
            weights = [self._lies[lie] for lie in lies]
            drawn += dict.fromkeys(dice.choices(lies, weights, k=dice.choice(LIES_TOLD)))
        return tuple(drawn)

    def _weather(self, dice: Random) -> LinkFaults:
        return LinkFaults(
            loss=dice.choice((0, 0, 1, 5, 15, 30)),
            duplicates=dice.choice((0, 0, 5, 30)),
            delay_ms=dice.choice(DELAYS_MS),
            reorder=dice.random() < 0.5,
        )

    def join(self, node: SimNode) -> None:
        """Faults strike this device, too, from now on."""
        self.nodes.append(node)

    @property
    def count(self) -> int:
        """Faults that struck, the weather left out."""
        injected = self.simulation.injected
        return sum(number for kind, number in injected.items() if kind not in WEATHER)

    def begin(self) -> None:
        """Let the weather of this seed begin."""
        self.simulation.faults = self.links
        for node in self.nodes:
            node.flush_ms = self._flush_ms

    def pick(self, dice: Random) -> str:
        """A kind that this seed has; where a device lies, every other time a lie."""
        lies = [kind for kind in self.kinds if kind in self._lies]
        return dice.choice(lies if lies and dice.random() < LIE_SHARE else self.kinds)

    def strike(self, kind: str, dice: Random) -> None:
        """One fault of this kind, with its own dice. Raises ``KeyError`` for no such kind."""
        self.dice = dice
        self._kinds[kind](self)

    def cease(self) -> None:
        """No more faults: all cables in, all devices on, disks and links healthy."""
        simulation = self.simulation
        self._round += 1
        simulation.faults = LinkFaults()
        simulation.heal()
        self._off_until.clear()
        endings, self._endings = self._endings, []
        for ending in endings:
            ending()
        for node in self.nodes:
            node.flush_ms = FLUSH_MS
            node.disk.recover()
            node.dies = ""
            simulation.resume(node)
            node.clock.drift(0)
            simulation.start(node)

    # --- helpers ----------------------------------------------------------------------------

    def one(self) -> SimNode:
        """Some device."""
        return self.dice.choice(self.nodes)

    def _two(self) -> tuple[SimNode, SimNode]:
        one, other = self.dice.sample(self.nodes, 2)
        return one, other

    def at_the_end(self, action: Callable[[], None]) -> None:
        """Do it when faults cease."""
        self._endings.append(action)

    def later(self, wait_ms: int, action: Callable[[], None]) -> None:
        """Do it then, if faults still strike."""
        round_ = self._round

        def act() -> None:
            if self._round == round_:
                action()

        self.simulation.at(wait_ms, act)

    def start_after(self, node: SimNode, wait_ms: int) -> None:
        """Switch a device on then, unless a later fault keeps it off for longer."""
        until = self.simulation.now + wait_ms
        self._off_until[node.number] = max(until, self._off_until.get(node.number, 0))

        def start() -> None:
            if self.simulation.now >= self._off_until.get(node.number, 0):
                self.simulation.start(node)

        self.later(wait_ms, start)

    # --- power ------------------------------------------------------------------------------

    def _power_cut(self) -> None:
        node = self.one()
        self.simulation.crash(node)
        self.start_after(node, self.dice.choice((1, 200, 2_000, 8_000, 20_000)))

    def _cut_in_a_flush(self) -> None:
        node = self.one()
        self.simulation.struck("cut in a flush")
        node.dies = "in flush"
        self.later(self.dice.randint(500, 4_000), lambda: self.start_after(node, 1))

    def _failed_flush(self) -> None:
        self.simulation.struck("failed flush")
        (node := self.one()).disk.fail_next_sync = True
        self.later(2_000, lambda: self.start_after(node, 1))

    def _crash_loop(self) -> None:
        node = self.one()
        self.simulation.struck("crash loop")
        at = 0
        for _ in range(self.dice.randint(3, 6)):
            self.later(at, lambda: self.simulation.crash(node))
            off = self.dice.randint(1, 500)
            self.later(at, lambda off=off: self.start_after(node, off))  # type: ignore[misc]
            at += off + self.dice.randint(1, 1_500)

    def _blackout(self) -> None:
        self.simulation.struck("blackout")
        for node in self.nodes:
            self.simulation.crash(node)
            self.start_after(node, self.dice.randint(1, 3_000))

    def _absence(self) -> None:
        """Runs the simulation: days pass before this returns."""
        self.simulation.struck("absence")
        stays = self.one() if self._days_alone_max else None
        days = self.dice.randint(1, 30) if stays is None else self._days_alone_max
        wait_ms = self.dice.randint(1, days) * DAY_MS
        for node in self.nodes:
            if node is not stays:
                self.simulation.crash(node)
                self.start_after(node, wait_ms + self.dice.randint(1, 5_000))
        self.simulation.run_for(wait_ms)
        self.away_ms += wait_ms

    # --- cables -----------------------------------------------------------------------------

    def _partition(self) -> None:
        size = self.dice.randint(1, max(1, len(self.nodes) // 2))
        group = self.dice.sample(self.nodes, size)
        self.simulation.cut(group, [node for node in self.nodes if node not in group])
        self.later(self.dice.randint(500, 15_000), self.simulation.mend)

    def _one_way_cut(self) -> None:
        one, other = self._two()
        self.simulation.struck("one-way cut")
        network = self.simulation.network
        network.block(one.number, other.number)
        wait_ms = self.dice.randint(500, 25_000)
        self.later(wait_ms, lambda: network.unblock(one.number, other.number))

    def _clogged_link(self) -> None:
        one, other = self._two()
        self.simulation.struck("clogged link")
        network = self.simulation.network
        network.clog(one.number, other.number)
        wait_ms = self.dice.randint(200, 8_000)
        self.later(wait_ms, lambda: network.unclog(one.number, other.number))

    def _flapping_link(self) -> None:
        one, other = self._two()
        self.simulation.struck("flapping link")
        network = self.simulation.network
        for number in range(self.dice.randint(3, 8)):
            wait_ms = number * self.dice.randint(300, 1_500)
            self.later(wait_ms, lambda: network.unlink(one.number, other.number))

    def _coup(self) -> None:
        self.simulation.struck("coup")
        network = self.simulation.network
        leaders = {_leader_of(node) for node in self.nodes} - {None}
        for node in self.nodes:
            if node.key in leaders:
                network.mute(node.number, muted=True)
                self.later(6_000, lambda node=node: network.mute(node.number, muted=False))  # type: ignore[misc]
            elif self.dice.random() < 0.5:
                wait_ms, dies = self.dice.randint(500, 1_500), self._moment()
                self.later(wait_ms, lambda node=node, dies=dies: self._die_writing(node, dies))  # type: ignore[misc]

    def _moment(self) -> Literal["in vote", "after vote"]:
        return "in vote" if self.dice.random() < 0.5 else "after vote"

    def _die_writing(self, node: SimNode, dies: Literal["in vote", "after vote"]) -> None:
        node.dies = dies
        for wait_ms in range(100, 2_000, 100):
            self.later(wait_ms, lambda: self.start_after(node, 1))

    def _cut_in_a_vote(self) -> None:
        self.simulation.struck("cut in a vote")
        self._die_writing(self.one(), self._moment())

    def _silent_leader(self) -> None:
        node = self.one()
        self.simulation.struck("silent leader")
        network = self.simulation.network
        network.mute(node.number, muted=True)
        wait_ms = self.dice.randint(1_000, 10_000)
        self.later(wait_ms, lambda: network.mute(node.number, muted=False))

    def _pause(self) -> None:
        self.simulation.pause(self.one(), self.dice.randint(500, 12_000))

    # --- disks and clocks -------------------------------------------------------------------

    def _slow_disk(self) -> None:
        node = self.one()
        self.simulation.struck("slow disk")
        node.flush_ms = SLOW_FLUSH_MS

        def heal() -> None:
            node.flush_ms = self._flush_ms

        self.later(self.dice.randint(2_000, 15_000), heal)

    def _full_disk(self) -> None:
        node = self.one()
        self.simulation.struck("full disk")
        node.disk.fill(room_bytes=self.dice.randint(0, 4_096))

        def make_room() -> None:
            node.disk.capacity_bytes = None
            self.start_after(node, 1)

        self.later(self.dice.randint(1_000, 10_000), make_room)

    def _read_corruption(self) -> None:
        """Rows rot, and the device is started anew, so that they are read."""
        node = self.one()
        self.simulation.struck("read corruption")
        for _ in range(self.dice.randint(1, 8)):
            node.disk.rot_any(self.dice)
        self.simulation.crash(node)
        self.start_after(node, self.dice.randint(1, 1_000))

        def mend() -> None:
            node.disk.mend()
            self.start_after(node, 1)

        self.later(self.dice.randint(2_000, 10_000), mend)

    def _clock_jump(self) -> None:
        most = self.dice.choice((600_000, DAY_MS, 10 * YEAR_MS))
        self.simulation.jump_clock(self.one(), self.dice.randint(-most, most))

    def _clock_drift(self) -> None:
        self.simulation.struck("clock drift")
        self.one().clock.drift(self.dice.randint(-50_000, 50_000))


KINDS: Final[Mapping[str, Fault]] = MappingProxyType(
    {
        "power cut": Mischief._power_cut,
        "cut in a flush": Mischief._cut_in_a_flush,
        "cut in a vote": Mischief._cut_in_a_vote,
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
        "full disk": Mischief._full_disk,
        "read corruption": Mischief._read_corruption,
        "pause": Mischief._pause,
    }
)
