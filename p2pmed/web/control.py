"""The control socket of a running node: ``POST /v1/<operation>`` on a Unix socket in its home.

The socket file is readable by the home's owner only; whoever may open it may already read the
sealed keystore; the records behind it are open while a staff member has unlocked the node, and
whoever asks for something keeps that session going. The answer is a stream of JSON lines:
``{"progress": ...}`` any number of times, then ``{"result": ...}`` or
``{"error": ..., "hint": ...}``.

Nothing here is reachable from the network.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp
from aiohttp import web

from p2pmed.errors import ConfigError, LocalProtocolError, P2pmedError
from p2pmed.node.node import Node
from p2pmed.node.operations import Arguments, operations

__all__ = ["SOCKET", "ask", "is_served", "serve_control"]

SOCKET: Final = "control"
"""Name of the socket in the home."""
REQUEST_BYTES_MAX: Final = 1024 * 1024
LINE_BYTES_MAX: Final = 64 * 1024 * 1024
PATH_BYTES_MAX: Final = 100
"""A Unix socket's path is short by the kernel's rule."""

UNNOTICED: Final = frozenset({"general.status", "general.peers"})
"""What a screen asks for by itself: nobody need be there, so it keeps no session open."""

log = logging.getLogger("p2pmed.control")


def socket_path(home: Path) -> str:
    """The socket's path, relative if the absolute one is too long for the kernel."""
    absolute = str((home / SOCKET).absolute())
    if len(absolute.encode()) <= PATH_BYTES_MAX:
        return absolute
    return os.path.relpath(absolute)


@asynccontextmanager
async def serve_control(node: Node, home: Path) -> AsyncIterator[None]:
    """Serve the socket until the block ends. Raises ``ConfigError`` if it cannot be made."""
    app = web.Application(client_max_size=REQUEST_BYTES_MAX)

    async def handle(request: web.Request) -> web.StreamResponse:
        return await _handle(node, request)

    app.router.add_post("/v1/{operation}", handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    path = socket_path(home)
    try:
        await _listen(runner, path)
        yield
    finally:
        await runner.cleanup()
        _remove(path)


async def _listen(runner: web.AppRunner, path: str) -> None:
    try:
        _remove(path)
        before = os.umask(0o177)
        try:
            await web.UnixSite(runner, path).start()
        finally:
            os.umask(before)
    except OSError as error:
        raise ConfigError(f"the control socket cannot be made: {error.strerror}") from None


def _remove(path: str) -> None:
    """Take away a socket left by a node that was killed; the home's lock says it is ours."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


async def _handle(node: Node, request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    await response.prepare(request)
    lines: asyncio.Queue[dict[str, Any]] = asyncio.Queue(maxsize=1_000)

    def report(progress: dict[str, Any]) -> None:
        if not lines.full():  # progress may be skipped, results never
            lines.put_nowait({"progress": progress})

    work = asyncio.ensure_future(_run(node, request, report))
    try:
        while not work.done() or not lines.empty():
            getting = asyncio.ensure_future(lines.get())
            await asyncio.wait({work, getting}, return_when=asyncio.FIRST_COMPLETED)
            if getting.done():
                await _write(response, getting.result())
            else:
                getting.cancel()
        await _write(response, work.result())
    finally:
        work.cancel()
    return response


async def _write(response: web.StreamResponse, line: dict[str, Any]) -> None:
    await response.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")


async def _run(
    node: Node, request: web.Request, report: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    try:
        operation = operations().get(request.match_info["operation"])
        if operation is None:
            raise ConfigError("no such operation", hint="the running node may be older")
        values = _values(await request.read())
        if request.match_info["operation"] not in UNNOTICED:
            node.sessions.touch()
        return {"result": await operation(node, Arguments(values), report)}
    except P2pmedError as error:
        return {"error": str(error), "hint": error.hint, "type": type(error).__name__}
    except Exception as error:
        # Its words may be a patient's: they are for who debugs, not for every log.
        log.error("an operation failed: %s", type(error).__name__)
        log.debug("where it failed", exc_info=error)
        text = f"the node failed to answer ({type(error).__name__})"
        return {"error": text, "hint": "see the node's log", "type": "InvariantError"}


def _values(raw: bytes) -> dict[str, Any]:
    try:
        values = json.loads(raw)
    except (ValueError, RecursionError):
        raise ConfigError("arguments are not JSON") from None
    if not isinstance(values, dict):
        raise ConfigError("arguments are a JSON object")
    return values


async def is_served(home: Path) -> bool:
    """Whether a process listens; a node that was killed leaves its socket and no listener."""
    try:
        _, writer = await asyncio.open_unix_connection(socket_path(home))
    except (FileNotFoundError, ConnectionRefusedError):
        return False
    except OSError:
        return True  # somebody is there and too busy; asking will say more
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True


async def ask(
    home: Path,
    operation: str,
    values: dict[str, Any],
    report: Callable[[dict[str, Any]], None],
) -> dict[str, Any]:
    """Ask the node that runs in ``home``. Raises ``LocalProtocolError`` with its sentence."""
    connector = aiohttp.UnixConnector(path=socket_path(home))
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=2)
    try:
        async with (
            aiohttp.ClientSession(
                connector=connector, timeout=timeout, read_bufsize=LINE_BYTES_MAX
            ) as session,
            session.post(f"http://node/v1/{operation}", json=values) as response,
        ):
            async for raw in response.content:
                line = json.loads(raw)
                if "progress" in line:
                    report(line["progress"])
                elif "result" in line:
                    return dict(line["result"])
                else:
                    raise LocalProtocolError(line["error"], hint=line.get("hint", ""))
    except (aiohttp.ClientError, OSError) as error:
        raise ConfigError(
            "a process uses this home but does not answer",
            hint="wait a moment; if it stays so, look at that process's log",
        ) from error
    raise LocalProtocolError("the running node closed before it answered")
