"""A pack of drugs goes from its maker to a pharmacy to a patient, and is handed out only once.

Shown: commission, ship, receive and dispense; a clone of the pack that another pharmacy tries to
dispense is refused by name; anybody can ask whether a pack is genuine.
"""

from __future__ import annotations

import time

from p2pmed import Node
from p2pmed.medical import Commission, Dispense, Pack, Receive, Ship, verify_unit
from p2pmed.testing import local_network, run

GTIN, SERIAL, LOT, EXPIRY_DAY = "09506000134352", "SN-001", "L-7", 25_000
PACK = Pack(gtin=GTIN, serial=SERIAL)


def ask(node: Node) -> str:
    answer = verify_unit(
        node.final_state(), GTIN, SERIAL, LOT, EXPIRY_DAY, time_ms=int(time.time() * 1000)
    )
    return f"{'genuine' if answer.verified else 'do not use'}, {answer.status}"


async def main() -> None:
    async with local_network("manufacturer", "pharmacy", "pharmacy") as network:
        await network.found_mesh()
        maker, pharmacy, other = network.nodes
        await maker.submit(
            Commission(gtin=GTIN, lot=LOT, expiry=EXPIRY_DAY, serials=(SERIAL,), maker=maker.key)
        )
        shipment = await maker.submit(Ship(units=(PACK,), to=pharmacy.key))
        await shipment.final(timeout=10)
        received = await pharmacy.submit(Receive(shipment=shipment.id))
        await received.final(timeout=10)
        print(f"received; the pack is {ask(pharmacy)}")

        patient = pharmacy.patients.new_pseudonym()
        handed = await pharmacy.submit(Dispense(gtin=GTIN, serial=SERIAL), patient=patient)
        place = await handed.final(timeout=10)
        print(f"dispensed: {place.verdict.code}; the pack is {ask(pharmacy)}")

        clone = await other.submit(Dispense(gtin=GTIN, serial=SERIAL), patient=patient)
        verdict = (await clone.final(timeout=10)).verdict
        print(f"a clone of it elsewhere: {verdict.code}; {len(other.discrepancies())} discrepancy")


if __name__ == "__main__":
    run(main())
