"""Index keys on a node: begun for a place, wrapped to who may search there, rotated.

Rule of this file: a key counts only if a member of that place, or of one above it, published
it; one that somebody else wrapped to this device would have this device write tokens that he
can read. Who is put out gets no key of the next epoch. Implements ``docs/protocols/search.md``,
clauses 13 to 17.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

from p2pmed.errors import DecodeError, Denied, InvalidTransaction, LocalProtocolError
from p2pmed.identity.sealing import box_id
from p2pmed.ledger.transaction import Entry
from p2pmed.medical.keyring import KeyRing, Wrapped
from p2pmed.medical.membership import MEMBERS, member
from p2pmed.medical.patients import WRAPS_MAX
from p2pmed.medical.privacy.blind_index import (
    INDEX_PURPOSE,
    SCOPES,
    IndexKey,
    IndexUse,
    index_ring,
    may_begin,
    scope_id,
    scope_row,
)
from p2pmed.medical.roles import CARERS
from p2pmed.node.care.index_table import IndexTable
from p2pmed.node.vault.face import KeptBox

if TYPE_CHECKING:
    from p2pmed.node.node import Node
    from p2pmed.node.receipts import Receipt

__all__ = ["IndexKeys"]


class IndexKeys:
    """The index keys that a node holds, and what it may do with them."""

    def __init__(self, node: Node, table: IndexTable) -> None:
        self._node = node
        self._table = table
        self._rings: dict[bytes, KeyRing | None] = {}
        self._seen = -1

    def own_place(self) -> str:
        """The place in this device's credential; empty if there is none."""
        own = member(self._node.state(), self._node.key)
        return own.place if own else ""

    def ring(self, use: IndexUse, place: str) -> KeyRing | None:
        """The keys of a place that this device holds, or ``None``."""
        if self._seen != self._table.keys_seen:
            self._rings.clear()
            self._seen = self._table.keys_seen
        scope = scope_id(use, place)
        if scope not in self._rings:
            self._rings[scope] = self._open(scope, place)
        return self._rings[scope]

    def current(self, use: IndexUse, place: str) -> KeyRing | None:
        """As ``ring``, but only with keys of the newest epoch: without them, one was put out."""
        ring = self.ring(use, place)
        row = scope_row(self._node.state(), scope_id(use, place))
        return ring if ring is not None and row is not None and ring.epoch >= row.epoch else None

    def held(self, use: IndexUse) -> list[tuple[str, KeyRing]]:
        """Places whose keys this device holds, the nearest (longest) first."""
        places = [row.place for _, row in SCOPES.scan(self._node.state()) if row.use is use]
        found = [(place, ring) for place in places if (ring := self.ring(use, place)) is not None]
        return sorted(found, key=lambda pair: (-len(pair[0]), pair[0]))

    def for_place(self, use: IndexUse, place: str) -> tuple[str, KeyRing] | None:
        """The nearest index at or above ``place`` whose newest keys this device holds."""
        for held, ring in self.held(use):
            if may_begin(held, place) and self.current(use, held) is not None:
                return held, ring
        return None

    async def begin(
        self, use: IndexUse, place: str | None = None, *, readers: Iterable[bytes] | None = None
    ) -> Receipt:
        """Begin the index of a place (by default this device's own), for ``readers``.

        ``readers`` are X25519 keys; by default those of all carers' devices of the place.
        Raises ``Denied`` if the place is not this device's, or below it;
        ``LocalProtocolError`` if there is one already.
        """
        await self._table.refresh()
        where = self.own_place() if place is None else place
        if not may_begin(self.own_place(), where):
            raise Denied("an index is begun by its own place, or by one above it")
        if scope_row(self._node.state(), scope_id(use, where)) is not None:
            raise LocalProtocolError(
                "that place has an index", hint="whoever holds its keys can admit this device"
            )
        keys = self._carers(where) if readers is None else list(readers)
        ring = self._made(use, where, 0)
        return await self._publish(use, where, ring, [self._node.keys.box_public, *keys])

    async def admit(self, use: IndexUse, place: str, reader: bytes) -> Receipt:
        """Let the holder of the X25519 key ``reader`` search. Raises ``Denied``."""
        await self._table.refresh()
        ring = self.current(use, place)
        if ring is None:
            raise Denied("this device holds no key of that index")
        return await self._publish(use, place, ring, [reader])

    async def expel(self, use: IndexUse, place: str, reader: bytes) -> Receipt:
        """Begin a new epoch, with keys for all readers but the holder of ``reader``.

        Tokens written from now on he cannot make; older ones he can, in a copy that he kept.
        Raises ``Denied``.
        """
        await self._table.refresh()
        ring = self.current(use, place)
        if ring is None:
            raise Denied("this device holds no key of that index")
        known = {box_id(row.box_key): row.box_key for _, row in MEMBERS.scan(self._node.state())}
        survivors = [known[name] for name in self._grantees(use, place) if name in known]
        fresh = self._made(use, place, ring.epoch + 1)
        kept = [key for key in survivors if key != reader]
        return await self._publish(use, place, fresh, [self._node.keys.box_public, *kept])

    def forget(self) -> None:
        """Drop every key: the session is over."""
        self._rings.clear()

    # --- parts ------------------------------------------------------------------------------

    def _made(self, use: IndexUse, place: str, epoch: int) -> KeyRing:
        vault = self._node.sessions.vault
        return index_ring(use, place, self._node.world.entropy, epoch=epoch, keeper=vault)

    def _carers(self, place: str) -> list[bytes]:
        rows = [row for _, row in MEMBERS.scan(self._node.state()) if not row.revoked]
        return [
            row.box_key for row in rows if row.place == place and not CARERS.isdisjoint(row.roles)
        ]

    async def _publish(
        self, use: IndexUse, place: str, ring: KeyRing, keys: Iterable[bytes]
    ) -> Receipt:
        distinct = list(dict.fromkeys(keys))
        wraps = [
            ring.wrap(key, network=self._node.network, purpose=INDEX_PURPOSE) for key in distinct
        ]
        receipts = [
            await self._node.submit(
                IndexKey(
                    use=use,
                    place=place,
                    epoch=ring.epoch,
                    wraps=tuple(wraps[at : at + WRAPS_MAX]),
                )
            )
            for at in range(0, len(wraps), WRAPS_MAX)
        ]
        await self._table.refresh()
        return receipts[-1]

    def _bodies(self, scope: bytes) -> list[tuple[Entry, IndexKey]]:
        """Key transactions of those who may publish them."""
        state, found = self._node.state(), []
        for entry_id in self._table.key_entries(scope):
            entry = self._node.find(entry_id)
            body = self._node.body(entry) if entry else None
            author = member(state, entry.author) if entry else None
            if entry is None or author is None or not isinstance(body, IndexKey):
                continue
            if may_begin(author.place, body.place):
                found.append((entry, body))
        return found

    def _grantees(self, use: IndexUse, place: str) -> list[bytes]:
        """Who has keys of the newest epoch, by name of their key."""
        bodies = [body for _, body in self._bodies(scope_id(use, place))]
        newest = max((body.epoch for body in bodies), default=0)
        names = [wrap.grantee for body in bodies if body.epoch == newest for wrap in body.wraps]
        return sorted(dict.fromkeys(names))

    def _open(self, scope: bytes, place: str) -> KeyRing | None:
        boxes = self._node.sessions.boxes()
        whole: KeyRing | None = None
        for _, body in self._bodies(scope):
            for wrap in body.wraps:
                if wrap.grantee in boxes and body.place == place:
                    ring = self._unwrap(boxes[wrap.grantee], wrap, scope)
                    if ring is not None:
                        whole = ring if whole is None else whole.joined(ring)
        return whole

    def _unwrap(self, box: KeptBox, wrap: Wrapped, scope: bytes) -> KeyRing | None:
        with contextlib.suppress(Denied, DecodeError, InvalidTransaction):
            return self._node.opener.open_ring(box, wrap.wrapped, scope, INDEX_PURPOSE)
        return None
