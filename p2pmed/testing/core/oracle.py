"""What every run of every engine must keep, judged from outside.

The oracle shares no code with the cores: it reads what members put on the wire and on the disk
with a plain CBOR reader, hashes headers itself, and asks the book of signatures who really
signed. It knows the protocols' promises, not their code.

Promises, by the names that reports use:

* *agreement*: one block per height, among all honest members, for ever, and a prefix each;
* *exactly once*: no counter is ordered twice in a chain;
* *certificates*: q distinct seats of the epoch really signed that very statement;
* *quorum of disks*: when a block is first decided, those who must hold it have it on the disk;
* *monotone*: floor, term and commit index never fall within a life;
* *evidence*: nobody is accused who neither lied nor forgot;
* *reads*: a linearizable read is at or above whatever was final anywhere before it was asked;
* *bounded*: rows kept, and messages said, stay within named limits.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

import cbor2
import msgspec

from p2pmed.consensus.interface import Block, Evidence, Header, ReadAt, Record
from p2pmed.quorum.certificate import Certificate
from p2pmed.testing.core.world import Violation

if TYPE_CHECKING:
    from p2pmed.testing.core.member import Member
    from p2pmed.testing.core.world import CoreWorld

__all__ = ["FINALIZE", "NOTARIZE", "NULLIFY", "Oracle", "read_message"]

NOTARIZE, NULLIFY, FINALIZE = 1, 2, 3
"""Kinds of vote, as they are spelt on the wire (certificate page, clause 2)."""

ROWS_MAX: Final = 4_096
"""Rows of one engine's namespace on a disk."""


def name_of(header: Sequence[Any]) -> bytes:
    """A header's digest, from its fields: BLAKE2b-256 of its canonical CBOR."""
    return blake2b(cbor2.dumps(list(header), canonical=True), digest_size=32).digest()


def plain_header(header: Header) -> list[Any]:
    """The fields of a header in the order in which they are spelt."""
    return list(msgspec.structs.astuple(header))


def read_message(raw: bytes) -> list[Any] | None:
    """A message as plain lists, or ``None`` if it is not even that."""
    try:
        value = cbor2.loads(raw)
    except (cbor2.CBORDecodeError, ValueError, TypeError, OverflowError, MemoryError):
        return None
    return value if isinstance(value, list) and value and type(value[0]) is int else None


class Oracle:
    """Books on everything that was said, kept and decided; raises ``Violation``."""

    def __init__(self) -> None:
        self.world: CoreWorld
        self.agreed: dict[int, bytes] = {}
        """Height -> digest of the block that an honest member decided first."""
        self.accused: dict[int, str] = {}
        """Seat -> kind of the first evidence against it."""
        self.reads: dict[int, int] = {}
        """Token of a read that is out -> height that was final before."""
        self.answered = 0
        self.guilty: tuple[int, ...] = ()
        """Seats that lie."""
        self._floors: dict[int, tuple[int, int]] = {}

    @property
    def quorum(self) -> int:
        """Votes that make a certificate, by the formula of the page and not of the code."""
        epoch = self.world.epoch
        members: int = len(epoch.validators)
        return (members + int(epoch.liars)) // 2 + 1

    @property
    def commits(self) -> int:
        """Blocks that became final."""
        return len(self.agreed)

    # --- what members do ------------------------------------------------------------------

    def on_send(self, member: Member, seat: int | None, message: bytes) -> None:
        """A message leaves ``member``; ``seat`` is ``None`` for everybody else."""

    def on_store(self, member: Member, records: Sequence[Record]) -> None:
        """Rows are staged."""

    def on_landed(self, member: Member) -> None:
        """A flush landed."""
        if member.honest and len(member.disk.rows) > ROWS_MAX:
            raise Violation(f"bounded: {len(member.disk.rows)} rows at seat {member.seat}")

    def on_step(self, member: Member) -> None:
        """A step is over."""
        # A floor that fell stays low for many steps: one look in eight is enough to see it.
        if self.world.steps & 7 or not member.honest or member.engine is None:
            return
        life, before = self._floors.get(member.place, (0, 0))
        floor = int(member.engine.status()["floor"])
        if life == member.life and floor < before:
            raise Violation(f"monotone: the floor of seat {member.seat} fell")
        self._floors[member.place] = (member.life, floor)

    def on_decide(self, member: Member, block: Block, certificate: Certificate | None) -> None:
        """The engine says that ``block`` is final."""
        if not member.honest:
            return
        digest = self._follows(member, block)
        if certificate is not None:
            self.check_certificate(certificate)
            if bytes(certificate.digest) != digest or certificate.kind != FINALIZE:
                raise Violation("certificates: one of something else")
            if certificate.view != block.header.view:
                raise Violation("certificates: the view is not the header's")
        if block.header.height not in self.agreed:
            self.first_decision(member, block, digest)
        self._agree(block.header.height, digest)

    def on_fetch(self, member: Member, block: Block) -> None:
        """``member`` takes a decided block from an honest peer."""
        self._agree(block.header.height, self._follows(member, block))

    def on_evidence(self, member: Member, evidence: Evidence) -> None:
        """``member`` accuses a seat."""
        if not member.honest:
            return
        self.accused.setdefault(evidence.seat, evidence.kind)
        if evidence.seat in self.guilty:
            return
        if not any(m.forgot for m in self.world.places.get(evidence.seat, ())):
            raise Violation(f"evidence: against honest seat {evidence.seat}: {evidence.kind}")

    def on_read(self, member: Member, answer: ReadAt) -> None:
        """A linearizable read is answered."""
        before = self.reads.pop(answer.token, None)
        if before is None or not member.honest:
            return
        self.answered += 1
        if answer.height < before:
            raise Violation(f"reads: height {answer.height} where {before} was final before")

    def ask_read(self, token: int) -> None:
        """A read with ``token`` is asked now."""
        self.reads[token] = max((len(m.disk.chain) for m in self.world.honest), default=0)

    def has_said(self, seat: int, view: int, kind: int) -> bool:
        """Whether that seat ever cast a vote of ``kind`` in ``view``; for aimed faults."""
        return False

    # --- certificates ---------------------------------------------------------------------

    def check_certificate(self, certificate: Certificate | Sequence[Any]) -> tuple[int, ...]:
        """The seats that stand behind it; raises ``Violation`` if it proves nothing."""
        fields = (
            msgspec.structs.astuple(certificate)
            if isinstance(certificate, Certificate)
            else tuple(certificate)
        )
        ledger, epoch, kind, view, digest, bitmap, signatures = fields[:7]
        statement = cbor2.dumps(
            ["p2pmed/1", "vote", ledger, epoch, int(kind), view, digest], canonical=True
        )
        seats = tuple(i for i in range(len(self.world.epoch.validators)) if bitmap >> i & 1)
        if bitmap.bit_count() != len(seats) or len(seats) != len(signatures):
            raise Violation("certificates: signers and signatures differ")
        if len(seats) < self.quorum:
            raise Violation(f"certificates: {len(seats)} signers where {self.quorum} are needed")
        for seat in seats:
            if not self.world.book.has_signed(seat, statement):
                raise Violation(f"certificates: seat {seat} never signed")
        return seats

    # --- blocks ---------------------------------------------------------------------------

    def first_decision(self, member: Member, block: Block, digest: bytes) -> None:
        """A height is decided for the first time."""

    def _follows(self, member: Member, block: Block) -> bytes:
        header = block.header
        digest = name_of(plain_header(header))
        tip = self._tip(member)
        if header.height != len(member.chain) + 1:
            raise Violation(f"agreement: height {header.height} after {len(member.chain)}")
        if header.parent != tip:
            raise Violation(f"agreement: height {header.height} does not follow its parent")
        items = tuple(cbor2.loads(block.content))
        twice = [item for item in items if item in member.application.decided]
        if twice:
            raise Violation(f"exactly once: counter {twice[0]} was ordered twice")
        strange = [item for item in items if not 1 <= item <= self.world.items]
        if strange:
            raise Violation(f"validity: counter {strange[0]} was never submitted")
        if blake2b(block.content, digest_size=32).digest() != header.content:
            raise Violation("validity: the content is not what the header names")
        return digest

    def _tip(self, member: Member) -> bytes:
        if not member.chain:
            return bytes(self.world.epoch.ledger)
        return self.agreed[member.chain[-1][0].header.height]

    def _agree(self, height: int, digest: bytes) -> None:
        if self.agreed.setdefault(height, digest) != digest:
            raise Violation(f"agreement: two blocks at height {height}")
