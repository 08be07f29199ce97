"""The simulator's wrapping is the real one with a known ephemeral key."""

from __future__ import annotations

import pytest

from p2pmed.identity import sealing
from p2pmed.testing.wrapping import SeededWrapper, seal_base

# RFC 9180, appendix A.2.1 (base mode) and A.2.1.1 (sequence number 0).
EPHEMERAL = "f4ec9b33b792c372c1d2c2063507b684ef925b8c75a42dbcbf57d63ccd381600"
SENT = "1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a"
RECIPIENT_SECRET = "8057991eef8f1f1af18f4a9491d16a1ce333f695d4db8e38da75975c4478e0fb"
RECIPIENT = "4310ee97d88cc1f088a5576c77ab0cf5c3ac797f3d95139c6c84b5429c59662a"
INFO = "4f6465206f6e2061204772656369616e2055726e"
PLAIN = "4265617574792069732074727574682c20747275746820626561757479"
AAD = "436f756e742d30"
CIPHER = (
    "1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db21993c62ce81883d2dd1b51a28"
)


class OneToken:
    def __init__(self, token: bytes) -> None:
        self._token = token

    def token(self, size: int) -> bytes:
        assert size == len(self._token)
        return self._token


def test_published_vector() -> None:
    """RFC 9180's own numbers for this suite come out."""
    made = seal_base(
        bytes.fromhex(EPHEMERAL),
        bytes.fromhex(RECIPIENT),
        bytes.fromhex(PLAIN),
        info=bytes.fromhex(INFO),
        associated=bytes.fromhex(AAD),
    )
    assert made.hex() == SENT + CIPHER


def test_real_reader_opens_what_the_simulator_wraps() -> None:
    """Two independent implementations of RFC 9180 agree on every byte of a wrap."""
    secret = bytes.fromhex(RECIPIENT_SECRET)
    wrapped = sealing.wrap(
        sealing.box_public(secret),
        b"keys",
        domain="keys",
        context=(b"network", "TREAT"),
        wrapper=SeededWrapper(OneToken(bytes.fromhex(EPHEMERAL))),
    )
    assert wrapped[:33].hex() == "01" + SENT
    opened = sealing.unwrap(secret, wrapped, domain="keys", context=(b"network", "TREAT"))
    assert opened == b"keys"


def test_same_seed_same_bytes() -> None:
    """A replayed world writes the same transaction."""
    made = {
        SeededWrapper(OneToken(bytes(32))).wrap(bytes.fromhex(RECIPIENT), b"x", b"")
        for _ in range(2)
    }
    assert len(made) == 1


def test_low_order_point_is_refused() -> None:
    """A public key that shares no secret is no recipient."""
    with pytest.raises(ValueError):
        seal_base(bytes([7]) * 32, bytes(32), b"x", info=b"")
