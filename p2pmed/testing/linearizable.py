"""Whether a recorded history is linearizable: the checker of Wing, Gong and Lowe.

Wing and Gong, "Testing and Verifying Concurrent Objects" (1993), search for an order of all
operations that respects real time and the object's sequential rules; Lowe, "Testing for
Linearizability" (2017), remembers which sets of operations led to which state and so skips
what was tried. Horn and Kroening (2015): a history of many keys is linearizable if each
key's is, so it is cut by key first.

Rule of this file: an operation whose outcome nobody knows (its process was killed, its answer
lost) may have taken effect at any moment after it began, or never. One that certainly failed
did not happen. The checker knows nothing of p2pmed; it is tested against an exhaustive search.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

__all__ = ["UNKNOWN", "Model", "Operation", "Register", "Verdict", "by_key", "check"]

UNKNOWN: Final = object()
"""The output of an operation whose answer was lost."""
STATES_MAX: Final = 1_000_000
"""Searched in one history before the answer is ``None``: neither proven nor refuted.

A bad history costs two to the number of its lost answers; record short ones, object by object.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One call of one process, on one object."""

    process: int
    began: int
    """When it was invoked, on one clock for all processes."""
    ended: int | None
    """When it was answered; ``None`` if never."""
    call: Hashable
    output: Any = UNKNOWN


class Model(Protocol):
    """The sequential rules of an object; states are hashable values."""

    def start(self) -> Hashable:
        """The state before everything."""

    def step(self, state: Any, call: Any, output: Any) -> tuple[bool, Hashable]:
        """Whether ``call`` may answer ``output`` in ``state``, and the state after it.

        With ``UNKNOWN`` for output any answer is possible.
        """


class Register:
    """A register: calls are ``("read",)``, ``("write", value)`` and ``("cas", old, new)``.

    A read answers the value, a write nothing, a compare-and-set whether it took place.
    """

    def __init__(self, initial: Hashable = None) -> None:
        self._initial = initial

    def start(self) -> Hashable:
        """The value before the first write."""
        return self._initial

    def step(self, state: Any, call: Any, output: Any) -> tuple[bool, Hashable]:
        """See ``Model.step``."""
        if call[0] == "read":
            return output is UNKNOWN or output == state, state
        if call[0] == "write":
            return True, call[1]
        _, old, new = call
        took_place = state == old
        return output is UNKNOWN or output == took_place, new if took_place else state


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the search found."""

    linearizable: bool | None
    """``None``: given up, the history is too concurrent for ``STATES_MAX``."""
    order: tuple[Operation, ...]
    """An order that explains the history, or the longest beginning of one that was found."""
    stuck: tuple[Operation, ...] = ()
    """Operations that could come next after ``order`` and none of which fits."""


class _Node:
    """A call or a return in the doubly linked list of a history, in time order."""

    __slots__ = ("index", "match", "next", "previous")

    def __init__(self, index: int, match: _Node | None) -> None:
        self.index = index
        self.match = match
        """A call's return; a return has none."""
        self.previous: _Node | None = None
        self.next: _Node | None = None


def by_key(
    operations: Iterable[Operation], key: Callable[[Operation], Hashable]
) -> Mapping[Hashable, list[Operation]]:
    """The history of each object apart."""
    found: dict[Hashable, list[Operation]] = defaultdict(list)
    for operation in operations:
        found[key(operation)].append(operation)
    return found


def check(operations: Sequence[Operation], model: Model) -> Verdict:
    """Whether ``operations`` on one object are linearizable under ``model``."""
    ordered = sorted(operations, key=lambda each: each.began)
    head = _list_of(ordered)
    state, done = model.start(), 0
    tried: set[tuple[int, Hashable]] = set()
    taken: list[tuple[_Node, Hashable]] = []
    best: list[int] = []
    node = head.next
    while head.next is not None:
        assert node is not None  # the last of the list is a return
        if node.match is not None:
            operation = ordered[node.index]
            fits, after = model.step(state, operation.call, operation.output)
            key = (done | 1 << node.index, after)
            if fits and key not in tried:
                tried.add(key)
                if len(tried) > STATES_MAX:
                    return Verdict(linearizable=None, order=_named(ordered, best))
                taken.append((node, state))
                state, done = after, key[0]
                _lift(node)
                node = head.next
                continue
            node = node.next
            continue
        if len(taken) > len(best):
            best = [call.index for call, _ in taken]
        if not taken:
            stuck = _first_calls(head, ordered) if not best else _stuck(ordered, best)
            return Verdict(linearizable=False, order=_named(ordered, best), stuck=stuck)
        last, state = taken.pop()
        done &= ~(1 << last.index)
        _unlift(last)
        node = last.next
    return Verdict(linearizable=True, order=tuple(ordered[call.index] for call, _ in taken))


def _list_of(ordered: Sequence[Operation]) -> _Node:
    """The head of the list: calls and returns by time. What begins as another ends overlaps it."""
    never = 1 + max((max(o.began, o.ended or 0) for o in ordered), default=0)
    events: list[tuple[int, int, int, _Node]] = []
    for index, operation in enumerate(ordered):
        back = _Node(index, None)
        call = _Node(index, back)
        ended = never if operation.ended is None else operation.ended
        events.append((operation.began, 0, index, call))
        events.append((ended, 1, index, back))
    head = before = _Node(-1, None)
    for _, _, _, node in sorted(events, key=lambda event: event[:3]):
        before.next, node.previous = node, before
        before = node
    return head


def _lift(call: _Node) -> None:
    """Take a call and its return out of the list; they remember their places."""
    assert call.previous is not None
    assert call.match is not None
    for node in (call, call.match):
        assert node.previous is not None
        node.previous.next = node.next
        if node.next is not None:
            node.next.previous = node.previous


def _unlift(call: _Node) -> None:
    """Put both back, the last first."""
    assert call.match is not None
    for node in (call.match, call):
        assert node.previous is not None
        node.previous.next = node
        if node.next is not None:
            node.next.previous = node


def _named(ordered: Sequence[Operation], indices: Sequence[int]) -> tuple[Operation, ...]:
    return tuple(ordered[index] for index in indices)


def _first_calls(head: _Node, ordered: Sequence[Operation]) -> tuple[Operation, ...]:
    found, node = [], head.next
    while node is not None and node.match is not None:
        found.append(ordered[node.index])
        node = node.next
    return tuple(found)


def _stuck(ordered: Sequence[Operation], best: Sequence[int]) -> tuple[Operation, ...]:
    """Of the operations not in ``best``, those that no other had to come before."""
    left = [operation for index, operation in enumerate(ordered) if index not in set(best)]
    soonest = min((o.ended for o in left if o.ended is not None), default=None)
    return tuple(o for o in left if soonest is None or o.began <= soonest)
