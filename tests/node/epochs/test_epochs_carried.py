"""A ledger whose seats changed: carried on sticks, checked from its bytes, restored, anchored."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from epoch_village import Village

from p2pmed.consensus.interface import Block
from p2pmed.errors import CredentialError
from p2pmed.ledger.block import decode_body
from p2pmed.ledger.stored import Proof
from p2pmed.limits import BLOCK_CONTENT_BYTES_MAX
from p2pmed.medical.proof import check_proof, decode_proof
from p2pmed.node.audit import Findings, audit_bundle, audit_home
from p2pmed.node.backup import back_up_stopped, restore_home
from p2pmed.node.config import Config
from p2pmed.node.node import Node, open_node
from p2pmed.node.stick_import import import_bundle
from p2pmed.sync.bundle import BlockFrame, BundleFrame, BundleReader
from p2pmed.testing.homes import ACCEPTS, PASSPHRASE, LocalNetwork, until
from p2pmed.wire import codec


def told(findings: Findings) -> str:
    return "\n".join(f"{f.where}: {f.what}" for f in findings.found)


@asynccontextmanager
async def visitors(village: Village, folder: Path, *roles: str) -> AsyncIterator[list[Node]]:
    """New nodes of the village's network, which do not meet it."""
    async with AsyncExitStack() as stack:
        network = LocalNetwork.__new__(LocalNetwork)
        network.folder, network.nodes, network._stack, network._homes = folder, [], stack, 0
        network._authority = village.folder / "authority"
        yield [await network.open(network.home(role, place="shan")) for role in roles]


def blocks_of(path: Path) -> list[BlockFrame]:
    frames: list[BundleFrame] = BundleReader(None).feed(path.read_bytes())
    return [frame for frame in frames if isinstance(frame, BlockFrame)]


def test_the_story_is_the_one_that_is_meant(village: Village) -> None:
    """Three seals; in BFT the last one is final through a tail, and by nothing else."""
    assert len(village.facts["begun"]) == 4
    assert len(village.facts["seats"]) == 3
    tails = village.facts["tails"]
    assert tails[:2] == [0, 0]
    assert (tails[2] > 0) == (village.engine == "bft")


# --- homes ----------------------------------------------------------------------------------


def test_every_home_verifies(village: Village) -> None:
    """Also that of a device which lost its seat, and of one which got one."""
    for home in village.homes:
        findings = audit_home(home)
        assert told(findings) == ""
        assert findings.notes == []
        assert findings.counts["blocks"] == village.facts["height"]


async def test_a_restored_home_follows_the_epochs_and_goes_on(
    village: Village, tmp_path: Path
) -> None:
    """It verifies, holds the last epoch, and says nothing; its own next words reach the log."""
    back_up_stopped(village.homes[0], tmp_path / "backup")
    restore_home(tmp_path / "backup", tmp_path / "again")
    assert told(audit_home(tmp_path / "again")) == ""
    config = Config(host="127.0.0.1", port=0, discovery=False, mesh=ACCEPTS)
    async with open_node(tmp_path / "again", passphrase=PASSPHRASE, config=config) as node:
        home = node.replica.home
        assert home is not None
        assert node.status()["muted"]
        assert node.status()["state_root"] == village.facts["root"]
        assert home.epoch.number == 3
        assert [home.chain.epochs.begun_at(n) for n in range(4)] == village.facts["begun"]
        assert [v.node.hex() for v in home.epoch.validators] == village.facts["seats"]


# --- bundles --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["whole", "rest"])
def test_bundles_verify(village: Village, name: str) -> None:
    """The whole, and one that begins in the middle and brings the seals below."""
    manifest = (village.homes[0] / "manifest").read_bytes()
    findings = audit_bundle(village.folder / f"{name}.bundle", manifest=manifest)
    assert told(findings) == ""
    assert findings.notes == []


async def test_a_stranger_takes_the_whole_in_and_executes_it(
    village: Village, tmp_path: Path
) -> None:
    """Same height, root and epoch as at the village; taken in twice, nothing changes."""
    async with visitors(village, tmp_path, "insurer") as [node]:
        first = await import_bundle(node, village.folder / "whole.bundle")
        assert first["complete"]
        assert first["blocks_new"] == village.facts["height"]
        assert (first["waiting"], first["refusals"]) == (0, 0)
        again = await import_bundle(node, village.folder / "whole.bundle")
        assert (again["entries_new"], again["blocks_new"]) == (0, 0)
        await node.follow(village.ledger)
        await until(lambda: node.status()["height"] == village.facts["height"], "executed")
        assert node.status()["state_root"] == village.facts["root"]
        home = node.replica.home
        assert home is not None
        assert home.epoch.number == 3
    assert told(audit_home(next(tmp_path.glob("*-insurer")))) == ""


async def test_halves_in_turn_come_to_the_same(village: Village, tmp_path: Path) -> None:
    """A bundle of epochs 0 and 1, then what is new since: seals that are known do no harm."""
    async with visitors(village, tmp_path, "insurer") as [node]:
        await import_bundle(node, village.folder / "half.bundle")
        assert node.replica.chains.height(village.ledger) < village.facts["height"]
        rest = await import_bundle(node, village.folder / "rest.bundle")
        assert (rest["waiting"], rest["refusals"]) == (0, 0)
        assert node.replica.chains.height(village.ledger) == village.facts["height"]


Forgery = Callable[[BlockFrame], BlockFrame]


def without_proof(frame: BlockFrame) -> BlockFrame:
    """A seal that only a later epoch's certificate could prove."""
    return BlockFrame(frame.ledger, frame.height, frame.block, b"")


def another_next_epoch(frame: BlockFrame) -> BlockFrame:
    """A seal that hands the ledger to the last seat alone."""
    block = codec.decode(frame.block, Block)
    body = decode_body(block.content, limit=BLOCK_CONTENT_BYTES_MAX)
    assert body.next_epoch is not None
    seats = body.next_epoch.validators[-1:]
    stolen = msgspec.structs.replace(body.next_epoch, validators=seats, liars=0)
    content = codec.encode(msgspec.structs.replace(body, next_epoch=stolen))
    forged = msgspec.structs.replace(block, content=content)
    return BlockFrame(frame.ledger, frame.height, codec.encode(forged), frame.certificate)


def without_tail(frame: BlockFrame) -> BlockFrame:
    """The certificate of a tail, shown as the seal's own."""
    proof = codec.decode(frame.certificate, Proof)
    bare = codec.encode(msgspec.structs.replace(proof, tail=()))
    return BlockFrame(frame.ledger, frame.height, frame.block, bare)


@pytest.mark.parametrize("forgery", [without_proof, another_next_epoch, without_tail])
async def test_a_forged_seal_is_refused_by_import_and_by_verify(
    village: Village, tmp_path: Path, forgery: Forgery, forge: Any
) -> None:
    """Nothing from the seal on is taken; what was before it is."""
    if forgery is without_tail and village.engine == "raft":
        pytest.skip("Raft has no tails")
    at = village.facts["begun"][3] - 1

    def change(frames: list[BundleFrame]) -> list[BundleFrame]:
        return [
            forgery(frame) if isinstance(frame, BlockFrame) and frame.height == at else frame
            for frame in frames
        ]

    path = forge(village.folder / "whole.bundle", tmp_path / "forged.bundle", change)
    findings = audit_bundle(path, manifest=(village.homes[0] / "manifest").read_bytes())
    assert f"block {at} " in told(findings)
    async with visitors(village, tmp_path, "insurer") as [node]:
        taken = await import_bundle(node, path)
        assert taken["refusals"] > 0
        assert node.replica.chains.height(village.ledger) < at


# --- proofs ---------------------------------------------------------------------------------


def test_a_proof_of_any_epoch_holds(village: Village) -> None:
    """With public keys only: from the founding through each handover, the tail's too."""
    network = bytes.fromhex(village.facts["network"])
    for number, spending in enumerate(village.facts["spendings"]):
        raw = (village.folder / f"{number}.proof").read_bytes()
        found = check_proof(raw, network=network)
        assert found.record.entry.id.hex() == spending
        assert found.record.verdict == "applied"
        assert len(decode_proof(raw).record.handovers) == min(number, 3)


def test_a_proof_without_one_handover_does_not_hold(village: Village) -> None:
    """Who decided in epoch 3 is known only from the seals of 0, 1 and 2."""
    proof = decode_proof((village.folder / "3.proof").read_bytes())
    for left_out in range(3):
        handovers = proof.record.handovers
        fewer = (*handovers[:left_out], *handovers[left_out + 1 :])
        forged = msgspec.structs.replace(
            proof, record=msgspec.structs.replace(proof.record, handovers=fewer)
        )
        with pytest.raises(CredentialError):
            check_proof(codec.encode(forged), network=bytes.fromhex(village.facts["network"]))


# --- a county -------------------------------------------------------------------------------


async def test_a_county_imports_and_anchors_through_every_epoch(
    village: Village, tmp_path: Path
) -> None:
    """From a stick: executed in the village's order to its last height, stock as there."""
    async with visitors(village, tmp_path, "hospital") as [hospital]:
        county = await hospital.found_mesh(name="county")
        await import_bundle(hospital, village.folder / "whole.bundle")
        spendings = [bytes.fromhex(each) for each in village.facts["spendings"]]

        def anchored() -> bool:
            entries = [hospital.find(each) for each in spendings]
            return all(entry is not None and hospital.is_anchored(entry) for entry in entries)

        await until(anchored, "anchored", seconds=30)
        [row] = [
            row
            for row in hospital.replica.village_progress()
            if row["ledger"] == village.facts["ledger"]
        ]
        assert row["executed"] == village.facts["height"]
        assert hospital.discrepancies() == []
        assert hospital.ledger == county
        home = hospital.replica.home
        assert home is not None
        assert home.epoch.number == 0, "the village's changes are not the county's"
        assert [v.node for v in home.epoch.validators] == [hospital.key]
    assert told(audit_home(next(tmp_path.glob("*-hospital")))) == ""
