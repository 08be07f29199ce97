"""How a ledger begins: the genesis that all founders sign.

The ledger's id is the hash of the genesis record. A *founding* is that record, every founder's
signature and every founder's credential chain: whoever knows the network's manifest can check
it alone. Byte-exact: ``docs/protocols/genesis.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import msgspec

from p2pmed.errors import CredentialError, DecodeError, LocalProtocolError
from p2pmed.limits import CREDENTIAL_CHAIN_MAX, VALIDATORS_MAX
from p2pmed.quorum.certificate import Epoch, Validator
from p2pmed.wire import codec, cose
from p2pmed.wire.codec import Bytes16, Bytes32, Count, Text, TimeMs, Wire
from p2pmed.wire.hashing import digest

__all__ = ["Founding", "Genesis", "check_founding", "ledger_id", "sign_genesis"]

PURPOSE = "genesis"

OpenChain = Callable[[Sequence[bytes]], bytes]
"""Checks a credential chain of the network; the device key it speaks of. ``CredentialError``."""


class Genesis(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What the founders agree on."""

    version: Annotated[int, msgspec.Meta(ge=1, le=1)]
    network: Bytes32
    name: Text
    engine: Literal["bft", "raft"]
    liars: Annotated[int, msgspec.Meta(ge=0, le=(VALIDATORS_MAX - 1) // 3)]
    validators: Annotated[
        tuple[Validator, ...], msgspec.Meta(min_length=1, max_length=VALIDATORS_MAX)
    ]
    rules: Bytes32
    """Hash of the registered types that every validator must have."""
    created: TimeMs
    nonce: Bytes16
    predecessor: Annotated[bytes, msgspec.Meta(max_length=32)] = b""
    """The ledger that this one follows after its quorum was lost for good; empty if none."""
    predecessor_height: Count = 0
    """The predecessor's last final height that the founders know."""
    predecessor_digest: Annotated[bytes, msgspec.Meta(max_length=32)] = b""
    """Digest of the predecessor's header at that height; its ledger id at height 0."""

    def epoch(self) -> Epoch:
        """The first epoch."""
        return Epoch(ledger=ledger_id(self), number=0, liars=self.liars, validators=self.validators)

    def check(self) -> None:
        """Raises ``LocalProtocolError`` if the founders cannot be a mesh."""
        self.epoch().check()
        if self.engine == "raft" and self.liars:
            raise LocalProtocolError("Raft withstands crashes, no liars", hint="use bft")
        if len(self.predecessor) not in (0, 32) or len(self.predecessor_digest) != len(
            self.predecessor
        ):
            raise LocalProtocolError("a predecessor that is not named by its id and last digest")
        if not self.predecessor and self.predecessor_height:
            raise LocalProtocolError("a last height of no predecessor")


class Founding(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A genesis with what proves it, founders in the order of the seats."""

    genesis: Genesis
    signatures: Annotated[tuple[bytes, ...], msgspec.Meta(max_length=VALIDATORS_MAX)]
    """COSE_Sign1 of the ledger id by each founder's device key."""
    chains: Annotated[
        tuple[Annotated[tuple[bytes, ...], msgspec.Meta(max_length=CREDENTIAL_CHAIN_MAX)], ...],
        msgspec.Meta(max_length=VALIDATORS_MAX),
    ]


def ledger_id(genesis: Genesis) -> bytes:
    """32 bytes that name the ledger."""
    return digest("genesis", codec.encode(genesis))


def sign_genesis(genesis: Genesis, *, seed: bytes, node: bytes) -> bytes:
    """One founder's signature."""
    external = cose.external_data(PURPOSE, genesis.network)
    return cose.sign(ledger_id(genesis), seed=seed, signer=node, external=external)


def check_signature(genesis: Genesis, raw: bytes) -> bytes:
    """The founder who signed ``genesis``. Raises ``CredentialError``."""
    try:
        signed = cose.open_signed(raw, external=cose.external_data(PURPOSE, genesis.network))
    except DecodeError as error:
        raise CredentialError(f"a founder's signature: {error}") from None
    genuine = cose.verify(signed.signer, signed.signature, signed.to_be_signed)
    if signed.payload != ledger_id(genesis) or not genuine:
        raise CredentialError("a founder's signature does not hold for this genesis")
    return signed.signer


def check_founding(founding: Founding, *, network: bytes, open_chain: OpenChain) -> None:
    """Raises ``CredentialError`` unless every founder is a member and has signed."""
    genesis = founding.genesis
    if genesis.network != network:
        raise CredentialError("a ledger of another network")
    try:
        genesis.check()
    except LocalProtocolError as error:
        raise CredentialError(f"a genesis that cannot be: {error}") from None
    seats = len(genesis.validators)
    if len(founding.signatures) != seats or len(founding.chains) != seats:
        raise CredentialError("a founding that not every founder has signed")
    rows = zip(genesis.validators, founding.signatures, founding.chains, strict=True)
    for validator, signature, chain in rows:
        if check_signature(genesis, signature) != validator.node:
            raise CredentialError("a founder's signature in another founder's place")
        if open_chain(chain) != validator.node:
            raise CredentialError("a founder's credential speaks of another device")
