"""Faults of one device that is not what it was: it lies, was copied, restored, or robbed.

They concern ``Mischief.liar`` alone, for a mesh withstands so many liars and no more. What such a
device says of itself proves nothing; what the others say of it must be true.

====================  =====================================================================
every lie             of ``liars.py``, for a while
cloned device         a copy of the disk runs elsewhere with the same keys: twins in two cells
old disk              the disk is put back as it was some time ago, and nobody knows
lying disk            flushes are said to be done before they are; then the power goes
stolen key            somebody signs entries with the device's key, beside its own
restored backup       the disk as it was, and known to be: a new incarnation that does not vote
====================  =====================================================================

And *membership change*: any device gives its seat back while the mesh is in two parts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from p2pmed.gossip.messages import Push
from p2pmed.ledger.transaction import GENESIS_PREV, Entry, Envelope, sign_entry
from p2pmed.medical.drugs import Recall
from p2pmed.medical.seat_changes import MeshLeave
from p2pmed.node import events
from p2pmed.node.events import Draft
from p2pmed.node.identity import MUTED
from p2pmed.testing.faults import KINDS, Fault, Mischief
from p2pmed.testing.hearsay import NODE_LIES
from p2pmed.testing.liars import ENGINE_LIES
from p2pmed.testing.power import cuts_in_votes
from p2pmed.testing.simulation import SimNode
from p2pmed.testing.workload import GTIN
from p2pmed.wire import codec
from p2pmed.world import Space

__all__ = ["BFT_KINDS", "LIES", "RAFT_KINDS"]

SEATS_KEPT: Final = 5
"""A smaller mesh does not withstand a liar and an absent device after one has left."""


def _lie(name: str) -> Fault:
    def strike(mischief: Mischief) -> None:
        node = mischief.liar
        if node is None:
            return
        simulation = mischief.simulation
        simulation.struck(name)
        liar = simulation.liar_of(node)
        liar.on(name, mischief.dice, len(simulation.nodes))
        mischief.later(mischief.dice.randint(8_000, 40_000), lambda: liar.off(name))
        mischief.at_the_end(lambda: liar.off(name))

    return strike


def _cloned_device(mischief: Mischief) -> None:
    node = mischief.liar
    if node is None or not node.up or mischief.simulation.twin_of(node) is not None:
        return
    simulation, dice = mischief.simulation, mischief.dice
    simulation.struck("cloned device")
    others = [other for other in simulation.nodes if other is not node]
    side = dice.sample(others, dice.randint(1, len(others) - 1))
    twin = simulation.clone(node, side)

    def change() -> None:
        again = [other for other in others if other not in side]
        simulation.take_sides(node, twin, again)

    def retire() -> None:
        simulation.retire(node, twin)

    mischief.later(dice.randint(2_000, 8_000), change)
    mischief.later(dice.randint(8_000, 20_000), retire)
    mischief.at_the_end(retire)


def _old_disk(mischief: Mischief) -> None:
    node = mischief.liar
    if node is None:
        return
    simulation, image = mischief.simulation, node.disk.image()
    simulation.struck("old disk")

    def put_back() -> None:
        simulation.crash(node)
        node.disk = image
        mischief.start_after(node, 1)

    mischief.later(mischief.dice.randint(200, 10_000), put_back)


def _lying_disk(mischief: Mischief) -> None:
    node = mischief.liar
    if node is None:
        return
    simulation = mischief.simulation
    simulation.struck("lying disk")
    node.flushes_lie = True
    node.flush_ms = (200, 1_500)

    def end() -> None:
        node.flushes_lie = False
        simulation.crash(node)
        mischief.start_after(node, 1)

    mischief.later(mischief.dice.randint(1_000, 8_000), end)
    mischief.at_the_end(lambda: setattr(node, "flushes_lie", False))


def _stolen_key(mischief: Mischief) -> None:
    """Entries for places that the owner's entries have, or will have."""
    node = mischief.liar
    if node is None or node.replica is None:
        return
    simulation, dice = mischief.simulation, mischief.dice
    lane = node.replica.logs.lane(node.replica.own.key)
    if lane is None or lane.next_seq == 0:
        return
    simulation.struck("stolen key")
    seq = dice.choice((lane.next_seq, max(1, lane.next_seq - 1), dice.randint(1, lane.next_seq)))
    before = node.replica.logs.entry(lane.key, seq - 1)
    prev = GENESIS_PREV if before is None else before.id
    network = simulation.network_id
    frames = [_signed(node, network, seq, prev, [lot] * dice.randint(1, 3)) for lot in ("L0", "L1")]
    others = [other for other in simulation.nodes if other is not node]
    if dice.random() < 0.5:  # two at once: each is the first that some have heard of
        for other in others:
            simulation.inject(other, events.Frame(node.key, dice.choice(frames)))
        return
    for other in dice.sample(others, min(len(others), dice.randint(1, 3))):
        simulation.inject(other, events.Frame(node.key, frames[0]))


def _signed(node: SimNode, network: bytes, seq: int, prev: bytes, lots: list[str]) -> bytes:
    """A frame with entries from that place on."""
    raws = []
    for number, lot in enumerate(lots):
        entry = _entry(node, network, seq + number, prev, lot)
        prev = entry.id
        raws.append(entry.raw)
    return codec.encode(Push(tuple(raws)))


def _entry(node: SimNode, network: bytes, seq: int, prev: bytes, lot: str) -> Entry:
    wall = node.clock.wall_ms()
    envelope = Envelope(
        version=1,
        incarnation=node.identity.incarnation,
        seq=seq,
        prev=prev,
        ledger=node.home.ledger if node.home else b"",
        hlc=max(0, wall) << 16,
        wall=wall,
        clock=0,
        kind="drug.recall",
        kind_version=1,
        actor=b"",
        subject=b"",
        refs=(),
        body=codec.plain(Recall(gtin=GTIN, lot=lot, reason="a lie")),
    )
    seed = node.identity.keys.signing_seed
    return sign_entry(envelope, seed=seed, author=node.key, network=network)


def _restored_backup(mischief: Mischief) -> None:
    """As ``p2pmed restore`` does it: a new incarnation, and no voice until the operator says so."""
    node = mischief.liar
    if node is None:
        return
    simulation, image = mischief.simulation, node.disk.image()
    simulation.struck("restored backup")

    def restore() -> None:
        simulation.crash(node)
        node.disk = image
        node.disk.stage(Space.META, MUTED, b"\x01")
        node.disk.commit()
        node.identity = replace(
            node.identity,
            incarnation=node.entropy.token(16),
            boot=node.identity.boot + 1,
            muted=True,
        )
        mischief.start_after(node, 1)

    mischief.later(mischief.dice.randint(200, 10_000), restore)


def _membership_change(mischief: Mischief) -> None:
    """A device gives its seat back while the mesh is in two parts; once in a seed."""
    simulation, dice = mischief.simulation, mischief.dice
    seated = [
        node for node in mischief.nodes if node.home and node.home.seat is not None and node.up
    ]
    if "membership change" in simulation.injected or len(seated) < SEATS_KEPT:
        return
    simulation.struck("membership change")
    leaver = dice.choice(seated)
    away = dice.sample(mischief.nodes, 2)
    simulation.cut(away, [node for node in mischief.nodes if node not in away])
    assert leaver.home is not None
    simulation.submit(leaver, Draft(body=MeshLeave(epoch=leaver.home.epoch.number)))
    mischief.later(dice.randint(1_000, 10_000), simulation.mend)


_DEVICES: Final[Mapping[str, Callable[[Mischief], None]]] = MappingProxyType(
    {
        "stolen key": _stolen_key,
        "restored backup": _restored_backup,
        "membership change": _membership_change,
    }
)
_AMNESIA: Final[Mapping[str, Callable[[Mischief], None]]] = MappingProxyType(
    {"cloned device": _cloned_device, "old disk": _old_disk, "lying disk": _lying_disk}
)

RAFT_KINDS: Final[Mapping[str, Fault]] = MappingProxyType(
    {
        **KINDS,
        "cuts in votes": cuts_in_votes,
        **{name: _lie(name) for name in NODE_LIES},
        **_DEVICES,
    }
)
"""What a Raft mesh withstands: no member that lies to the engines, or forgets."""
BFT_KINDS: Final[Mapping[str, Fault]] = MappingProxyType(
    {**RAFT_KINDS, **{name: _lie(name) for name in ENGINE_LIES}, **_AMNESIA}
)
_OFTEN: Final = {"invalid block": 5, "lies in sync": 4, "stolen key": 2, "forged entries": 2}
LIES: Final[Mapping[str, int]] = MappingProxyType(
    {
        name: _OFTEN.get(name, 1)
        for name in (*NODE_LIES, *ENGINE_LIES, *_AMNESIA, "stolen key", "restored backup")
    }
)
"""Kinds that strike ``Mischief.liar`` alone, and how often each is drawn beside the others.

Lies that are many in one, since each breaks one rule of many, are drawn more often.
"""
