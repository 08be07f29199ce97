"""What one device must never sign twice, read from what it sends: for both engines.

The watch stands at the network's edge and shares no code with the cores but the spelling of
their messages. It remembers across power cuts, which is the point: a vote that a node forgot is
a vote that it can cast again.

* BFT: one digest per view and kind; never both *nullify* and *finalize* in one view.
* Raft: one vote per term; a candidate's question is a vote for itself.
"""

from __future__ import annotations

from typing import Final

from p2pmed.consensus.bft import messages as bft
from p2pmed.consensus.raft import messages as raft
from p2pmed.quorum.certificate import VoteKind
from p2pmed.testing.network import CONSENSUS_HEAD

__all__ = ["VoteWatch"]

_LEDGER_AT: Final = len(CONSENSUS_HEAD) + 2
_EPOCH_AT: Final = _LEDGER_AT + 32
_LENGTHS: Final = {0x18: 1, 0x19: 2, 0x1A: 4, 0x1B: 8, 0x58: 1, 0x59: 2, 0x5A: 4}
"""Bytes after the head of a longer number or byte string (RFC 8949, 3)."""
_BFT_VOTES: Final = (b"\x85\x02", b"\x82\x07")
"""Heads of one vote, and of several."""
_RAFT_ASKS: Final = b"\x86\x03"
_RAFT_VOTE: Final = b"\x84\x04"


class VoteWatch:
    """Every vote of one simulation."""

    def __init__(self) -> None:
        self._said: dict[tuple[bytes, str, int, int], bytes] = {}
        """Ledger, voter, view or term, kind -> digest or candidate."""
        self._last: dict[str, bytes] = {}
        self.cast: dict[str, int] = {}
        """Voter -> BFT votes that it sent, several times counted if it said them again."""

    def saw(self, voter: str, target: str, engine: str, frame: bytes) -> str:
        """``voter`` sent ``frame``, a consensus frame, to ``target``; what is wrong, or ""."""
        if engine == "bft":
            if self._last.get(voter) == frame:
                return ""  # one vote goes to everybody
            self._last[voter] = frame
        at = _EPOCH_AT + 1 + _LENGTHS.get(frame[_EPOCH_AT], 0)
        ledger = frame[_LEDGER_AT:at]  # and epoch: views and terms begin again in each
        body = frame[at + 1 + _LENGTHS.get(frame[at], 0) :]
        if engine == "bft":
            return self._bft(ledger, voter, body) if body.startswith(_BFT_VOTES) else ""
        return self._raft(ledger, voter, target, body)

    def _bft(self, ledger: bytes, voter: str, body: bytes) -> str:
        message = bft.decode_message(body)
        votes = message.votes if isinstance(message, bft.Votes) else (message,)
        faults = [self._voted(ledger, voter, v) for v in votes if isinstance(v, bft.Vote)]
        return next(filter(None, faults), "")

    def _voted(self, ledger: bytes, voter: str, vote: bft.Vote) -> str:
        self.cast[voter] = self.cast.get(voter, 0) + 1
        fault = self._say(ledger, voter, vote.view, vote.kind, vote.digest)
        opposite = {VoteKind.NULLIFY: VoteKind.FINALIZE, VoteKind.FINALIZE: VoteKind.NULLIFY}
        other = opposite.get(VoteKind(vote.kind))
        if other is not None and (ledger, voter, vote.view, int(other)) in self._said:
            return f"{voter} nullified and finalized view {vote.view}"
        return fault

    def _raft(self, ledger: bytes, voter: str, target: str, body: bytes) -> str:
        if not body.startswith((_RAFT_ASKS, _RAFT_VOTE)):
            return ""
        message = raft.decode(body)
        if isinstance(message, raft.AskVote):
            return self._say(ledger, voter, message.term, 0, voter.encode())
        if isinstance(message, raft.Vote) and message.granted:
            return self._say(ledger, voter, message.term, 0, target.encode())
        return ""

    def _say(self, ledger: bytes, voter: str, view: int, kind: int, what: bytes) -> str:
        if self._said.setdefault((ledger, voter, view, kind), what) == what:
            return ""
        return f"{voter} signed two statements of kind {kind} in {view}"
