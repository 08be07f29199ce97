"""The signed least of a record, for paper: one QR code that anybody can check without a network.

Rule of this file: it holds what a stranger needs who treats this patient tomorrow, and the hash
of the whole summary it was printed with; no key, no pseudonym, nothing that opens anything. The
text is ``P2PS1:`` and a COSE_Sign1 message in base45, as EU certificates are; it names its
network, so that a checker needs this text alone to say which device signed it. Whether that
device is a member, the manifest and a node tell. Pure. Implements ``docs/protocols/summary.md``,
clauses 11 to 15.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Final

import msgspec

from p2pmed.errors import DecodeError
from p2pmed.medical.care.narrative import plain_line
from p2pmed.medical.care.summary import Summary
from p2pmed.medical.care.summary_parts import day_of
from p2pmed.wire import base45, codec, cose
from p2pmed.wire.codec import Bytes32, Wire
from p2pmed.wire.hashing import digest

__all__ = [
    "CODE_CHARS_MAX",
    "CODE_PREFIX",
    "CheckedCode",
    "SummaryCode",
    "code_of",
    "described",
    "document_digest",
    "parse_code",
    "print_code",
]

CODE_PREFIX: Final = "P2PS1:"
CODE_CHARS_MAX: Final = 2_000
"""A QR code of version 31 at level M, six to nine cm on paper: what a telephone still reads."""
CODE_DOMAIN: Final = "summary"
LINES_MAX: Final = 8
PAYLOAD_BYTES_MAX: Final = 1_200
DAY_MS: Final = 86_400_000

Line = Annotated[str, msgspec.Meta(min_length=1, max_length=60)]
Lines = Annotated[tuple[Line, ...], msgspec.Meta(max_length=LINES_MAX)]


class SummaryCode(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What is signed."""

    version: Annotated[int, msgspec.Meta(ge=1, le=1)]
    network: Bytes32
    made: Annotated[int, msgspec.Meta(ge=0, le=200_000)]
    """Day since 1970-01-01 of the newest record in it."""
    name: Annotated[str, msgspec.Meta(max_length=80)]
    birth: Annotated[str, msgspec.Meta(max_length=10)]
    gender: Annotated[str, msgspec.Meta(max_length=10)]
    allergies: Lines
    medications: Lines
    problems: Lines
    immunizations: Lines
    left_out: Annotated[int, msgspec.Meta(ge=0, le=100_000)]
    """Lines of these headings that had no room."""
    document: Bytes32
    """``document_digest`` of the FHIR document it was made with."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class CheckedCode:
    """A code whose signature holds."""

    code: SummaryCode
    signer: bytes
    """Device key (32 bytes); who that is, is up to the reader."""


def document_digest(document: bytes) -> bytes:
    """What ties a printed code to the FHIR document (its bytes as written): 32 bytes."""
    return digest("summary document", document)


def code_of(summary: Summary, *, network: bytes, person: dict[str, str]) -> SummaryCode:
    """The least of a summary; ``person`` has ``name``, ``birth_date`` and ``gender``.

    Lines are cut, and the last ones left out and counted, until it fits: vaccines first, then
    problems, medicines and allergies last.
    """
    lines = {each.section.name: list(each.lines) for each in summary.headings}
    shown = {name: lines.get(name, [])[:LINES_MAX] for name in _HEADINGS}
    while True:
        total = sum(len(lines.get(name, [])) for name in _HEADINGS)
        code = SummaryCode(
            version=1,
            network=network,
            made=max(0, min(summary.made_ms // DAY_MS, 200_000)),
            name=_cut(person["name"], 80),
            birth=_cut(person["birth_date"], 10),
            gender=_cut(person["gender"], 10),
            **{name: tuple(_cut(line, 60) for line in shown[name]) for name in _HEADINGS},
            left_out=min(total - sum(map(len, shown.values())), 100_000),
            document=document_digest(summary.document),
        )
        longest = next((name for name in _HEADINGS if len(shown[name]) > 1), None)
        if len(codec.encode(code)) <= PAYLOAD_BYTES_MAX or longest is None:
            return code
        shown[longest].pop()


_HEADINGS: Final = ("immunizations", "problems", "medications", "allergies")
"""In the order in which room is made."""


def _cut(text: str, length: int) -> str:
    line = plain_line(text)
    return (line if len(line) <= length else line[: length - 1] + "…") or "-"


def print_code(code: SummaryCode, *, seed: bytes, signer: bytes) -> str:
    """The text of the QR code, signed by the device ``signer`` with its ``seed``."""
    external = cose.external_data(CODE_DOMAIN, code.network)
    signed = cose.sign(codec.encode(code), seed=seed, signer=signer, external=external)
    return CODE_PREFIX + base45.encode(signed)


def parse_code(text: str) -> CheckedCode:
    """A scanned code. Raises ``DecodeError`` if it is none, too long, or altered."""
    spelled = text.strip(" \r\n\t")
    if len(spelled) > CODE_CHARS_MAX or not spelled.startswith(CODE_PREFIX):
        raise DecodeError(
            f"not a code that begins with {CODE_PREFIX} and has up to {CODE_CHARS_MAX} characters"
        )
    raw = base45.decode(spelled.removeprefix(CODE_PREFIX))
    # The network stands in what is signed: it is read first, and believed after the check.
    code = codec.decode(cose.open_signed(raw, external=b"").payload, SummaryCode)
    external = cose.external_data(CODE_DOMAIN, code.network)
    signed = cose.open_signed(raw, external=external)
    if not cose.verify(signed.signer, signed.signature, signed.to_be_signed):
        raise DecodeError("a summary code that was altered, or that nobody signed")
    return CheckedCode(code=code, signer=signed.signer)


def described(code: SummaryCode) -> dict[str, Any]:
    """A code's contents as plain values."""
    return {
        "as_of": day_of(code.made * DAY_MS),
        "name": code.name,
        "birth_date": code.birth,
        "gender": code.gender,
        **{name: list(getattr(code, name)) for name in _HEADINGS},
        "left_out": code.left_out,
        "document": code.document.hex(),
    }
