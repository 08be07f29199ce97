"""The Noise core against two independent implementations and against tampering."""

from __future__ import annotations

import json
import warnings
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from p2pmed.errors import LocalProtocolError, RemoteProtocolError
from p2pmed.limits import NOISE_FRAME_BYTES_MAX
from p2pmed.transport.noise import (
    NONCE_LAST,
    PLAINTEXT_BYTES_MAX,
    PROTOCOL_NAME,
    CipherState,
    HandshakeState,
    KeyPair,
)

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "noise_xx.json").read_text())


class Fixed:
    """Entropy that hands out one given secret."""

    def __init__(self, secret: bytes) -> None:
        self.secret = secret

    def token(self, size: int) -> bytes:
        assert size == len(self.secret)
        return self.secret


class Counting:
    """Entropy that never repeats."""

    def __init__(self, start: int = 1) -> None:
        self._next = count(start)

    def token(self, size: int) -> bytes:
        return next(self._next).to_bytes(size, "little")


def pair(prologue: bytes = b"net", start: int = 1) -> tuple[HandshakeState, HandshakeState]:
    entropy = Counting(start)
    first, second = (
        HandshakeState(
            initiator=initiator,
            prologue=prologue,
            static=KeyPair.generate(entropy),
            entropy=entropy,
        )
        for initiator in (True, False)
    )
    return first, second


@pytest.mark.parametrize("vector", VECTORS["vectors"])
def test_vectors_hold_byte_for_byte(vector: dict[str, Any]) -> None:
    """Every message of the frozen transcripts is reproduced and read back."""
    assert vector["protocol_name"].encode() == PROTOCOL_NAME
    sides = [
        HandshakeState(
            initiator=who == "init",
            prologue=bytes.fromhex(vector[f"{who}_prologue"]),
            static=KeyPair(bytes.fromhex(vector[f"{who}_static"])),
            entropy=Fixed(bytes.fromhex(vector[f"{who}_ephemeral"])),
        )
        for who in ("init", "resp")
    ]
    messages = [(bytes.fromhex(m["payload"]), m["ciphertext"]) for m in vector["messages"]]
    for index, (payload, expected) in enumerate(messages[:3]):
        message = sides[index % 2].write(payload)
        assert message.hex() == expected
        assert sides[1 - index % 2].read(message)[0] == payload
    assert sides[0].hash == sides[1].hash == bytes.fromhex(vector["handshake_hash"])
    ciphers = [side.split() for side in sides]
    for index, (payload, expected) in enumerate(messages[3:], start=3):
        sealed = ciphers[index % 2][0].encrypt(b"", payload)
        assert sealed.hex() == expected
        assert ciphers[1 - index % 2][1].decrypt(b"", sealed) == payload


@pytest.mark.parametrize("we_start", [True, False])
def test_live_handshake_with_noiseprotocol(we_start: bool) -> None:
    """PyPI noiseprotocol completes XX with us in both roles and reads our messages."""
    with warnings.catch_warnings():
        # Old package, old calls into cryptography; nothing of ours runs inside.
        warnings.simplefilter("ignore", DeprecationWarning)
        from noise.connection import Keypair, NoiseConnection

        theirs = NoiseConnection.from_name(PROTOCOL_NAME)
        if we_start:
            theirs.set_as_responder()
        else:
            theirs.set_as_initiator()
        theirs.set_prologue(b"p2pmed/1")
        theirs.set_keypair_from_private_bytes(Keypair.STATIC, bytes([9]) * 32)
        theirs.start_handshake()
        entropy = Counting(100)
        ours = HandshakeState(
            initiator=we_start,
            prologue=b"p2pmed/1",
            static=KeyPair.generate(entropy),
            entropy=entropy,
        )
        for turn, payload in enumerate((b"", b"", b"proof")):
            if (turn % 2 == 0) == we_start:
                assert theirs.read_message(ours.write(payload)) == payload
            else:
                assert ours.read(bytes(theirs.write_message(payload)))[0] == payload
        assert ours.remote_static == KeyPair(bytes([9]) * 32).public
        assert ours.hash == theirs.get_handshake_hash()
        send, receive = ours.split()
        for text in (b"", b"one", b"x" * PLAINTEXT_BYTES_MAX):
            assert theirs.decrypt(send.encrypt(b"", text)) == text
            assert receive.decrypt(b"", bytes(theirs.encrypt(text))) == text
        # REKEY, section 4.2: their object exposes it per direction.
        send.rekey()
        theirs.rekey_inbound_cipher()
        assert theirs.decrypt(send.encrypt(b"", b"after rekey")) == b"after rekey"


@pytest.mark.parametrize("we_start", [True, False])
def test_live_handshake_with_dissononce(we_start: bool) -> None:
    """A third implementation, dissononce, agrees as well."""
    pytest.importorskip("dissononce", reason="dissononce is not installed")
    from dissononce.cipher.chachapoly import ChaChaPolyCipher
    from dissononce.dh.x25519.x25519 import X25519DH
    from dissononce.hash.sha256 import SHA256Hash
    from dissononce.processing.handshakepatterns.interactive.XX import XXHandshakePattern
    from dissononce.processing.impl.cipherstate import CipherState as TheirCipher
    from dissononce.processing.impl.handshakestate import HandshakeState as TheirHandshake
    from dissononce.processing.impl.symmetricstate import SymmetricState as TheirSymmetric

    theirs = TheirHandshake(
        TheirSymmetric(TheirCipher(ChaChaPolyCipher()), SHA256Hash()), X25519DH()
    )
    static = X25519DH().generate_keypair()
    theirs.initialize(XXHandshakePattern(), not we_start, b"p2pmed/1", s=static)
    entropy = Counting(200)
    ours = HandshakeState(
        initiator=we_start, prologue=b"p2pmed/1", static=KeyPair.generate(entropy), entropy=entropy
    )
    ciphers = None
    for turn, payload in enumerate((b"", b"", b"proof")):
        buffer = bytearray()
        if (turn % 2 == 0) == we_start:
            ciphers = theirs.read_message(ours.write(payload), buffer) or ciphers
            assert bytes(buffer) == payload
        else:
            ciphers = theirs.write_message(payload, buffer) or ciphers
            assert ours.read(bytes(buffer))[0] == payload
    assert ciphers is not None
    send, receive = ours.split()
    to_them, to_us = ciphers if we_start else reversed(ciphers)
    assert to_them.decrypt_with_ad(b"", send.encrypt(b"", b"ping")) == b"ping"
    assert receive.decrypt(b"", bytes(to_us.encrypt_with_ad(b"", b"pong"))) == b"pong"


@pytest.mark.parametrize("turn", [0, 1, 2])
def test_every_flipped_byte_of_a_handshake_message_is_noticed(turn: int) -> None:
    """No byte of any of the three messages can be changed without the handshake failing."""
    first, _ = pair()
    size = len(_message(turn)[0])
    assert first.remote_static is None
    for at in range(size):
        message, reader, writer = _message(turn)
        broken = message[:at] + bytes([message[at] ^ 0x01]) + message[at + 1 :]
        with pytest.raises(RemoteProtocolError):  # noqa: PT012
            reader.read(broken)
            # A changed ephemeral shows at the first tag that depends on it; message 1 has none.
            writer.read(reader.write())


def _message(turn: int) -> tuple[bytes, HandshakeState, HandshakeState]:
    sides = pair()
    for index in range(turn):
        sides[1 - index % 2].read(sides[index % 2].write())
    return sides[turn % 2].write(), sides[1 - turn % 2], sides[turn % 2]


def test_a_failed_read_ends_the_handshake() -> None:
    """After one bad message the state refuses even a good one: no oracle, no second try."""
    message, reader, _ = _message(1)
    with pytest.raises(RemoteProtocolError):
        reader.read(message[:-1])
    with pytest.raises(LocalProtocolError):
        reader.read(message)


@pytest.mark.parametrize("size", [0, 31, 32 + 47, 95])
def test_short_messages_are_refused(size: int) -> None:
    """A message that ends inside a key or a tag is the peer's fault, not a crash."""
    message, reader, _ = _message(1)
    with pytest.raises(RemoteProtocolError):
        reader.read(message[:size])


def test_an_overlong_message_is_refused_unread() -> None:
    """The length is checked before any work is done."""
    message, reader, _ = _message(1)
    with pytest.raises(RemoteProtocolError, match="longer"):
        reader.read(message + bytes(NOISE_FRAME_BYTES_MAX))


def test_a_prologue_of_another_network_fails_at_the_first_tag() -> None:
    """Sides with different prologues never agree."""
    first, _ = pair(b"one")
    _, second = pair(b"two", start=50)
    second.read(first.write())
    with pytest.raises(RemoteProtocolError):
        first.read(second.write())


@pytest.mark.parametrize("point", [bytes(32), b"\x01" + bytes(31)])
def test_points_of_small_order_are_the_peers_fault(point: bytes) -> None:
    """A key that forces an all-zero secret is refused and does not raise ``RuntimeError``."""
    _, second = pair()
    second.read(point)
    with pytest.raises(RemoteProtocolError, match="small order"):
        second.write()


def test_the_counter_moves_only_after_a_valid_tag() -> None:
    """Garbage between two messages does not disturb the second (RUSTSEC-2024-0011)."""
    key = bytes(range(32))
    send, receive = CipherState(key), CipherState(key)
    sealed = [send.encrypt(b"", text) for text in (b"one", b"two")]
    assert receive.decrypt(b"", sealed[0]) == b"one"
    for garbage in (b"", b"short", bytes(16), sealed[1][:-1], sealed[1] + b"\0", sealed[0]):
        with pytest.raises(RemoteProtocolError):
            receive.decrypt(b"", garbage)
        assert receive.nonce == 1
    assert receive.decrypt(b"", sealed[1]) == b"two"


def test_the_last_nonce_is_never_used_for_a_message() -> None:
    """2**64 - 1 belongs to REKEY: before it the key stops in both directions."""
    key = bytes(32)
    send, receive = CipherState(key, NONCE_LAST), CipherState(key, NONCE_LAST)
    assert receive.decrypt(b"", send.encrypt(b"", b"last")) == b"last"
    with pytest.raises(Exception, match="no nonce left"):
        send.encrypt(b"", b"one too many")
    with pytest.raises(RemoteProtocolError, match="no nonce left"):
        receive.decrypt(b"", bytes(32))


def test_turns_are_kept() -> None:
    """Writing or reading out of turn, and splitting early, is our caller's fault."""
    first, second = pair()
    with pytest.raises(LocalProtocolError):
        second.write()
    with pytest.raises(LocalProtocolError):
        first.read(bytes(32))
    with pytest.raises(LocalProtocolError):
        first.split()
    with pytest.raises(LocalProtocolError):
        CipherState(None).rekey()
    with pytest.raises(LocalProtocolError):
        KeyPair(b"short")


def test_no_repr_shows_a_secret() -> None:
    """A key in a log would be a key lost."""
    key = KeyPair(bytes(range(32)))
    shown = repr(key) + repr(CipherState(key.secret)) + repr(pair()[0])
    assert key.secret.hex() not in shown
    assert repr(key.secret)[2:10] not in shown
