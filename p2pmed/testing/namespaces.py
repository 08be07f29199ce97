"""A small LAN of network namespaces: real links between real processes, cut as a test says.

One namespace holds a bridge; each host has a namespace of its own and a cable to the bridge. A
*cut* is a rule of nftables on the bridge that drops every frame from one host to another, so cuts
may be one-way, and neither end is told: what is cut just does not arrive.

Rule: nothing outside the namespaces is touched, and leaving ``lan`` removes them; what an earlier
test left because it was killed is removed before a new one is made. Linux with iproute2 and
nftables, and the right to make namespaces; ``why_not`` says in a sentence what is missing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Final

from p2pmed.errors import LocalProtocolError

__all__ = ["Lan", "lan", "why_not"]

PREFIX: Final = "p2pmed-"
HOSTS_MAX: Final = 200
COMMAND_S: Final = 20
PROGRAMS: Final = ("ip", "nft")
TABLE: Final = """
table bridge p2pmed {
  set cut { type ifname . ifname; }
  chain forward {
    type filter hook forward priority 0; policy accept;
    iifname . oifname @cut drop
  }
}
"""


def why_not() -> str:
    """Why no LAN can be made here, in a sentence; empty if one can."""
    if not sys.platform.startswith("linux"):
        return "network namespaces are Linux's"
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        return f"no {' and no '.join(missing)} here (packages iproute2 and nftables)"
    try:
        with lan(1):
            return ""
    except LocalProtocolError as error:
        return f"no right to make network namespaces: {error}"


_NUMBERS: Final = count(1)
"""LANs of this process; each has names of its own."""


class Lan:
    """Hosts 0, 1, ... on one bridge; made by ``lan``."""

    def __init__(self, hosts: int) -> None:
        self.count = hosts
        self._name = f"{PREFIX}{os.getpid()}-{next(_NUMBERS)}-"
        self._hub = self._name + "hub"

    def address(self, host: int) -> str:
        """The IPv4 address of a host."""
        return f"10.77.0.{host + 1}"

    def command(self, host: int) -> list[str]:
        """What to put before a command line so that it runs on ``host``, as the same process."""
        return ["ip", "netns", "exec", self._namespace(host)]

    def cut(self, pairs: Iterable[tuple[int, int]]) -> None:
        """From now on exactly these frames are lost: from the first host of a pair to the second.

        An empty list heals all.
        """
        wanted = ", ".join(f'"{_port(a)}" . "{_port(b)}"' for a, b in pairs)
        rules = "flush set bridge p2pmed cut\n"
        if wanted:
            rules += f"add element bridge p2pmed cut {{ {wanted} }}\n"
        self._rules(rules)

    def split(self, *sides: Iterable[int]) -> None:
        """Hosts of one side reach each other only."""
        groups = [tuple(side) for side in sides]
        self.cut(
            (a, b)
            for number, side in enumerate(groups)
            for other, beyond in enumerate(groups)
            if number != other
            for a in side
            for b in beyond
        )

    def heal(self) -> None:
        """Everybody reaches everybody."""
        self.cut(())

    def make(self) -> None:
        """Make the namespaces. Raises ``LocalProtocolError`` where that is not permitted."""
        _run("ip", "netns", "add", self._hub)
        hub = ("ip", "-n", self._hub)
        _run(*hub, "link", "add", "name", "bridge0", "type", "bridge")
        _run(*hub, "link", "set", "bridge0", "up")
        self._rules(TABLE)
        for host in range(self.count):
            self._add(host)

    def _add(self, host: int) -> None:
        space, hub = self._namespace(host), ("ip", "-n", self._hub)
        _run("ip", "netns", "add", space)
        cable = ("link", "add", "name", _port(host), "type", "veth", "peer", "name", "lan0")
        _run(*hub, *cable, "netns", space)
        _run(*hub, "link", "set", _port(host), "master", "bridge0", "up")
        inside = ("ip", "-n", space)
        _run(*inside, "address", "add", f"{self.address(host)}/24", "dev", "lan0")
        _run(*inside, "link", "set", "lan0", "up")
        _run(*inside, "link", "set", "lo", "up")

    def remove(self) -> None:
        """Remove what this LAN made; devices and rules go with their namespaces."""
        _remove(name for name in _namespaces() if name.startswith(self._name))

    def _namespace(self, host: int) -> str:
        return f"{self._name}{host}"

    def _rules(self, text: str) -> None:
        _run("ip", "netns", "exec", self._hub, "nft", "-f", "-", said=text)


@contextmanager
def lan(hosts: int) -> Iterator[Lan]:
    """A LAN of ``hosts`` hosts. Raises ``LocalProtocolError`` where that is not permitted."""
    if not 0 < hosts <= HOSTS_MAX:
        raise LocalProtocolError(f"{hosts} hosts where 1 to {HOSTS_MAX} can be")
    _remove(name for name in _namespaces() if _is_left_over(name))
    made = Lan(hosts)
    try:
        made.make()
        yield made
    finally:
        made.remove()


def _port(host: int) -> str:
    return f"port{host}"


def _namespaces() -> list[str]:
    """The named namespaces of this machine that are ours."""
    folder = Path("/run/netns")
    if not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if path.name.startswith(PREFIX))


def _is_left_over(name: str) -> bool:
    """Whether the process that made a namespace is gone."""
    owner = name.removeprefix(PREFIX).partition("-")[0]
    return owner.isdigit() and not Path(f"/proc/{owner}").exists()


def _remove(names: Iterable[str]) -> None:
    for name in names:
        subprocess.run(  # noqa: S603
            ["ip", "netns", "delete", name],  # noqa: S607
            capture_output=True,
            timeout=COMMAND_S,
            check=False,
        )


def _run(*command: str, said: str = "") -> None:
    """Run a command of the system. ``LocalProtocolError`` with its last line if it fails."""
    done = subprocess.run(  # noqa: S603
        command, input=said, capture_output=True, text=True, timeout=COMMAND_S, check=False
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no reason given"]
        raise LocalProtocolError(f"{' '.join(command[:4])}: {lines[-1]}")
