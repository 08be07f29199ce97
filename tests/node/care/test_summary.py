"""Summaries of real nodes: what came in is in them, the same bytes twice, on paper, and signed.

The data is found through ``P2PMED_DATA`` or in ``shared/data`` beside the checkout.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from p2pmed.errors import ConfigError, DecodeError, InvalidTransaction
from p2pmed.medical import (
    AllergyIntolerance,
    Coding,
    Demographics,
    MedicationStatement,
    Observation,
    PatientName,
)
from p2pmed.medical.care.ips_profile import profile_faults
from p2pmed.medical.care.summary_code import (
    CODE_CHARS_MAX,
    CODE_PREFIX,
    document_digest,
    parse_code,
)
from p2pmed.medical.typed import ICD_10, SNOMED_CT, Condition
from p2pmed.node.care.printing import Sheet, print_sheet
from p2pmed.node.node import Node
from p2pmed.node.operations import Arguments, operations
from p2pmed.testing.homes import local_network

DATA = Path(
    os.environ.get("P2PMED_DATA") or Path(__file__).resolve().parents[4] / "shared" / "data"
)
NASTY = '<script>alert(1)</script>&\x07 "quoted" \u202e'


def without_references(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: without_references(v) for k, v in value.items() if k != "reference"}
    return [without_references(v) for v in value] if isinstance(value, list) else value


def resources_in(raw: bytes) -> list[str]:
    """Every resource of a bundle, comparable, its references left aside."""
    entries = json.loads(raw)["entry"]
    return [json.dumps(without_references(e["resource"]), sort_keys=True) for e in entries]


async def registered(node: Node, **more: Any) -> bytes:
    who = Demographics(
        patient=node.patients.new_pseudonym(),
        names=(PatientName(family="王", given=("小明",), text="王小明"),),
        **more,
    )
    return (await node.patients.register(who))[0]


@pytest.mark.skipif(not DATA.is_dir(), reason="no sample documents; set P2PMED_DATA")
async def test_a_summary_made_of_an_imported_one_holds_all_of_it(tmp_path: Path) -> None:
    """HL7's IPS bundles: imported, a summary holds every resource, and IPS finds no fault in it."""
    files = sorted((DATA / "hl7-ips-2.0.0").glob("Bundle-*.json"))
    assert len(files) >= 3
    for path in files:
        assert profile_faults(path.read_bytes()) == [], "HL7's own must pass our checks"
        async with local_network("clinic") as network:
            (node,) = network.nodes
            ask = operations()["fhir.import"]
            await ask(node, Arguments({"paths": [str(path)]}), lambda told: None)
            (patient,) = node.patients.known()
            summary = await node.summaries.assemble(patient)
            assert profile_faults(summary.document) == []
            made = resources_in(summary.document)
            assert [r for r in resources_in(path.read_bytes()) if r not in made] == []
            again = await node.summaries.assemble(patient)
            assert again.document == summary.document


async def test_a_village_record_makes_a_whole_summary() -> None:
    """Typed facts without a birth date: unknown is said, headings filled or empty with a reason."""
    async with local_network("clinic") as network:
        (node,) = network.nodes
        patient = await registered(node)
        await node.submit(Condition(patient=patient, code=Coding("E11", ICD_10, NASTY)))
        await node.submit(
            Condition(patient=patient, code="J06.9", clinical_status="resolved", onset="2019-01-01")
        )
        await node.submit(MedicationStatement(patient=patient, medication="A10BA02"))
        wrong = await node.submit(AllergyIntolerance(patient=patient, substance="91936005"))
        await node.patients.retract(wrong.id, reason="wrong-patient")
        summary = await node.summaries.assemble(patient)
        assert profile_faults(summary.document) == []
        document = json.loads(summary.document)
        listed = document["entry"][0]["resource"]["section"]
        sections = {each["code"]["coding"][0]["code"]: each for each in listed}
        assert sections["48765-2"]["emptyReason"]["coding"][0]["code"] == "unavailable"
        assert len(sections["11450-4"]["entry"]) == len(sections["11348-0"]["entry"]) == 1
        div = sections["11450-4"]["text"]["div"]
        assert "&lt;script&gt;alert(1)&lt;/script&gt;&amp;" in div
        assert "<script" not in div
        assert b"91936005" not in summary.document, "what was retracted is in no summary"


async def test_a_summary_says_what_is_closed_to_its_maker(opened_at: Any, meet: Any) -> None:
    """With a grant of part of a record, empty headings are withheld, not absent; without, none."""
    one, other = await opened_at("one"), await opened_at("other", place="shan/bei")
    third = await opened_at("third", place="shan/nan")
    await meet(one, other, third)
    patient = await registered(one, birth_date="1985-03-12")
    await one.patients.add(MedicationStatement(patient=patient, medication="A10BA02"))
    await one.patients.grant(patient, other.keys.box_public, categories=["demographics"])
    await meet(one, other, third)
    summary = await other.summaries.assemble(patient)
    assert summary.closed == 1
    (section,) = [h for h in summary.headings if h.section.name == "medications"]
    assert section.lines == ()
    assert b'"code":"withheld"' in summary.document
    assert profile_faults(summary.document) == []
    with pytest.raises(InvalidTransaction):
        await third.summaries.assemble(patient)


async def test_many_results_leave_the_newest_of_each_kind() -> None:
    """Of more than a hundred, three of each code stay, the newest, and the rest is counted."""
    async with local_network("clinic") as network:
        (node,) = network.nodes
        patient = await registered(node)
        for number in range(104):
            day = f"20{number // 12:02d}-{number % 12 + 1:02d}-01"
            await node.submit(
                Observation(patient=patient, code="2339-0", value=f"v{number}", effective=day,
                            category="laboratory")
            )  # fmt: skip
        summary = await node.summaries.assemble(patient)
        (results,) = [h for h in summary.headings if h.section.name == "results"]
        assert [line.split(": ")[-1] for line in results.lines] == ["v103", "v102", "v101"]
        assert results.left_out == 101


async def test_the_printed_code_holds_the_least_and_cannot_be_altered(opened_at: Any) -> None:
    """One code of a long life fits; any changed character is refused; it names its signer."""
    node = await opened_at("clinic")
    patient = await registered(node, birth_date="1985-03-12", gender="male")
    for number in range(30):
        name = Coding(f"E{number}", ICD_10, f"第{number}种病 with a very long name " * 2)
        await node.submit(Condition(patient=patient, code=name))
        await node.submit(MedicationStatement(patient=patient, medication=f"A{number}"))
    await node.submit(
        AllergyIntolerance(patient=patient, substance=Coding("91936005", SNOMED_CT, "青霉素"))
    )
    made = await node.summaries.printed(patient)
    assert CODE_CHARS_MAX // 2 < len(made.code) <= CODE_CHARS_MAX
    found = parse_code(made.code + "\r\n")
    assert found.signer == node.key
    assert found.code.network == node.network
    assert (found.code.name, found.code.birth) == ("王小明", "1985-03-12")
    assert found.code.allergies == ("青霉素",)
    assert found.code.left_out >= 61 - 17
    assert found.code.document == document_digest(made.summary.document)
    assert patient.hex() not in repr(found.code.__struct_fields__)
    for place in range(len(CODE_PREFIX), len(made.code), 97):
        other = "0" if made.code[place] != "0" else "1"
        with pytest.raises(DecodeError):
            parse_code(made.code[:place] + other + made.code[place + 1 :])
    for text in ("", CODE_PREFIX, made.code[:-1], CODE_PREFIX + "Z" * CODE_CHARS_MAX):
        with pytest.raises(DecodeError):
            parse_code(text)


SHEET = Sheet(
    person={"name": "王小明", "birth_date": "1985-03-12", "gender": "male"},
    made_ms=1_780_000_000_000,
    maker="clinic A, shan/mu",
    headings=[("Problem List", ["2型糖尿病 type 2 diabetes " * 9] * 120), ("Immunizations", [])],
    notes=["2 records are closed to who made this"],
    code=CODE_PREFIX + "A" * 1_900,
)


def test_a_sheet_is_a_pdf_of_some_pages_the_same_twice(tmp_path: Path) -> None:
    """Deterministic; bounded in pages; looked at by a PDF reader where there is one."""
    pdf = print_sheet(SHEET)
    assert pdf == print_sheet(SHEET)
    assert pdf.startswith(b"%PDF-")
    assert 3 <= pdf.count(b"/Type /Page\n") <= 20
    reader = shutil.which("pdftoppm")
    if reader is not None:
        (tmp_path / "sheet.pdf").write_bytes(pdf)
        command = [reader, "-png", "-r", "50", tmp_path / "sheet.pdf", tmp_path / "page"]
        subprocess.run(command, check=True, timeout=60)
        assert len(list(tmp_path.glob("page*.png"))) == pdf.count(b"/Type /Page\n")


def test_what_is_no_font_is_refused(tmp_path: Path) -> None:
    """A file that cannot be embedded says so, and what can be."""
    (tmp_path / "font.ttf").write_bytes(b"OTTO" + bytes(100))
    for path in (tmp_path / "font.ttf", tmp_path / "none.ttf", tmp_path):
        with pytest.raises(ConfigError):
            print_sheet(SHEET, font=path)
