"""What the demonstration shows: a live table where there is a terminal, plain lines where not."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from p2pmed.cli.demo.stage import Actor
from p2pmed.medical.rejections import MEANINGS, Rejection

__all__ = ["Screen"]


class Screen:
    """Tells the story as it happens; silent with ``quiet``."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._began = time.monotonic()
        self._console = Console(file=sys.stderr if quiet else sys.stdout, highlight=False)
        self._live: Live | None = None

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._began

    def say(self, text: str) -> None:
        """One line of the story."""
        if self._quiet:
            return
        line = f"[dim]{self.seconds:5.1f} s[/dim]  {text}"
        self._console.print(line)

    def open(self) -> None:
        """Begin the live table, on a terminal."""
        if not self._quiet and self._console.is_terminal:
            self._live = Live(console=self._console, refresh_per_second=4, transient=True)
            self._live.start()

    def close(self) -> None:
        """End the live table."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def show(self, actors: Sequence[Actor]) -> None:
        """Bring the live table up to date."""
        if self._live is None:
            return
        table = Table(box=None, header_style="bold")
        for title in ("", "peers", "transactions", "not final", "height", "contradictions", ""):
            justify = "left" if title == "" else "right"
            table.add_column(title, justify=justify)  # type: ignore[arg-type]
        for actor in actors:
            status = actor.status
            table.add_row(
                actor.name,
                *(
                    str(status.get(name, "-"))
                    for name in ("peers", "entries", "pending", "height", "discrepancies")
                ),
                actor.note,
            )
        self._live.update(table)

    def finish(self, report: Mapping[str, Any], steps: Sequence[tuple[str, float]]) -> None:
        """The table a nurse would understand."""
        if self._quiet:
            return
        table = Table(title="what became of the records", title_justify="left")
        table.add_column("the way of a record")
        table.add_column("records", justify="right")
        table.add_row("written at a clinic", str(report["records_submitted"]))
        table.add_row("on the county's disk", str(report["records_stored"]))
        table.add_row("final in the village's ledger", str(report["records_final"]))
        table.add_row("anchored in the county's ledger", str(report["records_anchored"]))
        table.add_row("lost", _nothing(report["lost"]))
        table.add_row("nodes that disagree", _nothing(report["diverged"]))
        self._console.print(table)
        for found in report["contradictions"]:
            self._console.print(
                f"  contradiction: {_meaning(found['reason'])}: {found['first'][:12]} and "
                f"{found['second'][:12]} cannot both be right; people decide",
                soft_wrap=True,
            )
        times = Table(title="how long it took", title_justify="left", show_header=False, box=None)
        for name, seconds in steps:
            times.add_row(name, f"{seconds:.1f} s")
        self._console.print(times)
        self._console.print("to look further:\n  " + report["look_further"], soft_wrap=True)


def _meaning(reason: str) -> str:
    """A rejection in words."""
    try:
        return MEANINGS[Rejection(reason)].rstrip(".").lower()
    except (KeyError, ValueError):
        return reason


def _nothing(count: int) -> str:
    return "nothing" if count == 0 else str(count)
