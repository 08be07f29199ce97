"""The table of what is here, and the mirrors of what is there."""

from __future__ import annotations

import hashlib
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from p2pmed.gossip.frontier import FOREIGN_LANES_MAX, LaneTable, Mirror, digest_of
from p2pmed.gossip.messages import BUCKET_PREFIX_BYTES
from p2pmed.ledger.transaction import LaneKey

LANES = [LaneKey(random.Random(n).randbytes(32), bytes([n]) * 16) for n in range(40)]
LANES += [LaneKey(LANES[0].author, bytes([n]) * 16) for n in range(100, 105)]

marks = st.lists(st.tuples(st.sampled_from(LANES), st.integers(1, 2**53)), max_size=60)


def settled(table: LaneTable, mirrors: list[Mirror], lane: LaneKey, end: int) -> None:
    """What anti-entropy does when ``lane`` grew."""
    known = table.number(lane) is not None
    table.grow(lane, end)
    if not known:
        for mirror in mirrors:
            mirror.settle(lane)


def by_the_page(found: dict[LaneKey, int]) -> bytes:
    """The digest as docs/protocols/gossip.md words it, with hashlib alone."""
    buckets = []
    for number in range(256):
        rows = sorted(
            lane.to_bytes() + end.to_bytes(8, "big")
            for lane, end in found.items()
            if lane.author[0] == number
        )
        person = b"p2pmed lanes"
        buckets.append(hashlib.blake2b(b"".join(rows), digest_size=32, person=person).digest())
    return hashlib.blake2b(b"".join(buckets), digest_size=32, person=b"p2pmed frontier").digest()


@given(marks)
@settings(max_examples=60, deadline=None)
def test_the_digest_is_that_of_the_page_whatever_the_history(history) -> None:
    """Caches never show: after any growth the digest is the one computed from scratch."""
    table, truth = LaneTable([]), {}
    for lane, end in history:
        table.digest()
        table.grow(lane, end)
        truth[lane] = max(truth.get(lane, 0), end)
        assert table.get(lane) == truth[lane]
    assert table.digest() == by_the_page(truth) == digest_of(truth.items())
    assert len(table) == len(truth)


@given(marks, marks, st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_a_mirror_hashes_like_the_table_it_mirrors(ours, theirs, dice) -> None:
    """Whatever is ours or foreign, and in whatever order both become known."""
    table = LaneTable([])
    mirror, truth = Mirror(table), {}
    todo = [(settled, each) for each in ours] + [(None, each) for each in theirs]
    dice.shuffle(todo)
    for act, (lane, end) in todo:
        if act:
            settled(table, [mirror], lane, end)
        else:
            mirror.put(lane, end)
            truth[lane] = end
        assert mirror.get(lane) == truth.get(lane, 0)
        assert mirror.digest() == digest_of(truth.items())
    assert mirror.foreign() == sorted(lane for lane in truth if table.number(lane) is None)


@given(marks, marks)
@settings(max_examples=60, deadline=None)
def test_adopting_equal_buckets_makes_a_mirror_exact(ours, theirs) -> None:
    """Pages of what differs, plus our own snapshot of what does not, are all there is."""
    table, other = LaneTable([]), LaneTable([])
    for lane, end in ours:
        table.grow(lane, end)
    for lane, end in [*ours[: len(ours) // 2], *theirs]:
        other.grow(lane, end)
    mirror, after = Mirror(table), b""
    snapshot = table.snapshot()
    while True:
        page, more, same = other.page(table.prefixes(), after, 7)
        for lane, end in page:
            mirror.put(lane, end)
        mirror.adopt(snapshot, same)
        if not more:
            break
        after = page[-1][0].to_bytes()
    assert mirror.digest() == other.digest()


def test_a_snapshot_does_not_credit_what_grew_since() -> None:
    """What we wrote after asking was not part of the question: a mirror never knows too much."""
    table = LaneTable([(LANES[0], 5)])
    mirror, snapshot = Mirror(table), table.snapshot()
    settled(table, [mirror], LANES[0], 9)
    settled(table, [mirror], LANES[1], 3)
    assert mirror.adopt(snapshot, None) == [(LANES[0], 5)]
    assert (mirror.get(LANES[0]), mirror.get(LANES[1])) == (5, 0)
    mirror.put(LANES[0], 7)
    assert mirror.adopt(snapshot, None) == []
    assert mirror.get(LANES[0]) == 7


def test_pages_come_in_the_order_of_lanes_and_end() -> None:
    """Any page size lists every lane once."""
    table = LaneTable((lane, 1) for lane in LANES)
    for size in (1, 3, len(LANES) - 1, len(LANES), 1_000):
        seen, after, more = [], b"", True
        while more:
            page, more, same = table.page(b"", after, size)
            assert len(page) <= size
            assert same == bytes(32)
            seen += [lane for lane, _ in page]
            after = page[-1][0].to_bytes()
        assert seen == sorted(LANES)


def test_equal_tables_have_an_empty_page() -> None:
    """All 256 buckets are as expected, and one bent prefix is not."""
    table = LaneTable((lane, 1) for lane in LANES)
    assert table.page(table.prefixes(), b"", 10) == ([], False, b"\xff" * 32)
    bent = bytearray(table.prefixes())
    bent[LANES[3].author[0] * BUCKET_PREFIX_BYTES] ^= 1
    page, more, _ = table.page(bytes(bent), b"", 10)
    assert LANES[3] in [lane for lane, _ in page]
    assert not more


def test_room_for_foreign_lanes_is_named_and_comes_back() -> None:
    """A peer fills its own room only, and a lane that becomes ours frees a place."""
    table = LaneTable([])
    mirror = Mirror(table)
    foreign = [LaneKey(n.to_bytes(32, "big"), bytes(16)) for n in range(FOREIGN_LANES_MAX + 1)]
    assert [mirror.put(lane, 1) for lane in foreign].count(False) == 1
    assert mirror.full
    assert mirror.put(foreign[0], 9)
    settled(table, [mirror], foreign[0], 2)
    assert not mirror.full
    assert mirror.get(foreign[0]) == 9
    assert mirror.put(foreign[-1], 1)
    assert mirror.put(foreign[1], 0)
    assert not mirror.full
