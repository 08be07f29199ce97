"""Defects in ledger, chains, node and restart, as patches of real code (``planting.py``).

Each breaks one rule, and none is known to a checker. Where a rule is one that real systems broke,
``source`` names the report. The other defects, made of subclasses and engines, and the whole
table are in ``planted.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

import msgspec

from p2pmed.consensus.interface import Certified, Check, Evidence
from p2pmed.ledger.executing import Executed
from p2pmed.ledger.logs import Lane
from p2pmed.ledger.lthash import EMPTY
from p2pmed.node.ledgers import HOME
from p2pmed.testing.planting import Patch, Plant
from p2pmed.wire import codec
from p2pmed.world import Space

__all__ = ["PATCHED"]

_CHAIN: Final = "p2pmed.ledger.chain:Chain"
_CHAINS: Final = "p2pmed.sync.chains"
_LOGS: Final = "p2pmed.ledger.logs:Logs"
_HOME: Final = "p2pmed.node.home_ledger:HomeLedger"
_LEDGERS: Final = "p2pmed.node.ledgers:Ledgers"
_BALLOTS: Final = "p2pmed.consensus.bft.ballots"
Make = Callable[[Any], Any]


def _nothing(_: Any) -> Any:
    """Whatever was done is not done, and no objection raised."""
    return lambda *_given, **_named: None


def _yes(_: Any) -> Any:
    return lambda *_given, **_named: True


def _after(then: Callable[..., None]) -> Make:
    """The original, and ``then(self, *arguments)`` after it."""

    def make(original: Any) -> Any:
        def changed(self: Any, *given: Any, **named: Any) -> Any:
            result = original(self, *given, **named)
            then(self, *given, **named)
            return result

        return changed

    return make


# --- executing --------------------------------------------------------------------------------


def _believes(*fields: str) -> Make:
    """A voter takes these fields of a summary from the proposer, where it should compare."""

    def make(original: Any) -> Any:
        def execute(self: Any, block: Any, body: Any, *grounds: Any) -> Any:
            done = original(self, block, body, *grounds)
            if isinstance(done, Executed):
                told = {name: getattr(body.summary, name) for name in fields}
                summary = msgspec.structs.replace(done.body.summary, **told)
                done.body = msgspec.structs.replace(done.body, summary=summary)
            return done

        return execute

    return make


def _forget_sum(chain: Any) -> None:
    chain._total = EMPTY


def _forget_time(chain: Any) -> None:
    chain.time_ms = chain.genesis.created


def _drop_verdicts(chain: Any, _block: Any, _certificate: Any, _tail: Any, done: Any) -> None:
    for entry in done.entries:
        chain._disk.stage(Space.VERDICT, chain.ledger + entry.id, None)


def _without_proof(original: Any) -> Any:
    def stage(self: Any, block: Any, _: Any, tail: Any, done: Any) -> None:
        original(self, block, None, tail, done)

    return stage


def _rows_come_later(original: Any) -> Any:
    """Rows of the state are staged with the block after theirs."""

    def write(self: Any, key: bytes, value: bytes | None) -> None:
        late = self.__dict__.setdefault("_late", [])
        late.append((key, value))
        self._keep(key, value)
        if len(late) > 8:
            original(self, *late.pop(0))

    return write


def _own_order(_: Any) -> Any:
    return lambda self, lane: self._available(lane.key)


# --- chains from peers ------------------------------------------------------------------------


def _parent_as_told(original: Any) -> Any:
    def check(self: Any, stored: Any, epoch: Any, _: bytes) -> Any:
        return original(self, stored, epoch, stored.block.header.parent)

    return check


def _content_as_told(original: Any) -> Any:
    from p2pmed.ledger.block import decode_body

    return lambda block: decode_body(block.content, limit=1 << 24)


def _a_lie_halts(original: Any) -> Any:
    """A peer's false block stops the ledger, as if it had been final."""
    from p2pmed.sync.chains import Faulty

    def carry_out(self: Any, turn: Any, effects: Any) -> None:
        effects = list(effects)
        original(self, turn, effects)
        if self.home is not None and any(isinstance(effect, Faulty) for effect in effects):
            self.home.halt(turn, "a block that does not hold")

    return carry_out


# --- logs -------------------------------------------------------------------------------------


def _taken_unchecked(original: Any) -> Any:
    return lambda self, token, good: original(self, token, (True,) * len(good))


class _Durable:
    """The own log as the disk has it, though more is staged."""

    def __init__(self, logs: Any) -> None:
        self._logs = logs

    def lane(self, key: Any) -> Any:
        lane = self._logs.lane(key)
        if lane is None or lane.durable_next in (0, lane.next_seq):
            return lane
        last = self._logs.entry(key, lane.durable_next - 1)
        return Lane(key, lane.number, lane.durable_next, lane.durable_next, last.id, lane.frozen)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._logs, name)

    def __iter__(self) -> Any:
        return iter(self._logs)


def _from_the_disk(original: Any) -> Any:
    def make(self: Any, *, logs: Any, **given: Any) -> None:
        original(self, logs=_Durable(logs), **given)

    return make


# --- the node ---------------------------------------------------------------------------------


def _covers_all(original: Any) -> Any:
    return lambda self, turn, token: original(self, turn, max(self._after, default=token))


def _home_not_kept(ledgers: Any, _turn: Any, _founding: Any) -> None:
    ledgers._world.disk.stage(Space.META, HOME, None)


def _half_the_rows(original: Any) -> Any:
    """Only the last of the engine's rows is read at a start (ava-labs/Simplex, PR 328)."""
    return lambda disk, epoch: dict(list(original(disk, epoch).items())[-1:])


def _deaf_engine(original: Any) -> Any:
    def run(self: Any, turn: Any, event: Any) -> None:
        if not isinstance(event, Certified):
            original(self, turn, event)

    return run


def _asserts_honesty(original: Any) -> Any:
    def perform(self: Any, turn: Any, effect: Any) -> None:
        assert not isinstance(effect, Evidence), "a validator that signs twice"
        original(self, turn, effect)

    return perform


def _one_is_enough(_: Any) -> Any:
    """Final as soon as a block has come, and its proof later."""

    def run(self: Any, turn: Any) -> list[Any]:
        for stored in self._next_blocks():
            if stored.block.header.height == self.chain.height + 1:
                return [stored] if self.chain.check(stored.block) is Check.VALID else []
        return []

    return run


def _loose_too(original: Any) -> Any:
    """What no certificate speaks of is handed out as if one did."""
    from p2pmed.ledger.stored import StoredBlock
    from p2pmed.sync.chains import Verified

    def take(self: Any, ledger: bytes, known: Any, raws: Any) -> Any:
        taken, loose = original(self, ledger, known, raws)
        blocks = tuple(codec.decode(raw, StoredBlock) for raw in loose)
        return (Verified(ledger, blocks), []) if blocks else (taken, loose)

    return take


def _newer_rows_too(original: Any) -> Any:
    """A flush lets go also of what was written again since: the newer row is never written."""

    def done(self: Any, batch: Any) -> None:
        original(self, batch)
        for space, rows in batch.rows.items():
            again = [key for key in rows if key in self._open.get(space, ())]
            self._overlay[space].drop(again)
            for key in again:
                del self._open[space][key]

    return done


def _keeps_the_engine(original: Any) -> Any:
    """The engine of an epoch goes on in the next one."""

    def hand_over(self: Any, turn: Any) -> None:
        engine = self.engine
        original(self, turn)
        self.engine = engine

    return hand_over


def _plant(
    rule: str, source: str, promise: str, *patches: tuple[str, str, Make], engine: str = "bft"
) -> Plant:
    made = tuple(Patch(*patch) for patch in patches)
    return Plant(
        rule=rule,
        source=source,
        promise=promise,
        engine="raft" if engine == "raft" else "bft",
        found_within=40,
        patches=made,
    )


PATCHED: Final[Mapping[str, Plant]] = MappingProxyType(
    {
        "state root believed": _plant(
            "a voter compares the state with its own", "block.md 4", "final is true",
            (_CHAIN, "_execute", _believes("state")),
        ),
        "verdicts believed": _plant(
            "a voter compares the verdicts with its own", "block.md 4", "final is true",
            (_CHAIN, "_execute", _believes("verdicts")),
        ),
        "block time believed": _plant(
            "block time follows from the readings", "block.md 5", "final is true",
            (_CHAIN, "_execute", _believes("time")),
        ),
        "entries believed": _plant(
            "the summary names what the tips order", "block.md 4", "final is true",
            (_CHAIN, "_execute", _believes("entries")),
        ),
        "order of arrival": _plant(
            "the order inside a block is the same everywhere", "block.md 3", "progress",
            ("p2pmed.ledger.executing", "order_entries", lambda _: list),
        ),
        "references believed": _plant(
            "what an entry refers to is ordered before it", "block.md 4", "final is true",
            (_CHAIN, "_is_ordered", _yes),
        ),
        "tips forgotten at a start": _plant(
            "a ledger stands where it stood", "etcd-io/etcd#13766", "progress",
            (_CHAIN, "_load", _after(lambda chain: chain._tips.clear())),
        ),
        "state sum forgotten at a start": _plant(
            "a ledger stands where it stood", "etcd-io/etcd#13766", "never halted",
            (_CHAIN, "_load", _after(_forget_sum)),
        ),
        "block time forgotten at a start": _plant(
            "a ledger stands where it stood", "block.md 5", "never halted",
            (_CHAIN, "_load", _after(_forget_time)),
        ),
        "verdicts not kept": _plant(
            "verdicts are in the block's commit", "storage.md 2", "one verdict",
            (_CHAIN, "_stage", _after(_drop_verdicts)),
        ),
        "proof not kept": _plant(
            "a final block's certificate is on the disk", "consensus.md 3.7",
            "final means certified", (_CHAIN, "_stage", _without_proof),
        ),
        "state in a later commit": _plant(
            "block and state are one commit", "etcd-io/etcd#13766", "never halted",
            ("p2pmed.ledger.stored:DurableState", "write", _rows_come_later),
        ),
        "forked log ordered to its tip": _plant(
            "a forked log is ordered up to its fork", "block.md 4", "progress",
            (_CHAIN, "_orderable", _own_order),
        ),
        "forks overlooked": _plant(
            "a log with two entries for one place is frozen", "author-log.md", "bounded",
            (_LOGS, "freeze", _nothing),
        ),
        "branches not asked for": _plant(
            "what a block orders of a forked log is fetched", "branches.md", "progress",
            ("p2pmed.node.admission:Admission", "seek_branches", _nothing),
        ),
        "proof in sync believed": _plant(
            "a certificate is checked before its block is taken", "tendermint#5139",
            "never halted", (_CHAINS, "check_proof", _nothing),
        ),
        "parent in sync believed": _plant(
            "a block names the one below", "chains.md 3", "never halted",
            (_CHAINS + ":Chains", "_check", _parent_as_told),
        ),
        "content in sync believed": _plant(
            "a content is what its header says", "summit#173", "final is true",
            (_CHAINS, "_check_content", _content_as_told),
        ),
        "a lie halts the ledger": _plant(
            "whose fault it is decides who is dropped", "ava-labs/Simplex#544", "never halted",
            (_LEDGERS, "_carry_out", _a_lie_halts),
        ),
        "entries unchecked": _plant(
            "an entry's signature is checked before it is stored", "author-log.md",
            "nobody writes in another's name",
            ("p2pmed.ledger.intake:Intake", "checked", _taken_unchecked),
        ),
        "own log from the disk": _plant(
            "an own entry follows the last one signed", "author-log.md", "what is written is taken",
            ("p2pmed.node.own_log:OwnLog", "__init__", _from_the_disk),
        ),
        "a flush covers what came later": _plant(
            "a flush covers what was staged before it", "storage.md 2",
            "final means durable",
            ("p2pmed.node.replica:Replica", "_on_persisted", _covers_all),
        ),
        "home not kept": _plant(
            "the ledger a node lives in is on the disk", "founding.md", "nothing final is lost",
            (_LEDGERS, "_take_home", _after(_home_not_kept)),
        ),
        "only the last row read": _plant(
            "an engine recovers from all its rows", "ava-labs/Simplex, PR 328", "one vote",
            ("p2pmed.node.home_ledger", "rows_of", _half_the_rows),
        ),
        "engine not told of sync": _plant(
            "the engine learns what was decided elsewhere", "cometbft#3372", "progress",
            (_HOME, "run", _deaf_engine),
        ),
        "an assertion on equivocation": _plant(
            "nothing a peer sends stops a node", "tempo#1579", "no crash of its own",
            (_HOME, "_perform", _asserts_honesty),
        ),
        "final before its proof came": _plant(
            "an ancestor is final with its descendant", "chains.md 3", "final means certified",
            (_CHAINS + ":Chains", "_take", _loose_too), (_HOME, "_proven_run", _one_is_enough),
        ),
        "newer rows dropped": _plant(
            "a flush lets go only of what it wrote", "storage.md 2", "nothing final is lost",
            ("p2pmed.storage.memory:StagedMap", "done", _newer_rows_too),
        ),
        "certificates unchecked": _plant(
            "every signature of a certificate is checked", "cometbft#1749",
            "no crash of its own", (_BALLOTS, "check_certificate", _nothing),
        ),
        "engine goes on after a seal": _plant(
            "an epoch ends with its engine", "ava-labs/Simplex#551", "progress",
            (_HOME, "_hand_over", _keeps_the_engine),
        ),
    }
)  # fmt: skip
