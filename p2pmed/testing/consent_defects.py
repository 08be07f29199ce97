"""Rules of leave and of reading broken on purpose, which ``consent.py`` must find.

Each patches real code for the length of one seed; the oracle knows nothing of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import msgspec

from p2pmed.medical.privacy.reads import Gate
from p2pmed.testing.planting import Patch, Plant

__all__ = ["CONSENT_DEFECTS"]


def _at_once(announce: Any) -> Any:
    def hasty(gate: Gate, records: Any) -> int:
        token: int = announce(gate, records)
        gate.stored(token)
        return token

    return hasty


def _never_revoked(real: Any) -> Any:
    return lambda row, at_ms: real(msgspec.structs.replace(row, revoked=False), at_ms)


def _never_over(real: Any) -> Any:
    return lambda row, at_ms: real(msgspec.structs.replace(row, until=0), at_ms)


def _given_once(real: Any) -> Any:
    seen: dict[int, tuple[bytes, ...]] = {}

    def kept(node: Any, now: int) -> tuple[bytes, ...]:
        seen[id(node)] = seen.get(id(node)) or real(node, now)
        return seen[id(node)]

    return kept


GATE: Final = "p2pmed.medical.privacy.reads:Gate"
CONSENT: Final = "p2pmed.medical.consent"
ROW: Final = "p2pmed.medical.privacy.emergency:EmergencyRow"

CONSENT_DEFECTS: Final[Mapping[str, Plant]] = MappingProxyType(
    {
        "audit after plaintext": Plant(
            rule="an announcement is durable before what it announces is opened",
            source="reads.md 4",
            promise="audited",
            found_within=60,
            patches=(Patch(GATE, "announce", _at_once),),
        ),
        "gate left open": Plant(
            rule="only what was announced is opened",
            source="reads.md 4",
            promise="audited",
            found_within=60,
            patches=(Patch(GATE, "may", lambda real: lambda gate, record: True),),
        ),
        "revocation not asked": Plant(
            rule="a revocation counts as soon as it is stored",
            source="records.md 24.1",
            promise="leave",
            found_within=60,
            patches=(Patch(CONSENT, "grant_in_force", _never_revoked),),
        ),
        "last moment not asked": Plant(
            rule="a grant ends with its time",
            source="records.md 24.1",
            promise="leave",
            found_within=60,
            patches=(Patch(CONSENT, "grant_in_force", _never_over),),
        ),
        "delegation not asked": Plant(
            rule="what was given under a delegation ends with it",
            source="records.md 26.4",
            promise="leave",
            found_within=60,
            patches=(Patch(CONSENT, "delegation_holds", lambda real: lambda *given: True),),
        ),
        "emergency without end": Plant(
            rule="an emergency ends with its time, and when it is closed",
            source="emergency.md 9",
            promise="leave",
            found_within=60,
            patches=(Patch(ROW, "is_open", lambda real: lambda row, at_ms: True),),
        ),
        "leave asked once": Plant(
            rule="leave is asked at each opening",
            source="records.md 24.1",
            promise="leave",
            found_within=60,
            patches=(Patch("p2pmed.testing.consent_world:ConsentNode", "leave", _given_once),),
        ),
    }
)
