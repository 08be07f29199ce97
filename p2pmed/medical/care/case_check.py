"""What a case file proves, to an expert with public keys and nothing else.

Theory of operation. Nothing in the file is taken on trust:

1. the ledgers are followed from their founders' signatures through every change of members; each
   block is certified by the seats of its epoch, and each entry stands in its block by a path;
2. each entry is signed by its device, whose credentials lead to the manifest;
3. nothing was left out. Entries about an operation are numbered by each device, without a gap; the
   case's opening states the last numbers, the records and the qualifications that belong to it.
   Between a device's first and last entry each place of its log is shown: in full, or as an id
   where it is about something else; ``prev`` ties each entry to the one before it;
4. people's words are checked, and the qualifications are executed again in the order of the
   ledger: what it called applied must come out so.

One thing that does not hold refuses the whole file. What holds and is odd (late, missing, in the
wrong order, unqualified) is told. Byte-exact: ``docs/protocols/case.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from p2pmed.errors import CredentialError
from p2pmed.identity.credentials import Credential, check_chain
from p2pmed.identity.manifest import Manifest, open_manifest
from p2pmed.ledger.genesis import ledger_id
from p2pmed.ledger.light import LightBlock, LightChain, check_placed
from p2pmed.ledger.state import APPLIED
from p2pmed.ledger.transaction import Entry, LaneKey, open_entry
from p2pmed.medical import qualifications, records
from p2pmed.medical.care import case_judging, cases, surgery
from p2pmed.medical.care.case_file import CaseEntry, CaseFile, CaseLedger, decode_case
from p2pmed.medical.care.case_judging import Line
from p2pmed.medical.care.cases import CaseOpen
from p2pmed.medical.care.theatre import SURGERY_BODIES, Told, Written, assess, number_of
from p2pmed.medical.registry import Registry
from p2pmed.medical.sealed import Sealed, commitment
from p2pmed.quorum.certificate import Verify
from p2pmed.wire import cose
from p2pmed.wire.codec import Wire

__all__ = ["CheckedCase", "Line", "check_case"]

REGISTRY: Final = Registry(
    [*records.KINDS, *qualifications.KINDS, *surgery.KINDS, *cases.KINDS],
)
"""Every kind that a case file may hold."""
QUALIFICATION_BODIES: Final = (
    qualifications.QualificationIssue,
    qualifications.QualificationSuspend,
    qualifications.QualificationRevoke,
)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class CheckedCase:
    """What was proven, and what is odd."""

    network: bytes
    network_name: str
    pinned: bool
    """Whether the caller knew the network's id from elsewhere."""
    case: Line
    reason: str
    reviewers: tuple[bytes, ...]
    surgery: bytes
    lines: tuple[Line, ...]
    """Every entry, by hybrid clock."""
    told: Told | None
    """Of the operation; ``None`` if the case is about records only."""
    skipped: int
    """Entries of the operation's devices, in between, that are about something else."""
    limits: tuple[str, ...]
    """Sentences: what nobody should read into it."""


def check_case(
    raw: bytes, *, network: bytes | None = None, verify: Verify = cose.verify
) -> CheckedCase:
    """What the opened file ``raw`` proves; ``network`` is the id known from elsewhere.

    Raises ``DecodeError`` or ``CredentialError`` with one sentence if any part does not hold.
    """
    file = decode_case(raw)
    manifest, network_id = open_manifest(file.manifest)
    if network is not None and network_id != network:
        raise CredentialError("the case is of another network than the one that was named")
    desk = _Desk(file, manifest, network_id, verify)
    lines = desk.lines()
    if file.case >= len(lines):
        raise CredentialError("the file names no opening of a case")
    case = lines[file.case]
    if not isinstance(case.body, CaseOpen):
        raise CredentialError("what should be the opening of the case is none")
    _check_scope(lines, case, case.body)
    _check_complete(lines, case.body)
    skipped = _check_logs(file, lines, case.body)
    judged = case_judging.judge(lines, network_id)
    told = None
    if case.body.surgery:
        told = assess(
            [
                Written(entry=line.entry, body=line.body, applied=line.verdict in ("", APPLIED))
                for line in judged
                if isinstance(line.body, SURGERY_BODIES)
            ]
        )
    return CheckedCase(
        network=network_id,
        network_name=manifest.name,
        pinned=network is not None,
        case=judged[file.case],
        reason=case.body.reason,
        reviewers=case.body.reviewers,
        surgery=case.body.surgery,
        lines=tuple(judged),
        told=told,
        skipped=skipped,
        limits=_limits(judged, network is not None),
    )


class _Desk:
    """Checks ledgers, signatures and places; what it gives out is proven."""

    def __init__(self, file: CaseFile, manifest: Manifest, network: bytes, verify: Verify) -> None:
        self._file = file
        self._manifest = manifest
        self._network = network
        self._verify = verify
        self._chains: dict[int, Credential] = {}

    def lines(self) -> list[Line]:
        """Every entry, checked. Raises ``CredentialError`` or ``DecodeError``."""
        file = self._file
        if list(file.chains) != sorted(file.chains) or len(set(file.chains)) < len(file.chains):
            raise CredentialError("credentials that do not stand in their order")
        blocks = [self._follow(ledger) for ledger in file.ledgers]
        lines = [self._line(each, blocks) for each in file.entries]
        ranks = [(line.entry.envelope.hlc, line.entry.id) for line in lines]
        if any(ranks[i] >= ranks[i + 1] for i in range(len(ranks) - 1)):
            raise CredentialError("entries that do not stand in their order")
        self._refuse_unused(blocks)
        self._check_opened(lines)
        return lines

    def _refuse_unused(self, blocks: Sequence[Sequence[LightBlock]]) -> None:
        places = [each.place for each in self._file.entries if each.place is not None]
        named = {(place.ledger, place.block) for place in places}
        there = {(i, j) for i, ledger in enumerate(blocks) for j in range(len(ledger))}
        if named != there or {each.chain for each in self._file.entries} != set(
            range(len(self._file.chains))
        ):
            raise CredentialError("a block or credentials that belong to nothing in the file")

    def _follow(self, ledger: CaseLedger) -> Sequence[LightBlock]:
        """The ledger's blocks, each certified by the epoch that the handovers lead to."""
        chain = LightChain.founded(
            ledger.founding,
            network=self._network,
            open_chain=self._device,
            verify=self._verify,
        )
        waiting = list(ledger.handovers)
        heights = [block.header.height for block in ledger.blocks]
        if any(heights[i] >= heights[i + 1] for i in range(len(heights) - 1)):
            raise CredentialError("blocks that do not stand in their order")
        for block in ledger.blocks:
            while waiting and chain.epoch.number < block.header.epoch:
                chain.hand_over(waiting.pop(0))
            chain.check(block)
        if waiting:
            raise CredentialError("a handover that no block of the case needs")
        return ledger.blocks

    def _line(self, each: CaseEntry, blocks: Sequence[Sequence[LightBlock]]) -> Line:
        entry = open_entry(each.raw, network=self._network)
        if not self._verify(entry.author, entry.signature, entry.to_be_signed):
            raise CredentialError("an entry that its author did not sign")
        author = self._credential(each.chain)
        if author.subject != entry.author:
            raise CredentialError("credentials that speak of another device than signed")
        body = REGISTRY.body(entry)
        if body is None:
            raise CredentialError("an entry that belongs to no case")
        place = each.place
        if place is None:
            return Line(entry=entry, body=body, author=author)
        if place.ledger >= len(blocks) or place.block >= len(blocks[place.ledger]):
            raise CredentialError("an entry in a block that is not in the file")
        block = blocks[place.ledger][place.block]
        check_placed(place.placed, entry.id, block.summary)
        founding = self._file.ledgers[place.ledger].founding
        return Line(
            entry=entry,
            body=body,
            author=author,
            ledger=ledger_id(founding.genesis),
            ledger_name=founding.genesis.name,
            height=block.header.height,
            index=place.placed.index,
            time_ms=block.summary.time,
            verdict=place.placed.code,
            valid_then=author.not_before <= block.summary.time < author.not_after,
        )

    def _check_opened(self, lines: Sequence[Line]) -> None:
        """What is shown in clear is what its entry commits to."""
        shown = [each.entry for each in self._file.opened]
        if any(shown[i] >= shown[i + 1] for i in range(len(shown) - 1)):
            raise CredentialError("contents that do not stand in their order")
        for each in self._file.opened:
            sealed = _sealed(lines[each.entry].body) if each.entry < len(lines) else None
            if sealed is None:
                raise CredentialError("content beside an entry that commits to none")
            if commitment(each.salt, each.resource) != sealed.commitment:
                raise CredentialError("content that is not what its entry commits to")

    def _device(self, chain: Sequence[bytes]) -> bytes:
        return self._check(chain).subject

    def _credential(self, index: int) -> Credential:
        if index >= len(self._file.chains):
            raise CredentialError("an entry without credentials")
        if index not in self._chains:
            self._chains[index] = self._check(self._file.chains[index])
        return self._chains[index]

    def _check(self, chain: Sequence[bytes]) -> Credential:
        return check_chain(
            chain,
            manifest=self._manifest,
            network_id=self._network,
            at_ms=None,
            verify=self._verify,
        )


def _sealed(body: Wire) -> Sealed | None:
    found = getattr(body, "sealed", None)
    return found if isinstance(found, Sealed) else None


def _of_surgery(line: Line, name: bytes) -> bool:
    """Whether an entry is about the operation ``name``."""
    if isinstance(line.body, surgery.SurgeryPlan):
        return line.entry.id == name
    return isinstance(line.body, SURGERY_BODIES) and getattr(line.body, "surgery", b"") == name


def _check_scope(lines: Sequence[Line], case: Line, body: CaseOpen) -> None:
    """Everything in the file belongs to the case, and to its patient."""
    parts = {
        name
        for line in lines
        if (sealed := _sealed(line.body)) is not None
        for name in sealed.parts
    }
    for line in lines:
        entry = line.entry
        belongs = (
            line is case
            or (body.surgery and _of_surgery(line, body.surgery))
            or entry.id in body.records
            or entry.id in body.qualifications
            or (isinstance(line.body, records.Part) and entry.id in parts)
        )
        if not belongs:
            raise CredentialError("an entry that does not belong to the case")
        of_patient = entry.envelope.subject == case.entry.envelope.subject
        if not of_patient and not isinstance(line.body, QUALIFICATION_BODIES):
            raise CredentialError("an entry about another patient")


def _check_complete(lines: Sequence[Line], body: CaseOpen) -> None:
    """Nothing that the opening, a close or the numbers speak of is missing."""
    here = {line.entry.id for line in lines}
    needed: list[bytes] = [*body.records, *body.qualifications]
    for line in lines:
        sealed = _sealed(line.body)
        needed += sealed.parts if sealed is not None else ()
    if any(name not in here for name in needed):
        raise CredentialError("something that belongs to the case was left out of the file")
    if not body.surgery:
        return
    numbers: dict[bytes, list[int]] = {}
    stated: list[tuple[bytes, int]] = list(body.counts)
    for line in lines:
        if _of_surgery(line, body.surgery):
            numbers.setdefault(line.entry.author, []).append(number_of(line.body))
        if isinstance(line.body, surgery.SurgeryClose):
            stated += line.body.counts
    for device in sorted(numbers):
        found = sorted(set(numbers[device]))
        if found != list(range(1, len(found) + 1)):
            raise CredentialError("an entry of the operation was left out: its number is missing")
    for device, number in stated:
        if max(numbers.get(device, [0])) < number:
            raise CredentialError("an entry of the operation was left out at the end")


def _check_logs(file: CaseFile, lines: Sequence[Line], body: CaseOpen) -> int:
    """Each place of each log between the first and last entry about the operation is shown."""
    lanes: dict[LaneKey, dict[int, Entry]] = {}
    bounds: dict[LaneKey, list[int]] = {}
    for line in lines:
        entry = line.entry
        if entry.seq in lanes.setdefault(entry.lane, {}):
            raise CredentialError("two entries at one place of a log: it was forked")
        lanes[entry.lane][entry.seq] = entry
        if body.surgery and _of_surgery(line, body.surgery):
            bounds.setdefault(entry.lane, []).append(entry.seq)
    logs = {LaneKey(log.author, log.incarnation): log.skipped for log in file.logs}
    names = [LaneKey(log.author, log.incarnation) for log in file.logs]
    if names != sorted(bounds):
        raise CredentialError("logs that are not those of the operation's devices, in their order")
    for lane in names:
        seqs = [seq for seq, _ in logs[lane]]
        if seqs != sorted(set(seqs)):
            raise CredentialError("skipped entries that do not stand in their order")
        _check_log(lanes[lane], dict(logs[lane]), min(bounds[lane]), max(bounds[lane]))
    return sum(len(log.skipped) for log in file.logs)


def _check_log(shown: dict[int, Entry], skipped: dict[int, bytes], first: int, last: int) -> None:
    inside = {seq: entry for seq, entry in shown.items() if first <= seq <= last}
    if sorted([*inside, *skipped]) != list(range(first, last + 1)):
        raise CredentialError("places of a device's log that the file does not show")
    for seq, entry in inside.items():
        if seq == first:
            continue
        before = inside[seq - 1].id if seq - 1 in inside else skipped[seq - 1]
        if entry.envelope.prev != before:
            raise CredentialError("a device's log whose entries do not hang together")


def _limits(lines: Sequence[Line], pinned: bool) -> tuple[str, ...]:
    """What is not proven, in sentences, the weightiest first."""
    told = [
        "that what was recorded is true: a signature says who wrote it, not that it happened",
        "that the named devices and people's keys were in their owners' hands",
        "what nobody recorded, or came after the numbers that the opening and the close state",
        "what the entries say that are given as ids only: ask for them by their place in the log",
        "that a suspension unknown where the case was opened did not exist",
    ]
    if not pinned:
        told.insert(0, "that this is your network: compare its id with one you trust")
    if any(not line.verdict for line in lines):
        told.append("when the entries without a block were written: their clocks alone say so")
    return tuple(told)
