"""What a village writes: patients, sealed records, grants, packs that move and are handed out.

Everything is made as an embedding program makes it, and sealed for real, but from seeded
entropy: the same seed gives the same bytes. Among the honest acts are the mistakes that a
ledger is for: a pack handed out twice, or by who does not hold it, or after a recall,
or a word about what is not there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from p2pmed.identity.sealing import box_public
from p2pmed.medical.consent import AccessGrant, Purpose
from p2pmed.medical.drug_rows import Pack
from p2pmed.medical.drugs import Commission, Dispense, Recall, Receive, Ship
from p2pmed.medical.fhir import read_resource
from p2pmed.medical.keyring import KeyRing
from p2pmed.medical.patients import REGISTRATION_PURPOSE, PatientRegister
from p2pmed.medical.privacy.holding import NOBODY
from p2pmed.medical.records import Place, seal_record
from p2pmed.medical.typed import Demographics, Observation, PatientName, Quantity
from p2pmed.node.events import Draft
from p2pmed.testing.simulation import SimNode, Simulation
from p2pmed.testing.wrapping import SeededWrapper
from p2pmed.wire.codec import Wire

__all__ = ["GTIN", "Workload"]

GTIN: Final = "04012345678901"
EXPIRY_DAY: Final = 40_000
"""Long after every simulated clock."""
GRANT_MS: Final = 365 * 86_400_000


@dataclass(slots=True)
class _Patient:
    """A patient as whoever registered it knows it."""

    pseudonym: bytes
    ring: KeyRing
    author: SimNode
    request: int


@dataclass(slots=True)
class _Stock:
    """Packs that one node commissioned."""

    lot: str
    serials: list[str]
    holder: SimNode


@dataclass(slots=True)
class _Shipment:
    request: int
    to: SimNode
    stock: _Stock


class Workload:
    """Writes to the nodes of one simulation; all dice come from ``dice``."""

    def __init__(self, simulation: Simulation, nodes: Sequence[SimNode], dice: Random) -> None:
        self._simulation = simulation
        self._nodes = list(nodes)
        self._dice = dice
        self._patients: list[_Patient] = []
        self._stocks: list[_Stock] = []
        self._shipments: list[_Shipment] = []
        self.writes = 0

    def write(self, dice: Random | None = None) -> None:
        """Something somewhere; nothing if every device is off. ``dice`` are for this one write."""
        if dice is not None:
            self._dice = dice
        up = [node for node in self._nodes if node.up]
        if up:
            self.write_at(self._dice.choice(up))

    def write_at(self, node: SimNode) -> None:
        """Something at ``node``, which must be on."""
        self.writes += 1
        act = self._dice.choices(
            (self._record, self._register, self._dispense, self._commission, self._ship,
             self._receive, self._grant, self._recall, self._refer),
            weights=(8, 4, 5, 3, 2, 2, 1, 1, 1),
        )[0]  # fmt: skip
        act(node)

    # --- patients ---------------------------------------------------------------------------

    def _submit(self, node: SimNode, body: Wire, subject: bytes = b"", *refs: bytes) -> int:
        return self._simulation.submit(node, Draft(body=body, subject=subject, refs=refs))

    def _place(self, node: SimNode, patient: bytes) -> Place:
        return Place(network=self._simulation.network_id, patient=patient, author=node.key)

    def _register(self, node: SimNode) -> None:
        pseudonym = node.entropy.token(16)
        ring = KeyRing.generate(pseudonym, node.entropy)
        patient_key = box_public(node.entropy.token(32))
        wrapper = SeededWrapper(node.entropy)
        wraps = tuple(
            ring.wrap(
                key,
                network=self._simulation.network_id,
                purpose=REGISTRATION_PURPOSE,
                wrapper=wrapper,
            )
            for key in (node.identity.keys.box_public, patient_key)
        )
        name = PatientName(family=f"Family {self.writes}", given=("Given",))
        person = Demographics(patient=pseudonym, names=(name,))
        sealed = seal_record(
            read_resource(person.to_fhir()),
            ring=ring,
            place=self._place(node, pseudonym),
            entropy=node.entropy,
        )
        body = PatientRegister(
            catchment="village",
            patient_key=patient_key,
            wraps=wraps,
            sealed=sealed.added(()).sealed,
            told=b"",
            holding=NOBODY,
        )
        request = self._submit(node, body, pseudonym)
        self._patients.append(_Patient(pseudonym, ring, node, request))

    def _known(self, node: SimNode) -> tuple[_Patient, tuple[bytes, ...]] | None:
        """A patient whose registration ``node`` holds, and what a record must refer to."""
        if not self._patients or node.replica is None:
            return None
        patient = self._dice.choice(self._patients)
        if patient.author is node:
            return patient, ()
        reply = self._simulation.replies.get(patient.request)
        if reply is None or not reply.entries:
            return None
        registration = reply.entries[-1].id
        return (patient, (registration,)) if node.replica.logs.find(registration) else None

    def _record(self, node: SimNode) -> None:
        known = self._known(node)
        if known is None:
            self._register(node)
            return
        patient, refs = known
        seen = Observation(
            patient=patient.pseudonym,
            code="8310-5",
            value=Quantity(value=self._dice.randint(35, 42), unit="Cel"),
            effective="2027-01-15",
        )
        sealed = seal_record(
            read_resource(seen.to_fhir()),
            ring=patient.ring,
            place=self._place(node, patient.pseudonym),
            entropy=node.entropy,
        )
        self._submit(node, sealed.added(()), patient.pseudonym, *refs)

    def _grant(self, node: SimNode) -> None:
        known = self._known(node)
        if known is None:
            self._register(node)
            return
        patient, refs = known
        reader = self._dice.choice(self._nodes).identity.keys.box_public
        purpose = Purpose.TREATMENT
        wrapped = patient.ring.wrap(
            reader,
            network=self._simulation.network_id,
            purpose=purpose.value,
            wrapper=SeededWrapper(node.entropy),
        )
        now = node.clock.wall_ms()
        body = AccessGrant(
            grantee_key=reader,
            purpose=purpose.value,
            epoch=patient.ring.epoch,
            since=max(0, now),
            until=max(0, now) + GRANT_MS,
            wrapped=wrapped.wrapped,
            told=b"",
            under=b"",
            proof=b"",
        )
        self._submit(node, body, patient.pseudonym, *refs)

    # --- packs ------------------------------------------------------------------------------

    def _commission(self, node: SimNode) -> None:
        lot = f"L{len(self._stocks)}"
        serials = [f"{lot}-{n}" for n in range(self._dice.randint(1, 6))]
        self._stocks.append(_Stock(lot, serials, node))
        body = Commission(
            gtin=GTIN, lot=lot, expiry=EXPIRY_DAY, serials=tuple(serials), maker=node.key
        )
        self._submit(node, body)

    def _ship(self, node: SimNode) -> None:
        held = [stock for stock in self._stocks if stock.holder is node]
        if not held:
            self._commission(node)
            return
        stock, to = self._dice.choice(held), self._dice.choice(self._nodes)
        units = tuple(Pack(gtin=GTIN, serial=serial) for serial in stock.serials)
        request = self._submit(node, Ship(units=units, to=to.key))
        self._shipments.append(_Shipment(request, to, stock))

    def _receive(self, node: SimNode) -> None:
        due = [shipment for shipment in self._shipments if shipment.to is node]
        if not due:
            self._commission(node)
            return
        shipment = self._dice.choice(due)
        reply = self._simulation.replies.get(shipment.request)
        if reply is None or not reply.entries:
            return
        self._submit(node, Receive(shipment=reply.entries[-1].id))
        shipment.stock.holder = node

    def _dispense(self, node: SimNode) -> None:
        """Any pack of all, whoever holds it, handed out before or not."""
        if not self._stocks or not self._patients:
            self._commission(node)
            return
        held = [stock for stock in self._stocks if stock.holder is node]
        stock = self._dice.choice(held if held and self._dice.random() < 0.6 else self._stocks)
        body = Dispense(gtin=GTIN, serial=self._dice.choice(stock.serials))
        self._submit(node, body, self._dice.choice(self._patients).pseudonym)

    def _recall(self, node: SimNode) -> None:
        if not self._stocks:
            self._commission(node)
            return
        stock = self._dice.choice(self._stocks)
        self._submit(node, Recall(gtin=GTIN, lot=stock.lot, reason="contaminated"))

    def _refer(self, node: SimNode) -> None:
        """Of something that nobody here has: it is in a ledger that never came."""
        body = Recall(gtin=GTIN, lot="elsewhere", reason="contaminated")
        self._submit(node, body, b"", node.entropy.token(32))
