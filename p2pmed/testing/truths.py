"""What a final block must be, checked from its bytes alone.

Nothing here is shared with the ledger: bytes are read with plain CBOR, hashes and Merkle roots
are computed by the few lines below, and signatures are counted again. Protocol pages:
``block.md``, ``certificate.md``. What each check says is told in the promise *final is true*:

* the header names its parent, its height and its content; time goes forward;
* the content says which entries, how many and with which verdicts, as the node was told;
* every author log is ordered from 0 on, without a gap, each entry once;
* an applied entry refers to nothing that is not ordered; a pack is handed out once;
* the state root is that of the state which the node holds, and that is the sum of its rows;
* the certificate holds a quorum's signatures, each seat's own, over this very block.

And *nobody writes in another's name*: an honest device's log holds what it signed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b, shake_128
from operator import add
from struct import pack, unpack
from typing import Any, Final

import cbor2

from p2pmed.ledger.state import Verdict
from p2pmed.ledger.transaction import Entry, LaneKey

__all__ = ["Truths", "certificate_fault", "sum_of_rows"]

_PARENT: Final = 5
_HEIGHT: Final = 4
_VIEW: Final = 3
_CONTENT: Final = 8
_TIME, _TIPS, _ENTRIES, _COUNT, _VERDICTS, _STATE = 2, 3, 4, 5, 6, 7
_LANES_BYTES: Final = 2_048
_LANES: Final = ">1024H"
Verify = Callable[[bytes, bytes, bytes], bool]


def _hash(data: bytes) -> bytes:
    return blake2b(data, digest_size=32).digest()


def _dumps(value: Any) -> bytes:
    return cbor2.dumps(value, canonical=True)


def _root(leaves: Sequence[bytes]) -> bytes:
    """RFC 9162, section 2.1.1, by its recursion."""
    if not leaves:
        return _hash(b"")
    if len(leaves) == 1:
        return _hash(b"\x00" + leaves[0])
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return _hash(b"\x01" + _root(leaves[:split]) + _root(leaves[split:]))


def sum_of_rows(rows: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The commitment to a state, summed row by row, sixteen bits at a time (``block.md``, 6)."""
    total: list[int] = [0] * (_LANES_BYTES // 2)
    for key, value in rows:
        row = shake_128(len(key).to_bytes(4, "big") + key + value).digest(_LANES_BYTES)
        total = list(map(add, total, unpack(_LANES, row)))
    return _hash(pack(_LANES, *(lane & 0xFFFF for lane in total)))


def certificate_fault(
    stored: bytes, seats: Sequence[bytes], liars: int, verify: Verify
) -> str | None:
    """What is wrong with the proof in a stored block, or ``None``; ``""`` if it has none.

    ``seats`` are the vote keys of the block's epoch.
    """
    found = cbor2.loads(stored)
    block, certificate, tail = found[0], found[-1], found[1] if len(found) > 2 else ()
    if certificate is None:
        return ""
    last = tail[-1] if tail else block[0]
    ledger, epoch, kind, view, digest, signers, signatures = certificate
    if (ledger, epoch, view, digest) != (last[1], last[2], last[_VIEW], _hash(_dumps(last))):
        return "a certificate of something else"
    if kind != 3:
        return "a certificate that makes nothing final"
    names = [seat for seat in range(64) if signers >> seat & 1]
    if len(names) != len(signatures) or (names and names[-1] >= len(seats)):
        return "signers and signatures that do not match"
    if len(names) < (len(seats) + liars) // 2 + 1:
        return f"{len(names)} signers are no quorum"
    message = _dumps(["p2pmed/1", "vote", ledger, epoch, kind, view, digest])
    for seat, signature in zip(names, signatures, strict=True):
        if not verify(seats[seat], signature, message):
            return f"seat {seat} did not sign"
    return None


class Truths:
    """What became final in one simulation, by ledger; ``say(detail)`` reports a broken promise."""

    def __init__(self) -> None:
        self._blocks: dict[tuple[bytes, int], tuple[bytes, int]] = {}
        """Ledger and height -> digest and time."""
        self._lanes: dict[tuple[bytes, bytes], int] = {}
        self._ordered: dict[bytes, set[bytes]] = {}
        self._packs: dict[tuple[bytes, str, str], bytes] = {}
        self._written: dict[LaneKey, list[bytes]] = {}
        """Entries that honest devices stored in their own logs, by seq."""

    # --- entries ----------------------------------------------------------------------------

    def wrote(self, entry: Entry) -> None:
        """An honest device stored an entry of its own."""
        ids = self._written.setdefault(entry.lane, [])
        if entry.seq == len(ids):
            ids.append(entry.id)

    def known(self, lane: LaneKey) -> int:
        """How many entries of its own the author is known to have stored."""
        return len(self._written.get(lane, ()))

    def genuine(self, entry: Entry) -> bool:
        """Whether an honest device, the author, stored this before anybody else did."""
        ids = self._written.get(entry.lane, ())
        return entry.seq < len(ids) and ids[entry.seq] == entry.id

    # --- blocks -----------------------------------------------------------------------------

    def block(
        self, stored: bytes, entries: Sequence[Entry], verdicts: Sequence[Verdict], state: bytes
    ) -> list[str]:
        """What is wrong with a block that was said final; ``state`` is the node's state root."""
        (header, content), *_ = cbor2.loads(stored)
        ledger, height = header[1], header[_HEIGHT]
        summary = cbor2.loads(content)[0]
        faults = self._chained(ledger, header, summary)
        if _hash(_dumps(summary)) != header[_CONTENT]:
            faults.append("a header with another content")
        if summary[_COUNT] != len(entries):
            faults.append("another number of entries")
        if summary[_ENTRIES] != _root([entry.id for entry in entries]):
            faults.append("other entries than its summary says")
        leaves = [
            entry.id + verdict.other.ljust(32, b"\x00") + verdict.code.encode()
            for entry, verdict in zip(entries, verdicts, strict=True)
        ]
        if summary[_VERDICTS] != _root(leaves):
            faults.append("other verdicts than its summary says")
        if state and summary[_STATE] != state:
            faults.append("another state than its summary says")
        if (ledger, height) in self._blocks:
            return [f"block {height}: {fault}" for fault in faults]
        self._blocks[ledger, height] = (_hash(_dumps(header)), summary[_TIME])
        faults += self._orders(ledger, entries, verdicts)
        return [f"block {height}: {fault}" for fault in faults]

    def _chained(self, ledger: bytes, header: list[Any], summary: list[Any]) -> list[str]:
        height = header[_HEIGHT]
        parent, time_ms = self._blocks.get((ledger, height - 1), (None, 0))
        if height == 1:
            parent = ledger
        faults = []
        if parent is not None and header[_PARENT] != parent:
            faults.append("another parent than the block below")
        if summary[_TIME] <= time_ms:
            faults.append("time that does not go forward")
        return faults

    def _orders(
        self, ledger: bytes, entries: Sequence[Entry], verdicts: Sequence[Verdict]
    ) -> list[str]:
        faults = []
        ordered = self._ordered.setdefault(ledger, set())
        for entry, verdict in zip(entries, verdicts, strict=True):
            place = (ledger, entry.lane.to_bytes())
            if self._lanes.get(place, 0) != entry.seq:
                faults.append(f"entry {entry.seq} after {self._lanes.get(place, 0)} of its log")
            self._lanes[place] = entry.seq + 1
            if verdict.applied:
                faults += self._applied(ledger, entry, ordered)
            ordered.add(entry.id)
        return faults

    def _applied(self, ledger: bytes, entry: Entry, ordered: set[bytes]) -> list[str]:
        faults = []
        if not ordered.issuperset(entry.envelope.refs):
            faults.append("an applied entry that refers to what is not ordered")
        if entry.kind == "drug.dispense":
            gtin, serial = entry.envelope.body[:2]
            first = self._packs.setdefault((ledger, gtin, serial), entry.id)
            if first != entry.id:
                faults.append(f"the pack {serial} is handed out twice")
        return faults
