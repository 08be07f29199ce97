"""Signature checks of an audit: in chunks over threads, with a bound on what waits."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Final

from p2pmed.ledger.transaction import Entry
from p2pmed.wire import cose

__all__ = ["SignatureChecks"]

CHUNK: Final = 128
CHUNK_BYTES_MAX: Final = 1024 * 1024
CHUNKS_WAITING_MAX: Final = 8
THREADS: Final = 2


class SignatureChecks:
    """``add`` entries; those whose signature is false are told to ``bad``, in order, in time.

    libsodium releases the interpreter lock, so that two cores share the work.
    """

    def __init__(self, bad: Callable[[Entry], None]) -> None:
        self._bad = bad
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="p2pmed-audit")
        self._chunk: list[Entry] = []
        self._size = 0
        self._waiting: list[tuple[list[Entry], Future[list[bool]]]] = []
        self.count = 0

    def __enter__(self) -> SignatureChecks:
        return self

    def add(self, entry: Entry) -> None:
        """Check this one soon."""
        self.count += 1
        self._chunk.append(entry)
        self._size += len(entry.raw)
        if len(self._chunk) >= CHUNK or self._size >= CHUNK_BYTES_MAX:
            self._submit()
        while len(self._waiting) > CHUNKS_WAITING_MAX:
            self._settle()

    def _submit(self) -> None:
        chunk, self._chunk, self._size = self._chunk, [], 0
        self._waiting.append((chunk, self._pool.submit(_verify, chunk)))

    def _settle(self) -> None:
        chunk, future = self._waiting.pop(0)
        for entry, good in zip(chunk, future.result(), strict=True):
            if not good:
                self._bad(entry)

    def finish(self) -> None:
        """Wait for all answers."""
        if self._chunk:
            self._submit()
        while self._waiting:
            self._settle()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.finish()
        self._pool.shutdown(wait=True, cancel_futures=True)


def _verify(entries: list[Entry]) -> list[bool]:
    return [cose.verify(e.author, e.signature, e.to_be_signed) for e in entries]
