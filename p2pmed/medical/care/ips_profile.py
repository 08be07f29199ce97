"""Whether a FHIR document is an International Patient Summary, as far as IPS 2.0 demands elements.

Rule of this file: a table of what each profile demands, checked one by one; every fault names
its place, none its contents. Pure. Implements ``docs/protocols/summary.md``, clause 10 (HL7 IPS
2.0.0: Bundle-uv-ips, Composition-uv-ips, Patient-uv-ips and the profiles of the sections' entries;
FHIR R4, Bundle ``bdl-7``, ``bdl-9``, ``bdl-10``, ``bdl-11``).

What it does not check: bindings to code systems, and slices by profile.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from p2pmed.errors import InvalidTransaction
from p2pmed.medical.care.summary_document import SUMMARY
from p2pmed.medical.care.summary_sections import SECTIONS, codes_of
from p2pmed.medical.fhir_json import parse

__all__ = ["FAULTS_MAX", "profile_faults"]

FAULTS_MAX: Final = 100
DEMANDS: Final = {
    # A name that ends in [x] is a choice of types; one with a dot is looked for inside.
    "AllergyIntolerance": ("code", "patient.reference"),
    "Condition": ("code", "subject.reference"),
    "DeviceUseStatement": ("status", "subject.reference", "device"),
    "DiagnosticReport": ("status", "code", "subject.reference"),
    "Flag": ("status", "code", "subject.reference"),
    "Immunization": ("status", "vaccineCode", "patient.reference", "occurrence[x]"),
    "MedicationRequest": ("status", "intent", "medication[x]", "subject.reference"),
    "MedicationStatement": ("status", "medication[x]", "subject.reference", "effective[x]"),
    "Observation": ("status", "code", "subject.reference"),
    "Procedure": ("status", "code", "subject.reference", "performed[x]"),
}
COMPOSITION: Final = ("status", "type", "subject.reference", "date", "author", "title", "section")
BUNDLE: Final = ("identifier.system", "identifier.value", "timestamp", "entry")
PATIENT: Final = ("name", "birthDate")
TAKES: Final = {
    "11450-4": frozenset({"Condition"}),
    "48765-2": frozenset({"AllergyIntolerance"}),
    "10160-0": frozenset(
        {
            "MedicationStatement",
            "MedicationRequest",
            "MedicationAdministration",
            "MedicationDispense",
        }
    ),
    "11369-6": frozenset({"Immunization"}),
    "47519-4": frozenset({"Procedure"}),
    "46264-8": frozenset({"DeviceUseStatement"}),
    "30954-2": frozenset({"Observation", "DiagnosticReport", "DocumentReference"}),
    "8716-3": frozenset({"Observation"}),
    "11348-0": frozenset({"Condition"}),
    "10162-6": frozenset({"Observation"}),
    "29762-2": frozenset({"Observation"}),
}
"""By LOINC code of a section: types of its entries."""


def profile_faults(raw: bytes) -> list[str]:
    """What keeps ``raw`` from being a patient summary, at most ``FAULTS_MAX``; empty: it is one."""
    try:
        document = parse(raw, "document")
    except InvalidTransaction as error:
        return [str(error)]
    if not isinstance(document, dict) or document.get("resourceType") != "Bundle":
        return ["resourceType: not a Bundle"]
    found = []
    for fault in _faults(document):
        found.append(fault)
        if len(found) >= FAULTS_MAX:
            break
    return found


def _faults(document: dict[str, Any]) -> Iterator[str]:
    if document.get("type") != "document":
        yield "type: not document"
    yield from _lacking(document, BUNDLE, "")
    entries: dict[str, dict[str, Any]] = {}
    listed = [each for each in _list(document.get("entry")) if isinstance(each, dict)]
    for number, entry in enumerate(listed):
        url, resource = entry.get("fullUrl"), entry.get("resource")
        if not isinstance(url, str) or not isinstance(resource, dict):
            yield f"entry[{number}]: without fullUrl or resource"
        elif url in entries:
            yield f"entry[{number}].fullUrl: twice"
        else:
            entries[url] = resource
    head = listed[0].get("resource") if listed else None
    if not isinstance(head, dict) or head.get("resourceType") != "Composition":
        yield "entry[0].resource: not a Composition"
        return
    yield from _of_composition(head, entries)
    for number, entry in enumerate(listed):
        yield from _of_entry(entry, f"entry[{number}].resource", entries)


def _of_composition(head: dict[str, Any], entries: dict[str, dict[str, Any]]) -> Iterator[str]:
    yield from _lacking(head, COMPOSITION, "Composition.")
    if SUMMARY not in codes_of(head.get("type")):
        yield f"Composition.type: not {SUMMARY}"
    patient = _resolved(_inside(head, "subject.reference"), entries)
    if patient is None or patient.get("resourceType") != "Patient":
        yield "Composition.subject: no Patient of this document"
    else:
        yield from _lacking(patient, PATIENT, "Patient.")
    codes: list[str] = []
    for number, section in enumerate(_list(head.get("section"))):
        where = f"Composition.section[{number}]"
        if not isinstance(section, dict):
            yield f"{where}: not an object"
            continue
        yield from _lacking(section, ("title", "code", "text"), where + ".")
        codes += (found := codes_of(section.get("code")))
        yield from _of_section(section, found, where, entries)
    for wanted in SECTIONS:
        if wanted.required and wanted.loinc not in codes:
            yield f"Composition.section: none for {wanted.name} ({wanted.loinc})"


def _of_section(
    section: dict[str, Any], codes: list[str], where: str, entries: dict[str, dict[str, Any]]
) -> Iterator[str]:
    required = {each.loinc for each in SECTIONS if each.required}
    named, empty = _list(section.get("entry")), section.get("emptyReason")
    if named and empty is not None:
        yield f"{where}.emptyReason: although there are entries"
    if not named and empty is None and required.intersection(codes):
        yield f"{where}: neither entries nor emptyReason"
    takes = next((TAKES[code] for code in codes if code in TAKES), None)
    for number, reference in enumerate(named):
        name = reference.get("reference") if isinstance(reference, dict) else None
        found = _resolved(name, entries)
        if found is None:
            yield f"{where}.entry[{number}]: leads nowhere"
        elif takes is not None and found.get("resourceType") not in takes:
            yield f"{where}.entry[{number}]: not of a type that this section takes"


def _of_entry(
    entry: dict[str, Any], where: str, entries: dict[str, dict[str, Any]]
) -> Iterator[str]:
    resource = entry.get("resource")
    if not isinstance(resource, dict):
        return
    yield from _lacking(resource, DEMANDS.get(str(resource.get("resourceType")), ()), where + ".")
    for name in _references(resource):
        if name.startswith("urn:uuid:") and name not in entries:
            yield f"{where}: a reference that leads nowhere"


def _lacking(members: dict[str, Any], demands: tuple[str, ...], where: str) -> Iterator[str]:
    for demand in demands:
        if demand.endswith("[x]"):
            there = any(name.lstrip("_").startswith(demand[:-3]) for name in members)
        else:
            # A primitive may be said to be unknown beside its name (FHIR R4, 2.1.17).
            there = _inside(members, demand) not in (None, "", [], {}) or "_" + demand in members
        if not there:
            yield f"{where}{demand}: missing"


def _inside(members: dict[str, Any], path: str) -> Any:
    value: Any = members
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _resolved(name: Any, entries: dict[str, dict[str, Any]]) -> dict[str, Any] | None:
    """The entry that a reference leads to, by its full name or the end of it."""
    if not isinstance(name, str):
        return None
    if name in entries:
        return entries[name]
    relative = (url for url in entries if url.endswith("/" + name)) if "/" in name else iter(())
    url = next(relative, None)
    return entries[url] if url is not None else None


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        name = value.get("reference")
        if isinstance(name, str):
            yield name
        for item in value.values():
            yield from _references(item)
    elif isinstance(value, list):
        for item in value:
            yield from _references(item)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
