"""A toy ledger whose machine can end an epoch: ``toy.seal`` names the devices of the next."""

from __future__ import annotations

from toy_ledger import Device, ToyMachine

from p2pmed.ledger.epochs import epoch_of, seal
from p2pmed.ledger.state import APPLIED, BlockContext, Verdict, View
from p2pmed.ledger.transaction import Entry
from p2pmed.quorum.certificate import Epoch, Validator


class SealingMachine(ToyMachine):
    """Also ``toy.seal``, with the names of the devices that decide next."""

    def apply(self, entry: Entry, view: View, context: BlockContext) -> Verdict:
        if entry.kind != "toy.seal":
            return super().apply(entry, view, context)
        epoch = epoch_of(view)
        assert epoch is not None
        seats = [Device(name) for name in entry.envelope.body]
        following = Epoch(
            ledger=epoch.ledger,
            number=epoch.number + 1,
            liars=0,
            validators=tuple(Validator(node=d.key, vote_key=d.vote_key) for d in seats),
        )
        seal(view, following)
        return Verdict(code=APPLIED)
