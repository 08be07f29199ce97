"""The reference leaves nothing out: commands, settings, public names."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import get_args

import msgspec
import pytest

from p2pmed.cli import build_parser
from p2pmed.node.config import Config, _Mesh, _Settings, write_config

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def command_line() -> ModuleType:
    """The script that writes the page."""
    sys.path.append(str(DOCS / "_ext"))
    return importlib.import_module("command_line")


def test_every_command_is_on_the_page_as_it_is(command_line: ModuleType) -> None:
    """The page is what the parsers say; ``python docs/_ext/command_line.py`` writes it anew."""
    assert command_line.PAGE.read_text(encoding="utf-8") == command_line.page()


def test_every_command_says_what_it_does_and_gives_an_example(command_line: ModuleType) -> None:
    """An undocumented command fails."""
    parsers = list(command_line.commands(build_parser()))
    assert len(parsers) > 20
    for parser in parsers:
        assert (parser.description or "").strip(), parser.prog
        assert re.search(r"example:\n\s+p2pmed ", parser.epilog or ""), parser.prog


def test_examples_are_command_lines_that_parse(command_line: ModuleType) -> None:
    """Whoever copies an example is not told that it is wrong."""
    import shlex

    for parser in command_line.commands(build_parser()):
        for line in (parser.epilog or "").splitlines():
            if line.strip().startswith("p2pmed ") and "..." not in line and "\\" not in line:
                build_parser().parse_args(shlex.split(line.partition(" > ")[0])[1:])


@pytest.mark.parametrize("table", [_Settings, _Mesh])
def test_every_setting_is_described_with_its_default(table: type[msgspec.Struct]) -> None:
    """A row for each field, whose second cell is the default as TOML spells it."""
    page = (DOCS / "reference" / "configuration.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| `([^`]*)` \|", page, re.MULTILINE))
    written = dict(re.findall(r"^(\w+) = (.*)$", write_config(Config()), re.MULTILINE))
    for field in msgspec.structs.fields(table):
        if field.name != "mesh":
            assert rows[field.name] == written[field.name]


@pytest.mark.parametrize("name", ["p2pmed", "p2pmed.medical", "p2pmed.testing"])
def test_every_public_name_is_on_the_python_page(name: str) -> None:
    """What is exported is documented; what is not documented is not exported."""
    page = (DOCS / "reference" / "python.md").read_text(encoding="utf-8")
    for public in importlib.import_module(name).__all__:
        assert re.search(rf"\b{public}\b", page), public


def test_every_protocol_page_is_in_the_index() -> None:
    """A page that nobody finds is not written."""
    index = (DOCS / "protocols" / "index.md").read_text(encoding="utf-8")
    for page in (DOCS / "protocols").glob("*.md"):
        if page.name != "index.md":
            assert f"({page.name})" in index
            assert re.search(rf"^{page.stem}$", index, re.MULTILINE), page.name


def test_every_message_s_tag_stands_on_a_protocol_page() -> None:
    """Whoever writes a second implementation finds every message by its tag."""
    from p2pmed.node.messages import NodeMessage

    pages = "\n".join(path.read_text("utf-8") for path in (DOCS / "protocols").glob("*.md"))
    for kind in get_args(NodeMessage):
        tag = kind.__struct_config__.tag
        assert re.search(rf"\|\s*{tag}\s*\|\s*`?{kind.__name__}`?\s*\|", pages), (
            f"{kind.__name__}, tag {tag}"
        )


def test_every_test_that_the_threats_page_names_exists() -> None:
    """A defence is claimed with the test that proves it."""
    page = (DOCS / "internals" / "threats.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:\w+/)+(?:test_\w+\.py)?)`", page)
    assert len(named) > 40
    for name in named:
        assert (DOCS.parent / "tests" / name).exists() or name.startswith("examples/"), name


def test_decisions_are_numbered_without_a_gap() -> None:
    """A decision's number is its name for ever."""
    page = (DOCS / "internals" / "decisions.md").read_text(encoding="utf-8")
    numbers = [int(number) for number in re.findall(r"^(\d+)\. ", page, re.MULTILINE)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) > 50


def test_every_module_that_the_documentation_names_exists() -> None:
    """A page that points into the code points at something."""
    for path in DOCS.rglob("*.md"):
        text = path.read_text(encoding="utf-8")
        for name in re.findall(r"`p2pmed/([\w/]+(?:\.py|/))`", text):
            assert (DOCS.parent / "p2pmed" / name).exists(), f"{path.name}: {name}"
