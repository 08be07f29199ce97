"""A real chain becomes a member, for the device it names and no other."""

from __future__ import annotations

from hashlib import blake2b

from p2pmed.identity.authority import Issuer
from p2pmed.identity.credentials import Validity
from p2pmed.identity.enrolment import make_request, open_request
from p2pmed.identity.keys import DeviceKeys
from p2pmed.identity.manifest import open_manifest
from p2pmed.medical.membership import CredentialOpener
from p2pmed.wire import cose


class Seeded:
    """Entropy that repeats itself: the hash of a counter."""

    def __init__(self) -> None:
        self._count = 0

    def token(self, size: int) -> bytes:
        self._count += 1
        return blake2b(self._count.to_bytes(8, "big"), digest_size=size).digest()


def test_a_chain_serves_its_own_device_only() -> None:
    """The leaf's words are the member's; another device, a broken chain and another network get
    none; a chain is verified once per device that shows it.
    """
    entropy, checks = Seeded(), [0]

    def verify(signer: bytes, signature: bytes, message: bytes) -> bool:
        checks[0] += 1
        return cose.verify(signer, signature, message)

    authority = Issuer.create_network("Lin scheme", created_ms=0, entropy=entropy)
    keys = DeviceKeys.generate(entropy)
    request = open_request(make_request(keys, name="Wu", roles=["clinic"], place="lin/wu"))
    answer = authority.issue(request, validity=Validity(10, 2_000), entropy=entropy)
    manifest, network_id = open_manifest(answer.manifest)
    opener = CredentialOpener(manifest, network_id, verify=verify)
    for _ in range(3):
        found = opener(answer.chain, keys.node_id)
        assert found is not None
        assert (found.name, found.roles, found.place) == ("Wu", ("clinic",), "lin/wu")
        assert (found.box_key, found.not_after) == (keys.box_public, 2_000)
        assert not found.revoked
        assert opener(answer.chain, bytes(32)) is None
    assert checks == [2 * len(answer.chain)]
    broken = (*answer.chain[:-1], answer.chain[-1][:-1] + b"\x00")
    assert opener(broken, keys.node_id) is None
    assert CredentialOpener(manifest, bytes(32))(answer.chain, keys.node_id) is None
