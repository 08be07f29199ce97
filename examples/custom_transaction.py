"""An application's own transaction type: the fridge that keeps the vaccines cold.

Shown: a body, a check that refuses by name, an apply that writes; the same verdict on every node.
"""

from __future__ import annotations

from p2pmed import View, Wire
from p2pmed.medical import Act, Kind, Rejection
from p2pmed.testing import local_network, run


class FridgeReading(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """How cold it was; tenths of a degree, because a ledger holds no floats."""

    fridge: str
    decidegrees: int
    number: int
    """Readings of one fridge are numbered from 1, without a gap."""


def row(fridge: str) -> bytes:
    """Own rows begin with ``x/`` and the type's name, which no other type uses."""
    return b"x/fridge.reading/" + fridge.encode()


def check(act: Act[FridgeReading], view: View) -> Rejection | None:
    last = int.from_bytes(view.get(row(act.body.fridge)) or b"", "big")
    return None if act.body.number == last + 1 else Rejection.REFERENCE_MISMATCH


def apply(act: Act[FridgeReading], view: View) -> None:
    view.put(row(act.body.fridge), act.body.number.to_bytes(8, "big"))


FRIDGE_READING = Kind(
    name="fridge.reading",
    body=FridgeReading,
    check=check,
    apply=apply,
    roles=frozenset({"clinic", "pharmacy"}),
    rules="Refused `reference_mismatch` unless the number is the next one.",
)


async def main() -> None:
    async with local_network("clinic", "clinic", kinds=[FRIDGE_READING]) as network:
        await network.found_mesh()
        mu, tam = network.nodes
        for node, number in ((mu, 1), (tam, 2), (tam, 7)):
            reading = FridgeReading(fridge="mu-1", decidegrees=42, number=number)
            place = await (await node.submit(reading)).final(timeout=10)
            print(f"reading {number}: {place.verdict.code}")


if __name__ == "__main__":
    run(main())
