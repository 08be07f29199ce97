"""The hamlet of ``tests/medical/village``, for what carers do together."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

_PLACE = Path(__file__).parents[1] / "village" / "conftest.py"


def _village() -> Any:
    spec = importlib.util.spec_from_file_location("village_hamlet", _PLACE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


_HAMLET = _village().Hamlet


@pytest.fixture
def hamlet() -> Any:
    return _HAMLET()
