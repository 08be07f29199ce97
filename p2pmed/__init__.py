"""Village clinics form mesh ledgers on a LAN without internet, and sync with the county later.

>>> import p2pmed
>>> from p2pmed.medical import Dispense
>>> async def main():
...     async with p2pmed.open_node("clinic-a", passphrase="...") as node:
...         receipt = await node.submit(Dispense(...))
...         await receipt.final(timeout=5)

Heavy packages load when a node opens, not here.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from p2pmed.errors import (
    ConfigError,
    CredentialError,
    Denied,
    InvalidTransaction,
    LocalProtocolError,
    Locked,
    P2pmedError,
    RemoteProtocolError,
    StorageError,
)

if TYPE_CHECKING:
    from p2pmed.ledger.state import View
    from p2pmed.node.config import Config
    from p2pmed.node.events import Draft
    from p2pmed.node.node import Happening, Node, open_node
    from p2pmed.node.receipts import FinalPlace, Receipt
    from p2pmed.node.setup import answer_request, create_network, enrol, init_home
    from p2pmed.sync.founding import MeshPolicy
    from p2pmed.wire.codec import Wire

__version__ = "0.1.0"

__all__ = [
    "Config",
    "ConfigError",
    "CredentialError",
    "Denied",
    "Draft",
    "FinalPlace",
    "Happening",
    "InvalidTransaction",
    "LocalProtocolError",
    "Locked",
    "MeshPolicy",
    "Node",
    "P2pmedError",
    "Receipt",
    "RemoteProtocolError",
    "StorageError",
    "View",
    "Wire",
    "answer_request",
    "create_network",
    "enrol",
    "init_home",
    "open_node",
]

_WHERE = {
    "Config": "p2pmed.node.config",
    "Draft": "p2pmed.node.events",
    "FinalPlace": "p2pmed.node.receipts",
    "Happening": "p2pmed.node.node",
    "MeshPolicy": "p2pmed.sync.founding",
    "Node": "p2pmed.node.node",
    "Receipt": "p2pmed.node.receipts",
    "View": "p2pmed.ledger.state",
    "Wire": "p2pmed.wire.codec",
    "answer_request": "p2pmed.node.setup",
    "create_network": "p2pmed.node.setup",
    "enrol": "p2pmed.node.setup",
    "init_home": "p2pmed.node.setup",
    "open_node": "p2pmed.node.node",
}
"""Where a public name lives; it is imported when it is first used."""


def __getattr__(name: str) -> Any:
    module = _WHERE.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
