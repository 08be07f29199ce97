"""A patient's keys: one random key per category and epoch, wrapped to those who may read.

Rule of this file: a key is known outside only by a random name, so that neither a record nor
a grant shows which category it is about. Implements medical notes, section 3, and
``docs/protocols/records.md``, clauses 10 to 12.

A revocation begins a new epoch: new keys, wrapped to the survivors only. What an ex-grantee
could read before stays readable to him, and nothing here pretends otherwise.
Two revocations on both sides of a cut make two keys of one category and epoch; both stay in
the ring (old records need them), and which is current is decided by name, alike everywhere.
A key may be *locked* under a passphrase of the patient's own (``privacy/locks.py``): the ring then
holds it sealed to that passphrase, and opens nothing with it until it is said.

What it does not do: erase keys. Python cannot overwrite ``bytes``; dropping the last reference
is the most there is.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Final

import msgspec

from p2pmed.engine import Entropy
from p2pmed.errors import DecodeError, Denied, InvalidTransaction
from p2pmed.identity import sealing
from p2pmed.medical.category_keys import (
    EVERY_CATEGORY,
    Category,
    CategoryKey,
    Keeper,
    KeptRow,
    for_keeper,
    of_keeper,
    open_lock,
)
from p2pmed.medical.privacy.locks import LOCKED_BYTES, Lock, part_locked
from p2pmed.wire import cbor, codec
from p2pmed.wire.codec import Bytes16, Count, Wire

__all__ = [
    "EVERY_CATEGORY",
    "KEYS_MAX",
    "WRAPPED_BYTES_MAX",
    "Category",
    "CategoryKey",
    "Keeper",
    "KeptRow",
    "KeyCache",
    "KeyRing",
    "Wrapped",
]


KEYS_MAX: Final = 256
"""Keys in one ring: twenty epochs of every category."""
WRAPPED_BYTES_MAX: Final = 24 * 1024
"""``KEYS_MAX`` keys of at most 73 bytes, padded by an eighth; a transaction holds three.
Locked keys are twice as long, and a ring of those ends sooner."""
PAD_BYTES: Final = 256
"""The length of a wrap tells three keys from twelve, and no more."""
CACHE_PATIENTS_MAX: Final = 512
"""Rings open at once in a session: more patients than a clinic sees in a day."""

DOMAIN: Final = "keys"


class Wrapped(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Keys wrapped to one grantee, who is named by ``sealing.box_id`` of the key."""

    grantee: Bytes16
    wrapped: Annotated[
        bytes, msgspec.Meta(min_length=sealing.WRAP_BYTES, max_length=WRAPPED_BYTES_MAX)
    ]


class _Row(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    category: Category
    epoch: Count
    key_id: Bytes16
    key: Annotated[bytes, msgspec.Meta(min_length=32, max_length=LOCKED_BYTES)]
    """32 bytes, or ``LOCKED_BYTES``: a lock, and the key sealed under it."""


class KeyRing:
    """The keys of one patient that somebody holds; a value, changed by making another."""

    __slots__ = ("_by_id", "patient")

    def __init__(self, patient: bytes, keys: Iterable[CategoryKey] = ()) -> None:
        """``patient`` is the pseudonym (16 bytes).

        Raises ``InvalidTransaction`` for more than ``KEYS_MAX`` keys.
        """
        self.patient = patient
        ordered = sorted(keys, key=lambda key: (key.order, bool(key.key)))
        self._by_id = {key.key_id: key for key in ordered}  # of two alike, the open one
        if len(self._by_id) > KEYS_MAX:
            raise InvalidTransaction(f"{len(self._by_id)} keys where {KEYS_MAX} are allowed")

    def __iter__(self) -> Iterator[CategoryKey]:
        return iter(self._by_id.values())

    def __len__(self) -> int:
        return len(self._by_id)

    def __repr__(self) -> str:
        return f"<KeyRing of {len(self)} keys>"

    @classmethod
    def generate(
        cls,
        patient: bytes,
        entropy: Entropy,
        *,
        categories: Sequence[Category] = tuple(Category),
        epoch: int = 0,
        locks: Mapping[Category, Lock] | None = None,
        wrapper: sealing.Wrapper = sealing.HPKE,
        keeper: Keeper | None = None,
    ) -> KeyRing:
        """A new random key, with a new random name, for each of ``categories``.

        Keys of categories in ``locks`` are sealed under their lock from the start; this ring
        can use them, whoever it is wrapped to cannot. With a ``keeper`` the keys are made there,
        by its own entropy, and stay there.
        """
        if keeper is not None:
            spelled = [
                lock.spelled if (lock := (locks or {}).get(each)) else b"" for each in categories
            ]
            return cls.kept(patient, keeper.make_keys(patient, categories, epoch, spelled), keeper)
        made = []
        for category in categories:
            lock = (locks or {}).get(category)
            key_id, key = entropy.token(16), entropy.token(sealing.KEY_BYTES)
            sealed = lock.seal(key, patient, key_id, wrapper=wrapper) if lock else b""
            made.append(
                CategoryKey(
                    category=category,
                    epoch=epoch,
                    key_id=key_id,
                    key=key,
                    lock=lock,
                    sealed=sealed,
                )
            )
        return cls(patient, made)

    @classmethod
    def kept(cls, patient: bytes, rows: Iterable[KeptRow], keeper: Keeper) -> KeyRing:
        """The ring of keys that ``keeper`` holds."""
        return cls(patient, [of_keeper(row, keeper) for row in rows])

    @property
    def locks(self) -> dict[Category, Lock]:
        """The lock of each category whose current key has one."""
        found = {key.category: self._newest(key.category) for key in self}
        return {name: key.lock for name, key in found.items() if key and key.lock}

    def unlocked(self, category: Category, secret: bytes) -> KeyRing:
        """This ring with the keys of ``category`` opened that the lock's ``secret`` opens.

        ``secret`` comes from ``Lock.secret``. Raises ``Denied`` if it opens none.
        """
        public = sealing.box_public(secret)
        keys = [
            replace(key, key=open_lock(key, key.lock, secret, self.patient))
            if key.category is category and key.lock and key.lock.public == public
            else key
            for key in self
        ]
        if all(key.category is not category or not key.lock or not key.key for key in keys):
            raise Denied("no key of that category has this passphrase")
        return KeyRing(self.patient, keys)

    @property
    def epoch(self) -> int:
        """The newest epoch of any key; 0 in an empty ring."""
        return max((key.epoch for key in self), default=0)

    def joined(self, other: KeyRing) -> KeyRing:
        """Both rings' keys. Raises ``InvalidTransaction`` if they are of different patients."""
        if other.patient != self.patient:
            raise InvalidTransaction("keys of another patient")
        return KeyRing(self.patient, [*self, *other])

    def filled(self, other: KeyRing) -> KeyRing:
        """This ring, and the keys of ``other`` in categories of which it has none.

        For keys of less trusted origin: none of them takes the place of one that is here.
        Raises ``InvalidTransaction`` if they are of different patients.
        """
        have, names = {key.category for key in self}, self._by_id.keys()
        strange = [key for key in other if key.category not in have and key.key_id not in names]
        return self.joined(KeyRing(other.patient, strange))

    def rotated(self, entropy: Entropy, *, epoch: int) -> KeyRing:
        """This ring and a new key of ``epoch`` for every category.

        Raises ``InvalidTransaction`` unless ``epoch`` is newer than all in the ring.
        """
        if epoch <= self.epoch:
            raise InvalidTransaction(f"epoch {epoch} is not newer than {self.epoch}")
        return self.joined(KeyRing.generate(self.patient, entropy, epoch=epoch, locks=self.locks))

    def only(self, categories: Iterable[Category], *, since_epoch: int = 0) -> KeyRing:
        """The keys of ``categories`` from ``since_epoch`` on: what a grant hands out."""
        wanted = frozenset(categories)
        return KeyRing(
            self.patient,
            [key for key in self if key.category in wanted and key.epoch >= since_epoch],
        )

    def current(self, category: Category) -> CategoryKey:
        """The key that new records of ``category`` are sealed under.

        The newest epoch's; among two of one epoch, the one whose name comes first.
        Raises ``Denied`` if the ring has none.
        """
        key = self._newest(category)
        if key is None:
            raise Denied(
                "no key of this patient for that category",
                hint="ask the patient for a grant, or add it with the patient's card",
            )
        return _opened(key)

    def _newest(self, category: Category) -> CategoryKey | None:
        held = [key for key in self if key.category is category]
        return min(held, key=lambda key: (-key.epoch, key.key_id), default=None)

    def find(self, key_id: bytes) -> CategoryKey:
        """The key named ``key_id``. Raises ``Denied`` if the ring does not hold it."""
        key = self._by_id.get(key_id)
        if key is None:
            raise Denied(
                "no key of this patient opens that record",
                hint="ask the patient for a grant of its category",
            )
        return _opened(key)

    def wrap(
        self,
        grantee_key: bytes,
        *,
        network: bytes,
        purpose: str,
        wrapper: sealing.Wrapper = sealing.HPKE,
    ) -> Wrapped:
        """All keys of the ring as one ciphertext for the holder of ``grantee_key`` (X25519).

        Raises ``InvalidTransaction`` if the ring is empty or the key unusable.
        """
        if not self:
            raise InvalidTransaction("no keys to wrap")
        keeper = next((key.keeper for key in self if key.keeper is not None), None)
        if keeper is not None:
            kept = [for_keeper(key, keeper) for key in self]
            wrapped = keeper.wrap_keys(kept, grantee_key, network, self.patient, purpose)
            return Wrapped(grantee=sealing.box_id(grantee_key), wrapped=wrapped)
        rows = [[key.category.value, key.epoch, key.key_id, key.spelled] for key in self]
        wrapped = sealing.wrap(
            grantee_key,
            sealing.pad(cbor.encode(rows), PAD_BYTES),
            domain=DOMAIN,
            context=(network, self.patient, purpose),
            wrapper=wrapper,
        )
        return Wrapped(grantee=sealing.box_id(grantee_key), wrapped=wrapped)

    @classmethod
    def open(
        cls,
        wrapped: bytes,
        secret: bytes | sealing.BoxSecret,
        *,
        patient: bytes,
        network: bytes,
        purpose: str,
    ) -> KeyRing:
        """The keys that ``wrapped`` holds for the owner of the X25519 ``secret``.

        Raises ``Denied`` if it was made for another reader, patient, network or purpose, and
        ``DecodeError`` if what it holds is not a set of keys.
        """
        padded = sealing.unwrap(secret, wrapped, domain=DOMAIN, context=(network, patient, purpose))
        rows = codec.decode(sealing.unpad(padded), list[_Row])
        if len(rows) > KEYS_MAX or len({row.key_id for row in rows}) < len(rows):
            raise DecodeError("wrapped keys that are too many, or share a name")
        return cls(patient, [_read(row) for row in rows])


def _read(row: _Row) -> CategoryKey:
    key, lock, sealed = row.key, None, b""
    if len(key) != sealing.KEY_BYTES:
        lock, sealed = part_locked(key)
        key = b""
    return CategoryKey(
        category=row.category,
        epoch=row.epoch,
        key_id=row.key_id,
        key=key,
        lock=lock,
        sealed=sealed,
    )


def _opened(key: CategoryKey) -> CategoryKey:
    if not key.key:
        raise Denied(
            "closed by a passphrase of the patient's own",
            hint="ask the patient to say it: `p2pmed patient passphrase --open`",
        )
    return key


class KeyCache:
    """The rings open in a session, the least recently used dropped first."""

    def __init__(self, patients_max: int = CACHE_PATIENTS_MAX) -> None:
        self._patients_max = patients_max
        self._rings: OrderedDict[bytes, KeyRing] = OrderedDict()

    def __len__(self) -> int:
        return len(self._rings)

    def __repr__(self) -> str:
        return f"<KeyCache of {len(self)} patients>"

    def get(self, patient: bytes) -> KeyRing | None:
        """The ring of ``patient``, if it is open."""
        ring = self._rings.get(patient)
        if ring is not None:
            self._rings.move_to_end(patient)
        return ring

    def add(self, ring: KeyRing) -> KeyRing:
        """Join ``ring`` to what is open of its patient; return the whole."""
        held = self._rings.get(ring.patient)
        whole = held.joined(ring) if held is not None else ring
        self._rings[ring.patient] = whole
        self._rings.move_to_end(ring.patient)
        while len(self._rings) > self._patients_max:
            self._rings.popitem(last=False)
        return whole

    def drop(self, patient: bytes) -> None:
        """Forget one patient's keys: a grant ended, or the patient left."""
        self._rings.pop(patient, None)

    def lock(self) -> None:
        """Forget every key: the session is locked or over."""
        self._rings.clear()
