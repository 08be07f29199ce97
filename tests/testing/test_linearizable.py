"""The checker of linearizability: histories known to be good or bad, and an exhaustive search."""

from __future__ import annotations

from itertools import permutations
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pmed.testing.linearizable import UNKNOWN, Operation, Register, by_key, check


def op(process: int, began: int, ended: int | None, call: Any, output: Any = UNKNOWN) -> Operation:
    return Operation(process=process, began=began, ended=ended, call=call, output=output)


def read(process: int, began: int, ended: int | None, value: Any) -> Operation:
    return op(process, began, ended, ("read",), value)


def write(process: int, began: int, ended: int | None, value: Any) -> Operation:
    return op(process, began, ended, ("write", value))


KNOWN: list[tuple[str, list[Operation], bool]] = [
    ("nothing happened", [], True),
    ("read your write", [write(0, 0, 1, 1), read(0, 2, 3, 1)], True),
    ("a stale read", [write(0, 0, 1, 1), write(0, 2, 3, 2), read(1, 4, 5, 1)], False),
    ("a read of the initial value after a write", [write(0, 0, 1, 1), read(1, 2, 3, None)], False),
    (  # Herlihy and Wing (1990), section 2: a write that overlaps both reads
        "overlapping reads see the change once",
        [write(0, 0, 9, 1), read(1, 1, 2, None), read(1, 3, 4, 1)],
        True,
    ),
    (
        "overlapping reads see the change and lose it",
        [write(0, 0, 9, 1), read(1, 1, 2, 1), read(2, 3, 4, None)],
        False,
    ),
    (
        "two readers disagree on the order of two writes",
        [
            write(0, 0, 3, 1),
            write(1, 0, 3, 2),
            *(read(2, 4, 5, 1), read(2, 6, 7, 2)),
        ],
        False,
    ),
    (
        "a lost answer took effect later",
        [write(0, 0, None, 1), read(1, 1, 2, None), read(1, 3, 4, 1)],
        True,
    ),
    (
        "a lost answer never took effect",
        [write(0, 0, None, 1), read(1, 1, 2, None), read(1, 30, 40, None)],
        True,
    ),
    (
        "a lost answer took effect and was undone",
        [write(0, 0, None, 1), read(1, 1, 2, 1), read(1, 3, 4, None)],
        False,
    ),
    (
        "one of two races wins",
        [op(0, 0, 5, ("cas", None, 1), True), op(1, 0, 5, ("cas", None, 2), False)],
        True,
    ),
    (
        "both of two races win",
        [op(0, 0, 5, ("cas", None, 1), True), op(1, 0, 5, ("cas", None, 2), True)],
        False,
    ),
    (
        "a race that fails although nobody was there",
        [op(0, 0, 1, ("cas", None, 1), False)],
        False,
    ),
]


@pytest.mark.parametrize(("name", "history", "good"), KNOWN, ids=[name for name, _, _ in KNOWN])
def test_known_histories(name: str, history: list[Operation], good: bool) -> None:
    """Textbook histories get their known verdicts, and a bad one says where it gets stuck."""
    verdict = check(history, Register())
    assert verdict.linearizable is good
    assert good or verdict.stuck


def exhaustive(history: list[Operation]) -> bool:
    """Every order of every subset that leaves out lost operations only."""
    lost = [o for o in history if o.ended is None]
    for mask in range(1 << len(lost)):
        left_out = {id(o) for i, o in enumerate(lost) if mask >> i & 1}
        kept = [o for o in history if id(o) not in left_out]
        if any(fits(order) for order in permutations(kept)):
            return True
    return False


def fits(order: tuple[Operation, ...]) -> bool:
    model = Register()
    state = model.start()
    for place, operation in enumerate(order):
        if any(
            later.ended is not None and later.ended < operation.began
            for later in order[place + 1 :]
        ):
            return False
        allowed, state = model.step(state, operation.call, operation.output)
        if not allowed:
            return False
    return True


values = st.integers(0, 2)
calls = st.one_of(
    st.tuples(st.just(("read",)), st.one_of(values, st.none())),
    st.tuples(st.tuples(st.just("write"), values), st.just(UNKNOWN)),
    st.tuples(st.tuples(st.just("cas"), values, values), st.booleans()),
)


@st.composite
def histories(draw: st.DrawFn) -> list[Operation]:
    """Up to six operations of up to three processes, each process one at a time."""
    clock, found = dict.fromkeys(range(3), 0), []
    for _ in range(draw(st.integers(0, 6))):
        process = draw(st.integers(0, 2))
        if clock[process] is None:
            continue
        began = clock[process] + draw(st.integers(1, 4))
        ended = None if draw(st.integers(0, 5)) == 0 else began + draw(st.integers(0, 6))
        call, output = draw(calls)
        found.append(op(process, began, ended, call, UNKNOWN if ended is None else output))
        clock[process] = ended if ended is not None else 1_000
    return found


@settings(max_examples=400, deadline=None)
@given(histories())
def test_the_search_agrees_with_trying_everything(history: list[Operation]) -> None:
    """On small histories, good and bad, the answer is that of all permutations."""
    verdict = check(history, Register())
    assert verdict.linearizable is exhaustive(history)


def recorded(seed: int, size: int) -> list[Operation]:
    """A history that a true register gave: each operation took effect inside its interval."""
    random, state, found = Random(seed), None, []
    busy = dict.fromkeys(range(8), 0)
    for moment in range(10, size * 10, 10):
        process = random.choice([p for p in busy if busy[p] < moment])
        began, ended = max(busy[process], moment - random.randint(0, 60)) + 1, moment + 1
        ended += random.randint(0, 60)
        value = random.randint(0, 9)
        if random.random() < 0.5:
            found.append(read(process, began, ended, state))
        elif random.random() < 0.02:
            state = value
            found.append(write(process, began, None, value))
        else:
            state = value
            found.append(write(process, began, ended, value))
        busy[process] = ended
    return found


@pytest.mark.parametrize("seed", range(5))
def test_long_true_histories_pass_and_one_wrong_read_fails(seed: int) -> None:
    """Five hundred overlapping operations pass; with one read of a value never written, not."""
    history = recorded(seed, 500)
    assert check(history, Register()).linearizable is True
    place = max(i for i, o in enumerate(history) if o.call == ("read",))
    wrong = history[place]
    history[place] = read(wrong.process, wrong.began, wrong.ended, 77)
    verdict = check(history, Register())
    assert verdict.linearizable is False
    assert any(o.output == 77 for o in verdict.stuck)


def test_objects_are_checked_apart() -> None:
    """A history is cut by key; a fault of one object does not hide in another's operations."""
    mixed = [
        op(0, 0, 1, ("a", "write", 1)),
        op(0, 2, 3, ("b", "write", 2)),
        op(1, 4, 5, ("a", "read"), 1),
    ]
    apart = by_key(mixed, lambda each: each.call[0])
    assert {key: len(each) for key, each in apart.items()} == {"a": 2, "b": 1}
