"""The reference of transaction types, written from the registry itself.

Rule: what the page says is what the code does: fields, roles and flags are read from the kinds,
the sentences are the kinds' own ``rules`` and ``MEANINGS``. ``docs/reference/transactions.md``
is this function's answer for ``kinds()``; an embedding application may print its own with it.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Final

import msgspec

from p2pmed.ledger.state import APPLIED
from p2pmed.medical import fields
from p2pmed.medical.registry import Kind, Registry
from p2pmed.medical.rejections import MEANINGS, Rejection
from p2pmed.wire import codec

__all__ = ["transactions_page"]

_NAMED: Final[tuple[tuple[Any, str], ...]] = (
    (fields.Gtin, "GTIN-14"),
    (fields.Serial, "serial or lot, 1 to 20 characters of GS1 set 82"),
    (fields.Code, "code"),
    (fields.Currency, "currency, ISO 4217"),
    (fields.Amount, "minor units"),
    (fields.Day, "day since 1970-01-01"),
    (codec.OptionalId, "id or empty"),
    (codec.TimeMs, "ms since 1970, UTC"),
    (codec.Text, "text"),
    (codec.Bytes32, "32 bytes"),
    (codec.Bytes16, "16 bytes"),
    (codec.Count, "count"),
)
_PLAIN: Final = {int: "integer", str: "text", bytes: "bytes", bool: "yes or no", Any: "rule"}

_HEAD: Final = """\
# Transaction types

Written by `p2pmed.medical.reference` from the registry; a test keeps it true.

*Ordered* types count when final and read *provisional* before; *mergeable* ones count as soon as
they are stored.
An ordered type that names another ledger is only `carried`, unless it acts *everywhere*.
Any type may be refused for the general reasons, `unknown_type` to `role_missing`, and
`reference_missing` if one of its `refs` is not ordered before it.
An ordered type is refused `author_expired` when the author's credential has expired by block
time; a mergeable one is not, because care that was given is recorded.
"""


def transactions_page(registry: Registry) -> str:
    """Markdown: one section per kind, then every rejection in its rank."""
    parts = [_HEAD, *(_section(kind) for kind in registry), _rejections()]
    return "\n".join(parts)


def _section(kind: Kind[Any]) -> str:
    counts = "ordered" if kind.ordered else "mergeable"
    reach = ", everywhere" if kind.everywhere else ""
    roles = ", ".join(sorted(kind.roles)) or "any member"
    lines = [
        f"## `{kind.name}`",
        "",
        f"Body `{kind.body.__name__}`, version {kind.version}; {counts}{reach}; by: {roles}.",
        "",
        kind.rules,
        "",
        *_fields(kind.body),
    ]
    return "\n".join([*lines, ""])


def _fields(body: type[Any]) -> Iterator[str]:
    """A table of fields, then one of each Struct inside."""
    yield "| field | type |"
    yield "|---|---|"
    inside: dict[str, type[Any]] = {}
    hints = typing.get_type_hints(body, include_extras=True)
    for field in msgspec.structs.fields(body):
        yield f"| `{field.name}` | {_type_name(hints[field.name], inside)} |"
    for name, inner in inside.items():
        names = ", ".join(f"`{field.name}`" for field in msgspec.structs.fields(inner))
        yield ""
        yield f"`{name}` is the array {names}."


def _type_name(hint: Any, inside: dict[str, type[Any]]) -> str:
    """A type in the reference's words; Structs met on the way are noted in ``inside``."""
    for known, name in _NAMED:
        if hint == known:
            return name
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return _type_name(arguments[0], inside)
    if origin in (tuple, list):
        return f"list of {_type_name(arguments[0], inside)}"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_type_name(argument, inside) for argument in arguments)
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        inside.setdefault(hint.__name__, hint)
        return f"`{hint.__name__}`"
    if isinstance(hint, type) and hasattr(hint, "__members__"):
        return "one of " + ", ".join(f"`{value.value}`" for value in _members(hint))
    return _PLAIN.get(hint, "value")


def _members(enum: Any) -> Iterable[Any]:
    return list(enum)


def _rejections() -> str:
    """Every reason to refuse, highest rank first."""
    rows = [f"| `{reason.value}` | {MEANINGS[reason]} |" for reason in Rejection]
    head = f"## Verdicts\n\n`{APPLIED}`, or the first of these that holds.\n\n| name | meaning |"
    return "\n".join([head, "|---|---|", *rows, ""])
