"""Enrolment without a connection: a request goes out, an answer comes back, as text.

The device signs a ``Request`` with its own new key: what it wishes to be, and its public
keys. Whoever may issue for that place answers with the manifest and a credential chain. Both
are one line of text, for a file, a message or a QR code::

    P2PMED-REQUEST-1:QJMFAQ...ABCD.
    P2PMED-ANSWER-1:QMBAAW...WXYZ.

Base32 (RFC 4648) without padding, not base45: both suit a QR code's alphanumeric mode, 8.8
against 8.25 bits a byte, but base45 contains a space and so does not survive mail and
editors. White space is ignored, since those add it; all else is strict. The full stop shows
that nothing was cut off; the signatures show that nothing was changed.

Rule: an answer is believed for what its signatures say, never for who carried it. Which
network to believe is settled by a person comparing ``short_id(network_id)``, or by an id
known before.
Byte-exact: ``docs/protocols/identity.md``, section 4.
"""

from __future__ import annotations

from base64 import b32decode, b32encode
from binascii import Error as Base32Error
from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Final

import msgspec

from p2pmed.errors import ConfigError, CredentialError, DecodeError, InvalidTransaction
from p2pmed.identity.credentials import (
    CREDENTIAL_BYTES_MAX,
    Credential,
    Name,
    Place,
    Role,
    Roles,
    check_chain,
    check_words,
    sort_roles,
)
from p2pmed.identity.keys import DeviceKeys, check_box_key, check_signing_key
from p2pmed.identity.manifest import MANIFEST_BYTES_MAX, Manifest, open_manifest
from p2pmed.limits import CREDENTIAL_CHAIN_MAX
from p2pmed.wire import codec, cose
from p2pmed.wire.codec import Bytes32, Count, Wire

__all__ = [
    "Answer",
    "Enrolled",
    "Label",
    "Request",
    "VoteKey",
    "answer_from_text",
    "answer_to_text",
    "check_answer",
    "make_request",
    "open_answer",
    "open_request",
    "request_from_text",
    "request_to_text",
]

PURPOSE: Final = "enrolment-request"

REQUEST_BYTES_MAX: Final = 2_048
ANSWER_BYTES_MAX: Final = 8 * 1024
TEXT_CHARS_MAX: Final = 32 * 1024
"""Of an armoured text with all the white space that somebody's editor added."""

VOTE_KEYS_MAX: Final = 8

assert MANIFEST_BYTES_MAX + CREDENTIAL_CHAIN_MAX * CREDENTIAL_BYTES_MAX < ANSWER_BYTES_MAX
assert 2 * ANSWER_BYTES_MAX < TEXT_CHARS_MAX

_END: Final = "."


class Label(StrEnum):
    """What an armoured text says it is; the number is the major version of the format."""

    REQUEST = "P2PMED-REQUEST-1"
    ANSWER = "P2PMED-ANSWER-1"


_CALLED: Final = {Label.REQUEST: "an enrolment request", Label.ANSWER: "an enrolment answer"}


class VoteKey(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The Ed25519 key a device votes with in one epoch."""

    epoch: Count
    key: Bytes32


class Request(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a device wishes to be, signed by itself; a wish binds nobody."""

    version: Annotated[int, msgspec.Meta(ge=1, le=1)]
    name: Name
    roles: Roles
    place: Place
    device_key: Bytes32
    box_key: Bytes32
    vote_keys: Annotated[tuple[VoteKey, ...], msgspec.Meta(max_length=VOTE_KEYS_MAX)]


class Answer(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The network's manifest, and the chain that ends in the device's own credential."""

    version: Annotated[int, msgspec.Meta(ge=1, le=1)]
    manifest: Annotated[bytes, msgspec.Meta(max_length=MANIFEST_BYTES_MAX)]
    chain: Annotated[
        tuple[Annotated[bytes, msgspec.Meta(max_length=CREDENTIAL_BYTES_MAX)], ...],
        msgspec.Meta(min_length=1, max_length=CREDENTIAL_CHAIN_MAX),
    ]
    """Issued by a root first, the device's own last."""


class Enrolled(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """An answer that was checked: what the device now knows of itself and its network."""

    manifest: Manifest
    network_id: Bytes32
    credential: Credential


def make_request(keys: DeviceKeys, *, name: str, roles: Iterable[Role | str], place: str) -> bytes:
    """The signed request of a device. Raises ``ConfigError`` if a wish cannot be spelled."""
    try:
        request = Request(
            version=1,
            name=name,
            roles=sort_roles(roles),
            place=place,
            device_key=keys.node_id,
            box_key=keys.box_public,
            vote_keys=tuple(
                VoteKey(epoch, keys.vote_public(epoch))
                for epoch in keys.vote_epochs[:VOTE_KEYS_MAX]
            ),
        )
        payload = codec.encode(request)
        _check_request(codec.decode(payload, Request))
    except (DecodeError, InvalidTransaction, CredentialError) as error:
        raise ConfigError(f"no request can say this: {error}", hint=error.hint) from None
    return keys.sign(payload, PURPOSE, b"")


def open_request(raw: bytes) -> Request:
    """The request that ``raw`` spells, its signature checked.

    Raises ``DecodeError`` if it is not spelled as ``make_request`` spells it, and
    ``CredentialError`` if a key is unsound or the device did not sign it.
    """
    signed = cose.open_signed(
        raw, external=cose.external_data(PURPOSE, b""), limit=REQUEST_BYTES_MAX
    )
    request = codec.decode(signed.payload, Request)
    _check_request(request)
    if signed.signer != request.device_key or not cose.verify(
        signed.signer, signed.signature, signed.to_be_signed
    ):
        raise CredentialError("the request is not signed by the device it speaks of")
    return request


def open_answer(raw: bytes) -> Answer:
    """The answer that ``raw`` spells; nothing in it is believed before ``check_answer``.

    Raises ``DecodeError``.
    """
    return codec.decode(raw, Answer, limit=ANSWER_BYTES_MAX)


def check_answer(
    answer: Answer,
    keys: DeviceKeys,
    *,
    network_id: bytes | None = None,
    at_ms: int | None = None,
) -> Enrolled:
    """What ``answer`` makes of the device with ``keys``.

    ``network_id`` is the network (32 bytes) the device expects; ``None`` believes the answer's.
    ``at_ms`` as for ``check_chain``.
    Raises ``CredentialError`` if a signature, the chain, the network or the subject is wrong.
    """
    try:
        manifest, found = open_manifest(answer.manifest)
    except DecodeError as error:
        raise CredentialError(f"the answer's manifest cannot be read: {error}") from None
    if network_id is not None and found != network_id:
        raise CredentialError("the answer comes from another network")
    leaf = check_chain(answer.chain, manifest=manifest, network_id=found, at_ms=at_ms)
    if leaf.subject != keys.node_id or leaf.box_key != keys.box_public:
        raise CredentialError(
            "the answer is for another device",
            hint="use the answer to the request that this device made",
        )
    return Enrolled(manifest=manifest, network_id=found, credential=leaf)


def request_to_text(raw: bytes) -> str:
    """A signed request as one line, for a file or a QR code."""
    return _to_text(Label.REQUEST, raw)


def request_from_text(text: str) -> Request:
    """The request in ``text``, its signature checked.

    Raises ``ConfigError`` if the text is cut off, changed, or no request.
    """
    raw = _from_text(Label.REQUEST, text)
    try:
        return open_request(raw)
    except (DecodeError, CredentialError) as error:
        raise _changed(Label.REQUEST, error) from None


def answer_to_text(answer: Answer) -> str:
    """An answer as one line, for a file or a QR code."""
    return _to_text(Label.ANSWER, codec.encode(answer))


def answer_from_text(text: str) -> Answer:
    """The answer in ``text``, not yet believed: ``check_answer`` does that.

    Raises ``ConfigError`` if the text is cut off, no answer, or cannot be one unchanged.
    """
    raw = _from_text(Label.ANSWER, text)
    try:
        return open_answer(raw)
    except DecodeError as error:
        raise _changed(Label.ANSWER, error) from None


def _check_request(request: Request) -> None:
    if not request.roles:
        raise CredentialError("a request without a role")
    if list(request.roles) != sorted(set(request.roles)):
        raise CredentialError("roles that are not distinct and in the order of their names")
    check_words(request.name, request.place)
    epochs = [vote.epoch for vote in request.vote_keys]
    if epochs != sorted(set(epochs)):
        raise CredentialError("vote keys that are not in the order of their epochs")
    signing = [request.device_key, *(vote.key for vote in request.vote_keys)]
    if len(set(signing)) < len(signing):
        raise CredentialError("one key that serves for two things")
    check_signing_key(request.device_key)
    check_box_key(request.box_key)
    for vote in request.vote_keys:
        check_signing_key(vote.key)


def _to_text(label: Label, raw: bytes) -> str:
    return f"{label}:{b32encode(raw).decode('ascii').rstrip('=')}{_END}"


def _from_text(label: Label, text: str) -> bytes:
    """The bytes in an armoured text. Raises ``ConfigError`` with what a person can act on."""
    called = _CALLED[label]
    if len(text) > TEXT_CHARS_MAX:
        raise ConfigError(f"{len(text)} characters are too many for {called}")
    compact = "".join(text.removeprefix("\ufeff").split())
    if not compact.startswith(f"{label}:"):
        raise ConfigError(_not_this(label, compact), hint=f"it begins with {label}:")
    body = compact.removeprefix(f"{label}:")
    if not body.endswith(_END):
        raise ConfigError(
            f"{called} is cut off: the full stop at its end is missing",
            hint="copy the whole text again",
        )
    body = body.removesuffix(_END)
    try:
        raw = b32decode(body + "=" * (-len(body) % 8))
    except (Base32Error, ValueError) as error:
        raise _changed(label, error) from None
    if _to_text(label, raw) != compact:
        raise _changed(label, None)
    return raw


def _not_this(label: Label, compact: str) -> str:
    """What a text that does not begin as ``label`` is, as far as its beginning tells."""
    for other, called in _CALLED.items():
        if other is not label and compact.startswith(f"{other}:"):
            return f"this is {called}, where {_CALLED[label]} is needed"
        if compact.startswith(other.rpartition("-")[0] + "-"):
            return f"this is {called} of a version that this program does not know"
    return f"this is not {_CALLED[label]}"


def _changed(label: Label, error: Exception | None) -> ConfigError:
    why = f" ({error})" if isinstance(error, DecodeError | CredentialError) else ""
    return ConfigError(
        f"{_CALLED[label]} was changed on its way{why}", hint="copy the whole text again"
    )
