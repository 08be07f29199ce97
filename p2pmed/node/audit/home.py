"""Checking a whole home from its bytes: no key, no index trusted.

Order: the small files, SQLite's own check, every row's checksum, every author log, every ledger,
and the home ledger executed again from its genesis. Each says what is wrong, where, and what
to do (``findings.py``). The database is opened read only, in one transaction; a home whose node
runs is refused (verify a backup of it instead).

What no file can tell: that the newest entries are gone *together with* every trace of them (an
older image of the whole disk). The peers know.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from p2pmed.errors import ConfigError, CredentialError, DecodeError, P2pmedError
from p2pmed.identity.credentials import check_chain
from p2pmed.identity.keystore import open_keystore
from p2pmed.identity.manifest import Manifest, open_manifest
from p2pmed.ledger.block import decode_body
from p2pmed.ledger.stored import STORED_BYTES_MAX, StoredBlock
from p2pmed.ledger.transaction import Entry
from p2pmed.limits import BLOCK_CONTENT_BYTES_MAX
from p2pmed.medical import kinds as medical_kinds
from p2pmed.medical.membership import CredentialOpener, LogOpen
from p2pmed.medical.registry import Kind, Registry
from p2pmed.node.audit.findings import DO_HOME, Findings
from p2pmed.node.audit.ledgers import Ledger, audit_ledgers
from p2pmed.node.audit.logs import audit_logs
from p2pmed.node.audit.replay import audit_home_ledger
from p2pmed.node.audit.source import Source, open_source
from p2pmed.node.config import read_config
from p2pmed.node.county import is_county
from p2pmed.node.kinds import discovered_kinds
from p2pmed.node.setup import read_chain
from p2pmed.storage.files import read_file
from p2pmed.storage.home import DATABASE, HomeFile, lock_home
from p2pmed.sync.chains import Chains
from p2pmed.wire import cbor, codec
from p2pmed.world import Space

__all__ = ["audit_home", "newest_block_time"]

BOOT_FIELDS: Final = 5


def audit_home(
    home: Path,
    *,
    kinds: Iterable[Kind[Any]] = (),
    report: Callable[[str], None] = lambda stage: None,
) -> Findings:
    """Check the home at ``home``; ``kinds`` are transaction types of your own.

    Blocking, minutes for a large home. Raises ``ConfigError`` if there is no home, or its node
    runs; whatever else is wrong is a finding.
    """
    started = time.monotonic()
    findings = Findings()
    with ExitStack() as stack:
        writable = os.access(home, os.W_OK) or not home.is_dir()
        if writable:
            stack.enter_context(_locked(home))
        report("files")
        who = _files(home, findings)
        if not (home / DATABASE).exists():
            findings.notes.append("the home has never run: it has no database")
        elif (source := _open(home, findings, writable=writable)) is not None:
            stack.callback(source.close)
            _database(source, findings, who, kinds, report)
    findings.counts["milliseconds"] = round((time.monotonic() - started) * 1_000)
    return findings


def _open(home: Path, findings: Findings, *, writable: bool) -> Source | None:
    """The database; SQLite makes files of its own beside it only if a log is to be read."""
    log = home / f"{DATABASE}-wal"
    has_log = log.exists() and log.stat().st_size > 0
    if has_log and not writable:
        findings.notes.append(
            "the newest rows were not checked: they are in a log that cannot be read where nothing "
            "can be written; copy the home elsewhere"
        )
    return open_source(home / DATABASE, findings, alone=not (has_log and writable))


def _locked(home: Path) -> Any:
    try:
        stack = ExitStack()
        stack.enter_context(lock_home(home))
    except ConfigError as error:
        if "in use" in str(error):
            raise ConfigError(
                str(error),
                hint="stop the node; or make a backup while it runs, restore that to another "
                "folder, and verify that",
            ) from None
        raise
    return stack


def newest_block_time(home: Path) -> int | None:
    """Block time (ms) of the home ledger's newest block in a stopped home; ``None`` if none.

    A look, no check: what cannot be read is ``None`` as well.
    """
    if not (home / DATABASE).exists():
        return None
    source = _open(home, Findings(), writable=os.access(home, os.W_OK))
    if source is None:
        return None
    try:
        ledger = source.get(Space.META, b"home")
        if ledger is None:
            return None
        newest = source.scan(Space.BLOCK, ledger, ledger + b"\xff" * 9, limit=1, reverse=True)
        block = codec.decode(newest[0][1], StoredBlock, limit=STORED_BYTES_MAX).block
        return decode_body(block.content, limit=BLOCK_CONTENT_BYTES_MAX).summary.time
    except (DecodeError, IndexError):
        return None
    finally:
        source.close()


# --- the small files ------------------------------------------------------------------------


class _Who:
    """What the manifest lets us check."""

    def __init__(self, manifest: Manifest, network: bytes) -> None:
        self.manifest = manifest
        self.network = network
        self.opener = CredentialOpener(manifest, network)

    def roles(self, chain: Sequence[bytes]) -> tuple[str, ...]:
        """The roles that a chain shows. Raises ``CredentialError``."""
        leaf = self._leaf(chain)
        return tuple(role.value for role in leaf.roles)

    def device(self, chain: Sequence[bytes]) -> bytes:
        """The device that a chain speaks of. Raises ``CredentialError``."""
        subject: bytes = self._leaf(chain).subject
        return subject

    def _leaf(self, chain: Sequence[bytes]) -> Any:
        return check_chain(chain, manifest=self.manifest, network_id=self.network, at_ms=None)


def _files(home: Path, findings: Findings) -> _Who | None:
    """Every small file; ``None`` if there is no sound manifest to check the rest against."""
    who: _Who | None = None
    try:
        raw = read_file(home / HomeFile.MANIFEST)
        if raw is None:
            findings.notes.append("the home is not enrolled in a network")
            return None
        who = _Who(*open_manifest(raw))
        who.device(read_chain(home))
    except (DecodeError, CredentialError, P2pmedError) as error:
        findings.add("manifest" if who is None else "chain", str(error), do=DO_HOME)
    _keystore(home, findings)
    _settings(home, findings)
    _boot(home, findings)
    return who


def _keystore(home: Path, findings: Findings) -> None:
    """The keystore's spelling and checksum; whether a passphrase opens it, nobody asked."""
    raw = read_file(home / HomeFile.KEYSTORE)
    if raw is None:
        findings.add("keystore", "the file is missing", do=DO_HOME)
        return
    try:
        # An empty passphrase is refused after the file's own checks and before any cost.
        open_keystore(raw, "")
    except ConfigError as error:
        if "keystore" in str(error):
            findings.add("keystore", str(error), do=DO_HOME)


def _settings(home: Path, findings: Findings) -> None:
    try:
        read_config((read_file(home / HomeFile.CONFIG) or b"").decode("utf-8", "replace"))
    except P2pmedError as error:
        findings.add("p2pmed.toml", str(error), do="correct it; it is for people to edit")


def _boot(home: Path, findings: Findings) -> None:
    """``docs/protocols/storage.md``, clause 4.4."""
    raw = read_file(home / "boot")
    if raw is None:
        findings.notes.append("no boot record: the next run starts a new log and does not vote")
        return
    try:
        fields = cbor.decode(raw)
        if not isinstance(fields, list) or len(fields) != BOOT_FIELDS:
            raise DecodeError("not a boot record")
    except DecodeError as error:
        findings.add(
            "boot", str(error), do="nothing: the next run starts a new log and does not vote"
        )


# --- the database ---------------------------------------------------------------------------


def _database(
    source: Source,
    findings: Findings,
    who: _Who | None,
    kinds: Iterable[Kind[Any]],
    report: Callable[[str], None],
) -> None:
    report("database")
    source.check_file()
    source.sweep()
    if who is None:
        findings.notes.append("logs and ledgers were not checked: there is no sound manifest")
        return
    registry = Registry([*medical_kinds(), *discovered_kinds(), *kinds])

    def valid_opening(entry: Entry) -> bool:
        body = registry.body(entry)
        return isinstance(body, LogOpen) and who.opener(body.chain, entry.author) is not None

    report("author logs")
    audit_logs(source, findings, network=who.network, valid_opening=valid_opening)
    report("ledgers")
    ledgers = audit_ledgers(source, findings, network=who.network, open_chain=who.device)
    report("home ledger")
    _home_ledger(source, findings, who, registry, ledgers)


def _home_ledger(
    source: Source,
    findings: Findings,
    who: _Who,
    registry: Registry,
    ledgers: dict[bytes, Ledger],
) -> None:
    home = source.get(Space.META, b"home")
    if home is None:
        if any(source.count(Space.STATE, ledger) for ledger in ledgers):
            findings.add("META: home", "there is a state and no home ledger that it is of")
        return
    ledger = ledgers.get(home)
    if ledger is None:
        findings.add(
            "META: home",
            f"the home ledger {home.hex()[:12]} has no founding here",
            at=(Space.META, b"home"),
        )
        return
    try:
        chains = Chains(disk=_ReadOnly(source), network=who.network, open_chain=who.device)
    except (DecodeError, P2pmedError) as error:
        findings.notes.append(f"the home ledger was not executed again: {error}")
        return
    audit_home_ledger(
        source,
        findings,
        ledger,
        registry=registry,
        opener=who.opener,
        chains=chains,
        county=is_county(ledger.founding, who.roles),
    )


class _ReadOnly:
    """A ``world.Disk`` over the audited file; nothing is ever staged."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.get = source.get
        self.scan = source.scan

    def stage(self, space: Space, key: bytes, value: bytes | None) -> None:
        """Never called: an audit writes nothing."""
        raise AssertionError
