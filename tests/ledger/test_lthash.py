"""The state commitment against its definition: 1,024 numbers of 16 bits, added one by one."""

from __future__ import annotations

from hashlib import shake_128

from hypothesis import given, settings
from hypothesis import strategies as st

from p2pmed.ledger import lthash

rows = st.dictionaries(st.binary(max_size=8), st.binary(max_size=8), max_size=6)


def lanes(total: int) -> list[int]:
    raw = lthash.to_bytes(total)
    return [int.from_bytes(raw[i : i + 2], "big") for i in range(0, len(raw), 2)]


def defined(state: dict[bytes, bytes]) -> list[int]:
    """The sum over all rows, number by number, modulo 2**16."""
    total = [0] * 1_024
    for key, value in state.items():
        raw = shake_128(len(key).to_bytes(4, "big") + key + value).digest(2_048)
        for lane in range(1_024):
            number = int.from_bytes(raw[2 * lane : 2 * lane + 2], "big")
            total[lane] = (total[lane] + number) % 65_536
    return total


def commitment(state: dict[bytes, bytes]) -> int:
    return lthash.changed(lthash.EMPTY, [(key, None, value) for key, value in state.items()])


@settings(max_examples=40, deadline=None)
@given(state=rows)
def test_the_commitment_is_the_sum_that_the_definition_says(state: dict[bytes, bytes]) -> None:
    """No carry leaves its lane, however many rows are added in one integer."""
    assert lanes(commitment(state)) == defined(state)


@settings(max_examples=40, deadline=None)
@given(before=rows, after=rows)
def test_changes_lead_to_the_same_commitment_as_starting_afresh(
    before: dict[bytes, bytes], after: dict[bytes, bytes]
) -> None:
    """Whatever path a state took, its commitment is that of its rows, and removal undoes adding."""
    keys = sorted({*before, *after})
    changes = [(key, before.get(key), after.get(key)) for key in keys]
    assert lthash.changed(commitment(before), changes) == commitment(after)
    assert lthash.changed(commitment(before), reversed(changes)) == commitment(after)
    back = [(key, new, old) for key, old, new in changes]
    assert lthash.changed(commitment(after), back) == commitment(before)


@given(key=st.binary(min_size=1, max_size=6), value=st.binary(min_size=1, max_size=6))
def test_a_row_cannot_be_cut_differently(key: bytes, value: bytes) -> None:
    """A byte that moves from the value into the key makes another row."""
    assert lthash.row_hash(key, value) != lthash.row_hash(key + value[:1], value[1:])


def test_the_extremes_of_a_lane_stay_in_it() -> None:
    """All ones plus one, and nothing minus one, wrap inside every lane."""
    ones = int.from_bytes(b"\xff\xff" * 1_024, "big")
    unit = int.from_bytes(b"\x00\x01" * 1_024, "big")
    assert lthash.add(ones, unit) == 0
    assert lthash.subtract(0, unit) == ones
    assert lthash.add(ones, ones) == int.from_bytes(b"\xff\xfe" * 1_024, "big")


@settings(max_examples=20, deadline=None)
@given(state=rows)
def test_bytes_round_trip_and_the_root_follows(state: dict[bytes, bytes]) -> None:
    """2,048 bytes keep it; the root of 32 bytes differs where the rows differ."""
    total = commitment(state)
    assert len(lthash.to_bytes(total)) == 2_048
    assert lthash.from_bytes(lthash.to_bytes(total)) == total
    other = commitment({**state, b"another": b"row"})
    assert lthash.state_root(total) != lthash.state_root(other)
