"""mDNS over real multicast on the loopback interface."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import Callable

import pytest
from zeroconf import IPVersion
from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

from p2pmed.aio import mdns as module
from p2pmed.aio.mdns import LOOPBACK, Mdns, machine_addresses
from p2pmed.discovery.records import SERVICE_TYPE, network_tag

TAG = network_tag(b"\x01" * 32)
WAIT_S = 8.0


def _multicast_works() -> bool:
    """Whether a datagram to the mDNS group comes back on loopback."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
            receiver.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            receiver.bind(("", 0))
            group = socket.inet_aton("224.0.0.251") + socket.inet_aton("127.0.0.1")
            receiver.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
            receiver.settimeout(0.5)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                loopback = socket.inet_aton("127.0.0.1")
                sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, loopback)
                sender.sendto(b"?", ("224.0.0.251", receiver.getsockname()[1]))
            return receiver.recv(1) == b"?"
    except OSError:
        return False


needs_multicast = pytest.mark.skipif(
    not _multicast_works(), reason="this system does not permit multicast on loopback"
)


def make(port: int, hints: list[str], *, tag: str = TAG, seed: int | None = None) -> Mdns:
    return Mdns(
        network_tag=tag,
        port=port,
        addresses=LOOPBACK,
        on_hint=hints.append,
        rng=random.Random(port if seed is None else seed),
        announce_ms=(300, 600),
        poll_s=0.2,
    )


async def until(condition: Callable[[], bool]) -> float:
    began = time.monotonic()
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0.02)
    return time.monotonic() - began


@needs_multicast
async def test_two_nodes_of_one_network_find_each_other_and_no_stranger() -> None:
    """Each gets the other's address as a hint; another network's node and oneself give none."""
    first: list[str] = []
    second: list[str] = []
    foreign: list[str] = []
    async with (
        make(40_001, first) as one,
        make(40_002, second),
        make(40_003, foreign, tag=network_tag(b"\x02" * 32)),
    ):
        took_s = await until(lambda: bool(first and second))
        assert took_s < 2.0
        await until(lambda: one.announcing)
        assert one.status == "announcing on 127.0.0.1"
        await asyncio.sleep(0.7)
        assert set(first) == {"127.0.0.1:40002"}
        assert set(second) == {"127.0.0.1:40001"}
        assert foreign == []
    assert one.status == "stopped"


@needs_multicast
async def test_a_known_announcement_is_a_hint_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Re-announcements of cached records still arrive: a peer back from an outage is dialled."""
    monkeypatch.setattr(module, "HINT_REST_S", 0.2)
    hints: list[str] = []
    async with make(40_011, hints), make(40_012, []):
        await until(lambda: len(hints) >= 3)
        assert set(hints) == {"127.0.0.1:40012"}


@needs_multicast
async def test_odd_advertisements_are_no_hints() -> None:
    """Wrong version, wrong tag, a foreign or public address, port 0: ignored; the good is seen."""
    hints: list[str] = []
    azc = AsyncZeroconf(interfaces=list(LOOPBACK), ip_version=IPVersion.V4Only)
    odd = [
        ({"v": "2", "n": TAG}, ["127.0.0.1"], 40_101),
        ({"v": "1", "n": TAG.upper()}, ["127.0.0.1"], 40_102),
        ({"v": "1"}, ["127.0.0.1"], 40_103),
        ({"v": "1", "n": TAG}, ["8.8.8.8", "10.0.0.1", "224.0.0.1"], 40_104),
        ({"v": "1", "n": TAG, **{f"x{n}": "y" for n in range(20)}}, ["127.0.0.1"], 40_105),
        ({"v": "1", "n": TAG, "later": "entry"}, ["127.0.0.1"], 40_106),
    ]
    async with make(40_100, hints):
        for number, (properties, addresses, port) in enumerate(odd):
            info = AsyncServiceInfo(
                SERVICE_TYPE,
                f"odd{number}.{SERVICE_TYPE}",
                port=port,
                parsed_addresses=addresses,
                server=f"odd{number}.local.",
                properties=properties,
            )
            await (await azc.async_register_service(info, cooperating_responders=True))
        await until(lambda: bool(hints))
        await asyncio.sleep(0.5)
        await azc.async_close()
    assert set(hints) == {"127.0.0.1:40106"}


async def test_without_multicast_there_is_a_status_and_no_exception(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A machine that cannot multicast gets a sentence, and discovery comes up once it can."""

    class Failing:
        def __init__(self, **_: object) -> None:
            raise OSError(19, "No such device")

    working = module.AsyncZeroconf
    monkeypatch.setattr(module, "AsyncZeroconf", Failing)
    node = make(40_200, [])
    await node.start()
    await until(lambda: node.status != "starting")
    assert node.status == "no multicast on 127.0.0.1: no such device"
    assert not node.announcing
    if _multicast_works():
        monkeypatch.setattr(module, "AsyncZeroconf", working)
        await until(lambda: node.announcing)
        assert node.status == "announcing on 127.0.0.1"
    await node.close()
    assert node.status == "stopped"


@needs_multicast
async def test_a_link_that_comes_up_later_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Started without an address, a node announces after two equal looks at a new one."""
    looks: list[tuple[str, ...]] = [()]
    monkeypatch.setattr(module, "machine_addresses", lambda: looks[-1])
    node = Mdns(
        network_tag=TAG,
        port=40_301,
        addresses=None,
        on_hint=lambda address: None,
        rng=random.Random(1),
        poll_s=0.1,
    )
    async with node:
        await until(lambda: node.status != "starting")
        assert node.status == "no network address; waiting for a link"
        looks.append(("127.0.0.1",))
        await until(lambda: node.announcing)
        looks.append(())
        await until(lambda: not node.announcing)
        assert node.status == "no network address; waiting for a link"


def test_the_machines_addresses_never_include_loopback() -> None:
    """What is announced on a LAN is dialable from there."""
    assert all(not address.startswith("127.") for address in machine_addresses())
