"""What goes wrong around an engine: one method per kind of fault, in one table.

Rules:

* A fault has dice of its own, so that leaving it out of a story changes no other fault.
* ``strike`` says whether it found a victim; only then it counts.
* ``cease`` ends all that was begun: everybody who is not away is up, every wire is whole.

Swarm testing (Groce et al. 2012): a seed draws which kinds it has and how often; no seed has all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Final, TypeVar

from p2pmed.testing.core.aimed import AIMED
from p2pmed.testing.core.network import Weather

if TYPE_CHECKING:
    from p2pmed.testing.core.member import Member
    from p2pmed.testing.core.world import CoreWorld

__all__ = ["KINDS", "CoreMischief", "draw_weather"]

T = TypeVar("T")

DAY_MS: Final = 86_400_000
_OUTAGE_MS: Final = (20, 1_500)


def draw_weather(dice: Random) -> Weather:
    """What a storm does to single messages and flushes."""
    return Weather(
        latency=dice.choice(((1, 5), (1, 5), (1, 60), (5, 200), (1, 400))),
        loss=dice.choice((0.0, 0.0, 0.02, 0.1, 0.3)),
        duplication=dice.choice((0.0, 0.0, 0.2, 0.5)),
        in_order=dice.random() < 0.5,
        stray=dice.choice((0.0, 0.0, 0.02, 0.1)),
        flush=dice.choice(((0, 1), (1, 8), (5, 30), (1, 200))),
    )


class CoreMischief:
    """Strikes one world."""

    def __init__(self, world: CoreWorld, *, away_max: int, recovers: bool, forget_max: int) -> None:
        self.world = world
        self.counts: Counter[str] = Counter()
        self._away_max = away_max
        """Members that may be away while progress is still owed."""
        self._recovers = recovers
        """Whether engines can recover from amnesia by themselves."""
        self._forget_max = forget_max
        """Members that may come back without memory and vote as if nothing had happened."""
        self.plotting = False
        """Whether an aimed fault is under way: two at once would spoil each other."""
        self._calm = True
        self._era = 0

    def begin(self, weather: Weather) -> None:
        """A storm begins."""
        self._calm = self.plotting = False
        self._era += 1
        self.world.net.weather = weather
        if weather.latency[1] > 60:
            self.counts["delay"] += 1

    def strike(self, kind: str, dice: Random) -> None:
        """One fault of this kind. Raises ``KeyError`` for no such kind."""
        if not self._calm and KINDS[kind](self, dice):
            self.counts[kind] += 1

    def cease(self, *, everybody: bool) -> None:
        """Faults cease; ``everybody``: those who were away come back too."""
        world = self.world
        self._calm = True
        world.net.weather = Weather()
        world.net.heal()
        world.slow_disks.clear()
        for member in world.members:
            if everybody:
                member.gone = False
            if member.up:
                member.wake_now()
            else:
                member.start()
        world.ping()

    # --- whom -----------------------------------------------------------------------------

    def _member(self, dice: Random) -> Member:
        return dice.choice(self.world.members)

    def leader(self) -> Member | None:
        """An honest member that leads, by its own word."""
        found = None
        for member in self.world.honest:
            if member.engine is None:
                continue
            status = member.engine.status()
            leads = status.get("role") == "leader" or (
                self.world.is_bft and status["leader"] == member.seat
            )
            if leads:
                found = member
        return found

    def once(
        self,
        ready: Callable[[], T | None],
        action: Callable[[T], object],
        *,
        patience: int,
        every: int = 2,
    ) -> None:
        """Look again and again, and do it with what is ready first, if anything ever is."""

        def look() -> None:
            found = ready()
            if found is not None:
                action(found)
            elif patience > 0:
                self.once(ready, action, patience=patience - every, every=every)
            else:
                self.plotting = False

        self.during(every, look)

    def during(self, wait: int, action: Callable[[], object]) -> None:
        """Do it later, unless the storm is over by then."""
        era = self._era

        def later() -> None:
            if era == self._era and not self._calm:
                action()

        self.world.after(wait, later)

    # --- power ----------------------------------------------------------------------------

    def _crash(self, dice: Random) -> bool:
        return self.down(self._member(dice), dice.randint(*_OUTAGE_MS))

    def down(self, member: Member, wait: int) -> bool:
        """Its power goes for a while; whether it was up."""
        was = member.up
        member.crash()
        self.during(wait, member.start)
        return was

    def _crash_loop(self, dice: Random) -> bool:
        member = self._member(dice)
        for lap in range(dice.randint(3, 6)):
            self.during(1 + lap * dice.randint(40, 160), lambda: self.down(member, 12))
        return member.up

    def _power_cut(self, dice: Random) -> bool:
        outages = [self.down(m, dice.randint(*_OUTAGE_MS)) for m in self.world.members]
        return any(outages)

    def _leader_crash(self, dice: Random) -> bool:
        leader = self.leader()
        return leader is not None and self.down(leader, dice.randint(*_OUTAGE_MS))

    def _farewell(self, dice: Random) -> bool:
        member = self.leader() or self._member(dice)
        if member.up:
            member.leave()
            self.during(30, member.crash)
            self.during(31 + dice.randint(*_OUTAGE_MS), member.start)
        return member.up

    def _absence(self, dice: Random) -> bool:
        world = self.world
        member = dice.choice(world.honest)
        if sum(m.gone for m in world.members) >= self._away_max:
            return False
        if not all(m.remembers or m.gone for m in world.honest) and not self.can_teach(member):
            return False
        member.crash()
        member.gone = True
        return True

    def _pause(self, dice: Random) -> bool:
        member = self._member(dice)
        if member.up:
            member.pause(dice.randint(50, 3_000))
        return member.up

    # --- disk and clock -------------------------------------------------------------------

    def _slow_disk(self, dice: Random) -> bool:
        place = self._member(dice).place
        self.world.slow_disks[place] = dice.choice(((30, 120), (100, 500), (400, 900)))
        self.during(dice.randint(300, 4_000), lambda: self.world.slow_disks.pop(place, None))
        return True

    def _clock_jump(self, dice: Random) -> bool:
        member = self._member(dice)
        member.clock.offset += dice.choice((900, 3_000, 60_000, DAY_MS, 30 * DAY_MS))
        member.wake_now()
        return member.up

    def _clock_drift(self, dice: Random) -> bool:
        member = self._member(dice)
        now = self.world.now
        shown = member.clock.read(now)
        member.clock.rate = dice.randint(900, 1_100)
        member.clock.offset += shown - member.clock.read(now)
        member.wake_now()
        return member.up

    def _backup(self, dice: Random) -> bool:
        for member in self.world.members:
            if member.backup is None and dice.random() < 0.5:
                member.backup = member.disk.backup()
        return False  # no harm yet

    def _wiped(self, dice: Random) -> bool:
        return self._forget(dice.choice(self.world.honest), restored=False, wait=dice)

    def _restored(self, dice: Random) -> bool:
        member = dice.choice(self.world.honest)
        if member.backup is None:
            member.backup = member.disk.backup()
            return False
        return self._forget(member, restored=True, wait=dice)

    def _forget(self, member: Member, *, restored: bool, wait: Random) -> bool:
        others = [m for m in self.world.honest if m is not member]
        if self._recovers:
            if member.gone or not self.can_teach(member):
                return False
        elif member.forgot or sum(m.forgot for m in others) >= self._forget_max:
            return False
        member.crash()
        member.lose_disk(restored=restored)
        member.forgot = member.forgot or not self._recovers
        self.during(wait.randint(*_OUTAGE_MS), member.start)
        return True

    def can_teach(self, member: Member) -> bool:
        """Whether a quorum of others is here and remembers: who recovers needs their answers."""
        others = [m for m in self.world.honest if m is not member and m.remembers]
        return len(others) >= self.world.oracle.quorum

    def forget_at_once(self, member: Member) -> None:
        """``member`` comes back with an empty disk, if enough others can teach it."""
        if self._recovers and member.up and self.can_teach(member):
            self.counts["wiped disk"] += 1
            member.crash()
            member.lose_disk(restored=False)
            member.start()

    # --- wires ----------------------------------------------------------------------------

    def between(self, left: list[Member], right: list[Member], *, both: bool, wait: int) -> None:
        """Cut the wires from ``left`` to ``right``, and back too, for a while."""
        net = self.world.net
        wires = [(a.place, b.place) for a in left for b in right]
        wires += [(b, a) for a, b in wires] if both else []
        for wire in wires:
            net.cut(*wire)

        def join() -> None:
            for wire in wires:
                net.join(*wire)

        self.during(wait, join)

    def _sides(self, dice: Random) -> tuple[list[Member], list[Member]]:
        members = list(self.world.members)
        dice.shuffle(members)
        middle = dice.randint(0, len(members))
        return members[:middle], members[middle:]

    def _partition(self, dice: Random) -> bool:
        left, right = self._sides(dice)
        self.between(left, right, both=True, wait=dice.randint(200, 4_000))
        return bool(left and right)

    def _one_way(self, dice: Random) -> bool:
        left, right = self._sides(dice)
        self.between(left, right, both=False, wait=dice.randint(200, 4_000))
        return bool(left and right)

    def _stranded(self, dice: Random) -> bool:
        """The leader goes on talking to some, and soon to nobody; then its power may go."""
        leader = self.leader()
        if leader is None:
            return False
        others = [m for m in self.world.members if m is not leader and dice.random() < 0.7]
        self.between([leader], others, both=dice.random() < 0.5, wait=dice.randint(200, 3_000))
        if dice.random() < 0.4:
            self.during(dice.randint(1, 40), lambda: self.down(leader, 300))
        return bool(others)

    def _hand_over(self, dice: Random) -> bool:
        """The leader thinks of leaving, and stays: a term more, for nothing."""
        leader = self.leader()
        if leader is not None:
            leader.leave()
        return leader is not None

    def _twin_split(self, dice: Random) -> bool:
        """Each twin has a part of the mesh for itself (Twins, arXiv 2004.10617)."""
        pairs = [places for places in self.world.places.values() if len(places) == 2]
        if not pairs:
            return False
        left, right = [p[0] for p in pairs], [p[1] for p in pairs]
        for member in self.world.members:
            if member not in left and member not in right:
                (left if dice.random() < 0.5 else right).append(member)
        self.between(left, right, both=True, wait=dice.randint(100, 2_500))
        return True

    def _clog(self, dice: Random) -> bool:
        left, right = self._sides(dice)
        until = self.world.now + dice.randint(100, 2_500)
        for first in left:
            for second in right:
                self.world.net.clog(first.place, second.place, until)
        return bool(left and right)

    def _flap(self, dice: Random) -> bool:
        first, second = self._member(dice), self._member(dice)
        period = dice.randint(40, 400)
        for lap in range(dice.randint(3, 8)):
            self.during(
                1 + 2 * lap * period,
                lambda: self.between([first], [second], both=True, wait=period),
            )
        return first is not second


KINDS: Final[dict[str, Callable[[CoreMischief, Random], bool]]] = {
    "crash": CoreMischief._crash,
    "crash loop": CoreMischief._crash_loop,
    "power cut": CoreMischief._power_cut,
    "leader crash": CoreMischief._leader_crash,
    "hand-over": CoreMischief._hand_over,
    "farewell": CoreMischief._farewell,
    "absence": CoreMischief._absence,
    "pause": CoreMischief._pause,
    "slow disk": CoreMischief._slow_disk,
    "clock jump": CoreMischief._clock_jump,
    "clock drift": CoreMischief._clock_drift,
    "backup made": CoreMischief._backup,
    "wiped disk": CoreMischief._wiped,
    "restored backup": CoreMischief._restored,
    "partition": CoreMischief._partition,
    "one-way partition": CoreMischief._one_way,
    "stranded leader": CoreMischief._stranded,
    "twin split": CoreMischief._twin_split,
    "clogging": CoreMischief._clog,
    "flapping links": CoreMischief._flap,
    **AIMED,
}
"""By the name that reports use; the weather adds loss, duplicate, reorder and delay."""
