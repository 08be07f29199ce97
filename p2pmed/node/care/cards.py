"""The patient's cards, as a program sees them: made, read, opened, lost, and made again.

Rule of this file: a card's secret is made here, handed to the caller as text to print, and kept
nowhere. A lost card is made good by two of three custodians over three transactions (request,
releases, re-issue), on any two nodes that hear of each other some day; with it the patient's key
changes, so that who found the card opens nothing new. Implements medical notes, section 3, and
``docs/protocols/card.md``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from p2pmed.errors import Denied, LocalProtocolError
from p2pmed.identity import sealing
from p2pmed.identity.persons import PersonKeys
from p2pmed.identity.stretching import USUAL, Cost
from p2pmed.medical.privacy.cards import (
    Card,
    CardIssue,
    CardKind,
    CardRevoke,
    CardRow,
    EmergencySet,
    card_row,
    card_secret_key,
    cards_of,
    fallback_number,
    print_card,
    print_emergency,
    wrap_master,
)
from p2pmed.medical.privacy.proofs import said
from p2pmed.node.care.card_reader import CardReader
from p2pmed.node.care.custodians import Custodians
from p2pmed.node.care.hands import Custody, Hand
from p2pmed.node.events import Draft

if TYPE_CHECKING:
    from p2pmed.node.node import Node
    from p2pmed.node.receipts import Receipt

__all__ = ["Cards", "Enrolment", "PrintedCard"]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class PrintedCard:
    """A card to be printed; its text is a secret."""

    card: bytes
    text: str
    """What the QR code says: under 300 characters."""
    number: str
    """Seven digits, for when the camera fails."""
    family: bool
    """A custodian's card, for the patient's family; it opens nothing alone."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Enrolment:
    """A patient registered with a card."""

    patient: bytes
    receipt: Receipt
    """Of the registration."""
    card: PrintedCard
    family: PrintedCard | None


class Cards(CardReader):
    """``node.cards``."""

    def __init__(self, node: Node) -> None:
        super().__init__(node)
        self.custodians = Custodians(node)

    # --- making -----------------------------------------------------------------------------

    async def enrol(
        self,
        demographics: Any,
        *,
        pin: str = "",
        guardian: bytes = b"",
        family: bool = True,
        catchment: str = "",
        readers: Iterable[bytes] = (),
        cost: Cost = USUAL,
    ) -> Enrolment:
        """Register a patient with a card, and the key in three hands.

        Custodians are this facility, a county facility if one is known here, and ``guardian``
        (X25519 public key, as on the guardian's own card) or else a ``family`` card.
        Raises ``InvalidTransaction`` (the field is named) or ``ConfigError`` (the PIN).
        """
        from p2pmed.medical.fhir import read_resource

        raw = demographics if isinstance(demographics, bytes) else demographics.to_fhir()
        patients = self._node.patients
        patient = getattr(demographics, "patient", None) or patients.new_pseudonym()
        spare = self._blank(patient, 0) if family and not guardian else None
        third = guardian or (sealing.box_public(card_secret_key(spare, "", None)) if spare else b"")
        entropy, network = self._node.world.entropy, self._node.network
        fresh = Custody.alone(patient, self._node.keys.box_public, network, entropy)
        hands = self.custodians.choose(third)
        custody = Custody.made(patient, fresh.secrets, hands, network, entropy)
        drafts = patients.registration(
            read_resource(raw), patient, catchment=catchment, readers=readers, custody=custody
        )
        registered = len(drafts) - 1
        blanks = [(self._blank(patient, 0), CardKind.PATIENT, pin)]
        if spare is not None:
            blanks.append((spare, CardKind.FAMILY, ""))
        for blank, kind, words in blanks:
            drafts.append(await self._issue(blank, kind, words, custody, registered, cost))
        receipts = await self._node.submit_drafts(drafts)
        return Enrolment(
            patient=patient,
            receipt=receipts[registered],
            card=self._printed(blanks[0][0]),
            family=self._printed(spare, family=True) if spare is not None else None,
        )

    async def issue(self, hand: Hand, *, pin: str = "", cost: Cost = USUAL) -> PrintedCard:
        """One more card for a patient whose ``hand`` is here. Raises ``Denied`` for a delegate."""
        holding = self.holding(hand.custody)
        if not hand.owner or holding is None:
            raise Denied("a card is made with the patient's own card, or by custodians")
        custody = Custody(secrets=hand.secrets, holding=holding, master=hand.master)
        blank = self._blank(hand.patient, holding.generation)
        draft = await self._issue(blank, CardKind.PATIENT, pin, custody, hand.custody, cost)
        await self._node.submit_drafts([draft])
        return self._printed(blank)

    async def renew(
        self,
        hand: Hand,
        *,
        pin: str = "",
        guardian: bytes = b"",
        lost: Iterable[bytes] | None = None,
        request: bytes = b"",
        released: Sequence[bytes] = (),
        cost: Cost = USUAL,
    ) -> PrintedCard:
        """A new generation of the patient's key, new epochs, and a new card.

        Cards in ``lost`` (ids; ``None``: all) are revoked; the others stay good. ``request`` and
        ``released`` are the transactions by which custodians agreed, if it was they.
        """
        patient, state = hand.patient, self._node.state()
        entropy, network = self._node.world.entropy, self._node.network
        old = self.holding(hand.custody)
        if old is None or not hand.owner:
            raise Denied("the patient's key is renewed with a card, or by custodians")
        third = guardian or (old.shares[-1].key if len(old.shares) > 1 else b"")
        custody = Custody.made(
            patient,
            hand.secrets.renewed(entropy),
            self.custodians.choose(third),
            network,
            entropy,
        )
        known = cards_of(state, patient)
        gone = tuple(known) if lost is None else tuple(lost)
        kept = {
            name: row
            for name, row in known.items()
            if name not in gone and not row.revoked and row.kind == CardKind.PATIENT
        }
        refs = self._node.consent.refs(patient, hand.custody, request, *released)
        rekey = self.custodians.rekey(hand, custody, request=request, kept=kept)
        with self._node.opener.lent(patient, hand.secrets):
            turned = self._node.consent.rotation(
                patient, reason="card-lost", renewed=custody.secrets
            )
        drafts = [Draft(body=rekey, subject=patient, refs=refs), turned]
        drafts += [
            self._revocation(patient, name, row, "lost")
            for name, row in known.items()
            if name in gone and not row.revoked and row.kind == CardKind.PATIENT
        ]
        blank = self._blank(patient, custody.holding.generation)
        drafts.append(await self._issue(blank, CardKind.PATIENT, pin, custody, 0, cost))
        await self._node.submit_drafts(drafts)
        return self._printed(blank)

    async def first(self, patient: bytes, *, pin: str = "", cost: Cost = USUAL) -> PrintedCard:
        """The first card of a patient whom this device registered without one.

        From then on the device alone no longer holds the patient's key.
        Raises ``Denied`` if it does not now.
        """
        return await self.renew(self.custodians.alone(patient), pin=pin, cost=cost)

    async def revoke(self, card: bytes, *, reason: str = "lost") -> Receipt:
        """Say that nobody shall take ``card`` (its id) any more. ``LocalProtocolError``."""
        row = card_row(self._node.state(), card)
        if row is None:
            raise LocalProtocolError("no such card is known here", hint="see `p2pmed card list`")
        draft = self._revocation(row.patient, card, row, reason)
        return (await self._node.submit_drafts([draft]))[-1]

    def _revocation(self, patient: bytes, card: bytes, row: CardRow, reason: str) -> Draft:
        refs = self._node.consent.refs(patient, row.entry)
        return Draft(body=CardRevoke(card=card, reason=reason), subject=patient, refs=refs)

    def _blank(self, patient: bytes, generation: int) -> Card:
        entropy = self._node.world.entropy
        return Card(
            version=1,
            card=entropy.token(16),
            secret=entropy.token(32),
            patient=patient,
            generation=generation,
        )

    async def _issue(
        self,
        blank: Card,
        kind: CardKind,
        pin: str,
        custody: Custody,
        entry: bytes | int,
        cost: Cost,
    ) -> Draft:
        """The draft of a card; ``entry`` made its generation, or its place in the submission."""
        network, patient = self._node.network, blank.patient
        price = cost if pin else None
        secret = await asyncio.to_thread(card_secret_key, blank, pin, price)
        key = sealing.box_public(secret)
        opens = kind is CardKind.PATIENT
        master = (
            wrap_master(custody.master, key, patient=patient, network=network) if opens else b""
        )

        def body(ids: Sequence[bytes]) -> CardIssue:
            made = CardIssue(
                card=blank.card,
                kind=int(kind),
                card_key=key,
                pin=price,
                custody=ids[entry] if isinstance(entry, int) else entry,
                master=master,
                proof=b"",
            )
            proof = custody.secrets.sign(said("card", network, patient, made.words))
            return CardIssue(**{**_fields(made), "proof": proof})

        known = entry if isinstance(entry, bytes) else b""
        return Draft(body=body, subject=patient, refs=self._node.consent.refs(patient, known))

    def _printed(self, blank: Card, *, family: bool = False) -> PrintedCard:
        keys = self._node.keys
        text = print_card(
            blank, seed=keys.signing_seed, issuer=self._node.key, network=self._node.network
        )
        number = fallback_number(blank.card)
        return PrintedCard(card=blank.card, text=text, number=number, family=family)

    def emergency(self, found: EmergencySet) -> str:
        """The text of a QR code with what saves a life, signed, without any secret."""
        return print_emergency(
            found,
            seed=self._node.keys.signing_seed,
            issuer=self._node.key,
            network=self._node.network,
        )

    # --- lost, and made again ---------------------------------------------------------------

    async def reissue(
        self, patient: bytes, request: bytes, *, pin: str = "", cost: Cost = USUAL
    ) -> PrintedCard:
        """The new card, once two custodians have released their shares to this node.

        All older cards are revoked. Raises ``Denied`` if too few have.
        """
        hand, released = self.custodians.joined(patient, request)
        return await self.renew(hand, pin=pin, request=request, released=released, cost=cost)

    async def release_by_family(
        self, patient: bytes, request: bytes, text: str, person: PersonKeys
    ) -> Receipt:
        """A family card's share, released here on the word of who saw it. See ``release``."""
        scanned = self.scan(text)
        if scanned.row is None or scanned.row.revoked or scanned.card.patient != patient:
            raise Denied("not a good family card of this patient")
        secret = card_secret_key(scanned.card, "", None)
        return await self.custodians.release(patient, request, person, secrets=[secret])


def _fields(body: CardIssue) -> dict[str, Any]:
    return {name: getattr(body, name) for name in body.__struct_fields__}
