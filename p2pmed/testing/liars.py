"""A device that lies: its own node is honest, and what leaves it is changed on the way.

Lies are *well-formed*. They are spelled right, signed with the liar's real keys, and committed to
by right hashes, for a check of validity is tested by nothing else: two copies of an honest
program never say anything that could not be true (Twins, arXiv 2004.10617, and what it misses).

Each lie is a function ``(liar, target, message) -> messages | None`` of a decoded message; ``None``
leaves it as it is. Engines' messages and those of nodes have a table each. ``Liar.on`` switches
one on for a while; several may be on at once.

Rule: only this device's keys are used, and the dice that are handed in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from random import Random
from types import MappingProxyType
from typing import Any, Final

import msgspec

from p2pmed.consensus.bft import messages as bft
from p2pmed.consensus.interface import Block, header_digest
from p2pmed.errors import DecodeError
from p2pmed.ledger.block import Tip, content_hash, decode_body, tips_root
from p2pmed.limits import BLOCK_CONTENT_BYTES_MAX
from p2pmed.node.messages import ConsensusFrame, decode_message
from p2pmed.quorum.certificate import Certificate, VoteKind, vote_bytes
from p2pmed.testing.hearsay import NODE_LIES
from p2pmed.wire import codec

__all__ = ["ENGINE_LIES", "Liar"]

OLD_MAX: Final = 64
"""Engine messages remembered, to be said again when they are stale."""
FAR_VIEWS: Final = 1_000_000
THEME_SHARE: Final = 0.6
"""Of the false blocks of one lie, those that break the same rule."""
Lie = Callable[["Liar", int, Any], "Sequence[Any] | None"]


class Liar:
    """What leaves one device. ``node`` is its ``SimNode``; its power may come and go."""

    def __init__(self, node: Any) -> None:
        self.node = node
        self.dice = Random(0)
        self.far: frozenset[int] = frozenset()
        """Devices to whom the other story is told."""
        self.old: deque[Any] = deque(maxlen=OLD_MAX)
        self.others: dict[bytes, bytes] = {}
        """Digest of a block proposed here -> that of the one proposed instead."""
        self.theme = 0
        """Which of many rules is broken, where a lie has a choice."""
        self._on: dict[str, None] = {}

    def on(self, lie: str, dice: Random, nodes: int) -> None:
        """Begin to tell it, to a part of the devices where it needs two stories."""
        self.dice = dice
        self.theme = dice.randrange(1 << 16)
        numbers = [number for number in range(nodes) if number != self.node.number]
        self.far = frozenset(dice.sample(numbers, dice.randint(1, max(1, len(numbers) - 1))))
        self._on[lie] = None

    def off(self, lie: str) -> None:
        """Stop."""
        self._on.pop(lie, None)

    def send(self, target: int, raw: bytes) -> list[bytes]:
        """What goes to device ``target`` in place of ``raw``."""
        if not self._on:
            return [raw]
        try:
            message = decode_message(raw)
        except DecodeError:
            return [raw]
        if isinstance(message, ConsensusFrame):
            return self._engine(target, message, raw)
        said = self._told(NODE_LIES, target, message)
        return [raw] if said is None else [codec.encode(each) for each in said]

    def _engine(self, target: int, frame: ConsensusFrame, raw: bytes) -> list[bytes]:
        try:
            message = bft.decode_message(frame.message)
        except DecodeError:
            return [raw]
        self.old.append(message)
        parts = message.votes if isinstance(message, bft.Votes) else (message,)
        told = [self._told(ENGINE_LIES, target, part) for part in parts]
        if all(each is None for each in told):
            return [raw]
        said = [
            one
            for part, each in zip(parts, told, strict=True)
            for one in ([part] if each is None else each)
        ]
        return [
            codec.encode(
                msgspec.structs.replace(
                    frame, message=each if isinstance(each, bytes) else bft.encode_message(each)
                )
            )
            for each in said
        ]

    def _told(self, lies: Mapping[str, Lie], target: int, message: Any) -> list[Any] | None:
        """The messages that all lies together make of one; ``None`` if they leave it."""
        said: list[Any] | None = None
        for name in self._on:
            lie = lies.get(name)
            if lie is None:
                continue
            changed: list[Any] = []
            for each in [message] if said is None else said:
                told = None if isinstance(each, bytes) else lie(self, target, each)
                changed += [each] if told is None else told
            said = changed
        return said

    # --- what only this device can make -----------------------------------------------------

    def vote(self, kind: int, view: int, digest: bytes) -> bft.Vote:
        """A genuine vote of this seat."""
        epoch = self.node.home.epoch
        message = vote_bytes(epoch.ledger, epoch.number, kind, view, digest)
        signer = self.node.identity.keys.vote_signer(epoch.number)
        return bft.Vote(kind=kind, view=view, digest=digest, signature=signer.sign(message))

    def forged(self, kind: int, view: int, digest: bytes, *, seats: int) -> Certificate:
        """A certificate that says that ``seats`` seats signed, all with this device's key."""
        epoch = self.node.home.epoch
        signature = self.vote(kind, view, digest).signature
        return Certificate(
            ledger=epoch.ledger,
            epoch=epoch.number,
            kind=kind,
            view=view,
            digest=digest,
            signers=(1 << seats) - 1,
            signatures=(signature,) * seats,
        )

    def block(self, block: Block, **header: Any) -> Block:
        """The block with another header; votes of this device follow it."""
        other = Block(header=msgspec.structs.replace(block.header, **header), content=block.content)
        self.others[header_digest(block.header)] = header_digest(other.header)
        return other

    def with_body(self, block: Block, body: Any) -> Block:
        """The block with another content, rightly hashed."""
        other = Block(
            header=msgspec.structs.replace(block.header, content=content_hash(body.summary)),
            content=codec.encode(body),
        )
        self.others[header_digest(block.header)] = header_digest(other.header)
        return other


# --- engines' messages ------------------------------------------------------------------------


def _followed(liar: Liar, vote: bft.Vote) -> bft.Vote | None:
    """The vote for what was proposed instead."""
    other = liar.others.get(vote.digest)
    return None if other is None else liar.vote(vote.kind, vote.view, other)


def _equivocate(liar: Liar, target: int, message: Any) -> Sequence[Any] | None:
    """Two valid blocks in one view, and a vote for each to its half."""
    if target not in liar.far:
        return None
    if isinstance(message, bft.Proposal):
        other = _built_again(liar, message.block)
        return None if other is None else [msgspec.structs.replace(message, block=other)]
    if isinstance(message, bft.Vote) and message.kind != VoteKind.NULLIFY:
        made_up = liar.vote(message.kind, message.view, bytes([liar.node.number]) * 32)
        return [_followed(liar, message) or made_up]
    return None


def _built_again(liar: Liar, block: Block) -> Block | None:
    """A block as valid as ``block``, made a second later."""
    chain = liar.node.home.chain
    liar.node.clock.offset_ms += 1_000
    try:
        content = chain.build(block.header.parent, block.header.view)
    finally:
        liar.node.clock.offset_ms -= 1_000
    if content is None:
        return None
    header = msgspec.structs.replace(block.header, content=content.hash)
    other = Block(header=header, content=content.data)
    liar.others[header_digest(block.header)] = header_digest(header)
    return other


def _split_votes(liar: Liar, target: int, message: Any) -> Sequence[Any] | None:
    """*Notarize* and *finalize* to some, *nullify* to the others."""
    if isinstance(message, bft.Vote) and target in liar.far and message.kind != VoteKind.NULLIFY:
        return [liar.vote(VoteKind.NULLIFY, message.view, b"")]
    return None


def _withhold(liar: Liar, target: int, message: Any) -> Sequence[Any] | None:
    """Blocks, certificates and the last vote of a view reach only some."""
    last = isinstance(message, bft.Vote) and message.kind == VoteKind.FINALIZE
    kinds = (bft.Proposal, bft.Certificates, bft.Decided, bft.Body)
    return [] if target in liar.far and (last or isinstance(message, kinds)) else None


def _stale(liar: Liar, _: int, message: Any) -> Sequence[Any] | None:
    """With each message an old one: certificates and votes of views that are over."""
    return [liar.dice.choice(liar.old), message]


def _forge(liar: Liar, target: int, message: Any) -> Sequence[Any] | None:
    """Certificates that nobody else signed, of this view, of the next, and of a made-up block."""
    if not isinstance(message, bft.Vote) or liar.dice.random() < 0.5:
        return None
    seats = len(liar.node.home.epoch.validators)
    kind = liar.dice.choice((VoteKind.NOTARIZE, VoteKind.NULLIFY, VoteKind.FINALIZE))
    digest = message.digest or bytes([target]) * 32
    made_up = liar.dice.choice((digest, bytes([target]) * 32))
    forged = liar.forged(
        kind,
        message.view + liar.dice.randint(0, 3),
        b"" if kind == VoteKind.NULLIFY else made_up,
        seats=liar.dice.choice((seats, seats, 1, 2)),
    )
    return [message, bft.Certificates((forged,))]


def _false_signature(liar: Liar, _: int, message: Any) -> Sequence[Any] | None:
    """Votes that are not signed by the seat that sends them."""
    if not isinstance(message, bft.Vote):
        return None
    signature = bytes([message.signature[0] ^ 1]) + message.signature[1:]
    return [msgspec.structs.replace(message, signature=signature)]


def _far_views(liar: Liar, _: int, message: Any) -> Sequence[Any] | None:
    """Votes of a future that nobody lives to see."""
    if not isinstance(message, bft.Vote):
        return None
    far = message.view + liar.dice.choice((3, 70, 600, FAR_VIEWS))
    return [message, liar.vote(message.kind, far, message.digest)]


def _garbage(liar: Liar, _: int, message: Any) -> Sequence[Any] | None:
    """Bytes that mean nothing, and bytes that nearly mean something."""
    raw = bft.encode_message(message)
    cut = liar.dice.randint(0, len(raw))
    return [message, liar.dice.choice((raw[:cut], raw + b"\x00", liar.dice.randbytes(40)))]


def _invalid_block(liar: Liar, _: int, message: Any) -> Sequence[Any] | None:
    """A block that breaks one rule and has all its hashes right; own votes follow it."""
    if isinstance(message, bft.Vote):
        followed = _followed(liar, message)
        return None if followed is None else [followed]
    if not isinstance(message, bft.Proposal):
        return None
    known = liar.others.get(header_digest(message.block.header))
    other = _broken(liar, message.block, Random(message.block.header.view))
    if known is not None and header_digest(other.header) != known:
        return []
    return [msgspec.structs.replace(message, block=other)]


def _broken(liar: Liar, block: Block, dice: Random) -> Block:
    """``block`` with one rule broken; the same for all targets."""
    header = block.header
    headers: list[dict[str, Any]] = [
        {"height": header.height + 1},
        {"height": header.height - 1} if header.height > 1 else {"height": 7},
        {"epoch": header.epoch + 1},
        {"parent_view": max(0, header.parent_view - 1)},
        {"parent": header.content},
        {"content": header.parent},
        {"ledger": header.parent},
    ]
    body = decode_body(block.content, limit=BLOCK_CONTENT_BYTES_MAX)
    summaries: list[dict[str, Any]] = [
        {"state": body.summary.verdicts},
        {"verdicts": body.summary.state},
        {"entries": body.summary.state},
        {"count": body.summary.count + 1},
        {"time": body.summary.time + 86_400_000},
        {"time": body.summary.time - 86_400_000},
        {"time": 1},
        {"tips": body.summary.state},
    ]
    choice = liar.theme if dice.random() < THEME_SHARE else dice.randrange(1 << 16)
    sort, which = choice % 6, choice // 6
    if sort == 0:
        return liar.block(block, **headers[which % len(headers)])
    bodies = _broken_tips(body) if sort == 1 else []
    if bodies:
        return liar.with_body(block, bodies[which % len(bodies)])
    summary = msgspec.structs.replace(body.summary, **summaries[which % len(summaries)])
    return liar.with_body(block, msgspec.structs.replace(body, summary=summary))


def _broken_tips(body: Any) -> list[Any]:
    """Bodies that order what does not follow, is not here, or is ordered twice."""
    if not body.tips:
        return []
    first = body.tips[0]
    changes = [
        msgspec.structs.replace(first, seq=first.seq + 3),
        msgspec.structs.replace(first, seq=max(0, first.seq - 3)),
        msgspec.structs.replace(first, id=first.author),
        Tip(author=first.id, incarnation=first.incarnation, seq=0, id=first.author),
    ]
    made = []
    for tip in changes:
        tips = tuple(sorted((tip, *body.tips[1:]), key=lambda each: each.lane))
        summary = msgspec.structs.replace(body.summary, tips=tips_root(tips))
        made.append(msgspec.structs.replace(body, tips=tips, summary=summary))
    fewer = body.tips[1:]
    summary = msgspec.structs.replace(body.summary, tips=tips_root(fewer))
    made.append(msgspec.structs.replace(body, tips=fewer, summary=summary))
    return made


ENGINE_LIES: Final[Mapping[str, Lie]] = MappingProxyType(
    {
        "equivocation": _equivocate,
        "split votes": _split_votes,
        "withholding": _withhold,
        "stale certificates": _stale,
        "forged certificates": _forge,
        "false signatures": _false_signature,
        "far views": _far_views,
        "garbage": _garbage,
        "invalid block": _invalid_block,
    }
)
"""For BFT, which withstands liars; a Raft mesh trusts the engines of its members."""
