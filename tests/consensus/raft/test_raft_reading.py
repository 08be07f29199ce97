"""Linearizable reads (Raft, section 8; thesis, 6.4): when they are answered, and when not."""

from __future__ import annotations

from typing import Any

from raft_cores import Core, carry, take_over
from raft_simulation import World

from p2pmed.consensus.interface import Read, ReadAt, ReadFailed
from p2pmed.consensus.raft.bounds import READ_MS, READS_MAX
from p2pmed.consensus.raft.messages import (
    Appended,
    AskRead,
    Confirm,
    Confirmed,
    HigherTerm,
    ReadIndex,
)


def answers(core: Core) -> list[Any]:
    return [e for e in core.effects if isinstance(e, ReadAt | ReadFailed)]


def mesh(members: int) -> list[Core]:
    cores = [Core(members, seat) for seat in range(members)]
    cores[0].wait(1_000)
    carry(cores)
    assert cores[0].status["role"] == "leader"
    return cores


def test_a_leader_answers_after_a_round_with_a_quorum() -> None:
    """Section 8: before it answers, a leader exchanges a message with a majority."""
    cores = mesh(5)
    leader = cores[0]
    leader.take()
    leader.event(Read(7))
    (ask,) = leader.take(Confirm)
    leader.tell(1, Confirmed(mesh=leader.mesh, term=1, round=ask.round))
    assert answers(leader) == [], "two of five are no majority"
    leader.tell(1, Confirmed(mesh=leader.mesh, term=1, round=ask.round))
    assert answers(leader) == [], "one member twice is one"
    leader.tell(2, Confirmed(mesh=leader.mesh, term=1, round=ask.round))
    assert answers(leader) == [ReadAt(7, 0)]


def test_an_answer_to_an_older_round_counts_for_nothing() -> None:
    """A confirmation that was on the way before the question came proves nothing of it."""
    leader = mesh(3)[0]
    leader.take()
    leader.event(Read(1))
    leader.tell(1, Confirmed(mesh=leader.mesh, term=1, round=1))
    assert answers(leader) == [ReadAt(1, 0)]
    leader.event(Read(2))
    leader.tell(2, Confirmed(mesh=leader.mesh, term=1, round=1))
    assert answers(leader) == [ReadAt(1, 0)]


def test_alone_a_read_is_answered_at_once() -> None:
    """n=1: the own voice is a quorum."""
    core = Core(1)
    core.wait(0)
    core.flush()
    core.hear(5)
    core.flush()
    core.event(Read(3))
    assert answers(core) == [ReadAt(3, 1)]


def test_a_new_leader_waits_for_its_own_entry() -> None:
    """Section 8: until an entry of its term is committed, a leader does not know what is."""
    core = Core(3)
    core.lead()
    core.take()
    core.event(Read(1))
    assert core.take(Confirm) == []
    core.tell(1, Appended(mesh=core.mesh, term=1, match=1, heartbeat=False, decided=0, attests=()))
    assert core.status["commit"] == 1
    assert len(core.take(Confirm)) == 1


def test_a_follower_asks_the_leader() -> None:
    """A question is forwarded; the answer names what was committed when the leader had it."""
    cores = mesh(3)
    for core in cores:
        core.hear(4)
    carry(cores)
    follower = cores[2]
    follower.event(Read(9))
    carry(cores)
    assert answers(follower) == [ReadAt(9, 1)]


def test_readers_that_come_together_share_a_question() -> None:
    """Readers that wait while a question is out are asked for by the next one, together."""
    cores = mesh(3)
    follower = cores[1]
    follower.take()
    for token in range(50):
        follower.event(Read(token))
    assert len(follower.take(AskRead)) == 1
    follower.tell(0, ReadIndex(mesh=follower.mesh, term=1, number=1, height=0))
    assert answers(follower) == [ReadAt(0, 0)]
    assert [ask.number for ask in follower.take(AskRead)] == [2]
    follower.tell(0, ReadIndex(mesh=follower.mesh, term=1, number=2, height=0))
    assert len(answers(follower)) == 50


def test_a_read_sees_what_a_lost_leader_made_final() -> None:
    """The old leader called a block final and died: the next one's answer includes it."""
    cores = mesh(3)
    for core in cores:
        core.hear(4)
    carry(cores)
    assert len(cores[0].decided) == 1
    rest = cores[1:]
    take_over(rest[0], rest[1:])
    rest[1].event(Read(1))
    carry(rest)
    assert answers(rest[1]) == [ReadAt(1, 1)]


def test_a_deposed_leader_answers_nobody() -> None:
    """A leader cut off from the others fails its reads, however sure it still is of itself."""
    cores = mesh(3)
    old, rest = cores[0], cores[1:]
    take_over(rest[0], rest[1:])
    for core in rest:
        core.hear(8)
    carry(rest)
    assert old.status["role"] == "leader"
    old.take()
    old.event(Read(1))
    for ask in old.take(Confirm):
        rest[0].tell(0, ask)
    assert rest[0].take(Confirmed) == []
    old.wait(READ_MS)
    assert answers(old) == [ReadFailed(1)]


def test_a_refusal_moves_the_question_to_the_next_leader() -> None:
    """A leader that learns of a higher term asks the new leader for its readers."""
    cores = mesh(3)
    old = cores[0]
    old.event(Read(1))
    old.tell(1, HigherTerm(mesh=old.mesh, term=2))
    assert old.status["role"] == "follower"
    rest = cores[1:]
    take_over(rest[0], rest[1:])
    assert rest[0].status["term"] == 2
    for _ in range(4):
        for core in cores:
            core.wait(100)
        carry(cores)
    assert answers(old) == [ReadAt(1, 0)]


def test_without_a_leader_a_read_fails_in_time() -> None:
    """No quorum: the answer is a failure, once, after ``READ_MS``."""
    core = Core(3)
    core.event(Read(5))
    core.wait(READ_MS - 1)
    assert answers(core) == []
    core.wait(1)
    assert answers(core) == [ReadFailed(5)]
    core.wait(60_000)
    assert len(answers(core)) == 1


def test_lost_questions_and_answers_are_said_again() -> None:
    """A question, a round or an answer that is lost costs a heartbeat, not the read."""
    for kind in (AskRead, Confirm, Confirmed, ReadIndex):
        cores = mesh(3)
        cores[1].event(Read(1))
        carry(cores, drop=lambda a, b, m, kind=kind: isinstance(m, kind))
        assert answers(cores[1]) == []
        for _ in range(3):
            for core in cores:
                core.wait(100)
            carry(cores)
        assert answers(cores[1]) == [ReadAt(1, 0)], kind


def test_an_answer_to_a_former_life_is_nobodys() -> None:
    """A number that this life did not ask answers nothing."""
    follower = mesh(3)[1]
    follower.event(Read(1))
    follower.tell(0, ReadIndex(mesh=follower.mesh, term=1, number=99, height=0))
    assert answers(follower) == []


def test_a_follower_leads_nobody() -> None:
    """A question that reaches no leader is dropped; a stray confirmation is, too."""
    follower = mesh(3)[1]
    follower.take()
    follower.tell(2, AskRead(mesh=follower.mesh, term=1, number=1))
    follower.tell(2, Confirmed(mesh=follower.mesh, term=1, round=1))
    assert follower.take() == []


def test_who_forgot_its_terms_confirms_nobody() -> None:
    """A member that lost its rows may have promised a higher term and not know it."""
    follower = mesh(3)[1]
    follower.engine._replica.lost = True
    follower.take()
    follower.tell(0, Confirm(mesh=follower.mesh, term=1, round=1))
    assert follower.take() == []


def test_readers_are_bounded() -> None:
    """One more than ``READS_MAX`` fails at once; the others wait."""
    core = Core(3)
    for token in range(READS_MAX + 1):
        core.event(Read(token))
    assert answers(core) == [ReadFailed(READS_MAX)]


def test_a_question_whose_readers_gave_up_is_not_repeated() -> None:
    """A leader that never answers is asked no longer than its readers wait."""
    follower = mesh(3)[1]
    follower.event(Read(1))
    for _ in range(60):
        follower.wait(100)
        follower.tell(0, Confirm(mesh=follower.mesh, term=1, round=1))
        follower.engine._replica.hear_leader(idle=False)
    assert answers(follower) == [ReadFailed(1)]
    assert len(follower.take(AskRead)) <= READ_MS // 100 + 1
    follower.event(Read(2))
    assert len(follower.take(AskRead)) == 1


def test_reads_are_linearizable_in_chaos() -> None:
    """Whatever was final anywhere before a read began is at or below its answer (60 seeds)."""
    answered = 0
    for seed in range(60):
        world = _ReadingWorld(seed)
        world.play()
        answered += world.answered
    assert answered > 1_000


class _ReadingWorld(World):
    """A world whose members read all the time, and a judge who knows what was final when."""

    def __init__(self, seed: int) -> None:
        self.asked: dict[tuple[int, int, int], int] = {}
        self.answered = 0
        self.tokens = 0
        super().__init__(seed, 3 + 2 * (seed % 2))
        self.loss, self.latency = 0.05, (1, 60)

    def _perform(self, member: Any, effect: Any) -> None:
        if isinstance(effect, ReadAt):
            final = self.asked.pop((member.seat, member.life, effect.token))
            assert effect.height >= final, "a read missed what was final before it"
            self.answered += 1
        elif isinstance(effect, ReadFailed):
            del self.asked[member.seat, member.life, effect.token]
        else:
            super()._perform(member, effect)

    def play(self) -> None:
        for number in range(40):
            self.submit(number)
            for member in self.members:
                if member.engine is None:
                    self.boot(member)
                self.tokens += 1
                key = (member.seat, member.life, self.tokens)
                self.asked[key] = max(self.agreed, default=0)
                self.step(member, Read(self.tokens))
            if self.dice.random() < 0.2:
                leader = self.leader() or self.members[0]
                rest = tuple(m.seat for m in self.members if m is not leader)
                self.partition((leader.seat,), rest)
            elif self.dice.random() < 0.5:
                self.heal()
            if self.dice.random() < 0.15:
                self.crash(self.dice.randrange(len(self.members)))
            self.run(self.now + self.dice.randint(20, 900))
