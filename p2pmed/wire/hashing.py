"""BLAKE2b-256 with a purpose: every hash names what it is a hash of."""

from __future__ import annotations

from hashlib import blake2b

__all__ = ["HASH_BYTES", "digest", "hash_bytes"]

HASH_BYTES = 32


def hash_bytes(data: bytes) -> bytes:
    """BLAKE2b-256 of ``data``."""
    return blake2b(data, digest_size=HASH_BYTES).digest()


def digest(purpose: str, data: bytes) -> bytes:
    """BLAKE2b-256 of ``data``, personalised by ``purpose`` (at most 16 ASCII bytes)."""
    return blake2b(data, digest_size=HASH_BYTES, person=purpose.encode("ascii")).digest()
