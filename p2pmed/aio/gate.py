"""The accept gate: how many strangers may be half-way in, and for how long.

aiohttp alone keeps a thousand connections open that never send a request (measured); here a
connection counts from ``accept`` until its peer is authenticated, at most ``HALF_OPEN_MAX``
of them, ``HALF_OPEN_PER_ADDRESS_MAX`` from one address, each for ``HANDSHAKE_MS_MAX``.

When it is full the oldest half-open connection goes, of the same address if that is what is
full: an honest peer is through within a few round trips, a flood is what grows old.
Implements: threats row 9.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from p2pmed.limits import HALF_OPEN_MAX, HALF_OPEN_PER_ADDRESS_MAX, HANDSHAKE_MS_MAX

__all__ = ["AcceptGate", "gated"]


@dataclass(slots=True)
class _Visitor:
    address: str
    timer: asyncio.TimerHandle


class AcceptGate:
    """Counts half-open connections and cuts those in excess or too slow."""

    def __init__(self) -> None:
        self._visitors: dict[asyncio.BaseTransport, _Visitor] = {}
        self.cut = 0
        """Connections cut so far, for the metrics."""

    def __len__(self) -> int:
        self._sweep()
        return len(self._visitors)

    def enter(self, transport: asyncio.BaseTransport) -> None:
        """Count a new connection; others may be cut for it. Twice is once."""
        if transport in self._visitors:
            return
        self._sweep()
        address = _address_of(transport)
        same = [t for t, visitor in self._visitors.items() if visitor.address == address]
        if len(same) >= HALF_OPEN_PER_ADDRESS_MAX:
            self._cut(same[0])
        elif len(self._visitors) >= HALF_OPEN_MAX:
            self._cut(next(iter(self._visitors)))
        timer = asyncio.get_running_loop().call_later(HANDSHAKE_MS_MAX / 1000, self._cut, transport)
        self._visitors[transport] = _Visitor(address, timer)

    def leave(self, transport: asyncio.BaseTransport | None) -> None:
        """The connection is authenticated or over: it counts no longer."""
        visitor = self._visitors.pop(transport, None) if transport is not None else None
        if visitor is not None:
            visitor.timer.cancel()

    def close(self) -> None:
        """Cut everybody who is half-way in."""
        for transport in list(self._visitors):
            self._cut(transport)

    def _cut(self, transport: asyncio.BaseTransport) -> None:
        self.leave(transport)
        self.cut += 1
        if isinstance(transport, asyncio.WriteTransport):
            transport.abort()
        else:
            transport.close()

    def _sweep(self) -> None:
        for transport in [t for t in self._visitors if t.is_closing()]:
            self.leave(transport)


class _Doorkeeper(asyncio.Protocol):
    """Counts a connection, then hands it to the protocol that serves it."""

    def __init__(self, gate: AcceptGate, serve: Callable[[], asyncio.BaseProtocol]) -> None:
        self._gate = gate
        self._serve = serve

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._gate.enter(transport)
        protocol = self._serve()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)


def gated(
    gate: AcceptGate, serve: Callable[[], asyncio.BaseProtocol]
) -> Callable[[], asyncio.BaseProtocol]:
    """A protocol factory like ``serve``, behind ``gate``."""
    return lambda: _Doorkeeper(gate, serve)


def _address_of(transport: asyncio.BaseTransport) -> str:
    name = transport.get_extra_info("peername")
    return str(name[0]) if isinstance(name, tuple) and name else ""
