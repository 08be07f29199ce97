"""COSE_Sign1 with EdDSA, untagged (RFC 9052, sections 4.2 and 4.4; RFC 9053, section 2.2).

The message is ``[protected, {}, payload, signature]``. The protected header is exactly
``{1: -8, 4: kid}`` with the signer's 32-byte Ed25519 public key as ``kid``, and is compared
literally, so the strict decoder never meets a COSE map. External data separates domains:
the deterministic CBOR of ``["p2pmed/1", purpose, network]``.

The id of a message is the BLAKE2b-256 of its Sig_structure, never of the signature.

Not here: other algorithms, other header fields, detached payloads. A header we do not
write ourselves is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from nacl import bindings
from nacl.exceptions import BadSignatureError

from p2pmed.errors import DecodeError
from p2pmed.limits import ENTRY_BYTES_MAX
from p2pmed.wire import cbor
from p2pmed.wire.hashing import hash_bytes

__all__ = [
    "SIGNATURE_BYTES",
    "Signed",
    "external_data",
    "open_signed",
    "sign",
    "sign_message",
    "verify",
]

SIGNATURE_BYTES = 64
KEY_BYTES = 32

_PROTECTED_HEAD = bytes.fromhex("a201270458 20".replace(" ", ""))
"""``{1: -8, 4: <32 bytes>}`` up to the key."""
_MESSAGE_HEAD = b"\x84\x58" + bytes([len(_PROTECTED_HEAD) + KEY_BYTES]) + _PROTECTED_HEAD
_UNPROTECTED = b"\xa0"
_STRUCTURE_HEAD = b"\x84\x6aSignature1" + _MESSAGE_HEAD[1:]
"""Of a Sig_structure, up to the signer's key."""


@dataclass(frozen=True, slots=True, repr=False)
class Signed:
    """A message taken apart; its signature is not yet checked."""

    signer: bytes
    payload: bytes
    signature: bytes
    to_be_signed: bytes
    """The Sig_structure: what the signature covers."""
    id: bytes
    raw: bytes


@lru_cache(maxsize=64)
def external_data(purpose: str, network: bytes) -> bytes:
    """The domain of a signature: protocol, purpose, network id (empty: before a network)."""
    return cbor.encode(["p2pmed/1", purpose, network])


def sign(payload: bytes, *, seed: bytes, signer: bytes, external: bytes) -> bytes:
    """The COSE_Sign1 message of ``payload`` under the Ed25519 key of ``seed``.

    ``signer`` is the public key that belongs to ``seed`` (32 bytes each).
    """
    return sign_message(payload, seed=seed, signer=signer, external=external).raw


def sign_message(payload: bytes, *, seed: bytes, signer: bytes, external: bytes) -> Signed:
    """Like ``sign``, and at once what ``open_signed`` would give for it."""
    structure = _structure(signer, external, payload)
    signature = bindings.crypto_sign(structure, seed + signer)[:SIGNATURE_BYTES]
    return Signed(
        signer=signer,
        payload=payload,
        signature=signature,
        to_be_signed=structure,
        id=hash_bytes(structure),
        raw=b"".join(
            (_MESSAGE_HEAD, signer, _UNPROTECTED, _string(payload), b"\x58\x40", signature)
        ),
    )


def open_signed(raw: bytes, *, external: bytes, limit: int = ENTRY_BYTES_MAX) -> Signed:
    """Take a message apart strictly; the signature is left for ``verify``.

    Raises ``DecodeError`` if ``raw`` is not spelled exactly as ``sign`` spells it.
    """
    if len(raw) > limit:
        raise DecodeError(f"a signed message of {len(raw)} bytes where {limit} are allowed")
    head = len(_MESSAGE_HEAD)
    body = head + KEY_BYTES + len(_UNPROTECTED)
    tail = len(raw) - SIGNATURE_BYTES - 2
    if (
        not raw.startswith(_MESSAGE_HEAD)
        or tail <= body
        or raw[body - 1 : body] != _UNPROTECTED
        or raw[tail : tail + 2] != b"\x58\x40"
    ):
        raise DecodeError("not a COSE_Sign1 message of this protocol")
    signer = raw[head : head + KEY_BYTES]
    payload = _unstring(raw[body:tail])
    # The payload's own spelling is in ``raw`` already: as it stands, for it was found minimal.
    structure = b"".join((_STRUCTURE_HEAD, signer, _string_of(external), raw[body:tail]))
    return Signed(
        signer=signer,
        payload=payload,
        signature=raw[tail + 2 :],
        to_be_signed=structure,
        id=hash_bytes(structure),
        raw=raw,
    )


def verify(signer: bytes, signature: bytes, to_be_signed: bytes) -> bool:
    """Whether ``signature`` is ``signer``'s over ``to_be_signed`` (libsodium's strict rules)."""
    try:
        bindings.crypto_sign_open(signature + to_be_signed, signer)
    except (BadSignatureError, ValueError):
        return False
    return True


def _structure(signer: bytes, external: bytes, payload: bytes) -> bytes:
    """The Sig_structure ``["Signature1", protected, external, payload]``."""
    return b"".join((_STRUCTURE_HEAD, signer, _string_of(external), _string(payload)))


@lru_cache(maxsize=64)
def _string_of(external: bytes) -> bytes:
    return _string(external)


def _string(data: bytes) -> bytes:
    """A CBOR byte string, minimal length."""
    size = len(data)
    if size < 24:
        return bytes([0x40 | size]) + data
    if size < 0x100:
        return b"\x58" + size.to_bytes(1, "big") + data
    if size < 0x10000:
        return b"\x59" + size.to_bytes(2, "big") + data
    return b"\x5a" + size.to_bytes(4, "big") + data


def _unstring(raw: bytes) -> bytes:
    """The contents of one CBOR byte string that fills ``raw``, minimal length only."""
    first = raw[0] if raw else 0
    head, least = _HEADS.get(first, (1, 0))
    size = int.from_bytes(raw[1:head], "big") if head > 1 else first - 0x40
    if size != len(raw) - head or size < least or (head == 1 and size >= 24):
        raise DecodeError("a payload that is not one byte string")
    return raw[head:]


_HEADS = {0x58: (2, 24), 0x59: (3, 0x100), 0x5A: (5, 0x10000)}
"""First byte of a longer string: bytes of its head, and the least length it may say."""
