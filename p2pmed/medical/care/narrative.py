"""What machines wrote, as text for people: XHTML that shows words and can do nothing.

Rule of this file: every character that came from a record is escaped, those that XML cannot
hold are dropped, and no attribute but the namespace is ever written. So nothing that somebody
wrote into a record becomes a link, a script or a picture in another one's reader. Pure.
Implements ``docs/protocols/summary.md``, clause 9 (FHIR R4, Narrative: ``txt-1``, ``txt-2``).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

__all__ = ["LINE_CHARS_MAX", "narrative", "plain_line"]

LINE_CHARS_MAX: Final = 240
_NAMESPACE: Final = '<div xmlns="http://www.w3.org/1999/xhtml">'
_ESCAPES: Final = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;"}


def plain_line(text: str) -> str:
    """One line of printable characters, at most ``LINE_CHARS_MAX``."""
    line = "".join(char for char in " ".join(text.split()) if char.isprintable())
    return line if len(line) <= LINE_CHARS_MAX else line[: LINE_CHARS_MAX - 1] + "…"


def narrative(lines: Iterable[str], *, empty: str) -> dict[str, str]:
    """A FHIR Narrative with one list item a line, or the sentence ``empty``."""
    items = "".join(f"<li>{_escaped(line)}</li>" for line in lines)
    inside = f"<ul>{items}</ul>" if items else f"<p>{_escaped(empty)}</p>"
    return {"status": "generated", "div": f"{_NAMESPACE}{inside}</div>"}


def _escaped(text: str) -> str:
    # Half of a surrogate pair is printable to Python and nothing to XML.
    whole = (char for char in plain_line(text) if not 0xD800 <= ord(char) <= 0xDFFF)
    return "".join(_ESCAPES.get(char, char) for char in whole)
