"""Proof that who publishes a vote key can sign with it.

Rule: a vote key counts for a device only with a signature by that very key over the network, the
ledger and the device. Without it a validator could publish another's key as its own, and every
epoch that seats both would be refused, since no key votes for two seats
(``certificate.py``): it would block changes for good.

The ledger is empty in ``log.open``, which comes before any ledger. Epochs are not named: a key is
used when its turn comes, in one epoch, and never again. Byte-exact: ``docs/protocols/
certificate.md``, section 5.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from p2pmed.errors import CredentialError
from p2pmed.identity.keys import VoteSigner, check_signing_key
from p2pmed.wire import cbor, cose
from p2pmed.wire.codec import Bytes32, Bytes64, Wire

__all__ = ["ProvenKey", "is_proven", "possession_bytes", "prove"]

CHECKED_MAX: Final = 4_096
"""Answers remembered: overlays and audits ask again for the same keys."""


class ProvenKey(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A public vote key, with the proof that its publisher has the secret half."""

    key: Bytes32
    proof: Bytes64


def possession_bytes(network: bytes, ledger: bytes, device: bytes) -> bytes:
    """What the key signs; ``ledger`` is empty in a log's first entry."""
    return cbor.encode(["p2pmed/1", "vote key", network, ledger, device])


def prove(signer: VoteSigner, *, network: bytes, ledger: bytes, device: bytes) -> ProvenKey:
    """The public half of ``signer``, proven for ``device``."""
    message = possession_bytes(network, ledger, device)
    return ProvenKey(key=signer.public, proof=signer.sign(message))


def is_proven(published: ProvenKey, *, network: bytes, ledger: bytes, device: bytes) -> bool:
    """Whether ``device`` has the secret half, and the key is a sound one."""
    message = possession_bytes(network, ledger, device)
    return _is_signed(published.key, published.proof, message)


@lru_cache(maxsize=CHECKED_MAX)
def _is_signed(key: bytes, proof: bytes, message: bytes) -> bool:
    try:
        check_signing_key(key)
    except CredentialError:
        return False
    return cose.verify(key, proof, message)
