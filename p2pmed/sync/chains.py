"""Certified chains from anybody to anybody: catch-up, carrying, following.

Every node keeps every ledger it hears of, because a chain verifies itself: the founding by the
founders' credentials, each block by its parent's digest and a certificate. So a node that was
away for weeks catches up from whoever is near, and a van carries a village to the county.

States of one ledger here: unknown -> founding checked -> verified up to a height. Messages:
``Ping`` heads (gossip) tell heights; ``ChainAsk`` asks upward from the own height;
``ChainBlocks`` answers, with the founding if asked from 0, always ending in a certificate.

The *home* ledger's blocks are handed out as ``Verified`` and stored by whoever applies them;
those of other ledgers are stored here, as bytes, and handed out as well.

A block may be proven by a descendant only. Where an answer ends before that descendant, its
blocks are kept loose in memory, and the same peer is asked for more; they count for nothing
until the proof has come.

Failure table: a lying height costs one ask; a bad block or certificate drops the peer; an answer
that nobody asked for is checked as any, and makes nobody ask; founders of many ledgers, and
ledgers beyond the table, are not carried, which is nobody's fault; a second, certified block at a
stored height is a fork: nothing is overwritten, ``Forked`` says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Final, TypeAlias

import msgspec

from p2pmed.consensus.interface import Block, Header, header_digest
from p2pmed.engine import DeadlineReached, Instant, earliest
from p2pmed.errors import CredentialError, DecodeError
from p2pmed.ledger.block import Body, content_hash, decode_body, tips_root
from p2pmed.ledger.epochs import Epochs, check_next
from p2pmed.ledger.genesis import Founding, check_founding, ledger_id
from p2pmed.ledger.stored import STORED_BYTES_MAX, StoredBlock, check_proof, is_tail, next_epoch
from p2pmed.limits import BLOCK_CONTENT_BYTES_MAX, FRAME_BYTES_MAX
from p2pmed.quorum.certificate import Epoch, Verify
from p2pmed.wire import codec, cose
from p2pmed.wire.codec import Bytes32, Count, Wire
from p2pmed.world import Disk, Space

__all__ = [
    "ChainAsk",
    "ChainBlocks",
    "ChainMessage",
    "Chains",
    "Faulty",
    "Forked",
    "Founded",
    "HeadsSeen",
    "SendChain",
    "Verified",
]

LEDGERS_MAX: Final = 256
"""Ledgers one node keeps: a county's villages."""
LEDGERS_PER_FOUNDER_MAX: Final = 8
"""Ledgers kept that one device founded: successors, not a flood of ledgers of one."""
BLOCKS_PER_ANSWER_MAX: Final = 64
ANSWER_BYTES_MAX: Final = 32 * 1024
"""Blocks are added to an answer while it is smaller than this; a frame holds the last one."""
ASK_MS: Final = 3_000
"""After which a silent peer is passed over."""
ASK_MS_MAX: Final = 60_000
"""Twice as long as its last answer took, a peer gets; the longest takes this at 30 kbit/s."""
APPLY_MS: Final = 30_000
"""For how long blocks of the home ledger, handed out, are not asked for again."""
LOOSE_BLOCKS_MAX: Final = 256
LOOSE_BYTES_MAX: Final = 4 * 1024 * 1024
"""Blocks of one ledger that wait for a descendant with a certificate."""
OFFER_BYTES_MAX: Final = 32 * 1024
"""A seal that is handed to a peer unasked; a larger one it asks for."""

_NULL: Final = b"\xf6"
"""CBOR's null, which ends the encoding of a block without a certificate."""

assert ANSWER_BYTES_MAX + STORED_BYTES_MAX < FRAME_BYTES_MAX


class ChainAsk(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=20):
    """Blocks above ``height``, please."""

    ledger: Bytes32
    height: Count


class ChainBlocks(Wire, frozen=True, array_like=True, forbid_unknown_fields=True, tag=21):
    """Blocks in order of height; the founding first if the asker had none."""

    ledger: Bytes32
    founding: bytes
    blocks: Annotated[tuple[bytes, ...], msgspec.Meta(max_length=BLOCKS_PER_ANSWER_MAX)]


ChainMessage: TypeAlias = ChainAsk | ChainBlocks


@dataclass(frozen=True, slots=True)
class HeadsSeen:
    """A peer's ping named its ledgers and their heights: hints."""

    peer: bytes
    heads: tuple[tuple[bytes, int], ...]


@dataclass(frozen=True, slots=True)
class FromPeer:
    """A message of this protocol."""

    peer: bytes
    message: ChainMessage


@dataclass(frozen=True, slots=True)
class PeerGone:
    """No channel to this peer any more."""

    peer: bytes


ChainEvent: TypeAlias = HeadsSeen | FromPeer | PeerGone | DeadlineReached


@dataclass(frozen=True, slots=True)
class SendChain:
    """To one peer."""

    peer: bytes
    message: ChainMessage


@dataclass(frozen=True, slots=True)
class Founded:
    """A ledger became known here; its founding is checked and staged."""

    founding: Founding


@dataclass(frozen=True, slots=True)
class Verified:
    """Blocks of ``ledger`` whose certificates hold, next above what was known."""

    ledger: bytes
    blocks: tuple[StoredBlock, ...]


@dataclass(frozen=True, slots=True)
class Forked:
    """Two certified chains of one ledger: more liars than it withstands.

    ``second`` stands at the height of ``first``, or follows another block at that height.
    """

    ledger: bytes
    first: StoredBlock
    second: StoredBlock


@dataclass(frozen=True, slots=True)
class Faulty:
    """The peer sent what cannot be: drop it."""

    peer: bytes
    reason: str


ChainEffect: TypeAlias = SendChain | Founded | Verified | Forked | Faulty


class _NoRoom(CredentialError):
    """A founding that may well hold, and is not carried here."""


_LONG_AGO: Final = Instant(-(2**62))


@dataclass(slots=True)
class _Known:
    founding: Founding
    epochs: Epochs
    epoch: Epoch
    """Who decides above ``height``."""
    height: int
    digest: bytes
    claims: dict[bytes, int]
    asked: bytes | None = None
    asked_until: Instant | None = None
    handed: int = 0
    """Height up to which the home ledger was handed its blocks, which may wait for bodies."""
    handed_at: Instant = _LONG_AGO
    loose: list[bytes] = field(default_factory=list)
    """Blocks next above the height that only a later one can prove."""
    loose_from: bytes = b""

    def rest(self) -> None:
        """Nobody is asked."""
        self.asked = self.asked_until = None


class Chains:
    """All ledgers of one node."""

    def __init__(
        self,
        *,
        disk: Disk,
        network: bytes,
        open_chain: Callable[[Sequence[bytes]], bytes],
        verify: Verify = cose.verify,
        me: bytes = b"",
    ) -> None:
        self._disk = disk
        self._me = me
        self._network = network
        self._open_chain = open_chain
        self._verify = verify
        self._known: dict[bytes, _Known] = {}
        self._unknown: dict[bytes, tuple[bytes, Instant]] = {}
        """Ledgers heard of and asked for: whom, and until when."""
        self._refused: dict[bytes, None] = {}
        """Ledgers for which there was no room: not asked for again."""
        self._asked_at: dict[bytes, Instant] = {}
        self._patience: dict[bytes, int] = {}
        """By peer: when it was asked last, and how long its answers have been seen to take."""
        self.home: bytes | None = None
        for key, raw in disk.scan(Space.LEDGER, b"", b"\xff" * 33, limit=LEDGERS_MAX):
            self._add(codec.decode(raw, Founding), key)

    def _add(self, founding: Founding, ledger: bytes) -> None:
        height, digest = 0, ledger
        rows = self._disk.scan(Space.BLOCK, ledger, ledger + b"\xff" * 9, limit=1, reverse=True)
        if rows:
            header = codec.decode(rows[0][1], StoredBlock, limit=STORED_BYTES_MAX).block.header
            height, digest = header.height, header_digest(header)
        epochs = Epochs(self._disk, founding.genesis.epoch())
        self._known[ledger] = _Known(founding, epochs, epochs.at(height + 1), height, digest, {})

    # --- questions ------------------------------------------------------------------------

    def heads(self) -> tuple[tuple[bytes, int], ...]:
        """Every known ledger and how far it is verified here."""
        return tuple((ledger, self._known[ledger].height) for ledger in sorted(self._known))

    def founding(self, ledger: bytes) -> Founding | None:
        """The founding of a known ledger."""
        known = self._known.get(ledger)
        return known.founding if known else None

    def height(self, ledger: bytes) -> int:
        """Height up to which ``ledger`` is verified here."""
        known = self._known.get(ledger)
        return known.height if known else 0

    def epoch(self, ledger: bytes) -> Epoch | None:
        """Who decides the next block of a known ledger."""
        known = self._known.get(ledger)
        return known.epoch if known else None

    def epochs(self, ledger: bytes) -> Epochs | None:
        """At which height each epoch of a known ledger began."""
        known = self._known.get(ledger)
        return known.epochs if known else None

    def block_at(self, ledger: bytes, height: int) -> StoredBlock | None:
        """A stored block."""
        raw = self._disk.get(Space.BLOCK, ledger + height.to_bytes(8, "big"))
        return codec.decode(raw, StoredBlock, limit=STORED_BYTES_MAX) if raw else None

    def seals(self, ledger: bytes, height: int) -> Iterator[StoredBlock]:
        """The blocks up to ``height`` that ended an epoch: who checks later blocks needs them."""
        known = self._known.get(ledger)
        for begun in known.epochs.beginnings() if known else ():
            stored = self.block_at(ledger, begun - 1) if begun - 1 <= height else None
            if stored is not None:
                yield stored

    # --- changes from within --------------------------------------------------------------

    def found(self, founding: Founding) -> bool:
        """Take in a founding made or received elsewhere; whether it was new.

        Raises ``CredentialError`` if it does not hold.
        """
        ledger = ledger_id(founding.genesis)
        if ledger in self._known:
            return False
        if founding.genesis.epoch().index_of(self._me) is None:
            self._make_room(founding)
        check_founding(founding, network=self._network, open_chain=self._open_chain)
        self._disk.stage(Space.LEDGER, ledger, codec.encode(founding))
        self._add(founding, ledger)
        self._unknown.pop(ledger, None)
        return True

    def _make_room(self, founding: Founding) -> None:
        """Raises ``CredentialError`` if this ledger is one too many to be carried."""
        if len(self._known) >= LEDGERS_MAX:
            raise _NoRoom(f"more than {LEDGERS_MAX} ledgers")
        for validator in founding.genesis.validators:
            known = sum(k.epochs.founded_by(validator.node) for k in self._known.values())
            if known >= LEDGERS_PER_FOUNDER_MAX:
                raise _NoRoom(f"a founder of more than {LEDGERS_PER_FOUNDER_MAX} ledgers")

    def advance(self, header: Header, following: Epoch | None = None) -> None:
        """The home ledger's next block was decided and staged by its own chain.

        ``following``: who decides above it, if it is a seal.
        """
        known = self._known[header.ledger]
        if header.height > known.height:  # else it was carried before it was executed here
            known.height, known.digest = header.height, header_digest(header)
            known.epoch = following or known.epoch
            known.loose = []

    def take(self, ledger: bytes, raws: Sequence[bytes]) -> Verified | Forked | None:
        """Check stored blocks from a peer or a file, and keep those that are new.

        Raises ``DecodeError`` or ``CredentialError`` at the first that does not hold.
        ``None``: nothing new, or nothing that connects, or nothing that is proven yet.
        """
        known = self._known.get(ledger)
        return None if known is None else self._take(ledger, known, raws)[0]

    def _take(
        self, ledger: bytes, known: _Known, raws: Sequence[bytes]
    ) -> tuple[Verified | Forked | None, list[bytes]]:
        """What ``take`` gives, and blocks that connect and that nothing proves yet."""
        height, digest, epoch = known.height, known.digest, known.epoch
        taken: list[StoredBlock] = []
        loose: list[bytes] = []
        proven = 0
        for raw in raws:
            stored = codec.decode(raw, StoredBlock, limit=STORED_BYTES_MAX)
            header = stored.block.header
            if header.height <= height:
                if fork := self._fork(ledger, stored, known):
                    return fork, []
                continue
            if header.height != height + 1:
                break
            if not taken and (fork := self._other_parent(ledger, stored, known)):
                return fork, []
            epoch = self._check(stored, epoch, digest)
            taken.append(stored)
            loose.append(raw)
            height, digest = header.height, header_digest(header)
            if stored.certificate is not None:
                proven = len(taken)
        if not proven:
            return None, loose
        taken = taken[:proven]
        if ledger != self.home:
            self._keep(ledger, taken)
        return Verified(ledger, tuple(taken)), []

    def _keep(self, ledger: bytes, blocks: Sequence[StoredBlock]) -> None:
        known = self._known[ledger]
        for stored in blocks:
            height = stored.block.header.height
            key = ledger + height.to_bytes(8, "big")
            self._disk.stage(Space.BLOCK, key, codec.encode(stored))
            following = next_epoch(stored)
            if following is not None:
                known.epochs.stage(following, height + 1)
            self.advance(stored.block.header, following)

    def _check(self, stored: StoredBlock, epoch: Epoch, parent: bytes) -> Epoch:
        """Who decides above the block, if it holds in ``epoch``; else ``CredentialError``."""
        header = stored.block.header
        if header.ledger != epoch.ledger or header.epoch != epoch.number:
            raise CredentialError("a block of another ledger or epoch")
        if header.parent != parent:
            raise CredentialError(f"block {header.height} does not name its parent")
        following = _check_content(stored.block).next_epoch
        if stored.tail and following is None:
            raise CredentialError(f"block {header.height} has a tail and ends no epoch")
        if stored.certificate is not None:
            check_proof(header, stored.tail, stored.certificate, epoch, verify=self._verify)
        if following is None:
            return epoch
        if stored.certificate is None:
            raise CredentialError(f"block {header.height} ends its epoch and nothing proves it")
        check_next(epoch, following)
        return following

    def _fork(self, ledger: bytes, stored: StoredBlock, known: _Known) -> Forked | None:
        """Whether a genuine certified block stands against the one stored at its height."""
        header = stored.block.header
        mine = self.block_at(ledger, header.height)
        if mine is None or stored.certificate is None or mine.block.header == header:
            return None
        return self._forked(ledger, mine, stored, known)

    def _other_parent(self, ledger: bytes, stored: StoredBlock, known: _Known) -> Forked | None:
        """Whether a genuine certified block follows another block than the last one here.

        Finality of a block is finality of its parent: whoever asks upward from its own head
        meets the other branch of a fork here first, and the messenger is not at fault.
        """
        mine = self.block_at(ledger, known.height)
        if mine is None or stored.certificate is None or stored.block.header.parent == known.digest:
            return None
        return self._forked(ledger, mine, stored, known)

    def _forked(
        self, ledger: bytes, mine: StoredBlock, stored: StoredBlock, known: _Known
    ) -> Forked | None:
        """The fork that a certified block proves, each by the epoch that it names.

        A tail above a seal stands at heights of the next epoch and contradicts nothing.
        """
        header = stored.block.header
        epoch = known.epochs.numbered(header.epoch)
        if epoch is None:
            raise CredentialError("a block of an epoch that is not known")
        following = self._check(stored, epoch, header.parent)
        if is_tail(stored) and known.epochs.numbered(following.number) == following:
            return None
        return Forked(ledger, mine, stored)

    def offer(self, ledger: bytes, height: int) -> ChainBlocks | None:
        """The block at ``height`` with what stands unproven below it, for a peer that lacks it."""
        raws: list[bytes] = []
        while len(raws) < BLOCKS_PER_ANSWER_MAX:
            raw = self._disk.get(Space.BLOCK, ledger + height.to_bytes(8, "big"))
            if raw is None or (raws and _is_certified(raw)):
                break
            raws.insert(0, raw)
            height -= 1
        if not raws or sum(map(len, raws)) > OFFER_BYTES_MAX:
            return None
        return ChainBlocks(ledger=ledger, founding=b"", blocks=tuple(raws))

    # --- the core -------------------------------------------------------------------------

    @property
    def deadline(self) -> Instant | None:
        """When an ask runs out."""
        waiting = [known.asked_until for known in self._known.values()]
        return earliest(*waiting, *(until for _, until in self._unknown.values()))

    def step(self, event: ChainEvent, now: Instant) -> list[ChainEffect]:
        """Take one event."""
        match event:
            case HeadsSeen():
                return self._on_heads(event, now)
            case FromPeer(peer, ChainAsk() as ask):
                return self._answer(peer, ask)
            case FromPeer(peer, ChainBlocks() as blocks):
                return self._on_blocks(peer, blocks, now)
            case PeerGone(peer):
                return self._on_gone(peer, now)
        return self._on_deadline(now)

    def _on_heads(self, event: HeadsSeen, now: Instant) -> list[ChainEffect]:
        effects: list[ChainEffect] = []
        for ledger, height in event.heads:
            known = self._known.get(ledger)
            if known is not None:
                known.claims[event.peer] = height
                effects += self._ask(ledger, known, now)
            elif ledger in self._unknown or ledger in self._refused:
                continue
            elif len(self._unknown) < LEDGERS_MAX:
                self._unknown[ledger] = (event.peer, Instant(now + ASK_MS))
                effects.append(SendChain(event.peer, ChainAsk(ledger=ledger, height=0)))
        return effects

    def _ask(self, ledger: bytes, known: _Known, now: Instant) -> list[ChainEffect]:
        """Ask one peer that claims more, unless one is being asked."""
        if known.asked is not None:
            return []
        if known.height < known.handed and now < known.handed_at + APPLY_MS:
            return []
        ahead = [peer for peer, height in known.claims.items() if height > known.height]
        if not ahead:
            return []
        if known.loose_from in ahead:
            peer = known.loose_from
        else:
            peer, known.loose = ahead[0], []
        known.asked, self._asked_at[peer] = peer, now
        known.asked_until = Instant(now + self._patience.get(peer, ASK_MS))
        height = known.height + len(known.loose)
        return [SendChain(peer, ChainAsk(ledger=ledger, height=height))]

    def _answer(self, peer: bytes, ask: ChainAsk) -> list[ChainEffect]:
        known = self._known.get(ask.ledger)
        if known is None:
            return []
        blocks: list[bytes] = []
        size = proven = 0
        height = ask.height
        while size < ANSWER_BYTES_MAX and len(blocks) < BLOCKS_PER_ANSWER_MAX:
            height += 1
            raw = self._disk.get(Space.BLOCK, ask.ledger + height.to_bytes(8, "big"))
            if raw is None:
                break
            size += len(raw)
            blocks.append(raw)
            if _is_certified(raw):
                proven = len(blocks)
        if proven:
            del blocks[proven:]  # else a descendant further up proves them: let them be loose
        founding = codec.encode(known.founding) if ask.height == 0 else b""
        answer = ChainBlocks(ledger=ask.ledger, founding=founding, blocks=tuple(blocks))
        return [SendChain(peer, answer)]

    def _on_blocks(self, peer: bytes, answer: ChainBlocks, now: Instant) -> list[ChainEffect]:
        effects: list[ChainEffect] = []
        try:
            if answer.ledger not in self._known:
                if answer.ledger not in self._unknown or not answer.founding:
                    return []
                founding = codec.decode(answer.founding, Founding)
                if ledger_id(founding.genesis) != answer.ledger:
                    raise DecodeError("the founding of another ledger")
                self.found(founding)
                effects.append(Founded(founding))
            known = self._known[answer.ledger]
            loose = known.loose if known.loose_from == peer else []
            before = len(loose)
            known.loose = []
            taken, loose = self._take(answer.ledger, known, [*loose, *answer.blocks])
        except _NoRoom:
            del self._unknown[answer.ledger]
            if len(self._refused) < LEDGERS_MAX:
                self._refused[answer.ledger] = None
            return []
        except (DecodeError, CredentialError) as error:
            return [*effects, Faulty(peer, str(error))]
        if peer in self._asked_at:  # late or not: a slow line is no silence
            took = now - self._asked_at[peer]
            self._patience[peer] = max(ASK_MS, min(2 * took, ASK_MS_MAX))
        if taken is not None:
            effects.append(taken)
        was_asked = known.asked == peer
        if was_asked:
            known.rest()
        if len(loose) > before:
            self._keep_loose(known, peer, loose)
        if not isinstance(taken, Verified) and not known.loose:
            known.claims.pop(peer, None)
        if answer.ledger == self.home and isinstance(taken, Verified):
            known.handed, known.handed_at = taken.blocks[-1].block.header.height, now
            return effects  # asked on by ``settle``, when they have been applied
        return effects + self._ask(answer.ledger, known, now) if was_asked or taken else effects

    def _keep_loose(self, known: _Known, peer: bytes, loose: list[bytes]) -> None:
        """Keep what only the next answer of ``peer`` can prove, if that may be asked for."""
        fits = len(loose) <= LOOSE_BLOCKS_MAX and sum(map(len, loose)) <= LOOSE_BYTES_MAX
        if fits and known.asked is None:
            known.loose, known.loose_from = loose, peer

    def settle(self, ledger: bytes, now: Instant) -> list[ChainEffect]:
        """The home ledger has applied what it was given: ask on if somebody claims more."""
        known = self._known.get(ledger)
        return self._ask(ledger, known, now) if known else []

    def _on_gone(self, peer: bytes, now: Instant) -> list[ChainEffect]:
        effects: list[ChainEffect] = []
        self._asked_at.pop(peer, None)
        self._patience.pop(peer, None)
        for ledger, known in self._known.items():
            known.claims.pop(peer, None)
            if known.asked == peer:
                known.rest()
                effects += self._ask(ledger, known, now)
        for ledger in [name for name, (asked, _) in self._unknown.items() if asked == peer]:
            del self._unknown[ledger]
        return effects

    def _on_deadline(self, now: Instant) -> list[ChainEffect]:
        effects: list[ChainEffect] = []
        for ledger, known in self._known.items():
            if known.asked_until is not None and known.asked_until <= now:
                if known.asked is not None:
                    known.claims.pop(known.asked, None)
                known.rest()
                effects += self._ask(ledger, known, now)
        for ledger in [name for name, (_, until) in self._unknown.items() if until <= now]:
            del self._unknown[ledger]
        return effects


def _check_content(block: Block) -> Body:
    """The content. Raises unless it is what the header commits to."""
    body = decode_body(block.content, limit=BLOCK_CONTENT_BYTES_MAX)
    if content_hash(body.summary) != block.header.content:
        raise CredentialError("a block whose content is not what its header says")
    if tips_root(body.tips) != body.summary.tips:
        raise CredentialError("a block whose tips are not what its summary says")
    return body


def _is_certified(raw: bytes) -> bool:
    """Whether a stored block carries a certificate; decoded only if its last byte leaves it open.

    An ask is small and anybody's: what it costs to answer must not be much more.
    """
    if not raw.endswith(_NULL):
        return True
    return codec.decode(raw, StoredBlock, limit=STORED_BYTES_MAX).certificate is not None
