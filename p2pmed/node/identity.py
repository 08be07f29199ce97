"""Who a node is: what its home says of it before anything else is read.

The device's keys and credential chain, the network they belong to, and the incarnation in
which it writes. A home restored from a backup may have forgotten what it signed, so it is
*muted* (consensus R12) until the operator gives its voice back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from p2pmed.identity.keys import DeviceKeys
from p2pmed.identity.manifest import Manifest

__all__ = ["MUTED", "Identity"]

MUTED: Final = b"muted"
"""META row: this home went back in time and has not been given its voice back."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Identity:
    """Who this node is."""

    manifest: Manifest
    network: bytes
    keys: DeviceKeys
    chain: tuple[bytes, ...]
    incarnation: bytes
    boot: int
    manifest_raw: bytes = b""
    """The manifest as its authority signed it: what a proof begins with."""
    muted: bool = False
    """Restored from a backup: it writes records, and neither votes nor founds (consensus R12)."""
