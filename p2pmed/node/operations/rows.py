"""One row of an application's own transaction types, as the mesh decided it.

Rule: only rows below ``x/`` are told, which are an application's own; what other rows mean is
for the operations of their families.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from p2pmed.errors import ConfigError, LocalProtocolError
from p2pmed.node.node import Node
from p2pmed.node.operations.arguments import Arguments, Operation, Report

__all__ = ["OPERATIONS"]

OWN_ROWS: Final = "x/"
ROW_CHARS_MAX: Final = 256


async def read(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """The row ``key`` of the certified state, in hex; ``null`` if there is none.

    With ``wait_s`` the read is linearizable: it shows whatever was final anywhere when it was
    asked, or fails after so many seconds without a quorum in reach.
    """
    key = arguments.text("key", limit=ROW_CHARS_MAX)
    if not key.startswith(OWN_ROWS):
        raise ConfigError(f"key: a row that begins with {OWN_ROWS} is needed")
    seconds = arguments.number("wait_s", 0, high=3_600)
    if seconds:
        try:
            await node.read_barrier(timeout=seconds)
        except TimeoutError:
            raise LocalProtocolError(
                f"no quorum confirmed the read within {seconds} s",
                hint="it needs a majority of the validators in reach",
            ) from None
    value = node.final_state().get(key.encode())
    return {"value": None if value is None else value.hex()}


OPERATIONS: Final[Mapping[str, Operation]] = {"rows.read": read}
