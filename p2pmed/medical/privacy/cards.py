"""The patient's card: a printed QR code that opens the record, and how a ledger knows of it.

Rule of this file: the card holds a *secret* that is nowhere else, and the ledger holds what that
secret opens: the patient's master, wrapped to the card's own key. The card's key is X25519,
derived from the secret and, if there is one, a PIN (argon2id). So neither a card without the
ledger nor a ledger without the card reads anything, a card is revoked without touching the
patient, and a PIN keeps a finder busy who has both. Implements medical notes, section 3, and
``docs/protocols/card.md``, clauses 15 to 24.

The text is checked offline: the issuing device signed it, and the ledger knows the device.
A *family* card is a custodian's card: it holds a share of the master and opens nothing alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, Any, Final

import msgspec

from p2pmed.errors import DecodeError, Denied
from p2pmed.identity import sealing
from p2pmed.identity.stretching import Cost, stretch
from p2pmed.ledger.state import Readable, View
from p2pmed.medical.patients import about_patient, key_fault
from p2pmed.medical.privacy.custody import MASTER_WRAP_BYTES
from p2pmed.medical.privacy.proofs import Proof, is_proven, said
from p2pmed.medical.registry import Act, Kind, Refusal
from p2pmed.medical.rejections import Rejection
from p2pmed.medical.roles import CARERS, OVERSEERS
from p2pmed.medical.tables import Table
from p2pmed.wire import base45, codec, cose
from p2pmed.wire.codec import Bytes16, Bytes32, Wire
from p2pmed.wire.hashing import digest

__all__ = [
    "CARD_PREFIX",
    "CARD_TEXT_CHARS_MAX",
    "EMERGENCY_PREFIX",
    "KINDS",
    "NUMBER_DIGITS",
    "Card",
    "CardIssue",
    "CardKind",
    "CardRevoke",
    "CardRow",
    "EmergencySet",
    "SignedCard",
    "card_row",
    "card_secret_key",
    "cards_by_number",
    "cards_of",
    "fallback_number",
    "open_master",
    "parse_card",
    "parse_emergency",
    "print_card",
    "print_emergency",
    "wrap_master",
]

CARD_PREFIX: Final = "P2PC1:"
EMERGENCY_PREFIX: Final = "P2PE1:"
CARD_TEXT_CHARS_MAX: Final = 300
"""One small QR code that a cheap camera reads."""
EMERGENCY_TEXT_CHARS_MAX: Final = 1_800
NUMBER_DIGITS: Final = 7
"""What is read aloud when the camera fails; of 50,000 patients some share one."""

CARD_DOMAIN: Final = "card"
EMERGENCY_DOMAIN: Final = "emergency"
MASTER_DOMAIN: Final = "master"


class CardKind(IntEnum):
    """What a card is good for."""

    PATIENT = 1
    FAMILY = 2


class Card(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What is printed: the payload of a signed message."""

    version: Annotated[int, msgspec.Meta(ge=1, le=1)]
    card: Bytes16
    """The card's own id; not the patient's."""
    secret: Bytes32
    patient: Bytes16
    """Pseudonym."""
    generation: Annotated[int, msgspec.Meta(ge=0, le=255)]
    """The patient's key when it was printed."""


@dataclass(frozen=True, slots=True, repr=False)
class SignedCard:
    """A card's text taken apart and its signature checked; who issued it is up to the reader."""

    card: Card
    issuer: bytes
    """Device key (32 bytes)."""


class EmergencySet(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a stranger must know to save a life; printed without any secret, signed."""

    version: Annotated[int, msgspec.Meta(ge=1, le=1)]
    made: Annotated[int, msgspec.Meta(ge=0, le=200_000)]
    """Day since 1970-01-01."""
    blood: Annotated[str, msgspec.Meta(max_length=16)]
    allergies: Annotated[
        tuple[Annotated[str, msgspec.Meta(min_length=1, max_length=64)], ...],
        msgspec.Meta(max_length=8),
    ]
    drugs: Annotated[
        tuple[Annotated[str, msgspec.Meta(min_length=1, max_length=64)], ...],
        msgspec.Meta(max_length=8),
    ]


class CardIssue(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``card.issue``: a card exists; nothing here opens it."""

    card: Bytes16
    kind: Annotated[int, msgspec.Meta(ge=1, le=2)]
    card_key: Bytes32
    """X25519 public key, derived from the card's secret and PIN."""
    pin: Cost | None
    """What guessing a PIN costs; null: there is none."""
    custody: Bytes32
    """The transaction whose generation of the patient's key it opens."""
    master: Annotated[bytes, msgspec.Meta(max_length=MASTER_WRAP_BYTES)]
    """The master wrapped to ``card_key``; empty on a family card."""
    proof: Proof
    """The patient's."""

    @property
    def words(self) -> list[Any]:
        """What is signed."""
        return [self.card, self.kind, self.card_key, self.custody]


class CardRevoke(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``card.revoke``: a card is lost, stolen or worn; nobody shall take it any more."""

    card: Bytes16
    reason: Annotated[str, msgspec.Meta(pattern=r"\A[a-z][a-z0-9-]{1,31}\Z")]


class CardRow(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """State of a card."""

    patient: Bytes16
    kind: int
    card_key: Bytes32
    entry: Bytes32
    custody: Bytes32
    revoked: bool = False


class NumberRow(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """That a fallback number, or a patient, has a card: the key says it all."""


CARDS: Final = Table("card", CardRow)
PATIENT_CARDS: Final = Table("patient_card", NumberRow)
NUMBERS: Final = Table("card_number", NumberRow)


# --- the card's key -------------------------------------------------------------------------


def card_secret_key(card: Card, pin: str, cost: Cost | None) -> bytes:
    """The X25519 secret of a card; with a PIN it takes 0.1 s. Raises ``ConfigError``."""
    known = stretch(pin, salt=card.card, cost=cost) if cost is not None else b""
    return sealing.derive(card.secret, salt=known, info=b"p2pmed/1 card" + card.card)[:32]


def wrap_master(
    master: bytes,
    card_key: bytes,
    *,
    patient: bytes,
    network: bytes,
    wrapper: sealing.Wrapper = sealing.HPKE,
) -> bytes:
    """``master`` (32 bytes) readable with one card."""
    return sealing.wrap(
        card_key, master, domain=MASTER_DOMAIN, context=(network, patient), wrapper=wrapper
    )


def open_master(wrapped: bytes, secret: bytes, *, patient: bytes, network: bytes) -> bytes:
    """Inverse of ``wrap_master``. Raises ``Denied``: a wrong PIN and a wrong card look alike."""
    try:
        return sealing.unwrap(secret, wrapped, domain=MASTER_DOMAIN, context=(network, patient))
    except Denied:
        raise Denied("this card does not open this record", hint="check the PIN") from None


# --- the printed texts ----------------------------------------------------------------------


def print_card(card: Card, *, seed: bytes, issuer: bytes, network: bytes) -> str:
    """The text of the QR code, signed by the device ``issuer`` with its ``seed``."""
    return CARD_PREFIX + _printed(card, CARD_DOMAIN, seed, issuer, network)


def parse_card(text: str, *, network: bytes) -> SignedCard:
    """A scanned card. Raises ``DecodeError`` if it is no card of this network, or altered."""
    payload, issuer = _parsed(text, CARD_PREFIX, CARD_TEXT_CHARS_MAX, CARD_DOMAIN, network)
    return SignedCard(codec.decode(payload, Card), issuer)


def print_emergency(found: EmergencySet, *, seed: bytes, issuer: bytes, network: bytes) -> str:
    """The text of the second QR code. Raises ``DecodeError`` if a field is too long."""
    codec.convert(codec.plain(found), EmergencySet)
    return EMERGENCY_PREFIX + _printed(found, EMERGENCY_DOMAIN, seed, issuer, network)


def parse_emergency(text: str, *, network: bytes) -> tuple[EmergencySet, bytes]:
    """The set and the device that signed it. Raises ``DecodeError``."""
    payload, issuer = _parsed(
        text, EMERGENCY_PREFIX, EMERGENCY_TEXT_CHARS_MAX, EMERGENCY_DOMAIN, network
    )
    return codec.decode(payload, EmergencySet), issuer


def _printed(body: Wire, domain: str, seed: bytes, issuer: bytes, network: bytes) -> str:
    external = cose.external_data(domain, network)
    return base45.encode(cose.sign(codec.encode(body), seed=seed, signer=issuer, external=external))


def _parsed(
    text: str, prefix: str, chars_max: int, domain: str, network: bytes
) -> tuple[bytes, bytes]:
    spelled = text.strip(" \r\n\t")
    if len(spelled) > chars_max or not spelled.startswith(prefix):
        raise DecodeError(f"not a code of {prefix} and at most {chars_max} characters")
    raw = base45.decode(spelled.removeprefix(prefix))
    signed = cose.open_signed(raw, external=cose.external_data(domain, network))
    if not cose.verify(signed.signer, signed.signature, signed.to_be_signed):
        raise DecodeError("a card that was altered, or is of another network")
    return signed.payload, signed.signer


def fallback_number(card: bytes) -> str:
    """Seven digits for a card id (16 bytes), to be read aloud."""
    value = int.from_bytes(digest("card number", card)[:8], "big") % 10**NUMBER_DIGITS
    return f"{value:0{NUMBER_DIGITS}d}"


# --- the state ------------------------------------------------------------------------------


def card_row(view: Readable, card: bytes) -> CardRow | None:
    """The card with this id, revoked or not, or ``None``."""
    return CARDS.get(view, card)


def cards_of(view: Readable, patient: bytes) -> dict[bytes, CardRow]:
    """Every card of ``patient`` by its id, revoked ones too."""
    rows = ((name, card_row(view, name)) for name, _ in PATIENT_CARDS.scan(view, patient))
    return {name: row for name, row in rows if row is not None}


def cards_by_number(view: Readable, number: str) -> list[tuple[bytes, CardRow]]:
    """Card id and row of every card with this fallback number: none, one, or some to pick from."""
    if len(number) != NUMBER_DIGITS or not (number.isascii() and number.isdigit()):
        raise DecodeError(f"a card's number has {NUMBER_DIGITS} digits")
    found = [name for name, _ in NUMBERS.scan(view, int(number).to_bytes(4, "big"))]
    return [(name, row) for name in found if (row := card_row(view, name)) is not None]


def _check_issue(act: Act[CardIssue], view: View) -> Rejection | Refusal | None:
    if fault := about_patient(act, view):
        return fault
    body, patient = act.body, act.entry.envelope.subject
    opens = len(body.master) == MASTER_WRAP_BYTES
    if opens != (body.kind == CardKind.PATIENT) or (body.master and not opens):
        return Rejection.MALFORMED
    row = card_row(view, body.card)
    if row is not None:
        return Refusal(reason=Rejection.CARD_EXISTS, other=row.entry)
    found = key_fault(act, view, body.custody)
    if isinstance(found, Rejection):
        return found
    message = said("card", act.context.network, patient, body.words)
    return None if is_proven(found[1].sign_key, body.proof, message) else Rejection.PROOF_INVALID


def _apply_issue(act: Act[CardIssue], view: View) -> None:
    body, entry = act.body, act.entry
    row = CardRow(
        patient=entry.envelope.subject,
        kind=body.kind,
        card_key=body.card_key,
        entry=entry.id,
        custody=body.custody,
    )
    CARDS.put(view, row, body.card)
    PATIENT_CARDS.put(view, NumberRow(), row.patient, body.card)
    number = int(fallback_number(body.card)).to_bytes(4, "big")
    NUMBERS.put(view, NumberRow(), number, body.card)


def _check_revoke(act: Act[CardRevoke], view: View) -> Rejection | None:
    if fault := about_patient(act, view):
        return fault
    row = card_row(view, act.body.card)
    if row is None or row.patient != act.entry.envelope.subject:
        return Rejection.CARD_UNKNOWN
    return None if row.entry in act.entry.envelope.refs else Rejection.REFERENCE_MISSING


def _apply_revoke(act: Act[CardRevoke], view: View) -> None:
    row = card_row(view, act.body.card)
    assert row is not None  # checked
    CARDS.put(view, msgspec.structs.replace(row, revoked=True), act.body.card)


KINDS: Final[tuple[Kind[Any], ...]] = (
    Kind(
        name="card.issue",
        body=CardIssue,
        check=_check_issue,
        apply=_apply_issue,
        ordered=False,
        rules="Refused unless the patient's key of the named generation signed it, and the card "
        "is new.",
    ),
    Kind(
        name="card.revoke",
        body=CardRevoke,
        check=_check_revoke,
        apply=_apply_revoke,
        ordered=False,
        roles=CARERS | OVERSEERS,
        rules="Refused unless it names a card of the patient.",
    ),
)
