"""Signature checks off the loop: libsodium releases the interpreter lock while it works.

Few checks are done in place (a hop to a thread costs more than they do); many go to threads,
in chunks, so that two cores share them. Answers come in the order of the questions: entries of
one log that are checked apart still connect.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from p2pmed.ledger.intake import SignatureCheck
from p2pmed.wire import cose

__all__ = ["Verifier"]

IN_PLACE_MAX: Final = 4
CHUNK: Final = 64
THREADS: Final = 2


class Verifier:
    """``check`` answers through a callback in the event loop; ``close`` waits for the threads.

    ``failed`` is told of an error of ours: an answer will never come.
    """

    def __init__(self, failed: Callable[[BaseException], None] = lambda error: None) -> None:
        self.waiting = 0
        """Checks that are not answered yet."""
        self._failed = failed
        self._pool: ThreadPoolExecutor | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._last: asyncio.Task[None] | None = None

    def check(
        self, checks: Sequence[SignatureCheck], then: Callable[[tuple[bool, ...]], None]
    ) -> None:
        """Check all; ``then`` is called with the answers in their order."""
        if len(checks) <= IN_PLACE_MAX and not self._tasks:
            then(_verify(checks))
            return
        self.waiting += len(checks)
        task = asyncio.get_running_loop().create_task(self._spread(checks, then, self._last))
        self._last = task
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed(error)

    async def _spread(
        self,
        checks: Sequence[SignatureCheck],
        then: Callable[[tuple[bool, ...]], None],
        before: asyncio.Task[None] | None,
    ) -> None:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="p2pmed-verify")
        loop = asyncio.get_running_loop()
        chunks = [checks[i : i + CHUNK] for i in range(0, len(checks), CHUNK)]
        parts = await asyncio.gather(
            *(loop.run_in_executor(self._pool, _verify, chunk) for chunk in chunks)
        )
        if before is not None and not before.done():
            await asyncio.wait([before])
        self.waiting -= len(checks)
        then(tuple(answer for part in parts for answer in part))

    async def close(self) -> None:
        """Drop what is waiting; end the threads."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)


def _verify(checks: Sequence[SignatureCheck]) -> tuple[bool, ...]:
    return tuple(cose.verify(*check) for check in checks)
