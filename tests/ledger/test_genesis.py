"""Foundings: a ledger exists when all of its founders, and they alone, have signed it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from toy_ledger import NETWORK, Device, devices, founding_of, genesis_of, open_chain

from p2pmed.errors import CredentialError, DecodeError, LocalProtocolError
from p2pmed.ledger.genesis import (
    Founding,
    Genesis,
    check_founding,
    check_signature,
    ledger_id,
    sign_genesis,
)
from p2pmed.quorum.certificate import Validator
from p2pmed.wire import codec

SEATS = devices(4)
GENESIS = genesis_of(SEATS)


def check(founding: Founding, **fields: Any) -> None:
    check_founding(founding, **{"network": NETWORK, "open_chain": open_chain, **fields})


def with_(founding: Founding, **fields: Any) -> Founding:
    return msgspec.structs.replace(founding, **fields)


def test_a_complete_founding_holds_and_reads_back() -> None:
    """Every founder's signature in its seat, every credential speaking of its founder."""
    founding = founding_of(SEATS, GENESIS)
    check(founding)
    assert codec.decode(codec.encode(founding), Founding) == founding


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("network", bytes([1]) * 32),
        ("name", "others"),
        ("engine", "raft"),
        ("liars", 0),
        ("validators", genesis_of(devices(3)).validators),
        ("rules", bytes(32)),
        ("created", 5),
        ("nonce", bytes([1]) * 16),
        ("predecessor", bytes([1]) * 32),
    ],
)
def test_every_field_names_another_ledger(field: str, value: Any) -> None:
    """The id covers all of the genesis; a signature for one holds for no other."""
    other = msgspec.structs.replace(GENESIS, **{field: value})
    assert ledger_id(other) != ledger_id(GENESIS)
    signature = sign_genesis(GENESIS, seed=SEATS[0].seed, node=SEATS[0].key)
    with pytest.raises(CredentialError):
        check_signature(other, signature)


def test_a_missing_or_swapped_signature_is_refused() -> None:
    """One short, one twice, two exchanged, one spoiled: no ledger."""
    founding = founding_of(SEATS, GENESIS)
    one, two, *rest = founding.signatures
    spoiled = one[:-1] + bytes([one[-1] ^ 1])
    for signatures in (
        (one, two, *rest[:-1]),
        (one, one, *rest),
        (two, one, *rest),
        (spoiled, two, *rest),
        (b"", two, *rest),
    ):
        with pytest.raises(CredentialError):
            check(with_(founding, signatures=signatures))


def test_a_credential_must_speak_of_its_founder() -> None:
    """Another device's chain, or one too few, is refused; so is one that does not open."""
    founding = founding_of(SEATS, GENESIS)
    stranger = (Device("stranger").key,)
    with pytest.raises(CredentialError):
        check(with_(founding, chains=(stranger, *founding.chains[1:])))
    with pytest.raises(CredentialError):
        check(with_(founding, chains=founding.chains[1:]))

    def refuse(chain: Any) -> bytes:
        raise CredentialError("not of this network")

    with pytest.raises(CredentialError):
        check(founding, open_chain=refuse)


def test_a_ledger_of_another_network_is_refused() -> None:
    """Even with all signatures in order."""
    with pytest.raises(CredentialError):
        check(founding_of(SEATS, GENESIS), network=bytes([1]) * 32)


def test_a_mesh_that_cannot_be_is_refused() -> None:
    """Too many liars for its seats, one device in two seats, one vote key twice, liars in Raft."""
    twice = (GENESIS.validators[0], *GENESIS.validators[:3])
    shared = (
        Validator(node=SEATS[0].key, vote_key=SEATS[1].vote_key),
        *GENESIS.validators[1:],
    )
    for genesis in (
        genesis_of(devices(3), liars=1),
        msgspec.structs.replace(GENESIS, validators=twice),
        msgspec.structs.replace(GENESIS, validators=shared),
        genesis_of(SEATS, engine="raft", liars=1),
    ):
        with pytest.raises(LocalProtocolError):
            genesis.check()
        with pytest.raises(CredentialError):
            check(founding_of(SEATS, genesis))


def test_a_genesis_is_read_strictly() -> None:
    """An unknown version or engine, no seat, or 21 seats do not decode."""
    plain = codec.plain(GENESIS)
    seats = codec.plain(genesis_of(devices(21)))[5]
    for place, value in ((0, 2), (3, "paxos"), (5, []), (5, seats), (4, 7), (8, b"short")):
        wrong = list(plain)
        wrong[place] = value
        with pytest.raises(DecodeError):
            codec.convert(wrong, Genesis)


def test_the_first_epoch_is_the_genesis_own() -> None:
    """Number 0, the ledger's id, the seats in their order, and their quorum."""
    epoch = GENESIS.epoch()
    assert (epoch.ledger, epoch.number, epoch.quorum) == (ledger_id(GENESIS), 0, 3)
    assert [epoch.index_of(device.key) for device in SEATS] == [0, 1, 2, 3]
    assert epoch.index_of(bytes(32)) is None
