"""The types of transactions a node knows: the medical ones and an embedder's own.

A kind is data: its name, its body, who may author it, whether it must be ordered to count,
and two pure functions. ``check`` reads the view and names the first reason to refuse;
``apply`` writes. Neither sees a clock, dice or anything outside the view, so every node
answers alike.

An embedding application adds kinds by passing them to ``open_node(kinds=...)`` or through the
entry point group ``p2pmed.transactions``. The registry's ``rules_hash`` names the exact set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, TypeVar

import msgspec

from p2pmed.errors import ConfigError, DecodeError
from p2pmed.ledger.state import BlockContext, View
from p2pmed.ledger.transaction import Entry
from p2pmed.medical.rejections import Rejection
from p2pmed.wire import cbor, codec
from p2pmed.wire.codec import Bytes16, Bytes32, Text, TimeMs, Wire
from p2pmed.wire.hashing import digest

__all__ = ["Act", "Kind", "Member", "Refusal", "Registry"]

BodyT = TypeVar("BodyT", bound=Wire)


class Member(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What the ledger knows of an author, from the credential in its log's first entry."""

    name: Text
    roles: tuple[Text, ...]
    place: Text
    box_key: Bytes32
    issuer: Bytes32
    serial: Bytes16
    not_after: TimeMs
    revoked: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Act(Generic[BodyT]):
    """One transaction about to be applied: its body, its author, where and when."""

    body: BodyT
    entry: Entry
    member: Member
    context: BlockContext


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A rejection that names the transaction it contradicts: a discrepancy for people."""

    reason: Rejection
    other: bytes


Checked = Rejection | Refusal | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind(Generic[BodyT]):
    """One registered type."""

    name: str
    body: type[BodyT]
    check: Callable[[Act[BodyT], View], Checked]
    apply: Callable[[Act[BodyT], View], None]
    version: int = 1
    ordered: bool = True
    """It counts when final; otherwise as soon as it is stored."""
    everywhere: bool = False
    """Every ledger that orders it executes it (recalls, revocations), whoever it names."""
    local: bool = False
    """It speaks of its ledger's own seats: a county that imports the ledger does not execute it."""
    roles: frozenset[str] = field(default_factory=frozenset)
    """Who may author it; empty: any member."""
    rules: str = ""
    """One sentence for the reference: what is refused, and when."""


class Registry:
    """Kinds by name and version."""

    def __init__(self, kinds: Iterable[Kind[Any]]) -> None:
        self._kinds: dict[tuple[str, int], Kind[Any]] = {}
        self._by_body: dict[type[Wire], Kind[Any]] = {}
        for kind in kinds:
            if (kind.name, kind.version) in self._kinds or kind.body in self._by_body:
                raise ConfigError(f"transaction type {kind.name!r} is registered twice")
            self._kinds[kind.name, kind.version] = kind
            self._by_body[kind.body] = kind

    def __iter__(self) -> Iterator[Kind[Any]]:
        return (self._kinds[key] for key in sorted(self._kinds))

    def find(self, name: str, version: int) -> Kind[Any] | None:
        """The kind, or ``None`` if this node does not know it."""
        return self._kinds.get((name, version))

    def of(self, body: Wire) -> Kind[Any]:
        """The kind that ``body`` is a body of. Raises ``ConfigError`` if none is registered."""
        kind = self._by_body.get(type(body))
        if kind is None:
            raise ConfigError(
                f"{type(body).__name__} is not a registered transaction type",
                hint="pass its Kind to open_node(kinds=[...])",
            )
        return kind

    def body(self, entry: Entry) -> Wire | None:
        """The typed body of ``entry``; ``None`` if unknown or malformed."""
        kind = self.find(entry.envelope.kind, entry.envelope.kind_version)
        if kind is None:
            return None
        try:
            body: Wire = codec.convert(entry.envelope.body, kind.body)
        except DecodeError:
            return None
        return body

    @cached_property
    def rules_hash(self) -> bytes:
        """Hash of every kind's name, version, fields and flags."""
        described = [
            [
                kind.name,
                kind.version,
                kind.ordered,
                kind.everywhere,
                kind.local,
                sorted(kind.roles),
                [field.name for field in msgspec.structs.fields(kind.body)],
            ]
            for kind in self
        ]
        return digest("rules", cbor.encode(described))
