"""A case file proves an operation to an expert; whoever changes it in any place is found out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from theatre_story import NURSE, REVIEWER, SURGEON, Theatre

from p2pmed.errors import CredentialError, DecodeError, Denied
from p2pmed.medical.care.case_check import check_case
from p2pmed.medical.care.case_file import CaseFile, CaseLog, decode_case, open_sealed_case
from p2pmed.medical.care.surgery import SurgeryChecklist, SurgeryEvent
from p2pmed.wire import codec

REFUSED = (CredentialError, DecodeError)
replace = msgspec.structs.replace


@pytest.fixture
async def theatre(opened_at: Any) -> Theatre:
    made = Theatre(await opened_at("hospital", "hospital", "shan/county"))
    await made.prepare()
    return made


async def exported(theatre: Theatre, *, reveal: bool = False) -> bytes:
    node = theatre.node
    receipt = await node.cases.open(
        reviewers=[REVIEWER.box_public], reason="complication", surgery=theatre.surgery
    )
    await receipt.final(timeout=10)
    sealed = await node.cases.export(receipt.id, reveal=reveal)
    assert b"p2pmed/1 case" not in sealed
    return open_sealed_case(sealed, REVIEWER.box_secret)


async def test_a_case_proves_entries_signers_qualifications_places_and_clocks(
    theatre: Theatre,
) -> None:
    """All of it from the file and the network's id, with no home and no key of anybody."""
    await theatre.operate()
    raw = await exported(theatre)
    checked = check_case(raw, network=theatre.node.network)
    assert checked.told is not None
    assert (checked.told.missing, checked.told.late) == ((), ())
    assert checked.surgery == theatre.surgery
    assert checked.skipped > 0  # other care of that hour stands as ids only
    assert checked.pinned
    signed = [line for line in checked.lines if isinstance(line.body, SurgeryChecklist)]
    assert [[signer.role for signer in line.signers] for line in signed] == [
        ["anaesthetist", "nurse"],
        ["surgeon", "anaesthetist", "nurse"],
        ["surgeon", "anaesthetist", "nurse"],
    ]
    assert all(signer.unfit == "" for line in signed for signer in line.signers)
    for line in checked.lines:
        assert line.height > 0
        assert line.verdict == "applied"
        assert line.valid_then
        assert line.entry.envelope.wall > 0
    assert not any(b"inflamed" in each.resource for each in decode_case(raw).opened)


async def test_contents_are_shown_on_purpose_only(theatre: Theatre) -> None:
    """With ``reveal`` the note is in the file, proven against its commitment; else it is not."""
    await theatre.operate()
    shown = decode_case(await exported(theatre, reveal=True))
    assert any(b"inflamed" in each.resource for each in shown.opened)
    check_case(codec.encode(shown))
    first = shown.opened[0]
    forged = replace(shown, opened=(replace(first, resource=b"{}"), *shown.opened[1:]))
    with pytest.raises(CredentialError, match="commits"):
        check_case(codec.encode(forged))


async def test_only_a_reviewer_opens_the_file(theatre: Theatre) -> None:
    """Another key opens nothing, and a flipped bit anywhere in the sealed file is noticed."""
    await theatre.plan()
    node = theatre.node
    receipt = await node.cases.open(
        reviewers=[REVIEWER.box_public], reason="complaint", surgery=theatre.surgery
    )
    sealed = await node.cases.export(receipt.id)
    with pytest.raises(Denied):
        open_sealed_case(sealed, NURSE.box_secret)
    for at in range(1, len(sealed), max(1, len(sealed) // 40)):
        changed = bytearray(sealed)
        changed[at] ^= 1
        with pytest.raises((*REFUSED, Denied)):
            open_sealed_case(bytes(changed), REVIEWER.box_secret)


async def test_late_and_missing_steps_stand_in_the_verdict(theatre: Theatre) -> None:
    """What was left out and what came late is told to the expert as to the ward."""
    await theatre.plan()
    await theatre.node.surgery.event(theatre.surgery, "incision", actor=NURSE.person)
    late = await theatre.node.surgery.event(
        theatre.surgery, "count", occurred_ms=theatre.now - 3_600_000, actor=NURSE.person
    )
    checked = check_case(await exported(theatre))
    assert checked.told is not None
    assert "no time-out was signed" in checked.told.missing
    assert "never closed" in checked.told.missing
    assert [name for name, _ in checked.told.late] == [late.id]


def refused(file: CaseFile) -> bool:
    try:
        check_case(codec.encode(file))
    except REFUSED:
        return True
    return False


# --- forgeries -------------------------------------------------------------------------------


def forgeries(file: CaseFile) -> Iterator[tuple[str, CaseFile]]:
    """Every lie that a forger with the opened file, and keys of his own, may try."""
    for at in range(len(file.entries)):
        rest = file.entries[:at] + file.entries[at + 1 :]
        case = file.case - (at < file.case)
        yield f"entry {at} removed", replace(file, entries=rest, case=case)
        yield f"entry {at} twice", replace(file, entries=(*rest, *file.entries[at : at + 1] * 2))
        hidden = _hidden(file, at)
        if hidden is not None:
            yield f"entry {at} removed and called something else", hidden
        unplaced = replace(file.entries[at], place=None)
        yield (
            f"entry {at} without its block",
            replace(file, entries=_put(file.entries, at, unplaced)),
        )
        yield (
            f"entry {at} of another device",
            replace(
                file,
                entries=_put(file.entries, at, replace(file.entries[at], chain=len(file.chains))),
            ),
        )
    yield "no ledger", replace(file, ledgers=())
    yield "no logs", replace(file, logs=())
    yield "another case", replace(file, case=(file.case + 1) % len(file.entries))
    ledger = file.ledgers[0]
    for at, block in enumerate(ledger.blocks):
        later = replace(block.summary, time=block.summary.time + 3_600_000)
        forged = replace(block, summary=later)
        blocks = _put(ledger.blocks, at, forged)
        yield f"block {at} an hour later", replace(file, ledgers=(replace(ledger, blocks=blocks),))
        lone = replace(block, certificate=replace(block.certificate, signatures=(bytes(64),)))
        blocks = _put(ledger.blocks, at, lone)
        yield f"block {at} uncertified", replace(file, ledgers=(replace(ledger, blocks=blocks),))
    for log in file.logs:
        if log.skipped:
            fewer = CaseLog(author=log.author, incarnation=log.incarnation, skipped=log.skipped[1:])
            yield "a skipped entry left out", replace(file, logs=(fewer,))
            last = (*log.skipped[:-1], (log.skipped[-1][0], bytes(32)))
            yield "a skipped entry's id changed", replace(file, logs=(replace(log, skipped=last),))


def _put(items: tuple[Any, ...], at: int, item: Any) -> tuple[Any, ...]:
    return (*items[:at], item, *items[at + 1 :])


def _hidden(file: CaseFile, at: int) -> CaseFile | None:
    """An entry taken out, its place in the log filled with its id, unused blocks dropped."""
    from p2pmed.identity.manifest import open_manifest
    from p2pmed.ledger.transaction import open_entry

    _, network = open_manifest(file.manifest)
    entry = open_entry(file.entries[at].raw, network=network)
    logs = []
    for log in file.logs:
        if (log.author, log.incarnation) == tuple(entry.lane) and entry.kind.startswith("surgery"):
            skipped = tuple(sorted((*log.skipped, (entry.seq, entry.id))))
            logs.append(replace(log, skipped=skipped))
        else:
            logs.append(log)
    entries = list(file.entries[:at] + file.entries[at + 1 :])
    used = sorted({each.place.block for each in entries if each.place})
    ledger = file.ledgers[0]
    blocks = tuple(ledger.blocks[number] for number in used)
    entries = [
        each
        if each.place is None
        else replace(each, place=replace(each.place, block=used.index(each.place.block)))
        for each in entries
    ]
    return replace(
        file,
        case=file.case - (at < file.case),
        entries=tuple(entries),
        logs=tuple(logs),
        ledgers=(replace(ledger, blocks=blocks),),
    )


async def test_every_forgery_is_refused(theatre: Theatre) -> None:
    """Removed, moved, renamed or hidden entries, blocks and logs: none passes, of over fifty."""
    await theatre.operate()
    file = decode_case(await exported(theatre))
    check_case(codec.encode(file))
    tried = 0
    for name, forged in forgeries(file):
        assert refused(forged), name
        tried += 1
    assert tried > 50


async def test_edited_bodies_and_swapped_signers_are_refused(theatre: Theatre) -> None:
    """A time, a step, a signer changed inside an entry: the device's signature breaks; with a
    device's own new signature the block does not know it.
    """
    from p2pmed.ledger.transaction import open_entry, sign_entry

    await theatre.operate()
    raw = await exported(theatre)
    file, node = decode_case(raw), theatre.node
    tried = 0
    for at, each in enumerate(file.entries):
        entry = open_entry(each.raw, network=node.network)
        body: Any = node.body(entry)
        for changed in _edits(body):
            envelope = replace(entry.envelope, body=codec.plain(changed))
            seed, author = node.keys.signing_seed, node.key
            again = sign_entry(envelope, seed=seed, author=author, network=node.network)
            mixed = again.raw[:-64] + entry.raw[-64:]
            for forged in (again.raw, mixed):
                swapped = replace(each, raw=forged)
                with pytest.raises(REFUSED):
                    check_case(codec.encode(replace(file, entries=_put(file.entries, at, swapped))))
                tried += 1
    assert tried >= 12


def _edits(body: Any) -> Iterator[Any]:
    if isinstance(body, SurgeryEvent):
        yield replace(body, occurred=body.occurred - 600_000)
        yield replace(body, step="other")
    if isinstance(body, SurgeryChecklist):
        first = body.signers[0]
        other = NURSE if first.word.signer == SURGEON.person else SURGEON
        stranger = replace(first.word, signer=other.person)
        yield replace(body, signers=(replace(first, word=stranger), *body.signers[1:]))
        yield replace(body, signers=tuple(reversed(body.signers)))


async def test_any_byte_of_the_file_matters(theatre: Theatre) -> None:
    """A byte flipped anywhere in the opened file is a refusal."""
    await theatre.operate()
    raw = await exported(theatre)
    step = max(1, len(raw) // 60)
    for at in range(0, len(raw), step):
        changed = bytearray(raw)
        changed[at] ^= 1
        with pytest.raises(REFUSED):
            check_case(bytes(changed), network=theatre.node.network)


async def test_a_qualification_left_out_is_missed(theatre: Theatre) -> None:
    """Also when the opening itself did not name it: the ledger found its holder qualified."""
    await theatre.operate()
    named: Callable[..., Any] = theatre.node.cases._qualifying

    async def fewer(people: Any) -> Any:
        return list(await named(people))[1:]

    theatre.node.cases._qualifying = fewer  # type: ignore[method-assign]
    with pytest.raises(CredentialError, match="qualified"):
        await exported(theatre)
