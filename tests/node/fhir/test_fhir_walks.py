"""Import and export on a real node: what goes in comes out, once, whatever happens between."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import os
import random
from pathlib import Path
from typing import Any

import pytest

from p2pmed.errors import ConfigError, Denied, StorageError
from p2pmed.medical.fhir import canonical_json
from p2pmed.node.fhir import importing
from p2pmed.node.fhir.documents import read_document
from p2pmed.node.node import open_node

PASSPHRASE = "for these tests only"


def _same(inbox: Path, outbox: Path) -> None:
    """Every file of the inbox is in the outbox, byte for byte."""
    names = sorted(p.relative_to(inbox) for p in inbox.rglob("*") if p.is_file())
    assert names == sorted(p.relative_to(outbox) for p in outbox.rglob("*") if p.is_file())
    for name in names:
        assert (outbox / name).read_bytes() == (inbox / name).read_bytes()


async def _export(ask: Any, node: Any, folder: Path) -> dict[str, Any]:
    answer: dict[str, Any] = await ask(node, "fhir.export", folder=str(folder))
    return answer


async def test_files_come_back_as_they_came(
    ask: Any, node: Any, inbox: Path, put: Any, life: Any, tmp_path: Path
) -> None:
    """Folders, names, single resources and directories: the same bytes; the counts are true."""
    put("north/wang.json", life("wang"))
    put("north/li.json", life("li", 300))
    put("hospitals.json", {"resourceType": "Bundle", "type": "batch", "entry": [
        {"fullUrl": "urn:uuid:h", "resource": {"resourceType": "Organization", "name": "H"}},
        {"fullUrl": "urn:uuid:none"},
    ]})  # fmt: skip
    put("empty.json", {"resourceType": "Bundle", "type": "batch"})
    put("one.json", {"resourceType": "Medication", "id": "m"})
    heard: list[dict[str, Any]] = []
    answer = await ask(node, "fhir.import", paths=[str(inbox)], report=heard.append)
    assert (answer["files"], answer["patients"], answer["resources"]) == (5, 2, 307)
    assert (answer["skipped"], answer["resumed"], answer["refused"]) == (0, 0, [])
    # Beside the resources: a skeleton and a file record each, and the directory's registration.
    assert answer["records"] == 307 + 2 * 5 + 1 == node.status()["entries"] - 1
    assert answer["bytes_in"] == sum(p.stat().st_size for p in inbox.rglob("*.json"))
    assert heard[-1]["done"] == heard[-1]["of"] == 5
    assert heard[-1]["resources"] == 307
    out = await _export(ask, node, tmp_path / "out")
    assert (out["files"], out["patients"], out["resources"]) == (5, 2, 307)
    assert (out["left_out"], out["unreadable"]) == ([], {"patients": 0, "records": 0})
    _same(inbox, tmp_path / "out")
    names = {row["name"] for row in (await ask(node, "patient.list"))["patients"]}
    assert names == {"wang", "li"}


async def test_importing_again_adds_nothing(
    ask: Any, node: Any, inbox: Path, put: Any, life: Any
) -> None:
    """The same contents, whatever the file is called now, and after the node was closed too."""
    put("a.json", life("wang"))
    await ask(node, "fhir.import", paths=[str(inbox)])
    entries = node.status()["entries"]
    put("b.json", life("wang"))
    again = await ask(node, "fhir.import", paths=[str(inbox)])
    assert (again["skipped"], again["files"], again["records"]) == (2, 0, 0)
    assert node.status()["entries"] == entries


async def test_a_newer_file_of_a_known_person_goes_to_the_same_pseudonym(
    ask: Any, node: Any, inbox: Path, put: Any, life: Any, tmp_path: Path
) -> None:
    """No second registration; both files come back."""
    put("a.json", life("wang", 1))
    put("b.json", life("wang", 2))
    answer = await ask(node, "fhir.import", paths=[str(inbox)])
    assert (answer["files"], answer["patients"], answer["resources"]) == (2, 1, 5)
    listed = (await ask(node, "patient.list"))["patients"]
    assert len(listed) == 1
    assert (await ask(node, "patient.timeline", patient=listed[0]["patient"]))["of"] == 5
    await _export(ask, node, tmp_path / "out")
    _same(inbox, tmp_path / "out")


async def test_resources_wait_for_their_patient_or_are_refused(
    ask: Any, node: Any, inbox: Path, put: Any, life: Any
) -> None:
    """A file that comes before its patient's is taken in after it; one without is refused."""
    seen = {"resourceType": "Observation", "status": "final", "code": {"text": "seen"}}
    put("1.json", {**seen, "subject": {"reference": "Patient/wang"}})
    put("2.json", {**seen, "subject": {"reference": "Patient/nobody"}})
    put("3.json", life("wang", 0))
    answer = await ask(node, "fhir.import", paths=[str(inbox)])
    assert answer["files"] == 2
    (refused,) = answer["refused"]
    assert refused["file"] == "2.json"
    assert "not known here" in refused["why"]
    assert "nobody" not in refused["why"]
    patient = (await ask(node, "patient.list"))["patients"][0]["patient"]
    rows = (await ask(node, "patient.timeline", patient=patient))["records"]
    assert {row["text"] for row in rows} == {"wang", "seen"}
    # Two people of one name, and the name says nothing any more.
    other = life("wang", 0)
    other["entry"][0]["resource"]["identifier"][0]["value"] = "another"
    put("4.json", other)
    put("5.json", {**seen, "id": "5", "subject": {"reference": "Patient/wang"}})
    answer = await ask(node, "fhir.import", paths=[str(inbox)])
    assert [row["file"] for row in answer["refused"]] == ["2.json", "5.json"]
    assert "several patients" in answer["refused"][1]["why"]


async def test_records_by_reference_to_a_pseudonym_find_their_patient(
    ask: Any, node: Any, put: Any
) -> None:
    """What this library's own types write about a patient can come in as a file."""
    patient = (await ask(node, "patient.register", family="Wang"))["patient"]
    reference = {"reference": f"Patient/{patient}"}
    visit = {"resourceType": "Encounter", "status": "finished", "subject": reference}
    answer = await ask(node, "fhir.import", paths=[str(put("v.json", visit))])
    assert (answer["files"], answer["patients"]) == (1, 0)
    assert (await ask(node, "patient.timeline", patient=patient))["of"] == 2


async def test_a_bundle_of_two_patients_is_shared_out_by_reference(
    ask: Any, node: Any, inbox: Path, put: Any, life: Any, tmp_path: Path
) -> None:
    """Each has its own, the nurse is nobody's, and the file comes back whole."""
    both = life("wang", 2)
    both["entry"] += life("li", 1)["entry"]
    both["entry"].append({"resource": {"resourceType": "Practitioner", "name": [{"text": "N"}]}})
    put("both.json", both)
    await ask(node, "fhir.import", paths=[str(inbox)])
    listed = {r["name"]: r["patient"] for r in (await ask(node, "patient.list"))["patients"]}
    counts = [
        (await ask(node, "patient.timeline", patient=listed[name]))["of"] for name in ("wang", "li")
    ]
    assert counts == [3, 2]
    await _export(ask, node, tmp_path / "out")
    _same(inbox, tmp_path / "out")


async def test_a_resource_of_many_parts_comes_back(
    ask: Any, node: Any, inbox: Path, put: Any, life: Any, tmp_path: Path
) -> None:
    """Six megabytes that do not deflate: more parts than one submission takes beside it."""
    noise = base64.b64encode(random.Random(1).randbytes(6_000_000)).decode()
    small = base64.b64encode(random.Random(2).randbytes(90_000)).decode()
    bundle = life("wang", 2, padding=small)
    bundle["entry"].insert(1, {"resource": {"resourceType": "Binary", "data": noise}})
    bundle["entry"][0]["resource"]["photo"] = [{"data": small}]
    put("scan.json", bundle)
    answer = await ask(node, "fhir.import", paths=[str(inbox)])
    assert (answer["refused"], answer["resources"]) == ([], 4)
    await _export(ask, node, tmp_path / "out")
    _same(inbox, tmp_path / "out")


async def test_an_import_that_is_cut_short_goes_on_without_doubles(
    ask: Any, node: Any, inbox: Path, put: Any, life: Any, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Cancelled after each possible submission in turn: in the end, every resource once."""
    monkeypatch.setattr(importing, "BATCH_MAX", 4)
    put("a.json", life("wang", 9))
    put("b.json", life("li", 2))
    submit = node.submit_drafts
    resumed = 0
    for allowed in range(1, 9):
        left = allowed

        async def some(*args: Any, **more: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise StorageError("the power is gone")
            return await submit(*args, **more)

        monkeypatch.setattr(node, "submit_drafts", some)
        try:
            answer = await ask(node, "fhir.import", paths=[str(inbox)])
        except StorageError:
            continue
        resumed += answer["resumed"]
        break
    monkeypatch.setattr(node, "submit_drafts", submit)
    again = await ask(node, "fhir.import", paths=[str(inbox)])
    assert again["skipped"] == 2
    assert resumed == 1
    people = (await ask(node, "patient.list"))["patients"]
    counts = [(await ask(node, "patient.timeline", patient=row["patient"]))["of"] for row in people]
    assert sorted(counts) == [3, 10]
    await _export(ask, node, tmp_path / "out")
    _same(inbox, tmp_path / "out")


async def test_export_says_what_it_could_not_open(
    ask: Any, home: Path, inbox: Path, put: Any, life: Any, tmp_path: Path
) -> None:
    """A reader of one category gets its records in a collection; the file is named, left out."""
    lab = {"resourceType": "Observation", "code": {"text": "Hb"}, "category": [
        {"coding": [{"code": "laboratory"}]}]}  # fmt: skip
    async with open_node(home, passphrase=PASSPHRASE, network=False) as node:
        bundle = life("wang", 2)
        bundle["entry"].append({"resource": lab})
        put("wang.json", bundle)
        put("li.json", life("li"))
        await ask(node, "fhir.import", paths=[str(inbox)])
        listed = {r["name"]: r["patient"] for r in (await ask(node, "patient.list"))["patients"]}
        ring = node.patients.ring(bytes.fromhex(listed["wang"]))
        kept = ring.only(["laboratory", "general"])
        node.patients.forget_keys()
        real = node.opener.ring

        def limited(patient: bytes) -> Any:
            if patient.hex() == listed["li"]:
                raise Denied("no key")
            return kept if patient == ring.patient else real(patient)

        node.opener.ring = limited  # type: ignore[method-assign]
        out = await _export(ask, node, tmp_path / "out")
    assert out["unreadable"] == {"patients": 1, "records": 1}
    (left_out,) = out["left_out"]
    assert left_out["file"] == "wang.json"
    assert "1 of its 4 records" in left_out["why"]
    (written,) = list((tmp_path / "out").iterdir())
    assert written.name == f"{listed['wang']}.json"
    document = read_document(written.read_bytes())
    assert sorted(r.type for r in document.resources) == ["Observation"] * 3


async def test_what_came_from_no_file_is_exported_as_it_stands(
    ask: Any, node: Any, put: Any, life: Any, tmp_path: Path
) -> None:
    """Typed records go into a collection, the newest version only; the file stays as it came."""
    path = put("wang.json", life("wang", 1))
    await ask(node, "fhir.import", paths=[str(path)])
    patient = (await ask(node, "patient.list"))["patients"][0]["patient"]
    rows = (await ask(node, "patient.timeline", patient=patient, type="Observation"))["records"]
    newer = b'{"resourceType":"Observation","code":{"text":"better"}}'
    await node.patients.amend(bytes.fromhex(rows[0]["id"]), newer, reason="correction")
    wrong = await node.patients.add(
        b'{"resourceType":"Observation"}', patient=bytes.fromhex(patient)
    )
    await node.patients.retract(wrong.id, reason="mistake")
    out = await _export(ask, node, tmp_path / "out")
    assert (out["files"], out["changed_since"]) == (2, 1)
    assert (tmp_path / "out" / "wang.json").read_bytes() == path.read_bytes()
    rest = json.loads((tmp_path / "out" / f"{patient}.json").read_bytes())
    assert [entry["resource"]["code"]["text"] for entry in rest["entry"]] == ["better"]


async def test_files_of_one_name_do_not_take_each_others_place(
    ask: Any, node: Any, tmp_path: Path, life: Any
) -> None:
    """Two folders imported apart, each with its p.json."""
    contents = []
    for number in range(2):
        folder = tmp_path / f"from{number}"
        folder.mkdir()
        contents.append(json.dumps(life(f"p{number}")).encode())
        (folder / "p.json").write_bytes(contents[-1])
        await ask(node, "fhir.import", paths=[str(folder)])
    await _export(ask, node, tmp_path / "out")
    written = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()}
    assert sorted(written) == ["p (2).json", "p.json"]
    assert sorted(written.values()) == sorted(contents)


async def test_the_loop_stays_responsive_and_a_cancelled_import_leaves_no_task(
    ask: Any, node: Any, inbox: Path, put: Any, life: Any
) -> None:
    """Other tasks get their turn all the time; cancelling ends everything that was begun."""
    for number in range(6):
        put(f"{number}.json", life(f"p{number}", 400))
    importing_ = asyncio.create_task(ask(node, "fhir.import", paths=[str(inbox)]))
    turns = 0
    while node.status()["entries"] < 1_500:
        await asyncio.sleep(0.001)
        turns += 1
    importing_.cancel()
    with pytest.raises(asyncio.CancelledError):
        await importing_
    assert turns > 10  # others had their turn while more than a thousand resources were sealed
    names = [task.get_coro() for task in asyncio.all_tasks()]
    assert not [coro for coro in names if "importing" in getattr(coro, "__qualname__", "")]
    answer = await ask(node, "fhir.import", paths=[str(inbox)])
    assert answer["files"] + answer["skipped"] == 6
    assert len((await ask(node, "patient.list"))["patients"]) == 6


async def test_paths_and_folders_that_cannot_be_are_refused(
    ask: Any, node: Any, inbox: Path, put: Any
) -> None:
    """Before anything is done, in one sentence."""
    put("x.json", {})
    for operation, values, sentence in (
        ("fhir.import", {"paths": []}, "at least one file"),
        ("fhir.import", {"paths": ["here.json"]}, "absolute path"),
        ("fhir.import", {"paths": [str(inbox / "gone")]}, "no such file or folder"),
        ("fhir.export", {"folder": "out"}, "absolute path"),
        ("fhir.export", {"folder": str(inbox)}, "not empty"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            await ask(node, operation, **values)


DATA = Path(
    os.environ.get("P2PMED_DATA") or Path(__file__).resolve().parents[4] / "shared" / "data"
)


@pytest.mark.skipif(
    not (DATA / "synthea-r4").is_dir(), reason="no synthea-r4 sample data; set P2PMED_DATA"
)
async def test_real_lives_and_their_hospitals_come_back(
    ask: Any, node: Any, tmp_path: Path
) -> None:
    """Three patients and the hospitals they point to: equal in canonical form, within budget."""
    files = sorted((DATA / "synthea-r4" / "patients").glob("*.json.gz"))[:3]
    files += sorted((DATA / "synthea-r4").glob("hospital*.json.gz"))
    answer = await ask(node, "fhir.import", paths=[str(path) for path in files])
    assert (answer["files"], answer["patients"], answer["refused"]) == (4, 3, [])
    assert answer["bytes_per_resource"] < 1_400
    assert answer["resources_per_s"] > 200
    await _export(ask, node, tmp_path / "out")
    for path in files:
        back = gzip.decompress((tmp_path / "out" / path.name).read_bytes())
        assert canonical_json(back) == canonical_json(gzip.decompress(path.read_bytes()))
