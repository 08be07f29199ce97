"""A passphrase of the patient's own on a category: without it even a grantee cannot open.

A lock is a pair of X25519 keys whose secret half is argon2id of the passphrase. What is handed
to readers is the category's key sealed to the lock's public half, so that whoever makes new keys
(a revocation while the patient is away) can lock them without knowing the passphrase, and nobody
can open them who does not. Implements ``docs/protocols/records.md``, clause 12.1.

What it does not do: withstand a weak passphrase for ever. A grantee can try words at the price
of argon2id each; nobody else can try at all, for the lock itself lies inside the wrap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from p2pmed.engine import Entropy
from p2pmed.errors import DecodeError, Denied
from p2pmed.identity import sealing
from p2pmed.identity.stretching import USUAL, Cost, stretch
from p2pmed.wire import codec

__all__ = ["LOCKED_BYTES", "Lock", "join_locked", "part_lock", "part_locked"]

SALT_BYTES: Final = 16
HEAD_BYTES: Final = 1 + SALT_BYTES + 2 + 32
"""Version, salt, passes, memory, public key."""
LOCKED_BYTES: Final = HEAD_BYTES + sealing.WRAP_BYTES + sealing.KEY_BYTES
VERSION: Final = 1

DOMAIN: Final = "lock"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Lock:
    """A passphrase as those see it who do not know it."""

    salt: bytes
    cost: Cost
    public: bytes
    """X25519 public key (32 bytes)."""

    @classmethod
    def new(cls, passphrase: str, entropy: Entropy, *, cost: Cost = USUAL) -> Lock:
        """A lock that ``passphrase`` opens; takes 0.1 s. Raises ``ConfigError``."""
        salt = entropy.token(SALT_BYTES)
        secret = stretch(passphrase, salt=salt, cost=cost)
        return cls(salt=salt, cost=cost, public=sealing.box_public(secret))

    @property
    def spelled(self) -> bytes:
        """The lock as ``HEAD_BYTES`` bytes."""
        cost = bytes([self.cost.passes, self.cost.memory_mib])
        return bytes([VERSION]) + self.salt + cost + self.public

    def secret(self, passphrase: str) -> bytes:
        """What opens keys under this lock; takes 0.1 s. Raises ``Denied`` for other words."""
        secret = stretch(passphrase, salt=self.salt, cost=self.cost)
        if sealing.box_public(secret) != self.public:
            raise Denied("not the patient's passphrase for that category")
        return secret

    def seal(
        self,
        key: bytes,
        patient: bytes,
        key_id: bytes,
        *,
        wrapper: sealing.Wrapper = sealing.HPKE,
    ) -> bytes:
        """``key`` (32 bytes) readable with the passphrase only."""
        return sealing.wrap(
            self.public, key, domain=DOMAIN, context=(patient, key_id), wrapper=wrapper
        )

    def open(self, sealed: bytes, secret: bytes, patient: bytes, key_id: bytes) -> bytes:
        """Inverse of ``seal``. Raises ``Denied`` or ``DecodeError``."""
        key = sealing.unwrap(secret, sealed, domain=DOMAIN, context=(patient, key_id))
        if len(key) != sealing.KEY_BYTES:
            raise DecodeError("a locked key that is none")
        return key


def join_locked(lock: Lock, sealed: bytes) -> bytes:
    """A lock and a key under it as ``LOCKED_BYTES`` bytes."""
    return lock.spelled + sealed


def part_locked(raw: bytes) -> tuple[Lock, bytes]:
    """Inverse of ``join_locked``. Raises ``DecodeError``."""
    if len(raw) != LOCKED_BYTES or raw[0] != VERSION:
        raise DecodeError("a key that is neither open nor locked")
    return part_lock(raw[:HEAD_BYTES]), raw[HEAD_BYTES:]


def part_lock(head: bytes) -> Lock:
    """Inverse of ``Lock.spelled``. Raises ``DecodeError``."""
    if len(head) != HEAD_BYTES or head[0] != VERSION:
        raise DecodeError("a lock that is none")
    cost = codec.convert([head[17], head[18]], Cost)
    return Lock(salt=head[1:17], cost=cost, public=head[19:HEAD_BYTES])
