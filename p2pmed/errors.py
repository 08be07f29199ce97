"""The exception tree, by whose fault it was.

Rule of this file: an exception says what was wrong, where, and (``hint``) what to do;
it never carries a key, a name or a diagnosis.

::

    P2pmedError
    ├── LocalProtocolError       our caller's fault; state unchanged
    │   ├── InvalidTransaction   a field of a transaction breaks its type's rule
    │   ├── ConfigError          a file, a form or a command line
    │   ├── Locked               the keystore is locked, or the passphrase is wrong
    │   └── Denied               no grant gives this reader the key
    ├── RemoteProtocolError      a peer's fault: drop the channel, keep the node
    │   └── DecodeError          bytes that are not the one spelling of a value
    ├── CredentialError          a statement of identity that does not hold
    ├── StorageError             the disk's: stop before the next send
    │   └── DiskFull
    └── InvariantError           ours; raised where safety must survive ``python -O``

A rule of a ledger that says no is none of these: it is a ``Verdict`` value.
"""

from __future__ import annotations

__all__ = [
    "ConfigError",
    "CredentialError",
    "DecodeError",
    "Denied",
    "DiskFull",
    "InvalidTransaction",
    "InvariantError",
    "LocalProtocolError",
    "Locked",
    "P2pmedError",
    "RemoteProtocolError",
    "StorageError",
]


class P2pmedError(Exception):
    """Root of all errors that p2pmed raises on purpose.

    ``str(error)`` is one sentence for a person; ``hint`` says what to do next, or is empty.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class LocalProtocolError(P2pmedError):
    """The embedding program or operator asked for something that cannot be; nothing changed."""


class InvalidTransaction(LocalProtocolError):
    """A transaction breaks its type's rule; the message names the field."""


class ConfigError(LocalProtocolError):
    """A file, a form or a command line is wrong."""


class Locked(LocalProtocolError):
    """The keystore is locked, or the passphrase does not open it."""


class Denied(LocalProtocolError):
    """No grant in force gives this reader the key."""


class RemoteProtocolError(P2pmedError):
    """A peer broke the protocol: its channel is dropped, the node goes on."""


class DecodeError(RemoteProtocolError):
    """Bytes are not the one canonical spelling of a value of the expected type."""


class CredentialError(P2pmedError):
    """A statement of identity does not hold: signature, chain, scope, network or time."""


class StorageError(P2pmedError):
    """The disk refused or lied; nothing that depends on the failed write was sent."""


class DiskFull(StorageError):
    """No room; what was acknowledged before is safe, and nothing new was."""


class InvariantError(P2pmedError):
    """A promise of our own does not hold; the node stops rather than guess."""
