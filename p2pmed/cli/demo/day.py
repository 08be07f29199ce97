"""A village day, made up: FHIR R4 bundles of patients who come to a clinic, written to files.

The same count gives the same people; no real person is meant.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any, Final

__all__ = ["write_day"]

FAMILIES: Final = ("王", "李", "Sai", "Aung", "Nang", "陈", "Lway", "Khun", "赵", "Naw")
GIVEN: Final = ("明", "芳", "Kham", "Hseng", "丽", "Mo", "强", "Leng", "Paw", "伟")
REASONS: Final = (
    ("R50.9", "Fever, unspecified"),
    ("J06.9", "Acute upper respiratory infection"),
    ("A09", "Gastroenteritis"),
    ("I10", "Essential hypertension"),
    ("E11.9", "Type 2 diabetes mellitus"),
    ("B54", "Unspecified malaria"),
)
DRUGS: Final = ("Paracetamol 500 mg", "Amoxicillin 250 mg", "Artemether 20 mg", "Amlodipine 5 mg")
SEED: Final = 1_120


def write_day(folder: Path, patients: int) -> list[Path]:
    """Write one bundle per patient; their files."""
    dice = random.Random(SEED)  # noqa: S311 (a story, no secret)
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for number in range(patients):
        path = folder / f"patient-{number:03}.json"
        bundle = _bundle(dice, number)
        path.write_text(json.dumps(bundle, ensure_ascii=False, indent=1), encoding="utf-8")
        files.append(path)
    return files


def _bundle(dice: random.Random, number: int) -> dict[str, Any]:
    who = f"urn:uuid:{number:08x}-0000-4000-8000-{dice.getrandbits(48):012x}"
    entries = [_entry(who, _patient(dice, who))]
    for visit in range(dice.randint(1, 3)):
        entries += _visit(dice, who, number * 10 + visit)
    return {"resourceType": "Bundle", "type": "transaction", "entry": entries}


def _entry(url: str, resource: dict[str, Any]) -> dict[str, Any]:
    request = {"method": "POST", "url": resource["resourceType"]}
    return {"fullUrl": url, "resource": resource, "request": request}


def _patient(dice: random.Random, who: str) -> dict[str, Any]:
    year, month, day = dice.randint(1940, 2024), dice.randint(1, 12), dice.randint(1, 28)
    return {
        "resourceType": "Patient",
        "id": who.removeprefix("urn:uuid:"),
        "name": [{"family": dice.choice(FAMILIES), "given": [dice.choice(GIVEN)]}],
        "gender": dice.choice(("female", "male")),
        "birthDate": f"{year}-{month:02}-{day:02}",
    }


def _visit(dice: random.Random, who: str, number: int) -> list[dict[str, Any]]:
    code, text = dice.choice(REASONS)
    when = f"2026-11-{dice.randint(1, 19):02}T{dice.randint(8, 16):02}:{dice.randint(0, 59):02}:00Z"
    url = f"urn:uuid:{number:08x}-1111-4000-8000-{dice.getrandbits(48):012x}"
    about = {"subject": {"reference": who}, "encounter": {"reference": url}}
    coded = {
        "coding": [{"system": "http://hl7.org/fhir/sid/icd-10", "code": code, "display": text}]
    }
    encounter = {
        "resourceType": "Encounter",
        "status": "finished",
        "class": {"code": "AMB"},
        "subject": {"reference": who},
        "period": {"start": when, "end": when},
        "reasonCode": [coded],
    }
    temperature = {
        "resourceType": "Observation",
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "8310-5"}]},
        **about,
        "effectiveDateTime": when,
        "valueQuantity": {"value": 36 + dice.randint(0, 40) / 10, "unit": "Cel"},
    }
    condition = {
        "resourceType": "Condition",
        "clinicalStatus": {"coding": [{"code": "active"}]},
        "code": coded,
        **about,
        "onsetDateTime": when,
    }
    drug = {
        "resourceType": "MedicationRequest",
        "status": "active",
        "intent": "order",
        "medicationCodeableConcept": {"text": dice.choice(DRUGS)},
        **about,
        "authoredOn": when,
    }
    resources: list[dict[str, Any]] = [encounter, temperature, condition, drug]
    urls = [url] + [
        f"urn:uuid:{dice.getrandbits(32):08x}-2222-4000-8000-0000000000{i:02}" for i in (1, 2, 3)
    ]
    return [_entry(place, resource) for place, resource in zip(urls, resources, strict=True)]
