"""The peer book: a simulated street of addresses, and the rule for double connections."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pmed.discovery.peerbook import (
    DIALS_MAX,
    DISCOVERED_DIALS_MAX,
    DISCOVERED_MAX,
    QUIET_MS,
    RECHECK_MS,
    Connected,
    DialEnded,
    DialNow,
    Disconnected,
    Forget,
    Hint,
    PeerBook,
    PeerBookEvent,
    Remember,
    Source,
    Standing,
    survives,
)
from p2pmed.engine import DeadlineReached, Instant
from p2pmed.limits import ADDRESSES_REMEMBERED_MAX, REDIAL_MS_MAX, REDIAL_MS_MIN

OWN = b"\x00" * 32
PEER = b"\x01" * 32
OTHER = b"\x02" * 32
HOME = "10.0.0.1:7420"


class Book:
    """A peer book with a clock."""

    def __init__(self, seed: int = 1) -> None:
        self.core = PeerBook(own_key=OWN, rng=random.Random(seed))
        self.now = 0
        self.remembered: list[tuple[bytes, str]] = []

    def step(self, event: PeerBookEvent) -> list[str]:
        dials = []
        for effect in self.core.step(event, Instant(self.now)):
            if isinstance(effect, DialNow):
                dials.append(effect.address)
            else:
                assert isinstance(effect, Remember)
                self.remembered.append((effect.peer, effect.address))
        return dials

    def hint(self, address: str = HOME, source: Source = Source.DISCOVERED) -> list[str]:
        return self.step(Hint(address, source))

    def wait(self) -> list[str]:
        """Go to the deadline."""
        assert self.core.deadline is not None
        self.now = max(self.now, self.core.deadline)
        return self.step(DeadlineReached())


def test_a_hint_is_dialled_at_once_and_never_twice_at_a_time() -> None:
    """However often an address is hinted, one dial is under way."""
    book = Book()
    assert book.hint() == [HOME]
    for source in Source:
        assert book.hint(source=source) == []
    assert book.core.deadline is None


def test_redialling_never_ends_and_stays_within_the_jitter() -> None:
    """500 failures in a row: each pause is between 0.5 and 60 s, long ones come to prevail."""
    book = Book()
    book.hint()
    pauses = []
    for _ in range(500):
        assert book.step(DialEnded(HOME)) == []
        before = book.now
        assert book.wait() == [HOME]
        pauses.append(book.now - before)
    assert all(REDIAL_MS_MIN <= pause <= REDIAL_MS_MAX for pause in pauses)
    assert pauses[0] <= 2 * REDIAL_MS_MIN
    assert 25_000 < sum(pauses[20:]) / len(pauses[20:]) < 35_000
    assert len(set(pauses)) > 400


def test_a_hint_resets_the_pause_but_cannot_hammer() -> None:
    """After long failure a fresh hint dials at once, yet not within 0.5 s of the last dial."""
    book = Book()
    book.hint()
    for _ in range(12):
        book.step(DialEnded(HOME))
        book.wait()
    book.step(DialEnded(HOME))
    assert book.hint() == []
    assert book.core.deadline == book.now + REDIAL_MS_MIN
    assert book.wait() == [HOME]
    book.now += 5_000
    book.step(DialEnded(HOME))
    assert book.hint() == [HOME]
    book.step(DialEnded(HOME))
    assert book.core.deadline is not None
    assert book.core.deadline - book.now <= 2 * REDIAL_MS_MIN


def test_a_connected_peer_is_not_dialled_and_a_lost_one_is_soon() -> None:
    """No dial while the peer behind an address is connected; 0.5 to 1 s after it is lost."""
    book = Book()
    book.hint()
    assert book.step(Connected(PEER, HOME)) == []
    assert book.remembered == [(PEER, HOME)]
    book.now += 3_600_000
    assert book.hint() == []
    assert book.step(DeadlineReached()) == []
    assert book.core.deadline is None
    lost_at = book.now
    book.step(Disconnected(PEER))
    assert book.wait() == [HOME]
    assert REDIAL_MS_MIN <= book.now - lost_at <= 2 * REDIAL_MS_MIN


def test_an_inbound_link_also_stops_the_dialling() -> None:
    """A remembered address of a peer that dialled us meanwhile is left alone."""
    book = Book()
    assert book.step(Hint(HOME, Source.REMEMBERED, PEER)) == [HOME]
    book.step(DialEnded(HOME))
    book.step(Connected(PEER, None))
    assert book.core.deadline is None
    assert book.remembered == []


def test_a_second_address_of_a_connected_peer_is_learned_once() -> None:
    """A duplicate is dialled once, then only after ten minutes and on a hint: DHCP moves."""
    book = Book()
    book.hint()
    book.step(Connected(PEER, HOME))
    alias = "10.0.0.2:7420"
    assert book.hint(alias) == [alias]
    book.step(DialEnded(alias, PEER))
    assert book.core.deadline is None
    book.now += RECHECK_MS - 1
    assert book.hint(alias) == []
    book.now += 1
    assert book.hint(alias) == [alias]
    book.step(Connected(OTHER, alias))
    assert book.remembered == [(PEER, HOME), (OTHER, alias)]


def test_ones_own_address_is_dialled_rarely() -> None:
    """An address where we met ourselves is looked at once a minute, hints or not."""
    book = Book()
    book.hint(source=Source.TYPED)
    book.step(DialEnded(HOME, OWN))
    assert book.hint() == []
    assert book.core.deadline == book.now + REDIAL_MS_MAX


def test_forgotten_addresses_are_gone() -> None:
    """A person's word ends the redialling, even with a dial under way."""
    book = Book()
    book.hint()
    book.step(Forget(HOME))
    assert book.step(DialEnded(HOME)) == []
    assert book.core.deadline is None
    assert len(book.core) == 0


def test_dials_at_once_are_bounded_and_strangers_cannot_take_them_all() -> None:
    """Of 200 adverts a bounded number is tried at once; a typed address still gets its turn."""
    book = Book()
    started: list[str] = []
    for number in range(200):
        started += book.hint(f"10.0.1.{number}:1")
    assert len(started) == DISCOVERED_DIALS_MAX
    assert book.core.deadline is None
    for number in range(20):
        started += book.hint(f"10.0.2.{number}:1", Source.TYPED)
    assert len(started) == DIALS_MAX
    assert sum(address.startswith("10.0.2.") for address in started) == (
        DIALS_MAX - DISCOVERED_DIALS_MAX
    )
    assert book.step(DialEnded(started[0])) != []


def test_the_one_honest_among_200_adverts_is_reached() -> None:
    """Threats row 13: fresh addresses go before failed ones, so everyone has a turn."""
    book = Book(seed=7)
    honest = "10.0.1.199:1"
    under_way: list[str] = []
    for number in range(200):
        under_way += book.hint(f"10.0.1.{number}:1")
    while honest not in under_way:
        book.now += 3_000  # every false address costs a whole timeout
        under_way = [dial for address in under_way for dial in book.step(DialEnded(address))]
        assert under_way
        assert book.now < 60_000


def test_the_book_is_bounded_and_hints_evict_nothing_better() -> None:
    """Floods of advertisements and remembered addresses never push a typed one out."""
    book = Book()
    typed = [f"10.9.0.{n}:1" for n in range(3)]
    for address in typed:
        book.hint(address, Source.TYPED)
    for number in range(ADDRESSES_REMEMBERED_MAX + 500):
        book.step(Hint(f"10.1.{number // 250}.{number % 250}:1", Source.REMEMBERED))
    assert len(book.core) == ADDRESSES_REMEMBERED_MAX
    for number in range(3_000):
        book.hint(f"10.2.{number // 250}.{number % 250}:2")
    assert len(book.core) <= ADDRESSES_REMEMBERED_MAX
    assert set(typed) <= set(book.core.addresses)
    late = "10.9.0.99:1"
    book.hint(late, Source.TYPED)
    assert late in book.core.addresses
    assert len(book.core) == ADDRESSES_REMEMBERED_MAX
    other = Book()
    for number in range(3_000):
        other.hint(f"10.2.{number // 250}.{number % 250}:2")
    assert len(other.core) <= DISCOVERED_MAX


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**32), st.lists(st.integers(0, 9), min_size=20, max_size=120))
def test_invariants_hold_in_any_order_of_events(seed: int, script: list[int]) -> None:
    """One dial per address, none to a connected peer, same seed same trace, deadline honest."""
    traces = []
    for _ in range(2):
        book, dice = Book(seed), random.Random(seed)
        dialling: set[str] = set()
        behind: dict[str, bytes] = {}
        connected: set[bytes] = set()
        trace: list[list[str]] = []
        for choice in script:
            address = f"10.0.0.{dice.randint(1, 5)}:1"
            peer = bytes([dice.randint(1, 3)]) * 32
            if choice <= 3:
                event: PeerBookEvent = Hint(address, Source(dice.randint(1, 3)))
            elif choice <= 5 and dialling:
                address = sorted(dialling)[0]
                dialling.discard(address)
                event = DialEnded(address)
            elif choice == 6 and dialling:
                address = sorted(dialling)[-1]
                dialling.discard(address)
                connected.add(peer)
                behind[address] = peer
                event = Connected(peer, address)
            elif choice == 7:
                connected.discard(peer)
                event = Disconnected(peer)
            else:
                book.now += dice.randint(0, 40_000)
                event = DeadlineReached()
            dials = book.step(event)
            trace.append(dials)
            for dial in dials:
                assert dial not in dialling
                # A hint may ask who lives at another address of a connected peer now.
                assert behind.get(dial) not in connected or isinstance(event, Hint)
                dialling.add(dial)
            assert book.core.deadline is None or book.core.deadline > book.now
        traces.append(trace)
    assert traces[0] == traces[1]


# --- two channels to one peer -------------------------------------------------------------------


def standing(dialler: bytes, binding: bytes, boot: bytes = b"b", quiet_ms: int = 0) -> Standing:
    return Standing(dialler=dialler, boot=boot, binding=binding, quiet_ms=quiet_ms)


@pytest.mark.parametrize("new_dialler", [OWN, PEER])
@pytest.mark.parametrize("old_dialler", [OWN, PEER])
def test_both_ends_keep_the_same_channel_in_either_order(
    new_dialler: bytes, old_dialler: bytes
) -> None:
    """Whichever of two channels an end saw first, the survivor is the same."""
    first, second = standing(new_dialler, b"1"), standing(old_dialler, b"2")
    assert survives(first, second) != survives(second, first)
    if new_dialler != old_dialler:
        assert survives(first, second) == (new_dialler == min(OWN, PEER))


def test_a_restart_and_a_dead_line_let_the_new_channel_win() -> None:
    """A peer of another boot, or an old channel long silent, gives way whoever dialled."""
    old, new = standing(OWN, b"1"), standing(PEER, b"2")
    assert not survives(new, old)
    assert survives(standing(PEER, b"2", boot=b"c"), old)
    assert survives(new, standing(OWN, b"1", quiet_ms=QUIET_MS + 1))
    assert not survives(new, standing(OWN, b"1", quiet_ms=QUIET_MS))
