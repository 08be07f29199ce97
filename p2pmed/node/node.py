"""A running node, as an embedding program sees it.

``open_node`` gives a ``Node``; leaving its block closes everything. Every coroutine may be
cancelled: a cancelled ``submit`` may or may not have been written (its outcome is unknown to the
caller and known to the disk), and the node is never between two states.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from p2pmed.aio.clock import SystemClock, SystemEntropy, system_rng
from p2pmed.discovery.peerbook import Source
from p2pmed.errors import DecodeError, LocalProtocolError
from p2pmed.identity.keys import DeviceKeys
from p2pmed.identity.manifest import open_manifest
from p2pmed.ledger.genesis import Genesis
from p2pmed.ledger.state import Readable
from p2pmed.ledger.transaction import Entry, LaneKey
from p2pmed.medical import kinds as medical_kinds
from p2pmed.medical.discrepancies import open_discrepancies
from p2pmed.medical.registry import Kind, Registry
from p2pmed.node import events as node_events
from p2pmed.node.barriers import Unconfirmed
from p2pmed.node.care.cards import Cards
from p2pmed.node.care.cases import Cases
from p2pmed.node.care.consent import Consent
from p2pmed.node.care.consultations import Consultations
from p2pmed.node.care.disputes import Disputes
from p2pmed.node.care.emergency import Emergency
from p2pmed.node.care.linking import Linking
from p2pmed.node.care.opening import Opener
from p2pmed.node.care.reads import Reads
from p2pmed.node.care.referrals import Referrals
from p2pmed.node.care.search import Search
from p2pmed.node.care.summary import Summaries
from p2pmed.node.care.surgery import Surgery
from p2pmed.node.care.timeline import Timelines
from p2pmed.node.config import Config, read_config
from p2pmed.node.events import Draft
from p2pmed.node.kinds import discovered_kinds
from p2pmed.node.patients import Patients
from p2pmed.node.receipts import FinalPlace, Receipt, Waiters
from p2pmed.node.replica import MUTED, Identity, Replica
from p2pmed.node.sessions import Sessions
from p2pmed.node.setup import load_keys, read_chain
from p2pmed.node.shell import Shell
from p2pmed.node.vault.child import spawn
from p2pmed.node.vault.face import inside
from p2pmed.storage.home import Home, HomeFile, open_home
from p2pmed.sync.founding import Propose
from p2pmed.wire import cbor, codec
from p2pmed.wire.codec import Count, Wire
from p2pmed.world import Space, World

__all__ = ["Happening", "Node", "open_node"]

QUEUE_MAX = 10_000
"""Happenings kept for one slow reader of ``events``; beyond it, it is told that it missed some."""
SUBMIT_MAX = 256
"""Transactions in one submission."""

CURSOR_BYTES_MAX = 8 * 1024 * 1024
"""Every log that a node may have, about 60 bytes each."""
Bytes48 = Annotated[bytes, msgspec.Meta(min_length=48, max_length=48)]

CATCH_UP_ENTRIES = 256
"""Transactions applied before other tasks get their turn: some ten milliseconds."""


BARRIER_TRY_S = 5
"""One question to the engine; engines answer sooner, so nothing is heard only when one is gone."""


class _TryAgain(Exception):
    """Nothing was heard of a question."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Happening:
    """Something ``Node.events`` tells: a transaction arrived, became final, or an alarm."""

    what: Literal["stored", "final", "alarm", "founded"]
    entry: Entry | None = None
    body: Wire | None = None
    verdict: str = ""
    text: str = ""
    ids: tuple[bytes, ...] = ()
    cursor: bytes = b""
    """Pass it to ``events`` to go on after this one."""


class Node:
    """One node of a network; made by ``open_node``."""

    def __init__(
        self, shell_of: Callable[[Node], Shell], *, replica: Replica, world: World
    ) -> None:
        self.replica = replica
        self.world = world
        self.waiters = Waiters()
        self.sessions = Sessions(self)
        self.opener = Opener(self)
        self.reads = Reads(self)
        self.emergency = Emergency(self)
        self.consent = Consent(self)
        self.cards = Cards(self)
        self.patients = Patients(self)
        self.timelines = Timelines(self)
        self.disputes = Disputes(self)
        self.summaries = Summaries(self)
        self.referrals = Referrals(self)
        self.consultations = Consultations(self)
        self.surgery = Surgery(self)
        self.cases = Cases(self)
        self._requests = 0
        self._replies: dict[int, asyncio.Future[node_events.Reply]] = {}
        self._listeners: list[deque[Happening]] = []
        self._heard = asyncio.Event()
        self.alarms: deque[node_events.Alarm] = deque(maxlen=1_000)
        self.shell = shell_of(self)
        self.search = Search(self)
        self.linking = Linking(self)

    def __repr__(self) -> str:
        return f"<Node {self.key.hex()[:12]}>"

    # --- who ----------------------------------------------------------------------------------

    @property
    def key(self) -> bytes:
        """The device key (32 bytes)."""
        return self.replica.me

    @property
    def network(self) -> bytes:
        """The network's id (32 bytes)."""
        return self.replica.identity.network

    @property
    def keys(self) -> DeviceKeys:
        """The device's keys; never leave the process."""
        return self.replica.identity.keys

    @property
    def port(self) -> int:
        """The port peers connect to."""
        return self.shell.port

    @property
    def ledger(self) -> bytes | None:
        """The home ledger's id, or ``None`` while there is none."""
        return self.replica.home.ledger if self.replica.home else None

    # --- writing ------------------------------------------------------------------------------

    async def submit(
        self,
        body: Any,
        *,
        patient: bytes = b"",
        refs: Sequence[bytes] = (),
        actor: bytes = b"",
    ) -> Receipt:
        """Write one transaction; returns when it is durable on this disk.

        ``body`` is a registered body (``Dispense``, ``Recall``, your own), or a clinical fact
        (``Encounter``, ``Observation``...), which is sealed for its patient.
        ``patient`` is the pseudonym it is about (16 bytes); ``refs`` are transactions it follows
        from; ``actor`` is the staff member's key.
        Raises ``InvalidTransaction``, ``ConfigError`` or ``DiskFull`` (nothing was written; with
        its last reserve a full disk takes revocations only), ``StorageError`` (the disk failed; the
        node stops). Cancelled: the outcome is unknown.
        """
        if hasattr(body, "to_fhir"):
            return await self.patients.add(body)
        draft = Draft(body=body, subject=patient, refs=tuple(refs), actor=actor)
        return (await self.submit_drafts([draft]))[0]

    async def submit_drafts(
        self, drafts: Sequence[Draft], *, local: node_events.LocalRows | None = None
    ) -> list[Receipt]:
        """Write several transactions in order, all or none; durable on return.

        ``local`` makes, from their ids, rows of ``Space.LOCAL`` that are durable with them.
        """
        if not 0 < len(drafts) <= SUBMIT_MAX:
            raise LocalProtocolError(f"{len(drafts)} transactions where 1 to {SUBMIT_MAX} can be")
        signed = tuple(self._signed(draft) for draft in drafts)
        reply = await self._ask(lambda request: node_events.Submit(request, signed, local))
        return [Receipt(self, entry) for entry in reply.entries]

    def _signed(self, draft: Draft) -> Draft:
        """``draft`` as an act of whoever is at the device, unless it names somebody."""
        actor = draft.actor or self.sessions.actor
        return draft if draft.actor == actor else replace(draft, actor=actor)

    async def _ask(self, make: Callable[[int], node_events.Command]) -> node_events.Reply:
        """Give the node a command and wait for its reply; the reply's error is raised."""
        self._refuse_if_stopped()
        self._requests += 1
        future: asyncio.Future[node_events.Reply] = asyncio.get_running_loop().create_future()
        self._replies[self._requests] = future
        request = self._requests
        try:
            self.shell.put(make(request))
            reply = await future
        finally:
            self._replies.pop(request, None)
        if reply.error is not None:
            raise reply.error
        return reply

    def _refuse_if_stopped(self) -> None:
        """Raises why the node stopped; ``LocalProtocolError`` if it was closed."""
        stopped = self.shell.stopped
        if stopped.cancelled():
            raise LocalProtocolError("the node is closed")
        if stopped.done():
            stopped.result()

    # --- meshes and ledgers -------------------------------------------------------------------

    async def found_mesh(
        self,
        members: Iterable[bytes] = (),
        *,
        engine: Literal["bft", "raft"] = "bft",
        liars: int | None = None,
        name: str = "mesh",
        patience_s: int = 10,
        successor: bool = False,
    ) -> bytes:
        """Found a ledger with ``members`` (device keys in sight); alone with none. Its id.

        The others sign by their policy (``mesh.auto``) or their operator's word
        (``accept_mesh``), for which ``patience_s`` leaves time.
        With ``successor`` it follows the home ledger, whose quorum is gone for good: everybody
        needs an operator's word, and what it spends stays provisional until a county anchors it.
        Raises ``LocalProtocolError`` if somebody is not in sight or does not sign in time.
        """
        propose = Propose(
            members=tuple(members),
            engine=engine,
            liars=liars,
            name=name,
            patience_ms=patience_s * 1_000,
            successor=successor,
        )
        return (await self._ask(lambda request: node_events.FoundMesh(request, propose))).ledger

    def mesh_offers(self) -> list[tuple[bytes, Genesis]]:
        """Foundings that others offered and nobody here has answered: proposer, genesis."""
        return self.replica.formation.offers()

    async def accept_mesh(self, proposer: bytes) -> bytes:
        """Sign the founding that ``proposer`` (a device key) offered; the ledger's id.

        Raises ``LocalProtocolError`` if no such offer stands, or not all of them sign in time.
        """
        return (await self._ask(lambda request: node_events.AcceptOffer(request, proposer))).ledger

    async def follow(self, ledger: bytes) -> None:
        """Take a known ledger as the home ledger, without a seat."""
        await self._ask(lambda request: node_events.FollowLedger(request, ledger))

    async def import_entries(self, entries: Sequence[bytes]) -> int:
        """Take in author-log entries from a file; how many were new, durable on return."""
        reply = await self._ask(lambda request: node_events.ImportEntries(request, tuple(entries)))
        return reply.count

    async def import_chain(self, ledger: bytes, founding: bytes, blocks: Sequence[bytes]) -> int:
        """Take in certified blocks from a file; how many heights were new."""
        reply = await self._ask(
            lambda request: node_events.ImportChain(request, ledger, founding, tuple(blocks))
        )
        return reply.count

    async def resume_voting(self) -> None:
        """Let a home that was restored from a backup vote again, on the operator's word.

        A restored home has forgotten what it signed after the backup was made; voting again too
        early can fork a ledger. Say it only when no other copy of this home runs and the ledger
        has caught up with the mesh's others. Without effect on a home that is not muted.
        """
        await self._ask(node_events.ResumeVoting)

    async def read_barrier(self, *, timeout: float = 10.0) -> int:  # noqa: ASYNC109
        """Wait until ``state`` and ``final_state`` are linearizable; the height reached.

        What they show then includes everything that any node called final before this was
        called: a majority of the validators confirmed it, whatever their clocks say. For a
        decision that must not rest on yesterday's state (is this pack spent?); reading alone
        needs no barrier.
        Raises ``TimeoutError`` after ``timeout`` seconds without a quorum in reach, and
        ``LocalProtocolError`` if this node has no ledger or no seat in it. May be cancelled at
        any time. Raft, section 8.
        """
        async with asyncio.timeout(timeout):
            while True:
                with suppress(Unconfirmed, _TryAgain):
                    return await self._confirmed_height()

    async def _confirmed_height(self) -> int:
        """One try: a new epoch or a restored voice forgets who asked."""
        try:
            async with asyncio.timeout(BARRIER_TRY_S):
                return (await self._ask(node_events.ReadBarrier)).count
        except TimeoutError:
            raise _TryAgain from None

    def dial(self, address: str) -> None:
        """Try to reach a peer at ``host:port``, and remember the address."""
        self.shell.hint(address, Source.TYPED)

    # --- reading ------------------------------------------------------------------------------

    def state(self) -> Readable:
        """The state with what is provisional applied on top."""
        return self.replica.overlay.state()

    async def catch_up(self) -> None:
        """Work out the provisional state in slices, so that ``state`` does not hold the loop.

        Worth calling after many transactions came at once. May be cancelled at any time.
        """
        while self.replica.overlay.approach(CATCH_UP_ENTRIES):  # noqa: ASYNC110 (works, not waits)
            await asyncio.sleep(0)

    def final_state(self) -> Readable:
        """The state as the home ledger certified it; nothing before there is one."""
        home = self.replica.home
        return home.chain.state if home else self.replica.empty

    def body(self, entry: Entry) -> Wire | None:
        """The typed body of a transaction; ``None`` if its type is not known here."""
        return self.replica.registry.body(entry)

    def find(self, entry_id: bytes) -> Entry | None:
        """A transaction by its id, or ``None`` if it is not here."""
        return self.replica.logs.find(entry_id)

    def receipt(self, entry_id: bytes) -> Receipt:
        """The receipt of any transaction that is here. Raises ``LocalProtocolError`` if not."""
        entry = self.find(entry_id)
        if entry is None:
            raise LocalProtocolError("no such transaction is here")
        return Receipt(self, entry)

    def final_place(self, entry: Entry) -> FinalPlace | None:
        """Where a transaction became final in the home ledger, or ``None``."""
        home = self.replica.home
        height = home.chain.height_of(entry) if home else None
        if home is None or height is None or height > home.durable_height:
            return None
        verdict = home.chain.verdict_of(entry)
        assert verdict is not None
        if home.founding.genesis.predecessor and not self.replica.anchoring.is_cosigned(entry):
            return None  # what a successor spends stays provisional until a county has seen it
        return FinalPlace(home.ledger, height, verdict)

    def is_anchored(self, entry: Entry) -> bool:
        """Whether a county's certified ledger has it (``node/county.py`` says what that means)."""
        return self.replica.is_anchored(entry)

    def discrepancies(self) -> list[dict[str, Any]]:
        """Contradictions that nobody has resolved: of the home ledger, and told by a county."""
        found = {
            (row.first, row.second): {
                "reason": row.reason,
                "first": row.first.hex(),
                "second": row.second.hex(),
                "told_by": "ledger",
            }
            for row in open_discrepancies(self.state())
        }
        for first, second, reason in self.replica.county_alarms():
            found.setdefault(
                (first, second),
                {
                    "reason": reason,
                    "first": first.hex(),
                    "second": second.hex(),
                    "told_by": "county",
                },
            )
        return [found[key] for key in sorted(found)]

    def status(self) -> dict[str, Any]:
        """What people want to know of the node, as plain values."""
        home = self.replica.home
        logs = self.replica.logs
        entries = sum(next_seq for _, next_seq in logs.frontier())
        pending = 0
        if home is not None:
            chain = home.chain
            pending = sum(
                max(0, next_seq - chain.ordered_next(lane)) for lane, next_seq in logs.frontier()
            )
        return {
            "device": self.key.hex(),
            "network": self.network.hex(),
            "port": self.port,
            "peers": len(self.replica.links),
            "logs": len(logs),
            "entries": entries,
            "own_next": logs.next_seq(self.replica.own.key),
            "pending": pending if home else entries,
            "ledger": home.ledger.hex() if home else None,
            "ledger_name": home.founding.genesis.name if home else None,
            "engine": home.founding.genesis.engine if home else None,
            "seat": home.seat if home else None,
            "muted": self.replica.identity.muted,
            "height": home.chain.height if home else 0,
            "state_root": home.chain.state_root.hex() if home else None,
            "consensus": dict(home.engine.status()) if home and home.engine else None,
            "halted": home.halted if home else "",
            "ledgers": {name.hex(): height for name, height in self.replica.chains.heads()},
            "discovery": self.shell.discovery_status,
            "discrepancies": len(self.discrepancies()),
            "evidence": len(self.replica.ledgers.accusing),
            "session": self.sessions.status(),
        }

    async def events(
        self, *, kinds: Iterable[type[Wire]] | None = None, cursor: bytes | None = None
    ) -> AsyncGenerator[Happening, None]:
        """What happens, from now on or after ``cursor``; ends when the node closes.

        ``kinds`` keeps transactions of those bodies (alarms always come). *Stored* is told of each
        transaction once, however slow the reader, and after a restart from its cursor; *final* and
        alarms are told from now on, and a reader that is ``QUEUE_MAX`` of them behind is told only
        that it missed some. Raises what stopped the node.
        """
        wanted = tuple(kinds) if kinds is not None else None
        position = (
            _read_cursor(cursor) if cursor is not None else dict(self.replica.logs.frontier())
        )
        queue: deque[Happening] = deque()
        self._listeners.append(queue)
        try:
            while True:
                heard = self._heard  # taken first: what happens while the reader works is not lost
                for entry in self._after(position):
                    position[entry.lane] = entry.seq + 1
                    body = self.body(entry)
                    if wanted is None or isinstance(body, wanted):
                        yield Happening(
                            what="stored", entry=entry, body=body, cursor=_cursor(position)
                        )
                here = _cursor(position) if queue else b""
                while queue:
                    happening = queue.popleft()
                    is_wanted = wanted is None or happening.body is None
                    if is_wanted or isinstance(happening.body, wanted or ()):
                        yield replace(happening, cursor=here)
                if not await self._next_news(heard):
                    return
        finally:
            self._listeners.remove(queue)

    @property
    def heard(self) -> asyncio.Event:
        """Set when something happens next: take it before looking, wait by ``news`` after."""
        return self._heard

    async def news(self, heard: asyncio.Event) -> bool:
        """Wait for ``heard``; ``False`` if the node was closed. Raises what stopped it."""
        return await self._next_news(heard)

    async def _next_news(self, heard: asyncio.Event) -> bool:
        """Wait for it; ``False`` if the node was closed. Raises what stopped it."""
        stopped = self.shell.stopped
        waiting: asyncio.Future[Any] = asyncio.ensure_future(heard.wait())
        try:
            await asyncio.wait({waiting, stopped}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        if stopped.done() and not stopped.cancelled():
            stopped.result()
        return not stopped.cancelled()

    def _after(self, position: dict[LaneKey, int]) -> Iterator[Entry]:
        """Durable entries beyond ``position``, read as they are asked for."""
        logs = self.replica.logs
        for lane, next_seq in logs.frontier():
            yield from logs.entries(lane, position.get(lane, 0), next_seq)

    # --- from the shell -----------------------------------------------------------------------

    def on_reply(self, reply: node_events.Reply) -> None:
        """The node answered a command."""
        future = self._replies.get(reply.request)
        if future is not None and not future.done():
            future.set_result(reply)

    def on_notice(self, notice: node_events.Notice) -> None:
        """The node says that something happened."""
        match notice:
            case node_events.PeerHolds(_, lane, _):
                self.waiters.moved(lane)
                return
            case node_events.EntriesStored():
                pass
            case node_events.Final(_, height, entries, verdicts):
                for entry, verdict in zip(entries, verdicts, strict=True):
                    self._tell(
                        Happening(
                            what="final",
                            entry=entry,
                            body=self.body(entry) if self._listeners else None,
                            verdict=verdict.code,
                            text=str(height),
                        )
                    )
                for lane in dict.fromkeys(entry.lane for entry in entries):
                    self.waiters.moved(lane)
            case node_events.AnchorsMoved():
                self.waiters.moved_all()
            case node_events.Alarm(kind, ids, text):
                self.alarms.append(notice)
                self._tell(Happening(what="alarm", text=f"{kind} {text}".strip(), ids=ids))
            case node_events.LedgerFounded(ledger):
                self._tell(Happening(what="founded", ids=(ledger,)))
            case node_events.Halted(ledger, reason):
                self._tell(Happening(what="alarm", text=f"halted: {reason}", ids=(ledger,)))
        self._heard.set()
        self._heard = asyncio.Event()

    def _tell(self, happening: Happening) -> None:
        for queue in self._listeners:
            if len(queue) >= QUEUE_MAX:
                queue.clear()
                queue.append(Happening(what="alarm", text="missed: this reader is too slow"))
            queue.append(happening)

    def on_stopped(self, error: BaseException) -> None:
        """The node cannot go on."""
        for future in self._replies.values():
            if not future.done():
                future.set_exception(error)
        self.waiters.fail(error)


def _cursor(position: dict[LaneKey, int]) -> bytes:
    rows = [[lane.to_bytes(), position[lane]] for lane in sorted(position)]
    return cbor.encode(rows)


def _read_cursor(cursor: bytes) -> dict[LaneKey, int]:
    try:
        rows = codec.convert(
            cbor.decode(cursor, limit=CURSOR_BYTES_MAX), list[tuple[Bytes48, Count]]
        )
    except DecodeError:
        raise LocalProtocolError("not a cursor of this node's events") from None
    return {LaneKey.from_bytes(lane): seq for lane, seq in rows}


@asynccontextmanager
async def open_node(
    home: str | Path,
    *,
    passphrase: str,
    kinds: Iterable[Kind[Any]] = (),
    config: Config | None = None,
    app: Any = None,
    network: bool = True,
    unlock: bool = True,
    apart: bool = False,
    idle_s: float | None = None,
) -> AsyncIterator[Node]:
    """Open the node whose home is the folder ``home``, and run it until the block ends.

    ``kinds`` adds transaction types of your own. ``config`` overrides ``p2pmed.toml``. ``app`` is
    an ``aiohttp.web.Application`` of yours, not yet started, on whose port peers shall connect;
    without it the node listens on its own. ``network=False`` works on the disk only.

    With ``unlock`` records are open from the start if ``passphrase`` also opens the staff member
    that was made with the home; without it, or where there is none, ``node.sessions.unlock``
    opens them. ``apart`` keeps what opens records in a process of its own, and ``idle_s`` locks
    after so many seconds without ``node.sessions.touch``.

    Raises ``ConfigError`` (no home, in use, a port taken, a wrong setting), ``Locked`` (the
    passphrase), ``CredentialError``, ``StorageError``. Cancelling closes everything in order.
    """
    folder = Path(home)
    keys = await asyncio.to_thread(load_keys, folder, passphrase)
    async with open_home(folder) as opened:
        node = await _assembled(opened, folder, keys, kinds, config)
        vault = spawn if apart else partial(inside, node.world.entropy)
        node.sessions = Sessions(node, home=folder, vault=vault, idle_s=idle_s)
        if app is not None:
            node.shell.links.attach(app)
        try:
            if unlock:
                await node.sessions.unlock_default(passphrase)
            async with (
                node.shell.run(listen=app is None, network=network),
                _resealing(node, network=network),
                _watching(node),
            ):
                yield node
        finally:
            node.sessions.lock("the node is closed")
            node.on_stopped(LocalProtocolError("the node is closed"))
            node.shell.stopped.cancel()


async def _assembled(
    opened: Home,
    folder: Path,
    keys: DeviceKeys,
    kinds: Iterable[Kind[Any]],
    config: Config | None,
) -> Node:
    """A node of the home ``opened``, not yet running."""
    settings = config or read_config(opened.read(HomeFile.CONFIG).decode("utf-8", "replace"))
    identity = await _identity(opened, folder, keys)
    world = World(
        clock=SystemClock(),
        rng=system_rng(),
        entropy=SystemEntropy(),
        disk=opened.disk,
        network=None,
    )
    registry = Registry([*medical_kinds(), *discovered_kinds(), *kinds])
    replica = Replica(world=world, identity=identity, registry=registry, policy=settings.mesh)

    def shell_of(node: Node) -> Shell:
        return Shell(
            replica=replica,
            world=world,
            disk=opened.disk,
            config=settings,
            on_notice=node.on_notice,
            on_reply=node.on_reply,
        )

    node = Node(shell_of, replica=replica, world=world)
    node.shell.stopped.add_done_callback(
        lambda stopped: _report(node, stopped) if not stopped.cancelled() else None
    )
    return node


@asynccontextmanager
async def _resealing(node: Node, *, network: bool) -> AsyncIterator[None]:
    """Late records are sealed again while the node runs; opened for one question (no network),
    it writes what it is asked to only.
    """
    with node.sessions.unattended():  # a task takes the context in which it was made
        chores = (node.consent.resealing.keep, node.emergency.keep) if network else ()
        keeping = [asyncio.create_task(chore()) for chore in chores]
    try:
        yield
    finally:
        for task in keeping:
            task.cancel()
        await asyncio.gather(*keeping, return_exceptions=True)


@asynccontextmanager
async def _watching(node: Node) -> AsyncIterator[None]:
    """Sessions end by themselves while the node runs."""
    watching = asyncio.create_task(node.sessions.watch())
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


def _report(node: Node, stopped: asyncio.Future[None]) -> None:
    error = stopped.exception()
    if error is not None:
        node.on_stopped(error)


async def _identity(opened: Home, folder: Path, keys: DeviceKeys) -> Identity:
    """Who the node is; a home that went back in time goes on as a new incarnation, muted."""
    if opened.restored:
        opened.disk.stage(Space.META, MUTED, b"1")  # durable with the new incarnation
        await opened.adopt(SystemEntropy().token(16))
    raw = opened.read(HomeFile.MANIFEST)
    manifest, network = open_manifest(raw)
    return Identity(
        manifest=manifest,
        manifest_raw=raw,
        network=network,
        keys=keys,
        chain=read_chain(folder),
        incarnation=opened.incarnation,
        boot=opened.count,
        muted=opened.disk.get(Space.META, MUTED) is not None,
    )
