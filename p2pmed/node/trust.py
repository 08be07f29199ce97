"""Whom a node believes: chains of credentials, the roles in them; whom it has no channel with.

Rule: a device is who a chain from a root of the network says it is, whatever the hour; expiry
is judged by the rules of the ledger, at the time of a block. A revocation that is stored here
closes the device's channels at once, final or not (design, section 12), and is remembered, so
that it also holds between a start and the first look at the state.

Failure table:

=============================================  =========================================
a chain that leads from no root, or elsewhere  ``CredentialError``: no channel
a revoked device                               no channel; an open one is dropped
a device that broke the protocol               no channel for a while
a revocation that does not hold                nothing: the state says who is revoked
a log opened without a valid chain             not admitted (``ledger/intake.py``)
=============================================  =========================================
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Final

from p2pmed.engine import Instant
from p2pmed.errors import CredentialError
from p2pmed.identity.credentials import Credential, check_chain
from p2pmed.ledger.state import Readable
from p2pmed.ledger.transaction import Entry
from p2pmed.medical.membership import CredentialOpener, LogOpen, Revocation, member
from p2pmed.medical.registry import Member, Registry
from p2pmed.node.identity import Identity
from p2pmed.node.turn import Turn
from p2pmed.quorum.certificate import Verify
from p2pmed.world import Space, World

__all__ = ["Trust"]

REVOKE: Final = "credential.revoke"
REVOKED: Final = b"revoked"
"""Row of ``Space.LOCAL``, before a device's key: a revocation of it was seen to hold."""
REVOKED_MAX: Final = 4_096
"""Revoked devices remembered between a start and the first look at the state."""
SHUN_MS: Final = 30_000
SHUNNED_MAX: Final = 256


class Trust:
    """Judges chains, openings of logs, and devices. ``state()`` is the provisional state."""

    def __init__(
        self,
        *,
        identity: Identity,
        registry: Registry,
        world: World,
        verify: Verify,
        state: Callable[[], Readable],
    ) -> None:
        self.opener = CredentialOpener(identity.manifest, identity.network, verify=verify)
        self._manifest = identity.manifest
        self._network = identity.network
        self._registry = registry
        self._disk = world.disk
        self._clock = world.clock
        self._verify = verify
        self._state = state
        rows = world.disk.scan(Space.LOCAL, REVOKED, REVOKED + b"\xff" * 33, limit=REVOKED_MAX)
        self._revoked = {key[len(REVOKED) :] for key, _ in rows}
        self._shunned: dict[bytes, Instant] = {}
        """Who broke the protocol, and until when no channel with it is opened."""

    # --- chains -----------------------------------------------------------------------------

    def _leaf(self, chain: Sequence[bytes]) -> Credential:
        return check_chain(
            chain,
            manifest=self._manifest,
            network_id=self._network,
            at_ms=None,
            verify=self._verify,
        )

    def open_chain(self, chain: Sequence[bytes]) -> bytes:
        """The device that ``chain`` speaks of. Raises ``CredentialError``."""
        return self._leaf(chain).subject

    def roles_of(self, chain: Sequence[bytes]) -> tuple[str, ...]:
        """The roles that ``chain`` gives its device. Raises ``CredentialError``."""
        return tuple(role.value for role in self._leaf(chain).roles)

    def opened_by(self, opening: Entry) -> Member | None:
        """Who opened a log with this first entry, if its chain holds."""
        body = self._registry.body(opening)
        return self.opener(body.chain, opening.author) if isinstance(body, LogOpen) else None

    def valid_opening(self, opening: Entry) -> bool:
        """Whether a log may begin with this entry."""
        return self.opened_by(opening) is not None

    # --- devices ----------------------------------------------------------------------------

    def authenticate(self, device: bytes, chain: Sequence[bytes]) -> None:
        """Whether a device that proved ``device`` may have a channel. ``CredentialError``."""
        if self.open_chain(chain) != device:
            raise CredentialError("a credential that speaks of another device")
        if self._clock.now() < self._shunned.get(device, self._clock.now()):
            raise CredentialError("this device broke the protocol a moment ago")
        if device in self._revoked and self._is_revoked(device):
            raise CredentialError("this device's credential was revoked")

    def shun(self, turn: Turn, peer: bytes) -> None:
        """Open no channel with ``peer`` for a while: a new one costs it less than us.

        It gave what no honest node passes on: a false signature, a block that does not hold.
        """
        while len(self._shunned) >= SHUNNED_MAX:
            del self._shunned[next(iter(self._shunned))]
        self._shunned[peer] = Instant(turn.now + SHUN_MS)

    def _is_revoked(self, device: bytes) -> bool:
        """Whether a revocation that holds is stored here, final or not (design, section 12)."""
        known = member(self._state(), device)
        return known is not None and known.revoked

    def saw_revoked(self, device: bytes) -> bool:
        """Whether a revocation of it was ever seen to hold here."""
        return device in self._revoked

    def enforce(self, turn: Turn, entries: Sequence[Entry], linked: Collection[bytes]) -> None:
        """Close the channels of devices that stored revocations speak of, and remember them."""
        for entry in entries:
            body = self._registry.body(entry) if entry.kind == REVOKE else None
            if not isinstance(body, Revocation) or not self._is_revoked(body.subject):
                continue
            self._revoked.add(body.subject)
            self._disk.stage(Space.LOCAL, REVOKED + body.subject, b"")
            turn.staged = True
            if body.subject in linked:
                turn.drop(body.subject, "this device's credential was revoked")
