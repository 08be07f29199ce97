"""Every author log of a home, checked entry by entry against its own bytes.

Each log opens with a credential of the network, has no gap, links each entry to the one before,
and each signature holds; the index by id, the index by patient and the log's own row say the
same. Forks that were kept are evidence, and are checked like it.

Streaming: one row at a time in the order of the disk; memory holds one record a log.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from p2pmed.errors import DecodeError
from p2pmed.ledger.logs import LaneRow
from p2pmed.ledger.transaction import GENESIS_PREV, Entry, LaneKey, open_entry
from p2pmed.node.audit.findings import Findings, log_name
from p2pmed.node.audit.signatures import SignatureChecks
from p2pmed.node.audit.source import Source
from p2pmed.wire import codec, cose
from p2pmed.world import Space

__all__ = ["audit_logs"]

PLACE_BYTES: Final = 12
BRANCH: Final = b"branch"
"""Of LOCAL: the index of entries that stand beside a forked log (``ledger/logs.py``)."""


@dataclass(slots=True)
class _Log:
    """One log, as its row tells and as its entries have told so far."""

    key: LaneKey
    row: LaneRow
    next_seq: int = 0
    head: bytes | None = GENESIS_PREV
    """Id of the last entry; ``None`` after one that cannot be trusted."""


class _LogAudit:
    def __init__(
        self,
        source: Source,
        findings: Findings,
        network: bytes,
        valid_opening: Callable[[Entry], bool],
    ) -> None:
        self._source = source
        self._findings = findings
        self._network = network
        self._valid_opening = valid_opening
        self._logs: dict[int, _Log] = {}
        self._good = 0
        self._subjects = 0
        self._orphans: set[int] = set()

    def run(self) -> None:
        """All checks."""
        self._read_lanes()
        with SignatureChecks(self._bad_signature) as checks:
            current: _Log | None = None
            for key, raw in self._source.rows(Space.ENTRY):
                log = self._log_of(key)
                if log is not current and current is not None:
                    self._end(current)
                current = log
                if log is not None:
                    self._entry(log, key, raw, checks)
            if current is not None:
                self._end(current)
            for log in self._logs.values():
                if log.next_seq == 0:
                    self._end(log)
        self._findings.counts["entries"] = self._good
        self._findings.counts["signatures"] += checks.count
        self._check_index(Space.ENTRY_ID, self._good, self._check_id_row)
        self._check_index(Space.SUBJECT, self._subjects, self._check_subject_row)
        self._forks()

    # --- lanes ------------------------------------------------------------------------------

    def _read_lanes(self) -> None:
        for key, raw in self._source.rows(Space.LANE):
            self._findings.counts["logs"] += 1
            name = log_name(LaneKey.from_bytes(key)) if len(key) == 48 else key.hex()[:64]
            try:
                if len(key) != 48:
                    raise DecodeError("a key that is not author and incarnation")
                row = codec.decode(raw, LaneRow)
            except DecodeError as error:
                self._findings.add(name, f"the log's row: {error}", at=(Space.LANE, key))
                continue
            if row.number in self._logs:
                self._findings.add(
                    name, f"two logs have the number {row.number}", at=(Space.LANE, key)
                )
                continue
            self._logs[row.number] = _Log(LaneKey.from_bytes(key), row)

    def _log_of(self, key: bytes) -> _Log | None:
        number = int.from_bytes(key[:4], "big")
        log = self._logs.get(number) if len(key) == PLACE_BYTES else None
        if log is None and number not in self._orphans:
            self._orphans.add(number)
            self._findings.add(
                f"entries of log number {number}", "no log has this number: its row is missing"
            )
        return log

    def _end(self, log: _Log) -> None:
        """All entries of a log were seen: does its row say the same?"""
        key = log.key.to_bytes()
        if log.next_seq < log.row.next_seq:
            self._findings.add(
                f"{log_name(log.key)}, entry {log.next_seq}",
                f"entries {log.next_seq} to {log.row.next_seq - 1} are missing",
            )
        elif log.next_seq > log.row.next_seq:
            self._findings.add(
                log_name(log.key),
                f"its row ends at {log.row.next_seq}, its entries at {log.next_seq}",
                at=(Space.LANE, key),
            )
        elif log.head is not None and log.head != log.row.head:
            self._findings.add(
                log_name(log.key), "its row names another last entry", at=(Space.LANE, key)
            )

    # --- entries ----------------------------------------------------------------------------

    def _entry(self, log: _Log, key: bytes, raw: bytes, checks: SignatureChecks) -> None:
        seq = int.from_bytes(key[4:], "big")
        where, at = f"{log_name(log.key)}, entry {seq}", (Space.ENTRY, key)
        if seq != log.next_seq:
            self._findings.add(where, f"entries {log.next_seq} to {seq - 1} before it are missing")
            log.head = None
        before, log.next_seq, log.head = log.head, seq + 1, None
        try:
            entry = open_entry(raw, network=self._network)
        except DecodeError as error:
            self._findings.add(where, f"not spelled as an entry is: {error}", at=at)
            return
        if entry.lane != log.key or entry.seq != seq:
            other = f"{log_name(entry.lane)}, entry {entry.seq}"
            self._findings.add(where, f"the entry of another place stands here ({other})", at=at)
            return
        if before is not None and entry.envelope.prev != before:
            self._findings.add(where, "it does not name the entry before it", at=at)
        if seq == 0 and not self._valid_opening(entry):
            self._findings.add(where, "it shows no credential of this network", at=at)
        if self._source.get(Space.ENTRY_ID, entry.id) != key:
            self._findings.add(where, "the index by id does not lead to it", at=at)
        else:
            self._good += 1
            self._subjects += self._has_subject(entry, key, where)
        log.head = entry.id
        checks.add(entry)

    def _has_subject(self, entry: Entry, key: bytes, where: str) -> int:
        subject = entry.envelope.subject
        if not subject:
            return 0
        if self._source.get(Space.SUBJECT, subject + key) is None:
            self._findings.add(where, "the index by patient does not lead to it")
            return 0
        return 1

    def _bad_signature(self, entry: Entry) -> None:
        place = self._place(entry)
        self._findings.add(
            f"{log_name(entry.lane)}, entry {entry.seq}",
            "its signature does not hold",
            at=(Space.ENTRY, place) if place else None,
        )

    def _place(self, entry: Entry) -> bytes | None:
        for number, log in self._logs.items():
            if log.key == entry.lane:
                return number.to_bytes(4, "big") + entry.seq.to_bytes(8, "big")
        return None

    # --- indexes ----------------------------------------------------------------------------

    def _check_index(
        self, space: Space, expected: int, check: Callable[[bytes, bytes], None]
    ) -> None:
        """Every entry led to its row; rows beyond those lead nowhere. Walked only if there are."""
        if self._source.count(space) != expected:
            for key, value in self._source.rows(space):
                check(key, value)

    def _check_id_row(self, key: bytes, place: bytes) -> None:
        entry = self._entry_at(place)
        if entry is None or entry.id != key:
            self._stray(Space.ENTRY_ID, key, place, f"the index row of id {key.hex()[:16]}")

    def _check_subject_row(self, key: bytes, value: bytes) -> None:
        place = key[16:]
        entry = self._entry_at(place)
        if entry is None or entry.envelope.subject != key[:16]:
            self._stray(Space.SUBJECT, key, place, f"an index row by patient ({place.hex()})")

    def _stray(self, space: Space, key: bytes, place: bytes, where: str) -> None:
        if not self._findings.is_at(Space.ENTRY, place):  # else it follows from that finding
            self._findings.add(where, "it leads to no such entry", at=(space, key))

    def _entry_at(self, place: bytes) -> Entry | None:
        raw = self._source.get(Space.ENTRY, place) if len(place) == PLACE_BYTES else None
        try:
            return open_entry(raw, network=self._network) if raw is not None else None
        except DecodeError:
            return None

    # --- forks ------------------------------------------------------------------------------

    def _forks(self) -> None:
        by_lane = {log.key.to_bytes(): log for log in self._logs.values()}
        proven: set[bytes] = set()
        for key, raw in self._source.rows(Space.FORK):
            self._findings.counts["forks"] += 1
            if fault := self._fork_fault(by_lane, key, raw):
                self._findings.add(f"FORK: row {key.hex()[:64]}", fault, at=(Space.FORK, key))
            else:
                proven.add(key[:48])
        for lane, log in by_lane.items():
            if log.row.frozen and lane not in proven:
                self._findings.add(
                    log_name(log.key),
                    "the log is frozen and nothing here proves that it forked",
                    at=(Space.LANE, lane),
                )
            elif log.row.frozen:
                self._findings.notes.append(
                    f"{log_name(log.key)} forked; both branches are kept as evidence"
                )

    def _fork_fault(self, by_lane: dict[bytes, _Log], key: bytes, raw: bytes) -> str:
        """Why a row is no evidence of a fork; empty if it is."""
        try:
            entry = open_entry(raw, network=self._network)
        except DecodeError as error:
            return f"not spelled as an entry is: {error}"
        if key != entry.lane.to_bytes() + entry.seq.to_bytes(8, "big") + entry.id:
            return "the evidence of another place stands here"
        log = by_lane.get(entry.lane.to_bytes())
        if log is None or not log.row.frozen:
            return "evidence of a fork, and its log is not frozen"
        mine = self._entry_at(log.row.number.to_bytes(4, "big") + entry.seq.to_bytes(8, "big"))
        if mine is not None and mine.id == entry.id:
            return "the entry stands in the log as well: it contradicts nothing"
        if not cose.verify(entry.author, entry.signature, entry.to_be_signed):
            return "its signature does not hold"
        place = log.row.number.to_bytes(4, "big") + entry.seq.to_bytes(8, "big")
        if self._source.get(Space.LOCAL, BRANCH + entry.id) != place:
            return "the index of branches does not lead to it"
        return ""


def audit_logs(
    source: Source,
    findings: Findings,
    *,
    network: bytes,
    valid_opening: Callable[[Entry], bool],
) -> None:
    """Check every author log; ``valid_opening`` judges a first entry."""
    _LogAudit(source, findings, network, valid_opening).run()
