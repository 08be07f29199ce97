"""Raft for p2pmed: a crash-only order of blocks behind ``consensus/interface.py``.

Source: Ongaro and Ousterhout, *In Search of an Understandable Consensus Algorithm* (extended
version), sections 5.1 to 5.4, 7 and 8; pre-vote, CheckQuorum and leader transfer from
Ongaro's thesis (9.6, 6.2, 3.10); flow control from etcd. Byte-exact and rule by rule:
``docs/protocols/raft.md``.

The log and the chain are two things. A log entry has an (index, term) and carries a block or
nothing; a block has a height. The first entry of a leader carries nothing, so it has an index
and no height, and the chain never shows who led when nothing was to be ordered.

* *Committed* is the log's word: an entry of the leader's own term is on the disks of a
  majority; everything below it is committed with it (5.4.2).
* *Certified* is the proof of it for strangers: a majority's FINALIZE votes
  (``finality.py`` says when a member may sign, and why no rule beyond those is safe).
* *Decided* is what the application hears: certified, ``VALID``, in order of height.

The log's floor and the decided height move apart, too. ``Certified`` moves only the decided
height: the log, and so everything that elections and commitment stand on, is untouched. A
follower whose log the leader's no longer reaches is told the leader's ``Floor`` (index, term,
height, digest), says ``Behind``, and stands on that floor when its decided height is there.
Safe as a snapshot is (7): the floor is committed, so whatever the follower discards for it
was below or contradicts something committed. Blocks at or below the decided height that
arrive in the log afterwards are log entries like others, and not decided again. Who is far
behind cannot be elected, because its *log* is short (5.4.1), whatever it has decided.

Why one block per height: two certificates at one height are two committed entries with that
height; along a log heights are consecutive, and all logs agree on what is committed
(5.4.3), so they are the same entry.

Crash-only: a member that lies breaks this. One that has lost its disk must not, and is kept
from voting where its own signature gives that away (``Replica.suspect``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, assert_never

from p2pmed.consensus.interface import (
    Application,
    Certified,
    ConsensusEffect,
    ConsensusEvent,
    Header,
    Heard,
    Leave,
    Read,
    Receive,
    Resumed,
    Signer,
    Work,
    header_digest,
)
from p2pmed.consensus.raft import messages
from p2pmed.consensus.raft.bounds import PATIENCE_MS
from p2pmed.consensus.raft.election import Election
from p2pmed.consensus.raft.finality import Finality
from p2pmed.consensus.raft.following import Following
from p2pmed.consensus.raft.leadership import Leadership, certificate_message
from p2pmed.consensus.raft.messages import (
    Append,
    Appended,
    AskPreVote,
    AskVote,
    Attest,
    CertificateKnown,
    Floor,
    HigherTerm,
    Mismatch,
    PreVote,
)
from p2pmed.consensus.raft.reading import Reading
from p2pmed.consensus.raft.replica import Handler, Replica, Role
from p2pmed.consensus.raft.rows import load
from p2pmed.engine import DeadlineReached, Instant, Persisted, Rng, earliest
from p2pmed.errors import DecodeError, LocalProtocolError
from p2pmed.quorum.certificate import Certificate, Epoch, Verify
from p2pmed.wire import cose

__all__ = ["RaftEngine"]


class RaftEngine:
    """A member of a crash-only mesh; satisfies ``ConsensusEngine``.

    ``records`` are the rows of earlier ``Store`` effects; ``tip`` is the last decided header
    (``None``: genesis) with its certificate. Raises ``LocalProtocolError`` for an epoch that
    is prepared for liars or a seat that it does not have, and ``StorageError`` if the rows
    are rotten or have a hole.
    """

    def __init__(
        self,
        *,
        epoch: Epoch,
        seat: int,
        signer: Signer,
        application: Application,
        rng: Rng,
        records: Mapping[bytes, bytes],
        tip: Header | None,
        tip_certificate: Certificate | None,
        now: Instant,
        verify: Verify = cose.verify,
    ) -> None:
        epoch.check()
        if epoch.liars:
            raise LocalProtocolError("Raft withstands crashes, not liars", hint="choose bft")
        if not 0 <= seat < len(epoch.validators):
            raise LocalProtocolError(f"the epoch has no seat {seat}")
        self._finality = Finality(
            epoch=epoch,
            seat=seat,
            signer=signer,
            application=application,
            verify=verify,
            tip=tip,
            tip_certificate=tip_certificate,
        )
        self._replica = Replica(
            epoch=epoch,
            seat=seat,
            signer=signer,
            application=application,
            rng=rng,
            memory=load(records, epoch.number),
            finality=self._finality,
            now=now,
        )
        self._election = Election(self._replica, self._lead)
        self._following = Following(self._replica)
        self._reading = Reading(self._replica)
        self._leadership: Leadership | None = None
        self._unchecked = False
        self._replica.arm_election()
        if not self._replica.peers:
            self._replica.election_at = now  # nobody to wait for
        self._on: dict[type[Any], Handler] = {
            **self._election.handlers,
            **self._reading.handlers,
            Append: self._on_append,
            Appended: self._on_appended,
            Mismatch: self._on_mismatch,
            Floor: self._following.on_floor,
            HigherTerm: lambda m, seat: None,  # its term was all it had to say
            Attest: lambda m, seat: self._finality.count(self._replica.log, seat, m.attests),
            CertificateKnown: lambda m, seat: self._finality.learn(
                self._replica.log, m.height, m.certificate
            ),
        }

    @property
    def deadline(self) -> Instant | None:
        """When to step with ``DeadlineReached``; ``None`` when alone and idle."""
        if self._unchecked:
            return self._replica.now
        leading = self._leadership
        office = self._replica.election_at if leading is None else leading.deadline
        return earliest(office, self._reading.deadline)

    def status(self) -> Mapping[str, int | str]:
        """For people, never for decisions: numbers, seats and states."""
        r = self._replica
        target = None if self._leadership is None else self._leadership.hand_over.target
        trouble = "refused a block" if self._finality.invalid else ""
        return {
            "engine": "raft",
            "role": r.role.value,
            "term": r.term,
            "leader": -1 if r.leader is None else r.leader,
            "floor": self._finality.height,
            "checked": self._finality.checked,
            "commit": r.commit,
            "durable": r.durable,
            "log_first": r.log.floor.index + 1,
            "log_last": r.log.last_index,
            "refused": r.refused,
            "hands_to": -1 if target is None else target,
            "trouble": "lost its memory" if r.lost else trouble,
        }

    def step(self, event: ConsensusEvent, now: Instant) -> Sequence[ConsensusEffect]:
        """Take one event; the effects, to be carried out in this order."""
        r = self._replica
        r.now = now
        match event:
            case Receive():
                self._receive(event)
            case Persisted():
                self._persisted(event)
            case DeadlineReached():
                self._deadline_reached()
            case Work():
                self._work()
            case Heard():
                if self._leadership is not None and event.sender in self._leadership.progress:
                    self._leadership.heard(event.sender)
            case Certified():
                self._certified(event)
            case Read():
                self._reading.ask(event.token)
            case Leave():
                return self.hand_over(now)
            case Resumed():
                pass  # a Raft engine that runs holds nothing back that people could allow
            case _:
                assert_never(event)
        return self._settle()

    def hand_over(self, now: Instant, seat: int | None = None) -> Sequence[ConsensusEffect]:
        """Ask for another leader: ``seat``, or the nearest (Raft thesis, 3.10).

        For a node that is about to stop. Effects as of ``step``; nothing if not leading.
        """
        self._replica.now = now
        if self._leadership is not None:
            self._leadership.hand_over.begin(seat)
        return self._settle()

    # --- events ---------------------------------------------------------------------------

    def _receive(self, event: Receive) -> None:
        r = self._replica
        try:
            message = messages.decode(event.message)
        except DecodeError:
            r.refused += 1
            return
        if message.mesh != r.mesh or event.sender not in r.peers:
            r.refused += 1
            return
        if self._leadership is not None:
            self._leadership.heard(event.sender)
        if self._is_timely(message, event.sender):
            self._on[type(message)](message, event.sender)

    def _is_timely(self, message: messages.Message, seat: int) -> bool:
        """Settle terms (Raft, 5.1); whether the message is still worth reading."""
        r = self._replica
        if isinstance(message, Attest | CertificateKnown | AskPreVote | PreVote | AskVote):
            return True  # they prove themselves, or settle terms by rules of their own
        if message.term > r.term:
            r.follow(message.term, None)
            self._stand_down()
        elif message.term < r.term:
            if isinstance(message, Append | Floor):
                r.send(seat, HigherTerm(mesh=r.mesh, term=r.term))
            return False
        return True

    def _persisted(self, event: Persisted) -> None:
        r = self._replica
        for flush in r.desk.persisted(event.token):
            if flush.index:
                r.flushed(flush.index, flush.term)
            if flush.answer is not None and flush.answer_term == r.term:
                self._following.answer = max(flush.answer, self._following.answer or 0)
        self._election.flushed()

    def _deadline_reached(self) -> None:
        r = self._replica
        leading = self._leadership
        if leading is None:
            if r.election_at is not None and r.now >= r.election_at:
                self._election.timeout()
            return
        due = leading.quorum_at is not None and r.now >= leading.quorum_at
        if due and not leading.check_quorum():
            r.follow(r.term, None)
            self._stand_down()
            return
        if leading.beat_at is not None and r.now >= leading.beat_at:
            leading.beat()

    def _work(self) -> None:
        r = self._replica
        self._finality.retry()
        if not r.application.pending():
            return
        if self._leadership is not None:
            self._leadership.wake()
        else:
            r.wake()

    def _certified(self, event: Certified) -> None:
        r = self._replica
        header = event.header
        height, tip = self._finality.height, self._finality.tip_digest
        if header.ledger != r.epoch.ledger or header.height <= height:
            return
        if header.height != height + 1 or header.parent != tip:
            r.behind(header.height, None)
            return
        r.suspect(header.height, header_digest(header), event.certificate)
        self._finality.move(r.log, header, event.certificate)
        r.moved()
        self._following.settle_floor()

    # --- messages -------------------------------------------------------------------------

    def _on_append(self, message: Append, seat: int) -> None:
        self._following.on_append(message, seat)
        if not message.entries and message.decided < self._finality.height:
            self._tell_certificate(seat)

    def _on_appended(self, message: Appended, seat: int) -> None:
        leading = self._leadership
        if leading is None:
            return
        leading.on_appended(message, seat)
        if message.heartbeat and message.decided < self._finality.height:
            leading.tell_certificate(seat)

    def _on_mismatch(self, message: Mismatch, seat: int) -> None:
        if self._leadership is not None:
            self._leadership.on_mismatch(message, seat)

    def _tell_certificate(self, seat: int) -> None:
        known = certificate_message(self._replica)
        if known is not None:
            self._replica.send(seat, known)

    # --- roles ----------------------------------------------------------------------------

    def _lead(self) -> None:
        self._leadership = Leadership(self._replica)

    def _stand_down(self) -> None:
        if self._replica.role is not Role.LEADER:
            self._leadership = None

    # --- the end of every step ------------------------------------------------------------

    def _settle(self) -> Sequence[ConsensusEffect]:
        r, finality = self._replica, self._finality
        self._stand_down()
        leading = self._leadership
        refused = finality.invalid
        self._unchecked = finality.check(r.log, r.durable)
        if finality.invalid and not refused:
            r.behind(finality.checked + 1, r.leader)
        if leading is not None:
            leading.count()
        self._attest()
        finality.certify()
        r.commit_to(finality.proven(r.log))
        decided = finality.decide(r.log)
        for decide in decided:
            r.desk.decide(decide)
        if leading is not None:
            known = certificate_message(r) if decided and r.peers else None
            if known is not None:
                r.broadcast(known)
            if decided:
                leading.eager = True
            leading.settle()
        if decided:
            r.patience_ms = PATIENCE_MS
        self._reading.settle()
        r.compact()
        return r.desk.close()

    def _attest(self) -> None:
        """Sign what may be signed; tell the leader, with the answer that is due if one is."""
        r, following = self._replica, self._following
        if r.lost:
            return  # nothing it says of a term counts any more
        fresh = self._finality.sign(
            r.log, above=r.decided_at_leader, durable=r.durable, commit=r.commit, term=r.term
        )
        answer, following.answer = following.answer, None
        heartbeat, following.answers_heartbeat = following.answers_heartbeat, False
        if r.leader is None or r.leader == r.seat:
            return
        if answer is None:
            if fresh:
                r.send(r.leader, Attest(mesh=r.mesh, attests=tuple(fresh)))
            return
        attests = self._finality.mine(r.decided_at_leader) if heartbeat else tuple(fresh)
        message = Appended(
            mesh=r.mesh,
            term=r.term,
            match=min(answer, r.durable),
            heartbeat=heartbeat,
            decided=self._finality.height,
            attests=attests,
        )
        tell = r.promise if r.desk.ballot_waits else r.send
        tell(r.leader, message)
