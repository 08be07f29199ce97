"""The channel core: two of them and a list of frames make a connection."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl import bindings

from p2pmed.engine import DeadlineReached, Instant
from p2pmed.errors import CredentialError, LocalProtocolError
from p2pmed.limits import FRAME_BYTES_MAX, HANDSHAKE_MS_MAX, PEER_SILENT_MS
from p2pmed.transport import channel as module
from p2pmed.transport.channel import PROLOGUE, REKEY_MS, TRANSITIONS, Channel, Move, State
from p2pmed.transport.events import (
    ChannelEffect,
    ChannelEvent,
    CloseAsked,
    Closed,
    Deliver,
    Established,
    FrameIn,
    FrameOut,
    Opened,
    SendMessage,
    Writable,
)
from p2pmed.transport.messages import Hello, Kind, Limits, Proof, Role, write_chunk
from p2pmed.transport.noise import CipherState, HandshakeState, KeyPair
from p2pmed.transport.proof import PROOF_PREFIX, ChannelIdentity, make_identity
from p2pmed.wire import codec

NETWORK = bytes(range(32))


class Counting:
    """Entropy that never repeats."""

    def __init__(self, start: int) -> None:
        self._next = count(start)

    def token(self, size: int) -> bytes:
        return next(self._next).to_bytes(size, "little")


def identity(number: int, *, boot: int = 0) -> ChannelIdentity:
    device, secret = bindings.crypto_sign_seed_keypair(bytes([number]) * 32)
    return make_identity(
        device=device,
        sign=lambda message: bindings.crypto_sign(message, secret)[:64],
        chain=(b"root says county", b"county says clinic %d" % number),
        entropy=Counting(1_000 * number + boot),
    )


def welcome(device: bytes, chain: tuple[bytes, ...]) -> None:
    assert len(device) == 32
    assert chain[0] == b"root says county"


class Side:
    """One channel and everything it asked for."""

    def __init__(
        self,
        number: int,
        *,
        initiator: bool,
        network: bytes = NETWORK,
        authenticate: Callable[[bytes, tuple[bytes, ...]], None] = welcome,
        expected: bytes | None = None,
        keys: ChannelIdentity | None = None,
        version_min: int = 1,
        entropy: int = 0,
    ) -> None:
        self.keys = keys or identity(number)
        self.now = 0
        self.channel = Channel(
            network_id=network,
            keys=self.keys,
            authenticate=authenticate,
            expected_peer=expected,
            entropy=Counting(entropy or 77_000 + number),
            now=Instant(0),
            initiator=initiator,
            version_min=version_min,
        )
        self.effects: list[ChannelEffect] = []
        self.out: deque[bytes] = deque()

    def step(self, event: ChannelEvent) -> None:
        for effect in self.channel.step(event, Instant(self.now)):
            self.effects.append(effect)
            if isinstance(effect, FrameOut):
                self.out.append(effect.frame)

    def send(self, message: bytes, *, control: bool = False) -> None:
        self.step(SendMessage(message, control))

    @property
    def closed(self) -> str | None:
        reasons = [effect.reason for effect in self.effects if isinstance(effect, Closed)]
        assert len(reasons) <= 1
        return reasons[0] if reasons else None

    @property
    def established(self) -> list[Established]:
        return [effect for effect in self.effects if isinstance(effect, Established)]

    @property
    def delivered(self) -> list[bytes]:
        return [effect.message for effect in self.effects if isinstance(effect, Deliver)]


def make(**options: object) -> tuple[Side, Side]:
    return Side(1, initiator=True, **options), Side(2, initiator=False, **options)  # type: ignore[arg-type]


def open_both(one: Side, two: Side) -> None:
    two.step(Opened())
    one.step(Opened())


def settle(one: Side, two: Side) -> None:
    """Carry frames until nothing moves."""
    while True:
        moved = False
        for source, target in ((one, two), (two, one)):
            source.step(Writable())
            while source.out:
                target.step(FrameIn(source.out.popleft()))
                moved = True
        if not moved:
            return


def connected() -> tuple[Side, Side]:
    one, two = make()
    open_both(one, two)
    settle(one, two)
    assert one.channel.state is two.channel.state is State.OPEN
    return one, two


# --- the handshake --------------------------------------------------------------------------


def test_both_sides_learn_key_chain_and_boot() -> None:
    """``Established`` comes once on each side, with what the other proved, and one binding."""
    one, two = connected()
    for own, other in ((one, two), (two, one)):
        (event,) = own.established
        assert event.peer == other.keys.device == own.channel.peer
        assert event.chain == other.keys.chain
        assert event.hello.boot == other.keys.boot
        assert own.channel.version == 1
        assert own.closed is None
    assert one.channel.binding == two.channel.binding != b""


def test_the_table_is_what_happens() -> None:
    """Each handshake step moves along ``TRANSITIONS``, and every state can end."""
    one, two = make()
    seen = [(one.channel.state, two.channel.state)]
    open_both(one, two)
    seen.append((one.channel.state, two.channel.state))
    for source, target in ((one, two), (two, one), (one, two), (two, one)):
        target.step(FrameIn(source.out.popleft()))
        seen.append((one.channel.state, two.channel.state))
    assert seen == [
        (State.IDLE, State.IDLE),
        (State.GREETING, State.LISTENING),
        (State.GREETING, State.ASKING),
        (State.PROVING, State.ASKING),
        (State.PROVING, State.OPEN),
        (State.OPEN, State.OPEN),
    ]
    for state, moves in TRANSITIONS.items():
        assert (Move.END in moves) == (state is not State.CLOSED)


def test_nothing_is_delivered_or_sent_before_the_proofs() -> None:
    """Until ``Established`` no message fits, and ``Writable`` yields no frame."""
    one, two = make()
    open_both(one, two)
    for side in (one, two):
        assert not side.channel.fits(1, control=True)
        with pytest.raises(LocalProtocolError):
            side.send(b"early")
        before = len(side.out)
        side.step(Writable())
        assert len(side.out) == before
    two.step(FrameIn(one.out.popleft()))
    one.step(FrameIn(two.out.popleft()))
    assert not one.channel.fits(1, control=True)  # its proof is out, the peer's is not in
    assert one.established == []


def test_message_2_shows_nobodys_identity() -> None:
    """The responder's second message is exactly keys and tags: a prober learns no key."""
    one, two = make()
    open_both(one, two)
    two.step(FrameIn(one.out.popleft()))
    assert len(two.out[0]) == 32 + 48 + 16


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_every_flipped_byte_of_every_handshake_frame_prevents_the_channel(number: int) -> None:
    """No edit of any byte of messages 1 to 3 or of the responder's proof gets through."""
    size = len(_handshake_frame(number)[0])
    for at in range(size):
        frame, source, target = _handshake_frame(number)
        broken = frame[:at] + bytes([frame[at] ^ 0x40]) + frame[at + 1 :]
        target.step(FrameIn(broken))
        while target.out:
            source.step(FrameIn(target.out.popleft()))
        assert target.closed or source.closed
        assert target.established == []
        assert target.delivered == source.delivered == []


@pytest.mark.parametrize("number", [0, 1, 2, 3])
@pytest.mark.parametrize("frame", [b"", b"\0", bytes(64), bytes(65_535), bytes(65_536)], ids=len)
def test_empty_and_senseless_frames_end_the_handshake(number: int, frame: bytes) -> None:
    """Whatever bytes come instead of the due frame, there is no channel and no exception."""
    _, source, target = _handshake_frame(number)
    target.step(FrameIn(frame))
    while target.out:
        source.step(FrameIn(target.out.popleft()))
    assert target.closed or source.closed
    assert target.established == []


def _handshake_frame(number: int) -> tuple[bytes, Side, Side]:
    """The handshake frame ``number``, who sent it and who is due to read it."""
    one, two = make()
    open_both(one, two)
    sides = [(one, two), (two, one), (one, two), (two, one)]
    for source, target in sides[:number]:
        target.step(FrameIn(source.out.popleft()))
    source, target = sides[number]
    return source.out.popleft(), source, target


@pytest.mark.parametrize("victim_starts", [True, False])
def test_messages_1_and_2_carry_no_payload(victim_starts: bool) -> None:
    """Words slipped in before anybody is known are refused, not ignored."""
    victim = Side(1, initiator=victim_starts)
    noise = HandshakeState(
        initiator=not victim_starts,
        prologue=PROLOGUE + NETWORK,
        static=identity(7).static,
        entropy=Counting(31),
    )
    victim.step(Opened())
    if victim_starts:
        noise.read(victim.out.popleft())
    victim.step(FrameIn(noise.write(b"words")))
    assert victim.closed == "a payload where none belongs"
    assert not victim.out


def test_another_network_is_no_peer() -> None:
    """The prologue holds the network id: a foreign node fails before anybody shows itself."""
    one = Side(1, initiator=True)
    two = Side(2, initiator=False, network=bytes(32))
    open_both(one, two)
    settle(one, two)
    assert one.closed == "a tag that does not hold"
    assert one.established == two.established == []
    assert two.channel.peer is None


def test_a_replayed_handshake_reaches_nothing() -> None:
    """Recorded frames of a good handshake, played to a fresh responder, prove nothing."""
    one, two = make()
    open_both(one, two)
    first = one.out[0]
    two.step(FrameIn(one.out.popleft()))
    one.step(FrameIn(two.out.popleft()))
    third = one.out.popleft()
    fresh = Side(2, initiator=False, keys=two.keys, entropy=5_555)
    fresh.step(Opened())
    fresh.step(FrameIn(first))
    fresh.step(FrameIn(third))
    assert fresh.closed == "a tag that does not hold"
    assert fresh.established == []


def test_a_stranger_is_refused_and_told_nothing() -> None:
    """A refused credential closes the channel without a frame: no oracle for probers."""

    def refuse(device: bytes, chain: tuple[bytes, ...]) -> None:
        raise CredentialError("unknown root")

    one = Side(1, initiator=True)
    two = Side(2, initiator=False, authenticate=refuse)
    open_both(one, two)
    two.step(FrameIn(one.out.popleft()))
    one.step(FrameIn(two.out.popleft()))
    two.step(FrameIn(one.out.popleft()))
    assert two.closed == "credential refused"
    assert not two.out
    assert two.established == []


def test_an_unexpected_peer_is_refused_before_its_credential_is_looked_at() -> None:
    """The proven key is compared with the dialled one (GHSA-rch7-f4h5-x9rj)."""

    def never(device: bytes, chain: tuple[bytes, ...]) -> None:
        raise AssertionError

    one = Side(1, initiator=True, expected=identity(3).device, authenticate=never)
    two = Side(2, initiator=False)
    open_both(one, two)
    settle(one, two)
    assert one.closed == "another peer than expected"
    good = Side(1, initiator=True, expected=identity(2).device)
    open_both(good, two := Side(2, initiator=False))
    settle(good, two)
    assert good.channel.state is State.OPEN


def test_a_node_does_not_talk_to_itself_nor_to_its_twin() -> None:
    """The own Noise key is ``self``; the own device key from another boot is a clone."""
    keys = identity(1)
    one, two = Side(1, initiator=True, keys=keys), Side(1, initiator=False, keys=keys, entropy=9)
    open_both(one, two)
    settle(one, two)
    assert one.closed == "self"
    assert one.channel.peer == keys.device
    clone = Side(1, initiator=False, keys=identity(1, boot=500))
    one = Side(1, initiator=True)
    open_both(one, clone)
    settle(one, clone)
    assert clone.closed == "twin of this device"


# --- a peer that can do Noise but lies in its proof --------------------------------------------

ProofMaker = Callable[[bytes, bytes, ChannelIdentity, Role], bytes]


def _hello(keys: ChannelIdentity, role: Role, **changes: object) -> Hello:
    fields = {
        "versions": (1,),
        "role": role,
        "device": keys.device,
        "chain": keys.chain,
        "boot": keys.boot,
        "limits": Limits(FRAME_BYTES_MAX),
    }
    return Hello(**(fields | changes))  # type: ignore[arg-type]


def _sign(keys: ChannelIdentity, transcript: bytes, static: bytes, hello: bytes) -> bytes:
    return codec.encode(Proof(hello, keys.sign(PROOF_PREFIX + transcript + static + hello)))


def lie(victim: Side, proof: ProofMaker) -> CipherState | None:
    """Play an outsider with the victim's network id and a proof of its own making."""
    keys = identity(7)
    initiator = victim.channel.state is State.IDLE and not victim.channel._initiator
    noise = HandshakeState(
        initiator=initiator, prologue=PROLOGUE + NETWORK, static=keys.static, entropy=Counting(31)
    )
    victim.step(Opened())
    if initiator:
        victim.step(FrameIn(noise.write()))
        noise.read(victim.out.popleft())
        head = noise.write_keys()
        payload = proof(noise.hash, keys.static.public, keys, Role.INITIATOR)
        victim.step(FrameIn(head + noise.write_payload(payload)))
        return noise.split()[0] if victim.closed is None else None
    noise.read(victim.out.popleft())
    victim.step(FrameIn(noise.write()))
    noise.read(victim.out.popleft())
    send, _ = noise.split()
    payload = proof(noise.hash, keys.static.public, keys, Role.RESPONDER)
    victim.step(FrameIn(send.encrypt(b"", payload)))
    return send


def honest(transcript: bytes, static: bytes, keys: ChannelIdentity, role: Role) -> bytes:
    return _sign(keys, transcript, static, codec.encode(_hello(keys, role)))


def _swapped(transcript: bytes, static: bytes, keys: ChannelIdentity, role: Role) -> bytes:
    other = identity(8)
    hello = codec.encode(_hello(keys, role))
    return codec.encode(Proof(hello, other.sign(PROOF_PREFIX + transcript + static + hello)))


def _claimed(transcript: bytes, static: bytes, keys: ChannelIdentity, role: Role) -> bytes:
    return _sign(keys, transcript, static, codec.encode(_hello(identity(8), role)))


def _zero_signature(transcript: bytes, static: bytes, keys: ChannelIdentity, role: Role) -> bytes:
    return codec.encode(Proof(codec.encode(_hello(keys, role)), bytes(64)))


def _other_transcript(t: bytes, static: bytes, keys: ChannelIdentity, role: Role) -> bytes:
    return honest(bytes(32), static, keys, role)


def _other_static(t: bytes, static: bytes, keys: ChannelIdentity, role: Role) -> bytes:
    return honest(t, KeyPair(bytes([5]) * 32).public, keys, role)


def _turned_round(t: bytes, static: bytes, keys: ChannelIdentity, role: Role) -> bytes:
    return honest(t, static, keys, Role(3 - role))


def _not_canonical(t: bytes, static: bytes, keys: ChannelIdentity, role: Role) -> bytes:
    hello = codec.encode(_hello(keys, role))
    assert hello[1:3] == b"\x81\x01"
    return _sign(keys, t, static, hello[:1] + b"\x81\x18\x01" + hello[3:])  # 1 as two bytes


def _trailing(t: bytes, static: bytes, keys: ChannelIdentity, role: Role) -> bytes:
    return honest(t, static, keys, role) + b"\0"


def _offer(*versions: int) -> ProofMaker:
    return lambda t, static, keys, role: _sign(
        keys, t, static, codec.encode(_hello(keys, role, versions=versions))
    )


def _long_chain(t: bytes, static: bytes, keys: ChannelIdentity, role: Role) -> bytes:
    return _sign(keys, t, static, codec.encode(_hello(keys, role, chain=(b"x",) * 4)))


def _small_limits(t: bytes, static: bytes, keys: ChannelIdentity, role: Role) -> bytes:
    return _sign(keys, t, static, codec.encode(_hello(keys, role, limits=Limits(10))))


def _empty(t: bytes, static: bytes, keys: ChannelIdentity, role: Role) -> bytes:
    return b""


def _huge(t: bytes, static: bytes, keys: ChannelIdentity, role: Role) -> bytes:
    return bytes(60_000)


LIES = [
    (_swapped, "a proof of identity that does not hold"),
    (_claimed, "a proof of identity that does not hold"),
    (_zero_signature, "a proof of identity that does not hold"),
    (_other_transcript, "a proof of identity that does not hold"),
    (_other_static, "a proof of identity that does not hold"),
    (_turned_round, "a proof in the wrong role"),
    (_not_canonical, "refused CBOR"),
    (_trailing, ""),
    (_offer(2, 3), "no common version"),
    (_offer(2, 1), "an offer that is not in order"),
    (_offer(1, 1), "an offer that is not in order"),
    (_offer(), "Hello"),
    (_offer(0, 1), "Hello"),
    (_long_chain, "Hello"),
    (_small_limits, "Hello"),
    (_empty, ""),
    (_huge, "60000 bytes"),
]


@pytest.mark.parametrize("victim_starts", [True, False])
@pytest.mark.parametrize(("maker", "reason"), LIES)
def test_a_false_proof_never_establishes(
    maker: ProofMaker, reason: str, victim_starts: bool
) -> None:
    """Swapped, empty, replayed, turned, reordered or misspelt: refused in both directions."""
    victim = Side(1, initiator=victim_starts)
    lie(victim, maker)
    assert victim.closed is not None
    assert reason in victim.closed
    assert victim.established == []


@pytest.mark.parametrize("victim_starts", [True, False])
def test_the_same_player_with_an_honest_proof_gets_in(victim_starts: bool) -> None:
    """The lies above fail for their lie alone."""
    victim = Side(1, initiator=victim_starts)
    lie(victim, honest)
    assert victim.closed is None
    assert len(victim.established) == 1


@pytest.mark.parametrize("victim_starts", [True, False])
def test_each_byte_of_the_signed_offer_is_covered(victim_starts: bool) -> None:
    """Editing any byte of the hello after signing is noticed (downgrade, threats row 17)."""
    keys = identity(7)
    size = len(codec.encode(_hello(keys, Role.INITIATOR)))
    for at in range(size):

        def edited(
            t: bytes, static: bytes, keys: ChannelIdentity, role: Role, at: int = at
        ) -> bytes:
            hello = bytearray(codec.encode(_hello(keys, role)))
            signature = keys.sign(PROOF_PREFIX + t + static + hello)
            hello[at] ^= 0x01
            return codec.encode(Proof(bytes(hello), signature))

        victim = Side(1, initiator=victim_starts)
        lie(victim, edited)
        assert victim.closed is not None, at
        assert victim.established == []


def test_the_highest_common_version_counts_and_the_floor_holds() -> None:
    """A longer offer is fine; a network that pinned a higher floor refuses version 1."""
    victim = Side(1, initiator=False)
    lie(victim, _offer(1, 2, 9))
    assert victim.channel.version == 1
    strict = Side(1, initiator=False, version_min=2)
    lie(strict, _offer(1, 2))
    assert strict.closed == "no common version"


# --- messages -------------------------------------------------------------------------------


def test_messages_arrive_whole_in_order_control_first() -> None:
    """Lanes keep their own order; control overtakes bulk, even between parts of one message."""
    one, two = connected()
    large = bytes(range(256)) * (FRAME_BYTES_MAX // 256)
    one.send(large)
    one.send(b"bulk 2")
    one.step(Writable())
    one.send(b"ping", control=True)
    settle(one, two)
    assert two.delivered == [b"ping", large, b"bulk 2"]


def test_small_messages_share_frames_of_about_32_kb() -> None:
    """1,000 messages of 100 bytes leave in four frames."""
    one, two = connected()
    for number in range(1_000):
        one.send(b"%04d" % number * 25)
    frames = 0
    while one.channel.pending:
        one.step(Writable())
        frames += 1
        assert len(one.out[-1]) <= 32 * 1024 + 16 + 3
    assert frames == 4
    settle(one, two)
    assert two.delivered == [b"%04d" % number * 25 for number in range(1_000)]


def test_control_cannot_starve_bulk() -> None:
    """While both lanes wait, a quarter of each frame belongs to the bulk lane."""
    one, two = connected()
    one.send(b"b" * 4_000)
    for _ in range(200):
        one.send(b"c" * 1_000, control=True)
    one.step(Writable())
    two.step(FrameIn(one.out.popleft()))
    assert b"b" * 4_000 in two.delivered


def test_queues_are_bounded_and_sizes_checked() -> None:
    """A full lane, an empty or an overlong message: ``fits`` says no, ``step`` refuses."""
    one, _ = connected()
    for control, most in ((False, 1024 * 1024), (True, 256 * 1024)):
        queued = 0
        while one.channel.fits(10_000, control=control):
            one.send(bytes(10_000), control=control)
            queued += 10_000
        assert most - 20_000 < queued <= most
        with pytest.raises(LocalProtocolError):
            one.send(bytes(10_000), control=control)
    assert not one.channel.fits(0, control=True)
    other, _ = connected()
    assert other.channel.fits(FRAME_BYTES_MAX, control=True)
    assert not other.channel.fits(FRAME_BYTES_MAX + 1, control=False)
    assert other.channel.state is State.OPEN


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 60_000), st.booleans(), st.booleans()), min_size=1, max_size=12
    )
)
def test_any_mix_of_messages_survives(plan: list[tuple[int, bool, bool]]) -> None:
    """Whatever sizes, lanes and pauses: each lane arrives complete and in order."""
    one, two = connected()
    sent: dict[bool, list[bytes]] = {True: [], False: []}
    for number, (size, control, pause) in enumerate(plan):
        message = (b"C" if control else b"B") + number.to_bytes(2, "big") + bytes(size)
        if one.channel.fits(len(message), control=control):
            one.send(message, control=control)
            sent[control].append(message)
        if pause:
            one.step(Writable())
    settle(one, two)
    assert [m for m in two.delivered if m[:1] == b"C"] == sent[True]
    assert [m for m in two.delivered if m[:1] == b"B"] == sent[False]
    assert two.closed is None


def test_replayed_reordered_or_changed_frames_end_the_channel() -> None:
    """Each direction counts: nothing old, early or edited is ever delivered."""
    for attack in ("replay", "reorder", "edit"):
        one, two = connected()
        for text in (b"one", b"two"):
            one.send(text)
            one.step(Writable())
        first, second = one.out
        frames = {
            "replay": [first, first],
            "reorder": [second],
            "edit": [first[:-1] + bytes([first[-1] ^ 1])],
        }[attack]
        for frame in frames:
            two.step(FrameIn(frame))
        assert two.closed == "a tag that does not hold"
        assert two.delivered == ([b"one"] if attack == "replay" else [])


BAD_FRAMES = [
    (b"", "an empty frame"),
    (b"\0\0", "cut off"),
    (b"\0\0\5abc", "longer than its frame"),
    (write_chunk(7, b""), "unknown kind"),
    (write_chunk(255, b"x"), "unknown kind"),
    (write_chunk(Kind.BULK, b""), "wrong size"),
    (write_chunk(Kind.CTRL + 1, b""), "wrong size"),
    (write_chunk(Kind.ALIVE, b"x"), "wrong size"),
    (write_chunk(Kind.REKEY, b"") + write_chunk(Kind.ALIVE, b""), "behind the last"),
    (write_chunk(Kind.BYE, b"x") + write_chunk(Kind.ALIVE, b""), "behind the last"),
    (write_chunk(Kind.BYE, b"<script>"), "not plain"),
    (write_chunk(Kind.BYE, b"\xff"), "not plain"),
    (write_chunk(Kind.BYE, b"a" * 49), "not plain"),
]


def _speak(victim: Side) -> CipherState:
    send = lie(victim, honest)
    assert send is not None
    return send


@pytest.mark.parametrize(("plaintext", "reason"), BAD_FRAMES)
def test_malformed_chunks_of_a_member_end_the_channel(plaintext: bytes, reason: str) -> None:
    """Even an authenticated peer has one spelling; the parting word says what was wrong."""
    victim = Side(1, initiator=True)
    send = _speak(victim)
    victim.step(FrameIn(send.encrypt(b"", plaintext)))
    assert victim.closed is not None
    assert reason in victim.closed
    assert victim.delivered == []
    assert victim.channel.deadline is None


def test_a_message_without_end_is_cut_at_the_limit() -> None:
    """Parts are bounded in bytes and in number, per lane."""
    victim = Side(1, initiator=True)
    send = _speak(victim)
    for _ in range(5):
        victim.step(FrameIn(send.encrypt(b"", write_chunk(Kind.BULK + 1, bytes(60_000)))))
    assert victim.closed == "a message longer than this side takes"
    victim = Side(1, initiator=True)
    send = _speak(victim)
    victim.step(FrameIn(send.encrypt(b"", write_chunk(Kind.BULK + 1, b"x") * 600)))
    assert victim.closed == "a message in too many parts"


# --- time, keys, the end -----------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_a_handshake_that_stalls_ends_at_its_deadline(number: int) -> None:
    """Five seconds from the start, at whatever step, and not before."""
    _, _, target = _handshake_frame(number)
    assert target.channel.deadline == HANDSHAKE_MS_MAX
    target.now = HANDSHAKE_MS_MAX - 1
    target.step(DeadlineReached())
    assert target.closed is None
    target.now = HANDSHAKE_MS_MAX
    target.step(DeadlineReached())
    assert target.closed == "handshake timeout"


def test_idle_channels_live_and_silent_ones_end() -> None:
    """A sign of life each 5 s keeps both ends up; 15 s without one end the channel."""
    one, two = connected()
    for _ in range(8):
        for side in (one, two):
            side.now += 5_000
            side.step(DeadlineReached())
            assert side.channel.pending
        settle(one, two)
    assert one.closed is two.closed is None
    one.now += PEER_SILENT_MS - 1
    one.step(DeadlineReached())
    assert one.closed is None
    one.now += 1
    one.step(DeadlineReached())
    assert one.closed == "silent"
    assert one.delivered == []


def test_a_blocked_writer_piles_up_no_signs_of_life() -> None:
    """However long nothing can be written, at most one sign of life waits."""
    one, _ = connected()
    for _ in range(100):
        one.now += 5_000
        one.channel._heard_at = Instant(one.now)  # the peer goes on talking
        one.step(DeadlineReached())
    assert not one.out
    one.step(Writable())
    one.step(Writable())
    assert len(one.out) == 1


def test_keys_change_with_time_and_with_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """After 10 minutes, or the given number of frames, the sender's key is another one."""
    one, two = connected()
    key = one.channel._send._key
    for side in (one, two):
        side.now = REKEY_MS
    for text in (b"before", b"after"):
        one.send(text)
        settle(one, two)
    assert one.channel._send._key != key
    assert one.channel._send._key == two.channel._receive._key
    assert two.delivered == [b"before", b"after"]
    monkeypatch.setattr(module, "REKEY_FRAMES", 8)
    one, two = connected()
    keys = set()
    for number in range(40):
        for source, target in ((one, two), (two, one)):
            source.send(b"%d" % number)
            source.step(Writable())
            target.step(FrameIn(source.out.popleft()))
        keys.add(one.channel._send._key)
    assert one.closed is two.closed is None
    assert len(two.delivered) == len(one.delivered) == 40
    assert len(keys) == 6


def test_a_peer_that_never_changes_its_key_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The receiver counts too."""
    monkeypatch.setattr(module, "REKEY_FRAMES", 8)
    victim = Side(1, initiator=True)
    send = _speak(victim)
    for _ in range(9):
        victim.step(FrameIn(send.encrypt(b"", write_chunk(Kind.ALIVE, b""))))
    assert victim.closed == "a key used for too long"


def test_closing_tells_the_peer_why_in_plain_words() -> None:
    """Our reason stays as given; the peer hears a bounded, harmless spelling of it."""
    one, two = connected()
    one.send(b"never sent")
    one.step(CloseAsked("Gone: <b>für heute</b>, " + "x" * 100))
    two.step(FrameIn(one.out.popleft()))
    assert one.closed is not None
    assert one.closed.startswith("Gone: <b>")
    assert two.closed == "peer: gone- -b-f-r heute--b-- xxxxxxxxxxxxxxxxxxxxxxxx"
    assert one.channel.step(FrameIn(b"x"), Instant(0)) == ()
    assert one.channel.step(CloseAsked("again"), Instant(0)) == ()
    assert not one.channel.fits(1, control=True)


def test_a_channel_is_opened_once() -> None:
    """A second ``Opened`` is our shell's fault and changes nothing."""
    one, two = make()
    open_both(one, two)
    with pytest.raises(LocalProtocolError):
        one.step(Opened())
    settle(one, two)
    assert one.channel.state is State.OPEN
    unopened = Side(3, initiator=False)
    unopened.step(FrameIn(bytes(32)))
    assert unopened.closed == "a frame before the channel was opened"


def test_an_identity_too_large_for_a_handshake_is_refused_at_home() -> None:
    """Better at start than at every peer."""
    with pytest.raises(LocalProtocolError, match="too long"):
        make_identity(
            device=bytes(32), sign=lambda message: bytes(64), chain=(b"x",) * 4, entropy=Counting(1)
        )


def test_no_repr_shows_keys_credentials_or_messages() -> None:
    """Identifiers may be logged, contents may not."""
    one, two = connected()
    shown = repr(one.keys) + repr(two.established) + repr(Deliver(b"diagnosis"))
    shown += repr(SendMessage(b"diagnosis")) + repr(FrameIn(b"diagnosis"))
    for secret in ("diagnosis", "county says", one.keys.static.secret.hex()):
        assert secret not in shown


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(max_size=200), max_size=6), st.booleans())
def test_no_bytes_make_step_raise(frames: list[bytes], initiator: bool) -> None:
    """Fuzz before authentication: a channel ends or waits, it never raises."""
    side = Side(1, initiator=initiator)
    side.step(Opened())
    for frame in frames:
        side.step(FrameIn(frame))
    assert side.established == []


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=80), max_size=6))
def test_no_plaintext_of_a_member_makes_step_raise(plaintexts: list[bytes]) -> None:
    """Fuzz behind authentication: every plaintext is delivered, ignored or ends the channel."""
    victim = Side(1, initiator=True)
    send = _speak(victim)
    for plaintext in plaintexts:
        victim.step(FrameIn(send.encrypt(b"", plaintext)))
    assert all(len(message) > 0 for message in victim.delivered)
