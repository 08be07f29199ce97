"""The frozen bytes of keys in several hands and of cards: what was printed stays readable."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmed.errors import DecodeError, Denied, InvalidTransaction
from p2pmed.identity.keys import public_key
from p2pmed.identity.shamir import SecretShare, join, split
from p2pmed.identity.stretching import Cost
from p2pmed.medical.privacy.cards import (
    CARD_TEXT_CHARS_MAX,
    Card,
    card_secret_key,
    fallback_number,
    open_master,
    parse_card,
    parse_emergency,
    print_card,
)
from p2pmed.medical.privacy.holding import (
    Holding,
    PatientSecrets,
    hold,
    join_master,
    open_share,
    open_vault,
)
from p2pmed.medical.privacy.locks import part_locked
from p2pmed.wire import base45, codec

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "vectors" / "card.json").read_text(encoding="utf-8")
)
NETWORK, PATIENT = (bytes.fromhex(VECTORS[name]) for name in ("network", "patient"))
SEED = bytes.fromhex(VECTORS["issuer_seed"])
WHERE = {"network": NETWORK, "patient": PATIENT}


def raw(*path: str) -> bytes:
    value: Any = VECTORS
    for name in path:
        value = value[name]
    return bytes.fromhex(value)


def card_of_vectors() -> Card:
    return Card(1, raw("card", "card"), raw("card", "secret"), PATIENT, 0)


@pytest.mark.parametrize("vector", VECTORS["base45"])
def test_base45_of_the_rfc(vector: list[str]) -> None:
    """RFC 9285's own examples, both ways."""
    assert base45.encode(bytes.fromhex(vector[0])) == vector[1]
    assert base45.decode(vector[1]) == bytes.fromhex(vector[0])


@pytest.mark.parametrize("text", VECTORS["hostile_base45"])
def test_base45_has_one_spelling(text: str) -> None:
    """Groups out of range, cut texts and other letters are refused."""
    with pytest.raises(DecodeError):
        base45.decode(text)


@given(st.binary(max_size=400))
def test_base45_comes_back(data: bytes) -> None:
    """What was encoded decodes to itself, in the alphabet of a QR code."""
    assert base45.decode(base45.encode(data)) == data


@given(st.text(alphabet=base45.ALPHABET, max_size=60))
def test_base45_never_decodes_two_texts_to_one(text: str) -> None:
    """Whatever decodes is what the encoder writes."""
    try:
        data = base45.decode(text)
    except DecodeError:
        return
    assert base45.encode(data) == text


def test_shares_of_the_first_version_join() -> None:
    """Any two of three give the frozen secret; one does not."""
    secret = raw("shares", "secret")
    shares = [SecretShare(x, bytes.fromhex(data)) for x, data in VECTORS["shares"]["points"]]
    for pair in combinations(shares, 2):
        assert join(pair) == secret
    assert join(shares[:1]) != secret


class Given:
    """Entropy out of a strategy: bytes in order, then zeros."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def token(self, size: int) -> bytes:
        taken, self._data = self._data[:size], self._data[size:]
        return taken.ljust(size, b"\0")


@given(
    st.binary(min_size=1, max_size=40),
    st.integers(1, 5),
    st.integers(0, 4),
    st.binary(min_size=200, max_size=200),
)
def test_any_threshold_of_shares_joins(
    secret: bytes, threshold: int, more: int, dice: bytes
) -> None:
    """For every threshold and count, every choice of so many shares gives the secret back."""
    count = threshold + more
    shares = split(secret, threshold=threshold, count=count, entropy=Given(dice))
    for chosen in list(combinations(shares, threshold))[:30]:
        assert join(list(reversed(chosen))) == secret


def test_one_share_says_nothing() -> None:
    """With two needed, one share fits every secret: for each byte, each value, one polynomial."""
    seen = {
        split(bytes([7]), threshold=2, count=2, entropy=Given(bytes([dice])))[0].data
        for dice in range(256)
    }
    assert len(seen) == 256


@pytest.mark.parametrize(("threshold", "count"), [(0, 3), (4, 3), (1, 256)])
def test_shares_that_cannot_be_made(threshold: int, count: int) -> None:
    """More are needed than there are, none at all, or more than the field has points."""
    with pytest.raises(InvalidTransaction):
        split(b"x", threshold=threshold, count=count, entropy=Given(b""))
    with pytest.raises(InvalidTransaction):
        join([SecretShare(1, b"a"), SecretShare(1, b"b")])


def test_a_vault_of_the_first_version_opens_to_two() -> None:
    """Any two custodians open the frozen holding; one is told how many are missing."""
    holding = codec.decode(raw("holding", "holding"), Holding)
    secrets = [bytes.fromhex(text) for text in VECTORS["holding"]["custodian_secrets"]]
    shares = [open_share(holding, secret, **WHERE) for secret in secrets]
    for pair in combinations(shares, 2):
        master = join_master(holding, pair)
        assert master == raw("holding", "master")
        opened = open_vault(holding, master, **WHERE)
        assert opened.pairs[0].box_secret == raw("holding", "box_secret")
        assert opened.pairs[0].sign_seed == raw("holding", "sign_seed")
    with pytest.raises(Denied, match="1 of 2"):
        join_master(holding, shares[:1])
    with pytest.raises(Denied):
        open_share(holding, bytes([9]) * 32, **WHERE)
    with pytest.raises(Denied):
        open_share(holding, secrets[0], network=NETWORK, patient=bytes(16))
    with pytest.raises(DecodeError):
        open_vault(holding, bytes(32), **WHERE)
    assert "secret" not in repr(opened)


def test_a_renewed_key_keeps_the_old_ones(entropy: Any) -> None:
    """The newest vault holds every generation, so that old records need no new wraps."""
    first = PatientSecrets.generate(entropy)
    second = first.renewed(entropy)
    keys = [public_key(bytes([n]) * 32) for n in range(3)]
    holding, master = hold(second, custodians=keys, entropy=entropy, **WHERE)
    assert holding.generation == 1
    opened = open_vault(holding, master, **WHERE)
    assert set(first.box_secrets()) < set(opened.box_secrets())
    assert first.sign_key != second.sign_key
    for wrong in ([], [keys[0], keys[0]], [*keys, bytes([9]) * 32]):
        with pytest.raises(InvalidTransaction):
            hold(second, custodians=wrong, entropy=entropy, **WHERE)


def test_a_card_of_the_first_version_reads_and_opens() -> None:
    """The frozen text has its length, its signature, its number, and its keys with and without
    a PIN; a wrong PIN opens nothing.
    """
    vector, card = VECTORS["card"], card_of_vectors()
    text = print_card(card, seed=SEED, issuer=public_key(SEED), network=NETWORK)
    assert text == vector["text"]
    assert len(text) < CARD_TEXT_CHARS_MAX
    signed = parse_card(text, network=NETWORK)
    assert (signed.card, signed.issuer) == (card, public_key(SEED))
    assert fallback_number(card.card) == vector["number"]
    assert card_secret_key(card, "", None) == raw("card", "key")
    cost = Cost(*vector["pin_cost"])
    secret = card_secret_key(card, vector["pin"], cost)
    assert secret == raw("card", "key_with_pin")
    assert open_master(raw("card", "master"), secret, **WHERE) == raw("holding", "master")
    with pytest.raises(Denied):
        open_master(raw("card", "master"), card_secret_key(card, "2469", cost), **WHERE)


@given(st.integers(0, 271), st.sampled_from(base45.ALPHABET))
def test_a_card_with_a_letter_changed_is_refused(place: int, letter: str) -> None:
    """No text but the printed one is a card; nor is it one of another network."""
    text = VECTORS["card"]["text"]
    place += len("P2PC1:")
    changed = text[:place] + letter + text[place + 1 :]
    if changed != text:
        with pytest.raises(DecodeError):
            parse_card(changed, network=NETWORK)
    with pytest.raises(DecodeError):
        parse_card(text, network=bytes(32))


def test_a_lock_of_the_first_version_opens() -> None:
    """The frozen locked key opens with its words, and with no others."""
    vector = VECTORS["lock"]
    lock, sealed = part_locked(raw("lock", "locked"))
    secret = lock.secret(vector["passphrase"])
    assert lock.open(sealed, secret, PATIENT, raw("lock", "key_id")) == raw("lock", "key")
    with pytest.raises(Denied):
        lock.secret("another")
    for hostile in (raw("lock", "locked")[:-1], b"\x02" + raw("lock", "locked")[1:]):
        with pytest.raises(DecodeError):
            part_locked(hostile)


def test_an_emergency_set_of_the_first_version_reads() -> None:
    """What saves a life is read without any key."""
    vector = VECTORS["emergency"]
    found, issuer = parse_emergency(vector["text"], network=NETWORK)
    assert issuer == public_key(SEED)
    assert (found.made, found.blood) == (vector["day"], vector["blood"])
    assert (list(found.allergies), list(found.drugs)) == (vector["allergies"], vector["drugs"])
    with pytest.raises(DecodeError):
        parse_card(vector["text"], network=NETWORK)
