"""Every ledger of a home: its founding, the chain of its blocks, and what makes them final.

Each block names its parent, its content is what its header commits to, and a certificate of a
quorum proves it or a descendant of it. The tips that a block orders are the entries that are
here, as far as they are here. Whether executing the blocks gives what they state is
``replay.py``'s question, for the home ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from p2pmed.consensus.interface import Block, Header, header_digest
from p2pmed.errors import CredentialError, DecodeError
from p2pmed.ledger.block import Body, content_hash, decode_body, tips_root
from p2pmed.ledger.epochs import check_next
from p2pmed.ledger.genesis import Founding, check_founding, ledger_id
from p2pmed.ledger.stored import (
    STORED_BYTES_MAX,
    Proof,
    StoredBlock,
    check_proof,
    proof_of,
)
from p2pmed.limits import BLOCK_CONTENT_BYTES_MAX
from p2pmed.node.audit.findings import Findings, log_name
from p2pmed.node.audit.source import Source
from p2pmed.quorum.certificate import Epoch
from p2pmed.wire import codec
from p2pmed.world import Space

__all__ = ["BlockChecks", "Ledger", "audit_ledgers"]


@dataclass(slots=True)
class Ledger:
    """A ledger whose founding holds."""

    id: bytes
    founding: Founding
    height: int = 0
    sound: bool = True
    """Whether every block up to ``height`` is linked and has its content."""


@dataclass(slots=True)
class BlockChecks:
    """One chain, block by block; the same for a home and for a bundle."""

    epoch: Epoch
    height: int = 0
    parent: bytes | None = None
    """Digest of the block before; ``None``: not known, so the link is not checked."""
    unproven: list[int] = field(default_factory=list)
    signatures: int = 0

    def take(self, block: Block, proof: Proof | None) -> Body:
        """The next block's content. Raises ``CredentialError`` or ``DecodeError``."""
        header = block.header
        digest = header_digest(header)
        parent, self.parent, self.height = self.parent, digest, header.height
        self.unproven.append(header.height)
        body = self._content(block)
        if header.ledger != self.epoch.ledger or header.epoch != self.epoch.number:
            raise CredentialError("it is of another ledger or epoch")
        if parent is not None and header.parent != parent:
            raise CredentialError("it does not name the block before it")
        if proof is not None:
            self._check_proof(header, body, proof)
            self.unproven.clear()
        if body.next_epoch is not None:
            if proof is None:
                raise CredentialError("it ends its epoch and nothing proves it")
            check_next(self.epoch, body.next_epoch)
            self.epoch = body.next_epoch
        return body

    def _content(self, block: Block) -> Body:
        body = decode_body(block.content, limit=BLOCK_CONTENT_BYTES_MAX)
        if content_hash(body.summary) != block.header.content:
            raise CredentialError("its content is not what its header commits to")
        if tips_root(body.tips) != body.summary.tips:
            raise CredentialError("its tips are not what its summary commits to")
        return body

    def _check_proof(self, header: Header, body: Body, proof: Proof) -> None:
        if proof.tail and body.next_epoch is None:
            raise CredentialError("its proof has a tail, and it does not end its epoch")
        self.signatures += len(proof.certificate.signatures)
        check_proof(header, proof.tail, proof.certificate, self.epoch)


class _LedgerAudit:
    def __init__(
        self,
        source: Source,
        findings: Findings,
        network: bytes,
        open_chain: Callable[[Sequence[bytes]], bytes],
    ) -> None:
        self._source = source
        self._findings = findings
        self._network = network
        self._open_chain = open_chain

    def run(self) -> dict[bytes, Ledger]:
        """All checks; the ledgers whose founding holds."""
        ledgers = self._foundings()
        for ledger in ledgers.values():
            self._chain(ledger)
        self._strays(ledgers)
        return ledgers

    def _foundings(self) -> dict[bytes, Ledger]:
        found: dict[bytes, Ledger] = {}
        for key, raw in self._source.rows(Space.LEDGER):
            self._findings.counts["ledgers"] += 1
            where = f"ledger {key.hex()[:12]}"
            try:
                founding = codec.decode(raw, Founding)
                if ledger_id(founding.genesis) != key:
                    raise CredentialError("the founding of another ledger stands here")
                check_founding(founding, network=self._network, open_chain=self._open_chain)
            except (DecodeError, CredentialError) as error:
                self._findings.add(where, f"its founding: {error}", at=(Space.LEDGER, key))
                continue
            self._findings.counts["signatures"] += len(founding.signatures)
            found[key] = Ledger(key, founding)
        return found

    def _chain(self, ledger: Ledger) -> None:
        checks = BlockChecks(ledger.founding.genesis.epoch(), parent=ledger.id)
        tips = 0
        for key, raw in self._source.rows(Space.BLOCK, ledger.id):
            self._findings.counts["blocks"] += 1
            height = int.from_bytes(key[32:], "big")
            where = f"block {height} of ledger {ledger.id.hex()[:12]}"
            if height != checks.height + 1:
                gap = f"blocks {checks.height + 1} to {height - 1} before it are missing"
                self._findings.add(where, gap)
                checks.parent, ledger.sound = None, False
            ledger.height = checks.height = height
            try:
                stored = codec.decode(raw, StoredBlock, limit=STORED_BYTES_MAX)
                if stored.block.header.height != height:
                    raise CredentialError("the block of another height stands here")
                body = checks.take(stored.block, proof_of(stored))
            except (DecodeError, CredentialError) as error:
                self._findings.add(where, str(error), at=(Space.BLOCK, key))
                checks.height, checks.parent, ledger.sound = height, None, False
                continue
            if stored.certificate is not None:
                self._findings.counts["certificates"] += 1
            tips += self._tips(ledger, height, body, where)
        self._findings.counts["signatures"] += checks.signatures
        if checks.unproven and ledger.sound:
            self._findings.add(
                f"ledger {ledger.id.hex()[:12]}",
                f"no certificate proves its blocks from {checks.unproven[0]} on",
            )
        if ledger.founding.genesis.predecessor:  # what it began with stands there as of height 0
            tips += sum(at == bytes(8) for _, at in self._source.rows(Space.TIP, ledger.id))
        if ledger.sound and self._source.count(Space.TIP, ledger.id) != tips:
            self._findings.add(
                f"ledger {ledger.id.hex()[:12]}",
                "the index of tips has rows that no block orders",
            )

    def _tips(self, ledger: Ledger, height: int, body: Body, where: str) -> int:
        """The tips of a block against the index of tips, and against the logs here."""
        for tip in body.tips:
            key = ledger.id + tip.lane.to_bytes() + tip.seq.to_bytes(8, "big")
            if self._source.get(Space.TIP, key) != height.to_bytes(8, "big"):
                self._findings.add(
                    f"{where}, {log_name(tip.lane)}",
                    "the index of tips does not lead to this block",
                    at=(Space.TIP, key),
                )
            self._check_tip(tip.lane.to_bytes(), tip.seq, tip.id, where)
        return len(body.tips)

    def _check_tip(self, lane: bytes, seq: int, tip: bytes, where: str) -> None:
        """Another entry where the block's tip should stand, if the log reaches so far here."""
        row = self._source.get(Space.LANE, lane)
        if row is None:
            return
        try:
            number, next_seq = _place_of(row)
        except DecodeError:
            return  # said where the logs were read
        place = number.to_bytes(4, "big") + seq.to_bytes(8, "big")
        if seq >= next_seq or self._source.get(Space.ENTRY_ID, tip) == place:
            return
        # Of a forked log a block may order another branch; it is then kept beside the log.
        if self._source.get(Space.FORK, lane + place[4:] + tip) is None:
            self._findings.add(
                where,
                f"it orders another entry {seq} of author {lane.hex()[:12]} than the one here",
                at=(Space.ENTRY, place),
            )

    def _strays(self, ledgers: dict[bytes, Ledger]) -> None:
        """Rows of ledgers that have no founding here."""
        for space in (Space.BLOCK, Space.STATE, Space.VERDICT, Space.TIP):
            start = b""
            while page := self._source.scan(space, start, b"\xff" * 129, limit=1):
                ledger = page[0][0][:32]
                if ledger not in ledgers:
                    self._findings.add(
                        f"{space.name}: ledger {ledger.hex()[:12]}",
                        "rows of a ledger whose founding is not here, or does not hold",
                    )
                start = ledger + b"\xff" * 97


def _place_of(row: bytes) -> tuple[int, int]:
    from p2pmed.ledger.logs import LaneRow

    lane = codec.decode(row, LaneRow)
    return lane.number, lane.next_seq


def audit_ledgers(
    source: Source,
    findings: Findings,
    *,
    network: bytes,
    open_chain: Callable[[Sequence[bytes]], bytes],
) -> dict[bytes, Ledger]:
    """Check every ledger; those whose founding holds, by id.

    ``open_chain`` checks a credential chain and gives the device it speaks of.
    """
    return _LedgerAudit(source, findings, network, open_chain).run()
