"""An examination that exists is told of, by code and window."""

from __future__ import annotations

import json

from p2pmed.medical.care.exams import DEFAULT_DAYS, WINDOW_DAYS, Examined, codes_of, warnings

DAY = 86_400_000
NOW = 20_000 * DAY


def result(code: str, days_ago: int | None, /, **fields: object) -> Examined:
    resource = {
        "resourceType": "Observation",
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": code}]},
        **fields,
    }
    return Examined(
        record=bytes([len(code)]) * 32,
        resource=json.dumps(resource).encode(),
        occurred_ms=None if days_ago is None else NOW - days_ago * DAY,
    )


def told(orders: list[str], *results: Examined) -> list[tuple[str, int]]:
    return [(each.code, each.days) for each in warnings(orders, results, now_ms=NOW)]


def test_a_result_warns_inside_its_window_only() -> None:
    """On the last day of it still; on the next no more; each code has its own window."""
    within = WINDOW_DAYS["4548-4"]
    assert told(["4548-4"], result("4548-4", within - 1)) == [("4548-4", within - 1)]
    assert told(["4548-4"], result("4548-4", within)) == []
    assert told(["9999-9"], result("9999-9", DEFAULT_DAYS - 1)) == [("9999-9", DEFAULT_DAYS - 1)]
    assert told(["9999-9"], result("9999-9", DEFAULT_DAYS)) == []


def test_what_is_measured_each_time_warns_never() -> None:
    """A temperature of this morning does not make another one superfluous."""
    assert told(["8310-5"], result("8310-5", 0)) == []


def test_the_newest_result_is_told() -> None:
    """Of several the newest; one from the future, by a wrong clock, is new."""
    assert told(["4548-4"], result("4548-4", 20), result("4548-4", 3)) == [("4548-4", 3)]
    assert told(["4548-4"], result("4548-4", -5)) == [("4548-4", 0)]


def test_what_is_no_finished_result_warns_of_nothing() -> None:
    """Another code, another system, a cancelled result, one without a date, one that is no JSON."""
    assert told(["4548-4"], result("718-7", 1)) == []
    assert told(["4548-4"], result("4548-4", None)) == []
    assert told(["4548-4"], result("4548-4", 1, status="cancelled")) == []
    assert told(["4548-4"], result("4548-4", 1, resourceType="Condition")) == []
    other = {"coding": [{"system": "urn:other", "code": "4548-4"}]}
    assert told(["4548-4"], result("4548-4", 1, code=other)) == []
    for raw in (b"not json", b"[]", b'{"resourceType":"Observation","code":{"coding":{}}}'):
        assert codes_of(raw) == ()
