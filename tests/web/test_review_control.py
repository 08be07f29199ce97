"""The control socket blames whose fault it is, and its log tells nobody's secrets."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from p2pmed.errors import ConfigError, LocalProtocolError
from p2pmed.node import operations as node_operations
from p2pmed.testing.homes import local_network
from p2pmed.web import control
from p2pmed.web.control import ask, serve_control


def ignore(progress: dict[str, Any]) -> None:
    """No progress is looked at here."""


async def test_an_error_of_the_program_behind_is_not_the_socket_s() -> None:
    """What an embedding program raises in the block comes out as it is."""
    async with local_network() as network:
        home = network.home("clinic")
        node = await network.open(home)
        with pytest.raises(FileNotFoundError, match="mine"):
            async with serve_control(node, home):
                raise FileNotFoundError("mine")


async def test_a_wrong_argument_is_named() -> None:
    """Not every value that cannot be read is bad JSON."""
    async with local_network() as network:
        home = network.home("clinic")
        node = await network.open(home)
        async with serve_control(node, home):
            fields = {"first": "hex:" + "11" * 32, "second": "hex:" + "22" * 32, "reason": "x"}
            values = {"kind": "discrepancy.report", "fields": fields, "refs": ["zz"]}
            with pytest.raises(LocalProtocolError, match="refs"):
                await ask(home, "general.submit", values, ignore)
        with pytest.raises(ConfigError, match="JSON"):
            control._values(b"[" * 100_000)


async def test_a_failing_operation_leaves_no_words_in_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An exception may carry a patient's name; the log names its type."""

    async def fails(*_: object) -> dict[str, Any]:
        raise ZeroDivisionError("Wang Fang")

    monkeypatch.setattr(control, "operations", lambda: {"general.status": fails})
    assert node_operations.operations()["general.status"] is not fails
    async with local_network() as network:
        home = network.home("clinic")
        node = await network.open(home)
        async with serve_control(node, home):
            with caplog.at_level(logging.INFO), pytest.raises(LocalProtocolError) as told:
                await ask(home, "general.status", {}, ignore)
    assert "ZeroDivisionError" in str(told.value)
    assert "ZeroDivisionError" in caplog.text
    assert "Wang" not in caplog.text + str(told.value)
