"""``p2pmed sim``: whole nodes in virtual time, many seeds, every promise checked at every step."""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Final, Literal, cast

from p2pmed.cli.session import add_json, command
from p2pmed.errors import ConfigError

__all__ = ["add"]

SCENARIOS: Final = ("village", "county", "bft", "raft")
"""``village`` takes the engines in turn, by the parity of the seed; ``county`` is two villages
that meet at a county."""
SEEDS_MAX: Final = 10_000_000
NOTHING: Final = ""


def add(commands: Any) -> None:
    """Declare ``sim``."""
    parser = command(
        commands,
        "sim",
        help="simulate whole nodes under crashes, cuts and liars of time, by seed",
        example="p2pmed sim --scenario village --seeds 100 --jobs 2",
    )
    parser.add_argument("--scenario", choices=SCENARIOS, default="village")
    parser.add_argument("--seeds", type=int, default=20, help="how many (default 20)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (default 0)")
    parser.add_argument("--jobs", type=int, default=1, help="processes at once")
    parser.add_argument("--resume", type=Path, help="file in which counts accumulate")
    parser.add_argument(
        "--planted", metavar="NAME", help="switch a defect on: its name, or `all`; it must be found"
    )
    add_json(parser)
    parser.set_defaults(run=_run)


def _run(parsed: argparse.Namespace) -> int:
    if not 0 < parsed.seeds <= SEEDS_MAX or not 0 < parsed.jobs <= 64 or parsed.first < 0:
        raise ConfigError("seeds, jobs and the first seed are positive numbers")
    if parsed.planted:
        return _planted(parsed)
    began = time.monotonic()
    total = _read(parsed.resume, parsed.scenario)
    seeds = range(parsed.first + total["seeds"], parsed.first + total["seeds"] + parsed.seeds)
    for outcome in _outcomes(parsed.scenario, NOTHING, seeds, parsed.jobs):
        _add(total, outcome)
        if not parsed.json and (total["seeds"] % 10 == 0 or outcome["violations"]):
            print(f"seed {outcome['seed']}: {len(outcome['violations'])} violations", flush=True)
    seconds = time.monotonic() - began
    total["seconds"] = round(total["seconds"] + seconds, 1)
    if parsed.resume is not None:
        parsed.resume.write_text(json.dumps(total), encoding="utf-8")
    _tell(parsed, total)
    return 1 if total["violations"] else 0


def _read(resume: Path | None, scenario: str) -> dict[str, Any]:
    """Counts so far: none, or those of an earlier run."""
    empty: dict[str, Any] = {
        "seeds": 0,
        "scenario": scenario,
        "virtual_s": 0,
        "away_s": 0,
        "events": 0,
        "commits": 0,
        "acknowledged": 0,
        "faults": {},
        "violations": [],
        "seconds": 0.0,
    }
    if resume is None or not resume.exists():
        return empty
    try:
        found = json.loads(resume.read_text(encoding="utf-8"))
    except ValueError:
        raise ConfigError(f"{resume} does not hold counts of an earlier run") from None
    if not isinstance(found, dict) or set(found) != set(empty):
        raise ConfigError(f"{resume} does not hold counts of an earlier run")
    if found["scenario"] != scenario:
        raise ConfigError(f"{resume} holds counts of the scenario {found['scenario']}")
    return found


def _outcomes(scenario: str, planted: str, seeds: range, jobs: int) -> Iterator[dict[str, Any]]:
    questions = [(scenario, planted, seed) for seed in seeds]
    if jobs == 1:
        yield from map(_play, questions)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(_play, questions, chunksize=1)


def _play(question: tuple[str, str, int]) -> dict[str, Any]:
    """One seed, in whichever process; plain values, so that it can be sent back."""
    from p2pmed.testing.county import run_county
    from p2pmed.testing.village import run_village

    scenario, planted, seed = question
    if scenario == "county":
        outcome = run_county(seed, planted=planted)
    else:
        engine = ("bft", "raft")[seed % 2] if scenario == "village" else scenario
        outcome = run_village(seed, engine=cast('Literal["bft", "raft"]', engine), planted=planted)
    return {
        "seed": seed,
        "virtual_ms": outcome.virtual_ms,
        "away_ms": outcome.away_ms,
        "steps": outcome.steps,
        "commits": outcome.commits,
        "acknowledged": outcome.acknowledged,
        "faults": dict(outcome.faults),
        "violations": list(outcome.violations),
    }


def _add(total: dict[str, Any], outcome: dict[str, Any]) -> None:
    total["seeds"] += 1
    total["virtual_s"] += outcome["virtual_ms"] // 1_000
    total["away_s"] += outcome["away_ms"] // 1_000  # nothing happens then: no part of the ratio
    total["events"] += outcome["steps"]
    total["commits"] += outcome["commits"]
    total["acknowledged"] += outcome["acknowledged"]
    total["faults"] = dict(sorted((Counter(total["faults"]) + Counter(outcome["faults"])).items()))
    total["violations"] += [f"seed {outcome['seed']}: {text}" for text in outcome["violations"]]


def _tell(parsed: argparse.Namespace, total: dict[str, Any]) -> None:
    seeds, seconds = total["seeds"], max(total["seconds"], 0.001)
    answer = {
        "ok": not total["violations"],
        **total,
        "times_real": round(total["virtual_s"] / seconds, 1),
        "undetected_at_most": None if total["violations"] else round(3 / seeds, 6),
    }
    if parsed.json:
        print(json.dumps(answer))
        return
    for violation in total["violations"]:
        print(violation)
    print(
        f"{seeds} seeds, {total['virtual_s']} virtual seconds in {seconds} s "
        f"({answer['times_real']} times as fast as real), {total['away_s'] // 86_400} days of "
        f"absence beside, {total['events']} events, {total['commits']} blocks, "
        f"{total['acknowledged']} transactions acknowledged"
    )
    print("faults: " + ", ".join(f"{kind} {n}" for kind, n in total["faults"].items()))
    if total["violations"]:
        print(f"{len(total['violations'])} violations")
    else:
        print(f"0 violations: the chance of one a seed is under {3 / seeds:.4f} (95 %)")


def _planted(parsed: argparse.Namespace) -> int:
    """Switch defects on; the status is 0 only if every one of them was found."""
    from p2pmed.testing.planted import PLANTED

    names = sorted(PLANTED) if parsed.planted == "all" else [parsed.planted]
    unknown = [name for name in names if name not in PLANTED]
    if unknown:
        raise ConfigError(
            f"no planted defect is called {unknown[0]!r}", hint=f"there are {', '.join(PLANTED)}"
        )
    found: dict[str, int | None] = {}
    for name in names:
        found[name] = _first_finding(name, parsed.seeds, parsed.first)
        if not parsed.json:
            place = "not found" if found[name] is None else f"found by seed {found[name]}"
            print(f"{name}: {place} (of {parsed.seeds})", flush=True)
    missed = [name for name, seed in found.items() if seed is None]
    if parsed.json:
        print(json.dumps({"ok": not missed, "seeds": parsed.seeds, "found": found}))
    return 1 if missed else 0


def _first_finding(name: str, seeds: int, first: int) -> int | None:
    from p2pmed.testing.planted import plant

    for seed in range(first, first + seeds):
        if _play((plant(name).engine, name, seed))["violations"]:
            return seed
    return None
