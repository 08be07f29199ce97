"""One contract for every disk: random operations agree with a dict, before and after a commit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pmed.storage.memory import MemoryDisk
from p2pmed.storage.sqlite import SqliteDisk, open_disk
from p2pmed.testing.disk import SimDisk
from p2pmed.world import Space

Kit = Callable[[], AbstractAsyncContextManager[Any]]

SPACES = [Space.META, Space.ENTRY, Space.STATE, Space.BLOCK]
KEYS = [bytes([a]) + bytes([b]) * n for a in (0, 1, 255) for b in (0, 7, 255) for n in (0, 1, 2)]


class AsCoroutine:
    """A disk whose ``commit`` is awaited like SQLite's."""

    def __init__(self, disk: MemoryDisk | SimDisk) -> None:
        self.disk = disk
        self.get, self.scan, self.stage = disk.get, disk.scan, disk.stage

    async def commit(self) -> int:
        return self.disk.commit()


@asynccontextmanager
async def memory() -> AsyncIterator[AsCoroutine]:
    yield AsCoroutine(MemoryDisk())


@asynccontextmanager
async def simulated() -> AsyncIterator[AsCoroutine]:
    yield AsCoroutine(SimDisk())


@asynccontextmanager
async def sqlite() -> AsyncIterator[SqliteDisk]:
    with TemporaryDirectory() as folder:
        async with open_disk(Path(folder) / "node.db", create=True) as disk:
            disk.stage(Space.META, b"storage.schema", None)  # the one row that is not ours
            yield disk


KITS = pytest.mark.parametrize("kit", [memory, simulated, sqlite])

key = st.sampled_from(KEYS)
space = st.sampled_from(SPACES)
operation = st.one_of(
    st.tuples(st.just("stage"), space, key, st.one_of(st.none(), st.binary(max_size=40))),
    st.tuples(st.just("stage"), space, key, st.binary(min_size=1, max_size=4)),
    st.tuples(st.just("get"), space, key),
    st.tuples(st.just("scan"), space, key, key, st.integers(0, 6), st.booleans()),
    st.tuples(st.just("commit")),
)


def expected_scan(
    model: dict[tuple[Space, bytes], bytes], step: tuple[Any, ...]
) -> list[tuple[bytes, bytes]]:
    _, space, start, end, limit, reverse = step
    rows = [(k, v) for (s, k), v in model.items() if s == space and start <= k < end]
    return sorted(rows, reverse=reverse)[:limit]


async def replay(disk: Any, steps: list[tuple[Any, ...]]) -> None:
    model: dict[tuple[Space, bytes], bytes] = {}
    for step in steps:
        match step:
            case ("stage", space, key, None):
                disk.stage(space, key, None)
                model.pop((space, key), None)
            case ("stage", space, key, value):
                disk.stage(space, key, value)
                model[space, key] = value
            case ("get", space, key):
                assert disk.get(space, key) == model.get((space, key))
            case ("scan", space, start, end, limit, reverse):
                rows = disk.scan(space, start, end, limit=limit, reverse=reverse)
                assert rows == expected_scan(model, step)
            case ("commit",):
                await disk.commit()
    for committed in (False, True):
        if committed:
            await disk.commit()
        for space in SPACES:
            for reverse in (False, True):
                everything = ("scan", space, b"", b"\xff" * 9, 99, reverse)
                rows = disk.scan(space, b"", b"\xff" * 9, limit=99, reverse=reverse)
                assert rows == expected_scan(model, everything)


@KITS
def test_agrees_with_a_dict(kit: Kit) -> None:
    """Any mix of stages, deletes, reads, scans and commits reads as from a plain dict."""

    async def run(steps: list[tuple[Any, ...]]) -> None:
        async with kit() as disk:
            await replay(disk, steps)

    @settings(max_examples=60 if kit is sqlite else 250, deadline=None)
    @given(st.lists(operation, max_size=40))
    def check(steps: list[tuple[Any, ...]]) -> None:
        asyncio.run(run(steps))

    check()


@KITS
async def test_staged_deletes_hide_a_whole_page(kit: Kit) -> None:
    """A scan's limit counts rows that are still there, however many staged deletes precede."""
    async with kit() as disk:
        for number in range(300):
            disk.stage(Space.ENTRY, number.to_bytes(2, "big"), b"old")
        await disk.commit()
        for number in range(250):
            disk.stage(Space.ENTRY, number.to_bytes(2, "big"), None)
        rows = disk.scan(Space.ENTRY, b"", b"\xff", limit=3)
        assert [int.from_bytes(key, "big") for key, _ in rows] == [250, 251, 252]
        rows = disk.scan(Space.ENTRY, b"", (252).to_bytes(2, "big"), limit=3, reverse=True)
        assert [int.from_bytes(key, "big") for key, _ in rows] == [251, 250]


@KITS
async def test_spaces_are_apart(kit: Kit) -> None:
    """The same key in two spaces is two rows."""
    async with kit() as disk:
        for space in Space:
            disk.stage(space, b"key", bytes([space]))
        await disk.commit()
        assert [disk.get(space, b"key") for space in Space] == [bytes([s]) for s in Space]


@KITS
async def test_an_empty_value_is_not_a_missing_one(kit: Kit) -> None:
    """``b""`` is a value; only ``None`` deletes."""
    async with kit() as disk:
        disk.stage(Space.LOCAL, b"key", b"")
        assert disk.get(Space.LOCAL, b"key") == b""
        await disk.commit()
        assert disk.get(Space.LOCAL, b"key") == b""
        disk.stage(Space.LOCAL, b"key", None)
        assert disk.get(Space.LOCAL, b"key") is None
        await disk.commit()
        assert disk.get(Space.LOCAL, b"key") is None


@KITS
async def test_commit_counts_rows(kit: Kit) -> None:
    """A commit reports the rows it wrote; with nothing staged, none."""
    async with kit() as disk:
        await disk.commit()
        assert await disk.commit() == 0
        disk.stage(Space.META, b"a", b"1")
        disk.stage(Space.META, b"a", b"2")
        disk.stage(Space.ENTRY, b"b", None)
        assert await disk.commit() == 2


@KITS
async def test_large_random_history(kit: Kit) -> None:
    """Two thousand seeded operations with values up to 20 kB still agree with a dict."""
    rng = Random(7)
    steps: list[tuple[Any, ...]] = []
    for _ in range(2_000):
        where = (rng.choice(SPACES), rng.choice(KEYS))
        roll = rng.random()
        if roll < 0.5:
            steps.append(("stage", *where, rng.randbytes(rng.choice((0, 10, 1_000, 20_000)))))
        elif roll < 0.6:
            steps.append(("stage", *where, None))
        elif roll < 0.95:
            steps.append(("scan", *where, rng.choice(KEYS), rng.randint(1, 5), roll < 0.75))
        else:
            steps.append(("commit",))
    async with kit() as disk:
        await replay(disk, steps)
