"""The language of agreed rules: each operation, each fault, and the bounds for any tree."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pmed.errors import InvalidTransaction
from p2pmed.medical.rules import (
    DEPTH_MAX,
    NODES_MAX,
    OPERATIONS,
    STEPS_MAX,
    RuleFault,
    check_rule,
    evaluate,
)
from p2pmed.wire import cbor

INPUTS = {
    "n": 7,
    "t": "text",
    "b": b"bytes",
    "yes": True,
    "lines": (("a", 1, 10), ("b", 2, 20)),
    "empty": (),
}
MAX, MIN = 2**63 - 1, -(2**63)

RESULTS = [
    (7, 7),
    ("t", "t"),
    (b"b", b"b"),
    (True, True),
    (["and", True, True, False], False),
    (["and", False, 1], False),
    (["or", False, True], True),
    (["or", True, 1], True),
    (["not", False], True),
    (["==", 1, 1], True),
    (["==", "a", "b"], False),
    (["==", b"a", b"a"], True),
    (["<", 1, 1], False),
    (["<=", 1, 1], True),
    (["+", 1, 2, 3], 6),
    (["-", 1, 2], -1),
    (["*", 2, 3, 4], 24),
    (["//", 7, 2], 3),
    (["//", -7, 2], -4),
    (["//", 7, -2], -4),
    (["min", 3, 1, 2], 1),
    (["max", 3, 1, 2], 3),
    (["if", True, 1, ["//", 1, 0]], 1),
    (["if", False, ["//", 1, 0], 2], 2),
    (["in", 2, 1, 2, "never reached"], True),
    (["in", "x", "a", "b"], False),
    (["var", "n"], 7),
    (["let", "x", 3, ["*", ["var", "x"], ["var", "x"]]], 9),
    (["let", "n", 1, ["var", "n"]], 1),
    (["at", ["at", ["var", "lines"], 1], 2], 20),
    (["count", ["var", "lines"]], 2),
    (["sum", ["var", "lines"], "l", ["at", ["var", "l"], 2]], 30),
    (["sum", ["var", "empty"], "l", 1], 0),
    (["+", MAX, 0], MAX),
]

FAULTS = [
    (["+", MAX, 1], RuleFault.OVERFLOW),
    (["-", MIN, 1], RuleFault.OVERFLOW),
    (["*", MAX, 2], RuleFault.OVERFLOW),
    (["//", MIN, -1], RuleFault.OVERFLOW),
    (["+", MAX, 1, -1], RuleFault.OVERFLOW),
    (["//", 1, 0], RuleFault.DIVISION),
    (["+", 1, True], RuleFault.TYPE),
    (["+", "a"], RuleFault.TYPE),
    (["==", 1, "1"], RuleFault.TYPE),
    (["==", 1, True], RuleFault.TYPE),
    (["==", ["var", "lines"], ["var", "lines"]], RuleFault.TYPE),
    (["and", 1], RuleFault.TYPE),
    (["not", 0], RuleFault.TYPE),
    (["if", 1, 1, 1], RuleFault.TYPE),
    (["count", 1], RuleFault.TYPE),
    (["var", "lines"], RuleFault.TYPE),
    (["var", "unknown"], RuleFault.NAME),
    (["at", ["var", "lines"], 2], RuleFault.NAME),
    (["at", ["var", "lines"], -1], RuleFault.NAME),
    (["and", ["let", "x", True, ["var", "x"]], ["var", "x"]], RuleFault.NAME),
]

NOT_RULES: list[tuple[Any, str]] = [
    (None, "$"),
    (1.5, "$"),
    ({}, "$"),
    ([], "$"),
    ([1], "$"),
    (["eval", "x"], "$"),
    (["not"], "$"),
    (["not", True, True], "$"),
    (["+"], "$"),
    (["+", 1, ["nope"]], r"$[2]"),
    (["if", False, 1, ["-", 1]], r"$[3]"),
    (["+", 2**63], r"$[1]"),
    (["+", "x" * 257], r"$[1]"),
    (["var", "not a name"], r"$[1]"),
    (["var", 1], r"$[1]"),
    (["let", "é", 1, 1], r"$[1]"),
    (["sum", 1, "", 1], r"$[2]"),
]


@pytest.mark.parametrize(("tree", "result"), RESULTS)
def test_results(tree: Any, result: Any) -> None:
    """The tree gives this value of this type, and is of the language."""
    check_rule(tree, frozenset(INPUTS))
    found = evaluate(tree, INPUTS)
    assert (type(found), found) == (type(result), result)


@pytest.mark.parametrize(("tree", "fault"), FAULTS)
def test_faults(tree: Any, fault: RuleFault) -> None:
    """The tree is of the language, and fails with this named value."""
    check_rule(tree)
    assert evaluate(tree, INPUTS) is fault


@pytest.mark.parametrize(("tree", "path"), NOT_RULES)
def test_what_is_no_rule_is_refused_with_its_path(tree: Any, path: str) -> None:
    """Publication is refused where the fault is; evaluated all the same, it is a fault."""
    with pytest.raises(InvalidTransaction) as refused:
        check_rule(tree)
    assert f"rule at {path}: " in str(refused.value)
    assert evaluate(tree, INPUTS) in (RuleFault.TREE, RuleFault.TYPE)


def test_every_operation_has_a_result_and_a_shape_that_is_refused() -> None:
    """The tables above leave no operation out."""

    def named(tree: Any) -> set[str]:
        if not isinstance(tree, list) or not tree:
            return set()
        return {tree[0]}.union(*(named(item) for item in tree[1:]))

    assert set().union(*(named(tree) for tree, _ in RESULTS)) >= set(OPERATIONS)
    for name, operation in OPERATIONS.items():
        for count in (operation.least - 1, operation.most + 1):
            with pytest.raises(InvalidTransaction, match="operands"):
                check_rule([name, *([1] * count)])


@pytest.mark.parametrize(
    ("tree", "bound"),
    [
        (["var", "n"], True),
        (["var", "m"], False),
        (["let", "m", 1, ["var", "m"]], True),
        (["let", "m", ["var", "m"], 1], False),
        (["sum", ["var", "n"], "m", ["var", "m"]], True),
        (["sum", ["var", "m"], "m", 1], False),
    ],
)
def test_names_are_bound_by_inputs_let_and_sum(tree: Any, bound: bool) -> None:
    """A binding holds in the last operand only; an unbound name is refused at publication."""
    check_rule(tree)
    if bound:
        check_rule(tree, frozenset({"n"}))
    else:
        with pytest.raises(InvalidTransaction, match="nothing binds"):
            check_rule(tree, frozenset({"n"}))


def nested(depth: int) -> Any:
    tree: Any = True
    for _ in range(depth):
        tree = ["not", tree]
    return tree


def test_depth_is_bounded() -> None:
    """The deepest rule is evaluated, one deeper is refused by check and evaluation."""
    check_rule(nested(DEPTH_MAX))
    assert evaluate(nested(DEPTH_MAX), {}) is (DEPTH_MAX % 2 == 0)
    with pytest.raises(InvalidTransaction, match="deeper"):
        check_rule(nested(DEPTH_MAX + 1))
    assert evaluate(nested(DEPTH_MAX + 1), {}) is RuleFault.TREE
    assert evaluate(nested(5_000), {}) is RuleFault.TREE


def test_size_is_bounded() -> None:
    """A rule has at most so many expressions."""
    full = ["+", *([["+", *([1] * 99)]] * 9), *([1] * 99)]
    check_rule(full)
    assert NODES_MAX == 1_000 == 1 + 9 * 100 + 99
    with pytest.raises(InvalidTransaction, match="more than"):
        check_rule([*full, 1])


def test_steps_are_bounded() -> None:
    """Sums within sums stop at the budget, whatever it is, and not a step later or earlier."""
    inputs = {"l": tuple(range(100))}
    tree: Any = 1
    for name in ("a", "b", "c", "d"):
        tree = ["sum", ["var", "l"], name, tree]
    assert evaluate(tree, inputs) is RuleFault.BUDGET
    cheap = ["sum", ["var", "l"], "x", ["var", "x"]]
    assert evaluate(cheap, inputs, 102) == sum(range(100))
    assert evaluate(cheap, inputs, 101) is RuleFault.BUDGET
    assert STEPS_MAX > 102


LEAVES = st.one_of(
    st.integers(MIN, MAX),
    st.integers(-2, 3),
    st.text("ab", max_size=2),
    st.binary(max_size=2),
    st.booleans(),
    st.sampled_from([["var", name] for name in INPUTS]),
)
OPS = st.sampled_from(sorted(OPERATIONS))
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.tuples(OPS, inner, inner),
        st.tuples(OPS, inner),
        st.tuples(st.just("if"), inner, inner, inner),
        st.tuples(st.sampled_from(("+", "and", "in", "min")), inner, inner, inner),
        st.tuples(st.just("let"), st.just("x"), inner, inner),
        st.tuples(st.just("sum"), st.just(["var", "lines"]), st.just("x"), inner),
    ).map(list),
    max_leaves=25,
)
RUBBISH = st.recursive(
    st.none() | st.floats() | st.integers() | st.text(max_size=3) | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=20,
)


class Counted(dict[str, Any]):
    """Inputs that count how often they are looked at."""

    looks = 0

    def __getitem__(self, key: str) -> Any:
        self.looks += 1
        return super().__getitem__(key)


@settings(max_examples=400, deadline=None)
@given(tree=TREES, budget=st.integers(0, 60))
def test_any_tree_ends_within_its_budget_with_a_value(tree: Any, budget: int) -> None:
    """Random trees raise nothing, give a constant or a named fault, the same each time and from
    their own bytes; with more budget the answer only changes from "budget".
    """
    found = evaluate(tree, INPUTS, budget)
    assert isinstance(found, RuleFault) or type(found) in (int, str, bytes, bool)
    if type(found) is int:
        assert MIN <= found <= MAX
    again = evaluate(cbor.decode(cbor.encode(tree)), dict(reversed(INPUTS.items())), budget)
    assert (type(again), again) == (type(found), found)
    counted = Counted(INPUTS)
    evaluate(tree, counted, budget)
    assert counted.looks <= budget
    if found is not RuleFault.BUDGET:
        assert evaluate(tree, INPUTS, budget + 1_000) == found


@settings(max_examples=200, deadline=None)
@given(tree=RUBBISH)
def test_rubbish_raises_only_the_named_error(tree: Any) -> None:
    """What is no tree at all gives a fault, and a check that names a path."""
    found = evaluate(tree, INPUTS, 100)
    assert isinstance(found, RuleFault) or type(found) in (int, str, bytes, bool)
    try:
        check_rule(tree)
    except InvalidTransaction as refused:
        assert str(refused).startswith("rule at $")  # noqa: PT017 - both ways are allowed


@settings(max_examples=200, deadline=None)
@given(tree=TREES)
def test_what_was_checked_has_no_fault_of_shape(tree: Any) -> None:
    """A rule that publication accepts never fails as a tree or by an unbound name."""
    try:
        check_rule(tree, frozenset(INPUTS))
    except InvalidTransaction:
        return
    found = evaluate(tree, INPUTS)
    assert found is not RuleFault.TREE
