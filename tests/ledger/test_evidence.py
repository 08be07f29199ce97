"""Evidence names who signed what cannot stand together, and never anybody else."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from light_story import Story
from toy_ledger import NETWORK, Device, Writer, devices

from p2pmed.consensus.interface import Header, header_digest
from p2pmed.errors import CredentialError, DecodeError
from p2pmed.ledger.evidence import (
    ATTESTATIONS,
    LEDGER_FORK,
    LOG_FORK,
    Branch,
    Evidence,
    check_evidence,
    decode_evidence,
    log_fork,
)
from p2pmed.quorum.certificate import Certificate, Epoch, VoteKind, make_certificate, vote_bytes
from p2pmed.quorum.evidence import EQUIVOCATION, NULLIFY_AND_FINALIZE
from p2pmed.wire import codec
from p2pmed.wire.hashing import hash_bytes

replace = msgspec.structs.replace
A, B = hash_bytes(b"a block"), hash_bytes(b"another block")


def votes(story: Story, kind: VoteKind, view: int, digest: bytes, seats: list[int]) -> Certificate:
    """What ``seats`` signed."""
    epoch = story.epoch
    message = vote_bytes(epoch.ledger, epoch.number, kind, view, digest)
    signed = [(seat, story.seats[seat].vote(message)) for seat in seats]
    return make_certificate(epoch, kind, view, digest, signed)


def evidence_of(story: Story, kind: str, first: Any, second: Any, **fields: Any) -> Evidence:
    """With all that a stranger needs."""
    values: dict[str, Any] = {
        "version": 1,
        "kind": kind,
        "network": NETWORK,
        "genesis": story.genesis,
        "founders": story.founding.signatures,
        "handovers": tuple(story.handovers),
        "first": codec.encode(first),
        "second": codec.encode(second),
    }
    return Evidence(**{**values, **fields})


def equivocation(story: Story, seat: int = 1) -> Evidence:
    """One seat notarized two blocks of one view."""
    return evidence_of(
        story,
        EQUIVOCATION,
        votes(story, VoteKind.NOTARIZE, 7, A, [seat]),
        votes(story, VoteKind.NOTARIZE, 7, B, [seat]),
    )


def of(story: Story, *seats: int) -> tuple[bytes, ...]:
    return tuple(story.seats[seat].key for seat in seats)


def later_story() -> Story:
    """The third epoch, with other seats than the first."""
    everybody = devices(9)
    story = Story(everybody[:4])
    story.seal(everybody[2:7])
    story.seal(everybody[1:8], tails=1)
    return story


def test_two_votes_of_one_view_name_their_signer() -> None:
    """Notarize twice, finalize twice, nullify and finalize; in the first epoch and a later one."""
    for story in (Story(devices(4)), later_story()):
        case = check_evidence(equivocation(story))
        assert (case.kind, case.guilty) == (EQUIVOCATION, of(story, 1))
        assert case.epoch == story.epoch
        twice = evidence_of(
            story,
            EQUIVOCATION,
            votes(story, VoteKind.FINALIZE, 7, A, [0, 1, 3]),
            votes(story, VoteKind.FINALIZE, 7, B, [2, 3]),
        )
        assert check_evidence(twice).guilty == of(story, 3)
        both = evidence_of(
            story,
            NULLIFY_AND_FINALIZE,
            votes(story, VoteKind.NULLIFY, 7, b"", [0, 2, 3]),
            votes(story, VoteKind.FINALIZE, 7, A, [0, 1, 2]),
        )
        assert check_evidence(both).guilty == of(story, 0, 2)


HONEST = {
    "the same vote twice": (VoteKind.NOTARIZE, 7, A, VoteKind.NOTARIZE, 7, A),
    "votes of two views": (VoteKind.NOTARIZE, 7, A, VoteKind.NOTARIZE, 8, B),
    "notarize one, finalize another": (VoteKind.NOTARIZE, 7, A, VoteKind.FINALIZE, 7, B),
    "notarize and nullify": (VoteKind.NOTARIZE, 7, A, VoteKind.NULLIFY, 7, b""),
    "finalize two heights": (VoteKind.FINALIZE, 7, A, VoteKind.FINALIZE, 8, B),
}


@pytest.mark.parametrize("said", HONEST.values(), ids=HONEST.keys())
@pytest.mark.parametrize("kind", [EQUIVOCATION, NULLIFY_AND_FINALIZE])
def test_what_an_honest_validator_signs_is_no_evidence(said: Any, kind: str) -> None:
    """The engines' rules allow these pairs."""
    story = Story(devices(4))
    pair = [votes(story, *said[:3], [1]), votes(story, *said[3:], [1])]
    with pytest.raises(CredentialError):
        check_evidence(evidence_of(story, kind, *pair))


def test_a_false_signature_punishes_nobody() -> None:
    """Not in the guilty one's place, and not beside it (cometbft#1749)."""
    story = Story(devices(4))
    first = votes(story, VoteKind.NOTARIZE, 7, A, [1, 2])
    second = votes(story, VoteKind.NOTARIZE, 7, B, [1, 2])
    check_evidence(evidence_of(story, EQUIVOCATION, first, second))
    for forged in (
        replace(second, signatures=second.signatures[::-1]),
        replace(second, signatures=(second.signatures[0], first.signatures[1])),
        replace(second, signatures=(bytes(64), second.signatures[1])),
        replace(second, signers=0b1010),
        replace(second, signers=0b0010),
        replace(second, view=8),
        replace(second, epoch=1),
        replace(second, ledger=bytes(32)),
        replace(second, digest=bytes(32)),
        replace(second, digest=b""),
        replace(second, kind=3),
        replace(second, signers=0b10000000010, signatures=second.signatures),
    ):
        with pytest.raises(CredentialError):
            check_evidence(evidence_of(story, EQUIVOCATION, first, forged))


def test_votes_of_nobody_in_common_name_nobody() -> None:
    """Two quorums may disagree in a view; that alone is no fault of anybody."""
    story = Story(devices(4))
    apart = evidence_of(
        story,
        EQUIVOCATION,
        votes(story, VoteKind.NOTARIZE, 7, A, [0, 1]),
        votes(story, VoteKind.NOTARIZE, 7, B, [2, 3]),
    )
    with pytest.raises(CredentialError, match="names nobody"):
        check_evidence(apart)


def test_an_invented_ledger_gives_nobody_a_vote_key() -> None:
    """Whoever makes a genesis with another's name in it lacks that other's signature."""
    victim = Device("victim")
    mallory = devices(3)

    class Puppet(Device):
        """The victim's device key with a vote key of Mallory's."""

        @property
        def vote_seed(self) -> bytes:
            return hash_bytes(b"mallory's own")

    seats = sorted([*mallory, Puppet("victim")], key=lambda d: d.key)
    story = Story(seats)
    seat = [d.key for d in seats].index(victim.key)
    framed = equivocation(story, seat)
    assert check_evidence(framed).guilty == (victim.key,)  # had the victim signed it
    rest = list(story.founding.signatures)
    rest[seat] = rest[seat - 1]
    for founders in ((), tuple(rest), story.founding.signatures[:-1]):
        with pytest.raises(CredentialError):
            check_evidence(replace(framed, founders=founders))


def test_evidence_is_of_the_epoch_that_the_handovers_lead_to() -> None:
    """With one left out the votes are of another epoch; a known epoch is believed instead."""
    story = later_story()
    evidence = equivocation(story)
    for handovers in ((), evidence.handovers[:1], evidence.handovers[1:]):
        with pytest.raises(CredentialError):
            check_evidence(replace(evidence, handovers=handovers))
    bare = replace(evidence, handovers=(), founders=())
    assert check_evidence(bare, epoch=story.epoch).guilty == of(story, 1)
    other = Story(devices(4), liars=0)
    with pytest.raises(CredentialError, match="another ledger"):
        check_evidence(bare, epoch=other.epoch)


# --- forks ------------------------------------------------------------------------------------


def two_blocks(story: Story, **fields: Any) -> tuple[Header, Header]:
    """Two headers of one height."""
    return (
        story.header(story.summary([A])),
        story.header(story.summary([B]), **fields),
    )


def branch(
    story: Story, header: Header, seats: list[int], above: tuple[Header, ...] = ()
) -> Branch:
    last = above[-1] if above else header
    signed = votes(story, VoteKind.FINALIZE, last.view, header_digest(last), seats)
    return Branch(header=header, above=above, votes=signed)


def test_a_fork_in_one_view_names_whoever_finalized_both() -> None:
    """Four seats, one liar provided for, two liars: two certificates, two names."""
    story = Story(devices(4))
    one, two = two_blocks(story)
    fork = evidence_of(
        story, LEDGER_FORK, branch(story, one, [0, 1, 2]), branch(story, two, [1, 2, 3])
    )
    case = check_evidence(fork)
    assert case.guilty == of(story, 1, 2)
    assert case.height == 1


def test_a_fork_across_views_is_named_by_the_certificate_between() -> None:
    """One final in view 1; view 1 also nullified, and another block final in view 2."""
    story = Story(devices(4))
    one, two = two_blocks(story, skip=1)
    first, second = branch(story, one, [0, 1, 2]), branch(story, two, [1, 2, 3])
    fork = evidence_of(story, LEDGER_FORK, first, second)
    assert check_evidence(fork).guilty == ()  # who finalized both may have been lied to
    nullified = votes(story, VoteKind.NULLIFY, 1, b"", [1, 2, 3])
    named = check_evidence(replace(fork, links=(nullified,)))
    assert named.guilty == of(story, 1, 2)
    notarized = (
        votes(story, VoteKind.NOTARIZE, 1, header_digest(one), [0, 1, 2]),
        votes(story, VoteKind.NOTARIZE, 1, B, [0, 2, 3]),
    )
    assert check_evidence(replace(fork, links=notarized)).guilty == of(story, 0, 2)


def test_a_fork_shows_at_a_descendant_or_at_a_parent_too() -> None:
    """A certified block proves what is below it."""
    story = Story(devices(4))
    one, two = two_blocks(story)
    story.take(two)
    above = story.header(story.summary([A]))
    seats = [0, 1, 2]
    check_evidence(
        evidence_of(
            story,
            LEDGER_FORK,
            branch(story, one, seats),
            branch(story, above, seats),
        )
    )
    tall = evidence_of(
        story,
        LEDGER_FORK,
        branch(story, one, seats),
        branch(story, two, seats, above=(above,)),
    )
    assert check_evidence(tall).height == 1


def test_two_parts_of_one_chain_are_no_fork() -> None:
    """A block and its child agree at every height that both speak of."""
    story = Story(devices(4))
    one, _ = two_blocks(story)
    story.take(one)
    child = story.header(story.summary([A]))
    for second in (one, child):
        same = evidence_of(
            story,
            LEDGER_FORK,
            branch(story, one, [0, 1, 2]),
            branch(story, second, [0, 1, 2]),
        )
        with pytest.raises(CredentialError, match="may well be one"):
            check_evidence(same)


def test_a_fork_needs_two_quorums() -> None:
    """Votes of fewer make nothing final, so nothing forked."""
    story = Story(devices(4))
    one, two = two_blocks(story)
    few = evidence_of(story, LEDGER_FORK, branch(story, one, [0, 1, 2]), branch(story, two, [1, 2]))
    with pytest.raises(CredentialError):
        check_evidence(few)


def test_a_raft_member_attests_one_block_a_height() -> None:
    """Two attestations are evidence in Raft, and none in BFT, where views may differ."""
    story = Story(devices(3), engine="raft")
    one, two = two_blocks(story, skip=1)
    pair = (branch(story, one, [2]), branch(story, two, [1, 2]))
    case = check_evidence(evidence_of(story, ATTESTATIONS, *pair))
    assert case.guilty == of(story, 2)
    other = Story(devices(4))
    one, two = two_blocks(other, skip=1)
    pair = (branch(other, one, [2]), branch(other, two, [1, 2]))
    with pytest.raises(CredentialError, match="BFT"):
        check_evidence(evidence_of(other, ATTESTATIONS, *pair))


def test_a_raft_fork_names_whoever_attested_both_chains() -> None:
    """An attestation of a block is one of all below it."""
    story = Story(devices(3), engine="raft")
    one, two = two_blocks(story, skip=1)
    fork = evidence_of(story, LEDGER_FORK, branch(story, one, [0, 1]), branch(story, two, [1, 2]))
    assert check_evidence(fork).guilty == of(story, 1)


# --- author logs --------------------------------------------------------------------------------


def test_two_entries_of_one_place_name_their_author() -> None:
    """In whatever order they are told, it is the same evidence."""
    writer = Writer(Device("a"))
    writer.write()
    copy = writer.fork()
    one, two = writer.write(body=[b"k", b"1"]), copy.write(body=[b"k", b"2"])
    case = check_evidence(log_fork(NETWORK, one.raw, two.raw))
    assert (case.kind, case.guilty) == (LOG_FORK, (writer.device.key,))
    assert log_fork(NETWORK, one.raw, two.raw) == log_fork(NETWORK, two.raw, one.raw)
    later = check_evidence(log_fork(NETWORK, writer.write().raw, copy.write().raw))
    assert later.place == case.place


def test_no_two_honest_entries_are_a_fork() -> None:
    """One twice, neighbours, another incarnation, another author, a false signature."""
    writer = Writer(Device("a"))
    one, two = writer.write(), writer.write()
    other = Writer(Device("a"), incarnation=bytes([1] * 16)).write()
    stranger = Writer(Device("b")).write()
    twin = Writer(Device("a")).write(body=[b"k", b"w"])
    forged = twin.raw[:-1] + bytes([twin.raw[-1] ^ 1])
    for second in (one.raw, two.raw, other.raw, stranger.raw, forged):
        with pytest.raises(CredentialError):
            check_evidence(log_fork(NETWORK, one.raw, second))
    check_evidence(log_fork(NETWORK, one.raw, twin.raw))
    with pytest.raises(CredentialError, match="did not sign"):
        check_evidence(log_fork(hash_bytes(b"another network"), one.raw, twin.raw))


# --- bytes --------------------------------------------------------------------------------------


def samples() -> list[Evidence]:
    story = later_story()
    one, two = two_blocks(story)
    writer = Writer(Device("a"))
    twin = writer.fork()
    raft = Story(devices(3), engine="raft")
    low, high = two_blocks(raft, skip=1)
    return [
        equivocation(story),
        evidence_of(
            story,
            NULLIFY_AND_FINALIZE,
            votes(story, VoteKind.NULLIFY, 7, b"", [0, 2]),
            votes(story, VoteKind.FINALIZE, 7, A, [1, 2]),
        ),
        evidence_of(
            story,
            LEDGER_FORK,
            branch(story, one, [0, 1, 2, 3, 4]),
            branch(story, two, [0, 2, 3, 4, 5]),
        ),
        evidence_of(raft, ATTESTATIONS, branch(raft, low, [2]), branch(raft, high, [2])),
        log_fork(NETWORK, writer.write().raw, twin.write(body=[b"k", b"x"]).raw),
    ]


@pytest.mark.parametrize("evidence", samples(), ids=lambda evidence: evidence.kind)
def test_a_changed_byte_is_refused(evidence: Evidence) -> None:
    """Every part is checked or not carried."""
    raw = codec.encode(evidence)
    assert decode_evidence(raw) == evidence
    check_evidence(evidence)
    step = max(1, len(raw) // 400)
    for at in range(0, len(raw), step):
        forged = raw[:at] + bytes([raw[at] ^ 0x01]) + raw[at + 1 :]
        with pytest.raises((CredentialError, DecodeError)):
            check_evidence(decode_evidence(forged))


def test_unknown_and_misplaced_parts_are_refused() -> None:
    """No kind but the five, no genesis where none belongs, no links beside votes."""
    story = Story(devices(4))
    evidence = equivocation(story)
    link = votes(story, VoteKind.NULLIFY, 7, b"", [1])
    wrong = [
        replace(evidence, kind="rumour"),
        replace(evidence, genesis=None),
        replace(evidence, network=bytes(32)),
        replace(evidence, links=(link,)),
        replace(evidence, kind=LEDGER_FORK),
        replace(evidence, kind=ATTESTATIONS),
        replace(evidence, kind=LOG_FORK),
        replace(evidence, kind=NULLIFY_AND_FINALIZE),
    ]
    for each in wrong:
        with pytest.raises((CredentialError, DecodeError)):
            check_evidence(each)
    assert isinstance(story.epoch, Epoch)
