"""Who is at the device: patients' records open only while a staff member has unlocked it.

Rule of this file: the node gossips, votes and syncs unattended; what opens records is in a vault
(``node/vault``) that exists only between ``unlock`` and ``lock``. A session ends by command, when
nobody has asked for anything for a while, when the machine was asleep, and with the node. The
next person gets a vault of their own. ``node.sessions``.

What locking cannot do: take plaintext back out of this process's memory. References are dropped
and freed memory is given back, but Python overwrites nothing; the keys themselves were never here.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from p2pmed.aio.hardening import slept_s
from p2pmed.errors import ConfigError, Locked
from p2pmed.identity.staff import StaffFile
from p2pmed.identity.stretching import USUAL, Cost
from p2pmed.node import staff_files as files
from p2pmed.node.vault.face import KeptBox, Vault
from p2pmed.node.vault.messages import Begun

if TYPE_CHECKING:
    from p2pmed.identity.persons import Countersignature
    from p2pmed.node.node import Node

__all__ = ["IDLE_S", "Sessions"]

IDLE_S: Final = 300.0
"""Five minutes: a nurse called away locks without thinking of it."""
LOOK_S: Final = 1.0
SLEPT_S: Final = 2.0
"""A machine that was suspended longer than this comes back locked."""
HINT: Final = "a staff member must unlock it: `p2pmed unlock`"

_unattended: ContextVar[bool] = ContextVar("unattended", default=False)


class Sessions:
    """``node.sessions``: one person at a time."""

    def __init__(
        self,
        node: Node,
        *,
        home: Path | None = None,
        vault: Callable[[], Vault] | None = None,
        idle_s: float | None = None,
        cost: Cost = USUAL,
    ) -> None:
        self._node = node
        self._home = home
        self._vault_of = vault
        self._cost = cost
        self._vault: Vault | None = None
        self._begun: Begun | None = None
        self._pin_peppers: dict[bytes, bytes] = {}
        self._changing = asyncio.Lock()
        self._touched = time.monotonic()
        self._why = "nobody has unlocked it yet"
        self.idle_s = idle_s
        """Seconds without a request after which the session ends; ``None``: never."""

    def __repr__(self) -> str:
        return f"<Sessions {'unlocked' if self.unlocked else 'locked'}>"

    # --- now --------------------------------------------------------------------------------

    @property
    def unlocked(self) -> bool:
        """Whether somebody's session is open."""
        return self._vault is not None

    @property
    def vault(self) -> Vault:
        """The open session's vault. Raises ``Locked``."""
        if self._vault is None:
            raise Locked(f"this device is locked: {self._why}", hint=HINT)
        return self._vault

    def must_be_open(self) -> None:
        """Raises ``Locked`` unless somebody's session is open."""
        assert self.vault

    @property
    def actor(self) -> bytes:
        """Who signs for what is written now: the person's key; empty for nobody in person."""
        begun = self._begun
        return b"" if begun is None or begun.anonymous or _unattended.get() else begun.person

    @contextlib.contextmanager
    def unattended(self) -> Iterator[None]:
        """What this task writes in the block is the node's own doing, and names no person."""
        token = _unattended.set(True)
        try:
            yield
        finally:
            _unattended.reset(token)

    def boxes(self) -> dict[bytes, KeptBox]:
        """The device's box secrets by ``box_id``. Raises ``Locked``."""
        vault, begun = self.vault, self._begun
        assert begun is not None  # set and cleared with the vault
        return vault.kept(begun.boxes)

    def countersign(self, purpose: str, digest: bytes) -> Countersignature:
        """The word of whoever is at the device, for ``digest`` (32 bytes). Raises ``Locked``."""
        return self.vault.countersign(self._node.network, purpose, digest)

    def status(self) -> dict[str, Any]:
        """Who is unlocked, as plain values."""
        begun, now = self._begun, time.monotonic()
        left = None if self.idle_s is None else max(0, int(self.idle_s - (now - self._touched)))
        return {
            "locked": begun is None,
            "staff": begun.name if begun else None,
            "person": begun.person.hex() if begun and not begun.anonymous else None,
            "locks_in_s": left if begun else None,
            "why": "" if begun else self._why,
        }

    def touch(self) -> None:
        """Somebody asked for something: the session goes on."""
        self._touched = time.monotonic()

    # --- beginning and ending ---------------------------------------------------------------

    async def unlock(self, words: str, *, name: str = "", by_pin: bool = False) -> dict[str, Any]:
        """Begin the session of the staff member ``name``, in the place of any other.

        Takes 0.1 to 0.5 s. Raises ``Locked`` (other words, or a PIN that is shut or needs the
        passphrase first), ``ConfigError`` (nobody of that name). A failed or cancelled call
        leaves the earlier session as it was.
        """
        async with self._changing:
            home = self.folder
            file, raw = files.file_of(home, name)
            pepper = files.pepper_of(home)
            if by_pin:
                held = self._pin_peppers.get(file.person)
                if held is None:
                    raise Locked(
                        "a PIN needs the passphrase once after each start",
                        hint="unlock by passphrase first",
                    )
                pepper = held
                left = files.next_try(home, file.person)
            opening = asyncio.to_thread(self._open, raw, words, pepper, by_pin)
            try:
                vault, begun = await opening
            except Locked as locked:
                if by_pin:
                    raise Locked(str(locked), hint=f"{left} tries are left") from None
                raise
            files.forget_tries(home, file.person)
            self.lock("another person takes over")
            self._vault, self._begun = vault, begun
            if begun.pin_pepper:
                self._pin_peppers[begun.person] = begun.pin_pepper
            self.touch()
        return self.status()

    async def unlock_default(self, passphrase: str) -> bool:
        """Unlock whoever was made with the home, if ``passphrase`` opens it; whether it did."""
        known = files.every_staff(self.folder)
        first = next((file for file, _ in known if file.anonymous), None)
        if first is None:
            return False
        # A damaged file, or no pepper: the node serves its peers all the same.
        with contextlib.suppress(Locked, ConfigError):
            await self.unlock(passphrase, name=first.person.hex())
        return self.unlocked

    def _open(self, raw: bytes, words: str, pepper: bytes, by_pin: bool) -> tuple[Vault, Begun]:
        assert self._vault_of is not None  # ``folder`` has looked
        vault = self._vault_of()
        try:
            begun = vault.begin(raw, words, device=self._node.key, pepper=pepper, by_pin=by_pin)
        except BaseException:
            vault.end()
            raise
        return vault, begun

    def lock(self, why: str = "it was locked") -> None:
        """End the session: the vault is gone, and what was open is dropped. Safe to repeat."""
        vault, self._vault, self._begun = self._vault, None, None
        self._why = why
        if vault is None:
            return
        vault.end()
        self._node.opener.forget()
        self._node.search.forget_keys()
        gc.collect()
        _trim()

    async def watch(self, *, look_s: float = LOOK_S) -> None:
        """Lock when nobody asks, or after sleep; runs until it is cancelled."""
        slept = slept_s()
        while True:
            await asyncio.sleep(look_s)
            slept, before = slept_s(), slept
            if slept - before > SLEPT_S:
                self.lock("the machine was asleep")
            elif self.unlocked and self._is_idle():
                self.lock("nobody has used it for a while")

    def _is_idle(self) -> bool:
        return self.idle_s is not None and time.monotonic() - self._touched > self.idle_s

    # --- people -----------------------------------------------------------------------------

    def staff(self) -> list[StaffFile]:
        """Who may unlock this device."""
        return [file for file, _ in files.every_staff(self.folder)]

    async def add(self, name: str, words: str) -> bytes:
        """Let another person unlock this device; their new key (32 bytes).

        It must be unlocked: the device's secret is handed on by who has it.
        Raises ``Locked`` or ``ConfigError``.
        """
        home, vault = self.folder, self.vault
        raw = await asyncio.to_thread(
            vault.add_staff,
            name,
            words,
            pepper=files.pepper_of(home),
            created_ms=self._node.world.clock.wall_ms(),
            cost=self._cost,
        )
        return files.keep_staff(home, raw).person

    async def reset(self, name: str, words: str) -> bytes:
        """New keys for a person who forgot the passphrase; the new key (32 bytes).

        What the device may read the person may read again. Their own signature is another one:
        whoever qualified the old key qualifies the new one. Raises ``Locked``, ``ConfigError``.
        """
        home, vault = self.folder, self.vault
        old, _ = files.file_of(home, name)
        if self._begun is not None and old.person == self._begun.person:
            raise ConfigError("that is who is unlocked", hint="use `p2pmed staff passwd`")
        raw = await asyncio.to_thread(
            vault.add_staff,
            old.name,
            words,
            pepper=files.pepper_of(home),
            created_ms=self._node.world.clock.wall_ms(),
            cost=self._cost,
        )
        files.remove_staff(home, old.person)
        self._pin_peppers.pop(old.person, None)
        return files.keep_staff(home, raw).person

    def remove(self, name: str) -> bytes:
        """Let a person unlock no more; whose key it was. Raises ``Locked`` or ``ConfigError``.

        Who had the device's secret may have copied it: after a quarrel, enrol the device anew.
        """
        self.must_be_open()
        home = self.folder
        file, _ = files.file_of(home, name)
        files.remove_staff(home, file.person)
        self._pin_peppers.pop(file.person, None)
        if self._begun is not None and self._begun.person == file.person:
            self.lock("that person was removed")
        return file.person

    async def new_words(self, words: str) -> None:
        """Another passphrase for whoever is unlocked. Raises ``Locked`` or ``ConfigError``."""
        home, vault = self.folder, self.vault
        raw = await asyncio.to_thread(
            vault.new_words, words, pepper=files.pepper_of(home), cost=self._cost
        )
        files.keep_staff(home, raw)

    async def new_pin(self, pin: str) -> None:
        """Another PIN for whoever is unlocked; empty: none. Raises ``Locked``, ``ConfigError``."""
        home, vault = self.folder, self.vault
        raw = await asyncio.to_thread(vault.new_pin, pin, cost=self._cost)
        file = files.keep_staff(home, raw)
        files.forget_tries(home, file.person)

    @property
    def folder(self) -> Path:
        """The home. Raises ``ConfigError`` if this node has none."""
        if self._home is None or self._vault_of is None:
            raise ConfigError("this node has no home in which staff could be")
        return self._home


def _trim() -> None:
    """Give freed memory back to the kernel, where the C library can."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
