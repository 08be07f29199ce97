"""The provisional state: what is stored applied on top, whatever the order of arrival."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from toy_ledger import CREATED_MS, NETWORK, ToyNode, Writer, devices, genesis_of

from p2pmed.ledger.overlay import Overlay
from p2pmed.ledger.state import BlockContext, Verdict
from p2pmed.ledger.transaction import Entry

SEATS = devices(4)
GENESIS = genesis_of(SEATS)


def overlay_of(node: ToyNode) -> Overlay:
    return Overlay(
        base=node.chain.state,
        logs=node.logs,
        machine=node.machine,
        ordered_next=node.chain.ordered_next,
        context=lambda: BlockContext(
            network=NETWORK,
            ledger=node.chain.ledger,
            height=node.chain.height + 1,
            time_ms=CREATED_MS,
            provisional=True,
        ),
    )


def test_what_is_stored_is_seen_at_once_and_the_durable_state_is_not_touched() -> None:
    """A provisional row shows in the overlay only; once ordered it shows in both."""
    node, writer = ToyNode(GENESIS), Writer(SEATS[0])
    overlay = overlay_of(node)
    assert overlay.state().get(b"toyk") is None
    node.hold(writer.write("toy.put", [b"k", b"v"]))
    assert overlay.state().get(b"toyk") == b"v"
    assert node.chain.state.get(b"toyk") is None
    node.order()
    overlay.restart()
    assert overlay.state().get(b"toyk") == b"v"
    assert node.chain.state.get(b"toyk") == b"v"


def test_a_provisional_verdict_is_what_ordering_it_now_would_give() -> None:
    """Applied, refused with what it contradicts, or waiting for what it refers to."""
    node, one, two = ToyNode(GENESIS), Writer(SEATS[0]), Writer(SEATS[1])
    first = one.write("toy.once", [b"pack", b""])
    node.hold(first)
    node.order()
    overlay = overlay_of(node)
    second = two.write("toy.once", [b"pack", b""], refs=(first.id,))
    lost = one.write(refs=(bytes([9]) * 32,))
    node.hold(second, lost)
    assert overlay.verdict_of(second) == Verdict(code="taken", other=first.id)
    assert overlay.verdict_of(lost) == Verdict(code="reference_missing")
    assert overlay.refused() == {
        second.id: Verdict(code="taken", other=first.id),
        lost.id: Verdict(code="reference_missing"),
    }


def test_a_reference_that_comes_late_heals_what_waited_for_it() -> None:
    """What was refused for want of a reference is judged again when the reference is there."""
    node, one, two = ToyNode(GENESIS), Writer(SEATS[0]), Writer(SEATS[1])
    overlay = overlay_of(node)
    base = one.write()
    follower = two.write("toy.put", [b"f", b"v"], refs=(base.id,))
    node.hold(follower)
    assert overlay.verdict_of(follower).code == "reference_missing"
    node.hold(base)
    assert overlay.verdict_of(follower).applied
    assert overlay.state().get(b"toyf") == b"v"


def test_work_is_done_when_somebody_looks_and_once() -> None:
    """Nothing is executed before a question, and nothing twice by asking again."""
    node, writer = ToyNode(GENESIS), Writer(SEATS[0])
    overlay = overlay_of(node)
    node.hold(*writer.many(10))
    assert node.machine.applied == []
    for _ in range(3):
        overlay.state()
    assert len(node.machine.applied) == 10


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_worked_out_afresh_it_depends_on_the_set_and_not_on_the_arrival(
    data: st.DataObject,
) -> None:
    """Two nodes get the same logs in different orders, one of them looking all the time.

    Looking applies what is there, so contradictions may read differently until the overlay is
    worked out again, as after every block.
    """
    writers = [Writer(device) for device in SEATS]
    entries: list[Entry] = []
    for number in range(data.draw(st.integers(1, 12))):
        refs = data.draw(st.lists(st.sampled_from(entries), max_size=2)) if entries else []
        kind = data.draw(st.sampled_from(["toy.put", "toy.once"]))
        entries.append(
            writers[data.draw(st.integers(0, 3))].write(
                kind,
                [bytes([data.draw(st.integers(0, 2))]), bytes([number])],
                refs=tuple(dict.fromkeys(entry.id for entry in refs)),
            )
        )
    kept = data.draw(st.integers(0, len(entries)))
    one, two = ToyNode(GENESIS), ToyNode(GENESIS)
    looking, quiet = overlay_of(one), overlay_of(two)
    for entry in entries[:kept]:
        two.hold(entry)
    lanes = {
        writer.lane: [e for e in entries[:kept] if e.lane == writer.lane] for writer in writers
    }
    while any(lanes.values()):
        lane = data.draw(st.sampled_from([lane for lane in lanes if lanes[lane]]))
        one.hold(lanes[lane].pop(0))
        looking.state()
    looking.restart()
    rows = [list(overlay.state().scan(b"toy")) for overlay in (looking, quiet)]
    assert rows[0] == rows[1]
    assert looking.refused() == quiet.refused()
