"""Links: authenticated channels to peers over aiohttp WebSockets, one per peer.

The listener serves one path, ``/p2pmed/v1``, subprotocol ``p2pmed.v1``, and stands behind the
accept gate. A request with an ``Origin`` header comes from a web page and is refused. Every
connection, dialled or accepted, drives a ``Channel``; who is at the other end is known only
from it. Two channels to one peer are settled by ``discovery.peerbook.survives``, alike on both
ends.

Rules: a ``send`` enqueues and never waits; what a peer does wrong ends its connection and
nothing else; identifiers are logged, contents never.
Implements: networking notes, section 4.2; threats rows 9, 15, 18 and 21.
Not here: when and where to dial (``discovery/peerbook.py``), what messages mean.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import aiohttp
from aiohttp import web

from p2pmed.aio.connection import Connection, tune_socket
from p2pmed.aio.gate import AcceptGate, gated
from p2pmed.discovery.peerbook import Standing, survives
from p2pmed.discovery.records import format_address, parse_address
from p2pmed.engine import Entropy
from p2pmed.errors import ConfigError, LocalProtocolError
from p2pmed.limits import HANDSHAKE_MS_MAX, NOISE_FRAME_BYTES_MAX, PEERS_MAX
from p2pmed.transport.channel import Channel
from p2pmed.transport.events import Established
from p2pmed.transport.proof import ChannelIdentity
from p2pmed.world import Clock

__all__ = [
    "PATH",
    "SUBPROTOCOL",
    "DialFailed",
    "Frame",
    "LinkDown",
    "LinkEvent",
    "LinkUp",
    "Links",
]

log = logging.getLogger(__name__)

PATH: Final = "/p2pmed/v1"
SUBPROTOCOL: Final = "p2pmed.v1"

HEARTBEAT_S: Final = 20.0
"""Below the channel's own signs of life: keeps proxies and NATs from forgetting us."""

CLOSE_S: Final = 2.0
"""How long ``close`` waits for parting words."""

ACCEPT_BACKLOG: Final = 128


@dataclass(frozen=True, slots=True)
class LinkUp:
    """``peer`` (a device key) is connected and its credential holds."""

    peer: bytes
    chain: tuple[bytes, ...] = field(repr=False)
    address: str
    """What we dialled, or where an inbound connection came from (not dialable)."""
    inbound: bool


@dataclass(frozen=True, slots=True)
class LinkDown:
    """The link to ``peer`` is gone; after ``"replaced"`` a ``LinkUp`` follows at once."""

    peer: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class Frame:
    """One message from ``peer``."""

    peer: bytes
    message: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class DialFailed:
    """A dial brought no link; ``peer`` is the key that was proved there all the same."""

    address: str
    reason: str
    peer: bytes | None = None


LinkEvent: TypeAlias = LinkUp | LinkDown | Frame | DialFailed


class Links:
    """All links of one node; one listener, many dials.

    ``on_event`` is called in the event loop and must not block; events of one peer come in
    order. Give ``host`` and ``port`` to listen (``start``), or ``attach`` to an application
    of the embedder's and ``start(listen=False)``. ``room`` is awaited after each frame: while it
    waits nothing more is read, and the sender feels it.
    """

    def __init__(
        self,
        *,
        network_id: bytes,
        identity: ChannelIdentity,
        authenticate: Callable[[bytes, tuple[bytes, ...]], None],
        entropy: Entropy,
        clock: Clock,
        on_event: Callable[[LinkEvent], None],
        host: str = "0.0.0.0",  # noqa: S104  a clinic's peers are on its LAN
        port: int = 0,
        peers_max: int = PEERS_MAX,
        room: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._network_id = network_id
        self._identity = identity
        self._authenticate = authenticate
        self._entropy = entropy
        self._clock = clock
        self._on_event = on_event
        self._room = room
        self._host = host
        self._port = port
        self._peers_max = peers_max
        self._gate = AcceptGate()
        self._links: dict[bytes, tuple[Connection, Standing]] = {}
        self._connections: dict[Connection, asyncio.Transport | None] = {}
        self._dialling: dict[str, asyncio.Task[None]] = {}
        """Dials without a link yet, by address."""
        self._tasks: set[asyncio.Task[None]] = set()
        """Every dial and the link that came of it; inbound ones belong to the server."""
        self._empty = asyncio.Event()
        """Set while there is no connection."""
        self._empty.set()
        self._session: aiohttp.ClientSession | None = None
        self._runner: web.AppRunner | None = None
        self._server: asyncio.Server | None = None
        self._attached = False
        self._closing = False

    # --- life -------------------------------------------------------------------------------

    async def start(self, *, listen: bool = True) -> int:
        """Open the port (unless ``listen`` is false); return the port, 0 if there is none.

        Raises ``ConfigError`` if the address cannot be listened on. Cancelling leaves
        nothing open.
        """
        if self._session is not None:
            raise LocalProtocolError("links are started once")
        if listen:
            await self._listen()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
            cookie_jar=aiohttp.DummyCookieJar(),
            middlewares=(_no_redirect,),
            trust_env=False,
        )
        return self._port

    async def _listen(self) -> None:
        app = web.Application()
        app.router.add_get(PATH, self._accept)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=CLOSE_S)
        await runner.setup()
        server = runner.server
        assert server is not None
        try:
            self._server = await asyncio.get_running_loop().create_server(
                gated(self._gate, server), self._host, self._port, backlog=ACCEPT_BACKLOG
            )
        except OSError as error:
            await runner.cleanup()
            raise _cannot_listen(error, self._host, self._port) from None
        except BaseException:
            await runner.cleanup()
            raise
        self._runner = runner
        self._port = self._server.sockets[0].getsockname()[1]

    def attach(self, app: web.Application) -> None:
        """Serve the peers' path from an application of the embedder's, before it starts.

        The gate then counts from the request on; guarding the port against connections that
        never send one is the embedder's business.
        """
        app.router.add_get(PATH, self._accept)
        app.on_shutdown.append(self._on_app_shutdown)
        self._attached = True

    async def _on_app_shutdown(self, _: web.Application) -> None:
        await self.close()

    async def close(self) -> None:
        """Say goodbye to every peer, close the port, end every task. Again is nothing.

        Each link gives its ``LinkDown`` before this returns; nothing comes after. If
        cancelled, connections are cut without a parting word.
        """
        if self._closing:
            return
        self._closing = True
        if self._server is not None:
            self._server.close()
        for task in list(self._dialling.values()):
            task.cancel()
        for connection in list(self._connections):
            connection.close("closing")
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_S):
                    await self._empty.wait()
        finally:
            self._gate.close()
            for transport in self._connections.values():
                if transport is not None:
                    transport.abort()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            if self._session is not None:
                await self._session.close()
            if self._runner is not None:
                await self._runner.cleanup()

    async def __aenter__(self) -> Links:
        await self.start(listen=not self._attached)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # --- what a node asks -------------------------------------------------------------------

    @property
    def port(self) -> int:
        """The port listened on; before ``start``, the one asked for."""
        return self._port

    @property
    def peers(self) -> tuple[bytes, ...]:
        """Connected device keys, the longest connected first."""
        return tuple(self._links)

    @property
    def half_open(self) -> int:
        """Accepted connections whose peer is not authenticated yet."""
        return len(self._gate)

    def dial(self, address: str, *, expected_peer: bytes | None = None) -> None:
        """Try to open a channel to ``host:port``; the outcome comes as an event.

        A second dial to an address while one is under way is the same dial. ``expected_peer``
        refuses whoever else answers. Raises ``ConfigError`` for what is no address.
        """
        host, port = parse_address(address)
        if self._session is None or self._closing:
            raise LocalProtocolError("links are not running")
        if address in self._dialling:
            return
        url = f"ws://{format_address(host, port)}{PATH}"
        task = asyncio.get_running_loop().create_task(self._dial(address, url, expected_peer))
        self._dialling[address] = task
        self._tasks.add(task)
        task.add_done_callback(self._on_task_done)

    def send(self, peer: bytes, message: bytes, *, control: bool) -> bool:
        """Queue one message; ``False`` without a link or with its queue full. Never waits."""
        link = self._links.get(peer)
        return link is not None and link[0].send(message, control=control)

    def drop(self, peer: bytes, reason: str) -> None:
        """Close the link to ``peer``, if there is one; ``LinkDown`` comes before it returns."""
        link = self._links.get(peer)
        if link is not None:
            link[0].close(reason)

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:  # never a peer's fault: those end in DialFailed or LinkDown
            log.error("a link ended by an error of this node", exc_info=error)

    # --- connections ------------------------------------------------------------------------

    async def _accept(self, request: web.Request) -> web.StreamResponse:
        fault = _request_fault(request)
        if fault is not None or self._closing:
            refusal = web.Response(status=fault or 503)
            refusal.force_close()
            return refusal
        transport = request.transport
        if transport is None:
            return web.Response(status=503)
        self._gate.enter(transport)
        ws = web.WebSocketResponse(
            heartbeat=HEARTBEAT_S,
            max_msg_size=NOISE_FRAME_BYTES_MAX + 1,  # aiohttp's bound is exclusive
            compress=False,
            protocols=(SUBPROTOCOL,),
            timeout=1.0,
        )
        try:
            await ws.prepare(request)
            tune_socket(transport.get_extra_info("socket"))
            connection = self._connection(request.remote or "", inbound=True, expected=None)
            await self._drive(connection, ws, transport)
        finally:
            self._gate.leave(transport)
        return ws

    async def _dial(self, address: str, url: str, expected: bytes | None) -> None:
        reason, connection = "", None
        try:
            ws = await self._connect(url)
            tune_socket(ws.get_extra_info("socket"))
            connection = self._connection(address, inbound=False, expected=expected)
            await self._drive(connection, ws, None)
        except TimeoutError:
            reason = "timeout"
        except (aiohttp.ClientError, OSError) as error:
            reason = _plain(error)
        except asyncio.CancelledError:
            if not self._closing:
                raise
        finally:
            self._dialling.pop(address, None)
        if self._closing or (connection is not None and connection.established):
            return
        peer = connection.channel.peer if connection is not None else None
        self._emit(DialFailed(address, reason or (connection.reason if connection else ""), peer))

    async def _connect(self, url: str) -> aiohttp.ClientWebSocketResponse:
        assert self._session is not None
        async with asyncio.timeout(HANDSHAKE_MS_MAX / 1000):
            ws = await self._session.ws_connect(
                url,
                protocols=(SUBPROTOCOL,),
                heartbeat=HEARTBEAT_S,
                compress=0,
                max_msg_size=NOISE_FRAME_BYTES_MAX + 1,
                timeout=aiohttp.ClientWSTimeout(ws_close=1.0),
            )
        if ws.protocol != SUBPROTOCOL:
            await ws.close()
            raise aiohttp.ClientPayloadError("not a p2pmed node")
        return ws

    def _connection(self, address: str, *, inbound: bool, expected: bytes | None) -> Connection:
        channel = Channel(
            network_id=self._network_id,
            keys=self._identity,
            authenticate=self._authenticate,
            expected_peer=expected,
            entropy=self._entropy,
            now=self._clock.now(),
            initiator=not inbound,
        )
        return Connection(
            channel,
            self._clock,
            address=address,
            inbound=inbound,
            on_established=self._on_established,
            on_deliver=self._on_deliver,
            on_closed=self._on_closed,
            room=self._room,
        )

    async def _drive(
        self,
        connection: Connection,
        ws: web.WebSocketResponse | aiohttp.ClientWebSocketResponse,
        transport: asyncio.Transport | None,
    ) -> None:
        self._connections[connection] = transport
        self._empty.clear()
        try:
            await connection.run(ws)
        finally:
            self._connections.pop(connection, None)
            if not self._connections:
                self._empty.set()

    # --- what channels say ------------------------------------------------------------------

    def _on_established(self, connection: Connection, event: Established) -> None:
        self._gate.leave(self._connections.get(connection))
        standing = Standing(
            dialler=event.peer if connection.inbound else self._identity.device,
            boot=event.hello.boot,
            binding=connection.channel.binding,
        )
        refusal = self._settle(event.peer, standing)
        if refusal:
            connection.close(refusal)
            return
        self._links[event.peer] = (connection, standing)
        connection.established = True
        if not connection.inbound:
            self._dialling.pop(connection.address, None)
        log.info("link up %s %s", event.peer.hex()[:8], "in" if connection.inbound else "out")
        self._emit(LinkUp(event.peer, event.chain, connection.address, connection.inbound))

    def _settle(self, peer: bytes, new: Standing) -> str:
        """Make way for a new channel to ``peer``; or why it must go, in words."""
        if self._closing:
            return "closing"
        held = self._links.get(peer)
        if held is None:
            return "" if len(self._links) < self._peers_max else "no room for another peer"
        connection, old = held
        quiet_ms = self._clock.now() - connection.channel.heard_at
        if not survives(new, _with_quiet(old, quiet_ms)):
            return "duplicate"
        connection.close("replaced")
        return ""

    def _on_deliver(self, connection: Connection, message: bytes) -> None:
        peer = connection.channel.peer
        assert peer is not None  # nothing is delivered before
        self._emit(Frame(peer, message))

    def _on_closed(self, connection: Connection, reason: str) -> None:
        peer = connection.channel.peer
        if peer is None:
            log.debug("connection with %s ended: %s", connection.address, reason)
            return
        held = self._links.get(peer)
        if held is None or held[0] is not connection:
            return
        del self._links[peer]
        log.info("link down %s: %s", peer.hex()[:8], reason)
        self._emit(LinkDown(peer, reason))

    def _emit(self, event: LinkEvent) -> None:
        self._on_event(event)


def _with_quiet(standing: Standing, quiet_ms: int) -> Standing:
    return Standing(
        dialler=standing.dialler, boot=standing.boot, binding=standing.binding, quiet_ms=quiet_ms
    )


def _request_fault(request: web.Request) -> int | None:
    """The status that refuses a request, or ``None`` if it may upgrade."""
    if "Origin" in request.headers:
        return 403  # a web page in somebody's browser (threats row 18)
    offered = [
        part.strip() for part in request.headers.get("Sec-WebSocket-Protocol", "").split(",")
    ]
    if request.headers.get("Upgrade", "").lower() != "websocket" or SUBPROTOCOL not in offered:
        return 426
    return None


async def _no_redirect(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """A peer may not send our dial elsewhere."""
    response = await handler(request)
    if 300 <= response.status < 400:
        response.close()
        raise aiohttp.ClientPayloadError("redirected")
    return response


def _plain(error: Exception) -> str:
    """Why a dial failed, in a few words."""
    if isinstance(error, aiohttp.WSServerHandshakeError):
        return f"refused with status {error.status}"
    if isinstance(error, aiohttp.ClientConnectorError):
        return "unreachable"
    return str(error) if isinstance(error, aiohttp.ClientPayloadError) else "connection lost"


def _cannot_listen(error: OSError, host: str, port: int) -> ConfigError:
    where = format_address(host, port)
    said = {
        errno.EADDRINUSE: (
            f"another program already listens on {where}",
            "stop the other program (perhaps a second p2pmed node), or choose another port",
        ),
        errno.EACCES: (
            f"this user may not listen on {where}",
            "choose a port above 1023",
        ),
        errno.EADDRNOTAVAIL: (
            f"this machine has no address {host}",
            "listen on 0.0.0.0, or on an address that this machine has",
        ),
    }
    message, hint = said.get(
        error.errno or 0, (f"cannot listen on {where}", "check the address and the port")
    )
    return ConfigError(message, hint=hint)
