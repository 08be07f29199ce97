"""The LAN of namespaces: who reaches whom, and that nothing is left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from p2pmed.errors import LocalProtocolError
from p2pmed.testing import namespaces
from p2pmed.testing.namespaces import Lan, lan, why_not

NAMES = Path("/run/netns")
reason = cache(why_not)
HEARD = """
import socket
asked = socket.socket()
asked.settimeout(0.7)
try:
    asked.connect(({address!r}, 9))
except ConnectionRefusedError:
    raise SystemExit(0)
except OSError:
    raise SystemExit(1)
"""


def hears(wires: Lan, one: int, other: int) -> bool:
    """Whether a question of ``one`` to ``other`` is answered: both ways are open."""
    program = HEARD.format(address=wires.address(other))
    command = [*wires.command(one), sys.executable, "-c", program]
    return subprocess.run(command, check=False).returncode == 0


@pytest.fixture
def permitted() -> None:
    if reason():
        pytest.skip(reason())


@pytest.mark.netns
@pytest.mark.usefixtures("permitted")
def test_a_cut_parts_hosts_until_it_is_healed() -> None:
    """Sides reach themselves only; a one-way cut leaves no answer; healing opens all."""
    with lan(3) as wires:
        assert hears(wires, 0, 1)
        wires.split([0], [1, 2])
        assert not hears(wires, 0, 1)
        assert hears(wires, 2, 1)
        wires.cut([(1, 0)])
        assert not hears(wires, 0, 1)
        assert hears(wires, 0, 2)
        wires.heal()
        assert hears(wires, 1, 0)


@pytest.mark.netns
@pytest.mark.usefixtures("permitted")
def test_nothing_is_left_even_by_a_test_that_was_killed() -> None:
    """An error in the block removes all; what a dead process left is removed by the next."""
    with pytest.raises(ZeroDivisionError), lan(1):
        _ = 1 // 0
    own = f"{namespaces.PREFIX}{os.getpid()}-"
    assert not [path for path in NAMES.iterdir() if path.name.startswith(own)]
    with subprocess.Popen(["true"]) as gone:
        pass
    left = f"{namespaces.PREFIX}{gone.pid}-hub"
    subprocess.run(["ip", "netns", "add", left], check=True)
    with lan(1) as one, lan(1) as other:
        assert not (NAMES / left).exists()
        assert one.command(0) != other.command(0)


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the programs a test can skip with a sentence."""
    monkeypatch.setenv("PATH", "")
    assert "nft" in why_not()


def test_a_lan_has_a_bound() -> None:
    """More hosts than addresses are refused before anything is made."""
    with pytest.raises(LocalProtocolError, match="201 hosts"), lan(201):
        pass
