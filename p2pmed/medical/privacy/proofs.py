"""The patient's own word: a signature that only a card, a delegate or two custodians can make.

Rule of this file: what is signed names its purpose, the network, the patient and all that is
said, so that a word given for one thing never counts for another. Implements
``docs/protocols/card.md``, clause 9.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec

from p2pmed.wire import cbor, cose
from p2pmed.wire.hashing import digest

__all__ = ["Proof", "is_proven", "said"]

Proof = Annotated[bytes, msgspec.Meta(max_length=64)]
"""An Ed25519 signature, or empty."""


def said(purpose: str, network: bytes, patient: bytes, words: Sequence[Any]) -> bytes:
    """The message that a patient signs: ``words`` are plain CBOR values."""
    return cbor.encode(
        ["p2pmed/1", "patient", purpose, network, patient, digest("said", cbor.encode([*words]))]
    )


def is_proven(key: bytes, proof: bytes, message: bytes) -> bool:
    """Whether ``proof`` is the signature of ``key`` over ``message``."""
    return len(proof) == cose.SIGNATURE_BYTES and cose.verify(key, proof, message)
