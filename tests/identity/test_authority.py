"""The issuing desk: authority to county to clinic, each without the one above at hand."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from p2pmed.errors import ConfigError, CredentialError, LocalProtocolError
from p2pmed.identity.authority import Issuer
from p2pmed.identity.credentials import Role, Validity, check_chain
from p2pmed.identity.enrolment import check_answer, make_request, open_request
from p2pmed.identity.keys import DeviceKeys, short_id
from p2pmed.identity.keystore import (
    FAST_MEMLIMIT_BYTES,
    FAST_OPSLIMIT,
    open_keystore,
    seal_keystore,
)
from p2pmed.wire import cbor


@pytest.fixture(scope="session")
def request_of(entropy: Any) -> Any:
    """Makes a request of a new device."""

    def make(*roles: str, place: str = "lin/wu") -> Any:
        keys = DeviceKeys.generate(entropy)
        return open_request(make_request(keys, name="New", roles=roles, place=place))

    return make


def test_a_chain_of_three_is_issued_step_by_step(network: Any) -> None:
    """Each desk needed only its own keystore and a request; the leaf verifies from the root."""
    leaf = check_chain(
        network.answer.chain,
        manifest=network.authority.manifest,
        network_id=network.authority.network_id,
        at_ms=network.validity.not_before_ms,
    )
    assert leaf.subject == network.device_keys.node_id
    assert leaf.roles == (Role.DEVICE,)
    assert len(network.answer.chain) == 3
    assert network.authority.credential is None
    assert network.clinic.credential.issuer == network.county.key


def test_a_county_issues_from_its_keystore_alone(
    network: Any, entropy: Any, request_of: Any
) -> None:
    """Sealed, carried away and opened again, a delegated desk enrols a clinic offline."""
    sealed = seal_keystore(
        network.county.to_secret_bytes(),
        "county",
        entropy=entropy,
        opslimit=FAST_OPSLIMIT,
        memlimit_bytes=FAST_MEMLIMIT_BYTES,
    )
    desk = Issuer.from_secret_bytes(open_keystore(sealed, "county"))
    assert (desk.key, desk.network_id) == (network.county.key, network.county.network_id)
    keys = DeviceKeys.generate(entropy)
    wish = open_request(make_request(keys, name="Hu", roles=["clinic"], place="lin/hu"))
    answer = desk.issue(wish, validity=network.validity, entropy=entropy)
    enrolled = check_answer(answer, keys, network_id=network.authority.network_id)
    assert (enrolled.credential.place, enrolled.credential.delegate) == ("lin/hu", ())


def test_the_last_link_issues_to_nobody(network: Any, entropy: Any, request_of: Any) -> None:
    """A fourth credential is not issued; a leaf without delegation is no desk."""
    with pytest.raises(CredentialError, match="does not allow issuing"):
        Issuer.delegated(network.device_keys, network.answer)
    keys = DeviceKeys.generate(entropy)
    wish = open_request(make_request(keys, name="Tablet", roles=["device"], place="lin/wu"))
    third = Issuer.delegated(
        keys,
        network.clinic.issue(wish, validity=network.validity, entropy=entropy, delegate=["device"]),
    )
    with pytest.raises(CredentialError, match="last link"):
        third.issue(request_of("device"), validity=network.validity, entropy=entropy)


@pytest.mark.parametrize(
    ("grant", "sentence"),
    [
        ({"roles": ["insurer"]}, "may not issue the role insurer"),
        ({"roles": ["county"]}, "may not issue the role county"),
        ({"delegate": ["hospital"]}, "may not issue the role hospital"),
        ({"place": "wei"}, "place lies outside"),
        ({"place": ""}, "place lies outside"),
        ({"roles": []}, "without a role"),
        ({"name": ""}, "no credential can say this"),
    ],
)
def test_a_desk_hands_out_nothing_that_would_be_refused(
    network: Any, entropy: Any, request_of: Any, grant: dict[str, Any], sentence: str
) -> None:
    """What a reader would refuse, the issuer refuses first and in the same words."""
    with pytest.raises(CredentialError, match=sentence):
        network.county.issue(
            request_of("clinic"), validity=network.validity, entropy=entropy, **grant
        )


def test_wishes_are_granted_or_overruled(network: Any, entropy: Any, request_of: Any) -> None:
    """What is not said is as wished; what is said replaces the wish."""
    request = request_of("clinic", "insurer", place="elsewhere")
    answer = network.county.issue(
        request,
        validity=network.validity,
        entropy=entropy,
        roles=["pharmacy"],
        place="lin/wu",
        name="Wu pharmacy",
    )
    leaf = check_chain(
        answer.chain,
        manifest=network.county.manifest,
        network_id=network.county.network_id,
        at_ms=None,
    )
    assert (leaf.roles, leaf.place, leaf.name) == ((Role.PHARMACY,), "lin/wu", "Wu pharmacy")


def test_validity_is_cut_to_the_issuers_own(network: Any, entropy: Any, request_of: Any) -> None:
    """Nothing outlives who issued it; what would not overlap at all is refused."""
    own = network.county.credential
    answer = network.county.issue(
        request_of("clinic"), validity=Validity(0, 2**50), entropy=entropy
    )
    leaf = check_chain(
        answer.chain,
        manifest=network.county.manifest,
        network_id=network.county.network_id,
        at_ms=None,
    )
    assert (leaf.not_before, leaf.not_after) == (own.not_before, own.not_after)
    with pytest.raises(CredentialError, match="ends before it begins"):
        network.county.issue(request_of("clinic"), validity=Validity(0, 5), entropy=entropy)


def test_any_root_may_issue_alone(network: Any, entropy: Any, request_of: Any) -> None:
    """Roots kept apart each issue for the whole network."""
    parts = network.authority.split()
    assert len({part.key for part in parts}) == 2
    for part in parts:
        answer = part.issue(
            request_of("county", place="wei"), validity=network.validity, entropy=entropy
        )
        leaf = check_chain(
            answer.chain,
            manifest=network.authority.manifest,
            network_id=network.authority.network_id,
            at_ms=None,
        )
        assert leaf.issuer == part.key
        assert Issuer.from_secret_bytes(part.to_secret_bytes()).key == part.key
        (other,) = {other.seeds[0] for other in parts} - {part.seeds[0]}
        assert other not in part.to_secret_bytes()


def test_a_desk_of_one_network_is_none_of_another(network: Any, stranger: Any) -> None:
    """Keys, manifest and chain must belong together."""
    for seeds, manifest, chain in (
        (stranger.authority.seeds, network.authority.manifest_raw, ()),
        (network.county.seeds, network.authority.manifest_raw, ()),
        (network.county.seeds, stranger.authority.manifest_raw, network.county.chain),
        (network.clinic.seeds, network.authority.manifest_raw, network.county.chain),
        ((), network.authority.manifest_raw, ()),
        (network.authority.seeds, b"", ()),
    ):
        with pytest.raises(CredentialError):
            Issuer(seeds=seeds, manifest_raw=manifest, chain=chain)


@pytest.mark.parametrize("roots", [0, 4])
def test_a_network_has_one_to_three_roots(entropy: Any, roots: int) -> None:
    """Another number is the caller's fault."""
    with pytest.raises(LocalProtocolError):
        Issuer.create_network("Lin", created_ms=0, entropy=entropy, roots=roots)


def test_other_secret_bytes_are_refused(network: Any) -> None:
    """A device's keystore is no issuer's, and the error holds no secret."""
    for raw in (network.device_keys.to_secret_bytes(), b"", cbor.encode([1, [], b"", []])):
        with pytest.raises(ConfigError, match="does not hold an issuer's keys") as caught:
            Issuer.from_secret_bytes(raw)
        assert caught.value.__cause__ is None


def test_a_desk_is_hard_to_spill(network: Any) -> None:
    """``repr`` shows the fingerprint; pickling and copying raise."""
    desk = network.county
    assert repr(desk) == f"<Issuer {short_id(desk.key)}>"
    assert desk.seeds[0].hex() not in repr([desk])
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="neither pickled nor copied"):
            attempt(desk)


def test_each_credential_has_its_own_serial(network: Any, entropy: Any, request_of: Any) -> None:
    """The same request twice gives two credentials that can be revoked apart."""
    request = request_of("clinic")
    first, second = (
        network.county.issue(request, validity=network.validity, entropy=entropy).chain[-1]
        for _ in range(2)
    )
    assert first != second
