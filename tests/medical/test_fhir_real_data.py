"""Real documents: split, sealed, opened and joined, they are equal to what came in.

The data is found through ``P2PMED_DATA`` or in ``shared/data`` beside the checkout.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from p2pmed.errors import InvalidTransaction
from p2pmed.medical.fhir import (
    BUNDLE_BYTES_MAX,
    Bundle,
    canonical_json,
    gunzip_bounded,
    join_bundle,
    read_resource,
    split_bundle,
)
from p2pmed.medical.keyring import KeyRing
from p2pmed.medical.records import Place, open_record, seal_record
from p2pmed.wire import codec

DATA = Path(
    os.environ.get("P2PMED_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data"
)
PATIENT = b"\x01" * 16
PLACE = Place(network=b"n" * 32, patient=PATIENT, author=b"a" * 32)

pytestmark = pytest.mark.skipif(
    not DATA.is_dir(), reason=f"no sample documents in {DATA.name}; set P2PMED_DATA"
)


def _files(folder: str, pattern: str, expected: int) -> list[Path]:
    found = sorted((DATA / folder).rglob(pattern))
    if not found:
        pytest.skip(f"no {folder} among the sample documents")
    assert len(found) >= expected
    return found


def _through_the_ledger(resource: Any, ring: KeyRing, entropy: Any, carried: list[bytes]) -> bytes:
    """Seal, carry as bytes, decode, open."""
    draft = seal_record(resource, ring=ring, place=PLACE, entropy=entropy)
    body = draft.added([bytes(32)] * len(draft.parts))
    raw = codec.encode(body)
    carried += (raw, *(codec.encode(part) for part in draft.parts))
    opened = open_record(
        codec.decode(raw, type(body)).sealed, ring=ring, place=PLACE, parts=draft.parts
    )
    assert (opened.type, opened.occurred_ms) == (resource.type, resource.occurred_ms)
    return opened.resource


def _round_trip(bundle: Bundle, ring: KeyRing, entropy: Any, carried: list[bytes]) -> bytes:
    opened = [
        _through_the_ledger(entry.resource, ring, entropy, carried) for entry in bundle.entries
    ]
    return join_bundle(_through_the_ledger(bundle.skeleton(), ring, entropy, carried), opened)


@pytest.fixture
def ring(entropy: Any) -> KeyRing:
    return KeyRing.generate(PATIENT, entropy)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            if key in ("family", "display", "text") and isinstance(item, str):
                yield item
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def test_synthea_patients_come_back_equal(ring: KeyRing, entropy: Any) -> None:
    """Ten patients, whole lives: equal in canonical form, and no name or diagnosis carried."""
    for path in _files("synthea-r4/patients", "*.json.gz", 186)[:10]:
        raw = gunzip_bounded(path.read_bytes(), BUNDLE_BYTES_MAX)
        carried: list[bytes] = []
        back = _round_trip(split_bundle(raw), ring, entropy, carried)
        assert canonical_json(back) == canonical_json(raw)
        assert back == raw
        wire = b"".join(carried)
        canaries = {text for text in _texts(json.loads(raw)) if len(text) > 5}
        assert len(canaries) > 20
        assert not [text for text in canaries if text.encode() in wire]


def test_hospitals_and_practitioners_come_back_equal(ring: KeyRing, entropy: Any) -> None:
    """The bundles that the patients' point to."""
    for path in _files("synthea-r4", "*Information*.json.gz", 2):
        raw = gunzip_bounded(path.read_bytes(), BUNDLE_BYTES_MAX)
        bundle = split_bundle(raw)
        assert len(bundle.entries) == 102
        assert _round_trip(bundle, ring, entropy, []) == raw


@pytest.mark.parametrize(
    ("folder", "expected"), [("hl7-fhir-r4-examples", 386), ("hl7-ips-2.0.0", 31)]
)
def test_hl7_examples_come_back_equal(
    folder: str, expected: int, ring: KeyRing, entropy: Any
) -> None:
    """Every official example comes back byte for byte; none is refused."""
    bundles = 0
    for path in _files(folder, "*.json", expected):
        raw = path.read_bytes()
        resource = read_resource(raw)
        assert _through_the_ledger(resource, ring, entropy, []) == raw
        if resource.type == "Bundle":
            bundles += 1
            back = _round_trip(split_bundle(raw), ring, entropy, [])
            assert canonical_json(back) == canonical_json(raw)
            assert back == raw
    assert bundles >= 3


def test_a_file_cut_short_is_told_so() -> None:
    """A stick pulled out too early: the import says what to do, whatever byte was the last."""
    path = _files("synthea-r4/patients", "*.json.gz", 186)[0]
    packed = path.read_bytes()
    for size in (10, 11, 1000, len(packed) // 2, len(packed) - 8, len(packed) - 1):
        with pytest.raises(InvalidTransaction, match="cut short"):
            gunzip_bounded(packed[:size], BUNDLE_BYTES_MAX)
    raw = gunzip_bounded(packed, BUNDLE_BYTES_MAX)
    for size in range(1, len(raw), len(raw) // 50):
        with pytest.raises(InvalidTransaction):
            split_bundle(raw[:size])
