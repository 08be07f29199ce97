"""A key for one case only: what a stranger to the record is given, and nothing beside it.

Rule of this file: a case key is random, has a random name, and is wrapped to each party of one
referral or one consultation, bound to the network, the patient and the purpose. Beside it the
same wrap may hand over *single records*: the derived key of one sealed body opens that body, and
tells nothing of the category key that it was derived from. So who is asked reads just what was
sent. Implements ``docs/protocols/care.md``, section 2.

A leave by case key ends as the transactions say (closed, or its date has passed): an honest node
then opens nothing more by it. Who kept the key can read again what he could read before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec

from p2pmed.engine import Entropy
from p2pmed.errors import Denied
from p2pmed.identity import sealing
from p2pmed.medical.keyring import Category, CategoryKey, Wrapped
from p2pmed.medical.sealed import OpenedBody, Part, Place, Sealed, body_key, open_body_with
from p2pmed.wire import codec
from p2pmed.wire.codec import Bytes16, Bytes32, Wire

__all__ = [
    "PARTIES_MAX",
    "RECORDS_MAX",
    "CaseKeys",
    "RecordKey",
    "new_case_key",
    "open_case",
    "open_lent",
    "record_key",
    "wrap_case",
]

PARTIES_MAX: Final = 8
"""Who may be given one case: the sender, its facility, the receiver, the patient, some more."""
RECORDS_MAX: Final = 128
"""Single records handed over by one case; more is a grant of the category."""
DOMAIN: Final = "case"
PAD_BYTES: Final = 512


class RecordKey(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What opens one record's body: not its category's key."""

    record: Bytes32
    key: Annotated[bytes, msgspec.Meta(min_length=56, max_length=56)]
    """Key (32) and nonce (24), as derived for this one body."""


class _Content(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    key_id: Bytes16
    key: Bytes32
    records: Annotated[tuple[RecordKey, ...], msgspec.Meta(max_length=RECORDS_MAX)]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class CaseKeys:
    """What a party of a case holds."""

    key: CategoryKey
    """Of the case's own texts."""
    records: tuple[RecordKey, ...]


def new_case_key(entropy: Entropy) -> CategoryKey:
    """A random key with a random name."""
    return CategoryKey(
        category=Category.GENERAL, epoch=0, key_id=entropy.token(16), key=entropy.token(32)
    )


def record_key(record: bytes, sealed: Sealed, key: CategoryKey) -> RecordKey:
    """What opens ``sealed``, the body of the transaction ``record``, and no other body."""
    return RecordKey(record=record, key=body_key(sealed, key))


def open_lent(
    sealed: Sealed, *, key: RecordKey, place: Place, parts: Sequence[Part] = ()
) -> OpenedBody:
    """Open one record by its own key. Raises ``DecodeError`` if it is not that body's."""
    return open_body_with(sealed, key=key.key, place=place, parts=parts)


def wrap_case(
    case: CaseKeys,
    parties: Sequence[bytes],
    *,
    network: bytes,
    patient: bytes,
    purpose: str,
    wrapper: sealing.Wrapper = sealing.HPKE,
) -> tuple[Wrapped, ...]:
    """The case for each of ``parties`` (X25519 public keys), each named once."""
    content = _Content(key_id=case.key.key_id, key=case.key.key, records=case.records)
    padded = sealing.pad(codec.encode(content), PAD_BYTES)
    return tuple(
        Wrapped(
            grantee=sealing.box_id(party),
            wrapped=sealing.wrap(
                party,
                padded,
                domain=DOMAIN,
                context=(network, patient, purpose),
                wrapper=wrapper,
            ),
        )
        for party in dict.fromkeys(parties)
    )


def open_case(
    wraps: Sequence[Wrapped],
    secrets: Mapping[bytes, bytes | sealing.BoxSecret],
    *,
    network: bytes,
    patient: bytes,
    purpose: str,
) -> CaseKeys:
    """The case, by the first of ``secrets`` (by ``box_id``) that it is wrapped to.

    Raises ``Denied`` if it is wrapped to none of them, ``DecodeError`` for what is no case.
    """
    for wrapped in wraps:
        secret = secrets.get(wrapped.grantee)
        if secret is None:
            continue
        padded = sealing.unwrap(
            secret, wrapped.wrapped, domain=DOMAIN, context=(network, patient, purpose)
        )
        content = codec.decode(sealing.unpad(padded), _Content)
        key = CategoryKey(
            category=Category.GENERAL, epoch=0, key_id=content.key_id, key=content.key
        )
        return CaseKeys(key=key, records=content.records)
    raise Denied("this case is not addressed to this device or its facility")
