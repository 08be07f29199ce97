"""Anchors at both ends: a county writes how far it has a village, a village learns of it.

Rule: at a county, one anchor at a time; the next is planned when the last has its verdict, and
executed when the village's blocks and their bodies are here. Everywhere else county ledgers are
watched, not executed, and what is believed of them is said in ``node/county.py``.

Failure table:

=====================================  =====================================================
an anchor that the county refused      what is here differs: tried again after a minute
a village's blocks or bodies missing   the anchor waits; its block is not voted for
a contradiction that a county found    kept until people decide, and told as an alarm
the own log forked, the ledger halted  nothing is anchored
=====================================  =====================================================
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from p2pmed.engine import Instant
from p2pmed.ledger.genesis import Founding
from p2pmed.ledger.logs import Logs
from p2pmed.ledger.state import StateMachine
from p2pmed.ledger.transaction import Entry, LaneKey
from p2pmed.medical.county import (
    ANCHOR,
    BLOCKS_PER_ANCHOR_MAX,
    Anchor,
    CountyMachine,
    anchored_height,
)
from p2pmed.medical.registry import Registry
from p2pmed.medical.rejections import Rejection
from p2pmed.node import events
from p2pmed.node.county import COUNTY_ROLES, AnchorWatch, VillageBlocks, is_county
from p2pmed.node.events import Draft
from p2pmed.node.home_ledger import HomeLedger
from p2pmed.node.own_log import OwnLog
from p2pmed.node.trust import Trust
from p2pmed.node.turn import Turn
from p2pmed.sync.chains import Chains
from p2pmed.world import Space, World

__all__ = ["Anchoring"]

ANCHOR_MS: Final = 1_000
"""How often a county looks for village blocks to execute."""
ANCHOR_REFUSED_MS: Final = 60_000
"""After an anchor that the county found to be wrong."""
ALARM: Final = b"alarm"
"""Row of ``Space.LOCAL``, before two ids: a contradiction that a county told of."""
ALARMS_MAX: Final = 1_024
"""Of them that are shown."""


class Anchoring:
    """What is written and believed about anchors. ``write`` signs drafts into the own log."""

    def __init__(
        self,
        *,
        world: World,
        network: bytes,
        registry: Registry,
        machine: StateMachine,
        logs: Logs,
        own: OwnLog,
        chains: Chains,
        trust: Trust,
        home: Callable[[], HomeLedger | None],
        write: Callable[[Turn, tuple[Draft, ...]], list[Entry]],
    ) -> None:
        self._disk = world.disk
        self._clock = world.clock
        self._network = network
        self._registry = registry
        self._logs = logs
        self._own = own
        self._chains = chains
        self._trust = trust
        self._home = home
        self._write = write
        self.villages = VillageBlocks(world.disk, logs, chains)
        self.machine = CountyMachine(machine, registry, self.villages)
        """The rules of a county's own ledger."""
        self.watches: dict[bytes, AnchorWatch] = {}
        """By county ledger that is carried here."""
        self.deadline: Instant | None = None
        """When a county looks at its villages next; ``None`` if nothing has come, or elsewhere."""
        self._writes = False
        """Whether the home ledger is a county's."""
        self._written: Entry | None = None
        """The anchor last written here, until it has its verdict."""

    # --- at a county ------------------------------------------------------------------------

    def begin(self) -> None:
        """This node lives in a county's ledger: look for blocks to execute from now on."""
        self._writes = True
        self.deadline = self._clock.now()

    def soon(self, now: Instant) -> None:
        """A village's block, or what it orders, has come: it may call for an anchor."""
        if self._writes and self.deadline is None:
            self.deadline = Instant(now + ANCHOR_MS)

    def on_deadline(self, turn: Turn) -> None:
        """Look whether a village has moved on, if it is time to."""
        if turn.due(self.deadline):
            self._anchor(turn)

    def _anchor(self, turn: Turn) -> None:
        """Write the next anchor, if a village has moved on.

        One at a time: the next when this one has its verdict, which a decided block brings.
        """
        home = self._home()
        self.deadline = None
        if home is None or home.engine is None or home.halted or self._own.frozen:
            return
        if self._written is not None:
            verdict = home.chain.verdict_of(self._written)
            if verdict is None:
                return
            if verdict.code == Rejection.ANCHOR_MISMATCH:
                # What is here differs from what the others hold: trying again is no cure.
                self._written, self.deadline = None, Instant(turn.now + ANCHOR_REFUSED_MS)
                return
        for ledger, height in self._chains.heads():
            if ledger == home.ledger or ledger in self.watches or self._awaits_elder(ledger, home):
                continue
            anchor = self.machine.plan(home.chain.state, self._network, ledger, height)
            if anchor is not None:
                self._written = self._write(turn, (Draft(body=anchor),))[-1]
                return

    def _awaits_elder(self, ledger: bytes, home: HomeLedger) -> bool:
        """Whether the ledger that it follows is to be executed first: it begins with its state."""
        founding = self._chains.founding(ledger)
        genesis = founding.genesis if founding else None
        if genesis is None or not genesis.predecessor:
            return False
        done = anchored_height(home.chain.state, genesis.predecessor)
        return done < genesis.predecessor_height

    def ready(self, entry: Entry) -> bool:
        """Whether all that executing ``entry`` reads is here: for an anchor, the village."""
        if entry.kind != ANCHOR:
            return True
        body = self._registry.body(entry)
        if (
            not isinstance(body, Anchor)
            or not 0 < body.height - body.start <= BLOCKS_PER_ANCHOR_MAX
        ):
            return True  # refused whatever the village says
        home = self._home()
        if home is not None and body.start < anchored_height(home.chain.state, body.ledger):
            return True
        held = 0
        for block in self.villages.blocks(body.ledger, body.start, body.height):
            held = block.height
        return held == body.height

    # --- at a village -----------------------------------------------------------------------

    def watch(self, ledger: bytes) -> None:
        """Follow the anchors of a known ledger, if it is a county's."""
        founding = self._chains.founding(ledger)
        if founding is not None and self.is_county(founding):
            self.watches[ledger] = AnchorWatch(
                ledger=ledger,
                disk=self._disk,
                logs=self._logs,
                chains=self._chains,
                registry=self._registry,
                speaks=self._speaks_for_county,
            )

    def is_county(self, founding: Founding) -> bool:
        """Whether a county's or hospital's devices alone founded it."""
        return is_county(founding, self._trust.roles_of)

    def _speaks_for_county(self, lane: LaneKey) -> bool:
        """Whether the log was opened with a county's or hospital's credential."""
        opening = self._logs.entry(lane, 0)
        author = self._trust.opened_by(opening) if opening else None
        return author is not None and not COUNTY_ROLES.isdisjoint(author.roles)

    def advance(self, turn: Turn) -> None:
        """Take in what county ledgers have ordered, as far as it is here."""
        for ledger in sorted(self.watches):
            watch = self.watches[ledger]
            before = watch.height
            anchors = watch.advance()
            if watch.height == before:
                continue
            turn.staged = True
            moved = events.AnchorsMoved(ledger, watch.height)
            alarms = [
                events.Alarm("discrepancy", (refused.other, refused.id), refused.code)
                for anchor in anchors
                for refused in anchor.refused
                if refused.other
            ]
            for alarm in alarms:
                self._keep_alarm(alarm)
            turn.when_durable(lambda later, moved=moved: later.notify(moved))  # type: ignore[misc]
            for alarm in alarms:
                turn.notify(alarm)

    # --- what is asked ----------------------------------------------------------------------

    def is_anchored(self, entry: Entry) -> bool:
        """Whether a county's certified ledger has ``entry``; ``node/county.py`` says how."""
        home = self._home()
        if home is not None and home.ledger in self.watches:
            ordered = home.chain.height_of(entry)
            if ordered is None or ordered > home.durable_height:
                return False
            return self._is_executed(
                entry, home.ledger, anchored_height(home.chain.state, entry.envelope.ledger)
            )
        return any(
            watch.orders(entry)
            and self._is_executed(entry, ledger, watch.village_height(entry.envelope.ledger))
            for ledger, watch in self.watches.items()
        )

    def _is_executed(self, entry: Entry, county: bytes, height: int) -> bool:
        """Whether an entry that ``county`` ordered counts there.

        What was written to be spent in a village's ledger counts with the anchor that covers
        the block which decided it; ``height`` is up to where that ledger is anchored.
        """
        ledger = entry.envelope.ledger
        kind = self._registry.find(entry.envelope.kind, entry.envelope.kind_version)
        spends = kind is not None and kind.ordered and not kind.everywhere
        if not spends or ledger in (b"", county):
            return True
        home = self._home()
        if home is not None and home.ledger == ledger:
            decided = home.chain.height_of(entry)
        else:
            decided = self.villages.height_of(ledger, entry)
        return decided is not None and decided <= height

    def _keep_alarm(self, alarm: events.Alarm) -> None:
        """A contradiction that the county found: kept until people decide."""
        self._disk.stage(Space.LOCAL, ALARM + b"".join(alarm.ids), alarm.text.encode("utf-8"))

    def county_alarms(self) -> list[tuple[bytes, bytes, str]]:
        """Contradictions that county ledgers told of: first id, second id, reason."""
        rows = self._disk.scan(Space.LOCAL, ALARM, b"alarn", limit=ALARMS_MAX)
        return [(key[5:37], key[37:69], value.decode("utf-8")) for key, value in rows]

    def is_cosigned(self, entry: Entry) -> bool:
        """Whether ``entry`` of a successor ledger counts: what spends waits for a county's anchor.

        Survivors of a lost quorum know what they hold, not what the others spent meanwhile.
        """
        kind = self._registry.find(entry.envelope.kind, entry.envelope.kind_version)
        if kind is None or not kind.ordered or kind.everywhere or kind.local:
            return True
        home = self._home()
        if home is not None and home.chain.height_of(entry) == 0:
            return True  # the predecessor's quorum made it final
        return home is not None and any(
            watch.village_height(home.ledger) > 0 for watch in self.watches.values()
        )

    def village_progress(self) -> list[dict[str, Any]]:
        """Village ledgers known here: height here, and height executed by a county.

        At a county also whether an anchor is due: blocks that order nothing but anchors wait.
        """
        home, found = self._home(), []
        for ledger, height in self._chains.heads():
            if ledger in self.watches:
                continue
            executed = max(
                (watch.village_height(ledger) for watch in self.watches.values()), default=0
            )
            row = {"ledger": ledger.hex(), "height": height, "executed": executed}
            if home is not None and home.ledger in self.watches:
                state = home.chain.state
                row["executed"] = anchored_height(state, ledger)
                row["due"] = self.machine.is_due(state, ledger, height)
            found.append(row)
        return found
