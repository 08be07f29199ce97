"""The bytes of ``docs/protocols/identity.md``, frozen: made again alike, and refused alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from p2pmed import errors
from p2pmed.identity.authority import Issuer
from p2pmed.identity.credentials import Credential, check_chain, issue_credential, sort_roles
from p2pmed.identity.enrolment import (
    Answer,
    answer_from_text,
    answer_to_text,
    check_answer,
    make_request,
    open_answer,
    open_request,
    request_from_text,
    request_to_text,
)
from p2pmed.identity.keys import DeviceKeys, public_key, short_id
from p2pmed.identity.keystore import open_keystore, seal_keystore
from p2pmed.identity.manifest import make_manifest, open_manifest
from p2pmed.wire import codec

FROZEN = json.loads((Path(__file__).parents[1] / "vectors" / "identity.json").read_text("utf-8"))
MANIFEST, NETWORK = open_manifest(bytes.fromhex(FROZEN["manifest"]["raw"]))


class Fixed:
    """Entropy that was written down."""

    def __init__(self, *tokens: str) -> None:
        self._tokens = [bytes.fromhex(token) for token in tokens]

    def token(self, size: int) -> bytes:
        token = self._tokens.pop(0)
        assert len(token) == size
        return token


def from_json(value: Any) -> Any:
    if isinstance(value, dict):
        return bytes.fromhex(value["$bytes"])
    return tuple(from_json(item) for item in value) if isinstance(value, list) else value


def keys_of(device: dict[str, Any]) -> DeviceKeys:
    return DeviceKeys(
        signing_seed=bytes.fromhex(device["signing_seed"]),
        box_secret=bytes.fromhex(device["box_secret"]),
        vote_seeds={n: bytes.fromhex(seed) for n, seed in enumerate(device["vote_seeds"])},
    )


def test_the_manifest_is_made_again_alike() -> None:
    """The same words, roots and nonce give the same bytes and network id."""
    frozen = FROZEN["manifest"]
    fields = {name: from_json(value) for name, value in frozen["fields"].items()}
    raw = make_manifest(
        fields["name"],
        [bytes.fromhex(seed) for seed in FROZEN["root_seeds"]],
        created_ms=fields["created_ms"],
        entropy=Fixed(fields["nonce"].hex()),
    )
    assert raw.hex() == frozen["raw"]
    assert {name: getattr(MANIFEST, name) for name in fields} == fields
    assert (NETWORK.hex(), short_id(NETWORK)) == (frozen["network_id"], frozen["short_id"])


@pytest.mark.parametrize("device", FROZEN["devices"], ids=lambda device: device["name"])
def test_keys_requests_and_credentials_are_made_again_alike(device: dict[str, Any]) -> None:
    """From the secrets on, everything about a device is determined to the byte."""
    keys = keys_of(device)
    assert keys.node_id.hex() == device["device_key"]
    assert keys.box_public.hex() == device["box_key"]
    assert [keys.vote_public(epoch).hex() for epoch in range(3)] == device["vote_keys"]
    assert short_id(keys.node_id) == device["short_id"]
    assert keys.to_secret_bytes().hex() == device["secret"]
    wish = device["request"]
    raw = make_request(keys, name=device["name"], roles=wish["roles"], place=wish["place"])
    assert (raw.hex(), request_to_text(raw)) == (wish["raw"], wish["text"])
    assert request_from_text(wish["text"]) == open_request(raw)
    fields = {name: from_json(value) for name, value in device["credential"]["fields"].items()}
    for name in ("roles", "delegate"):
        fields[name] = sort_roles(fields[name])
    seed = bytes.fromhex(device["credential"]["issuer_seed"])
    assert fields["issuer"] == public_key(seed)
    assert issue_credential(Credential(**fields), seed=seed).hex() == device["credential"]["raw"]


def test_the_chain_and_the_answer_hold() -> None:
    """The frozen chain verifies at each length; the frozen answer enrols its device."""
    chain = [bytes.fromhex(device["credential"]["raw"]) for device in FROZEN["devices"]]
    for length in (1, 2, 3):
        leaf = check_chain(chain[:length], manifest=MANIFEST, network_id=NETWORK, at_ms=None)
        assert leaf.name == FROZEN["devices"][length - 1]["name"]
    manifest = bytes.fromhex(FROZEN["manifest"]["raw"])
    answer = Answer(version=1, manifest=manifest, chain=tuple(chain))
    assert codec.encode(answer).hex() == FROZEN["answer"]["raw"]
    assert answer_to_text(answer) == FROZEN["answer"]["text"]
    assert open_answer(bytes.fromhex(FROZEN["answer"]["raw"])) == answer
    enrolled = check_answer(
        answer_from_text(FROZEN["answer"]["text"]), keys_of(FROZEN["devices"][2])
    )
    assert enrolled.network_id == NETWORK


def test_the_keystores_open_and_are_made_again_alike() -> None:
    """A keystore written by the first version opens, to the same secrets."""
    frozen = FROZEN["keystore"]
    secret = bytes.fromhex(frozen["secret"])
    assert open_keystore(bytes.fromhex(frozen["raw"]), frozen["passphrase"]) == secret
    assert DeviceKeys.from_secret_bytes(secret).node_id.hex() == FROZEN["devices"][2]["device_key"]
    again = seal_keystore(
        secret,
        frozen["passphrase"],
        entropy=Fixed(frozen["salt"], frozen["nonce"]),
        opslimit=frozen["opslimit"],
        memlimit_bytes=frozen["memlimit_bytes"],
    )
    assert again.hex() == frozen["raw"]
    desk = Issuer.from_secret_bytes(bytes.fromhex(FROZEN["issuer_secret"]))
    assert desk.key.hex() == FROZEN["devices"][0]["device_key"]
    assert desk.to_secret_bytes().hex() == FROZEN["issuer_secret"]


def _open(case: dict[str, str]) -> object:
    def bytes_in(text: str) -> list[bytes]:
        return [bytes.fromhex(part) for part in text.split("|") if part]

    match case["kind"]:
        case "manifest":
            return open_manifest(bytes.fromhex(case["raw"]))
        case "credential" | "chain":
            chain = bytes_in(case["raw"])
            return check_chain(chain, manifest=MANIFEST, network_id=NETWORK, at_ms=None)
        case "request":
            return open_request(bytes.fromhex(case["raw"]))
        case "request-text":
            return request_from_text(case["text"])
        case "keystore":
            return open_keystore(bytes.fromhex(case["raw"]), FROZEN["keystore"]["passphrase"])
    raise AssertionError(case["kind"])


@pytest.mark.parametrize(
    "case", FROZEN["hostile"], ids=lambda case: f"{case['kind']}: {case['why']}"
)
def test_hostile_bytes_are_refused_by_the_named_error(case: dict[str, str]) -> None:
    """Each listed forgery raises the exception listed, with one sentence."""
    with pytest.raises(getattr(errors, case["error"])) as caught:
        _open(case)
    sentence = str(caught.value)
    assert sentence
    assert "\n" not in sentence
