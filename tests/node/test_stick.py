"""``p2pmed.node.stick`` and ``stick_import``: what is carried by hand arrives, whole or as told."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from p2pmed.errors import ConfigError, DiskFull
from p2pmed.ledger.transaction import sign_entry
from p2pmed.medical import Demographics, Encounter, PatientName, Recall
from p2pmed.node.node import Node
from p2pmed.node.stick import (
    describe_known,
    describe_summary,
    export_bundle,
    inspect_file,
    read_known,
)
from p2pmed.node.stick_import import import_bundle
from p2pmed.sync.bundle import BlockFrame, BundleFrame, LaneFrame
from p2pmed.testing.homes import LocalNetwork, until

Change = Callable[[list[BundleFrame]], list[BundleFrame]]
Forge = Callable[[Path, Path, Change], Path]

NAME = "Wang Xiaoming"
GTIN = "09506000134352"
VISITS = 8


@asynccontextmanager
async def network_in(folder: Path) -> AsyncIterator[LocalNetwork]:
    """A network whose folder outlives it."""
    async with AsyncExitStack() as stack:
        yield LocalNetwork(folder, stack)


async def _village(folder: Path) -> None:
    """A village of two records visits; two bundles of it, the second with news."""
    async with network_in(folder) as network:
        for role in ("clinic", "pharmacy"):
            await network.open(network.home(role, place="shan/mu"))
        await network.found_mesh(name="Mu village")
        clinic = network.nodes[0]
        who, _ = await clinic.patients.register(
            Demographics(patient=clinic.patients.new_pseudonym(), names=(PatientName(text=NAME),))
        )
        for day in range(1, VISITS + 1):
            visit = Encounter(patient=who, period_start=f"2027-03-0{day}T09:30:00+08:00")
            await (await clinic.submit(visit)).final(timeout=10)
            if day == VISITS // 2:
                await export_bundle(clinic, folder / "half.bundle")
        await export_bundle(clinic, folder / "whole.bundle")
        known = read_known(folder / "half.bundle", clinic.network)
        await export_bundle(clinic, folder / "rest.bundle", known=known)
        facts = {
            "clinic": clinic.key.hex(),
            "ledger": clinic.status()["ledger"],
            "height": clinic.status()["height"],
            "root": clinic.status()["state_root"],
            "entries": clinic.status()["entries"],
        }
        (folder / "facts.json").write_text(json.dumps(facts))
        await _fork(clinic, network.nodes[1])
        await export_bundle(clinic, folder / "forked.bundle")


async def _fork(clinic: Node, pharmacy: Node) -> None:
    """The pharmacy's device signs another entry at a place it has signed already."""
    log = pharmacy.replica.own.key
    last = clinic.replica.logs.entry(log, clinic.replica.logs.next_seq(log) - 1)
    assert last is not None
    other = msgspec.structs.replace(last.envelope, wall=last.envelope.wall + 1)
    seed = pharmacy.keys.signing_seed
    twin = sign_entry(other, seed=seed, author=pharmacy.key, network=pharmacy.network)
    await clinic.import_entries([twin.raw])
    await until(lambda: bool(clinic.replica.logs.forks(log)), "the fork is kept")


@pytest.fixture(scope="module")
def village(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the authority and the bundles of a village."""
    folder = tmp_path_factory.mktemp("village")
    asyncio.run(_village(folder))
    return folder


@pytest.fixture
def facts(village: Path) -> dict[str, Any]:
    return dict(json.loads((village / "facts.json").read_text()))


@asynccontextmanager
async def newcomer(village: Path, *roles: str) -> AsyncIterator[list[Node]]:
    """Fresh nodes of the village's network, in a folder of their own, linked to each other."""
    async with AsyncExitStack() as stack:
        network = LocalNetwork.__new__(LocalNetwork)
        network.folder, network.nodes, network._stack = village, [], stack
        network._homes = len(list(village.glob("[0-9]*-*")))
        network._authority = village / "authority"
        nodes = [await network.open(network.home(role, place="shan")) for role in roles]
        yield nodes


def summary_of(node: Node) -> tuple[Any, ...]:
    return tuple(node.replica.logs.frontier()), node.replica.chains.heads()


async def test_a_whole_bundle(village: Path, facts: dict[str, Any]) -> None:
    """All of a village arrives, and taking it in again changes nothing."""
    async with newcomer(village, "insurer") as [node]:
        first = await import_bundle(node, village / "whole.bundle")
        assert first["complete"]
        assert first["entries_new"] == first["entries"] == facts["entries"]
        assert first["blocks_new"] == first["blocks"] == facts["height"]
        assert (first["waiting"], first["refusals"]) == (0, 0)
        before = summary_of(node)
        again = await import_bundle(node, village / "whole.bundle")
        assert again["complete"]
        assert (again["entries_new"], again["blocks_new"]) == (0, 0)
        assert summary_of(node) == before


async def test_the_ledger_lives_on(village: Path, facts: dict[str, Any]) -> None:
    """A node that follows the carried ledger executes it to the same state root."""
    async with newcomer(village, "insurer") as [node]:
        await import_bundle(node, village / "whole.bundle")
        await node.follow(bytes.fromhex(facts["ledger"]))
        await until(lambda: node.status()["height"] == facts["height"], "the ledger is executed")
        assert node.status()["state_root"] == facts["root"]


async def test_only_what_is_lacking(village: Path, facts: dict[str, Any]) -> None:
    """``since`` leaves out what the other bundle holds; both together are the whole."""
    rest = describe_summary(inspect_file(village / "rest.bundle"))
    whole = describe_summary(inspect_file(village / "whole.bundle"))
    half = describe_summary(inspect_file(village / "half.bundle"))
    assert rest["entries"] == whole["entries"] - half["entries"] == VISITS // 2
    async with newcomer(village, "insurer") as [node]:
        alone = await import_bundle(node, village / "rest.bundle")
        assert alone["entries_new"] == 0
        assert alone["waiting"] > 0
        assert alone["gaps"][0]["of"] == facts["clinic"]
        await import_bundle(node, village / "half.bundle")
        after = await import_bundle(node, village / "rest.bundle")
        assert (after["waiting"], after["refusals"]) == (0, 0)
        assert node.replica.chains.height(bytes.fromhex(facts["ledger"])) == facts["height"]


async def test_a_list_of_what_is_here(village: Path, tmp_path: Path) -> None:
    """The list that a receiver prints serves as well as the bundle that it was given."""
    async with newcomer(village, "clinic", "insurer") as [clinic, receiver]:
        await import_bundle(clinic, village / "whole.bundle")
        await import_bundle(receiver, village / "half.bundle")
        (tmp_path / "has.json").write_text(json.dumps(describe_known(receiver)))
        known = read_known(tmp_path / "has.json", clinic.network)
        told = await export_bundle(clinic, tmp_path / "for-receiver", known=known)
        taken = await import_bundle(receiver, tmp_path / "for-receiver")
        assert taken["waiting"] == 0
        # Their own logs may have met over the link meanwhile: nothing else is carried twice.
        assert told["entries"] - taken["entries_new"] <= 2
        (tmp_path / "has.json").write_text("{}")
        with pytest.raises(ConfigError, match="another network"):
            read_known(tmp_path / "has.json", clinic.network)


@pytest.mark.parametrize("order", ["parts reversed", "blocks first", "rotated"])
async def test_any_order(
    village: Path, tmp_path: Path, forge: Forge, facts: dict[str, Any], order: str
) -> None:
    """Frames in any order: what does not connect yet is taken later."""

    def change(frames: list[BundleFrame]) -> list[BundleFrame]:
        single = [
            LaneFrame(f.author, f.incarnation, f.start + i, (raw,))
            for f in frames
            if isinstance(f, LaneFrame)
            for i, raw in enumerate(f.entries)
        ]
        others = [f for f in frames if not isinstance(f, LaneFrame)]
        if order == "parts reversed":
            everything = [*others, *single]
            parts = [everything[i : i + 5] for i in range(0, len(everything), 5)]
            return [frame for part in reversed(parts) for frame in part]
        if order == "blocks first":
            return [*others, *single]
        return [*single[5:], *others, *single[:5]]

    mixed = forge(village / "whole.bundle", tmp_path / "mixed", change)
    async with newcomer(village, "insurer") as [node]:
        taken = await import_bundle(node, mixed)
        assert (taken["waiting"], taken["refusals"]) == (0, 0)
        assert taken["entries_new"] == facts["entries"]
        assert node.replica.chains.height(bytes.fromhex(facts["ledger"])) == facts["height"]


async def test_torn_anywhere(village: Path, tmp_path: Path, facts: dict[str, Any]) -> None:
    """Of a file that ends early the good prefix is taken; the whole file brings the rest."""
    raw = (village / "whole.bundle").read_bytes()
    async with newcomer(village, "insurer") as [node]:
        taken = 0
        for share in range(0, 100, 7):
            (tmp_path / "torn").write_bytes(raw[: len(raw) * share // 100])
            answer = await import_bundle(node, tmp_path / "torn")
            assert answer["status"] == "torn"
            assert answer["fault"]["offset"] <= len(raw) * share // 100
            assert answer["refusals"] == 0
            taken += answer["entries_new"]
            own = sum(end for lane, end in node.replica.logs.frontier() if lane.author == node.key)
            here = sum(end for _, end in node.replica.logs.frontier())
            assert here - own == taken
        assert (await import_bundle(node, village / "whole.bundle"))["complete"]
        assert node.replica.chains.height(bytes.fromhex(facts["ledger"])) == facts["height"]


async def test_a_flipped_bit(village: Path, tmp_path: Path) -> None:
    """A damaged frame is named with its number and offset, and everything before it is kept."""
    raw = bytearray((village / "whole.bundle").read_bytes())
    raw[len(raw) * 2 // 3] ^= 4
    (tmp_path / "damaged").write_bytes(bytes(raw))
    async with newcomer(village, "insurer") as [node]:
        answer = await import_bundle(node, tmp_path / "damaged")
        assert answer["status"] == "damaged"
        fault = answer["fault"]
        assert fault["frame"] == answer["frames"] > 1
        assert fault["offset"] == answer["bytes"] <= len(raw) * 2 // 3
        assert answer["entries_new"] == answer["entries"] > 0


async def test_another_network(village: Path, tmp_path: Path) -> None:
    """A bundle of another network is refused at its header; nothing of it is taken."""
    (tmp_path / "other").mkdir()
    async with network_in(tmp_path / "other") as network:
        node = await network.open(network.home("clinic"))
        answer = await import_bundle(node, village / "whole.bundle")
        assert answer["status"] == "refused"
        assert answer["fault"]["reason"] == "a bundle of another network"
        assert answer["entries"] == 0
        assert [lane.key.author for lane in node.replica.logs] == [node.key]
        assert node.replica.chains.heads() == ()


async def test_a_forged_entry(
    village: Path, tmp_path: Path, forge: Forge, facts: dict[str, Any]
) -> None:
    """A false signature costs the rest of that log and nothing else, and is named."""

    def change(frames: list[BundleFrame]) -> list[BundleFrame]:
        for i, frame in enumerate(frames):
            if isinstance(frame, LaneFrame) and frame.author.hex() == facts["clinic"]:
                bad = bytearray(frame.entries[4])
                bad[-9] ^= 1
                entries = (*frame.entries[:4], bytes(bad), *frame.entries[5:])
                frames[i] = LaneFrame(frame.author, frame.incarnation, frame.start, entries)
        return frames

    forged = forge(village / "whole.bundle", tmp_path / "forged", change)
    async with newcomer(village, "insurer") as [node]:
        answer = await import_bundle(node, forged)
        assert answer["complete"]  # the courier's seal is good, and proves nothing
        [refusal] = answer["refused"]
        assert (refusal["log"], refusal["seq"]) == (facts["clinic"], 4)
        assert answer["entries_new"] == facts["entries"] - (VISITS + 2 - 4)
        healed = await import_bundle(node, village / "whole.bundle")
        assert healed["entries_new"] == VISITS + 2 - 4
        assert healed["refusals"] == 0


async def test_garbage_among_entries(
    village: Path, tmp_path: Path, forge: Forge, facts: dict[str, Any]
) -> None:
    """Bytes that are no entry cost their own log only, wherever they stand."""

    def change(frames: list[BundleFrame]) -> list[BundleFrame]:
        return [LaneFrame(b"\x07" * 32, b"\x07" * 16, 0, (b"nonsense",)), *frames]

    forged = forge(village / "whole.bundle", tmp_path / "forged", change)
    async with newcomer(village, "insurer") as [node]:
        answer = await import_bundle(node, forged)
        assert answer["entries_new"] == facts["entries"]
        assert answer["blocks_new"] == facts["height"]
        [refusal] = answer["refused"]
        assert refusal["log"] == "07" * 32


async def test_a_forged_block(
    village: Path, tmp_path: Path, forge: Forge, facts: dict[str, Any]
) -> None:
    """A block with another's certificate ends that ledger at the height before it."""

    def change(frames: list[BundleFrame]) -> list[BundleFrame]:
        blocks = [i for i, f in enumerate(frames) if isinstance(f, BlockFrame)]
        one, two = frames[blocks[1]], frames[blocks[2]]
        assert isinstance(one, BlockFrame)
        assert isinstance(two, BlockFrame)
        frames[blocks[2]] = BlockFrame(two.ledger, two.height, two.block, one.certificate)
        return frames

    forged = forge(village / "whole.bundle", tmp_path / "forged", change)
    async with newcomer(village, "insurer") as [node]:
        answer = await import_bundle(node, forged)
        [refusal] = answer["refused"]
        assert refusal["ledger"] == facts["ledger"]
        assert answer["entries_new"] == facts["entries"]
        await import_bundle(node, village / "whole.bundle")
        assert node.replica.chains.height(bytes.fromhex(facts["ledger"])) == facts["height"]


async def test_a_fork_travels(village: Path) -> None:
    """The proof that a device forked its log freezes that log wherever the stick arrives."""
    async with newcomer(village, "insurer") as [node]:
        await import_bundle(node, village / "whole.bundle")
        assert not any(lane.frozen for lane in node.replica.logs)
        for _ in range(2):
            answer = await import_bundle(node, village / "forked.bundle")
            assert answer["complete"]
            [frozen] = [lane for lane in node.replica.logs if lane.frozen]
            assert len(node.replica.logs.forks(frozen.key)) == 1
        assert answer["forked_logs"] > 0


async def test_news_goes_on_to_the_peers(village: Path, facts: dict[str, Any]) -> None:
    """What came by stick reaches whoever is connected, entries and ledger alike."""
    async with newcomer(village, "clinic", "pharmacy") as [one, other]:
        await until(lambda: other.key in one.replica.links, "a link")
        await import_bundle(one, village / "whole.bundle")
        ledger = bytes.fromhex(facts["ledger"])
        await until(
            lambda: other.replica.chains.height(ledger) == facts["height"], "the ledger came too"
        )
        await until(
            lambda: sum(end for _, end in other.replica.logs.frontier()) >= facts["entries"],
            "the entries came too",
        )


async def test_a_county_and_back_by_stick(tmp_path: Path) -> None:
    """The county anchors a village that it knows by stick only; the anchor returns by stick."""
    async with network_in(tmp_path) as network:
        clinic = await network.open(network.home("clinic", place="shan/mu"), connect=False)
        await clinic.found_mesh(name="Mu village")
        receipt = await clinic.submit(Recall(gtin=GTIN, lot="L1", reason="contamination"))
        await receipt.final(timeout=10)
        await export_bundle(clinic, tmp_path / "to-county")
        hospital = await network.open(network.home("hospital", place="shan"), connect=False)
        await hospital.found_mesh(name="Shan county")
        assert not hospital.replica.links
        await import_bundle(hospital, tmp_path / "to-county")
        ledger = clinic.ledger
        assert ledger is not None

        def anchored() -> bool:
            state = hospital.final_state()
            from p2pmed.medical.county import anchored_height

            return anchored_height(state, ledger) == clinic.status()["height"]

        await until(anchored, "the county has executed the village")
        known = read_known(tmp_path / "to-county", hospital.network)
        await export_bundle(hospital, tmp_path / "to-village", known=known)
        assert not clinic.is_anchored(receipt.entry)
        await import_bundle(clinic, tmp_path / "to-village")
        assert clinic.is_anchored(receipt.entry)


# --- the file -------------------------------------------------------------------------------


async def test_nothing_readable(village: Path) -> None:
    """No name stands in a bundle."""
    raw = (village / "whole.bundle").read_bytes()
    for word in (NAME, "Wang", "2027-03-01"):
        assert word.encode() not in raw


async def test_never_over_a_file(village: Path, tmp_path: Path) -> None:
    """An existing file is replaced if that is asked for, and only then."""
    (tmp_path / "there").write_bytes(b"precious")
    async with newcomer(village, "clinic") as [node]:
        with pytest.raises(ConfigError, match="there already"):
            await export_bundle(node, tmp_path / "there")
        assert (tmp_path / "there").read_bytes() == b"precious"
        with pytest.raises(ConfigError, match="is a folder"):
            await export_bundle(node, tmp_path)
        with pytest.raises(ConfigError, match="no folder"):
            await export_bundle(node, tmp_path / "a" / "b")
        await export_bundle(node, tmp_path / "there", force=True)
    assert describe_summary(inspect_file(tmp_path / "there"))["status"] == "complete"
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


@pytest.mark.parametrize("fault", [errno.ENOSPC, errno.EFBIG, errno.EIO])
async def test_a_full_stick(
    village: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: int
) -> None:
    """A medium that takes no more leaves no file, neither the new one nor a temporary one."""
    write = os.write

    def refuse(handle: int, data: bytes) -> int:
        if ".part.new" in os.readlink(f"/proc/self/fd/{handle}"):
            raise OSError(fault, os.strerror(fault))
        return write(handle, data)

    async with newcomer(village, "clinic") as [node]:
        await import_bundle(node, village / "whole.bundle")
        monkeypatch.setattr(os, "write", refuse)
        with pytest.raises(DiskFull if fault != errno.EIO else Exception) as caught:
            await export_bundle(node, tmp_path / "out.part")
        assert str(tmp_path / "out.part") in str(caught.value)
    assert list(tmp_path.iterdir()) == []


async def test_a_stick_that_forgets(
    village: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is read back otherwise than it was written is not given a name."""
    read = os.read

    def forget(handle: int, size: int) -> bytes:
        raw = read(handle, size)
        return b"\x00" * len(raw) if ".out.new" in os.readlink(f"/proc/self/fd/{handle}") else raw

    async with newcomer(village, "clinic") as [node]:
        monkeypatch.setattr(os, "read", forget)
        with pytest.raises(Exception, match="did not keep"):
            await export_bundle(node, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


async def test_no_such_file(village: Path, tmp_path: Path) -> None:
    """A missing bundle is one clear sentence."""
    async with newcomer(village, "clinic") as [node]:
        with pytest.raises(ConfigError, match="cannot be read"):
            await import_bundle(node, tmp_path / "nothing")
    shutil.rmtree(tmp_path, ignore_errors=True)
