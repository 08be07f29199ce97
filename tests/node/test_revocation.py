"""A device whose credential was withdrawn is refused by whoever has heard of it."""

from __future__ import annotations

import pytest

from p2pmed.errors import CredentialError
from p2pmed.identity.revocation import EVERY_SERIAL, Revocation, RevocationReason
from p2pmed.node.events import Draft
from p2pmed.sync.founding import MeshPolicy
from p2pmed.testing.simulation import SimNode, Simulation


def village() -> tuple[Simulation, list[SimNode], SimNode]:
    """Four clinics in a mesh, and a county's device that follows it."""
    simulation = Simulation(5)
    policy = MeshPolicy(auto=True, size=4)
    clinics = [simulation.add_node(f"clinic-{i}", policy=policy) for i in range(4)]
    county = simulation.add_node("county", roles=("county",), place="county")
    assert simulation.run_until(lambda: all(n.replica and n.replica.home for n in clinics), 30_000)
    simulation.run_for(5_000)
    return simulation, clinics, county


def revoke(simulation: Simulation, author: SimNode, device: bytes) -> None:
    """``author`` withdraws every credential of ``device``."""
    body = Revocation(
        subject=device,
        serial=EVERY_SERIAL,
        reason=RevocationReason.KEY_COMPROMISED,
        text="",
    )
    simulation.submit(author, Draft(body=body))


def test_a_revoked_device_loses_its_channels_and_gets_no_new_ones() -> None:
    """The county revokes a clinic: all others drop it, refuse it, and still do after a restart."""
    simulation, clinics, county = village()
    stolen = clinics[3]
    revoke(simulation, county, stolen.key)
    simulation.run_for(10_000)
    for clinic in clinics[:3]:
        assert clinic.replica is not None
        with pytest.raises(CredentialError, match="revoked"):
            clinic.replica.authenticate(stolen.key, stolen.identity.chain)
    simulation.crash(clinics[0])
    simulation.start(clinics[0])
    assert clinics[0].replica is not None
    with pytest.raises(CredentialError, match="revoked"):
        clinics[0].replica.authenticate(stolen.key, stolen.identity.chain)


def test_a_clinic_cannot_revoke_its_neighbour() -> None:
    """A revocation by somebody who is not above changes nothing."""
    simulation, clinics, _ = village()
    revoke(simulation, clinics[0], clinics[1].key)
    simulation.run_for(10_000)
    assert clinics[2].replica is not None
    clinics[2].replica.authenticate(clinics[1].key, clinics[1].identity.chain)
