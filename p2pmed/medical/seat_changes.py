"""Who decides next: the ordered transactions that end an epoch and name the seats of the next.

Rules, the same for both engines (design, section 12; the seal is ``ledger/epochs.py``):

* One change an epoch. Whatever changes the seats seals the epoch; a second change in the same
  epoch is refused ``change_pending`` and may be written again in the next.
* Raft adds or removes one seat at a time; BFT any set.
* Who votes has agreed to: a device is seated only after its own ``mesh.join``, which names a
  block among the last 1,024 and so proves that it has caught up. Who is removed, or proved to
  have lied, stays as a *learner*: it follows, and does not vote.
* A seat votes with a fresh key in each epoch. Devices publish keys in advance (``log.open``, then
  ``mesh.keys``), so that who is away can keep its seat through two changes; beyond, a change that
  would keep it is refused ``vote_key_missing``. Nobody loses a seat by absence alone.
* A supervisor of the network (authority, county) or whoever has a seat speaks for others; anyone
  may leave. Elections are ``elections.py``.

Everything is judged on the state of the one ledger that it was written for: another ledger's
machine only carries it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final

import msgspec

from p2pmed.ledger.epochs import engine_of, epoch_of, next_epoch_of, noted_block
from p2pmed.ledger.state import View
from p2pmed.limits import VALIDATORS_MAX
from p2pmed.medical.fields import FieldFault
from p2pmed.medical.registry import Act, Checked, Kind
from p2pmed.medical.rejections import Rejection
from p2pmed.medical.seats import (
    KEYS,
    STANDING,
    Standing,
    VoteKey,
    epoch_for,
    following_epoch,
    is_quarantined,
    keys_ahead,
    lost_seats,
    nodes_of,
    refused_seat,
    seal_with,
    speaks_for_others,
)
from p2pmed.quorum.certificate import Epoch, Validator
from p2pmed.quorum.possession import ProvenKey, is_proven
from p2pmed.wire.codec import Bytes32, Count, Wire

__all__ = [
    "KINDS",
    "Devices",
    "Liars",
    "MeshChange",
    "MeshJoin",
    "MeshKeys",
    "MeshLeave",
    "check_devices",
]

KEYS_AHEAD_MAX: Final = 16
"""Unused keys kept of one device."""
KEYS_LOST_MAX: Final = KEYS_AHEAD_MAX + 8
"""All of them, those of its first log, and the one that it votes with."""
DEVICES_MAX: Final = 256
"""Devices with a standing in one mesh."""

Devices = Annotated[tuple[Bytes32, ...], msgspec.Meta(max_length=VALIDATORS_MAX)]
Liars = Annotated[int, msgspec.Meta(ge=0, le=(VALIDATORS_MAX - 1) // 3)]


# --- what is written ------------------------------------------------------------------------


class MeshKeys(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``mesh.keys``: vote keys of the author for epochs to come, and which ones it has lost."""

    keys: Annotated[tuple[ProvenKey, ...], msgspec.Meta(max_length=8)]
    """Each proven for this ledger and this device."""
    lost: Annotated[tuple[Bytes32, ...], msgspec.Meta(max_length=KEYS_LOST_MAX)] = ()
    """Keys of the author, published before, that it cannot sign with any more."""

    def __post_init__(self) -> None:
        check_devices("lost", self.lost)
        if len({published.key for published in self.keys}) < len(self.keys):
            raise FieldFault("keys: one stands twice")


class MeshJoin(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``mesh.join``: the author is willing to have a seat, and has caught up."""

    height: Count
    """Of a block that it holds."""
    digest: Bytes32
    """Digest of that block's header; the ledger id at height 0."""


class MeshLeave(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``mesh.leave``: the author gives its seat, or its willingness, back."""

    epoch: Count
    """The number of the epoch in force."""


class MeshChange(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``mesh.change``: seats given and taken, from the next epoch on."""

    epoch: Count
    """The number of the epoch in force: said of another, it is out of date."""
    add: Devices
    remove: Devices
    """They become learners."""
    liars: Liars

    def __post_init__(self) -> None:
        check_devices("add", self.add)
        check_devices("remove", self.remove)
        if not self.add and not self.remove:
            return
        if set(self.add) & set(self.remove):
            raise FieldFault("remove: a device that is added, too")


def check_devices(name: str, devices: Sequence[bytes]) -> None:
    """Raises ``FieldFault`` unless devices rise, each once: one change has one spelling."""
    if list(devices) != sorted(set(devices)):
        raise FieldFault(f"{name}: devices not in rising order, or one twice")


# --- rules ----------------------------------------------------------------------------------


def _check_keys(act: Act[MeshKeys], view: View) -> Checked:
    epoch = epoch_for(act, view)
    if isinstance(epoch, Rejection):
        return epoch
    device, network = act.entry.author, act.context.network
    if not all(
        is_proven(published, network=network, ledger=epoch.ledger, device=device)
        for published in act.body.keys
    ):
        return Rejection.VOTE_KEY_UNPROVEN
    if any(KEYS.get(view, device, published.key) is not None for published in act.body.keys):
        return Rejection.VOTE_KEY_USED
    ahead = keys_ahead(view, device)
    voting = {v.vote_key for v in (*epoch.validators, *_pending(view)) if v.node == device}
    if any(key not in ahead and key not in voting for key in act.body.lost):
        return Rejection.VOTE_KEY_UNKNOWN
    kept = [key for key in ahead if key not in act.body.lost]
    if len(kept) + len(act.body.keys) > KEYS_AHEAD_MAX:
        return Rejection.VOTE_KEYS_FULL
    return None


def _pending(view: View) -> tuple[Validator, ...]:
    """The seats of the epoch that begins with the next block, if one does."""
    following = next_epoch_of(view)
    return () if following is None else following.validators


def _apply_keys(act: Act[MeshKeys], view: View) -> None:
    for key in act.body.lost:
        KEYS.put(view, VoteKey(key=key, used=True, lost=True), act.entry.author, key)
    for published in act.body.keys:
        row = VoteKey(key=published.key, used=False)
        KEYS.put(view, row, act.entry.author, published.key)


def _check_join(act: Act[MeshJoin], view: View) -> Checked:
    epoch = epoch_for(act, view)
    if isinstance(epoch, Rejection):
        return epoch
    device = act.entry.author
    if is_quarantined(view, device):
        return Rejection.SEAT_QUARANTINED
    if noted_block(view, act.body.height) != act.body.digest:
        return Rejection.SYNC_STALE
    if not keys_ahead(view, device):
        return Rejection.VOTE_KEY_MISSING
    count = sum(1 for _ in STANDING.scan(view))
    if STANDING.get(view, device) is None and count >= DEVICES_MAX:
        return Rejection.MESH_FULL
    return None


def _apply_join(act: Act[MeshJoin], view: View) -> None:
    STANDING.put(view, Standing(willing=True, quarantined=False), act.entry.author)


def _leaving(act: Act[MeshLeave], view: View) -> Epoch | Rejection | None:
    """The next epoch without the author; ``None`` if it has no seat to give back."""
    device = act.entry.author
    epoch = epoch_of(view)
    if epoch is None or epoch.index_of(device) is None:
        found = epoch_for(act, view)
        if isinstance(found, Rejection):
            return found
        return None if STANDING.get(view, device) is not None else Rejection.SEAT_UNKNOWN
    found = epoch_for(act, view, act.body.epoch)
    if isinstance(found, Rejection):
        return found
    left = [node for node in nodes_of(found) if node != device]
    if not left:
        return Rejection.SEATS_IMPOSSIBLE
    return following_epoch(view, found, left, min(found.liars, (len(left) - 1) // 3))


def _check_leave(act: Act[MeshLeave], view: View) -> Checked:
    following = _leaving(act, view)
    return following if isinstance(following, Rejection) else None


def _apply_leave(act: Act[MeshLeave], view: View) -> None:
    device = act.entry.author
    following, epoch = _leaving(act, view), epoch_of(view)
    quarantined = is_quarantined(view, device)
    if isinstance(following, Epoch) and epoch is not None:
        seal_with(view, epoch, following)
    STANDING.put(view, Standing(willing=False, quarantined=quarantined), device)


def _changed(act: Act[MeshChange], view: View) -> Epoch | Rejection:
    body = act.body
    epoch = epoch_for(act, view, body.epoch)
    if isinstance(epoch, Rejection):
        return epoch
    if not speaks_for_others(act, epoch):
        return Rejection.ROLE_MISSING
    if engine_of(view) == "raft" and (len(body.add) + len(body.remove) > 1 or body.liars):
        return Rejection.SEATS_ONE_AT_A_TIME
    seated = nodes_of(epoch)
    if any(device not in seated for device in body.remove):
        return Rejection.SEAT_UNKNOWN
    if any(device in seated for device in body.add):
        return Rejection.SEAT_TAKEN
    for device in body.add:
        refused = refused_seat(view, device)
        if refused is not None:
            return refused
    same = not body.add and not body.remove and body.liars == epoch.liars
    if same and not lost_seats(view, epoch):  # else a lost key is reason enough
        return Rejection.SEATS_IMPOSSIBLE
    kept = [n for n in seated if n not in body.remove and not is_quarantined(view, n)]
    return following_epoch(view, epoch, [*kept, *body.add], body.liars)


def _check_change(act: Act[MeshChange], view: View) -> Checked:
    following = _changed(act, view)
    return following if isinstance(following, Rejection) else None


def _apply_change(act: Act[MeshChange], view: View) -> None:
    following, epoch = _changed(act, view), epoch_of(view)
    assert isinstance(following, Epoch)  # checked just now
    assert epoch is not None
    seal_with(view, epoch, following)


KINDS: Final[tuple[Kind[Any], ...]] = (
    Kind(
        name="mesh.keys",
        body=MeshKeys,
        check=_check_keys,
        apply=_apply_keys,
        local=True,
        rules="Keys named as lost are not used any more. Refused `vote_key_unknown` for one that "
        "is neither unused nor voted with, `vote_key_unproven` unless each key signed for this "
        "ledger and device, `vote_key_used` for a key published or used before, `vote_keys_full` "
        "beyond 16 unused ones.",
    ),
    Kind(
        name="mesh.join",
        body=MeshJoin,
        check=_check_join,
        apply=_apply_join,
        local=True,
        rules="Refused `seat_quarantined` after a proven lie, `sync_stale` unless it names one of "
        "the ledger's last 1,024 blocks, `vote_key_missing` without an unused vote key, "
        "`mesh_full` beyond 256 devices.",
    ),
    Kind(
        name="mesh.leave",
        body=MeshLeave,
        check=_check_leave,
        apply=_apply_leave,
        local=True,
        rules="Ends the epoch if the author has a seat. Refused `epoch_stale`, `change_pending`, "
        "`seats_impossible` for the last seat, `seat_unknown` if it never joined, "
        "`vote_key_missing` if another seat cannot go on.",
    ),
    Kind(
        name="mesh.change",
        body=MeshChange,
        check=_check_change,
        apply=_apply_change,
        local=True,
        rules="Ends the epoch. By a seat or a supervisor, else `role_missing`. Refused "
        "`epoch_stale`, `change_pending`, `seats_one_at_a_time` in Raft, `seat_unknown`, "
        "`seat_taken`, `member_unknown`, `author_revoked`, `seat_quarantined`, "
        "`consent_missing` if the device has not joined, `vote_key_missing`, "
        "`seats_impossible` if so many liars cannot be withstood, or nothing changes and no seat "
        "has lost its vote key.",
    ),
)
