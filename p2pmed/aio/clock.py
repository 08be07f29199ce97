"""The real clock, dice and entropy."""

from __future__ import annotations

import random
import secrets
import time

from p2pmed.engine import Instant

__all__ = ["SystemClock", "SystemEntropy", "system_rng"]


class SystemClock:
    """Monotonic and wall time of this machine, in milliseconds."""

    def now(self) -> Instant:
        """Monotonic; starts somewhere."""
        return Instant(time.monotonic_ns() // 1_000_000)

    def wall_ms(self) -> int:
        """As the machine believes; may jump."""
        return time.time_ns() // 1_000_000


class SystemEntropy:
    """The operating system's."""

    def token(self, size: int) -> bytes:
        """``size`` unpredictable bytes."""
        return secrets.token_bytes(size)


def system_rng() -> random.Random:
    """Dice for jitter, seeded by the system."""
    return random.Random(secrets.randbits(64))  # noqa: S311 (jitter, never secrets)
