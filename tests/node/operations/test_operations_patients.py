"""Patients as people meet them: registered, found, read, shared, and no longer shared."""

from __future__ import annotations

from typing import Any

import pytest

from p2pmed.errors import ConfigError, Denied, InvalidTransaction
from p2pmed.medical.consent import AccessGrant
from p2pmed.node.events import Draft

VISIT = """{"resourceType": "Encounter", "status": "finished", "class": {"code": "AMB"},
"type": [{"text": "Fever"}], "period": {"start": "2026-03-01"}}"""
LAB = """{"resourceType": "Observation", "status": "final",
"category": [{"coding": [{"code": "laboratory"}]}], "code": {"text": "Haemoglobin"},
"effectiveDateTime": "2026-01-05", "valueQuantity": {"value": 11.5, "unit": "g/dL"}}"""


async def _wang(ask: Any, node: Any, **more: Any) -> str:
    answer = await ask(
        node, "patient.register", family="Wang", given=["Mei"], birth_date="1985-03-12", **more
    )
    assert answer["verdict"] == "applied"
    return str(answer["patient"])


async def test_a_patient_is_registered_listed_and_read(opened: Any, ask: Any) -> None:
    """Name and birth date come back; the timeline goes by the date on which things happened."""
    node = await opened()
    patient = await _wang(ask, node)
    listed = (await ask(node, "patient.list"))["patients"]
    assert [(row["patient"], row["name"], row["birth_date"]) for row in listed] == [
        (patient, "Mei Wang", "1985-03-12")
    ]
    assert (await ask(node, "patient.add", patient=patient[:6], fhir=VISIT))["level"] == "stored"
    await ask(node, "patient.add", patient=patient, fhir=LAB)
    read = await ask(node, "patient.timeline", patient=patient)
    rows = [(row["date"][:10], row["type"], row["text"]) for row in read["records"][:2]]
    assert rows == [
        ("2026-01-05", "Observation", "Haemoglobin: 11.5 g/dL"),
        ("2026-03-01", "Encounter", "Fever"),
    ]
    assert (read["of"], read["closed"]) == (3, 0)
    only = await ask(node, "patient.timeline", patient=patient, type="Encounter", limit=5)
    assert [row["type"] for row in only["records"]] == ["Encounter"]


async def test_as_of_shows_what_was_recorded_up_to_then(opened: Any, ask: Any) -> None:
    """A day before the registration nothing is known; that very day, all of it."""
    node = await opened()
    patient = await _wang(ask, node)
    assert not (await ask(node, "patient.timeline", patient=patient, as_of="2001-01-01"))["of"]
    assert (await ask(node, "patient.timeline", patient=patient, as_of="2999-01-01"))["of"] == 1


async def test_a_grant_opens_and_its_end_closes_what_comes_after(
    opened: Any, ask: Any, carry: Any
) -> None:
    """Before the grant nothing, with it the chosen category, after its end nothing new."""
    clinic, county = await opened("Mu clinic"), await opened("County hospital", "hospital")
    await carry(clinic, county)
    patient = await _wang(ask, clinic)
    await ask(clinic, "patient.add", patient=patient, fhir=VISIT)
    await ask(clinic, "patient.add", patient=patient, fhir=LAB)
    await carry(clinic, county)
    closed = await ask(county, "patient.timeline", patient=patient)
    assert (closed["closed"], {row["type"] for row in closed["records"]}) == (3, {"closed"})
    assert not (await ask(county, "patient.list"))["patients"][0]["readable"]
    granted = await ask(
        clinic,
        "patient.grant",
        patient=patient,
        reader="county hospital",
        categories=["laboratory"],
    )
    await carry(clinic, county)
    read = await ask(county, "patient.timeline", patient=patient)
    assert sorted(row["text"] for row in read["records"]) == ["", "", "Haemoglobin: 11.5 g/dL"]
    # A wider grant counts at once, though keys of the patient are open already.
    wider = await ask(clinic, "patient.grant", patient=patient, reader="County hospital")
    await carry(clinic, county)
    assert not (await ask(county, "patient.timeline", patient=patient))["closed"]
    names = [r["name"] for r in (await ask(clinic, "patient.readers", patient=patient))["readers"]]
    assert sorted(names) == ["County hospital", "County hospital", "Mu clinic"]
    for grant in (granted, wider):
        await ask(clinic, "patient.revoke", patient=patient, grant=grant["grant"][:10])
    await ask(clinic, "patient.add", patient=patient, fhir=VISIT)
    await carry(clinic, county)
    after = await ask(county, "patient.timeline", patient=patient)
    assert (after["of"], after["closed"]) == (4, 4)  # at once, whatever keys it still holds
    assert not (await ask(clinic, "patient.timeline", patient=patient))["closed"]


async def test_a_grant_that_does_not_open_takes_nothing_away(
    opened: Any, ask: Any, carry: Any
) -> None:
    """Anybody may write a grant to us; a broken one must not lock us out of a good one."""
    clinic, county = await opened("Mu clinic"), await opened("County hospital", "hospital")
    await carry(clinic, county)
    patient = await _wang(ask, clinic, readers=["County hospital"])
    rubbish = AccessGrant(
        grantee_key=county.keys.box_public,
        purpose="TREAT",
        epoch=0,
        since=0,
        until=0,
        wrapped=b"\x01" + bytes(80),
        told=b"",
        under=b"",
        proof=b"",
    )
    await clinic.submit_drafts([Draft(body=rubbish, subject=bytes.fromhex(patient))])
    await carry(clinic, county)
    assert not (await ask(county, "patient.timeline", patient=patient))["closed"]
    fresh = await _wang(ask, clinic)
    await carry(clinic, county)
    with pytest.raises(Denied):
        county.patients.ring(bytes.fromhex(fresh))


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("patient.register", {}, "needs a name"),
    ("patient.register", {"family": "W", "gender": "x"}, "Demographics.gender"),
    ("patient.register", {"family": "W", "birth_date": "12.3.1985"}, "Demographics.birth_date"),
    ("patient.register", {"fhir": "{"}, "not JSON"),
    ("patient.register", {"fhir": VISIT}, "not a Encounter"),
    ("patient.register", {"family": "W", "readers": ["nobody"]}, "no member is called"),
    ("patient.timeline", {"patient": "ffff"}, "names 0 patients"),
    ("patient.timeline", {"patient": "f"}, "at least 4 digits"),
    ("patient.add", {"patient": "ffff", "fhir": VISIT}, "names 0 patients"),
]


async def test_what_cannot_be_is_one_clear_sentence(opened: Any, ask: Any) -> None:
    """The field or the thing that is missing is named."""
    node = await opened()
    before = node.status()["entries"]
    for operation, values, sentence in WRONG:
        with pytest.raises((ConfigError, InvalidTransaction), match=sentence):
            await ask(node, operation, **values)
    assert node.status()["entries"] == before
