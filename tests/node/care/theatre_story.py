"""An operation at a county hospital, played on a real node with a ledger of its own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from p2pmed.identity.persons import PersonKeys
from p2pmed.medical import Demographics, PatientName, Procedure, QualificationIssue
from p2pmed.medical.care.checklist import ITEMS, ROLES, SCOPE_OF_ROLE, Answer, Phase, TeamRole
from p2pmed.node.node import Node
from p2pmed.testing.clock import SimEntropy

REVIEWER = PersonKeys.generate(SimEntropy(b"an expert"))
SURGEON, ANAESTHETIST, NURSE = (
    PersonKeys.generate(SimEntropy(name)) for name in (b"surgeon", b"anaesthetist", b"nurse")
)
TEAM = {
    TeamRole.SURGEON: SURGEON,
    TeamRole.ANAESTHETIST: ANAESTHETIST,
    TeamRole.NURSE: NURSE,
}
YES = Answer.YES


@dataclass
class Theatre:
    """One node that operates."""

    node: Node
    patient: bytes = b""
    surgery: bytes = b""
    issued: dict[TeamRole, Any] = field(default_factory=dict)

    async def prepare(self) -> None:
        """A ledger, a register of qualifications, a patient."""
        await self.node.found_mesh()
        for role, person in TEAM.items():
            self.issued[role] = await self.issue(person, SCOPE_OF_ROLE[role])
        await self.issued[TeamRole.NURSE].final(timeout=10)
        self.patient = self.node.patients.new_pseudonym()
        demographics = Demographics(
            patient=self.patient, names=(PatientName(family="Wang", given=("Xiu",)),)
        )
        await self.node.patients.register(demographics)

    async def issue(self, person: PersonKeys, scope: str, until: int = 2**50) -> Any:
        """A qualification."""
        body = QualificationIssue(
            holder=person.person,
            role="staff",
            scope=(scope, "record"),
            facility="",
            valid_from=0,
            valid_until=until,
        )
        return await self.node.submit(body)

    @property
    def now(self) -> int:
        """This node's clock."""
        return self.node.world.clock.wall_ms()

    async def plan(self) -> None:
        """The operation begins to exist."""
        procedure = Procedure(patient=self.patient, code="80146002", performed="2026-11-20")
        receipt = await self.node.surgery.plan(
            self.patient,
            procedure,
            planned_ms=self.now,
            team=[(role, person.person) for role, person in TEAM.items()],
            actor=SURGEON.person,
        )
        self.surgery = receipt.id

    async def phase(self, phase: Phase, *, people: Any = None, answers: Any = None) -> Any:
        """A phase signed by ``people`` (role to keys); by default as WHO asks."""
        surgery, node = self.surgery, self.node
        given = answers or [YES] * len(ITEMS[phase])
        chosen = {role: TEAM[role] for role in ROLES[phase]} if people is None else people
        at = self.now
        signed = [
            node.surgery.sign(person, role, surgery, phase, given, at)
            for role, person in chosen.items()
        ]
        return await node.surgery.checklist(
            surgery, phase, given, signed, occurred_ms=at, actor=NURSE.person
        )

    async def close(self) -> Any:
        """The surgeon closes."""
        closing = await self.node.surgery.closing(self.surgery, "recovered")
        signed = self.node.surgery.sign_close(SURGEON, TeamRole.SURGEON, closing)
        return await self.node.surgery.close(closing, [signed], actor=SURGEON.person)

    async def operate(self) -> None:
        """A good operation, whole; something else is written in between."""
        surgery = self.node.surgery
        await self.plan()
        await self.phase(Phase.SIGN_IN)
        await surgery.event(self.surgery, "anaesthesia-start", actor=NURSE.person)
        await self.phase(Phase.TIME_OUT)
        other = Procedure(patient=self.patient, code="80146002", performed="2026-11-20")
        await self.node.patients.add(other)
        await self.node.patients.add(other)
        await surgery.event(self.surgery, "incision", actor=NURSE.person)
        await surgery.note(self.surgery, "appendix inflamed", media=[b"a film"], actor=NURSE.person)
        await surgery.event(self.surgery, "closure", actor=NURSE.person)
        await self.phase(Phase.SIGN_OUT)
        receipt = await self.close()
        await receipt.final(timeout=10)
