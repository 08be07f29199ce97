"""The home ledger executed again from its genesis, and compared with what the disk says.

Block by block the entries are applied by the machine that the node runs, on an empty state; the
block's own summary must come out: the order, the verdicts' root, the state's root. Then every
STATE, VERDICT and TIP row is compared with the one that came out, and the sum of all STATE rows
(LtHash) with the one that the last block certifies.

The state of the second run lies in a temporary database that is gone with the process, so that
memory is bounded; entries and the blocks of other ledgers are read from the home.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Final

from p2pmed.consensus.interface import Block, Check
from p2pmed.errors import DecodeError, P2pmedError
from p2pmed.ledger import lthash
from p2pmed.ledger.block import decode_body
from p2pmed.ledger.chain import Chain
from p2pmed.ledger.genesis import Genesis
from p2pmed.ledger.inheriting import inherit
from p2pmed.ledger.logs import Logs
from p2pmed.ledger.state import StateMachine
from p2pmed.ledger.stored import STORED_BYTES_MAX, StoredBlock
from p2pmed.limits import BLOCK_CONTENT_BYTES_MAX
from p2pmed.medical.county import CountyMachine
from p2pmed.medical.machine import MedicalMachine
from p2pmed.medical.membership import CredentialOpener
from p2pmed.medical.registry import Registry
from p2pmed.node.audit.findings import Findings, place_name
from p2pmed.node.audit.ledgers import Ledger
from p2pmed.node.audit.source import Row, Source
from p2pmed.node.county import VillageBlocks
from p2pmed.sync.chains import Chains
from p2pmed.wire import codec
from p2pmed.world import Space

__all__ = ["audit_home_ledger"]

DIFFERENCES_MAX: Final = 100
"""Rows of one space that are named one by one."""

HEIGHT_BYTES: Final = 8
"""Of the height at the end of the row that holds a ledger's stored sum."""

_SECOND: Final = frozenset({Space.STATE, Space.VERDICT, Space.TIP, Space.META, Space.BLOCK})
"""Spaces that the second run writes itself."""

_PARTS: Final = (
    ("entries", "the order of its entries"),
    ("count", "the number of its entries"),
    ("time", "its block time"),
    ("verdicts", "the verdicts on its entries"),
    ("state", "the state after it"),
)
"""Fields of a summary, and what to call them."""


class _SecondRun:
    """A ``world.Disk``: what the home ledger's second run wrote, over what the home holds."""

    def __init__(self, source: Source, ledger: bytes) -> None:
        self._source = source
        self._ledger = ledger
        self._rows = sqlite3.connect("", isolation_level=None)  # a temporary file of its own
        for statement in (
            "PRAGMA journal_mode = OFF",
            "PRAGMA synchronous = OFF",
            "PRAGMA cache_size = -16384",
            "CREATE TABLE row (space INTEGER, key BLOB, value BLOB, PRIMARY KEY (space, key))"
            " WITHOUT ROWID",
            "BEGIN",
        ):
            self._rows.execute(statement)

    def _is_own(self, space: Space, key: bytes) -> bool:
        return space is Space.META or (space in _SECOND and key.startswith(self._ledger))

    def get(self, space: Space, key: bytes) -> bytes | None:
        """As ``world.Disk.get``."""
        if not self._is_own(space, key):
            return self._source.get(space, key)
        row = self._rows.execute(
            "SELECT value FROM row WHERE space = ? AND key = ?", (int(space), key)
        ).fetchone()
        return row[0] if row else None

    def scan(
        self, space: Space, start: bytes, end: bytes, *, limit: int, reverse: bool = False
    ) -> list[Row]:
        """As ``world.Disk.scan``; a range is the home ledger's or not by its start."""
        if not self._is_own(space, start):
            return self._source.scan(space, start, end, limit=limit, reverse=reverse)
        order = "DESC" if reverse else "ASC"
        return self._rows.execute(
            "SELECT key, value FROM row WHERE space = ? AND key >= ? AND key < ?"  # noqa: S608
            f" ORDER BY key {order} LIMIT ?",
            (int(space), start, end, limit),
        ).fetchall()

    def stage(self, space: Space, key: bytes, value: bytes | None) -> None:
        """As ``world.Disk.stage``; blocks are not kept, nobody reads them again."""
        if space is Space.BLOCK:
            return
        if value is None:
            self._rows.execute("DELETE FROM row WHERE space = ? AND key = ?", (int(space), key))
        else:
            self._rows.execute("REPLACE INTO row VALUES (?, ?, ?)", (int(space), key, value))

    def rows(self, space: Space, prefix: bytes) -> Iterator[Row]:
        """What the second run wrote, in key order."""
        yield from self._rows.execute(
            "SELECT key, value FROM row WHERE space = ? AND key >= ? AND key < ? ORDER BY key",
            (int(space), prefix, prefix + b"\xff" * 129),
        )

    def close(self) -> None:
        """Let go of the temporary file."""
        self._rows.close()


class _Replay:
    def __init__(
        self,
        source: Source,
        findings: Findings,
        ledger: Ledger,
        registry: Registry,
        opener: CredentialOpener,
        chains: Chains,
        *,
        county: bool,
        executed: int,
    ) -> None:
        self._source = source
        self._findings = findings
        self._ledger = ledger
        self._executed = executed
        self._name = f"ledger {ledger.id.hex()[:12]}"
        self.disk = _SecondRun(source, ledger.id)
        self._logs = Logs(self.disk, ledger.founding.genesis.network)
        villages = VillageBlocks(self.disk, self._logs, chains)
        machine: StateMachine = MedicalMachine(registry, opener)
        if county:
            machine = CountyMachine(machine, registry, villages)
        self._machine = machine

    def run(self) -> bool:
        """Execute every block that the node has executed; whether the last one was reached."""
        genesis = self._ledger.founding.genesis
        if genesis.rules != self._machine.rules_hash:
            self._findings.add(
                self._name,
                "its rules are not those of this program, so it was not executed again",
                do="verify with the version, and the application's types, that the node runs with",
            )
            return False
        if genesis.predecessor:
            self._inherit(genesis)
        chain = Chain(
            disk=self.disk,
            logs=self._logs,
            genesis=genesis,
            machine=self._machine,
            wall=lambda: 0,
            available=lambda lane: 0,  # asked by who builds, and nothing is built here
        )
        for key, raw in self._source.rows(Space.BLOCK, self._ledger.id):
            height = int.from_bytes(key[32:], "big")
            if height > self._executed:  # carried, and its bodies were not here yet
                break
            stored = codec.decode(raw, StoredBlock, limit=STORED_BYTES_MAX)
            verdict = chain.check(stored.block)
            if verdict is not Check.VALID:
                self._say_why(chain, stored.block, verdict, key)
                return False
            decided = chain.decide(stored.block, stored.certificate)
            self._findings.counts["executed"] += len(decided.entries)
            self._findings.counts["executed_blocks"] = height
        return True

    def _inherit(self, genesis: Genesis) -> None:
        """Begin with the predecessor's stored state, whose rows must sum up to the root."""
        key = b"state" + genesis.predecessor
        total = lthash.EMPTY
        for row, value in self._source.rows(Space.STATE, genesis.predecessor):
            total = lthash.add(total, lthash.row_hash(row[32:], value))
        stored = self._source.get(Space.META, key)
        if stored is not None and stored[:-HEIGHT_BYTES] != lthash.to_bytes(total):
            self._findings.add(
                f"STATE of ledger {genesis.predecessor.hex()[:12]}",
                f"the sum of its rows is not the stored one, and {self._name} began with it",
            )
        self.disk.stage(Space.META, key, stored)
        inherit(self.disk, genesis)

    def _say_why(self, chain: Chain, block: Block, verdict: Check, key: bytes) -> None:
        where = f"block {block.header.height} of {self._name}"
        if verdict is Check.MISSING:
            self._findings.add(where, "entries that it orders are missing", at=(Space.BLOCK, key))
            return
        parts = _differences(chain, block)
        what = " and ".join(parts) if parts else "what it orders"
        self._findings.add(
            where, f"executing it again gives otherwise: {what}", at=(Space.BLOCK, key)
        )

    # --- comparing --------------------------------------------------------------------------

    def compare(self) -> None:
        """Every row of the home ledger's state, verdicts and tips against the second run's."""
        for space in (Space.STATE, Space.VERDICT, Space.TIP):
            self._compare_space(space)

    def _compare_space(self, space: Space) -> None:
        told = 0
        mine, theirs = self.disk.rows(space, self._ledger.id), self._stored(space)
        here, there = next(theirs, None), next(mine, None)
        while here is not None or there is not None:
            if here == there:
                here, there = next(theirs, None), next(mine, None)
                continue
            if there is None or (here is not None and here[0] < there[0]):
                assert here is not None
                key, what = here[0], "the row is not in the state that the blocks give"
                here = next(theirs, None)
            elif here is None or there[0] < here[0]:
                key, what = there[0], "the row that the blocks give is missing"
                there = next(mine, None)
            else:
                key, what = here[0], "the blocks give another value"
                here, there = next(theirs, None), next(mine, None)
            told += 1
            if told <= DIFFERENCES_MAX:
                self._findings.add(place_name(space, key), what, at=(space, key))
        if told > DIFFERENCES_MAX:
            self._findings.add(f"{space.name} of {self._name}", f"{told} rows differ in all")

    def _stored(self, space: Space) -> Iterator[Row]:
        for row in self._source.rows(space, self._ledger.id):
            if space is Space.TIP and int.from_bytes(row[1], "big") > self._executed:
                continue  # of a block that is carried, checked with the chain
            self._findings.counts[f"{space.name.lower()}_rows"] += 1
            yield row


def _differences(chain: Chain, block: Block) -> list[str]:
    """Which parts of the block's summary come out otherwise.

    The chain answers ``INVALID`` without saying why, since no voter needs to know.
    """
    try:
        body = decode_body(block.content, limit=BLOCK_CONTENT_BYTES_MAX)
    except DecodeError:
        return []
    again = chain.execute_again(block, body)
    if again is None:
        return []
    return [name for part, name in _PARTS if getattr(again, part) != getattr(body.summary, part)]


def _executed_height(source: Source, findings: Findings, ledger: Ledger) -> int:
    """How far the node has executed the ledger, by the row that says so (see ``Chain``)."""
    key = b"state" + ledger.id
    raw = source.get(Space.META, key)
    if raw is None:
        if source.count(Space.STATE, ledger.id):
            name = f"ledger {ledger.id.hex()[:12]}"
            findings.add(f"META: the stored sum of {name}", "the row is missing")
        return 0
    return int.from_bytes(raw[-HEIGHT_BYTES:], "big")


def _check_sum(source: Source, findings: Findings, ledger: Ledger, height: int) -> None:
    """The sum of the stored STATE rows, against the certified root and the stored sum."""
    certified = _certified_root(source, ledger, height)
    if height == 0:
        return
    total = lthash.EMPTY
    for key, value in source.rows(Space.STATE, ledger.id):
        total = lthash.add(total, lthash.row_hash(key[32:], value))
    name = f"ledger {ledger.id.hex()[:12]}"
    if lthash.state_root(total) != certified:
        findings.add(
            f"STATE of {name}", f"the sum of its rows is not the one that block {height} certifies"
        )
    key = b"state" + ledger.id
    if source.get(Space.META, key) != lthash.to_bytes(total) + height.to_bytes(8, "big"):
        findings.add(
            f"META: the stored sum of {name}",
            "it is not the sum of the stored state",
            at=(Space.META, key),
        )


def _certified_root(source: Source, ledger: Ledger, height: int) -> bytes | None:
    """The root of the state after block ``height``; ``None`` if that block is not readable."""
    raw = source.get(Space.BLOCK, ledger.id + height.to_bytes(8, "big"))
    try:
        if raw is None:
            return None
        block = codec.decode(raw, StoredBlock, limit=STORED_BYTES_MAX).block
        return decode_body(block.content, limit=BLOCK_CONTENT_BYTES_MAX).summary.state
    except DecodeError:
        return None


def audit_home_ledger(
    source: Source,
    findings: Findings,
    ledger: Ledger,
    *,
    registry: Registry,
    opener: CredentialOpener,
    chains: Chains,
    county: bool,
) -> None:
    """Execute the home ledger again and compare. ``county``: its machine is the county's."""
    height = _executed_height(source, findings, ledger)
    _check_sum(source, findings, ledger, height)
    name = f"ledger {ledger.id.hex()[:12]}"
    if height < ledger.height:
        findings.notes.append(f"{ledger.height - height} carried blocks of {name} wait for bodies")
    if not ledger.sound:
        findings.notes.append(f"{name} was not executed again: its chain is broken")
        return
    replay: _Replay | None = None
    try:
        replay = _Replay(
            source, findings, ledger, registry, opener, chains, county=county, executed=height
        )
        if replay.run():
            replay.compare()
        else:
            findings.notes.append(f"the state of {name} could be compared by its sum only")
    except (P2pmedError, LookupError, ValueError, TypeError) as error:
        # What the second run stumbles over was named where the logs were read, or is named here.
        reason = str(error) if isinstance(error, P2pmedError) else type(error).__name__
        findings.add(name, f"it cannot be executed again: {reason}")
    finally:
        if replay is not None:
            replay.disk.close()
