"""What a process can do so that its memory stays its own: no core files, no reading by others.

Rule of this file: best effort, told honestly. ``shield`` answers what was achieved, by name, and
never raises: a clinic's old kernel must not stop a node.

What Python cannot do: overwrite a ``bytes`` object, or know how many copies of it were made on
the way. Only the end of a process surely gives its memory back, which is why secrets that open
records live in one that can be ended (``node/vault``). Memory of this process that was swapped
out before it was locked, or a laptop that was put to sleep with its memory on disk, is the
operating system's: use an encrypted disk.
"""

from __future__ import annotations

import contextlib
import ctypes
import resource
import sys
import time
from typing import Final

__all__ = ["shield", "slept_s"]

PR_SET_DUMPABLE: Final = 4
MCL_CURRENT: Final = 1
MCL_FUTURE: Final = 2


def shield(*, lock_memory: bool = False) -> dict[str, bool]:
    """No core dumps, no attaching by other users' processes; with ``lock_memory``, no swap.

    By name: ``core`` (no core file), ``dumpable`` (Linux: neither dumped nor read by others than
    root), ``memory`` (locked into RAM).
    """
    done = {"core": False, "dumpable": False, "memory": False}
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        done["core"] = True
    done["dumpable"] = _prctl(PR_SET_DUMPABLE, 0)
    if lock_memory:
        done["memory"] = _lock_memory()
    return done


def slept_s() -> float:
    """Seconds for which this machine was suspended since it started; 0 where nobody can say.

    The boot-time clock counts sleep and the monotonic one does not (Linux).
    """
    if not hasattr(time, "CLOCK_BOOTTIME"):
        return 0.0
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)


def _prctl(option: int, value: int) -> bool:
    if not sys.platform.startswith("linux"):
        return False
    try:
        return bool(ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) == 0)
    except (OSError, AttributeError):
        return False


def _lock_memory() -> bool:
    try:
        return bool(ctypes.CDLL(None, use_errno=True).mlockall(MCL_CURRENT | MCL_FUTURE) == 0)
    except (OSError, AttributeError):
        return False
