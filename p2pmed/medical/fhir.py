"""FHIR R4 (being written)."""

from __future__ import annotations

from dataclasses import dataclass

from p2pmed.medical.keyring import Category

__all__ = ["Resource"]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Resource:
    """One resource."""

    raw: bytes
    type: str
    category: Category
    occurred_ms: int | None
