"""FHIR files in and out: ``fhir.import`` and ``fhir.export``.

Paths are of the machine on which the node runs; the command line makes them absolute.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from p2pmed.errors import ConfigError
from p2pmed.node.fhir.exporting import Exporter
from p2pmed.node.fhir.files import find_files
from p2pmed.node.fhir.importing import Importer
from p2pmed.node.node import Node
from p2pmed.node.operations.arguments import Arguments, Operation, Report

__all__ = ["OPERATIONS"]

PATHS_MAX: Final = 10_000


async def import_files(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Take in files and folders of FHIR JSON. What is refused is listed, the rest is kept."""
    node.sessions.must_be_open()  # once, and not for each file
    paths = [Path(text) for text in arguments.texts("paths", count_max=PATHS_MAX)]
    if not paths:
        raise ConfigError("paths: at least one file or folder is needed")
    for path in paths:
        _check_absolute("paths", path)
    files = await asyncio.to_thread(find_files, paths)
    importer = Importer(node, report)
    await importer.run(files)
    counts = importer.counts
    seconds = importer.seconds
    return {
        **asdict(counts),
        "bytes_per_resource": counts.bytes_stored // max(counts.resources, 1),
        "seconds": round(seconds, 3),
        "resources_per_s": round(counts.resources / max(seconds, 0.001)),
        "refused": [asdict(refused) for refused in importer.refused],
    }


async def export_files(node: Node, arguments: Arguments, report: Report) -> dict[str, Any]:
    """Write everything that this device reads into a new folder, as FHIR JSON in clear."""
    folder = Path(arguments.text("folder"))
    _check_absolute("folder", folder)
    exporter = Exporter(node, folder, report)
    await exporter.run()
    return {
        "folder": str(folder),
        "files": exporter.files,
        "patients": exporter.patients,
        "resources": exporter.resources,
        "bytes_out": exporter.bytes_out,
        "changed_since": exporter.changed_since,
        "unreadable": exporter.unreadable,
        "left_out": exporter.left_out,
        "seconds": round(exporter.seconds, 3),
    }


def _check_absolute(name: str, path: Path) -> None:
    """A running node has a working folder of its own."""
    if not path.is_absolute():
        raise ConfigError(f"{name}: an absolute path is needed")


OPERATIONS: Final[Mapping[str, Operation]] = {
    "fhir.import": import_files,
    "fhir.export": export_files,
}
