"""The rows that drugs leave in the state: packs, lots, shipments, stock, pedigrees.

Rule: written by ``drugs.py`` only. A pack's rows are written together: its unit, its place in
the stock of its owner (until dispensed), its place in its lot, and each step of its life.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from p2pmed.medical.fields import Day, Gtin, Lot, Serial, check_gtin
from p2pmed.medical.tables import Table
from p2pmed.wire.codec import Bytes32, Count, OptionalId, Wire

__all__ = [
    "LOTS",
    "LOT_UNITS",
    "PEDIGREE",
    "SHIPMENTS",
    "STOCK",
    "UNITS",
    "LotMark",
    "LotRow",
    "Pack",
    "PedigreeRow",
    "ShipmentRow",
    "UnitRow",
    "UnitState",
    "lot_key",
    "unit_key",
]


class Pack(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One pack, as its printed code names it."""

    gtin: Gtin
    serial: Serial

    def __post_init__(self) -> None:
        check_gtin(self.gtin)


class UnitState(IntEnum):
    """Where a pack is in its life."""

    HELD = 0
    IN_TRANSIT = 1
    DISPENSED = 2


class UnitRow(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One pack as this ledger knows it."""

    lot: Lot
    expiry: Day
    maker: Bytes32
    by_maker: bool
    """Whether the maker itself commissioned it."""
    commission: Bytes32
    state: UnitState
    holder: Bytes32
    """The owner; while in transit still the sender."""
    last: Bytes32
    """The transaction that last moved it."""
    events: Count
    """Rows of its pedigree."""


class LotRow(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One lot as this ledger knows it; a recall may come before any pack of it."""

    maker: OptionalId
    """Empty while only a recall is known."""
    expiry: Day
    recall: OptionalId
    recalled_by: OptionalId
    """Device key of who recalled it."""
    official: bool
    """The recall is an overseer's; a manufacturer's holds for its own lots only."""

    @property
    def recalled(self) -> bool:
        """Whether a recall holds."""
        own = not self.maker or self.maker == self.recalled_by
        return bool(self.recall) and (self.official or own)


class ShipmentRow(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One shipment."""

    sender: Bytes32
    to: Bytes32
    units: tuple[Pack, ...]
    received: OptionalId


class PedigreeRow(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One step in a pack's life."""

    id: Bytes32


class LotMark(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """An index row: the lot of the pack that its key names."""

    lot: Lot


UNITS: Final = Table("unit", UnitRow)
LOTS: Final = Table("lot", LotRow)
SHIPMENTS: Final = Table("shipment", ShipmentRow)
STOCK: Final = Table("stock", LotMark)
LOT_UNITS: Final = Table("lot_unit", LotMark)
PEDIGREE: Final = Table("pedigree", PedigreeRow)


def unit_key(gtin: str, serial: str) -> bytes:
    """A pack's name in keys: GTIN has a fixed length."""
    return (gtin + serial).encode("ascii")


def lot_key(gtin: str, lot: str) -> bytes:
    """A lot's name in keys."""
    return (gtin + lot).encode("ascii")
