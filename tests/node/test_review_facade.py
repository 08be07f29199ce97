"""The facade's word: errors where they belong, no news lost, and nothing half done on the disk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from p2pmed.aio.verifier import IN_PLACE_MAX, Verifier
from p2pmed.errors import DiskFull, LocalProtocolError
from p2pmed.identity.revocation import Revocation, RevocationReason
from p2pmed.medical.discrepancies import DiscrepancyReport
from p2pmed.node.events import Alarm
from p2pmed.node.node import QUEUE_MAX, open_node
from p2pmed.testing.homes import PASSPHRASE, local_network, until


def report(number: int) -> DiscrepancyReport:
    return DiscrepancyReport(first=number.to_bytes(32, "big"), second=b"2" * 32, reason="x")


async def test_a_closed_node_says_so() -> None:
    """Neither a cancellation that nobody asked for, nor a wait without end."""
    async with local_network("clinic") as network:
        (node,) = network.nodes
        receipt = await node.submit(report(1))
        waiting = asyncio.ensure_future(receipt.final())
        told: list[str] = []

        async def listen() -> None:
            told.extend([happening.what async for happening in node.events()])

        listening = asyncio.ensure_future(listen())
        await node.submit(report(2))
    for late in (
        waiting,
        asyncio.ensure_future(receipt.final()),
        asyncio.ensure_future(_ask(node)),
    ):
        with pytest.raises(LocalProtocolError, match="closed"):
            await asyncio.wait_for(late, 5)
    await asyncio.wait_for(listening, 5)
    assert told == ["stored"]


async def _ask(node: Any) -> None:
    await node.submit(report(3))


async def test_what_happens_while_a_reader_works_is_told() -> None:
    """A reader that writes in its loop hears of what it wrote, without other news to wake it."""
    async with local_network("clinic") as network:
        (node,) = network.nodes
        heard: list[Any] = []

        async def listen() -> None:
            async for happening in node.events(kinds={DiscrepancyReport}):
                heard.append(happening.body)
                if len(heard) < 4:
                    await node.submit(report(len(heard)))
                    await asyncio.sleep(0.05)  # the notice comes while this works
                else:
                    return

        listening = asyncio.ensure_future(listen())
        await asyncio.sleep(0)
        await node.submit(report(0))
        await asyncio.wait_for(listening, 10)
        assert [body.first[-1] for body in heard] == [0, 1, 2, 3]


async def test_a_cursor_goes_on_where_it_was_and_every_happening_has_one() -> None:
    """Nothing twice, nothing left out, whatever happening the cursor came with."""
    async with local_network("clinic") as network:
        (node,) = network.nodes
        await node.found_mesh()
        start = b""
        seen: list[int] = []
        for _ in range(3):
            events = node.events(kinds={DiscrepancyReport}, cursor=start or None)
            first = asyncio.ensure_future(anext(events))
            await asyncio.sleep(0)
            receipt = await node.submit(report(len(seen)))
            await receipt.final(timeout=10)
            happening = await asyncio.wait_for(first, 5)
            while happening.what != "final":
                body: Any = happening.body
                seen.append(body.first[-1])
                happening = await asyncio.wait_for(anext(events), 5)
            start = happening.cursor
            await events.aclose()
        assert seen == [0, 1, 2]
        with pytest.raises(LocalProtocolError, match="cursor"):
            await anext(node.events(cursor=b"\x01"))


async def test_a_reader_that_is_too_slow_is_told_so() -> None:
    """What it missed is bounded in memory, and not silent."""
    async with local_network("clinic") as network:
        (node,) = network.nodes
        events = node.events()
        first = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)
        for number in range(QUEUE_MAX + 5):
            node.on_notice(Alarm("clock", (bytes(32),), str(number)))
        assert (await asyncio.wait_for(first, 5)).text.startswith("missed")
        assert len(node._listeners[0]) <= QUEUE_MAX
        await events.aclose()


async def test_half_a_step_never_becomes_durable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The node fails after it staged an entry and before it was done: the entry is not kept."""
    async with local_network() as network:
        home = network.home("clinic")
        async with open_node(home, passphrase=PASSPHRASE, network=False) as node:
            kept = (await node.submit(report(1))).id

            def fails(*_: object) -> None:
                raise RuntimeError("a defect")

            monkeypatch.setattr(node.replica.admission, "_when_stored", fails)
            with pytest.raises(RuntimeError, match="a defect"):
                await node.submit(report(2))
            written = node.replica.logs.next_seq(node.replica.own.key)
        async with open_node(home, passphrase=PASSPHRASE, network=False) as node:
            assert node.find(kept) is not None
            assert node.replica.logs.next_seq(node.replica.own.key) == written == 2


async def test_a_crowded_node_reads_nothing_and_loses_nothing() -> None:
    """While too much waits, peers wait as well; then all comes."""
    async with local_network("clinic", "clinic") as network:
        one, two = network.nodes
        await network.in_sight()
        crowded = True
        real = two.shell._is_crowded
        two.shell._is_crowded = lambda: crowded or real()  # type: ignore[method-assign]
        await one.submit(report(0))  # the frame after which the reader stands still
        await asyncio.sleep(0.3)
        receipts = [await one.submit(report(number)) for number in range(1, 20)]
        await asyncio.sleep(0.3)
        assert all(two.find(receipt.id) is None for receipt in receipts[1:])
        crowded = False
        two.shell._ease()
        await until(lambda: all(two.find(receipt.id) for receipt in receipts), "all of it")


async def test_answers_come_in_the_order_of_the_questions() -> None:
    """A single entry, checked in place, does not overtake the batch before it."""
    verifier = Verifier()
    order: list[int] = []
    check = (bytes(32), bytes(64), b"x" * 100_000)

    def note(number: int) -> Callable[[tuple[bool, ...]], None]:
        return lambda good: order.append(number)

    try:
        verifier.check([check] * 200, note(0))
        verifier.check([check], note(1))
        verifier.check([check] * (IN_PLACE_MAX + 1), note(2))
        assert verifier.waiting == 201 + IN_PLACE_MAX + 1
        await until(lambda: len(order) == 3, "the answers")
        assert order == [0, 1, 2]
        assert verifier.waiting == 0
    finally:
        await verifier.close()


async def test_an_answer_that_cannot_come_is_told() -> None:
    """Else the entries would be *being checked* for ever, and their logs stand still."""
    failed: list[BaseException] = []
    verifier = Verifier(failed.append)
    try:
        wrong: Any = (None, None, None)
        verifier.check([wrong] * 9, lambda good: None)
        await until(lambda: bool(failed), "the failure")
        assert isinstance(failed[0], TypeError)
    finally:
        await verifier.close()


async def test_a_full_disk_refuses_records_and_takes_revocations() -> None:
    """The last reserve is for what must not wait; nothing acknowledged is touched."""
    async with local_network("clinic", "clinic") as network:
        node, other = network.nodes
        await network.in_sight()
        kept = await node.submit(report(1))
        disk: Any = node.world.disk
        disk.low = True
        with pytest.raises(DiskFull, match="full"):
            await node.submit(report(2))
        body = Revocation(
            subject=other.key,
            serial=bytes(16),
            reason=RevocationReason.KEY_COMPROMISED,
            text="stolen",
        )
        revoked = await node.submit(body)
        assert node.find(kept.id) is not None
        assert node.find(revoked.id) is not None
        disk.low = False
        assert (await node.submit(report(3))).id


async def test_a_full_disk_takes_nothing_from_peers_and_asks_again() -> None:
    """Records of others wait where they are until there is room."""
    async with local_network("clinic", "clinic") as network:
        node, other = network.nodes
        await network.in_sight()
        disk: Any = node.world.disk
        disk.low = True
        receipt = await other.submit(report(1))
        await asyncio.sleep(0.5)
        assert node.find(receipt.id) is None
        disk.low = False
        await until(lambda: node.find(receipt.id) is not None, "what was left out")
