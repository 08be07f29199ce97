"""What travels: frozen bytes, and what no decoder lets in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from p2pmed.errors import DecodeError
from p2pmed.gossip.admission import cost
from p2pmed.gossip.frontier import digest_of
from p2pmed.gossip.messages import (
    HAVE_LANES_MAX,
    PAGE_LANES_MAX,
    AskFrontier,
    Entries,
    Frontier,
    GossipMessage,
    Have,
    Head,
    LaneRange,
    Mark,
    Ping,
    Pong,
    Push,
    Want,
)
from p2pmed.ledger.transaction import LaneKey
from p2pmed.limits import (
    BATCH_BYTES_MAX,
    BATCH_ENTRIES_MAX,
    CONTROL_QUEUE_BYTES_MAX,
    ENTRY_BYTES_MAX,
    FRAME_BYTES_MAX,
)
from p2pmed.wire import cbor, codec

VECTORS = json.loads(
    (Path(__file__).parents[1] / "vectors" / "gossip.json").read_text(encoding="utf-8")
)

A, B, INC, L = b"\xaa" * 32, b"\xbb" * 32, b"\x01" * 16, b"\x0c" * 32

SAMPLES: dict[str, GossipMessage] = {
    "ping": Ping(7, b"\xd1" * 32, 1_760_000_000_000 << 16, 1_760_000_000_000, 2, (Head(L, 12),)),
    "ping of a node without a ledger": Ping(1, bytes(32), 0, -1, 0, ()),
    "pong": Pong(7),
    "push": Push((b"first entry", b"second entry")),
    "have": Have((Mark(A, INC, 3), Mark(B, INC, 300))),
    "ask for everything": AskFrontier(1, b"", b""),
    "ask for what differs": AskFrontier(2, bytes(range(256)) * 16, A + INC),
    "page of a frontier": Frontier(
        2, (Mark(A, INC, 3), Mark(B, INC, 300)), True, b"\x80" + bytes(31)
    ),
    "want": Want(3, 32_768, (LaneRange(A, INC, 3, 10), LaneRange(B, INC, 0, 256))),
    "entries": Entries(3, (2, 0), (b"entry 3", b"entry 4")),
}


def decode(raw: bytes) -> GossipMessage:
    message: GossipMessage = codec.decode(raw, GossipMessage)  # type: ignore[arg-type]
    return message


@pytest.mark.parametrize("name", SAMPLES)
def test_the_frozen_messages_stay_as_they_are(name: str) -> None:
    """Each message has the bytes of tests/vectors/gossip.json, both ways."""
    frozen = bytes.fromhex(VECTORS["messages"][name])
    assert codec.encode(SAMPLES[name]) == frozen
    assert decode(frozen) == SAMPLES[name]


def test_the_frozen_digests_stay_as_they_are() -> None:
    """A frontier's digest does not depend on the order in which lanes became known."""
    for each in VECTORS["digests"]:
        marks = [(LaneKey.from_bytes(bytes.fromhex(lane)), end) for lane, end in each["lanes"]]
        assert digest_of(marks).hex() == each["digest"], each["name"]
        assert digest_of(reversed(marks)).hex() == each["digest"], each["name"]


def test_tags_are_ours_and_distinct() -> None:
    """Gossip keeps to 1..19 of the union that the node makes."""
    tags = {type(m): cbor.decode(codec.encode(m))[0] for m in SAMPLES.values()}
    assert len(set(tags.values())) == len(tags) == 8
    assert set(tags.values()) <= set(range(1, 20))


HOSTILE: dict[str, Any] = {
    "an unknown tag": [19, 1],
    "no tag": [],
    "a field too many": [2, 1, 1],
    "a field too few": [1, 1],
    "a short digest": [1, 1, bytes(31), 0, 0, 0, []],
    "health beyond seven": [1, 1, bytes(32), 0, 0, 8, []],
    "too many heads": [1, 1, bytes(32), 0, 0, 0, [[bytes(32), 1]] * 17],
    "a negative seq": [2, -1],
    "a boolean for a number": [2, True],
    "an empty entry": [3, [b""]],
    "too many entries": [3, [b"x"] * (BATCH_ENTRIES_MAX + 1)],
    "an entry too large": [3, [bytes(ENTRY_BYTES_MAX + 1)]],
    "a mark at zero": [4, [[A, INC, 0]]],
    "a mark beyond 2^53": [4, [[A, INC, 2**53 + 1]]],
    "a short author": [4, [[A[:31], INC, 1]]],
    "too many lanes told": [4, [[A, INC, 1]] * (HAVE_LANES_MAX + 1)],
    "prefixes too long": [5, 1, bytes(4_097), b""],
    "a page without its bitmap": [6, 1, [], False, b""],
    "a page too long": [6, 1, [[A, INC, 1]] * (PAGE_LANES_MAX + 1), False, bytes(32)],
    "a want of nothing": [7, 1, 100, []],
    "a want of too much": [7, 1, BATCH_BYTES_MAX + 1, [[A, INC, 0, 1]]],
    "a want of too many ranges": [7, 1, 100, [[A, INC, 0, 1]] * 65],
    "a count beyond a batch": [8, 1, [BATCH_ENTRIES_MAX + 1], []],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_out_of_bounds_is_refused(name: str) -> None:
    """Every bound of a field holds at the decoder, before any engine sees it."""
    with pytest.raises(DecodeError):
        decode(cbor.encode(HOSTILE[name]))


def test_the_largest_messages_fit_their_lanes() -> None:
    """A full Have fits the control queue several times, a full page and batch fit a frame."""
    marks = tuple(Mark(A, INC, 2**53) for _ in range(PAGE_LANES_MAX))
    assert 8 * len(codec.encode(Have(marks[:HAVE_LANES_MAX]))) <= CONTROL_QUEUE_BYTES_MAX
    assert len(codec.encode(Frontier(2**53, marks, True, bytes(32)))) <= FRAME_BYTES_MAX // 2
    raws = (bytes(BATCH_BYTES_MAX // 255),) * 255 + (bytes(ENTRY_BYTES_MAX),)
    assert len(codec.encode(Entries(2**53, (256,) + (0,) * 63, raws))) <= FRAME_BYTES_MAX


def test_every_message_has_its_price() -> None:
    """A flood of any kind empties the budget; what costs us more costs the sender more."""
    assert all(cost(message) > 0 for message in SAMPLES.values())
    assert cost(Push((bytes(50_000),))) > cost(Push((bytes(500),)))
    assert cost(Want(1, BATCH_BYTES_MAX, (LaneRange(A, INC, 0, 1),))) >= BATCH_BYTES_MAX >> 10


def test_no_message_shows_its_contents() -> None:
    """A repr in a log names the type and nothing else."""
    assert repr(SAMPLES["push"]) == "<Push>"
