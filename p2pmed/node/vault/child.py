"""A vault in a process of its own: begun, spoken to over a socket pair, and ended by force.

Rule of this file: the child has one end of a socket pair and nothing else: no network, no home,
no arguments; when the parent dies, however it dies, the socket ends and the child with it. A
frame is four bytes of length and a message (``messages.py``); a frame too long, a wait too long
or bytes that are none end the child, and with it the session. Ending is SIGKILL: what it held is
the kernel's to wipe, and no handler of ours could do better.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
from typing import Final

import msgspec

from p2pmed.errors import Locked
from p2pmed.node.vault import messages as m
from p2pmed.node.vault.face import Vault

__all__ = ["Child", "receive", "send", "spawn"]

HEAD_BYTES: Final = 4
WAIT_S: Final = 30.0
"""A slow machine stretches a passphrase in three seconds; nothing else takes a tenth."""
PRIVATE: Final = ("P2PMED_PASSPHRASE", "P2PMED_STAFF_PASSPHRASE", "P2PMED_PIN")

_ANSWERS: Final[msgspec.msgpack.Decoder[m.Answer]] = msgspec.msgpack.Decoder(m.Answer)
_ENCODER: Final = msgspec.msgpack.Encoder()


def send(end: socket.socket, message: msgspec.Struct) -> None:
    """One frame. Raises ``OSError``, and ``ValueError`` if it is too long."""
    raw = _ENCODER.encode(message)
    if len(raw) > m.FRAME_BYTES_MAX:
        raise ValueError("a frame that is too long")
    end.sendall(len(raw).to_bytes(HEAD_BYTES, "big") + raw)


def receive(end: socket.socket) -> bytes:
    """The bytes of one frame; empty at the end. Raises ``OSError`` or ``ValueError``."""
    head = _exactly(end, HEAD_BYTES)
    size = int.from_bytes(head, "big") if head else 0
    if size > m.FRAME_BYTES_MAX:
        raise ValueError("a frame that is too long")
    return _exactly(end, size) if head else b""


def _exactly(end: socket.socket, size: int) -> bytes:
    parts: list[bytes] = []
    while size:
        part = end.recv(size)
        if not part:
            return b""
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


class Child:
    """The parent's end."""

    def __init__(self, process: subprocess.Popen[bytes], end: socket.socket) -> None:
        self.pid = process.pid
        self._process = process
        self._end = end
        self._lock = threading.Lock()

    def ask(self, ask: m.Ask) -> m.Answer:
        """One question and its answer; ``Failed`` for ever after the child is gone."""
        with self._lock:
            try:
                send(self._end, ask)
                raw = receive(self._end)
                return _ANSWERS.decode(raw)
            except (OSError, ValueError, msgspec.MsgspecError):
                self.kill()
        gone = "unlock again: `p2pmed unlock`"
        return m.Failed(Locked.__name__, "the vault's process is gone", gone)

    def kill(self) -> None:
        """End the child, and wait until the kernel says that it is gone."""
        with contextlib.suppress(OSError):
            self._end.close()
        with contextlib.suppress(OSError):
            self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=WAIT_S)


def spawn() -> Vault:
    """A new vault in a new process; takes some 0.3 s, so callers put it in a thread.

    Raises ``OSError`` if there is no process to be had.
    """
    ours, theirs = socket.socketpair()
    ours.settimeout(WAIT_S)
    environment = {name: value for name, value in os.environ.items() if name not in PRIVATE}
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "p2pmed.node.vault.program"],
            stdin=theirs.fileno(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
            cwd="/",
            start_new_session=True,  # a key pressed in the terminal is not for it
        )
    except OSError:
        ours.close()
        raise
    finally:
        theirs.close()
    child = Child(process, ours)
    return Vault(child.ask, end=child.kill)
