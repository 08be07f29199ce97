"""The simulated disk loses exactly what a power cut may lose."""

from __future__ import annotations

from random import Random

import pytest

from p2pmed.errors import DiskFull, StorageError
from p2pmed.testing.disk import SimDisk, decode_log, encode_batch
from p2pmed.world import Space


def put(disk: SimDisk, number: int) -> None:
    """Batch ``number``: a counter, a row of its own, and a delete of the row before."""
    disk.stage(Space.META, b"count", number.to_bytes(4, "big"))
    disk.stage(Space.ENTRY, number.to_bytes(4, "big"), bytes([number % 256]) * (number % 700))
    disk.stage(Space.ENTRY, (number - 1).to_bytes(4, "big"), None)


def count(disk: SimDisk) -> int:
    return int.from_bytes(disk.get(Space.META, b"count") or b"", "big")


def test_power_cuts_lose_only_what_was_not_flushed() -> None:
    """Over 400 cuts: every finished batch is there, survivors are a whole prefix of the rest."""
    lost = kept = 0
    for seed in range(400):
        rng = Random(seed)
        disk = SimDisk()
        flushed = begun = 0
        batches = []
        for number in range(1, rng.randint(2, 12)):
            put(disk, number)
            batches.append(disk.begin())
            begun = number
            while batches and rng.random() < 0.4:
                disk.finish(batches.pop(0))
                flushed += 1
        put(disk, 99)  # staged and never begun
        survivors = disk.crash(rng)
        found = count(disk)
        assert flushed <= found <= begun
        assert found == flushed + survivors
        expected = [(found.to_bytes(4, "big"), bytes([found % 256]) * (found % 700))]
        assert disk.scan(Space.ENTRY, b"", b"\xff" * 5, limit=9) == (expected if found else [])
        lost += begun - found
        kept += survivors
    assert lost > 100
    assert kept > 100


def test_same_seed_same_fate() -> None:
    """The dice alone decide what survives."""

    def run(seed: int) -> list[int]:
        disk, rng, fates = SimDisk(), Random(seed), []
        for number in range(1, 60):
            put(disk, number)
            disk.begin()
            if number % 5 == 0:
                disk.crash(rng)
                fates.append(count(disk))
        return fates

    assert run(5) == run(5)
    assert run(5) != run(6)


def test_the_log_drops_a_torn_tail_at_every_byte() -> None:
    """Cut anywhere, a log decodes to the whole batches before the cut."""
    disk = SimDisk()
    records = []
    for number in (1, 2, 3):
        put(disk, number)
        batch = disk.begin()
        records.append(encode_batch(batch))
        disk.finish(batch)
    log = b"".join(records)
    ends = [sum(map(len, records[:n])) for n in range(4)]
    for cut in range(len(log) + 1):
        batches, used = decode_log(log[:cut])
        assert used == max(end for end in ends if end <= cut)
        assert len(batches) == ends.index(used)
    for at in range(len(log)):
        wrong = bytearray(log)
        wrong[at] ^= 1
        batches, used = decode_log(bytes(wrong))
        assert used <= at


def test_a_record_spells_its_rows() -> None:
    """Decoding a record gives the rows back: empty values and deletes kept apart."""
    disk = SimDisk()
    disk.stage(Space.META, b"", b"")
    disk.stage(Space.META, b"gone", None)
    disk.stage(Space.ENTRY, b"k" * 300, b"v" * 70_000)
    batch = disk.begin()
    assert decode_log(encode_batch(batch))[0][0].rows == batch.rows


def test_rot_is_read_as_an_error_until_rewritten() -> None:
    """A rotten row fails loudly, alone, and a new write heals it."""
    disk = SimDisk()
    disk.stage(Space.BLOCK, b"a", b"1")
    disk.stage(Space.BLOCK, b"b", b"2")
    disk.commit()
    disk.rot(Space.BLOCK, b"a")
    with pytest.raises(StorageError, match="rotten"):
        disk.get(Space.BLOCK, b"a")
    with pytest.raises(StorageError, match="rotten"):
        disk.scan(Space.BLOCK, b"", b"z", limit=9)
    assert disk.get(Space.BLOCK, b"b") == b"2"
    disk.stage(Space.BLOCK, b"a", b"3")
    disk.commit()
    assert disk.get(Space.BLOCK, b"a") == b"3"


def test_a_full_disk_breaks_and_keeps_what_was_committed() -> None:
    """No room: ``DiskFull``, reads show the committed rows, writes are refused until a restart."""
    disk = SimDisk(capacity_bytes=200)
    disk.stage(Space.ENTRY, b"a", b"x" * 50)
    disk.commit()
    disk.stage(Space.ENTRY, b"b", b"x" * 500)
    with pytest.raises(DiskFull):
        disk.commit()
    assert disk.get(Space.ENTRY, b"b") is None
    assert disk.get(Space.ENTRY, b"a") == b"x" * 50
    with pytest.raises(DiskFull):
        disk.stage(Space.ENTRY, b"c", b"")
    disk.crash(Random(0))
    disk.stage(Space.ENTRY, b"c", b"")
    disk.commit()


def test_a_failed_flush_is_never_reported_durable() -> None:
    """After a failed flush the disk is broken; the batch may or may not survive the restart."""
    fates = set()
    for seed in range(20):
        disk = SimDisk()
        put(disk, 1)
        disk.commit()
        put(disk, 2)
        disk.fail_next_sync = True
        with pytest.raises(StorageError):
            disk.commit()
        assert disk.broken is not None
        assert count(disk) == 1
        with pytest.raises(StorageError):
            disk.commit()
        disk.crash(Random(seed))
        fates.add(count(disk))
    assert fates == {1, 2}
