"""What one member may cost a node that carries ledgers, and what must not stop it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from toy_ledger import (
    CREATED_MS,
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

from p2pmed.engine import DeadlineReached, Instant
from p2pmed.ledger.genesis import Founding, ledger_id
from p2pmed.ledger.stored import StoredBlock
from p2pmed.storage.memory import MemoryDisk
from p2pmed.sync.chains import (
    APPLY_MS,
    ASK_MS,
    BLOCKS_PER_ANSWER_MAX,
    LEDGERS_PER_FOUNDER_MAX,
    ChainAsk,
    ChainBlocks,
    ChainEffect,
    Chains,
    Faulty,
    Founded,
    FromPeer,
    HeadsSeen,
    SendChain,
    Verified,
    _is_certified,
)
from p2pmed.wire import codec

SEATS = devices(4)
GENESIS = genesis_of(SEATS)
LEDGER = ledger_id(GENESIS)
FOUNDING = founding_of(SEATS, GENESIS)
PEER, OTHER = b"p" * 32, b"q" * 32
NOW = Instant(1_000)


def village(count: int, *, bare: Sequence[int] = ()) -> list[StoredBlock]:
    """A chain of ``count`` blocks; those at heights ``bare`` carry no certificate."""
    node, writer, blocks = ToyNode(GENESIS), Writer(SEATS[0]), []
    for height in range(1, count + 1):
        node.hold(writer.write("toy.put", [b"k", bytes([height % 256])]))
        block = node.propose()
        assert block is not None
        certificate = None if height in bare else certify(GENESIS.epoch(), SEATS, block.header)
        node.take(block, certificate)
        blocks.append(StoredBlock(block=block, certificate=certificate))
    return blocks


def raws(blocks: Sequence[StoredBlock]) -> tuple[bytes, ...]:
    return tuple(codec.encode(block) for block in blocks)


def new_chains(**fields: Any) -> Chains:
    values: dict[str, Any] = {"disk": MemoryDisk(), "network": NETWORK, "open_chain": open_chain}
    return Chains(**{**values, **fields})


def knowing(blocks: Sequence[StoredBlock]) -> Chains:
    chains = new_chains()
    chains.found(FOUNDING)
    if blocks:
        assert isinstance(chains.take(LEDGER, raws(blocks)), Verified)
    return chains


def asks(effects: Sequence[ChainEffect]) -> list[tuple[bytes, int]]:
    return [
        (effect.peer, effect.message.height)
        for effect in effects
        if isinstance(effect, SendChain) and isinstance(effect.message, ChainAsk)
    ]


def answer_of(chains: Chains, height: int) -> ChainBlocks:
    (sent,) = chains.step(FromPeer(PEER, ChainAsk(ledger=LEDGER, height=height)), NOW)
    assert isinstance(sent, SendChain)
    assert isinstance(sent.message, ChainBlocks)
    return sent.message


def alone(device: Device, number: int) -> Founding:
    """A ledger of one."""
    genesis = genesis_of([device], nonce=number.to_bytes(16, "big"), created=CREATED_MS)
    founding: Founding = founding_of([device], genesis)
    return founding


def test_a_founding_is_announced_whatever_comes_with_it() -> None:
    """A peer that adds rubbish to a true founding keeps nobody from living in that ledger."""
    chains = new_chains()
    chains.step(HeadsSeen(PEER, ((LEDGER, 3),)), NOW)
    answer = ChainBlocks(ledger=LEDGER, founding=codec.encode(FOUNDING), blocks=(b"\x00",))
    effects = chains.step(FromPeer(PEER, answer), NOW)
    assert [type(effect) for effect in effects] == [Founded, Faulty]


def test_one_device_cannot_fill_the_table_of_ledgers() -> None:
    """Of a founder of many ledgers some are carried; nobody is dropped, nobody asks again."""
    chains, liar = new_chains(), Device("liar")
    for number in range(LEDGERS_PER_FOUNDER_MAX + 3):
        founding = alone(liar, number)
        ledger = ledger_id(founding.genesis)
        chains.step(HeadsSeen(PEER, ((ledger, 1),)), NOW)
        answer = ChainBlocks(ledger=ledger, founding=codec.encode(founding), blocks=())
        effects = chains.step(FromPeer(PEER, answer), NOW)
        assert not any(isinstance(effect, Faulty) for effect in effects)
    assert len(chains.heads()) == LEDGERS_PER_FOUNDER_MAX
    assert asks(chains.step(HeadsSeen(OTHER, ((ledger, 1),)), NOW)) == []


def test_a_ledger_that_names_this_node_always_has_room() -> None:
    """Whatever was carried before: who signed a founding lives in it."""
    liar = Device("liar")
    chains = new_chains(me=liar.key)
    for number in range(LEDGERS_PER_FOUNDER_MAX + 3):
        assert chains.found(alone(liar, number))


def test_an_answer_that_nobody_asked_for_makes_nobody_ask() -> None:
    """Else one small frame of a liar buys an answer of an honest peer, again and again."""
    chains = knowing([])
    assert asks(chains.step(HeadsSeen(PEER, ((LEDGER, 9),)), NOW)) == [(PEER, 0)]
    chains.step(HeadsSeen(OTHER, ((LEDGER, 9),)), NOW)
    empty = ChainBlocks(ledger=LEDGER, founding=b"", blocks=())
    for _ in range(3):
        assert chains.step(FromPeer(b"l" * 32, empty), NOW) == []


def test_a_slow_line_gets_the_time_it_needs() -> None:
    """Who answered late once is not asked anew before an answer can have come."""
    chains, blocks = knowing([]), village(2)
    chains.step(HeadsSeen(PEER, ((LEDGER, 2),)), NOW)
    chains.step(DeadlineReached(), Instant(NOW + ASK_MS))
    late = Instant(NOW + 4 * ASK_MS)
    taken = chains.step(FromPeer(PEER, ChainBlocks(LEDGER, b"", raws(blocks[:1]))), late)
    assert isinstance(taken[0], Verified), "a late answer is an answer"
    assert asks(chains.step(HeadsSeen(PEER, ((LEDGER, 2),)), late)) == [(PEER, 1)]
    assert chains.deadline == late + 8 * ASK_MS


def test_a_proof_beyond_the_end_of_an_answer_is_waited_for() -> None:
    """A long run of blocks that only the last one proves is still learned."""
    count = 2 * BLOCKS_PER_ANSWER_MAX + 5
    blocks = village(count, bare=range(1, count))
    carrier = new_chains()
    carrier.found(FOUNDING)
    assert isinstance(carrier.take(LEDGER, raws(blocks)), Verified)
    chains = knowing([])
    effects = chains.step(HeadsSeen(PEER, ((LEDGER, count),)), NOW)
    heights = []
    while asked := asks(effects):
        heights.append(asked[0][1])
        effects = chains.step(FromPeer(PEER, answer_of(carrier, asked[0][1])), NOW)
    assert heights == [0, BLOCKS_PER_ANSWER_MAX, 2 * BLOCKS_PER_ANSWER_MAX]
    assert chains.height(LEDGER) == count


def test_loose_blocks_count_for_nothing_and_bind_to_who_sent_them() -> None:
    """Without a proof nothing is told, and the next peer is asked from the height that counts."""
    blocks = village(BLOCKS_PER_ANSWER_MAX, bare=range(1, BLOCKS_PER_ANSWER_MAX + 1))
    chains = knowing([])
    chains.step(HeadsSeen(PEER, ((LEDGER, 99),)), NOW)
    answer = ChainBlocks(ledger=LEDGER, founding=b"", blocks=raws(blocks))
    assert asks(chains.step(FromPeer(PEER, answer), NOW)) == [(PEER, len(blocks))]
    assert chains.height(LEDGER) == 0
    late = Instant(NOW + 2 * ASK_MS)
    assert asks(chains.step(DeadlineReached(), late)) == []
    assert asks(chains.step(HeadsSeen(OTHER, ((LEDGER, 99),)), late)) == [(OTHER, 0)]


def test_blocks_that_wait_for_bodies_are_not_asked_for_at_every_ping() -> None:
    """The home ledger was handed them: they come again only if nothing became of them."""
    chains, blocks = knowing([]), village(3)
    chains.home = LEDGER
    chains.step(HeadsSeen(PEER, ((LEDGER, 9),)), NOW)
    answer = ChainBlocks(ledger=LEDGER, founding=b"", blocks=raws(blocks))
    assert isinstance(chains.step(FromPeer(PEER, answer), NOW)[0], Verified)
    ping = HeadsSeen(OTHER, ((LEDGER, 9),))
    assert asks(chains.step(ping, NOW)) == []
    assert asks(chains.step(ping, Instant(NOW + APPLY_MS))) == [(PEER, 0)]


def test_a_signature_that_ends_like_null_is_a_certificate() -> None:
    """Whether a stored block is certified is told from its bytes, and never told wrong."""
    (block,) = village(1)
    assert block.certificate is not None
    signatures = (*block.certificate.signatures[:-1], b"s" * 63 + b"\xf6")
    certificate = msgspec.structs.replace(block.certificate, signatures=signatures)
    for proof in (certificate, block.certificate, None):
        raw = codec.encode(StoredBlock(block=block.block, certificate=proof))
        assert _is_certified(raw) == (proof is not None)
