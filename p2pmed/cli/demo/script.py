"""The story of the demonstration, scene by scene, and the count at its end.

Six processes: three clinics, a pharmacy that also makes and recalls drugs, an insurer, and a county
hospital that appears late. The clinics and the pharmacy form a BFT mesh by themselves. While care
is recorded, one clinic is killed and restarted, another is cut off and goes on alone; a lot is
recalled; one pack is dispensed on both sides of the cut; one treatment is claimed and settled.
Then the county syncs the mesh over the network, and the cut-off clinic's last records by a file.

The figures of the report are counted from the stopped nodes' databases (``testing/census.py``).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from p2pmed.cli.demo.count import count_all
from p2pmed.cli.demo.day import write_day
from p2pmed.cli.demo.screen import Screen
from p2pmed.cli.demo.stage import Actor
from p2pmed.cli.demo.story import PATIENCE_S, Story, submit, submit_final
from p2pmed.cli.demo.waiting import (
    MESH_SIZE,
    all_anchored,
    all_equal,
    all_in_ledger,
    all_meet,
    everything_equal,
    has,
    until,
)
from p2pmed.errors import ConfigError, P2pmedError
from p2pmed.node.config import Config
from p2pmed.node.setup import create_network, init_home, self_enrol
from p2pmed.sync.founding import MeshPolicy

__all__ = ["play"]

PASSPHRASE_WORDS: Final = 3
KILL_AFTER_S: Final = 0.05
"""Into the import of a patient's bundle."""
DARK_S: Final = 1.0
GTIN: Final = "09506000134352"
LOT, BAD_LOT = "MU-2026-11", "MU-2026-12"
RECORD_SUFFIXES: Final = (".json", ".json.gz")


async def play(
    *, records: Path | None, patients: int, folder: Path | None, quiet: bool
) -> dict[str, Any]:
    """Play the whole story; the report. Raises ``P2pmedError`` if it cannot begin."""
    if patients < 1:
        raise ConfigError("at least one patient is needed")
    place = _make_folder(folder)
    files = _records(records, patients, place)
    screen = Screen(quiet=quiet)
    passphrase = "-".join(secrets.token_hex(4) for _ in range(PASSPHRASE_WORDS))
    secret = place / "passphrase"
    secret.touch(mode=0o600)
    secret.write_text(passphrase, encoding="ascii")
    story = Story(place, screen, passphrase)
    screen.open()
    watching = asyncio.ensure_future(_watch(story))
    failure = ""
    try:
        await _scenes(story, files)
    except (P2pmedError, TimeoutError) as error:
        failure = str(error) or "a step took too long"
        screen.say(f"[red]{failure}[/red]")
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        contradictions = await _contradictions(story)
        await asyncio.gather(*(actor.stop() for actor in story.actors.values()))
        screen.close()
    report = await count_all(story, contradictions, failure)
    screen.finish(report, story.steps)
    return report


def _make_folder(folder: Path | None) -> Path:
    if folder is None:
        return Path(tempfile.mkdtemp(prefix="p2pmed-demo-"))
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder} is not empty", hint="name a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _records(source: Path | None, patients: int, folder: Path) -> list[Path]:
    """The bundles that the clinics will record: one file per patient."""
    if source is None:
        return write_day(folder / "village-day", patients)
    if not source.is_dir():
        raise ConfigError(f"no folder {source}", hint="give a folder of FHIR R4 bundles")
    found = sorted(
        path
        for path in source.rglob("*")
        if path.name.endswith(RECORD_SUFFIXES) and path.parent.name == "patients"
    ) or sorted(path for path in source.rglob("*") if path.name.endswith(RECORD_SUFFIXES))
    if not found:
        raise ConfigError(f"no *.json or *.json.gz in {source}")
    return found[:patients]


async def _watch(story: Story) -> None:
    """Keep the live table up to date."""
    while True:
        actors = list(story.actors.values())
        await asyncio.gather(*(actor.look() for actor in actors))
        story.screen.show(actors)
        await asyncio.sleep(0.5)


# --- scenes -----------------------------------------------------------------------------------


async def _scenes(story: Story, files: Sequence[Path]) -> None:
    async with story.scene("a network is made; five nodes enrol and start"):
        await _enrol_all(story)
        await asyncio.gather(*(actor.start() for actor in story.actors.values()))
    async with story.scene("the clinics and the pharmacy find each other and form a mesh"):
        await _form_mesh(story)
    async with story.scene("drugs are made, shipped and received"):
        await _supply(story)
    async with story.scene("care is recorded; one clinic is killed, another cut off"):
        await _village_day(story, files)
    async with story.scene("the cut-off clinic is back; all agree"):
        await story["clinic-c"].ask("general.online", on=True)
        story["clinic-c"].note = "running"
        await until(story, all_equal, "the village does not come to agree")
    async with story.scene("a treatment is claimed and settled"):
        await _claim(story)
    async with story.scene("the county appears; the last records come by a file"):
        await _county(story, files)


async def _enrol_all(story: Story) -> None:
    story.network = create_network(
        story.folder / "authority", "Shan county health", story.passphrase, cheap=True
    )
    for name, roles in (
        ("clinic-a", ("clinic", "hospital")),
        ("clinic-b", ("clinic",)),
        ("clinic-c", ("clinic",)),
        ("pharmacy", ("pharmacy", "manufacturer")),
        ("insurer", ("insurer",)),
        ("county", ("county", "hospital")),
    ):
        await asyncio.to_thread(_enrol, story, name, roles)
    del story.actors["county"]  # it appears later


def _enrol(story: Story, name: str, roles: Sequence[str]) -> None:
    home = story.folder / name
    policy = MeshPolicy(
        auto=name not in ("insurer", "county"),
        size=MESH_SIZE,
        quiet_ms=1_000,
        name="Mu village",
        follow=name == "insurer",
    )
    place = "shan" if name == "county" else f"shan/mu/{name}"
    init_home(
        home,
        name=name,
        roles=roles,
        place=place,
        passphrase=story.passphrase,
        config=Config(host="127.0.0.1", port=0, loopback=True, mesh=policy),
        cheap=True,
    )
    self_enrol(story.folder / "authority", story.passphrase, home, story.passphrase)
    story.actors[name] = Actor(name, home, passphrase=story.passphrase)


async def _form_mesh(story: Story) -> None:
    with contextlib.suppress(TimeoutError):
        await until(story, all_meet, "", seconds=12)
    if not await all_meet(story):
        story.discovery = "typed"
        story.screen.say("multicast is not available here: addresses are typed instead")
        for actor in story.actors.values():
            for other in story.actors.values():
                if other is not actor:
                    await actor.ask("general.dial", address=f"127.0.0.1:{other.port}")
    await until(story, all_in_ledger, "no mesh was formed")
    status = story["clinic-a"].status
    story.screen.say(
        f"{status['ledger_name']}: {status['engine']}, ledger {status['ledger'][:12]}, "
        f"discovery: {status['discovery']}"
    )


async def _supply(story: Story) -> None:
    """Packs for clinic C, of a good lot and of one that will be recalled."""
    pharmacy, clinic = story["pharmacy"], story["clinic-c"]
    for lot, serials in ((LOT, ["P1", "P2", "P3"]), (BAD_LOT, ["B1", "B2"])):
        fields = {
            "gtin": GTIN,
            "lot": lot,
            "expiry": 30_000,
            "serials": serials,
            "maker": f"hex:{pharmacy.device}",
        }
        await submit_final(pharmacy, "drug.commission", fields)
    units = [[GTIN, serial] for serial in ("P1", "P2", "P3", "B1", "B2")]
    shipped = await submit_final(
        pharmacy, "drug.ship", {"units": units, "to": f"hex:{clinic.device}"}
    )
    await submit_final(clinic, "drug.receive", {"shipment": f"hex:{shipped['id']}"})


async def _village_day(story: Story, files: Sequence[Path]) -> None:
    """All clinics write at once; B loses its power, C its cable."""
    shares = [files[number::3] for number in range(3)]
    a, b, c = story["clinic-a"], story["clinic-b"], story["clinic-c"]
    # C keeps some patients for when it is alone, and some for the file at the end.
    alone = shares[2][len(shares[2]) // 3 :]
    last = alone[len(alone) // 2 :]
    writing = [
        asyncio.ensure_future(_record(story, a, shares[0])),
        asyncio.ensure_future(_record_through_kill(story, b, shares[1])),
        asyncio.ensure_future(_record(story, c, shares[2][: len(shares[2]) // 3])),
    ]
    try:
        await writing[2]
        await until(story, lambda _: has(c, pending=0), "clinic C is not final", seconds=60)
        await c.ask("general.online", on=False)
        c.note = "cut off, recording alone"
        story.screen.say("clinic-c is cut off from the others")
        writing[2] = asyncio.ensure_future(_record(story, c, alone[: len(alone) - len(last)]))
        await _both_sides(story)
        await asyncio.gather(*writing)
    finally:
        for task in writing:
            task.cancel()
        await asyncio.gather(*writing, return_exceptions=True)


async def _both_sides(story: Story) -> None:
    """The same pack on both sides of the cut, and a recall that C cannot hear."""
    patient = secrets.token_hex(16)
    pack = {"gtin": GTIN, "serial": "P1"}
    c, a, pharmacy = story["clinic-c"], story["clinic-a"], story["pharmacy"]
    alone = await submit(c, "drug.dispense", pack, patient=patient)
    there = await submit(a, "drug.dispense", pack, patient=patient, wait_s=20)
    story.screen.say(
        f"pack P1 is dispensed at clinic-c ({alone['level']}, {alone['verdict']}) "
        f"and at clinic-a ({there['level']}, {there['verdict']})"
    )
    recall = {"gtin": GTIN, "lot": BAD_LOT, "reason": "contamination"}
    recalled = await submit_final(pharmacy, "drug.recall", recall)
    story.screen.say(f"lot {BAD_LOT} is recalled ({recalled['verdict']})")


async def _record(story: Story, clinic: Actor, files: Sequence[Path]) -> None:
    """One patient after the other: import the bundle, note what the clinic acknowledged."""
    records = patients = 0
    for path in files:
        answer = await clinic.ask("fhir.import", paths=[str(path.absolute())])
        if answer["refused"]:
            refused = answer["refused"][0]
            raise ConfigError(f"{clinic.name} refused {refused['file']}: {refused['why']}")
        records, patients = records + answer["records"], patients + answer["patients"]
        await _note_acknowledged(story, clinic)
    if files:
        story.screen.say(f"{clinic.name} recorded {records} records of {patients} patients")


async def _note_acknowledged(story: Story, clinic: Actor) -> None:
    """What the clinic has said is stored must never be missing from here on."""
    own_next = (await clinic.ask("general.status"))["own_next"]
    story.acknowledged[clinic.device] = max(story.acknowledged.get(clinic.device, 0), own_next)


async def _record_through_kill(story: Story, clinic: Actor, files: Sequence[Path]) -> None:
    """Import, kill the process in the middle, start it again, and go on."""
    before = files[: len(files) // 2]
    await _record(story, clinic, before)
    work = asyncio.ensure_future(_record(story, clinic, files[len(before) :]))
    await asyncio.sleep(KILL_AFTER_S)
    clinic.kill()
    story.kills += 1
    story.screen.say(f"{clinic.name} is killed (SIGKILL) while it writes")
    await clinic.reap()
    with contextlib.suppress(P2pmedError, OSError):
        await work
    await asyncio.sleep(DARK_S)
    await clinic.start()
    await _check_acknowledged(story, clinic)
    story.screen.say(f"{clinic.name} is back with all that it acknowledged, and goes on")
    await _record(story, clinic, files)


async def _check_acknowledged(story: Story, clinic: Actor) -> None:
    status = await clinic.ask("general.status")
    known = story.acknowledged.get(clinic.device, 0)
    if status["own_next"] < known:
        raise ConfigError(f"{clinic.name} lost acknowledged records: that is a defect")


async def _claim(story: Story) -> None:
    """Insurer and hospital agree on a rule; a clinic claims; the insurer settles."""
    insurer, clinic = story["insurer"], story["clinic-a"]
    encounter = await _visit(clinic)
    product = await submit_final(
        insurer,
        "product.publish",
        {
            "product": "village-basic",
            "version": 1,
            "insurer": f"hex:{insurer.device}",
            "hospital": f"hex:{clinic.device}",
            "conditions": [["too_many", ["<=", ["var", "quantity"], 10]]],
            "allowed": ["min", ["var", "amount"], ["var", "remaining"]],
            "ceiling": 10_000,
            "currency": "MMK",
            "waiting_days": 0,
        },
    )
    await submit_final(clinic, "product.approve", {"product": f"hex:{product['id']}"})
    policy = await submit_final(
        insurer,
        "policy.issue",
        {
            "product": f"hex:{product['id']}",
            "members": [f"hex:{encounter['patient']}"],
            "start": 0,
            "end": 4_000_000_000_000,
        },
    )
    claim = await submit_final(
        clinic,
        "claim.submit",
        {
            "policy": f"hex:{policy['id']}",
            "encounters": [f"hex:{encounter['id']}"],
            "lines": [
                ["consultation", 1, 8_000],
                ["paracetamol", 20, 1_500],
                ["fever-kit", 1, 4_000],
            ],
        },
        patient=encounter["patient"],
    )
    settled = await insurer.ask("claim.adjudicate", claim=claim["id"], wait_s=PATIENCE_S)
    await until(story, all_equal, "the claim is not settled alike everywhere")
    story.screen.say(
        f"the claim is settled alike on all nodes: {settled['allowed']} "
        f"{settled['currency']} are paid"
    )


async def _visit(clinic: Actor) -> dict[str, str]:
    """A patient of the clinic comes once more; patient and encounter, in hex."""
    patients = (await clinic.ask("patient.list"))["patients"]
    patient = next(row["patient"] for row in patients if row["readable"])
    encounter = {
        "resourceType": "Encounter",
        "status": "finished",
        "class": {"code": "AMB"},
        "period": {"start": "2026-11-20T09:00:00Z"},
    }
    added = await clinic.ask(
        "patient.add", patient=patient, fhir=json.dumps(encounter), wait_s=PATIENCE_S
    )
    return {"patient": patient, "id": added["id"]}


async def _county(story: Story, files: Sequence[Path]) -> None:
    clinic = story["clinic-c"]
    share = files[2::3]
    alone = share[len(share) // 3 :]
    await clinic.ask("general.online", on=False)
    clinic.note = "cut off, recording alone"
    await _record(story, clinic, alone[len(alone) - len(alone[len(alone) // 2 :]) :])
    stick = story.folder / "stick.p2pmed"
    await clinic.ask("bundle.export", file=str(stick))
    story.screen.say(f"clinic-c wrote its last records to a file of {stick.stat().st_size} bytes")
    county = Actor("county", story.folder / "county", passphrase=story.passphrase)
    story.actors["county"] = county
    await county.start()
    await county.ask("mesh.found", engine="raft", name="Shan county", members=[])
    if story.discovery == "typed":
        for actor in story.mesh:
            await county.ask("general.dial", address=f"127.0.0.1:{actor.port}")
    await county.ask("bundle.import", file=str(stick))
    await _note_acknowledged(story, clinic)
    await until(story, all_anchored, "not everything is anchored at the county")
    await clinic.ask("general.online", on=True)
    clinic.note = "running"
    await until(story, everything_equal, "not every node has everything")


async def _contradictions(story: Story) -> list[dict[str, Any]]:
    """What contradicts, as the county tells it, or a clinic if there is no county."""
    for name in ("county", "clinic-a"):
        actor = story.actors.get(name)
        if actor is not None and actor.running:
            with contextlib.suppress(P2pmedError, TimeoutError):
                found = await actor.ask("general.discrepancies")
                return list(found["discrepancies"])
    return []
