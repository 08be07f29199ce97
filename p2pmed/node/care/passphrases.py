"""A passphrase of the patient's own on a category. ``node.consent.passphrases``.

Rule of this file: it works from now on. A new epoch of keys is made, sealed under the passphrase
for that category; records written before stay as they are. Whoever makes a later epoch locks it
alike without knowing the words (``medical/privacy/locks.py``).
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from p2pmed.errors import Denied, LocalProtocolError
from p2pmed.identity.stretching import USUAL, Cost
from p2pmed.medical.keyring import Category
from p2pmed.medical.privacy.locks import Lock

if TYPE_CHECKING:
    from p2pmed.node.node import Node
    from p2pmed.node.receipts import Receipt

__all__ = ["Passphrases"]


class Passphrases:
    """For ``node.consent``."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def set(
        self, patient: bytes, category: Category, passphrase: str, *, cost: Cost = USUAL
    ) -> Receipt:
        """Close ``category`` with ``passphrase`` from now on; empty takes it off.

        Raises ``Denied`` (no keys, or who may not manage consent) or ``ConfigError``.
        """
        ring = self._node.opener.ring(patient)
        locks = dict(ring.locks)
        locks.pop(category, None)
        secret = b""
        if passphrase:
            entropy = self._node.world.entropy
            lock = await asyncio.to_thread(Lock.new, passphrase, entropy, cost=cost)
            secret = await asyncio.to_thread(lock.secret, passphrase)
            locks[category] = lock
        draft = self._node.consent.rotation(patient, reason="passphrase", locks=locks)
        receipt = (await self._node.submit_drafts([draft]))[-1]
        if secret:
            self._node.opener.unlock(patient, category, secret)
        return receipt

    async def open(self, patient: bytes, category: Category, passphrase: str) -> None:
        """Open ``category`` with the patient's passphrase until the session ends.

        Raises ``Denied`` for other words, ``LocalProtocolError`` if there is no passphrase.
        """
        ring = self._node.opener.ring(patient)
        locks = {key.lock.public: key.lock for key in ring if key.lock and key.category is category}
        if not locks:
            raise LocalProtocolError("that category has no passphrase")
        for lock in locks.values():
            with contextlib.suppress(Denied):
                secret = await asyncio.to_thread(lock.secret, passphrase)
                self._node.opener.unlock(patient, category, secret)
                return
        raise Denied("not the patient's passphrase for that category")
