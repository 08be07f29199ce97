"""The keystore: secrets at rest under a passphrase.

Argon2id (RFC 9106) turns the passphrase into a key, with its cost written beside the salt.
XChaCha20-Poly1305 seals the secret, with the whole header as associated data. A plain
checksum tells damage from a wrong passphrase, before any cost; it hides nothing and proves
nothing, and whoever forges it still meets the seal.

Rule: a cost outside the caps is refused before it is paid (threats, section 5): a hostile
file must not buy a gibibyte of memory. Opening is slow on purpose, so a caller with an event
loop runs it in a worker.

Not here: the file's path and permissions (``storage``), what the secret means (``keys.py``,
``authority.py``).
Byte-exact: ``docs/protocols/identity.md``, section 5.
"""

from __future__ import annotations

import unicodedata
from typing import Annotated, Final, Literal

import msgspec
from nacl import bindings
from nacl.exceptions import CryptoError

from p2pmed.engine import Entropy
from p2pmed.errors import ConfigError, DecodeError, Locked
from p2pmed.wire import codec
from p2pmed.wire.codec import Bytes16, Bytes32, Wire
from p2pmed.wire.hashing import digest

__all__ = [
    "FAST_MEMLIMIT_BYTES",
    "FAST_OPSLIMIT",
    "KEYSTORE_BYTES_MAX",
    "MEMLIMIT_BYTES",
    "OPSLIMIT",
    "open_keystore",
    "seal_keystore",
]

MIB: Final = 1024 * 1024

OPSLIMIT: Final = 3
MEMLIMIT_BYTES: Final = 64 * MIB
"""About 0.1 s on the clinic's laptop."""

FAST_OPSLIMIT: Final = 2
FAST_MEMLIMIT_BYTES: Final = 19 * MIB
"""The least that OWASP ASVS 5.0 (appendix C) allows: for tests and demonstrations."""

OPSLIMIT_MAX: Final = 10
MEMLIMIT_BYTES_MAX: Final = 1024 * MIB
KEYSTORE_BYTES_MAX: Final = 64 * 1024
SECRET_BYTES_MAX: Final = 32 * 1024
PASSPHRASE_CHARS_MAX: Final = 1_024

assert SECRET_BYTES_MAX + 512 < KEYSTORE_BYTES_MAX
assert FAST_MEMLIMIT_BYTES <= MEMLIMIT_BYTES <= MEMLIMIT_BYTES_MAX


class _Header(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    magic: Literal["p2pmed-keystore"]
    version: Annotated[int, msgspec.Meta(ge=1, le=1)]
    kdf: Literal["argon2id13"]
    opslimit: Annotated[int, msgspec.Meta(ge=FAST_OPSLIMIT, le=OPSLIMIT_MAX)]
    memlimit_bytes: Annotated[int, msgspec.Meta(ge=FAST_MEMLIMIT_BYTES, le=MEMLIMIT_BYTES_MAX)]
    salt: Bytes16
    cipher: Literal["xchacha20poly1305"]
    nonce: Annotated[bytes, msgspec.Meta(min_length=24, max_length=24)]


class _File(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    header: _Header
    sealed: Annotated[bytes, msgspec.Meta(min_length=16, max_length=SECRET_BYTES_MAX + 16)]
    checksum: Bytes32


def seal_keystore(
    secret: bytes,
    passphrase: str,
    *,
    entropy: Entropy,
    opslimit: int = OPSLIMIT,
    memlimit_bytes: int = MEMLIMIT_BYTES,
) -> bytes:
    """The keystore file that holds ``secret`` (at most 32 KiB) under ``passphrase``.

    Raises ``ConfigError`` for an empty or unusable passphrase, or a cost outside
    2..10 passes and 19 MiB..1 GiB.
    """
    if len(secret) > SECRET_BYTES_MAX:
        raise ConfigError(f"a secret of {len(secret)} bytes where {SECRET_BYTES_MAX} are allowed")
    header = _Header(
        magic="p2pmed-keystore",
        version=1,
        kdf="argon2id13",
        opslimit=opslimit,
        memlimit_bytes=memlimit_bytes,
        salt=entropy.token(16),
        cipher="xchacha20poly1305",
        nonce=entropy.token(24),
    )
    associated = codec.encode(header)
    try:
        codec.decode(associated, _Header)
    except DecodeError:
        raise ConfigError(
            "a keystore cost outside the bounds", hint="2 to 10 passes, 19 MiB to 1 GiB"
        ) from None
    key = _key(passphrase, header)
    sealed = bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(
        secret, associated, header.nonce, key
    )
    return codec.encode(_File(header, sealed, digest("keystore", associated + sealed)))


def open_keystore(raw: bytes, passphrase: str) -> bytes:
    """The secret in the keystore file ``raw``.

    Raises ``ConfigError`` if the file is no keystore, is damaged, or asks for a cost outside
    the caps, all before any cost; ``Locked`` if the passphrase does not open it.
    """
    try:
        file = codec.decode(raw, _File, limit=KEYSTORE_BYTES_MAX)
    except DecodeError:
        raise ConfigError(
            "the keystore file is damaged, not a keystore, or of an unknown version or cost",
            hint="restore it from the backup, or enrol this device anew",
        ) from None
    associated = codec.encode(file.header)
    if file.checksum != digest("keystore", associated + file.sealed):
        raise ConfigError(
            "the keystore file is damaged",
            hint="restore it from the backup, or enrol this device anew",
        )
    key = _key(passphrase, file.header)
    try:
        return bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(
            file.sealed, associated, file.header.nonce, key
        )
    except CryptoError:
        raise Locked("the passphrase does not open this keystore") from None


def _key(passphrase: str, header: _Header) -> bytes:
    """32 bytes by argon2id; the passphrase is taken as NFC in UTF-8."""
    if not passphrase or len(passphrase) > PASSPHRASE_CHARS_MAX:
        raise ConfigError(f"a passphrase has 1 to {PASSPHRASE_CHARS_MAX} characters")
    try:
        spelled = unicodedata.normalize("NFC", passphrase).encode()
    except UnicodeEncodeError:
        # The error itself would carry the passphrase.
        raise ConfigError("the passphrase is not text") from None
    try:
        return bindings.crypto_pwhash_alg(
            32,
            spelled,
            header.salt,
            header.opslimit,
            header.memlimit_bytes,
            bindings.crypto_pwhash_ALG_ARGON2ID13,
        )
    except CryptoError:
        raise ConfigError(
            f"this machine cannot spare the {header.memlimit_bytes // MIB} MiB of memory that "
            "the keystore asks for",
            hint="close other programs and try again",
        ) from None
