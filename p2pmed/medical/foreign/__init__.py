"""Cards that others sign: SMART Health Cards and EU Digital COVID Certificates, read offline.

Nothing here is trusted but the public keys that the caller hands in. What a card says becomes
FHIR resources, to be added to a record by a person who saw the card and its holder.
"""

from __future__ import annotations

from p2pmed.medical.foreign.card import ForeignCard, read_card
from p2pmed.medical.foreign.issuers import Issuers, read_certificate, read_jwks

__all__ = ["ForeignCard", "Issuers", "read_card", "read_certificate", "read_jwks"]
