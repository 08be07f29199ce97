"""Lets the tests of this folder import ``epoch_village``: test folders are no packages."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from epoch_village import Village, make_village


@pytest.fixture(scope="session", params=["bft", "raft"])
def village(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Village:
    """A village that lived through three changes of its seats."""
    folder = tmp_path_factory.mktemp(f"epochs-{request.param}")
    asyncio.run(make_village(folder, request.param))
    return Village(folder, json.loads((folder / "facts.json").read_text()))
