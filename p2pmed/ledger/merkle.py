"""Merkle trees of the RFC 9162 shape (section 2.1) over BLAKE2b-256.

Leaves are prefixed by 0x00 and nodes by 0x01, so that a node never passes for a leaf.
The root of no leaves is the hash of nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from p2pmed.wire.hashing import hash_bytes

__all__ = ["merkle_proof", "merkle_root", "verify_merkle_proof"]


def merkle_root(leaves: Sequence[bytes]) -> bytes:
    """Root over ``leaves`` in their order (32 bytes)."""
    level = [hash_bytes(b"\x00" + leaf) for leaf in leaves]
    if not level:
        return hash_bytes(b"")
    while len(level) > 1:
        paired = [
            hash_bytes(b"\x01" + level[i] + level[i + 1]) for i in range(0, len(level) - 1, 2)
        ]
        if len(level) % 2:
            paired.append(level[-1])
        level = paired
    return level[0]


def merkle_proof(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """Sibling hashes from the leaf at ``index`` up to the root."""
    level = [hash_bytes(b"\x00" + leaf) for leaf in leaves]
    path = []
    while len(level) > 1:
        sibling = index ^ 1
        if sibling < len(level):
            path.append(level[sibling])
        paired = [
            hash_bytes(b"\x01" + level[i] + level[i + 1]) for i in range(0, len(level) - 1, 2)
        ]
        if len(level) % 2:
            paired.append(level[-1])
        level, index = paired, index // 2
    return path


def verify_merkle_proof(
    leaf: bytes, index: int, count: int, proof: Sequence[bytes], root: bytes
) -> bool:
    """Whether ``leaf`` stands at ``index`` of the ``count`` leaves under ``root``."""
    if not 0 <= index < count:
        return False
    node, width, path = hash_bytes(b"\x00" + leaf), count, list(proof)
    while width > 1:
        if index ^ 1 < width:
            if not path:
                return False
            sibling = path.pop(0)
            pair = sibling + node if index % 2 else node + sibling
            node = hash_bytes(b"\x01" + pair)
        index, width = index // 2, (width + 1) // 2
    return not path and node == root
