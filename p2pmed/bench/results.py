"""One measured figure, its limit, and the conditions it was measured under.

Rule: ``ratio`` is the share of the limit that was reached, 1 being the limit itself, whether
more is better (rates) or less (times).
"""

from __future__ import annotations

import os
import platform
import sqlite3
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

__all__ = ["CPU", "Conditions", "Result", "conditions", "median_of", "percentile", "rate"]

RATES: Final = frozenset({"/s", "tx/s", "rows/s", "MB/s"})
"""Units of which more is better; of all others less is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A figure."""

    name: str
    value: float
    unit: str
    limit: float | None = None
    """What the machine could do at best, in the same unit, measured in the same run."""
    limit_name: str = ""
    goal: str = ""
    """What we aim at, in words."""
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        """The share of the limit that was reached; ``None`` without a limit."""
        if self.limit is None or not self.value or not self.limit:
            return None
        return self.value / self.limit if self.unit in RATES else self.limit / self.value

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "name": self.name,
            "value": _short(self.value),
            "unit": self.unit,
            "limit": None if self.limit is None else _short(self.limit),
            "limit_name": self.limit_name,
            "ratio": None if self.ratio is None else round(self.ratio, 3),
            "goal": self.goal,
            "details": dict(self.details),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """Under what a run was made: figures of two runs compare only where these agree."""

    cpus: int
    python: str
    loop: str
    sqlite: str
    system: str
    file_system: str
    load_before: float
    """Mean number of runnable processes over the last minute before the run."""
    load_after: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {name: getattr(self, name) for name in self.__slots__}


def conditions(folder: Path) -> Conditions:
    """The conditions of a run whose files lie in ``folder``, as they are now."""
    return Conditions(
        cpus=_cpus(),
        python=platform.python_version(),
        loop=loop_name(),
        sqlite=sqlite3.sqlite_version,
        system=f"{platform.system()} {platform.machine()}",
        file_system=_file_system(folder),
        load_before=load_average(),
    )


def _cpus() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def load_average() -> float:
    """Over the last minute; 0 where the system does not say."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else 0.0


def loop_name() -> str:
    """Which event loop the command line runs on."""
    try:
        return f"uvloop {version('uvloop')}"
    except PackageNotFoundError:
        return "asyncio"


def _file_system(folder: Path) -> str:
    """The type of the file system under ``folder``; on ``tmpfs`` a flush costs nothing."""
    if not sys.platform.startswith("linux"):
        return "unknown"
    best, kind = "", "unknown"
    where = str(folder.resolve())
    for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines():
        _, mount, name, *_ = line.split()
        inside = where == mount or where.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= len(best):
            best, kind = mount, name
    return kind


CPU: Final = time.process_time
"""The clock for what only computes: other programs on the machine do not slow it down."""


def rate(
    work: Callable[[], object],
    *,
    seconds: float,
    rounds: int = 3,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """How often a second of ``clock`` ``work`` can be done: the median of ``rounds``."""
    found = []
    for _ in range(rounds):
        count, step = 0, 1
        start = clock()
        end = start + seconds / rounds
        while (now := clock()) < end:
            for _ in range(step):
                work()
            count += step
            step = min(step * 2, 64)
        found.append(count / (now - start))
    return median_of(found)


def median_of(values: Sequence[float]) -> float:
    """The middle value; 0 of nothing."""
    return percentile(values, 50)


def percentile(values: Sequence[float], share: float) -> float:
    """The value that ``share`` percent do not exceed; 0 of nothing."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share / 100))]


def _short(value: float) -> float:
    """Four digits are more than a run is worth."""
    return round(value) if abs(value) >= 1_000 else float(f"{value:.4g}")
