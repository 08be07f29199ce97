"""What ``sign_entry`` gives without reading its own bytes back is what a stranger reads."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl import bindings

from p2pmed.errors import DecodeError, InvalidTransaction
from p2pmed.ledger import logs as logs_module
from p2pmed.ledger.logs import Logs
from p2pmed.ledger.transaction import GENESIS_PREV, Entry, Envelope, open_entry, sign_entry
from p2pmed.limits import ENTRY_BYTES_MAX
from p2pmed.storage.memory import MemoryDisk
from p2pmed.world import Space

SEED = bytes(range(32))
AUTHOR = bindings.crypto_sign_seed_keypair(SEED)[0]
NETWORK = b"n" * 32


def _envelope(body: list[Any], **changes: Any) -> Envelope:
    fields: dict[str, Any] = {
        "version": 1,
        "incarnation": b"i" * 16,
        "seq": 0,
        "prev": GENESIS_PREV,
        "ledger": b"",
        "hlc": 1,
        "wall": 1,
        "clock": 0,
        "kind": "test.kind",
        "kind_version": 1,
        "actor": b"",
        "subject": b"",
        "refs": (),
        "body": body,
    }
    return Envelope(**{**fields, **changes})


def _sign(envelope: Envelope) -> Entry:
    return sign_entry(envelope, seed=SEED, author=AUTHOR, network=NETWORK)


def _shape(value: Any) -> Any:
    """The value with the types that comparison would forgive."""
    if isinstance(value, list | tuple):
        return (type(value), [_shape(item) for item in value])
    if isinstance(value, dict):
        return [(key, _shape(item)) for key, item in value.items()]
    return (type(value), value)


VALUES = st.recursive(
    st.integers(-(2**63), 2**63 - 1)
    | st.binary(max_size=40)
    | st.text("abcé", max_size=8)
    | st.booleans()
    | st.none(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text("abcdefgh", max_size=30), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(st.lists(VALUES, max_size=4))
def test_a_signed_entry_is_the_entry_others_read(body: list[Any]) -> None:
    """Every field, and every type within the body: two nodes execute the same thing."""
    signed = _sign(_envelope(body))
    opened = open_entry(signed.raw, network=NETWORK)
    for name in ("id", "lane", "raw", "signature", "to_be_signed", "envelope"):
        assert getattr(signed, name) == getattr(opened, name)
    assert _shape(signed.envelope.body) == _shape(opened.envelope.body)
    assert type(signed.envelope.refs) is type(opened.envelope.refs)


@pytest.mark.parametrize(
    "changes",
    [
        {"subject": b"short"},
        {"ledger": b"short"},
        {"prev": b"x" * 32},
        {"kind": "Not a kind"},
        {"refs": (b"short",)},
        {"hlc": -1},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_others_would_refuse_is_not_signed(changes: dict[str, Any]) -> None:
    """A wrong field is found before it is in the log."""
    with pytest.raises(DecodeError):
        _sign(_envelope([], **changes))


def test_what_is_too_long_for_others_is_not_signed() -> None:
    """The limit is the reader's."""
    with pytest.raises(InvalidTransaction, match="are allowed"):
        _sign(_envelope([bytes(ENTRY_BYTES_MAX)]))


def test_a_log_extended_is_a_log_appended_to() -> None:
    """Both ways leave the same rows."""
    first = _sign(_envelope([1], subject=b"s" * 16))
    second = _sign(_envelope([2], seq=1, prev=first.id))
    rows = []
    for extend in (True, False):
        disk = MemoryDisk()
        logs = Logs(disk, NETWORK)
        if extend:
            logs.extend([first, second])
        else:
            logs.append(first)
            logs.append(second)
        rows.append([disk.scan(space, b"", b"\xff" * 64, limit=9) for space in Space])
        assert [entry.id for entry in logs.entries(first.lane, 0, 9)] == [first.id, second.id]
    assert rows[0] == rows[1]


def test_entries_are_remembered_within_bounds_of_number_and_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was just stored is given back undecoded; long entries do not pile up."""
    monkeypatch.setattr(logs_module, "ENTRIES_CACHED_MAX", 4)
    monkeypatch.setattr(logs_module, "BYTES_CACHED_MAX", 20_000)
    logs = Logs(MemoryDisk(), NETWORK)
    entries = [_sign(_envelope([b"x" * 10]))]
    for seq in range(1, 12):
        size = 9_000 if seq > 7 else 10
        entries.append(_sign(_envelope([b"x" * size], seq=seq, prev=entries[-1].id)))
    for entry in entries[:8]:
        logs.append(entry)
    assert [logs.entry(entry.lane, entry.seq) is entry for entry in entries[:8]] == [
        *[False] * 4,
        *[False] * 4,  # reading the old ones back has pushed the new ones out
    ]
    for entry in entries[8:]:
        logs.append(entry)
    kept = [logs.entry(entry.lane, entry.seq) is entry for entry in reversed(entries[8:])]
    assert kept == [True, True, False, False]
    assert [entry.id for entry in logs.entries(entries[0].lane, 0, 12)] == [e.id for e in entries]
