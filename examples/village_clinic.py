"""Three clinics meet on one network, found a ledger, and one of them records a visit.

Shown: a receipt climbs from stored (this disk) to replicated (two other disks) to final (ordered
and certified by a quorum), and the clinic that was granted the keys reads the record.
"""

from __future__ import annotations

from p2pmed.medical import Demographics, Encounter, PatientName
from p2pmed.testing import local_network, run, until


async def main() -> None:
    async with local_network("clinic", "clinic", "clinic") as network:
        ledger = await network.found_mesh(name="three villages")
        mu, tam, keng = network.nodes
        print(f"three clinics founded ledger {ledger.hex()[:12]}")

        patient, _ = await mu.patients.register(
            Demographics(patient=mu.patients.new_pseudonym(), names=(PatientName(text="Wang"),)),
            readers=[tam.keys.box_public],  # the patient agrees that Tam may read
        )
        visit = Encounter(patient=patient, period_start="2027-03-01T09:30:00+08:00")
        receipt = await mu.submit(visit)
        print(f"the visit is {receipt.level}")
        await receipt.replicated(2, timeout=10)
        print(f"the visit is {receipt.level}")
        place = await receipt.final(timeout=10)
        print(f"the visit is {receipt.level} at height {place.height}: {place.verdict.code}")

        for name, node in (("Tam", tam), ("Keng", keng)):
            await until(lambda node=node: node.find(receipt.id) is not None, f"the visit at {name}")
            timeline = await node.patients.timeline(patient)
            kinds = [item.kind or "sealed" for item in timeline]
            print(f"{name} sees: {', '.join(kinds)}")


if __name__ == "__main__":
    run(main())
