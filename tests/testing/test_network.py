"""The simulated network alone: what a link promises, and what each fault does to it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from p2pmed.testing.clock import Agenda, seeded
from p2pmed.testing.network import CLOG_BYTES_MAX, LinkFaults, SimNetwork


class Wires:
    """Three devices that note what the network tells them."""

    def __init__(self) -> None:
        self.agenda = Agenda()
        self.power = [True, True, True]
        self.told: list[tuple[str, int, int]] = []
        self.came: list[tuple[int, int, bytes]] = []
        self.struck: list[str] = []
        self.network = SimNetwork(self.agenda, seeded(1, "net"), self, self.struck.append)
        for _ in self.power:
            self.network.join()
        for number in range(3):
            self.network.dial_all(number)
        self.run(2_000)

    def run(self, ms: int) -> None:
        self.agenda.run_until(lambda: False, ms)

    def has_power(self, number: int) -> bool:
        return self.power[number]

    def link_up(self, number: int, peer: int) -> None:
        self.told.append(("up", number, peer))

    def link_down(self, number: int, peer: int) -> None:
        self.told.append(("down", number, peer))

    def frame(self, number: int, source: int, message: bytes) -> None:
        self.came.append((number, source, message))

    def refused(self, number: int, peer: int) -> None:
        self.told.append(("refused", number, peer))

    def send(self, source: int, target: int, message: bytes) -> None:
        self.network.send(source, target, message, control=False)


def test_devices_in_reach_get_one_link_each_pair() -> None:
    """Both ends are told once."""
    wires = Wires()
    assert sorted(wires.told) == [("up", a, b) for a in range(3) for b in range(3) if a != b]


def test_messages_keep_their_order_unless_told_otherwise() -> None:
    """With delays of any length, a link is a queue."""
    wires = Wires()
    wires.network.faults = LinkFaults(delay_ms=(1, 400))
    for n in range(50):
        wires.send(0, 1, bytes([n]))
    wires.run(1_000)
    assert [message for _, _, message in wires.came] == [bytes([n]) for n in range(50)]


def test_a_one_way_cut_loses_one_way_only() -> None:
    """The other way works, and the link stays until somebody gives it up."""
    wires = Wires()
    wires.network.block(0, 1)
    wires.send(0, 1, b"lost")
    wires.send(1, 0, b"heard")
    wires.run(1_000)
    assert [message for _, _, message in wires.came] == [b"heard"]
    assert wires.network.linked(0, 1)


def test_no_link_is_made_while_one_way_is_cut() -> None:
    """A handshake needs both ways; the link comes back when the way does."""
    wires = Wires()
    wires.network.block(0, 1)
    wires.network.drop(1, 0, 100)
    wires.run(10_000)
    assert not wires.network.linked(0, 1)
    wires.network.unblock(0, 1)
    wires.run(2_000)
    assert wires.network.linked(0, 1)


def test_a_clogged_way_gives_everything_later_and_refuses_what_is_too_much() -> None:
    """Up to its queue nothing is lost; the sender is told of the rest."""
    wires = Wires()
    wires.network.clog(0, 1)
    wires.send(0, 1, b"a" * 1_000)
    wires.send(0, 1, b"b" * CLOG_BYTES_MAX)
    wires.run(1_000)
    assert wires.came == []
    assert wires.told[-1] == ("refused", 0, 1)
    wires.network.unclog(0, 1)
    wires.run(1_000)
    assert [message[:1] for _, _, message in wires.came] == [b"a"]


@pytest.mark.parametrize(
    "part",
    [
        pytest.param(lambda network: network.cut([0, 1, 1]), id="cut"),
        pytest.param(lambda network: network.separate([0, 1, 1]), id="separate"),
    ],
)
def test_what_was_on_its_way_dies_with_its_link(part: Callable[[SimNetwork], None]) -> None:
    """A message of an old link never comes out of the new one."""
    wires = Wires()
    wires.network.faults = LinkFaults(delay_ms=(300, 300))
    wires.send(0, 1, b"old")
    part(wires.network)
    wires.network.separate([0, 0, 0])
    wires.network.heal()
    wires.run(10_000)
    assert wires.network.linked(0, 1)
    assert wires.came == []


def test_a_new_link_is_told_after_the_end_of_the_old() -> None:
    """Whatever the ends noticed meanwhile, each hears down before up, and never up twice."""
    wires = Wires()
    wires.told.clear()
    for _ in range(20):
        wires.network.unlink(0, 1)
        wires.run(900)
    wires.run(10_000)
    for end, far in ((0, 1), (1, 0)):
        story = [what for what, number, peer in wires.told if (number, peer) == (end, far)]
        assert story == ["down", "up"] * (len(story) // 2)
        assert story


def test_heal_joins_groups_and_not_regions() -> None:
    """Days of travel are no fault."""
    wires = Wires()
    wires.network.separate([0, 1, 1])
    wires.network.heal()
    wires.run(10_000)
    assert not wires.network.linked(0, 1)
    assert wires.network.linked(1, 2)
