"""The manifest: one signed page that a network is named after.

It holds the root keys. Its hash is the network id, so whoever knows the id knows the roots.
Rule: the first root key signs it; any one of the roots may issue credentials.

A manifest never changes; other roots make another network.
Byte-exact: ``docs/protocols/identity.md``, section 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

import msgspec

from p2pmed.engine import Entropy
from p2pmed.errors import CredentialError, DecodeError, LocalProtocolError
from p2pmed.identity.keys import check_signing_key, public_key
from p2pmed.wire import codec, cose
from p2pmed.wire.codec import Bytes16, Bytes32, TimeMs, Wire
from p2pmed.wire.hashing import hash_bytes

__all__ = ["MANIFEST_BYTES_MAX", "ROOT_KEYS_MAX", "Manifest", "make_manifest", "open_manifest"]

PURPOSE: Final = "manifest"

ROOT_KEYS_MAX: Final = 3
"""One in use and two kept elsewhere against loss; more hands are more ways to be robbed."""

MANIFEST_BYTES_MAX: Final = 1_024
"""It travels in every answer, which must fit a QR code."""


class Manifest(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a network is."""

    version: Annotated[int, msgspec.Meta(ge=1, le=1)]
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    root_keys: Annotated[tuple[Bytes32, ...], msgspec.Meta(min_length=1, max_length=ROOT_KEYS_MAX)]
    created_ms: TimeMs
    nonce: Bytes16
    """Two networks of one name and one authority still differ."""


def make_manifest(
    name: str, root_seeds: Sequence[bytes], *, created_ms: int, entropy: Entropy
) -> bytes:
    """The signed manifest of a new network; the first of 1 to 3 ``root_seeds`` signs.

    Raises ``LocalProtocolError`` if the name, the number of seeds or the time cannot be.
    """
    roots = tuple(public_key(seed) for seed in root_seeds)
    manifest = Manifest(
        version=1, name=name, root_keys=roots, created_ms=created_ms, nonce=entropy.token(16)
    )
    payload = codec.encode(manifest)
    try:
        _check(codec.decode(payload, Manifest))
    except (DecodeError, CredentialError) as error:
        raise LocalProtocolError(f"no manifest can say this: {error}") from None
    return cose.sign(
        payload,
        seed=root_seeds[0],
        signer=roots[0],
        external=cose.external_data(PURPOSE, b""),
    )


def open_manifest(raw: bytes) -> tuple[Manifest, bytes]:
    """The manifest that ``raw`` spells, and its network id (32 bytes).

    Raises ``DecodeError`` if it is not spelled as ``make_manifest`` spells it, and
    ``CredentialError`` if a root key is unsound or the first root did not sign it.
    """
    signed = cose.open_signed(
        raw, external=cose.external_data(PURPOSE, b""), limit=MANIFEST_BYTES_MAX
    )
    manifest = codec.decode(signed.payload, Manifest)
    _check(manifest)
    if signed.signer != manifest.root_keys[0]:
        raise CredentialError("the manifest is not signed by its first root key")
    if not cose.verify(signed.signer, signed.signature, signed.to_be_signed):
        raise CredentialError("the manifest's signature does not hold")
    return manifest, hash_bytes(raw)


def _check(manifest: Manifest) -> None:
    if not manifest.name.isprintable():
        raise CredentialError("the manifest's name is not one line of text")
    if len(set(manifest.root_keys)) < len(manifest.root_keys):
        raise CredentialError("the manifest names a root key twice")
    for key in manifest.root_keys:
        check_signing_key(key)
