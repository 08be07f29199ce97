"""Author logs on a disk: gapless, read back alike after a restart, frozen by a fork."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_ledger import NETWORK, Device, Writer, devices

from p2pmed.errors import LocalProtocolError, StorageError
from p2pmed.ledger.logs import Logs
from p2pmed.ledger.transaction import Entry
from p2pmed.storage.memory import MemoryDisk
from p2pmed.world import Space

WANG = bytes(range(16))


def logs_with(*entries: Entry, disk: MemoryDisk | None = None) -> Logs:
    logs = Logs(disk or MemoryDisk(), NETWORK)
    for entry in entries:
        logs.append(entry)
        logs.settle(entry.lane, entry.seq + 1)
    return logs


def ids(entries: object) -> list[bytes]:
    return [entry.id for entry in entries]  # type: ignore[attr-defined]


def test_entries_are_read_back_as_they_were_written() -> None:
    """By place, by id and as bytes; what is not there is ``None`` or nothing."""
    writer = Writer(Device("a"))
    written = writer.many(5)
    logs = logs_with(*written)
    assert ids(logs.entries(writer.lane, 1, 4)) == ids(written[1:4])
    assert ids(logs.entries(writer.lane, 0, 99)) == ids(written)
    assert logs.read(writer.lane, 0, 99, bytes_max=10**6) == [entry.raw for entry in written]
    third = logs.find(written[2].id)
    assert third is not None
    assert third.raw == written[2].raw
    assert logs.place(written[2].id) == (writer.lane, 2)
    assert logs.entry(writer.lane, 5) is None
    assert logs.entry(writer.lane, -1) is None
    assert logs.find(bytes(32)) is None
    assert logs.place(bytes(32)) is None
    assert logs.lane(Writer(Device("b")).lane) is None


def test_a_log_has_no_gap_and_no_second_head() -> None:
    """What skips a place, repeats one or follows another entry is refused; nothing changes."""
    writer = Writer(Device("a"))
    first, second, third = writer.many(3)
    other = Writer(Device("a"), seq=1, prev=bytes([7]) * 32).write()
    logs = logs_with(first)
    for wrong in (first, third, other):
        with pytest.raises(LocalProtocolError):
            logs.append(wrong)
    assert logs.next_seq(writer.lane) == 1
    logs.append(second)
    lane = logs.lane(writer.lane)
    assert lane is not None
    assert (lane.next_seq, lane.head) == (2, second.id)


def test_others_are_told_of_what_is_durable_only() -> None:
    """Between the append and its flush, an entry is read here and shown to nobody."""
    writer = Writer(Device("a"))
    first, second = writer.many(2)
    logs = logs_with(first)
    logs.append(second)
    assert logs.frontier() == [(writer.lane, 1)]
    assert logs.next_seq(writer.lane) == 1
    assert logs.read(writer.lane, 0, 2, bytes_max=10**6) == [first.raw]
    assert ids(logs.entries(writer.lane, 0, 2)) == [first.id, second.id]
    logs.settle(writer.lane, 2)
    assert logs.frontier() == [(writer.lane, 2)]
    logs.settle(writer.lane, 1)
    assert logs.next_seq(writer.lane) == 2, "an older flush takes nothing back"


def test_a_read_stops_at_its_bound_but_gives_one_at_least() -> None:
    """``bytes_max`` bounds an answer; an entry larger than it still gets through."""
    writer = Writer(Device("a"))
    written = writer.many(4)
    logs = logs_with(*written)
    size = len(written[0].raw)
    assert len(logs.read(writer.lane, 0, 4, bytes_max=2 * size + 1)) == 2
    assert len(logs.read(writer.lane, 0, 4, bytes_max=1)) == 1
    assert logs.read(writer.lane, 4, 9, bytes_max=1) == []
    assert logs.read(Writer(Device("b")).lane, 0, 9, bytes_max=1) == []


def test_a_patient_s_entries_are_found_in_every_log() -> None:
    """Across pages, authors and incarnations, and nobody else's."""
    one, two = Writer(Device("a")), Writer(Device("b"), bytes([1]) * 16)
    about = [one.write(subject=WANG) for _ in range(520)] + [two.write(subject=WANG)]
    other = one.write(subject=bytes(15) + b"\x01")
    logs = logs_with(*about, other, two.write())
    assert sorted(ids(logs.about(WANG))) == sorted(ids(about))
    assert list(logs.about(b"\xff" * 16)) == []


@settings(max_examples=25, deadline=None)
@given(turns=st.lists(st.integers(0, 3), max_size=25), data=st.data())
def test_a_restart_changes_nothing(turns: list[int], data: st.DataObject) -> None:
    """Whatever was committed, in whatever order of logs, is there again with the same tips."""
    disk, writers = MemoryDisk(), [Writer(device) for device in devices(4)]
    logs = Logs(disk, NETWORK)
    for turn in turns:
        entry = writers[turn].write(subject=WANG if turn % 2 else b"")
        logs.append(entry)
        logs.settle(entry.lane, entry.seq + 1)
    disk.commit()
    again = Logs(disk, NETWORK)
    assert again.frontier() == logs.frontier()
    assert [(lane.key, lane.head, lane.number) for lane in again] == [
        (lane.key, lane.head, lane.number) for lane in logs
    ]
    assert ids(again.about(WANG)) == ids(logs.about(WANG))
    if turns:
        writer = writers[data.draw(st.sampled_from(turns))]
        again.append(writer.write())
        new = Writer(Device("a newcomer"))
        again.append(new.write())
        numbers = [lane.number for lane in again]
        assert len(set(numbers)) == len(numbers), "a new log takes no other's number"


def test_a_forked_log_is_frozen_with_its_evidence() -> None:
    """The branch that came first is read on, the other is kept, and nothing is appended."""
    disk, writer = MemoryDisk(), Writer(Device("a"))
    first = writer.write()
    twin = writer.fork()
    mine, theirs = writer.write(body=[b"k", b"1"]), twin.write(body=[b"k", b"2"])
    logs = logs_with(first, mine, disk=disk)
    logs.freeze(theirs)
    disk.commit()
    for seen in (logs, Logs(disk, NETWORK)):
        assert ids(seen.entries(writer.lane, 0, 9)) == [first.id, mine.id]
        assert seen.forks(writer.lane) == [theirs.raw]
        assert seen.find(theirs.id) is None
        lane = seen.lane(writer.lane)
        assert lane is not None
        assert lane.frozen
        with pytest.raises(LocalProtocolError):
            seen.append(writer.fork().write())


def test_a_missing_row_is_the_disk_s_fault() -> None:
    """An entry that the log says it has and the disk has not is never skipped in silence."""
    disk, writer = MemoryDisk(), Writer(Device("a"))
    logs_with(*writer.many(3), disk=disk)
    disk.stage(Space.ENTRY, bytes(4) + (1).to_bytes(8, "big"), None)
    disk.commit()
    with pytest.raises(StorageError):
        list(Logs(disk, NETWORK).entries(writer.lane, 0, 3))


def test_many_entries_of_one_log_are_appended_in_one_go() -> None:
    """``extend`` is ``append`` of each, with one row for the log."""
    writer = Writer(Device("a"))
    written = writer.many(10)
    logs = Logs(MemoryDisk(), NETWORK)
    logs.extend(written)
    logs.extend([])
    assert ids(logs.entries(writer.lane, 0, 10)) == ids(written)
    lane = logs.lane(writer.lane)
    assert lane is not None
    assert lane.next_seq == 10
