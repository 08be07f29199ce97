"""The frozen bytes of sealed bodies, wraps and body kinds: what was written stays readable."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from p2pmed.errors import P2pmedError
from p2pmed.identity import sealing
from p2pmed.medical import consent, records
from p2pmed.medical.keyring import Category, CategoryKey, KeyRing
from p2pmed.medical.patients import registration_grant
from p2pmed.medical.sealed import Place, Sealed, commitment, open_body, seal_body
from p2pmed.testing.wrapping import SeededWrapper
from p2pmed.wire import codec

VECTORS = json.loads(
    (Path(__file__).parents[1] / "vectors" / "records.json").read_text(encoding="utf-8")
)
KEY = CategoryKey(
    category=Category(VECTORS["key"]["category"]),
    epoch=VECTORS["key"]["epoch"],
    key_id=bytes.fromhex(VECTORS["key"]["key_id"]),
    key=bytes.fromhex(VECTORS["key"]["key"]),
)
PLACE = Place(
    network=bytes.fromhex(VECTORS["network"]),
    patient=bytes.fromhex(VECTORS["patient"]),
    author=bytes.fromhex(VECTORS["author"]),
)


class Given:
    """Entropy that was written down."""

    def __init__(self, *tokens: str) -> None:
        self._tokens = [bytes.fromhex(token) for token in tokens]

    def token(self, size: int) -> bytes:
        token = self._tokens.pop(0)
        assert len(token) == size
        return token


@pytest.mark.parametrize("vector", VECTORS["sealed"], ids=lambda vector: vector["name"])
def test_sealed_bodies_open(vector: dict[str, Any]) -> None:
    """A body sealed by the first version opens, and each step gives the published bytes."""
    sealed = codec.decode(bytes.fromhex(vector["body"]), Sealed)
    opened = open_body(sealed, key=KEY, place=PLACE)
    assert opened.resource.decode() == vector["resource"]
    assert (opened.type, opened.occurred_ms) == (vector["type"], vector["occurred_ms"])
    committed = commitment(opened.salt, opened.resource)
    assert committed.hex() == vector["commitment"]
    derived = sealing.derive(
        KEY.key, salt=bytes.fromhex(vector["nonce"]), info=b"p2pmed/1 record" + committed
    )
    assert derived.hex() == vector["derived"]
    padded = sealing.open_sealed(
        derived[:32], derived[32:56], sealed.data, bytes.fromhex(vector["associated"])
    )
    assert padded.hex() == vector["padded"]


def test_sealing_gives_the_frozen_bytes() -> None:
    """The same entropy gives the same body; only a deflated one may differ by zlib's version."""
    vector = VECTORS["sealed"][0]
    draft = seal_body(
        vector["resource"].encode(),
        kind=vector["type"],
        key=KEY,
        place=PLACE,
        entropy=Given(vector["salt"], vector["nonce"]),
        occurred_ms=vector["occurred_ms"],
    )
    assert codec.encode(draft.named()).hex() == vector["body"]


@pytest.mark.parametrize("vector", VECTORS["hostile"], ids=lambda vector: vector["why"])
def test_hostile_bodies_are_refused(vector: dict[str, Any]) -> None:
    """Each refused body is refused by an error of ours, before or while it is opened."""
    with pytest.raises(P2pmedError):
        open_body(codec.decode(bytes.fromhex(vector["body"]), Sealed), key=KEY, place=PLACE)


def test_wrapped_keys_open() -> None:
    """A wrap of the first version opens, and a known ephemeral key gives its bytes again."""
    vector = VECTORS["wrap"]
    where = {"network": PLACE.network, "purpose": vector["purpose"]}
    ring = KeyRing.open(
        bytes.fromhex(vector["wrapped"]),
        bytes.fromhex(vector["grantee_secret"]),
        patient=PLACE.patient,
        **where,
    )
    held = [[key.category.value, key.epoch, key.key_id.hex(), key.key.hex()] for key in ring]
    assert held == vector["keys"]
    wrapped = ring.wrap(
        bytes.fromhex(vector["grantee_key"]),
        wrapper=SeededWrapper(Given(vector["ephemeral_secret"])),
        **where,
    )
    assert wrapped.wrapped.hex() == vector["wrapped"]
    assert wrapped.grantee.hex() == vector["grantee"]


def test_grant_of_a_registration() -> None:
    """The id by which a first reader is revoked."""
    vector = VECTORS["registration_grant"]
    made = registration_grant(
        bytes.fromhex(vector["registration"]), bytes.fromhex(vector["grantee"])
    )
    assert made.hex() == vector["id"]


def test_every_kind_has_its_frozen_spelling() -> None:
    """Decoding and encoding a body of each kind gives the published bytes."""
    kinds = {kind.name: kind for kind in (*records.KINDS, *consent.KINDS)}
    assert set(VECTORS["bodies"]) == set(kinds)
    for name, spelled in VECTORS["bodies"].items():
        body = codec.decode(bytes.fromhex(spelled), kinds[name].body)
        assert codec.encode(body).hex() == spelled
