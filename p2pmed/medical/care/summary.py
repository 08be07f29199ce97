"""The International Patient Summary of a record: one FHIR document, made of what the ledger has.

Rule of this file: resources go in as they are; only references are rewritten, so that all of
them lead to entries of the document, and what IPS demands and a record does not say is said to
be unknown. What a heading takes, and all that it leads to, is in the document; bills are not.
The same records give the same bytes. Pure. Implements medical notes, section 1 row 1 (HL7 IPS
2.0 on FHIR R4), and ``docs/protocols/summary.md``, clauses 1 to 9.

What it does not do: judge. An old diagnosis that nobody closed is a problem in the list.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from p2pmed.errors import InvalidTransaction
from p2pmed.medical.care.narrative import plain_line
from p2pmed.medical.care.summary_document import Writer, is_earlier
from p2pmed.medical.care.summary_parts import Heading, Kept, Maker, day_of
from p2pmed.medical.care.summary_sections import SECTIONS, newest_of_each, section_of
from p2pmed.medical.fhir import read_skeleton
from p2pmed.medical.fhir_json import parse

__all__ = ["Heading", "Kept", "Maker", "Summary", "assemble", "skeleton_urls"]

BILLS: Final = frozenset(
    {
        *("Account", "Bundle", "ChargeItem", "Claim", "ClaimResponse", "Coverage"),
        *("ExplanationOfBenefit", "Invoice", "PaymentNotice", "PaymentReconciliation"),
    }
)
"""Types that are never drawn in by a reference."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Summary:
    """A patient summary."""

    document: bytes
    """The FHIR document, a Bundle in its one spelling."""
    made_ms: int
    """As of when: the newest record in it, unless the caller said otherwise."""
    patient: dict[str, Any]
    headings: tuple[Heading, ...]
    closed: int
    """Records that the maker may not open."""


def skeleton_urls(raw: bytes) -> dict[bytes, str]:
    """By record: the ``fullUrl`` in the document that an import took apart.

    Raises ``InvalidTransaction`` if it is no skeleton.
    """
    skeleton = read_skeleton(raw)
    document = parse("null".join(skeleton.pieces), "skeleton")
    entries = document.get("entry", []) if isinstance(document, dict) else []
    urls = [entry.get("fullUrl", "") for entry in entries if "resource" in entry]
    return dict(zip(skeleton.record_ids, map(str, urls), strict=False))


def assemble(
    pseudonym: bytes,
    kept: Sequence[Kept],
    *,
    maker: Maker,
    closed: int = 0,
    made_ms: int | None = None,
) -> Summary:
    """The summary of a person: ``kept`` in causal order, with a Patient among them.

    Raises ``InvalidTransaction`` if there is no Patient.
    """
    patients = [each for each in kept if each.type == "Patient"]
    if not patients:
        raise InvalidTransaction(
            "a summary needs the patient's demographics", hint="ask the patient for a grant of them"
        )
    patient = patients[-1]
    document = _Document(pseudonym, patient, kept, maker, closed)
    headings = tuple(document.headings())
    newest = max(each.recorded_ms for each in kept)
    made = newest if made_ms is None else made_ms
    return Summary(
        document=document.written(headings, made),
        made_ms=made,
        patient=patient.members,
        headings=headings,
        closed=closed,
    )


@dataclass(slots=True)
class _Document:
    """One summary being put together."""

    pseudonym: bytes
    patient: Kept
    kept: Sequence[Kept]
    maker: Maker
    closed: int
    named: dict[str, Kept] = field(default_factory=dict)
    """What a reference may call a resource."""

    def __post_init__(self) -> None:
        for each in self.kept:
            for name in _names(each):
                self.named[name] = self.patient if each.type == "Patient" else each
        for name in (f"Patient/{self.pseudonym.hex()}", f"urn:p2pmed:{self.pseudonym.hex()}"):
            self.named[name] = self.patient

    def headings(self) -> Iterator[Heading]:
        """Every section that has something, or must stand."""
        placed: dict[str, list[Kept]] = {}
        for each in self.kept:
            placed.setdefault(section_of(each.members), []).append(each)
        for section in SECTIONS:
            found, left_out = newest_of_each(placed.get(section.name, []))
            found.sort(key=lambda each: each.moment_ms, reverse=True)  # stable: then causal
            if found or section.required:
                yield Heading(
                    section=section,
                    lines=tuple(self._line(each) for each in found),
                    records=tuple(each.record for each in found),
                    left_out=left_out,
                )

    def _line(self, each: Kept) -> str:
        words = each.words or self._led_to(each)
        date = day_of(each.occurred_ms) if each.occurred_ms is not None else ""
        marks = f"[{', '.join(each.marks)}]" if each.marks else ""
        return plain_line(" ".join(filter(None, (date, words or each.type, marks))))

    def _led_to(self, each: Kept) -> str:
        """The words of what a resource without words of its own points to: a medicine, a device."""
        for member in ("medicationReference", "device"):
            value = each.members.get(member)
            name = value.get("reference") if isinstance(value, dict) else None
            if isinstance(name, str) and name in self.named:
                return self.named[name].words
        return ""

    def _drawn_in(self, headings: Sequence[Heading]) -> list[Kept]:
        """What the headings name and all that it leads to, in causal order."""
        by_record = {each.record: each for each in self.kept}
        chosen = {self.patient.record: None}
        chosen |= dict.fromkeys(record for heading in headings for record in heading.records)
        chosen |= dict.fromkeys(each.record for each in self._earlier())
        reached = list(chosen)
        for record in reached:
            for name in _references(by_record[record].members):
                found = self.named.get(name)
                if found is not None and found.record not in chosen and found.type not in BILLS:
                    chosen[found.record] = None
                    reached.append(found.record)
        return [each for each in self.kept if each.record in chosen]

    def _earlier(self) -> list[Kept]:
        """Summaries that came in as documents."""
        return [each for each in self.kept if is_earlier(each)]

    def written(self, headings: Sequence[Heading], made_ms: int) -> bytes:
        """The document."""
        writer = Writer(
            pseudonym=self.pseudonym,
            patient=self.patient,
            named=self.named,
            maker=self.maker,
            closed=self.closed,
        )
        return writer.document(headings, self._drawn_in(headings), made_ms)


def _names(each: Kept) -> Iterator[str]:
    """What others may call a resource."""
    if each.url:
        yield each.url
    name = each.members.get("id")
    if isinstance(name, str) and name:
        yield f"{each.type}/{name}"
        yield f"urn:uuid:{name}"


def _references(value: Any) -> Iterator[str]:
    """Every reference in a resource, in order."""
    if isinstance(value, dict):
        name = value.get("reference")
        if isinstance(name, str):
            yield name
        for item in value.values():
            yield from _references(item)
    elif isinstance(value, list):
        for item in value:
            yield from _references(item)
