"""Group commit: many engines ask for a flush, one flush answers all who asked before it.

Rule: one commit at a time. Whoever asks while one runs goes with the next, so the batch
grows by itself under load and a lone request is committed at once; there is no timer.

Knows no disk: ``commit`` is any coroutine function that makes durable what was staged
before it was called. ``docs/protocols/storage.md``, section 3.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from p2pmed.errors import StorageError

__all__ = ["Committer"]


class Committer:
    """Answers tokens after the flush that covers them; ``run`` it in the driver's group."""

    def __init__(
        self,
        commit: Callable[[], Awaitable[object]],
        *,
        persisted: Callable[[Sequence[int]], None],
        failed: Callable[[StorageError], None],
    ) -> None:
        self._commit = commit
        self._persisted = persisted
        self._failed = failed
        self._asked: list[int] = []
        self._wake = asyncio.Event()
        self._stopping = False
        self._broken = False

    @property
    def waiting(self) -> int:
        """Tokens that no commit has taken yet."""
        return len(self._asked)

    def request(self, token: int) -> None:
        """Ask that what is staged now be durable; never waits.

        After a failure the token is dropped: nothing is reported durable any more.
        """
        if not self._broken:
            self._asked.append(token)
            self._wake.set()

    def stop(self) -> None:
        """Let ``run`` return once all that was asked for is answered."""
        self._stopping = True
        self._wake.set()

    async def run(self) -> None:
        """Commit until ``stop`` or the first ``StorageError``, which goes to ``failed``.

        Tokens are reported in the order of asking, each once. Cancelling leaves the tokens
        of the running commit unanswered, though it may succeed.
        """
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._asked:
                tokens, self._asked = self._asked, []
                try:
                    await self._commit()
                except StorageError as error:
                    self._broken = True
                    self._asked.clear()
                    self._failed(error)
                    return
                self._persisted(tokens)
            if self._stopping:
                return
