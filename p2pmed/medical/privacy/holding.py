"""The private half of a patient's key: in a vault, and the vault's key in several hands.

Rule of this file: nothing here is readable by one who holds the ledger alone. The *vault* holds
every generation of the patient's secrets, sealed under a random *master*; the master is wrapped
to the patient's cards (``cards.py``) and cut into shares, each wrapped to one custodian: village
clinic, county facility, guardian or family card. Two of three shares give the master back.
Implements medical notes, section 3, and ``docs/protocols/card.md``, clauses 1 to 8.

A patient registered without a card (an import, a busy morning) has one custodian, the device
that registered: it holds the key as a desk holds the paper file, and the ledger says so.
Each change of hands is a new *generation*: a new pair of keys, a new master, a new vault.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec
from nacl import bindings

from p2pmed.engine import Entropy
from p2pmed.errors import DecodeError, Denied, InvalidTransaction
from p2pmed.identity import sealing
from p2pmed.identity.keys import public_key
from p2pmed.identity.shamir import SecretShare, join, split
from p2pmed.wire import cbor, codec
from p2pmed.wire.codec import Bytes32, Wire

__all__ = [
    "CUSTODIANS_MAX",
    "GENERATIONS_MAX",
    "NOBODY",
    "Holding",
    "PatientSecrets",
    "Share",
    "hold",
    "join_master",
    "open_share",
    "open_vault",
]

CUSTODIANS_MAX: Final = 3
THRESHOLD: Final = 2
GENERATIONS_MAX: Final = 32
"""Lost cards and changed custodians in one life."""
MASTER_BYTES: Final = 32
SHARE_BYTES: Final = sealing.WRAP_BYTES + MASTER_BYTES
VAULT_BYTES_MAX: Final = sealing.NONCE_BYTES + sealing.TAG_BYTES + 4_096
VAULT_PAD_BYTES: Final = 128

DOMAIN: Final = "share"


class Share(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One share of a master, wrapped to its custodian."""

    point: Annotated[int, msgspec.Meta(ge=1, le=CUSTODIANS_MAX)]
    key: Bytes32
    """X25519 public key of the custodian."""
    wrapped: Annotated[bytes, msgspec.Meta(min_length=SHARE_BYTES, max_length=SHARE_BYTES)]


class Holding(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One generation of a patient's keys, as the ledger keeps it."""

    generation: Annotated[int, msgspec.Meta(ge=0, lt=GENERATIONS_MAX)]
    sign_key: Bytes32
    """Ed25519 public key: what the patient signs with, card in hand."""
    vault: Annotated[bytes, msgspec.Meta(max_length=VAULT_BYTES_MAX)]
    threshold: Annotated[int, msgspec.Meta(ge=1, le=THRESHOLD)]
    """Custodians who must agree; 1 where there is one custodian and no card."""
    shares: Annotated[tuple[Share, ...], msgspec.Meta(max_length=CUSTODIANS_MAX)]

    @property
    def sound(self) -> bool:
        """Whether the points are 1, 2, 3 in order, and nobody is custodian twice."""
        points = [share.point for share in self.shares]
        keys = {share.key for share in self.shares}
        return points == list(range(1, len(points) + 1)) and len(keys) == len(points)


NOBODY: Final = Holding(generation=0, sign_key=bytes(32), vault=b"", threshold=1, shares=())
"""A key that nobody holds: of a subject who is no person."""


class _Pair(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    box_secret: Bytes32
    sign_seed: Bytes32


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class PatientSecrets:
    """A patient's private keys, every generation's: the newest signs, each opens its own."""

    pairs: tuple[_Pair, ...]

    @classmethod
    def generate(cls, entropy: Entropy) -> PatientSecrets:
        """The first generation's."""
        return cls((_Pair(entropy.token(32), entropy.token(32)),))

    def renewed(self, entropy: Entropy) -> PatientSecrets:
        """With one generation more. Raises ``InvalidTransaction`` beyond ``GENERATIONS_MAX``."""
        if len(self.pairs) >= GENERATIONS_MAX:
            raise InvalidTransaction(f"a patient's keys were renewed {GENERATIONS_MAX} times")
        return PatientSecrets((*self.pairs, _Pair(entropy.token(32), entropy.token(32))))

    @property
    def generation(self) -> int:
        """The newest generation, from 0."""
        return len(self.pairs) - 1

    @property
    def patient_key(self) -> bytes:
        """The newest X25519 public key (32 bytes)."""
        return sealing.box_public(self.pairs[-1].box_secret)

    @property
    def sign_key(self) -> bytes:
        """The newest Ed25519 public key (32 bytes)."""
        return public_key(self.pairs[-1].sign_seed)

    def box_secrets(self) -> dict[bytes, bytes]:
        """X25519 secrets by the ``box_id`` of their public halves."""
        return {
            sealing.box_id(sealing.box_public(pair.box_secret)): pair.box_secret
            for pair in self.pairs
        }

    def sign(self, message: bytes, *, generation: int | None = None) -> bytes:
        """The bare Ed25519 signature (64 bytes) of a generation, the newest by default."""
        seed = self.pairs[-1 if generation is None else generation].sign_seed
        return bytes(bindings.crypto_sign(message, seed + public_key(seed))[:64])

    def __repr__(self) -> str:
        return f"<PatientSecrets of {len(self.pairs)} generations>"


def hold(
    secrets: PatientSecrets,
    *,
    patient: bytes,
    network: bytes,
    custodians: Sequence[bytes],
    entropy: Entropy,
    wrapper: sealing.Wrapper = sealing.HPKE,
) -> tuple[Holding, bytes]:
    """The newest generation of ``secrets`` in the hands of ``custodians``, and its master.

    ``custodians`` are one to three X25519 public keys: one alone holds all, of two or three any
    two do. Raises ``InvalidTransaction`` for another number, or one who stands there twice.
    """
    if not 1 <= len(custodians) <= CUSTODIANS_MAX or len(set(custodians)) < len(custodians):
        raise InvalidTransaction("a patient's key is held by one to three different custodians")
    generation = secrets.generation
    master = entropy.token(MASTER_BYTES)
    threshold = min(len(custodians), THRESHOLD)
    pieces = split(master, threshold=threshold, count=len(custodians), entropy=entropy)
    shares = tuple(
        Share(
            point=piece.point,
            key=key,
            wrapped=sealing.wrap(
                key,
                piece.data,
                domain=DOMAIN,
                context=_context(network, patient, generation, piece.point),
                wrapper=wrapper,
            ),
        )
        for piece, key in zip(pieces, custodians, strict=True)
    )
    nonce = entropy.token(sealing.NONCE_BYTES)
    content = sealing.pad(
        cbor.encode([codec.plain(pair) for pair in secrets.pairs]), VAULT_PAD_BYTES
    )
    vault = nonce + sealing.seal(
        master, nonce, content, _associated(network, patient, generation, secrets.sign_key)
    )
    holding = Holding(
        generation=generation,
        sign_key=secrets.sign_key,
        vault=vault,
        threshold=threshold,
        shares=shares,
    )
    return holding, master


def open_share(
    holding: Holding, secret: bytes | sealing.BoxSecret, *, patient: bytes, network: bytes
) -> SecretShare:
    """The share of the custodian whose X25519 ``secret`` it is.

    Raises ``Denied`` if that is no custodian of this patient.
    """
    own = sealing.box_public(secret)
    for share in holding.shares:
        if share.key == own:
            context = _context(network, patient, holding.generation, share.point)
            data = sealing.unwrap(secret, share.wrapped, domain=DOMAIN, context=context)
            return SecretShare(share.point, data)
    raise Denied("no custodian of this patient's key", hint="ask two of those who are")


def join_master(holding: Holding, shares: Sequence[SecretShare]) -> bytes:
    """The master of ``holding``. Raises ``Denied`` if the shares are too few."""
    distinct = {share.point: share for share in shares}
    if len(distinct) < holding.threshold:
        raise Denied(
            f"{len(distinct)} of {holding.threshold} shares of this patient's key",
            hint="ask another custodian to release theirs",
        )
    chosen = [distinct[point] for point in sorted(distinct)][: holding.threshold]
    return join(chosen)


def open_vault(
    holding: Holding, master: bytes, *, patient: bytes, network: bytes
) -> PatientSecrets:
    """The secrets in the vault. Raises ``DecodeError`` if ``master`` is not this vault's."""
    nonce, sealed = holding.vault[: sealing.NONCE_BYTES], holding.vault[sealing.NONCE_BYTES :]
    associated = _associated(network, patient, holding.generation, holding.sign_key)
    padded = sealing.open_sealed(master, nonce, sealed, associated)
    pairs = codec.decode(sealing.unpad(padded), tuple[_Pair, ...])
    secrets = PatientSecrets(pairs)
    if secrets.generation != holding.generation or secrets.sign_key != holding.sign_key:
        raise DecodeError("a vault that does not hold the keys it was made for")
    return secrets


def _context(network: bytes, patient: bytes, generation: int, point: int) -> list[bytes | str]:
    return [network, patient, bytes([generation, point])]


def _associated(network: bytes, patient: bytes, generation: int, sign_key: bytes) -> bytes:
    return cbor.encode(
        [sealing.PROTOCOL, "vault", sealing.SUITE, network, patient, generation, sign_key]
    )
