"""Which categories a grant opens: told to who manages the patient's consent, and to nobody else.

Rule of this file: that somebody may read the category *HIV* says as much as a diagnosis, so a
scope is sealed under the patient's key of the category ``consent``, which the patient, the clinic
that registered and delegates hold; ordinary readers do not. Implements
``docs/protocols/records.md``, clause 21.1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Final

import msgspec

from p2pmed.engine import Entropy
from p2pmed.errors import DecodeError
from p2pmed.identity import sealing
from p2pmed.wire import cbor, codec
from p2pmed.wire.codec import Bytes32, Text, Wire

if TYPE_CHECKING:
    from p2pmed.medical.keyring import CategoryKey

__all__ = ["TOLD_BYTES_MAX", "Told", "key_of_told", "open_told", "seal_told"]

TOLD_BYTES_MAX: Final = 8 * 1024
PAD_BYTES: Final = 256
"""One category or twelve have one length."""
HEAD_BYTES: Final = 16 + sealing.NONCE_BYTES

Told = Annotated[bytes, msgspec.Meta(max_length=TOLD_BYTES_MAX)]
"""Name of the consent key (16 bytes), nonce (24), ciphertext; or empty: nothing is told."""


class _Row(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    key: Bytes32
    categories: Annotated[tuple[Text, ...], msgspec.Meta(max_length=64)]


def seal_told(
    scopes: Mapping[bytes, Iterable[str]],
    *,
    key: CategoryKey,
    network: bytes,
    patient: bytes,
    entropy: Entropy,
) -> bytes:
    """``scopes``: the categories by reader (X25519 public key), under the consent key ``key``."""
    rows = [[reader, sorted(str(name) for name in scopes[reader])] for reader in sorted(scopes)]
    nonce = entropy.token(sealing.NONCE_BYTES)
    sealed = sealing.seal(
        key.derive(salt=nonce, info=b"p2pmed/1 told")[:32],
        nonce,
        sealing.pad(cbor.encode(rows), PAD_BYTES),
        _associated(network, patient, key.key_id),
    )
    return key.key_id + nonce + sealed


def key_of_told(told: bytes) -> bytes | None:
    """The name of the key it is sealed under; ``None`` if nothing is told."""
    return told[:16] if len(told) > HEAD_BYTES else None


def open_told(
    told: bytes, *, key: CategoryKey, network: bytes, patient: bytes
) -> dict[bytes, tuple[str, ...]]:
    """Categories by reader (X25519 public key). Raises ``DecodeError`` if it does not open."""
    if key_of_told(told) != key.key_id:
        raise DecodeError("a scope sealed under another key")
    nonce = told[16:HEAD_BYTES]
    padded = sealing.open_sealed(
        key.derive(salt=nonce, info=b"p2pmed/1 told")[:32],
        nonce,
        told[HEAD_BYTES:],
        _associated(network, patient, key.key_id),
    )
    rows = codec.decode(sealing.unpad(padded), list[_Row])
    return {row.key: row.categories for row in rows}


def _associated(network: bytes, patient: bytes, key_id: bytes) -> bytes:
    return cbor.encode([sealing.PROTOCOL, "told", sealing.SUITE, network, patient, key_id])
