"""Worlds to embed against: seeded virtual time, and real nodes in a temporary folder.

``Simulation`` drives whole nodes in virtual time under partitions, power cuts and liars;
``local_network`` runs them for real on loopback. Names load when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from p2pmed.testing.homes import PASSPHRASE, LocalNetwork, local_network, run, until
    from p2pmed.testing.simulation import LinkFaults, SimNode, Simulation

__all__ = [
    "PASSPHRASE",
    "LinkFaults",
    "LocalNetwork",
    "SimNode",
    "Simulation",
    "local_network",
    "run",
    "until",
]

_WHERE = {
    "LinkFaults": "simulation",
    "LocalNetwork": "homes",
    "PASSPHRASE": "homes",
    "SimNode": "simulation",
    "Simulation": "simulation",
    "local_network": "homes",
    "run": "homes",
    "until": "homes",
}


def __getattr__(name: str) -> Any:
    module = _WHERE.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
