"""The import's memory: the same question finds the same row, and nobody else can ask."""

from __future__ import annotations

import pytest

from p2pmed.node.fhir.journal import Journal, Row, journal_key
from p2pmed.storage.memory import MemoryDisk
from p2pmed.world import Space


@pytest.fixture
def disk() -> MemoryDisk:
    return MemoryDisk()


@pytest.fixture
def journal(disk: MemoryDisk) -> Journal:
    return Journal(disk, journal_key(b"s" * 32))


def _write(disk: MemoryDisk, *rows: Row) -> None:
    for key, value in rows:
        disk.stage(Space.LOCAL, key, value)


def _ids(*letters: str) -> list[bytes]:
    return [letter.encode() * 32 for letter in letters]


def test_a_document_is_open_then_in_parts_then_complete(disk: MemoryDisk, journal: Journal) -> None:
    """Parts come back in the order of writing, and are gone when the document is complete."""
    document = journal.document(b"contents")
    assert not journal.is_complete(document)
    _write(disk, journal.part(document, 1, _ids("c")), journal.part(document, 0, _ids("a", "b")))
    _write(disk, journal.part(journal.document(b"other"), 0, _ids("x")))
    assert journal.written(document) == [_ids("a", "b"), _ids("c")]
    assert not journal.is_complete(document)
    _write(disk, *journal.complete(document, 2, b"f" * 32))
    assert journal.is_complete(document)
    assert journal.written(document) == []


def test_a_reference_to_two_people_leads_to_none(disk: MemoryDisk, journal: Journal) -> None:
    """``None`` before anybody, a pseudonym for one, empty for two."""
    assert journal.referred("Patient/1") is None
    first, second = journal.person([b"one"]), journal.person([b"two"])
    _write(disk, *journal.registered(first, b"a" * 16, ["Patient/1", "urn:uuid:1"]))
    _write(disk, *journal.registered(first, b"a" * 16, ["Patient/1"]))
    assert journal.referred("Patient/1") == journal.pseudonym(first) == b"a" * 16
    _write(disk, *journal.registered(second, b"b" * 16, ["Patient/1"]))
    assert journal.referred("Patient/1") == b""
    assert journal.referred("urn:uuid:1") == b"a" * 16
    assert journal.pseudonym(second) == b"b" * 16


def test_rows_tell_nothing_without_the_device(disk: MemoryDisk, journal: Journal) -> None:
    """Another device's key names other rows, and no row holds what was asked."""
    other = Journal(disk, journal_key(b"t" * 32))
    assert journal.document(b"contents") != other.document(b"contents")
    _write(disk, *journal.registered(journal.person([b"Wang Mei"]), b"a" * 16, ["Patient/Wang"]))
    assert other.referred("Patient/Wang") is None
    rows = disk.scan(Space.LOCAL, b"", b"\xff", limit=100)
    assert len(rows) == 2
    assert not any(b"Wang" in key + value for key, value in rows)
    assert "Wang" not in repr(journal)


def test_parts_of_an_identity_do_not_run_into_each_other(journal: Journal) -> None:
    """["ab", "c"] is not ["a", "bc"]."""
    assert journal.person([b"ab", b"c"]) != journal.person([b"a", b"bc"])


def test_the_directory_is_one(disk: MemoryDisk, journal: Journal) -> None:
    """None, then the one."""
    assert journal.directory() is None
    _write(disk, journal.opened_directory(b"d" * 16))
    assert journal.directory() == b"d" * 16
