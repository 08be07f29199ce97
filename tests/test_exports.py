"""The public names: all there, each documented, and none that makes an import heavy."""

from __future__ import annotations

import importlib
import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PUBLIC = ("p2pmed", "p2pmed.medical", "p2pmed.testing")
HEAVY = ("aiohttp", "aiosqlite", "cryptography", "nacl", "rich", "sqlite3", "uvloop", "zeroconf")


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_can_be_imported(name: str) -> None:
    """What ``__all__`` promises is there, is sorted in its two halves, and is what it lists."""
    module = importlib.import_module(name)
    names = module.__all__
    assert len(set(names)) == len(names)
    for public in names:
        assert getattr(module, public) is not None
    with pytest.raises(AttributeError):
        _ = module.no_such_name


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_documented(name: str) -> None:
    """Classes and functions say what they are for; so do a class's public methods."""
    module = importlib.import_module(name)
    for public in module.__all__:
        value: Any = getattr(module, public)
        if not (inspect.isclass(value) or inspect.isfunction(value)):
            continue
        assert (inspect.getdoc(value) or "").strip(), f"{name}.{public}"


@pytest.mark.parametrize("name", PUBLIC)
def test_importing_loads_nothing_heavy(name: str) -> None:
    """``import p2pmed`` costs no network, crypto or database package; they load with a node."""
    script = f"import sys, json, {name}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=True
    )
    loaded = {module.partition(".")[0] for module in json.loads(done.stdout)}
    assert loaded.isdisjoint(HEAVY)


def test_the_package_is_typed() -> None:
    """Type checkers of embedding programs read our hints."""
    import p2pmed

    assert (Path(p2pmed.__file__).parent / "py.typed").is_file()


def test_the_version_is_the_package_s() -> None:
    """``p2pmed.__version__`` and the installed distribution agree."""
    from importlib.metadata import version

    import p2pmed

    assert version("p2pmed") == p2pmed.__version__
