"""Recorded histories: what an outcome means, which words may not be taken back, whose prefix."""

from __future__ import annotations

from itertools import count
from pathlib import Path

from p2pmed.testing.census import Census, HomeCount
from p2pmed.testing.histories import History, Promise, prefix_faults, unlinearizable
from p2pmed.testing.linearizable import UNKNOWN

LEDGER = bytes(32)


def history() -> History:
    ticks = count(1)
    return History(clock=lambda: next(ticks))


def done(h: History, call: tuple[str, ...], output: object = None, what: str = "ok") -> None:
    """One client asks one thing."""
    h.end(h.invoke(h.client(), "x", call), what, output)  # type: ignore[arg-type]


def test_a_failed_operation_did_not_happen_and_an_unknown_one_never_ended() -> None:
    """*fail* is not given to the checker; *info* and what is still open may happen for ever."""
    h = history()
    done(h, ("write", "a"), what="fail")
    done(h, ("write", "b"), what="info")
    h.invoke(h.client(), "x", ("write", "c"))
    done(h, ("read",), "b")
    found = {operation.call: operation for _, operation in h.operations()}
    assert set(found) == {("write", "b"), ("write", "c"), ("read",)}
    assert found["write", "b"].ended is None
    assert found["write", "c"].output is UNKNOWN
    assert unlinearizable(h) == ([], [])
    assert h.counts() == {"ok": 1, "fail": 1, "info": 1, "open": 1}


def test_a_read_of_what_failed_is_a_violation() -> None:
    """A write that was refused and is read nevertheless explains no order."""
    h = history()
    done(h, ("write", "a"), what="fail")
    done(h, ("read",), "a")
    assert unlinearizable(h) == (["x"], [])


def test_registers_are_judged_apart() -> None:
    """A stale read of one register does not blame another."""
    h = history()
    for key in ("good", "bad"):
        for value in ("1", "2"):
            h.end(h.invoke(h.client(), key, ("write", value)), "ok")
        h.end(h.invoke(h.client(), key, ("read",)), "ok", "2" if key == "good" else "1")
    assert unlinearizable(h) == (["bad"], [])


def test_a_history_survives_its_file(tmp_path: Path) -> None:
    """What is read back is what was recorded."""
    h = history()
    done(h, ("cas", "a", "b"), False)
    done(h, ("read",), None)
    h.write(tmp_path / "history.jsonl")
    assert History.read(tmp_path / "history.jsonl").events == h.events


def test_final_is_said_once_for_ever() -> None:
    """Another height or verdict for the same transaction is a broken promise, whoever says it."""
    h = history()
    for height, verdict, who in ((3, "applied", "a"), (3, "applied", "b"), (4, "applied", "c")):
        h.promise(Promise(entry="ab" * 32, height=height, verdict=verdict, told_by=who))
    assert len(h.broken) == 1
    assert "a said applied at 3, c says applied at 4" in h.broken[0]


def census(**chains: str) -> Census:
    """Homes by name, each with a block a letter."""
    return Census(
        {
            name: HomeCount(
                blocks={(LEDGER, n): letter.encode() for n, letter in enumerate(chain, start=1)}
            )
            for name, chain in chains.items()
        }
    )


def test_every_ledger_is_a_prefix_of_the_longest() -> None:
    """Shorter is allowed, different is not; the first difference is named."""
    assert prefix_faults(census(a="xyz", b="xy", c=""), LEDGER) == []
    assert prefix_faults(census(a="xyz", b="xq"), LEDGER) == ["b: another block at height 2"]
