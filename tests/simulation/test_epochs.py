"""Members change while the mesh lives: partitions, power cuts and absence undo nothing."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from p2pmed.medical.drugs import Commission, Dispense
from p2pmed.medical.elections import MeshBallot, MeshElect
from p2pmed.medical.seat_changes import MeshChange, MeshJoin, MeshLeave
from p2pmed.medical.seats import standing
from p2pmed.node import events
from p2pmed.node.events import Draft
from p2pmed.sync.founding import MeshPolicy, Propose
from p2pmed.testing.clock import seeded
from p2pmed.testing.simulation import SimNode, Simulation
from p2pmed.testing.workload import EXPIRY_DAY, GTIN, Workload
from p2pmed.world import Space

Engine = Literal["bft", "raft"]
both = pytest.mark.parametrize("engine", ["bft", "raft"])
LIMIT_MS = 60_000


class Mesh:
    """Devices that founded a ledger, and learners that follow it."""

    def __init__(
        self,
        seats: int,
        engine: Engine,
        *,
        learners: int = 0,
        seed: int = 1,
        roles: tuple[str, ...] = ("clinic",),
    ) -> None:
        self.roles = roles
        self.engine = engine
        self.simulation = Simulation(seed)
        policy = MeshPolicy(auto=True, size=seats, engine=engine)
        self.seated = [
            self.simulation.add_node(f"clinic-{n}", roles=roles, policy=policy)
            for n in range(seats)
        ]
        self.until(lambda: all(node.home is not None for node in self.seated))
        self.learners = [self.add(f"learner-{n}") for n in range(learners)]
        self._workload = Workload(self.simulation, self.simulation.nodes, seeded(seed, "words"))

    def add(self, name: str) -> SimNode:
        node = self.simulation.add_node(name, roles=self.roles)
        self.until(lambda: node.home is not None)
        return node

    def until(self, done: Any) -> None:
        assert self.simulation.run_until(done, LIMIT_MS)

    def say(self, node: SimNode, body: Any) -> None:
        self.simulation.submit(node, Draft(body=body))

    def join(self, node: SimNode) -> None:
        """The node consents and its word is final at the founders that are up."""
        self.settle()
        assert node.home is not None
        chain = node.home.chain
        self.say(node, MeshJoin(height=chain.height, digest=chain.head_digest))
        self.settle()
        assert standing(chain.state, node.key) == "willing"

    def change(
        self,
        by: SimNode,
        *,
        add: tuple[SimNode, ...] = (),
        remove: tuple[SimNode, ...] = (),
        liars: int = 0,
    ) -> None:
        number = self.epoch_of(by)
        added = tuple(sorted(node.key for node in add))
        removed = tuple(sorted(node.key for node in remove))
        self.say(by, MeshChange(epoch=number, add=added, remove=removed, liars=liars))

    @staticmethod
    def epoch_of(node: SimNode) -> int:
        assert node.home is not None
        return node.home.epoch.number

    def reach(self, number: int, *nodes: SimNode) -> None:
        """All these nodes live in epoch ``number``."""
        chosen = nodes or tuple(self.simulation.nodes)
        self.until(lambda: all(n.home and self.epoch_of(n) >= number for n in chosen))

    def write(self, *nodes: SimNode) -> None:
        for node in nodes or self.simulation.nodes:
            self._workload.write_at(node)

    def settle(self) -> None:
        assert self.simulation.run_until_settled(LIMIT_MS)

    def votes(self, node: SimNode) -> bool:
        return node.home is not None and node.home.engine is not None

    def finish(self) -> None:
        """Everything written becomes final everywhere, and no promise was broken."""
        self.write()
        self.settle()
        self.simulation.check_everywhere()
        assert not self.simulation.oracle.violations

    def verdicts(self, kind: str) -> list[str]:
        """What became of the transactions of one kind, at the first device."""
        return [
            verdict.code
            for notice in self.seated[0].notices
            if isinstance(notice, events.Final)
            for entry, verdict in zip(notice.entries, notice.verdicts, strict=True)
            if entry.kind == kind
        ]


@both
def test_a_fourth_device_joins_three_and_votes_without_a_restart(engine: Engine) -> None:
    """It follows, consents, is added, and from then on the mesh needs its like."""
    mesh = Mesh(3, engine, learners=1)
    new = mesh.learners[0]
    assert not mesh.votes(new)
    mesh.join(new)
    mesh.change(mesh.seated[0], add=(new,), liars=1 if engine == "bft" else 0)
    mesh.reach(1)
    mesh.until(lambda: all(mesh.votes(node) for node in mesh.simulation.nodes))
    assert new.home is not None
    assert new.home.epoch.quorum == 3
    mesh.finish()
    mesh.simulation.crash(mesh.seated[1])
    mesh.write(new, mesh.seated[0], mesh.seated[2])
    before = new.height
    mesh.until(lambda: new.height > before)
    mesh.simulation.start(mesh.seated[1])
    mesh.finish()


@both
def test_a_removed_device_follows_and_is_not_needed(engine: Engine) -> None:
    """It loses its voice, keeps its records, and the others go on with one away."""
    mesh = Mesh(4, engine)
    gone = mesh.seated[3]
    mesh.settle()
    mesh.change(mesh.seated[0], remove=(gone,))
    mesh.reach(1)
    assert not mesh.votes(gone)
    assert gone.home is not None
    assert standing(gone.home.chain.state, gone.key) == "learner"
    mesh.simulation.crash(mesh.seated[1])
    mesh.write(gone)
    before = gone.height
    mesh.until(lambda: gone.height > before)
    mesh.simulation.start(mesh.seated[1])
    mesh.finish()


@both
def test_a_device_that_is_away_can_be_removed_and_learns_of_it_on_its_return(
    engine: Engine,
) -> None:
    """It comes back with votes of an epoch that is over, disturbs nobody, and follows."""
    mesh = Mesh(4, engine)
    mesh.settle()
    away, rest = mesh.seated[3], mesh.seated[:3]
    mesh.simulation.separate([away])
    mesh.write(away)
    mesh.simulation.run_for(20_000)
    mesh.change(rest[0], remove=(away,))
    mesh.reach(1, *rest)
    mesh.write(*rest)
    mesh.simulation.run_for(20_000)
    assert mesh.epoch_of(away) == 0
    views = [node.home.engine.status() for node in rest if node.home and node.home.engine]
    mesh.simulation.separate()
    mesh.reach(1)
    assert not mesh.votes(away)
    if engine == "raft":
        now = [node.home.engine.status() for node in rest if node.home and node.home.engine]
        assert [status["term"] for status in now] == [status["term"] for status in views]
    mesh.finish()


@both
def test_who_was_away_for_two_changes_keeps_its_seat_and_votes(engine: Engine) -> None:
    """Its keys were published in advance: absence blocks no change and costs no seat."""
    mesh = Mesh(4, engine, learners=2)
    for node in mesh.learners:
        mesh.join(node)
    away, rest = mesh.seated[3], [*mesh.seated[:3], *mesh.learners]
    mesh.simulation.crash(away)
    mesh.change(mesh.seated[0], add=(mesh.learners[0],))
    mesh.reach(1, *rest)
    mesh.write(*rest)
    mesh.change(mesh.seated[0], add=(mesh.learners[1],))
    mesh.reach(2, *rest)
    mesh.write(*rest)
    mesh.simulation.run_for(5_000)
    mesh.change(mesh.seated[0], remove=(mesh.seated[2],))
    mesh.simulation.run_for(5_000)
    assert mesh.verdicts("mesh.change") == ["applied", "applied", "vote_key_missing"]
    mesh.simulation.start(away)
    mesh.reach(2)
    mesh.until(lambda: mesh.votes(away))
    mesh.finish()
    mesh.change(mesh.seated[0], remove=(mesh.seated[2],))
    mesh.reach(3)
    mesh.finish()


@both
def test_a_change_in_the_smaller_part_of_a_partition_waits(engine: Engine) -> None:
    """What a minority writes of seats takes no effect there, and one outcome comes of both."""
    mesh = Mesh(5, engine)
    mesh.settle()
    few, many = mesh.seated[:2], mesh.seated[2:]
    if engine == "bft":  # four of five are needed where one may lie
        few, many = mesh.seated[:1], mesh.seated[1:]
    mesh.simulation.separate(few, many)
    mesh.change(few[0], remove=(many[0],))
    mesh.change(many[0], remove=(few[0],))
    mesh.reach(1, *many)
    mesh.simulation.run_for(30_000)
    assert all(mesh.epoch_of(node) == 0 for node in few)
    mesh.simulation.separate()
    mesh.reach(1)
    mesh.settle()
    assert sorted(mesh.verdicts("mesh.change")) == ["applied", "epoch_stale"]
    assert not mesh.votes(few[0])
    mesh.finish()


@both
def test_of_two_changes_at_once_one_takes_effect(engine: Engine) -> None:
    """The second names an epoch that the first has ended."""
    mesh = Mesh(4, engine, learners=1)
    mesh.join(mesh.learners[0])
    mesh.change(mesh.seated[0], add=(mesh.learners[0],))
    mesh.change(mesh.seated[1], remove=(mesh.seated[3],))
    mesh.reach(1)
    mesh.settle()
    codes = sorted(mesh.verdicts("mesh.change"))
    assert codes[0] == "applied"
    assert codes[1] in ("change_pending", "epoch_stale")
    assert len({node.home.epoch for node in mesh.simulation.nodes if node.home}) == 1
    mesh.finish()


@both
@pytest.mark.parametrize("wait_ms", [0, 5, 15, 30, 45, 60, 90, 130, 200, 400])
def test_a_power_cut_at_any_moment_of_a_change_is_survived(engine: Engine, wait_ms: int) -> None:
    """All devices fall at one moment around the seal's flush; one epoch comes of it."""
    mesh = Mesh(3, engine, learners=1, seed=7)
    mesh.join(mesh.learners[0])
    mesh.change(mesh.seated[0], add=(mesh.learners[0],))
    mesh.simulation.run_for(wait_ms)
    for node in mesh.simulation.nodes:
        mesh.simulation.crash(node)
    mesh.simulation.run_for(100)
    for node in mesh.simulation.nodes:
        mesh.simulation.start(node)
    mesh.simulation.run_for(5_000)
    if not mesh.verdicts("mesh.change"):  # its submission was not acknowledged
        mesh.change(mesh.seated[0], add=(mesh.learners[0],))
    mesh.reach(1)
    mesh.until(lambda: all(mesh.votes(node) for node in mesh.simulation.nodes))
    mesh.finish()


@both
def test_devices_that_fall_one_by_one_during_a_change_agree(engine: Engine) -> None:
    """Each falls for a while at another moment; all end in one epoch with one state."""
    for seed in range(1, 4):
        mesh = Mesh(4, engine, learners=1, seed=seed)
        mesh.join(mesh.learners[0])
        dice = seeded(seed, "falls")
        mesh.change(mesh.seated[0], add=(mesh.learners[0],))
        for _ in range(12):
            node = dice.choice(mesh.simulation.nodes)
            mesh.simulation.crash(node)
            mesh.simulation.run_for(dice.randint(1, 60))
            mesh.simulation.start(node)
            mesh.simulation.run_for(dice.randint(1, 60))
        mesh.simulation.run_for(5_000)
        if "applied" not in mesh.verdicts("mesh.change"):
            mesh.change(mesh.seated[1], add=(mesh.learners[0],))
        mesh.reach(1)
        mesh.finish()


@both
def test_nothing_of_an_epoch_that_is_over_is_left(engine: Engine) -> None:
    """The engine's rows of epoch 0 are gone, and its vote key signs no more."""
    mesh = Mesh(3, engine, learners=1)
    mesh.join(mesh.learners[0])
    keys = {node.name: node.home.epoch.validators for node in mesh.seated if node.home}
    mesh.change(mesh.seated[0], add=(mesh.learners[0],))
    mesh.reach(1)
    mesh.finish()
    for node in mesh.seated:
        assert node.home is not None
        assert node.replica is not None
        old = node.home.ledger + bytes(8)
        assert not node.replica._world.disk.scan(Space.CONSENSUS, old, old + b"\xff" * 9, limit=1)
        seat = next(v for v in keys[node.name] if v.node == node.key)
        assert node.replica.ledgers.seating.vote_keys.signer(seat.vote_key) is None
        mesh.simulation.crash(node)
        mesh.simulation.start(node)
        assert node.replica.ledgers.seating.vote_keys.signer(seat.vote_key) is None
    mesh.finish()


@both
def test_a_device_leaves_by_its_own_word(engine: Engine) -> None:
    """Its seat ends with the epoch; the last one cannot leave."""
    mesh = Mesh(3, engine)
    mesh.settle()
    for number, node in enumerate(mesh.seated[:0:-1]):
        mesh.say(node, MeshLeave(epoch=number))
        mesh.reach(number + 1)
        mesh.settle()
    last = mesh.seated[0]
    mesh.say(last, MeshLeave(epoch=2))
    mesh.settle()
    assert mesh.verdicts("mesh.leave") == ["applied", "applied", "seats_impossible"]
    assert [mesh.votes(node) for node in mesh.seated] == [True, False, False]
    mesh.finish()


def test_an_election_seats_who_was_approved_most() -> None:
    """Ballots of a majority count; ties go by device key; the losers follow."""
    mesh = Mesh(4, "bft", learners=2)
    for node in mesh.learners:
        mesh.join(node)
    wanted = tuple(sorted(node.key for node in (*mesh.seated[:3], mesh.learners[0])))
    mesh.say(mesh.seated[0], MeshBallot(epoch=0, approve=wanted))
    mesh.settle()
    mesh.say(mesh.seated[0], MeshElect(epoch=0, seats=4, liars=1))
    mesh.settle()
    for node in (*mesh.seated[1:3], mesh.learners[0]):
        mesh.say(node, MeshBallot(epoch=0, approve=wanted))
    mesh.settle()
    mesh.say(mesh.seated[0], MeshElect(epoch=0, seats=4, liars=1))
    mesh.reach(1)
    mesh.settle()
    assert mesh.verdicts("mesh.elect") == ["ballots_too_few", "applied"]
    assert mesh.seated[0].home is not None
    assert [v.node for v in mesh.seated[0].home.epoch.validators] == list(wanted)
    assert mesh.votes(mesh.learners[0])
    assert not mesh.votes(mesh.seated[3])
    mesh.finish()


@both
def test_who_comes_three_epochs_late_checks_every_handover(engine: Engine) -> None:
    """A carrier that never executes the ledger, and one that does, follow seal by seal."""
    mesh = Mesh(3, engine, learners=2)
    for node in mesh.learners:
        mesh.join(node)
    for number, node in enumerate(mesh.learners):
        mesh.change(mesh.seated[0], add=(node,))
        mesh.reach(number + 1)
        mesh.write()
        mesh.settle()
    mesh.change(mesh.seated[0], remove=(mesh.seated[2],))
    mesh.reach(3)
    mesh.finish()
    late = mesh.add("late")
    mesh.reach(3, late)
    assert late.home is not None
    epochs = late.home.chain.epochs
    assert [epochs.numbered(n) is not None for n in range(5)] == [True] * 4 + [False]
    mesh.finish()


@both
def test_survivors_found_a_successor_by_their_operators_word(engine: Engine) -> None:
    """It names the ledger whose quorum is gone and its last final height; a restart keeps it."""
    mesh = Mesh(4, engine)
    mesh.write()
    mesh.settle()
    simulation = mesh.simulation
    left, gone = mesh.seated[:2], mesh.seated[2:]
    for node in gone:
        simulation.crash(node)
    assert left[0].home is not None
    old, height = left[0].home.ledger, left[0].height
    head = left[0].home.chain.head_digest
    word = Propose(
        members=(left[1].key,),
        engine=mesh.engine,
        liars=None,
        name="again",
        patience_ms=30_000,
        successor=True,
    )
    simulation.command(left[0], lambda request: events.FoundMesh(request, word))
    simulation.run_for(2_000)
    assert [node.home.ledger for node in left if node.home] == [old, old], "nobody is asked twice"
    simulation.command(left[1], lambda request: events.AcceptOffer(request, left[0].key))
    mesh.until(lambda: all(node.home and node.home.ledger != old for node in left))
    for node in left:
        assert node.home is not None
        genesis = node.home.founding.genesis
        named = (genesis.predecessor, genesis.predecessor_height, genesis.predecessor_digest)
        assert named == (old, height, head)
    mesh.write(*left)
    mesh.until(lambda: all(node.height > 0 for node in left))
    for node in left:
        simulation.crash(node)
        simulation.start(node)
    mesh.write(*left)
    before = left[0].height
    mesh.until(lambda: left[0].height > before)
    assert left[0].home is not None
    assert left[0].home.ledger != old


@both
def test_a_seat_that_lost_its_vote_keys_says_so_and_votes_again_in_the_next_epoch(
    engine: Engine,
) -> None:
    """It is told to people, the same seats go on with fresh keys, and none is lost for it."""
    mesh = Mesh(3, engine)
    mesh.settle()
    robbed = mesh.seated[1]
    mesh.simulation.crash(robbed)
    for public in [robbed.identity.keys.vote_public(number) for number in range(3)]:
        robbed.disk.stage(Space.LOCAL, b"vote retired" + public, b"\x01")
    robbed.disk.finish(robbed.disk.begin())
    mesh.simulation.start(robbed)
    assert not mesh.votes(robbed)
    assert any(isinstance(n, events.Alarm) and n.kind == "vote_key_lost" for n in robbed.notices)
    mesh.reach(1)
    mesh.until(lambda: all(mesh.votes(node) for node in mesh.seated))
    mesh.settle()
    assert mesh.verdicts("mesh.change") == ["applied"]
    assert robbed.replica is not None
    assert not robbed.replica.ledgers.seating.is_keyless()
    mesh.finish()
    mesh.simulation.crash(mesh.seated[0])  # its voice counts: two of three decide
    mesh.write(robbed)
    before = robbed.height
    mesh.until(lambda: robbed.height > before)
    mesh.simulation.start(mesh.seated[0])
    mesh.finish()


def spend(serial: str) -> Dispense:
    return Dispense(gtin=GTIN, serial=serial)


def stock(node: SimNode, *serials: str) -> Commission:
    return Commission(gtin=GTIN, lot="L", expiry=EXPIRY_DAY, serials=serials, maker=node.key)


class Bereft(Mesh):
    """A mesh of four with stock, of which two seats and a learner are left."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(4, engine, learners=1, roles=("clinic", "pharmacy"))
        first = self.seated[0]
        self.say(first, stock(first, "OLD", "KEPT", "MORE"))
        self.settle()
        self.spent = self.entry(first, spend("OLD"))
        self.settle()
        self.refused = self.entry(first, spend("OLD"))
        self.settle()
        self.left, self.gone = self.seated[:2], self.seated[2:]
        for node in self.gone:
            self.simulation.crash(node)
        assert first.home is not None
        self.old, self.height = first.home.ledger, first.height
        self.root = first.home.chain.state_root

    def entry(self, node: SimNode, body: Any) -> Any:
        request = self.simulation.submit(node, Draft(body=body, subject=b"p" * 16))
        self.until(lambda: request in self.simulation.replies)
        return self.simulation.replies[request].entries[0]

    def succeed(self) -> None:
        word = Propose(
            members=(self.left[1].key,),
            engine=self.engine,
            liars=None,
            name="again",
            patience_ms=30_000,
            successor=True,
        )
        simulation, (first, second) = self.simulation, self.left
        simulation.command(first, lambda request: events.FoundMesh(request, word))
        simulation.run_for(2_000)
        simulation.command(second, lambda request: events.AcceptOffer(request, first.key))
        self.until(lambda: all(node.home and node.home.ledger != self.old for node in self.left))

    def verdict(self, node: SimNode, entry: Any) -> str:
        assert node.home is not None
        verdict = node.home.chain.verdict_of(entry)
        return "" if verdict is None else verdict.code


@both
def test_a_successor_forgets_neither_stock_nor_verdicts_nor_members(engine: Engine) -> None:
    """It begins with the very state that the old ledger's last block certifies."""
    mesh = Bereft(engine)
    mesh.succeed()
    first, learner = mesh.left[0], mesh.learners[0]
    mesh.until(lambda: bool(learner.home and learner.home.ledger != mesh.old))
    for node in (*mesh.left, learner):
        assert node.home is not None
        assert node.home.founding.genesis.predecessor_height == mesh.height
    again, kept = mesh.entry(mesh.left[1], spend("OLD")), mesh.entry(first, spend("KEPT"))
    mesh.until(lambda: all(mesh.verdict(learner, entry) for entry in (again, kept)))
    assert mesh.verdict(first, again) == mesh.verdict(first, mesh.refused) == "unit_dispensed"
    assert mesh.verdict(first, kept) == "applied"
    for node in (*mesh.left, learner):  # also from the disk alone
        mesh.simulation.crash(node)
        mesh.simulation.start(node)
        assert node.home is not None
        assert node.home.chain.height_of(mesh.spent) == 0
        assert mesh.verdict(node, mesh.spent) == "applied"
        assert mesh.verdict(node, mesh.refused) not in ("", "applied")
    written = [mesh.entry(node, spend("NONE")) for node in (first, learner)]
    mesh.until(lambda: all(mesh.verdict(n, e) for n in (first, learner) for e in written))
    states = {n.home.chain.state_root for n in (*mesh.left, learner) if n.home}
    assert len(states) == 1


@both
def test_what_a_successor_spends_is_provisional_until_a_county_anchors_it(engine: Engine) -> None:
    """Facts count at once; a spending counts with the anchor; the old ledger is executed first."""
    mesh = Bereft(engine)
    mesh.succeed()
    first = mesh.left[0]
    kept = mesh.entry(first, spend("KEPT"))
    mesh.until(lambda: mesh.verdict(first, kept) == "applied")
    simulation = mesh.simulation
    assert first.replica is not None
    cosigned = first.replica.anchoring.is_cosigned
    assert cosigned(mesh.spent)
    assert not cosigned(kept)
    hospital = simulation.add_node(
        "hospital", roles=("county", "hospital"), policy=MeshPolicy(follow=False), place="county"
    )
    simulation.run_for(2_000)
    simulation.found(hospital, [], engine="raft", name="county")
    mesh.until(lambda: cosigned(kept))
    assert first.replica.is_anchored(kept)
    assert first.replica.is_anchored(mesh.spent)
    assert hospital.replica is not None
    told = hospital.replica.county_alarms()
    assert [set(ids) for *ids, _ in told] == [{mesh.spent.id, mesh.refused.id}]


def test_nobody_follows_a_successor_while_the_old_quorum_is_in_sight() -> None:
    """Two of four found one; the learner and the other two stay where the quorum is."""
    mesh = Mesh(4, "bft", learners=1)
    mesh.settle()
    left, rest = mesh.seated[:2], mesh.seated[2:]
    assert left[0].home is not None
    old = left[0].home.ledger
    word = Propose(
        members=(left[1].key,),
        engine="bft",
        liars=None,
        name="coup",
        patience_ms=30_000,
        successor=True,
    )
    mesh.simulation.command(left[0], lambda request: events.FoundMesh(request, word))
    mesh.simulation.run_for(2_000)
    mesh.simulation.command(left[1], lambda request: events.AcceptOffer(request, left[0].key))
    mesh.until(lambda: all(node.home and node.home.ledger != old for node in left))
    mesh.simulation.run_for(5_000)
    assert [n.home.ledger for n in (*rest, *mesh.learners) if n.home] == [old] * 3


def test_two_elections_among_fifteen_through_a_partition() -> None:
    """Thirteen seats, fifteen members: ballots decide twice, and a part without a quorum waits."""
    mesh = Mesh(13, "bft", learners=2)
    for node in mesh.learners:
        mesh.join(node)

    def ballots(number: int, voters: list[SimNode], wanted: list[SimNode]) -> None:
        approve = tuple(sorted(node.key for node in wanted))
        for node in voters:
            mesh.say(node, MeshBallot(epoch=number, approve=approve))
        mesh.simulation.run_for(3_000)

    def seated(node: SimNode) -> set[bytes]:
        assert node.home is not None
        return {validator.node for validator in node.home.epoch.validators}

    everybody = [*mesh.seated, *mesh.learners]
    first = [*mesh.seated[:11], *mesh.learners]
    ballots(0, everybody[:8], first)
    mesh.say(mesh.seated[0], MeshElect(epoch=0, seats=13, liars=4))
    mesh.reach(1)
    assert seated(mesh.seated[0]) == {node.key for node in first}
    mesh.settle()
    for node in mesh.seated[11:]:
        mesh.join(node)
    few, many = mesh.seated[:4], [node for node in everybody if node not in mesh.seated[:4]]
    mesh.simulation.separate(few, many)
    second = [*mesh.seated[2:], *mesh.learners]
    ballots(1, many[:9], second)
    ballots(1, few, first)
    mesh.say(few[0], MeshElect(epoch=1, seats=13, liars=4))
    mesh.say(many[0], MeshElect(epoch=1, seats=13, liars=4))
    mesh.reach(2, *many)
    mesh.simulation.run_for(5_000)
    assert all(mesh.epoch_of(node) == 1 for node in few)
    mesh.simulation.separate()
    mesh.reach(2)
    mesh.settle()
    assert all(seated(node) == {each.key for each in second} for node in everybody)
    assert [mesh.votes(node) for node in mesh.seated[:3]] == [False, False, True]
    assert sorted(mesh.verdicts("mesh.elect")) == ["applied", "applied", "epoch_stale"]
    mesh.finish()
