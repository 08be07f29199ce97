"""What Simplex must keep besides, read off the wire (``docs/protocols/bft.md``, clause 8).

* *one vote*: an honest seat notarizes one block per view, in all its lives;
* *not both*: it never nullifies and finalizes one view;
* *admitted*: it notarizes only on a parent that a quorum certified, and only if a quorum
  nullified every view between;
* *disk before wire*: a vote that leaves stands on the disk at that moment;
* *one certificate*: no view has two notarizations, or is both nullified and finalized.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import cbor2

from p2pmed.testing.core.oracle import FINALIZE, NOTARIZE, NULLIFY, Oracle, name_of, read_message
from p2pmed.testing.core.world import Violation

if TYPE_CHECKING:
    from p2pmed.testing.core.member import Member

__all__ = ["BftOracle"]

PROPOSAL = 1
"""Tags on the wire are those of clause 2: 2 vote, 3 certificates, 4 decided, 6 body,
7 votes, 9 standing."""


class BftOracle(Oracle):
    """Books on votes and certificates of every view."""

    def __init__(self) -> None:
        super().__init__()
        self.votes = 0
        self._seen: dict[tuple[int, bytes], None] = {}
        self._said: dict[tuple[int, int, int], dict[bytes, None]] = defaultdict(dict)
        self._who: dict[tuple[int, int, bytes], dict[int, None]] = defaultdict(dict)
        self._headers: dict[bytes, Sequence[Any]] = {}
        self._proved: dict[tuple[int, int], bytes] = {}
        self._certificates: dict[bytes, None] = {}

    def on_send(self, member: Member, seat: int | None, message: bytes) -> None:
        """Read each distinct message of each seat once."""
        key = (member.place, message)
        if key in self._seen:
            return
        self._seen[key] = None
        said = read_message(message)
        if said is None:
            return
        try:
            self._read(member, said)
        except (TypeError, ValueError, IndexError, AttributeError, KeyError):
            if member.honest:
                raise Violation(f"spelling: seat {member.seat} said what none can read") from None

    def _read(self, member: Member, said: list[Any]) -> None:
        match said[0]:
            case 2:
                self._vote(member, *said[1:5])
            case 1 | 6:
                header = said[1][0]
                self._headers[name_of(header)] = header
                if member.honest and said[0] == PROPOSAL:
                    self._take(said[2])
            case 3 if member.honest:
                self._take(said[1])
            case 4 if member.honest:
                self._take([said[2]])
            case 7:
                for vote in said[1]:
                    self._vote(member, *vote[-4:])
            case 9 if member.honest:
                self._take(said[3])
                self._take([decided[-1] for decided in said[4]])

    def has_said(self, seat: int, view: int, kind: int) -> bool:
        """See ``Oracle.has_said``."""
        return bool(self._said.get((seat, view, kind)))

    # --- votes ----------------------------------------------------------------------------

    def _vote(self, member: Member, kind: int, view: int, digest: bytes, signature: bytes) -> None:
        statement = self._statement(kind, view, digest)
        if not self.world.book.has_signed(member.seat, statement):
            if member.honest:
                raise Violation(f"one vote: seat {member.seat} sent a vote it did not sign")
            return
        self._signed(member.seat, kind, view, digest)
        if not member.honest:
            return
        self.votes += 1
        self._is_durable(member, view, signature)
        if kind == NOTARIZE:
            self._admitted(digest)

    def _is_durable(self, member: Member, view: int, signature: bytes) -> None:
        chain = member.disk.chain
        if chain and chain[-1][0].header.view >= view:
            return  # decided meanwhile, and its rows deleted
        if not any(signature in row for row in member.disk.rows.values()):
            raise Violation(f"disk before wire: a vote of seat {member.seat} in view {view}")

    def _signed(self, seat: int, kind: int, view: int, digest: bytes) -> None:
        said = self._said[seat, view, kind]
        said[digest] = None
        self._who[view, kind, digest][seat] = None
        if seat in self.guilty or any(m.forgot for m in self.world.places[seat]):
            return
        if len(said) > 1:
            raise Violation(f"one vote: seat {seat} said two things in view {view}")
        nullified = self._said.get((seat, view, NULLIFY))
        if nullified and self._said.get((seat, view, FINALIZE)):
            raise Violation(f"not both: seat {seat} nullified and finalized view {view}")

    def _admitted(self, digest: bytes) -> None:
        header = self._headers.get(digest)
        if header is None:
            raise Violation("admitted: a vote for a block that nobody sent")
        view, height, parent, parent_view = header[3], header[4], header[5], header[6]
        if parent_view == 0:
            certified = parent == self.world.epoch.ledger and height == 1
        else:
            kinds = (NOTARIZE, FINALIZE)
            certified = any(self._is_proved(parent_view, kind, parent) for kind in kinds)
            certified = certified and self._headers[parent][4] + 1 == height
        if not certified:
            raise Violation(f"admitted: view {view} on a parent that nobody certified")
        for skipped in range(parent_view + 1, view):
            if not self._is_proved(skipped, NULLIFY, b""):
                raise Violation(f"admitted: view {view} over undecided view {skipped}")

    def _is_proved(self, view: int, kind: int, digest: bytes) -> bool:
        """Whether a quorum said so; a liar may have signed and shown only the certificate."""
        said = self._who.get((view, kind, digest), {})
        if len(said) >= self.quorum:
            return True
        statement = self._statement(kind, view, digest)
        silent = [s for s in self.guilty if s not in said]
        signed = sum(self.world.book.has_signed(seat, statement) for seat in silent)
        return len(said) + signed >= self.quorum

    # --- certificates ---------------------------------------------------------------------

    def _take(self, certificates: Sequence[Sequence[Any]]) -> None:
        for certificate in certificates:
            key = name_of(certificate)
            if key in self._certificates:
                continue
            self._certificates[key] = None
            _, _, kind, view, digest = certificate[:5]
            for seat in self.check_certificate(certificate):
                self._signed(seat, kind, view, digest)
            if self._proved.setdefault((view, kind), digest) != digest:
                raise Violation(f"one certificate: two of one kind in view {view}")
            if (view, NULLIFY) in self._proved and (view, FINALIZE) in self._proved:
                raise Violation(f"one certificate: view {view} nullified and finalized")

    def _statement(self, kind: int, view: int, digest: bytes) -> bytes:
        epoch = self.world.epoch
        return cbor2.dumps(
            ["p2pmed/1", "vote", epoch.ledger, epoch.number, kind, view, digest], canonical=True
        )
