"""A vault as the node sees it, wherever its inside runs: a ``Keeper`` of patients' keys.

Rule of this file: methods in, one question each, an answer or the error that the vault named.
Calls block for as long as the vault computes (a tenth of a millisecond; 0.1 s where words are
stretched, which callers put in a thread). ``ask`` may be called from several threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from p2pmed.engine import Entropy
from p2pmed.errors import InvariantError, Locked
from p2pmed.identity.persons import Countersignature
from p2pmed.identity.sealing import box_id
from p2pmed.identity.stretching import Cost
from p2pmed.medical.category_keys import Category, KeptRow
from p2pmed.medical.keyring import Wrapped
from p2pmed.node.vault import messages as m
from p2pmed.node.vault.core import ERRORS, VaultCore
from p2pmed.wire import cbor, codec

__all__ = ["KeptBox", "Vault", "inside"]

A = TypeVar("A")


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class KeptBox:
    """An X25519 secret in a vault: a ``sealing.BoxSecret``."""

    vault: Vault
    public: bytes
    """X25519 public key (32 bytes)."""

    def unwrap(self, wrapped: bytes, *, domain: str, context: Sequence[bytes | str]) -> bytes:
        """As ``sealing.unwrap``; refuses what must stay in the vault."""
        return self.vault.unwrap(box_id(self.public), wrapped, domain=domain, context=context)


class Vault:
    """One session's vault. ``end`` closes it for good; afterwards everything is ``Locked``."""

    def __init__(
        self, ask: Callable[[m.Ask], m.Answer], *, end: Callable[[], None] = lambda: None
    ) -> None:
        self._ask = ask
        self._end = end
        self._over = False

    def __repr__(self) -> str:
        return f"<Vault {'ended' if self._over else 'open'}>"

    def end(self) -> None:
        """Let nothing of it be left; safe to call again."""
        self._over = True
        self._end()
        self._ask = _ended

    @property
    def ended(self) -> bool:
        """Whether ``end`` was called."""
        return self._over

    def _put(self, ask: m.Ask, kind: type[A]) -> A:
        answer = self._ask(ask)
        if isinstance(answer, m.Failed):
            raise ERRORS.get(answer.error, Locked)(answer.text, hint=answer.hint)
        if not isinstance(answer, kind):
            raise InvariantError("the vault answered another question")
        return answer

    def begin(
        self, file: bytes, words: str, *, device: bytes, pepper: bytes, by_pin: bool = False
    ) -> m.Begun:
        """Open a staff member's file; takes 0.1 s. Raises ``Locked`` or ``ConfigError``."""
        ask = m.Begin(file=file, words=words, device=device, pepper=pepper, by_pin=by_pin)
        return self._put(ask, m.Begun)

    # --- medical.category_keys.Keeper -------------------------------------------------------

    def open_keys(
        self, box: bytes, wrapped: bytes, network: bytes, patient: bytes, purpose: str
    ) -> list[KeptRow]:
        """See ``Keeper.open_keys``."""
        ask = m.OpenKeys(box, wrapped, network, patient, purpose)
        return list(self._put(ask, m.Rows).rows)

    def make_keys(
        self, patient: bytes, categories: Sequence[Category], epoch: int, locks: Sequence[bytes]
    ) -> list[KeptRow]:
        """See ``Keeper.make_keys``."""
        ask = m.MakeKeys(patient, tuple(categories), epoch, tuple(locks))
        return list(self._put(ask, m.Rows).rows)

    def take_key(self, key: bytes) -> bytes:
        """See ``Keeper.take_key``."""
        return self._put(m.TakeKey(key), m.Data).data

    def open_locked(self, patient: bytes, key_id: bytes, locked: bytes, secret: bytes) -> bytes:
        """See ``Keeper.open_locked``."""
        return self._put(m.OpenLocked(patient, key_id, locked, secret), m.Data).data

    def wrap_keys(
        self, rows: Sequence[KeptRow], key: bytes, network: bytes, patient: bytes, purpose: str
    ) -> bytes:
        """See ``Keeper.wrap_keys``."""
        return self._put(m.WrapKeys(tuple(rows), key, network, patient, purpose), m.Data).data

    def derive(self, handle: bytes, salt: bytes, info: bytes) -> bytes:
        """See ``Keeper.derive``."""
        return self._put(m.Derive(handle, salt, info), m.Data).data

    def mac(self, handle: bytes, message: bytes) -> bytes:
        """See ``Keeper.mac``."""
        return self._put(m.Mac(handle, message), m.Data).data

    # --- boxes ------------------------------------------------------------------------------

    def unwrap(
        self, box: bytes, wrapped: bytes, *, domain: str, context: Sequence[bytes | str]
    ) -> bytes:
        """What is wrapped to a box here. Raises ``Denied`` or ``DecodeError``."""
        plain = [str(part) if isinstance(part, str) else part for part in context]
        return self._put(m.Unwrap(box, wrapped, domain, cbor.encode(plain)), m.Data).data

    def kept(self, publics: Iterable[bytes]) -> dict[bytes, KeptBox]:
        """Boxes by ``box_id``, for those of ``publics`` that are here."""
        return {box_id(public): KeptBox(self, public) for public in publics}

    def open_facility(
        self, box: bytes, wrapped: bytes, *, network: bytes, place: str, epoch: int
    ) -> list[bytes]:
        """Take in a facility's secrets; their public halves, the newest first."""
        ask = m.OpenFacility(box, wrapped, network, place, epoch)
        return list(self._put(ask, m.Many).items)

    def make_facility(
        self,
        older: Sequence[bytes],
        devices: Sequence[bytes],
        *,
        network: bytes,
        place: str,
        epoch: int,
    ) -> tuple[bytes, tuple[Wrapped, ...]]:
        """A facility's new key: the public half, and the wraps to ``devices``.

        ``older`` are ``box_id`` of secrets that are handed on, the newest first.
        """
        ask = m.MakeFacility(tuple(older), tuple(devices), network, place, epoch)
        public, *wraps = self._put(ask, m.Many).items
        pairs = zip(devices, wraps, strict=True)
        return public, tuple(Wrapped(grantee=box_id(key), wrapped=wrap) for key, wrap in pairs)

    def lend(self, secrets: Iterable[bytes]) -> list[bytes]:
        """Take in the secrets of a card on the table; their public halves."""
        return list(self._put(m.Lend(tuple(secrets)), m.Many).items)

    def take_back(self, boxes: Iterable[bytes]) -> None:
        """Forget the secrets of a card (by ``box_id``)."""
        self._put(m.TakeBack(tuple(boxes)), m.Data)

    # --- people -----------------------------------------------------------------------------

    def countersign(self, network: bytes, purpose: str, digest: bytes) -> Countersignature:
        """The word of the person whose session it is: ``PersonKeys.countersign``."""
        raw = self._put(m.Sign(network, purpose, digest), m.Data).data
        return codec.decode(raw, Countersignature)

    def add_staff(
        self, name: str, words: str, *, pepper: bytes, created_ms: int, cost: Cost
    ) -> bytes:
        """A new person's file on this device; takes 0.1 s. Raises ``ConfigError``."""
        return self._put(m.AddStaff(name, words, pepper, created_ms, cost), m.Data).data

    def new_words(self, words: str, *, pepper: bytes, cost: Cost) -> bytes:
        """This person's file under another passphrase. Raises ``ConfigError``."""
        return self._put(m.NewWords(words, pepper, cost), m.Data).data

    def new_pin(self, pin: str, *, cost: Cost) -> bytes:
        """This person's file with another PIN, or empty for none. Raises ``ConfigError``."""
        return self._put(m.NewPin(pin, cost), m.Data).data

    def rewrap(self, file: bytes) -> bytes:
        """Somebody's file with this device's box secrets. Raises ``ConfigError``."""
        return self._put(m.Rewrap(file), m.Data).data


def inside(entropy: Entropy) -> Vault:
    """A vault in this very process: for tests, and for programs that embed a node."""
    return Vault(VaultCore(entropy).answer)


def _ended(ask: m.Ask) -> m.Answer:
    return m.Failed("Locked", "the session is over", "unlock again: `p2pmed unlock`")
