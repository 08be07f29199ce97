"""The file on the stick: whole, torn, bent, swapped, for somebody else."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl import bindings

from p2pmed.errors import LocalProtocolError
from p2pmed.ledger.transaction import LaneKey
from p2pmed.sync import bundle
from p2pmed.sync.bundle import (
    BlockFrame,
    BundleReader,
    BundleStatus,
    BundleWriter,
    Counts,
    CredentialFrame,
    HeaderFrame,
    LaneFrame,
    LedgerFrame,
    ManifestFrame,
    bundle_external,
)
from p2pmed.sync.bundle_frames import KINDS, FrameKind, checksum
from p2pmed.sync.bundle_summary import inspect_bundle
from p2pmed.wire import codec, cose

VECTORS = json.loads(
    (Path(__file__).parents[1] / "vectors" / "bundle.json").read_text(encoding="utf-8")
)

NETWORK = b"\x11" * 32
SEED = bytes(range(32))
AUTHOR = bindings.crypto_sign_seed_keypair(SEED)[0]
LANES = [LaneKey(bytes([n]) * 32, bytes([n]) * 16) for n in (1, 2)]
LEDGER = b"\x33" * 32


def seal(payload: bytes) -> bytes:
    return cose.sign(payload, seed=SEED, signer=AUTHOR, external=bundle_external(NETWORK))


def writer(**options) -> BundleWriter:
    return BundleWriter(
        seal,
        network=NETWORK,
        author=AUTHOR,
        created_ms=1_760_000_000_000,
        counts=Counts(2, 5, 1, 2),
        **options,
    )


def pieces() -> list[bytes]:
    """One of everything; each piece is one frame."""
    made = writer()
    return [
        made.header(),
        made.credential([b"county", b"clinic", b"device"]),
        *made.lane(LANES[0], 7, [b"entry-7", b"entry-8", b"entry-9"]),
        *made.lane(LANES[1], 0, [b"entry-0", b"entry-1"]),
        made.ledger(b"a founding"),
        made.block(LEDGER, 1, b"block one", b""),
        made.block(LEDGER, 2, b"block two", b"a certificate"),
        made.finish(),
    ]


PIECES = pieces()
FILE = b"".join(PIECES)


def read(raw: bytes, step: int = 1 << 20, network: bytes | None = NETWORK):
    reader = BundleReader(network)
    frames = []
    for at in range(0, len(raw), step):
        frames += reader.feed(raw[at : at + step])
    reader.finish()
    return reader, frames


WHOLE = read(FILE)[1]


def framed(number: int, kind: int, payload: bytes) -> bytes:
    """A frame with a right checksum, whatever it says."""
    head = len(payload).to_bytes(4, "big") + bytes([kind])
    return head + payload + checksum(number, head, payload)


def test_a_whole_bundle_gives_every_frame_and_is_complete() -> None:
    """Header first, contents as written, the seal last."""
    reader, frames = read(FILE)
    assert reader.status is BundleStatus.COMPLETE
    assert reader.fault is None
    assert reader.offset == len(FILE)
    assert [type(f) for f in frames] == [
        HeaderFrame,
        CredentialFrame,
        LaneFrame,
        LaneFrame,
        LedgerFrame,
        BlockFrame,
        BlockFrame,
        ManifestFrame,
    ]
    assert frames[0].created == 1_760_000_000_000
    assert frames[1].chain == (b"county", b"clinic", b"device")
    assert (frames[2].lane, frames[2].start) == (LANES[0], 7)
    assert frames[2].entries == (b"entry-7", b"entry-8", b"entry-9")
    assert (frames[6].height, frames[6].certificate) == (2, b"a certificate")


@given(st.lists(st.integers(1, 400), min_size=1, max_size=60))
@settings(max_examples=60, deadline=None)
def test_the_size_of_the_chunks_does_not_matter(sizes: list[int]) -> None:
    """Any way of cutting the stream gives the same frames and the same end."""
    reader = BundleReader(NETWORK)
    frames, at = [], 0
    while at < len(FILE):
        size = sizes[at % len(sizes)]
        frames += reader.feed(FILE[at : at + size])
        at += size
    assert reader.finish() is BundleStatus.COMPLETE
    assert frames == WHOLE


def test_every_truncation_is_torn_and_keeps_its_good_prefix() -> None:
    """Cut at each byte: never complete, and exactly the frames that are whole come out."""
    ends = [sum(map(len, PIECES[: n + 1])) for n in range(len(PIECES))]
    for cut in range(len(FILE)):
        reader, frames = read(FILE[:cut])
        whole = sum(end <= cut for end in ends)
        assert reader.status is BundleStatus.TORN
        assert frames == WHOLE[:whole]
        assert reader.fault is not None
        assert (reader.fault.frame, reader.fault.offset) == (whole, ends[whole - 1] if whole else 0)


def test_every_flipped_bit_is_caught_in_its_frame() -> None:
    """Flip each bit of the file: no frame from there on is handed out, and the place is named."""
    starts = [sum(map(len, PIECES[:n])) for n in range(len(PIECES))]
    for bit in range(8 * len(FILE)):
        bent = bytearray(FILE)
        bent[bit // 8] ^= 1 << bit % 8
        reader, frames = read(bytes(bent))
        hit = max(n for n, start in enumerate(starts) if start <= bit // 8)
        assert reader.status is not BundleStatus.COMPLETE
        assert frames == WHOLE[:hit]
        assert reader.fault is not None
        assert (reader.fault.frame, reader.fault.offset) == (hit, starts[hit])


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_no_edit_is_accepted(data: st.DataObject) -> None:
    """Delete, insert, replace, repeat: what comes out is a prefix of the truth, never complete."""
    raw = bytearray(FILE)
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(raw)))
        end = data.draw(st.integers(start, min(len(raw), start + 300)))
        raw[start:end] = data.draw(
            st.one_of(st.binary(max_size=40), st.just(bytes(raw[:200])), st.just(bytes(64)))
        )
    if bytes(raw) == FILE:
        return
    reader, frames = read(bytes(raw), step=data.draw(st.integers(1, 2_000)))
    if bytes(raw).startswith(FILE):
        assert frames == WHOLE
    assert reader.status is not BundleStatus.COMPLETE
    assert frames == WHOLE[: len(frames)]


@given(st.permutations(range(1, len(PIECES) - 1)))
@settings(max_examples=40, deadline=None)
def test_frames_cannot_be_swapped_or_dropped(order: list[int]) -> None:
    """The checksum covers the frame's number, so only the written order is read."""
    shuffled = [PIECES[0], *(PIECES[n] for n in order), PIECES[-1]]
    reader, frames = read(b"".join(shuffled))
    if list(order) == sorted(order):
        assert reader.status is BundleStatus.COMPLETE
    else:
        assert reader.status is BundleStatus.DAMAGED
        assert frames == WHOLE[: len(frames)]
    dropped, _ = read(b"".join([*PIECES[: order[0]], *PIECES[order[0] + 1 :]]))
    assert dropped.status is BundleStatus.DAMAGED


def test_reading_twice_gives_the_same_and_nothing_more() -> None:
    """A bundle read again, or after a torn copy of itself, hands out equal frames."""
    assert read(FILE)[1] == read(FILE, step=1)[1] == WHOLE
    assert read(FILE[:500])[1] == WHOLE[: len(read(FILE[:500])[1])]


def test_another_network_is_refused_at_the_header() -> None:
    """Not one frame of a stranger's bundle is handed out."""
    reader, frames = read(FILE, network=b"\x22" * 32)
    assert (reader.status, frames) == (BundleStatus.REFUSED, [])
    assert reader.fault is not None
    assert "another network" in reader.fault.reason
    assert read(FILE, network=None)[0].status is BundleStatus.COMPLETE


def test_another_version_is_refused_with_a_clear_word() -> None:
    """A header whose second item is not 1 is told from a damaged one."""
    later = framed(0, FrameKind.HEADER, codec.cbor.encode(["p2pmed-bundle", 2, NETWORK, "new"]))
    reader, frames = read(later)
    assert (reader.status, frames) == (BundleStatus.REFUSED, [])
    assert reader.fault is not None
    assert "version" in reader.fault.reason


@pytest.mark.parametrize("raw", [b"PK\x03\x04 an archive", b"SQLite format 3\x00", bytes(100)])
def test_another_kind_of_file_is_refused(raw: bytes) -> None:
    """The first five bytes settle it."""
    assert read(raw)[0].status is BundleStatus.REFUSED


def test_zeros_at_the_end_are_a_torn_file() -> None:
    """What a stick leaves that was pulled before its cache was written."""
    reader, frames = read(b"".join(PIECES[:3]) + bytes(4_096))
    assert reader.status is BundleStatus.TORN
    assert frames == WHOLE[:3]


def test_bytes_after_the_manifest_are_not_complete() -> None:
    """A bundle ends with its seal; whatever follows was not sealed."""
    reader, frames = read(FILE + b"\x00")
    assert reader.status is BundleStatus.DAMAGED
    assert frames == WHOLE
    assert reader.fault is not None
    assert reader.fault.offset == len(FILE)


def test_a_huge_length_is_refused_before_its_bytes_are_waited_for() -> None:
    """The reader looks at five bytes and keeps nothing."""
    for kind, (_, limit) in KINDS.items():
        if kind == FrameKind.HEADER:
            continue
        reader = BundleReader(NETWORK)
        reader.feed(PIECES[0])
        reader.feed((limit + 1).to_bytes(4, "big") + bytes([kind]))
        assert reader.status is BundleStatus.DAMAGED
        assert reader.feed(FILE) == []


def test_the_reader_keeps_one_frame_at_most() -> None:
    """However large the chunk, the buffer is bounded by the largest frame."""
    made = writer()
    raw = made.header() + b"".join(made.lane(LANES[0], 0, [bytes(60_000)] * 50))
    reader = BundleReader(NETWORK)
    most = 0
    for at in range(0, len(raw), 100_000):
        reader.feed(raw[at : at + 100_000])
        most = max(most, len(reader._buffer))
    assert most <= max(limit for _, limit in KINDS.values()) + 21
    assert reader.frames == 26


def test_too_many_frames_or_bytes_end_the_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream without end stops at the named limits, on both sides."""
    monkeypatch.setattr(bundle, "BUNDLE_FRAMES_MAX", 3)
    assert len(read(FILE)[1]) == 3
    made = writer()
    made.header()
    made.ledger(b"x")
    made.ledger(b"x")
    with pytest.raises(LocalProtocolError):
        made.ledger(b"x")
    monkeypatch.undo()
    monkeypatch.setattr(bundle, "BUNDLE_BYTES_MAX", 400)
    reader, frames = read(FILE)
    assert reader.status is BundleStatus.DAMAGED
    assert frames == WHOLE[: len(frames)]
    made = writer()
    made.header()
    with pytest.raises(LocalProtocolError):
        made.ledger(bytes(400))


@pytest.mark.parametrize("kind", [k for k in FrameKind if k is not FrameKind.HEADER])
def test_a_right_checksum_around_nonsense_is_damage(kind: int) -> None:
    """Whoever can compute a checksum still cannot hand out a value of the wrong type."""
    reader, frames = read(PIECES[0] + framed(1, kind, codec.cbor.encode([1, 2, 3])))
    assert reader.status is BundleStatus.DAMAGED
    assert frames == WHOLE[:1]


def test_a_second_header_is_damage() -> None:
    """One file, one writer."""
    reader, frames = read(PIECES[0] + framed(1, FrameKind.HEADER, PIECES[0][5:-16]))
    assert (reader.status, frames) == (BundleStatus.DAMAGED, WHOLE[:1])


def test_a_seal_by_another_key_or_network_or_of_other_bytes_is_false() -> None:
    """Complete means: the header's author signed just these bytes for this network."""

    def sealed_by(made_seal) -> BundleStatus:
        made = BundleWriter(made_seal, network=NETWORK, author=AUTHOR, created_ms=0)
        return read(made.header() + made.ledger(b"x") + made.finish())[0].status

    other = bytes(32)
    other_key = bindings.crypto_sign_seed_keypair(other)[0]
    external = bundle_external(NETWORK)
    assert sealed_by(seal) is BundleStatus.COMPLETE
    for bad in (
        lambda p: cose.sign(p, seed=other, signer=other_key, external=external),
        lambda p: cose.sign(p, seed=SEED, signer=AUTHOR, external=bundle_external(other)),
        lambda p: cose.sign(p[:-1] + b"\x00", seed=SEED, signer=AUTHOR, external=external),
        lambda p: cose.sign(p, seed=SEED, signer=AUTHOR, external=external)[:-1] + b"\x00",
        lambda p: b"",
    ):
        assert sealed_by(bad) is BundleStatus.DAMAGED


def test_the_writer_refuses_what_no_reader_would_take() -> None:
    """Order, size and the seal are the writer's promises too."""
    made = writer()
    with pytest.raises(LocalProtocolError):
        made.ledger(b"before the header")
    made.header()
    with pytest.raises(LocalProtocolError):
        made.header()
    with pytest.raises(LocalProtocolError):
        made.block(LEDGER, 1, bytes(300_000), b"")
    made.finish()
    with pytest.raises(LocalProtocolError):
        made.ledger(b"after the seal")


@given(st.lists(st.binary(min_size=1, max_size=3_000), max_size=700))
@settings(max_examples=20, deadline=None)
def test_long_logs_are_cut_into_frames_and_come_back_whole(entries: list[bytes]) -> None:
    """Batches follow the limits, seqs stay consecutive, nothing is lost."""
    made = writer()
    raw = made.header() + b"".join(made.lane(LANES[0], 5, iter(entries))) + made.finish()
    reader, frames = read(raw, step=10_000)
    back, due = [], 5
    for frame in frames[1:-1]:
        assert frame.start == due
        due += len(frame.entries)
        back += frame.entries
    assert back == entries
    assert reader.status is BundleStatus.COMPLETE


def test_inspect_tells_what_is_inside_and_how_it_ended() -> None:
    """The table of contents of a whole and of a torn file."""
    summary = inspect_bundle([FILE[:100], FILE[100:]])
    assert summary.status is BundleStatus.COMPLETE
    assert summary.header is not None
    assert summary.header.author == AUTHOR
    assert (summary.entries, summary.credentials, summary.foundings) == (5, 1, 1)
    span = summary.lanes[LANES[0]]
    assert (span.start, span.end, span.entries) == (7, 10, 3)
    heights = summary.ledgers[LEDGER]
    assert (heights.lowest, heights.highest, heights.blocks) == (1, 2, 2)
    torn = inspect_bundle([FILE[:-1]])
    assert torn.status is BundleStatus.TORN
    assert torn.entries == 5
    assert torn.fault is not None
    assert inspect_bundle([FILE], network=bytes(32)).status is BundleStatus.REFUSED


def test_the_frozen_bundle_is_read_and_written_byte_for_byte() -> None:
    """The format is what docs/protocols/bundle.md says and stays so."""
    assert FILE.hex() == VECTORS["file"]
    assert [piece.hex() for piece in PIECES] == [each["bytes"] for each in VECTORS["frames"]]
    for bad in VECTORS["hostile"]:
        reader, frames = read(bytes.fromhex(bad["file"]))
        assert reader.status.value == bad["status"], bad["name"]
        assert len(frames) == bad["frames"], bad["name"]


def test_a_frame_can_be_checked_with_hashlib_alone() -> None:
    """A stranger needs BLAKE2b and the page, not our code."""
    number = 2
    piece = PIECES[number]
    covered = number.to_bytes(8, "big") + piece[:-16]
    whole = hashlib.blake2b(covered, digest_size=32, person=b"p2pmed bundle").digest()
    assert piece[-16:] == whole[:16]


def test_speed_is_printed() -> None:
    """20,000 entries out and in: bytes per second of this machine, for the record."""
    made = writer()
    began = time.perf_counter()
    raw = made.header() + b"".join(made.lane(LANES[0], 0, [bytes(400)] * 20_000)) + made.finish()
    out = time.perf_counter()
    reader, frames = read(raw, step=1 << 16)
    done = time.perf_counter()
    print(f"20,000 x 400 B: out {out - began:.3f} s, in {done - out:.3f} s without signatures")
    assert reader.status is BundleStatus.COMPLETE
    assert sum(len(f.entries) for f in frames[1:-1]) == 20_000
