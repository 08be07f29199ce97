"""State tables: prefixes that cannot collide, rows that are read back strictly."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

import pytest

import p2pmed.medical
from p2pmed.errors import StorageError
from p2pmed.ledger.state import Layer
from p2pmed.medical.membership import MEMBERS
from p2pmed.medical.registry import Member
from p2pmed.medical.tables import PREFIXES, RESERVED, Table


class Nothing:
    """The state below."""

    def get(self, key: bytes) -> bytes | None:
        return None

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        return iter(())


MEMBER = Member(
    name="n",
    roles=("clinic",),
    place="",
    box_key=bytes(32),
    issuer=bytes(32),
    serial=bytes(16),
    not_after=1,
)


def test_prefixes_are_distinct_and_leave_the_ledgers_keys_alone() -> None:
    """Two ASCII letters each, none twice, none in the reserved range."""
    assert len(set(PREFIXES.values())) == len(PREFIXES)
    for prefix in PREFIXES.values():
        assert len(prefix) == 2
        assert prefix.isalpha()
        assert not prefix.startswith(RESERVED)


def test_each_table_is_used_by_one_module() -> None:
    """No two tables of the families share a prefix; every declared one has a home."""
    homes: dict[bytes, set[int]] = {}
    for found in pkgutil.iter_modules(p2pmed.medical.__path__):
        module = importlib.import_module(f"p2pmed.medical.{found.name}")
        for value in vars(module).values():
            if isinstance(value, Table):
                homes.setdefault(value.prefix, set()).add(id(value))
    assert all(len(tables) == 1 for tables in homes.values())


def test_rows_come_back_and_in_order() -> None:
    """What was written is read; a scan gives the rest of each key, in order, and no more."""
    view = Layer(Nothing())
    assert MEMBERS.get(view, b"a") is None
    for key in (b"ab", b"aa", b"b"):
        MEMBERS.put(view, MEMBER, key)
    assert MEMBERS.get(view, b"a", b"b") == MEMBER
    assert [rest for rest, _ in MEMBERS.scan(view, b"a")] == [b"a", b"b"]
    MEMBERS.delete(view, b"aa")
    assert [rest for rest, _ in MEMBERS.scan(view, b"a")] == [b"b"]


def test_a_rotten_row_is_the_disks_fault() -> None:
    """Rows are ours alone: one that does not decode stops the node."""
    view = Layer(Nothing())
    view.put(MEMBERS.key(b"x"), b"\x80")
    with pytest.raises(StorageError):
        MEMBERS.get(view, b"x")
