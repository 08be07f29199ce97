"""Power that fails in the worst moments, again and again.

A vote that is sent before it is durable does harm only if three things meet: the power goes in
between, what was written is lost, and the device comes back while the same view or term is still
open. One cut seldom finds all three, so here they come in a row, for seconds, at one device or
at every device.

Rule: as ``faults.py``, all dice are rolled when the fault strikes.
"""

from __future__ import annotations

from typing import Final, Literal

from p2pmed.testing.faults import Mischief
from p2pmed.testing.simulation import SimNode

__all__ = ["cuts_in_votes"]

CUTS: Final = (5, 30)
APART_MS: Final = 400
ALL_SHARE: Final = 0.7
MOMENTS: Final[tuple[Literal["", "in vote", "after vote"], ...]] = (
    "in vote", "in vote", "after vote", "", "",
)  # fmt: skip
"""Also none: somebody must get on in between."""


def cuts_in_votes(mischief: Mischief) -> None:
    """For seconds the power goes while votes are being written, and is back at once."""
    mischief.simulation.struck("cuts in votes")
    dice = mischief.dice
    struck = list(mischief.nodes) if dice.random() < ALL_SHARE else [mischief.one()]
    anew = dice.random() < 0.5  # all begin with an election, or a view that nobody remembers
    for node in struck:
        at = 0
        if anew:
            mischief.simulation.crash(node)
        for _ in range(dice.randint(*CUTS)):
            at += dice.randint(10, APART_MS)
            moment = dice.choice(MOMENTS)
            mischief.later(at, lambda node=node, moment=moment: _arm(mischief, node, moment))  # type: ignore[misc]
        mischief.later(at + APART_MS, lambda node=node: _arm(mischief, node, ""))  # type: ignore[misc]


def _arm(mischief: Mischief, node: SimNode, moment: Literal["", "in vote", "after vote"]) -> None:
    """The power is back, if it was gone, and goes again in this moment."""
    mischief.start_after(node, 1)
    node.dies = moment
