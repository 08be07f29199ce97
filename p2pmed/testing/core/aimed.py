"""Faults that are no accidents: schedules aimed at the bounds of a protocol.

What a protocol forbids by its finest rules goes wrong in few schedules, and dice alone meet
them once in millions of runs. Each plot here plays the known hard schedule with dice for all
that it leaves open; it knows of no defect, and of a correct engine it asks nothing new.

Rules:

* A plot watches from outside (``status``, what was said) and strikes at the instant that hurts.
* One plot at a time (``CoreMischief.plotting``); the end of the storm ends it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from p2pmed.testing.core.faults import CoreMischief
    from p2pmed.testing.core.member import Member
    from p2pmed.testing.core.world import CoreWorld

__all__ = ["AIMED"]

NOTARIZE: Final = 1
"""As it is spelt on the wire."""
ELECTED_MS: Final = 6_000
"""So long a plot waits for a leader."""


def _torn_leaders(mischief: CoreMischief, dice: Random) -> bool:
    """Leader after leader gets its entries to a few, and dies."""
    world = mischief.world

    def tear() -> None:
        leader = mischief.leader()
        if leader is None:
            return
        world.submit(everywhere=False)
        few = dice.randint(0, len(world.members) // 2)
        others = _others(world, leader)
        dice.shuffle(others)
        mischief.between([leader], others[few:], both=False, wait=200)
        mischief.during(
            dice.randint(4, 40), lambda: mischief.down(leader, dice.randint(100, 1_500))
        )

    for lap in range(dice.randint(2, 4)):
        mischief.during(1 + lap * dice.randint(1_200, 2_000), tear)
    return True


# --- Raft, figure 8 ---------------------------------------------------------------------------


def _figure_8(mischief: CoreMischief, dice: Random) -> bool:
    """An entry reaches a few; a rival is elected without it; its leader returns, and goes again.

    (a) The leader's entry reaches a few, and it dies or is cut off with them. (b) Somebody else
    is elected by the rest, and dies with its first entry. (c) Who has the entry leads again and
    spreads it. (d) It dies; the rival is back, and may be elected.
    """
    world = mischief.world
    leader, members = mischief.leader(), world.members
    if mischief.plotting or leader is None or len(members) < 3 or not all(m.up for m in members):
        return False
    mischief.plotting = True
    others = _others(world, leader)
    dice.shuffle(others)
    middle = dice.randint(0, (len(members) - 1) // 2)
    few, rest = others[:middle], others[middle:]
    _sever(world, [leader], rest)
    world.submit((1, 4), first=leader)

    def die() -> None:
        if dice.random() < 0.5:
            leader.crash()
        _sever(world, few, rest)
        mischief.once(lambda: _leader_of(mischief, rest), rival, patience=ELECTED_MS)

    def rival(elected: Member) -> None:
        _cut(world, [elected], _others(world, elected))
        mischief.during(dice.randint(1, 30), lambda: back(elected))

    def back(gone: Member) -> None:
        gone.crash()
        world.net.heal()
        leader.start()
        if dice.random() < 0.5:
            world.slow_disks[leader.place] = (100, 300)
        mischief.once(
            mischief.leader, lambda again: _spread(mischief, dice, again, gone), patience=ELECTED_MS
        )

    mischief.during(dice.randint(3, 60), die)
    return True


def _spread(mischief: CoreMischief, dice: Random, again: Member, gone: Member) -> None:
    """(c) and (d) of figure 8: ``again`` leads and spreads, and dies; ``gone`` is back."""
    world = mischief.world

    def end(told: Sequence[Member]) -> None:
        if gone.up:
            return
        mischief.plotting = True
        again.crash()
        world.net.heal()
        world.slow_disks.pop(again.place, None)
        if dice.random() < 0.7:
            _sever(world, told, [m for m in world.members if m not in told])
        gone.start()
        if dice.random() < 0.6:
            mischief.during(dice.randint(1, 200), again.start)  # to vote for its rival
        mischief.once(lambda: _leader_of(mischief, [gone]), lambda _: rise(), patience=4_000)
        mischief.during(4_500, rise)

    def rise() -> None:
        world.net.heal()
        again.start()
        mischief.plotting = False

    left = _others(world, again)
    dice.shuffle(left)
    told = left[: dice.randint(1, len(left))]
    _cut(world, [again], left[len(told) :])
    before = _progress_of(again)
    wait = dice.choice((20, 60, 400))
    mischief.during(wait, lambda: end(told))
    mischief.once(
        lambda: True if _progress_of(again) > before else None,
        lambda _: end(told),
        patience=wait - 3,
        every=1,
    )


def _newcomer_leads(mischief: CoreMischief, dice: Random) -> bool:
    """A member misses more than logs keep; soon after its return the leader is lost."""
    world = mischief.world
    leader = mischief.leader()
    if mischief.plotting or leader is None or len(world.members) < 3:
        return False
    mischief.plotting = True
    late = dice.choice(_others(world, leader))
    _sever(world, [late], _others(world, late))
    for lap in range(dice.randint(8, 24)):
        mischief.during(lap * 50, lambda: world.submit((1, 4)))

    def join() -> None:
        world.net.heal()
        mischief.during(dice.randint(20, 900), strike)

    def strike() -> None:
        mischief.plotting = False
        leading = mischief.leader()
        if leading is not None and leading is not late:
            mischief.down(leading, dice.randint(1_500, 5_000))

    mischief.during(dice.randint(1_300, 2_000), join)
    return True


def _late_votes(mischief: CoreMischief, dice: Random) -> bool:
    """A candidate's votes come when it stands for a later term, and nobody hears it any more."""
    world = mischief.world
    leader = mischief.leader()
    if mischief.plotting or leader is None or len(world.members) < 3:
        return False
    mischief.plotting = True

    def hold(candidate: Member) -> None:
        until, wait = world.now + dice.randint(20, 60), dice.randint(900, 3_000)
        for other in _others(world, candidate):
            world.net.hold(other.place, candidate.place, until, wait)
        term = candidate.current
        leader.start()
        mischief.once(
            lambda: candidate if _stands(candidate) and candidate.current > term else None,
            strand,
            patience=wait,
            every=1,
        )

    def strand(candidate: Member) -> None:
        mischief.between([candidate], _others(world, candidate), both=False, wait=3_000)
        mischief.during(3_000, end)

    def end() -> None:
        mischief.plotting = False

    leader.crash()
    mischief.once(
        lambda: next((m for m in world.members if _stands(m)), None),
        hold,
        patience=ELECTED_MS,
        every=1,
    )
    return True


def _untold(mischief: CoreMischief, dice: Random) -> bool:
    """A leader decides, tells a few of it, and is lost; nothing new is ordered for a while."""
    world = mischief.world
    leader = mischief.leader()
    if mischief.plotting or world.is_bft or leader is None or len(world.members) < 3:
        return False
    mischief.plotting = True
    item = world.submit((1, 4))
    others = _others(world, leader)
    dice.shuffle(others)

    def strand(_: bool) -> None:
        mischief.between([leader], others[dice.randint(0, 1) :], both=False, wait=100)
        mischief.during(dice.randint(1, 20), end)

    def end() -> None:
        mischief.plotting = False
        mischief.down(leader, dice.randint(2_000, 5_000))

    mischief.once(
        lambda: True if item in leader.application.decided else None,
        strand,
        patience=600,
        every=1,
    )
    return True


# --- amnesia where it hurts: aimed at the bounds of R12 ---------------------------------------


def _lonely_amnesia(mischief: CoreMischief, dice: Random) -> bool:
    """One member lags; another votes, forgets, and for a while meets the laggard alone."""
    honest = mischief.world.honest
    if len(honest) < 3:
        return False
    victim, laggard = dice.sample(honest, 2)
    rest = [m for m in mischief.world.members if m not in (victim, laggard)]
    late = dice.randint(300, 1_500)
    mischief.between([laggard], [*rest, victim], both=True, wait=late)

    def forget() -> None:
        mischief.between([victim], rest, both=True, wait=dice.randint(200, 500))
        mischief.forget_at_once(victim)

    mischief.during(
        late - dice.randint(1, 60), lambda: mischief.between([victim], rest, both=False, wait=60)
    )
    mischief.during(late, forget)
    return True


def _leader_amnesia(mischief: CoreMischief, dice: Random) -> bool:
    """The next leader alone learns that a view is over; it votes in the next, and forgets."""
    if mischief.plotting or not mischief.world.is_bft or len(mischief.world.honest) < 3:
        return False
    mischief.plotting = True
    _strand_next_leader(mischief, dice, None)
    return True


def _laggard_amnesia(mischief: CoreMischief, dice: Random) -> bool:
    """The same, and the first whom it meets has missed the last views."""
    world = mischief.world
    if mischief.plotting or not world.is_bft or len(world.honest) < 4:
        return False
    mischief.plotting = True
    laggard = dice.choice(world.honest)
    _sever(world, [laggard], _others(world, laggard))
    began = _view(world)
    beyond = began + dice.randint(3, 12)

    def far() -> int | None:
        view = _view(world)
        if view >= beyond:
            return view
        world.submit((1, 4))
        return None

    mischief.once(
        far, lambda view: _strand_next_leader(mischief, dice, laggard), patience=4_000, every=40
    )
    return True


def _strand_next_leader(mischief: CoreMischief, dice: Random, laggard: Member | None) -> None:
    """Let the leader of the next view alone gather the votes of this one, vote, and forget."""
    world = mischief.world
    oracle = world.oracle
    world.submit((1, 4))

    def voted() -> Member | None:
        view = _view(world)
        seat = (view + 1) % len(world.epoch.validators)
        said = [s for s in world.places if s != seat and oracle.has_said(s, view, NOTARIZE)]
        victim = next((m for m in world.honest if m.seat == seat and m.up), None)
        return victim if victim is not laggard and len(said) >= oracle.quorum - 1 else None

    def strand(victim: Member) -> None:
        others = _others(world, victim)
        view = _view(world)
        _cut(world, others, others)
        _cut(world, [victim], others)
        world.submit(first=victim)
        mischief.once(
            lambda: True if oracle.has_said(victim.seat, view + 1, NOTARIZE) else None,
            lambda _: forget(victim, others),
            patience=150,
            every=1,
        )
        mischief.during(200, lambda: None if mischief.plotting else world.net.heal())

    def forget(victim: Member, others: Sequence[Member]) -> None:
        world.submit(first=victim)
        alone = 0 if laggard is None else dice.randint(40, 150)
        if laggard is not None:
            _cut(world, others, [victim])
            _join(world, [victim], [laggard])
            _join(world, [laggard], [victim])
        mischief.forget_at_once(victim)

        def meet() -> None:
            _join(world, [victim], others)
            _join(world, others, [victim])

        def end() -> None:
            world.net.heal()
            mischief.plotting = False

        mischief.during(alone, meet)
        mischief.during(alone + dice.randint(50, 1_500), end)

    mischief.once(voted, strand, patience=600, every=1)


# --- tools ------------------------------------------------------------------------------------


def _others(world: CoreWorld, member: Member) -> list[Member]:
    return [m for m in world.members if m is not member]


def _view(world: CoreWorld) -> int:
    return max((m.current for m in world.honest if m.up), default=0)


def _progress_of(member: Member) -> int:
    """Rises when a Raft member commits or decides anything."""
    status = {} if member.engine is None else member.engine.status()
    return int(status.get("commit", 0)) + int(status.get("floor", 0))


def _stands(member: Member) -> bool:
    return member.engine is not None and member.engine.status().get("role") == "candidate"


def _leader_of(mischief: CoreMischief, some: Sequence[Member]) -> Member | None:
    leader = mischief.leader()
    return leader if leader in some else None


def _cut(world: CoreWorld, left: Sequence[Member], right: Sequence[Member]) -> None:
    for a in left:
        for b in right:
            world.net.cut(a.place, b.place)


def _sever(world: CoreWorld, left: Sequence[Member], right: Sequence[Member]) -> None:
    _cut(world, left, right)
    _cut(world, right, left)


def _join(world: CoreWorld, left: Sequence[Member], right: Sequence[Member]) -> None:
    for a in left:
        for b in right:
            world.net.join(a.place, b.place)


AIMED: Final = MappingProxyType[str, Callable[["CoreMischief", Random], bool]](
    {
        "torn leaders": _torn_leaders,
        "figure 8": _figure_8,
        "newcomer leads": _newcomer_leads,
        "late votes": _late_votes,
        "untold decision": _untold,
        "lonely amnesia": _lonely_amnesia,
        "amnesia of the next leader": _leader_amnesia,
        "amnesia beside a laggard": _laggard_amnesia,
    }
)
"""By the name that reports use."""
