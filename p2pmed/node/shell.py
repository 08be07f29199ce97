"""The asyncio shell of a whole node: the replica driven by real sockets, disk, mDNS and time.

Order of promises: a ``Persist`` is queued with the committer, everything else is carried out at
once, in order; what depends on a flush comes out of the replica only after ``Persisted``.

Whatever opens is closed by ``run``'s ``async with``; one task group owns every task. A failing
disk, or an error of the node itself, ends the shell: ``stopped`` says why.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Final

from p2pmed.aio import links as wire
from p2pmed.aio.committer import Committer
from p2pmed.aio.driver import Driver
from p2pmed.aio.links import Links
from p2pmed.aio.mdns import Mdns
from p2pmed.aio.verifier import Verifier
from p2pmed.discovery import peerbook
from p2pmed.discovery.peerbook import PeerBook
from p2pmed.discovery.records import network_tag
from p2pmed.engine import Persist, Persisted
from p2pmed.errors import P2pmedError, StorageError
from p2pmed.node import events
from p2pmed.node.config import Config
from p2pmed.node.events import NodeEffect, NodeEvent
from p2pmed.node.replica import Replica
from p2pmed.storage.sqlite import SqliteDisk
from p2pmed.transport.proof import make_identity
from p2pmed.wire import codec
from p2pmed.wire.codec import Text, TimeMs, Wire
from p2pmed.world import Space, World

__all__ = ["Shell"]

log = logging.getLogger("p2pmed.node")

EVENTS_WAITING_MAX: Final = 256
CHECKS_WAITING_MAX: Final = 8_192
STAGED_BYTES_MAX: Final = 16 * 1024 * 1024
"""While more than this waits for the node, for signature checks or for the disk, no frame is
read: a flood, or a long import over a fast line onto a slow card, fills the sender's queue."""
LEAVE_LOOK_S: Final = 0.02
LEAVE_LOOKS_MAX: Final = 25
"""Half a second for handing over: a follower's flush and an election, or nobody is there."""


class _Remembered(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    address: Text
    at: TimeMs


class Shell:
    """Drives one replica. ``on_notice`` and ``on_reply`` are called in the loop."""

    def __init__(
        self,
        *,
        replica: Replica,
        world: World,
        disk: SqliteDisk,
        config: Config,
        on_notice: Callable[[events.Notice], None],
        on_reply: Callable[[events.Reply], None],
    ) -> None:
        self.replica = replica
        self.config = config
        self.port = 0
        self.online = True
        self.stopped: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._world = world
        self._disk = disk
        self._on_notice = on_notice
        self._on_reply = on_reply
        self._driver: Driver[NodeEvent, NodeEffect] = Driver(
            replica, clock=world.clock, perform=self._perform, eased=self._ease
        )
        self._book = PeerBook(own_key=replica.me, rng=world.rng)
        self._book_driver: Driver[peerbook.PeerBookEvent, peerbook.PeerBookEffect] = Driver(
            self._book, clock=world.clock, perform=self._on_book
        )
        self._committer = Committer(disk.commit, persisted=self._persisted, failed=self._fail)
        self._verifier = Verifier(self._fail)
        self._eased = asyncio.Event()
        identity = replica.identity
        keys = identity.keys
        self.links = Links(
            network_id=identity.network,
            identity=make_identity(
                device=keys.node_id,
                sign=keys.sign_raw,
                chain=identity.chain,
                entropy=world.entropy,
            ),
            authenticate=replica.authenticate,
            entropy=world.entropy,
            clock=world.clock,
            on_event=self._on_link,
            room=self._room,
            host=config.host,
            port=config.port,
        )
        self.mdns: Mdns | None = None

    def set_online(self, online: bool) -> None:
        """The operator's cable: out, every channel is closed and none is opened; in, all are.

        The node itself notices only that its peers are gone, as it does when a cable is pulled.
        """
        self.online = online
        if not online:
            for peer in self.links.peers:
                self.links.drop(peer, "this node was taken off the network")
            return
        for address in self._book.addresses:
            self.hint(address, peerbook.Source.REMEMBERED)

    @property
    def discovery_status(self) -> str:
        """What discovery is doing, in one sentence."""
        if not self.online:
            return "off the network, by the operator's word"
        return self.mdns.status if self.mdns else "off: addresses are typed or remembered"

    @asynccontextmanager
    async def run(self, *, listen: bool = True, network: bool = True) -> AsyncIterator[None]:
        """Open everything, drive until the block ends, close everything.

        Without ``network`` nothing is listened on, announced or dialled: for offline tools.
        Raises ``ConfigError`` if the port is taken, ``StorageError`` if the disk fails.
        """
        async with contextlib.AsyncExitStack() as stack:
            if network:
                stack.push_async_callback(self.links.close)
                self.port = await self.links.start(listen=listen)
                await self._start_discovery(stack)
            stack.push_async_callback(self._verifier.close)
            committing = asyncio.create_task(self._guard(self._committer.run()))
            driving = asyncio.create_task(self._guard(self._driver.run()))
            dialling = asyncio.create_task(self._guard(self._book_driver.run()))
            stack.push_async_callback(_finish, [driving, dialling])
            stack.push_async_callback(self._drain, committing)
            if network:
                stack.push_async_callback(self._leave)
            self._driver.carry_out(self.replica.start())
            yield

    async def _leave(self) -> None:
        """Let somebody else lead before this node is gone; a mesh then pauses for no timeout."""
        if self.stopped.done():
            return
        self._driver.carry_out(self.replica.step(events.Leave(), self._world.clock.now()))
        for _ in range(LEAVE_LOOKS_MAX):
            home = self.replica.home
            if home is None or not home.is_leaving:
                return
            await asyncio.sleep(LEAVE_LOOK_S)

    async def _drain(self, committing: asyncio.Task[None]) -> None:
        """Let the last flush end: what was asked for before the end is answered."""
        self._committer.stop()
        await asyncio.gather(committing, return_exceptions=True)

    async def _guard(self, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """The node cannot go on; whoever waits is told."""
        if not self.stopped.done():
            log.error("the node stops: %s", type(error).__name__)
            self.stopped.set_exception(error)
            if not isinstance(error, StorageError):
                self._disk.abandon("the node failed in the middle of a step")
            self._eased.set()
            self.stopped.exception()  # it is reported where it is awaited, never as unretrieved

    async def _start_discovery(self, stack: contextlib.AsyncExitStack) -> None:
        for address in self.config.peers:
            self.hint(address, peerbook.Source.TYPED)
        for key, raw in self._disk.scan(Space.PEER, b"", b"\xff" * 33, limit=1_024):
            remembered = codec.decode(raw, _Remembered)
            hint = peerbook.Hint(remembered.address, peerbook.Source.REMEMBERED, key)
            self._book_driver.put(hint)
        if self.config.discovery:
            self.mdns = Mdns(
                network_tag=network_tag(self.replica.identity.network),
                port=self.port,
                addresses=["127.0.0.1"] if self.config.loopback else None,
                on_hint=lambda address: self.hint(address, peerbook.Source.DISCOVERED),
                rng=self._world.rng,
            )
            stack.push_async_callback(self.mdns.close)
            await self.mdns.start()

    # --- in -----------------------------------------------------------------------------------

    def put(self, event: NodeEvent) -> None:
        """Queue an event for the node."""
        self._driver.put(event)

    def hint(self, address: str, source: peerbook.Source) -> None:
        """Somebody may be at ``host:port``."""
        self._book_driver.put(peerbook.Hint(address, source))

    async def flush(self) -> None:
        """Make durable what was staged outside a step: tables worked out from the logs.

        Raises ``StorageError``; the disk is then broken, as the node's next commit finds.
        """
        await self._disk.commit()

    def _on_link(self, event: wire.LinkEvent) -> None:
        if not self.online and isinstance(event, wire.LinkUp):
            self.links.drop(event.peer, "this node is off the network")
            if not event.inbound:
                self._book_driver.put(peerbook.DialEnded(event.address, event.peer))
            return
        match event:
            case wire.Frame(peer, message):
                self._driver.put(events.Frame(peer, message))
            case wire.LinkUp(peer, chain, address, inbound):
                self._driver.put(events.LinkUp(peer, chain))
                self._book_driver.put(peerbook.Connected(peer, None if inbound else address))
            case wire.LinkDown(peer):
                self._driver.put(events.LinkDown(peer))
                self._book_driver.put(peerbook.Disconnected(peer))
            case wire.DialFailed(address, _, peer):
                self._book_driver.put(peerbook.DialEnded(address, peer))

    # --- how much may wait --------------------------------------------------------------------

    def _is_crowded(self) -> bool:
        """Whether peers give more than this machine gets done."""
        return not self.stopped.done() and (
            self._driver.waiting >= EVENTS_WAITING_MAX
            or self._verifier.waiting >= CHECKS_WAITING_MAX
            or self._disk.staged_bytes >= STAGED_BYTES_MAX
        )

    async def _room(self) -> None:
        """Wait until what was read is worked off, so that the peers wait too."""
        while self._is_crowded():
            self._eased.clear()
            await self._eased.wait()

    def _ease(self) -> None:
        if not self._eased.is_set() and not self._is_crowded():
            self._eased.set()

    def _persisted(self, tokens: Sequence[int]) -> None:
        self._driver.put(Persisted(max(tokens)))  # it covers all before it
        self._ease()

    # --- out ----------------------------------------------------------------------------------

    def _perform(self, effect: NodeEffect) -> None:
        match effect:
            case events.SendFrame(peer, message, control):
                self._send(peer, message, control)
            case Persist(token):
                self._committer.request(token)
            case events.CheckSignatures(token, checks):
                self._verifier.check(checks, lambda good: self._on_checked(token, good))
            case events.Notify(notice):
                self._on_notice(notice)
            case events.Reply():
                self._on_reply(effect)
            case events.DropLink(peer, reason):
                log.warning("link to %s dropped: %s", peer.hex()[:12], reason)
                self.links.drop(peer, reason)

    def _on_checked(self, token: int, good: tuple[bool, ...]) -> None:
        self._driver.put(events.SignaturesChecked(token, good))
        self._ease()

    def _send(self, peer: bytes, message: bytes, control: bool) -> None:
        if not self.links.send(peer, message, control=control) and not control:
            refused = self.replica.send_refused(peer, self._world.clock.now())
            self._driver.carry_out(refused)

    def _on_book(self, effect: peerbook.PeerBookEffect) -> None:
        match effect:
            case peerbook.DialNow(address) if not self.online:
                self._book_driver.put(peerbook.DialEnded(address))
            case peerbook.DialNow(address):
                with contextlib.suppress(P2pmedError):  # closing, or no address: nothing to dial
                    self.links.dial(address)
            case peerbook.Remember(peer, address):
                row = _Remembered(address=address, at=self._world.clock.wall_ms())
                with contextlib.suppress(StorageError):  # a hint: the node's own commit will tell
                    self._disk.stage(Space.PEER, peer, codec.encode(row))


async def _finish(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
