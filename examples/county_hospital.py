"""A village orders its own ledger; later the county hospital takes it in and anchors it.

Shown: the village works alone, the hospital comes into reach and executes the village's blocks
in the village's own order, and the record climbs from final to anchored on the clinic's screen.
"""

from __future__ import annotations

from decimal import Decimal

from p2pmed.medical import Demographics, Observation, PatientName, Quantity
from p2pmed.testing import local_network, run

BODY_TEMPERATURE = "8310-5"  # LOINC


async def main() -> None:
    async with local_network("clinic", "clinic", place="shan/mu") as network:
        await network.found_mesh(name="Mu village")
        clinic = network.nodes[0]
        who = clinic.patients.new_pseudonym()
        patient, _ = await clinic.patients.register(
            Demographics(patient=who, names=(PatientName(text="Wang"),))
        )
        fever = Observation(
            patient=patient,
            code=BODY_TEMPERATURE,
            effective="2027-03-01T09:30:00+08:00",
            value=Quantity(value=Decimal("38.9"), unit="Cel"),
        )
        receipt = await clinic.submit(fever)
        place = await receipt.final(timeout=10)
        print(f"in the village: {receipt.level} at height {place.height}")

        # A van, an hour of mobile network: the hospital comes into reach and catches up.
        hospital = await network.open(network.home("hospital", place="shan"))
        county = await network.found_mesh(hospital, name="Shan county")
        print(f"the county has its own ledger {county.hex()[:12]}")
        await receipt.anchored(timeout=15)
        print(f"at the clinic: {receipt.level}")

        timeline = await hospital.patients.timeline(patient)
        opened = sum(item.resource is not None for item in timeline)
        print(
            f"the hospital holds {len(timeline)} records and can read {opened}: nobody asked Wang"
        )


if __name__ == "__main__":
    run(main())
