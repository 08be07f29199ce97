"""Hybrid logical clocks: causal order under wrong wall clocks, and nobody is dragged away."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from p2pmed.ledger.hlc import HybridClock, hlc_ms
from p2pmed.limits import HLC_AHEAD_MS_MAX

NOW = 1_800_000_000_000
walls = st.integers(-(2**40), 2**43)


@given(walls=st.lists(walls, max_size=30), last=st.integers(0, 2**59))
def test_ticks_only_rise(walls: list[int], last: int) -> None:
    """Whatever the wall clock does, every reading is above all readings before."""
    clock = HybridClock(last)
    readings = [last, *(clock.tick(wall) for wall in walls)]
    assert all(a < b for a, b in pairwise(readings))


@given(heard=st.integers(0, HLC_AHEAD_MS_MAX), wall=st.integers(0, 2**42))
def test_what_follows_reads_later_than_what_was_heard(heard: int, wall: int) -> None:
    """An answer is above the question, even where the answering clock is behind by a day."""
    theirs, mine = HybridClock(), HybridClock()
    question = theirs.tick(wall + heard)
    assert mine.observe(question, wall)
    assert mine.tick(wall) > question


def test_a_good_wall_clock_is_what_a_reading_shows() -> None:
    """Where clocks are right, a reading's milliseconds are the time."""
    clock = HybridClock()
    assert hlc_ms(clock.tick(NOW)) == NOW
    assert hlc_ms(clock.tick(NOW + 5)) == NOW + 5


def test_a_clock_set_to_2090_is_not_followed() -> None:
    """A reading more than a day ahead is refused, and leaves the own clock where it was."""
    clock = HybridClock()
    before = clock.tick(NOW)
    assert not clock.observe((NOW + HLC_AHEAD_MS_MAX + 1) << 16, NOW)
    assert clock.last == before
    assert clock.observe((NOW + HLC_AHEAD_MS_MAX) << 16, NOW)


def test_many_small_steps_drag_nobody_further_than_one() -> None:
    """A liar that stays just within the bound, again and again, gets no further than the bound."""
    clock = HybridClock()
    clock.tick(NOW)
    for step in range(1, 1_000):
        clock.observe((NOW + step * (HLC_AHEAD_MS_MAX // 2)) << 16, NOW)
    assert hlc_ms(clock.last) <= NOW + HLC_AHEAD_MS_MAX


def test_a_lost_wall_clock_still_follows_its_neighbours() -> None:
    """After a dead battery set it to 1970, what was read before the restart is the measure."""
    clock = HybridClock(NOW << 16)
    assert clock.observe((NOW + 60_000) << 16, 0)
    assert hlc_ms(clock.tick(0)) == NOW + 60_000
