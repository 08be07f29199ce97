"""The issuing desk: an authority's root keys, or a county's delegated one.

``Issuer.create_network`` founds a network and holds its root seeds. A county makes device
keys and a request like anybody else; with the authority's answer, ``Issuer.delegated`` turns
them into a desk that issues for the county's place, with no connection to the authority.

Rule: an issuer checks its own signature's worth before handing it out. What ``issue``
returns has passed ``check_chain``, the one place where the rules stand.

The secret bytes go into a keystore (``keystore.py``) of their own, on a stick rather than on
a node. Byte-exact: ``docs/protocols/identity.md``, section 6.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, NoReturn

import msgspec

from p2pmed.engine import Entropy
from p2pmed.errors import ConfigError, CredentialError, DecodeError, LocalProtocolError
from p2pmed.identity.credentials import (
    CREDENTIAL_BYTES_MAX,
    Credential,
    Role,
    Validity,
    check_chain,
    issue_credential,
    sort_roles,
)
from p2pmed.identity.enrolment import Answer, Request, check_answer
from p2pmed.identity.keys import DeviceKeys, public_key, short_id
from p2pmed.identity.manifest import (
    MANIFEST_BYTES_MAX,
    ROOT_KEYS_MAX,
    Manifest,
    make_manifest,
    open_manifest,
)
from p2pmed.limits import CREDENTIAL_CHAIN_MAX
from p2pmed.wire import codec
from p2pmed.wire.codec import Bytes32, Wire

__all__ = ["Issuer"]


class _Secret(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    version: Annotated[int, msgspec.Meta(ge=1, le=1)]
    seeds: Annotated[tuple[Bytes32, ...], msgspec.Meta(min_length=1, max_length=ROOT_KEYS_MAX)]
    manifest: Annotated[bytes, msgspec.Meta(max_length=MANIFEST_BYTES_MAX)]
    chain: Annotated[
        tuple[Annotated[bytes, msgspec.Meta(max_length=CREDENTIAL_BYTES_MAX)], ...],
        msgspec.Meta(max_length=CREDENTIAL_CHAIN_MAX),
    ]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class Issuer:
    """Who may issue credentials: root seeds and no chain, or one seed and its chain."""

    seeds: tuple[bytes, ...]
    """Ed25519 seeds (32 bytes each); the first signs: secret."""
    manifest_raw: bytes
    """The signed manifest."""
    chain: tuple[bytes, ...] = ()
    """The issuer's own credentials, its own last; empty for a root."""
    manifest: Manifest = field(init=False)
    network_id: bytes = field(init=False)
    """32 bytes."""
    key: bytes = field(init=False)
    """The Ed25519 key (32 bytes) that signs what is issued."""
    credential: Credential | None = field(init=False)
    """The issuer's own; ``None`` for a root."""

    def __post_init__(self) -> None:
        """Raises ``CredentialError`` unless the seeds belong to the roots or to the chain."""
        try:
            manifest, network_id = open_manifest(self.manifest_raw)
        except DecodeError as error:
            raise CredentialError(f"the issuer's manifest cannot be read: {error}") from None
        keys = tuple(public_key(seed) for seed in self.seeds)
        own = None
        if self.chain:
            own = check_chain(self.chain, manifest=manifest, network_id=network_id, at_ms=None)
            if keys != (own.subject,):
                raise CredentialError("the issuing key is not the one its credential names")
        elif not keys or any(key not in manifest.root_keys for key in keys):
            raise CredentialError("the issuing key is not a root of this network")
        object.__setattr__(self, "manifest", manifest)
        object.__setattr__(self, "network_id", network_id)
        object.__setattr__(self, "key", keys[0])
        object.__setattr__(self, "credential", own)

    @classmethod
    def create_network(
        cls, name: str, *, created_ms: int, entropy: Entropy, roots: int = 1
    ) -> Issuer:
        """A new network with 1 to 3 root keys, all held by the issuer returned.

        Raises ``LocalProtocolError`` if the name or the number of roots cannot be.
        """
        if not 1 <= roots <= ROOT_KEYS_MAX:
            raise LocalProtocolError(f"a network has 1 to {ROOT_KEYS_MAX} root keys")
        seeds = tuple(entropy.token(32) for _ in range(roots))
        raw = make_manifest(name, seeds, created_ms=created_ms, entropy=entropy)
        return cls(seeds=seeds, manifest_raw=raw)

    @classmethod
    def delegated(cls, keys: DeviceKeys, answer: Answer) -> Issuer:
        """The desk of whoever got ``answer`` for ``keys``.

        Raises ``CredentialError`` if the answer does not hold, or allows issuing nothing.
        """
        enrolled = check_answer(answer, keys)
        if not enrolled.credential.delegate:
            raise CredentialError("this credential does not allow issuing others")
        return cls(
            seeds=(keys.signing_seed,), manifest_raw=answer.manifest, chain=tuple(answer.chain)
        )

    def split(self) -> tuple[Issuer, ...]:
        """One issuer per root seed, to be kept in different places."""
        return tuple(
            Issuer(seeds=(seed,), manifest_raw=self.manifest_raw, chain=self.chain)
            for seed in self.seeds
        )

    def issue(
        self,
        request: Request,
        *,
        validity: Validity,
        entropy: Entropy,
        roles: Iterable[Role | str] | None = None,
        place: str | None = None,
        delegate: Iterable[Role | str] = (),
        name: str | None = None,
    ) -> Answer:
        """The answer to ``request``: a credential of ``roles`` at ``place``, under our chain.

        What is ``None`` is granted as wished. ``validity`` is cut to the issuer's own.
        Raises ``CredentialError`` if the issuer may not say this.
        """
        if len(self.chain) >= CREDENTIAL_CHAIN_MAX:
            raise CredentialError(
                "this issuer is the last link of its chain and may issue to nobody"
            )
        if self.credential is not None:
            own = self.credential
            validity = validity.within(Validity(own.not_before, own.not_after))
        credential = Credential(
            version=1,
            network=self.network_id,
            subject=request.device_key,
            box_key=request.box_key,
            name=request.name if name is None else name,
            roles=sort_roles(request.roles if roles is None else roles),
            place=request.place if place is None else place,
            delegate=sort_roles(delegate),
            not_before=validity.not_before_ms,
            not_after=validity.not_after_ms,
            serial=entropy.token(16),
            issuer=self.key,
        )
        chain: Sequence[bytes] = (*self.chain, issue_credential(credential, seed=self.seeds[0]))
        check_chain(chain, manifest=self.manifest, network_id=self.network_id, at_ms=None)
        return Answer(version=1, manifest=self.manifest_raw, chain=tuple(chain))

    def to_secret_bytes(self) -> bytes:
        """Everything, in the clear: for ``seal_keystore`` and nothing else."""
        return codec.encode(
            _Secret(version=1, seeds=self.seeds, manifest=self.manifest_raw, chain=self.chain)
        )

    @classmethod
    def from_secret_bytes(cls, raw: bytes) -> Issuer:
        """Inverse of ``to_secret_bytes``. Raises ``ConfigError`` for anything else."""
        try:
            secret = codec.decode(raw, _Secret)
            return cls(seeds=secret.seeds, manifest_raw=secret.manifest, chain=secret.chain)
        except (DecodeError, CredentialError):
            raise ConfigError("the keystore does not hold an issuer's keys") from None

    def __repr__(self) -> str:
        return f"<Issuer {short_id(self.key)}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("keys are neither pickled nor copied")
