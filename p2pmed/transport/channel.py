"""One authenticated channel: Noise XX, a proof of identity, then messages in two lanes.

Theory of operation. Two strangers run ``Noise_XX`` with keys made fresh at each boot; the
prologue is ``p2pmed/1`` and the network id, so a node of another network fails at the
first tag. Then each proves who it is: the initiator in the payload of message 3, the
responder in its first transport frame, because message 2 would show its identity to anyone
who asks. A proof is a ``Hello`` and an Ed25519 signature by the device key over

    "p2pmed-noise-v1:" || handshake hash || own Noise static key || hello

The hash ties it to this handshake (no replay), the static key to this channel (no relay),
the bytes of the hello to the whole offer (no downgrade). The hash is the one before the
payload for the initiator and the final one for the responder, and the hello names the role,
so neither can be turned into the other.

Rules:

* nothing is delivered and no message is sent before the peer's proof holds;
* whatever a peer does wrong ends in ``Closed``, never in an exception of ``step``;
* frames leave in the order of ``FrameOut``: their counters depend on it;
* data leaves only at ``Writable``, one frame each, so that whatever was queued meanwhile
  shares it and a slow reader is felt at once.

Implements: networking notes, section 4.2; threats rows 1, 15 to 17 and 21.
Byte-exact: ``docs/protocols/channel.md``.
Not here: sockets, WebSocket, which of two channels to one peer survives (``aio/links.py``),
whether a credential holds (``authenticate`` is handed in).
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Final

from p2pmed.engine import DeadlineReached, Entropy, Instant, earliest
from p2pmed.errors import (
    CredentialError,
    InvariantError,
    LocalProtocolError,
    RemoteProtocolError,
)
from p2pmed.limits import (
    FRAME_BYTES_MAX,
    HANDSHAKE_MS_MAX,
    NOISE_FRAME_BYTES_MAX,
    PEER_SILENT_MS,
)
from p2pmed.transport.events import (
    ChannelEffect,
    ChannelEvent,
    CloseAsked,
    Closed,
    Deliver,
    Established,
    FrameIn,
    FrameOut,
    SendMessage,
    Writable,
)
from p2pmed.transport.lanes import Assembly, Outbound
from p2pmed.transport.messages import (
    MORE,
    Hello,
    Kind,
    Role,
    parse_chunks,
    read_reason,
    spell_reason,
    write_chunk,
)
from p2pmed.transport.noise import CipherState, HandshakeState
from p2pmed.transport.proof import (
    VERSIONS,
    ChannelIdentity,
    Refused,
    agree_version,
    make_proof,
    open_proof,
)

__all__ = ["PROLOGUE", "REKEY_FRAMES", "REKEY_MS", "TRANSITIONS", "Channel", "Move", "State"]

PROLOGUE: Final = b"p2pmed/1"
REKEY_FRAMES: Final = 2**20
REKEY_MS: Final = 10 * 60_000
"""Whichever comes first, per direction, by the sender's judgement (networking notes, 4.2)."""

ALIVE_MS: Final = 5_000
"""Own sign of life when nothing else was sent for so long."""

assert 2 * ALIVE_MS < PEER_SILENT_MS
assert HANDSHAKE_MS_MAX < PEER_SILENT_MS


class State(Enum):
    """Where a channel stands."""

    IDLE = "idle"
    GREETING = "greeting"
    """Initiator: message 1 is out."""
    PROVING = "proving"
    """Initiator: message 3 with our proof is out, the peer's proof is due."""
    LISTENING = "listening"
    """Responder: message 1 is due."""
    ASKING = "asking"
    """Responder: message 2 is out, message 3 with the peer's proof is due."""
    OPEN = "open"
    CLOSED = "closed"


class Move(Enum):
    """What moves a channel on."""

    DIAL = "dial"
    ACCEPT = "accept"
    MESSAGE_1 = "message 1"
    MESSAGE_2 = "message 2"
    PROOF = "proof"
    FRAME = "frame"
    END = "end"


TRANSITIONS: Final[Mapping[State, Mapping[Move, State]]] = {
    State.IDLE: {
        Move.DIAL: State.GREETING,
        Move.ACCEPT: State.LISTENING,
        Move.END: State.CLOSED,
    },
    State.GREETING: {Move.MESSAGE_2: State.PROVING, Move.END: State.CLOSED},
    State.PROVING: {Move.PROOF: State.OPEN, Move.END: State.CLOSED},
    State.LISTENING: {Move.MESSAGE_1: State.ASKING, Move.END: State.CLOSED},
    State.ASKING: {Move.PROOF: State.OPEN, Move.END: State.CLOSED},
    State.OPEN: {Move.FRAME: State.OPEN, Move.END: State.CLOSED},
    State.CLOSED: {},
}


class Channel:
    """The core of one connection; see the module's docstring."""

    def __init__(
        self,
        *,
        network_id: bytes,
        keys: ChannelIdentity,
        authenticate: Callable[[bytes, tuple[bytes, ...]], None],
        expected_peer: bytes | None,
        entropy: Entropy,
        now: Instant,
        initiator: bool,
        version_min: int = VERSIONS[0],
    ) -> None:
        """``authenticate(device_key, chain)`` raises ``CredentialError`` for a stranger.

        ``expected_peer`` is the device key that must answer, ``None`` for any that
        authenticates; ``version_min`` is the floor pinned by the network's configuration.
        """
        self._keys = keys
        self._authenticate = authenticate
        self._expected = expected_peer
        self._initiator = initiator
        self._version_min = version_min
        self._noise = HandshakeState(
            initiator=initiator,
            prologue=PROLOGUE + network_id,
            static=keys.static,
            entropy=entropy,
        )
        self._state = State.IDLE
        self._handshake_until = Instant(now + HANDSHAKE_MS_MAX)
        self._send = CipherState(None)
        self._receive = CipherState(None)
        self._out = Outbound()
        self._lanes = {Kind.BULK: Assembly(), Kind.CTRL: Assembly()}
        self._message_bytes_max = FRAME_BYTES_MAX
        self._version = 0
        self._binding = b""
        self._peer: bytes | None = None
        self._alive_due = False
        self._heard_at = self._said_at = self._rekeyed_at = now
        self._frames_sent = self._frames_received = 0

    # --- what may be asked ------------------------------------------------------------------

    @property
    def state(self) -> State:
        """Where the channel stands."""
        return self._state

    @property
    def peer(self) -> bytes | None:
        """The key that the other side has proved, whether or not it was then let in."""
        return self._peer

    @property
    def version(self) -> int:
        """The agreed channel version; 0 before there is one."""
        return self._version

    @property
    def binding(self) -> bytes:
        """The final handshake hash: the same on both sides, and on no other channel."""
        return self._binding

    @property
    def heard_at(self) -> Instant:
        """When the last valid frame came."""
        return self._heard_at

    @property
    def pending(self) -> bool:
        """Whether ``Writable`` would yield a frame."""
        return self._state is State.OPEN and (bool(self._out) or self._alive_due)

    @property
    def deadline(self) -> Instant | None:
        """The end of the handshake's time, then the next sign of life, ours or the peer's."""
        if self._state is State.CLOSED:
            return None
        if self._state is not State.OPEN:
            return self._handshake_until
        silent = Instant(self._heard_at + PEER_SILENT_MS)
        alive = None if self._alive_due else Instant(self._said_at + ALIVE_MS)
        return earliest(silent, alive)

    def fits(self, size: int, *, control: bool) -> bool:
        """Whether ``SendMessage`` of ``size`` bytes would be taken now."""
        return (
            self._state is State.OPEN
            and 0 < size <= self._message_bytes_max
            and self._out.fits(size, control=control)
        )

    # --- the one way in ---------------------------------------------------------------------

    def step(self, event: ChannelEvent, now: Instant) -> Sequence[ChannelEffect]:
        """Take one event; return effects, to be carried out in this order.

        Raises ``LocalProtocolError`` for a ``SendMessage`` that does not fit and for
        ``Opened`` twice; the state is unchanged. After ``Closed`` every event is ignored.
        """
        if self._state is State.CLOSED:
            return ()
        effects: list[ChannelEffect] = []
        try:
            if isinstance(event, FrameIn):
                self._on_frame(event.frame, now, effects)
            elif isinstance(event, SendMessage):
                self._on_send(event)
            elif isinstance(event, Writable):
                self._on_writable(now, effects)
            elif isinstance(event, DeadlineReached):
                self._on_deadline(now)
            elif isinstance(event, CloseAsked):
                self._part(event.reason, now, effects)
            else:
                self._on_opened(effects)
        except RemoteProtocolError as fault:
            self._part(str(fault), now, effects)
        return effects

    def _move(self, move: Move) -> None:
        self._state = TRANSITIONS[self._state][move]

    # --- events -----------------------------------------------------------------------------

    def _on_opened(self, effects: list[ChannelEffect]) -> None:
        if self._state is not State.IDLE:
            raise LocalProtocolError("a channel is opened once")
        if self._initiator:
            effects.append(FrameOut(self._noise.write()))
            self._move(Move.DIAL)
        else:
            self._move(Move.ACCEPT)

    def _on_send(self, event: SendMessage) -> None:
        if not self.fits(len(event.message), control=event.control):
            raise LocalProtocolError("the message does not fit: not open, too long, or queue full")
        self._out.push(event.message, control=event.control)

    def _on_writable(self, now: Instant, effects: list[ChannelEffect]) -> None:
        if not self.pending:
            return
        chunks = self._out.fill()
        if not chunks:
            chunks.append(write_chunk(Kind.ALIVE, b""))
        due = now - self._rekeyed_at >= REKEY_MS or self._frames_sent + 1 >= REKEY_FRAMES
        if due:
            chunks.append(write_chunk(Kind.REKEY, b""))
        self._seal(b"".join(chunks), now, effects)
        if due:
            self._send.rekey()
            self._frames_sent = 0
            self._rekeyed_at = now

    def _on_deadline(self, now: Instant) -> None:
        if self._state is not State.OPEN:
            if now >= self._handshake_until:
                raise Refused("handshake timeout")
            return
        if now - self._heard_at >= PEER_SILENT_MS:
            raise Refused("silent")
        if now - self._said_at >= ALIVE_MS:
            self._alive_due = True

    def _on_frame(self, frame: bytes, now: Instant, effects: list[ChannelEffect]) -> None:
        if not 0 < len(frame) <= NOISE_FRAME_BYTES_MAX:
            raise RemoteProtocolError("a frame of impossible size")
        if self._state is State.OPEN:
            self._on_transport(frame, now, effects)
        elif self._state is State.LISTENING:
            self._read_empty(frame)
            effects.append(FrameOut(self._noise.write()))
            self._move(Move.MESSAGE_1)
        elif self._state is State.GREETING:
            self._on_message_2(frame, effects)
        elif self._state is State.ASKING:
            self._on_message_3(frame, now, effects)
        elif self._state is State.PROVING:
            hello = self._check_proof(self._receive.decrypt(b"", frame), self._binding)
            self._establish(hello, now, effects)
        else:
            raise RemoteProtocolError("a frame before the channel was opened")

    # --- handshake --------------------------------------------------------------------------

    def _read_empty(self, frame: bytes) -> None:
        payload, _ = self._noise.read(frame)
        if payload:
            raise RemoteProtocolError("a payload where none belongs")

    def _on_message_2(self, frame: bytes, effects: list[ChannelEffect]) -> None:
        self._read_empty(frame)
        self._refuse_self()
        keys = self._noise.write_keys()
        proof = self._prove(self._noise.hash)
        effects.append(FrameOut(keys + self._noise.write_payload(proof)))
        self._split()
        self._move(Move.MESSAGE_2)

    def _on_message_3(self, frame: bytes, now: Instant, effects: list[ChannelEffect]) -> None:
        payload, before = self._noise.read(frame)
        self._refuse_self()
        hello = self._check_proof(payload, before)
        self._split()
        self._seal(self._prove(self._binding), now, effects)
        self._establish(hello, now, effects)

    def _refuse_self(self) -> None:
        """The Noise key of this boot is in this process alone, and its use was just proved."""
        if self._noise.remote_static == self._keys.static.public:
            self._peer = self._keys.device
            raise Refused("self")

    def _split(self) -> None:
        self._send, self._receive = self._noise.split()
        self._binding = self._noise.hash

    def _prove(self, transcript: bytes) -> bytes:
        role = Role.INITIATOR if self._initiator else Role.RESPONDER
        return make_proof(self._keys, role, transcript)

    def _check_proof(self, payload: bytes, transcript: bytes) -> Hello:
        """The peer's hello, if everything about it holds; signature before credential."""
        remote_static = self._noise.remote_static
        assert remote_static is not None  # read by now
        hello = open_proof(payload, transcript, remote_static)
        self._peer = hello.device
        if hello.role is (Role.INITIATOR if self._initiator else Role.RESPONDER):
            raise RemoteProtocolError("a proof in the wrong role")
        if hello.device == self._keys.device:
            raise Refused("self" if hello.boot == self._keys.boot else "twin of this device")
        if self._expected is not None and not hmac.compare_digest(self._expected, hello.device):
            raise Refused("another peer than expected")
        self._version = agree_version(hello, self._version_min)
        try:
            self._authenticate(hello.device, hello.chain)
        except CredentialError:
            raise Refused("credential refused") from None
        return hello

    def _establish(self, hello: Hello, now: Instant, effects: list[ChannelEffect]) -> None:
        self._move(Move.PROOF)
        self._message_bytes_max = min(FRAME_BYTES_MAX, hello.limits.message_bytes)
        self._heard_at = self._said_at = self._rekeyed_at = now
        effects.append(Established(hello.device, hello.chain, hello))

    # --- messages ---------------------------------------------------------------------------

    def _seal(self, plaintext: bytes, now: Instant, effects: list[ChannelEffect]) -> None:
        if not self._send.has_key:
            raise InvariantError("a frame would have left in the clear")
        effects.append(FrameOut(self._send.encrypt(b"", plaintext)))
        self._frames_sent += 1
        self._said_at = now
        self._alive_due = False

    def _on_transport(self, frame: bytes, now: Instant, effects: list[ChannelEffect]) -> None:
        if self._frames_received >= REKEY_FRAMES:
            raise RemoteProtocolError("a key used for too long")
        plaintext = self._receive.decrypt(b"", frame)
        self._frames_received += 1
        self._heard_at = now
        self._move(Move.FRAME)
        for chunk in parse_chunks(plaintext):
            if chunk.kind < Kind.ALIVE:
                more = bool(chunk.kind & MORE)
                lane = self._lanes[Kind(chunk.kind - more)]
                message = lane.add(chunk.body, more=more)
                if message is not None:
                    effects.append(Deliver(message))
            elif chunk.kind == Kind.REKEY:
                self._receive.rekey()
                self._frames_received = 0
            elif chunk.kind == Kind.BYE:
                self._end(f"peer: {read_reason(chunk.body)}", effects)
                return

    # --- the end ----------------------------------------------------------------------------

    def _part(self, reason: str, now: Instant, effects: list[ChannelEffect]) -> None:
        """Say goodbye where the peer is known, and end.

        Whoever has not proved itself hears nothing: a refusal would be an answer to a probe.
        """
        if self._state is State.OPEN:
            self._seal(write_chunk(Kind.BYE, spell_reason(reason).encode("ascii")), now, effects)
        self._end(reason, effects)

    def _end(self, reason: str, effects: list[ChannelEffect]) -> None:
        self._move(Move.END)
        self._out.clear()
        self._lanes = {}
        self._send = self._receive = CipherState(None)
        effects.append(Closed(reason))
