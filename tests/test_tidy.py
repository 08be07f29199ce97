"""The house rules, as tests: layers, purity, sizes, words, and how values that travel are made.

A rule with exceptions names each with its reason; an exception that is no longer needed fails
too, so that the lists only shrink.
"""

from __future__ import annotations

import ast
import importlib
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest

from p2pmed.wire.codec import Wire

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "p2pmed"

LAYERS = (
    ("cli", "web"),
    ("testing", "bench"),
    ("node",),
    ("aio", "storage"),
    ("medical", "sync"),
    ("transport", "discovery", "gossip", "consensus", "ledger"),
    ("quorum",),
    ("identity",),
    ("wire",),
    ("world",),
    ("engine",),
    ("limits", "errors"),
)
"""From the top: a package imports what stands below its line, and nothing beside or above it."""

SEAMS = {
    "p2pmed.consensus.interface": "the ledger is the application that an engine knows by it",
    "p2pmed.ledger.state": "what a state machine and the ledger know of each other",
    "p2pmed.ledger.transaction": "what gossip carries and the ledger orders",
    "p2pmed.web.control": "the command line asks a running node over the control socket",
}
"""Modules that packages on the same line may import, and why."""

PURE = frozenset(
    {
        *("medical", "sync", "transport", "discovery", "gossip", "consensus", "ledger"),
        *("quorum", "identity", "wire", "world", "engine", "limits", "errors"),
    }
)
IMPURE = frozenset(
    {
        *("aiohttp", "aiosqlite", "asyncio", "concurrent", "logging", "multiprocessing", "os"),
        *("pathlib", "random", "secrets", "select", "shutil", "signal", "socket", "sqlite3"),
        *("subprocess", "sys", "tempfile", "threading", "time", "uuid", "zeroconf"),
    }
)
"""What a pure module never imports: the world comes in through its arguments."""

LINES_MAX = 400
LONG_MODULES = {
    "aio/links.py": "one class whose methods all guard the same table of links",
    "cli/demo/script.py": "a story told in order; its acts share one cast",
    "ledger/chain.py": "build, check and decide execute one block and share its layers",
    "node/node.py": "the public face: short methods, long docstrings",
    "sync/chains.py": "asking, verifying and keeping of one chain share its row",
    "sync/founding.py": "one negotiation: proposing and answering share its one open offer",
    "testing/simulation.py": "one world with one heap; its faults act on the same nodes",
    "transport/channel.py": "one state machine, its table first",
}
FUNCTION_LINES_MAX = 60
LONG_FUNCTIONS = {
    "consensus/bft/engine.py": "__init__",
    "node/home_ledger.py": "__init__",
    "node/replica.py": "__init__",
}
"""Constructors that wire the parts of a node, a statement each."""

PRINTS = ("cli", "bench")
"""Packages whose business is standard output."""

NOT_WIRE = {
    "p2pmed.medical.fhir": "FHIR is JSON, read by name, kept as the bytes that came in",
    "p2pmed.node.fhir.documents": "the head of a FHIR file is JSON, read by name",
    "p2pmed.node.config": "settings are a TOML table, read by name",
    "p2pmed.transport.messages": "a chunk's few bytes of head are laid out by hand",
}
"""Modules with Structs that neither travel nor are signed."""


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def package_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def running(node: ast.AST) -> Iterator[ast.AST]:
    """Every node below ``node`` that runs: not what stands under ``if TYPE_CHECKING``."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from running(child)


def imports(path: Path) -> Iterator[str]:
    for node in running(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}: a relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


modules_by_name = pytest.mark.parametrize("path", modules(), ids=name_of)


# --- who may import whom --------------------------------------------------------------------


def test_every_package_has_a_layer() -> None:
    """No package stands outside the table."""
    known = {package for line in LAYERS for package in line}
    there = {package_of(path) for path in modules()} - {"__init__", "__main__"}
    assert there == known


@modules_by_name
def test_imports_go_downwards_only(path: Path) -> None:
    """A package imports from lines below its own; from its own line, only the seams."""
    rank = {package: row for row, line in enumerate(LAYERS) for package in line}
    own = package_of(path)
    if own in ("__init__", "__main__"):
        return
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "p2pmed" or len(parts) < 2 or parts[1] not in rank or parts[1] == own:
            continue
        below = rank[parts[1]] > rank[own]
        beside = rank[parts[1]] == rank[own] and ".".join(parts[:3]) in SEAMS
        assert below or beside, f"{name_of(path)} imports {name}"


@modules_by_name
def test_pure_modules_import_nothing_of_the_world(path: Path) -> None:
    """From medical and sync down there is no clock, dice, file, socket or loop to be had."""
    if package_of(path) not in PURE:
        return
    worldly = sorted({name.partition(".")[0] for name in imports(path)} & IMPURE)
    assert not worldly, f"{name_of(path)} imports {worldly}"
    clocks = [
        ast.unparse(node)
        for node in running(tree_of(path))
        if isinstance(node, ast.Attribute) and node.attr in ("utcnow", "today", "urandom")
    ]
    assert not clocks


# --- order ----------------------------------------------------------------------------------

ORDERLESS = frozenset({"all", "any", "frozenset", "len", "max", "min", "set", "sorted", "sum"})
"""Calls whose result does not depend on the order of what they are given."""


def is_set(node: ast.expr, known: frozenset[str]) -> bool:
    """Whether an expression is a set, as far as its own text and the module's hints tell."""
    match node:
        case ast.Set() | ast.SetComp():
            return True
        case ast.Call(func=ast.Name(id="set" | "frozenset")):
            return True
        case ast.Call(func=ast.Attribute(value=value, attr=attr)):
            joins = ("union", "intersection", "difference", "symmetric_difference")
            return attr in joins or (attr == "copy" and is_set(value, known))
        case ast.BinOp(op=ast.BitOr() | ast.BitAnd() | ast.Sub(), left=left, right=right):
            return is_set(left, known) or is_set(right, known)
        case ast.Name() | ast.Attribute():
            return ast.unparse(node) in known
    return False


def set_names(tree: ast.AST) -> frozenset[str]:
    """Names and attributes that are annotated or first assigned as sets."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation).startswith(
            ("set[", "frozenset[")
        ):
            found.add(ast.unparse(node.target))
        elif isinstance(node, ast.arg) and node.annotation is not None:
            if ast.unparse(node.annotation).startswith(("set[", "frozenset[")):
                found.add(node.arg)
        elif isinstance(node, ast.Assign) and is_set(node.value, frozenset()):
            found.update(ast.unparse(target) for target in node.targets)
    return frozenset(found)


@modules_by_name
def test_cores_never_iterate_sets(path: Path) -> None:
    """Sets of bytes iterate in an order that the hash seed decides; a core's trace must not."""
    in_core = package_of(path) == "node" and not IMPURE.intersection(imports(path))
    if package_of(path) not in PURE and not in_core:
        return
    tree = tree_of(path)
    free = {
        id(node.args[0])
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ORDERLESS and node.args
    }
    for scope in [tree, *functions(path)]:
        known = set_names(scope)
        for node in ast.walk(scope):
            loops: list[ast.expr] = []
            if isinstance(node, ast.For):
                loops = [node.iter]
            elif isinstance(node, ast.ListComp | ast.DictComp | ast.GeneratorExp):
                loops = [] if id(node) in free else [part.iter for part in node.generators]
            elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("list", "tuple"):
                loops = list(node.args[:1])
            for loop in loops:
                assert not is_set(loop, known), f"{name_of(path)}:{loop.lineno} iterates a set"


# --- shape ----------------------------------------------------------------------------------


@modules_by_name
def test_a_module_says_what_it_is(path: Path) -> None:
    """A docstring of substance, and annotations that cost nothing at import."""
    tree = tree_of(path)
    assert len(ast.get_docstring(tree) or "") > 20
    cheap = any(isinstance(n, ast.ImportFrom) and n.module == "__future__" for n in tree.body)
    assert cheap or len(tree.body) == 1


@modules_by_name
def test_a_module_is_short(path: Path) -> None:
    """Past 400 lines there is a second idea in it, or a reason that is written down."""
    lines = len(path.read_text(encoding="utf-8").splitlines())
    if name_of(path) in LONG_MODULES:
        assert lines > LINES_MAX, "short again: take it off the list"
    else:
        assert lines <= LINES_MAX


@modules_by_name
def test_a_function_is_short(path: Path) -> None:
    """Past 60 lines there is a second function in it."""
    for function in functions(path):
        if function.name == LONG_FUNCTIONS.get(name_of(path)):
            continue
        lines = (function.end_lineno or 0) - function.lineno + 1
        assert lines <= FUNCTION_LINES_MAX, f"{function.name} has {lines} lines"


def public(node: ast.AST, within: str = "") -> Iterator[tuple[str, ast.AST]]:
    """Public classes and functions, and the public methods of public classes."""
    for child in getattr(node, "body", []):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if child.name.startswith("_") or _is_overload(child):
                continue
            yield f"{within}{child.name}", child
            if isinstance(child, ast.ClassDef):
                yield from public(child, f"{child.name}.")


def _is_overload(node: Any) -> bool:
    names = {ast.unparse(decorator) for decorator in getattr(node, "decorator_list", ())}
    return bool(names & {"overload", "typing.overload"}) or any(
        name.endswith(".setter") for name in names
    )


def _is_signature(node: ast.AST) -> bool:
    """A Protocol's one-line member, ``def height(self) -> int: ...``: its name says it."""
    body = getattr(node, "body", [])
    return len(body) == 1 and ast.unparse(body[0]) == "..."


@modules_by_name
def test_what_is_public_is_documented(path: Path) -> None:
    """Undocumented is unfinished."""
    for name, node in public(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and _is_signature(node):
            continue
        assert ast.get_docstring(node), f"{name_of(path)}: {name} has no docstring"  # type: ignore[arg-type]


@modules_by_name
def test_only_the_command_line_prints(path: Path) -> None:
    """A library has no standard output."""
    if package_of(path) in PRINTS:
        return
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("print", "breakpoint")


NAMES_REFUSED = ("utils", "util", "common", "manager", "data", "helpers", "misc")


@modules_by_name
def test_names_come_from_the_ward_and_the_papers(path: Path) -> None:
    """No module is named for having no idea."""
    assert path.stem not in NAMES_REFUSED
    assert not any(part in NAMES_REFUSED for part in path.relative_to(PACKAGE).parts)


# --- what travels ---------------------------------------------------------------------------


def wire_types(base: type[Any] = Wire) -> Iterator[type[Any]]:
    for kind in base.__subclasses__():
        yield kind
        yield from wire_types(kind)


@pytest.fixture(scope="module")
def loaded() -> None:
    """Every module of the package is imported."""
    for path in modules():
        if path.name == "__main__.py":
            continue
        parts = path.relative_to(ROOT).with_suffix("").parts
        importlib.import_module(".".join(parts).removesuffix(".__init__"))


@pytest.mark.usefixtures("loaded")
def test_what_travels_has_one_spelling() -> None:
    """Every Wire struct is frozen, an array, and refuses a field too many."""
    own = [kind for kind in wire_types() if kind.__module__.startswith("p2pmed.")]
    assert len(own) > 50
    for kind in own:
        config = kind.__struct_config__
        good = config.frozen and config.array_like and config.forbid_unknown_fields
        assert good, f"{kind.__module__}.{kind.__name__}"


@pytest.mark.usefixtures("loaded")
def test_every_struct_is_a_wire_struct() -> None:
    """Nothing crosses a border in another shape; settings are no border."""
    others = {
        kind.__module__
        for kind in wire_types(msgspec.Struct)
        if kind.__module__.startswith("p2pmed.") and not issubclass(kind, Wire)
    }
    assert others == set(NOT_WIRE)


@pytest.mark.usefixtures("loaded")
def test_tags_of_one_border_differ() -> None:
    """Two messages that may come over one channel never share a tag."""
    from typing import get_args

    from p2pmed.node.messages import NodeMessage

    tags = [kind.__struct_config__.tag for kind in get_args(NodeMessage)]
    assert None not in tags
    assert len(set(tags)) == len(tags)


# --- the tree -------------------------------------------------------------------------------


def tracked() -> list[Path]:
    """Every text file that git knows, or that it would take in."""
    try:
        found = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    paths = [ROOT / name for name in found]
    return [path for path in paths if path.is_file() and path.suffix not in (".png", ".bin")]


WORKPLACE = ("/" + "work/", "/" + "tmp/v", "/" + "root/")
"""Beginnings of paths that only one machine has."""
UNFINISHED = ("TO" + "DO", "FIX" + "ME", "XX" + "X:")


def test_nothing_speaks_of_the_machine_it_was_written_on() -> None:
    """No file names a path of somebody's disk."""
    for path in tracked():
        text = path.read_text(encoding="utf-8", errors="replace")
        for word in WORKPLACE:
            assert word not in text, f"{path.relative_to(ROOT)} mentions {word}"


def test_nothing_is_left_for_later() -> None:
    """What is not built is said in the documentation, not promised in a comment."""
    for path in tracked():
        if path.suffix != ".py":
            continue
        text = path.read_text(encoding="utf-8")
        for word in UNFINISHED:
            assert word not in text, f"{path.relative_to(ROOT)} mentions {word}"


def test_every_test_states_the_fact_it_proves() -> None:
    """A test without a docstring proves nobody knows what."""
    silent = []
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            if is_function and node.name.startswith("test_") and not ast.get_docstring(node):
                silent.append(f"{path.relative_to(ROOT)}: {node.name}")
    assert not silent
