"""The benches by name, their sizes, and the order of a run."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeAlias

from p2pmed.bench.consensus import consensus_bench
from p2pmed.bench.machine import Machine
from p2pmed.bench.meshes import gossip_bench, idle_bench
from p2pmed.bench.primitives import codec_bench, crypto_bench, disk_bench
from p2pmed.bench.records import records_bench
from p2pmed.bench.results import Conditions, Result, load_average
from p2pmed.bench.single import bundle_bench, catch_up_bench, import_bench, open_bench, submit_bench
from p2pmed.bench.size import FULL, QUICK, Size
from p2pmed.errors import ConfigError

__all__ = ["BENCHES", "SUITES", "Report", "run_benches"]

Bench: TypeAlias = Callable[[Machine, Size], Coroutine[Any, Any, list[Result]]]

BENCHES: Final[Mapping[str, Bench]] = {
    "crypto": crypto_bench,
    "codec": codec_bench,
    "disk": disk_bench,
    "import": import_bench,
    "submit": submit_bench,
    "consensus": consensus_bench,
    "gossip": gossip_bench,
    "catch-up": catch_up_bench,
    "bundle": bundle_bench,
    "open": open_bench,
    "idle": idle_bench,
    "records": records_bench,
}
SUITES: Final[Mapping[str, Size]] = {"quick": QUICK, "full": FULL}


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a run found, and under which conditions."""

    conditions: Conditions
    results: dict[str, list[Result]]
    """By bench, in the order of the run."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "conditions": self.conditions.to_json(),
            "benches": {
                name: [result.to_json() for result in results]
                for name, results in self.results.items()
            },
        }


async def run_benches(
    names: Iterable[str],
    size: Size,
    *,
    folder: Path | None = None,
    report: Callable[[str], None] = lambda name: None,
) -> Report:
    """Run benches one after the other; all of them if ``names`` is empty.

    Files lie in a temporary folder in ``folder`` and are gone afterwards. ``report`` is told
    each name before it runs. Raises ``ConfigError`` for an unknown name. Cancelling ends every
    process that was started.
    """
    wanted = list(names) or list(BENCHES)
    for name in wanted:
        if name not in BENCHES:
            raise ConfigError(f"no bench {name!r}", hint=f"there are: {', '.join(BENCHES)}")
    with tempfile.TemporaryDirectory(prefix="p2pmed-bench-", dir=folder) as place:
        machine = Machine(Path(place), seconds=size.seconds, entries=size.entries)
        results: dict[str, list[Result]] = {}
        for name in wanted:
            report(name)
            results[name] = await BENCHES[name](machine, size)
        found = replace(machine.conditions, load_after=load_average())
        return Report(conditions=found, results=results)
