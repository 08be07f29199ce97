"""Bundles as a courier with a key of its own would forge them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from p2pmed.identity.keys import DeviceKeys
from p2pmed.sync.bundle import (
    BlockFrame,
    BundleFrame,
    BundleReader,
    BundleWriter,
    HeaderFrame,
    LaneFrame,
    LedgerFrame,
    ManifestFrame,
    bundle_external,
)
from p2pmed.testing.clock import SimEntropy
from p2pmed.wire import cose

Change = Callable[[list[BundleFrame]], list[BundleFrame]]
Forge = Callable[[Path, Path, Change], Path]


def _forge(path: Path, into: Path, change: Change) -> Path:
    reader = BundleReader(None)
    frames = reader.feed(path.read_bytes())
    assert reader.header is not None
    network = reader.header.network
    keys = DeviceKeys.generate(SimEntropy(b"a courier"))
    external = bundle_external(network)
    writer = BundleWriter(
        lambda payload: cose.sign(
            payload, seed=keys.signing_seed, signer=keys.node_id, external=external
        ),
        network=network,
        author=keys.node_id,
        created_ms=0,
    )
    pieces = [writer.header()]
    for frame in change([f for f in frames if not isinstance(f, HeaderFrame | ManifestFrame)]):
        match frame:
            case LaneFrame():
                pieces += writer.lane(frame.lane, frame.start, frame.entries)
            case LedgerFrame():
                pieces.append(writer.ledger(frame.genesis))
            case BlockFrame(ledger, height, block, certificate):
                pieces.append(writer.block(ledger, height, block, certificate))
    pieces.append(writer.finish())
    into.write_bytes(b"".join(pieces))
    return into


@pytest.fixture(scope="session")
def forge() -> Forge:
    """``forge(path, into, change)``: the frames of ``path``, changed, sealed anew as ``into``."""
    return _forge
