"""Short questions to the network, for ``p2pmed doctor``: they change nothing and take seconds.

What a probe can tell is said where it is defined, and no more: that this machine hears its own
multicast does not prove that the router passes it on.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import secrets
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from zeroconf import IPVersion
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from p2pmed.discovery.records import SERVICE_TYPE, read_txt

__all__ = ["Heard", "hears_own_multicast", "listen_for_nodes", "port_taken"]

GROUP: Final = "224.0.0.251"
"""mDNS's own group (RFC 6762), on a port of our own: no responder is disturbed."""
ECHO_S: Final = 0.5
RESOLVE_MS: Final = 1_000
HEARD_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class Heard:
    """One node that announces itself."""

    tag: str
    """Of its network; empty if it speaks another version."""
    addresses: tuple[str, ...]
    port: int


def port_taken(host: str, port: int) -> str:
    """Why ``port`` cannot be listened on now; empty if it can."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen(1)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return "another program listens on it"
            return (error.strerror or type(error).__name__).lower()
    return ""


def hears_own_multicast(address: str) -> str:
    """Why what is sent to the group on ``address`` does not come back; empty if it does.

    Blocks for half a second at most.
    """
    token = secrets.token_bytes(16)
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
            link.settimeout(ECHO_S)
            link.bind(("", 0))
            here = socket.inet_aton(address)
            member = socket.inet_aton(GROUP) + here
            link.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
            link.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, here)
            link.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
            link.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 1)
            link.sendto(token, (GROUP, link.getsockname()[1]))
            while link.recv(64) != token:
                pass
    except TimeoutError:
        return "it did not come back"
    except OSError as error:
        return (error.strerror or type(error).__name__).lower()
    return ""


async def listen_for_nodes(addresses: Sequence[str], *, seconds: float) -> list[Heard]:
    """Who announces itself on ``addresses`` within ``seconds``; nobody where multicast fails."""
    names: dict[str, None] = {}

    def note(zeroconf: object, service_type: str, name: str, state_change: object) -> None:
        if len(names) < HEARD_MAX:
            names[name] = None

    heard: list[Heard] = []
    with contextlib.suppress(Exception):  # whatever multicast throws, nobody was heard
        quiet = AsyncZeroconf(interfaces=list(addresses), ip_version=IPVersion.V4Only)
        try:
            browser = AsyncServiceBrowser(quiet.zeroconf, SERVICE_TYPE, handlers=[note])
            await asyncio.sleep(seconds)
            await browser.async_cancel()
            for name in names:
                info = AsyncServiceInfo(SERVICE_TYPE, name)
                if await info.async_request(quiet.zeroconf, RESOLVE_MS):
                    hosts = tuple(sorted(info.parsed_addresses(IPVersion.V4Only)))
                    heard.append(Heard(read_txt(info.properties) or "", hosts, info.port or 0))
        finally:
            await quiet.async_close()
    return sorted(heard, key=lambda node: (node.addresses, node.port))
