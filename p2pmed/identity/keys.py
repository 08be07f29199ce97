"""A device's secret keys: who signs, who opens, who votes.

A device has three kinds of key, and none is made from another:

* one Ed25519 *signing* key; its public half is the device key, the ``node_id``;
* one X25519 *box* key, to which others seal; never a converted signing key;
* one Ed25519 *vote* key per epoch of a ledger. Those of the two epochs ahead exist before
  they are needed, so that absence never blocks a change of epoch, and a past one is deleted,
  so that a stolen disk cannot vote in the past (design, sections 6 and 12).

Rule of this file: secrets leave only through attributes asked for by name and through
``to_secret_bytes``, which goes into the keystore. ``repr`` shows the public fingerprint;
pickling and copying are refused.

Not here: the file on the disk (``keystore.py``), sealing (``sealing.py``).
"""

from __future__ import annotations

from base64 import b32encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Annotated, Final, NoReturn

import msgspec
from nacl import bindings
from nacl.exceptions import CryptoError

from p2pmed.engine import Entropy
from p2pmed.errors import ConfigError, CredentialError, DecodeError, LocalProtocolError
from p2pmed.wire import codec, cose
from p2pmed.wire.codec import Bytes32, Count, Wire
from p2pmed.wire.hashing import digest

__all__ = [
    "VOTE_EPOCHS_AHEAD",
    "DeviceKeys",
    "VoteSigner",
    "check_box_key",
    "check_signing_key",
    "public_key",
    "short_id",
]

SEED_BYTES: Final = 32

VOTE_EPOCHS_AHEAD: Final = 2
"""Vote keys published in advance (design, section 12)."""

VOTE_SEEDS_MAX: Final = 64
"""Vote seeds one device keeps; far above the three in use."""

SECRET_BYTES_MAX: Final = 8 * 1024

_FIELD_PRIME: Final = 2**255 - 19
_ANY_SCALAR: Final = bytes([8]) + bytes(30) + bytes([64])
"""A clamped X25519 scalar: it maps exactly the small-order points to zero."""


class _VoteSeed(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    epoch: Count
    seed: Bytes32


class _Secret(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What ``to_secret_bytes`` spells; see ``docs/protocols/identity.md``."""

    version: Annotated[int, msgspec.Meta(ge=1, le=1)]
    signing_seed: Bytes32
    box_secret: Bytes32
    vote_seeds: Annotated[tuple[_VoteSeed, ...], msgspec.Meta(max_length=VOTE_SEEDS_MAX)]


class _Apart(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The keys of a device without its box secret: what a node needs unattended."""

    version: Annotated[int, msgspec.Meta(ge=2, le=2)]
    signing_seed: Bytes32
    box_key: Bytes32
    vote_seeds: Annotated[tuple[_VoteSeed, ...], msgspec.Meta(max_length=VOTE_SEEDS_MAX)]


def public_key(seed: bytes) -> bytes:
    """The Ed25519 public key (32 bytes) of ``seed`` (32 bytes)."""
    return bindings.crypto_sign_seed_keypair(seed)[0]


def short_id(key: bytes) -> str:
    """A fingerprint for people: four groups of four base32 characters, 80 bits.

    For reading aloud and comparing, never for looking anything up.
    """
    text = b32encode(digest("short-id", key)[:10]).decode("ascii")
    return "-".join(text[start : start + 4] for start in range(0, 16, 4))


def check_signing_key(key: bytes) -> None:
    """Raises ``CredentialError`` unless ``key`` is a sound Ed25519 public key.

    Sound: 32 bytes, canonical, on the curve, in the prime-order group. libsodium builds a
    verifying key from anything, so it is judged once, at enrolment.
    """
    if len(key) != SEED_BYTES or not bindings.crypto_core_ed25519_is_valid_point(key):
        raise CredentialError("a signing key that is not a sound Ed25519 public key")


def check_box_key(key: bytes) -> None:
    """Raises ``CredentialError`` unless ``key`` is a sound X25519 public key.

    Sound: 32 bytes, below the field's prime (one spelling), not of small order.
    """
    sound = len(key) == SEED_BYTES and int.from_bytes(key, "little") < _FIELD_PRIME
    if sound:
        try:
            bindings.crypto_scalarmult(_ANY_SCALAR, key)
        except CryptoError:
            sound = False
    if not sound:
        raise CredentialError("an encryption key that is not a sound X25519 public key")


class VoteSigner:
    """Signs votes of one epoch; a ``consensus.interface.Signer``."""

    __slots__ = ("_seed", "public")

    def __init__(self, seed: bytes) -> None:
        self.public = public_key(seed)
        self._seed = seed

    def sign(self, message: bytes) -> bytes:
        """The Ed25519 signature (64 bytes) over ``message`` as it stands."""
        return bindings.crypto_sign(message, self._seed + self.public)[: cose.SIGNATURE_BYTES]

    def __repr__(self) -> str:
        return f"<VoteSigner {short_id(self.public)}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("keys are neither pickled nor copied")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class DeviceKeys:
    """One device's keys; immutable, a change of vote keys gives a new value."""

    signing_seed: bytes
    """Ed25519 seed (32 bytes): secret."""
    box_secret: bytes = b""
    """X25519 secret (32 bytes): secret; empty where staff hold it (``staff.py``)."""
    vote_seeds: Mapping[int, bytes]
    """Epoch to Ed25519 seed (32 bytes): secret."""
    box_key: bytes = b""
    """The box secret's public half, where that is not here."""
    node_id: bytes = field(init=False)
    """The device key: Ed25519 public key (32 bytes)."""
    box_public: bytes = field(init=False)
    """X25519 public key (32 bytes)."""

    def __post_init__(self) -> None:
        if {len(self.signing_seed), len(self.box_secret or self.box_key)} != {SEED_BYTES}:
            raise LocalProtocolError("a secret key that is not 32 bytes")
        if any(len(seed) != SEED_BYTES for seed in self.vote_seeds.values()):
            raise LocalProtocolError("a vote seed that is not 32 bytes")
        ordered = MappingProxyType(dict(sorted(self.vote_seeds.items())))
        object.__setattr__(self, "vote_seeds", ordered)
        object.__setattr__(self, "node_id", public_key(self.signing_seed))
        own = bindings.crypto_scalarmult_base(self.box_secret) if self.box_secret else self.box_key
        object.__setattr__(self, "box_public", own)

    @classmethod
    def generate(cls, entropy: Entropy) -> DeviceKeys:
        """New keys, with vote seeds for epochs 0, 1 and 2."""
        return cls(
            signing_seed=entropy.token(SEED_BYTES),
            box_secret=entropy.token(SEED_BYTES),
            vote_seeds=_fresh_votes(entropy),
        )

    @property
    def vote_epochs(self) -> tuple[int, ...]:
        """The epochs this device can vote in, ascending."""
        return tuple(self.vote_seeds)

    def vote_public(self, epoch: int) -> bytes:
        """The vote key of ``epoch`` (32 bytes). Raises ``LocalProtocolError`` if there is none."""
        return public_key(self._vote_seed(epoch))

    def vote_signer(self, epoch: int) -> VoteSigner:
        """Signs votes of ``epoch``. Raises ``LocalProtocolError`` if there is no such key."""
        return VoteSigner(self._vote_seed(epoch))

    def advance_votes(self, epoch: int, entropy: Entropy) -> DeviceKeys:
        """Keys for a ledger now in ``epoch``: older vote seeds are gone, two ahead exist.

        The caller makes the new keystore durable, in place of the old, before it publishes.
        """
        last = epoch + VOTE_EPOCHS_AHEAD
        seeds = {known: seed for known, seed in self.vote_seeds.items() if known >= epoch}
        for missing in range(epoch, last + 1):
            if missing not in seeds:
                seeds[missing] = entropy.token(SEED_BYTES)
        return self._with_votes(seeds)

    def renew_votes(self, entropy: Entropy) -> DeviceKeys:
        """Keys for another ledger: all vote seeds replaced, for epochs 0, 1 and 2."""
        return self._with_votes(_fresh_votes(entropy))

    def sign(self, payload: bytes, purpose: str, network: bytes) -> bytes:
        """``payload`` as a COSE_Sign1 message of this device (``wire/cose.py``).

        ``network`` is the network id (32 bytes), or empty before there is one.
        """
        return cose.sign(
            payload,
            seed=self.signing_seed,
            signer=self.node_id,
            external=cose.external_data(purpose, network),
        )

    def sign_raw(self, message: bytes) -> bytes:
        """The bare Ed25519 signature (64 bytes); ``message`` names its own purpose."""
        signed = bindings.crypto_sign(message, self.signing_seed + self.node_id)
        return bytes(signed[:64])

    def apart(self) -> DeviceKeys:
        """These keys without the box secret: they sign and vote, and open nothing."""
        return DeviceKeys(
            signing_seed=self.signing_seed, vote_seeds=self.vote_seeds, box_key=self.box_public
        )

    def to_secret_bytes(self) -> bytes:
        """Everything, in the clear: for ``seal_keystore`` and nothing else."""
        if not self.box_secret:
            return codec.encode(
                _Apart(
                    version=2,
                    signing_seed=self.signing_seed,
                    box_key=self.box_public,
                    vote_seeds=tuple(_VoteSeed(e, seed) for e, seed in self.vote_seeds.items()),
                )
            )
        return codec.encode(
            _Secret(
                version=1,
                signing_seed=self.signing_seed,
                box_secret=self.box_secret,
                vote_seeds=tuple(_VoteSeed(e, seed) for e, seed in self.vote_seeds.items()),
            )
        )

    @classmethod
    def from_secret_bytes(cls, raw: bytes) -> DeviceKeys:
        """Inverse of ``to_secret_bytes``. Raises ``ConfigError`` for anything else."""
        secret = _read_secret(raw)
        epochs = [vote.epoch for vote in secret.vote_seeds]
        if epochs != sorted(set(epochs)):
            raise ConfigError("the keystore's vote keys are not in the order of their epochs")
        return cls(
            signing_seed=secret.signing_seed,
            box_secret=secret.box_secret if isinstance(secret, _Secret) else b"",
            box_key=b"" if isinstance(secret, _Secret) else secret.box_key,
            vote_seeds={vote.epoch: vote.seed for vote in secret.vote_seeds},
        )

    def _vote_seed(self, epoch: int) -> bytes:
        try:
            return self.vote_seeds[epoch]
        except KeyError:
            raise LocalProtocolError(
                f"this device has no vote key for epoch {epoch}",
                hint="past vote keys are deleted; later ones are made two epochs ahead",
            ) from None

    def _with_votes(self, seeds: Mapping[int, bytes]) -> DeviceKeys:
        return DeviceKeys(
            signing_seed=self.signing_seed,
            box_secret=self.box_secret,
            box_key=self.box_key,
            vote_seeds=seeds,
        )

    def __repr__(self) -> str:
        return f"<DeviceKeys {short_id(self.node_id)}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("keys are neither pickled nor copied")


def _read_secret(raw: bytes) -> _Secret | _Apart:
    try:
        return codec.decode(raw, _Secret, limit=SECRET_BYTES_MAX)
    except DecodeError:
        pass
    try:
        apart = codec.decode(raw, _Apart, limit=SECRET_BYTES_MAX)
        check_box_key(apart.box_key)
    except (DecodeError, CredentialError):
        raise ConfigError("the keystore does not hold a device's keys") from None
    return apart


def _fresh_votes(entropy: Entropy) -> dict[int, bytes]:
    return {epoch: entropy.token(SEED_BYTES) for epoch in range(VOTE_EPOCHS_AHEAD + 1)}
