"""The language of agreed rules: expressions as data, bounded in depth and in steps.

Rule: the same tree and inputs give the same result on every machine, within a number of steps
that the protocol fixes. There is no clock, no float, no regular expression, no recursion, no
assignment and no user's code. What goes wrong is a value, ``RuleFault``, never an exception.

An expression is a constant (64-bit integer, text, bytes or boolean) or an array whose first
item is the operation's name. ``docs/protocols/rules.md`` defines each; the table ``OPERATIONS``
is that page in code. Types never convert: ``["+", 1, true]`` is a fault, and so is
``["==", 1, "1"]``.

Not here: lists as results, text operations, ways to add operations. A new operation is a new
version of the product's transaction type.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, TypeAlias

from p2pmed.errors import InvalidTransaction

__all__ = [
    "DEPTH_MAX",
    "NODES_MAX",
    "OPERATIONS",
    "STEPS_MAX",
    "Result",
    "RuleFault",
    "Tree",
    "check_rule",
    "evaluate",
]

Tree: TypeAlias = Any
"""Constants and arrays, as strict CBOR decodes them."""
Result: TypeAlias = "int | str | bytes | bool"

DEPTH_MAX: Final = 10
"""Arrays within arrays; with its transaction around it a tree stays under CBOR_DEPTH_MAX."""
NODES_MAX: Final = 1_000
"""Constants and arrays in one rule; about 8 kB."""
STEPS_MAX: Final = 10_000
"""Expressions evaluated in one go: about 10 ms, and ten passes of a full rule."""
NAME_CHARS_MAX: Final = 32
TEXT_CHARS_MAX: Final = 256

_INT_MIN: Final = -(2**63)
_INT_MAX: Final = 2**63 - 1


class RuleFault(Enum):
    """Why a rule has no result; the values are part of the protocol."""

    TREE = "tree"
    """Not an expression of this language."""
    NAME = "name"
    """A name that nothing binds."""
    TYPE = "type"
    OVERFLOW = "overflow"
    DIVISION = "division"
    BUDGET = "budget"


class _Fault(Exception):
    def __init__(self, fault: RuleFault) -> None:
        super().__init__(fault.value)
        self.fault = fault


@dataclass(frozen=True, slots=True)
class _Operation:
    """How an operation is spelled and what it does with its evaluated operands."""

    least: int
    most: int
    run: Callable[[Any, list[Any], Mapping[str, Any], int], Any]
    names: tuple[int, ...] = ()
    """Positions that are names, not expressions."""


class _Run:
    """One evaluation: the steps it has left."""

    __slots__ = ("left",)

    def __init__(self, budget: int) -> None:
        self.left = budget

    def value(self, tree: Tree, scope: Mapping[str, Any], depth: int) -> Any:
        """The value of ``tree``: a result, or a tuple that an operation may look into."""
        self.left -= 1
        if self.left < 0:
            raise _Fault(RuleFault.BUDGET)
        if type(tree) not in (list, tuple):
            return _constant(tree)
        operation = OPERATIONS.get(tree[0]) if tree and type(tree[0]) is str else None
        if operation is None or depth == 0:
            raise _Fault(RuleFault.TREE)
        operands = list(tree[1:])
        if not operation.least <= len(operands) <= operation.most:
            raise _Fault(RuleFault.TREE)
        if any(not _is_name(operands[place]) for place in operation.names):
            raise _Fault(RuleFault.TREE)
        return operation.run(self, operands, scope, depth - 1)

    def number(self, tree: Tree, scope: Mapping[str, Any], depth: int) -> int:
        """The value of ``tree``, an integer."""
        value = self.value(tree, scope, depth)
        if type(value) is not int:
            raise _Fault(RuleFault.TYPE)
        return value

    def truth(self, tree: Tree, scope: Mapping[str, Any], depth: int) -> bool:
        """The value of ``tree``, a boolean."""
        value = self.value(tree, scope, depth)
        if type(value) is not bool:
            raise _Fault(RuleFault.TYPE)
        return value

    def items(self, tree: Tree, scope: Mapping[str, Any], depth: int) -> tuple[Any, ...]:
        """The value of ``tree``, a list."""
        value = self.value(tree, scope, depth)
        if type(value) is not tuple:
            raise _Fault(RuleFault.TYPE)
        return value


def _constant(value: Any) -> Any:
    kind = type(value)
    if kind is bool:
        return value
    if kind is int and _INT_MIN <= value <= _INT_MAX:
        return value
    if (kind is str or kind is bytes) and len(value) <= TEXT_CHARS_MAX:
        return value
    raise _Fault(RuleFault.TREE)


def _is_name(value: Any) -> bool:
    return (
        type(value) is str
        and 0 < len(value) <= NAME_CHARS_MAX
        and value.isascii()
        and value.isidentifier()
    )


def _whole(value: int) -> int:
    if not _INT_MIN <= value <= _INT_MAX:
        raise _Fault(RuleFault.OVERFLOW)
    return value


# --- operations ----------------------------------------------------------------------------


def _and(run: _Run, args: list[Any], scope: Mapping[str, Any], depth: int) -> bool:
    return all(run.truth(arg, scope, depth) for arg in args)


def _or(run: _Run, args: list[Any], scope: Mapping[str, Any], depth: int) -> bool:
    return any(run.truth(arg, scope, depth) for arg in args)


def _not(run: _Run, args: list[Any], scope: Mapping[str, Any], depth: int) -> bool:
    return not run.truth(args[0], scope, depth)


def _same(left: Any, right: Any) -> bool:
    """Equality of two constants of one type."""
    if type(left) is not type(right) or type(left) is tuple:
        raise _Fault(RuleFault.TYPE)
    return bool(left == right)


def _equal(run: _Run, args: list[Any], scope: Mapping[str, Any], depth: int) -> bool:
    return _same(run.value(args[0], scope, depth), run.value(args[1], scope, depth))


def _less(run: _Run, args: list[Any], scope: Mapping[str, Any], depth: int) -> bool:
    return run.number(args[0], scope, depth) < run.number(args[1], scope, depth)


def _at_most(run: _Run, args: list[Any], scope: Mapping[str, Any], depth: int) -> bool:
    return run.number(args[0], scope, depth) <= run.number(args[1], scope, depth)


def _add(run: _Run, args: list[Any], scope: Mapping[str, Any], depth: int) -> int:
    total = 0
    for arg in args:
        total = _whole(total + run.number(arg, scope, depth))
    return total


def _subtract(run: _Run, args: list[Any], scope: Mapping[str, Any], depth: int) -> int:
    return _whole(run.number(args[0], scope, depth) - run.number(args[1], scope, depth))


def _multiply(run: _Run, args: list[Any], scope: Mapping[str, Any], depth: int) -> int:
    product = 1
    for arg in args:
        product = _whole(product * run.number(arg, scope, depth))
    return product


def _divide(run: _Run, args: list[Any], scope: Mapping[str, Any], depth: int) -> int:
    """Rounded towards minus infinity."""
    left, right = run.number(args[0], scope, depth), run.number(args[1], scope, depth)
    if right == 0:
        raise _Fault(RuleFault.DIVISION)
    return _whole(left // right)


def _least(run: _Run, args: list[Any], scope: Mapping[str, Any], depth: int) -> int:
    return min([run.number(arg, scope, depth) for arg in args])


def _most(run: _Run, args: list[Any], scope: Mapping[str, Any], depth: int) -> int:
    return max([run.number(arg, scope, depth) for arg in args])


def _if(run: _Run, args: list[Any], scope: Mapping[str, Any], depth: int) -> Any:
    chosen = args[1] if run.truth(args[0], scope, depth) else args[2]
    return run.value(chosen, scope, depth)


def _in(run: _Run, args: list[Any], scope: Mapping[str, Any], depth: int) -> bool:
    """Whether the first operand equals one of the others; stops at the first that does."""
    wanted = run.value(args[0], scope, depth)
    return any(_same(wanted, run.value(arg, scope, depth)) for arg in args[1:])


def _var(run: _Run, args: list[Any], scope: Mapping[str, Any], depth: int) -> Any:
    try:
        return scope[args[0]]
    except KeyError:
        raise _Fault(RuleFault.NAME) from None


def _let(run: _Run, args: list[Any], scope: Mapping[str, Any], depth: int) -> Any:
    inner = {**scope, args[0]: run.value(args[1], scope, depth)}
    return run.value(args[2], inner, depth)


def _at(run: _Run, args: list[Any], scope: Mapping[str, Any], depth: int) -> Any:
    items, index = run.items(args[0], scope, depth), run.number(args[1], scope, depth)
    if not 0 <= index < len(items):
        raise _Fault(RuleFault.NAME)
    return items[index]


def _count(run: _Run, args: list[Any], scope: Mapping[str, Any], depth: int) -> int:
    return len(run.items(args[0], scope, depth))


def _sum(run: _Run, args: list[Any], scope: Mapping[str, Any], depth: int) -> int:
    """The sum of the last operand with the name bound to each item of the list in turn."""
    total = 0
    for item in run.items(args[0], scope, depth):
        total = _whole(total + run.number(args[2], {**scope, args[1]: item}, depth))
    return total


OPERANDS_MAX: Final = 256

OPERATIONS: Final[Mapping[str, _Operation]] = {
    "and": _Operation(1, OPERANDS_MAX, _and),
    "or": _Operation(1, OPERANDS_MAX, _or),
    "not": _Operation(1, 1, _not),
    "==": _Operation(2, 2, _equal),
    "<": _Operation(2, 2, _less),
    "<=": _Operation(2, 2, _at_most),
    "+": _Operation(1, OPERANDS_MAX, _add),
    "-": _Operation(2, 2, _subtract),
    "*": _Operation(1, OPERANDS_MAX, _multiply),
    "//": _Operation(2, 2, _divide),
    "min": _Operation(1, OPERANDS_MAX, _least),
    "max": _Operation(1, OPERANDS_MAX, _most),
    "if": _Operation(3, 3, _if),
    "in": _Operation(2, OPERANDS_MAX, _in),
    "var": _Operation(1, 1, _var, names=(0,)),
    "let": _Operation(3, 3, _let, names=(0,)),
    "at": _Operation(2, 2, _at),
    "count": _Operation(1, 1, _count),
    "sum": _Operation(3, 3, _sum, names=(1,)),
}


# --- the two entrances ---------------------------------------------------------------------


def evaluate(tree: Tree, inputs: Mapping[str, Any], budget: int = STEPS_MAX) -> Result | RuleFault:
    """The result of ``tree`` with ``inputs`` bound, or why there is none.

    Inputs are constants, or tuples of them (or of such tuples) for ``sum``, ``at``, ``count``.
    At most ``budget`` expressions are evaluated. Nothing is raised for any tree.
    """
    try:
        value = _Run(budget).value(tree, inputs, DEPTH_MAX)
    except _Fault as stopped:
        return stopped.fault
    return RuleFault.TYPE if type(value) is tuple else value


def check_rule(tree: Tree, inputs: frozenset[str] | None = None) -> None:
    """Raises ``InvalidTransaction``, naming the path, unless ``tree`` is of this language.

    With ``inputs``, every name must be one of them or bound around its use.
    """
    _check(tree, "$", DEPTH_MAX, inputs, [NODES_MAX])


def _check(
    tree: Tree, path: str, depth: int, bound: frozenset[str] | None, nodes: list[int]
) -> None:
    nodes[0] -= 1
    if nodes[0] < 0:
        raise InvalidTransaction(f"rule at {path}: more than {NODES_MAX} expressions")
    if type(tree) not in (list, tuple):
        try:
            _constant(tree)
        except _Fault:
            raise InvalidTransaction(f"rule at {path}: not a constant of the language") from None
        return
    if depth == 0:
        raise InvalidTransaction(f"rule at {path}: deeper than {DEPTH_MAX}")
    name = tree[0] if tree and type(tree[0]) is str else None
    operation = OPERATIONS.get(name) if name is not None else None
    if operation is None:
        raise InvalidTransaction(f"rule at {path}: not an operation of the language")
    if not operation.least <= len(tree) - 1 <= operation.most:
        raise InvalidTransaction(f"rule at {path}: {len(tree) - 1} operands of {name!r}")
    for place in operation.names:
        if not _is_name(tree[1 + place]):
            raise InvalidTransaction(f"rule at {path}[{1 + place}]: not a name")
    if name == "var" and bound is not None and tree[1] not in bound:
        raise InvalidTransaction(f"rule at {path}[1]: a name that nothing binds")
    for index in range(1, len(tree)):
        if index - 1 in operation.names:
            continue
        # `let` and `sum` bind their name in the last operand only.
        binds = bool(operation.names) and index == len(tree) - 1 and bound is not None
        inner = bound | {tree[1 + operation.names[0]]} if binds and bound is not None else bound
        _check(tree[index], f"{path}[{index}]", depth - 1, inner, nodes)
