"""What a full raw copy tells who holds no key: attacks with all the knowledge there could be.

The attacker has every transaction, knows how frequent every name is among exactly these people,
and guesses as well as arithmetic allows. The bounds asserted here are those that
``docs/explanation/who-can-link-what.md`` states.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from math import exp, lgamma, log

import pytest

from p2pmed.bench.people import Villager, villagers
from p2pmed.medical.keyring import Category, CategoryKey
from p2pmed.medical.privacy import blind_index
from p2pmed.medical.privacy.blind_index import PERSON_TOKENS, SPREAD, TOKEN_BYTES, Field
from p2pmed.medical.privacy.names import name_words, sounds
from p2pmed.medical.privacy.terms import person_terms
from p2pmed.testing.clock import SimEntropy

PEOPLE = 6_000
KEY = CategoryKey(
    category=Category.DEMOGRAPHICS,
    epoch=0,
    key_id=bytes(16),
    key=b"nobody has this key outside.... ",
)


@pytest.fixture(scope="module")
def people() -> list[Villager]:
    """One county's people, family names as uneven as they are."""
    return villagers(PEOPLE, seed=11)


def raw_copy(people: list[Villager]) -> list[list[bytes]]:
    """Every person's tokens, as they stand in the ledger."""
    dice = SimEntropy(b"the nodes' own")
    copies = []
    for person in people:
        tokens = blind_index.drawn_tokens(
            KEY, person_terms(person.to_fhir()), count=PERSON_TOKENS, entropy=dice
        )
        copies.append([tokens[i : i + TOKEN_BYTES] for i in range(0, len(tokens), TOKEN_BYTES)])
    return copies


def family_code(person: Villager) -> str:
    return sounds(name_words(person.family)[0])[-1]


def guesses(copies: list[list[bytes]], shares: Mapping[str, int], spread: int) -> list[str]:
    """The likeliest family name of each person, by how often each of its tokens occurs.

    Bayes: a name's share, times how much better it explains the count of one of the tokens
    (Poisson about its share over ``spread``) than tokens at large do.
    """
    counts = Counter(token for tokens in copies for token in tokens)
    seen = Counter(counts[token] for tokens in copies for token in tokens)
    everything = sum(seen.values())
    table = {}
    for count, often in seen.items():
        at_large = often / everything
        table[count] = {
            code: _poisson(count - 1, share / spread) / at_large for code, share in shares.items()
        }
    guessed = []
    for tokens in copies:
        weights = {
            code: share * sum(table[counts[token]][code] for token in tokens)
            for code, share in shares.items()
        }
        guessed.append(max(weights, key=lambda code: (weights[code], code)))
    return guessed


def _poisson(count: int, mean: float) -> float:
    return exp(count * log(mean) - mean - lgamma(count + 1))


def success(people: list[Villager], spread: int) -> tuple[float, float]:
    """Share of family names guessed right, and by who guesses the commonest for everybody."""
    truth = [family_code(person) for person in people]
    shares = Counter(truth)
    guessed = guesses(raw_copy(people), shares, spread)
    right = sum(guess == true for guess, true in zip(guessed, truth, strict=True))
    return right / len(truth), shares.most_common(1)[0][1] / len(truth)


def test_frequencies_of_tokens_hardly_tell_a_family_name(people: list[Villager]) -> None:
    """Against a raw copy the best guess is at most 2 points better than the commonest name."""
    found, blind = success(people, SPREAD[Field.WORD])
    assert found <= blind + 0.02, (found, blind)


def test_the_attack_works_where_tokens_are_not_spread(
    people: list[Villager], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same attack names many people if each name has one token: it is the spread that helps."""
    monkeypatch.setattr(blind_index, "SPREAD", dict.fromkeys(Field, 1))
    found, blind = success(people, 1)
    assert found >= blind + 0.4, (found, blind)


def test_equal_tokens_hardly_tell_relatives(people: list[Villager]) -> None:
    """Of pairs that share a token, few share the family name more than by chance.

    What a shared token does tell: the two share some term. It is stated, and bounded here by
    how many of the pairs with one family name an attacker finds.
    """
    copies = raw_copy(people)
    bearers: dict[bytes, list[int]] = {}
    for number, tokens in enumerate(copies):
        for token in tokens:
            bearers.setdefault(token, []).append(number)
    truth = [family_code(person) for person in people]
    dice = random.Random(5)
    same = [
        (one, other)
        for one, other in (dice.sample(range(PEOPLE), 2) for _ in range(40_000))
        if truth[one] == truth[other]
    ]
    shared = sum(not set(copies[one]).isdisjoint(copies[other]) for one, other in same)
    assert len(same) > 500
    assert shared / len(same) <= 0.05, shared / len(same)


def test_nobody_is_told_by_the_number_of_tokens(people: list[Villager]) -> None:
    """One size for all: a person with a telephone and two names, and one without either."""
    assert {len(tokens) for tokens in raw_copy(people[:300])} == {PERSON_TOKENS}


def test_a_search_rarely_meets_a_foreign_token(people: list[Villager]) -> None:
    """Collisions of five bytes: in a county of 50,000 fewer than one search in a hundred."""
    tokens = 50_000 * PERSON_TOKENS
    asked = SPREAD[Field.LETTERS] + 2 * SPREAD[Field.SOUNDS] + 2 * SPREAD[Field.WORD]
    expected = asked * tokens / 256**TOKEN_BYTES
    assert expected < 0.01
    copies = raw_copy(people[:2_000])
    bearers = Counter(token for tokens in copies for token in tokens)
    strange = blind_index.query_tokens(KEY, Field.WORD, "nobody is called this")
    assert sum(bearers[token] for token in strange) == 0
