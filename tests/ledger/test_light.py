"""Following a ledger by certificates: what holds is followed, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from light_story import Story, place
from toy_ledger import NETWORK, certify, devices, open_chain

from p2pmed.consensus.interface import header_digest
from p2pmed.errors import CredentialError, DecodeError
from p2pmed.ledger.light import (
    Checkpoint,
    Handover,
    LightBlock,
    LightChain,
    Placed,
    check_placed,
    lighten,
)
from p2pmed.ledger.state import Verdict
from p2pmed.ledger.stored import TAIL_MAX, StoredBlock
from p2pmed.quorum.certificate import VoteKind, epoch_digest
from p2pmed.wire import codec
from p2pmed.wire.hashing import hash_bytes

replace = msgspec.structs.replace
IDS = [hash_bytes(bytes([n])) for n in range(5)]


def light(story: Story) -> LightChain:
    """A stranger who knows the network."""
    return LightChain.founded(story.founding, network=NETWORK, open_chain=open_chain)


def told() -> tuple[Story, LightBlock]:
    """Four seats, then five others, then seven; a block of the third epoch."""
    everybody = devices(9)
    story = Story(everybody[:4])
    story.block(IDS)
    story.seal(everybody[2:7])
    story.block(IDS)
    story.seal(everybody[1:8], tails=2)
    return story, story.block(IDS)


def test_a_stranger_follows_every_change_of_members_to_a_block() -> None:
    """From the founders' signatures, without one body."""
    story, block = told()
    chain = light(story)
    chain.verify(story.handovers, block)
    assert (chain.epoch.number, chain.epochs_passed) == (2, 2)
    assert chain.epoch == story.epoch


def test_following_goes_on_from_a_checkpoint() -> None:
    """Somebody trusted vouches for an epoch and a height; the founders are not asked."""
    story, block = told()
    seal = story.handovers[0].seal.header
    start = Checkpoint(story.handovers[0].following, seal.height, header_digest(seal))
    LightChain(start).verify(story.handovers[1:], block)
    with pytest.raises(CredentialError, match="leaves out an epoch"):
        LightChain(start).verify(story.handovers, block)
    other = Checkpoint(start.epoch, start.height, bytes(32))
    first = Story(devices(9)[:4])
    first.block(IDS)
    first.seal(devices(9)[2:7])
    after = first.block(IDS)
    LightChain(start).check(after)
    with pytest.raises(CredentialError, match="does not follow the block below"):
        LightChain(other).check(after)


def _other_view(b: LightBlock) -> LightBlock:
    return replace(b, certificate=replace(b.certificate, view=b.certificate.view + 1))


def _swapped(b: LightBlock) -> LightBlock:
    first, second, *rest = b.certificate.signatures
    return replace(b, certificate=replace(b.certificate, signatures=(second, first, *rest)))


def _doubled(b: LightBlock) -> LightBlock:
    """One signature for two seats."""
    first, _, *rest = b.certificate.signatures
    return replace(b, certificate=replace(b.certificate, signatures=(first, first, *rest)))


def _one_less(b: LightBlock) -> LightBlock:
    bits = b.certificate.signers
    cut = replace(
        b.certificate,
        signers=bits & (bits - 1),
        signatures=b.certificate.signatures[1:],
    )
    return replace(b, certificate=cut)


def _summary(**fields: Any) -> Callable[[LightBlock], LightBlock]:
    return lambda b: replace(b, summary=replace(b.summary, **fields))


def _header(**fields: Any) -> Callable[[LightBlock], LightBlock]:
    return lambda b: replace(b, header=replace(b.header, **fields))


WRONG: dict[str, Callable[[LightBlock], LightBlock]] = {
    "view of another": _other_view,
    "signatures swapped": _swapped,
    "one signature twice": _doubled,
    "a signer less": _one_less,
    "kind": lambda b: replace(b, certificate=replace(b.certificate, kind=1)),
    "epoch of the certificate": lambda b: replace(b, certificate=replace(b.certificate, epoch=1)),
    "ledger of the certificate": lambda b: replace(
        b, certificate=replace(b.certificate, ledger=bytes(32))
    ),
    "digest": lambda b: replace(b, certificate=replace(b.certificate, digest=bytes(32))),
    "a tail that is none": lambda b: replace(b, above=(b.header,)),
    "time": _summary(time=0),
    "entries": _summary(entries=bytes(32)),
    "verdicts": _summary(verdicts=bytes(32)),
    "count": _summary(count=4),
    "state": _summary(state=bytes(32)),
    "tips": _summary(tips=bytes(32)),
    "clock": _summary(clock=0),
    "next epoch": _summary(next_epoch=bytes(32)),
    "height": _header(height=99),
    "header's view": _header(view=99),
    "header's epoch": _header(epoch=1),
    "header's ledger": _header(ledger=bytes(32)),
    "header's parent": _header(parent=bytes(32)),
    "parent's view": _header(parent_view=99),
    "proposer": _header(proposer=1),
    "proposer beyond the seats": _header(proposer=200),
    "content": _header(content=bytes(32)),
}


@pytest.mark.parametrize("forge", WRONG.values(), ids=WRONG.keys())
def test_a_forged_block_is_refused(forge: Callable[[LightBlock], LightBlock]) -> None:
    """Each field of header, summary and certificate is bound."""
    story, block = told()
    with pytest.raises(CredentialError):
        light(story).verify(story.handovers, forge(block))


def test_wrong_keys_certify_nothing() -> None:
    """A quorum of the right number, whose keys are the epoch's before."""
    story, block = told()
    strangers = devices(20)[12:19]
    forged = replace(block, certificate=certify(story.epoch, strangers, block.header))
    with pytest.raises(CredentialError, match="did not sign"):
        light(story).verify(story.handovers, forged)
    notarized = certify(story.epoch, story.seats, block.header, kind=VoteKind.NOTARIZE)
    with pytest.raises(CredentialError):
        light(story).verify(story.handovers, replace(block, certificate=notarized))


def _seal(change: Callable[[LightBlock], LightBlock]) -> Callable[[Story], list[Handover]]:
    def forge(story: Story) -> list[Handover]:
        first, second = story.handovers
        return [replace(first, seal=change(first.seal)), second]

    return forge


def _other_seats(story: Story) -> list[Handover]:
    """The seal of the first epoch, with seats that it does not name."""
    first, second = story.handovers
    validators = tuple(reversed(first.following.validators))
    return [replace(first, following=replace(first.following, validators=validators)), second]


HANDOVERS: dict[str, Callable[[Story], list[Handover]]] = {
    "none": lambda s: [],
    "the first left out": lambda s: s.handovers[1:],
    "the second left out": lambda s: s.handovers[:1],
    "in the wrong order": lambda s: s.handovers[::-1],
    "twice": lambda s: [s.handovers[0], *s.handovers],
    "other seats": _other_seats,
    "fewer liars": lambda s: [
        replace(s.handovers[0], following=replace(s.handovers[0].following, liars=0)),
        s.handovers[1],
    ],
    "an unsealed summary": _seal(lambda b: replace(b, summary=replace(b.summary, next_epoch=b""))),
    "a seal with a signer less": _seal(_one_less),
    "a seal with one signature twice": _seal(_doubled),
    "a seal without its tail": lambda s: [
        s.handovers[0],
        replace(s.handovers[1], seal=replace(s.handovers[1].seal, above=())),
    ],
    "half a tail": lambda s: [
        s.handovers[0],
        replace(
            s.handovers[1],
            seal=replace(s.handovers[1].seal, above=s.handovers[1].seal.above[1:]),
        ),
    ],
}


@pytest.mark.parametrize("forge", HANDOVERS.values(), ids=HANDOVERS.keys())
def test_forged_handovers_are_refused(forge: Callable[[Story], list[Handover]]) -> None:
    """Left out, swapped, weakened, or leading to seats that no seal names."""
    story, block = told()
    with pytest.raises(CredentialError):
        light(story).verify(forge(story), block)


def test_a_tail_is_no_seal() -> None:
    """An empty block above the seal names the next epoch too, and is not where it begins."""
    story = Story(devices(4))
    following = story.next_epoch(devices(4))
    summary = story.summary(following=following)
    header = story.header(summary)
    tail = LightBlock(header=header, summary=summary, above=(), certificate=story.certified(header))
    assert summary.next_epoch == epoch_digest(following)
    with pytest.raises(CredentialError, match="a tail above the seal"):
        light(story).hand_over(Handover(seal=tail, following=following))


def test_an_epoch_certifies_nothing_below_its_seal() -> None:
    """Seats of the second epoch cannot make a block of the first one's heights."""
    story = Story(devices(4))
    story.block(IDS)
    story.block(IDS)
    story.seal(devices(5))
    story.height, story.digest = 0, story.epoch.ledger
    below = story.block(IDS)
    with pytest.raises(CredentialError, match="below the start of its epoch"):
        light(story).verify(story.handovers, below)


def test_a_refused_step_changes_nothing() -> None:
    """After a forged handover the true one is still followed."""
    story, block = told()
    chain = light(story)
    with pytest.raises(CredentialError):
        chain.hand_over(_other_seats(story)[0])
    chain.verify(story.handovers, block)


def test_headers_lead_up_to_a_certificate() -> None:
    """A year of headers needs one certificate; one of another branch leads nowhere."""
    story = Story(devices(4))
    headers, certificate = story.headers(30)
    raws = [codec.encode(header) for header in headers]
    chain = light(story)
    chain.extend(raws, certificate)
    assert (chain.height, chain.digest) == (30, header_digest(headers[-1]))
    for wrong in ([], raws[1:], raws[:-1], [*raws[:10], *raws[11:]], [raws[0], *raws]):
        with pytest.raises(CredentialError):
            light(story).extend(wrong, certificate)
    with pytest.raises(DecodeError):
        light(story).extend([*raws[:-1], b"\x80"], certificate)
    with pytest.raises(CredentialError, match="nothing final"):
        light(story).extend(raws, replace(certificate, kind=1))


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8])
def test_a_transaction_and_its_verdict_have_one_place(count: int) -> None:
    """Index, id, code and contradicted id are all bound by the two roots."""
    ids = IDS[:count] if count <= 5 else [hash_bytes(bytes([n])) for n in range(count)]
    verdicts = [Verdict(code="applied"), Verdict(code="taken", other=ids[0])] * count
    verdicts = verdicts[:count]
    summary = Story(devices(4)).summary(ids, verdicts)
    for index, name in enumerate(ids):
        placed = place(ids, verdicts, index)
        check_placed(placed, name, summary)
        for forged in _misplaced(placed, count):
            with pytest.raises(CredentialError):
                check_placed(forged, name, summary)
        with pytest.raises(CredentialError):
            check_placed(placed, hash_bytes(b"another"), summary)


def _misplaced(placed: Placed, count: int) -> list[Placed]:
    forged = [replace(placed, index=(placed.index + 1) % 4096)]
    forged += [replace(placed, index=each) for each in range(count) if each != placed.index]
    forged += [replace(placed, code="refused"), replace(placed, other=bytes(32))]
    forged += [replace(placed, other=hash_bytes(b"o")), replace(placed, other=b"half")]
    forged += [replace(placed, path=(*placed.path, bytes(32)))]
    forged += [replace(placed, verdict_path=(*placed.verdict_path, bytes(32)))]
    if placed.path:
        forged += [replace(placed, path=placed.path[1:])]
        forged += [replace(placed, path=placed.verdict_path, verdict_path=placed.path)]
        forged += [replace(placed, verdict_path=placed.verdict_path[:-1])]
    return forged


def test_a_light_block_is_cut_from_stored_ones() -> None:
    """A block that a descendant proves gets the headers up to that one; unproven, nothing."""
    from p2pmed.consensus.interface import Block
    from p2pmed.ledger.block import Body

    story = Story(devices(4))
    stored: dict[int, StoredBlock] = {}
    for height in range(1, 5):
        summary = story.summary(IDS)
        header = story.header(summary)
        story.take(header)
        block = Block(header=header, content=codec.encode(Body(summary=summary, tips=())))
        certificate = story.certified(header) if height == 3 else None
        stored[height] = StoredBlock(block=block, certificate=certificate)
    found = lighten(stored.get, 1)
    assert found is not None
    assert [header.height for header in found.above] == [2, 3]
    light(story).check(found)
    assert lighten(stored.get, 4) is None
    assert lighten(stored.get, 9) is None
    assert TAIL_MAX >= 2
