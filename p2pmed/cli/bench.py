"""``p2pmed bench``: how fast this machine is, and how much of it p2pmed uses."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from p2pmed.cli.session import add_json, command, run_async
from p2pmed.errors import ConfigError
from p2pmed.limits import VALIDATORS_MAX

if TYPE_CHECKING:
    from p2pmed.bench.size import Size
    from p2pmed.bench.suite import Report

__all__ = ["add"]

FULL_PATIENTS = 50_000
"""What the goals of the records bench speak of."""


def add(commands: Any) -> None:
    """Declare ``bench``."""
    parser = command(
        commands,
        "bench",
        help="measure this machine, and p2pmed beside its limits",
        example="p2pmed bench consensus --engine bft --nodes 4 --json",
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="crypto, codec, disk, import, submit, consensus, gossip, catch-up, bundle, open, "
        "idle, records (default: all)",
    )
    parser.add_argument("--suite", choices=("quick", "full"), default="quick")
    parser.add_argument("--engine", choices=("bft", "raft"), help="of `consensus` (default: both)")
    parser.add_argument("--nodes", type=int, help="of `consensus`, `gossip` and `idle`")
    parser.add_argument("--entries", type=int, help="of `open`, `catch-up` and `bundle`")
    parser.add_argument("--patients", type=int, help="of `records` (by name alone 50,000)")
    parser.add_argument("--seconds", type=float, help="of each load")
    parser.add_argument("--in-flight", type=int, help="submissions in flight at each node")
    parser.add_argument("--batch", type=int, help="transactions in each submission")
    parser.add_argument("--folder", type=Path, help="where the files lie: the disk to be measured")
    add_json(parser)
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """Measure and print."""
    from p2pmed.bench.suite import SUITES, run_benches

    def report(name: str) -> None:
        if sys.stderr.isatty():
            print(f"measuring {name} ...", file=sys.stderr)

    size = _chosen(parsed, SUITES[parsed.suite])
    found = run_async(run_benches(parsed.names, size, folder=parsed.folder, report=report))
    if parsed.json:
        print(json.dumps(found.to_json(), ensure_ascii=False))
    else:
        _print(found)
    return 0


def _chosen(parsed: argparse.Namespace, size: Size) -> Size:
    """The suite's size with what was chosen by hand."""
    for name, low, high in (
        ("nodes", 1, VALIDATORS_MAX),
        ("entries", 10, 10**7),
        ("patients", 10, 10**6),
        ("seconds", 0.1, 3_600),
        ("in_flight", 1, 1_024),
        ("batch", 1, 256),
    ):
        value = getattr(parsed, name)
        if value is not None and not low <= value <= high:
            flag = name.replace("_", "-")
            raise ConfigError(f"--{flag} {value} where {low} to {high} can be")
    if parsed.nodes is not None:
        engines = (parsed.engine,) if parsed.engine else ("bft", "raft")
        meshes = tuple((engine, parsed.nodes) for engine in engines)
        size = replace(size, nodes=parsed.nodes, meshes=meshes)
    elif parsed.engine is not None:
        size = replace(size, meshes=tuple(m for m in size.meshes if m[0] == parsed.engine))
    county = FULL_PATIENTS if parsed.names == ["records"] else size.patients
    return replace(
        size,
        patients=county if parsed.patients is None else parsed.patients,
        stored=size.stored if parsed.entries is None else parsed.entries,
        load_s=size.load_s if parsed.seconds is None else parsed.seconds,
        clients=size.clients if parsed.in_flight is None else parsed.in_flight,
        batch=size.batch if parsed.batch is None else parsed.batch,
    )


def _print(found: Report) -> None:
    """A table for people."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for name, value in found.conditions.to_json().items():
        console.print(f"{name.replace('_', ' '):<12} {value}", highlight=False)
    for name, results in found.results.items():
        table = Table(title=name, title_justify="left", expand=False)
        table.add_column("figure")
        for column in ("value", "limit", "share"):
            table.add_column(column, justify="right")
        for column in ("the limit is", "goal"):
            table.add_column(column)
        for result in results:
            table.add_row(
                result.name,
                f"{_figure(result.value)} {result.unit}",
                "" if result.limit is None else _figure(result.limit),
                "" if result.ratio is None else f"{result.ratio:.2f}",
                result.limit_name,
                result.goal,
            )
        console.print(table)
        for result in results:
            if result.details:
                told = ", ".join(
                    f"{key.replace('_', ' ')} {value}" for key, value in result.details.items()
                )
                console.print(f"  {result.name}: {told}", style="dim", highlight=False)


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
