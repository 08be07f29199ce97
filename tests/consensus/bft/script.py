"""Scripts of a few engines that talk: commands above a line of dashes, what happened below.

Messages and flushes wait until a command lets them go, so that a script says exactly who knew
what when. ``#`` begins a comment. Commands:

``mesh N [f=F]``        N fresh engines, greeted; everybody was heard just now
``work ITEM [SEATS]``   a counter to order, known to all seats or to those named
``settle``              deliver and flush until nothing is left
``deliver [SEATS]``     deliver what waits now, to all or to the seats named; flush nothing
``flush [SEATS]``       flush now, at all or at the seats named
``drop WHAT [to SEATS]``  lose waiting messages: proposals, votes, certificates or all
``cut SEATS`` / ``heal``  nothing goes in or out of these seats; back to normal
``crash SEATS`` / ``start SEATS`` / ``wipe SEATS``  power off; on; off with all rows lost
``amnesic SEATS``       on, as a home that knows that it forgot
``pass MS``             time passes; who is up and not cut is heard; deadlines come
``say SEAT KIND VIEW [ITEM]``  a liar's vote: N, X or F; the block of VIEW on the ledger's start
``read SEAT``           ask for a linearizable height
``show``                view, floor, height and phase of each seat
"""

from __future__ import annotations

import random

from bench_seat import said, votes
from simulation import LEDGER, Counters, IdealSigner, ideal_verify, make_epoch

from p2pmed.consensus.bft.engine import BftEngine
from p2pmed.consensus.bft.messages import (
    Certificates,
    Decided,
    Proposal,
    Vote,
    Votes,
    decode_message,
    encode_message,
)
from p2pmed.consensus.interface import (
    Block,
    Broadcast,
    ConsensusEvent,
    Decide,
    Evidence,
    Header,
    Heard,
    Read,
    ReadAt,
    ReadFailed,
    Receive,
    Recovered,
    SendTo,
    Store,
    Work,
    header_digest,
)
from p2pmed.engine import DeadlineReached, Instant, Persisted
from p2pmed.quorum.certificate import VoteKind, vote_bytes
from p2pmed.wire import cbor
from p2pmed.wire.hashing import hash_bytes

KINDS = {"proposals": Proposal, "votes": Vote | Votes, "certificates": Certificates, "all": object}
STEPS_MAX = 5_000


class Seat:
    """One engine, its application and its disk."""

    def __init__(self, seat: int) -> None:
        self.seat = seat
        self.application = Counters()
        self.rows: dict[bytes, bytes] = {}
        self.unflushed: list[Store] = []
        self.engine: BftEngine | None = None
        self.tip: tuple = (None, None)


class Script:
    """A mesh that does what it is told, and writes down what it does."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.now = 0
        self.seats: list[Seat] = []
        self.waiting: list[tuple[int, int, bytes]] = []
        self.away: dict[int, None] = {}

    def run(self, text: str) -> str:
        for line in text.splitlines():
            command = line.split("#")[0].split()
            if command:
                getattr(self, "do_" + command[0])(*command[1:])
        return "\n".join(self.lines) + "\n"

    # commands

    def do_mesh(self, count: str, liars: str = "") -> None:
        self.epoch = make_epoch(int(count), int(liars[2:]) if liars else None)
        self.seats = [Seat(seat) for seat in range(int(count))]
        self.do_start(*map(str, range(int(count))))
        self._hear()
        self.do_settle()

    def do_work(self, item: str, *seats: str) -> None:
        for seat in self._named(seats):
            seat.application.known[int(item)] = None
            self._step(seat, Work())

    def do_settle(self) -> None:
        for _ in range(STEPS_MAX):
            if not self.waiting and not any(seat.unflushed for seat in self.seats):
                return
            self.do_deliver()
            self.do_flush()
        raise AssertionError("it never settles")

    def do_deliver(self, *seats: str) -> None:
        names = [seat.seat for seat in self._named(seats)]
        waiting, self.waiting = self.waiting, []
        for sender, target, message in waiting:
            if target not in names:
                self.waiting.append((sender, target, message))
            elif sender not in self.away and target not in self.away:
                self._step(self.seats[target], Receive(sender, message))

    def do_flush(self, *seats: str) -> None:
        for seat in self._named(seats):
            stores, seat.unflushed = seat.unflushed, []
            for store in stores:
                for record in store.records:
                    if record.value is None:
                        seat.rows.pop(record.key, None)
                    else:
                        seat.rows[record.key] = record.value
            for store in stores:
                self._step(seat, Persisted(store.token))

    def do_drop(self, what: str, _to: str = "", *seats: str) -> None:
        names = [seat.seat for seat in self._named(seats)]
        self.waiting = [
            each
            for each in self.waiting
            if each[1] not in names or not isinstance(decode_message(each[2]), KINDS[what])
        ]

    def do_cut(self, *seats: str) -> None:
        self.away.update(dict.fromkeys(map(int, seats)))

    def do_heal(self) -> None:
        self.away.clear()

    def do_crash(self, *seats: str) -> None:
        for seat in self._named(seats):
            seat.engine = None
            seat.unflushed.clear()

    def do_wipe(self, *seats: str) -> None:
        self.do_crash(*seats)
        for seat in self._named(seats):
            seat.rows.clear()

    def do_start(self, *seats: str) -> None:
        self._boot(seats, amnesic=False)

    def do_amnesic(self, *seats: str) -> None:
        self._boot(seats, amnesic=True)

    def do_pass(self, ms: str) -> None:
        end = self.now + int(ms)
        while self.now < end:
            self.now = min(end, self.now + 50)
            self._hear()
            for seat in self.seats:
                due = None if seat.engine is None else seat.engine.deadline
                if due is not None and due <= self.now:
                    self._step(seat, DeadlineReached())

    def do_say(self, seat: str, kind: str, view: str, item: str = "") -> None:
        name = {"N": VoteKind.NOTARIZE, "X": VoteKind.NULLIFY, "F": VoteKind.FINALIZE}[kind]
        digest = b"" if kind == "X" else header_digest(self._block(int(view), int(item)).header)
        statement = vote_bytes(LEDGER, 0, name, int(view), digest)
        vote = Vote(int(name), int(view), digest, IdealSigner(int(seat)).sign(statement))
        self._broadcast(int(seat), encode_message(vote))

    def do_propose(self, view: str, item: str, *seats: str) -> None:
        """A liar's block, to the seats named."""
        block = self._block(int(view), int(item))
        message = encode_message(Proposal(block=block, justification=()))
        for seat in seats:
            self.waiting.append((block.header.proposer, int(seat), message))

    def do_read(self, seat: str) -> None:
        self._step(self.seats[int(seat)], Read(1))

    def do_show(self) -> None:
        for seat in self.seats:
            if seat.engine is None:
                self.lines.append(f"{seat.seat}: off")
                continue
            state = seat.engine.status()
            self.lines.append(
                f"{seat.seat}: view {state['view']} floor {state['floor']} "
                f"height {state['height']} {state['phase']}"
            )

    # what happens

    def _named(self, seats: tuple[str, ...]) -> list[Seat]:
        return [self.seats[int(s)] for s in seats] if seats else self.seats

    def _boot(self, seats: tuple[str, ...], *, amnesic: bool) -> None:
        for seat in self._named(seats):
            known, decided, tip = (
                seat.application.known,
                seat.application.decided,
                seat.application.tip,
            )
            seat.application = Counters()
            seat.application.known.update(known)
            seat.application.decided, seat.application.tip = decided, tip
            seat.engine = BftEngine(
                epoch=self.epoch,
                seat=seat.seat,
                signer=IdealSigner(seat.seat),
                application=seat.application,
                rng=random.Random(seat.seat),
                records=dict(seat.rows),
                tip=seat.tip[0],
                tip_certificate=seat.tip[1],
                now=Instant(self.now),
                verify=ideal_verify,
                amnesic=amnesic,
            )

    def _hear(self) -> None:
        for seat in self.seats:
            for other in self.seats:
                up = seat.engine is not None and other.engine is not None
                if up and seat is not other and not {seat.seat, other.seat} & set(self.away):
                    self._step(seat, Heard(other.seat))

    def _block(self, view: int, item: int) -> Block:
        content = cbor.encode([item])
        proposer = view % len(self.seats)
        header = Header(1, LEDGER, 0, view, 1, LEDGER, 0, proposer, hash_bytes(content))
        return Block(header=header, content=content)

    def _broadcast(self, sender: int, message: bytes) -> None:
        for seat in self.seats:
            if seat.seat != sender:
                self.waiting.append((sender, seat.seat, message))

    def _step(self, seat: Seat, event: ConsensusEvent) -> None:
        if seat.engine is None:
            return
        before = seat.engine.status()["view"]
        effects = list(seat.engine.step(event, Instant(self.now)))
        for effect in effects:
            match effect:
                case Broadcast():
                    self._broadcast(seat.seat, effect.message)
                case SendTo():
                    self.waiting.append((seat.seat, effect.seat, effect.message))
                case Store():
                    seat.unflushed.append(effect)
                case Decide():
                    seat.application.apply(effect.block)
                    seat.tip = (effect.block.header, effect.certificate)
        self._write(seat, effects, int(before))

    def _write(self, seat: Seat, effects: list, before: int) -> None:
        name = seat.seat
        for message in said(effects, Proposal):
            header = message.block.header
            self.lines.append(f"{name} proposes view {header.view} on {header.parent_view}")
        spoken = [f"{kind.name[0] if kind != 2 else 'X'}{view}" for kind, view in votes(effects)]
        if spoken:
            self.lines.append(f"{name} votes {' '.join(spoken)}")
        for effect in effects:
            match effect:
                case Decide():
                    items = ",".join(map(str, cbor.decode(effect.block.content))) or "nothing"
                    header = effect.block.header
                    own = "" if effect.certificate else " by its descendant"
                    self.lines.append(
                        f"{name} decides {items} at {header.height} in view {header.view}{own}"
                    )
                case Evidence():
                    self.lines.append(f"{name} accuses {effect.seat} of {effect.kind}")
                case Recovered():
                    self.lines.append(f"{name} recovered")
                case ReadAt():
                    self.lines.append(f"{name} reads at {effect.height}")
                case ReadFailed():
                    self.lines.append(f"{name} cannot read")
        for message in said(effects, Decided):
            self.lines.append(f"{name} shows its floor {message.header.view}")
        view = seat.engine.status()["view"] if seat.engine else before
        if view != before:
            self.lines.append(f"{name} enters {view}")
