"""What happens when a county's anchor is overtaken: a recall is ordered just before it."""

from __future__ import annotations

from p2pmed.ledger.transaction import Entry
from p2pmed.medical.county import ANCHOR
from p2pmed.medical.drugs import Commission, Dispense, Recall
from p2pmed.node.events import Draft
from p2pmed.sync.founding import MeshPolicy
from p2pmed.testing.simulation import SimNode, Simulation
from p2pmed.testing.workload import EXPIRY_DAY, GTIN
from p2pmed.wire.codec import Wire

ALONE = MeshPolicy(follow=False)
SECOND_MS = 1_000


class Overtaken:
    """A village of one and a county of one whose anchor does not hold when it is executed."""

    def __init__(self) -> None:
        self.simulation = Simulation(1)
        self.village = self.simulation.add_node(
            "village", roles=("clinic", "manufacturer"), policy=ALONE
        )
        self.county = self.simulation.add_node("county", roles=("county",), policy=ALONE)
        self.simulation.run_for(3 * SECOND_MS)
        for node in (self.village, self.county):
            self.simulation.found(node, [], engine="raft", name=node.name)
        self.simulation.run_for(6 * SECOND_MS)
        self._commission("L", ("A", "B"))
        self.simulation.run_for(5 * SECOND_MS)
        self.dispensed = self._overtake()

    def _commission(self, lot: str, serials: tuple[str, ...]) -> None:
        body = Commission(
            gtin=GTIN, lot=lot, expiry=EXPIRY_DAY, serials=serials, maker=self.village.key
        )
        self.write(self.village, body)

    def write(self, node: SimNode, body: Wire, subject: bytes = b"") -> Entry:
        request = self.simulation.submit(node, Draft(body=body, subject=subject))
        assert self.simulation.run_until(lambda: request in self.simulation.replies, SECOND_MS)
        return self.simulation.replies[request].entries[0]

    def _overtake(self) -> Entry:
        """The recall is being flushed while the anchor is planned on the state before it."""
        county, simulation = self.county.replica, self.simulation
        assert county is not None
        dispensed = self.write(self.village, Dispense(gtin=GTIN, serial="A"), b"p" * 16)
        assert simulation.run_until(lambda: county.anchoring.deadline is not None, 5 * SECOND_MS)
        assert county.anchoring.deadline is not None
        simulation.run_for(county.anchoring.deadline - simulation.now - 20)
        self.county.flush_ms = (300, 300)
        recall = Recall(gtin=GTIN, lot="L", reason="contaminated")
        simulation.submit(self.county, Draft(body=recall))
        simulation.run_for(3 * SECOND_MS)
        self.county.flush_ms = (1, 5)
        return dispensed

    def anchors(self) -> list[str]:
        """The verdicts on the county's anchors, in order."""
        county = self.county.replica
        assert county is not None
        assert county.home is not None
        verdicts = [
            county.home.chain.verdict_of(entry)
            for entry in county.logs.entries(county.own.key, 0, 1 << 20)
            if entry.kind == ANCHOR
        ]
        return [verdict.code for verdict in verdicts if verdict is not None]


def test_an_overtaken_anchor_is_refused_and_stops_nobody() -> None:
    """Its verdict is written down like any other; the county goes on."""
    story = Overtaken()
    assert "anchor_mismatch" in story.anchors()
    assert story.county.up
    assert not story.simulation.oracle.violations


def test_after_a_refused_anchor_the_village_still_learns_what_is_anchored() -> None:
    """The next anchor begins where the refused one did, and says what became of the dispense."""
    story = Overtaken()
    story.simulation.run_for(70 * SECOND_MS)  # a refused anchor is not repeated at once
    later = story.write(story.village, Dispense(gtin=GTIN, serial="B"), b"p" * 16)
    story.simulation.run_for(70 * SECOND_MS)
    assert story.anchors()[-1] == "applied"
    village = story.village.replica
    assert village is not None
    assert village.is_anchored(story.dispensed)
    assert village.is_anchored(later)
    assert not story.simulation.oracle.violations
