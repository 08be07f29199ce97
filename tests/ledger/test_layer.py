"""A layer of writes over a state: what is read is what a plain dict would say."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from p2pmed.ledger.state import UNSORTED_MAX, Layer


class Rows:
    """A state that stays as it is."""

    def __init__(self, rows: dict[bytes, bytes]) -> None:
        self.rows = rows

    def get(self, key: bytes) -> bytes | None:
        return self.rows.get(key)

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        return iter(sorted(row for row in self.rows.items() if row[0].startswith(prefix)))


keys = st.binary(min_size=1, max_size=3)
steps = st.lists(st.tuples(keys, st.one_of(st.none(), st.binary(max_size=2))), max_size=40)


@given(st.dictionaries(keys, st.binary(max_size=2)), steps, st.binary(max_size=2))
def test_a_layer_reads_like_a_dict(
    below: dict[bytes, bytes], changes: list[tuple[bytes, bytes | None]], prefix: bytes
) -> None:
    """After any puts and deletes, with scans in between, ``get`` and ``scan`` agree with a dict."""
    layer, plain = Layer(Rows(below)), dict(below)
    for key, value in changes:
        if value is None:
            layer.delete(key)
            plain.pop(key, None)
        else:
            layer.put(key, value)
            plain[key] = value
        assert layer.get(key) == plain.get(key)
        assert list(layer.scan(prefix)) == list(Rows(plain).scan(prefix))


def test_a_long_layer_is_scanned_in_order() -> None:
    """Beyond the keys that a scan walks one by one: sorted in, written again, and exchanged."""
    layer, plain = Layer(Rows({})), {}
    for number in range(3 * UNSORTED_MAX):
        key = (number * 7919 % 5000).to_bytes(2, "big")
        layer.put(key, b"1")
        plain[key] = b"1"
        if number % 50 == 0:
            assert list(layer.scan(b"\x03")) == list(Rows(plain).scan(b"\x03"))
    layer.delete((7919 % 5000).to_bytes(2, "big"))
    plain.pop((7919 % 5000).to_bytes(2, "big"))
    assert list(layer.scan(b"")) == list(Rows(plain).scan(b""))
    layer.writes = {number.to_bytes(2, "big"): b"2" for number in range(len(layer.writes))}
    assert list(layer.scan(b"")) == sorted(layer.writes.items())
