"""Elections: the mesh's members say by signed ballots who of them shall have a seat.

Rule: who has a seat or has joined writes one ballot an epoch, approving any devices; its newest
counts. ``mesh.elect`` ends the epoch: the most approved are seated, ties go by device key, and
nothing is decided by less than a majority of the members' ballots. A Raft mesh moves one seat
towards the result, and is asked again in the next epoch.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec

from p2pmed.ledger.epochs import engine_of, epoch_of
from p2pmed.ledger.state import Readable, View
from p2pmed.limits import VALIDATORS_MAX
from p2pmed.medical.registry import Act, Checked, Kind
from p2pmed.medical.rejections import Rejection
from p2pmed.medical.seat_changes import Devices, Liars, check_devices
from p2pmed.medical.seats import (
    STANDING,
    epoch_for,
    following_epoch,
    is_quarantined,
    nodes_of,
    refused_seat,
    seal_with,
    speaks_for_others,
)
from p2pmed.medical.tables import Table
from p2pmed.quorum.certificate import Epoch
from p2pmed.wire.codec import Bytes32, Count, Wire

__all__ = ["KINDS", "SEATS_DEFAULT", "MeshBallot", "MeshElect", "tally"]

SEATS_DEFAULT: Final = 13
"""Seats that an election fills: more cost every block more than they add."""


class MeshBallot(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``mesh.ballot``: whom the author would have vote; its newest in an epoch counts."""

    epoch: Count
    approve: Devices

    def __post_init__(self) -> None:
        check_devices("approve", self.approve)


class MeshElect(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``mesh.elect``: count the ballots of this epoch and seat who won."""

    epoch: Count
    seats: Annotated[int, msgspec.Meta(ge=1, le=VALIDATORS_MAX)]
    liars: Liars


class _Ballot(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    approve: tuple[Bytes32, ...]


_BALLOTS: Final = Table("ballot", _Ballot)


def _members(view: Readable, epoch: Epoch) -> list[bytes]:
    """Members of the mesh: who has a seat, or has joined and not left; none in quarantine."""
    joined = [device for device, row in STANDING.scan(view) if row.willing]
    everybody = sorted({*nodes_of(epoch), *joined})
    return [device for device in everybody if not is_quarantined(view, device)]


def tally(view: Readable, epoch: Epoch, seats: int) -> list[bytes] | None:
    """Who wins ``seats`` seats, most approved first, ties by device key.

    ``None``: less than a majority of the members has written a ballot in this epoch.
    """
    voters = _members(view, epoch)
    number = epoch.number.to_bytes(8, "big")
    counts = dict.fromkeys(voters, 0)
    cast = 0
    for device in voters:
        ballot = _BALLOTS.get(view, number, device)
        if ballot is None:
            continue
        cast += 1
        for approved in ballot.approve:
            if approved in counts:
                counts[approved] += 1
    if 2 * cast <= len(voters):
        return None
    seated = nodes_of(epoch)
    able = [d for d in voters if d in seated or refused_seat(view, d) is None]
    return sorted(able, key=lambda device: (-counts[device], device))[:seats]


def _check_ballot(act: Act[MeshBallot], view: View) -> Checked:
    epoch = epoch_for(act, view, act.body.epoch)
    if isinstance(epoch, Rejection):
        return epoch
    return None if act.entry.author in _members(view, epoch) else Rejection.SEAT_UNKNOWN


def _apply_ballot(act: Act[MeshBallot], view: View) -> None:
    number = act.body.epoch.to_bytes(8, "big")
    _BALLOTS.put(view, _Ballot(approve=act.body.approve), number, act.entry.author)


def _elected(act: Act[MeshElect], view: View) -> Epoch | Rejection:
    body = act.body
    epoch = epoch_for(act, view, body.epoch)
    if isinstance(epoch, Rejection):
        return epoch
    if not speaks_for_others(act, epoch):
        return Rejection.ROLE_MISSING
    winners = tally(view, epoch, body.seats)
    if winners is None:
        return Rejection.BALLOTS_TOO_FEW
    if engine_of(view) == "raft":
        if body.liars:
            return Rejection.SEATS_ONE_AT_A_TIME
        winners = one_step(nodes_of(epoch), winners)
    if sorted(winners) == sorted(nodes_of(epoch)) and body.liars == epoch.liars:
        return Rejection.SEATS_IMPOSSIBLE
    return following_epoch(view, epoch, winners, body.liars)


def one_step(seated: list[bytes], winners: list[bytes]) -> list[bytes]:
    """Raft goes from one set of seats to another one seat at a time: a seat is given first."""
    new = [device for device in winners if device not in seated]
    lost = [device for device in sorted(seated) if device not in winners]
    if new and len(seated) < VALIDATORS_MAX and len(seated) <= len(winners):
        return [*seated, new[0]]
    return [device for device in seated if not lost or device != lost[0]]


def _check_elect(act: Act[MeshElect], view: View) -> Checked:
    following = _elected(act, view)
    return following if isinstance(following, Rejection) else None


def _apply_elect(act: Act[MeshElect], view: View) -> None:
    following, epoch = _elected(act, view), epoch_of(view)
    assert isinstance(following, Epoch)  # checked just now
    assert epoch is not None
    number = epoch.number.to_bytes(8, "big")
    for device, _ in list(_BALLOTS.scan(view, number)):
        _BALLOTS.delete(view, number, device)
    seal_with(view, epoch, following)


KINDS: Final[tuple[Kind[Any], ...]] = (
    Kind(
        name="mesh.ballot",
        body=MeshBallot,
        check=_check_ballot,
        apply=_apply_ballot,
        local=True,
        rules="Refused `seat_unknown` unless the author has a seat or joined, `epoch_stale`, "
        "`change_pending`. The author's newest ballot of an epoch counts.",
    ),
    Kind(
        name="mesh.elect",
        body=MeshElect,
        check=_check_elect,
        apply=_apply_elect,
        local=True,
        rules="Ends the epoch; in Raft it moves one seat towards the result. Refused like a "
        "change, and `ballots_too_few` unless more than half of the members voted.",
    ),
)
