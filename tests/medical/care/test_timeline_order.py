"""One story of the same entries on every node, whatever the clocks said."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from p2pmed.ledger.transaction import Entry, Envelope, LaneKey
from p2pmed.medical.care.timeline import LATE_MS, causal_order, is_late
from p2pmed.wire.hashing import digest


def entry(author: int, seq: int, hlc: int, refs: tuple[bytes, ...] = (), salt: int = 0) -> Entry:
    name = digest("test", f"{author} {seq} {hlc} {salt} {refs}".encode())
    envelope = Envelope(
        version=1, incarnation=bytes(16), seq=seq, prev=bytes(32), ledger=b"", hlc=hlc, wall=0,
        clock=0, kind="record.add", kind_version=1, actor=b"", subject=bytes(16), refs=refs,
        body=[],
    )  # fmt: skip
    lane = LaneKey(bytes([author]) * 32, bytes(16))
    return Entry(name, lane, envelope, b"", b"", b"")


@st.composite
def histories(draw: Any) -> list[Entry]:
    """Logs with clocks that lie, and refs to anything written before."""
    made: list[Entry] = []
    seqs: dict[int, int] = {}
    for _ in range(draw(st.integers(0, 25))):
        author = draw(st.integers(1, 4))
        refs = draw(st.lists(st.sampled_from(made), max_size=3, unique=True)) if made else []
        seq = seqs.get(author, 0) + draw(st.integers(0, 2))  # gaps: entries about others
        seqs[author] = seq + 1
        clock = draw(st.integers(0, 6))
        made.append(entry(author, seq, clock, tuple(each.id for each in refs)))
    return made


@given(histories(), st.integers())
def test_causes_come_first_in_one_order(made: list[Entry], seed: int) -> None:
    """Each log in its order, refs before what names them; the same from any arrangement."""
    ordered = causal_order(made)
    assert sorted(each.id for each in ordered) == sorted(each.id for each in made)
    place = {each.id: number for number, each in enumerate(ordered)}
    for each in made:
        assert all(place[ref] < place[each.id] for ref in each.envelope.refs)
        for other in made:
            if other.lane == each.lane and other.seq < each.seq:
                assert place[other.id] < place[each.id]
    shuffled = list(made)
    random.Random(seed).shuffle(shuffled)
    assert [each.id for each in causal_order(shuffled)] == [each.id for each in ordered]


def test_two_branches_of_one_log_stand_side_by_side() -> None:
    """Two entries of one place follow from the same one, and neither from the other."""
    first, left, right = entry(1, 0, 5), entry(1, 1, 2, salt=1), entry(1, 1, 3, salt=2)
    assert causal_order([right, left, first]) == [first, left, right]


def test_a_liar_s_branches_that_name_each_other_lose_no_entry() -> None:
    """What looks like a circle from outside is told by clock, and what follows from it too."""
    other = entry(1, 6, 9)
    crossed = entry(1, 5, 4, (other.id,))
    honest = entry(2, 0, 1, (crossed.id,))
    found = causal_order([other, crossed, honest])
    assert {each.id for each in found} == {other.id, crossed.id, honest.id}


def test_late_is_more_than_two_days_after() -> None:
    """A date without a time counts from its beginning; what says no date is not late."""
    assert not is_late(0, LATE_MS)
    assert is_late(0, LATE_MS + 1)
    assert not is_late(None, LATE_MS + 1)
    assert not is_late(LATE_MS, 0)
