"""Checking a bundle from its bytes alone: no home and no key is needed.

The frames and the seal (``sync/bundle.py``), and what they carry: every entry's spelling, place,
link and signature; every founding's signatures, every block's link, content and certificate.
With the network's manifest it is also checked that each author and founder has a credential of
the network; without it that is said not to have been checked.

A bundle may begin in the middle of a log or a ledger: the first link is then not checked.
Memory: one frame, and a record for each log and ledger, bounded like a node's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from p2pmed.consensus.interface import Block
from p2pmed.errors import ConfigError, CredentialError, DecodeError
from p2pmed.identity.credentials import check_chain, open_credential
from p2pmed.identity.manifest import Manifest, open_manifest
from p2pmed.ledger.genesis import Founding, check_founding, ledger_id
from p2pmed.ledger.stored import Proof
from p2pmed.ledger.transaction import GENESIS_PREV, Entry, LaneKey, open_entry
from p2pmed.limits import LANES_MAX
from p2pmed.medical import kinds
from p2pmed.medical.membership import LogOpen
from p2pmed.medical.registry import Registry
from p2pmed.node.audit.findings import Findings, log_name
from p2pmed.node.audit.ledgers import BlockChecks
from p2pmed.node.audit.signatures import SignatureChecks
from p2pmed.sync.bundle import (
    BlockFrame,
    BundleFrame,
    BundleReader,
    BundleStatus,
    LaneFrame,
    LedgerFrame,
)
from p2pmed.wire import codec

__all__ = ["audit_bundle"]

READ_BYTES: Final = 256 * 1024
LEDGERS_MAX: Final = 256
"""As many as a node keeps."""
DO_COPY: Final = "copy the file again, or ask its author for another one"
DO_FORGED: Final = (
    "import refuses this part; ask its author, and keep the file for who looks into it"
)


@dataclass(slots=True)
class _Log:
    next_seq: int
    head: bytes | None


class _BundleAudit:
    def __init__(self, findings: Findings, manifest: bytes | None) -> None:
        self._findings = findings
        self._manifest: Manifest | None = None
        self._network: bytes | None = None
        if manifest is not None:
            self._manifest, self._network = open_manifest(manifest)
        self._registry = Registry(list(kinds()))
        self._logs: dict[LaneKey, _Log] = {}
        self._chains: dict[bytes, BlockChecks] = {}
        self._frame = 0
        self._of = b""
        """The network that the header names."""

    def run(self, path: Path) -> None:
        reader = BundleReader(self._network)
        with SignatureChecks(self._bad_signature) as checks:
            try:
                with path.open("rb") as file:
                    while reader.fault is None and (chunk := file.read(READ_BYTES)):
                        frames = reader.feed(chunk)
                        if reader.header is not None:
                            self._of = reader.header.network
                        for frame in frames:
                            self._take(frame, checks)
                            self._frame += 1
            except OSError as error:
                if reader.offset == 0:
                    raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
                self._findings.add(str(path), f"the medium fails: {error.strerror}", do=DO_COPY)
        status = reader.finish()
        self._end(reader, status, checks.count)

    def _end(self, reader: BundleReader, status: BundleStatus, signatures: int) -> None:
        counts = self._findings.counts
        counts["frames"], counts["bytes"] = reader.frames, reader.offset
        counts["logs"], counts["ledgers"] = len(self._logs), len(self._chains)
        counts["signatures"] += signatures + sum(c.signatures for c in self._chains.values())
        if reader.fault is not None:
            fault = reader.fault
            where = f"frame {fault.frame} at byte {fault.offset}"
            self._findings.add(where, f"{status.value}: {fault.reason}", do=DO_COPY)
        for ledger, chain in self._chains.items():
            if chain.unproven:
                what = f"no certificate proves its blocks from {chain.unproven[0]} on"
                self._findings.add(f"ledger {ledger.hex()[:12]}", what, do=DO_FORGED)
        if self._manifest is None:
            self._findings.notes.append(
                "whether authors and founders belong to the network was not checked: give --home "
                "or --manifest"
            )

    def _take(self, frame: BundleFrame, checks: SignatureChecks) -> None:
        if isinstance(frame, LaneFrame):
            self._lane(frame, checks)
        elif isinstance(frame, LedgerFrame):
            self._founding(frame)
        elif isinstance(frame, BlockFrame):
            self._block(frame)

    def _wrong(self, what: str, reason: str) -> None:
        self._findings.add(f"frame {self._frame}: {what}", reason, do=DO_FORGED)

    # --- logs -------------------------------------------------------------------------------

    def _lane(self, frame: LaneFrame, checks: SignatureChecks) -> None:
        for at, raw in enumerate(frame.entries):
            seq = frame.start + at
            name = f"{log_name(frame.lane)}, entry {seq}"
            try:
                entry = open_entry(raw, network=self._of)
            except DecodeError as error:
                self._wrong(name, f"not spelled as an entry is: {error}")
                self._advance(frame.lane, seq, None)
                continue
            self._findings.counts["entries"] += 1
            if entry.lane != frame.lane or entry.seq != seq:
                self._wrong(name, f"the entry of {log_name(entry.lane)}, {entry.seq} stands here")
                self._advance(frame.lane, seq, None)
                continue
            self._link(entry, name)
            checks.add(entry)

    def _link(self, entry: Entry, name: str) -> None:
        log = self._logs.get(entry.lane)
        before = GENESIS_PREV if entry.seq == 0 else None
        if log is not None and log.next_seq == entry.seq:
            before = log.head
        if log is not None and entry.seq < log.next_seq:
            return  # a repetition, or the evidence of a fork: it stands for itself
        if before is not None and entry.envelope.prev != before:
            self._wrong(name, "it does not name the entry before it")
        if entry.seq == 0 and not self._opens(entry):
            self._wrong(name, "it shows no credential of this network")
        self._advance(entry.lane, entry.seq, entry.id)

    def _advance(self, lane: LaneKey, seq: int, head: bytes | None) -> None:
        log = self._logs.get(lane)
        if log is not None:
            log.next_seq, log.head = max(log.next_seq, seq + 1), head
        elif len(self._logs) < LANES_MAX:
            self._logs[lane] = _Log(seq + 1, head)

    def _opens(self, entry: Entry) -> bool:
        body = self._registry.body(entry)
        if not isinstance(body, LogOpen):
            return False
        try:
            return self._device(body.chain) == entry.author
        except CredentialError:
            return False

    def _device(self, chain: Sequence[bytes]) -> bytes:
        """The device that a chain speaks of; its root is checked if the manifest is known."""
        if self._manifest is not None:
            leaf = check_chain(chain, manifest=self._manifest, network_id=self._of, at_ms=None)
        elif chain:
            leaf = open_credential(chain[-1], network_id=self._of)
        else:
            raise CredentialError("no credential was shown")
        return leaf.subject

    def _bad_signature(self, entry: Entry) -> None:
        where = f"{log_name(entry.lane)}, entry {entry.seq}"
        self._findings.add(where, "its signature does not hold", do=DO_FORGED)

    # --- ledgers ----------------------------------------------------------------------------

    def _founding(self, frame: LedgerFrame) -> None:
        try:
            founding = codec.decode(frame.genesis, Founding)
            check_founding(founding, network=self._of, open_chain=self._device)
        except (DecodeError, CredentialError) as error:
            self._wrong("a founding", str(error))
            return
        self._findings.counts["signatures"] += len(founding.signatures)
        ledger = ledger_id(founding.genesis)
        if ledger not in self._chains and len(self._chains) < LEDGERS_MAX:
            self._chains[ledger] = BlockChecks(founding.genesis.epoch(), parent=ledger)

    def _block(self, frame: BlockFrame) -> None:
        name = f"block {frame.height} of ledger {frame.ledger.hex()[:12]}"
        chain = self._chains.get(frame.ledger)
        if chain is None:
            self._wrong(name, "the founding of its ledger does not come before it")
            return
        self._findings.counts["blocks"] += 1
        if frame.height != chain.height + 1:
            chain.parent = None  # a bundle may begin in the middle
        try:
            block = codec.decode(frame.block, Block)
            raw = frame.certificate
            proof = codec.decode(raw, Proof) if raw else None
            if block.header.height != frame.height:
                raise CredentialError("its frame names another height")
            chain.take(block, proof)
        except (DecodeError, CredentialError) as error:
            chain.parent, chain.height = None, frame.height
            chain.unproven.clear()
            self._wrong(name, str(error))


def audit_bundle(
    path: Path,
    *,
    manifest: bytes | None = None,
    report: Callable[[str], None] = lambda stage: None,
) -> Findings:
    """Check the bundle at ``path``, against the network's signed ``manifest`` if there is one.

    Blocking. Raises ``ConfigError`` (no such file), ``DecodeError`` or ``CredentialError`` (of
    the manifest itself); whatever is wrong with the bundle is a finding.
    """
    findings = Findings()
    report("bundle")
    started = time.monotonic()
    _BundleAudit(findings, manifest).run(path)
    findings.counts["milliseconds"] = round((time.monotonic() - started) * 1_000)
    return findings
