"""Reading a patient's card: checked offline, and opened with what the ledger holds of it.

Rule of this file: a text is data of a stranger until its signature, its issuer and its row in
the ledger are checked, in this order; nothing is opened with a card that was reported lost.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from p2pmed.errors import Denied, LocalProtocolError
from p2pmed.ledger.transaction import Entry
from p2pmed.medical.membership import member
from p2pmed.medical.patients import PatientRegister, patient_keys
from p2pmed.medical.privacy.cards import (
    Card,
    CardIssue,
    CardKind,
    CardRow,
    card_row,
    card_secret_key,
    cards_by_number,
    cards_of,
    open_master,
    parse_card,
)
from p2pmed.medical.privacy.custody import PatientRekey
from p2pmed.medical.privacy.holding import Holding, open_vault
from p2pmed.node.care.hands import Hand

if TYPE_CHECKING:
    from p2pmed.node.node import Node

__all__ = ["CardReader", "Scanned"]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Scanned:
    """What a card's text says, checked offline."""

    card: Card
    issuer: bytes
    """The device that signed it."""
    trusted: bool
    """The issuer is a member that is not revoked, as far as this node has heard."""
    row: CardRow | None
    """What the ledger knows of it; ``None``: nothing yet."""

    @property
    def good(self) -> bool:
        """Whether it may be used: known, not revoked, and signed by a member."""
        return self.trusted and self.row is not None and not self.row.revoked


class CardReader:
    """What ``node.cards`` does with a card's text."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def scan(self, text: str) -> Scanned:
        """What a card's text says. Raises ``DecodeError`` if it is no card of this network."""
        signed = parse_card(text, network=self._node.network)
        state = self._node.state()
        issuer = member(state, signed.issuer)
        row = card_row(state, signed.card.card)
        return Scanned(
            card=signed.card,
            issuer=signed.issuer,
            trusted=issuer is not None and not issuer.revoked,
            row=row if row is not None and row.patient == signed.card.patient else None,
        )

    def known(self, patient: bytes) -> dict[bytes, CardRow]:
        """Every card of ``patient`` by its id, revoked ones too."""
        return cards_of(self._node.state(), patient)

    def by_number(self, number: str) -> list[tuple[bytes, CardRow]]:
        """Card id and row of all cards with this number: a list to pick from.

        Raises ``DecodeError`` unless it has seven digits.
        """
        return cards_by_number(self._node.state(), number)

    @contextlib.asynccontextmanager
    async def present(self, text: str, *, pin: str = "") -> AsyncIterator[Hand]:
        """While the block runs, the card is on the table: its patient's record is open here.

        Raises what ``open`` raises.
        """
        hand = await self.open(text, pin=pin)
        with self._node.opener.lent(hand.patient, hand.secrets):
            yield hand

    async def open(self, text: str, *, pin: str = "") -> Hand:
        """The patient's keys, by the card's text and PIN.

        Raises ``DecodeError`` (no card), ``Denied`` (revoked, unknown issuer, wrong PIN) or
        ``LocalProtocolError`` (what it opens has not reached this node yet).
        """
        scanned = self.scan(text)
        if scanned.row is None:
            raise LocalProtocolError(
                "this node has not heard of that card yet", hint="bring it up to date first"
            )
        if scanned.row.revoked:
            raise Denied("this card was reported lost", hint="two custodians can make a new one")
        if not scanned.trusted:
            raise Denied("this card was issued by a device that is not trusted here")
        if scanned.row.kind != CardKind.PATIENT:
            raise Denied(
                "a family card opens nothing alone", hint="use it with `p2pmed card release`"
            )
        issue = self.issue_of(scanned.row)
        secret = await asyncio.to_thread(card_secret_key, scanned.card, pin, issue.pin)
        return self._hand(scanned.card, issue, secret)

    def issue_of(self, row: CardRow) -> CardIssue:
        """The transaction that issued a card. Raises ``LocalProtocolError`` if it is not here."""
        body = self._body(row.entry)
        if not isinstance(body, CardIssue):
            raise LocalProtocolError("what this card opens is not here yet")
        return body

    def _hand(self, card: Card, issue: CardIssue, secret: bytes) -> Hand:
        patient, network = card.patient, self._node.network
        for key in reversed(patient_keys(self._node.state(), patient)):
            holding, wrapped = self.holding(key.entry), b""
            if key.entry == issue.custody:
                wrapped = issue.master
            else:
                body = self._body(key.entry)
                renewed = body.cards if isinstance(body, PatientRekey) else ()
                wrapped = next((each.wrapped for each in renewed if each.card == card.card), b"")
            if holding is not None and wrapped:
                master = open_master(wrapped, secret, patient=patient, network=network)
                return Hand(
                    patient=patient,
                    secrets=open_vault(holding, master, patient=patient, network=network),
                    master=master,
                    custody=key.entry,
                    card=card.card,
                )
        raise LocalProtocolError("the keys that this card opens are not here yet")

    def holding(self, entry: bytes) -> Holding | None:
        """What ``entry`` (a registration or a rekey) says of the patient's key."""
        body = self._body(entry)
        return body.holding if isinstance(body, PatientRegister | PatientRekey) else None

    def _body(self, entry: bytes) -> Any:
        found: Entry | None = self._node.find(entry)
        return self._node.body(found) if found else None
