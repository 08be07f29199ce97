"""A person's own signature beside the device's."""

from __future__ import annotations

import pickle

import msgspec
import pytest

from p2pmed.errors import CredentialError, DecodeError
from p2pmed.identity.persons import PersonKeys, check_countersignature

NETWORK, OTHER = b"n" * 32, b"o" * 32
DIGEST = b"d" * 32


class Counting:
    """Entropy that never repeats."""

    def __init__(self) -> None:
        self.count = 0

    def token(self, size: int) -> bytes:
        self.count += 1
        return self.count.to_bytes(size, "big")


def test_a_word_names_the_person_who_gave_it():
    """A countersignature holds for its purpose, network and digest, and names its signer."""
    keys = PersonKeys.generate(Counting())
    word = keys.countersign(NETWORK, "checklist", DIGEST)
    assert check_countersignature(word, NETWORK, "checklist", DIGEST) == keys.person


@pytest.mark.parametrize(
    ("network", "purpose", "digest"),
    [(OTHER, "checklist", DIGEST), (NETWORK, "emergency", DIGEST), (NETWORK, "checklist", OTHER)],
)
def test_a_word_counts_for_nothing_else(network, purpose, digest):
    """Moved to another network, purpose or content, it is refused."""
    word = PersonKeys.generate(Counting()).countersign(NETWORK, "checklist", DIGEST)
    with pytest.raises(CredentialError):
        check_countersignature(word, network, purpose, digest)


def test_nobody_speaks_for_another():
    """A signature under one's own key does not pass as another's."""
    entropy = Counting()
    one, two = PersonKeys.generate(entropy), PersonKeys.generate(entropy)
    word = one.countersign(NETWORK, "checklist", DIGEST)
    forged = msgspec.structs.replace(word, signer=two.person)
    with pytest.raises(CredentialError):
        check_countersignature(forged, NETWORK, "checklist", DIGEST)


def test_secrets_come_back_and_never_show():
    """Keys survive their secret bytes; ``repr`` shows no secret; pickling is refused."""
    keys = PersonKeys.generate(Counting())
    again = PersonKeys.from_secret_bytes(keys.to_secret_bytes())
    assert (again.person, again.box_public) == (keys.person, keys.box_public)
    assert keys.signing_seed.hex() not in repr(keys)
    with pytest.raises(TypeError):
        pickle.dumps(keys)
    with pytest.raises(DecodeError, match="not a person's keys"):
        PersonKeys.from_secret_bytes(keys.to_secret_bytes()[:-1])
