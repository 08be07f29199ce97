"""HPKE wrapping whose ephemeral key comes from the injected entropy: same seed, same bytes.

Rule of this file: it writes exactly what ``identity.sealing.HpkeWrapper`` writes (RFC 9180,
base mode, sections 4.1, 5.1 and 5.2, suite 0x0020, 0x0001, 0x0003), so that the real reader
opens it. It is for the simulator and for tests: outside them the ephemeral key belongs to the
audited package alone.
"""

from __future__ import annotations

import hmac
from typing import Final

from nacl import bindings

from p2pmed.engine import Entropy

__all__ = ["SeededWrapper", "seal_base"]

_KEM_SUITE: Final = b"KEM\x00\x20"
_HPKE_SUITE: Final = b"HPKE\x00\x20\x00\x01\x00\x03"
_BASE_MODE: Final = b"\x00"


class SeededWrapper:
    """A ``sealing.Wrapper`` for worlds that are replayed from a seed."""

    def __init__(self, entropy: Entropy) -> None:
        self._entropy = entropy

    def wrap(self, recipient: bytes, plaintext: bytes, info: bytes) -> bytes:
        """See ``sealing.Wrapper.wrap``."""
        ephemeral = self._entropy.token(32)
        return seal_base(ephemeral, recipient, plaintext, info=info)


def seal_base(
    ephemeral: bytes, recipient: bytes, plaintext: bytes, *, info: bytes, associated: bytes = b""
) -> bytes:
    """The ephemeral public key (32 bytes) and the first message's ciphertext.

    ``ephemeral`` is an X25519 secret, ``recipient`` a public key (32 bytes each).
    Raises ``ValueError`` if they share no secret.
    """
    sent = bindings.crypto_scalarmult_base(ephemeral)
    try:
        shared = bindings.crypto_scalarmult(ephemeral, recipient)
    except RuntimeError as error:  # libsodium refuses points of low order
        raise ValueError("no shared secret") from error
    extracted = _extract(_KEM_SUITE, b"", b"eae_prk", shared)
    secret = _expand(_KEM_SUITE, extracted, b"shared_secret", sent + recipient, 32)
    context = b"".join(
        (
            _BASE_MODE,
            _extract(_HPKE_SUITE, b"", b"psk_id_hash", b""),
            _extract(_HPKE_SUITE, b"", b"info_hash", info),
        )
    )
    scheduled = _extract(_HPKE_SUITE, secret, b"secret", b"")
    key = _expand(_HPKE_SUITE, scheduled, b"key", context, 32)
    nonce = _expand(_HPKE_SUITE, scheduled, b"base_nonce", context, 12)
    return sent + bindings.crypto_aead_chacha20poly1305_ietf_encrypt(
        plaintext, associated, nonce, key
    )


def _extract(suite: bytes, salt: bytes, label: bytes, material: bytes) -> bytes:
    return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite + label + material, "sha256")


def _expand(suite: bytes, key: bytes, label: bytes, info: bytes, size: int) -> bytes:
    """One block is enough: nothing of this suite is longer than 32 bytes."""
    labelled = size.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info
    return hmac.digest(key, labelled + b"\x01", "sha256")[:size]
