"""One ledger on one node: what is built is checked alike everywhere, and decided once."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_ledger import CREATED_MS, ToyNode, Writer, devices, genesis_of

from p2pmed.consensus.interface import Block, Check, header_digest
from p2pmed.errors import InvariantError
from p2pmed.ledger import lthash
from p2pmed.ledger.block import Body, content_hash, decode_body, tips_root
from p2pmed.ledger.merkle import merkle_root
from p2pmed.ledger.state import Verdict
from p2pmed.limits import BLOCK_CONTENT_BYTES_MAX, BLOCK_ENTRIES_MAX
from p2pmed.wire import codec
from p2pmed.wire.hashing import hash_bytes
from p2pmed.world import Space

SEATS = devices(4)
GENESIS = genesis_of(SEATS)


def pair(**fields: Any) -> tuple[ToyNode, ToyNode]:
    """Two nodes of one mesh, seats 0 and 1."""
    return ToyNode(GENESIS, seat=0, **fields), ToyNode(GENESIS, seat=1)


def body_of(block: Block) -> Body:
    return decode_body(block.content, limit=BLOCK_CONTENT_BYTES_MAX)


def proposed(node: ToyNode, **fields: Any) -> Block:
    block = node.propose(**fields)
    assert block is not None
    return block


def rewritten(block: Block, tips: Any = None, **summary: Any) -> Block:
    """The block with another content, whose hashes fit it."""
    body = body_of(block)
    tips = body.tips if tips is None else tuple(tips)
    new = msgspec.structs.replace(body.summary, **{"tips": tips_root(tips), **summary})
    header = msgspec.structs.replace(block.header, content=content_hash(new))
    return Block(header=header, content=codec.encode(Body(summary=new, tips=tips)))


# --- building and checking ------------------------------------------------------------------


def test_a_block_that_one_builds_all_find_valid() -> None:
    """Same entries, same parent: the same roots, bit for bit, on a node that did not build it."""
    one, two = pair()
    writer = Writer(SEATS[0])
    entries = writer.many(5)
    one.hold(*entries)
    two.hold(*entries)
    block = proposed(one)
    assert two.chain.check(block) is Check.VALID
    assert one.chain.check(block) is Check.VALID
    summary = body_of(block).summary
    assert summary.count == 5
    assert summary.entries == merkle_root([entry.id for entry in entries])
    left, right = one.take(block), two.take(block)
    assert left.verdicts == right.verdicts
    assert one.chain.state_root == two.chain.state_root == summary.state


def test_checking_is_repeatable_and_writes_nothing() -> None:
    """A block may be checked many times and never be decided; the disk does not know of it."""
    one, two = pair()
    entries = Writer(SEATS[0]).many(3)
    one.hold(*entries)
    two.hold(*entries)
    block = proposed(one)
    for _ in range(3):
        assert two.chain.check(block) is Check.VALID
    assert two.disk.commit() == 0
    assert two.chain.height == 0
    assert two.machine.applied == [entry.id for entry in entries], "executed once"


def test_nothing_to_order_is_no_block() -> None:
    """Without news there is no content; with news that too few hold there is none either."""
    held = {"next": 0}
    node = ToyNode(GENESIS, available=lambda lane: held["next"])
    assert not node.chain.pending()
    assert node.propose() is None
    node.hold(*Writer(SEATS[0]).many(3))
    assert not node.chain.pending()
    assert node.propose() is None
    held["next"] = 2
    assert node.chain.pending()
    assert body_of(proposed(node)).summary.count == 2


@pytest.mark.parametrize(
    "change",
    [
        {"time": CREATED_MS + 999_999},
        {"clock": CREATED_MS + 999_999},
        {"count": 2},
        {"entries": bytes(32)},
        {"verdicts": bytes(32)},
        {"state": bytes(32)},
    ],
)
def test_a_summary_that_execution_does_not_confirm_is_invalid(change: dict[str, Any]) -> None:
    """Roots, count and time are worked out again by every voter, not believed."""
    one, two = pair()
    entries = Writer(SEATS[0]).many(3)
    one.hold(*entries)
    two.hold(*entries)
    block = proposed(one)
    fields = {name: getattr(body_of(block).summary, name) for name in change}
    assert fields != change
    assert two.chain.check(rewritten(block, **change)) is Check.INVALID


def test_a_header_that_does_not_fit_is_invalid() -> None:
    """Another height, ledger or content than the bytes say."""
    one, two = pair()
    entries = Writer(SEATS[0]).many(3)
    one.hold(*entries)
    two.hold(*entries)
    block = proposed(one)
    for field, value in (
        ("height", 2),
        ("height", 0),
        ("ledger", bytes(32)),
        ("content", bytes(32)),
    ):
        header = msgspec.structs.replace(block.header, **{field: value})
        assert two.chain.check(Block(header=header, content=block.content)) is Check.INVALID
    assert two.chain.check(Block(header=block.header, content=b"")) is Check.INVALID
    spoiled = block.content[:-1] + bytes([block.content[-1] ^ 1])
    assert two.chain.check(Block(header=block.header, content=spoiled)) is Check.INVALID


def test_tips_that_order_nothing_new_or_another_entry_are_invalid() -> None:
    """A tip stands above what is ordered, and names the entry that is there."""
    one, two = pair()
    writer = Writer(SEATS[0])
    entries = writer.many(4)
    one.hold(*entries[:2])
    two.hold(*entries[:2])
    first = one.order(two)
    assert first.header.height == 1
    one.hold(*entries[2:])
    two.hold(*entries[2:])
    block = proposed(one)
    (tip,) = body_of(block).tips
    old = msgspec.structs.replace(tip, seq=1, id=entries[1].id)
    assert two.chain.check(rewritten(block, [old])) is Check.INVALID
    wrong = msgspec.structs.replace(tip, id=entries[2].id)
    assert two.chain.check(rewritten(block, [wrong])) is Check.INVALID
    far = msgspec.structs.replace(tip, seq=tip.seq + BLOCK_ENTRIES_MAX)
    assert two.chain.check(rewritten(block, [far])) is Check.INVALID


def test_an_empty_block_needs_a_reason() -> None:
    """BFT: a view between it and its parent ended without a block. Raft: never."""
    for engine, verdicts in (("bft", [Check.INVALID, Check.VALID]), ("raft", [Check.INVALID] * 2)):
        genesis = genesis_of(SEATS, engine=engine)
        one, two = ToyNode(genesis), ToyNode(genesis, seat=1)
        entries = Writer(SEATS[0]).many(1)
        one.hold(*entries)
        two.hold(*entries)
        parent = proposed(one)
        assert one.chain.check(parent) is Check.VALID
        assert two.chain.check(parent) is Check.VALID
        for view, expected in zip((2, 3), verdicts, strict=True):
            empty = one.propose(parent=parent.header, view=view)
            assert (empty is None) == (expected is Check.INVALID)
            if empty is not None:
                assert two.chain.check(empty) is expected


def test_bodies_that_are_not_here_make_a_block_wait() -> None:
    """``MISSING`` until they have come and are durable, then ``VALID``; never voted for before."""
    one, two = pair()
    entries = Writer(SEATS[0]).many(3)
    one.hold(*entries)
    block = proposed(one)
    assert two.chain.check(block) is Check.MISSING
    two.hold(*entries[:2])
    assert two.chain.check(block) is Check.MISSING
    two.logs.append(entries[2])
    assert two.chain.check(block) is Check.MISSING, "stored but not flushed is not here"
    two.disk.commit()
    two.logs.settle(entries[2].lane, 3)
    assert two.chain.check(block) is Check.VALID


def test_a_block_on_an_unknown_parent_waits() -> None:
    """It may come; nothing is said of a block whose parent was never executed here."""
    one, two = pair()
    entries = Writer(SEATS[0]).many(2)
    one.hold(entries[0])
    two.hold(*entries)
    parent = proposed(one)
    assert one.chain.check(parent) is Check.VALID
    one.hold(entries[1])
    child = proposed(one, parent=parent.header)
    assert two.chain.check(child) is Check.MISSING
    assert two.chain.check(parent) is Check.VALID
    assert two.chain.check(child) is Check.VALID


def test_what_execution_reads_elsewhere_must_be_here() -> None:
    """``ready`` holds an entry back from the own blocks, and others' blocks in ``MISSING``."""
    ready = {"now": False}
    one = ToyNode(GENESIS)
    two = ToyNode(GENESIS, seat=1, ready=lambda entry: ready["now"])
    entries = Writer(SEATS[0]).many(1)
    one.hold(*entries)
    two.hold(*entries)
    block = proposed(one)
    assert two.chain.check(block) is Check.MISSING
    assert two.propose() is None
    ready["now"] = True
    assert two.chain.check(block) is Check.VALID


# --- verdicts -------------------------------------------------------------------------------


def test_a_refused_entry_blocks_none_behind_it() -> None:
    """Its verdict is kept with what it contradicts; the next of its log is applied."""
    node, one, two = ToyNode(GENESIS), Writer(SEATS[0]), Writer(SEATS[1])
    first = one.write("toy.once", [b"pack", b""])
    node.hold(first)
    node.order()
    second = two.write("toy.once", [b"pack", b""], refs=(first.id,))
    third = two.write("toy.put", [b"k", b"v"])
    node.hold(second, third)
    decided = node.order()
    assert [verdict.code for verdict in decided.verdicts] == ["taken", "applied"]
    for chain in (node.chain, reopened(node).chain):
        assert chain.verdict_of(second) == Verdict(code="taken", other=first.id)
        assert chain.verdict_of(third) == Verdict(code="applied")
        assert chain.height_of(second) == 2
        assert chain.state.get(b"toyk") == b"v"


def reopened(node: ToyNode) -> ToyNode:
    node.open()
    return node


def test_a_reference_must_be_ordered_before() -> None:
    """Unknown, or here but not ordered: ``reference_missing``. In the same block: taken first."""
    node, one, two = ToyNode(GENESIS), Writer(SEATS[0]), Writer(SEATS[1])
    base = one.write()
    follower = two.write(refs=(base.id,))
    dangling = two.write(refs=(hash_bytes(b"never seen"),))
    node.hold(base, follower, dangling)
    decided = node.order()
    codes = {e.id: v.code for e, v in zip(decided.entries, decided.verdicts, strict=True)}
    assert codes == {
        base.id: "applied",
        follower.id: "applied",
        dangling.id: "reference_missing",
    }
    late = two.write(refs=(one.write().id,))
    node.hold(late)
    assert [verdict.code for verdict in node.order().verdicts] == ["reference_missing"]


def test_what_is_not_ordered_has_no_verdict_and_no_height() -> None:
    """Not before the block that orders it is decided."""
    node, writer = ToyNode(GENESIS), Writer(SEATS[0])
    entries = writer.many(2)
    node.hold(*entries)
    block = proposed(node)
    assert node.chain.check(block) is Check.VALID
    assert node.chain.verdict_of(entries[0]) is None
    assert node.chain.height_of(entries[0]) is None
    node.take(block)
    assert node.chain.height_of(entries[0]) == 1
    assert node.chain.ordered_next(writer.lane) == 2
    assert not node.chain.pending()


# --- deciding -------------------------------------------------------------------------------


def test_a_fork_is_never_applied() -> None:
    """What does not extend the decided head raises, and changes nothing."""
    one, two = pair()
    entries = Writer(SEATS[0]).many(4)
    one.hold(*entries[:2])
    two.hold(*entries)
    left, right = proposed(one), proposed(two)
    assert header_digest(left.header) != header_digest(right.header)
    two.take(left)
    with pytest.raises(InvariantError):
        two.chain.decide(right, None)
    assert two.chain.head_digest == header_digest(left.header)


def test_a_block_that_was_not_checked_is_not_decided() -> None:
    """Deciding executes nothing: without a check there is no state to write."""
    one, two = pair()
    entries = Writer(SEATS[0]).many(1)
    one.hold(*entries)
    two.hold(*entries)
    block = proposed(one)
    with pytest.raises(InvariantError):
        two.chain.decide(block, None)


def test_undecided_blocks_stand_on_each_other() -> None:
    """A child executes on its parent's layer; deciding both in order makes both durable."""
    one, two = pair()
    entries = Writer(SEATS[0]).many(4)
    one.hold(*entries[:2])
    two.hold(*entries)
    first = proposed(one)
    assert one.chain.check(first) is Check.VALID
    one.hold(*entries[2:])
    second = proposed(one, parent=first.header)
    assert two.chain.check(first) is Check.VALID
    assert two.chain.check(second) is Check.VALID
    with pytest.raises(InvariantError):
        two.chain.decide(second, None)
    for block in (first, second):
        one.take(block)
        two.take(block)
    assert one.chain.state_root == two.chain.state_root
    assert two.chain.height == 2
    assert two.machine.applied == [entry.id for entry in entries]


def test_siblings_of_a_decided_block_are_forgotten() -> None:
    """What stood on a branch that lost has no parent any more, and left nothing in the state."""
    one, two = pair()
    left, right = Writer(SEATS[0]), Writer(SEATS[1])
    common = left.many(2)
    one.hold(common[0])
    two.hold(*common)
    lost = proposed(one)
    assert one.chain.check(lost) is Check.VALID
    one.hold(common[1])
    child = proposed(one, parent=lost.header)
    assert two.chain.check(lost) is Check.VALID
    assert two.chain.check(child) is Check.VALID
    two.hold(*right.many(1))
    won = proposed(two)
    two.take(won)
    assert two.chain.state_root == body_of(won).summary.state
    again = msgspec.structs.replace(child.header, view=child.header.view + 1)
    assert two.chain.check(Block(header=again, content=child.content)) is Check.MISSING


def test_a_restart_stands_where_the_disk_stood() -> None:
    """Head, time, tips, state and its commitment come back; the next block follows."""
    node, writer = ToyNode(GENESIS), Writer(SEATS[0])
    for number in range(3):
        node.hold(*writer.many(number + 1))
        node.order()
    before = (node.chain.head_digest, node.chain.time_ms, node.chain.state_root)
    node.open()
    assert (node.chain.head_digest, node.chain.time_ms, node.chain.state_root) == before
    assert node.chain.height == 3
    assert node.chain.ordered_next(writer.lane) == 6
    node.hold(*writer.many(1))
    assert node.order().header.height == 4


def test_a_crash_before_the_flush_is_a_block_that_was_not_decided() -> None:
    """Block, state, verdicts and commitment are staged in one go: all of them, or none."""
    node, writer = ToyNode(GENESIS), Writer(SEATS[0])
    node.hold(*writer.many(2))
    node.order()
    before = node.chain.state_root
    node.hold(*writer.many(2))
    block = proposed(node)
    assert node.chain.check(block) is Check.VALID
    node.chain.decide(block, None)
    node.disk._staged.forget()  # the power is cut
    node.open()
    assert (node.chain.height, node.chain.state_root) == (1, before)
    assert node.take(block).header.height == 2


def test_the_state_root_is_the_commitment_to_the_rows_on_the_disk() -> None:
    """Summed afresh from what is stored, after puts, overwrites and refusals."""
    node, one, two = ToyNode(GENESIS), Writer(SEATS[0]), Writer(SEATS[1])
    for number in range(4):
        value = bytes([number])
        node.hold(one.write("toy.put", [b"same", value]), two.write("toy.once", [b"x", value]))
        node.order()
    skip = len(node.chain.ledger)
    rows = node.disk.scan(
        Space.STATE, node.chain.ledger, node.chain.ledger + b"\xff" * 99, limit=999
    )
    assert len(rows) >= 4
    total = lthash.changed(lthash.EMPTY, [(key[skip:], None, value) for key, value in rows])
    assert lthash.state_root(total) == node.chain.state_root


@settings(max_examples=25, deadline=None)
@given(
    turns=st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 4), st.booleans()), min_size=1, max_size=18
    )
)
def test_whoever_builds_all_end_alike(turns: list[tuple[int, int, bool]]) -> None:
    """Builders in turn, entries in any number, restarts between: one chain, one state."""
    nodes = [ToyNode(GENESIS, seat=seat, wall_ms=CREATED_MS + 7 * seat) for seat in range(3)]
    writers = [Writer(device) for device in SEATS]
    for builder, count, restart in turns:
        writer = writers[count % 4]
        kind = "toy.once" if count == 3 else "toy.put"
        entries = [writer.write(kind, [bytes([n]), b"v"]) for n in range(count)]
        for node in nodes:
            node.hold(*entries)
        if restart:
            nodes[builder].open()
        nodes[builder].wall_ms += 100
        block = nodes[builder].propose()
        if block is not None:
            for node in nodes:
                node.take(block)
    assert len({node.chain.head_digest for node in nodes}) == 1
    assert len({node.chain.state_root for node in nodes}) == 1
    assert len({node.chain.time_ms for node in nodes}) == 1


# --- limits and fairness --------------------------------------------------------------------


def test_a_backlog_is_ordered_in_few_blocks_and_a_short_log_is_not_kept_waiting() -> None:
    """A block takes 4,096 entries at most; a log with little to say is in the first one."""
    node, long, short = ToyNode(GENESIS), Writer(SEATS[0]), Writer(SEATS[1])
    node.hold(*long.many(5_000))
    node.hold(*short.many(3))
    decided = node.order()
    assert len(decided.entries) == BLOCK_ENTRIES_MAX
    assert node.chain.ordered_next(short.lane) == 3
    assert len(node.order().entries) == 5_003 - BLOCK_ENTRIES_MAX
    assert node.propose() is None


# --- time -----------------------------------------------------------------------------------


def test_block_time_only_rises() -> None:
    """A wall clock that goes back costs a millisecond a block, never an order."""
    node, writer = ToyNode(GENESIS), Writer(SEATS[0])
    times = [node.chain.time_ms]
    for wall in (CREATED_MS + 50, CREATED_MS + 40, 0, CREATED_MS - 10**9, CREATED_MS + 60):
        node.wall_ms = wall
        node.hold(*writer.many(1))
        node.order()
        times.append(node.chain.time_ms)
    assert all(later > earlier for earlier, later in pairwise(times))


def test_one_liar_moves_no_block_s_time() -> None:
    """Among four seats, one clock in the year 3000 is outvoted by the median, from block one."""
    year_3000 = 32_503_680_000_000
    nodes = [ToyNode(GENESIS, seat=seat) for seat in range(4)]
    nodes[0].wall_ms = year_3000
    writer = Writer(SEATS[0])
    for turn in range(12):
        entry = writer.write()
        for node in nodes:
            node.hold(entry)
        nodes[turn % 4].order(*(node for node in nodes if node is not nodes[turn % 4]))
        assert nodes[1].chain.time_ms < CREATED_MS + 10_000
    assert nodes[1].chain.time_ms >= CREATED_MS + 1_000, "three true clocks are followed"


def test_raft_s_time_is_its_leader_s() -> None:
    """Only a leader builds, and no seat lies: stale readings of former leaders do not count."""
    genesis = genesis_of(devices(3), engine="raft")
    one, two = ToyNode(genesis, seat=0), ToyNode(genesis, seat=1)
    writer = Writer(SEATS[0])
    one.hold(entry := writer.write())
    two.hold(entry)
    one.order(two)
    two.wall_ms = CREATED_MS + 20 * 3_600_000
    one.hold(entry := writer.write())
    two.hold(entry)
    two.order(one)
    assert one.chain.time_ms == two.wall_ms


# --- forked logs ----------------------------------------------------------------------------


def test_a_forked_log_is_ordered_up_to_its_fork_and_holds_up_nobody() -> None:
    """Nodes that read different branches still agree on blocks: neither orders its branch."""
    one, two = pair()
    writer, honest = Writer(SEATS[0]), Writer(SEATS[1])
    shared = writer.many(2)
    twin = writer.fork()
    left, right = writer.write(body=[b"k", b"1"]), twin.write(body=[b"k", b"2"])
    others = honest.many(2)
    one.hold(*shared, left, *others)
    two.hold(*shared, right, *others)
    one.logs.freeze(right)
    two.logs.freeze(left)
    for builder, voter in ((one, two), (two, one)):
        block = proposed(builder)
        assert voter.chain.check(block) is Check.VALID
        assert body_of(block).summary.count == 4
    one.take(proposed(one))
    assert one.propose() is None
    assert not one.chain.pending()
