"""Group commit: who asked while a flush ran is answered by the next one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from p2pmed.aio.committer import Committer
from p2pmed.errors import DiskFull, StorageError


class SlowDisk:
    """A commit that ends when the test says so."""

    def __init__(self) -> None:
        self.started = 0
        self.gates: list[asyncio.Future[None]] = []
        self.running = 0

    async def commit(self) -> None:
        assert self.running == 0, "two commits at once"
        self.running += 1
        self.started += 1
        gate = asyncio.get_running_loop().create_future()
        self.gates.append(gate)
        try:
            await gate
        finally:
            self.running -= 1


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_idle_commits_at_once_and_load_is_grouped() -> None:
    """A lone request starts a commit without waiting; all that follow share the next one."""
    disk = SlowDisk()
    answers: list[Sequence[int]] = []
    errors: list[StorageError] = []
    committer = Committer(disk.commit, persisted=answers.append, failed=errors.append)
    async with asyncio.TaskGroup() as group:
        group.create_task(committer.run())
        committer.request(1)
        await settle()
        assert disk.started == 1
        for token in (2, 3, 4):
            committer.request(token)
            await settle()
        assert disk.started == 1
        assert answers == []
        assert committer.waiting == 3
        disk.gates[0].set_result(None)
        await settle()
        assert answers == [[1]]
        assert disk.started == 2
        committer.stop()
        disk.gates[1].set_result(None)
    assert answers == [[1], [2, 3, 4]]
    assert errors == []


async def test_failure_is_told_once_and_no_token_after_it() -> None:
    """A failing commit calls ``failed`` once; its tokens and later ones stay unanswered."""
    disk = SlowDisk()
    answers: list[Sequence[int]] = []
    errors: list[StorageError] = []
    committer = Committer(disk.commit, persisted=answers.append, failed=errors.append)
    task = asyncio.create_task(committer.run())
    committer.request(1)
    await settle()
    committer.request(2)
    disk.gates[0].set_exception(DiskFull("the disk is full"))
    await task
    committer.request(3)
    await settle()
    assert answers == []
    assert [type(error) for error in errors] == [DiskFull]
    assert disk.started == 1
    assert committer.waiting == 0


async def test_stop_answers_what_was_asked() -> None:
    """``stop`` with nothing asked returns at once; asked before, it is committed first."""
    idle = Committer(SlowDisk().commit, persisted=lambda _: None, failed=lambda _: None)
    idle.stop()
    await idle.run()

    answers: list[Sequence[int]] = []
    done = asyncio.Event()

    async def commit() -> None:
        done.set()

    busy = Committer(commit, persisted=answers.append, failed=lambda _: None)
    busy.request(7)
    busy.stop()
    await busy.run()
    assert answers == [[7]]
    assert done.is_set()


async def test_requests_from_the_answer_are_served() -> None:
    """A callback may ask again: the next commit starts without another wake-up."""
    answers: list[Sequence[int]] = []

    async def commit() -> None:
        await asyncio.sleep(0)

    def persisted(tokens: Sequence[int]) -> None:
        answers.append(tokens)
        if len(answers) < 5:
            committer.request(tokens[0] + 1)
        else:
            committer.stop()

    committer = Committer(commit, persisted=persisted, failed=lambda _: None)
    committer.request(1)
    await asyncio.wait_for(committer.run(), 5)
    assert answers == [[1], [2], [3], [4], [5]]
