"""The table of search tokens: worked out from the logs, kept on this node's disk only.

Rule of this file: everything here can be thrown away and worked out again. A cursor for each
log says how far it was read, and is staged with the rows it speaks of, so that a power cut
leaves both or neither. Tokens of an older epoch give way to those of a newer one for the same
person or record; of two entries of one epoch the smaller id counts, alike on every node.

Rows of ``Space.LOCAL``, by their first two bytes:

====  =========================================  ===========================================
it    token (5) + entry id (6) + number (2)      pseudonym (16), then the record's id or nothing
in    scope (16) + pseudonym or record id        epoch (4) + index entry's id (32)
iu    entry id (32)                              nothing: sealed, and not looked at yet
ik    scope (16) + entry id (32)                 nothing: an ``index.key``
im    pseudonym (16)                             the id of its newest ``match.entry``
ic    author log (48)                            the first seq not read (8)
====  =========================================  ===========================================
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

from p2pmed.ledger.logs import Logs
from p2pmed.ledger.transaction import Entry
from p2pmed.medical.privacy.blind_index import (
    TOKEN_BYTES,
    IndexEntry,
    IndexKey,
    scope_id,
    split_tokens,
)
from p2pmed.medical.privacy.matching import MatchEntry
from p2pmed.wire.codec import Wire
from p2pmed.world import Disk, Space

__all__ = ["IndexTable"]

TOKENS: Final = b"it"
INDEXED: Final = b"in"
UNINDEXED: Final = b"iu"
KEYS: Final = b"ik"
MATCHES: Final = b"im"
CURSOR: Final = b"ic"
SEALED_KINDS: Final = frozenset({"patient.register", "record.add", "record.amend"})
READ_KINDS: Final = frozenset({"index.entry", "index.key", "match.entry"})

SLICE: Final = 64
"""Entries read before other tasks get their turn."""
FLUSH_EVERY: Final = 8_192
"""Entries whose rows are made durable at once: some ten megabytes."""
HITS_MAX: Final = 512
"""People that one token may name; more are noise, or somebody's flood."""
PAGE: Final = 512


class IndexTable:
    """``body`` gives an entry's typed body; ``flush`` makes staged rows durable."""

    def __init__(
        self,
        *,
        disk: Disk,
        logs: Logs,
        body: Callable[[Entry], Wire | None],
        flush: Callable[[], Awaitable[None]],
    ) -> None:
        self._disk = disk
        self._logs = logs
        self._body = body
        self._flush = flush
        self._lock = asyncio.Lock()
        self.keys_seen = 0
        """How many ``index.key`` were read since the node opened: rings may have changed."""

    async def refresh(self) -> int:
        """Read what the logs got since last time; how many entries. May be cancelled."""
        async with self._lock:
            count = 0
            for lane in list(self._logs):
                key = CURSOR + lane.key.to_bytes()
                at = int.from_bytes(self._disk.get(Space.LOCAL, key) or b"", "big")
                end = lane.durable_next
                while at < end:
                    until = min(end, at + SLICE)
                    for entry in self._logs.entries(lane.key, at, until):
                        self._take(entry)
                    count += until - at
                    at = until
                    self._disk.stage(Space.LOCAL, key, at.to_bytes(8, "big"))
                    await asyncio.sleep(0)
                    if count % FLUSH_EVERY < SLICE:
                        await self._flush()
            if count:
                await self._flush()
            return count

    def _take(self, entry: Entry) -> None:
        kind = entry.kind
        if kind in SEALED_KINDS:
            self._disk.stage(Space.LOCAL, UNINDEXED + entry.id, b"")
        elif kind in READ_KINDS:
            body: Any = self._body(entry)
            if isinstance(body, IndexEntry) and body.whole:
                self._take_tokens(entry, body)
            elif isinstance(body, IndexKey):
                self.keys_seen += 1
                key = KEYS + scope_id(body.use, body.place) + entry.id
                self._disk.stage(Space.LOCAL, key, b"")
            elif isinstance(body, MatchEntry):
                self._disk.stage(Space.LOCAL, MATCHES + entry.envelope.subject, entry.id)

    def _take_tokens(self, entry: Entry, body: IndexEntry) -> None:
        subject = entry.envelope.subject
        for number, (record, tokens) in enumerate(split_tokens(body)):
            key = INDEXED + body.scope + (record or subject)
            held = self._disk.get(Space.LOCAL, key)
            if held is not None:
                if not _newer(body.epoch, entry.id, held):
                    continue
                self._drop(held[4:], record)
            self._disk.stage(Space.LOCAL, key, body.epoch.to_bytes(4, "big") + entry.id)
            for token in tokens:
                row = TOKENS + token + entry.id[:6] + number.to_bytes(2, "big")
                self._disk.stage(Space.LOCAL, row, subject + record)

    def _drop(self, entry_id: bytes, record: bytes) -> None:
        """Forget the tokens that an overtaken entry gave a person (empty) or a record."""
        entry = self._logs.find(entry_id)
        body = self._body(entry) if entry else None
        if not isinstance(body, IndexEntry):
            return
        for number, (target, tokens) in enumerate(split_tokens(body)):
            if target == record:
                for token in tokens:
                    row = TOKENS + token + entry_id[:6] + number.to_bytes(2, "big")
                    self._disk.stage(Space.LOCAL, row, None)

    # --- questions ------------------------------------------------------------------------

    def named_by(self, token: bytes) -> list[tuple[bytes, bytes]]:
        """Pseudonyms under ``token``, each with the record's id or nothing."""
        start = TOKENS + token
        assert len(token) == TOKEN_BYTES
        rows = self._disk.scan(Space.LOCAL, start, start + b"\xff" * 9, limit=HITS_MAX)
        return [(value[:16], value[16:]) for _, value in rows]

    def indexed(self, scope: bytes, target: bytes) -> int | None:
        """The epoch under which a person or record is indexed in ``scope``, or ``None``."""
        held = self._disk.get(Space.LOCAL, INDEXED + scope + target)
        return None if held is None else int.from_bytes(held[:4], "big")

    def unindexed(self, after: bytes, limit: int) -> list[bytes]:
        """Ids, greater than ``after``, of sealed entries that nobody here has settled yet."""
        start, end = UNINDEXED + after + b"\x00", UNINDEXED + b"\xff" * 33
        return [key[2:] for key, _ in self._disk.scan(Space.LOCAL, start, end, limit=limit)]

    def settle(self, entry_id: bytes) -> None:
        """An entry is indexed, or cannot be: it is not looked at again."""
        self._disk.stage(Space.LOCAL, UNINDEXED + entry_id, None)

    def outdated(self, scope: bytes, epoch: int) -> Iterator[bytes]:
        """People and records of ``scope`` that are indexed under an epoch before ``epoch``."""
        for key, value in self._walk(INDEXED + scope):
            if int.from_bytes(value[:4], "big") < epoch:
                yield key[18:]

    def key_entries(self, scope: bytes) -> list[bytes]:
        """Ids of the ``index.key`` of a scope."""
        return [key[18:] for key, _ in self._walk(KEYS + scope)]

    def matches(self) -> Iterator[tuple[bytes, bytes]]:
        """Pseudonyms, each with the id of its newest ``match.entry``."""
        for key, value in self._walk(MATCHES):
            yield key[2:], value

    def match_of(self, patient: bytes) -> bytes | None:
        """The id of the newest ``match.entry`` of ``patient``, or ``None``."""
        return self._disk.get(Space.LOCAL, MATCHES + patient)

    def _walk(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        start, end = prefix, prefix + b"\xff" * 64
        while True:
            rows = self._disk.scan(Space.LOCAL, start, end, limit=PAGE)
            yield from rows
            if len(rows) < PAGE:
                return
            start = rows[-1][0] + b"\x00"


def _newer(epoch: int, entry_id: bytes, held: bytes) -> bool:
    return (-epoch, entry_id) < (-int.from_bytes(held[:4], "big"), held[4:])
