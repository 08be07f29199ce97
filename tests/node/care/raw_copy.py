"""A thief's view: every row of a stolen home, and whatever keys one party has of its own.

No rule of the software is asked here: no grant, no expiry, no revocation. Whatever a set of
secrets can be made to open, from the bytes on the disk alone, is opened, over and over, until
nothing new comes of it. What is left closed is closed by cryptography.

    loot = RawCopy.of(home, network).plunder([secret], cards=[text])
    assert loot.opens(record_id)
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from p2pmed.errors import P2pmedError
from p2pmed.identity import sealing
from p2pmed.identity.joint import JointSecret
from p2pmed.identity.joint import partial as give
from p2pmed.identity.shamir import SecretShare
from p2pmed.identity.staff import open_staff
from p2pmed.ledger.transaction import Entry, open_entry
from p2pmed.medical import kinds
from p2pmed.medical.keyring import KeyRing
from p2pmed.medical.patients import PatientRegister
from p2pmed.medical.privacy.cards import CardIssue, card_secret_key, open_master, parse_card
from p2pmed.medical.privacy.custody import CardRelease, CardRequest, PatientRekey
from p2pmed.medical.privacy.emergency import EmergencyKey
from p2pmed.medical.privacy.facilities import FacilityKey, open_facility_secrets
from p2pmed.medical.privacy.holding import join_master, open_share, open_vault
from p2pmed.medical.records import Part, Place, RecordAdd, RecordAmend, RecordReseal, open_record
from p2pmed.medical.registry import Registry
from p2pmed.node.node import Node
from p2pmed.node.record_drafts import wraps_in
from p2pmed.node.staff_files import every_staff, pepper_of

RELEASE_DOMAIN = "release"
PASSPHRASE = "for these tests only"


def box_of(node: Node) -> bytes:
    """A device's own X25519 secret, as its first staff member's file holds it."""
    home = node.sessions.folder
    raw = next(raw for file, raw in every_staff(home) if file.anonymous)
    return open_staff(raw, PASSPHRASE, device=node.key, pepper=pepper_of(home)).boxes[0]


@dataclass
class Loot:
    """What came open."""

    secrets: set[bytes] = field(default_factory=set)
    """X25519 secrets: those brought, and those found."""
    rings: dict[bytes, KeyRing] = field(default_factory=dict)
    masters: dict[bytes, bytes] = field(default_factory=dict)
    """By the transaction that made the custody."""
    shares: dict[bytes, dict[int, SecretShare]] = field(default_factory=dict)
    emergency: dict[bytes, dict[int, bytes]] = field(default_factory=dict)
    """Shares of emergency keys, by the public key."""
    joint: dict[bytes, JointSecret] = field(default_factory=dict)
    """Emergency keys of which there are shares enough."""
    records: dict[bytes, bytes] = field(default_factory=dict)
    """The plaintext of each record by its transaction id."""

    def opens(self, record: bytes) -> bool:
        return record in self.records

    @property
    def size(self) -> tuple[int, ...]:
        rings = sum(len([key for key in ring if key.key]) for ring in self.rings.values())
        shares = sum(len(found) for found in self.shares.values())
        return (len(self.secrets), rings, len(self.masters), shares, len(self.joint))


class RawCopy:
    """All transactions in some bytes."""

    def __init__(self, entries: Iterable[Entry], network: bytes) -> None:
        self.network = network
        self.registry = Registry(kinds())
        self.entries = {entry.id: entry for entry in entries}
        self.bodies: dict[bytes, Any] = {
            name: self.registry.body(entry) for name, entry in self.entries.items()
        }

    @classmethod
    def of(cls, home: Path, network: bytes) -> RawCopy:
        """Every value of every table of the home's database that is a transaction."""
        entries = []
        with contextlib.closing(
            sqlite3.connect(f"file:{home / 'node.db'}?mode=ro", uri=True)
        ) as db:
            tables = [
                name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type='table'")
            ]
            for table in tables:
                for row in db.execute(f"SELECT * FROM {table}"):
                    for value in row:
                        if isinstance(value, bytes) and len(value) > 100:
                            with contextlib.suppress(P2pmedError):
                                entries.append(open_entry(value, network=network))
        assert entries, "an empty home proves nothing"
        return cls(entries, network)

    def plunder(
        self,
        secrets: Iterable[bytes] = (),
        *,
        cards: Sequence[tuple[str, str]] = (),
        passphrases: Sequence[str] = (),
        rings: Iterable[KeyRing] = (),
    ) -> Loot:
        """Everything that X25519 ``secrets`` and ``cards`` (text, PIN) open between them, and
        ``rings`` of keys that somebody kept.
        """
        loot = Loot(secrets=set(secrets), rings={ring.patient: ring for ring in rings})
        for text, pin in cards:
            card = parse_card(text, network=self.network).card
            for body in self.bodies.values():
                if isinstance(body, CardIssue) and body.card == card.card:
                    loot.secrets.add(card_secret_key(card, pin, body.pin))
            loot.secrets.add(card_secret_key(card, "", None))
        before: tuple[int, ...] = ()
        while before != loot.size:
            before = loot.size
            for name, body in self.bodies.items():
                self._take(loot, name, body)
        self._unlock(loot, passphrases)
        for name, body in self.bodies.items():
            self._read(loot, name, body)
        return loot

    def _take(self, loot: Loot, name: bytes, body: Any) -> None:
        subject = self.entries[name].envelope.subject
        if isinstance(body, EmergencyKey):
            self._take_emergency(loot, body)
        for secret in [*sorted(loot.secrets), *loot.joint.values()]:
            for _, wrapped, purpose in wraps_in(body):
                with contextlib.suppress(P2pmedError):
                    ring = KeyRing.open(
                        wrapped, secret, patient=subject, network=self.network, purpose=purpose
                    )
                    loot.rings[subject] = loot.rings.get(subject, KeyRing(subject)).joined(ring)
            if isinstance(secret, JointSecret):
                continue
            if isinstance(body, FacilityKey):
                for place in ("shan/mu", "shan/li", "shan"):
                    with contextlib.suppress(P2pmedError):
                        found = open_facility_secrets(
                            body, secret, network=self.network, place=place
                        )
                        loot.secrets.update(found)
            self._take_custody(loot, name, body, subject, secret)

    def _take_emergency(self, loot: Loot, body: EmergencyKey) -> None:
        """Shares that any secret opens, and the key where they are enough."""
        shares = loot.emergency.setdefault(body.public, {})
        for holder in body.holders:
            for secret in loot.secrets:
                with contextlib.suppress(P2pmedError):
                    context = (self.network, body.public, bytes([holder.point]))
                    shares[holder.point] = sealing.unwrap(
                        secret, holder.wrapped, domain="emergency", context=context
                    )
        if len(shares) >= body.threshold:
            givers = {point: partial(give, share) for point, share in shares.items()}
            loot.joint[body.public] = JointSecret(body.public, givers)

    def _take_custody(
        self, loot: Loot, name: bytes, body: Any, subject: bytes, secret: bytes
    ) -> None:
        where = {"patient": subject, "network": self.network}
        if isinstance(body, PatientRegister | PatientRekey):
            shares = loot.shares.setdefault(name, {})
            with contextlib.suppress(P2pmedError):
                share = open_share(body.holding, secret, **where)
                shares[share.point] = share
            with contextlib.suppress(P2pmedError):
                loot.masters.setdefault(name, join_master(body.holding, list(shares.values())))
            if name in loot.masters:
                with contextlib.suppress(P2pmedError):
                    opened = open_vault(body.holding, loot.masters[name], **where)
                    loot.secrets.update(opened.box_secrets().values())
        if isinstance(body, PatientRekey):
            for wrap in body.cards:
                with contextlib.suppress(P2pmedError):
                    loot.masters[name] = open_master(wrap.wrapped, secret, **where)
        if isinstance(body, CardIssue) and body.master:
            with contextlib.suppress(P2pmedError):
                loot.masters[body.custody] = open_master(body.master, secret, **where)
        if isinstance(body, CardRelease):
            request = self.bodies.get(body.request)
            if isinstance(request, CardRequest):
                context = (self.network, subject, body.request, bytes([body.point]))
                with contextlib.suppress(P2pmedError):
                    data = sealing.unwrap(
                        secret, body.wrapped, domain=RELEASE_DOMAIN, context=context
                    )
                    share = SecretShare(body.point, data)
                    loot.shares.setdefault(request.custody, {})[body.point] = share

    def _unlock(self, loot: Loot, passphrases: Sequence[str]) -> None:
        for words in passphrases:
            for subject, ring in list(loot.rings.items()):
                for key in list(ring):
                    if key.lock is not None and not key.key:
                        with contextlib.suppress(P2pmedError):
                            opened = loot.rings[subject].unlocked(
                                key.category, key.lock.secret(words)
                            )
                            loot.rings[subject] = opened

    def _read(self, loot: Loot, name: bytes, body: Any) -> None:
        if not isinstance(body, PatientRegister | RecordAdd | RecordAmend | RecordReseal):
            return
        entry = self.entries[name]
        subject = entry.envelope.subject
        place = Place(network=self.network, patient=subject, author=entry.author)
        parts = [self.bodies.get(part) for part in body.sealed.parts]
        pieces = [part for part in parts if isinstance(part, Part)]
        target = body.record if isinstance(body, RecordReseal) else name
        with contextlib.suppress(P2pmedError):
            opened = open_record(
                body.sealed,
                ring=loot.rings.get(subject, KeyRing(subject)),
                place=place,
                parts=pieces,
            )
            loot.records[target] = opened.resource
