"""From a seed to a run: who takes part, what goes wrong when, and when progress is owed.

A run is a few rounds. In each a *storm* brings work and faults; then faults cease, and within
``settle_max_ms`` all that was submitted, and something new, must be decided by every honest
member that is not away; then the mesh is *idle* for a while, and must be quiet. In the last
round nobody is away. A story is the list of its steps, each with a round, an instant in it and
dice of its own, so that ``testing/shrinking.py`` can leave steps out.

A run counts only if it lasted a minute, met ten faults and decided twenty blocks: what is still
missing of the blocks is ordered in the calm at the end, of the minute spent idle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache
from inspect import signature
from random import Random
from types import MappingProxyType
from typing import Final

from p2pmed.consensus.bft import intake
from p2pmed.consensus.bft.engine import BftEngine
from p2pmed.consensus.bft.messages import decode_message
from p2pmed.consensus.bft.pacemaker import ADVANCE_DELTAS, DELTA_MS, DOUBLINGS_MAX
from p2pmed.consensus.raft import messages, replica, sending
from p2pmed.consensus.raft.bounds import ELECTION_BEATS_MAX, HEARTBEAT_MS
from p2pmed.consensus.raft.engine import RaftEngine
from p2pmed.limits import BATCH_ENTRIES_MAX
from p2pmed.testing.core.faults import KINDS, CoreMischief, draw_weather
from p2pmed.testing.core.keys import SignatureBook, make_epoch
from p2pmed.testing.core.liars import Liar
from p2pmed.testing.core.member import Member
from p2pmed.testing.core.oracle import Oracle
from p2pmed.testing.core.oracle_bft import BftOracle
from p2pmed.testing.core.oracle_raft import RaftOracle
from p2pmed.testing.core.patching import Patch, patched
from p2pmed.testing.core.strategies import STRATEGIES, TWINS
from p2pmed.testing.core.world import CoreWorld, Factory, Violation
from p2pmed.testing.scenario import COMMITS_MIN, VIRTUAL_MS_MIN, SeedReport, Step

__all__ = ["SETTLE_MS_MAX", "Cast", "Run", "draw_cast", "draw_story"]

SETTLE_MS_MAX: Final = {
    "bft": 10 * ADVANCE_DELTAS * (DELTA_MS << DOUBLINGS_MAX),
    "raft": 10 * 2 * ELECTION_BEATS_MAX * HEARTBEAT_MS // 2,
}
"""Ten times the longest timeout: so long after the last fault everything is decided.

A seat that forgot says nothing for a few views, others gave views up in advance while the storm
lasted, and a liar leads one: each such view may take a whole timeout.
"""

REAL_KEYS_EVERY: Final = 100
"""One seed in so many runs with real signatures."""
AIMED: Final[Mapping[str, tuple[tuple[str, ...], ...]]] = MappingProxyType(
    {
        "bft": (
            ("lonely amnesia", "amnesia of the next leader", "flapping links"),
            ("amnesia beside a laggard",),
            ("amnesia of the next leader",),
        ),
        "raft": (
            ("figure 8",),
            ("figure 8", "late votes"),
            ("newcomer leads", "late votes"),
            ("untold decision",),
        ),
    }
)
"""What is aimed at the bounds of a protocol: recovery (R12), commitment and floors."""
AIMED_EVERY: Final = 8
"""One seed in so many has nothing but one of these, so that nothing else spoils the aim."""
DECODED_KEPT: Final = 512
"""Messages whose decoded form is kept during a run."""
ROWS_SETTLED: Final = 64
"""Rows that an engine keeps for undecided views when all is decided."""
DAY_MS: Final = 86_400_000
SEATS_BFT: Final = (1, 3, 3, 3, *(4,) * 16, 5, 6, *(7,) * 8, *(10,) * 4, *(13,) * 3)
SEATS_RAFT: Final = (1, 2, 3, 3, 3, 3, 3, 4, 5, 5, 5, 6, 7)
LARGE_EVERY: Final = 97
"""One BFT seed in so many has 16 to 20 seats."""
LYING_REST_MS_MAX: Final = 600_000
IDLE_SENDS_MAX: Final = 40
"""Messages of one member in an idle phase, heartbeats and liars apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cast:
    """Who takes part in a run."""

    engine: str
    seats: int
    liars: int
    """How many the epoch is prepared for."""
    lying: Mapping[int, str]
    """Seat -> strategy."""
    real_keys: bool = False
    keep: int = 512
    """Decided entries that a Raft log keeps: few, so that floors move within a run."""
    batch: int = BATCH_ENTRIES_MAX
    """Entries in one Raft append: few, so that a leader dies between them."""


def draw_cast(engine: str, seed: int) -> Cast:
    """The cast of a seed."""
    dice = Random(f"{engine} cast {seed}")
    real = seed % REAL_KEYS_EVERY == REAL_KEYS_EVERY - 1
    if engine == "raft":
        seats = dice.choice(SEATS_RAFT)
        keep = dice.choice((1, 4, 512))
        batch = dice.choice((1, 1, 2, BATCH_ENTRIES_MAX))
        return Cast(
            engine=engine,
            seats=seats,
            liars=0,
            lying={},
            real_keys=real,
            keep=keep,
            batch=batch,
        )
    large = seed % LARGE_EVERY == LARGE_EVERY - 1
    seats = dice.randint(16, 20) if large else dice.choice(SEATS_BFT)
    liars = (seats - 1) // 3
    if liars and dice.random() < 0.1:
        liars -= 1
    names = list(STRATEGIES)
    count = liars if dice.random() < 0.7 else dice.randint(0, liars)
    one = dice.choice(names)
    mixed = dice.random() < 0.4
    lying = {
        seat: dice.choice(names) if mixed else one
        for seat in sorted(dice.sample(range(seats), count if dice.random() < 0.9 else 0))
    }
    return Cast(engine=engine, seats=seats, liars=liars, lying=lying, real_keys=real)


def draw_story(engine: str, seed: int, seats: int) -> list[Step]:
    """The steps of a seed, in order."""
    dice = Random(f"{engine} story {seed}")
    kinds = [kind for kind in KINDS if dice.random() < 0.45] or ["crash"]
    aimed = seed % AIMED_EVERY == AIMED_EVERY - 1
    slow = aimed and engine == "raft"  # its plots wait for elections
    if aimed:
        kinds = list(dice.choice(AIMED[engine]))
    steps: list[Step] = []
    rounds = dice.choice((1, 2, 2, 3)) if seats < 10 else dice.choice((1, 1, 2))
    for number in range(rounds):
        length = dice.choice((3_000, 5_000, 8_000)) * (2 if rounds == 1 else 1)
        length *= 3 if slow else 1
        steps.append({"round": number, "at": 0, "do": "storm", "dice": dice.getrandbits(32)})
        for kind, gap in (
            ("work", dice.choice((120, 250, 500)) * (2 if seats >= 10 else 1) * (8 if slow else 1)),
            ("fault", dice.choice((150, 300, 600)) // rounds + 100),
            ("read", dice.choice((300, 1_200))),
        ):
            at = dice.randint(1, gap)
            while at < length:
                does = dice.choice(kinds) if kind == "fault" else kind
                steps.append({"round": number, "at": at, "do": does, "dice": dice.getrandbits(32)})
                at += dice.randint(1, 2 * gap)
        idle = dice.choice((3_000, 10_000, 20_000))
        if engine == "bft" and dice.random() < 0.1:
            idle = dice.randint(1, 30) * DAY_MS
        steps.append({"round": number, "at": length, "do": "heal", "idle": idle})
    steps.sort(key=lambda step: (step["round"], step["at"]))
    return steps


class Run:
    """One seed, from its cast and its story to its report."""

    def __init__(
        self,
        cast: Cast,
        seed: int,
        story: Sequence[Step],
        *,
        factory: Factory | None = None,
        oracle: Oracle | None = None,
    ) -> None:
        self.cast, self.seed, self.story = cast, seed, tuple(story)
        book = SignatureBook(cast.seats, real=cast.real_keys)
        engine: Factory = BftEngine if cast.engine == "bft" else RaftEngine
        self.oracle = oracle or (BftOracle() if cast.engine == "bft" else RaftOracle())
        self.world = CoreWorld(
            engine=cast.engine,
            factory=factory or engine,
            epoch=make_epoch(book, cast.liars),
            book=book,
            oracle=self.oracle,
            dice=Random(f"{cast.engine} world {seed}"),
        )
        self.world.recovers = "amnesic" in signature(engine).parameters
        # A Raft leader hears of its followers by their answers; pings are there in half the seeds.
        self.world.pings = cast.engine == "bft" or seed % 2 == 0
        self.oracle.world = self.world
        self.oracle.guilty = tuple(cast.lying)
        self._seat_everybody()
        quorum = self.oracle.quorum
        spare = cast.liars - len(cast.lying)
        self.mischief = CoreMischief(
            self.world,
            away_max=max(0, cast.seats - quorum - len(cast.lying)),
            recovers=self.world.recovers,
            forget_max=spare,
        )
        self.away_ms = 0
        self.settle_ms = 0
        self.violation: str | None = None

    def _seat_everybody(self) -> None:
        for seat in range(self.cast.seats):
            strategy = self.cast.lying.get(seat)
            make = Member if strategy is None else STRATEGIES[strategy]
            for _ in range(2 if strategy == TWINS else 1):
                self.world.add(make, seat)

    # --- the play -------------------------------------------------------------------------

    def play(self) -> SeedReport:
        """Everything, or as much of it as goes well; then what there is to say of it."""
        try:
            with prepared(self.cast):
                self._rounds()
        except Violation as broken:
            self.violation = str(broken)
        except Exception as error:  # whatever a core raises is a finding, not our failure
            self.violation = f"cores never fail: {type(error).__name__}: {error}"
        return self.report()

    def _rounds(self) -> None:
        world = self.world
        for member in world.members:
            member.start()
        last = max((step["round"] for step in self.story), default=0)
        for number in range(last + 1):
            steps = [step for step in self.story if step["round"] == number]
            began = world.now
            for step in steps:
                if step["do"] not in ("storm", "heal"):
                    world.after(step["at"], self._do, step)
                elif step["do"] == "storm":
                    self.mischief.begin(draw_weather(Random(step["dice"])))
            length = max((step["at"] for step in steps), default=0)
            world.run(began + length)
            self.settle(everybody=number == last)
            self.rest(next((s["idle"] for s in steps if s["do"] == "heal"), 1_000))
        self._make_it_count()

    def _do(self, step: Step) -> None:
        dice = Random(step["dice"])
        match step["do"]:
            case "work":
                self.world.submit(dice.choice(((1, 5), (1, 40), (1, 400))), everywhere=False)
            case "read":
                token = step["dice"]
                member = dice.choice(self.world.honest)
                if member.up:
                    self.oracle.ask_read(token)
                    member.read(token)
            case kind:
                self.mischief.strike(kind, dice)

    def settle(self, *, everybody: bool) -> None:
        """Faults cease; raises ``Violation`` unless progress returns within the bound."""
        world = self.world
        self.mischief.cease(everybody=everybody)
        for member in world.members:
            for item in range(1, world.items + 1):
                world.after(world.dice.randint(1, 30), member.learn, item)
        self._await_all()  # what is ordered must not wait for something new to push it
        world.submit()
        self._await_all()

    def _await_all(self) -> None:
        world = self.world
        began, bound = world.now, SETTLE_MS_MAX[self.cast.engine]
        while world.now < began + bound:
            world.run(world.now + 40)
            if world.now > began + 40 and self._all_decided():
                self.settle_ms = max(self.settle_ms, world.now - began)
                self._check_rows()
                return
        raise Violation(f"progress: not everything is decided {bound} ms after the last fault")

    def _check_rows(self) -> None:
        """All is decided: what an engine keeps on disk is bounded by a few views, or the log."""
        for member in self.world.honest:
            rows = len(member.disk.rows)
            if rows > ROWS_SETTLED + (2 * self.cast.keep if self.cast.engine == "raft" else 0):
                raise Violation(f"bounded: {rows} rows of seat {member.seat} with all decided")

    def _all_decided(self) -> bool:
        items = self.world.items
        return all(
            member.up and len(member.application.decided) == items and not member.disk.staged
            for member in self.world.honest
            if not member.gone
        )

    def rest(self, length: int) -> None:
        """Nothing to do: raises ``Violation`` if members talk all the same."""
        world = self.world
        # A Raft leader takes four seconds to be sure that somebody is away; then it beats slowly.
        away = any(member.gone for member in world.members)
        world.run(world.now + (6_000 if away and not world.is_bft else 4_000))
        if self.cast.lying:  # a liar keeps all awake: a day of that is minutes of ours
            length = min(length, LYING_REST_MS_MAX)
        before = {member.place: member.sent for member in world.honest}
        began = world.now
        if length >= DAY_MS:
            self.away_ms += length
        world.run(began + length)
        if self.cast.lying:
            return
        beats = 0 if world.is_bft else 3 * length * self.cast.seats // 1_000
        for member in world.honest:
            said = member.sent - before[member.place]
            if said > IDLE_SENDS_MAX + beats:
                raise Violation(f"bounded: {said} messages of seat {member.seat} while idle")

    def _make_it_count(self) -> None:
        world = self.world
        while self.oracle.commits < COMMITS_MIN + 1:
            world.submit()
            items = world.items
            began, bound = world.now, SETTLE_MS_MAX[self.cast.engine]
            while world.now < began + bound and not self._all_decided():
                world.run(world.now + 20)
            if not self._all_decided():
                raise Violation(f"progress: counter {items} in calm takes over {bound} ms")
        if world.now - self.away_ms < VIRTUAL_MS_MIN:
            self.rest(VIRTUAL_MS_MIN - (world.now - self.away_ms))

    # --- what there is to say -------------------------------------------------------------

    def report(self) -> SeedReport:
        """The report on a run that ended, well or not."""
        world = self.world
        faults = {**self.mischief.counts, **world.net.counts}
        lies = {m.seat: m for m in world.members if not m.honest}
        for seat, strategy in self.cast.lying.items():
            liar = lies[seat]
            told = liar.lies if isinstance(liar, Liar) else 1
            faults[strategy] = faults.get(strategy, 0) + told
        broken = () if self.violation is None else (f"at {world.now} ms: {self.violation}",)
        return SeedReport(
            scenario=self.cast.engine,
            seed=self.seed,
            virtual_ms=world.now - self.away_ms,
            away_ms=self.away_ms,
            steps=world.steps,
            faults={kind: number for kind, number in sorted(faults.items()) if number},
            commits=self.oracle.commits,
            settle_ms=self.settle_ms,
            violations=broken,
            digest=world.trace.hexdigest(),
            notes={
                "seats": self.cast.seats,
                "liars": len(self.cast.lying),
                "accused": len(self.oracle.accused),
                "reads": self.oracle.answered,
            },
            story=self.story,
        )


def prepared(cast: Cast) -> AbstractContextManager[None]:
    """Raft logs keep as much as the cast says; equal bytes are decoded once in a run.

    A message to twelve peers is decoded twelve times, each time to an equal frozen value.
    """

    def plant(patch: Patch) -> None:
        patch(replica, "LOG_KEEP_ENTRIES", cast.keep)
        patch(sending, "BATCH_ENTRIES_MAX", cast.batch)
        patch(intake, "decode_message", lru_cache(DECODED_KEPT)(decode_message))
        patch(messages, "decode", lru_cache(DECODED_KEPT)(messages.decode))

    return patched(plant)
