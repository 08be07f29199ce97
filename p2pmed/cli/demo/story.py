"""What the scenes of the demonstration share: actors, times, and what was acknowledged."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from p2pmed.cli.demo.screen import Screen
from p2pmed.cli.demo.stage import Actor
from p2pmed.errors import ConfigError

__all__ = ["PATIENCE_S", "Story", "submit", "submit_final"]

PATIENCE_S: Final = 120
"""How long one scene may take before the demonstration says that it failed."""


class Story:
    """All that the scenes share."""

    def __init__(self, folder: Path, screen: Screen, passphrase: str) -> None:
        self.folder = folder
        self.screen = screen
        self.passphrase = passphrase
        self.actors: dict[str, Actor] = {}
        self.steps: list[tuple[str, float]] = []
        self.acknowledged: dict[str, int] = {}
        """Device -> next seq of its log that it acknowledged to us."""
        self.kills = 0
        self.network = b""
        self.discovery = "mdns"

    def __getitem__(self, name: str) -> Actor:
        return self.actors[name]

    @property
    def mesh(self) -> list[Actor]:
        """Those who sit in the village's ledger."""
        return [self.actors[name] for name in ("clinic-a", "clinic-b", "clinic-c", "pharmacy")]

    @asynccontextmanager
    async def scene(self, name: str) -> AsyncIterator[None]:
        """One step of the story, timed."""
        began = time.monotonic()
        self.screen.say(f"[bold]{name}[/bold]")
        yield
        self.steps.append((name, time.monotonic() - began))


async def submit(actor: Actor, kind: str, fields: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Any registered transaction."""
    return await actor.ask("general.submit", kind=kind, fields=fields, **more)


async def submit_final(
    actor: Actor, kind: str, fields: dict[str, Any], **more: Any
) -> dict[str, Any]:
    """Submit, and wait until it is final and applied."""
    answer = await submit(actor, kind, fields, wait_s=PATIENCE_S, **more)
    if answer["verdict"] != "applied" or answer["height"] is None:
        raise ConfigError(f"{kind} at {actor.name}: {answer['verdict']}, {answer['level']}")
    return answer
