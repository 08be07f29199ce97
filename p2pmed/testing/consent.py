"""Consent under crashes and cuts: the rules of leave and of reading, with 3 to 5 nodes, by seed.

What is real here: grants, revocations, delegations and emergencies with their rules
(``medical/consent.py``, ``privacy/delegation.py``, ``privacy/emergency.py``), who may read by what
a node has stored (``readers``), and the gate that readings pass (``privacy/reads.py``). What is
played: disks that lose what was not flushed, cuts, and time. No ciphers: whether a key opens is a
matter of cryptography, tested elsewhere; here it is a matter of *when*.

Two promises, kept by an oracle that reads the transactions themselves and no table:

* no plaintext without an earlier ``audit.read`` on that node's disk;
* no decrypt by a node after it stored what ends its leave: a revocation, of the delegation too,
  the last moment of a grant, the end of an emergency.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from types import MappingProxyType
from typing import Final

import msgspec

from p2pmed.medical.consent import AccessGrant, AccessRevoke
from p2pmed.medical.privacy.delegation import AccessDelegate
from p2pmed.medical.privacy.emergency import (
    EmergencyClose,
    EmergencyOpen,
    Reason,
    open_digest,
)
from p2pmed.medical.privacy.proofs import said
from p2pmed.medical.privacy.reads import AuditRead
from p2pmed.testing.consent_world import (
    CATEGORIES,
    GUARDIAN,
    NETWORK,
    PATIENT,
    PATIENT_HAND,
    RECORDS,
    STAFF,
    START_MS,
    WRAPPED,
    ConsentNode,
    ConsentWorld,
    Reading,
)
from p2pmed.testing.planting import Plant, sown
from p2pmed.testing.scenario import SeedOptions, SeedReport, Step
from p2pmed.wire.hashing import hash_bytes

__all__ = ["play"]

STEPS: Final = 220
WEIGHTS: Final[Mapping[str, int]] = MappingProxyType(
    {
        "grant": 8,
        "revoke": 7,
        "delegate": 3,
        "grant under": 4,
        "open emergency": 4,
        "close emergency": 3,
        "begin reading": 22,
        "open records": 30,
        "end reading": 6,
        "flush": 34,
        "meet": 24,
        "crash": 8,
        "cut": 8,
        "heal": 7,
    }
)
FAULTS: Final = ("crash", "cut")


# --- what can happen --------------------------------------------------------------------------


def _leave(reader: ConsentNode, until: int, under: bytes = b"") -> AccessGrant:
    body = AccessGrant(
        grantee_key=reader.box,
        purpose="TREAT",
        epoch=0,
        since=0,
        until=until,
        wrapped=WRAPPED,
        told=b"",
        under=under,
        proof=b"",
    )
    if not under:
        return body
    message = said("grant", NETWORK, PATIENT, body.words)
    return msgspec.structs.replace(body, proof=GUARDIAN.sign(message))


def _grant(world: ConsentWorld, dice: Random) -> None:
    until = world.now + dice.choice((5_000, 60_000, 600_000)) if dice.random() < 0.4 else 0
    world.write(world.nodes[0], _leave(dice.choice(world.nodes[1:]), until))


def _delegations(node: ConsentNode) -> list[bytes]:
    return [name for name, item in node.known.items() if isinstance(item.body, AccessDelegate)]


def _grant_under(world: ConsentWorld, dice: Random) -> None:
    known = _delegations(world.nodes[0])
    if known:
        under = dice.choice(known)
        holders = [node for node in world.nodes if under in node.known]
        node = dice.choice(holders)
        until = node.known[under].body.until
        world.write(node, _leave(dice.choice(world.nodes[1:]), until, under), under)


def _delegate(world: ConsentWorld, dice: Random) -> None:
    body = AccessDelegate(
        grantee_key=dice.choice(world.nodes[1:]).box,
        sign_key=GUARDIAN.public,
        epoch=0,
        since=0,
        until=world.now + 300_000 if dice.random() < 0.5 else 0,
        depth=0,
        under=b"",
        wrapped=WRAPPED,
        told=b"",
        proof=b"",
    )
    message = said("delegate", NETWORK, PATIENT, body.words)
    world.write(world.nodes[0], msgspec.structs.replace(body, proof=PATIENT_HAND.sign(message)))


def _revoke(world: ConsentWorld, dice: Random) -> None:
    """By the clinic, by who gave it or by who has it: also twice, and on both sides of a cut."""
    node = dice.choice(world.nodes)
    known = [
        name
        for name, item in node.known.items()
        if isinstance(item.body, AccessGrant | AccessDelegate)
        and (node is world.nodes[0] or item.body.grantee_key == node.box)
    ]
    if known:
        grant = dice.choice(known)
        world.write(node, AccessRevoke(grant=grant, epoch=1, wraps=(), proof=b""), grant)


def _open_emergency(world: ConsentWorld, dice: Random) -> None:
    node = dice.choice(world.nodes[1:])
    until = world.now + dice.choice((10_000, 60_000, 3_600_000))
    message = open_digest(PATIENT, node.key, Reason.UNCONSCIOUS, CATEGORIES, until)
    words = [person.countersign(NETWORK, "emergency.open", message) for person in STAFF]
    body = EmergencyOpen(
        reason=Reason.UNCONSCIOUS,
        categories=CATEGORIES,
        until=until,
        first=words[0],
        second=words[1],
    )
    name = world.write(node, body)
    node.flush()  # the node waits for it before any share is used
    node.broken = name


def _close_emergency(world: ConsentWorld, dice: Random) -> None:
    node = dice.choice(world.nodes)
    known = [name for name, item in node.known.items() if isinstance(item.body, EmergencyOpen)]
    if known:
        opening = dice.choice(known)
        world.write(node, EmergencyClose(opening=opening), opening)


def _begin_reading(world: ConsentWorld, dice: Random) -> None:
    node = dice.choice(world.nodes[1:])
    leave = node.leave(world.now)
    if not leave or len(node.readings) > 4:
        world.refused += not leave
        return
    records = tuple(dice.sample(RECORDS, dice.randrange(1, 5)))
    token = node.gate.announce(records)
    body = AuditRead(
        purpose="TREAT",
        grants=leave[:1],
        count=len(records),
        root=bytes(32),
        sealed=WRAPPED + b"".join(records),
    )
    audit = world.write(node, body)
    node.readings.append(Reading(token, audit, records))


def _open_records(world: ConsentWorld, dice: Random) -> None:
    """The next slice of a long reading; between slices anything may be stored."""
    busy = [node for node in world.nodes if node.readings]
    if not busy:
        return
    node = dice.choice(busy)
    reading = dice.choice(node.readings)
    for record in reading.records:
        if node.gate.may(record) and node.leave(world.now):
            world.opens(node, record)
        else:
            world.refused += 1


def _end_reading(world: ConsentWorld, dice: Random) -> None:
    busy = [node for node in world.nodes if node.readings]
    if busy:
        node = dice.choice(busy)
        node.gate.done(node.readings.pop(0).token)


def _flush(world: ConsentWorld, dice: Random) -> None:
    node = dice.choice(world.nodes)
    world.flushes += len(node.staged)
    node.flush()


def _meet(world: ConsentWorld, dice: Random) -> None:
    world.meet(*dice.sample(world.nodes, 2))


def _crash(world: ConsentWorld, dice: Random) -> None:
    dice.choice(world.nodes).crash()


def _cut(world: ConsentWorld, dice: Random) -> None:
    one, other = sorted(dice.sample(range(len(world.nodes)), 2))
    world.cuts.add((one, other))


def _heal(world: ConsentWorld, dice: Random) -> None:
    world.cuts.clear()


ACTS: Final[Mapping[str, Callable[[ConsentWorld, Random], None]]] = MappingProxyType(
    {
        "grant": _grant,
        "revoke": _revoke,
        "delegate": _delegate,
        "grant under": _grant_under,
        "open emergency": _open_emergency,
        "close emergency": _close_emergency,
        "begin reading": _begin_reading,
        "open records": _open_records,
        "end reading": _end_reading,
        "flush": _flush,
        "meet": _meet,
        "crash": _crash,
        "cut": _cut,
        "heal": _heal,
    }
)


def _story(seed: int) -> tuple[Step, ...]:
    rng = Random(f"consent {seed}")
    names = rng.choices(list(WEIGHTS), weights=list(WEIGHTS.values()), k=STEPS)
    return tuple(
        {"do": name, "dice": rng.getrandbits(32), "after": rng.choice((20, 400, 2_000, 9_000))}
        for name in names
    )


def play(seed: int, options: SeedOptions) -> SeedReport:
    """Play one seed. Raises ``KeyError`` for a defect that is not in ``CONSENT_DEFECTS``."""
    plant = Plant()
    if options.planted:
        # Defects patch this module too: they are known to who plays, not to who is played.
        from p2pmed.testing.consent_defects import CONSENT_DEFECTS

        plant = CONSENT_DEFECTS[options.planted]
    story = options.steps if options.steps is not None else _story(seed)
    faults: dict[str, int] = {}
    with sown(plant):
        world = ConsentWorld(seed)
        for step in story:
            world.now += step["after"]
            ACTS[step["do"]](world, Random(step["dice"]))
            if step["do"] in FAULTS:
                faults[step["do"]] = faults.get(step["do"], 0) + 1
    return SeedReport(
        scenario="consent",
        seed=seed,
        virtual_ms=world.now - START_MS,
        steps=len(story),
        faults=dict(sorted(faults.items())),
        commits=world.flushes,
        acknowledged=world.opened,
        violations=tuple(dict.fromkeys(world.violations)),
        digest=hash_bytes(b"".join(world.trace)).hex(),
        notes={"opened": world.opened, "refused": world.refused},
        story=tuple(story),
    )
