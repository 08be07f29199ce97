"""The actors of the demonstration: one operating-system process each, as anybody would run them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from p2pmed.errors import ConfigError, P2pmedError
from p2pmed.web.control import ask

__all__ = ["Actor"]

READY_S: Final = 30
STOP_S: Final = 10
ANSWER_S: Final = 300


class Actor:
    """One node: its home, and its process while it runs."""

    def __init__(self, name: str, home: Path, *, passphrase: str) -> None:
        self.name = name
        self.home = home
        self.port = 0
        self.device = ""
        self.status: dict[str, Any] = {}
        """As it last answered."""
        self.note = "not started"
        self._passphrase = passphrase
        self._process: asyncio.subprocess.Process | None = None

    @property
    def running(self) -> bool:
        """Whether its process lives."""
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Start the process, and wait until it is ready. Raises ``ConfigError``."""
        environment = {**os.environ, "P2PMED_PASSPHRASE": self._passphrase}
        with (self.home / "node.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "p2pmed",
                "run",
                "--home",
                str(self.home),
                "--json",
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env=environment,
            )
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(READY_S):
                line = await self._process.stdout.readline()
            ready = json.loads(line)
        except (TimeoutError, ValueError):
            await self.stop()
            raise ConfigError(
                f"{self.name} did not start", hint=f"see {self.home / 'node.log'}"
            ) from None
        self.port, self.device, self.note = ready["port"], ready["device"], "running"

    async def ask(
        self,
        operation: str,
        report: Callable[[dict[str, Any]], None] = lambda progress: None,
        **values: Any,
    ) -> dict[str, Any]:
        """One operation of the node. Raises ``P2pmedError`` with its sentence."""
        async with asyncio.timeout(ANSWER_S):
            return await ask(self.home, operation, values, report)

    async def look(self) -> dict[str, Any]:
        """Its status now; the last one known if it does not answer."""
        if self.running:
            with contextlib.suppress(P2pmedError, TimeoutError):
                self.status = await self.ask("general.status")
        return self.status

    def kill(self) -> None:
        """SIGKILL: as a power cut for the process."""
        assert self._process is not None
        self._process.kill()
        self.note = "killed"

    async def reap(self) -> None:
        """Wait for a killed process to be gone."""
        if self._process is not None:
            await self._process.wait()

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL if that is not enough."""
        if self._process is None or self._process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_S):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        self.note = "stopped"
