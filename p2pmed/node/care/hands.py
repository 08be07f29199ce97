"""Whose word it is: a patient's keys at hand, for as long as a card is on the table.

Rule of this file: a ``Hand`` is made by opening a card, or by custodians; it signs and opens for
one patient and is not kept. A guardian's hand for a child says under which delegation it acts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from p2pmed.engine import Entropy
from p2pmed.medical.privacy.holding import Holding, PatientSecrets, hold

__all__ = ["Custody", "Hand"]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class Custody:
    """One generation of a patient's key, made and not yet written."""

    secrets: PatientSecrets
    holding: Holding
    master: bytes

    @classmethod
    def made(
        cls,
        patient: bytes,
        secrets: PatientSecrets,
        custodians: Sequence[bytes],
        network: bytes,
        entropy: Entropy,
    ) -> Custody:
        """In the hands of ``custodians`` (one to three X25519 public keys)."""
        holding, master = hold(
            secrets, patient=patient, network=network, custodians=custodians, entropy=entropy
        )
        return cls(secrets=secrets, holding=holding, master=master)

    @classmethod
    def alone(cls, patient: bytes, key: bytes, network: bytes, entropy: Entropy) -> Custody:
        """A new patient's, held by ``key`` alone until there is a card."""
        return cls.made(patient, PatientSecrets.generate(entropy), [key], network, entropy)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class Hand:
    """A patient's keys, opened; or a delegate's, acting for the patient."""

    patient: bytes
    """Pseudonym of whom it acts for."""
    secrets: PatientSecrets
    master: bytes
    """Of the newest generation that was opened; empty in a delegate's hand."""
    custody: bytes
    """The transaction that made that generation."""
    card: bytes = b""
    """Id of the card that was opened, or empty."""
    under: bytes = b""
    """The delegation, or empty: the patient's own word."""

    @property
    def owner(self) -> bool:
        """Whether it is the patient's own, not a delegate's."""
        return not self.under

    def standing_in(self, patient: bytes, delegation: bytes) -> Hand:
        """This person's hand for another ``patient``, under ``delegation``."""
        return replace(self, patient=patient, under=delegation, master=b"", custody=b"", card=b"")
