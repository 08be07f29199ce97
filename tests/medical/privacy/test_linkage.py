"""What time, length and author tell of two pseudonyms: an attack on a raw copy, and its bound.

Signed transactions of one clinic: each visit is a sealed record under the pseudonym of care,
each export a sealed record under that of an insurer. The attacker sees envelopes and lengths.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import pytest

from p2pmed.medical.consent import Purpose
from p2pmed.medical.fhir import read_resource
from p2pmed.medical.keyring import KeyRing
from p2pmed.medical.privacy.pseudonyms import mixed, purpose_pseudonym
from p2pmed.medical.records import Place, seal_record
from p2pmed.testing.clock import SimEntropy
from p2pmed.wire import codec

DAYS, A_DAY = 20, 30
MINUTE = 60_000
DAY = 24 * 60 * MINUTE
NETWORK, AUTHOR = bytes(32), b"a" * 32


@dataclass(frozen=True)
class Seen:
    """What a raw copy shows of a transaction."""

    subject: bytes
    at_ms: int
    size: int
    truth: int
    """Whose it is: for counting only."""


def sealed_size(ring: KeyRing, subject: bytes, lines: int, entropy: SimEntropy) -> int:
    resource = msgspec.json.encode(
        {"resourceType": "Encounter", "note": [{"text": "examined, advised. "}] * lines}
    )
    place = Place(network=NETWORK, patient=subject, author=AUTHOR)
    draft = seal_record(read_resource(resource), ring=ring, place=place, entropy=entropy)
    return len(codec.encode(draft.added()))


def clinic(send: str, seed: int) -> tuple[list[Seen], list[Seen]]:
    """Visits and exports of ``DAYS`` days, as they stand in the ledger, in its order."""
    dice, entropy = random.Random(seed), SimEntropy(bytes([seed]))
    visits: list[Seen] = []
    exports: list[Seen] = []
    for day in range(DAYS):
        batch: list[Seen] = []
        at = day * DAY + 8 * 60 * MINUTE
        for number in range(A_DAY):
            at += dice.randrange(5, 18) * MINUTE
            who, lines = day * A_DAY + number, dice.randrange(1, 6)
            patient = entropy.token(16)
            ring = KeyRing.generate(patient, entropy)
            insured = purpose_pseudonym(ring, Purpose.PAYMENT, "insurer")
            size = sealed_size(ring, patient, lines, entropy)
            visits.append(Seen(patient, at, size, who))
            later = at + MINUTE if send == "each" else (day + 1) * DAY
            batch.append(Seen(insured, later, sealed_size(ring, insured, 2, entropy), who))
        exports += mixed(batch, lambda one: one.subject) if send == "mixed" else batch
    return visits, exports


def by_time(visits: list[Seen], export: Seen, rank: int) -> Seen:
    """The last visit before it."""
    return max((one for one in visits if one.at_ms < export.at_ms), key=lambda one: one.at_ms)


def by_rank(visits: list[Seen], export: Seen, rank: int) -> Seen:
    """The visit of the same place in the order of its day."""
    day = [one for one in visits if export.at_ms - DAY <= one.at_ms < export.at_ms]
    return day[rank % len(day)]


def by_size(visits: list[Seen], export: Seen, rank: int) -> Seen:
    """Among the visits of the day, the nearest in length; the first of several."""
    day = [one for one in visits if export.at_ms - DAY <= one.at_ms < export.at_ms]
    return min(day, key=lambda one: abs(one.size - export.size))


Attack = Callable[[list[Seen], Seen, int], Seen]


def success(send: str, attack: Attack, seed: int = 1) -> float:
    visits, exports = clinic(send, seed)
    right = sum(
        attack(visits, export, rank).truth == export.truth for rank, export in enumerate(exports)
    )
    return right / len(exports)


def test_what_follows_its_visit_at_once_is_linked() -> None:
    """The attack works: sent each after its visit, pseudonyms hide nobody."""
    assert success("each", by_time) > 0.95


def test_what_is_sent_in_the_order_of_the_visits_is_linked() -> None:
    """A batch alone does not help: its order is that of the day."""
    assert success("batch", by_rank) > 0.95


@pytest.mark.parametrize("attack", [by_time, by_rank, by_size])
def test_what_is_sent_mixed_hides_among_its_day(attack: Attack) -> None:
    """At most 10 %, where a random guess among the day's patients has 3.3 %."""
    assert success("mixed", attack) <= 0.10


def test_no_pseudonym_of_one_purpose_occurs_in_another() -> None:
    """Nothing joins the two but time: no subject of a visit is the subject of an export."""
    visits, exports = clinic("mixed", 2)
    assert {one.subject for one in visits}.isdisjoint(one.subject for one in exports)
