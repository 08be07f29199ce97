"""The gate before the author logs: nothing unproven is staged, and a fork leaves evidence."""

from __future__ import annotations

from itertools import permutations

from hypothesis import given, settings
from hypothesis import strategies as st
from toy_ledger import NETWORK, Device, Writer, devices

from p2pmed.ledger.intake import Admitted, Intake, Offered
from p2pmed.ledger.logs import Logs
from p2pmed.ledger.transaction import Entry
from p2pmed.storage.memory import MemoryDisk
from p2pmed.wire import cose

PEER = bytes([9]) * 32


class Gate:
    """An intake with its logs; ``pass_`` offers and answers the checks honestly."""

    def __init__(self, *, opens: bool = True) -> None:
        self.logs = Logs(MemoryDisk(), NETWORK)
        self.intake = Intake(self.logs, NETWORK, lambda entry: opens)

    def offer(self, *raws: bytes) -> Offered:
        return self.intake.offer(PEER, raws)

    def answer(self, offered: Offered) -> Admitted:
        return self.intake.checked(offered.token, [cose.verify(*c) for c in offered.checks])

    def take(self, *entries: Entry) -> Admitted:
        offered = self.offer(*(entry.raw for entry in entries))
        assert not offered.fault
        return self.answer(offered) if offered.token else Admitted(PEER)

    def ids(self, writer: Writer) -> list[bytes]:
        return [entry.id for entry in self.logs.entries(writer.lane, 0, 999)]


def forged(entry: Entry) -> bytes:
    """The same words under a signature that does not hold."""
    return entry.raw[:-1] + bytes([entry.raw[-1] ^ 1])


def test_what_connects_and_is_genuine_is_admitted_in_order() -> None:
    """Several logs in one offer; each entry has one signature check."""
    gate, one, two = Gate(), Writer(Device("a")), Writer(Device("b"))
    entries = [*one.many(3), *two.many(2), *one.many(1)]
    offered = gate.offer(*(entry.raw for entry in entries))
    assert len(offered.checks) == 6
    assert gate.ids(one) == [], "nothing is staged before its signature is checked"
    admitted = gate.answer(offered)
    assert [entry.id for entry in admitted.entries] == [entry.id for entry in entries]
    assert not admitted.fault
    assert len(gate.ids(one)) == 4


def test_what_is_known_costs_no_signature_check() -> None:
    """Repetition is dropped before the dear step."""
    gate, writer = Gate(), Writer(Device("a"))
    entries = writer.many(3)
    gate.take(*entries)
    offered = gate.offer(*(entry.raw for entry in entries))
    assert (offered.token, offered.checks, offered.gaps, offered.fault) == (0, [], [], "")


def test_a_gap_is_told_once_and_nothing_behind_it_is_checked() -> None:
    """Entries whose predecessors are missing cost a note, not a signature check."""
    gate, writer = Gate(), Writer(Device("a"))
    entries = writer.many(6)
    gate.take(entries[0])
    offered = gate.offer(*(entry.raw for entry in entries[2:]))
    assert [(gap.next_seq, gap.got_seq) for gap in offered.gaps] == [(1, 2)]
    assert offered.token == 0
    assert not offered.fault


def test_a_bad_signature_stops_its_log_and_no_other() -> None:
    """The good prefix is kept, what leans on the forgery is not, and the sender is at fault."""
    gate, one, two = Gate(), Writer(Device("a")), Writer(Device("b"))
    first, second, third = one.many(3)
    other = two.many(2)
    offered = gate.offer(first.raw, other[0].raw, forged(second), third.raw, other[1].raw)
    admitted = gate.answer(offered)
    assert admitted.fault
    assert gate.ids(one) == [first.id]
    assert len(gate.ids(two)) == 2
    assert [entry.id for entry in gate.take(second, third).entries] == [second.id, third.id]


def test_bytes_that_are_no_transaction_end_the_offer() -> None:
    """What came before the fault is still judged on its own merits."""
    gate, writer = Gate(), Writer(Device("a"))
    first, second = writer.many(2)
    offered = gate.offer(first.raw, b"\x00", second.raw)
    assert offered.fault
    assert [entry.id for entry in gate.answer(offered).entries] == [first.id]


def test_a_log_must_open_with_a_credential_of_the_network() -> None:
    """A stranger's log is refused at its first entry, before its signature is looked at."""
    gate, writer = Gate(opens=False), Writer(Device("a"))
    offered = gate.offer(writer.write().raw)
    assert offered.fault
    assert offered.token == 0


def test_an_entry_of_another_network_is_not_even_genuine() -> None:
    """The network is in what is signed: the id differs, and the signature does not hold."""
    writer = Writer(Device("a"))
    entry = writer.write()
    logs = Logs(MemoryDisk(), bytes([5]) * 32)
    intake = Intake(logs, bytes([5]) * 32, lambda entry: True)
    offered = intake.offer(PEER, [entry.raw])
    admitted = intake.checked(offered.token, [cose.verify(*c) for c in offered.checks])
    assert admitted.fault
    assert admitted.entries == []


# --- forks ----------------------------------------------------------------------------------


def forked() -> tuple[Writer, list[Entry], list[Entry], list[Entry]]:
    """A log that forks after two entries: what both share, and two branches of two."""
    writer = Writer(Device("a"))
    shared = writer.many(2)
    twin = writer.fork()
    mine = [writer.write(body=[b"mine", bytes([n])]) for n in range(2)]
    theirs = [twin.write(body=[b"theirs", bytes([n])]) for n in range(2)]
    return writer, shared, mine, theirs


def test_a_second_entry_at_one_place_freezes_the_log() -> None:
    """Signed by the same key, it is evidence: kept, told, and the end of that log."""
    writer, shared, mine, theirs = forked()
    gate = Gate()
    gate.take(*shared, *mine)
    admitted = gate.take(theirs[0])
    assert [entry.id for entry in admitted.forks] == [theirs[0].id]
    lane = gate.logs.lane(writer.lane)
    assert lane is not None
    assert lane.frozen
    assert gate.logs.forks(writer.lane) == [theirs[0].raw]
    assert gate.ids(writer) == [entry.id for entry in shared + mine]
    assert gate.take(*theirs, writer.write()).entries == []


def test_an_entry_that_follows_another_head_is_evidence_too() -> None:
    """The branch may be longer here: its next entry names a predecessor that is not ours."""
    _, shared, mine, theirs = forked()
    gate = Gate()
    gate.take(*shared, mine[0])
    admitted = gate.take(theirs[1])
    assert [entry.id for entry in admitted.forks] == [theirs[1].id]


def test_a_forged_fork_freezes_nobody() -> None:
    """Who cannot sign for an author cannot silence it either."""
    writer, shared, mine, theirs = forked()
    gate = Gate()
    gate.take(*shared, *mine)
    for entry in theirs:
        offered = gate.offer(forged(entry))
        if offered.token:
            assert gate.answer(offered).forks == []
    lane = gate.logs.lane(writer.lane)
    assert lane is not None
    assert not lane.frozen
    assert gate.logs.forks(writer.lane) == []


def test_one_piece_of_evidence_is_kept_and_no_more() -> None:
    """A device that forks a hundred times costs one row."""
    writer, shared, mine, _ = forked()
    gate = Gate()
    gate.take(*shared, *mine)
    base = Writer(writer.device, seq=2, prev=shared[-1].id)
    branches = [base.fork().write(body=[b"b", bytes([n])]) for n in range(100)]
    admitted = gate.take(*branches)
    assert len(admitted.forks) == 1
    assert len(gate.logs.forks(writer.lane)) == 1


def test_a_fork_at_the_very_first_entry_is_a_fork() -> None:
    """Two logs that begin differently under one device and incarnation contradict each other."""
    one, two = Writer(Device("a")), Writer(Device("a"))
    first, second = one.write(body=[b"k", b"1"]), two.write(body=[b"k", b"2"])
    gate = Gate()
    gate.take(first)
    assert [entry.id for entry in gate.take(second).forks] == [second.id]


# --- what overlaps --------------------------------------------------------------------------


def test_offers_that_overlap_in_time_admit_each_entry_once() -> None:
    """While a batch is being checked, the next one connects to what it will have."""
    gate, writer = Gate(), Writer(Device("a"))
    entries = writer.many(6)
    first = gate.offer(*(e.raw for e in entries[:3]))
    second = gate.offer(*(e.raw for e in entries[:6]))
    assert len(second.checks) == 3
    assert len(gate.answer(first).entries) == 3
    assert len(gate.answer(second).entries) == 3
    assert gate.ids(writer) == [entry.id for entry in entries]


def test_a_batch_that_leans_on_a_forgery_falls_with_it_and_can_come_again() -> None:
    """A forged link in flight keeps nobody out for good."""
    gate, writer = Gate(), Writer(Device("a"))
    entries = writer.many(4)
    first = gate.offer(entries[0].raw, forged(entries[1]))
    second = gate.offer(entries[2].raw, entries[3].raw)
    assert gate.answer(first).fault
    assert gate.answer(second).entries == []
    assert gate.ids(writer) == [entries[0].id]
    gate.take(*entries)
    assert gate.ids(writer) == [entry.id for entry in entries]


def test_answers_may_come_in_another_order() -> None:
    """The later batch does not connect yet; offered again, it is taken."""
    gate, writer = Gate(), Writer(Device("a"))
    entries = writer.many(4)
    first = gate.offer(*(e.raw for e in entries[:2]))
    second = gate.offer(*(e.raw for e in entries[2:]))
    assert gate.answer(second).entries == []
    assert len(gate.answer(first).entries) == 2
    gate.take(*entries)
    assert gate.ids(writer) == [entry.id for entry in entries]


@settings(max_examples=40, deadline=None)
@given(
    cuts=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5), st.integers(1, 6)), max_size=30)
)
def test_any_order_of_arrival_ends_in_the_same_logs(cuts: list[tuple[int, int, int]]) -> None:
    """Slices of three logs, overlapping, repeated and out of order; then each once more."""
    writers = [Writer(device) for device in devices(3)]
    entries = [writer.many(6) for writer in writers]
    gate = Gate()
    for which, start, count in cuts:
        gate.take(*entries[which][start : start + count])
        held = gate.ids(writers[which])
        assert held == [entry.id for entry in entries[which][: len(held)]]
    for which in range(3):
        gate.take(*entries[which])
        assert gate.ids(writers[which]) == [entry.id for entry in entries[which]]


def test_whatever_branch_comes_first_both_end_frozen_with_the_other_as_evidence() -> None:
    """All orders of the branches' entries: no order hides the fork once both were offered."""
    writer, shared, mine, theirs = forked()
    for order in permutations(mine + theirs):
        gate = Gate()
        gate.take(*shared)
        for _ in range(2):
            for entry in order:
                gate.take(entry)
        lane = gate.logs.lane(writer.lane)
        assert lane is not None
        assert lane.frozen
        assert len(gate.logs.forks(writer.lane)) == 1
