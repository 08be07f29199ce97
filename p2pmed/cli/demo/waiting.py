"""When a scene of the demonstration is over: asked of the nodes, never assumed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from p2pmed.cli.demo.stage import Actor
from p2pmed.cli.demo.story import PATIENCE_S, Story
from p2pmed.errors import ConfigError

__all__ = [
    "all_anchored",
    "all_equal",
    "all_in_ledger",
    "all_meet",
    "everything_equal",
    "has",
    "until",
]

LOOK_S: Final = 0.25
MESH_SIZE: Final = 4


async def until(
    story: Story,
    done: Callable[[Story], Awaitable[bool]],
    failure: str,
    *,
    seconds: float = PATIENCE_S,
) -> None:
    """Look every quarter of a second until it is so. ``ConfigError`` with ``failure``."""
    try:
        async with asyncio.timeout(seconds):
            while not await done(story):  # noqa: ASYNC110 (other processes: nothing to await)
                await asyncio.sleep(LOOK_S)
    except TimeoutError:
        if failure:
            raise ConfigError(failure, hint=f"the nodes' logs are in {story.folder}") from None
        raise


async def _statuses(actors: Sequence[Actor]) -> list[dict[str, Any]]:
    return list(await asyncio.gather(*(actor.look() for actor in actors)))


async def all_meet(story: Story) -> bool:
    """Everybody in the village is connected to everybody."""
    statuses = await _statuses(story.mesh)
    return all(status.get("peers", 0) >= MESH_SIZE - 1 for status in statuses)


async def all_in_ledger(story: Story) -> bool:
    """All nodes live in one ledger."""
    statuses = await _statuses(list(story.actors.values()))
    return len({status.get("ledger") for status in statuses}) == 1 and bool(statuses[0]["ledger"])


async def all_equal(story: Story) -> bool:
    """Everybody in the village holds the same, and nothing waits."""
    statuses = await _statuses([*story.mesh, story["insurer"]])
    seen = {(s.get("entries"), s.get("height"), s.get("state_root")) for s in statuses}
    return len(seen) == 1 and all(status.get("pending") == 0 for status in statuses)


async def has(actor: Actor, **wanted: Any) -> bool:
    """The actor's status says what is wanted."""
    status = await actor.look()
    return all(status.get(name) == value for name, value in wanted.items())


async def all_anchored(story: Story) -> bool:
    """The county has ordered all that it was told was written, and has executed the village."""
    county = await story["county"].look()
    if county.get("pending") != 0:
        return False
    wanted = {device: seq for device, seq in story.acknowledged.items() if seq}
    held = (await story["county"].ask("general.logs"))["logs"]
    if any(held.get(device, 0) < seq for device, seq in wanted.items()):
        return False
    anchored = (await story["county"].ask("mesh.villages"))["villages"]
    return bool(anchored) and not any(row["due"] for row in anchored)


async def everything_equal(story: Story) -> bool:
    """The county too has all that the village has, and has executed it."""
    if not await all_equal(story):
        return False
    statuses = await _statuses(list(story.actors.values()))
    return len({status.get("entries") for status in statuses}) == 1 and await all_anchored(story)
