"""Certificates: a quorum of distinct seats over one byte string, or nothing."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_ledger import Device, devices

from p2pmed.errors import CredentialError, DecodeError, LocalProtocolError
from p2pmed.limits import VALIDATORS_MAX
from p2pmed.quorum.certificate import (
    Certificate,
    Epoch,
    Validator,
    VoteKind,
    check_certificate,
    decode_certificate,
    make_certificate,
    quorum_size,
    vote_bytes,
)
from p2pmed.wire import codec, cose
from p2pmed.wire.hashing import hash_bytes

DIGEST = hash_bytes(b"a block")
SEATS = devices(7)


def epoch_of(seats: list[Device], liars: int = 0, **fields: Any) -> Epoch:
    values: dict[str, Any] = {
        "ledger": hash_bytes(b"a ledger"),
        "number": 0,
        "liars": liars,
        "validators": tuple(Validator(node=d.key, vote_key=d.vote_key) for d in seats),
    }
    return Epoch(**{**values, **fields})


def certificate_of(
    epoch: Epoch,
    seats: list[Device],
    signers: list[int],
    *,
    kind: VoteKind = VoteKind.FINALIZE,
    digest: bytes = DIGEST,
    view: int = 5,
) -> Certificate:
    message = vote_bytes(epoch.ledger, epoch.number, kind, view, digest)
    votes = [(seat, seats[seat].vote(message)) for seat in signers]
    return make_certificate(epoch, kind, view, digest, votes)


def changed(certificate: Certificate, **fields: Any) -> Certificate:
    return msgspec.structs.replace(certificate, **fields)


@given(count=st.integers(1, VALIDATORS_MAX))
def test_two_quorums_share_an_honest_seat(count: int) -> None:
    """For every f that is allowed: two quorums overlap in f + 1, and the honest are a quorum."""
    for liars in range((count - 1) // 3 + 1):
        quorum = quorum_size(count, liars)
        assert 2 * quorum - count >= liars + 1
        assert quorum <= count - liars


@pytest.mark.parametrize(
    ("members", "liars", "quorum"),
    [(1, 0, 1), (2, 0, 2), (3, 0, 2), (4, 0, 3), (4, 1, 3), (5, 1, 4), (7, 2, 5), (20, 6, 14)],
)
def test_quorums_as_they_are_written_down(members: int, liars: int, quorum: int) -> None:
    """The table of the protocol page."""
    assert quorum_size(members, liars) == quorum


def test_every_quorum_and_no_fewer_make_a_certificate() -> None:
    """Of seven seats with two liars, any five; any four are too few."""
    epoch = epoch_of(SEATS, liars=2)
    for chosen in combinations(range(7), 5):
        check_certificate(certificate_of(epoch, SEATS, list(chosen)), epoch)
    for chosen in combinations(range(7), 4):
        with pytest.raises(CredentialError):
            check_certificate(certificate_of(epoch, SEATS, list(chosen)), epoch)


def test_signatures_stand_in_the_order_of_the_seats() -> None:
    """Votes may be collected in any order; the certificate is the same bytes."""
    epoch = epoch_of(SEATS, liars=2)
    one = certificate_of(epoch, SEATS, [0, 2, 3, 5, 6])
    two = certificate_of(epoch, SEATS, [6, 0, 5, 2, 3])
    assert codec.encode(one) == codec.encode(two)
    assert one.signers == 0b1101101
    assert decode_certificate(codec.encode(one)) == one


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("ledger", bytes(32)),
        ("epoch", 1),
        ("kind", int(VoteKind.NOTARIZE)),
        ("view", 6),
        ("digest", bytes(32)),
        ("signers", 0b0111110),
    ],
)
def test_votes_hold_for_what_they_were_given_for(field: str, value: Any) -> None:
    """Another ledger, epoch, kind, view, block or seat: the signatures do not hold for it."""
    epoch = epoch_of(SEATS, liars=2)
    certificate = certificate_of(epoch, SEATS, [0, 1, 2, 3, 4])
    with pytest.raises(CredentialError):
        check_certificate(changed(certificate, **{field: value}), epoch)


def test_a_seat_counts_once() -> None:
    """One vote twice, or one seat's vote in another's place, is no quorum."""
    epoch = epoch_of(SEATS, liars=2)
    good = certificate_of(epoch, SEATS, [0, 1, 2, 3, 4])
    first, second, *rest = good.signatures
    for signatures in ((first, first, *rest), (second, first, *rest)):
        with pytest.raises(CredentialError):
            check_certificate(changed(good, signatures=signatures), epoch)


def test_bitmap_and_signatures_must_match() -> None:
    """A signer too many, one outside the mesh, or a signature too few is refused."""
    epoch = epoch_of(SEATS, liars=2)
    good = certificate_of(epoch, SEATS, [0, 1, 2, 3, 4])
    for wrong in (
        changed(good, signers=0b0111111),
        changed(good, signers=0b0001111),
        changed(good, signers=0b10001111),
        changed(good, signatures=good.signatures[:-1]),
    ):
        with pytest.raises(CredentialError):
            check_certificate(wrong, epoch)


def test_a_nullified_view_has_no_digest_and_everything_else_has_one() -> None:
    """An empty digest fits ``NULLIFY`` only."""
    epoch = epoch_of(SEATS, liars=2)
    seats = [0, 1, 2, 3, 4]
    nullified = certificate_of(epoch, SEATS, seats, kind=VoteKind.NULLIFY, digest=b"")
    check_certificate(nullified, epoch)
    for kind, digest in (
        (VoteKind.NULLIFY, DIGEST),
        (VoteKind.FINALIZE, b""),
        (VoteKind.NOTARIZE, b""),
        (VoteKind.FINALIZE, DIGEST[:31]),
    ):
        with pytest.raises(CredentialError):
            check_certificate(certificate_of(epoch, SEATS, seats, kind=kind, digest=digest), epoch)


def test_the_signature_check_is_the_one_handed_in() -> None:
    """The simulator's cheap check is asked with the seat's vote key and the one byte string."""
    epoch = epoch_of(SEATS, liars=2)
    certificate = certificate_of(epoch, SEATS, [0, 1, 2, 3, 4])
    asked: list[bytes] = []

    def verify(key: bytes, signature: bytes, message: bytes) -> bool:
        asked.append(key)
        return cose.verify(key, signature, message)

    check_certificate(certificate, epoch, verify=verify)
    assert asked == [SEATS[seat].vote_key for seat in range(5)]
    with pytest.raises(CredentialError):
        check_certificate(certificate, epoch, verify=lambda *_: False)


def test_an_epoch_that_cannot_be_is_refused() -> None:
    """Too many liars, a device in two seats, one vote key for two."""
    epoch_of(SEATS, liars=2).check()
    twice = epoch_of([SEATS[0], SEATS[0], SEATS[1]])
    shared = msgspec.structs.replace(SEATS_EPOCH.validators[0], vote_key=SEATS[1].vote_key)
    for wrong in (
        epoch_of(SEATS, liars=3),
        twice,
        epoch_of([], validators=(shared, *SEATS_EPOCH.validators[1:])),
    ):
        with pytest.raises(LocalProtocolError):
            wrong.check()


SEATS_EPOCH = epoch_of(SEATS, liars=2)


def test_bytes_that_are_no_certificate_are_refused() -> None:
    """Strict decoding: no signer, an unknown kind, a short signature, a field too many."""
    plain = codec.plain(certificate_of(SEATS_EPOCH, SEATS, [0, 1, 2, 3, 4]))
    assert codec.convert(plain, Certificate)
    for place, value in ((2, 0), (2, 4), (5, 0), (5, 2**20), (6, []), (6, [b"short"])):
        wrong = list(plain)
        wrong[place] = value
        with pytest.raises(DecodeError):
            codec.convert(wrong, Certificate)
    with pytest.raises(DecodeError):
        codec.convert([*plain, 0], Certificate)
