"""Vote keys of a device: made ahead, found by their public half, gone with their epoch."""

from __future__ import annotations

import pytest

from p2pmed.errors import StorageError
from p2pmed.identity.keys import DeviceKeys
from p2pmed.node.vote_keys import VoteKeys
from p2pmed.quorum.possession import is_proven
from p2pmed.storage.memory import MemoryDisk
from p2pmed.wire import cose
from p2pmed.wire.hashing import hash_bytes
from p2pmed.world import Space


class Counted:
    """Bytes that differ each time."""

    def __init__(self, name: bytes) -> None:
        self._name, self._count = name, 0

    def token(self, size: int) -> bytes:
        self._count += 1
        return (hash_bytes(self._name + bytes([self._count])) * 2)[:size]


KEYS = DeviceKeys.generate(Counted(b"device"))
PLACE = {"network": hash_bytes(b"network"), "ledger": hash_bytes(b"ledger")}
OTHER = DeviceKeys.generate(Counted(b"other"))


def test_a_key_made_ahead_signs_after_a_restart_and_not_after_its_end() -> None:
    """Its secret half is found by the public one, on the same disk with the same device's keys."""
    disk = MemoryDisk()
    made = [k.key for k in VoteKeys(disk, KEYS, Counted(b"entropy")).make(2, **PLACE)]
    disk.commit()
    keys = VoteKeys(disk, KEYS, Counted(b"more"))
    signer = keys.signer(made[0])
    assert signer is not None
    assert cose.verify(made[0], signer.sign(b"words"), b"words")
    keys.forget(made[0])
    disk.commit()
    assert keys.signer(made[0]) is None
    assert keys.signer(made[1]) is not None
    assert all(made[0] not in key for key, _ in disk.scan(Space.LOCAL, b"", b"\xff" * 90, limit=9))


def test_a_key_of_the_keystore_is_retired() -> None:
    """The running node cannot rewrite the sealed keystore, and signs with it no more."""
    disk = MemoryDisk()
    keys = VoteKeys(disk, KEYS, Counted(b"entropy"))
    assert keys.signer(KEYS.vote_public(0)) is not None
    keys.forget(KEYS.vote_public(0))
    disk.commit()
    again = VoteKeys(disk, KEYS, Counted(b"entropy"))
    assert again.signer(KEYS.vote_public(0)) is None
    assert again.signer(KEYS.vote_public(1)) is not None


def test_the_rows_open_with_this_devices_keys_only() -> None:
    """A copy of the disk without the keystore holds no vote key."""
    disk = MemoryDisk()
    (published,) = VoteKeys(disk, KEYS, Counted(b"entropy")).make(1, **PLACE)
    made = published.key
    disk.commit()
    with pytest.raises(StorageError):
        VoteKeys(disk, OTHER, Counted(b"entropy")).signer(made)
    assert VoteKeys(disk, OTHER, Counted(b"entropy")).signer(KEYS.vote_public(0)) is None


def test_a_made_key_is_proven_for_this_device_network_and_ledger() -> None:
    """The proof holds there and nowhere else."""
    (published,) = VoteKeys(MemoryDisk(), KEYS, Counted(b"entropy")).make(1, **PLACE)
    assert is_proven(published, device=KEYS.node_id, **PLACE)
    assert not is_proven(published, device=OTHER.node_id, **PLACE)
    for name in PLACE:
        elsewhere = {**PLACE, name: hash_bytes(b"elsewhere")}
        assert not is_proven(published, device=KEYS.node_id, **elsewhere)
