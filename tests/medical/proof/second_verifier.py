"""A second verifier of proof files, written from ``docs/protocols/proof.md`` and what it cites.

It shares nothing with the project: cbor2, hashlib and the bare Ed25519 check of libsodium.
Asserts are its whole error handling; ``verify`` returns what was proven or raises.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import cbor2
from nacl import bindings


def h(data: bytes, person: bytes = b"") -> bytes:
    return blake2b(data, digest_size=32, person=person).digest()


def enc(value: Any) -> bytes:
    return cbor2.dumps(value, canonical=True)


def dec(raw: bytes) -> Any:
    value = cbor2.loads(raw)
    assert enc(value) == raw, "not the one spelling"
    return value


def shape(value: Any, *kinds: type | tuple[type, ...]) -> Any:
    assert type(value) is list, "no array"
    assert len(value) == len(kinds), "an array of another length"
    for item, kind in zip(value, kinds, strict=True):
        assert isinstance(item, kind), "a field of another type"
        assert not (kind is int and isinstance(item, bool)), "a truth value for a number"
    return value


def signed(key: bytes, signature: bytes, message: bytes) -> None:
    assert len(key) == 32, "no key"
    assert len(signature) == 64, "no signature"
    bindings.crypto_sign_open(signature + message, key)


def cose(raw: bytes, purpose: str, network: bytes) -> tuple[bytes, bytes, bytes]:
    """Signer, payload and id of a COSE_Sign1 message whose signature holds."""
    protected, unprotected, payload, signature = shape(dec(raw), bytes, dict, bytes, bytes)
    assert unprotected == {}, "an unprotected header"
    signer = protected[-32:]
    assert protected == enc({1: -8, 4: signer}), "another protected header"
    structure = enc(["Signature1", protected, enc(["p2pmed/1", purpose, network]), payload])
    signed(signer, signature, structure)
    return signer, payload, h(structure)


def credential(chain: list[bytes], roots: list[bytes], network: bytes) -> list[Any]:
    """The leaf of a chain."""
    above: list[Any] | None = None
    assert 1 <= len(chain) <= 3, "no chain"
    seen: set[bytes] = set()
    for raw in chain:
        signer, payload, _ = cose(raw, "credential", network)
        now = shape(
            dec(payload), int, bytes, bytes, bytes, str, list, str, list, int, int, bytes, bytes
        )
        assert now[0] == 1
        assert now[1] == network
        assert now[11] == signer
        assert now[8] < now[9]
        assert now[2] not in seen
        assert now[2] != signer
        seen.add(now[2])
        if above is None:
            assert signer in roots, "no root"
        else:
            assert signer == above[2], "the chain is broken"
            assert set(now[5]) | set(now[7]) <= set(above[7]), "roles it may not give"
            place, inner = above[6], now[6]
            assert place in ("", inner) or inner.startswith(place + "/"), "another place"
            assert above[8] <= now[8]
            assert now[9] <= above[9]
        above = now
    assert above is not None
    return above


def quorum(epoch: list[Any]) -> int:
    return (len(epoch[3]) + epoch[2]) // 2 + 1


def sound(epoch: list[Any]) -> None:
    ledger, number, liars, validators = shape(epoch, bytes, int, int, list)
    assert len(ledger) == 32
    assert number >= 0
    assert 1 <= len(validators) <= 20
    assert 0 <= liars <= (len(validators) - 1) // 3
    for each in validators:
        shape(each, bytes, bytes)
    for column in (0, 1):
        assert len({each[column] for each in validators}) == len(validators)


def header_digest(header: Any) -> bytes:
    shape(header, int, bytes, int, int, int, bytes, int, int, bytes)
    assert header[0] == 1
    return h(enc(header))


def light_block(block: Any, epoch: list[Any], base: tuple[int, bytes]) -> tuple[Any, Any]:
    """Header and summary of a block that ``epoch`` made final, above ``base``."""
    header, summary, above, certificate = shape(block, list, list, list, list)
    digest = header_digest(header)
    assert header[1:3] == epoch[:2], "another epoch"
    assert header[4] > base[0]
    assert header[7] < len(epoch[3])
    if header[4] == base[0] + 1:
        assert header[5] == base[1], "another parent"
    shape(summary, int, int, int, bytes, bytes, int, bytes, bytes, bytes)
    assert summary[0] == 1
    assert header[8] == h(enc(summary))
    last = header
    assert len(above) <= 64
    for each in above:
        assert header_digest(each)
        assert each[1:3] == epoch[:2]
        assert each[5] == digest
        assert each[4] == last[4] + 1
        last, digest = each, header_digest(each)
    ledger, number, kind, view, about, bits, votes = shape(
        certificate, bytes, int, int, int, bytes, int, list
    )
    assert [ledger, number, kind, view, about] == [*epoch[:2], 3, last[3], digest]
    seats = [seat for seat in range(20) if bits >> seat & 1]
    assert bits >> len(epoch[3]) == 0
    assert len(seats) == len(votes) >= quorum(epoch)
    message = enc(["p2pmed/1", "vote", ledger, number, kind, view, about])
    for seat, vote in zip(seats, votes, strict=True):
        signed(epoch[3][seat][1], vote, message)
    return header, summary


def climb(leaf: bytes, index: int, count: int, path: list[bytes]) -> bytes:
    """RFC 9162, section 2.1.3.2, with BLAKE2b-256."""
    assert 0 <= index < count
    node, width, rest = h(b"\x00" + leaf), count, list(path)
    while width > 1:
        if index ^ 1 < width:
            sibling = rest.pop(0)
            assert len(sibling) == 32
            node = h(b"\x01" + (sibling + node if index & 1 else node + sibling))
        index, width = index >> 1, (width + 1) >> 1
    assert not rest, "a path too long"
    return node


def ordered(part: Any, roots: list[bytes], network: bytes) -> dict[str, Any]:
    founding, handovers, block, placed, entry, chain = shape(
        part, list, list, list, list, bytes, list
    )
    genesis, signatures, chains = shape(founding, list, list, list)
    shape(genesis, int, bytes, str, str, int, list, bytes, int, bytes, bytes, int, bytes)
    assert genesis[0] == 1
    assert genesis[1] == network
    assert genesis[3] in ("bft", "raft")
    assert genesis[3] == "bft" or genesis[4] == 0
    ledger = h(enc(genesis), b"genesis")
    epoch = [ledger, 0, genesis[4], genesis[5]]
    sound(epoch)
    assert len(genesis[5]) == len(signatures) == len(chains)
    for (node, _), signature, words in zip(genesis[5], signatures, chains, strict=True):
        assert cose(signature, "genesis", network)[:2] == (node, ledger), "another founder"
        assert credential(words, roots, network)[2] == node
    base = (0, ledger)
    for handover in handovers:
        seal, following = shape(handover, list, list)
        header, summary = light_block(seal, epoch, base)
        sound(following)
        assert summary[8] == h(enc(following), b"epoch")
        assert summary[5] > 0
        assert following[:2] == [ledger, epoch[1] + 1]
        epoch, base = following, (header[4], header_digest(header))
    header, summary = light_block(block, epoch, base)
    signer, payload, name = cose(entry, "transaction", network)
    envelope = dec(payload)
    index, path, code, other, verdict_path = shape(placed, int, list, str, bytes, list)
    assert len(other) in (0, 32)
    assert other != bytes(32)
    assert climb(name, index, summary[5], path) == summary[4], "not in the block"
    leaf = name + other.ljust(32, b"\x00") + code.encode("ascii")
    assert climb(leaf, index, summary[5], verdict_path) == summary[6], "another verdict"
    author = credential(chain, roots, network)
    assert author[2] == signer, "another's credential"
    return {
        "id": name,
        "header": header,
        "time": summary[2],
        "envelope": envelope,
        "author": author,
        "verdict": code,
        "epoch": epoch[1],
        "chains": chains,
    }


def verify(raw: bytes) -> dict[str, Any]:
    """What the file proves. Raises on anything that does not hold."""
    file = dec(raw)
    assert type(file) is list
    assert len(file) == 5
    assert file[0] == "p2pmed/1 proof"
    _, manifest_raw, record, anchored, opened = file
    signer, payload, _ = cose(manifest_raw, "manifest", b"")
    manifest = shape(dec(payload), int, str, list, int, bytes)
    network, roots = h(manifest_raw), manifest[2]
    assert signer == roots[0], "another manifest"
    found = ordered(record, roots, network)
    found["network"] = network
    if anchored is not None:
        headers, part = shape(anchored, list, list)
        anchor = ordered(part, roots, network)
        assert anchor["envelope"][8] == "county.anchor"
        assert anchor["verdict"] == "applied"
        for words in (*anchor["chains"], part[5]):
            assert {"county", "hospital"} & set(credential(words, roots, network)[5])
        ledger, start, height, head, _ = anchor["envelope"][13]
        last = found["header"]
        assert ledger == last[1]
        assert start < last[4] <= height
        for header in headers:
            assert header_digest(header)
            assert header[5] == header_digest(last)
            assert header[4] == last[4] + 1
            last = header
        assert (last[4], header_digest(last)) == (height, head)
        found["anchored"] = height
    if opened is not None:
        salt, resource = shape(opened, bytes, bytes)
        body = found["envelope"][13]
        sealed = body[0] if found["envelope"][8] == "record.add" else body[2]
        assert len(salt) == 32
        assert sealed[3] == h(salt + resource, b"p2pmed record")
        found["resource"] = resource
    return found
