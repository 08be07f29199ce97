"""A forked log stops nobody: what a block orders of it can be followed, and is judged by its id."""

from __future__ import annotations

import msgspec
import pytest
from toy_ledger import CREATED_MS, Device, ToyNode, Writer, devices, genesis_of

from p2pmed.consensus.interface import Block, Check
from p2pmed.ledger import logs as logs_module
from p2pmed.ledger import picking as picking_module
from p2pmed.ledger.block import Tip, content_hash, decode_body, tips_root
from p2pmed.ledger.executing import REFERENCE_MISSING
from p2pmed.ledger.intake import Intake
from p2pmed.ledger.logs import Logs
from p2pmed.ledger.transaction import Entry
from p2pmed.limits import BLOCK_CONTENT_BYTES_MAX
from p2pmed.storage.memory import MemoryDisk
from p2pmed.wire import codec

SEATS = devices(4)
GENESIS = genesis_of(SEATS)


def forked() -> tuple[ToyNode, ToyNode, Writer, list[Entry], list[Entry]]:
    """Two nodes, each with another branch of one log, and neither knows it."""
    one, two, writer = ToyNode(GENESIS, seat=0), ToyNode(GENESIS, seat=1), Writer(Device("liar"))
    shared = writer.many(2)
    twin = writer.fork()
    left = [writer.write(body=[b"l", bytes([n])]) for n in range(3)]
    right = [twin.write(body=[b"r", bytes([n])]) for n in range(3)]
    one.hold(*shared, *left)
    two.hold(*shared, *right)
    return one, two, writer, left, right


def block_of(node: ToyNode) -> Block:
    block = node.propose()
    assert block is not None
    return block


def test_a_block_on_another_branch_waits_and_is_no_lie() -> None:
    """Whoever holds the other branch must neither halt nor refuse: it asks for what it lacks."""
    one, two, writer, left, _ = forked()
    block = block_of(one)
    assert two.chain.check(block) is Check.MISSING
    assert list(two.logs.wanted) == [(writer.lane, 4, left[-1].id)]


def test_an_ordered_branch_is_executed_where_another_is_read() -> None:
    """With the branch beside its log, the block is valid, and state and verdicts are the same."""
    one, two, _, left, right = forked()
    block = block_of(one)
    two.logs.freeze(left[0])
    for entry in left[1:]:
        two.logs.keep_branch(entry)
    two.disk.commit()
    one.take(block)
    decided = two.take(block)
    assert [entry.id for entry in decided.entries][-3:] == [entry.id for entry in left]
    assert two.chain.state_root == one.chain.state_root
    assert two.chain.verdict_of(left[0]) is not None
    assert two.chain.verdict_of(right[0]) is None, "the other branch is not final"
    assert two.chain.height_of(right[2]) is None
    two.open()
    assert two.chain.verdict_of(right[0]) is None
    assert two.logs.find(right[0].id) is not None


def test_a_reference_is_judged_by_its_id_and_not_by_its_place() -> None:
    """What refers to a branch that was not ordered is refused by all, whatever they read."""
    one, two, _, left, right = forked()
    first = block_of(one)
    two.logs.freeze(left[0])
    for entry in left[1:]:
        two.logs.keep_branch(entry)
    two.disk.commit()
    one.take(first)
    two.take(first)
    other = Writer(SEATS[2])
    refers = [other.write(refs=(right[1].id,)), other.write(refs=(left[1].id,))]
    one.hold(*refers)
    two.hold(*refers)
    second = block_of(one)
    assert two.chain.check(second) is Check.VALID
    one.take(second)
    two.take(second)
    for node in (one, two):
        verdicts = [node.chain.verdict_of(entry) for entry in refers]
        assert [verdict and verdict.code for verdict in verdicts] == [REFERENCE_MISSING, "applied"]


def test_a_tip_that_does_not_follow_what_is_ordered_is_invalid() -> None:
    """Once one branch is ordered, no other can be ordered above it."""
    one, two, writer, left, right = forked()
    block = block_of(one)
    two.logs.freeze(left[0])
    for entry in left[1:]:
        two.logs.keep_branch(entry)
    two.disk.commit()
    one.take(block)
    two.take(block)
    assert two.propose() is None, "and nobody honest proposes it"
    later = writer.fork()
    later.seq, later.prev = right[-1].seq + 1, right[-1].id
    above = later.write()
    two.logs.keep_branch(above)
    filler = Writer(SEATS[3]).many(1)
    two.hold(*filler)
    honest = block_of(two)
    shown = decode_body(honest.content, limit=BLOCK_CONTENT_BYTES_MAX)
    tip = Tip(author=above.author, incarnation=bytes(16), seq=above.seq, id=above.id)
    tips = tuple(sorted([*shown.tips, tip], key=lambda tip: tip.lane))
    summary = msgspec.structs.replace(shown.summary, tips=tips_root(tips), count=2)
    content = codec.encode(msgspec.structs.replace(shown, summary=summary, tips=tips))
    header = msgspec.structs.replace(honest.header, content=content_hash(summary))
    assert two.chain.check(Block(header=header, content=content)) is Check.INVALID


def test_a_full_table_of_logs_refuses_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stranger's log too many is not opened; nothing is raised, and known logs go on."""
    monkeypatch.setattr(logs_module, "LANES_MAX", logs_module.INCARNATIONS_MAX + 2)
    logs = Logs(MemoryDisk(), GENESIS.network)
    intake = Intake(logs, GENESIS.network, lambda entry: True)
    writers = [Writer(Device(str(n))) for n in range(4)]
    first = [writer.write() for writer in writers]
    offered = intake.offer(bytes(32), [entry.raw for entry in first])
    admitted = intake.checked(offered.token, [True] * len(offered.checks))
    assert len(admitted.entries) == len(logs) == 2
    offered = intake.offer(bytes(32), [writers[0].write().raw, first[3].raw])
    assert len(intake.checked(offered.token, [True] * len(offered.checks)).entries) == 1


def test_one_device_cannot_fill_the_table_of_logs() -> None:
    """A device has room for its restored backups, and no more: others' logs must fit."""
    logs = Logs(MemoryDisk(), GENESIS.network)
    intake = Intake(logs, GENESIS.network, lambda entry: True)
    liar = Device("liar")
    raws = [Writer(liar, n.to_bytes(16, "big")).write().raw for n in range(100)]
    offered = intake.offer(bytes(32), raws)
    intake.checked(offered.token, [True] * len(offered.checks))
    assert len(logs) == logs_module.INCARNATIONS_MAX
    offered = intake.offer(bytes(32), [Writer(Device("honest")).write().raw])
    assert len(intake.checked(offered.token, [True]).entries) == 1


def test_a_ledger_opens_no_more_logs_of_a_device_than_it_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither at once nor one by one; nobody proposes more, and who does is refused."""
    one, two, liar = ToyNode(GENESIS, seat=0), ToyNode(GENESIS, seat=1), Device("liar")
    most = logs_module.INCARNATIONS_MAX
    for n in range(most + 2):
        entry = Writer(liar, n.to_bytes(16, "big")).write()
        one.hold(entry)
        two.hold(entry)
    one.take(block := block_of(one))
    assert len(two.take(block).entries) == most
    assert one.propose() is None
    with monkeypatch.context() as lying:
        lying.setattr(picking_module, "INCARNATIONS_MAX", most + 2)
        block = block_of(one)
    assert two.chain.check(block) is Check.INVALID


def test_a_leader_whose_clock_is_wrong_does_not_end_the_ledger_s_time() -> None:
    """Raft: the year 3000 is a day ahead at most, and true time is followed again after it."""
    seats, day_ms = devices(3), 86_400_000
    genesis = genesis_of(seats, engine="raft")
    one, two = ToyNode(genesis, seat=0), ToyNode(genesis, seat=1)
    leader, follower = Writer(seats[0]), Writer(seats[1])
    one.wall_ms = 32_503_680_000_000
    now = CREATED_MS
    for _ in range(5):
        now += day_ms
        for entry in (leader.write(wall=one.wall_ms), follower.write(wall=now)):
            one.hold(entry)
            two.hold(entry)
        one.order(two)
        assert now <= two.chain.time_ms <= now + day_ms
    one.wall_ms = now + 3 * day_ms
    now += 2 * day_ms
    for entry in (leader.write(wall=one.wall_ms), follower.write(wall=now)):
        one.hold(entry)
        two.hold(entry)
    assert one.order(two).summary.time == now + day_ms


def test_a_member_alone_has_nobody_s_clock_but_its_own() -> None:
    """A ledger of one follows its clock, however far it jumps."""
    node, writer = ToyNode(genesis_of(devices(1), engine="raft")), Writer(SEATS[0])
    node.wall_ms = CREATED_MS + 10**10
    node.hold(writer.write())
    assert node.order().summary.time == node.wall_ms
