"""The node itself: status, peers, any transaction by name, contradictions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from p2pmed.discovery.records import parse_address
from p2pmed.errors import ConfigError
from p2pmed.identity.keys import short_id
from p2pmed.identity.revocation import EVERY_SERIAL, Revocation, RevocationReason
from p2pmed.ledger.transaction import Entry
from p2pmed.medical.membership import member
from p2pmed.node.node import Node
from p2pmed.node.operations.arguments import Arguments, Operation, Report
from p2pmed.node.receipts import Receipt

__all__ = ["OPERATIONS", "describe_receipt"]


def describe_receipt(receipt: Receipt) -> dict[str, Any]:
    """A receipt as plain values."""
    place = receipt.final_place
    return {
        "id": receipt.id.hex(),
        "level": receipt.level,
        "verdict": receipt.verdict.code,
        "contradicts": receipt.verdict.other.hex() or None,
        "height": place.height if place else None,
        "ledger": place.ledger.hex() if place else None,
    }


async def status(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """What the node is doing."""
    return node.status()


async def peers(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Who is connected, and how well."""
    state = node.state()
    rows = []
    for view in node.replica.gossip.peers():
        known = member(state, view.peer)
        rows.append(
            {
                "device": view.peer.hex(),
                "short": short_id(view.peer),
                "name": known.name if known else None,
                "roles": list(known.roles) if known else [],
                "rtt_ms": view.rtt_ms,
                "heard_ms_ago": view.heard_ms_ago,
                "behind": view.behind,
                "in_step": view.in_step,
            }
        )
    return {"peers": rows, "discovery": node.shell.discovery_status}


async def submit(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Write any registered transaction: its kind's name and its fields as JSON.

    Bytes are given in hex. With ``wait_s`` it waits that long for finality.
    """
    name = arguments.text("kind", limit=64)
    kind = node.replica.registry.find(name, arguments.number("version", 1))
    if kind is None:
        raise ConfigError(f"no transaction type {name!r} is registered here")
    try:
        body = msgspec.convert(
            _by_position(arguments.object("fields"), kind.body), kind.body, dec_hook=_bytes
        )
    except msgspec.ValidationError as error:
        raise ConfigError(f"{name}: {error}") from None
    receipt = await node.submit(
        body,
        patient=arguments.key("patient", b"", size=16),
        refs=arguments.keys("refs"),
    )
    await wait_final(receipt, arguments)
    return describe_receipt(receipt)


async def wait_final(receipt: Receipt, arguments: Arguments) -> None:
    """Wait for finality as long as was asked; not reaching it is no error."""
    seconds = arguments.number("wait_s", 0, high=86_400)
    if seconds:
        try:
            await receipt.final(timeout=seconds)
        except TimeoutError:
            return


def _by_position(fields: Mapping[str, Any], body: type[Any]) -> list[Any]:
    """Fields by name, as the array that an array-like Struct is."""
    known = msgspec.structs.fields(body)
    unknown = sorted(set(fields) - {field.name for field in known})
    if unknown:
        raise ConfigError(f"no field {unknown[0]!r}; there are {', '.join(f.name for f in known)}")
    values = []
    for field in known:
        if field.name in fields:
            values.append(_unhex(fields[field.name]))
        elif field.default is not msgspec.NODEFAULT:
            values.append(field.default)
        else:
            raise ConfigError(f"the field {field.name!r} is missing")
    return values


def _unhex(value: Any) -> Any:
    """Bytes are written ``hex:...`` in JSON."""
    if isinstance(value, str) and value.startswith("hex:"):
        try:
            return bytes.fromhex(value[4:])
        except ValueError:
            raise ConfigError("a value that begins with hex: and is not hex") from None
    if isinstance(value, list):
        return [_unhex(item) for item in value]
    return value


def _bytes(kind: type[Any], value: Any) -> Any:
    raise ConfigError(f"a {kind.__name__} cannot be given as JSON")


async def show(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """One transaction that is here: its envelope, never a sealed body's contents."""
    receipt = node.receipt(arguments.key("id"))
    entry = node.find(receipt.id)
    assert entry is not None
    return {**describe_receipt(receipt), **_envelope(entry)}


def _envelope(entry: Entry) -> dict[str, Any]:
    envelope = entry.envelope
    return {
        "kind": envelope.kind,
        "author": entry.author.hex(),
        "seq": entry.seq,
        "wall": envelope.wall,
        "hlc": envelope.hlc,
        "subject": envelope.subject.hex() or None,
        "refs": [ref.hex() for ref in envelope.refs],
        "bytes": len(entry.raw),
    }


async def discrepancies(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Contradictions that people must resolve."""
    return {"discrepancies": node.discrepancies()}


async def logs(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """How many transactions of each device are on this disk."""
    held: dict[str, int] = {}
    for lane, next_seq in node.replica.logs.frontier():
        device = lane.author.hex()
        held[device] = held.get(device, 0) + next_seq
    return {"logs": held}


async def online(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Take the node off the network, or back: as pulling its cable."""
    node.shell.set_online(arguments.flag("on"))
    return {"online": node.shell.online}


async def dial(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Try to reach a peer at an address, now and for ever after."""
    address = arguments.text("address", limit=300)
    parse_address(address)
    node.dial(address)
    return {"address": address}


async def revoke(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Withdraw a device's credential: an ordered transaction that every ledger executes."""
    from p2pmed.node.operations.lookup import find_device

    device = find_device(node, arguments.text("device", limit=256))
    try:
        reason = RevocationReason(arguments.text("reason", RevocationReason.KEY_COMPROMISED.value))
    except ValueError:
        known = ", ".join(reason.value for reason in RevocationReason)
        raise ConfigError("reason: no such reason", hint=f"one of {known}") from None
    body = Revocation(
        subject=device,
        serial=EVERY_SERIAL,
        reason=reason,
        text=arguments.text("text", "", limit=256),
    )
    receipt = await node.submit(body)
    await wait_final(receipt, arguments)
    return {"device": device.hex(), **describe_receipt(receipt)}


OPERATIONS: Final[Mapping[str, Operation]] = {
    "general.status": status,
    "general.peers": peers,
    "general.submit": submit,
    "general.show": show,
    "general.discrepancies": discrepancies,
    "general.logs": logs,
    "general.revoke": revoke,
    "general.online": online,
    "general.dial": dial,
}
