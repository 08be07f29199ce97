"""The state of a node that has no ledger yet: nothing is final."""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["EmptyState"]


class EmptyState:
    """A ``Readable`` with no rows."""

    def get(self, key: bytes) -> bytes | None:
        """Always ``None``."""
        return None

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """No rows."""
        return iter(())
