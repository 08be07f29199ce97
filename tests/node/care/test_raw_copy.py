"""Who could read what, before and after: every row of a stolen home against each party's keys."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from raw_copy import Loot, RawCopy, box_of

from p2pmed.errors import Denied, LocalProtocolError
from p2pmed.identity.persons import PersonKeys
from p2pmed.identity.stretching import CHEAP
from p2pmed.medical import Demographics, PatientName
from p2pmed.medical.consent import current_epoch
from p2pmed.medical.keyring import EVERY_CATEGORY, Category, KeyRing
from p2pmed.medical.privacy.delegation import AccessDelegate
from p2pmed.medical.privacy.emergency import Reason
from p2pmed.node.node import Node
from p2pmed.testing.homes import until

DOCS = Path(__file__).parents[3] / "docs"
PIN = "2468"
Meet = Callable[..., Awaitable[None]]


def lab(text: str) -> bytes:
    """An observation of the category ``laboratory``."""
    return json.dumps(
        {
            "resourceType": "Observation",
            "category": [{"coding": [{"code": "laboratory"}]}],
            "code": {"text": text},
        }
    ).encode()


def person(node: Node, family: str) -> Demographics:
    return Demographics(
        patient=node.patients.new_pseudonym(), names=(PatientName(family=family, given=("A",)),)
    )


@dataclass
class Village:
    """A clinic, its county, and a member that nobody invited."""

    clinic: Node
    county: Node
    stranger: Node
    meet: Meet
    folder: Path
    records: dict[str, bytes] = field(default_factory=dict)

    @property
    def all(self) -> tuple[Node, ...]:
        return (self.clinic, self.county, self.stranger)

    async def write(self, letter: str, patient: bytes) -> None:
        """One more laboratory result, heard of by all."""
        receipt = await self.clinic.patients.add(lab(letter), patient=patient)
        self.records[letter] = receipt.id
        await self.meet(*self.all)

    def copy(self) -> RawCopy:
        """The stranger's whole home, which has heard of everything."""
        return RawCopy.of(self.folder / "stranger", self.stranger.network)

    def letters(self, loot: Loot) -> str:
        return "".join(each for each, name in self.records.items() if loot.opens(name)) or "-"


@pytest.fixture
async def village(opened_at: Any, meet: Meet, tmp_path: Path) -> Village:
    clinic = await opened_at("clinic")
    county = await opened_at("county", "hospital", "shan")
    stranger = await opened_at("stranger", "pharmacy", "shan/li")
    made = Village(clinic, county, stranger, meet, tmp_path)
    await meet(*made.all)
    return made


async def test_the_table_of_who_could_read_what(village: Village) -> None:
    """Grant, revoke, delegate and loss of card: after each, from the bytes alone, the letters of
    the records that each party's own keys open. The page carries the same table.
    """
    clinic, county = village.clinic, village.county
    guardian = await clinic.cards.enrol(person(clinic, "Wang"), cost=CHEAP)
    enrolled = await clinic.cards.enrol(person(clinic, "Li"), pin=PIN, cost=CHEAP)
    patient, lost = enrolled.patient, enrolled.card
    family = enrolled.family
    assert family is not None
    await village.meet(*village.all)
    guard = await clinic.cards.open(guardian.card.text)
    newest = [(lost.text, PIN)]
    staff = [PersonKeys.generate(clinic.world.entropy) for _ in range(3)]
    two = [person.box_secret for person in staff[:2]]
    kept = KeyRing(patient)
    table: dict[str, list[str]] = {}

    def look(event: str) -> None:
        copy = village.copy()
        parties = [
            copy.plunder(cards=[(lost.text, PIN)]),
            copy.plunder(cards=newest),
            copy.plunder([box_of(clinic)]),
            copy.plunder([box_of(county)]),
            copy.plunder(cards=[(guardian.card.text, "")]),
            copy.plunder(cards=[(family.text, "")]),
            copy.plunder([box_of(village.stranger)]),
            copy.plunder(cards=[(lost.text, "1111")]),
            copy.plunder(two),
            copy.plunder(two[:1]),
            copy.plunder(rings=[kept]),
        ]
        table[event] = [village.letters(loot) for loot in parties]

    await village.write("A", patient)
    look("registered")
    grant = await clinic.consent.grant(
        patient, county.keys.box_public, categories=[Category.LABORATORY]
    )
    await village.write("B", patient)
    look("granted to the county")
    await clinic.consent.revoke(patient, grant.id)
    await village.write("C", patient)
    look("revoked")
    async with clinic.cards.present(lost.text, pin=PIN) as hand:
        await clinic.consent.delegate(
            patient, guard.secrets.patient_key, guard.secrets.sign_key, by=hand
        )
    await village.write("D", patient)
    look("delegated to the guardian")
    await clinic.consent.rotate(patient)
    await village.write("E", patient)
    look("keys rotated")

    await clinic.emergency.publish({each.person: each.box_public for each in staff})
    await clinic.emergency.admit(patient)
    await village.write("F", patient)
    look("emergency key made")
    opened = await clinic.emergency.open(patient, staff[:2], reason=Reason.UNCONSCIOUS)
    kept = clinic.opener.ring(patient).only([Category.LABORATORY])
    await clinic.emergency.close(opened.opening)
    await village.write("G", patient)
    look("glass broken and mended")
    assert current_epoch(clinic.state(), patient) > kept.epoch

    request = await clinic.cards.custodians.request(patient)
    await village.meet(*village.all)
    nurse, doctor = (PersonKeys.generate(clinic.world.entropy) for _ in range(2))
    await clinic.cards.custodians.release(patient, request.id, nurse)
    with pytest.raises(Denied):
        await clinic.cards.reissue(patient, request.id, pin="1357", cost=CHEAP)
    await county.cards.custodians.release(patient, request.id, doctor)
    await village.meet(*village.all)
    card = await clinic.cards.reissue(patient, request.id, pin="1357", cost=CHEAP)
    newest = [(card.text, "1357")]
    await village.write("H", patient)
    look("card lost and made again")

    assert table == page_table()
    with pytest.raises(Denied):
        await clinic.cards.open(lost.text, pin=PIN)
    hand = await county.cards.open(card.text, pin="1357")
    assert hand.secrets.generation == 1


def page_table() -> dict[str, list[str]]:
    """The table on the page that patients' advocates read."""
    text = (DOCS / "explanation" / "patient-control.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    start = next(n for n, row in enumerate(rows) if row.startswith("| after "))
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[start + 1 :]]
    return {row[0]: row[1:] for row in cells if len(row) == 12}


async def test_two_custodians_together_read_and_one_alone_does_not(village: Village) -> None:
    """Any two of clinic, county and family card give the patient's key; each alone nothing."""
    clinic, county = village.clinic, village.county
    # A patient whom the county's own clerk registers: the clinic is no reader, only the third.
    enrolled = await county.cards.enrol(
        person(county, "Zhao"), guardian=village.stranger.keys.box_public, cost=CHEAP
    )
    entry = county.find(enrolled.receipt.id)
    assert entry is not None
    holding = county.body(entry).holding  # type: ignore[union-attr]
    assert [share.key for share in holding.shares] == [
        county.keys.box_public,
        village.stranger.keys.box_public,
    ]
    second = await clinic.cards.enrol(person(clinic, "Sun"), cost=CHEAP)
    assert second.family is not None
    await village.meet(*village.all)
    await village.write("A", second.patient)
    copy = village.copy()
    family = [(second.family.text, "")]
    assert village.letters(copy.plunder([box_of(county)])) == "-"
    assert village.letters(copy.plunder(cards=family)) == "-"
    assert village.letters(copy.plunder([box_of(county)], cards=family)) == "A"


async def test_staff_that_left_get_no_new_epoch(opened_at: Any, meet: Meet, tmp_path: Path) -> None:
    """A facility's key opens on each device of its staff; one that is left out of a renewal, and
    whose patients' keys turned, opens nothing written afterwards; one that joins opens all.
    """
    desk, nurse = await opened_at("desk"), await opened_at("nurse")
    other = await opened_at("other", "clinic", "shan/li")
    await meet(desk, nurse, other)
    await desk.consent.facility.publish([desk.key, nurse.key])
    await meet(desk, nurse, other)
    with pytest.raises(LocalProtocolError):
        await other.consent.facility.publish([nurse.key])
    patient, _ = await desk.patients.register(person(desk, "Wang"))
    first = await desk.patients.add(lab("A"), patient=patient)
    await meet(desk, nurse, other)
    assert [item.resource is not None for item in await nurse.patients.timeline(patient)] == [
        True,
        True,
    ]
    hidden = b'{"resourceType":"Condition","meta":{"security":[{"code":"HIV"}]}}'
    closed = await desk.patients.add(hidden, patient=patient)
    assert desk.consent.facility.due() == []
    late = await opened_at("late")
    await meet(desk, nurse, late, other)
    await desk.consent.facility.publish([desk.key, late.key])
    assert desk.consent.facility.due() == [patient]
    await desk.consent.rotate(patient, reason="staff-left")
    assert desk.consent.facility.due() == []
    second = await desk.patients.add(lab("B"), patient=patient)
    await meet(desk, nurse, late, other)
    copy = RawCopy.of(tmp_path / "other", other.network)
    old, new = (copy.plunder([box_of(node)]) for node in (nurse, late))
    assert (old.opens(first.id), old.opens(second.id), old.opens(closed.id)) == (True, False, False)
    assert (new.opens(first.id), new.opens(second.id), new.opens(closed.id)) == (True, True, False)
    assert not copy.plunder([box_of(other)]).records


async def test_a_passphrase_closes_a_category_to_grantees_too(village: Village) -> None:
    """Without the words even who holds the grant and every byte reads nothing new of it; a later
    epoch, made while the patient is away, is closed by the same words.
    """
    clinic, county = village.clinic, village.county
    patient, _ = await clinic.patients.register(person(clinic, "Wang"))
    await clinic.consent.grant(patient, county.keys.box_public)
    await village.write("A", patient)
    words = "the crane's nest"
    await clinic.consent.passphrases.set(patient, Category.LABORATORY, words, cost=CHEAP)
    await village.write("B", patient)
    clinic.opener.forget()
    with pytest.raises(Denied):
        await clinic.patients.add(lab("C"), patient=patient)
    await clinic.consent.rotate(patient)
    with pytest.raises(Denied):
        await clinic.consent.passphrases.open(patient, Category.LABORATORY, "the heron's nest")
    await clinic.consent.passphrases.open(patient, Category.LABORATORY, words)
    await village.write("C", patient)
    copy = village.copy()
    for node in (clinic, county):
        assert village.letters(copy.plunder([box_of(node)])) == "A"
        with_words = copy.plunder([box_of(node)], passphrases=[words])
        assert village.letters(with_words) == "ABC"
    assert [item.resource is None for item in await county.patients.timeline(patient)] == [
        False,
        False,
        True,
        True,
    ]
    await county.consent.passphrases.open(patient, Category.LABORATORY, words)
    assert all(item.resource for item in await county.patients.timeline(patient))


async def test_a_delegate_grants_and_the_grant_ends_with_the_delegation(village: Village) -> None:
    """A guardian grants in the child's name, one link deep and no deeper; when the delegation is
    revoked, what was given under it is over at once on every node that heard.
    """
    clinic, county = village.clinic, village.county
    guardian = await clinic.cards.enrol(person(clinic, "Wang"), cost=CHEAP)
    child = await clinic.cards.enrol(person(clinic, "Wang"), cost=CHEAP)
    await village.write("A", child.patient)
    guard = await clinic.cards.open(guardian.card.text)
    async with clinic.cards.present(child.card.text) as hand:
        link = await clinic.consent.delegate(
            child.patient, guard.secrets.patient_key, guard.secrets.sign_key, by=hand
        )
    acting = guard.standing_in(child.patient, link.id)
    grant = await clinic.consent.grant(
        child.patient, county.keys.box_public, categories=[Category.LABORATORY], by=acting
    )
    assert [
        each.proven for each in clinic.consent.readers(child.patient) if each.grant == grant.id
    ] == [True]
    await village.meet(*village.all)
    timeline = await county.patients.timeline(child.patient)
    assert [item.kind for item in timeline] == ["", "Observation"]
    # The guardian may not hand the right on, nor may the clinic make itself a guardian.
    before = {each.grant for each in clinic.consent.readers(child.patient)}
    await clinic.consent.delegate(child.patient, county.keys.box_public, county.key, by=acting)
    forged = guard.standing_in(child.patient, b"")
    await clinic.consent.delegate(child.patient, county.keys.box_public, county.key, by=forged)
    assert {each.grant for each in clinic.consent.readers(child.patient)} == before
    assert isinstance(clinic.body(clinic.find(link.id)), AccessDelegate)  # type: ignore[arg-type]
    await clinic.consent.revoke(child.patient, link.id)
    await village.meet(*village.all)
    assert [item.kind for item in await county.patients.timeline(child.patient)] == ["", ""]
    await village.write("B", child.patient)
    copy = village.copy()
    assert village.letters(copy.plunder([box_of(county)])) == "A"
    assert village.letters(copy.plunder(cards=[(guardian.card.text, "")])) == "A"
    assert village.letters(copy.plunder(cards=[(child.card.text, "")])) == "AB"


async def test_survivors_of_a_revocation_get_their_own_categories_and_no_more(
    village: Village,
) -> None:
    """Who had a leave for the laboratory has it after another's end, and nothing besides."""
    clinic, county, third = village.all
    patient, _ = await clinic.patients.register(person(clinic, "Wang"))
    await clinic.consent.grant(patient, county.keys.box_public, categories=[Category.LABORATORY])
    other = await clinic.consent.grant(patient, third.keys.box_public)
    await clinic.consent.revoke(patient, other.id)
    await village.write("A", patient)
    visit = await clinic.patients.add(b'{"resourceType":"Encounter"}', patient=patient)
    await village.meet(*village.all)
    loot = village.copy().plunder([box_of(county)])
    assert village.letters(loot) == "A"
    assert not loot.opens(visit.id)
    assert {key.category for key in loot.rings[patient]} == {Category.LABORATORY}


async def test_late_records_are_sealed_again_for_those_who_may_read(
    opened_at: Any, meet: Meet, tmp_path: Path
) -> None:
    """A clinic that had not heard of a revocation writes under the old key; on contact the record
    is sealed again with the same commitment, opens to a reader of the new epoch only, and the old
    ciphertext stays as it was written.
    """
    home, branch = await opened_at("home"), await opened_at("branch", "clinic", "shan/li")
    county = await opened_at("county", "hospital", "shan")
    await meet(home, branch, county)
    patient, _ = await home.patients.register(
        person(home, "Wang"), readers=[branch.keys.box_public]
    )
    gone = await home.consent.grant(patient, county.keys.box_public)
    await meet(home, branch, county)
    await home.consent.revoke(patient, gone.id)
    late = await branch.patients.add(lab("late"), patient=patient)  # has not heard
    await meet(home, branch, county)
    new = await opened_at("new", "clinic", "shan/xi")
    await meet(home, branch, county, new)
    assert [entry.id for entry in home.consent.resealing.due(patient)] == [late.id]
    keeping = asyncio.create_task(home.consent.resealing.keep(pause_s=0))
    await home.patients.add(lab("news"), patient=patient)
    await until(lambda: not home.consent.resealing.due(patient), "sealed again on contact")
    keeping.cancel()
    assert await home.consent.resealing.run_all() == 0
    assert home.consent.resealing.due(patient) == []
    await meet(home, branch, county, new)
    assert branch.consent.resealing.due(patient) == []
    await home.consent.grant(patient, new.keys.box_public, since_epoch=1)
    await meet(home, branch, county, new)
    entry = new.find(late.id)
    assert entry is not None
    opened = await new.patients.opened(entry)
    assert opened is not None
    assert opened[1] == lab("late")
    copy = RawCopy.of(tmp_path / "county", county.network)
    assert copy.plunder([box_of(new)]).opens(late.id)
    # Said on the page: the old ciphertext opens to who kept the old key.
    assert copy.plunder([box_of(county)]).opens(late.id)
    with pytest.raises(Denied):
        county.opener.read(entry)


async def test_everything_is_closed_without_keys(village: Village) -> None:
    """A full copy and nobody's keys: nothing at all."""
    enrolled = await village.clinic.cards.enrol(person(village.clinic, "Li"), cost=CHEAP)
    await village.write("A", enrolled.patient)
    loot = village.copy().plunder([bytes(31) + b"\x01"])
    assert not loot.records
    assert not loot.masters
    assert len(EVERY_CATEGORY) == 12
