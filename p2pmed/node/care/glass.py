"""Emergencies that are open here: which patients, until when, and the keys that two people opened.

Rule of this file: nothing is kept but in memory, and nothing counts that the ledger does not say is
open *now*. The keys are joint ones (``identity/joint.py``): the emergency key itself is nowhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from p2pmed.identity.joint import JointSecret
from p2pmed.medical.category_keys import Category
from p2pmed.medical.privacy.emergency import EmergencyRow, emergency_row

if TYPE_CHECKING:
    from p2pmed.node.node import Node

__all__ = ["Glass"]


class Glass:
    """``node.opener.glass``."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._broken: dict[bytes, tuple[bytes, dict[bytes, JointSecret]]] = {}

    def __repr__(self) -> str:
        return f"<Glass broken for {len(self._broken)}>"

    def smash(self, patient: bytes, opening: bytes, keys: Mapping[bytes, JointSecret]) -> None:
        """Use ``keys`` (by ``box_id``) for ``patient`` while the emergency ``opening`` lasts."""
        self._broken[patient] = (opening, dict(keys))

    def mend(self, patient: bytes, opening: bytes) -> None:
        """Forget the keys of an emergency."""
        if self.opening(patient) == opening:
            del self._broken[patient]

    def clear(self) -> None:
        """Forget all: the session is over."""
        self._broken.clear()

    def opening(self, patient: bytes) -> bytes:
        """The opening whose keys are here, or empty."""
        return self._broken.get(patient, (b"", {}))[0]

    def row(self, patient: bytes) -> EmergencyRow | None:
        """The emergency that is open for ``patient`` here now, by what is stored here."""
        opening = self.opening(patient)
        row = emergency_row(self._node.state(), patient, opening) if opening else None
        return row if row is not None and row.is_open(self._node.opener.now_ms()) else None

    def keys(self, patient: bytes) -> dict[bytes, JointSecret]:
        """Joint keys by ``box_id`` while an emergency is open; else none."""
        return self._broken[patient][1] if self.row(patient) is not None else {}

    def categories(self, patient: bytes) -> tuple[Category, ...]:
        """What the emergency that is open covers; nothing if there is none."""
        row = self.row(patient)
        return row.categories if row is not None else ()
