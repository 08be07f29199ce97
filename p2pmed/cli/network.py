"""Keys and enrolment: ``network create``, ``network answer``, ``init``, ``enrol``."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from p2pmed.cli.session import add_json, add_passphrase, command, passphrase_of, show
from p2pmed.errors import ConfigError
from p2pmed.identity.credentials import Role
from p2pmed.identity.keys import short_id

__all__ = ["add"]

ARMOUR_BYTES_MAX = 256 * 1024


def add(commands: Any) -> None:
    """Declare the commands."""
    group = commands.add_parser("network", help="make a network, and answer who wants to join")
    verbs = group.add_subparsers(title="verbs", metavar="VERB", required=True)
    create = command(
        verbs,
        "create",
        help="make the authority's sealed keys and the network's manifest",
        example='p2pmed network create authority --name "Shan county health"',
    )
    create.add_argument("folder", type=Path, help="a new folder, to be kept in a drawer")
    create.add_argument("--name", required=True, help="the network's, for people")
    create.add_argument(
        "--spares", type=int, default=0, choices=(0, 1, 2), help="more root keys, against loss"
    )
    _common(create)
    create.set_defaults(run=_create)
    answer = command(
        verbs,
        "answer",
        help="answer a request for a credential",
        example="p2pmed network answer authority request.txt --out answer.txt --place shan/mu",
    )
    answer.add_argument("folder", type=Path, help="the authority's, or a delegate's home")
    answer.add_argument("request", help="the request's file; - reads standard input")
    answer.add_argument("--out", type=Path, help="file for the answer (else it is printed)")
    answer.add_argument("--role", action="append", help="instead of the roles wished for")
    answer.add_argument("--place", help="instead of the place wished for")
    answer.add_argument("--delegate", action="append", default=[], help="roles it may issue")
    answer.add_argument("--days", type=int, default=1_095, help="validity (default 1095)")
    _common(answer)
    answer.set_defaults(run=_answer)
    _add_init(commands)
    enrol = command(
        commands,
        "enrol",
        help="take in the authority's answer",
        example="p2pmed enrol clinic-a answer.txt",
    )
    enrol.add_argument("folder", type=Path, help="the home that made the request")
    enrol.add_argument("answer", help="the answer's file; - reads standard input")
    _common(enrol)
    enrol.set_defaults(run=_enrol)


def _add_init(commands: Any) -> None:
    init = command(
        commands,
        "init",
        help="make a node's home with new keys, and its request for a credential",
        example='p2pmed init clinic-a --name "Mu village clinic" --role clinic --place shan/mu',
    )
    init.add_argument("folder", type=Path, help="a new folder: the home")
    init.add_argument("--name", required=True, help="what people call this place")
    init.add_argument(
        "--role",
        action="append",
        required=True,
        choices=[role.value for role in Role],
        help="what it wishes to be",
    )
    init.add_argument("--place", default="", help="catchment, such as county/village")
    init.add_argument("--port", type=int, help="port for peers (default 7420)")
    init.add_argument("--host", help="address to listen on (default: all)")
    init.add_argument(
        "--peer", action="append", default=[], metavar="HOST:PORT", help="an address to dial"
    )
    init.add_argument("--mesh-auto", action="store_true", help="form a mesh with neighbours")
    init.add_argument("--mesh-size", type=int, default=4, help="nodes that must be in sight")
    _common(init)
    init.set_defaults(run=_init)


def _common(parser: argparse.ArgumentParser) -> None:
    add_passphrase(parser)
    add_json(parser)


def _cheap() -> bool:
    """Tests and demonstrations seal keystores with the least cost that is still sound."""
    return bool(os.environ.get("P2PMED_CHEAP_KEYSTORE"))


def _create(parsed: argparse.Namespace) -> int:
    from p2pmed.node.setup import create_network

    passphrase = passphrase_of(parsed, confirm=True)
    network = create_network(
        parsed.folder, parsed.name, passphrase, cheap=_cheap(), spares=parsed.spares
    )
    return show(parsed, {"network": network.hex(), "folder": str(parsed.folder)})


def _answer(parsed: argparse.Namespace) -> int:
    from p2pmed.node.setup import answer_request

    text = answer_request(
        parsed.folder,
        _armour(parsed.request),
        passphrase_of(parsed),
        roles=parsed.role,
        place=parsed.place,
        delegate=parsed.delegate,
        days=parsed.days,
    )
    if parsed.out is None:
        return show(parsed, {"answer": text}, lines=lambda answer: [answer["answer"]])
    parsed.out.write_text(text + "\n", encoding="ascii")
    return show(parsed, {"answer": str(parsed.out)})


def _init(parsed: argparse.Namespace) -> int:
    from p2pmed.node.config import DEFAULT_PORT, Config
    from p2pmed.node.setup import init_home
    from p2pmed.sync.founding import MeshPolicy

    config = Config(
        host=parsed.host or Config().host,
        port=DEFAULT_PORT if parsed.port is None else parsed.port,
        peers=tuple(parsed.peer),
        mesh=MeshPolicy(auto=parsed.mesh_auto, size=parsed.mesh_size),
    )
    init_home(
        parsed.folder,
        name=parsed.name,
        roles=parsed.role,
        place=parsed.place,
        passphrase=passphrase_of(parsed, confirm=True),
        config=config,
        cheap=_cheap(),
    )
    answer = {"home": str(parsed.folder), "request": str(parsed.folder / "request.txt")}
    return show(parsed, answer)


def _enrol(parsed: argparse.Namespace) -> int:
    from p2pmed.node.setup import enrol

    credential = enrol(parsed.folder, _armour(parsed.answer), passphrase_of(parsed))
    answer = {
        "device": credential.subject.hex(),
        "short": short_id(credential.subject),
        "name": credential.name,
        "roles": [role.value for role in credential.roles],
        "place": credential.place,
    }
    return show(parsed, answer)


def _armour(source: str) -> str:
    """The text of a request or answer, from a file or standard input."""
    if source == "-":
        raw = sys.stdin.buffer.read(ARMOUR_BYTES_MAX + 1)
    else:
        with Path(source).open("rb") as file:
            raw = file.read(ARMOUR_BYTES_MAX + 1)
    if len(raw) > ARMOUR_BYTES_MAX:
        raise ConfigError(f"{source} is too long to be a request or an answer")
    return raw.decode("utf-8", "replace").strip()
