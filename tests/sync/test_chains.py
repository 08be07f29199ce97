"""Certified chains from anybody to anybody: what proves itself is kept, the rest is refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from toy_ledger import (
    NETWORK,
    ToyNode,
    Writer,
    certify,
    devices,
    founding_of,
    genesis_of,
    open_chain,
)

from p2pmed.consensus.interface import Block, header_digest
from p2pmed.engine import DeadlineReached, Instant
from p2pmed.errors import CredentialError, DecodeError
from p2pmed.ledger.genesis import ledger_id
from p2pmed.ledger.stored import StoredBlock
from p2pmed.quorum.certificate import VoteKind
from p2pmed.storage.memory import MemoryDisk
from p2pmed.sync.chains import (
    ANSWER_BYTES_MAX,
    ASK_MS,
    BLOCKS_PER_ANSWER_MAX,
    ChainAsk,
    ChainBlocks,
    ChainEffect,
    Chains,
    Faulty,
    Forked,
    Founded,
    FromPeer,
    HeadsSeen,
    PeerGone,
    SendChain,
    Verified,
)
from p2pmed.wire import codec

SEATS = devices(4)
GENESIS = genesis_of(SEATS)
LEDGER = ledger_id(GENESIS)
FOUNDING = founding_of(SEATS, GENESIS)
EPOCH = GENESIS.epoch()
PEER, OTHER = b"p" * 32, b"q" * 32
NOW = Instant(1_000)


def village(count: int, *, bare: Sequence[int] = (), branch: bytes = b"v") -> list[StoredBlock]:
    """A chain of ``count`` blocks; those at heights ``bare`` carry no certificate."""
    node, writer = ToyNode(GENESIS), Writer(SEATS[0])
    blocks = []
    for height in range(1, count + 1):
        node.hold(writer.write("toy.put", [b"k", branch + bytes([height % 256])]))
        block = node.propose()
        assert block is not None
        certificate = None if height in bare else certify(EPOCH, SEATS, block.header)
        node.take(block, certificate)
        blocks.append(StoredBlock(block=block, certificate=certificate))
    return blocks


def raws(blocks: Sequence[StoredBlock]) -> tuple[bytes, ...]:
    return tuple(codec.encode(block) for block in blocks)


def new_chains(disk: MemoryDisk | None = None, **fields: Any) -> Chains:
    values: dict[str, Any] = {"network": NETWORK, "open_chain": open_chain}
    return Chains(disk=disk or MemoryDisk(), **{**values, **fields})


def knowing(blocks: Sequence[StoredBlock], disk: MemoryDisk | None = None) -> Chains:
    """Somebody who carries the ledger up to the end of ``blocks``."""
    chains = new_chains(disk)
    chains.found(FOUNDING)
    if blocks:
        assert isinstance(chains.take(LEDGER, raws(blocks)), Verified)
    return chains


def answer_of(chains: Chains, ask: ChainAsk) -> ChainBlocks:
    (sent,) = chains.step(FromPeer(PEER, ask), NOW)
    assert isinstance(sent, SendChain)
    assert isinstance(sent.message, ChainBlocks)
    return sent.message


def sends(effects: Sequence[ChainEffect]) -> list[tuple[bytes, int]]:
    """Whom effects ask, and from which height."""
    return [
        (effect.peer, effect.message.height)
        for effect in effects
        if isinstance(effect, SendChain) and isinstance(effect.message, ChainAsk)
    ]


# --- from nothing to the end ----------------------------------------------------------------


def test_an_unknown_ledger_is_asked_for_and_read_to_its_end() -> None:
    """Founding first, then blocks, answer after answer, until nobody claims more."""
    blocks = village(BLOCKS_PER_ANSWER_MAX + 6)
    carrier, newcomer = knowing(blocks), new_chains()
    effects = newcomer.step(HeadsSeen(PEER, ((LEDGER, len(blocks)),)), NOW)
    assert sends(effects) == [(PEER, 0)]
    told: list[ChainEffect] = []
    while (asks := [e.message for e in effects if isinstance(e, SendChain)]) and len(told) < 99:
        (ask,) = asks
        assert isinstance(ask, ChainAsk)
        effects = newcomer.step(FromPeer(PEER, answer_of(carrier, ask)), NOW)
        effects += newcomer.step(HeadsSeen(PEER, ((LEDGER, len(blocks)),)), NOW)  # the next ping
        told += effects
    assert isinstance(told[0], Founded)
    heights = [
        stored.block.header.height
        for effect in told
        if isinstance(effect, Verified)
        for stored in effect.blocks
    ]
    assert heights == list(range(1, len(blocks) + 1))
    assert newcomer.heads() == ((LEDGER, len(blocks)),)
    assert newcomer.deadline is None
    assert newcomer.block_at(LEDGER, 3) == blocks[2]


def test_a_restart_knows_what_was_carried() -> None:
    """Founding and height come back from the disk, and the next block connects."""
    blocks, disk = village(4), MemoryDisk()
    knowing(blocks[:3], disk)
    disk.commit()
    again = new_chains(disk)
    assert again.heads() == ((LEDGER, 3),)
    assert again.founding(LEDGER) == FOUNDING
    assert isinstance(again.take(LEDGER, raws(blocks[3:])), Verified)


def test_blocks_of_the_home_ledger_are_handed_out_and_not_stored_here() -> None:
    """Whoever applies them stores them; ``advance`` says so, ``settle`` asks on."""
    blocks = village(3)
    chains = knowing([])
    chains.home = LEDGER
    chains.step(HeadsSeen(PEER, ((LEDGER, 3),)), NOW)
    effects = chains.step(FromPeer(PEER, ChainBlocks(LEDGER, b"", raws(blocks[:2]))), NOW)
    assert [type(effect) for effect in effects] == [Verified]
    assert chains.height(LEDGER) == 0
    assert chains.block_at(LEDGER, 1) is None
    for stored in blocks[:2]:
        chains.advance(stored.block.header)
    assert sends(chains.settle(LEDGER, NOW)) == [(PEER, 2)]


def test_an_answer_is_bounded_and_ends_in_a_certificate() -> None:
    """Not more blocks than agreed, not much more bytes, and nothing unproven at the end."""
    blocks = village(BLOCKS_PER_ANSWER_MAX + 10, bare=(3, BLOCKS_PER_ANSWER_MAX))
    answer = answer_of(knowing(blocks), ChainAsk(ledger=LEDGER, height=0))
    assert len(answer.blocks) <= BLOCKS_PER_ANSWER_MAX
    assert sum(map(len, answer.blocks[:-1])) < ANSWER_BYTES_MAX
    assert codec.decode(answer.blocks[-1], StoredBlock).certificate is not None
    assert answer.founding
    assert not answer_of(knowing(blocks), ChainAsk(ledger=LEDGER, height=2)).founding


def test_an_ask_for_an_unknown_ledger_gets_no_answer() -> None:
    """Silence costs nothing and tells nothing."""
    assert new_chains().step(FromPeer(PEER, ChainAsk(ledger=LEDGER, height=0)), NOW) == []


def test_an_ancestor_is_proven_by_its_descendant() -> None:
    """A block without a certificate counts when a certified one names it, directly or not."""
    blocks = village(4, bare=(1, 2, 4))
    chains = knowing([])
    taken = chains.take(LEDGER, raws(blocks))
    assert isinstance(taken, Verified)
    assert len(taken.blocks) == 3, "what nothing proves yet is left out"
    assert chains.height(LEDGER) == 3


# --- what is refused ------------------------------------------------------------------------


def stored(block: Block, **fields: Any) -> StoredBlock:
    header = msgspec.structs.replace(block.header, **fields)
    return StoredBlock(
        block=Block(header=header, content=block.content),
        certificate=certify(EPOCH, SEATS, header),
    )


@pytest.mark.parametrize(
    "wrong",
    [
        lambda good: StoredBlock(
            block=Block(header=good.block.header, content=good.block.content[:-1] + b"\x00"),
            certificate=good.certificate,
        ),
        lambda good: StoredBlock(
            block=good.block, certificate=certify(EPOCH, SEATS, good.block.header, signers=[0, 1])
        ),
        lambda good: StoredBlock(
            block=good.block,
            certificate=certify(EPOCH, SEATS, good.block.header, kind=VoteKind.NOTARIZE),
        ),
        lambda good: StoredBlock(
            block=good.block, certificate=certify(EPOCH, devices(8)[4:], good.block.header)
        ),
        lambda good: stored(good.block, epoch=1),
        lambda good: stored(good.block, ledger=bytes(32)),
        lambda good: stored(good.block, content=bytes(32)),
        lambda good: stored(good.block, parent=bytes(32)),
        lambda good: StoredBlock(
            block=good.block,
            certificate=certify(EPOCH, SEATS, msgspec.structs.replace(good.block.header, view=99)),
        ),
    ],
    ids=[
        "content",
        "too few signers",
        "only notarised",
        "strangers",
        "epoch",
        "ledger",
        "content hash",
        "first block's parent",
        "certificate is that of another",
    ],
)
def test_a_block_that_does_not_hold_is_refused_and_its_sender_dropped(wrong: Any) -> None:
    """Nothing of the answer is kept from there on, and the peer is named at fault."""
    (good,) = village(1)
    chains = knowing([])
    with pytest.raises((CredentialError, DecodeError)):
        chains.take(LEDGER, raws([wrong(good)]))
    effects = chains.step(FromPeer(PEER, ChainBlocks(LEDGER, b"", raws([wrong(good)]))), NOW)
    assert [type(effect) for effect in effects] == [Faulty]
    assert chains.height(LEDGER) == 0
    assert isinstance(chains.take(LEDGER, raws([good])), Verified)


def test_a_founding_must_be_the_one_that_was_asked_for_and_hold() -> None:
    """Another ledger's founding, or one not signed by all, drops the peer."""
    other = genesis_of(devices(3), name="others")
    unsigned = msgspec.structs.replace(FOUNDING, signatures=FOUNDING.signatures[:-1])
    for founding in (founding_of(devices(3), other), unsigned):
        chains = new_chains()
        chains.step(HeadsSeen(PEER, ((LEDGER, 1),)), NOW)
        message = ChainBlocks(LEDGER, codec.encode(founding), ())
        effects = chains.step(FromPeer(PEER, message), NOW)
        assert [type(effect) for effect in effects] == [Faulty]
        assert chains.heads() == ()


def test_what_was_not_asked_for_founds_nothing() -> None:
    """A ledger enters by an answer to a question, or by the node's own hand."""
    chains = new_chains()
    message = ChainBlocks(LEDGER, codec.encode(FOUNDING), raws(village(1)))
    assert chains.step(FromPeer(PEER, message), NOW) == []
    assert chains.heads() == ()


def test_a_gap_is_no_progress_and_no_fault() -> None:
    """Blocks that do not connect yet are left alone."""
    chains = knowing([])
    assert chains.take(LEDGER, raws(village(3)[1:])) is None
    assert chains.height(LEDGER) == 0


def test_what_is_known_already_changes_nothing() -> None:
    """The same blocks again, from a peer or a stick."""
    blocks = village(3)
    chains = knowing(blocks)
    assert chains.take(LEDGER, raws(blocks)) is None
    assert chains.height(LEDGER) == 3


# --- forks ----------------------------------------------------------------------------------


def test_two_certified_blocks_at_one_height_are_a_fork_and_the_first_stays() -> None:
    """More liars than the ledger withstands: nothing is overwritten, both are shown."""
    mine, theirs = village(2), village(2, branch=b"w")
    chains = knowing(mine)
    taken = chains.take(LEDGER, raws(theirs))
    assert isinstance(taken, Forked)
    assert taken.first == mine[0]
    assert taken.second == theirs[0]
    assert chains.block_at(LEDGER, 1) == mine[0]
    assert chains.height(LEDGER) == 2


def test_a_certified_child_of_another_parent_is_a_fork_and_not_the_messenger_s_fault() -> None:
    """Who asks upward from its own head sees the other branch from its next block on: finality
    of that block is finality of its parent, which is not ours.
    """
    mine, theirs = village(2), village(3, branch=b"w")
    chains = knowing(mine)
    chains.step(HeadsSeen(PEER, ((LEDGER, 3),)), NOW)
    effects = chains.step(FromPeer(PEER, ChainBlocks(LEDGER, b"", raws(theirs[2:]))), NOW)
    (fork,) = effects
    assert isinstance(fork, Forked)
    assert (fork.first, fork.second) == (mine[1], theirs[2])
    assert chains.height(LEDGER) == 2


def test_a_fork_is_told_and_not_asked_for_again_and_again() -> None:
    """The peer's claim is forgotten: it would bring the same blocks for ever."""
    mine, theirs = village(1), village(2, branch=b"w")
    chains = knowing(mine)
    chains.step(HeadsSeen(PEER, ((LEDGER, 2),)), NOW)
    effects = chains.step(FromPeer(PEER, ChainBlocks(LEDGER, b"", raws(theirs))), NOW)
    assert [type(effect) for effect in effects] == [Forked]
    assert chains.deadline is None


def test_an_uncertified_block_accuses_nobody() -> None:
    """Without a certificate another block at a known height proves nothing."""
    mine, theirs = village(2), village(2, branch=b"w", bare=(1, 2))
    chains = knowing(mine)
    assert chains.take(LEDGER, raws(theirs)) is None


# --- peers that lie, are silent, or leave ---------------------------------------------------


def test_one_peer_is_asked_at_a_time() -> None:
    """A second peer with the same claim waits for the first one's answer or silence."""
    chains = knowing([])
    assert sends(chains.step(HeadsSeen(PEER, ((LEDGER, 5),)), NOW)) == [(PEER, 0)]
    assert sends(chains.step(HeadsSeen(OTHER, ((LEDGER, 5),)), NOW)) == []


def test_a_silent_peer_is_passed_over() -> None:
    """After ``ASK_MS`` the next one that claims more is asked, and the claim is forgotten."""
    chains = knowing([])
    chains.step(HeadsSeen(PEER, ((LEDGER, 5),)), NOW)
    chains.step(HeadsSeen(OTHER, ((LEDGER, 5),)), NOW)
    assert chains.deadline == NOW + ASK_MS
    late = Instant(NOW + ASK_MS)
    assert sends(chains.step(DeadlineReached(), late)) == [(OTHER, 0)]
    assert sends(chains.step(DeadlineReached(), Instant(late + ASK_MS))) == []
    assert chains.deadline is None


def test_a_peer_that_leaves_is_passed_over_at_once() -> None:
    """Its claims go with it."""
    chains = knowing([])
    chains.step(HeadsSeen(PEER, ((LEDGER, 5),)), NOW)
    chains.step(HeadsSeen(OTHER, ((LEDGER, 5),)), NOW)
    assert sends(chains.step(PeerGone(PEER), NOW)) == [(OTHER, 0)]
    assert sends(chains.step(PeerGone(OTHER), NOW)) == []
    assert chains.deadline is None


def test_a_lying_height_costs_one_ask() -> None:
    """Who claims a million and brings nothing is not asked again until it claims anew."""
    chains = knowing(village(1))
    assert sends(chains.step(HeadsSeen(PEER, ((LEDGER, 10**6),)), NOW)) == [(PEER, 1)]
    assert chains.step(FromPeer(PEER, ChainBlocks(LEDGER, b"", ())), NOW) == []
    assert chains.deadline is None


def test_an_unknown_ledger_that_nobody_brings_is_forgotten() -> None:
    """The question runs out, and may be asked of somebody else."""
    chains = new_chains()
    chains.step(HeadsSeen(PEER, ((LEDGER, 5),)), NOW)
    assert chains.step(HeadsSeen(OTHER, ((LEDGER, 5),)), NOW) == []
    late = Instant(NOW + ASK_MS)
    chains.step(DeadlineReached(), late)
    assert sends(chains.step(HeadsSeen(OTHER, ((LEDGER, 5),)), late)) == [(OTHER, 0)]


def test_the_chain_that_was_taken_is_the_one_that_was_sent() -> None:
    """Digests link: every stored header names the one below it, down to the ledger's id."""
    blocks = village(5)
    chains = knowing(blocks)
    parent = LEDGER
    for height in range(1, 6):
        kept = chains.block_at(LEDGER, height)
        assert kept is not None
        assert kept.block.header.parent == parent
        parent = header_digest(kept.block.header)
