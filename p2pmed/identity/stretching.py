"""A short secret that a person remembers, made dear to guess: argon2id (RFC 9106).

Rule of this file: the cost is named beside what it protects and bounded on both sides, so that
a hostile value neither weakens nor stops a reader. It takes 0.1 s on purpose: a caller with an
event loop runs it in a worker.
"""

from __future__ import annotations

import unicodedata
from typing import Annotated, Final

import msgspec
from nacl import bindings
from nacl.exceptions import CryptoError

from p2pmed.errors import ConfigError
from p2pmed.wire.codec import Wire

__all__ = ["CHEAP", "USUAL", "Cost", "stretch"]

MIB: Final = 1024 * 1024
CHARS_MAX: Final = 256


class Cost(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Passes and memory: at least what OWASP ASVS 5.0 (appendix C) allows."""

    passes: Annotated[int, msgspec.Meta(ge=2, le=10)]
    memory_mib: Annotated[int, msgspec.Meta(ge=19, le=255)]


USUAL: Final = Cost(3, 64)
"""About 0.1 s on the clinic's laptop."""
CHEAP: Final = Cost(2, 19)
"""For tests and demonstrations."""


def stretch(words: str, *, salt: bytes, cost: Cost) -> bytes:
    """32 bytes from ``words`` (taken as NFC in UTF-8) and ``salt`` (16 bytes).

    Raises ``ConfigError`` if there are no words, too many, or no memory for it.
    """
    if not words or len(words) > CHARS_MAX:
        raise ConfigError(f"a PIN or passphrase has 1 to {CHARS_MAX} characters")
    try:
        spelled = unicodedata.normalize("NFC", words).encode()
    except UnicodeEncodeError:
        # The error itself would carry the words.
        raise ConfigError("a PIN or passphrase that is not text") from None
    try:
        return bindings.crypto_pwhash_alg(
            32,
            spelled,
            salt,
            cost.passes,
            cost.memory_mib * MIB,
            bindings.crypto_pwhash_ALG_ARGON2ID13,
        )
    except CryptoError:
        raise ConfigError(
            f"this machine cannot spare {cost.memory_mib} MiB of memory",
            hint="close other programs and try again",
        ) from None
