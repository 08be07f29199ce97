"""Two or more Raft cores and a list of messages: a mesh by hand, for scenarios."""

from __future__ import annotations

from typing import Any

from raft_simulation import Book, IdealSigner, ideal_verify, make_epoch

from p2pmed.consensus.interface import (
    Behind,
    Broadcast,
    Certified,
    Decide,
    Header,
    Receive,
    SendTo,
    Store,
    Work,
)
from p2pmed.consensus.raft import RaftEngine, messages
from p2pmed.consensus.raft.log import FloorRow, make_slot
from p2pmed.consensus.raft.rows import BallotRow, ballot_key, entry_key, floor_key
from p2pmed.engine import DeadlineReached, Instant, Persisted
from p2pmed.quorum.certificate import Certificate
from p2pmed.wire import codec


class Fixed:
    """Dice that always fall low: timeouts are ten heartbeats."""

    def randint(self, low: int, high: int) -> int:
        return low


class Core:
    """One core whose disk answers when told, and whose messages are kept for reading."""

    def __init__(
        self,
        members: int,
        seat: int = 0,
        *,
        rows: dict[bytes, bytes] | None = None,
        book: Book | None = None,
        tip: Header | None = None,
        certificate: Certificate | None = None,
        now: int = 0,
        number: int = 0,
    ) -> None:
        self.epoch = make_epoch(members, number)
        self.seat = seat
        self.book = book or Book()
        self.rows = dict(rows or {})
        self.mesh = messages.mesh_tag(self.epoch)
        self.now = Instant(now)
        self.engine = RaftEngine(
            epoch=self.epoch,
            seat=seat,
            signer=IdealSigner(self.epoch.validators[seat].vote_key),
            application=self.book,
            rng=Fixed(),
            records=self.rows,
            tip=tip,
            tip_certificate=certificate,
            now=self.now,
            verify=ideal_verify,
        )
        self.effects: list[Any] = []
        """Everything ever returned, in order."""
        self.stores: list[Store] = []
        """Not yet durable."""
        self.out: list[tuple[int | None, Any]] = []
        """Messages since the last ``take``; ``None`` is to all."""
        self.decided: list[Decide] = []
        self.behind: list[Behind] = []

    def event(self, event: Any) -> None:
        self.perform(self.engine.step(event, self.now))

    def perform(self, effects: Any) -> None:
        for effect in effects:
            self.effects.append(effect)
            match effect:
                case Store():
                    self.stores.append(effect)
                case SendTo():
                    self.out.append((effect.seat, messages.decode(effect.message)))
                case Broadcast():
                    self.out.append((None, messages.decode(effect.message)))
                case Decide():
                    self.decided.append(effect)
                    self.book.decide(effect.block)
                case Behind():
                    self.behind.append(effect)

    def tell(self, sender: int, message: Any) -> None:
        self.event(Receive(sender=sender, message=messages.encode(message)))

    def flush(self, count: int | None = None) -> None:
        """Make the oldest stores durable (all: and what follows from them)."""
        while self.stores and count != 0:
            store = self.stores.pop(0)
            for record in store.records:
                if record.value is None:
                    self.rows.pop(record.key, None)
                else:
                    self.rows[record.key] = record.value
            self.event(Persisted(store.token))
            count = None if count is None else count - 1

    def wait(self, ms: int) -> None:
        """Let time pass, deadlines on the way."""
        end = self.now + ms
        while (deadline := self.engine.deadline) is not None and deadline <= end:
            self.now = Instant(max(self.now, deadline))
            self.event(DeadlineReached())
        self.now = Instant(end)

    def hear(self, *numbers: int) -> None:
        self.book.heard.update(dict.fromkeys(numbers))
        self.event(Work())

    def certified(self, header: Header, certificate: Certificate) -> None:
        self.event(Certified(header=header, certificate=certificate))

    def take(self, kind: type[Any] | None = None) -> list[Any]:
        """Messages sent since the last call, of one kind if named."""
        taken = [message for _, message in self.out if kind is None or isinstance(message, kind)]
        self.out.clear()
        return taken

    @property
    def status(self) -> dict[str, Any]:
        return dict(self.engine.status())

    def lead(self) -> None:
        """Win an election against silent but willing others; everything is flushed."""
        self.wait(1_000)
        term = self.status["term"] + 1
        others = [s for s in range(len(self.epoch.validators)) if s != self.seat]
        for other in others:
            self.tell(other, messages.PreVote(mesh=self.mesh, term=term, granted=True))
        self.flush()
        for other in others:
            self.tell(other, messages.Vote(mesh=self.mesh, term=term, granted=True))
        assert self.status["role"] == "leader"
        self.flush()


def beat(core: Core, term: int, **changes: Any) -> messages.Append:
    """A heartbeat or an append of some leader, fields as wished."""
    fields: dict[str, Any] = {
        "mesh": core.mesh,
        "term": term,
        "prev_index": 0,
        "prev_term": 0,
        "commit": 0,
        "decided": 0,
        "idle": False,
        "entries": (),
    }
    return messages.Append(**{**fields, **changes})


def empty(term: int) -> bytes:
    """An encoded entry without a block."""
    return make_slot(1, term, None).raw


def rows_of(
    term: int, voted: int | None, *terms: int, number: int = 0, floor: FloorRow | None = None
) -> dict[bytes, bytes]:
    """Durable rows of a member whose log holds empty entries of these terms."""
    rows = {
        ballot_key(number): codec.encode(BallotRow(version=1, term=term, voted_for=voted)),
        **{
            entry_key(number, i): empty(t)
            for i, t in enumerate(terms, 1 + (floor.index if floor else 0))
        },
    }
    if floor is not None:
        rows[floor_key(number)] = codec.encode(floor)
    return rows


def carry(cores: list[Core], *, rounds: int = 50, drop: Any = None) -> None:
    """Flush and deliver everything between these cores until nothing moves."""
    by_seat = {core.seat: core for core in cores}
    for _ in range(rounds):
        moved = False
        for core in cores:
            core.flush()
            out, core.out = core.out, []
            for to, message in out:
                for other in cores if to is None else [by_seat[to]] if to in by_seat else []:
                    if other is core or (drop and drop(core.seat, other.seat, message)):
                        continue
                    moved = True
                    other.tell(core.seat, message)
        if not moved:
            return


def take_over(candidate: Core, others: list[Core]) -> None:
    """The leader is gone: everybody's patience ends, and ``candidate`` is the first to ask."""
    for other in others:
        other.now = Instant(other.now + 1_000)
    candidate.wait(1_000)
    carry([candidate, *others])
    assert candidate.status["role"] == "leader"
    for _ in range(3):
        candidate.wait(100)
        carry([candidate, *others])
