"""What travels: one spelling per message, everything bounded, nothing beyond a frame."""

from __future__ import annotations

import pytest
from bench_seat import Bench, F, N, X

from p2pmed.consensus.bft.messages import (
    CERTIFICATES_MAX,
    CONTENT_BYTES_MAX,
    JUSTIFICATION_MAX,
    Ask,
    Body,
    Certificates,
    Decided,
    Proposal,
    Vote,
    decode_message,
    encode_message,
)
from p2pmed.consensus.interface import Block
from p2pmed.errors import DecodeError
from p2pmed.limits import FRAME_BYTES_MAX, VALIDATORS_MAX
from p2pmed.quorum.certificate import vote_bytes
from p2pmed.wire import cbor


def samples() -> list:
    bench = Bench()
    block = bench.block(2**53, 5, height=2**53, parent_view=2**53 - 1)
    proof = bench.certificate(F, block)
    return [
        Proposal(block=block, justification=(proof,)),
        bench.signed(1, X, 2**53, b""),
        Certificates(certificates=(proof, bench.certificate(N, block))),
        Decided(header=block.header, certificate=proof),
        Ask(floor=0, start=2**53, blocks=(bytes(32),)),
        Body(block=block),
    ]


@pytest.mark.parametrize("message", samples(), ids=lambda m: type(m).__name__)
def test_each_message_comes_back_as_it_was_sent(message) -> None:
    """Encoding and decoding are inverse, and the tag is the first item of the array."""
    raw = encode_message(message)
    assert decode_message(raw) == message
    tags = {Proposal: 1, Vote: 2, Certificates: 3, Decided: 4, Ask: 5, Body: 6}
    assert cbor.decode(raw)[0] == tags[type(message)]


@pytest.mark.parametrize("message", samples(), ids=lambda m: type(m).__name__)
def test_a_truncated_or_longer_message_is_refused(message) -> None:
    """Every proper prefix, and every message with a byte too many, is a ``DecodeError``."""
    raw = encode_message(message)
    for cut in [*range(0, len(raw), 17), len(raw) - 1]:
        with pytest.raises(DecodeError):
            decode_message(raw[:cut])
    with pytest.raises(DecodeError):
        decode_message(raw + b"\x00")
    with pytest.raises(DecodeError):
        decode_message(cbor.encode([*cbor.decode(raw), 0]))


def test_the_largest_messages_fit_into_a_frame() -> None:
    """Twenty validators, the fullest justification, the longest content."""
    bench = Bench(seats=VALIDATORS_MAX)
    block = bench.block(2**53, height=2**53, parent_view=2**53 - 1)
    block = Block(header=block.header, content=bytes(CONTENT_BYTES_MAX))
    proof = bench.certificate(F, block, *range(VALIDATORS_MAX))
    longest = [
        Proposal(block=block, justification=(proof,) * JUSTIFICATION_MAX),
        Certificates(certificates=(proof,) * CERTIFICATES_MAX),
        Body(block=block),
    ]
    assert all(len(encode_message(message)) <= FRAME_BYTES_MAX for message in longest)
    assert all(decode_message(encode_message(message)) == message for message in longest)


def test_more_than_the_bound_is_refused() -> None:
    """A tuple longer than its bound does not decode."""
    proof = Bench().certificate(X, 1)
    too_many = [
        Certificates(certificates=(proof,) * (CERTIFICATES_MAX + 1)),
        Ask(floor=0, start=0, blocks=(bytes(32),) * 5),
    ]
    for message in too_many:
        with pytest.raises(DecodeError):
            decode_message(encode_message(message))


def test_the_examples_of_the_specification() -> None:
    """docs/protocols/bft.md, clauses 2.2, 3.4 and 3.5, byte for byte."""
    statement = vote_bytes(b"\x11" * 32, 0, X, 7, b"")
    assert statement.hex() == "87687032706d65642f3164766f74655820" + "11" * 32 + "00020740"
    vote = Vote(kind=2, view=7, digest=b"", signature=b"\x55" * 64)
    assert encode_message(vote).hex() == "85020207405840" + "55" * 64
    ask = Ask(floor=3, start=7, blocks=(b"\x22" * 32,))
    assert encode_message(ask).hex() == "84050307815820" + "22" * 32
