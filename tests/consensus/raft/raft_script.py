"""Conversations of Raft cores as text: commands, and what came of them, to be read like minutes.

A script is a list of paragraphs: commands, a line ``----``, and what they printed. Nothing moves
by itself: messages wait on the wire until ``deliver`` or ``stabilize``, stores until ``persist``.
The dice always fall low, so that an election timeout is ten heartbeats.

=====================================  ======================================================
``mesh N [keep=K]``                    members, none of them started before; short logs
``rows S term=T [vote=V] [log=1,1,2]`` seat S restarts with these rows (empty entries)
``campaign S``                         everybody's patience ends, and S is the first to ask
``tick MS [S..]``                      time passes (for these seats)
``propose N [S..]``                    a body to be ordered arrives (at these seats)
``persist S [COUNT]``                  the oldest stores of S become durable
``deliver [A>B] [KIND]``               what is on the wire arrives (once: not what it causes)
``drop [A>B] [KIND]``                  what is on the wire is lost
``stabilize [S..]``                    persist and deliver (among these) until nothing moves
``late A>B``                           the oldest from A to B now comes last
``cut S..`` / ``heal``                 nothing passes to or from these seats
``crash S`` / ``restart S`` / ``wipe S``  without power; with its rows; without its rows
``sync A>B``                           certified blocks of A are handed to B
``leave S`` / ``transfer A>B``         S stops soon; A lets B lead
``read S TOKEN``                       a reader asks at S
``say A>B KIND field=value..``         a message that nobody sent
``log S..`` / ``status``               what they hold; what they are
=====================================  ======================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import raft_cores
from raft_cores import Core, rows_of
from raft_simulation import Book, keeping

from p2pmed.consensus.interface import Behind, Decide, Leave, Read, ReadAt, ReadFailed
from p2pmed.consensus.raft import messages

HIDDEN = ("mesh", "digest", "certificate", "entries", "attests", "decided", "idle")


def paragraphs(text: str) -> Iterator[tuple[list[str], str]]:
    """Commands and what they printed."""
    for part in text.strip().split("\n\n"):
        asked, _, printed = part.partition("----")
        yield asked.rstrip("\n").split("\n"), printed.strip("\n")


def replay(path: Path) -> str:
    """The script with what it prints now."""
    stage = Stage()
    told = []
    for commands, _ in paragraphs(path.read_text(encoding="utf-8")):
        for command in commands:
            if not command.startswith("#"):
                stage.obey(command)
        told.append("\n".join([*commands, "----", *stage.take()]).rstrip())
    return "\n\n".join(told) + "\n"


class Stage:
    """Cores, a wire, and who is cut off."""

    def __init__(self) -> None:
        self.cores: dict[int, Core] = {}
        self.down: dict[int, None] = {}
        self.wire: list[tuple[int, int, Any]] = []
        self.apart: tuple[int, ...] = ()
        self.keep = 512
        self._printed: list[str] = []
        self._seen: dict[int, int] = {}
        self._office: dict[int, str] = {}
        self._quiet = False

    def take(self) -> list[str]:
        printed, self._printed = self._printed, []
        return printed

    def obey(self, line: str) -> None:
        name, *words = line.split()
        options = dict(word.split("=") for word in words if "=" in word)
        plain = [word for word in words if "=" not in word]
        with keeping(self.keep):
            command: Callable[..., None] = getattr(self, f"do_{name}")
            command(*plain, **options)
            self._collect()

    # --- what comes out ---------------------------------------------------------------------

    def say(self, line: str) -> None:
        self._printed.append(line)

    def _collect(self) -> None:
        for seat, core in self.cores.items():
            out, core.out = core.out, []
            said: dict[str, int] = {}
            for to, message in out:
                others = [s for s in self.cores if s != seat] if to is None else [to]
                self.wire += [(seat, other, message) for other in others]
                line = f"{seat}>{'*' if to is None else to} {describe(message)}"
                said[line] = said.get(line, 0) + 1
            for line, times in ({} if self._quiet else said).items():
                self.say(line if times == 1 else f"{line} ({times} times)")
            new, self._seen[seat] = core.effects[self._seen.get(seat, 0) :], len(core.effects)
            for effect in new:
                match effect:
                    case Decide():
                        proof = "" if effect.certificate else " by a descendant"
                        number = effect.block.content.decode()
                        self.say(f"{seat} decides {effect.block.header.height} ({number}){proof}")
                    case Behind():
                        self.say(f"{seat} is behind {effect.height}")
                    case ReadAt():
                        self.say(f"{seat} read {effect.token} at {effect.height}")
                    case ReadFailed():
                        self.say(f"{seat} read {effect.token} failed")
            office = self._office_of(core)
            if seat not in self.down and self._office.get(seat) != office:
                self._office[seat] = office
                self.say(f"{seat} {office}")

    def _office_of(self, core: Core) -> str:
        status = core.status
        if status["role"] == "leader":
            return f"leads, term {status['term']}"
        if status["role"] != "follower":
            return f"is {status['role']}, term {status['term']}"
        whom = "nobody" if status["leader"] == -1 else status["leader"]
        return f"follows {whom}, term {status['term']}"

    # --- commands ---------------------------------------------------------------------------

    def do_mesh(self, members: str, keep: str = "512") -> None:
        self.keep = int(keep)
        self.cores = {seat: Core(int(members), seat) for seat in range(int(members))}
        self._office = {seat: self._office_of(core) for seat, core in self.cores.items()}

    def do_rows(self, seat: str, term: str, vote: str = "", log: str = "") -> None:
        terms = [int(t) for t in log.split(",") if t]
        rows = rows_of(int(term), int(vote) if vote else None, *terms)
        old = self.cores[int(seat)]
        self._start(int(seat), Core(len(self.cores), int(seat), rows=rows, now=old.now))

    def do_campaign(self, seat: str) -> None:
        for other in self._up():
            if other.seat != int(seat):
                other.now = raft_cores.Instant(other.now + 1_000)
        self.cores[int(seat)].wait(1_000)

    def do_tick(self, ms: str, *seats: str) -> None:
        for core in self._up(seats):
            core.wait(int(ms))

    def do_propose(self, number: str, *seats: str) -> None:
        for core in self._up(seats):
            core.hear(int(number))

    def do_persist(self, seat: str, count: str = "") -> None:
        self.cores[int(seat)].flush(int(count) if count else None)

    def do_deliver(self, *which: str) -> None:
        found = self._pick(which)
        for sender, to, message in found:
            gone = {sender, to} & set(self.apart) or to in self.down
            if not gone:
                self.cores[to].tell(sender, message)

    def do_drop(self, *which: str) -> None:
        self._pick(which)

    def do_late(self, pair: str) -> None:
        first = next(w for w in self.wire if f"{w[0]}>{w[1]}" == pair)
        self.wire = [w for w in self.wire if w is not first] + [first]

    def do_stabilize(self, *seats: str) -> None:
        among = [int(s) for s in seats] or list(self.cores)
        self._quiet = True
        for _ in range(100):
            for core in self._up():
                if core.seat in among:
                    core.flush()
            self._collect()
            found = [w for w in self.wire if w[0] in among and w[1] in among]
            if not found:
                break
            self.wire = [w for w in self.wire if w not in found]
            for sender, to, message in found:
                if not {sender, to} & {*self.apart, *self.down}:
                    self.cores[to].tell(sender, message)
        else:
            raise AssertionError("it does not stabilize")
        self._quiet = False

    def do_cut(self, *seats: str) -> None:
        self.apart = tuple(int(s) for s in seats)

    def do_heal(self) -> None:
        self.apart = ()

    def do_crash(self, *seats: str) -> None:
        for seat in seats:
            self.down[int(seat)] = None

    def do_restart(self, seat: str) -> None:
        self._restart(int(seat), self.cores[int(seat)].rows)

    def do_wipe(self, seat: str) -> None:
        self._restart(int(seat), {})

    def do_sync(self, pair: str) -> None:
        giver, taker = (self.cores[int(s)] for s in pair.split(">"))
        have = int(taker.status["floor"])
        for decide in giver.decided:
            if decide.block.header.height > have and decide.certificate is not None:
                taker.book.decide(decide.block)
                taker.certified(decide.block.header, decide.certificate)

    def do_leave(self, seat: str) -> None:
        self.cores[int(seat)].event(Leave())

    def do_transfer(self, pair: str) -> None:
        leader, to = (int(s) for s in pair.split(">"))
        core = self.cores[leader]
        core.perform(core.engine.hand_over(core.now, to))

    def do_read(self, seat: str, token: str) -> None:
        self.cores[int(seat)].event(Read(int(token)))

    def do_say(self, pair: str, kind: str, **fields: str) -> None:
        sender, to = (int(s) for s in pair.split(">"))
        values: dict[str, Any] = {"mesh": self.cores[to].mesh}
        for field in msgspec.structs.fields(getattr(messages, kind))[1:]:
            given = fields.get(field.name, "0")
            values[field.name] = given == "yes" if field.type is bool else int(given)
        self.cores[to].tell(sender, getattr(messages, kind)(**values))

    def do_log(self, *seats: str) -> None:
        for core in self._up(seats):
            log = core.engine._replica.log
            slots = [log.slot(i) for i in range(log.floor.index + 1, log.last_index + 1)]
            shown = [
                f"{s.index}/{s.term}" + (f"={s.block.content.decode()}" if s.block else "")
                for s in slots
                if s
            ]
            floor = f"floor {log.floor.index}/{log.floor.term}" if log.floor.index else ""
            self.say(f"{core.seat} holds {' '.join(filter(None, [floor, *shown])) or 'nothing'}")

    def do_status(self) -> None:
        for core in self._up():
            s = core.status
            voted = core.engine._replica.voted_for
            line = f"{core.seat} {self._office_of(core)}, voted {'-' if voted is None else voted}"
            line += f", log {s['log_last']}, commit {s['commit']}, decided {s['floor']}"
            self.say(line + (f", {s['trouble']}" if s["trouble"] else ""))

    # --- helpers ----------------------------------------------------------------------------

    def _up(self, seats: tuple[str, ...] = ()) -> list[Core]:
        return [
            core
            for seat, core in self.cores.items()
            if seat not in self.down and (not seats or str(seat) in seats)
        ]

    def _pick(self, which: tuple[str, ...]) -> list[tuple[int, int, Any]]:
        pairs = [w for w in which if ">" in w]
        kinds = [w for w in which if ">" not in w]
        found = [
            (a, b, message)
            for a, b, message in self.wire
            if (not pairs or f"{a}>{b}" in pairs) and (not kinds or type(message).__name__ in kinds)
        ]
        self.wire = [w for w in self.wire if not any(w is f or w == f for f in found)]
        return found

    def _restart(self, seat: int, rows: dict[bytes, bytes]) -> None:
        old = self.cores[seat]
        book = Book(heard=old.book.heard)
        for decide in old.decided:
            book.decide(decide.block)
        core = Core(
            len(self.cores),
            seat,
            rows=rows,
            book=book,
            tip=old.engine._finality.tip,
            certificate=old.engine._finality.tip_certificate,
            now=old.now,
        )
        core.decided = old.decided
        self._start(seat, core)

    def _start(self, seat: int, core: Core) -> None:
        self.down.pop(seat, None)
        self.cores[seat] = core
        self._seen[seat] = 0
        self._office[seat] = self._office_of(core)


def describe(message: Any) -> str:
    """One line of what a message says, for people."""
    words = [type(message).__name__]
    for name in message.__struct_fields__:
        if name not in HIDDEN:
            value = getattr(message, name)
            words.append(f"{name}={'yes' if value is True else 'no' if value is False else value}")
    if getattr(message, "entries", ()):
        words.append(f"entries={len(message.entries)}")
    if getattr(message, "attests", ()):
        words.append("signs=" + ",".join(str(a.height) for a in message.attests))
    return " ".join(words)
