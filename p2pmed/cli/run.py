"""``p2pmed run``: a node, until it is told to stop."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import signal
from typing import Any

from p2pmed.cli.session import add_home, command, home_of, passphrase_of, run_async

__all__ = ["add"]


def add(commands: Any) -> None:
    """Declare ``run``."""
    parser = command(
        commands,
        "run",
        help="run the node of a home until interrupted",
        example="p2pmed run --home clinic-a --passphrase-file secret.txt",
    )
    add_home(parser)
    parser.add_argument(
        "--locked", action="store_true", help="open no records before somebody unlocks"
    )
    parser.add_argument(
        "--idle", type=int, default=300, metavar="S", help="lock after so long unused; 0: never"
    )
    parser.add_argument("--verbose", action="store_true", help="log links and ledgers")
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """Run until SIGINT or SIGTERM; 0 if it was told to stop."""
    level = logging.INFO if parsed.verbose else logging.WARNING
    logging.basicConfig(level=level, format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("aiosqlite").setLevel(logging.WARNING)
    run_async(_run(parsed))
    return 0


async def _run(parsed: argparse.Namespace) -> None:
    from p2pmed.aio.hardening import shield
    from p2pmed.node.node import open_node
    from p2pmed.web.control import serve_control

    shield()
    home, as_json = home_of(parsed), parsed.json
    opening = open_node(
        home,
        passphrase=passphrase_of(parsed),
        unlock=not parsed.locked,
        apart=True,
        idle_s=parsed.idle or None,
    )
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, asked.set)
    async with (
        opening as node,
        serve_control(node, home),
    ):
        locked = not node.sessions.unlocked
        ready = {"ready": True, "device": node.key.hex(), "port": node.port, "locked": locked}
        said = f"ready on port {node.port}" + (", locked: `p2pmed unlock`" if locked else "")
        print(json.dumps(ready) if as_json else said, flush=True)
        waiting: set[asyncio.Future[Any]] = {asyncio.ensure_future(asked.wait())}
        try:
            await asyncio.wait(waiting | {node.shell.stopped}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for future in waiting:
                future.cancel()
        if node.shell.stopped.done():
            node.shell.stopped.result()
