"""Signatures for a simulated mesh: tokens that nobody can forge, or real Ed25519.

Rules:

* A token is handed out by the one book that knows every signature ever made, so that a forged
  one never verifies, and checking one costs a look-up instead of a curve.
* The book is also the oracle's witness: whether a seat *really* signed a statement is asked
  here, never of an engine.
* One seed in a hundred runs with real keys, so that tokens hide nothing.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

from nacl import bindings

from p2pmed.quorum.certificate import Epoch, Validator
from p2pmed.wire import cose
from p2pmed.wire.hashing import hash_bytes

__all__ = ["LEDGER", "SignatureBook", "make_epoch"]

LEDGER: Final = hash_bytes(b"the ledger of a simulated mesh")
"""What the first block of every simulated mesh stands on."""


class SignatureBook:
    """Makes the keys of ``seats`` seats and remembers all that they sign."""

    def __init__(self, seats: int, *, real: bool = False) -> None:
        self.real = real
        self._seeds = [hash_bytes(b"seed of seat %d" % seat) for seat in range(seats)]
        self.keys = [self._public(seed) for seed in self._seeds]
        """Public vote keys, by seat."""
        self._made: dict[tuple[bytes, bytes], bytes] = {}

    def sign(self, seat: int, message: bytes) -> bytes:
        """64 bytes; signing twice gives the same bytes."""
        key = (self.keys[seat], message)
        known = self._made.get(key)
        if known is None:
            known = self._made[key] = self._fresh(seat, message)
        return known

    def verify(self, key: bytes, signature: bytes, message: bytes) -> bool:
        """Whether ``signature`` was made with the secret of ``key``; a ``certificate.Verify``."""
        if self.real:
            return cose.verify(key, signature, message)
        return self._made.get((key, message)) == signature

    def has_signed(self, seat: int, message: bytes) -> bool:
        """Whether that seat made a signature over ``message``: the truth, for the oracle."""
        return 0 <= seat < len(self.keys) and (self.keys[seat], message) in self._made

    def _public(self, seed: bytes) -> bytes:
        if self.real:
            public: bytes = bindings.crypto_sign_seed_keypair(seed)[0]
            return public
        return hash_bytes(b"public " + seed)

    def _fresh(self, seat: int, message: bytes) -> bytes:
        if not self.real:
            return blake2b(message, digest_size=64, key=self._seeds[seat]).digest()
        _, secret = bindings.crypto_sign_seed_keypair(self._seeds[seat])
        signed: bytes = bindings.crypto_sign(message, secret)
        return signed[:64]


class SeatSigner:
    """The ``Signer`` of one seat."""

    def __init__(self, book: SignatureBook, seat: int) -> None:
        self._book, self._seat = book, seat

    def sign(self, message: bytes) -> bytes:
        """64 bytes."""
        return self._book.sign(self._seat, message)


def make_epoch(book: SignatureBook, liars: int) -> Epoch:
    """The only epoch of a simulated mesh."""
    validators = tuple(
        Validator(node=hash_bytes(b"node %d" % seat), vote_key=key)
        for seat, key in enumerate(book.keys)
    )
    return Epoch(ledger=LEDGER, number=0, liars=liars, validators=validators)
