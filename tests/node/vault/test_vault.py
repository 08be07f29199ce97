"""A vault: uses keys that it does not hand out, in this process or in one of its own."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from p2pmed.aio.clock import SystemEntropy
from p2pmed.errors import Denied, Locked
from p2pmed.identity import sealing
from p2pmed.identity.persons import check_countersignature
from p2pmed.identity.staff import make_staff, open_staff, read_staff
from p2pmed.identity.stretching import CHEAP
from p2pmed.medical.keyring import Category, KeyRing
from p2pmed.medical.privacy.locks import Lock
from p2pmed.node.vault import core as vault_core
from p2pmed.node.vault import messages as m
from p2pmed.node.vault.child import HEAD_BYTES, spawn
from p2pmed.node.vault.core import VaultCore
from p2pmed.node.vault.face import KeptBox, Vault, inside
from p2pmed.node.vault.program import serve

ENTROPY = SystemEntropy()
WORDS = "a row of six words"
DEVICE, PEPPER, BOX, NETWORK = b"d" * 32, b"p" * 32, b"b" * 32, b"n" * 32
PATIENT = b"patient patient!"
PUBLIC = sealing.box_public(BOX)
FILE = make_staff(
    "Ma Aye",
    WORDS,
    boxes=[BOX],
    device=DEVICE,
    pepper=PEPPER,
    created_ms=7,
    entropy=ENTROPY,
    cost=CHEAP,
)


def begin(vault: Vault) -> m.Begun:
    return vault.begin(FILE, WORDS, device=DEVICE, pepper=PEPPER)


@pytest.fixture(scope="module", params=["inside", "child"])
def vault(request: pytest.FixtureRequest) -> Iterator[Vault]:
    made = inside(ENTROPY) if request.param == "inside" else spawn()
    begin(made)
    yield made
    made.end()


def test_the_words_begin_it_and_others_do_not() -> None:
    """Nothing is answered before the right words; they are asked for once."""
    made = inside(ENTROPY)
    with pytest.raises(Locked):
        made.lend([BOX])
    with pytest.raises(Locked):
        made.begin(FILE, "another passphrase", device=DEVICE, pepper=PEPPER)
    begun = begin(made)
    assert (begun.name, begun.boxes) == ("Ma Aye", (PUBLIC,))
    with pytest.raises(Exception, match="somebody's already"):
        begin(made)


def test_a_ring_in_the_vault_does_what_one_in_the_open_does(vault: Vault) -> None:
    """Kept keys derive, mark and wrap as those that they stand for; their bytes stay away."""
    kept = KeyRing.generate(PATIENT, ENTROPY, epoch=3, keeper=vault)
    wrapped = kept.wrap(PUBLIC, network=NETWORK, purpose="test").wrapped
    plain = KeyRing.open(wrapped, BOX, patient=PATIENT, network=NETWORK, purpose="test")
    again = KeyRing.kept(
        PATIENT,
        vault.open_keys(sealing.box_id(PUBLIC), wrapped, NETWORK, PATIENT, "test"),
        vault,
    )
    for one, two, real in zip(kept, again, plain, strict=True):
        assert one.key == two.key != real.key
        assert (one.category, one.epoch, one.key_id) == (real.category, real.epoch, real.key_id)
        for key in (one, two):
            assert key.derive(salt=b"s", info=b"i") == real.derive(salt=b"s", info=b"i")
            assert key.mac(b"m") == real.mac(b"m")


def test_rings_of_both_kinds_are_wrapped_together(vault: Vault) -> None:
    """A key that came from elsewhere is handed in when the ring is wrapped."""
    plain = KeyRing.generate(PATIENT, ENTROPY, categories=[Category.GENERAL])
    kept = KeyRing.generate(PATIENT, ENTROPY, categories=[Category.SURGERY], keeper=vault)
    wrapped = plain.joined(kept).wrap(PUBLIC, network=NETWORK, purpose="test").wrapped
    opened = KeyRing.open(wrapped, BOX, patient=PATIENT, network=NETWORK, purpose="test")
    assert {key.category for key in opened} == {Category.GENERAL, Category.SURGERY}
    assert opened.current(Category.GENERAL).key == plain.current(Category.GENERAL).key


def test_a_patient_s_passphrase_works_in_the_vault(vault: Vault) -> None:
    """A locked key opens with the lock's secret only, and is wrapped locked."""
    lock = Lock.new("the patient's", ENTROPY, cost=CHEAP)
    ring = KeyRing.generate(PATIENT, ENTROPY, locks={Category.HIV_STI: lock}, keeper=vault)
    wrapped = ring.wrap(PUBLIC, network=NETWORK, purpose="test").wrapped
    rows = vault.open_keys(sealing.box_id(PUBLIC), wrapped, NETWORK, PATIENT, "test")
    closed = KeyRing.kept(PATIENT, rows, vault)
    with pytest.raises(Denied):
        closed.current(Category.HIV_STI)
    opened = closed.unlocked(Category.HIV_STI, lock.secret("the patient's"))
    one, two = opened.current(Category.HIV_STI), ring.current(Category.HIV_STI)
    assert one.mac(b"m") == two.mac(b"m")


def test_what_must_stay_is_not_unwrapped(vault: Vault) -> None:
    """Keys of patients, facilities and the device do not leave; a share or a request does."""
    box = KeptBox(vault, PUBLIC)
    for domain in ("keys", "facility", "device box"):
        wrapped = sealing.wrap(PUBLIC, b"secret", domain=domain, context=(NETWORK,))
        with pytest.raises(Denied, match="do not leave"):
            sealing.unwrap(box, wrapped, domain=domain, context=(NETWORK,))
    wrapped = sealing.wrap(PUBLIC, b"share", domain="share", context=(NETWORK, "1"))
    assert sealing.unwrap(box, wrapped, domain="share", context=(NETWORK, "1")) == b"share"
    with pytest.raises(Denied):
        sealing.unwrap(box, wrapped, domain="share", context=(NETWORK, "2"))


def test_a_card_is_lent_and_taken_back(vault: Vault) -> None:
    """While the card lies there its wraps open; afterwards they do not."""
    secret = b"c" * 32
    public = sealing.box_public(secret)
    wrapped = sealing.wrap(public, b"word", domain="share", context=())
    name = sealing.box_id(public)
    assert vault.lend([secret]) == [public]
    assert vault.unwrap(name, wrapped, domain="share", context=()) == b"word"
    vault.take_back([name])
    with pytest.raises(Denied):
        vault.unwrap(name, wrapped, domain="share", context=())


def test_a_facility_s_secret_is_made_and_handed_on_inside(vault: Vault) -> None:
    """A new epoch reaches each device with the older secrets, none of which left the vault."""
    place = {"network": NETWORK, "place": "shan/mu"}
    public, (wrap,) = vault.make_facility([], [PUBLIC], epoch=0, **place)
    newer, (second,) = vault.make_facility([sealing.box_id(public)], [PUBLIC], epoch=1, **place)
    name = sealing.box_id(PUBLIC)
    assert vault.open_facility(name, wrap.wrapped, epoch=0, **place) == [public]
    assert vault.open_facility(name, second.wrapped, epoch=1, **place) == [newer, public]


def test_the_person_signs_and_adds_a_colleague(vault: Vault) -> None:
    """A countersignature is the person's; a colleague's file holds the device's box."""
    word = vault.countersign(NETWORK, "test", b"h" * 32)
    person = check_countersignature(word, NETWORK, "test", b"h" * 32)
    assert person == read_staff(FILE).person
    raw = vault.add_staff("U Ba", "seven other words", pepper=PEPPER, created_ms=8, cost=CHEAP)
    opened = open_staff(raw, "seven other words", device=DEVICE, pepper=PEPPER)
    assert opened.boxes == (BOX,)
    assert opened.keys.person != person


def test_an_ended_vault_answers_nothing() -> None:
    """After the end every key of it is locked, wherever it is still held."""
    made = inside(ENTROPY)
    begin(made)
    key = KeyRing.generate(PATIENT, ENTROPY, keeper=made).current(Category.GENERAL)
    made.end()
    made.end()
    with pytest.raises(Locked):
        key.derive(salt=b"", info=b"")


def test_keys_used_longest_ago_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """A session holds a bounded number of keys, and says so of those that are gone."""
    monkeypatch.setattr(vault_core, "KEYS_MAX", 3)
    made = inside(ENTROPY)
    begin(made)
    handles = [made.take_key(bytes([n]) * 32) for n in range(3)]
    made.mac(handles[0], b"")
    made.take_key(b"4" * 32)
    made.mac(handles[0], b"")
    with pytest.raises(Denied, match="not open any more"):
        made.mac(handles[1], b"")


# --- a process of its own ---------------------------------------------------------------------


def test_killing_the_child_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A vault whose process died answers ``Locked``, for ever, and at once."""
    made = spawn()
    begin(made)
    child = made._ask.__self__  # type: ignore[attr-defined]
    os.kill(child.pid, signal.SIGKILL)
    for _ in range(2):
        with pytest.raises(Locked, match="gone"):
            made.lend([BOX])
    made.end()


def test_ending_ends_the_process() -> None:
    """After ``end`` the kernel has no such process any more."""
    made = spawn()
    begin(made)
    pid = made._ask.__self__.pid  # type: ignore[attr-defined]
    made.end()
    assert not Path(f"/proc/{pid}").exists()


def test_the_program_ends_with_its_socket_and_at_rubbish() -> None:
    """No parent, or one that talks nonsense: the program returns."""
    for sent in (b"", b"\xff" * HEAD_BYTES, (3).to_bytes(HEAD_BYTES, "big") + b"abc"):
        ours, theirs = socket.socketpair()
        serving = threading.Thread(target=serve, args=(theirs,))
        serving.start()
        with ours:
            ours.sendall(sent)
            if sent:
                serving.join(5)
        serving.join(5)
        assert not serving.is_alive()
        theirs.close()


def test_several_threads_may_ask() -> None:
    """Questions from an import's thread and from the loop do not run into one another."""
    made = spawn()
    begin(made)
    handles = {made.take_key(bytes([n]) * 32): bytes([n]) * 32 for n in range(4)}
    wrong: list[bytes] = []

    def work(handle: bytes) -> None:
        right = sealing.derive(handles[handle], salt=b"s", info=b"i")
        wrong.extend(handle for _ in range(200) if made.derive(handle, b"s", b"i") != right)

    threads = [threading.Thread(target=work, args=(handle,)) for handle in handles]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    made.end()
    assert not wrong


def test_the_child_is_shielded() -> None:
    """Its core limit is nothing, and only root may look at its memory."""
    made = spawn()
    begin(made)
    pid = made._ask.__self__.pid  # type: ignore[attr-defined]
    limits = Path(f"/proc/{pid}/limits").read_text()
    line = next(line for line in limits.splitlines() if line.startswith("Max core file size"))
    made.end()
    assert line.split()[4:6] == ["0", "0"]


def test_no_answer_holds_what_must_stay() -> None:
    """Whatever is asked, no message back contains a box, a person's key or a category key."""
    core = VaultCore(ENTROPY)
    said: list[bytes] = []

    def ask(question: m.Ask) -> m.Answer:
        answer = core.answer(question)
        said.append(msgspec.msgpack.encode(answer))
        return answer

    made = Vault(ask)
    begin(made)
    ring = KeyRing.generate(PATIENT, ENTROPY, keeper=made)
    wrapped = ring.wrap(PUBLIC, network=NETWORK, purpose="test").wrapped
    made.open_keys(sealing.box_id(PUBLIC), wrapped, NETWORK, PATIENT, "test")
    made.make_facility([], [PUBLIC], network=NETWORK, place="shan", epoch=0)
    made.countersign(NETWORK, "test", b"h" * 32)
    made.add_staff("U Ba", WORDS, pepper=PEPPER, created_ms=8, cost=CHEAP)
    made.new_pin("4711", cost=CHEAP)
    plain = KeyRing.open(wrapped, BOX, patient=PATIENT, network=NETWORK, purpose="test")
    held = open_staff(FILE, WORDS, device=DEVICE, pepper=PEPPER)
    secrets = [BOX, held.keys.signing_seed, held.keys.box_secret, *(key.key for key in plain)]
    assert not [1 for secret in secrets for message in said if secret in message]


def test_a_new_process_is_ready_soon() -> None:
    """Staff switch quickly: a vault of one's own takes well under five seconds."""
    started = time.monotonic()
    made = spawn()
    begin(made)
    made.end()
    assert time.monotonic() - started < 5
