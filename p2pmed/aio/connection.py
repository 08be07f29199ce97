"""One connection: a WebSocket that drives a ``Channel``.

Three things run: the reader in the caller's task, one writer task, one timer for the
channel's deadline. The writer alone writes, in the order of ``FrameOut``; it asks the channel
for the next frame only when the last one has left, so whatever was queued meanwhile shares a
frame, and a slow reader at the other end is felt as a full queue, never as memory.

Cancelling ``run`` closes the connection at once, without a parting word.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias

import aiohttp
from aiohttp import web

from p2pmed.engine import DeadlineReached
from p2pmed.transport.channel import Channel
from p2pmed.transport.events import (
    ChannelEvent,
    CloseAsked,
    Closed,
    Deliver,
    Established,
    FrameIn,
    FrameOut,
    Opened,
    SendMessage,
    Writable,
)
from p2pmed.world import Clock

__all__ = ["Connection", "tune_socket"]

WebSocket: TypeAlias = web.WebSocketResponse | aiohttp.ClientWebSocketResponse

SEND_STALL_S: Final = 60.0
"""A frame that does not leave for so long has no reader; 30 kbit/s needs 9 s for a full one."""

PARTING_S: Final = 1.0
"""For what is still to be written when a connection ends, the parting word last."""

NOT_SENT_BYTES: Final = 128 * 1024
"""Unsent bytes the kernel may hold: more would let control wait behind bulk on a slow line."""


class Connection:
    """A channel and what carries its effects out."""

    def __init__(
        self,
        channel: Channel,
        clock: Clock,
        *,
        address: str,
        inbound: bool,
        on_established: Callable[[Connection, Established], None],
        on_deliver: Callable[[Connection, bytes], None],
        on_closed: Callable[[Connection, str], None],
        room: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.channel = channel
        self.address = address
        self.inbound = inbound
        self.established = False
        """Whether this connection was ever the link to its peer."""
        self.reason = ""
        """Why it ended; empty before."""
        self._clock = clock
        self._on_established = on_established
        self._on_deliver = on_deliver
        self._on_closed = on_closed
        self._room = room
        self._outbox: deque[bytes] = deque()
        self._wake = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at: int | None = None

    @property
    def over(self) -> bool:
        """Whether the channel has ended."""
        return bool(self.reason)

    def send(self, message: bytes, *, control: bool) -> bool:
        """Queue a message; ``False`` if it does not fit. Never waits."""
        if not self.channel.fits(len(message), control=control):
            return False
        self.channel.step(SendMessage(message, control), self._clock.now())
        self._wake.set()
        return True

    def close(self, reason: str) -> None:
        """End the channel; ``run`` returns soon after."""
        self.feed(CloseAsked(reason))

    def feed(self, event: ChannelEvent) -> None:
        """Step the channel and carry out what it asks, in order."""
        for effect in self.channel.step(event, self._clock.now()):
            if isinstance(effect, FrameOut):
                self._outbox.append(effect.frame)
            elif isinstance(effect, Deliver):
                if self.reason:
                    continue  # closed by what an earlier message made our side do
                self._on_deliver(self, effect.message)
            elif isinstance(effect, Established):
                self._on_established(self, effect)
            elif isinstance(effect, Closed):
                self.reason = effect.reason
                self._on_closed(self, effect.reason)
        if self._outbox or self.reason or self.channel.pending:
            self._wake.set()
        self._arm()

    async def run(self, ws: WebSocket) -> None:
        """Drive the channel over ``ws`` until it ends."""
        self.feed(Opened())
        reader = asyncio.ensure_future(self._read(ws))
        writer = asyncio.ensure_future(self._write(ws))
        try:
            await asyncio.wait((reader, writer), return_when=asyncio.FIRST_COMPLETED)
            if not self.reason:
                self.close("connection lost")
            if not writer.done():
                await asyncio.wait((writer,), timeout=PARTING_S)
        finally:
            if not self.reason:
                self.close("cancelled")
            if self._timer is not None:
                self._timer.cancel()
            for task in (reader, writer):
                task.cancel()
            results = await asyncio.gather(reader, writer, return_exceptions=True)
            with contextlib.suppress(Exception):
                async with asyncio.timeout(PARTING_S):
                    await ws.close()
        for result in results:
            if isinstance(result, Exception):
                raise result  # ours: a peer's faults end the channel without one

    # --- the two halves ---------------------------------------------------------------------

    async def _read(self, ws: WebSocket) -> None:
        while not self.reason:
            message = await ws.receive()
            if message.type is aiohttp.WSMsgType.BINARY:
                self.feed(FrameIn(message.data))
                if self._room is not None:
                    await self._room()  # else what waits for the node would grow without bound
            elif message.type in _ENDS:
                self.close(_ENDS[message.type])
            else:
                self.close("not a binary message")

    async def _write(self, ws: WebSocket) -> None:
        while True:
            while self._outbox:
                try:
                    async with asyncio.timeout(SEND_STALL_S):
                        await ws.send_bytes(self._outbox.popleft())
                except TimeoutError:
                    self._outbox.clear()
                    self.close("slow reader")
                    return
                except (ConnectionError, aiohttp.ClientError):
                    self._outbox.clear()
                    self.close("connection lost")
                    return
            if self.reason:
                return
            if self.channel.pending:
                self.feed(Writable())
                continue
            self._wake.clear()
            await self._wake.wait()

    # --- the deadline -----------------------------------------------------------------------

    def _arm(self) -> None:
        """One timer, moved only to be earlier: a late one finds nothing due and re-arms."""
        due = self.channel.deadline
        if due is None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = self._timer_at = None
            return
        if self._timer is not None:
            assert self._timer_at is not None
            if self._timer_at <= due:
                return
            self._timer.cancel()
        self._timer_at = due
        wait_s = max(0, due - self._clock.now()) / 1000
        self._timer = asyncio.get_running_loop().call_later(wait_s, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = self._timer_at = None
        due = self.channel.deadline
        if due is not None and due <= self._clock.now():
            self.feed(DeadlineReached())
        else:
            self._arm()


_ENDS: Final = {
    aiohttp.WSMsgType.CLOSE: "connection lost",
    aiohttp.WSMsgType.CLOSING: "connection lost",
    aiohttp.WSMsgType.CLOSED: "connection lost",
    aiohttp.WSMsgType.ERROR: "websocket error",
}


def tune_socket(sock: Any) -> None:
    """Small writes leave at once, and the kernel hoards little; best effort."""
    if sock is None:
        return
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, NOT_SENT_BYTES)
