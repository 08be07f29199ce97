"""What is said about a node on a LAN, and how addresses are spelled.

An advertisement is the DNS-SD service ``_p2pmed._tcp.local.`` with a random instance name
per boot and a TXT record of two entries: ``v=1`` and ``n=`` the first 8 bytes of BLAKE2b-256
of the network id, in hex. No name of a clinic, no key, no role, no epoch: LANs are public,
and a node that returns after an epoch must still be found.

Rule: an advertisement is a hint to dial and never anything more; whatever is odd about it
makes it no hint at all. Only addresses that a LAN can have are dialled on a stranger's word,
so that nobody on the Wi-Fi makes a clinic dial the internet.
Implements: networking notes, section 4.1. Byte-exact: ``docs/protocols/discovery.md``.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Final

from p2pmed.engine import Rng
from p2pmed.errors import ConfigError
from p2pmed.wire.hashing import hash_bytes

__all__ = [
    "SERVICE_TYPE",
    "format_address",
    "hint_addresses",
    "instance_name",
    "network_tag",
    "parse_address",
    "read_txt",
    "write_txt",
]

SERVICE_TYPE: Final = "_p2pmed._tcp.local."
TXT_VERSION: Final = b"1"
TAG_BYTES: Final = 8
INSTANCE_HEX: Final = 32

TXT_ENTRIES_MAX: Final = 16
"""An advertisement with more is not ours; later versions may add a few."""

HINTS_PER_SERVICE_MAX: Final = 8
"""Addresses taken from one advertisement (threats row 14)."""

HOST_CHARS_MAX: Final = 253
"""A DNS name (RFC 1035)."""

_HEX: Final = frozenset(b"0123456789abcdef")
_HOST_CHARS: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-.")


def network_tag(network_id: bytes) -> str:
    """16 hex digits that tell one network's nodes from another's, without naming it."""
    return hash_bytes(network_id)[:TAG_BYTES].hex()


def instance_name(rng: Rng) -> str:
    """A fresh name: unique by its length, so that nobody has to probe for conflicts."""
    return f"{rng.randint(0, 2**128 - 1):0{INSTANCE_HEX}x}"


def write_txt(tag: str) -> dict[str, str]:
    """The TXT entries of an advertisement."""
    return {"v": TXT_VERSION.decode("ascii"), "n": tag}


def read_txt(entries: Mapping[bytes, bytes | None]) -> str | None:
    """The network tag of an advertisement of ours, or ``None``. Unknown entries are ignored."""
    if len(entries) > TXT_ENTRIES_MAX or entries.get(b"v") != TXT_VERSION:
        return None
    tag = entries.get(b"n")
    if tag is None or len(tag) != 2 * TAG_BYTES or not _HEX.issuperset(tag):
        return None
    return tag.decode("ascii")


def hint_addresses(hosts: Sequence[str], port: int | None, *, loopback: bool) -> tuple[str, ...]:
    """The dialable addresses among those that an advertisement claims, in its order.

    With ``loopback`` (several nodes on one machine) only loopback addresses count,
    otherwise only private and link-local ones. Never raises.
    """
    if port is None or not 1 <= port <= 65_535:
        return ()
    found: dict[str, None] = {}
    for host in hosts[:HINTS_PER_SERVICE_MAX]:
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            continue
        if address.is_multicast or address.is_unspecified:
            continue
        near = address.is_loopback if loopback else _on_a_lan(address)
        if near:
            found[format_address(host, port)] = None
    return tuple(found)


def _on_a_lan(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    if address.is_loopback or address.is_reserved:
        return False
    return not address.is_global


def format_address(host: str, port: int) -> str:
    """``host:port``, an IPv6 host in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_address(text: str, *, default_port: int | None = None) -> tuple[str, int]:
    """Host and port of an address as a person types it: ``10.0.0.7:7420``, ``hospital.lan``,
    ``[fd00::7]:7420``.

    Raises ``ConfigError`` that says what is wrong with it.
    """
    address = text.strip().lower()
    host, port_text = _split(address)
    if port_text:
        port = int(port_text) if port_text.isascii() and port_text.isdigit() else 0
    else:
        port = default_port or 0
    if not 1 <= port <= 65_535:
        raise ConfigError(
            f"the address {text!r} has no port between 1 and 65535",
            hint="write it as host:port, for example 192.168.1.5:7420",
        )
    if ":" in host:
        try:
            # Another spelling of one address would be another address to redial.
            return str(ipaddress.IPv6Address(host)), port
        except ValueError:
            host = ""
    if not host or len(host) > HOST_CHARS_MAX or not _HOST_CHARS.issuperset(host):
        raise ConfigError(
            f"the address {text!r} names no host",
            hint="write it as host:port; an IPv6 address goes in brackets",
        )
    return host, port


def _split(address: str) -> tuple[str, str]:
    if address.startswith("["):
        host, _, rest = address[1:].partition("]")
        well_formed = ":" in host and (not rest or rest.startswith(":"))
        return (host if well_formed else ""), rest.removeprefix(":")
    if address.count(":") > 1:
        return address, ""  # a bare IPv6 address
    host, _, port = address.partition(":")
    return host, port
