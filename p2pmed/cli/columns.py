"""Rows for people: columns as wide as their widest value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

__all__ = ["columns", "verdict_lines", "when", "who"]


def columns(rows: Sequence[Sequence[Any]], *, empty: str) -> list[str]:
    """One line per row; ``empty`` if there is none."""
    if not rows:
        return [empty]
    texts = [["-" if value in (None, "") else str(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    return [
        "  ".join(value.ljust(width) for value, width in zip(row, widths, strict=True)).rstrip()
        for row in texts
    ]


def who(device: Mapping[str, Any] | None) -> str:
    """A device as its name and place, or the first digits of its key."""
    if not device or not device.get("device"):
        return "?"
    name = device.get("name") or str(device["device"])[:12]
    return f"{name} ({device['place']})" if device.get("place") else str(name)


def when(wall_ms: int | None) -> str:
    """A moment in UTC, to the minute."""
    if wall_ms is None:
        return "?"
    try:
        return datetime.fromtimestamp(wall_ms / 1_000, UTC).strftime("%Y-%m-%d %H:%M")
    except (OverflowError, OSError, ValueError):
        return "?"


def verdict_lines(answer: Mapping[str, Any]) -> list[str]:
    """What became of a transaction that was written."""
    if answer["verdict"] == "applied":
        return [f"{answer['level']}  {answer['id']}"]
    lines = [f"refused: {answer['verdict']}. {answer['meaning']}", f"it is kept as {answer['id']}"]
    if answer.get("contradicts"):
        lines.append(f"it contradicts {answer['contradicts']}")
    return lines
