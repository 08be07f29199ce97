"""How large a node's tables are, and how large they may become: the promise *bounded*.

Every cap is a named limit where the code has one; the others are what honest peers can cause
in a mesh of ``VALIDATORS_MAX``, with the reason beside them. The simulator asks now and then;
the most it ever saw is told with the outcome of a scenario.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from p2pmed.consensus.bft.ballots import AHEAD_MAX
from p2pmed.consensus.bft.engine import BftEngine
from p2pmed.consensus.bft.live import KEPT_VIEWS
from p2pmed.consensus.raft.bounds import LOG_ENTRIES_MAX
from p2pmed.consensus.raft.engine import RaftEngine
from p2pmed.gossip.frontier import FOREIGN_LANES_MAX
from p2pmed.ledger.logs import ENTRIES_CACHED_MAX
from p2pmed.ledger.stored import ROWS_CACHED_MAX
from p2pmed.limits import LANES_MAX, PEERS_MAX
from p2pmed.node.home_ledger import WAITING_BLOCKS_MAX
from p2pmed.node.replica import Replica
from p2pmed.sync.chains import LEDGERS_MAX

__all__ = ["overgrown", "sizes"]

FLUSHES_WAITING_MAX: Final = 4_096
"""Steps of one slow flush: half a second of eight frames a millisecond."""
CHECKS_WAITING_MAX: Final = 1_024
"""Batches at the verifier: it answers in milliseconds, and peers have budgets."""
VIEWS_MAX: Final = 512
"""Undecided views: lost ones cost nothing but their certificates, and the wait doubles."""

assert VIEWS_MAX > KEPT_VIEWS + AHEAD_MAX


def sizes(replica: Replica) -> Iterator[tuple[str, int, int]]:
    """Name, size and cap of every table of a node that can grow."""
    yield "links", len(replica.links), PEERS_MAX
    yield "lanes", len(replica.logs), LANES_MAX
    yield "decoded entries", len(replica.logs._cache), ENTRIES_CACHED_MAX
    yield "flushes waiting", len(replica._after), FLUSHES_WAITING_MAX
    yield "checks waiting", len(replica.admission._checking), CHECKS_WAITING_MAX
    yield "batches being checked", len(replica.intake._batches), CHECKS_WAITING_MAX
    yield "lanes being checked", len(replica.intake._ahead), LANES_MAX
    yield "ledgers", len(replica.chains._known), LEDGERS_MAX
    yield "ledgers asked for", len(replica.chains._unknown), LEDGERS_MAX
    yield "lanes wanted", replica.gossip.lacking, LANES_MAX + PEERS_MAX * FOREIGN_LANES_MAX
    home = replica.home
    if home is None:
        return
    yield "blocks waiting", len(home._waiting), WAITING_BLOCKS_MAX
    yield "blocks executed", len(home.chain._executed), VIEWS_MAX
    yield "state rows", len(home.chain.state._cache), ROWS_CACHED_MAX
    engine = home.engine
    if isinstance(engine, BftEngine):
        live = engine._live
        views = max(len(live.notarized), len(live.nullified), len(live.finalized))
        yield "views", max(views, len(live.blocks), len(live.proposals)), VIEWS_MAX
        yield "tallies", len(engine._ballots._tallies), VIEWS_MAX
    elif isinstance(engine, RaftEngine):
        yield "raft log", len(engine._replica.log), LOG_ENTRIES_MAX


def overgrown(replica: Replica) -> list[str]:
    """Tables beyond their caps, in words; empty if all is well."""
    return [f"{name}: {size} of {cap}" for name, size, cap in sizes(replica) if size > cap]
