"""What waits to be sent and what arrives in parts: two lanes, both bounded in bytes.

The control lane goes first, so that a ping or a vote never waits behind a backlog; it
leaves a quarter of a frame to the bulk lane, so that it cannot starve it either
(hashicorp/memberlist#299). Small messages are batched into frames of about 32 kB
(performance notes); a large one is cut, and control slips between its parts.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from p2pmed.errors import RemoteProtocolError
from p2pmed.limits import CONTROL_QUEUE_BYTES_MAX, FRAME_BYTES_MAX, SEND_QUEUE_BYTES_MAX
from p2pmed.transport.messages import CHUNK_HEAD_BYTES, MORE, Kind, write_chunk

__all__ = ["FRAME_FILL_BYTES", "Assembly", "Outbound"]

FRAME_FILL_BYTES: Final = 32 * 1024
"""Plaintext of a full frame; above it write-buffer marks make speed erratic (measured)."""

MESSAGE_OVERHEAD_BYTES: Final = 64
"""What a queued message costs beside its bytes, so that a million empty ones are not free."""

PART_BYTES_MIN: Final = 512
"""A message is not cut for less room than this: it waits for the next frame."""

_CAPACITY: Final = {Kind.BULK: SEND_QUEUE_BYTES_MAX, Kind.CTRL: CONTROL_QUEUE_BYTES_MAX}


class _Lane:
    """Messages in order, the first perhaps partly sent."""

    __slots__ = ("kind", "queue", "queued_bytes", "sent")

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.queue: deque[bytes] = deque()
        self.queued_bytes = 0
        self.sent = 0
        """Bytes of the first message that have left."""

    def take(self, room: int, out: list[bytes]) -> int:
        """Move chunks of at most ``room`` bytes to ``out``; return the bytes they take."""
        used = 0
        while self.queue:
            message = self.queue[0]
            left = len(message) - self.sent
            space = room - used - CHUNK_HEAD_BYTES
            if left <= space:
                out.append(write_chunk(self.kind, message[self.sent :]))
                used += CHUNK_HEAD_BYTES + left
                self.queue.popleft()
                self.queued_bytes -= len(message) + MESSAGE_OVERHEAD_BYTES
                self.sent = 0
                continue
            if space >= PART_BYTES_MIN:
                part = message[self.sent : self.sent + space]
                out.append(write_chunk(self.kind + MORE, part))
                self.sent += space
                used += CHUNK_HEAD_BYTES + space
            break
        return used


class Outbound:
    """Both lanes of one channel."""

    __slots__ = ("_bulk", "_control")

    def __init__(self) -> None:
        self._bulk = _Lane(Kind.BULK)
        self._control = _Lane(Kind.CTRL)

    def __bool__(self) -> bool:
        return bool(self._bulk.queue or self._control.queue)

    def fits(self, size: int, *, control: bool) -> bool:
        """Whether a message of ``size`` bytes may be queued.

        The figure counts what a message costs beside its bytes, so the largest message
        still fits into an empty lane: the bound is on what is already there.
        """
        lane = self._control if control else self._bulk
        return not lane.queue or (
            lane.queued_bytes + size + MESSAGE_OVERHEAD_BYTES <= _CAPACITY[lane.kind]
        )

    def push(self, message: bytes, *, control: bool) -> None:
        """Queue one message that ``fits``."""
        lane = self._control if control else self._bulk
        lane.queue.append(message)
        lane.queued_bytes += len(message) + MESSAGE_OVERHEAD_BYTES

    def fill(self) -> list[bytes]:
        """Chunks for one frame, control first; empty if nothing waits."""
        chunks: list[bytes] = []
        share = FRAME_FILL_BYTES * 3 // 4 if self._bulk.queue else FRAME_FILL_BYTES
        used = self._control.take(share, chunks)
        self._bulk.take(FRAME_FILL_BYTES - used, chunks)
        return chunks

    def clear(self) -> None:
        """Forget everything."""
        self._bulk, self._control = _Lane(Kind.BULK), _Lane(Kind.CTRL)


class Assembly:
    """The parts of one lane's message until it is whole."""

    __slots__ = ("_parts", "_size")

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, body: bytes, *, more: bool) -> bytes | None:
        """The message, if ``body`` completes it.

        Raises ``RemoteProtocolError`` beyond ``FRAME_BYTES_MAX``, before keeping the part.
        """
        self._size += len(body)
        if self._size > FRAME_BYTES_MAX:
            raise RemoteProtocolError("a message longer than this side takes")
        if more:
            # Parts of a sender of ours are large; tiny ones would cost more than their bytes.
            if len(self._parts) >= FRAME_BYTES_MAX // PART_BYTES_MIN:
                raise RemoteProtocolError("a message in too many parts")
            self._parts.append(body)
            return None
        if not self._parts:
            self._size = 0
            return body
        message = b"".join((*self._parts, body))
        self._parts.clear()
        self._size = 0
        return message
