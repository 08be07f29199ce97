"""``p2pmed sim``: many seeds in virtual time, every promise checked at every step.

A scenario is a row of ``testing/scenarios.py``. The resume file holds the counts of each scenario
under its name, and the next seed: they accumulate over time.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from p2pmed.cli.session import add_json, command
from p2pmed.errors import ConfigError
from p2pmed.testing.scenarios import SCENARIOS, defects, play_of, scenario_of_defect

if TYPE_CHECKING:
    from p2pmed.testing.scenario import SeedReport

__all__ = ["add"]

SEEDS_MAX: Final = 10_000_000
JOBS_MAX: Final = 64
SEEDS_DEFAULT: Final = 20
KEEP_EVERY: Final = 20
"""Seeds after which the resume file is written, so that little is lost."""
ALL: Final = "all"
GARBAGE_AFTER: Final = 100_000
"""Objects between two collections: a simulated world is one big heap that stays."""
COUNTED: Final = ("played", "seeds", "virtual_s", "away_s", "events", "commits", "acknowledged")


@dataclass(frozen=True, slots=True)
class Question:
    """One seed, as it is sent to another process."""

    scenario: str
    seed: int
    planted: str = ""
    shrink: bool = False


def add(commands: Any) -> None:
    """Declare ``sim``."""
    parser = command(
        commands,
        "sim",
        help="simulate nodes under crashes, cuts and liars, by seed",
        example="p2pmed sim --scenario village --seeds 100 --jobs 2",
    )
    parser.add_argument("--scenario", choices=tuple(SCENARIOS), default="village")
    parser.add_argument("--seeds", type=int, help="how many (default 20)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (default 0)")
    parser.add_argument("--jobs", type=int, default=1, help="processes at once")
    parser.add_argument("--resume", type=Path, help="file in which counts accumulate")
    parser.add_argument(
        "--planted",
        nargs="?",
        const=ALL,
        metavar="NAME",
        help="switch a defect on, or all in turn if none is named; each must be found",
    )
    parser.add_argument(
        "--shrink", action="store_true", help="write a failing seed as a short story, in a file"
    )
    parser.add_argument("--replay", type=Path, metavar="FILE", help="play such a file instead")
    add_json(parser)
    parser.set_defaults(run=_run)


def _run(parsed: argparse.Namespace) -> int:
    seeds = SEEDS_DEFAULT if parsed.seeds is None else parsed.seeds
    if not 0 < seeds <= SEEDS_MAX or not 0 < parsed.jobs <= JOBS_MAX or parsed.first < 0:
        raise ConfigError(
            "seeds, jobs and the first seed are positive numbers",
            hint=f"at most {SEEDS_MAX} seeds, and {JOBS_MAX} jobs",
        )
    if parsed.replay is not None:
        return _replay(parsed)
    if parsed.planted:
        return _planted(parsed)
    return _many(parsed, seeds)


# --- many seeds -----------------------------------------------------------------------------


def _many(parsed: argparse.Namespace, seeds: int) -> int:
    everything = _read(parsed.resume)
    total = everything.setdefault(parsed.scenario, _empty(parsed.first))
    first = total["next"]
    before, began = total["seconds"], time.monotonic()
    questions = [
        Question(parsed.scenario, seed, shrink=parsed.shrink)
        for seed in range(first, first + seeds)
    ]
    for report in _reports(questions, parsed.jobs):
        _add(total, report)
        total["seconds"] = round(before + time.monotonic() - began, 1)
        if report.violations and not parsed.json:
            print(f"seed {report.seed}: {len(report.violations)} violations", flush=True)
        if total["played"] % KEEP_EVERY == 0:
            _keep(parsed.resume, everything)
    _keep(parsed.resume, everything)
    _tell(parsed, total)
    return 1 if total["violations"] else 0


def _empty(first: int) -> dict[str, Any]:
    counts: dict[str, Any] = dict.fromkeys(COUNTED, 0)
    return {"next": first, **counts, "faults": {}, "violations": [], "seconds": 0.0}


def _read(resume: Path | None) -> dict[str, dict[str, Any]]:
    """Counts so far, by scenario: none, or those of earlier runs."""
    if resume is None or not resume.exists():
        return {}
    problem = ConfigError(
        f"{resume} does not hold counts of an earlier run", hint="name another file"
    )
    try:
        found = json.loads(resume.read_text(encoding="utf-8"))
    except ValueError:
        raise problem from None
    if not isinstance(found, dict) or not all(
        isinstance(total, dict) and set(total) == set(_empty(0)) for total in found.values()
    ):
        raise problem
    return found


def _keep(resume: Path | None, everything: dict[str, dict[str, Any]]) -> None:
    if resume is not None:
        new = resume.with_name(resume.name + ".new")
        new.write_text(json.dumps(everything, indent=1) + "\n", encoding="utf-8")
        new.replace(resume)


def _reports(questions: Sequence[Question], jobs: int) -> Iterator[SeedReport]:
    """Answers in the order of the questions."""
    if jobs == 1:
        yield from map(_play, questions)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(_play, questions, chunksize=1)


def _play(question: Question) -> SeedReport:
    """One seed, in whichever process."""
    gc.set_threshold(GARBAGE_AFTER)
    from p2pmed.testing.scenario import SeedOptions
    from p2pmed.testing.shrinking import shrink, write_story

    play, options = play_of(question.scenario), SeedOptions(planted=question.planted)
    report = play(question.seed, options)
    if report.violations and question.shrink:
        story = shrink(play, report, options)
        name = f"{question.scenario}-{question.seed}"
        if question.planted:
            name = question.planted.replace(" ", "-")
        write_story(Path(f"{name}.json"), story)
    return report


def _add(total: dict[str, Any], report: SeedReport) -> None:
    total["next"] = report.seed + 1
    total["played"] += 1
    total["seeds"] += report.counts or bool(report.violations)
    total["virtual_s"] += report.virtual_ms // 1_000
    total["away_s"] += report.away_ms // 1_000  # nothing happens then: no part of the ratio
    total["events"] += report.steps
    total["commits"] += report.commits
    total["acknowledged"] += report.acknowledged
    total["faults"] = dict(sorted((Counter(total["faults"]) + Counter(report.faults)).items()))
    total["violations"] += [f"seed {report.seed}: {text}" for text in report.violations]


def _tell(parsed: argparse.Namespace, total: dict[str, Any]) -> None:
    seeds, seconds = total["seeds"], max(total["seconds"], 0.001)
    bound = None if total["violations"] or not seeds else round(3 / seeds, 6)
    answer = {
        "ok": not total["violations"],
        "scenario": parsed.scenario,
        **total,
        "times_real": round(total["virtual_s"] / seconds, 1),
        "undetected_at_most": bound,
    }
    if parsed.json:
        print(json.dumps(answer))
        return
    for violation in total["violations"]:
        print(violation)
    print(
        f"{seeds} seeds ({total['played'] - seeds} more had too few faults, blocks or seconds "
        f"to count), {total['virtual_s']} virtual seconds in {seconds} s "
        f"({answer['times_real']} times as fast as real), {total['away_s'] // 86_400} days of "
        f"absence beside, {total['events']} events, {total['commits']} blocks, "
        f"{total['acknowledged']} transactions acknowledged"
    )
    print("faults: " + ", ".join(f"{kind} {n}" for kind, n in total["faults"].items()))
    if bound is None:
        print(f"{len(total['violations'])} violations")
    else:
        print(f"0 violations: the chance of one a seed is under {bound:.6f} (95 %)")


# --- a story ----------------------------------------------------------------------------------


def _replay(parsed: argparse.Namespace) -> int:
    """Play a file; the status is 0 if every promise held."""
    from p2pmed.testing.shrinking import read_story

    story = read_story(parsed.replay)
    known = story.scenario in SCENARIOS and (
        not story.planted or story.planted in defects(story.scenario)
    )
    if not known:
        raise ConfigError(f"{parsed.replay} names a scenario or a defect that is not there")
    report = play_of(story.scenario)(story.seed, story.options)
    if parsed.json:
        print(json.dumps({"ok": report.passed, "violations": report.violations}))
    else:
        print("\n".join(report.violations) or "every promise held")
    return 0 if report.passed else 1


# --- planted defects ----------------------------------------------------------------------------


def _planted(parsed: argparse.Namespace) -> int:
    """Switch defects on; the status is 0 only if every one of them was found."""
    rows = []
    for scenario, name in _wanted(parsed):
        defect = defects(scenario)[name]
        seeds = parsed.seeds or defect.found_within
        questions = [
            Question(scenario, seed, planted=name)
            for seed in range(parsed.first, parsed.first + seeds)
        ]
        hits = [report.seed for report in _reports(questions, parsed.jobs) if report.violations]
        if hits and parsed.shrink:
            _play(Question(scenario, hits[0], planted=name, shrink=True))
        rows.append(
            {
                "name": name,
                "scenario": scenario,
                "rule": defect.rule,
                "source": defect.source,
                "seeds": seeds,
                "found_in": len(hits),
                "first": hits[0] if hits else None,
            }
        )
        if not parsed.json:
            _tell_defect(rows[-1])
    found = sum(bool(row["found_in"]) for row in rows)
    if parsed.json:
        print(json.dumps({"ok": found == len(rows), "found": found, "defects": rows}))
    else:
        print(f"\n{found} of {len(rows)} defects found ({100 * found / len(rows):.1f} %)")
    return 0 if found == len(rows) else 1


def _wanted(parsed: argparse.Namespace) -> list[tuple[str, str]]:
    """Scenario and name of each defect that was asked for."""
    if parsed.planted == ALL:
        return [(scenario, name) for scenario in SCENARIOS for name in defects(scenario)]
    scenario = scenario_of_defect(parsed.planted)
    if scenario is None:
        names = ", ".join(name for scenario in SCENARIOS for name in defects(scenario))
        raise ConfigError(
            f"no planted defect is called {parsed.planted!r}", hint=f"there are {names}"
        )
    return [(scenario, parsed.planted)]


def _tell_defect(row: dict[str, Any]) -> None:
    """A row of the table that ``docs/reference/planted.md`` holds."""
    first = "**not found**" if row["first"] is None else row["first"]
    cells = (row["name"], row["scenario"], row["rule"], row["source"], row["seeds"])
    print("| " + " | ".join(map(str, (*cells, row["found_in"], first))) + " |", flush=True)
