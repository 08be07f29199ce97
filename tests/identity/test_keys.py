"""A device's keys: separate, complete, and hard to spill."""

from __future__ import annotations

import copy
import pickle
import traceback
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl import bindings

from p2pmed.errors import ConfigError, CredentialError, LocalProtocolError
from p2pmed.identity.keys import (
    DeviceKeys,
    VoteSigner,
    check_box_key,
    check_signing_key,
    public_key,
    short_id,
)
from p2pmed.wire import cbor, cose


@pytest.fixture(scope="session")
def keys(entropy: Any) -> DeviceKeys:
    return DeviceKeys.generate(entropy)


def secrets_of(keys: DeviceKeys) -> list[bytes]:
    return [keys.signing_seed, keys.box_secret, *keys.vote_seeds.values()]


def test_every_key_is_independent(keys: DeviceKeys) -> None:
    """Signing, box and vote keys are five different secrets; no box key is a converted one."""
    assert len(set(secrets_of(keys))) == 5
    assert keys.vote_epochs == (0, 1, 2)
    assert keys.box_public != bindings.crypto_sign_ed25519_pk_to_curve25519(keys.node_id)
    assert len({keys.node_id, *(keys.vote_public(epoch) for epoch in range(3))}) == 4


def test_the_secret_bytes_restore_everything(keys: DeviceKeys) -> None:
    """What goes into the keystore comes out of it, and is spelled in one way."""
    raw = keys.to_secret_bytes()
    again = DeviceKeys.from_secret_bytes(raw)
    assert again.to_secret_bytes() == raw
    assert (again.node_id, again.box_public) == (keys.node_id, keys.box_public)
    assert again.vote_public(2) == keys.vote_public(2)


@given(st.data())
def test_other_bytes_restore_nothing(data: st.DataObject) -> None:
    """A changed shape or a cut is refused; a changed secret gives other keys, never these."""
    keys = DeviceKeys(
        signing_seed=b"s" * 32, box_secret=b"b" * 32, vote_seeds={0: b"0" * 32, 1: b"1" * 32}
    )
    raw = keys.to_secret_bytes()
    at = data.draw(st.integers(0, len(raw) - 1))
    changed = raw[:at] + bytes([raw[at] ^ data.draw(st.integers(1, 255))]) + raw[at + 1 :]
    with pytest.raises(ConfigError):
        DeviceKeys.from_secret_bytes(raw[:at])
    try:
        other = DeviceKeys.from_secret_bytes(changed)
    except ConfigError:
        return
    assert other.to_secret_bytes() == changed


@pytest.mark.parametrize(
    "value",
    [
        [2, bytes(32), bytes(32), []],
        [1, bytes(31), bytes(32), []],
        [1, bytes(32), bytes(33), []],
        [1, bytes(32), bytes(32), [[1, bytes(32)], [0, bytes(32)]]],
        [1, bytes(32), bytes(32), [[0, bytes(32)], [0, bytes(32)]]],
        [1, bytes(32), bytes(32), [[0, bytes(31)]]],
        [1, bytes(32), bytes(32), [], 0],
        b"",
    ],
)
def test_malformed_secret_bytes_are_refused(value: object) -> None:
    """Another version, a wrong length, epochs out of order: a ``ConfigError``."""
    with pytest.raises(ConfigError):
        DeviceKeys.from_secret_bytes(cbor.encode(value))


def test_nothing_printed_holds_a_secret(keys: DeviceKeys) -> None:
    """``repr``, ``str``, formatting, containers and the signer show the fingerprint only."""
    shown = [
        repr(keys),
        str(keys),
        f"{keys}",
        repr([keys]),
        repr({"keys": keys}),
        repr(keys.vote_signer(0)),
    ]
    assert short_id(keys.node_id) in shown[0]
    for text in shown:
        for secret in secrets_of(keys):
            assert secret.hex() not in text
            assert repr(secret)[2:-1] not in text


def test_keys_are_neither_pickled_nor_copied(keys: DeviceKeys) -> None:
    """Serialising by accident raises, and the error holds no secret."""
    for thing in (keys, keys.vote_signer(1)):
        for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="neither pickled nor copied") as caught:
                attempt(thing)
            text = "".join(traceback.format_exception(caught.value))
            assert keys.signing_seed.hex() not in text


def test_keys_cannot_be_changed(keys: DeviceKeys) -> None:
    """Neither an attribute nor the table of vote seeds can be assigned."""
    with pytest.raises(AttributeError):
        keys.signing_seed = bytes(32)  # type: ignore[misc]
    with pytest.raises(TypeError):
        keys.vote_seeds[0] = bytes(32)  # type: ignore[index]


def test_secrets_of_a_wrong_length_are_refused() -> None:
    """A caller's wrong length is a ``LocalProtocolError`` without the secret."""
    for wrong in (
        {"signing_seed": b"\xaa" * 31},
        {"box_secret": b"\xaa" * 33},
        {"vote_seeds": {0: b"\xaa" * 16}},
    ):
        fields: dict[str, Any] = {
            "signing_seed": bytes(32),
            "box_secret": bytes(32),
            "vote_seeds": {},
        }
        with pytest.raises(LocalProtocolError) as caught:
            DeviceKeys(**{**fields, **wrong})
        assert "aaaa" not in str(caught.value)


def test_a_signature_opens_under_its_purpose_and_network(keys: DeviceKeys) -> None:
    """``sign`` makes the COSE message of this device, in the domain asked for."""
    raw = keys.sign(b"payload", "test", bytes(32))
    opened = cose.open_signed(raw, external=cose.external_data("test", bytes(32)))
    assert (opened.signer, opened.payload) == (keys.node_id, b"payload")
    assert cose.verify(opened.signer, opened.signature, opened.to_be_signed)


def test_votes_are_signed_by_the_epochs_key(keys: DeviceKeys) -> None:
    """A vote of one epoch verifies under that epoch's key and no other."""
    signer = keys.vote_signer(1)
    signature = signer.sign(b"vote")
    assert len(signature) == 64
    assert isinstance(signer, VoteSigner)
    assert cose.verify(keys.vote_public(1), signature, b"vote")
    for other in (keys.vote_public(0), keys.vote_public(2), keys.node_id):
        assert not cose.verify(other, signature, b"vote")


def test_advancing_forgets_the_past_and_prepares_two_ahead(keys: DeviceKeys, entropy: Any) -> None:
    """In epoch 2 the keys of 0 and 1 are gone, that of 2 is kept, 3 and 4 are new."""
    later = keys.advance_votes(2, entropy)
    assert later.vote_epochs == (2, 3, 4)
    assert later.vote_public(2) == keys.vote_public(2)
    assert (later.node_id, later.box_public) == (keys.node_id, keys.box_public)
    for gone in (0, 1):
        with pytest.raises(LocalProtocolError, match=f"no vote key for epoch {gone}"):
            later.vote_signer(gone)
        assert keys.vote_seeds[gone] not in later.to_secret_bytes()
    assert later.advance_votes(2, entropy).to_secret_bytes() == later.to_secret_bytes()


def test_another_ledger_gets_other_vote_keys(keys: DeviceKeys, entropy: Any) -> None:
    """Moving to another ledger starts at epoch 0 with keys never used before."""
    moved = keys.renew_votes(entropy)
    assert moved.vote_epochs == (0, 1, 2)
    assert not set(moved.vote_seeds.values()) & set(keys.vote_seeds.values())


def test_a_fingerprint_is_four_groups_of_four() -> None:
    """A fingerprint reads aloud, and two keys differ in it."""
    first, second = short_id(bytes(32)), short_id(bytes(31) + b"\x01")
    assert first != second
    assert [len(group) for group in first.split("-")] == [4, 4, 4, 4]
    assert set(first) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567-")


@pytest.mark.parametrize(
    "key",
    [
        bytes(32),
        b"\x01" + bytes(31),
        b"\xff" * 32,
        b"\x02" + bytes(31),
        bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
        bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
        bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
        bytes(31),
        bytes(33),
        b"",
    ],
)
def test_unsound_signing_keys_are_refused(key: bytes) -> None:
    """Small order, off the curve, spelled twice, or of another length: refused at enrolment."""
    with pytest.raises(CredentialError):
        check_signing_key(key)


@pytest.mark.parametrize(
    "key",
    [
        bytes(32),
        b"\x01" + bytes(31),
        bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
        bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
        bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
        bytes.fromhex("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
        bytes.fromhex("09000000000000000000000000000000000000000000000000000000000000") + b"\x80",
        bytes(31),
        b"",
    ],
)
def test_unsound_box_keys_are_refused(key: bytes) -> None:
    """Small order, at or above the prime, or of another length: refused at enrolment."""
    with pytest.raises(CredentialError):
        check_box_key(key)


@given(st.binary(min_size=32, max_size=32))
def test_every_generated_key_is_sound(secret: bytes) -> None:
    """No honest key is ever refused."""
    check_signing_key(public_key(secret))
    check_box_key(bindings.crypto_scalarmult_base(secret))
