"""The vault's own program: ``python -m p2pmed.node.vault.program``, started by ``child.py``.

Rule of this file: standard input is a socket to the node, and all there is. It answers questions
until that ends. Nothing is logged, nothing is written; a question that cannot be read ends it.
"""

from __future__ import annotations

import contextlib
import socket
import sys
from typing import Final

import msgspec

from p2pmed.aio.clock import SystemEntropy
from p2pmed.aio.hardening import shield
from p2pmed.node.vault import messages as m
from p2pmed.node.vault.child import receive, send
from p2pmed.node.vault.core import VaultCore

__all__ = ["main", "serve"]

_ASKS: Final = msgspec.msgpack.Decoder(m.Ask)


def serve(end: socket.socket) -> None:
    """Answer until the other end closes, or says what is no question."""
    core = VaultCore(SystemEntropy())
    with contextlib.suppress(OSError, ValueError, msgspec.MsgspecError):
        while raw := receive(end):
            send(end, core.answer(_ASKS.decode(raw)))


def main() -> int:
    """Serve the socket at standard input; 0 when it closed."""
    shield(lock_memory=True)
    with socket.socket(fileno=sys.stdin.fileno()) as end:
        serve(end)
    return 0


if __name__ == "__main__":
    sys.exit(main())
