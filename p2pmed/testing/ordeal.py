"""Clients that write and read registers on real processes, while those are killed, stopped and cut.

Every client asks one node, over its control socket. Registers are used one after the other, a
few operations each, so that the checker's search stays short. The faults are drawn from a seed;
how the processes interleave is the machine's business, so a run is not repeatable, and what it
recorded is kept.

What is checked, of what was recorded and of the homes' bytes after the end:

* every register's history is linearizable (reads wait for a barrier);
* what any node called final has the same height and verdict at every node, for ever;
* every ledger is a prefix of the longest, with its certificates;
* once faults cease, everybody orders everything, and no process ended by itself.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from p2pmed.errors import P2pmedError
from p2pmed.testing.census import take_census
from p2pmed.testing.histories import History, Promise, prefix_faults, unlinearizable
from p2pmed.testing.processes import NotAsked, NotKnown, RealMesh, RealNode, Refused

__all__ = ["FAULTS", "Ordeal", "Report", "Stress"]

PER_REGISTER: Final = 40
"""Operations on one register before the next one is taken."""
PATIENCE_S: Final = 4
"""For a quorum; a client that waited so long does not know."""
ANSWER_S: Final = PATIENCE_S + 2.0
REST_S: Final = 0.2
"""Between a refused operation and the next."""
UNWRITTEN: Final = frozenset({"ConfigError", "InvalidTransaction", "DiskFull"})
"""Errors of a submission that say that nothing was written."""
QUIET_S: Final = (0.5, 2.5)
LASTS_S: Final = (0.5, 4.0)
SETTLE_S: Final = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stress:
    """How a run is to be."""

    seconds: float
    seed: int
    faults_min: int = 4
    """A slow machine goes on until there were so many faults, and ``answers_min`` answers."""
    answers_min: int = 50
    clients_per_node: int = 2
    faults: tuple[str, ...] = ()
    """Of ``FAULTS``; empty: all."""


@dataclass(slots=True)
class Report:
    """What a run did, and what was wrong."""

    history: History
    faults: Counter[str] = field(default_factory=Counter)
    """By their names."""
    done: Counter[str] = field(default_factory=Counter)
    """Processes killed, processes stopped, and partitions, in all faults together."""
    height: int = 0
    settled_s: float = 0.0
    """From the last fault's end until everybody had ordered everything."""
    violations: list[str] = field(default_factory=list)
    given_up: list[str] = field(default_factory=list)
    """Registers whose search was too long to finish."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "operations": dict(self.history.counts()),
            "registers": len({event.key for event in self.history.events}),
            "promises": len(self.history.promises),
            "faults": dict(sorted(self.faults.items())),
            **{name: self.done[name] for name in ("kills", "stops", "partitions")},
            "height": self.height,
            "settled_s": round(self.settled_s, 1),
            "violations": list(self.violations),
            "given_up": list(self.given_up),
        }


class Ordeal:
    """One run on a founded mesh whose nodes know the type ``register.set``.

    Its fields are ``key``, ``old`` (text; empty: whatever it was) and ``new``; its row is
    ``x/register/<key>``.
    """

    def __init__(self, mesh: RealMesh, stress: Stress) -> None:
        self.mesh = mesh
        self.report = Report(History())
        self._stress = stress
        self._dice = random.Random(stress.seed)
        self._operations = 0
        self._values = 0

    async def run(self) -> Report:
        """Load, faults, rest, and the checks. Processes have ended afterwards."""
        clients = [
            asyncio.create_task(self._client(node, random.Random(f"{self._stress.seed}/{name}")))
            for node in self.mesh.nodes
            for name in range(self._stress.clients_per_node)
        ]
        end = time.monotonic() + self._stress.seconds
        try:
            while time.monotonic() < end or not self._is_enough():
                await asyncio.sleep(self._dice.uniform(*QUIET_S))
                await self._fault()
            await asyncio.sleep(1.0)  # some operations on a mesh that is whole
        finally:
            for client in clients:
                client.cancel()
            await asyncio.gather(*clients, return_exceptions=True)
        await self._settle()
        await self._judge()
        return self.report

    def _is_enough(self) -> bool:
        """Whether the run says anything."""
        faults, answers = self.report.faults.total(), self.report.history.counts()["ok"]
        return faults >= self._stress.faults_min and answers >= self._stress.answers_min

    # --- clients ------------------------------------------------------------------------------

    async def _client(self, node: RealNode, dice: random.Random) -> None:
        number, seen = self.report.history.client(), ""
        while True:
            key = f"r{self._operations // PER_REGISTER}"
            self._operations += 1
            call = self._draw(dice, seen)
            begun = self.report.history.invoke(number, key, call)
            try:
                output = await self._do(node, key, call)
            except NotAsked as error:
                self.report.history.end(begun, "fail", str(error))
                await asyncio.sleep(REST_S)
            except NotKnown as error:
                self.report.history.end(begun, "info", str(error))
                number = self.report.history.client()
                await asyncio.sleep(REST_S)
            else:
                self.report.history.end(begun, "ok", output)
                seen = (output if call[0] == "read" else call[-1]) or ""

    def _draw(self, dice: random.Random, seen: str) -> tuple[str, ...]:
        """The next call of a client that last saw the value ``seen``."""
        kind = dice.choice(("read", "read", "write", "cas"))
        if kind == "read":
            return ("read",)
        self._values += 1
        value = f"v{self._values}"
        return ("cas", seen, value) if kind == "cas" and seen else ("write", value)

    async def _do(self, node: RealNode, key: str, call: tuple[str, ...]) -> Any:
        """Carry out one call. Raises ``NotAsked`` or ``NotKnown``."""
        if call[0] == "read":
            row = f"x/register/{key}"
            try:
                told = await node.ask("rows.read", ANSWER_S, key=row, wait_s=PATIENCE_S)
            except (NotKnown, Refused) as error:
                raise NotAsked(str(error)) from error  # a read without an answer changed nothing
            return bytes.fromhex(told["value"] or "").decode() or None
        old, new = call[1] if call[0] == "cas" else "", call[-1]
        fields = {"key": key, "old": old, "new": new}
        values = {"kind": "register.set", "fields": fields, "wait_s": PATIENCE_S}
        try:
            told = await node.ask("general.submit", ANSWER_S, **values)
        except Refused as error:
            raise (NotAsked if error.kind in UNWRITTEN else NotKnown)(str(error)) from error
        if told["height"] is None:
            raise NotKnown("not final yet")
        self._promised(node, told)
        return told["verdict"] == "applied" if call[0] == "cas" else None

    def _promised(self, node: RealNode, told: Mapping[str, Any]) -> None:
        said = Promise(
            entry=told["id"], height=told["height"], verdict=told["verdict"], told_by=node.name
        )
        self.report.history.promise(said)

    # --- faults -------------------------------------------------------------------------------

    async def _fault(self) -> None:
        """One fault, from its beginning to its end."""
        name = self._dice.choice(self._stress.faults or tuple(FAULTS))
        self.report.faults[name] += 1
        await FAULTS[name](self)
        for node in self.mesh.nodes:
            if node.has_died():
                self.report.violations.append(f"{node.name} ended by itself: {node.last_words()}")
                await node.kill()
                await node.start()

    async def _wait(self) -> None:
        await asyncio.sleep(self._dice.uniform(*LASTS_S))

    def _some(self, count: int) -> list[RealNode]:
        return self._dice.sample(self.mesh.nodes, count)

    async def kill_one(self) -> None:
        """SIGKILL, and a start some time after."""
        await self._kill(self._some(1))

    async def kill_leader(self) -> None:
        """SIGKILL to whoever leads now, as far as anybody says."""
        told = [await self.mesh.status(node) for node in self.mesh.nodes]
        seats = [status.get("seat") for status in told]
        leaders = [(status.get("consensus") or {}).get("leader") for status in told]
        leader = next((seat for seat in leaders if seat in seats), seats[0])
        await self._kill([self.mesh.nodes[seats.index(leader)]])

    async def kill_all(self) -> None:
        """A power cut in the whole village, as processes feel it."""
        await self._kill(self.mesh.nodes)

    async def _kill(self, nodes: list[RealNode]) -> None:
        self.report.done["kills"] += len(nodes)
        await asyncio.gather(*(node.kill() for node in nodes))
        await self._wait()
        await asyncio.gather(*(node.start() for node in nodes))
        for node in nodes:
            await self._remembers(node)

    async def _remembers(self, node: RealNode) -> None:
        """What was told to be final before a kill is final after it, at once."""
        own = [said for said in self.report.history.promises.values() if said.told_by == node.name]
        for said in own[-5:]:
            with suppress(NotKnown):
                await self._still(node, said)

    async def pause_one(self) -> None:
        """SIGSTOP: links stay open, nothing answers; then it goes on as if no time had passed."""
        node = self._some(1)[0]
        self.report.done["stops"] += 1
        node.pause()
        try:
            await self._wait()
        finally:
            node.resume()

    async def isolate_one(self) -> None:
        """One host reaches nobody."""
        alone = self._some(1)
        await self._split(alone)

    async def halves(self) -> None:
        """No side, or one, has a quorum."""
        await self._split(self._some(len(self.mesh.nodes) // 2))

    async def _split(self, side: list[RealNode]) -> None:
        hosts = [node.host for node in side]
        others = [node.host for node in self.mesh.nodes if node.host not in hosts]
        self.report.done["partitions"] += 1
        self.mesh.lan.split(hosts, others)
        await self._wait()
        self.mesh.lan.heal()

    async def one_way(self) -> None:
        """A host is heard and hears nothing, or the other way round."""
        host = self._some(1)[0].host
        others = [node.host for node in self.mesh.nodes if node.host != host]
        deaf = self._dice.random() < 0.5
        self.report.done["partitions"] += 1
        self.mesh.lan.cut((other, host) if deaf else (host, other) for other in others)
        await self._wait()
        self.mesh.lan.heal()

    async def cut_and_kill(self) -> None:
        """One is cut off, and another killed meanwhile."""
        cut, killed = self._some(2)
        self.report.done["partitions"] += 1
        self.mesh.lan.split([cut.host], [n.host for n in self.mesh.nodes if n is not cut])
        try:
            await self._kill([killed])
        finally:
            self.mesh.lan.heal()

    # --- the end ------------------------------------------------------------------------------

    async def _settle(self) -> None:
        start = time.monotonic()
        try:
            await self.mesh.settle(SETTLE_S)
        except TimeoutError as error:
            self.report.violations.append(f"no progress: {error}")
        self.report.settled_s = time.monotonic() - start

    async def _judge(self) -> None:
        report = self.report
        await asyncio.gather(*(self._ask_all_of(node) for node in self.mesh.nodes))
        await self.mesh.close()
        homes = {node.name: node.home for node in self.mesh.nodes}
        census = await take_census(homes, self.mesh.network)
        report.height = census.height(self.mesh.ledger)
        report.violations += prefix_faults(census, self.mesh.ledger)
        report.violations += report.history.broken
        wrong, report.given_up = await asyncio.to_thread(unlinearizable, report.history)
        report.violations += [f"register {key} is not linearizable" for key in wrong]

    async def _ask_all_of(self, node: RealNode) -> None:
        """Every promise of anybody, asked of one node."""
        for said in list(self.report.history.promises.values()):
            try:
                await self._still(node, said)
            except P2pmedError as error:
                self.report.violations.append(f"{node.name}, {said.entry[:12]}: {error}")
                return

    async def _still(self, node: RealNode, said: Promise) -> None:
        """Ask a node for what was said to be final. Raises ``NotAsked`` or ``NotKnown``."""
        try:
            told = await node.ask("general.show", ANSWER_S, id=said.entry)
        except Refused as error:
            self.report.violations.append(f"{node.name} lost {said.entry[:12]}: {error}")
            return
        if told["height"] is None:
            self.report.violations.append(f"{node.name} took back {said.entry[:12]}")
        else:
            self._promised(node, told)


FAULTS: Final[Mapping[str, Callable[[Ordeal], Awaitable[None]]]] = {
    "kill one": Ordeal.kill_one,
    "kill the leader": Ordeal.kill_leader,
    "kill all": Ordeal.kill_all,
    "pause one": Ordeal.pause_one,
    "isolate one": Ordeal.isolate_one,
    "halves": Ordeal.halves,
    "one way": Ordeal.one_way,
    "cut and kill": Ordeal.cut_and_kill,
}
