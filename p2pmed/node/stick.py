"""Carrying by hand: what a node writes to a stick, and what a stick's table of contents says.

The bytes are ``sync/bundle.py``'s; this is the glue between a node and a file. Taking a bundle in
is ``node/stick_import.py``.

Rules:

* What is exported is what was durable here when the export began: author logs with the evidence
  of forks, foundings, and certified blocks. All of it proves itself, and none of it is readable
  without a grant: a courier without keys may carry it.
* A bundle is complete or not there: temporary name, flush, read back, rename (``new_file.py``).
* ``since`` leaves out what a receiver has, told by the bundle that it was given, or by the
  list that ``bundle have --json`` or ``bundle inspect --json`` prints. A hole counts as lacking.
* In a block frame, ``block`` and ``certificate`` are the encodings of ``Block`` and of
  ``ledger.stored.Proof``; the latter is empty where a later block's proves this one.

Memory: one page of entries and one mebibyte of pieces, whatever the size.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

from p2pmed.errors import ConfigError
from p2pmed.ledger.stored import Proof, StoredBlock
from p2pmed.ledger.transaction import LaneKey, open_entry
from p2pmed.limits import BATCH_BYTES_MAX, BATCH_ENTRIES_MAX
from p2pmed.node.new_file import NewFile
from p2pmed.node.node import Node
from p2pmed.sync.bundle import BundleFault, BundleWriter, Counts, bundle_external
from p2pmed.sync.bundle_summary import BundleSummary, inspect_bundle
from p2pmed.wire import codec, cose

__all__ = [
    "NOTHING",
    "Known",
    "describe_fault",
    "describe_known",
    "describe_summary",
    "export_bundle",
    "in_thread",
    "inspect_file",
    "read_known",
]

WRITE_BYTES: Final = 1024 * 1024
"""Pieces are gathered to this size before a thread writes them."""
READ_BYTES: Final = 256 * 1024
KNOWN_JSON_BYTES_MAX: Final = 64 * 1024 * 1024

T = TypeVar("T")
Progress: TypeAlias = "Callable[[dict[str, Any]], None]"


@dataclass(frozen=True, slots=True)
class Known:
    """What a receiver holds: the next seq of author logs, the heights of ledgers."""

    lanes: Mapping[LaneKey, int] = field(default_factory=dict)
    ledgers: Mapping[bytes, int] = field(default_factory=dict)


NOTHING: Final = Known()


@dataclass(slots=True)
class _Plan:
    """What an export will write, fixed when it begins."""

    lanes: list[tuple[LaneKey, int, int]]
    ledgers: list[tuple[bytes, int, int]]
    """Ledger, height known there, height here."""

    @property
    def counts(self) -> Counts:
        return Counts(
            lanes=len(self.lanes),
            entries=sum(end - start for _, start, end in self.lanes),
            ledgers=len(self.ledgers),
            blocks=sum(top - low for _, low, top in self.ledgers),
        )


def _plan(node: Node, known: Known) -> _Plan:
    lanes = []
    for lane, end in node.replica.logs.frontier():
        start = min(known.lanes.get(lane, 0), end)
        if start < end or node.replica.logs.forks(lane):
            lanes.append((lane, start, end))
    ledgers = []
    for ledger, top in node.replica.chains.heads():
        low = min(known.ledgers.get(ledger, 0), top)
        if low < top or ledger not in known.ledgers:
            ledgers.append((ledger, low, top))
    return _Plan(lanes, ledgers)


async def export_bundle(
    node: Node,
    path: Path,
    *,
    known: Known = NOTHING,
    force: bool = False,
    report: Progress = lambda progress: None,
) -> dict[str, Any]:
    """Write what ``node`` holds and ``known`` lacks to the new file ``path``; what was written.

    Raises ``ConfigError`` (it is there already and ``force`` is not given, not allowed),
    ``DiskFull`` or ``StorageError``; nothing of the file is then left. Cancelled, likewise.
    """
    plan = _plan(node, known)
    counts = plan.counts
    writer = BundleWriter(
        lambda payload: cose.sign(
            payload,
            seed=node.keys.signing_seed,
            signer=node.key,
            external=bundle_external(node.network),
        ),
        network=node.network,
        author=node.key,
        created_ms=node.world.clock.wall_ms(),
        counts=counts,
    )
    file = await in_thread(NewFile(path, force=force).__enter__)
    try:
        gathered: list[bytes] = []
        size = 0
        for piece in _pieces(node, plan, writer):
            gathered.append(piece)
            size += len(piece)
            if size >= WRITE_BYTES:
                await in_thread(file.write, b"".join(gathered))
                gathered, size = [], 0
                report({"what": "bytes written", "done": file.size})
        await in_thread(file.write, b"".join(gathered))
        await in_thread(file.keep)
    finally:
        await in_thread(file.__exit__, None, None, None)
    return {
        "file": str(path),
        "bytes": file.size,
        "frames": writer.frames,
        "logs": counts.lanes,
        "entries": counts.entries,
        "ledgers": counts.ledgers,
        "blocks": counts.blocks,
    }


async def in_thread(work: Callable[..., T], *arguments: Any) -> T:
    """Run blocking ``work`` in a thread, to its end even if we are cancelled meanwhile.

    A file must not be closed under a thread that still writes it.
    """
    task = asyncio.ensure_future(asyncio.to_thread(work, *arguments))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


def _pieces(node: Node, plan: _Plan, writer: BundleWriter) -> Iterator[bytes]:
    yield writer.header()
    for lane, start, end in plan.lanes:
        yield from _lane_pieces(node, writer, lane, start, end)
    for ledger, low, top in plan.ledgers:
        yield from _ledger_pieces(node, writer, ledger, low, top)
    yield writer.finish()


def _lane_pieces(
    node: Node, writer: BundleWriter, lane: LaneKey, start: int, end: int
) -> Iterator[bytes]:
    logs = node.replica.logs
    while start < end:
        stop = min(end, start + BATCH_ENTRIES_MAX)
        raws = logs.read(lane, start, stop, bytes_max=BATCH_BYTES_MAX)
        yield from writer.lane(lane, start, raws)
        start += len(raws)
    for raw in logs.forks(lane):  # evidence travels with its log, as a frame of its own
        yield from writer.lane(lane, open_entry(raw, network=node.network).seq, [raw])


def _ledger_pieces(
    node: Node, writer: BundleWriter, ledger: bytes, low: int, top: int
) -> Iterator[bytes]:
    """The founding, and blocks up to the last that a certificate proves."""
    chains = node.replica.chains
    founding = chains.founding(ledger)
    assert founding is not None  # the plan names known ledgers only
    yield writer.ledger(codec.encode(founding))
    for seal in chains.seals(ledger, low):  # else a stranger could not check who decided later
        yield _proven_piece(writer, ledger, seal)
    unproven: list[tuple[int, bytes]] = []
    for height in range(low + 1, top + 1):
        stored = chains.block_at(ledger, height)
        if stored is None:
            return
        unproven.append((height, codec.encode(stored.block)))
        if stored.certificate is None:
            continue
        for at, block in unproven[:-1]:
            yield writer.block(ledger, at, block, b"")
        yield _proven_piece(writer, ledger, stored)
        unproven.clear()


def _proven_piece(writer: BundleWriter, ledger: bytes, stored: StoredBlock) -> bytes:
    """A block with its own certificate."""
    assert stored.certificate is not None
    proof = codec.encode(Proof(tail=stored.tail, certificate=stored.certificate))
    header = stored.block.header
    return writer.block(ledger, header.height, codec.encode(stored.block), proof)


# --- what a bundle or a list says ----------------------------------------------------------


def inspect_file(path: Path, *, network: bytes | None = None) -> BundleSummary:
    """The table of contents of the bundle at ``path``; blocking. Raises ``ConfigError``."""
    return inspect_bundle(_chunks(path), network=network)


def _chunks(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while chunk := file.read(READ_BYTES):
                yield chunk
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None


def describe_fault(fault: BundleFault | None) -> dict[str, Any] | None:
    """Where and why reading stopped, as plain values."""
    if fault is None:
        return None
    return {"frame": fault.frame, "offset": fault.offset, "reason": fault.reason}


def describe_summary(summary: BundleSummary) -> dict[str, Any]:
    """A table of contents as plain values."""
    header = summary.header
    return {
        "status": summary.status.value,
        "fault": describe_fault(summary.fault),
        "network": header.network.hex() if header else None,
        "author": header.author.hex() if header else None,
        "created_ms": header.created if header else None,
        "frames": summary.frames,
        "bytes": summary.size,
        "entries": summary.entries,
        "logs": [
            {
                "author": lane.author.hex(),
                "incarnation": lane.incarnation.hex(),
                "start": span.start,
                "end": span.end,
                "entries": span.entries,
            }
            for lane, span in sorted(summary.lanes.items())
        ],
        "ledgers": [
            {
                "ledger": ledger.hex(),
                "lowest": span.lowest,
                "highest": span.highest,
                "blocks": span.blocks,
            }
            for ledger, span in sorted(summary.ledgers.items())
        ],
    }


def describe_known(node: Node) -> dict[str, Any]:
    """What a node holds, in the shape of ``describe_summary``: a list to send to who exports."""
    return {
        "network": node.network.hex(),
        "logs": [
            {
                "author": lane.author.hex(),
                "incarnation": lane.incarnation.hex(),
                "start": 0,
                "end": end,
                "entries": end,
            }
            for lane, end in node.replica.logs.frontier()
        ],
        "ledgers": [
            {"ledger": ledger.hex(), "lowest": 1, "highest": height, "blocks": height}
            for ledger, height in node.replica.chains.heads()
        ],
    }


def read_known(path: Path, network: bytes) -> Known:
    """What the receiver of the bundle, or the writer of the list, at ``path`` has; blocking.

    Raises ``ConfigError`` if it is neither, or of another network.
    """
    try:
        with path.open("rb") as file:
            head = file.read(1)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    if head == b"{":
        listed = _read_list(path, network)
    else:
        summary = inspect_file(path, network=network)
        if summary.header is None:
            reason = summary.fault.reason if summary.fault else "it is empty"
            raise ConfigError(f"{path} tells nothing of what its receiver has: {reason}")
        listed = describe_summary(summary)
    try:
        return _known(listed)
    except (KeyError, TypeError, ValueError):
        raise ConfigError(f"{path} is not a list that `p2pmed bundle have` prints") from None


def _read_list(path: Path, network: bytes) -> dict[str, Any]:
    with path.open("rb") as file:
        raw = file.read(KNOWN_JSON_BYTES_MAX + 1)
    try:
        listed = json.loads(raw) if len(raw) <= KNOWN_JSON_BYTES_MAX else None
    except ValueError:
        listed = None
    if not isinstance(listed, dict):
        raise ConfigError(f"{path} is not a list that `p2pmed bundle have` prints")
    if listed.get("network") != network.hex():
        raise ConfigError(f"{path} is about another network")
    return listed


def _known(listed: Mapping[str, Any]) -> Known:
    """Gapless spans only: from a hole on, everything counts as lacking."""
    lanes = {}
    for row in listed["logs"]:
        lane = LaneKey(bytes.fromhex(row["author"]), bytes.fromhex(row["incarnation"]))
        whole = row["entries"] >= row["end"] - row["start"]
        lanes[lane] = int(row["end"] if whole else row["start"])
    ledgers = {}
    for row in listed["ledgers"]:
        whole = row["blocks"] >= row["highest"] - row["lowest"] + 1
        ledgers[bytes.fromhex(row["ledger"])] = int(row["highest"] if whole else row["lowest"] - 1)
    return Known(lanes, ledgers)
