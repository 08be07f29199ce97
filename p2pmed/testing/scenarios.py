"""The scenarios that ``p2pmed sim`` can play, each with the defects that it must find.

To add one: a callable ``(seed, SeedOptions) -> SeedReport`` (``scenario.py``), a row here, and,
if it has defects of its own, a table of ``Defect`` by name. Rows name their module, which loads
when it is played: a command line must not pay for a simulator.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

if TYPE_CHECKING:
    from p2pmed.testing.scenario import Play

__all__ = ["SCENARIOS", "Defect", "Scenario", "defects", "play_of", "scenario_of_defect"]


class Defect(Protocol):
    """What a row of a table of planted defects says."""

    @property
    def rule(self) -> str:
        """The rule that it breaks."""

    @property
    def source(self) -> str:
        """Where the rule stands, or which system broke it."""

    @property
    def promise(self) -> str:
        """Under which name it is reported, among others perhaps."""

    @property
    def found_within(self) -> int:
        """Seeds, counted from 0, of which at least one must find it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One row."""

    about: str
    play: str
    """``module:name`` of the callable."""
    planted: str = ""
    """``module:name`` of its table of defects; none, if it has none of its own."""


SCENARIOS: Final[Mapping[str, Scenario]] = MappingProxyType(
    {
        "village": Scenario(
            about="whole nodes of one mesh, the engines in turn by the parity of the seed",
            play="p2pmed.testing.village:play",
            planted="p2pmed.testing.planted:PLANTED",
        ),
        "county": Scenario(
            about="two villages that never met, a hermit, and a hospital",
            play="p2pmed.testing.county:play",
        ),
        "bft": Scenario(
            about="BFT engines alone, with as many liars as they withstand",
            play="p2pmed.testing.core.scenario:play_bft",
            planted="p2pmed.testing.core.planted:BFT_DEFECTS",
        ),
        "raft": Scenario(
            about="Raft engines alone",
            play="p2pmed.testing.core.scenario:play_raft",
            planted="p2pmed.testing.core.planted:RAFT_DEFECTS",
        ),
        "consent": Scenario(
            about="leave to read and the audit of readings, with 3 to 5 nodes and no ciphers",
            play="p2pmed.testing.consent:play",
            planted="p2pmed.testing.consent_defects:CONSENT_DEFECTS",
        ),
    }
)


def _load(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)


def play_of(scenario: str) -> Play:
    """The callable. Raises ``KeyError``."""
    return cast("Play", _load(SCENARIOS[scenario].play))


def defects(scenario: str) -> Mapping[str, Defect]:
    """The scenario's own defects, by name; empty if it has none. Raises ``KeyError``."""
    place = SCENARIOS[scenario].planted
    return cast("Mapping[str, Defect]", _load(place)) if place else {}


def scenario_of_defect(name: str) -> str | None:
    """In which scenario a defect is looked for; ``None`` if there is no such defect."""
    return next((scenario for scenario in SCENARIOS if name in defects(scenario)), None)
