"""What patient summaries are made of: resources that stand, headings, and who put them together.

Rule of this file: values, and how a moment and a name of an entry are spelled. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from p2pmed.medical.care.summary_sections import Section
from p2pmed.wire.hashing import digest

__all__ = ["Heading", "Kept", "Maker", "day_of", "entry_url", "instant_of", "uuid_of"]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Kept:
    """A resource of the record that stands: neither retracted nor superseded."""

    record: bytes
    """Its transaction's id."""
    members: dict[str, Any]
    """As ``fhir_json.parse`` reads it: numbers keep their digits."""
    words: str
    """What it says in a line."""
    occurred_ms: int | None
    recorded_ms: int
    url: str = ""
    """The ``fullUrl`` it had in the document it came in, or empty."""
    marks: tuple[str, ...] = ()
    """What a reader must know of it."""

    @property
    def type(self) -> str:
        """The resource's type."""
        return str(self.members.get("resourceType", ""))

    @property
    def moment_ms(self) -> int:
        """When it happened, or was written down."""
        return self.recorded_ms if self.occurred_ms is None else self.occurred_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Maker:
    """Who put the summary together."""

    device: bytes
    name: str
    place: str


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Heading:
    """A section as people read it."""

    section: Section
    lines: tuple[str, ...]
    records: tuple[bytes, ...]
    left_out: int
    """Older results that are not in it."""


def entry_url(where: bytes, what: bytes) -> str:
    """The ``fullUrl`` of an entry, from what it is and whose."""
    return f"urn:uuid:{uuid_of(digest('summary entry', where + what))}"


def uuid_of(found: bytes) -> str:
    """A UUID of version 8 (RFC 9562, 5.8) from a hash."""
    raw = bytearray(found[:16])
    raw[6], raw[8] = raw[6] & 0x0F | 0x80, raw[8] & 0x3F | 0x80
    text = raw.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def _moment(moment_ms: int) -> datetime:
    # Within the calendar, whatever a clock said.
    bounded = min(max(moment_ms, -62_135_596_800_000), 253_402_300_799_000)
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=bounded)


def instant_of(moment_ms: int) -> str:
    """A FHIR instant in UTC, to the second."""
    moment = _moment(moment_ms)
    return f"{moment:%Y-%m-%dT%H:%M:%S}Z".rjust(20, "0")


def day_of(moment_ms: int) -> str:
    """A FHIR date in UTC."""
    return f"{_moment(moment_ms):%Y-%m-%d}".rjust(10, "0")
