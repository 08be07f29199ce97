"""What a submitter holds: the words *stored*, *replicated*, *final*, *anchored*, never early.

A receipt exists once the transaction is on this disk. Waiting on a level costs one future,
kept by author log and resolved when that log's frontier passes; cancelling a wait forgets it and
changes nothing else. ``TimeoutError`` says only that it is not known yet.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from p2pmed.ledger.state import Verdict
from p2pmed.ledger.transaction import Entry, LaneKey

if TYPE_CHECKING:
    from p2pmed.node.node import Node

__all__ = ["FinalPlace", "Receipt", "Waiters"]


@dataclass(frozen=True, slots=True)
class FinalPlace:
    """Where a transaction became final."""

    ledger: bytes
    height: int
    verdict: Verdict


class Waiters:
    """Futures by author log, each waiting until a question about its seq is answered yes."""

    def __init__(self) -> None:
        self._by_lane: dict[LaneKey, list[tuple[Callable[[], bool], asyncio.Future[None]]]] = {}
        self._failed: BaseException | None = None

    async def until(
        self, lane: LaneKey, answered: Callable[[], bool], seconds: float | None
    ) -> None:
        """Wait until ``answered()``; asked again whenever ``moved(lane)`` is called.

        Raises ``TimeoutError``, or what stopped the node.
        """
        if answered():
            return
        if self._failed is not None:
            raise self._failed  # nothing moves any more
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self._by_lane.setdefault(lane, [])
        item = (answered, future)
        waiting.append(item)
        try:
            async with asyncio.timeout(seconds):
                await future
        finally:
            if item in waiting:
                waiting.remove(item)
            if not waiting and self._by_lane.get(lane) is waiting:
                del self._by_lane[lane]

    def moved(self, lane: LaneKey) -> None:
        """Something about this log changed."""
        waiting = self._by_lane.get(lane)
        if not waiting:
            return
        still = []
        for item in waiting:
            answered, future = item
            if future.done():
                continue
            if answered():
                future.set_result(None)
            else:
                still.append(item)
        waiting[:] = still

    def moved_all(self) -> None:
        """Anything may have changed."""
        for lane in list(self._by_lane):
            self.moved(lane)

    def fail(self, error: BaseException) -> None:
        """The node stops: everybody who waits is told, and whoever will."""
        self._failed = self._failed or error
        for waiting in self._by_lane.values():
            for _, future in waiting:
                if not future.done():
                    future.set_exception(error)


class Receipt:
    """One transaction's way; made by ``Node.submit`` or ``Node.receipt``."""

    def __init__(self, node: Node, entry: Entry) -> None:
        self._node = node
        self._entry = entry

    def __repr__(self) -> str:
        return f"<Receipt {self.id.hex()[:12]} {self.level}>"

    @property
    def id(self) -> bytes:
        """The transaction's id (32 bytes)."""
        return self._entry.id

    @property
    def entry(self) -> Entry:
        """The transaction itself."""
        return self._entry

    @property
    def level(self) -> str:
        """``stored``, ``replicated(k)``, ``final`` or ``anchored``, as known here now."""
        if self._node.is_anchored(self._entry):
            return "anchored"
        if self.final_place is not None:
            return "final"
        copies = self.copies
        return f"replicated({copies})" if copies else "stored"

    @property
    def copies(self) -> int:
        """Other disks that are known to hold it now; connected peers only."""
        return self._node.replica.gossip.holders(self._entry.lane, self._entry.seq)

    @property
    def final_place(self) -> FinalPlace | None:
        """Ledger, height and verdict once it is final, else ``None``."""
        return self._node.final_place(self._entry)

    @property
    def verdict(self) -> Verdict:
        """The verdict; before it is final, what it would be if it were ordered now."""
        place = self.final_place
        return place.verdict if place else self._node.replica.overlay.verdict_of(self._entry)

    async def replicated(self, copies: int, *, timeout: float | None = None) -> int:  # noqa: ASYNC109
        """Wait until ``copies`` other disks hold it; how many do. ``TimeoutError``."""
        await self._wait(lambda: self.copies >= copies, timeout)
        return self.copies

    async def final(self, *, timeout: float | None = None) -> FinalPlace:  # noqa: ASYNC109
        """Wait until it is certified in the home ledger. ``TimeoutError``."""
        await self._wait(lambda: self.final_place is not None, timeout)
        place = self.final_place
        assert place is not None
        return place

    async def anchored(self, *, timeout: float | None = None) -> None:  # noqa: ASYNC109
        """Wait until a county's ledger, certified, has it. ``TimeoutError``."""
        await self._wait(lambda: self._node.is_anchored(self._entry), timeout)

    async def _wait(self, answered: Callable[[], bool], seconds: float | None) -> None:
        await self._node.waiters.until(self._entry.lane, answered, seconds)
