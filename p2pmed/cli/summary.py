"""``p2pmed patient summary | amend | retract | dispute | disputes | answer``."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from p2pmed.cli.card import add_card, card_values, check_output, write_code
from p2pmed.cli.columns import columns, verdict_lines
from p2pmed.cli.session import ask_node, show
from p2pmed.errors import ConfigError

__all__ = ["add_summary", "code_lines"]

FILE_BYTES_MAX: Final = 512 * 1024


def add_summary(verbs: Any, verb: Callable[..., argparse.ArgumentParser]) -> None:
    """Declare the commands; ``verb`` makes one."""
    example = " 3f2a --ips wang.json --pdf wang.pdf"
    parser = verb(verbs, "summary", "the patient's summary, as FHIR and on paper", example, _make)
    _patient(parser)
    parser.add_argument(
        "--ips", type=Path, metavar="FILE", help="the International Patient Summary (FHIR JSON)"
    )
    parser.add_argument("--pdf", type=Path, metavar="FILE", help="a sheet with the signed code")
    parser.add_argument("--qr", type=Path, metavar="FILE", help="the code: .svg, .png, .txt, or -")
    parser.add_argument(
        "--font", type=Path, metavar="FILE", help="a TrueType font to embed, for --pdf"
    )
    example = " 3f2a 77c0 visit.json --reason typing-error"
    parser = verb(verbs, "amend", "put a new version in a record's place", example, _amend)
    _record(parser)
    parser.add_argument("file", type=Path, help="the FHIR resource as JSON")
    _reason(parser)
    example = " 3f2a 77c0 --reason wrong-patient"
    text = "say that a record should not have been written"
    _reason(_record(verb(verbs, "retract", text, example, _retract)))
    example = " --card wang.txt 77c0 --words 'I never took this drug'"
    parser = verb(verbs, "dispute", "the patient questions a record", example, _dispute)
    parser.add_argument("record", help="first digits of the record")
    parser.add_argument("--words", required=True, help="what is wrong with it; sealed")
    parser.add_argument("--ward", default="", help="the patient, if the card is a guardian's")
    parser.add_argument("--delegation", metavar="HEX", help="by which the guardian acts")
    add_card(parser)
    _wait(parser)
    listed = verb(verbs, "disputes", "what patients question, by age", "", _disputes)
    listed.add_argument("patient", nargs="?", default="", help="of this one, answered ones too")
    example = " 5ac1 --words 'the pharmacy confirms it'"
    parser = verb(verbs, "answer", "answer a dispute in words", example, _answer)
    parser.add_argument("dispute", help="first digits of the dispute")
    parser.add_argument("--words", required=True, help="sealed")
    _wait(parser)


def _patient(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("patient", help="first digits of the pseudonym")
    return parser


def _record(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    _patient(parser).add_argument("record", help="first digits of the record")
    return parser


def _reason(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--reason", required=True, help="a code, such as typing-error")
    parser.add_argument("--dispute", default="", help="first digits of the dispute it settles")
    _wait(parser)


def _wait(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--wait", type=int, default=0, metavar="S", help="wait for finality")


# --- summaries ------------------------------------------------------------------------------


def _make(parsed: argparse.Namespace) -> int:
    for path in (parsed.ips, parsed.pdf):
        if path is not None and path.exists():
            raise ConfigError(f"{path} exists already", hint="name a new file")
    if parsed.qr is not None:
        check_output(parsed.qr)
    answer = ask_node(parsed, "summary.make", {"patient": parsed.patient})
    if parsed.ips is not None:
        _write(parsed.ips, str(answer["document"]).encode())
    if parsed.pdf is not None:
        _write(parsed.pdf, _sheet(answer, parsed.font))
    if parsed.qr is not None:
        write_code(parsed.qr, str(answer["code"]))
    if parsed.ips or parsed.pdf or parsed.qr:
        answer = {name: value for name, value in answer.items() if name != "document"}
    return show(parsed, answer, lines=_summary_lines)


def _sheet(answer: Mapping[str, Any], font: Path | None) -> bytes:
    from p2pmed.node.care.printing import Sheet, print_sheet

    return print_sheet(
        Sheet(
            person=answer["person"],
            made_ms=answer["made_ms"],
            maker=answer["maker"],
            headings=[(each["title"], _shown(each)) for each in answer["headings"]],
            notes=_notes(answer),
            code=answer["code"],
        ),
        font=font,
    )


def _write(path: Path, contents: bytes) -> None:
    from p2pmed.node.new_file import NewFile

    with NewFile(path) as file:
        file.write(contents)
        file.keep()


def _shown(heading: Mapping[str, Any]) -> list[str]:
    more = [f"and {heading['left_out']} older ones"] if heading["left_out"] else []
    return [*heading["lines"], *more]


def _notes(answer: Mapping[str, Any]) -> list[str]:
    closed = answer["closed"]
    return [f"{closed} records are closed to who made this and not in it."] if closed else []


def _summary_lines(answer: Mapping[str, Any]) -> list[str]:
    person = answer["person"]
    lines = [" ".join(filter(None, (person["name"], person["birth_date"], person["gender"])))]
    for heading in answer["headings"]:
        lines += [heading["title"], *(f"  {line}" for line in _shown(heading) or ["nothing here"])]
    lines += _notes(answer)
    return [*lines, *(f"not as IPS demands: {fault}" for fault in answer["faults"])]


def code_lines(answer: Mapping[str, Any]) -> list[str]:
    """What a checked code says, for people."""
    head = " ".join(filter(None, (answer["name"], answer["birth_date"], answer["gender"])))
    lines = [f"{head}, as of {answer['as_of']}"]
    for name in ("allergies", "medications", "problems", "immunizations"):
        lines += [name, *(f"  {line}" for line in answer[name] or ["nothing here"])]
    if answer["left_out"]:
        lines.append(f"{answer['left_out']} more lines are in the whole summary only")
    return lines


# --- records and disputes -------------------------------------------------------------------


def _amend(parsed: argparse.Namespace) -> int:
    with parsed.file.open("rb") as file:
        raw = file.read(FILE_BYTES_MAX + 1)
    if len(raw) > FILE_BYTES_MAX:
        raise ConfigError(f"{parsed.file} is longer than {FILE_BYTES_MAX} bytes")
    values = {**_target(parsed), "fhir": raw.decode("utf-8", "replace")}
    return _finish(parsed, ask_node(parsed, "patient.amend", values))


def _retract(parsed: argparse.Namespace) -> int:
    return _finish(parsed, ask_node(parsed, "patient.retract", _target(parsed)))


def _target(parsed: argparse.Namespace) -> dict[str, Any]:
    return {
        "patient": parsed.patient,
        "record": parsed.record,
        "reason": parsed.reason,
        "dispute": parsed.dispute,
        "wait_s": parsed.wait,
    }


def _dispute(parsed: argparse.Namespace) -> int:
    values = {
        "record": parsed.record,
        "words": parsed.words,
        "patient": parsed.ward,
        "delegation": parsed.delegation,
        **card_values(parsed),
        "wait_s": parsed.wait,
    }
    return _finish(parsed, ask_node(parsed, "dispute.raise", values))


def _answer(parsed: argparse.Namespace) -> int:
    values = {"dispute": parsed.dispute, "words": parsed.words, "wait_s": parsed.wait}
    return _finish(parsed, ask_node(parsed, "dispute.answer", values))


def _finish(parsed: argparse.Namespace, answer: Mapping[str, Any]) -> int:
    show(parsed, answer, lines=verdict_lines)
    return 0 if answer["verdict"] == "applied" else 1


def _disputes(parsed: argparse.Namespace) -> int:
    answer = ask_node(parsed, "dispute.list", {"patient": parsed.patient})
    return show(parsed, answer, lines=_dispute_lines)


def _dispute_lines(answer: Mapping[str, Any]) -> list[str]:
    rows = [
        (
            row["dispute"][:12],
            row["patient"][:12],
            row["record"][:12],
            f"open for {row['days']} days" if row["open"] else f"answered in {row['days']} days",
            f"by the {row['by']}",
            "(closed)" if row["words"] is None else row["words"],
        )
        for row in answer["disputes"]
    ]
    return columns(rows, empty="nothing is disputed")
