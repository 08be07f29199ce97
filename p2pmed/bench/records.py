"""Looking people up where there are many: by card, by name, their timeline, their summary.

Rule: a real home with a ledger, filled through the facade, and asked through it; keys are
forgotten before each question, as a session that just began has none. A limit is the least
that the answer needs with the same primitives: rows read from bare SQLite, keys unwrapped,
bodies opened.
"""

from __future__ import annotations

import asyncio
import hmac
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
from nacl import bindings

from p2pmed.bench.machine import Machine, open_bare, store_bare
from p2pmed.bench.people import Villager, villagers
from p2pmed.bench.results import CPU, Result, median_of, percentile, rate
from p2pmed.bench.size import Size
from p2pmed.bench.worker import PASSPHRASE
from p2pmed.identity import sealing
from p2pmed.medical.patients import patient_row
from p2pmed.medical.privacy.blind_index import SPREAD, Field, IndexUse
from p2pmed.node.config import Config
from p2pmed.node.node import Node, open_node
from p2pmed.node.setup import create_network, init_home, self_enrol

__all__ = ["LOOKUPS", "records_bench"]

LONG_LIFE: Final = 500
"""Records of the patient whose timeline is asked for."""
AT_ONCE: Final = 64
LOOKUPS: Final = 60
WORDS: Final = 2
"""Of a name that is asked for."""
ROWS: Final = 200_000
"""Of the bare table whose point reads are the limit."""
CODES: Final = ("I10", "E11.9", "J06.9", "J45.909", "M54.5", "K29.7", "N39.0", "A09")


async def records_bench(machine: Machine, size: Size) -> list[Result]:
    """``size.patients`` people, one of whom has a long life."""
    folder = machine.folder / "records"
    folder.mkdir()
    home = _home(folder)
    people = villagers(size.patients)
    async with open_node(home, passphrase=PASSPHRASE, config=_config(), network=False) as node:
        start = time.perf_counter()
        pseudonyms = await _fill(node, people)
        patient = pseudonyms[len(pseudonyms) // 2]
        await _live(node, patient)
        dice = random.Random(7)
        chosen = [dice.randrange(len(people)) for _ in range(LOOKUPS)]
        cards = [(await node.cards.first(pseudonyms[n])).text for n in dict.fromkeys(chosen)]
        filled = time.perf_counter() - start
    opening = time.perf_counter()
    async with open_node(home, passphrase=PASSPHRASE, config=_config(), network=False) as node:
        await node.catch_up()
        await node.search.patients(birth="1900-01-01")
        opened = time.perf_counter() - opening
        details = {
            "patients": len(people),
            "fill_s": round(filled, 1),
            "open_s": round(opened, 2),
            "home_mb": round(_bytes(home) / 1e6),
        }
        return await _asked(machine, node, [people[n] for n in chosen], cards, patient, details)


async def _asked(
    machine: Machine,
    node: Node,
    people: Sequence[Villager],
    cards: Sequence[str],
    patient: bytes,
    details: dict[str, Any],
) -> list[Result]:
    floor = _Floor(machine)
    full = [f"{one.family}{one.given}" for one in people]
    answers: list[int] = []

    async def by_name(text: str) -> None:
        answers.append(len((await node.search.patients(name=text, limit=100)).patients))

    results = [
        *await _timed(
            node,
            "lookup by card",
            [partial(_by_card, node, text) for text in cards],
            limit=floor.body_ms + floor.unwrap_ms,
            goal=50,
            told=lambda: details,
        ),
        *await _timed(
            node,
            "lookup by name",
            [partial(by_name, text) for text in full],
            limit=floor.tokens_ms(WORDS) + floor.body_ms + floor.unwrap_ms,
            goal=200,
            told=lambda: {"patients_found": median_of(answers)},
        ),
        *await _timed(
            node,
            "lookup by family name alone",
            [partial(by_name, one.family) for one in people[:20]],
            limit=floor.tokens_ms(1),
        ),
        *await _timed(
            node,
            f"timeline of {LONG_LIFE} records",
            [lambda: node.patients.timeline(patient) for _ in range(10)],
            limit=floor.body_ms * LONG_LIFE + floor.unwrap_ms,
            goal=100,
        ),
    ]
    summary = getattr(node, "summaries", None)
    if summary is not None:
        results += await _timed(
            node,
            f"summary of {LONG_LIFE} records",
            [lambda: summary.assemble(patient) for _ in range(5)],
            limit=floor.body_ms * LONG_LIFE + floor.unwrap_ms,
            goal=300,
        )
    return results


async def _timed(
    node: Node,
    name: str,
    questions: Sequence[Callable[[], Awaitable[Any]]],
    *,
    limit: float,
    goal: int = 0,
    told: Callable[[], dict[str, Any]] = dict,
) -> list[Result]:
    """Median and 95th percentile of some questions, each by a session that just began."""
    found, worked = [], []
    for ask in questions:
        node.patients.forget_keys()
        start, work = time.perf_counter(), CPU()
        await ask()
        found.append((time.perf_counter() - start) * 1_000)
        worked.append((CPU() - work) * 1_000)
    words = f"<= {goal} ms" if goal else ""
    limits: dict[str, Any] = {"limit": limit, "limit_name": "rows + keys + bodies, bare"}
    return [
        Result(
            name=name,
            value=median_of(found),
            unit="ms",
            goal=words,
            details={**told(), "cpu_ms": round(median_of(worked), 2)},
            **limits,
        ),
        Result(name=f"{name}, p95", value=percentile(found, 95), unit="ms", goal=words, **limits),
    ]


async def _by_card(node: Node, text: str) -> None:
    """A card's text: its signature, its row, the patient's keys and demographics."""
    scanned = node.cards.scan(text)
    assert scanned.row is not None
    row = patient_row(node.state(), scanned.row.patient)
    assert row is not None
    entry = node.find(row.entry)
    assert entry is not None
    assert await node.patients.opened(entry) is not None


# --- filling --------------------------------------------------------------------------------


def _home(folder: Path) -> Path:
    authority, home = folder / "authority", folder / "clinic"
    create_network(authority, "bench", PASSPHRASE, cheap=True)
    init_home(
        home, name="clinic", roles=["clinic"], place="county", passphrase=PASSPHRASE, cheap=True
    )
    self_enrol(authority, PASSPHRASE, home, PASSPHRASE)
    return home


def _config() -> Config:
    return Config(discovery=False)


async def _fill(node: Node, people: Sequence[Villager]) -> list[bytes]:
    """Register and index all; their pseudonyms in the order of ``people``."""
    await node.found_mesh()
    await node.search.keys.begin(IndexUse.SEARCH)
    found: list[bytes] = []
    for at in range(0, len(people), AT_ONCE):
        some = people[at : at + AT_ONCE]
        made = await asyncio.gather(*(node.patients.register(one.to_fhir()) for one in some))
        found += [pseudonym for pseudonym, _ in made]
        await node.search.index()
    return found


async def _live(node: Node, patient: bytes) -> None:
    for at in range(0, LONG_LIFE, AT_ONCE):
        some = [_visit(number) for number in range(at, min(at + AT_ONCE, LONG_LIFE))]
        await asyncio.gather(*(node.patients.add(raw, patient=patient) for raw in some))
    await node.search.index()


def _visit(number: int) -> bytes:
    day = f"{2006 + number // 25:04d}-{1 + number % 12:02d}-{1 + number % 28:02d}"
    code = {"system": "http://hl7.org/fhir/sid/icd-10", "code": CODES[number % len(CODES)]}
    return msgspec.json.encode(
        {
            "resourceType": "Condition",
            "code": {"coding": [code], "text": "as the doctor wrote it down that day"},
            "subject": {"display": "the patient"},
            "recordedDate": f"{day}T09:00:00+08:00",
            "note": [{"text": f"visit {number}: " + "seen, examined, advised. " * 12}],
        }
    )


def _bytes(home: Path) -> int:
    return sum(path.stat().st_size for path in home.rglob("*") if path.is_file())


# --- limits ---------------------------------------------------------------------------------


class _Floor:
    """The least that parts of an answer cost this machine, in milliseconds."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.row_ms = 1_000 / self._rows()
        key, nonce = bytes(32), bytes(24)
        sealed = sealing.seal(key, nonce, bytes(600), b"")
        opens = rate(
            lambda: sealing.open_sealed(key, nonce, sealed, b""), seconds=machine.seconds, clock=CPU
        )
        self.body_ms = 1_000 / opens + self.row_ms + 1_000 / machine.loads
        secret, public = bytes([1] * 32), sealing.box_public(bytes([1] * 32))
        scalar = rate(
            lambda: bindings.crypto_scalarmult(secret, public), seconds=machine.seconds, clock=CPU
        )
        self.unwrap_ms = 1_000 / scalar
        hashes = rate(
            lambda: hmac.digest(key, b"a term of a search", "sha256"),
            seconds=machine.seconds,
            clock=CPU,
        )
        self.token_ms = 1_000 / hashes + self.row_ms

    def tokens_ms(self, words: int) -> float:
        """Making and asking for every token of a name of ``words`` words."""
        whole = SPREAD[Field.LETTERS] + 2 * SPREAD[Field.SOUNDS]
        return self.token_ms * (whole + words * SPREAD[Field.WORD])

    def _rows(self) -> float:
        """Point reads a second of a bare table."""
        connection = open_bare(self._machine.folder / "floor.sqlite")
        dice = random.Random(3)
        keys = [dice.randbytes(15) for _ in range(ROWS // 10)]
        store_bare(connection, [(key, bytes(16)) for key in keys])
        read = "SELECT v FROM kv WHERE k = ?"
        try:
            return rate(
                lambda: connection.execute(read, (dice.choice(keys),)).fetchone(),
                seconds=self._machine.seconds,
                clock=CPU,
            )
        finally:
            connection.close()
