"""The end of the demonstration: counted from the stores of the stopped nodes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from p2pmed.cli.demo.story import Story
from p2pmed.testing.census import Census, take_census

__all__ = ["count_all"]


async def count_all(
    story: Story, contradictions: list[dict[str, Any]], failure: str
) -> dict[str, Any]:
    """Counted from the stores of the stopped nodes, by device, log and certificate."""
    homes = {name: story.folder / name for name in story.actors}
    census = await take_census(homes, story.network) if homes else Census({})
    records = census.records()
    at_county = census.homes["county"].records if "county" in census.homes else {}
    village, county = _ledger_of(story, "clinic-a"), _ledger_of(story, "county")
    lost = _lost(story, census) + sum(name not in at_county for name in records)
    anchored = census.ordered_by(county) if county else 0
    report = {
        "ok": False,
        "processes": len(story.actors),
        "patients": max((home.patients for home in census.homes.values()), default=0),
        "records_submitted": len(records),
        "records_stored": len(at_county),
        "records_final": census.ordered_by(village) if village else 0,
        "records_anchored": anchored,
        "lost": lost,
        "diverged": census.diverged + sum(len(home.faults) for home in census.homes.values()),
        "kills": story.kills,
        "discrepancies": len(contradictions),
        "contradictions": contradictions,
        "mesh_height": census.height(village) if village else 0,
        "county_height": census.height(county) if county else 0,
        "seconds": round(story.screen.seconds, 1),
        "discovery": story.discovery,
        "folder": str(story.folder),
        "failure": failure,
        "look_further": (
            f"{_program()} patient list --home {story.folder / 'clinic-a'} "
            f"--passphrase-file {story.folder / 'passphrase'}"
        ),
    }
    report["ok"] = (
        not failure
        and bool(records)
        and lost == 0
        and report["diverged"] == 0
        and anchored == len(records)
    )
    return report


def _program() -> str:
    """How this very p2pmed is called from a shell."""
    beside = Path(sys.executable).with_name("p2pmed")
    return str(beside) if beside.exists() else f"{sys.executable} -m p2pmed"


def _ledger_of(story: Story, name: str) -> bytes:
    """The id of the ledger that a node lived in; what it holds is counted elsewhere."""
    actor = story.actors.get(name)
    return bytes.fromhex((actor.status.get("ledger") if actor else None) or "")


def _lost(story: Story, census: Census) -> int:
    """Acknowledged entries that their own author's store does not hold."""
    missing = 0
    for actor in story.actors.values():
        home = census.homes[actor.name]
        held = sum(
            next_seq for lane, next_seq in home.logs.items() if lane.author.hex() == actor.device
        )
        missing += max(0, story.acknowledged.get(actor.device, 0) - held)
    return missing
