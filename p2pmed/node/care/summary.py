"""Patient summaries on a node: put together from what this device may open, printed, signed.

Rule of this file: a summary says how many records were closed to who made it. What is retracted
or superseded is not in it; what is disputed, in conflict or provisional is, and says so.
``node.summaries``. Implements medical notes, section 1 rows 1 and 2, and
``docs/protocols/summary.md``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from p2pmed.errors import InvalidTransaction
from p2pmed.medical.care.summary import Summary, assemble, skeleton_urls
from p2pmed.medical.care.summary_code import code_of, print_code
from p2pmed.medical.care.summary_parts import Kept, Maker
from p2pmed.medical.care.timeline import Mark
from p2pmed.medical.fhir import SKELETON_TYPE
from p2pmed.medical.fhir_json import parse, spelled
from p2pmed.medical.membership import member
from p2pmed.node.care.timeline import TimelineItem
from p2pmed.node.fhir.describe import describe_person, describe_resource, is_directory

if TYPE_CHECKING:
    from p2pmed.node.node import Node

__all__ = ["PrintedSummary", "Summaries"]

SHOWN: Final = (Mark.DISPUTED, Mark.CONFLICT, Mark.CONTESTED, Mark.UNQUALIFIED)
"""Marks that a summary tells beside a line."""
GONE: Final = (Mark.RETRACTED, Mark.SUPERSEDED, Mark.REFUSED, Mark.FORKED)
"""Marks of what is in no summary."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class PrintedSummary:
    """A summary, and the signed text of its QR code."""

    summary: Summary
    code: str
    person: dict[str, str]
    """``name``, ``birth_date`` and ``gender``."""
    maker: Maker


class Summaries:
    """``node.summaries``."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def assemble(self, patient: bytes, *, made_ms: int | None = None) -> Summary:
        """The International Patient Summary of a person, linked pseudonyms together.

        The same records, opened by the same device, give the same bytes. Raises
        ``InvalidTransaction`` if the demographics are closed to this device. May be cancelled at
        any time.
        """
        items = await self._node.timelines.of(patient, person=True, bundles=True)
        urls: dict[bytes, str] = {}
        for item in items:
            if item.kind == SKELETON_TYPE and item.resource is not None:
                with contextlib.suppress(InvalidTransaction):  # another version's
                    urls |= skeleton_urls(item.resource)
        closed = sum(item.resource is None for item in items)
        kept = list(_kept(items, urls))
        return assemble(patient, kept, maker=self.maker(), closed=closed, made_ms=made_ms)

    async def printed(self, patient: bytes) -> PrintedSummary:
        """The summary with the signed text of its QR code. Raises as ``assemble``."""
        summary = await self.assemble(patient)
        person = describe_person(spelled(summary.patient))
        code = code_of(summary, network=self._node.network, person=person)
        text = print_code(code, seed=self._node.keys.signing_seed, signer=self._node.key)
        return PrintedSummary(summary=summary, code=text, person=person, maker=self.maker())

    def maker(self) -> Maker:
        """This device, by the name that its credential gives it."""
        me = member(self._node.state(), self._node.key)
        return Maker(
            device=self._node.key,
            name=me.name if me else self._node.key.hex()[:12],
            place=me.place if me else "",
        )


def _kept(items: Sequence[TimelineItem], urls: dict[bytes, str]) -> Iterable[Kept]:
    for item in items:
        raw = item.resource
        if raw is None or "/" in item.kind or is_directory(raw):
            continue
        if any(mark in item.marks for mark in GONE):
            continue
        yield Kept(
            record=item.id,
            members=parse(raw, "record"),
            words=describe_resource(raw),
            occurred_ms=item.occurred_ms,
            recorded_ms=item.recorded_ms,
            url=urls.get(item.id, ""),
            marks=tuple(mark.value for mark in item.marks if mark in SHOWN),
        )
