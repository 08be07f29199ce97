"""The secret halves of vote keys: found by their public half, made ahead, deleted with an epoch.

The first three come with the device's keystore. That is sealed under a passphrase which a running
node does not have, so later ones are rows of the home, each sealed under a key derived from the
device's signing seed: as hard to open as the keystore, and deletable. A key whose epoch is over is
deleted in the commit that makes the seal durable; one of the keystore is *retired* by a row that
says so, and this node never signs with it again (its bytes go when the keystore is next sealed).
"""

from __future__ import annotations

from typing import Final

from p2pmed.consensus.interface import Signer
from p2pmed.engine import Entropy
from p2pmed.errors import DecodeError, StorageError
from p2pmed.identity.keys import DeviceKeys, VoteSigner, public_key
from p2pmed.identity.sealing import derive, open_sealed, seal
from p2pmed.quorum.possession import ProvenKey, prove
from p2pmed.world import Disk, Space

__all__ = ["VoteKeys"]

_SEED: Final = b"vote seed"
"""Row of ``Space.LOCAL``, before a public vote key: nonce (24) and sealed seed."""
_RETIRED: Final = b"vote retired"
_NONCE: Final = 24


class VoteKeys:
    """The vote keys of one device."""

    def __init__(self, disk: Disk, keys: DeviceKeys, entropy: Entropy) -> None:
        self._disk = disk
        self._entropy = entropy
        self._device = keys.node_id
        self._key = derive(keys.signing_seed, salt=b"p2pmed/1", info=b"vote seeds")[:32]
        seeds = keys.vote_seeds.values()
        self._first = {public_key(seed): seed for seed in seeds}

    def signer(self, public: bytes) -> Signer | None:
        """Signs with the secret half of ``public``; ``None`` if it is not here any more.

        Raises ``StorageError`` if the row does not open.
        """
        if self._disk.get(Space.LOCAL, _RETIRED + public) is not None:
            return None
        if public in self._first:
            return VoteSigner(self._first[public])
        row = self._disk.get(Space.LOCAL, _SEED + public)
        if row is None:
            return None
        try:
            return VoteSigner(open_sealed(self._key, row[:_NONCE], row[_NONCE:], public))
        except DecodeError:
            raise StorageError("a vote key in this home does not open") from None

    def make(self, count: int, *, network: bytes, ledger: bytes) -> tuple[ProvenKey, ...]:
        """Stage ``count`` new keys; what is to be published of them once durable."""
        made = []
        for _ in range(count):
            seed, nonce = self._entropy.token(32), self._entropy.token(_NONCE)
            public = public_key(seed)
            row = nonce + seal(self._key, nonce, seed, public)
            self._disk.stage(Space.LOCAL, _SEED + public, row)
            signer = VoteSigner(seed)
            made.append(prove(signer, network=network, ledger=ledger, device=self._device))
        return tuple(made)

    def forget(self, public: bytes) -> None:
        """Stage the end of a key: its epoch is over."""
        if public in self._first:
            self._disk.stage(Space.LOCAL, _RETIRED + public, b"\x01")
        else:
            self._disk.stage(Space.LOCAL, _SEED + public, None)
