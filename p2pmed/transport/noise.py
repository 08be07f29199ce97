"""Noise_XX_25519_ChaChaPoly_SHA256 and nothing else (Noise specification, revision 34).

::

    XX:
      -> e
      <- e, ee, s, es
      -> s, se

Rules:

* one suite, one pattern: a choice that cannot be made cannot be made wrongly;
* a counter moves only after a valid tag, so that garbage cannot move it (RUSTSEC-2024-0011);
* secrets come from the injected ``Entropy``; no ``repr`` shows one;
* whatever a peer sends raises ``RemoteProtocolError`` at worst, and then the handshake is over.

Not here: pre-shared keys, other patterns, fragmentation, identity. ``channel.py`` adds those
of them that p2pmed has. Primitives: libsodium through ``nacl.bindings``, HMAC of the standard
library. Checked against independent implementations: ``tests/transport/test_noise.py``.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

from nacl import bindings
from nacl.exceptions import CryptoError

from p2pmed.engine import Entropy
from p2pmed.errors import InvariantError, LocalProtocolError, RemoteProtocolError
from p2pmed.limits import NOISE_FRAME_BYTES_MAX

__all__ = [
    "KEY_BYTES",
    "PLAINTEXT_BYTES_MAX",
    "PROTOCOL_NAME",
    "TAG_BYTES",
    "CipherState",
    "HandshakeState",
    "KeyPair",
    "SymmetricState",
]

PROTOCOL_NAME: Final = b"Noise_XX_25519_ChaChaPoly_SHA256"
KEY_BYTES: Final = 32
TAG_BYTES: Final = 16
PLAINTEXT_BYTES_MAX: Final = NOISE_FRAME_BYTES_MAX - TAG_BYTES
NONCE_LAST: Final = 2**64 - 2
"""2**64 - 1 is kept for ``rekey`` (section 5.1)."""

_REKEY_NONCE: Final = bytes(4) + b"\xff" * 8
_encrypt = bindings.crypto_aead_chacha20poly1305_ietf_encrypt
_decrypt = bindings.crypto_aead_chacha20poly1305_ietf_decrypt

assert len(PROTOCOL_NAME) == KEY_BYTES  # exactly one hash long: section 5.2 uses it as it is


class KeyPair:
    """An X25519 key: 32 secret bytes and the 32 public ones that follow from them."""

    __slots__ = ("public", "secret")

    def __init__(self, secret: bytes) -> None:
        """Raises ``LocalProtocolError`` unless ``secret`` is 32 bytes."""
        if len(secret) != KEY_BYTES:
            raise LocalProtocolError("an X25519 secret has 32 bytes")
        self.secret = secret
        self.public: bytes = bindings.crypto_scalarmult_base(secret)

    @classmethod
    def generate(cls, entropy: Entropy) -> KeyPair:
        """A fresh pair."""
        return cls(entropy.token(KEY_BYTES))

    def shared(self, public: bytes) -> bytes:
        """X25519 of this secret and ``public``.

        Raises ``RemoteProtocolError`` if the result is all zero: a point of small order, sent
        by nobody honest (section 12.1 permits the check, libsodium insists on it).
        """
        try:
            return bindings.crypto_scalarmult(self.secret, public)
        except RuntimeError:
            raise RemoteProtocolError("a public key of small order") from None


class CipherState:
    """A key and a counter (section 5.1)."""

    __slots__ = ("_key", "_nonce")

    def __init__(self, key: bytes | None, nonce: int = 0) -> None:
        self._key = key
        self._nonce = nonce

    @property
    def nonce(self) -> int:
        """The counter of the next message."""
        return self._nonce

    @property
    def has_key(self) -> bool:
        """Whether messages are encrypted yet."""
        return self._key is not None

    def encrypt(self, ad: bytes, plaintext: bytes) -> bytes:
        """The sealed message; the counter moves by one.

        Raises ``InvariantError`` when the counter is used up.
        """
        if self._key is None:
            return plaintext
        if self._nonce > NONCE_LAST:
            raise InvariantError("a channel key has no nonce left")
        sealed: bytes = _encrypt(plaintext, ad, self._nonce_bytes(), self._key)
        self._nonce += 1
        return sealed

    def decrypt(self, ad: bytes, sealed: bytes) -> bytes:
        """The plaintext; the counter moves by one, and only if the tag is valid.

        Raises ``RemoteProtocolError`` if it is not, or the counter is used up.
        """
        if self._key is None:
            return sealed
        if self._nonce > NONCE_LAST:
            raise RemoteProtocolError("a channel key has no nonce left")
        if len(sealed) < TAG_BYTES:
            raise RemoteProtocolError("shorter than a tag")
        try:
            plaintext: bytes = _decrypt(sealed, ad, self._nonce_bytes(), self._key)
        except CryptoError:
            raise RemoteProtocolError("a tag that does not hold") from None
        self._nonce += 1
        return plaintext

    def rekey(self) -> None:
        """Replace the key one way (section 4.2, REKEY); the counter goes on."""
        if self._key is None:
            raise LocalProtocolError("there is no key to replace")
        self._key = _encrypt(bytes(KEY_BYTES), b"", _REKEY_NONCE, self._key)[:KEY_BYTES]

    def _nonce_bytes(self) -> bytes:
        return bytes(4) + self._nonce.to_bytes(8, "little")


class SymmetricState:
    """The chaining key and the hash of all that was said (section 5.2)."""

    __slots__ = ("_chaining_key", "cipher", "hash")

    def __init__(self, prologue: bytes) -> None:
        self.hash: bytes = PROTOCOL_NAME
        self._chaining_key: bytes = PROTOCOL_NAME
        self.cipher = CipherState(None)
        self.mix_hash(prologue)

    def mix_hash(self, data: bytes) -> None:
        """Bind ``data`` to everything that follows."""
        self.hash = hashlib.sha256(self.hash + data).digest()

    def mix_key(self, secret: bytes) -> None:
        """Let everything that follows depend on a shared secret."""
        self._chaining_key, key = _hkdf(self._chaining_key, secret)
        self.cipher = CipherState(key)

    def encrypt_and_hash(self, plaintext: bytes) -> bytes:
        """Seal with the hash as associated data, then bind the result."""
        sealed = self.cipher.encrypt(self.hash, plaintext)
        self.mix_hash(sealed)
        return sealed

    def decrypt_and_hash(self, sealed: bytes) -> bytes:
        """Open, then bind. Raises ``RemoteProtocolError``."""
        plaintext = self.cipher.decrypt(self.hash, sealed)
        self.mix_hash(sealed)
        return plaintext

    def split(self) -> tuple[CipherState, CipherState]:
        """The ciphers initiator to responder, and back."""
        first, second = _hkdf(self._chaining_key, b"")
        return CipherState(first), CipherState(second)


_PATTERN: Final = (("e",), ("e", "ee", "s", "es"), ("s", "se"))
"""XX, section 7.5; even messages are the initiator's."""


class HandshakeState:
    """One side of one handshake (section 5.3).

    ``write`` and ``read`` alternate, the initiator writes first; after three messages
    ``split`` gives the ciphers. Any error ends the handshake: a failed object refuses
    further use.
    """

    __slots__ = (
        "_ephemeral",
        "_initiator",
        "_remote_ephemeral",
        "_static",
        "_step",
        "_symmetric",
        "_token",
        "remote_static",
    )

    def __init__(
        self, *, initiator: bool, prologue: bytes, static: KeyPair, entropy: Entropy
    ) -> None:
        self._initiator = initiator
        self._static = static
        self._ephemeral: KeyPair | None = None
        self._remote_ephemeral: bytes | None = None
        self.remote_static: bytes | None = None
        """The peer's Noise key, as soon as it is known."""
        self._symmetric = SymmetricState(prologue)
        self._step = 0
        self._token = entropy.token

    @property
    def hash(self) -> bytes:
        """The transcript so far; after the third message, the channel binding."""
        return self._symmetric.hash

    @property
    def finished(self) -> bool:
        """Whether all three messages are done."""
        return self._step == len(_PATTERN)

    def write_keys(self) -> bytes:
        """The key part of our next message; ``write_payload`` completes it.

        In between ``hash`` is what an identity proof inside the payload signs.
        """
        self._require_turn(ours=True)
        out = bytearray()
        for word in _PATTERN[self._step]:
            if word == "e":
                self._ephemeral = KeyPair(self._token(KEY_BYTES))
                out += self._ephemeral.public
                self._symmetric.mix_hash(self._ephemeral.public)
            elif word == "s":
                out += self._symmetric.encrypt_and_hash(self._static.public)
            else:
                self._mix_shared(word)
        return bytes(out)

    def write_payload(self, payload: bytes) -> bytes:
        """The payload part of our message, sealed where there is a key already."""
        sealed = self._symmetric.encrypt_and_hash(payload)
        self._step += 1
        return sealed

    def write(self, payload: bytes = b"") -> bytes:
        """Our next message. Raises ``LocalProtocolError`` out of turn."""
        keys = self.write_keys()
        return keys + self.write_payload(payload)

    def read(self, message: bytes) -> tuple[bytes, bytes]:
        """The payload of the peer's next message, and the hash before that payload.

        Raises ``RemoteProtocolError`` if the message is not what the pattern asks for;
        ``LocalProtocolError`` out of turn.
        """
        self._require_turn(ours=False)
        if len(message) > NOISE_FRAME_BYTES_MAX:
            raise RemoteProtocolError("longer than a Noise message")
        step, self._step = self._step, -1  # a failed read leaves an object that is over
        rest = message
        for word in _PATTERN[step]:
            if word == "e":
                key, rest = _cut(rest, KEY_BYTES)
                self._remote_ephemeral = key
                self._symmetric.mix_hash(key)
            elif word == "s":
                sealed, rest = _cut(rest, KEY_BYTES + TAG_BYTES)
                self.remote_static = self._symmetric.decrypt_and_hash(sealed)
            else:
                self._mix_shared(word)
        before = self._symmetric.hash
        payload = self._symmetric.decrypt_and_hash(rest)
        self._step = step + 1
        return payload, before

    def split(self) -> tuple[CipherState, CipherState]:
        """The ciphers to send and to receive with, once finished."""
        if not self.finished:
            raise LocalProtocolError("the handshake is not finished")
        first, second = self._symmetric.split()
        return (first, second) if self._initiator else (second, first)

    def _require_turn(self, *, ours: bool) -> None:
        if not 0 <= self._step < len(_PATTERN):
            raise LocalProtocolError("the handshake is over")
        if (self._step % 2 == 0) != (self._initiator == ours):
            raise LocalProtocolError("not this side's turn in the handshake")

    def _mix_shared(self, word: str) -> None:
        """``ee``, ``es`` or ``se``: the first letter is the initiator's key."""
        initiators, responders = word[0], word[1]
        mine, theirs = (initiators, responders) if self._initiator else (responders, initiators)
        pair = self._ephemeral if mine == "e" else self._static
        remote = self._remote_ephemeral if theirs == "e" else self.remote_static
        assert pair is not None  # the pattern's order
        assert remote is not None
        self._symmetric.mix_key(pair.shared(remote))


def _cut(message: bytes, size: int) -> tuple[bytes, bytes]:
    if len(message) < size:
        raise RemoteProtocolError("a handshake message that is too short")
    return message[:size], message[size:]


def _hkdf(chaining_key: bytes, material: bytes) -> tuple[bytes, bytes]:
    """Two outputs (section 4.3)."""
    secret = hmac.digest(chaining_key, material, "sha256")
    first = hmac.digest(secret, b"\x01", "sha256")
    second = hmac.digest(secret, first + b"\x02", "sha256")
    return first, second
