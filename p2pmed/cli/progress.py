"""Progress of a long operation on standard error: a bar on a terminal, else a line now and then.

``show`` prints the answer on standard output, so that a pipe gets the answer alone.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

__all__ = ["progress_bar"]

LINE_S: Final = 5.0
"""Between two lines where there is no terminal."""

Report = Callable[[dict[str, Any]], None]


@contextmanager
def progress_bar(*, quiet: bool) -> Iterator[Report]:
    """What takes progress: ``done``, ``of``, ``what`` and any other figures."""
    if quiet:
        yield lambda progress: None
    elif sys.stderr.isatty():
        with _bar() as report:
            yield report
    else:
        yield _Lines()


@contextmanager
def _bar() -> Iterator[Report]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None, figures="")

        def report(progress: dict[str, Any]) -> None:
            bar.update(
                task,
                description=str(progress.get("what", "")),
                completed=progress.get("done", 0),
                total=progress.get("of"),
                figures=_figures(progress),
            )

        yield report


class _Lines:
    def __init__(self) -> None:
        self._last = time.monotonic()

    def __call__(self, progress: dict[str, Any]) -> None:
        now = time.monotonic()
        if now - self._last < LINE_S:
            return
        self._last = now
        done, of, what = (progress.get(name, "") for name in ("done", "of", "what"))
        print(f"{done} of {of} {what}  {_figures(progress)}", file=sys.stderr, flush=True)


def _figures(progress: dict[str, Any]) -> str:
    rest = {name: value for name, value in progress.items() if name not in ("done", "of", "what")}
    return "  ".join(f"{value} {_UNITS.get(name, name)}" for name, value in rest.items())


_UNITS: Final = {
    "bytes_per_resource": "bytes each",
    "resources_per_s": "resources/s",
    "seconds": "s",
}
