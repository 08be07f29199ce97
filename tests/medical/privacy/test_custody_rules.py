"""The rules of custody, cards, delegation and facilities, where no node is asked: what a ledger
applies and what it refuses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from p2pmed.identity.persons import PersonKeys
from p2pmed.identity.sealing import box_id, box_public
from p2pmed.medical import consent, records
from p2pmed.medical.consent import AccessGrant, AccessRevoke, grants, readers
from p2pmed.medical.keyring import Category, KeyRing, Wrapped
from p2pmed.medical.patients import REGISTRATION_PURPOSE, PatientRegister, patient_keys
from p2pmed.medical.privacy import cards, custody, delegation, facilities
from p2pmed.medical.privacy.cards import (
    Card,
    CardIssue,
    CardRevoke,
    card_row,
    cards_by_number,
    cards_of,
    fallback_number,
)
from p2pmed.medical.privacy.custody import (
    RELEASE_PURPOSE,
    CardRelease,
    CardRequest,
    PatientRekey,
    release_digest,
)
from p2pmed.medical.privacy.delegation import AccessDelegate, AccessRequest, delegation_holds
from p2pmed.medical.privacy.facilities import (
    FacilityKey,
    FacilityPolicy,
    current_facility_key,
    open_facility_secrets,
    policy_of,
    wrap_facility_secrets,
)
from p2pmed.medical.privacy.holding import PatientSecrets, hold
from p2pmed.medical.privacy.policy import Audience
from p2pmed.medical.privacy.proofs import said
from p2pmed.medical.registry import Registry
from p2pmed.medical.sealed import Place, seal_body

PATIENT = b"\x01" * 16
CUSTODIANS = [bytes([n]) * 32 for n in (1, 2, 3)]


class Desk:
    """Registers one patient with a key in three hands, and signs for it."""

    def __init__(self, ward: Any, entropy: Any) -> None:
        families = (records, consent, delegation, custody, cards, facilities)
        ward.registry = Registry([kind for family in families for kind in family.KINDS])
        self.ward, self.entropy = ward, entropy
        self.clinic, self.other = ward.device("clinic", "Mu"), ward.device("other", "Li")
        self.people = [PersonKeys.generate(entropy) for _ in range(2)]
        self.secrets = PatientSecrets.generate(entropy)
        self.ring = KeyRing.generate(PATIENT, entropy)
        self.registration = self.ok(self.clinic, self.register())

    def register(self) -> PatientRegister:
        where = {"network": self.ward.network, "patient": PATIENT}
        keys = [box_public(secret) for secret in CUSTODIANS]
        holding, self.master = hold(self.secrets, custodians=keys, entropy=self.entropy, **where)
        sealed = seal_body(
            b"{}",
            kind="Patient",
            key=self.ring.current(Category.DEMOGRAPHICS),
            place=Place(author=self.clinic.author, **where),
            entropy=self.entropy,
        ).named()
        key = self.secrets.patient_key
        wrap = self.ring.wrap(key, network=self.ward.network, purpose=REGISTRATION_PURPOSE)
        return PatientRegister(
            catchment="",
            patient_key=key,
            wraps=(wrap,),
            sealed=sealed,
            told=b"",
            holding=holding,
        )

    def ok(
        self, device: Any, body: Any, refs: Sequence[bytes] = (), subject: Any = PATIENT
    ) -> bytes:
        entry, code = self.ward.write(device, body, subject, refs)
        assert code == "applied", code
        return entry.id

    def no(self, device: Any, body: Any, refs: Sequence[bytes] = (), subject: Any = PATIENT) -> str:
        return self.ward.write(device, body, subject, refs)[1]

    def signed(self, body: Any, purpose: str, secrets: PatientSecrets | None = None) -> Any:
        message = said(purpose, self.ward.network, PATIENT, body.words)
        return msgspec.structs.replace(body, proof=(secrets or self.secrets).sign(message))

    def rekey(self, request: bytes = b"") -> PatientRekey:
        keys = [box_public(secret) for secret in CUSTODIANS]
        holding, _ = hold(
            self.secrets.renewed(self.entropy),
            patient=PATIENT,
            network=self.ward.network,
            custodians=keys,
            entropy=self.entropy,
        )
        body = PatientRekey(
            patient_key=bytes([8]) * 32,
            holding=holding,
            before=self.registration,
            request=request,
            cards=(),
            proof=b"",
        )
        return self.signed(body, "rekey")

    def release(self, request: bytes, point: int, person: PersonKeys) -> CardRelease:
        wrapped = bytes(81)
        word = person.countersign(
            self.ward.network, RELEASE_PURPOSE, release_digest(PATIENT, request, point, wrapped)
        )
        return CardRelease(request=request, point=point, wrapped=wrapped, word=word)

    def card(self, name: int = 7, kind: int = 1) -> CardIssue:
        body = CardIssue(
            card=bytes([name]) * 16,
            kind=kind,
            card_key=bytes([9]) * 32,
            pin=None,
            custody=self.registration,
            master=bytes(81) if kind == 1 else b"",
            proof=b"",
        )
        return self.signed(body, "card")

    def delegate(self, guardian: PatientSecrets, **terms: Any) -> AccessDelegate:
        fields = {"since": 0, "until": 0, "depth": 0, "under": b""} | terms
        return AccessDelegate(
            grantee_key=guardian.patient_key,
            sign_key=guardian.sign_key,
            epoch=0,
            wrapped=bytes(60),
            told=b"",
            proof=b"",
            **fields,
        )

    def grant(self, **terms: Any) -> AccessGrant:
        fields = {"since": 0, "until": 0, "under": b"", "proof": b""} | terms
        return AccessGrant(
            grantee_key=bytes([6]) * 32,
            purpose="TREAT",
            epoch=0,
            wrapped=bytes(60),
            told=b"",
            **fields,
        )


@pytest.fixture
def desk(ward: Any, entropy: Any) -> Desk:
    return Desk(ward, entropy)


def test_only_the_key_before_makes_a_new_one(desk: Desk) -> None:
    """A rekey that another key signed, that skips a generation, names no custody of the patient
    or hides what it follows is refused; one made with the key is not.
    """
    good = desk.rekey()
    forged = desk.signed(good, "rekey", PatientSecrets.generate(desk.entropy))
    assert desk.no(desk.clinic, forged) == "proof_invalid"
    skipped = msgspec.structs.replace(good.holding, generation=5)
    assert desk.no(desk.clinic, msgspec.structs.replace(good, holding=skipped)) == "malformed"
    elsewhere = msgspec.structs.replace(good, before=bytes(32))
    assert desk.no(desk.clinic, elsewhere) == "custody_unknown"
    assert desk.no(desk.other, good) == "reference_missing"
    desk.ok(desk.clinic, good)
    assert patient_keys(desk.ward.view, PATIENT)[-1].patient_key == good.patient_key


def test_what_claims_to_be_released_was_by_two_people(desk: Desk) -> None:
    """No release, one, two by one person, or two that it does not refer to: refused. Two people's
    words: applied, and it outranks a rekey that somebody with the card made.
    """
    by_card = desk.ok(desk.clinic, desk.rekey())
    ask = CardRequest(custody=desk.registration, requester_key=bytes(32), reason="lost")
    request = desk.ok(desk.clinic, ask)
    claimed = desk.rekey(request)
    assert desk.no(desk.clinic, claimed, [request]) == "reference_missing"
    nurse, doctor = desk.people
    first = desk.ok(desk.clinic, desk.release(request, 1, nurse), [request])
    same = desk.ok(desk.clinic, desk.release(request, 3, nurse), [request])
    assert desk.no(desk.clinic, claimed, [request, first, same]) == "reference_missing"
    refs = [desk.registration, request]
    second = desk.ok(desk.other, desk.release(request, 2, doctor), refs)
    assert desk.no(desk.clinic, claimed, [request, first]) == "reference_missing"
    released = desk.ok(desk.clinic, claimed, [request, first, second])
    assert [row.entry for row in patient_keys(desk.ward.view, PATIENT)][1:] == [by_card, released]


def test_a_share_is_released_on_a_person_s_word_about_it(desk: Desk) -> None:
    """A word for another share, patient or request is none."""
    ask = CardRequest(custody=desk.registration, requester_key=bytes(32), reason="lost")
    request = desk.ok(desk.clinic, ask)
    good = desk.release(request, 1, desk.people[0])
    assert desk.no(desk.clinic, good) == "reference_missing"
    moved = msgspec.structs.replace(good, point=2)
    assert desk.no(desk.clinic, moved, [request]) == "proof_invalid"
    unknown = desk.release(bytes(32), 1, desk.people[0])
    assert desk.no(desk.clinic, unknown) == "custody_unknown"
    desk.ok(desk.clinic, good, [request])


def test_a_card_is_issued_by_the_patient_s_key_and_once(desk: Desk) -> None:
    """Another's signature, a second card of one id, a family card that opens: refused."""
    good = desk.card()
    forged = desk.signed(good, "card", PatientSecrets.generate(desk.entropy))
    assert desk.no(desk.clinic, forged) == "proof_invalid"
    opening = msgspec.structs.replace(good, kind=2)
    assert desk.no(desk.clinic, opening) == "malformed"
    entry = desk.ok(desk.clinic, good)
    assert desk.no(desk.clinic, good) == "card_exists"
    desk.ok(desk.clinic, desk.card(8, kind=2))
    assert len(cards_of(desk.ward.view, PATIENT)) == 2
    revoke = CardRevoke(card=good.card, reason="lost")
    assert desk.no(desk.clinic, revoke) == "reference_missing"
    unknown = CardRevoke(card=bytes(16), reason="lost")
    assert desk.no(desk.clinic, unknown) == "card_unknown"
    desk.ok(desk.clinic, revoke, [entry])
    row = card_row(desk.ward.view, good.card)
    assert row is not None
    assert row.revoked


def test_cards_that_share_a_number_are_all_shown(desk: Desk, monkeypatch: Any) -> None:
    """Seven digits are few: who types them picks from a list."""
    monkeypatch.setattr(cards, "fallback_number", lambda card: "0000042")
    for name in (7, 8):
        desk.ok(desk.clinic, desk.card(name))
    found = cards_by_number(desk.ward.view, "0000042")
    assert [name for name, _ in found] == [bytes([7]) * 16, bytes([8]) * 16]
    assert cards_by_number(desk.ward.view, "0000041") == []
    monkeypatch.undo()
    numbers = {fallback_number(bytes([n]) * 16) for n in range(200)}
    assert len(numbers) == 200
    assert {len(number) for number in numbers} == {7}
    assert "secret" not in repr(Card(1, bytes(16), bytes(32), PATIENT, 0))


def test_delegations_hang_on_signatures_and_reach_less_and_less(desk: Desk) -> None:
    """A clinic that holds the keys makes no guardian; a guardian's deputy reaches no longer, no
    earlier and no deeper; the chain ends.
    """
    mother, aunt, friend = (PatientSecrets.generate(desk.entropy) for _ in range(3))
    bare = desk.delegate(mother, depth=1, since=10, until=100)
    assert desk.no(desk.clinic, bare) == "proof_invalid"
    assert desk.no(desk.clinic, desk.signed(bare, "grant")) == "proof_invalid"
    first = desk.ok(desk.clinic, desk.signed(bare, "delegate"))

    def deputy(refs: Sequence[bytes] = (first,), **terms: Any) -> str:
        fields = {"depth": 0, "since": 10, "until": 100, "under": first} | terms
        body = desk.signed(desk.delegate(aunt, **fields), "delegate", mother)
        return desk.no(desk.clinic, body, refs)

    assert deputy(depth=1) == "delegation_exceeded"
    assert deputy(until=101) == "delegation_exceeded"
    assert deputy(until=0) == "delegation_exceeded"
    assert deputy(since=9) == "delegation_exceeded"
    assert deputy(under=bytes(32)) == "delegation_unknown"
    assert deputy(refs=()) == "reference_missing"
    body = desk.delegate(aunt, since=10, until=100, under=first)
    assert desk.no(desk.clinic, desk.signed(body, "delegate"), [first]) == "proof_invalid"
    second = desk.ok(desk.clinic, desk.signed(body, "delegate", mother), [first])
    third = desk.signed(desk.delegate(friend, since=10, until=50, under=second), "delegate", aunt)
    assert desk.no(desk.clinic, third, [second]) == "delegation_exceeded"


def test_a_grant_under_a_delegation_is_signed_and_ends_with_it(desk: Desk) -> None:
    """A delegate's grant stands until its own end, the delegation's end or its revocation."""
    mother = PatientSecrets.generate(desk.entropy)
    link = desk.ok(desk.clinic, desk.signed(desk.delegate(mother, since=0, until=100), "delegate"))
    body = desk.grant(until=50, under=link)
    assert desk.no(desk.clinic, body, [link]) == "proof_invalid"
    assert desk.no(desk.clinic, desk.signed(body, "grant"), [link]) == "proof_invalid"
    longer = desk.signed(desk.grant(until=200, under=link), "grant", mother)
    assert desk.no(desk.clinic, longer, [link]) == "delegation_exceeded"
    grant = desk.ok(desk.clinic, desk.signed(body, "grant", mother), [link])
    view = desk.ward.view
    assert {each.id for each in readers(view, PATIENT, 49)} == {link, grant}
    assert {each.id for each in readers(view, PATIENT, 50)} == {link}
    assert not delegation_holds(view, PATIENT, link, 100)
    desk.ok(desk.clinic, AccessRevoke(grant=link, epoch=1, wraps=(), proof=b""), [link])
    assert readers(view, PATIENT, 10) == []
    assert len(grants(view, PATIENT)) == 2


def test_a_lost_card_gives_no_more_leave(desk: Desk) -> None:
    """After the key changed, the old one's signature makes neither grant nor guardian."""
    desk.ok(desk.clinic, desk.signed(desk.grant(), "grant"))
    desk.ok(desk.clinic, desk.rekey())
    assert desk.no(desk.clinic, desk.signed(desk.grant(), "grant")) == "proof_invalid"
    guardian = desk.delegate(PatientSecrets.generate(desk.entropy))
    assert desk.no(desk.clinic, desk.signed(guardian, "delegate")) == "proof_invalid"


def test_a_request_is_answered_by_a_grant_that_names_it(desk: Desk) -> None:
    """Asking gives nothing; a reader named twice is a mistake."""
    wrap = Wrapped(grantee=bytes(16), wrapped=bytes(60))
    ask = AccessRequest(requester_key=bytes([5]) * 32, purpose="TREAT", until=0, wraps=(wrap,))
    twice = msgspec.structs.replace(ask, wraps=(wrap, wrap))
    assert desk.no(desk.clinic, twice) == "malformed"
    request = desk.ok(desk.clinic, ask)
    assert readers(desk.ward.view, PATIENT) == []
    grant = desk.ok(desk.clinic, desk.grant(), [request])
    row = delegation.REQUESTS.get(desk.ward.view, PATIENT, request)
    assert row is not None
    assert row.answer == grant


def test_a_facility_s_key_is_its_own(desk: Desk) -> None:
    """A place publishes its key; another place cannot take it, nor can a device without a place;
    each device named opens it, with the older ones, and nobody else does.
    """
    secrets = [bytes([n]) * 32 for n in (21, 22)]

    def body(epoch: int, place: str, *devices: Any) -> FacilityKey:
        held = secrets[: epoch + 1][::-1]
        wraps = tuple(
            wrap_facility_secrets(
                held, each.member.box_key, network=desk.ward.network, place=place, epoch=epoch
            )
            for each in devices
        )
        return FacilityKey(epoch=epoch, public=box_public(secrets[epoch]), wraps=wraps)

    first = body(0, "Mu", desk.clinic, desk.other)
    assert desk.no(desk.ward.device("nowhere"), first, (), b"") == "not_the_party"
    assert desk.no(desk.clinic, first) == "malformed"  # about a patient
    desk.ok(desk.clinic, first, (), b"")
    assert desk.no(desk.other, first, (), b"") == "not_the_party"
    second = body(1, "Mu", desk.clinic)
    desk.ok(desk.clinic, second, (), b"")
    assert current_facility_key(desk.ward.view, "Mu") == second.public
    assert facilities.facility_of(desk.ward.view, box_id(first.public)) == "Mu"
    where = {"network": desk.ward.network, "place": "Mu"}
    assert open_facility_secrets(second, desk.clinic.box_secret, **where) == secrets[::-1]
    assert open_facility_secrets(second, desk.other.box_secret, **where) == []


def test_a_policy_names_each_category_once(desk: Desk) -> None:
    """The newest policy of a place counts, whatever order they come in."""
    row = (Category.GENERAL, (Audience.FACILITY,))
    assert desk.no(desk.clinic, FacilityPolicy(rows=(row, row)), (), b"") == "malformed"
    desk.ok(desk.clinic, FacilityPolicy(rows=(row,)), (), b"")
    found = policy_of(desk.ward.view, "Mu")
    assert found[Category.GENERAL] == (Audience.DEVICE, Audience.FACILITY)
    assert found[Category.HIV_STI] == (Audience.DEVICE, Audience.EMERGENCY)
    assert policy_of(desk.ward.view, "Li")[Category.GENERAL] != found[Category.GENERAL]
