"""How a patient summary is spelled: a FHIR document whose references all lead somewhere.

Rule of this file: a resource stays as it is, but for its references and for what IPS demands and
it does not say. Pure. Implements ``docs/protocols/summary.md``, clauses 1 to 4 and 9.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from p2pmed.medical.care.narrative import narrative
from p2pmed.medical.care.summary_parts import (
    Heading,
    Kept,
    Maker,
    day_of,
    entry_url,
    instant_of,
    uuid_of,
)
from p2pmed.medical.care.summary_sections import codes_of
from p2pmed.medical.fhir_json import spelled
from p2pmed.wire.hashing import digest

__all__ = ["SUMMARY", "Writer", "is_earlier"]

SUMMARY: Final = "60591-5"
"""LOINC: a patient summary."""
PROFILE: Final = "http://hl7.org/fhir/uv/ips/StructureDefinition/"
TERMINOLOGY: Final = "http://terminology.hl7.org/CodeSystem/"
ABSENT: Final = {
    "extension": [
        {
            "url": "http://hl7.org/fhir/StructureDefinition/data-absent-reason",
            "valueCode": "unknown",
        }
    ]
}
DEMANDED: Final = {
    "Patient": ("birthDate", "birthDate"),
    "MedicationStatement": ("effective", "effectiveDateTime"),
    "Procedure": ("performed", "performedDateTime"),
    "Observation": ("effective", "effectiveDateTime"),
}
"""By type: the start of a member that IPS demands, and the one that is said to be unknown."""
SUBJECT: Final = {
    "AllergyIntolerance": "patient",
    "Immunization": "patient",
    "CarePlan": "subject",
    "Condition": "subject",
    "DeviceUseStatement": "subject",
    "DiagnosticReport": "subject",
    "Flag": "subject",
    "MedicationRequest": "subject",
    "MedicationStatement": "subject",
    "Observation": "subject",
    "Procedure": "subject",
}


def is_earlier(each: Kept) -> bool:
    """Whether it is the head of a summary that came in as a document."""
    return each.type == "Composition" and SUMMARY in codes_of(each.members.get("type"))


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Writer:
    """Spells the summaries of one patient."""

    pseudonym: bytes
    patient: Kept
    named: Mapping[str, Kept]
    """What a reference may call a resource."""
    maker: Maker
    closed: int

    def document(self, headings: Sequence[Heading], drawn: Sequence[Kept], made_ms: int) -> bytes:
        """The document: the headings' composition, what is ``drawn`` in, and who made it."""
        urls = {each.record: entry_url(self.pseudonym, each.record) for each in drawn}
        seed = b"".join((self.pseudonym, self.maker.device, *urls))
        name = uuid_of(digest("summary", seed + made_ms.to_bytes(8, "big", signed=True)))
        device, place = (
            entry_url(self.maker.device, what) for what in (b"device", self.maker.place.encode())
        )
        own = [
            (device, self._device(place)),
            (place, {"resourceType": "Organization", "name": self.maker.place or "unnamed"}),
        ]
        earlier = [urls[each.record] for each in drawn if is_earlier(each)]
        composition = self._composition(headings, urls, made_ms, (device, place))
        if earlier:
            composition["relatesTo"] = [
                {"code": "transforms", "targetReference": {"reference": url}} for url in earlier
            ]
        entries = [(f"urn:uuid:{uuid_of(digest('composition', name.encode()))}", composition)]
        entries += [(urls[each.record], self._rewritten(each, urls)) for each in drawn]
        document = {
            "resourceType": "Bundle",
            "meta": {"profile": [PROFILE + "Bundle-uv-ips"]},
            "identifier": {"system": "urn:ietf:rfc:3986", "value": f"urn:uuid:{name}"},
            "type": "document",
            "timestamp": instant_of(made_ms),
            "entry": [{"fullUrl": url, "resource": made} for url, made in entries + own],
        }
        return spelled(document)

    def _device(self, place: str) -> dict[str, Any]:
        return {
            "resourceType": "Device",
            "identifier": [{"system": "urn:p2pmed:device", "value": self.maker.device.hex()}],
            "deviceName": [{"name": self.maker.name, "type": "user-friendly-name"}],
            "owner": {"reference": place},
        }

    def _composition(
        self,
        headings: Sequence[Heading],
        urls: dict[bytes, str],
        made_ms: int,
        by: tuple[str, str],
    ) -> dict[str, Any]:
        return {
            "resourceType": "Composition",
            "meta": {"profile": [PROFILE + "Composition-uv-ips"]},
            "status": "final",
            "type": {"coding": [{"system": "http://loinc.org", "code": SUMMARY}]},
            "subject": {"reference": urls[self.patient.record]},
            "date": instant_of(made_ms),
            "author": [{"reference": by[0]}],
            "title": f"Patient summary as of {day_of(made_ms)}",
            "confidentiality": "N",
            "custodian": {"reference": by[1]},
            "section": [self._section(heading, urls) for heading in headings],
        }

    def _section(self, heading: Heading, urls: dict[bytes, str]) -> dict[str, Any]:
        section = heading.section
        made: dict[str, Any] = {
            "title": section.title,
            "code": {"coding": [{"system": "http://loinc.org", "code": section.loinc}]},
        }
        lines = list(heading.lines)
        if heading.left_out:
            lines.append(f"and {heading.left_out} older ones that are not in this summary")
        if heading.records:
            made["entry"] = [{"reference": urls[record]} for record in heading.records]
            made["text"] = narrative(lines, empty="")
            return made
        # A record that says nothing is no statement that there is nothing.
        code, why = (
            ("withheld", "not open to who made this summary")
            if self.closed
            else (
                "unavailable",
                "not in the records at hand",
            )
        )
        coding = {"system": TERMINOLOGY + "list-empty-reason", "code": code}
        made["emptyReason"] = {"coding": [coding]}
        made["text"] = narrative((), empty=f"{section.title}: {why}.")
        return made

    def _rewritten(self, each: Kept, urls: dict[bytes, str]) -> dict[str, Any]:
        """A resource with its references led to entries, and what IPS demands."""
        made = {
            name: value if name == "contained" else self._led(value, urls)
            for name, value in each.members.items()
        }
        start, member = DEMANDED.get(each.type, ("", ""))
        if start and not any(name.lstrip("_").startswith(start) for name in made):
            made["_" + member] = ABSENT
        about = SUBJECT.get(each.type)
        value = made.get(about, {}) if about else None
        if about and isinstance(value, dict) and "reference" not in value:
            made[about] = {**value, "reference": urls[self.patient.record]}
        return made

    def _led(self, value: Any, urls: dict[bytes, str]) -> Any:
        if isinstance(value, list):
            return [self._led(item, urls) for item in value]
        if not isinstance(value, dict):
            return value
        made = {name: self._led(item, urls) for name, item in value.items()}
        name = value.get("reference")
        found = self.named.get(name) if isinstance(name, str) else None
        if found is not None and found.record in urls:
            made["reference"] = urls[found.record]
        return made
