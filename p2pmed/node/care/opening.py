"""The one gateway to what is sealed: every key is unwrapped, every body opened, here.

Rule of this file: leave is asked before a key is used, each time. A key counts only through a
grant in force *now*, by what is stored here: a revocation takes effect the moment it is stored,
an expiry the moment it comes, and keys that were open are dropped with them. No body is opened
but what ``node.reads.announced`` told of, durably, before (``gate``). ``watchers`` hear of each
unwrapping and each opening, and refuse by raising. Implements medical notes, section 3,
``docs/protocols/records.md``, clauses 24.1 and 24.2, and ``docs/protocols/reads.md``.

What it cannot do: bind another program. A device that keeps keys and runs other software reads
what it could read before; what is written afterwards it cannot.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal

from p2pmed.errors import DecodeError, Denied, InvalidTransaction, LocalProtocolError, Locked
from p2pmed.identity.joint import JointSecret
from p2pmed.identity.sealing import box_id, box_public
from p2pmed.ledger.state import Readable
from p2pmed.ledger.transaction import Entry
from p2pmed.medical.care.disputes import DisputeAnswer, RecordDispute
from p2pmed.medical.consent import EPOCH_KEYS, Grant, Purpose, readers
from p2pmed.medical.keyring import CACHE_PATIENTS_MAX, Category, KeyRing
from p2pmed.medical.membership import member
from p2pmed.medical.patients import PatientRegister, patient_keys, patient_row
from p2pmed.medical.privacy.facilities import FacilityKey, facility_keys
from p2pmed.medical.privacy.holding import PatientSecrets
from p2pmed.medical.privacy.reads import Gate
from p2pmed.medical.privacy.standing import MANAGING
from p2pmed.medical.records import (
    OpenedBody,
    Part,
    Place,
    RecordAdd,
    RecordAmend,
    RecordReseal,
    Sealed,
    open_record,
    reseals,
)
from p2pmed.node.care.glass import Glass
from p2pmed.node.record_drafts import wraps_in
from p2pmed.node.vault.face import KeptBox

if TYPE_CHECKING:
    from p2pmed.node.node import Node

__all__ = ["Opener", "Opening"]

RECORDS = (PatientRegister, RecordAdd, RecordAmend, RecordDispute, DisputeAnswer)
"""Kinds with a body that is sealed for the patient's readers: records, and words beside them."""
UNLOCKED_MAX: Final = 64

Stamp = tuple[object, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """Something is about to be opened: told to ``watchers`` before it is handed out."""

    what: Literal["keys", "body"]
    patient: bytes
    entry: bytes
    """The transaction whose wrap or body it is."""
    category: Category | None
    """Of a body; ``None`` for keys."""
    grants: tuple[bytes, ...]
    """The grants in force by which this device reads; empty: by the patient's own card."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class _Held:
    """A patient's open keys, and what they stand on."""

    stamp: Stamp
    ring: KeyRing
    grants: tuple[bytes, ...]
    seen: int
    """Entries stored when leave was last asked."""


class Opener:
    """Opens for one node. ``node.opener``."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._held: OrderedDict[bytes, _Held] = OrderedDict()
        self._lent: dict[bytes, PatientSecrets] = {}
        self.glass = Glass(node)
        self._unlocked: OrderedDict[tuple[bytes, Category], bytes] = OrderedDict()
        self._facility: tuple[Stamp, dict[bytes, KeptBox]] = ((), {})
        self.gate = Gate()
        self.watchers: list[Callable[[Opening], None]] = []
        """Called in order; one that raises keeps closed what was asked for."""

    def __repr__(self) -> str:
        return f"<Opener of {len(self._held)} patients>"

    # --- whose keys these are ---------------------------------------------------------------

    @contextlib.contextmanager
    def lent(self, patient: bytes, secrets: PatientSecrets) -> Iterator[None]:
        """While the block runs, ``patient``'s record opens with ``secrets`` too: a card is here."""
        vault, before = self._node.sessions.vault, self._lent.get(patient)
        vault.lend(secrets.box_secrets().values())
        self._lent[patient] = secrets
        try:
            yield
        finally:
            self._held.pop(patient, None)
            self._lent.pop(patient, None)
            if before is not None and not vault.ended:
                self._lent[patient] = before
            with contextlib.suppress(Locked):  # what has ended keeps nothing
                vault.take_back(secrets.box_secrets())
                for lent in self._lent.values():
                    vault.lend(lent.box_secrets().values())

    def hand(self, patient: bytes) -> PatientSecrets | None:
        """The patient's own secrets while a card is here (``lent``)."""
        return self._lent.get(patient)

    def secrets(self, patient: bytes = b"") -> dict[bytes, KeptBox]:
        """X25519 secrets by ``box_id``: the device's, its facility's, and a card's that is here.

        They can be used and not be read. Raises ``Locked``.
        """
        found = {**self._node.sessions.boxes(), **self._facility_secrets()}
        if (lent := self.hand(patient)) is None:
            return found
        publics = [box_public(secret) for secret in lent.box_secrets().values()]
        return {**found, **self._node.sessions.vault.kept(publics)}

    def open_ring(
        self, box: KeptBox | JointSecret, wrapped: bytes, patient: bytes, purpose: str
    ) -> KeyRing:
        """The keys wrapped to ``box``. Raises ``Denied`` or ``DecodeError``."""
        network = self._node.network
        if isinstance(box, JointSecret):
            return KeyRing.open(wrapped, box, patient=patient, network=network, purpose=purpose)
        rows = box.vault.open_keys(box_id(box.public), wrapped, network, patient, purpose)
        return KeyRing.kept(patient, rows, box.vault)

    def _facility_secrets(self) -> dict[bytes, KeptBox]:
        state = self._node.state()
        me = member(state, self._node.key)
        rows = facility_keys(state, me.place) if me and me.place and not me.revoked else []
        stamp: Stamp = tuple(row.entry for row in rows)
        if self._facility[0] == stamp:
            return self._facility[1]
        boxes, vault = self._node.sessions.boxes(), self._node.sessions.vault
        found: dict[bytes, KeptBox] = {}
        for row in rows:
            entry = self._node.find(row.entry)
            body = self._node.body(entry) if entry else None
            for wrap in body.wraps if isinstance(body, FacilityKey) else ():
                if wrap.grantee not in boxes or me is None:
                    continue
                # A key that was made ill takes nothing away from the others.
                with contextlib.suppress(Denied, DecodeError):
                    publics = vault.open_facility(
                        wrap.grantee,
                        wrap.wrapped,
                        network=self._node.network,
                        place=me.place,
                        epoch=row.epoch,
                    )
                    found.update(vault.kept(publics))
        self._facility = (stamp, found)
        return found

    # --- keys -------------------------------------------------------------------------------

    def now_ms(self) -> int:
        """The time by which leave ends: a clock set back does not lengthen it."""
        home = self._node.replica.home
        ordered = home.chain.time_ms if home and home.chain.height else 0
        return max(ordered, self._node.world.clock.wall_ms())

    def grants(self, patient: bytes) -> list[Grant]:
        """The grants in force by which this device, or a card that is here, may read."""
        mine = {*self.secrets(patient), *self.glass.keys(patient)}
        found = readers(self._node.state(), patient, self.now_ms())
        return [grant for grant in found if grant.row.grantee in mine]

    def ring(self, patient: bytes) -> KeyRing:
        """The patient's keys that may be used here now. Raises ``Denied`` if there is none."""
        state = self._node.state()
        grants = self.grants(patient)
        epochs = [name for name, _ in EPOCH_KEYS.scan(state, patient)]
        lent = self._lent.get(patient)
        stamp: Stamp = (*(grant.id for grant in grants), b"", *epochs, self._facility[0], lent)
        held, seen = self._held.get(patient), self._seen()
        if held is None or held.stamp != stamp:
            self._held.pop(patient, None)  # what is told to watchers names today's grants
            ring = self._unwrapped(state, patient, grants, epochs)
            held = _Held(stamp=stamp, ring=ring, grants=tuple(g.id for g in grants), seen=seen)
            self._keep(patient, held)
        elif held.seen != seen:
            held = replace(held, seen=seen)
            self._keep(patient, held)
        if not len(held.ring):
            raise Denied(
                "this device holds no key of that patient",
                hint="ask the patient for a grant",
            )
        return held.ring

    def _keep(self, patient: bytes, held: _Held) -> None:
        self._held[patient] = held
        self._held.move_to_end(patient)
        while len(self._held) > CACHE_PATIENTS_MAX:
            self._held.popitem(last=False)

    def _unwrapped(
        self, state: Readable, patient: bytes, grants: Sequence[Grant], epochs: Sequence[bytes]
    ) -> KeyRing:
        """What grants in force opened, and newer epochs' keys of the same categories."""
        rings = {True: KeyRing(patient), False: KeyRing(patient)}  # a reader's word comes last
        for grant in grants:
            found = self._joined(KeyRing(patient), [grant.row.entry], {grant.row.grantee})
            if grant.row.grantee in self.glass.keys(patient):
                found = found.only(self.glass.categories(patient))
            manages = grant.row.purpose in MANAGING
            rings[manages] = rings[manages].joined(found)
        ring = rings[True].filled(rings[False])
        allowed = {key.category for key in ring}
        secrets = {**self.secrets(patient), **self.glass.keys(patient)}
        own = {box_id(row.patient_key) for row in patient_keys(state, patient)} & set(secrets)
        if own:
            row = patient_row(state, patient)
            ring = self._joined(ring, [row.entry, *epochs] if row else epochs, own)
        newer = self._joined(KeyRing(patient), epochs, set(secrets) - own)
        ring = ring.joined(newer.only(allowed))
        for (subject, category), secret in self._unlocked.items():
            if subject == patient:
                with contextlib.suppress(Denied):
                    ring = ring.unlocked(category, secret)
        return ring

    def _joined(self, ring: KeyRing, entries: Iterable[bytes], grantees: set[bytes]) -> KeyRing:
        """``ring`` and the keys that ``entries`` wrap to ``grantees``, whose secrets are here."""
        secrets: dict[bytes, KeptBox | JointSecret] = dict(self.secrets(ring.patient))
        secrets.update(self.glass.keys(ring.patient))
        for name in entries:
            entry = self._node.find(name)
            wraps = wraps_in(self._node.body(entry)) if entry else []
            for grantee, wrapped, purpose in wraps:
                if grantee not in grantees or grantee not in secrets:
                    continue
                self._tell("keys", ring.patient, name)
                # Anybody may write a grant: one that does not open takes nothing away.
                with contextlib.suppress(Denied, DecodeError, InvalidTransaction):
                    opened = self.open_ring(secrets[grantee], wrapped, ring.patient, purpose)
                    ring = ring.joined(opened)
        return ring

    def leave(self, patient: bytes) -> tuple[tuple[bytes, ...], Purpose | None]:
        """By which grants this device reads now, and the purpose if that leave demands one."""
        if self.glass.row(patient) is not None:
            return (self.glass.opening(patient),), Purpose.EMERGENCY
        return tuple(grant.id for grant in self.grants(patient)), None

    def unlock(self, patient: bytes, category: Category, secret: bytes) -> None:
        """Use the ``secret`` of a lock (``Lock.secret``) until the session ends.

        Raises ``Denied`` if it opens no key of ``category``.
        """
        self.ring(patient).unlocked(category, secret)
        self._unlocked[patient, category] = secret
        while len(self._unlocked) > UNLOCKED_MAX:
            self._unlocked.popitem(last=False)
        self._held.pop(patient, None)

    def forget(self, patient: bytes | None = None) -> None:
        """Drop open keys: one patient's, or, when the session is over, all."""
        if patient is not None:
            self._held.pop(patient, None)
            for name in [name for name in self._unlocked if name[0] == patient]:
                del self._unlocked[name]
            return
        self._held.clear()
        self._unlocked.clear()
        self._lent.clear()
        self.glass.clear()
        self._facility = ((), {})
        self.gate.close()

    # --- bodies -----------------------------------------------------------------------------

    def place(self, patient: bytes, author: bytes | None = None) -> Place:
        """What a body about ``patient`` is bound to, written by this device or by ``author``."""
        return Place(network=self._node.network, patient=patient, author=author or self._node.key)

    def category_of(self, entry: Entry, ring: KeyRing) -> Category | None:
        """The category of a sealed body that ``ring`` opens; ``None`` if it opens none."""
        sealed = getattr(self._node.body(entry), "sealed", None)
        if not isinstance(sealed, Sealed):
            return None
        names = {sealed.key_id, *(body.sealed.key_id for _, body in self._again(entry))}
        return next((key.category for key in ring if key.key and key.key_id in names), None)

    def read(self, entry: Entry, *, ring: KeyRing | None = None) -> OpenedBody | None:
        """What a record says; ``None`` if the transaction is no record.

        ``ring`` is for who has asked for it already. Raises ``Denied`` (no leave, no key, or
        nothing on the disk tells of it: ``node.reads.announced``), ``LocalProtocolError`` (a part
        is not here yet) or ``DecodeError`` (its author wrote what does not open).
        """
        body = self._node.body(entry)
        if not isinstance(body, RECORDS):
            return None
        patient = entry.envelope.subject
        ring = self._admit(entry, patient, ring)
        try:
            return self._open(body.sealed, entry, ring, entry.id)
        except Denied as denied:
            again = self._resealed(entry, body.sealed, ring)
            if again is None:
                raise denied from None
            return again

    def _again(self, entry: Entry) -> Iterator[tuple[Entry, RecordReseal]]:
        for name in reseals(self._node.state(), entry.id):
            found = self._node.find(name)
            if found and isinstance(body := self._node.body(found), RecordReseal):
                yield found, body

    def _resealed(self, entry: Entry, first: Sealed, ring: KeyRing) -> OpenedBody | None:
        """The record as it was sealed again under a key that is here, if it was."""
        for found, body in self._again(entry):
            if body.sealed.commitment == first.commitment:
                with contextlib.suppress(Denied, DecodeError, LocalProtocolError):
                    return self._open(body.sealed, found, ring, entry.id)
        return None

    def open_sealed(
        self, sealed: Sealed, entry: Entry, *, ring: KeyRing | None = None
    ) -> OpenedBody:
        """A sealed body of ``entry`` that is no record: words beside one. Raises as ``read``."""
        ring = self._admit(entry, entry.envelope.subject, ring)
        return self._open(sealed, entry, ring, entry.id)

    def _admit(self, entry: Entry, patient: bytes, ring: KeyRing | None) -> KeyRing:
        """The ring to open ``entry`` with: one that leave stands behind *now*, and only if the
        reading is told of on the disk. Raises ``Denied``.
        """
        held = self._held.get(patient)
        if ring is None or held is None or held.ring is not ring or held.seen != self._seen():
            ring = self.ring(patient)  # something was stored since it was asked for
        told = self._node.reads.is_own(entry) or self.gate.may(entry.id)
        if not told and self.category_of(entry, ring) is not None:
            raise Denied(
                "nothing on the disk tells of this reading yet",
                hint="read within `async with node.reads.announced(entries)`",
            )
        return ring

    def _seen(self) -> int:
        """How many entries are stored here: leave may end with any of them."""
        return sum(lane.next_seq for lane in self._node.replica.logs)

    def _open(self, sealed: Sealed, entry: Entry, ring: KeyRing, record: bytes) -> OpenedBody:
        key = ring.find(sealed.key_id)
        patient = entry.envelope.subject
        self._tell("body", patient, record, key.category)
        place = self.place(patient, entry.author)
        return open_record(sealed, ring=ring, place=place, parts=self.parts(sealed.parts))

    def parts(self, ids: Sequence[bytes]) -> list[Part]:
        """The pieces of a long body. Raises ``LocalProtocolError`` if one is not here yet."""
        parts = []
        for part_id in ids:
            entry = self._node.find(part_id)
            body = self._node.body(entry) if entry else None
            if not isinstance(body, Part):
                raise LocalProtocolError("a part of this record is not here yet")
            parts.append(body)
        return parts

    def _tell(
        self,
        what: Literal["keys", "body"],
        patient: bytes,
        entry: bytes,
        category: Category | None = None,
    ) -> None:
        if not self.watchers:
            return
        held = self._held.get(patient)
        grants = held.grants if held else tuple(grant.id for grant in self.grants(patient))
        opening = Opening(what=what, patient=patient, entry=entry, category=category, grants=grants)
        for watcher in self.watchers:
            watcher(opening)
