"""The order inside a block, and the strict reading of its content."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_ledger import Writer, devices

from p2pmed.errors import DecodeError
from p2pmed.ledger.block import (
    Body,
    Summary,
    Tip,
    content_hash,
    decode_body,
    order_entries,
    tips_root,
    verdict_leaf,
)
from p2pmed.ledger.state import Verdict
from p2pmed.ledger.transaction import Entry
from p2pmed.wire import codec


def defined_order(entries: list[Entry]) -> list[bytes]:
    """Of those whose predecessors and references are taken, the smallest id; until none is left."""
    left = {entry.id: entry for entry in entries}
    order: list[bytes] = []
    while left:
        free = [
            entry.id
            for entry in left.values()
            if not any(name in left for name in (entry.envelope.prev, *entry.envelope.refs))
        ]
        order.append(min(free))
        del left[order[-1]]
    return order


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_the_order_is_topological_with_ties_by_id(data: st.DataObject) -> None:
    """As the definition says, whatever the logs, the references, and the order of arrival."""
    writers = [Writer(device) for device in devices(4)]
    entries: list[Entry] = []
    for number in range(data.draw(st.integers(0, 14))):
        writer = writers[data.draw(st.integers(0, 3))]
        refs = data.draw(st.lists(st.sampled_from(entries), max_size=3)) if entries else []
        refs_ids = tuple(dict.fromkeys(entry.id for entry in refs))
        entries.append(writer.write(body=[b"k", bytes([number])], refs=refs_ids))
    shown = data.draw(st.permutations(entries))
    kept = shown[: data.draw(st.integers(0, len(shown)))]
    assert [entry.id for entry in order_entries(kept)] == defined_order(list(kept))
    assert [entry.id for entry in order_entries(reversed(kept))] == defined_order(list(kept))


def test_a_reference_outside_the_block_does_not_hold_an_entry_back() -> None:
    """It was ordered before or is missing; either way it is not this order's business."""
    writer = Writer(devices(1)[0])
    entry = writer.write(refs=(bytes([3]) * 32,))
    assert order_entries([entry]) == [entry]


def test_an_entry_that_refers_to_one_twice_waits_for_it_once() -> None:
    """``prev`` that is also a reference is one dependency."""
    writer = Writer(devices(1)[0])
    first = writer.write()
    second = writer.write(refs=(first.id,))
    assert [entry.id for entry in order_entries([second, first])] == [first.id, second.id]


def tip(author: int, incarnation: int = 0, seq: int = 0) -> Tip:
    return Tip(
        author=bytes([author]) * 32, incarnation=bytes([incarnation]) * 16, seq=seq, id=bytes(32)
    )


def body(*tips: Tip) -> Body:
    summary = Summary(
        version=1,
        clock=1,
        time=2,
        tips=tips_root(tips),
        entries=bytes(32),
        count=0,
        verdicts=bytes(32),
        state=bytes(32),
    )
    return Body(summary=summary, tips=tips)


def test_tips_have_one_order() -> None:
    """By author, then incarnation; twice or out of order is no spelling of a block."""
    good = body(tip(1), tip(1, 1), tip(2))
    assert decode_body(codec.encode(good), limit=10_000) == good
    for wrong in (body(tip(2), tip(1)), body(tip(1, 1), tip(1)), body(tip(1), tip(1, seq=5))):
        with pytest.raises(DecodeError):
            decode_body(codec.encode(wrong), limit=10_000)


def test_a_content_longer_than_its_limit_is_refused() -> None:
    """The limit is checked before anything is built from the bytes."""
    raw = codec.encode(body(tip(1)))
    with pytest.raises(DecodeError):
        decode_body(raw, limit=len(raw) - 1)


def test_every_field_of_the_summary_is_in_its_hash() -> None:
    """A header's content changes with each of them."""
    one = body(tip(1)).summary
    hashes = {content_hash(one)}
    for name, value in {
        "clock": 9,
        "time": 9,
        "tips": bytes([1]) * 32,
        "entries": bytes([1]) * 32,
        "count": 9,
        "verdicts": bytes([1]) * 32,
        "state": bytes([1]) * 32,
    }.items():
        fields = {field: getattr(one, field) for field in one.__struct_fields__}
        hashes.add(content_hash(Summary(**{**fields, name: value})))
    assert len(hashes) == 8


def test_verdict_leaves_tell_verdicts_apart() -> None:
    """Another entry, code or contradiction is another leaf; no contradiction reads as zeros."""
    entry, other = bytes([1]) * 32, bytes([2]) * 32
    leaves = {
        verdict_leaf(entry, Verdict(code="applied")),
        verdict_leaf(other, Verdict(code="applied")),
        verdict_leaf(entry, Verdict(code="taken")),
        verdict_leaf(entry, Verdict(code="taken", other=other)),
    }
    assert len(leaves) == 4
    assert verdict_leaf(entry, Verdict(code="applied")) == entry + bytes(32) + b"applied"
