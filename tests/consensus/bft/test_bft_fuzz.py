"""Nothing a stranger in a seat sends raises, signs for us, or grows without bound."""

from __future__ import annotations

from functools import cache

import msgspec
import pytest
from bench_seat import Bench, F, N, X, of
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pmed.consensus.bft import messages
from p2pmed.consensus.bft.messages import (
    Ask,
    Body,
    Certificates,
    Decided,
    Hello,
    Proposal,
    Standing,
    Vote,
    Votes,
    decode_message,
    encode_message,
)
from p2pmed.consensus.interface import Decide, Receive
from p2pmed.errors import DecodeError
from p2pmed.wire import cbor


@cache
def samples() -> tuple[bytes, ...]:
    """One honest message of every kind."""
    bench = Bench()
    block = bench.block(1, 5)
    vote = bench.signed(1, X, 2, b"")
    proof = bench.certificate(F, block)
    decided = Decided(block.header, proof)
    made = (
        Proposal(block, (bench.certificate(X, 1),)),
        bench.signed(1, N, 1, proof.digest),
        Certificates((bench.certificate(N, block), bench.certificate(X, 2))),
        decided,
        Ask(0, 1, (proof.digest,)),
        Body(block),
        Votes((vote, bench.signed(1, N, 1, proof.digest))),
        Hello(7),
        Standing(7, 3, (proof,), (decided,), (vote,)),
    )
    return tuple(map(encode_message, made))


def kinds() -> list[type]:
    return [value for value in vars(messages).values() if hasattr(value, "__struct_config__")]


def test_every_kind_of_message_is_fuzzed() -> None:
    """A message that is added to the table is added here."""
    tagged = {kind for kind in kinds() if kind.__struct_config__.tag is not None}
    ours = {kind for kind in tagged if kind.__module__ == messages.__name__}
    assert {type(decode_message(raw)) for raw in samples()} == ours


def hostile(raw: bytes) -> Bench:
    """``raw`` from every seat; the engine must go on as if nothing had been."""
    bench = Bench()
    for sender in (1, 2, 3):
        for effect in bench.step(Receive(sender, raw)):
            assert not isinstance(effect, Decide)
    live = bench.engine._live
    assert len(live.blocks) + len(live.proposals) + len(live.early) <= 6
    return bench


@given(data=st.data())
@settings(max_examples=250, deadline=None)
def test_a_flipped_message_changes_nothing_that_matters(data: st.DataObject) -> None:
    """Bytes changed, cut, or put in: refused, or harmless; never an exception."""
    raw = bytearray(data.draw(st.sampled_from(samples())))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw) - 1))
        match data.draw(st.integers(0, 2)):
            case 0:
                raw[at] = data.draw(st.integers(0, 255))
            case 1:
                del raw[at + 1 :]
            case _:
                raw[at:at] = data.draw(st.binary(min_size=1, max_size=4))
    hostile(bytes(raw))


@given(raw=st.binary(max_size=400))
@settings(max_examples=150, deadline=None)
def test_any_bytes_are_survived(raw: bytes) -> None:
    """Whatever comes through a channel: the decoder says ``DecodeError`` or gives a message."""
    hostile(raw)
    for head in range(1, 10):
        try:
            decode_message(b"\x82" + bytes([head]) + raw)
        except DecodeError:
            continue


LEAVES = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.binary(max_size=70)
TREES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=5), max_leaves=20)


@given(tag=st.integers(0, 12), fields=st.lists(TREES, max_size=6))
@settings(max_examples=250, deadline=None)
def test_any_well_spelled_array_is_survived(tag: int, fields: list) -> None:
    """Deterministic CBOR of any shape under any tag."""
    hostile(cbor.encode([tag, *fields]))


@given(
    kind=st.integers(1, 3),
    view=st.integers(0, 2**53),
    digest=st.sampled_from([b"", bytes(32), b"short"]),
    seat=st.integers(0, 3),
    times=st.integers(1, 20),
)
@settings(max_examples=150, deadline=None)
def test_any_signed_vote_is_survived(
    kind: int, view: int, digest: bytes, seat: int, times: int
) -> None:
    """A liar's own signature, over anything, any number of times."""
    bench = Bench()
    vote = bench.signed(seat, msgspec.convert(kind, int), view, digest)
    for _ in range(times):
        bench.receive(3, vote)
    assert of(bench.effects, Decide) == []
    assert len(bench.engine._ballots._tallies) <= 1


@given(
    round_=st.integers(0, 2**53),
    voted=st.integers(0, 2**53),
    recovering=st.booleans(),
    count=st.integers(1, 4),
)
@settings(max_examples=100, deadline=None)
def test_any_answer_to_a_hello_is_survived(
    round_: int, voted: int, recovering: bool, count: int
) -> None:
    """R11, R12: claims without proof lift the bound by no more than an honest vote could."""
    bench = Bench()
    bench.boot(greeted=False, amnesic=recovering)
    real = bench.engine._greeting._round
    for seat in range(1, count):
        bench.receive(seat, Standing(round_ or real, voted, (), (), ()))
        bench.receive(seat, Standing(real, voted, (), (), ()))
    if bench.engine.status()["phase"] == "voting":
        assert bench.engine._ballots.may_finalize(40)


@pytest.mark.parametrize("sender", [-1, 0, 4, 255])
def test_a_seat_that_is_none_is_not_listened_to(sender: int) -> None:
    """Not even to be told that it is wrong."""
    bench = Bench()
    for raw in samples():
        assert bench.step(Receive(sender, raw)) == []


def test_a_vote_says_nothing_of_who_sent_it() -> None:
    """Rustchain#2256: no message names its sender; a vote counts for the channel's seat only."""
    bench = Bench()
    block = bench.block(1, 5)
    stolen = bench.signed(1, N, 1, bench.certificate(N, block).digest)
    for seat in (2, 3):
        bench.receive(seat, stolen)
    assert bench.engine.status()["refused"] == 2
    assert "sender" not in Vote.__struct_fields__
