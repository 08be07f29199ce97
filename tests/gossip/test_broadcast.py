"""Pushes that connect, words that are batched."""

from __future__ import annotations

from p2pmed.engine import Instant
from p2pmed.gossip.broadcast import HAVE_MS_PER_PEER, Broadcast
from p2pmed.gossip.messages import HAVE_LANES_MAX, Have, Push
from p2pmed.ledger.transaction import LaneKey
from p2pmed.limits import BATCH_BYTES_MAX, BATCH_ENTRIES_MAX

ME, P, Q = (bytes([n]) * 32 for n in range(3))
LANE = LaneKey(ME, bytes(16))


def entries(start: int, count: int, size: int = 10) -> list[tuple[LaneKey, int, bytes]]:
    return [
        (LANE, seq, seq.to_bytes(4, "big") + bytes(size)) for seq in range(start, start + count)
    ]


def pushed(effects) -> dict[bytes, list[int]]:
    found: dict[bytes, list[int]] = {}
    for each in effects:
        assert isinstance(each.message, Push)
        assert not each.control
        seqs = [int.from_bytes(raw[:4], "big") for raw in each.message.entries]
        found.setdefault(each.peer, []).extend(seqs)
    return found


def cell() -> Broadcast:
    made = Broadcast(ME)
    made.up(P)
    made.up(Q)
    return made


def test_each_peer_gets_just_what_connects() -> None:
    """From where it stands, from what is in flight, or nothing at all."""
    cast, stands = cell(), {P: 5, Q: 7}
    assert pushed(cast.pushes(entries(5, 3), lambda p, _: stands[p])) == {P: [5, 6, 7], Q: [7]}
    assert pushed(cast.pushes(entries(8, 1), lambda p, _: stands[p])) == {P: [8], Q: [8]}
    assert pushed(cast.pushes(entries(11, 1), lambda p, _: stands[p])) == {}


def test_the_same_push_is_one_object_for_all() -> None:
    """The driver may encode it once."""
    first, second = cell().pushes(entries(0, 2), lambda *_: 0)
    assert first.message is second.message


def test_entries_of_others_are_not_pushed() -> None:
    """A relay is a Have and a Want, so a payload never comes twice unasked."""
    lane = LaneKey(P, bytes(16))
    assert cell().pushes([(lane, 0, b"x")], lambda *_: 0) == []


def test_a_burst_is_cut_into_batches() -> None:
    """By entries and by bytes."""
    many = cell().pushes(entries(0, 2 * BATCH_ENTRIES_MAX + 1), lambda *_: 0)
    assert [len(e.message.entries) for e in many if e.peer == P] == [256, 256, 1]
    large = cell().pushes(entries(0, 5, 60_000), lambda *_: 0)
    assert all(sum(map(len, e.message.entries)) <= BATCH_BYTES_MAX for e in large)


def test_a_full_queue_forgets_what_was_in_flight() -> None:
    """Pushes pause until the peer speaks, and then connect to what it says, not to hopes."""
    cast = cell()
    cast.pushes(entries(0, 3), lambda *_: 0)
    cast.refused(P)
    assert cast.behind(P)
    assert pushed(cast.pushes(entries(3, 1), lambda *_: 0)) == {Q: [3]}
    cast.spoke(P)
    assert pushed(cast.pushes(entries(4, 1), lambda *_: 0)) == {Q: [4]}
    assert pushed(cast.pushes(entries(5, 1), lambda *_: 5)) == {P: [5], Q: [5]}


def test_the_first_word_is_at_once_and_the_next_waits() -> None:
    """Haves are spaced by the number of peers and carry everything that grew meanwhile."""
    cast, now = cell(), 1_000
    assert cast.deadline() is None
    cast.grew([(LANE, 1)])
    assert cast.due(Instant(now))
    (first, second) = cast.haves(lambda _: 1, Instant(now))
    assert (first.peer, second.peer, first.control) == (P, Q, True)
    assert not cast.due(Instant(now + 10_000))
    cast.grew([(LANE, 2)])
    cast.grew([(LANE, 3)])
    assert cast.deadline() == now + 2 * HAVE_MS_PER_PEER
    assert not cast.due(Instant(now + 1))
    have = cast.haves(lambda _: 3, Instant(now + 10))[0].message
    assert isinstance(have, Have)
    assert [mark.next_seq for mark in have.lanes] == [3]


def test_many_lanes_are_told_in_pages() -> None:
    """No Have is longer than its bound."""
    cast = Broadcast(ME)
    cast.up(P)
    cast.grew([(LaneKey(n.to_bytes(32, "big"), bytes(16)), 1) for n in range(HAVE_LANES_MAX + 1)])
    pages = [len(e.message.lanes) for e in cast.haves(lambda _: 1, Instant(0))]
    assert pages == [HAVE_LANES_MAX, 1]
