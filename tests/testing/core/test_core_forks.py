"""Beyond f liars an honest mesh may fork: then the guilty are named, at least f + 1 of them."""

from __future__ import annotations

from random import Random

import pytest

from p2pmed.consensus.bft.messages import Certificates, decode_message
from p2pmed.quorum.certificate import Certificate
from p2pmed.quorum.evidence import accused
from p2pmed.testing.core.faults import CoreMischief
from p2pmed.testing.core.oracle import name_of, plain_header
from p2pmed.testing.core.oracle_bft import BftOracle
from p2pmed.testing.core.story import Cast, Run
from p2pmed.testing.core.strategies import TWINS


class Forgiving(BftOracle):
    """Sees a fork without ending the run: both certificates of a height are kept."""

    def __init__(self) -> None:
        super().__init__()
        self.proofs: dict[int, dict[bytes, Certificate]] = {}
        self.statements: dict[Certificate, None] = {}

    def on_send(self, member, seat, message) -> None:  # type: ignore[no-untyped-def]
        """Certificates of both sides are what evidence is made of."""
        said = decode_message(message)
        if member.honest and isinstance(said, Certificates):
            self.statements.update(dict.fromkeys(said.certificates))

    def on_fetch(self, member, block) -> None:  # type: ignore[no-untyped-def]
        """A fetched block follows whatever the member decided."""

    def on_decide(self, member, block, certificate) -> None:  # type: ignore[no-untyped-def]
        """Remember what proves the block."""
        if member.honest and certificate is not None:
            self.check_certificate(certificate)
            self.statements[certificate] = None
            digest = name_of(plain_header(block.header))
            self.proofs.setdefault(block.header.height, {})[digest] = certificate

    def signers(self) -> set[int]:
        """Seats that stand behind two certificates of one height."""
        found: set[int] = set()
        for rivals in self.proofs.values():
            if len(rivals) > 1:
                first, second = list(rivals.values())[:2]
                both = first.signers & second.signers
                found |= {seat for seat in range(20) if both >> seat & 1}
        return found


def fork(seats: int, liars: int, seed: int) -> tuple[Run, Forgiving]:
    """``liars`` twins, one more than withstood; each of them has half of the mesh for itself."""
    lying = dict.fromkeys(range(liars), TWINS)
    oracle = Forgiving()
    cast = Cast(engine="bft", seats=seats, liars=(seats - 1) // 3, lying=lying)
    run = Run(cast, seed, [], oracle=oracle)
    world = run.world
    for member in world.members:
        member.start()
    left = [m for m in world.members if m.place % 2 == 0]
    right = [m for m in world.members if m.place % 2]
    CoreMischief(world, away_max=0, recovers=False, forget_max=0).between(
        left, right, both=True, wait=10**9
    )
    dice = Random(seed)
    for _ in range(12):
        world.submit((1, dice.randint(2, 40)))
        world.run(world.now + 400)
    world.net.heal()
    for _ in range(6):
        world.submit()
        world.run(world.now + 1_500)
    return run, oracle


@pytest.mark.parametrize(("seats", "liars"), [(4, 2), (7, 3), (10, 4)])
@pytest.mark.parametrize("seed", range(3))
def test_a_fork_names_the_guilty(seats: int, liars: int, seed: int) -> None:
    """f + 1 twins fork a mesh; the certificates of both sides name them all and nobody else."""
    run, oracle = fork(seats, liars, seed)
    assert oracle.signers(), "nothing forked: the scenario proves nothing"
    assert oracle.signers() == set(range(liars))
    assert set(oracle.accused) <= set(range(liars))
    verify, epoch = run.world.book.verify, run.world.epoch
    assert accused(tuple(oracle.statements), epoch, verify=verify) == tuple(range(liars))


@pytest.mark.parametrize(("seats", "liars"), [(4, 1), (7, 2)])
def test_f_liars_cannot_fork(seats: int, liars: int) -> None:
    """With as many twins as the epoch withstands, the same splits give one chain."""
    for seed in range(3):
        _, oracle = fork(seats, liars, seed)
        assert oracle.signers() == set()
