"""``p2pmed.node.audit.bundle``: what a bundle carries is checked without a home or a key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from p2pmed.errors import ConfigError
from p2pmed.ledger.genesis import Founding
from p2pmed.node.audit import Findings, audit_bundle
from p2pmed.sync.bundle import (
    BlockFrame,
    BundleFrame,
    BundleReader,
    HeaderFrame,
    LaneFrame,
    LedgerFrame,
    ManifestFrame,
)
from p2pmed.wire import codec

Change = Callable[[list[BundleFrame]], list[BundleFrame]]
Forge = Callable[[Path, Path, Change], Path]


@pytest.fixture
def bundle(lived_in: Path) -> Path:
    return lived_in.parent / "clinic.bundle"


def told(findings: Findings) -> str:
    return "\n".join(f"{f.where}: {f.what}" for f in findings.found)


def frames_of(path: Path) -> list[BundleFrame]:
    """Everything between header and manifest."""
    frames = BundleReader(None).feed(path.read_bytes())
    return [f for f in frames if not isinstance(f, HeaderFrame | ManifestFrame)]


def flipped(raw: bytes, at: int) -> bytes:
    return raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]


def test_a_sound_bundle_passes(lived_in: Path, bundle: Path) -> None:
    """All entries and blocks are counted, and with the manifest nothing is left unchecked."""
    findings = audit_bundle(bundle, manifest=(lived_in / "manifest").read_bytes())
    assert told(findings) == ""
    assert findings.notes == []
    assert findings.counts["entries"] > 9
    assert findings.counts["blocks"] > 2
    assert findings.counts["signatures"] > findings.counts["entries"]


def test_without_the_manifest(bundle: Path) -> None:
    """What cannot be checked is said."""
    findings = audit_bundle(bundle)
    assert told(findings) == ""
    assert any("was not checked" in note for note in findings.notes)


def test_a_bundle_with_a_fork(lived_in: Path) -> None:
    """The evidence of a fork is a frame of its own, and is no fault of the bundle."""
    path = lived_in.parent / "forked.bundle"
    assert told(audit_bundle(path)) == ""
    spans = [(f.lane, f.start) for f in frames_of(path) if isinstance(f, LaneFrame)]
    assert len(spans) == 3


def test_another_network(lived_in: Path, bundle: Path, tmp_path: Path) -> None:
    """Against another network's manifest the bundle is refused at its header."""
    from p2pmed.node.setup import create_network

    create_network(tmp_path / "other", "other", "long enough", cheap=True)
    findings = audit_bundle(bundle, manifest=(tmp_path / "other" / "manifest").read_bytes())
    assert "frame 0 at byte 0: refused: a bundle of another network" in told(findings)


def test_no_file(tmp_path: Path) -> None:
    """A file that is not there is one clear sentence."""
    with pytest.raises(ConfigError, match="cannot be read"):
        audit_bundle(tmp_path / "nothing")


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_torn(bundle: Path, tmp_path: Path, share: float) -> None:
    """A file that ends early says where."""
    raw = bundle.read_bytes()
    (tmp_path / "torn").write_bytes(raw[: int(len(raw) * share)])
    assert "torn: the file ends before its manifest" in told(audit_bundle(tmp_path / "torn"))


def change_entry(frames: list[BundleFrame]) -> list[BundleFrame]:
    """A flipped bit in the signature of an entry."""
    at = next(i for i, f in enumerate(frames) if isinstance(f, LaneFrame) and len(f.entries) > 3)
    frame = frames[at]
    assert isinstance(frame, LaneFrame)
    entries = list(frame.entries)
    entries[2] = flipped(entries[2], len(entries[2]) - 9)
    frames[at] = LaneFrame(frame.author, frame.incarnation, frame.start, tuple(entries))
    return frames


def drop_entry(frames: list[BundleFrame]) -> list[BundleFrame]:
    """An entry left out in the middle."""
    at = next(i for i, f in enumerate(frames) if isinstance(f, LaneFrame) and len(f.entries) > 3)
    frame = frames[at]
    assert isinstance(frame, LaneFrame)
    kept = frame.entries[:2] + frame.entries[3:]
    frames[at] = LaneFrame(frame.author, frame.incarnation, frame.start, kept)
    return frames


def swap_blocks(frames: list[BundleFrame]) -> list[BundleFrame]:
    """The contents of two block frames exchanged."""
    first, second = [i for i, f in enumerate(frames) if isinstance(f, BlockFrame)][:2]
    one, two = frames[first], frames[second]
    assert isinstance(one, BlockFrame)
    assert isinstance(two, BlockFrame)
    frames[first] = BlockFrame(one.ledger, one.height, two.block, two.certificate)
    frames[second] = BlockFrame(two.ledger, two.height, one.block, one.certificate)
    return frames


def borrow_certificate(frames: list[BundleFrame]) -> list[BundleFrame]:
    """One block with the certificate of another."""
    first, second = [i for i, f in enumerate(frames) if isinstance(f, BlockFrame)][:2]
    one, two = frames[first], frames[second]
    assert isinstance(one, BlockFrame)
    assert isinstance(two, BlockFrame)
    frames[second] = BlockFrame(two.ledger, two.height, two.block, one.certificate)
    return frames


def drop_certificates(frames: list[BundleFrame]) -> list[BundleFrame]:
    """Blocks that nobody proves."""
    return [
        BlockFrame(f.ledger, f.height, f.block, b"") if isinstance(f, BlockFrame) else f
        for f in frames
    ]


def change_founding(frames: list[BundleFrame]) -> list[BundleFrame]:
    """A founding with a signature too few."""
    at = next(i for i, f in enumerate(frames) if isinstance(f, LedgerFrame))
    frame = frames[at]
    assert isinstance(frame, LedgerFrame)
    founding = codec.decode(frame.genesis, Founding)
    short = Founding(founding.genesis, founding.signatures[:1], founding.chains)
    frames[at] = LedgerFrame(codec.encode(short))
    return frames


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (change_entry, "entry 2: its signature does not hold"),
        (drop_entry, "entry 2: the entry of"),
        (swap_blocks, "its frame names another height"),
        (borrow_certificate, "its certificate is that of another block"),
        (drop_certificates, "no certificate proves its blocks from 1 on"),
        (change_founding, "a founding that not every founder has signed"),
    ],
)
def test_a_resealed_forgery(
    bundle: Path, tmp_path: Path, forge: Forge, change: Change, expected: str
) -> None:
    """A good seal proves nothing of the contents: each forged part is found and named."""
    forged = forge(bundle, tmp_path / "forged", change)
    assert expected in told(audit_bundle(forged))
