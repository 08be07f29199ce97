"""A vault's inside: the secrets of one session, and what may be done with them.

Rule of this file: pure, and closed until ``Begin`` opened a staff member's file. It unwraps what
it is given, derives, wraps to others and signs; no answer holds a key that opens more than one
record (``messages.py``). One person, one session: whoever comes next gets a vault of their own.

What it cannot do: judge whether a reading is allowed. Leave is asked by the gateway
(``node/care/opening.py``) each time; the vault makes sure that nothing is left when it ends.
"""

from __future__ import annotations

import hmac
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

from p2pmed.engine import Entropy
from p2pmed.errors import (
    ConfigError,
    DecodeError,
    Denied,
    InvalidTransaction,
    LocalProtocolError,
    Locked,
    P2pmedError,
)
from p2pmed.identity import sealing, staff
from p2pmed.medical.category_keys import HANDLE_BYTES, CategoryKey, KeptRow
from p2pmed.medical.keyring import DOMAIN as KEYS_DOMAIN
from p2pmed.medical.keyring import KeyRing
from p2pmed.medical.privacy.facilities import DOMAIN as FACILITY_DOMAIN
from p2pmed.medical.privacy.facilities import wrap_facility_secrets
from p2pmed.medical.privacy.locks import HEAD_BYTES, Lock, part_lock, part_locked
from p2pmed.node.vault import messages as m
from p2pmed.wire import cbor, codec
from p2pmed.wire.hashing import digest

__all__ = ["ERRORS", "VaultCore"]

KEYS_MAX: Final = 262_144
"""Keys open in one session; beyond it, those that were used longest ago are dropped."""
BOXES_MAX: Final = 4_096
CONTEXT_MAX: Final = 16
KEPT: Final = frozenset({KEYS_DOMAIN, FACILITY_DOMAIN, staff.DOMAIN})
"""What is wrapped for these stays in the vault."""

ERRORS: Final[dict[str, type[P2pmedError]]] = {
    kind.__name__: kind
    for kind in (
        ConfigError,
        DecodeError,
        Denied,
        InvalidTransaction,
        LocalProtocolError,
        Locked,
    )
}
"""What a vault may refuse with; the name travels."""


class VaultCore:
    """One session's secrets; ``answer`` is all there is to it."""

    def __init__(self, entropy: Entropy) -> None:
        self._entropy = entropy
        self._blind = entropy.token(32)
        self._opened: staff.OpenedStaff | None = None
        self._file = b""
        self._device = b""
        self._boxes: dict[bytes, bytes] = {}
        self._keys: OrderedDict[bytes, bytes] = OrderedDict()
        self._does: dict[type[Any], Callable[[Any], m.Answer]] = {
            m.OpenKeys: self._open_keys,
            m.MakeKeys: self._make_keys,
            m.OpenLocked: self._open_locked,
            m.WrapKeys: self._wrap_keys,
            m.Derive: self._derive,
            m.Mac: self._mac,
            m.Unwrap: self._unwrap,
            m.OpenFacility: self._open_facility,
            m.MakeFacility: self._make_facility,
            m.Lend: self._lend,
            m.TakeBack: self._take_back,
            m.Sign: self._sign,
            m.AddStaff: self._add_staff,
            m.NewWords: self._new_words,
            m.NewPin: self._new_pin,
            m.Rewrap: self._rewrap,
            m.TakeKey: self._take_key,
        }

    def __repr__(self) -> str:
        return f"<VaultCore of {len(self._keys)} keys>"

    def answer(self, ask: m.Ask) -> m.Answer:
        """What is asked for, or ``Failed``; nothing is raised but faults of our own."""
        try:
            if isinstance(ask, m.Begin):
                return self._begin(ask)
            if self._opened is None:
                raise Locked("nobody has unlocked this vault")
            return self._does[type(ask)](ask)
        except tuple(ERRORS.values()) as error:
            name = next(kind.__name__ for kind in type(error).__mro__ if kind.__name__ in ERRORS)
            return m.Failed(error=name, text=str(error), hint=error.hint)

    # --- the session ------------------------------------------------------------------------

    def _begin(self, ask: m.Begin) -> m.Answer:
        if self._opened is not None:
            raise LocalProtocolError("this vault is somebody's already")
        opened = staff.open_staff(
            ask.file, ask.words, device=ask.device, pepper=ask.pepper, by_pin=ask.by_pin
        )
        file = staff.read_staff(ask.file)
        self._opened, self._file, self._device = opened, ask.file, ask.device
        publics = tuple(self._hold(box) for box in opened.boxes)
        return m.Begun(
            person=file.person,
            name=file.name,
            anonymous=file.anonymous,
            boxes=publics,
            pin_pepper=b"" if ask.by_pin else opened.pin_pepper,
        )

    def _session(self) -> staff.OpenedStaff:
        assert self._opened is not None  # ``answer`` has looked
        return self._opened

    def _hold(self, secret: bytes) -> bytes:
        public = sealing.box_public(secret)
        self._boxes[sealing.box_id(public)] = secret
        if len(self._boxes) > BOXES_MAX:
            raise LocalProtocolError("too many boxes in one session", hint="lock and unlock again")
        return public

    def _box(self, name: bytes) -> bytes:
        secret = self._boxes.get(name)
        if secret is None:
            raise Denied("that secret is not in this vault")
        return secret

    # --- patients' keys -----------------------------------------------------------------------

    def _keep(self, key: bytes) -> bytes:
        handle = digest("vault key", self._blind + key)[:HANDLE_BYTES]
        self._keys[handle] = key
        self._keys.move_to_end(handle)
        while len(self._keys) > KEYS_MAX:
            self._keys.popitem(last=False)
        return handle

    def _key(self, handle: bytes) -> bytes:
        key = self._keys.get(handle)
        if key is None:
            raise Denied("that key is not open any more", hint="ask for it again")
        self._keys.move_to_end(handle)
        return key

    def _rows(self, ring: KeyRing) -> m.Rows:
        return m.Rows(
            tuple(
                KeptRow(
                    key.category,
                    key.epoch,
                    key.key_id,
                    self._keep(key.key) if key.key else b"",
                    key.locked,
                )
                for key in ring
            )
        )

    def _open_keys(self, ask: m.OpenKeys) -> m.Answer:
        ring = KeyRing.open(
            ask.wrapped,
            self._box(ask.box),
            patient=ask.patient,
            network=ask.network,
            purpose=ask.purpose,
        )
        return self._rows(ring)

    def _make_keys(self, ask: m.MakeKeys) -> m.Answer:
        locks: dict[Any, Lock] = {
            category: part_lock(head)
            for category, head in zip(ask.categories, ask.locks, strict=False)
            if len(head) == HEAD_BYTES
        }
        ring = KeyRing.generate(
            ask.patient, self._entropy, categories=ask.categories, epoch=ask.epoch, locks=locks
        )
        return self._rows(ring)

    def _take_key(self, ask: m.TakeKey) -> m.Answer:
        return m.Data(self._keep(ask.key))

    def _open_locked(self, ask: m.OpenLocked) -> m.Answer:
        lock, sealed = part_locked(ask.locked)
        return m.Data(self._keep(lock.open(sealed, ask.secret, ask.patient, ask.key_id)))

    def _wrap_keys(self, ask: m.WrapKeys) -> m.Answer:
        ring = KeyRing(ask.patient, [self._held(row) for row in ask.rows])
        wrapped = ring.wrap(ask.key, network=ask.network, purpose=ask.purpose)
        return m.Data(wrapped.wrapped)

    def _held(self, row: KeptRow) -> CategoryKey:
        lock, sealed = part_locked(row.locked) if row.locked else (None, b"")
        return CategoryKey(
            category=row.category,
            epoch=row.epoch,
            key_id=row.key_id,
            key=b"" if lock else self._key(row.handle),
            lock=lock,
            sealed=sealed,
        )

    def _derive(self, ask: m.Derive) -> m.Answer:
        return m.Data(sealing.derive(self._key(ask.handle), salt=ask.salt, info=ask.info))

    def _mac(self, ask: m.Mac) -> m.Answer:
        return m.Data(hmac.digest(self._key(ask.handle), ask.message, "sha256"))

    # --- boxes --------------------------------------------------------------------------------

    def _unwrap(self, ask: m.Unwrap) -> m.Answer:
        if ask.domain in KEPT:
            raise Denied("keys of that kind do not leave the vault")
        context = cbor.decode(ask.context)
        if not isinstance(context, list) or len(context) > CONTEXT_MAX:
            raise DecodeError("a wrap's context that is no short list")
        box = self._box(ask.box)
        return m.Data(sealing.unwrap(box, ask.wrapped, domain=ask.domain, context=context))

    def _open_facility(self, ask: m.OpenFacility) -> m.Answer:
        context = (ask.network, ask.place, str(ask.epoch))
        joined = sealing.unwrap(
            self._box(ask.box), ask.wrapped, domain=FACILITY_DOMAIN, context=context
        )
        found = [joined[at : at + 32] for at in range(0, len(joined), 32)]
        if not found or any(len(each) != 32 for each in found):
            raise DecodeError("a facility's keys that are none")
        return m.Many(tuple(self._hold(each) for each in found))

    def _make_facility(self, ask: m.MakeFacility) -> m.Answer:
        secret = self._entropy.token(32)
        secrets = [secret, *(self._box(name) for name in ask.older)]
        public = self._hold(secret)
        wraps = [
            wrap_facility_secrets(
                secrets, device, network=ask.network, place=ask.place, epoch=ask.epoch
            ).wrapped
            for device in ask.devices
        ]
        return m.Many((public, *wraps))

    def _lend(self, ask: m.Lend) -> m.Answer:
        return m.Many(tuple(self._hold(secret) for secret in ask.secrets))

    def _take_back(self, ask: m.TakeBack) -> m.Answer:
        for name in ask.boxes:
            self._boxes.pop(name, None)
        return m.Data(b"")

    # --- the person, and other people ---------------------------------------------------------

    def _sign(self, ask: m.Sign) -> m.Answer:
        word = self._session().keys.countersign(ask.network, ask.purpose, ask.digest)
        return m.Data(codec.encode(word))

    def _add_staff(self, ask: m.AddStaff) -> m.Answer:
        return m.Data(
            staff.make_staff(
                ask.name,
                ask.words,
                boxes=self._session().boxes,
                device=self._device,
                pepper=ask.pepper,
                created_ms=ask.created_ms,
                entropy=self._entropy,
                cost=ask.cost,
            )
        )

    def _new_words(self, ask: m.NewWords) -> m.Answer:
        self._file = staff.with_words(
            self._file,
            ask.words,
            self._session(),
            pepper=ask.pepper,
            entropy=self._entropy,
            cost=ask.cost,
        )
        return m.Data(self._file)

    def _new_pin(self, ask: m.NewPin) -> m.Answer:
        if ask.pin:
            self._file = staff.with_pin(
                self._file, ask.pin, self._session(), entropy=self._entropy, cost=ask.cost
            )
        else:
            self._file = staff.without_pin(self._file)
        return m.Data(self._file)

    def _rewrap(self, ask: m.Rewrap) -> m.Answer:
        return m.Data(staff.with_boxes(ask.file, self._session().boxes, self._device))
