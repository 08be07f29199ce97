"""``p2pmed mesh``: found, follow and see a ledger, and change who votes in it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import Any, Final

from p2pmed.cli.session import add_home, ask_node, command, show

__all__ = ["add"]

RESUME_WARNING: Final = """\
Let a home that was restored from a backup, or copied, vote again.

A restored home has forgotten every vote that it gave after the backup was made.
Voting twice can fork the ledger for good, and makes this device provably guilty.
Until this command it records and reads, but neither votes nor founds. In a BFT mesh it
recovers alone, and then stays silent for a few views; when several homes were lost within
one view nothing may become final any more, until you say this of as many as a quorum lacks.

Before you give it:
  * make sure that no other copy of this home runs, now or ever again;
  * start the node, let it meet the others of its mesh, and wait until the height that
    `p2pmed mesh status` shows is theirs and new transactions become final without it.

If the lost device cannot be found, or its disk may be in other hands, do not resume:
enrol a new device, and have the old one's credential revoked."""


def add(commands: Any) -> None:
    """Declare the commands."""
    group = commands.add_parser(
        "mesh", help="found, follow and see a mesh's ledger; change who votes"
    )
    verbs = group.add_subparsers(title="verbs", metavar="VERB", required=True)
    found = command(
        verbs,
        "found",
        help="found a ledger with devices in sight, or alone",
        example="p2pmed mesh found --home clinic-a 46f6 bc26 39b4 --engine bft",
    )
    add_home(found)
    found.add_argument("members", nargs="*", help="first digits of keys that `peers` shows")
    found.add_argument("--engine", choices=("bft", "raft"), default="bft")
    found.add_argument("--name", default="mesh")
    found.add_argument(
        "--patience", type=int, default=300, metavar="S", help="wait so long for the others"
    )
    found.add_argument(
        "--successor-of",
        default="",
        metavar="LEDGER",
        help="follow this home ledger, whose quorum is gone for good",
    )
    found.set_defaults(run=_found)
    _add_answers(verbs)
    _add_seats(verbs)
    status = command(
        verbs,
        "status",
        help="epoch, seats, learners, height",
        example="p2pmed mesh status --home clinic-a",
    )
    add_home(status)
    status.set_defaults(run=_status)
    resume = command(
        verbs,
        "resume",
        help="let a home that was restored from a backup vote again",
        example="p2pmed mesh resume --home clinic-a",
    )
    resume.description = RESUME_WARNING
    add_home(resume)
    resume.set_defaults(run=_resume)


def _add_answers(verbs: Any) -> None:
    """The commands about what others founded."""
    offers = command(
        verbs,
        "offers",
        help="foundings that others offered to this node",
        example="p2pmed mesh offers --home clinic-b",
    )
    add_home(offers)
    offers.set_defaults(run=_offers)
    accept = command(
        verbs,
        "accept",
        help="sign a founding that another device offered",
        example="p2pmed mesh accept --home clinic-b 46f6",
    )
    add_home(accept)
    accept.add_argument("proposer", help="first digits of the key that `mesh offers` shows")
    accept.set_defaults(run=_accept)
    follow = command(
        verbs,
        "follow",
        help="live in a known ledger without a seat",
        example="p2pmed mesh follow --home insurer 5512f2",
    )
    add_home(follow)
    follow.add_argument("ledger", help="first digits of the ledger's id")
    follow.set_defaults(run=_follow)


def _add_seats(verbs: Any) -> None:
    """The commands that change who votes."""
    join = command(
        verbs,
        "join",
        help="follow a ledger, catch up, and be willing to have a seat in it",
        example="p2pmed mesh join --home clinic-d 5512f2 --wait 10",
    )
    join.add_argument("ledger", nargs="?", default="", help="first digits of the ledger's id")
    join.add_argument(
        "--patience", type=int, default=60, metavar="S", help="wait so long to catch up"
    )
    _written(join, _join)
    leave = command(
        verbs,
        "leave",
        help="give the own seat back",
        example="p2pmed mesh leave --home clinic-d --wait 10",
    )
    _written(leave, _leave)
    for verb, what in (("add", "give a seat to who joined"), ("remove", "take a seat")):
        one = command(verbs, verb, help=what, example=f"p2pmed mesh {verb} --home clinic-a b1e2")
        one.add_argument("devices", nargs="+", metavar="DEVICE", help="names or first digits")
        one.add_argument("--liars", type=int, help="how many may lie from then on")
        _written(one, _add if verb == "add" else _remove)
    _add_elections(verbs)


def _add_elections(verbs: Any) -> None:
    """The commands that change several seats at once."""
    change = command(
        verbs,
        "change",
        help="give and take seats at once, in BFT",
        example="p2pmed mesh change --home clinic-a --add b1e2 --remove 90ff --liars 1",
    )
    change.add_argument("--add", nargs="*", default=[], metavar="DEVICE")
    change.add_argument("--remove", nargs="*", default=[], metavar="DEVICE")
    change.add_argument("--liars", type=int, help="how many may lie from then on")
    _written(change, _change)
    ballot = command(
        verbs,
        "ballot",
        help="say whom this device would have vote",
        example="p2pmed mesh ballot --home clinic-a 46f6 bc26 b1e2",
    )
    ballot.add_argument("devices", nargs="*", metavar="DEVICE", help="names or first digits")
    _written(ballot, _ballot)
    elect = command(
        verbs,
        "elect",
        help="count the ballots of this epoch and seat who won",
        example="p2pmed mesh elect --home clinic-a --seats 13",
    )
    elect.add_argument("--seats", type=int, default=13)
    elect.add_argument("--liars", type=int, help="how many may lie from then on")
    _written(elect, _elect)


def _written(parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], int]) -> None:
    add_home(parser)
    parser.add_argument("--wait", type=int, default=0, metavar="S", help="wait for finality")
    parser.set_defaults(run=run)


def _ask(parsed: argparse.Namespace, name: str, values: Mapping[str, Any]) -> int:
    given = {key: value for key, value in values.items() if value is not None}
    answer = ask_node(parsed, name, {**given, "wait_s": parsed.wait})
    return show(parsed, answer, lines=_verdict_lines)


def _verdict_lines(answer: Mapping[str, Any]) -> list[str]:
    meaning = f" ({answer['meaning']})" if answer["meaning"] else ""
    return [f"{answer['level']}: {answer['verdict']}{meaning}"]


def _join(parsed: argparse.Namespace) -> int:
    return _ask(parsed, "mesh.join", {"ledger": parsed.ledger, "patience_s": parsed.patience})


def _leave(parsed: argparse.Namespace) -> int:
    return _ask(parsed, "mesh.leave", {})


def _add(parsed: argparse.Namespace) -> int:
    return _ask(parsed, "mesh.change", {"add": parsed.devices, "liars": parsed.liars})


def _remove(parsed: argparse.Namespace) -> int:
    return _ask(parsed, "mesh.change", {"remove": parsed.devices, "liars": parsed.liars})


def _change(parsed: argparse.Namespace) -> int:
    values = {"add": parsed.add, "remove": parsed.remove, "liars": parsed.liars}
    return _ask(parsed, "mesh.change", values)


def _ballot(parsed: argparse.Namespace) -> int:
    return _ask(parsed, "mesh.ballot", {"approve": parsed.devices})


def _elect(parsed: argparse.Namespace) -> int:
    return _ask(parsed, "mesh.elect", {"seats": parsed.seats, "liars": parsed.liars})


def _found(parsed: argparse.Namespace) -> int:
    values = {
        "members": parsed.members,
        "engine": parsed.engine,
        "name": parsed.name,
        "patience_s": parsed.patience,
        "successor_of": parsed.successor_of,
    }
    return show(parsed, ask_node(parsed, "mesh.found", values))


def _offers(parsed: argparse.Namespace) -> int:
    return show(parsed, ask_node(parsed, "mesh.offers"), lines=_offer_lines)


def _offer_lines(answer: Mapping[str, Any]) -> list[str]:
    rows = [
        f"{row['proposer'][:12]} offers {row['name']!r}: {row['engine']}, {row['members']} seats"
        for row in answer["offers"]
    ]
    return rows or ["nobody has offered anything"]


def _accept(parsed: argparse.Namespace) -> int:
    return show(parsed, ask_node(parsed, "mesh.accept", {"proposer": parsed.proposer}))


def _follow(parsed: argparse.Namespace) -> int:
    return show(parsed, ask_node(parsed, "mesh.follow", {"ledger": parsed.ledger}))


def _resume(parsed: argparse.Namespace) -> int:
    return show(parsed, ask_node(parsed, "mesh.resume"), lines=_resume_lines)


def _resume_lines(answer: Mapping[str, Any]) -> list[str]:
    if not answer["was_muted"]:
        return ["this home was not muted; if it held votes back, it does so no more"]
    return ["this home votes again"]


def _status(parsed: argparse.Namespace) -> int:
    return show(parsed, ask_node(parsed, "mesh.show"), lines=_lines)


def _lines(answer: Mapping[str, Any]) -> list[str]:
    if answer["ledger"] is None:
        return ["this node lives in no ledger yet"]
    head = (
        f"{answer['name']} ({answer['engine']}, {len(answer['seats'])} seats, quorum "
        f"{answer['quorum']}, withstands {answer['liars']} liars), epoch {answer['epoch']}, "
        f"height {answer['height']}"
    )
    rows = [
        f"  seat {row['seat']}  {row['device'][:12]}  {row['name'] or '?'}  "
        f"{'here' if row['here'] else 'away'}"
        for row in answer["seats"]
    ]
    rows += [
        f"  {row['standing']:<8}{row['device'][:12]}  {row['name'] or '?'}"
        for row in answer["learners"]
    ]
    silent = [
        "  this home was restored from a backup and does not vote until it recovers",
        "  with others (BFT), or until you give your word; see `mesh resume --help`",
    ]
    lost = [
        "  this device has a seat and has lost the vote key of this epoch: it asked for the same",
        "  seats with fresh keys; if that is refused, have its seat taken with `mesh remove`",
    ]
    told = [*(silent if answer["muted"] else []), *(lost if answer["vote_key_lost"] else [])]
    if answer["abstains"]:
        told += [
            "  this home forgot votes and recovered: it stays silent for "
            f"{answer['abstains']} more views;",
            "  if nothing becomes final meanwhile, see `mesh resume --help`",
        ]
    return [head, *rows, *told]
