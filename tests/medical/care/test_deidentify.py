"""What a table does not name does not stay in a copy for teaching."""

from __future__ import annotations

import json
from typing import Any

import pytest

from p2pmed.errors import InvalidTransaction
from p2pmed.medical.care.deidentify import deidentified

NEW = bytes([9] * 16)


def copy(resource: dict[str, Any], shift: int = -10) -> Any:
    raw = deidentified(
        json.dumps(resource).encode(), pseudonym=NEW, shift_days=shift, oldest_year=1937
    )
    return None if raw is None else json.loads(raw)


def test_a_patient_keeps_sex_and_year_of_birth_only() -> None:
    """And not even the year, if it is more than 89 years ago."""
    patient = {
        "resourceType": "Patient",
        "id": "p",
        "name": [{"family": "Wang"}],
        "gender": "female",
        "birthDate": "1990-05-17",
        "address": [{"text": "Mu 7"}],
        "extension": [{"url": "u", "valueString": "Wang"}],
    }
    assert copy(patient) == {"resourceType": "Patient", "gender": "female", "birthDate": "1990"}
    assert copy({**patient, "birthDate": "1930-01-01"}) == {
        "resourceType": "Patient",
        "gender": "female",
    }


def test_free_text_and_names_go_wherever_they_stand() -> None:
    """In a display, a note, a nested text, a performer, an unknown element: nothing is left."""
    hidden = "Wang Xiuying"
    observation = {
        "resourceType": "Observation",
        "status": "final",
        "code": {
            "text": hidden,
            "coding": [{"system": "http://loinc.org", "code": "4548-4", "display": hidden}],
        },
        "subject": {"reference": "Patient/old", "display": hidden},
        "performer": [{"display": hidden}],
        "note": [{"text": hidden}],
        "valueString": hidden,
        "interpretation": [{"text": hidden}],
        "bodySite": {"remark": hidden, "coding": [{"code": "x", "userSelected": True}]},
        "component": [{"code": {"text": hidden}, "valueString": hidden}],
        "madeUp": hidden,
        "valueQuantity": {"value": 7.1, "unit": "%"},
    }
    found = copy(observation)
    assert hidden not in json.dumps(found)
    assert "old" not in json.dumps(found)
    assert found["subject"] == {"reference": f"Patient/{NEW.hex()}"}
    assert found["valueQuantity"] == {"value": 7.1, "unit": "%"}
    assert found["code"]["coding"][0] == {"system": "http://loinc.org", "code": "4548-4"}


def test_dates_move_together_and_lose_their_hour() -> None:
    """Intervals stay true; a day or an hour tells nobody when it was."""
    encounter = {
        "resourceType": "Encounter",
        "status": "finished",
        "period": {"start": "2026-11-18T08:00:00+08:00", "end": "2026-11-20"},
    }
    assert copy(encounter)["period"] == {"start": "2026-11-08", "end": "2026-11-10"}


def test_a_type_that_is_not_in_the_table_does_not_stay() -> None:
    """A document, a practitioner, a made-up type: no copy; what is no resource is refused."""
    for kind in ("DocumentReference", "Practitioner", "Composition", "Wang"):
        assert copy({"resourceType": kind, "status": "x"}) is None
    for raw in (b"[]", b"no", b"\xff"):
        with pytest.raises(InvalidTransaction):
            deidentified(raw, pseudonym=NEW, shift_days=1, oldest_year=1937)
