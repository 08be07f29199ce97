"""Links over real sockets on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from nacl import bindings

from p2pmed.aio import links as module
from p2pmed.aio.links import PATH, SUBPROTOCOL, DialFailed, Frame, LinkDown, Links, LinkUp
from p2pmed.engine import Instant
from p2pmed.errors import ConfigError, CredentialError, LocalProtocolError
from p2pmed.limits import FRAME_BYTES_MAX, HALF_OPEN_MAX, HALF_OPEN_PER_ADDRESS_MAX
from p2pmed.transport.proof import make_identity

NETWORK = bytes(range(32))
WAIT_S = 10.0


class SystemEntropy:
    def token(self, size: int) -> bytes:
        return os.urandom(size)


class SystemClock:
    def now(self) -> Instant:
        return Instant(time.monotonic_ns() // 1_000_000)

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000


class Node:
    """One node's links and what they said."""

    def __init__(
        self,
        number: int,
        *,
        network: bytes = NETWORK,
        members: Callable[[bytes], bool] = lambda key: True,
        **options: Any,
    ) -> None:
        self.key, secret = bindings.crypto_sign_seed_keypair(bytes([number]) * 32)
        self.events: list[Any] = []
        self._changed = asyncio.Event()

        def authenticate(key: bytes, chain: tuple[bytes, ...]) -> None:
            if not members(key):
                raise CredentialError("not a member")

        identity = make_identity(
            device=self.key,
            sign=lambda message: bindings.crypto_sign(message, secret)[:64],
            chain=(b"credential %d" % number,),
            entropy=SystemEntropy(),
        )
        self.links = Links(
            network_id=network,
            identity=identity,
            authenticate=authenticate,
            entropy=SystemEntropy(),
            clock=SystemClock(),
            on_event=self._on_event,
            host="127.0.0.1",
            **options,
        )

    def _on_event(self, event: Any) -> None:
        self.events.append(event)
        self._changed.set()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.links.port}"

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not condition():
                self._changed.clear()
                await self._changed.wait()


@contextlib.asynccontextmanager
async def nodes(*made: Node) -> AsyncIterator[None]:
    async with contextlib.AsyncExitStack() as stack:
        for node in made:
            await stack.enter_async_context(node.links)
        yield


async def connect(one: Node, two: Node) -> None:
    one.links.dial(two.address)
    await one.until(lambda: two.key in one.links.peers)
    await two.until(lambda: one.key in two.links.peers)


async def test_two_nodes_connect_and_talk_both_ways() -> None:
    """A dial gives ``LinkUp`` with key, chain and direction on both ends, then messages flow."""
    one, two = Node(1), Node(2)
    async with nodes(one, two):
        await connect(one, two)
        assert one.of(LinkUp) == [LinkUp(two.key, (b"credential 2",), two.address, False)]
        (up,) = two.of(LinkUp)
        assert (up.peer, up.chain, up.inbound) == (one.key, (b"credential 1",), True)
        assert one.links.send(two.key, b"hello", control=True)
        assert two.links.send(one.key, b"x" * FRAME_BYTES_MAX, control=False)
        await two.until(lambda: bool(two.of(Frame)))
        await one.until(lambda: bool(one.of(Frame)))
        assert two.of(Frame) == [Frame(one.key, b"hello")]
        assert one.of(Frame) == [Frame(two.key, b"x" * FRAME_BYTES_MAX)]
    # The last one opened closes first.
    assert two.of(LinkDown) == [LinkDown(one.key, "closing")]
    assert one.of(LinkDown) == [LinkDown(two.key, "peer: closing")]


async def test_many_small_messages_arrive_in_order_in_few_frames(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """5,000 messages queued at once arrive complete, in order, batched into large frames."""
    sizes: list[int] = []
    original = aiohttp.ClientWebSocketResponse.send_bytes

    async def counted(self: Any, data: bytes, *args: Any, **kwargs: Any) -> None:
        sizes.append(len(data))
        await original(self, data, *args, **kwargs)

    monkeypatch.setattr(aiohttp.ClientWebSocketResponse, "send_bytes", counted)
    one, two = Node(1), Node(2)
    async with nodes(one, two):
        await connect(one, two)
        sizes.clear()
        sent = [b"%05d" % number + bytes(95) for number in range(5_000)]
        for message in sent:
            assert one.links.send(two.key, message, control=False)
        await two.until(lambda: len(two.of(Frame)) == len(sent))
        assert [event.message for event in two.of(Frame)] == sent
        assert len(sizes) <= 20
        assert max(sizes) <= 33 * 1024


async def test_a_full_queue_refuses_and_control_still_passes() -> None:
    """Overflow of the bulk lane is ``False``, never memory; the control lane is its own."""
    one, two = Node(1), Node(2)
    async with nodes(one, two):
        await connect(one, two)
        taken = 0
        while one.links.send(two.key, bytes(60_000), control=False):
            taken += 1
            assert taken < 100
        assert taken == 17  # 1 MiB of 60,064
        assert one.links.send(two.key, b"vote", control=True)
        await two.until(lambda: len(two.of(Frame)) == taken + 1)
        assert two.of(Frame)[0].message == b"vote"
        assert one.links.send(two.key, b"again", control=False)
        assert not one.links.send(two.key, bytes(FRAME_BYTES_MAX + 1), control=False)
        assert not one.links.send(b"\0" * 32, b"nobody", control=False)


@pytest.mark.parametrize("round_", range(5))
async def test_simultaneous_dials_leave_one_link_dialled_by_the_smaller_key(round_: int) -> None:
    """Both ends keep the same connection: the one that the smaller key dialled."""
    one, two = sorted((Node(1), Node(2)), key=lambda node: node.key)
    async with nodes(one, two):
        one.links.dial(two.address)
        two.links.dial(one.address)
        for node, peer in ((one, two), (two, one)):
            await node.until(lambda node=node, peer=peer: peer.key in node.links.peers)
        async with asyncio.timeout(WAIT_S):
            while len(one.links._connections) > 1 or len(two.links._connections) > 1:
                await asyncio.sleep(0.01)
        assert one.of(LinkUp)[-1].inbound is False
        assert two.of(LinkUp)[-1].inbound is True
        for node in (one, two):
            assert len(node.of(LinkUp)) - len(node.of(LinkDown)) == 1
        assert one.links.send(two.key, b"still here", control=False)
        await two.until(lambda: two.of(Frame) == [Frame(one.key, b"still here")])


async def test_a_second_dial_to_a_connected_peer_is_settled_alike() -> None:
    """Dialling a connected peer again leaves exactly one working link and no ping-pong."""
    one, two = Node(1), Node(2)
    async with nodes(one, two):
        await connect(one, two)
        one.links.dial(two.address.replace("127.0.0.1", "localhost"))
        await one.until(lambda: bool(one.of(DialFailed) or one.of(LinkDown)))
        await asyncio.sleep(0.1)
        assert one.links.peers == (two.key,)
        assert two.links.peers == (one.key,)
        if one.of(DialFailed):
            assert one.of(DialFailed)[0].peer == two.key
        assert one.links.send(two.key, b"ping", control=False)
        await two.until(lambda: bool(two.of(Frame)))


async def test_a_restarted_peer_replaces_its_old_link_at_once() -> None:
    """A peer that lost its memory of the link is not kept out by the old half of it."""
    one, two = Node(1), Node(2)
    async with nodes(one, two):
        await connect(one, two)
        again = Node(2)  # the same device key, a new boot; the old process never said goodbye
        await again.links.start()
        again.links.dial(one.address)
        await again.until(lambda: one.key in again.links.peers)
        await one.until(lambda: len(one.of(LinkUp)) == 2)
        assert one.of(LinkDown) == [LinkDown(two.key, "replaced")]
        await again.links.close()


async def test_failed_dials_say_why() -> None:
    """Unreachable, a stranger, another network, oneself, the wrong peer: each is one event."""
    refusing = Node(2, members=lambda key: False)
    foreign = Node(3, network=bytes(32))
    one, four = Node(1), Node(4)
    async with nodes(one, refusing, foreign, four):
        for address in ("127.0.0.1:1", refusing.address, foreign.address, one.address):
            one.links.dial(address)
            one.links.dial(address)  # the same dial
        await one.until(lambda: len(one.of(DialFailed)) == 4)
        failed = {event.address: event for event in one.of(DialFailed)}
        assert failed["127.0.0.1:1"].reason == "unreachable"
        assert failed[refusing.address].peer is None
        assert failed[foreign.address].reason == "a tag that does not hold"
        assert failed[one.address] == DialFailed(one.address, "self", one.key)
        assert one.links.peers == ()
        one.links.dial(four.address, expected_peer=bytes(32))
        await one.until(lambda: len(one.of(DialFailed)) == 5)
        assert one.of(DialFailed)[-1].reason == "another peer than expected"
        with pytest.raises(ConfigError):
            one.links.dial("nonsense")
    assert not one.of(LinkUp)
    # The side that only listened never heard of a peer it did not let in.
    assert not refusing.of(LinkUp)
    assert not foreign.of(LinkUp)


async def test_a_web_page_is_refused() -> None:
    """Any ``Origin`` is 403, a missing subprotocol or plain GET 426, another path 404."""
    one = Node(1)
    async with nodes(one), aiohttp.ClientSession() as session:
        url = f"http://{one.address}"
        for origin in ("http://evil.example", "null", f"http://{one.address}"):
            with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
                await session.ws_connect(url + PATH, protocols=(SUBPROTOCOL,), origin=origin)
            assert caught.value.status == 403
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await session.ws_connect(url + PATH)
        assert caught.value.status == 426
        async with session.get(url + PATH) as response:
            assert response.status == 426
        async with session.get(url + "/") as response:
            assert response.status == 404


async def _hello_socket(address: str, session: aiohttp.ClientSession) -> Any:
    return await session.ws_connect(f"ws://{address}{PATH}", protocols=(SUBPROTOCOL,))


@pytest.mark.parametrize("garbage", [b"", b"x", bytes(32), bytes(65_535), os.urandom(96)], ids=len)
async def test_garbage_before_the_handshake_closes_only_that_connection(garbage: bytes) -> None:
    """A stranger's bytes end its connection within the deadline; the node goes on."""
    one, two = Node(1), Node(2)
    async with nodes(one, two), aiohttp.ClientSession() as session:
        ws = await _hello_socket(one.address, session)
        await ws.send_bytes(garbage)
        await ws.send_bytes(garbage)
        async with asyncio.timeout(WAIT_S):
            while (await ws.receive()).type is aiohttp.WSMsgType.BINARY:
                pass
        await connect(two, one)
        assert one.links.half_open == 0


async def test_text_and_oversize_frames_close_the_connection() -> None:
    """Only binary messages of at most 65,535 bytes are read at all."""
    one = Node(1)
    async with nodes(one), aiohttp.ClientSession() as session:
        for send in (
            lambda ws: ws.send_str("hello"),
            lambda ws: ws.send_bytes(bytes(65_536)),
        ):
            ws = await _hello_socket(one.address, session)
            await send(ws)
            async with asyncio.timeout(WAIT_S):
                assert (await ws.receive()).type is not aiohttp.WSMsgType.BINARY


async def test_garbage_on_an_open_link_ends_it() -> None:
    """A frame that does not decrypt ends the link on that side with its reason."""
    one, two = Node(1), Node(2)
    async with nodes(one, two):
        await connect(one, two)
        connection, _ = one.links._links[two.key]
        connection._outbox.append(os.urandom(64))
        connection._wake.set()
        await two.until(lambda: bool(two.of(LinkDown)))
        assert two.of(LinkDown) == [LinkDown(one.key, "a tag that does not hold")]
        await one.until(lambda: one.of(LinkDown) != [])
        assert one.of(LinkDown) == [LinkDown(two.key, "peer: a tag that does not hold")]


async def test_sixty_half_open_sockets_do_not_keep_an_honest_peer_out() -> None:
    """60 sockets that send nothing, from the honest peer's own address: it connects at once."""
    one, two = Node(1), Node(2)
    async with nodes(one, two):
        writers = []
        for _ in range(60):
            _, writer = await asyncio.open_connection("127.0.0.1", one.links.port)
            writers.append(writer)
        await asyncio.sleep(0.05)
        assert one.links.half_open <= HALF_OPEN_PER_ADDRESS_MAX
        began = time.monotonic()
        await connect(two, one)
        assert time.monotonic() - began < 1.0
        for writer in writers:
            writer.close()


async def test_half_open_sockets_from_many_addresses_are_bounded_in_total() -> None:
    """Many loopback addresses share one total, and the honest peer still gets in."""
    one, two = Node(1), Node(2)
    async with nodes(one, two):
        writers = []
        try:
            for number in range(60):
                _, writer = await asyncio.open_connection(
                    "127.0.0.1", one.links.port, local_addr=(f"127.0.1.{number + 1}", 0)
                )
                writers.append(writer)
        except OSError:
            pytest.skip("this system has only one loopback address")
        await asyncio.sleep(0.05)
        assert one.links.half_open == HALF_OPEN_MAX
        await connect(two, one)
        for writer in writers:
            writer.close()


async def test_a_silent_socket_is_cut_at_the_handshake_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No request, a slow request and an idle WebSocket all end when the time is up."""
    monkeypatch.setattr("p2pmed.aio.gate.HANDSHAKE_MS_MAX", 300)
    one = Node(1)
    async with nodes(one), aiohttp.ClientSession() as session:
        silent = await asyncio.open_connection("127.0.0.1", one.links.port)
        slow = await asyncio.open_connection("127.0.0.1", one.links.port)
        slow[1].write(b"GET /p2pmed/v1 HTTP/1.1\r\nHost: x\r\n")
        ws = await _hello_socket(one.address, session)
        began = time.monotonic()
        async with asyncio.timeout(WAIT_S):
            for reader, _ in (silent, slow):
                with contextlib.suppress(ConnectionError):
                    assert await reader.read() == b""
            await ws.receive()
        assert 0.1 < time.monotonic() - began < 2.0
        assert one.links.half_open == 0
        for _, writer in (silent, slow):
            writer.close()


async def test_a_redirect_is_not_followed() -> None:
    """A host that answers with a redirect cannot send the dial elsewhere."""
    visited: list[str] = []

    async def redirect(request: web.Request) -> web.Response:
        visited.append(request.path)
        raise web.HTTPFound("/elsewhere")

    app = web.Application()
    app.router.add_get("/{path:.*}", redirect)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    one = Node(1)
    async with nodes(one):
        one.links.dial(f"127.0.0.1:{site.port}")
        await one.until(lambda: bool(one.of(DialFailed)))
        assert one.of(DialFailed)[0].reason == "redirected"
        assert visited == [PATH]
    await runner.cleanup()


async def test_links_serve_from_an_application_of_the_embedder() -> None:
    """``attach`` adds the peers' path to an existing application and opens no port."""
    one, two = Node(1), Node(2)
    app = web.Application()
    one.links.attach(app)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    async with nodes(one, two):
        assert one.links.port == 0
        two.links.dial(f"127.0.0.1:{site.port}")
        await two.until(lambda: two.links.peers == (one.key,))
        await one.until(lambda: one.links.peers == (two.key,))
    await runner.cleanup()


async def test_a_port_in_use_is_one_clear_sentence() -> None:
    """``ConfigError`` names the address and says what to do; nothing stays open."""
    one = Node(1)
    async with nodes(one):
        two = Node(2, port=one.links.port)
        with pytest.raises(ConfigError, match="another program already listens") as caught:
            await two.links.start()
        assert "another port" in caught.value.hint
    elsewhere = Links(
        network_id=NETWORK,
        identity=one.links._identity,
        authenticate=lambda key, chain: None,
        entropy=SystemEntropy(),
        clock=SystemClock(),
        on_event=lambda event: None,
        host="192.0.2.1",
    )
    with pytest.raises(ConfigError, match="no address"):
        await elsewhere.start()


async def test_closing_ends_every_task_and_says_so() -> None:
    """After ``close`` no task of ours runs, a dial in flight leaves no event, no link stays."""
    before = asyncio.all_tasks()
    one, two = Node(1), Node(2)
    async with nodes(one, two):
        await connect(one, two)
        one.links.dial("127.0.0.1:2")
        await one.links.close()
        count = len(one.events)
        assert one.of(LinkDown) == [LinkDown(two.key, "closing")]
        with pytest.raises(LocalProtocolError):
            one.links.dial(two.address)
        assert not one.links.send(two.key, b"late", control=False)
        await two.until(lambda: two.links.peers == ())
    await asyncio.sleep(0)
    assert len(one.events) == count
    assert asyncio.all_tasks() == before


async def test_a_dropped_peer_hears_why() -> None:
    """``drop`` gives ``LinkDown`` at once here, and the plain reason over there."""
    one, two = Node(1), Node(2)
    async with nodes(one, two):
        await connect(one, two)
        one.links.drop(two.key, "bad signature")
        assert one.of(LinkDown) == [LinkDown(two.key, "bad signature")]
        await two.until(lambda: bool(two.of(LinkDown)))
        assert two.of(LinkDown) == [LinkDown(one.key, "peer: bad signature")]


async def test_one_peer_too_many_is_turned_away() -> None:
    """The number of peers is bounded, and the refused one is told."""
    hub, one, two = Node(1, peers_max=1), Node(2), Node(3)
    async with nodes(hub, one, two):
        await connect(one, hub)
        two.links.dial(hub.address)
        await two.until(lambda: bool(two.of(LinkDown)))
        assert two.of(LinkDown)[0].reason == "peer: no room for another peer"
        assert hub.links.peers == (one.key,)


def test_no_event_shows_what_it_carries() -> None:
    """Messages and chains stay out of logs."""
    assert "diagnosis" not in repr(Frame(b"k", b"diagnosis"))
    assert module.log.name == "p2pmed.aio.links"
