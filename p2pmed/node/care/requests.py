"""Asking a patient for leave to read, and answering. ``node.consent.requests``.

Rule of this file: what is asked for is sealed to the patient and to the clinic that registered:
that somebody asks for the category *HIV* is nobody else's business.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final

import msgspec

from p2pmed.errors import DecodeError, Denied, LocalProtocolError
from p2pmed.identity import sealing
from p2pmed.medical.consent import Purpose
from p2pmed.medical.keyring import Category, Wrapped
from p2pmed.medical.membership import member
from p2pmed.medical.patients import patient_keys, patient_row
from p2pmed.medical.privacy.delegation import REQUEST_PURPOSE, REQUESTS, AccessRequest
from p2pmed.node.care.hands import Hand
from p2pmed.node.events import Draft
from p2pmed.wire import codec
from p2pmed.wire.codec import Wire

if TYPE_CHECKING:
    from p2pmed.node.node import Node
    from p2pmed.node.receipts import Receipt

__all__ = ["Asked", "Requests"]

WORDS_CHARS_MAX: Final = 256
PAD_BYTES: Final = 512
DOMAIN: Final = "request"


class _Content(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    categories: Annotated[tuple[Category, ...], msgspec.Meta(max_length=len(Category))]
    words: Annotated[str, msgspec.Meta(max_length=WORDS_CHARS_MAX)]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Asked:
    """A request, as who may answer it sees it."""

    request: bytes
    author: bytes
    """The device that asks."""
    requester_key: bytes
    purpose: str
    until_ms: int
    categories: tuple[Category, ...] | None
    """``None``: it was not told to this device."""
    words: str
    answered: bool


class Requests:
    """``node.consent.requests``."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def ask(
        self,
        patient: bytes,
        categories: Iterable[Category],
        *,
        purpose: Purpose = Purpose.TREATMENT,
        until_ms: int = 0,
        words: str = "",
    ) -> Receipt:
        """Ask to read ``categories``; its receipt's id is the request.

        Raises ``LocalProtocolError`` if the patient is not known here, ``DecodeError`` if the
        words are too long.
        """
        state, network = self._node.state(), self._node.network
        row = patient_row(state, patient)
        if row is None:
            raise LocalProtocolError("no such patient is known here")
        content = _Content(tuple(dict.fromkeys(categories)), words)
        codec.convert(codec.plain(content), _Content)
        registrar = member(state, row.author)
        keys = [patient_keys(state, patient)[-1].patient_key]
        if registrar is not None:
            keys.append(registrar.box_key)
        wraps = tuple(
            Wrapped(
                grantee=sealing.box_id(key),
                wrapped=sealing.wrap(
                    key,
                    sealing.pad(codec.encode(content), PAD_BYTES),
                    domain=DOMAIN,
                    context=(network, patient, REQUEST_PURPOSE),
                ),
            )
            for key in dict.fromkeys(keys)
        )
        body = AccessRequest(
            requester_key=self._node.keys.box_public,
            purpose=purpose.value,
            until=until_ms,
            wraps=wraps,
        )
        draft = Draft(body=body, subject=patient, refs=self._node.consent.refs(patient))
        return (await self._node.submit_drafts([draft]))[-1]

    def of(self, patient: bytes) -> list[Asked]:
        """Every request about ``patient``, answered ones too."""
        found = []
        for request, row in REQUESTS.scan(self._node.state(), patient):
            content = self._told(patient, request)
            asked = Asked(
                request=request,
                author=row.author,
                requester_key=row.requester_key,
                purpose=row.purpose,
                until_ms=row.until,
                categories=content.categories if content else None,
                words=content.words if content else "",
                answered=bool(row.answer),
            )
            found.append(asked)
        return found

    def _told(self, patient: bytes, request: bytes) -> _Content | None:
        entry = self._node.find(request)
        body = self._node.body(entry) if entry else None
        secrets = self._node.opener.secrets(patient)
        for wrapped in body.wraps if isinstance(body, AccessRequest) else ():
            with contextlib.suppress(KeyError, Denied, DecodeError):
                padded = sealing.unwrap(
                    secrets[wrapped.grantee],
                    wrapped.wrapped,
                    domain=DOMAIN,
                    context=(self._node.network, patient, REQUEST_PURPOSE),
                )
                return codec.decode(sealing.unpad(padded), _Content)
        return None

    async def answer(
        self,
        patient: bytes,
        request: bytes,
        *,
        categories: Iterable[Category] | None = None,
        by: Hand | None = None,
    ) -> Receipt:
        """Grant what was asked for, or only ``categories`` of it.

        Raises ``LocalProtocolError`` if there is no such request, or it was not told here.
        """
        asked = next((each for each in self.of(patient) if each.request == request), None)
        if asked is None or (asked.categories is None and categories is None):
            raise LocalProtocolError("no such request is known here, or what it asks for")
        return await self._node.consent.grant(
            patient,
            asked.requester_key,
            categories=tuple(categories if categories is not None else asked.categories or ()),
            purpose=Purpose(asked.purpose),
            until_ms=asked.until_ms,
            by=by,
            answers=request,
        )
