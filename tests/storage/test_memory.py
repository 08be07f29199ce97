"""The overlay of staged writes: batches in flight, and what is dropped when."""

from __future__ import annotations

from random import Random

import pytest

from p2pmed.storage.memory import MemoryBase, SortedMap, StagedMap
from p2pmed.world import Space

S = Space.STATE


def test_a_batch_in_flight_stays_visible() -> None:
    """Between ``seal`` and ``done`` a row is read from the overlay, then from the base."""
    base = MemoryBase()
    staged = StagedMap(base)
    staged.stage(S, b"k", b"1")
    batch = staged.seal()
    assert staged.get(S, b"k") == b"1"
    assert base.get(S, b"k") is None
    base.apply(batch)
    assert staged.scan(S, b"", b"z", limit=9) == [(b"k", b"1")]
    staged.done(batch)
    assert staged.get(S, b"k") == b"1"
    assert staged.staged_bytes == 0


def test_a_newer_write_outlives_the_older_batch() -> None:
    """``done`` drops only what nobody wrote since: a newer value or delete stays on top."""
    base = MemoryBase()
    staged = StagedMap(base)
    for key in (b"a", b"b", b"c"):
        staged.stage(S, key, b"old")
    first = staged.seal()
    staged.stage(S, b"a", b"new")
    staged.stage(S, b"b", None)
    second = staged.seal()
    base.apply(first)
    staged.done(first)
    assert staged.scan(S, b"", b"z", limit=9) == [(b"a", b"new"), (b"c", b"old")]
    base.apply(second)
    staged.done(second)
    assert staged.scan(S, b"", b"z", limit=9) == [(b"a", b"new"), (b"c", b"old")]
    assert base.get(S, b"b") is None


def test_batches_are_first_in_first_out() -> None:
    """Reporting a younger batch before an older one is our own mistake, and caught."""
    staged = StagedMap(MemoryBase())
    staged.stage(S, b"a", b"1")
    staged.seal()
    staged.stage(S, b"a", b"2")
    younger = staged.seal()
    with pytest.raises(AssertionError):
        staged.done(younger)


def test_forget_shows_the_base() -> None:
    """After a failed commit the overlay is gone: reads show what was committed."""
    base = MemoryBase()
    staged = StagedMap(base)
    staged.stage(S, b"a", b"1")
    batch = staged.seal()
    base.apply(batch)
    staged.done(batch)
    staged.stage(S, b"a", None)
    staged.seal()
    staged.stage(S, b"b", b"2")
    staged.forget()
    assert staged.scan(S, b"", b"z", limit=9) == [(b"a", b"1")]
    assert not staged.dirty
    assert staged.staged_bytes == 0


def test_staged_bytes_count_each_row_once() -> None:
    """Writing a row again replaces its bytes in the count."""
    staged = StagedMap(MemoryBase())
    staged.stage(S, b"abc", b"1234567")
    staged.stage(S, b"abc", b"12")
    assert staged.staged_bytes == 5
    staged.stage(S, b"abc", None)
    assert staged.staged_bytes == 3
    staged.seal()
    staged.stage(S, b"x", b"y")
    assert staged.staged_bytes == 5


def test_a_batch_shows_no_contents() -> None:
    """``repr`` of a batch has sizes only."""
    staged = StagedMap(MemoryBase())
    staged.stage(S, b"patient", b"diagnosis")
    assert repr(staged.seal()) == "<Batch 1: 1 rows, 16 bytes>"


def test_sorted_map_walks_as_sorted_does() -> None:
    """Puts and drops, few and many at a time, keep the walk equal to sorting the keys."""
    rng = Random(3)
    table: SortedMap[int] = SortedMap()
    model: dict[bytes, int] = {}
    for turn in range(300):
        for _ in range(rng.choice((1, 5, 60))):
            key = rng.randbytes(1)
            table.put(key, turn)
            model[key] = turn
        gone = [rng.randbytes(1) for _ in range(rng.choice((0, 3, 40)))]
        if rng.random() < 0.02:
            gone = list(model)
        table.drop(gone)
        for key in gone:
            model.pop(key, None)
        low, high = rng.randbytes(1), rng.randbytes(1)
        keys = sorted(key for key in model if low <= key < high)
        assert list(table.walk(low, high)) == keys
        assert list(table.walk(low, high, reverse=True)) == keys[::-1]
        assert table.rows == model
