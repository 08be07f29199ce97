"""A network with its chain of three, from a seeded source of secrets."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

import pytest

from p2pmed.identity.authority import Issuer
from p2pmed.identity.credentials import Validity
from p2pmed.identity.enrolment import Answer, make_request, open_request
from p2pmed.identity.keys import DeviceKeys

VALID = Validity(1_700_000_000_000, 1_900_000_000_000)


class Seeded:
    """Entropy that repeats itself: the hash of a counter."""

    def __init__(self, seed: str) -> None:
        self._seed = seed.encode()
        self._count = 0

    def token(self, size: int) -> bytes:
        self._count += 1
        return blake2b(self._count.to_bytes(8, "big"), key=self._seed, digest_size=size).digest()


@dataclass(frozen=True)
class Network:
    """An authority, a county under it, a clinic under that, and a device of the clinic."""

    authority: Issuer
    county: Issuer
    clinic: Issuer
    county_keys: DeviceKeys
    clinic_keys: DeviceKeys
    device_keys: DeviceKeys
    answer: Answer
    """The device's: a chain of three."""
    validity: Validity


def build(seed: str) -> Network:
    entropy = Seeded(seed)
    authority = Issuer.create_network("Lin scheme", created_ms=0, entropy=entropy, roots=2)
    keys = [DeviceKeys.generate(entropy) for _ in range(3)]
    county = Issuer.delegated(
        keys[0],
        authority.issue(
            open_request(make_request(keys[0], name="Lin", roles=["county"], place="lin")),
            validity=VALID,
            entropy=entropy,
            delegate=["clinic", "pharmacy", "practitioner", "device"],
        ),
    )
    clinic = Issuer.delegated(
        keys[1],
        county.issue(
            open_request(make_request(keys[1], name="Wu", roles=["clinic"], place="lin/wu")),
            validity=VALID,
            entropy=entropy,
            delegate=["practitioner", "device"],
        ),
    )
    answer = clinic.issue(
        open_request(make_request(keys[2], name="Tablet", roles=["device"], place="lin/wu")),
        validity=VALID,
        entropy=entropy,
    )
    return Network(authority, county, clinic, *keys, answer, VALID)


@pytest.fixture(scope="session")
def network() -> Network:
    """The network most tests look at; nothing in it can be changed."""
    return build("one")


@pytest.fixture(scope="session")
def stranger() -> Network:
    """Another network of the same make."""
    return build("two")


@pytest.fixture(scope="session")
def entropy() -> Seeded:
    """Secrets that repeat from run to run, never within one."""
    return Seeded("tests")
