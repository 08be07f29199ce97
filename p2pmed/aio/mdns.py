"""mDNS: saying that we are here, and hearing who else is. Hints only.

What the package does by itself is not enough, as measured: a browser asks at 0, 1, 5 and 14 s
and then no more, so nodes that started without a link never met; a node that lost power
stays in caches for twenty minutes; interfaces are a snapshot of the start. Hence:

* we announce again every 15 to 30 s with jitter, and every announcement heard, new or known,
  is a hint (at most one per address in ``HINT_REST_S``);
* the machine's addresses are looked at every 5 s; what two looks agree on is followed;
* liveness is nobody's business here.

Rule: a node works without multicast. Nothing raises out of this module; ``status`` says in
one sentence what is going on. mDNS is unauthenticated by design: a hint of our network's
tag is believed exactly as far as ``on_hint`` believes it.
Implements: networking notes, section 4.1; threats rows 13 and 14.
Byte-exact: ``docs/protocols/discovery.md``.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

import ifaddr
from zeroconf import (  # type: ignore[attr-defined]  # DNSPointer is not in __all__
    DNSPointer,
    IPVersion,
    RecordUpdate,
    RecordUpdateListener,
    Zeroconf,
)
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from p2pmed.discovery.records import (
    SERVICE_TYPE,
    hint_addresses,
    instance_name,
    network_tag,
    read_txt,
    write_txt,
)
from p2pmed.engine import Rng

__all__ = ["LOOPBACK", "Mdns", "network_tag"]

log = logging.getLogger(__name__)

LOOPBACK: Final = ("127.0.0.1",)
"""As ``addresses``: several nodes on one machine, nobody else."""

POLL_S: Final = 5.0
ANNOUNCE_MS_MIN: Final = 15_000
ANNOUNCE_MS_MAX: Final = 30_000
HINT_REST_S: Final = 5.0
RESOLVE_MS: Final = 3_000
RESOLVING_MAX: Final = 32
"""Questions under way for services whose records did not all come at once."""
RESTED_MAX: Final = 1_024
"""Addresses whose last hint is remembered."""

assert ANNOUNCE_MS_MIN < ANNOUNCE_MS_MAX


class Mdns:
    """Announces one node and reports others of its network.

    ``addresses`` are the IPv4 addresses to announce and listen on; ``None`` follows the
    machine's own. ``on_hint(address)`` is called in the event loop with ``host:port``.
    """

    def __init__(
        self,
        *,
        network_tag: str,
        port: int,
        addresses: Sequence[str] | None,
        on_hint: Callable[[str], None],
        rng: Rng,
        announce_ms: tuple[int, int] = (ANNOUNCE_MS_MIN, ANNOUNCE_MS_MAX),
        poll_s: float = POLL_S,
    ) -> None:
        self._tag = network_tag
        self._port = port
        self._fixed = tuple(addresses) if addresses is not None else None
        self._on_hint = on_hint
        self._rng = rng
        self._announce_ms = announce_ms
        self._poll_s = poll_s
        self._name = f"{instance_name(rng)}.{SERVICE_TYPE}"
        self._loopback = self._fixed is not None and all(map(_is_loopback, self._fixed))
        self._zeroconf: AsyncZeroconf | None = None
        self._browser: AsyncServiceBrowser | None = None
        self._listener: _Listener | None = None
        self._current: tuple[str, ...] = ()
        self._seen: tuple[str, ...] | None = None
        self._rested: dict[str, float] = {}
        self._task: asyncio.Task[None] | None = None
        self._resolving: dict[str, asyncio.Task[None]] = {}
        self._status = "not started"

    @property
    def status(self) -> str:
        """What discovery is doing, in one sentence for a person."""
        return self._status

    @property
    def announcing(self) -> bool:
        """Whether an announcement is out."""
        return bool(self._current)

    # --- life -------------------------------------------------------------------------------

    async def start(self) -> None:
        """Announce and listen from now on, in the background; never raises.

        Without a network or multicast it keeps trying. ``status`` tells how it went.
        """
        if self._task is not None:
            return
        self._status = "starting"
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Say goodbye and stop; about half a second. Cancelling skips the goodbye."""
        if self._task is None:
            return
        task, self._task = self._task, None
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await self._silence()
        self._status = "stopped"

    async def __aenter__(self) -> Mdns:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _run(self) -> None:
        """Look at the addresses often, announce now and then."""
        self._seen = self._look()
        await self._follow(self._seen)
        wait_s = self._next_announcement_s()
        while True:
            pause_s = min(self._poll_s, wait_s)
            await asyncio.sleep(pause_s)
            wait_s -= pause_s
            looked = self._look()
            steady, self._seen = looked == self._seen, looked
            if steady and looked != self._current:
                await self._follow(looked)
            if wait_s <= 0:
                wait_s = self._next_announcement_s()
                await self._announce_again()

    def _next_announcement_s(self) -> float:
        return self._rng.randint(*self._announce_ms) / 1000

    # --- addresses --------------------------------------------------------------------------

    def _look(self) -> tuple[str, ...]:
        return self._fixed if self._fixed is not None else machine_addresses()

    async def _follow(self, addresses: tuple[str, ...]) -> None:
        """Announce on ``addresses`` from now on."""
        if not addresses:
            self._status = "no network address; waiting for a link"
            await self._silence()
            return
        if self._zeroconf is None:
            await self._attempt(self._open(addresses), addresses)
        else:
            await self._attempt(self._move(addresses), addresses)

    async def _attempt(self, work: Coroutine[Any, Any, None], addresses: tuple[str, ...]) -> None:
        try:
            await work
        except Exception as error:  # whatever multicast throws, the node lives without it
            log.info("no multicast: %s", type(error).__name__)
            await self._silence()
            self._status = f"no multicast on {', '.join(addresses)}: {_why(error)}"
        else:
            self._current = addresses
            self._status = f"announcing on {', '.join(addresses)}"

    async def _open(self, addresses: tuple[str, ...]) -> None:
        self._zeroconf = AsyncZeroconf(interfaces=list(addresses), ip_version=IPVersion.V4Only)
        await self._zeroconf.zeroconf.async_wait_for_start()
        self._listener = _Listener(self._on_pointer)
        self._zeroconf.zeroconf.add_listener(self._listener, None)
        self._browser = AsyncServiceBrowser(
            self._zeroconf.zeroconf, SERVICE_TYPE, handlers=[_ignore]
        )
        # No probing: the name is unique by its 128 random bits, and probing costs a second.
        await (
            await self._zeroconf.async_register_service(
                self._info(addresses), cooperating_responders=True
            )
        )

    async def _move(self, addresses: tuple[str, ...]) -> None:
        assert self._zeroconf is not None
        await self._zeroconf.async_update_interfaces(interfaces=list(addresses))
        await (await self._zeroconf.async_update_service(self._info(addresses)))

    async def _announce_again(self) -> None:
        if self._zeroconf is None or not self._current:
            return
        try:
            await (await self._zeroconf.async_update_service(self._info(self._current)))
        except Exception as error:
            self._status = f"cannot announce: {_why(error)}"
            log.info("cannot announce: %s", type(error).__name__)
        else:
            self._status = f"announcing on {', '.join(self._current)}"

    async def _silence(self) -> None:
        """Say goodbye and close everything that was opened; the next look opens it afresh.

        If cancelled, what is not closed yet is still known, and a second call closes it.
        """
        for task in list(self._resolving.values()):
            task.cancel()
        self._resolving.clear()
        self._current = ()
        if self._zeroconf is None:
            return
        if self._listener is not None:
            self._zeroconf.zeroconf.remove_listener(self._listener)
            self._listener = None
        with contextlib.suppress(Exception):
            if self._browser is not None:
                await self._browser.async_cancel()
                self._browser = None
        with contextlib.suppress(Exception):
            await self._zeroconf.async_close()
        self._zeroconf = None

    def _info(self, addresses: tuple[str, ...]) -> AsyncServiceInfo:
        return AsyncServiceInfo(
            SERVICE_TYPE,
            self._name,
            port=self._port,
            parsed_addresses=list(addresses),
            server=f"{self._name.partition('.')[0]}.local.",
            properties=write_txt(self._tag),
        )

    # --- hints ------------------------------------------------------------------------------

    def _on_pointer(self, name: str) -> None:
        """Somebody said that the instance ``name`` is there."""
        if self._zeroconf is None or name.lower() == self._name or name in self._resolving:
            return
        info = AsyncServiceInfo(SERVICE_TYPE, name)
        if info.load_from_cache(self._zeroconf.zeroconf):
            self._hint(info)
        elif len(self._resolving) < RESOLVING_MAX:
            task = asyncio.get_running_loop().create_task(
                self._resolve(info, self._zeroconf.zeroconf)
            )
            self._resolving[name] = task
            task.add_done_callback(lambda _: self._resolving.pop(name, None))

    async def _resolve(self, info: AsyncServiceInfo, zeroconf: Zeroconf) -> None:
        with contextlib.suppress(Exception):
            if await info.async_request(zeroconf, RESOLVE_MS):
                self._hint(info)

    def _hint(self, info: AsyncServiceInfo) -> None:
        if read_txt(info.properties) != self._tag:
            return
        now_s = time.monotonic()
        hosts = info.parsed_addresses(IPVersion.V4Only)
        for address in hint_addresses(hosts, info.port, loopback=self._loopback):
            if now_s - self._rested.get(address, -HINT_REST_S) < HINT_REST_S:
                continue
            self._rested.pop(address, None)
            while len(self._rested) >= RESTED_MAX:
                del self._rested[next(iter(self._rested))]
            self._rested[address] = now_s
            self._on_hint(address)


class _Listener(RecordUpdateListener):
    """Every pointer of our type, refreshed ones too, once the records with it are cached."""

    def __init__(self, on_pointer: Callable[[str], None]) -> None:
        self._on_pointer = on_pointer
        self._names: dict[str, None] = {}

    def async_update_records(self, zc: Zeroconf, now: float, records: list[RecordUpdate]) -> None:
        for update in records:
            record = update.new
            if (
                isinstance(record, DNSPointer)
                and record.name.lower() == SERVICE_TYPE
                and not record.is_expired(now)
                and len(self._names) < RESOLVING_MAX
            ):
                self._names[record.alias] = None

    def async_update_records_complete(self) -> None:
        names, self._names = list(self._names), {}
        for name in names:
            # A name a peer made up must not break the package's own dispatch.
            try:
                self._on_pointer(name)
            except Exception as error:
                log.info("an advertisement was ignored: %s", type(error).__name__)


def machine_addresses() -> tuple[str, ...]:
    """The IPv4 addresses of this machine that a LAN peer could dial, sorted."""
    found: set[str] = set()
    with contextlib.suppress(OSError):
        for adapter in ifaddr.get_adapters():
            for ip in adapter.ips:
                if ip.is_IPv4 and isinstance(ip.ip, str) and not _is_loopback(ip.ip):
                    found.add(ip.ip)
    return tuple(sorted(found))


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address).is_loopback


def _ignore(*_: object, **__: object) -> None:
    """The browser asks; the listener hears the answers."""


def _why(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return type(error).__name__
