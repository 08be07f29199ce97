"""A key that nobody holds: what two holders open together, and one or three wrong ones do not."""

from __future__ import annotations

import itertools
import secrets

import pytest

from p2pmed.errors import DecodeError, Denied, InvalidTransaction
from p2pmed.identity import sealing
from p2pmed.identity.joint import JointSecret, combine, deal, partial


class Dice:
    """Real entropy: nothing here is compared with a frozen byte."""

    def token(self, count: int) -> bytes:
        return secrets.token_bytes(count)


def joint(public: bytes, shares: dict[int, bytes]) -> JointSecret:
    holders = {
        point: lambda ephemeral, share=share: partial(share, ephemeral)
        for point, share in shares.items()
    }
    return JointSecret(public, holders)


def test_any_two_of_four_open_what_plain_hpke_wrapped() -> None:
    """The public half is an ordinary X25519 key: the wrap is made by the library that knows
    nothing of shares, and each pair of holders opens it.
    """
    public, shares = deal(threshold=2, count=4, entropy=Dice())
    wrapped = sealing.wrap(public, b"the keys", domain="keys", context=(b"net", "purpose"))
    for pair in itertools.combinations(range(1, 5), 2):
        secret = joint(public, {point: shares[point - 1] for point in pair})
        assert sealing.unwrap(secret, wrapped, domain="keys", context=(b"net", "purpose")) == (
            b"the keys"
        )
        with pytest.raises(Denied):
            secret.unwrap(wrapped, domain="keys", context=(b"net", "other"))


def test_three_of_five_need_three() -> None:
    """With a threshold of three, two open nothing."""
    public, shares = deal(threshold=3, count=5, entropy=Dice())
    wrapped = sealing.wrap(public, b"x", domain="keys", context=())
    assert joint(public, dict(enumerate(shares[:3], 1))).unwrap(
        wrapped, domain="keys", context=()
    ) == (b"x")
    with pytest.raises(Denied):
        joint(public, dict(enumerate(shares[:2], 1))).unwrap(wrapped, domain="keys", context=())


def test_one_share_and_partials_of_another_wrap_open_nothing() -> None:
    """What a holder gave for one patient's wrap is of no use for another's."""
    public, shares = deal(threshold=2, count=3, entropy=Dice())
    first, second = (
        sealing.wrap(public, text, domain="keys", context=()) for text in (b"one", b"two")
    )
    with pytest.raises(Denied):
        joint(public, {1: shares[0]}).unwrap(first, domain="keys", context=())
    given = {point: partial(shares[point - 1], first[1:33]) for point in (1, 2)}
    replayed = JointSecret(
        public, {point: lambda _, part=part: part for point, part in given.items()}
    )
    assert replayed.unwrap(first, domain="keys", context=()) == b"one"
    with pytest.raises(Denied):
        replayed.unwrap(second, domain="keys", context=())


@pytest.mark.parametrize("low", [bytes(32), b"\x01" + bytes(31), b"\xec" + b"\xff" * 30 + b"\x7f"])
def test_crafted_points_are_refused(low: bytes) -> None:
    """A point of low order would leak a share's last bits: no partial is given for one."""
    _, shares = deal(threshold=2, count=2, entropy=Dice())
    with pytest.raises(DecodeError):
        partial(shares[0], low)
    with pytest.raises(DecodeError):
        combine({1: low, 2: low})


def test_half_of_all_coordinates_are_on_the_other_curve_and_refused() -> None:
    """A coordinate that is not of the group is told; whatever is accepted is a group element."""
    _, shares = deal(threshold=2, count=2, entropy=Dice())
    refused = 0
    for _ in range(64):
        try:
            partial(shares[0], secrets.token_bytes(31) + b"\x00")
        except DecodeError:
            refused += 1
    assert refused > 32


@pytest.mark.parametrize(("threshold", "count"), [(1, 3), (3, 2), (2, 33), (0, 0)])
def test_other_numbers_are_refused(threshold: int, count: int) -> None:
    """One holder alone would be a key in one hand."""
    with pytest.raises(InvalidTransaction):
        deal(threshold=threshold, count=count, entropy=Dice())
