"""A program that commits numbered batches and says so: killed, traced and cut by the tests.

``python commit_script.py DATABASE FIRST COUNT CHECKPOINT_PAGES SEED``

Batch ``n`` sets the count to ``n``, writes some rows of random size and deletes some older
ones, all drawn from the seed and ``n``; ``state_after`` says what must then be there. After
each commit it writes ``ack n`` to standard output, unbuffered.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from random import Random

from p2pmed.storage.sqlite import open_disk
from p2pmed.world import Space

COUNT_KEY = b"count"
Rows = dict[tuple[Space, bytes], bytes]


def batch(seed: int, number: int) -> list[tuple[Space, bytes, bytes | None]]:
    """The rows of batch ``number``; ``None`` deletes."""
    rng = Random(f"{seed}/{number}")
    rows: list[tuple[Space, bytes, bytes | None]] = [
        (Space.META, COUNT_KEY, number.to_bytes(4, "big"))
    ]
    for part in range(rng.randint(1, 6)):
        size = rng.choice((0, 20, 300, 1_000, 1_000, 9_000))
        rows.append((Space.ENTRY, number.to_bytes(4, "big") + bytes([part]), rng.randbytes(size)))
        rows.append((Space.ENTRY_ID, rng.randbytes(32), number.to_bytes(4, "big")))
    for _ in range(rng.randint(0, 3)):
        old = rng.randint(0, number)
        rows.append((Space.ENTRY, old.to_bytes(4, "big") + bytes([rng.randint(0, 2)]), None))
    rows.append((Space.CONSENSUS, b"vote%d" % rng.randint(0, 3), rng.randbytes(40)))
    return rows


def apply(state: Rows, seed: int, number: int) -> None:
    """Bring ``state`` from after batch ``number - 1`` to after ``number``."""
    for space, key, value in batch(seed, number):
        if value is None:
            state.pop((space, key), None)
        else:
            state[space, key] = value


async def main(path: Path, first: int, count: int, checkpoint_pages: int, seed: int) -> None:
    async with open_disk(path, create=True, checkpoint_pages=checkpoint_pages) as disk:
        os.write(1, b"open\n")
        for number in range(first, first + count):
            for space, key, value in batch(seed, number):
                disk.stage(space, key, value)
            await disk.commit()
            os.write(1, b"ack %d\n" % number)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), *map(int, sys.argv[2:6])))
