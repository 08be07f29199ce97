"""Seats: who may vote next, kept in the state; and how a device loses or regains that.

Rule: a seat is given to who agreed to it and has a fresh vote key, and taken by a change that
seals the epoch (``ledger/epochs.py``). The transactions that do so are ``seat_changes.py``; here
is what they share, and ``exclude``, by which a proven lie takes a seat.

A seat votes with a fresh key in each epoch. Devices publish keys in advance (``log.open``, then
``mesh.keys``), so that who is away keeps its seat through two changes; a change that would keep
a seat without a key is refused. Nobody loses a seat by absence.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from p2pmed.errors import LocalProtocolError
from p2pmed.ledger.epochs import epoch_of, next_epoch_of, seal
from p2pmed.ledger.state import Readable, View
from p2pmed.medical.membership import incarnations, member
from p2pmed.medical.registry import Act
from p2pmed.medical.rejections import Rejection
from p2pmed.medical.roles import SUPERVISORS
from p2pmed.medical.tables import Table
from p2pmed.quorum.certificate import Epoch, Validator
from p2pmed.wire.codec import Bytes32, Wire

__all__ = [
    "KEYS",
    "KEYS_AHEAD",
    "STANDING",
    "Standing",
    "VoteKey",
    "epoch_for",
    "exclude",
    "following_epoch",
    "is_quarantined",
    "keys_ahead",
    "learners",
    "lost_seats",
    "nodes_of",
    "refused_seat",
    "restore",
    "seal_with",
    "speaks_for_others",
    "standing",
]

SEATS_KEPT_MIN: Final = 3
"""A proven liar's seat is taken only while so many stand: below, people decide first."""
KEYS_AHEAD: Final = 2
"""Vote keys published beyond the epoch in force (design, section 12)."""


# --- what is kept ---------------------------------------------------------------------------


class Standing(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A device of the mesh that has, had or may have a seat."""

    willing: bool
    quarantined: bool


class VoteKey(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A public vote key that a device published; used ones never come back."""

    key: Bytes32
    used: bool
    lost: bool = False
    """Its device cannot sign with it any more, and said so."""


STANDING: Final = Table("seat", Standing)
KEYS: Final = Table("vote_key", VoteKey)


def standing(view: Readable, device: bytes) -> str:
    """``validator``, ``willing``, ``learner``, ``quarantined``, or empty: not of this mesh."""
    row = STANDING.get(view, device)
    epoch = next_epoch_of(view) or epoch_of(view)
    if row is not None and row.quarantined:
        return "quarantined"
    if epoch is not None and epoch.index_of(device) is not None:
        return "validator"
    if row is None:
        return ""
    return "willing" if row.willing else "learner"


def learners(view: Readable) -> list[tuple[bytes, str]]:
    """Devices of the mesh without a seat, and their standing, by device."""
    rows = [(device, standing(view, device)) for device, _ in STANDING.scan(view)]
    return [(device, word) for device, word in rows if word != "validator"]


def keys_ahead(view: Readable, device: bytes) -> tuple[bytes, ...]:
    """Published vote keys of ``device`` that no epoch has used, in the order of use."""
    epoch = epoch_of(view)
    used = {row.key for _, row in KEYS.scan(view, device) if row.used}
    if epoch is not None:
        used |= {validator.vote_key for validator in epoch.validators}
    opened = sorted(incarnations(view, device).items(), key=lambda item: (-item[1].boot, item[0]))
    published = [key for _, row in opened[:1] for key in row.vote_keys]
    published += [row.key for _, row in KEYS.scan(view, device) if not row.used]
    return tuple(dict.fromkeys(key for key in published if key not in used))


def lost_seats(view: Readable, epoch: Epoch) -> list[bytes]:
    """Devices with a seat in ``epoch`` that cannot vote: their key of it is lost."""
    rows = ((v.node, KEYS.get(view, v.node, v.vote_key)) for v in epoch.validators)
    return [node for node, row in rows if row is not None and row.lost]


# --- who comes next -------------------------------------------------------------------------


def following_epoch(
    view: View, epoch: Epoch, wanted: Sequence[bytes], liars: int
) -> Epoch | Rejection:
    """The next epoch with the seats ``wanted``, each with a fresh key."""
    seats: list[Validator] = []
    for device in sorted(wanted):
        ahead = keys_ahead(view, device)
        if not ahead:
            return Rejection.VOTE_KEY_MISSING
        seats.append(Validator(node=device, vote_key=ahead[0]))
    following = Epoch(
        ledger=epoch.ledger, number=epoch.number + 1, liars=liars, validators=tuple(seats)
    )
    try:
        following.check()
    except LocalProtocolError:
        return Rejection.SEATS_IMPOSSIBLE
    return following


def seal_with(view: View, epoch: Epoch, following: Epoch) -> None:
    """Take the change: its keys are spent, who lost a seat is a learner."""
    for validator in (*epoch.validators, *following.validators):
        row = VoteKey(key=validator.vote_key, used=True)
        KEYS.put(view, row, validator.node, validator.vote_key)
    for validator in epoch.validators:
        if following.index_of(validator.node) is None and not is_quarantined(view, validator.node):
            STANDING.put(view, Standing(willing=False, quarantined=False), validator.node)
    seal(view, following)


def is_quarantined(view: Readable, device: bytes) -> bool:
    """Whether a proven lie of the device waits for people's decision."""
    row = STANDING.get(view, device)
    return row is not None and row.quarantined


def nodes_of(epoch: Epoch) -> list[bytes]:
    """The devices with a seat, in the order of the seats."""
    return [validator.node for validator in epoch.validators]


def exclude(view: View, device: bytes) -> bool:
    """Take the seat of a device that was proved to have lied; whether one was taken.

    It is a learner in quarantine until people ``restore`` it. The next epoch withstands as many
    liars as its seats allow. Below ``SEATS_KEPT_MIN`` seats left, or while another change ends
    this epoch and cannot be amended, only the mark stands, and takes the seat with the next
    change: for now it is an alarm. A device that has never had a seat is marked, too: it cannot
    join before people decide.
    """
    epoch = epoch_of(view)
    if epoch is None:
        return False
    STANDING.put(view, Standing(willing=False, quarantined=True), device)
    pending = next_epoch_of(view)
    if pending is not None:
        left = [v for v in pending.validators if v.node != device]
        if len(left) == len(pending.validators) or len(left) < SEATS_KEPT_MIN:
            return False
        liars = min(pending.liars, (len(left) - 1) // 3)
        seal(view, msgspec.structs.replace(pending, liars=liars, validators=tuple(left)))
        return True
    kept = [node for node in nodes_of(epoch) if node != device]
    if len(kept) == len(epoch.validators) or len(kept) < SEATS_KEPT_MIN:
        return False
    liars = min(epoch.liars, (len(kept) - 1) // 3)
    following = following_epoch(view, epoch, kept, liars)
    if isinstance(following, Rejection):
        return False
    seal_with(view, epoch, following)
    return True


def restore(view: View, device: bytes) -> None:
    """People decided: the device is a learner like any other, and may join again."""
    if is_quarantined(view, device):
        STANDING.put(view, Standing(willing=False, quarantined=False), device)


# --- what every change asks -----------------------------------------------------------------


def epoch_for(act: Act[Any], view: View, number: int | None = None) -> Epoch | Rejection:
    """The epoch in force, if a change may be made in it."""
    epoch = epoch_of(view)
    here = epoch is not None and act.context.ledger == epoch.ledger
    if epoch is None or not here or act.entry.envelope.ledger != epoch.ledger:
        return Rejection.CARRIED
    if number is not None and number != epoch.number:
        return Rejection.EPOCH_STALE
    if number is not None and next_epoch_of(view) is not None:
        return Rejection.CHANGE_PENDING
    return epoch


def speaks_for_others(act: Act[Any], epoch: Epoch) -> bool:
    """Whether the author may give and take others' seats: it has one, or supervises."""
    supervises = not SUPERVISORS.isdisjoint(act.member.roles)
    return supervises or epoch.index_of(act.entry.author) is not None


def refused_seat(view: Readable, device: bytes) -> Rejection | None:
    """Why ``device`` cannot be given a seat."""
    known, row = member(view, device), STANDING.get(view, device)
    if known is None:
        return Rejection.MEMBER_UNKNOWN
    if known.revoked:
        return Rejection.AUTHOR_REVOKED
    if row is not None and row.quarantined:
        return Rejection.SEAT_QUARANTINED
    return None if row is not None and row.willing else Rejection.CONSENT_MISSING
