"""The checker of final blocks sees what is wrong with one, and shares nothing with the ledger."""

from __future__ import annotations

import msgspec
import pytest

from p2pmed.ledger import lthash
from p2pmed.ledger.state import Verdict
from p2pmed.ledger.stored import STORED_BYTES_MAX, StoredBlock
from p2pmed.node import events
from p2pmed.testing.clock import seeded
from p2pmed.testing.truths import Truths, certificate_fault, sum_of_rows
from p2pmed.testing.village import Village
from p2pmed.wire import codec, cose
from p2pmed.world import Space


@pytest.fixture(scope="module")
def village() -> Village:
    made = Village(1)
    assert made.form()
    for number in range(12):
        made.workload.write(seeded(number, "write"))
        made.simulation.run_for(300)
    assert made.simulation.run_until_settled(30_000)
    return made


def _finals(village: Village) -> list[tuple[bytes, events.Final]]:
    node = village.nodes[0]
    found = []
    for notice in node.notices:
        if isinstance(notice, events.Final):
            key = notice.ledger + notice.height.to_bytes(8, "big")
            raw = node.disk.durable(Space.BLOCK, key)
            assert raw is not None
            found.append((raw, notice))
    return found


def test_what_the_ledger_made_is_true(village: Village) -> None:
    """Every block passes, in order, for a second reader of the protocol pages."""
    truths = Truths()
    for raw, final in _finals(village):
        assert truths.block(raw, final.entries, final.verdicts, b"") == []


def test_each_lie_about_a_block_is_seen(village: Village) -> None:
    """Entries left out, in another order, other verdicts, another state."""
    raw, final = next(pair for pair in _finals(village) if len(pair[1].entries) > 1)
    applied = tuple(Verdict(code="consent_missing") for _ in final.verdicts)
    assert Truths().block(raw, final.entries[1:], final.verdicts[1:], b"")
    assert Truths().block(raw, final.entries[::-1], final.verdicts[::-1], b"")
    assert Truths().block(raw, final.entries, applied, b"")
    assert Truths().block(raw, final.entries, final.verdicts, bytes(32))


def test_a_certificate_counts_only_with_its_own_signatures(village: Village) -> None:
    """Fewer, repeated, false, or of another block: none of them makes anything final."""
    home = village.nodes[0].home
    assert home is not None
    keys = [validator.vote_key for validator in home.epoch.validators]
    liars = home.epoch.liars
    for raw, _ in _finals(village):
        stored = codec.decode(raw, StoredBlock, limit=STORED_BYTES_MAX)
        certificate = stored.certificate
        if certificate is None:
            continue
        assert certificate_fault(raw, keys, liars, cose.verify) is None
        first = certificate.signatures[0]
        for lie in (
            {"signers": 1, "signatures": (first,)},
            {"signatures": (first,) * len(certificate.signatures)},
            {"digest": bytes(32)},
            {"kind": 1},
            {"view": certificate.view + 1},
            {"signers": certificate.signers << 8},
        ):
            changed = msgspec.structs.replace(certificate, **lie)
            other = codec.encode(msgspec.structs.replace(stored, certificate=changed))
            assert certificate_fault(other, keys, liars, cose.verify)


def test_a_sum_of_rows_is_the_ledgers_commitment() -> None:
    """Two implementations of one page agree."""
    rows = [(b"a", b"1"), (b"b", b""), (b"a" * 40, b"x" * 300)]
    total = lthash.changed(lthash.EMPTY, [(key, None, value) for key, value in rows])
    assert sum_of_rows(rows) == lthash.state_root(total)
    assert sum_of_rows(rows[1:]) != lthash.state_root(total)
