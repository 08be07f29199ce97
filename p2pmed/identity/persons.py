"""A person's own word: the keys of a staff member, and a signature beside the device's.

A device signs every transaction. Where a person must answer for it (a second signer, a step of
a surgical checklist, a share of a key handed over), the body also holds the signature of that
person's key over what is said: a ``Countersignature``. A key is no person by itself: who
holds it, and what that person may do, say the ordered qualifications (``medical/qualifications``).

Rule of this file: what is countersigned is named by purpose, network and a digest that the
caller makes of *all* that is said, place and subject included; a word given for one thing
never counts for another. As with devices (``keys.py``), the signing key is no box key, secrets
leave only by name, and ``repr`` shows the public fingerprint.

Byte-exact: ``docs/protocols/identity.md``, section 8.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Final, NoReturn

import msgspec
from nacl import bindings

from p2pmed.engine import Entropy
from p2pmed.errors import CredentialError, DecodeError
from p2pmed.identity.keys import public_key, short_id
from p2pmed.identity.sealing import box_public
from p2pmed.wire import cbor, codec, cose
from p2pmed.wire.codec import Bytes32, Bytes64, Wire

__all__ = ["Countersignature", "PersonKeys", "check_countersignature"]

SEED_BYTES: Final = 32
SECRET_BYTES_MAX: Final = 1_024

Verify = Callable[[bytes, bytes, bytes], bool]


class Countersignature(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One person's signature beside the device's."""

    signer: Bytes32
    """The person's Ed25519 key, as ``Envelope.actor`` and ``qual.issue`` name it."""
    signature: Bytes64


class _Secret(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    version: Annotated[int, msgspec.Meta(ge=1, le=1)]
    signing_seed: Bytes32
    box_secret: Bytes32


@dataclass(frozen=True, slots=True, eq=False)
class PersonKeys:
    """The two secret keys of one staff member."""

    signing_seed: bytes
    box_secret: bytes
    """X25519: what is wrapped to this person opens with it."""

    @classmethod
    def generate(cls, entropy: Entropy) -> PersonKeys:
        """New keys."""
        return cls(entropy.token(SEED_BYTES), entropy.token(SEED_BYTES))

    @property
    def person(self) -> bytes:
        """The public signing key (32 bytes): the person's name in every transaction."""
        return public_key(self.signing_seed)

    @property
    def box_public(self) -> bytes:
        """The public box key (32 bytes)."""
        return box_public(self.box_secret)

    def countersign(self, network: bytes, purpose: str, digest: bytes) -> Countersignature:
        """This person's word for ``digest`` (32 bytes), for ``purpose`` in ``network``."""
        person = self.person
        message = _message(network, purpose, digest)
        signature = bindings.crypto_sign(message, self.signing_seed + person)[
            : cose.SIGNATURE_BYTES
        ]
        return Countersignature(signer=person, signature=signature)

    def to_secret_bytes(self) -> bytes:
        """For a keystore, and nothing else."""
        return codec.encode(
            _Secret(version=1, signing_seed=self.signing_seed, box_secret=self.box_secret)
        )

    @classmethod
    def from_secret_bytes(cls, raw: bytes) -> PersonKeys:
        """Inverse of ``to_secret_bytes``. Raises ``DecodeError`` that shows nothing of ``raw``."""
        try:
            secret = codec.decode(raw, _Secret, limit=SECRET_BYTES_MAX)
        except DecodeError:
            raise DecodeError("not a person's keys") from None
        return cls(secret.signing_seed, secret.box_secret)

    def __repr__(self) -> str:
        return f"<PersonKeys {short_id(self.person)}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("secret keys are not pickled or copied")


def check_countersignature(
    word: Countersignature,
    network: bytes,
    purpose: str,
    digest: bytes,
    *,
    verify: Verify = cose.verify,
) -> bytes:
    """The person (32 bytes) who gave this word for ``digest``. Raises ``CredentialError``."""
    if not verify(word.signer, word.signature, _message(network, purpose, digest)):
        raise CredentialError("a person's signature that does not hold for what is said")
    return word.signer


def _message(network: bytes, purpose: str, digest: bytes) -> bytes:
    return cbor.encode(["p2pmed/1", "countersign", network, purpose, digest])
