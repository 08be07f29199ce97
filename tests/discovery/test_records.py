"""Advertisements and addresses: what counts as a hint."""

from __future__ import annotations

import random

import pytest

from p2pmed.discovery.records import (
    format_address,
    hint_addresses,
    instance_name,
    network_tag,
    parse_address,
    read_txt,
    write_txt,
)
from p2pmed.errors import ConfigError

TAG = network_tag(bytes(range(32)))


def test_the_tag_is_frozen() -> None:
    """First 8 bytes of BLAKE2b-256 of the network id: nodes of all versions agree on it."""
    assert TAG == "cb2f5160fc1f7e05"
    assert network_tag(b"\x01" + bytes(31)) != TAG


def test_txt_round_trip_and_nothing_private() -> None:
    """What is written is read back, and holds the version and the tag, nothing else."""
    written = write_txt(TAG)
    assert written == {"v": "1", "n": TAG}
    assert read_txt({k.encode(): v.encode() for k, v in written.items()}) == TAG
    assert read_txt({b"v": b"1", b"n": TAG.encode(), b"new": None}) == TAG


@pytest.mark.parametrize(
    "entries",
    [
        {},
        {b"v": b"1"},
        {b"n": TAG.encode()},
        {b"v": b"2", b"n": TAG.encode()},
        {b"v": None, b"n": TAG.encode()},
        {b"v": b"1", b"n": None},
        {b"v": b"1", b"n": b""},
        {b"v": b"1", b"n": TAG.upper().encode()},
        {b"v": b"1", b"n": TAG.encode() + b"\n"},
        {b"v": b"1", b"n": b"\xff" * 16},
        {b"v": b"1", b"n": TAG.encode(), **{b"%d" % n: b"" for n in range(15)}},
    ],
)
def test_odd_txt_records_are_no_hint(entries: dict[bytes, bytes | None]) -> None:
    """Another version, no tag, another spelling, too much: not ours, and no exception."""
    assert read_txt(entries) is None


def test_instance_names_are_fresh_and_fit_a_label() -> None:
    """32 hex digits from the dice, so no two boots share one."""
    names = {instance_name(random.Random(seed)) for seed in range(50)}
    assert len(names) == 50
    assert all(len(name) == 32 and set(name) <= set("0123456789abcdef") for name in names)


def test_only_addresses_of_a_lan_are_dialled_on_a_strangers_word() -> None:
    """No public, multicast, loopback or misspelt address, no impossible port; at most eight."""
    near = ["192.168.1.5", "10.0.0.7", "169.254.3.4", "100.64.0.9", "fd00::7"]
    far = ["8.8.8.8", "224.0.0.251", "255.255.255.255", "0.0.0.0", "127.0.0.1", "clinic"]
    assert hint_addresses(far, 7420, loopback=False) == ()
    assert hint_addresses(near, 7420, loopback=False) == (
        "192.168.1.5:7420",
        "10.0.0.7:7420",
        "169.254.3.4:7420",
        "100.64.0.9:7420",
        "[fd00::7]:7420",
    )
    assert hint_addresses(["127.0.0.1", "10.0.0.7"], 7420, loopback=True) == ("127.0.0.1:7420",)
    for port in (None, 0, -1, 65_536):
        assert hint_addresses(near, port, loopback=False) == ()
    assert len(hint_addresses([f"10.0.0.{n}" for n in range(99)], 1, loopback=False)) == 8
    assert hint_addresses(["10.0.0.1"] * 3, 1, loopback=False) == ("10.0.0.1:1",)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.0.0.7:7420", ("10.0.0.7", 7420)),
        (" Hospital.LAN:80 ", ("hospital.lan", 80)),
        ("hospital", ("hospital", 7420)),
        ("[fd00::7]:1", ("fd00::7", 1)),
        ("[FD00:0::7]", ("fd00::7", 7420)),
        ("fd00::7", ("fd00::7", 7420)),
    ],
)
def test_typed_addresses_are_understood(text: str, expected: tuple[str, int]) -> None:
    """Names and both address families, with or without the port, in one spelling."""
    assert parse_address(text, default_port=7420) == expected
    host, port = expected
    assert parse_address(format_address(host, port)) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("", ":", ":1", "host:", "host:0", "host:65536", "host:x", "host:1:2", "a b:1"),
        *("a/b:1", "user@host:1", "[host]:1", "[::1:1", "host:+1", "host:١", "[::1]7"),
        "x" * 254 + ":1",
    ],
)
def test_nonsense_addresses_are_refused_with_a_hint(text: str) -> None:
    """``ConfigError`` with advice; no port is guessed where none was agreed."""
    with pytest.raises(ConfigError) as caught:
        parse_address(text)
    assert "host:port" in caught.value.hint
