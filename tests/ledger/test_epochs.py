"""From epoch to epoch in one chain: seals, tails, and who decides at which height."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from sealing_toys import SealingMachine
from toy_ledger import (
    NETWORK,
    Device,
    ToyNode,
    Writer,
    certify,
    devices,
    founding_of,
    genesis_of,
    open_chain,
)

from p2pmed.consensus.interface import Block, Check, Header, header_digest
from p2pmed.errors import CredentialError, InvariantError
from p2pmed.ledger.block import decode_body
from p2pmed.ledger.epochs import check_next, next_epoch_of
from p2pmed.ledger.stored import TAIL_MAX, StoredBlock, with_tail
from p2pmed.limits import BLOCK_CONTENT_BYTES_MAX
from p2pmed.quorum.certificate import Epoch, epoch_digest
from p2pmed.storage.memory import MemoryDisk
from p2pmed.sync.chains import Chains, Forked, Verified
from p2pmed.wire import codec

SEATS = devices(4)
GENESIS = genesis_of(SEATS)
OLD = GENESIS.epoch()
NEW_SEATS = sorted([*SEATS[:3], Device("device 9")], key=lambda d: d.key)


def node(**fields: Any) -> ToyNode:
    return ToyNode(GENESIS, machine_type=SealingMachine, **fields)


def proposed(one: ToyNode, **fields: Any) -> Block:
    block = one.propose(**fields)
    assert block is not None
    return block


def sealed(*nodes: ToyNode) -> tuple[Block, Writer]:
    """Every node holds and has executed a seal at height 2, which is not decided."""
    writer = Writer(SEATS[0])
    first, seal = writer.write(), None
    for each in nodes:
        each.hold(first)
    block = proposed(nodes[0])
    for each in nodes:
        each.take(block, certify(OLD, SEATS, block.header))
    word = writer.write("toy.seal", [d.name for d in NEW_SEATS])
    for each in nodes:
        each.hold(word)
    seal = proposed(nodes[0])
    for each in nodes:
        assert each.chain.check(seal) is Check.VALID
    return seal, writer


def next_epoch(block: Block) -> Epoch:
    found = decode_body(block.content, limit=BLOCK_CONTENT_BYTES_MAX).next_epoch
    assert found is not None
    return found


def tails(one: ToyNode, seal: Block, count: int) -> list[Block]:
    """``count`` empty blocks above an undecided seal, each checked."""
    made: list[Block] = []
    parent = seal.header
    for _ in range(count):
        tail = proposed(one, parent=parent, view=parent.view + 2)
        assert one.chain.check(tail) is Check.VALID
        made.append(tail)
        parent = tail.header
    return made


def test_a_seal_names_the_next_epoch_and_takes_effect_when_decided() -> None:
    """Executed, it changes nobody's quorum; decided, the next block is of the next epoch."""
    one, two = node(), node(seat=1)
    seal, writer = sealed(one, two)
    body = decode_body(seal.content, limit=BLOCK_CONTENT_BYTES_MAX)
    assert body.summary.next_epoch == epoch_digest(next_epoch(seal))
    assert one.chain.epoch == OLD
    for each in (one, two):
        decided = each.take(seal, certify(OLD, SEATS, seal.header))
        assert decided.next_epoch == next_epoch(seal) == each.chain.epoch
    more = writer.write()
    for each in (one, two):
        each.hold(more)
    block = proposed(one, epoch=1, view=1, parent_view=0)
    assert (block.header.height, block.header.parent) == (3, header_digest(seal.header))
    for each in (one, two):
        each.take(block)
        assert next_epoch_of(each.chain.state) is None
        assert [each.chain.epochs.at(height).number for height in (1, 2, 3, 9)] == [0, 0, 1, 1]
    assert one.chain.state_root == two.chain.state_root


def test_nothing_is_ordered_on_a_seal_that_is_not_final() -> None:
    """News waits for the next epoch: on the seal stands an empty tail, or nothing."""
    one, two = node(), node(seat=1)
    seal, writer = sealed(one, two)
    more = writer.write()
    one.hold(more)
    two.hold(more)
    assert one.propose(parent=seal.header) is None
    (tail,) = tails(one, seal, 1)
    body = decode_body(tail.content, limit=BLOCK_CONTENT_BYTES_MAX)
    assert (body.summary.count, body.tips, body.next_epoch) == (0, (), next_epoch(seal))
    assert two.chain.check(tail) is Check.VALID
    crowded = msgspec.structs.replace(tail.header, view=tail.header.view - 1)
    assert two.chain.check(Block(header=crowded, content=tail.content)) is Check.INVALID


def test_a_block_of_the_wrong_epoch_is_invalid() -> None:
    """Before, on and after a seal: the epoch is what the parent's state says."""
    one = node()
    seal, writer = sealed(one)
    wrong = msgspec.structs.replace(seal.header, epoch=1)
    assert node_check(one, seal, wrong) is Check.INVALID
    one.take(seal, certify(OLD, SEATS, seal.header))
    one.hold(writer.write())
    good = proposed(one, epoch=1, view=1, parent_view=0)
    for number in (0, 2):
        assert node_check(one, good, msgspec.structs.replace(good.header, epoch=number)) is (
            Check.INVALID
        )
    stranger = msgspec.structs.replace(good.header, proposer=4)
    assert node_check(one, good, stranger) is Check.INVALID
    assert one.chain.check(good) is Check.VALID


def node_check(one: ToyNode, block: Block, header: Header) -> Check:
    return one.chain.check(Block(header=header, content=block.content))


def test_a_seal_is_never_decided_without_its_proof() -> None:
    """What follows is of another epoch and proves nothing of this one."""
    one = node()
    seal, _ = sealed(one)
    with pytest.raises(InvariantError):
        one.chain.decide(seal, None)
    assert one.chain.epoch == OLD


def test_tails_are_bounded() -> None:
    """Beyond ``TAIL_MAX`` no leader builds another one, and no voter takes it."""
    one = node()
    seal, _ = sealed(one)
    made = tails(one, seal, TAIL_MAX)
    last = made[-1].header
    assert one.propose(parent=last, view=last.view + 2) is None


def test_a_chain_restarts_in_the_epoch_after_its_seal() -> None:
    """Between the seal and the next block, and after it, the disk says who decides."""
    one = node()
    seal, writer = sealed(one)
    one.open()
    assert one.chain.epoch == OLD
    assert one.chain.check(seal) is Check.VALID
    one.take(seal, certify(OLD, SEATS, seal.header))
    one.open()
    assert one.chain.epoch == next_epoch(seal)
    one.hold(writer.write())
    one.take(proposed(one, epoch=1, view=1, parent_view=0))
    one.open()
    assert one.chain.epoch == next_epoch(seal)


def test_an_epoch_follows_its_own_ledger_by_one() -> None:
    """Another ledger, a skipped number or impossible seats are no next epoch."""
    good = Epoch(ledger=OLD.ledger, number=1, liars=0, validators=OLD.validators)
    check_next(OLD, good)
    for change in (
        {"ledger": bytes(32)},
        {"number": 2},
        {"number": 0},
        {"liars": 2},
        {"validators": (OLD.validators[0], OLD.validators[0])},
    ):
        with pytest.raises(CredentialError):
            check_next(OLD, msgspec.structs.replace(good, **change))


# --- carried, not executed ------------------------------------------------------------------


def story(*, tail: int = 0) -> list[StoredBlock]:
    """Block 1, the seal 2 (proven through ``tail``), and block 3 of the next epoch."""
    one = node()
    seal, writer = sealed(one)
    first = one.chain.block_at(1)
    assert first is not None
    stored = StoredBlock(block=seal, certificate=certify(OLD, SEATS, seal.header))
    if tail:
        above = [StoredBlock(block=block) for block in tails(one, seal, tail)]
        proof = certify(OLD, SEATS, above[-1].block.header)
        above[-1] = msgspec.structs.replace(above[-1], certificate=proof)
        stored = with_tail(StoredBlock(block=seal), above)
    assert stored.certificate is not None
    one.chain.decide(seal, stored.certificate, stored.tail)
    one.disk.commit()
    one.hold(writer.write())
    last = proposed(one, epoch=1, view=1, parent_view=0)
    one.take(last, certify(next_epoch(seal), NEW_SEATS, last.header))
    return [first, stored, StoredBlock(last, (), certify(next_epoch(seal), NEW_SEATS, last.header))]


def carrier(disk: MemoryDisk | None = None) -> Chains:
    chains = Chains(disk=disk or MemoryDisk(), network=NETWORK, open_chain=open_chain)
    if disk is None:
        chains.found(founding_of(SEATS, GENESIS))
    return chains


def raws(blocks: list[StoredBlock]) -> list[bytes]:
    return [codec.encode(block) for block in blocks]


@pytest.mark.parametrize("tail", [0, 1, 3])
def test_a_carrier_follows_a_seal_by_its_proof_alone(tail: int) -> None:
    """It executes nothing: header, summary, next epoch, certificate and tail are enough."""
    disk = MemoryDisk()
    chains = Chains(disk=disk, network=NETWORK, open_chain=open_chain)
    chains.found(founding_of(SEATS, GENESIS))
    assert isinstance(chains.take(OLD.ledger, raws(story(tail=tail))), Verified)
    assert chains.height(OLD.ledger) == 3
    disk.commit()
    again = Chains(disk=disk, network=NETWORK, open_chain=open_chain)
    epoch = again.epoch(OLD.ledger)
    assert epoch is not None
    assert epoch.number == 1
    assert [stored.block.header.height for stored in again.seals(OLD.ledger, 3)] == [2]


def test_one_seal_with_two_proofs_is_no_fork() -> None:
    """Some hold its own certificate, some a tail's: both are the same block."""
    chains = carrier()
    plain, through = story(), story(tail=2)
    assert isinstance(chains.take(OLD.ledger, raws(plain)), Verified)
    assert chains.take(OLD.ledger, raws(through)) is None


def test_a_tail_is_never_a_block() -> None:
    """Certified, at the height of the next epoch: it is neither kept nor a fork."""
    blocks = story()
    one = node()
    seal, _ = sealed(one)
    (tail,) = tails(one, seal, 1)
    forged = StoredBlock(block=tail, certificate=certify(OLD, SEATS, tail.header))
    chains = carrier()
    with pytest.raises(CredentialError):
        chains.take(OLD.ledger, raws([*blocks[:2], forged]))
    assert isinstance(chains.take(OLD.ledger, raws(blocks)), Verified)
    assert chains.take(OLD.ledger, raws([forged])) is None


def test_a_certified_block_of_an_epoch_that_is_over_is_a_fork() -> None:
    """Old seats that decide on beside their own seal are proved liars, at any height."""
    chains = carrier()
    blocks = story()
    assert isinstance(chains.take(OLD.ledger, raws(blocks)), Verified)
    other = msgspec.structs.replace(blocks[0].block.header, height=3, view=9)
    content = blocks[0].block.content
    forged = StoredBlock(Block(other, content), (), certify(OLD, SEATS, other))
    assert isinstance(chains.take(OLD.ledger, raws([forged])), Forked)


def spoil(stored: StoredBlock, **change: Any) -> StoredBlock:
    return msgspec.structs.replace(stored, **change)


def test_a_handover_that_does_not_hold_is_refused() -> None:
    """Without proof, with a foreign or torn tail, by too few, or by the seats that come."""
    first, seal, last = story(tail=2)
    header = seal.block.header
    new = next_epoch(seal.block)
    few = certify(OLD, SEATS, seal.tail[-1], signers=[0, 1])
    as_new = certify(new, NEW_SEATS, header)
    bad = [
        spoil(seal, certificate=None, tail=()),
        spoil(seal, tail=()),
        spoil(seal, tail=seal.tail[:1]),
        spoil(seal, tail=seal.tail[1:]),
        spoil(seal, tail=seal.tail[::-1]),
        spoil(seal, tail=(msgspec.structs.replace(seal.tail[0], epoch=1), *seal.tail[1:])),
        spoil(seal, certificate=few),
        spoil(seal, certificate=as_new, tail=()),
        spoil(seal, certificate=msgspec.structs.replace(seal.certificate, kind=1)),
    ]
    for wrong in bad:
        chains = carrier()
        with pytest.raises(CredentialError):
            chains.take(OLD.ledger, raws([first, wrong, last]))
    chains = carrier()
    with pytest.raises(CredentialError):
        chains.take(OLD.ledger, raws([spoil(first, tail=seal.tail[:1]), seal]))


def test_an_old_quorum_decides_nothing_after_its_seal() -> None:
    """The next block certified by the seats of before, ex-validators among them, is refused."""
    first, seal, last = story()
    by_old = certify(OLD, SEATS, last.block.header)
    chains = carrier()
    with pytest.raises(CredentialError):
        chains.take(OLD.ledger, raws([first, seal, spoil(last, certificate=by_old)]))
    renamed = msgspec.structs.replace(by_old, epoch=1)
    with pytest.raises(CredentialError):
        chains.take(OLD.ledger, raws([first, seal, spoil(last, certificate=renamed)]))


def test_a_seal_is_offered_with_what_only_it_proves() -> None:
    """A peer that lacks it gets the run of blocks up to it, in one answer."""
    disk = MemoryDisk()
    chains = Chains(disk=disk, network=NETWORK, open_chain=open_chain)
    chains.found(founding_of(SEATS, GENESIS))
    first, seal, last = story()
    assert isinstance(
        chains.take(OLD.ledger, raws([spoil(first, certificate=None), seal, last])), Verified
    )
    offer = chains.offer(OLD.ledger, 2)
    assert offer is not None
    assert len(offer.blocks) == 2
    assert isinstance(carrier().take(OLD.ledger, offer.blocks), Verified)
    assert chains.offer(OLD.ledger, 9) is None
