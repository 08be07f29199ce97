"""Power cuts on paper: the writes of a real run, cut anywhere, and the disks that may remain.

``record`` runs a program under strace and keeps the ordered list of what it asked of the
file system. ``image`` draws a cut from a seed and builds a disk that the cut may leave:

* what was flushed before the cut is there;
* each write after the last flush of its file is there, or lost, or torn at a sector of 512
  bytes, each by its own throw, so that later ones may survive earlier ones;
* a file not yet flushed, and a removal, may have happened or not.

Any such image must open, be sound, and hold what was acknowledged before the cut.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

SECTOR = 512
CALLS = "openat,close,pwrite64,write,fdatasync,fsync,ftruncate,unlink,unlinkat,rename,dup,dup2"

_LINE = re.compile(r"^(\d+) +(\w+)\((.*)\) += (-?\d+|0x[0-9a-f]+)(?: .*)?$")
_UNFINISHED = re.compile(r"^(\d+) +(\w+\(.*) <unfinished \.\.\.>$")
_RESUMED = re.compile(r"^(\d+) +<\.\.\. \w+ resumed>(.*)$")
_HANDLE = re.compile(r"^\d+<(.*?)>")
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


@dataclass(frozen=True, slots=True)
class Op:
    """One request: ``kind`` is write, cut, sync, remove or ack."""

    kind: str
    file: str = ""
    offset: int = 0
    content: bytes = b""


@dataclass(slots=True)
class _File:
    """A file as flushed, and what was asked of it since."""

    flushed: bytearray | None = None
    pending: list[Op] = field(default_factory=list)


def available() -> bool:
    """Whether a program can be traced here."""
    strace = shutil.which("strace")
    if strace is None:
        return False
    probe = subprocess.run([strace, "-qq", "-o", os.devnull, "true"], capture_output=True)
    return probe.returncode == 0


def record(command: Sequence[str], folder: Path, log: Path) -> list[Op]:
    """Run ``command`` and return what it did to the files directly in ``folder``, in order.

    A line ``ack n`` on its standard output becomes an ``ack`` with ``offset`` n.
    """
    strace = ["strace", "-f", "-qq", "-y", "-xx", "-s", "1000000", "-e", f"trace={CALLS}"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    subprocess.run(
        [*strace, "-o", str(log), *command], check=True, stdout=subprocess.PIPE, env=environment
    )
    return parse(log.read_text(), folder)


def parse(trace: str, folder: Path) -> list[Op]:
    """The operations of an strace log. A call counts from the moment it returned."""
    started: dict[str, str] = {}
    ops: list[Op] = []
    for line in trace.splitlines():
        if match := _UNFINISHED.match(line):
            started[match[1]] = match[2]
            continue
        if match := _RESUMED.match(line):
            line = f"{match[1]} {started.pop(match[1])}{match[2]}"
        if (match := _LINE.match(line)) and not match[4].startswith("-"):
            op = _op(match[2], match[3], folder)
            if op is not None:
                ops.append(op)
    return ops


def _op(call: str, arguments: str, folder: Path) -> Op | None:
    handle = _HANDLE.match(arguments)
    path = _unhex(handle[1]) if handle else ""
    text = _TEXT.search(arguments)
    content = bytes.fromhex(text[1].replace("\\x", "")) if text else b""
    if call == "write" and content.startswith(b"ack "):
        return Op("ack", offset=int(content.split()[1]))
    if call in ("unlink", "unlinkat"):
        target = Path(content.decode())
        return Op("remove", target.name) if target.parent == folder else None
    if path == str(folder) and call in ("fsync", "fdatasync"):
        return Op("sync", ".")
    if Path(path).parent != folder or not path:
        return None
    name = Path(path).name
    if call == "pwrite64":
        return Op("write", name, int(arguments.rpartition(",")[2]), content)
    if call == "ftruncate":
        return Op("cut", name, int(arguments.rpartition(",")[2]))
    if call in ("fsync", "fdatasync"):
        return Op("sync", name)
    assert call != "write" or name.endswith((".lock", ".ballast")), f"untracked write to {name}"
    return None


def _unhex(text: str) -> str:
    """strace -xx spells paths as bytes in hexadecimal, -y leaves them plain in some versions."""
    if text.startswith("\\x"):
        return bytes.fromhex(text.replace("\\x", "")).decode()
    return text


def image(ops: Sequence[Op], rng: Random, folder: Path, ignore: Sequence[str]) -> int:
    """Build in ``folder`` a disk that a power cut may leave; the last number acknowledged."""
    cut = rng.randint(0, len(ops))
    files: dict[str, _File] = {}
    acknowledged = 0
    for op in ops[:cut]:
        if op.kind == "ack":
            acknowledged = op.offset
        elif op.file == ".":
            for file in files.values():
                _flush_name(file)
        else:
            file = files.setdefault(op.file, _File())
            if op.kind == "sync":
                _settle(file)
            else:
                file.pending.append(op)
    for name in folder.iterdir():
        name.unlink()
    # One throw for the whole cut decides how unlucky it is; then one for each write.
    kept = rng.choice((0.0, 0.2, 0.5, 0.8, 1.0))
    for name, file in files.items():
        content = _remains(file, rng, kept)
        if content is not None and name not in ignore:
            (folder / name).write_bytes(content)
    return acknowledged


def _settle(file: _File) -> None:
    """A flush of the file: all that was asked of it has happened, its name included."""
    for op in file.pending:
        file.flushed = _done(file.flushed, op)
    file.pending.clear()


def _flush_name(file: _File) -> None:
    """A flush of the folder: removals have happened, new files exist; contents may lack."""
    last = max((n for n, op in enumerate(file.pending) if op.kind == "remove"), default=-1)
    if last >= 0:
        file.flushed = None
        del file.pending[: last + 1]


def _remains(file: _File, rng: Random, kept: float) -> bytes | None:
    content = file.flushed if file.flushed is None else bytearray(file.flushed)
    for op in file.pending:
        if rng.random() < kept:
            content = _done(content, op)
        elif op.kind == "write" and rng.random() < 0.3:
            sectors = range(0, len(op.content), SECTOR)
            torn = rng.choice(sectors)
            content = _done(content, Op("write", op.file, op.offset, op.content[:torn]))
    return content if content is None else bytes(content)


def _done(content: bytearray | None, op: Op) -> bytearray | None:
    if op.kind == "remove":
        return None
    content = bytearray() if content is None else content
    if op.kind == "cut":
        del content[op.offset :]
        content += bytes(op.offset - len(content))
    else:
        content += bytes(max(0, op.offset - len(content)))
        content[op.offset : op.offset + len(op.content)] = op.content
    return content
