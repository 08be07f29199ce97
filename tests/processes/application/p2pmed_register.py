"""An application with one ordered type: registers that are set, or compared and set."""

from __future__ import annotations

from p2pmed import View, Wire
from p2pmed.medical import Act, Kind, Rejection


class RegisterSet(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The register ``key`` is ``new`` from here on, if it was ``old``."""

    key: str
    old: str
    """Empty: whatever it was."""
    new: str


def row(key: str) -> bytes:
    return b"x/register/" + key.encode()


def check(act: Act[RegisterSet], view: View) -> Rejection | None:
    """Compare."""
    if not act.body.old or view.get(row(act.body.key)) == act.body.old.encode():
        return None
    return Rejection.REFERENCE_MISMATCH


def apply(act: Act[RegisterSet], view: View) -> None:
    """And set."""
    view.put(row(act.body.key), act.body.new.encode())


def kinds() -> list[Kind[RegisterSet]]:
    """What the entry point of this application names."""
    return [
        Kind(
            name="register.set",
            body=RegisterSet,
            check=check,
            apply=apply,
            rules="Refused `reference_mismatch` if the register is not what was compared.",
        )
    ]
