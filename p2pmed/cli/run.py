"""``p2pmed run``: a node, until it is told to stop."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import signal
from pathlib import Path
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
    parser.add_argument("--verbose", action="store_true", help="log links and ledgers")
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """Run until SIGINT or SIGTERM; 0 if it was told to stop."""
    level = logging.INFO if parsed.verbose else logging.WARNING
    logging.basicConfig(level=level, format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("aiosqlite").setLevel(logging.WARNING)
    run_async(_run(home_of(parsed), passphrase_of(parsed), as_json=parsed.json))
    return 0


async def _run(home: Path, passphrase: str, *, as_json: bool) -> None:
    from p2pmed.node.node import open_node
    from p2pmed.web.control import serve_control

    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, asked.set)
    async with (
        open_node(home, passphrase=passphrase) as node,
        serve_control(node, home),
    ):
        ready = {"ready": True, "device": node.key.hex(), "port": node.port}
        print(json.dumps(ready) if as_json else f"ready on port {node.port}", flush=True)
        waiting: set[asyncio.Future[Any]] = {asyncio.ensure_future(asked.wait())}
        try:
            await asyncio.wait(waiting | {node.shell.stopped}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for future in waiting:
                future.cancel()
        if node.shell.stopped.done():
            node.shell.stopped.result()
