"""Cards that others signed, read with public keys only: the published vectors and forgeries.

The vectors are found through ``P2PMED_DATA`` or in ``shared/data`` beside the checkout.
"""

from __future__ import annotations

import base64
import json
import os
import zlib
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmed.errors import ConfigError, CredentialError, DecodeError
from p2pmed.medical.fhir import read_resource
from p2pmed.medical.foreign import Issuers, read_card, read_certificate, read_jwks
from p2pmed.medical.foreign.card import CARD_BYTES_MAX, inflated

DATA = Path(
    os.environ.get("P2PMED_DATA") or Path(__file__).resolve().parents[4] / "shared" / "data"
)
SMART, DCC = DATA / "smart-health-cards", DATA / "eu-dcc-testdata"
needs_data = pytest.mark.skipif(
    not SMART.is_dir() or not DCC.is_dir(), reason="no sample cards; set P2PMED_DATA"
)
NOW = 1_780_000_000_000
CERTIFICATES = sorted(DCC.glob("*/*.json"))


def smart_issuers() -> Issuers:
    return Issuers(read_jwks((SMART / "issuer" / "jwks.json").read_bytes(), name="example"))


def text(name: str) -> str:
    return (SMART / name).read_text(encoding="ascii")


def certificate(case: dict) -> Issuers:
    return Issuers([read_certificate(base64.b64decode(case["TESTCTX"]["CERTIFICATE"]))])


@needs_data
@pytest.mark.parametrize("form", ["d-jws.txt", "f-qr-code-numeric-value-0.txt"])
def test_a_smart_card_verifies_as_jws_and_as_qr(form):
    """The framework's example 00 gives its patient and three immunizations from either form."""
    card = read_card([text(f"example-00-{form}")], smart_issuers(), at_ms=NOW)
    bundle = json.loads(text("example-00-c-jws-payload-minified.json"))["vc"]["credentialSubject"]
    inside = [entry["resource"] for entry in bundle["fhirBundle"]["entry"]]
    assert [json.loads(card.patient), *map(json.loads, card.resources)] == inside
    assert (card.format, card.expired) == ("smart-health-card", False)


@needs_data
def test_a_card_in_chunks_is_joined_in_any_order():
    """Example 02, a whole IPS in three QR codes; a missing or doubled chunk is refused."""
    chunks = [text(f"example-02-f-qr-code-numeric-value-{n}.txt") for n in (2, 0, 1)]
    card = read_card(chunks, smart_issuers(), at_ms=NOW)
    assert json.loads(card.patient)["resourceType"] == "Patient"
    assert len(card.resources) > 5
    for wrong in (chunks[:2], [chunks[0], chunks[1], chunks[1]]):
        with pytest.raises(DecodeError, match="chunk"):
            read_card(wrong, smart_issuers(), at_ms=NOW)


@needs_data
def test_a_smart_card_of_an_unknown_or_other_key_is_refused():
    """No key, or a changed payload: nobody believed signed it."""
    jws = text("example-00-d-jws.txt").strip()
    with pytest.raises(CredentialError, match="nobody"):
        read_card([jws], Issuers([]), at_ms=NOW)
    head, payload, signature = jws.split(".")
    other = signature[:-4] + ("AAAA" if not signature.endswith("AAAA") else "BBBB")
    for forged in (f"{head}.{payload}.{other}", f"{head}.{payload[:-4]}AAAA.{signature}"):
        with pytest.raises(CredentialError, match="does not hold"):
            read_card([forged], smart_issuers(), at_ms=NOW)


@needs_data
def test_a_revoked_card_is_refused_and_a_later_one_is_not():
    """A revocation by ``rid`` holds; one with seconds speaks of cards issued before only."""
    jws = text("example-00-d-jws.txt")
    rid = json.loads(text("example-00-c-jws-payload-minified.json"))["vc"]["rid"]
    for line in (rid, f"{rid}.4000000000"):
        with pytest.raises(CredentialError, match="revoked"):
            read_card([jws], smart_issuers(), at_ms=NOW, revoked=["other", line])
    assert read_card([jws], smart_issuers(), at_ms=NOW, revoked=[f"{rid}.5"]).resources


@needs_data
def test_a_card_from_the_future_is_refused():
    """``nbf`` after now: not valid yet."""
    with pytest.raises(CredentialError, match="not valid yet"):
        read_card([text("example-00-d-jws.txt")], smart_issuers(), at_ms=1_000)


@needs_data
@pytest.mark.parametrize("path", CERTIFICATES, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_every_eu_certificate_is_judged_as_expected(path):
    """Signature, key usage and content of the member states' test cases."""
    case = json.loads(path.read_text(encoding="utf-8"))
    moment = case["TESTCTX"]["VALIDATIONCLOCK"][:19]
    at_ms = int(datetime.fromisoformat(moment).replace(tzinfo=UTC).timestamp() * 1000)
    issuers = certificate(case)
    if case["EXPECTEDRESULTS"].get("EXPECTEDKEYUSAGE") is False:
        with pytest.raises(CredentialError, match="other kinds"):
            read_card([case["PREFIX"]], issuers, at_ms=at_ms)
        return
    card = read_card([case["PREFIX"]], issuers, at_ms=at_ms)
    patient, said = json.loads(card.patient), case["JSON"]
    assert patient["name"][0].get("family") == (said["nam"].get("fn") or said["nam"]["fnt"])
    (resource,) = card.resources
    read_resource(resource)
    assert json.loads(resource)["identifier"][0]["value"] == next(
        said[family][0]["ci"] for family in ("v", "t", "r") if said.get(family)
    )
    with pytest.raises(CredentialError, match="nobody"):
        read_card([case["PREFIX"]], Issuers([]), at_ms=at_ms)


@needs_data
@given(data=st.data())
def test_no_changed_certificate_is_believed(data):
    """Any changed character of an EU certificate is refused, never raised otherwise."""
    case = json.loads((DCC / "AT" / "1.json").read_text(encoding="utf-8"))
    whole = case["PREFIX"]
    at = data.draw(st.integers(4, len(whole) - 1))
    letter = data.draw(st.sampled_from("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ $%*+-./:"))
    if letter == whole[at]:
        return
    with pytest.raises((CredentialError, DecodeError)):
        read_card([whole[:at] + letter + whole[at + 1 :]], certificate(case), at_ms=NOW)


@given(st.one_of(st.text(max_size=64), st.from_regex(r"\A(shc:/|HC1:)[0-9A-Z./]{0,80}\Z")))
def test_rubbish_is_refused_with_a_reason(rubbish):
    """Whatever is scanned, the answer is one of two errors."""
    with pytest.raises((CredentialError, DecodeError)):
        read_card([rubbish], Issuers([]), at_ms=NOW)


def test_a_deflate_bomb_stops_early():
    """A card that inflates beyond its limit is refused at the limit."""
    bomb = zlib.compress(bytes(CARD_BYTES_MAX + 1))
    with pytest.raises(DecodeError, match="beyond"):
        inflated(bomb, raw=False)
    assert len(inflated(zlib.compress(bytes(1000)), raw=False)) == 1000


@needs_data
def test_a_key_must_be_named_by_its_thumbprint():
    """A JWKS whose ``kid`` is another is refused, the key named by its place."""
    keys = json.loads((SMART / "issuer" / "jwks.json").read_text())
    keys["keys"][1]["kid"] = keys["keys"][0]["kid"]
    with pytest.raises(ConfigError, match=r"keys\[1\].kid"):
        read_jwks(json.dumps(keys).encode())
    for rubbish in (b"", b"[]", b'{"keys": 1}', b'{"keys": [{}]}'):
        with pytest.raises(ConfigError):
            read_jwks(rubbish)
    with pytest.raises(ConfigError, match=r"X\.509"):
        read_certificate(b"-----BEGIN CERTIFICATE-----")
