"""Who has read what: ``audit.read``, and the gate that lets nothing be read before it is stored.

Rule of this file: no plaintext without an entry on the disk that tells of it. ``Gate`` is the
machine: a batch of records is *announced*, the announcement becomes a transaction, and only when
that is durable (``stored``) may its records be opened. Leave is asked again at each opening, so
that a revocation which came in between closes what was announced.
Implements medical notes, section 1 rows 4 and 24, and ``docs/protocols/reads.md``.

What an auditor sees: device and person, pseudonym, purpose, under which grants, how many, when,
and one hash. Which records and which categories is sealed to the patient's own key; each record
is a leaf under the hash, salted, so that the patient can later show one of them to a court.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Final

import msgspec

from p2pmed.engine import Entropy
from p2pmed.errors import DecodeError, Denied, LocalProtocolError
from p2pmed.identity import sealing
from p2pmed.ledger.merkle import merkle_root
from p2pmed.ledger.state import View
from p2pmed.medical.keyring import Category
from p2pmed.medical.patients import about_patient
from p2pmed.medical.registry import Act, Kind
from p2pmed.medical.rejections import Rejection
from p2pmed.wire import codec
from p2pmed.wire.codec import Bytes32, Wire
from p2pmed.wire.hashing import digest

__all__ = [
    "GRANTS_TOLD_MAX",
    "KINDS",
    "READS_MAX",
    "AuditRead",
    "Gate",
    "ReadDetails",
    "make_read",
    "open_details",
    "read_leaf",
]

READS_MAX: Final = 1_024
"""Records in one entry; a longer batch is several, in one submission."""
GRANTS_TOLD_MAX: Final = 16
BATCHES_MAX: Final = 1_024
"""Calls that read at the same moment."""
NAME_BYTES: Final = 8
"""Of a record's id: enough to tell a patient's records apart, a quarter of the room."""
DETAILS_BYTES_MAX: Final = 16 * 1024
DETAILS_PAD: Final = 256
DOMAIN: Final = "read"


class AuditRead(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``audit.read``: the author is about to open records of the subject."""

    purpose: Annotated[str, msgspec.Meta(pattern=r"\A[A-Z]{2,16}\Z")]
    grants: Annotated[tuple[Bytes32, ...], msgspec.Meta(max_length=GRANTS_TOLD_MAX)]
    """By which leave: grants, or an emergency; empty: the patient's own card."""
    count: Annotated[int, msgspec.Meta(ge=1, le=READS_MAX)]
    root: Bytes32
    """Merkle root over ``read_leaf`` of each record, category by category."""
    sealed: Annotated[
        bytes, msgspec.Meta(min_length=sealing.WRAP_BYTES, max_length=DETAILS_BYTES_MAX)
    ]
    """``ReadDetails``, wrapped to the patient's key."""


class ReadDetails(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What the patient learns: which records, of which categories."""

    seed: Bytes32
    names: Annotated[tuple[tuple[Category, bytes], ...], msgspec.Meta(max_length=len(Category))]
    """By category: the first ``NAME_BYTES`` of each record's id, joined."""

    @property
    def records(self) -> list[tuple[Category, bytes]]:
        """Category and first bytes of the id of each record, in order."""
        return [
            (category, joined[at : at + NAME_BYTES])
            for category, joined in self.names
            for at in range(0, len(joined), NAME_BYTES)
        ]


def read_leaf(seed: bytes, category: Category, record: bytes) -> bytes:
    """What stands under the root for one record: not to be guessed without ``seed``."""
    return digest("p2pmed read", seed + record[:NAME_BYTES] + category.value.encode())


def make_read(
    records: Sequence[tuple[Category, bytes]],
    *,
    purpose: str,
    grants: Iterable[bytes],
    patient: bytes,
    patient_key: bytes,
    network: bytes,
    entropy: Entropy,
    wrapper: sealing.Wrapper = sealing.HPKE,
) -> AuditRead:
    """The announcement of at most ``READS_MAX`` records of one patient (category, id).

    ``patient_key`` (X25519) is the patient's current one.
    """
    joined: dict[Category, bytes] = {}
    for category, record in records:
        joined[category] = joined.get(category, b"") + record[:NAME_BYTES]
    details = ReadDetails(seed=entropy.token(32), names=tuple(sorted(joined.items())))
    leaves = [read_leaf(details.seed, *row) for row in details.records]
    sealed = sealing.wrap(
        patient_key,
        sealing.pad(codec.encode(details), DETAILS_PAD),
        domain=DOMAIN,
        context=(network, patient),
        wrapper=wrapper,
    )
    return AuditRead(
        purpose=purpose,
        grants=tuple(sorted(set(grants)))[:GRANTS_TOLD_MAX],
        count=len(records),
        root=merkle_root(leaves),
        sealed=sealed,
    )


def open_details(
    body: AuditRead,
    secrets: Mapping[bytes, bytes | sealing.BoxSecret],
    *,
    patient: bytes,
    network: bytes,
) -> ReadDetails:
    """What was read, for whoever has the patient's X25519 ``secrets`` (by ``box_id``).

    Raises ``Denied`` if none of them opens it, ``DecodeError`` if the reader lied: the hash is
    not that of what is sealed.
    """
    for secret in secrets.values():
        try:
            padded = sealing.unwrap(secret, body.sealed, domain=DOMAIN, context=(network, patient))
        except Denied:
            continue
        details = codec.decode(sealing.unpad(padded), ReadDetails, limit=DETAILS_BYTES_MAX)
        leaves = [read_leaf(details.seed, *row) for row in details.records]
        if merkle_root(leaves) != body.root or len(leaves) != body.count:
            raise DecodeError("an announcement that does not say what was read")
        return details
    raise Denied("only the patient's own key shows what was read", hint="use the patient's card")


class Gate:
    """What was announced, durably, and is being read. One for each node.

    ``announce`` gives a token; the caller writes the transaction and says ``stored`` when it is
    durable, and ``done`` when the batch is over or could not be written.
    """

    def __init__(self) -> None:
        self._batches: dict[int, tuple[bytes, ...]] = {}
        self._open: dict[int, frozenset[bytes]] = {}
        self._tokens = 0

    def __repr__(self) -> str:
        return f"<Gate {len(self._batches)} announced, {len(self._open)} open>"

    def announce(self, records: Iterable[bytes]) -> int:
        """Remember a batch whose announcement is on its way to the disk; its token.

        Raises ``LocalProtocolError`` if too many are open at once.
        """
        if len(self._batches) >= BATCHES_MAX:
            raise LocalProtocolError(f"{BATCHES_MAX} batches of records are being read already")
        self._tokens += 1
        self._batches[self._tokens] = tuple(records)
        return self._tokens

    def stored(self, token: int) -> None:
        """The announcement is durable: its records may be opened until ``done``."""
        self._open[token] = frozenset(self._batches[token])

    def done(self, token: int) -> None:
        """The batch is over, or was not written."""
        self._batches.pop(token, None)
        self._open.pop(token, None)

    def may(self, record: bytes) -> bool:
        """Whether the disk tells that ``record`` is being read. Leave is asked besides, always."""
        return any(record in batch for batch in self._open.values())

    def close(self) -> None:
        """The session is over."""
        self._batches.clear()
        self._open.clear()


def _check_read(act: Act[AuditRead], view: View) -> Rejection | None:
    return about_patient(act, view)


def _apply_read(act: Act[AuditRead], view: View) -> None:
    """It is found by its subject and its author; the state need not know it."""


KINDS: Final[tuple[Kind[Any], ...]] = (
    Kind(
        name="audit.read",
        body=AuditRead,
        check=_check_read,
        apply=_apply_read,
        ordered=False,
        rules="Refused unless the patient is registered.",
    ),
)
