"""Sessions: records open between ``unlock`` and ``lock``, and every way back is tried."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from p2pmed.errors import ConfigError, Denied, Locked
from p2pmed.identity.stretching import CHEAP
from p2pmed.medical.keyring import Category
from p2pmed.node import sessions as sessions_module
from p2pmed.node.backup import back_up_stopped, restore_home
from p2pmed.node.node import Node, open_node
from p2pmed.node.setup import create_network, init_home, load_keys, self_enrol
from p2pmed.node.staff_files import (
    PIN_TRIES_MAX,
    every_staff,
    file_of,
    forget_tries,
    next_try,
)
from p2pmed.testing.homes import until

PASSPHRASE = "for these tests only"
WORDS = "seven other words"
PIN = "471147"

Open = Callable[..., Awaitable[Node]]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("authority") / "authority"
    create_network(folder, "Shan", PASSPHRASE, cheap=True)
    return folder


@pytest.fixture
def new_home(authority: Path, tmp_path: Path) -> Callable[..., Path]:
    def make(name: str = "clinic", place: str = "shan/mu", role: str = "clinic") -> Path:
        home = tmp_path / name
        init_home(home, name=name, roles=[role], place=place, passphrase=PASSPHRASE, cheap=True)
        self_enrol(authority, PASSPHRASE, home, PASSPHRASE)
        return home

    return make


@pytest.fixture
async def opened(new_home: Any) -> AsyncIterator[Open]:
    async with AsyncExitStack() as stack:

        async def start(home: Path | None = None, **options: Any) -> Node:
            node = await stack.enter_async_context(
                open_node(home or new_home(), passphrase=PASSPHRASE, network=False, **options)
            )
            node.sessions._cost = CHEAP
            return node

        yield start


def person(name: str) -> bytes:
    return json.dumps({"resourceType": "Patient", "name": [{"family": name}]}).encode()


def note(text: str) -> bytes:
    return json.dumps({"resourceType": "Observation", "code": {"text": text}}).encode()


async def carry(source: Node, target: Node) -> None:
    """All that ``source`` holds and ``target`` lacks, brought by hand."""
    await until(lambda: source.status()["own_next"] > 0, "the log is open")
    for lane, next_seq in source.replica.logs.frontier():
        have = target.replica.logs.next_seq(lane)
        raws = source.replica.logs.read(lane, have, next_seq, bytes_max=2**30)
        if raws:
            await target.import_entries(raws)
    await target.catch_up()


# --- locked and unlocked ----------------------------------------------------------------------


async def test_a_locked_node_writes_and_reads_nothing_sealed(opened: Open) -> None:
    """Registering, adding, reading, granting and searching say ``Locked``, and how to unlock."""
    node = await opened(unlock=False)
    patient, _ = b"", await node.sessions.unlock(PASSPHRASE)
    patient, receipt = await node.patients.register(person("Wang"))
    node.sessions.lock()
    device = node.keys.box_public
    for work in (
        lambda: node.patients.register(person("Li")),
        lambda: node.patients.add(note("x"), patient=patient),
        lambda: node.consent.grant(patient, device),
        lambda: node.consent.rotate(patient),
        lambda: node.timelines.of(patient),
        lambda: node.consent.facility.publish(),
        lambda: node.search.patients(name="Wang"),
        lambda: node.cards.enrol(person("Zhao"), cost=CHEAP),
    ):
        with pytest.raises(Locked, match="locked") as caught:
            await work()
        assert "unlock" in caught.value.hint
    assert node.find(receipt.id) is not None  # what is sealed stays known, and travels
    await node.sessions.unlock(PASSPHRASE)
    assert [item.kind for item in await node.timelines.of(patient)] == ["Patient"]


async def test_the_device_s_own_keys_open_nothing(opened: Open, new_home: Any) -> None:
    """What ``run`` opens with the home's passphrase has no box secret in it."""
    home = new_home()
    keys = load_keys(home, PASSPHRASE)
    assert keys.box_secret == b""
    node = await opened(home)
    assert node.keys.box_secret == b""
    assert node.keys.box_public == keys.box_public
    assert node.status()["session"]["staff"] == "keeper"


async def test_after_lock_what_was_held_is_worth_nothing(opened: Open) -> None:
    """A ring that a caller kept from before the lock opens nothing after it."""
    node = await opened()
    patient, _ = await node.patients.register(person("Wang"))
    ring = node.patients.ring(patient)
    node.sessions.lock()
    with pytest.raises(Locked):
        ring.current(Category.GENERAL).derive(salt=b"", info=b"")
    assert not len(node.opener._held)


async def test_a_wrong_passphrase_leaves_the_session_as_it_was(opened: Open) -> None:
    """Who mistypes while a colleague is at work takes nothing away."""
    node = await opened()
    await node.sessions.add("Ma Aye", WORDS)
    with pytest.raises(Locked):
        await node.sessions.unlock("not her words", name="Ma Aye")
    with pytest.raises(ConfigError, match="no such staff"):
        await node.sessions.unlock(WORDS, name="U Ba")
    with pytest.raises(ConfigError, match="which staff"):
        await node.sessions.unlock(WORDS)
    assert node.sessions.status()["staff"] == "keeper"


async def test_acts_carry_who_is_at_the_device(opened: Open) -> None:
    """Two people on one device switch; each writes under their own key, the node under none."""
    node = await opened()
    patient, first = await node.patients.register(person("Wang"))
    assert first.entry.envelope.actor == b""  # the home's passphrase names nobody
    one, two = [await node.sessions.add(name, WORDS) for name in ("Ma Aye", "U Ba")]
    for name, key in (("Ma Aye", one), ("U Ba", two), ("Ma Aye", one)):
        await node.sessions.unlock(WORDS, name=name)
        receipt = await node.patients.add(note(name), patient=patient)
        assert receipt.entry.envelope.actor == key
        assert node.sessions.status()["person"] == key.hex()
    with node.sessions.unattended():
        receipt = await node.patients.add(note("by itself"), patient=patient)
    assert receipt.entry.envelope.actor == b""


async def test_a_vault_of_its_own_does_the_same_work(opened: Open) -> None:
    """With ``apart`` the keys are in another process; its end is the session's end."""
    node = await opened(apart=True)
    patient, _ = await node.patients.register(person("Wang"))
    await node.patients.add(note("one"), patient=patient)
    assert len(await node.timelines.of(patient)) == 2
    child = node.sessions.vault._ask.__self__  # type: ignore[attr-defined]
    assert Path(f"/proc/{child.pid}").exists()
    node.sessions.lock()
    assert not Path(f"/proc/{child.pid}").exists()
    with pytest.raises(Locked):
        await node.timelines.of(patient)


# --- ends by itself ---------------------------------------------------------------------------


async def test_nobody_there_locks(opened: Open) -> None:
    """Without a request for ``idle_s`` seconds the session ends; a request prolongs it."""
    node = await opened(idle_s=0.4)
    watching = asyncio.create_task(node.sessions.watch(look_s=0.02))
    for _ in range(4):
        await asyncio.sleep(0.15)
        node.sessions.touch()
    assert node.sessions.unlocked
    await asyncio.sleep(0.7)
    assert not node.sessions.unlocked
    assert "while" in node.sessions.status()["why"]
    watching.cancel()


async def test_sleep_locks(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lid that was closed: the boot clock ran on, the other did not."""
    slept = [7.0]
    monkeypatch.setattr(sessions_module, "slept_s", lambda: slept[0])
    node = await opened()
    watching = asyncio.create_task(node.sessions.watch(look_s=0.01))
    await asyncio.sleep(0.05)
    assert node.sessions.unlocked
    slept[0] += 60
    await asyncio.sleep(0.1)
    assert not node.sessions.unlocked
    assert "asleep" in node.sessions.status()["why"]
    watching.cancel()


# --- PINs -------------------------------------------------------------------------------------


async def test_a_pin_works_after_the_passphrase_and_not_before(opened: Open, new_home: Any) -> None:
    """On a machine that was just started a PIN opens nothing: nothing on the disk would let it."""
    home = new_home()
    async with open_node(home, passphrase=PASSPHRASE, network=False) as node:
        node.sessions._cost = CHEAP
        await node.sessions.new_pin(PIN)
        node.sessions.lock()
        await node.sessions.unlock(PIN, by_pin=True)
        assert node.sessions.unlocked
    node = await opened(home, unlock=False)
    with pytest.raises(Locked, match="passphrase once"):
        await node.sessions.unlock(PIN, by_pin=True)


async def test_ten_wrong_pins_shut_it_and_the_passphrase_opens(opened: Open) -> None:
    """Tries are counted on the disk before they are made; the right passphrase starts anew."""
    node = await opened()
    await node.sessions.new_pin(PIN)
    node.sessions.lock()
    home, file = node.sessions.folder, next(file for file, _ in every_staff(node.sessions.folder))
    for left in reversed(range(PIN_TRIES_MAX)):
        with pytest.raises(Locked) as caught:
            await node.sessions.unlock("999999", by_pin=True)
        assert str(left) in caught.value.hint
    with pytest.raises(Locked, match="opens nothing any more"):
        await node.sessions.unlock(PIN, by_pin=True)
    await node.sessions.unlock(PASSPHRASE)
    node.sessions.lock()
    await node.sessions.unlock(PIN, by_pin=True)
    forget_tries(home, file.person)


def test_a_try_is_on_the_disk_before_it_is_made(new_home: Any) -> None:
    """Pulling the plug in the middle of a try does not give it back."""
    home = new_home()
    person_key = file_of(home, "")[0].person
    assert next_try(home, person_key) == PIN_TRIES_MAX - 1
    (tries,) = (home / "staff").glob("*.tries")
    assert tries.read_bytes() == b"\x01"


# --- the ways back ----------------------------------------------------------------------------


async def test_a_forgotten_passphrase_is_made_good_by_a_colleague(opened: Open) -> None:
    """A colleague gives new keys; the old words open nothing, records open, the name is new."""
    node = await opened()
    patient, _ = await node.patients.register(person("Wang"))
    old = await node.sessions.add("Ma Aye", WORDS)
    with pytest.raises(ConfigError, match="who is unlocked"):
        await node.sessions.reset("keeper", WORDS)
    new = await node.sessions.reset("Ma Aye", "ten quite new words")
    assert new != old
    with pytest.raises(Locked):
        await node.sessions.unlock(WORDS, name="Ma Aye")
    await node.sessions.unlock("ten quite new words", name="Ma Aye")
    assert len(await node.timelines.of(patient)) == 1
    assert node.sessions.actor == new


async def test_who_was_removed_is_out_and_the_last_stays(opened: Open) -> None:
    """A removed person's words open nothing; the last file cannot be taken away."""
    node = await opened()
    await node.sessions.add("Ma Aye", WORDS)
    node.sessions.remove("Ma Aye")
    with pytest.raises(ConfigError):
        await node.sessions.unlock(WORDS, name="Ma Aye")
    with pytest.raises(ConfigError, match="last staff member"):
        node.sessions.remove("keeper")
    with pytest.raises(ConfigError, match="of that name"):
        await node.sessions.add("keeper", WORDS)


async def test_a_home_with_its_own_staff_starts_locked(new_home: Any) -> None:
    """Once the first person has words of their own, the home's passphrase opens no record."""
    home = new_home()
    async with open_node(home, passphrase=PASSPHRASE, network=False) as node:
        node.sessions._cost = CHEAP
        await node.sessions.new_words("the keeper's own words")
    async with open_node(home, passphrase=PASSPHRASE, network=False) as node:
        assert not node.sessions.unlocked
        await node.sessions.unlock("the keeper's own words")


async def test_a_lost_device_key_is_replaced_and_the_facility_s_key_reads_on(
    opened: Open, new_home: Any
) -> None:
    """A new home of the same place reads old records once a colleague's device admits it."""
    first, second = [await opened(new_home(name)) for name in ("desk", "ward")]
    await carry(second, first)
    await first.consent.facility.publish()
    patient, _ = await first.patients.register(person("Wang"))
    await carry(first, second)
    assert [item.kind for item in await second.timelines.of(patient)] == ["Patient"]
    # The desk's laptop is gone. A new one is enrolled for the same place.
    late = await opened(new_home("desk-again"))
    await carry(second, late)
    with pytest.raises(Denied):
        late.patients.ring(patient)
    await carry(late, second)
    await second.consent.facility.publish([second.key, late.key])
    await carry(second, late)
    assert [item.kind for item in await late.timelines.of(patient)] == ["Patient"]


async def test_a_destroyed_home_comes_back_from_backup_and_peers(
    new_home: Any, tmp_path: Path
) -> None:
    """Backup for keys and what it had, peers for what they got later; the rest is counted."""
    home, peer_home = new_home("desk"), new_home("ward")
    async with (
        open_node(home, passphrase=PASSPHRASE, network=False) as node,
        open_node(peer_home, passphrase=PASSPHRASE, network=False) as peer,
    ):
        patient, _ = await node.patients.register(person("Wang"), readers=[peer.keys.box_public])
    back_up_stopped(home, tmp_path / "backup")
    async with (
        open_node(home, passphrase=PASSPHRASE, network=False) as node,
        open_node(peer_home, passphrase=PASSPHRASE, network=False) as peer,
    ):
        shared = await node.patients.add(note("seen by a peer"), patient=patient)
        await carry(node, peer)
        lost = await node.patients.add(note("seen by nobody"), patient=patient)
    for path in sorted(home.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    restore_home(tmp_path / "backup", tmp_path / "again")
    async with (
        open_node(tmp_path / "again", passphrase=PASSPHRASE, network=False) as node,
        open_node(peer_home, passphrase=PASSPHRASE, network=False) as peer,
    ):
        assert node.sessions.unlocked  # staff came back with the home
        await carry(peer, node)
        texts = [item.id for item in await node.timelines.of(patient)]
        assert shared.id in texts
        assert lost.id not in texts
        assert node.find(lost.id) is None


async def test_without_the_pepper_the_node_runs_and_nobody_unlocks(
    opened: Open, new_home: Any
) -> None:
    """A staff folder that was damaged stops nobody's gossip, and says what is missing."""
    home = new_home()
    (home / "staff" / "pepper").unlink()
    node = await opened(home)
    assert not node.sessions.unlocked
    with pytest.raises(ConfigError, match="no pepper"):
        await node.sessions.unlock(PASSPHRASE)
    with pytest.raises(Locked):
        await node.patients.register(person("Wang"))
