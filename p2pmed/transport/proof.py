"""Who speaks on a channel: the proof of identity, made and opened.

A proof is a ``Hello`` and the device key's raw Ed25519 signature over

    "p2pmed-noise-v1:" (16) || transcript hash (32) || own Noise static key (32) || hello

Every part but the last has a fixed length, so no two hellos share a spelling. Raw and not
COSE: it lives for one round trip, nobody else ever verifies it, and the prefix alone keeps
it apart from every Sig_structure of ours, which starts with the byte 0x84.
Byte-exact: ``docs/protocols/channel.md``, section 4.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from p2pmed.engine import Entropy
from p2pmed.errors import LocalProtocolError, RemoteProtocolError
from p2pmed.limits import CREDENTIAL_CHAIN_MAX, FRAME_BYTES_MAX
from p2pmed.transport.messages import LINK_BYTES_MAX, PROOF_BYTES_MAX, Hello, Limits, Proof, Role
from p2pmed.transport.noise import KeyPair
from p2pmed.wire import codec, cose

__all__ = [
    "PROOF_PREFIX",
    "VERSIONS",
    "ChannelIdentity",
    "Refused",
    "agree_version",
    "make_identity",
    "make_proof",
    "open_proof",
]

PROOF_PREFIX: Final = b"p2pmed-noise-v1:"
VERSIONS: Final = (1,)
"""Channel versions this code speaks, ascending."""


class Refused(RemoteProtocolError):
    """A well-formed peer is turned away; the words hold nothing of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelIdentity:
    """Who this node is towards its peers; made once per boot by ``make_identity``."""

    device: bytes
    """The Ed25519 device key, 32 bytes."""
    sign: Callable[[bytes], bytes] = field(repr=False)
    """The raw 64-byte Ed25519 signature of ``device`` over a message."""
    chain: tuple[bytes, ...] = field(repr=False)
    boot: bytes
    static: KeyPair = field(repr=False)
    """The Noise key of this boot."""


def make_identity(
    *,
    device: bytes,
    sign: Callable[[bytes], bytes],
    chain: tuple[bytes, ...],
    entropy: Entropy,
) -> ChannelIdentity:
    """An identity with a fresh Noise key and boot id.

    Raises ``LocalProtocolError`` if the chain is longer than a peer would take.
    """
    if len(chain) > CREDENTIAL_CHAIN_MAX or any(len(link) > LINK_BYTES_MAX for link in chain):
        raise LocalProtocolError(
            "the credential chain is too long for a handshake",
            hint=f"at most {CREDENTIAL_CHAIN_MAX} credentials of {LINK_BYTES_MAX} bytes",
        )
    return ChannelIdentity(
        device=device,
        sign=sign,
        chain=chain,
        boot=entropy.token(16),
        static=KeyPair.generate(entropy),
    )


def make_proof(keys: ChannelIdentity, role: Role, transcript: bytes) -> bytes:
    """Our proof on the handshake whose hash is ``transcript`` at this point."""
    hello = codec.encode(
        Hello(
            versions=VERSIONS,
            role=role,
            device=keys.device,
            chain=keys.chain,
            boot=keys.boot,
            limits=Limits(FRAME_BYTES_MAX),
        )
    )
    signature = keys.sign(PROOF_PREFIX + transcript + keys.static.public + hello)
    return codec.encode(Proof(hello, signature))


def open_proof(payload: bytes, transcript: bytes, remote_static: bytes) -> Hello:
    """The hello of a proof whose signature holds. Raises ``RemoteProtocolError``."""
    proof = codec.decode(payload, Proof, limit=PROOF_BYTES_MAX)
    hello = codec.decode(proof.hello, Hello, limit=PROOF_BYTES_MAX)
    signed = PROOF_PREFIX + transcript + remote_static + proof.hello
    if not cose.verify(hello.device, proof.signature, signed):
        raise RemoteProtocolError("a proof of identity that does not hold")
    return hello


def agree_version(hello: Hello, floor: int) -> int:
    """The highest version both speak, not below the floor. Raises ``RemoteProtocolError``."""
    if list(hello.versions) != sorted(set(hello.versions)):
        raise RemoteProtocolError("an offer that is not in order")
    both = [version for version in VERSIONS if version in hello.versions and version >= floor]
    if not both:
        raise Refused("no common version")
    return both[-1]
