"""When a node lives in a ledger without its operator's word: the first one, and a successor.

Rule: a home is for life, so a stranger's founding is followed by policy only, and a successor of
the home only by its founders and by who has no seat to defend. Who follows holds the very state
with which the successor begins (``ledger/inheriting.py``); who lacks some of it catches up first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from p2pmed.ledger.genesis import Founding
from p2pmed.ledger.inheriting import holds_estate
from p2pmed.node.home_ledger import HomeLedger
from p2pmed.sync.chains import Chains
from p2pmed.sync.founding import MeshPolicy
from p2pmed.world import Disk

__all__ = ["Succession"]


class Succession:
    """Decides for one node. ``links`` are the connected peers."""

    def __init__(
        self,
        *,
        me: bytes,
        disk: Disk,
        policy: MeshPolicy,
        chains: Chains,
        links: Mapping[bytes, object],
        is_revoked: Callable[[bytes], bool],
    ) -> None:
        self._me = me
        self._disk = disk
        self._policy = policy
        self._chains = chains
        self._links = links
        self._is_revoked = is_revoked

    def may_follow(self, founding: Founding, *, county: bool) -> bool:
        """Whether a ledger that others founded may become the first home without a word.

        It is for life: so not a county's, not one of a device known to be revoked, and, where
        this node founds meshes by itself, not a smaller one than it would found: anybody may
        found a ledger of one.
        """
        founders = [validator.node for validator in founding.genesis.validators]
        small = self._policy.auto and len(founders) < self._policy.size
        revoked = any(map(self._is_revoked, founders))
        return self._policy.follow and not (small or county or revoked)

    def heir(self, home: HomeLedger) -> Founding | None:
        """The known successor of ``home`` in which this node lives from now on, if there is one.

        A founder has given its word. Who has no seat follows those who had one, if they are all
        that founded it and no quorum of the old ledger is in sight.
        """
        for ledger, _ in self._chains.heads():
            founding = self._chains.founding(ledger)
            if founding is None or founding.genesis.predecessor != home.ledger:
                continue
            founders = {validator.node for validator in founding.genesis.validators}
            old = {validator.node for validator in home.epoch.validators}
            lost = len(old & self._links.keys()) < home.epoch.quorum
            follows = home.seat is None and self._policy.follow and founders <= old and lost
            if (self._me in founders or follows) and holds_estate(self._disk, founding.genesis):
                return founding
        return None
