"""A module imports only from layers below its own, or from its own; strangers not at all."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import runtara_trio
from runtara_trio.layers import LAYERS, STRANGERS, drawn

ROOT = Path(runtara_trio.__file__).parent
README = (Path(__file__).parents[2] / "README.md").read_text()
HEIGHTS = {name: height for height, layer in enumerate(reversed(LAYERS)) for name in layer.names}
ABOVE_ALL = {"__init__", "__main__"}
"""Re-exports and starts."""

Module = tuple[str, ...]


def layer_of(module: Module) -> str | None:
    """The innermost layer that a module is of; None: it is above all of them."""
    for length in range(len(module), 0, -1):
        name = ".".join(module[:length])
        if name in HEIGHTS:
            return name
    return None


def module_of(path: Path) -> Module:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts


def is_module(module: Module) -> bool:
    path = ROOT.joinpath(*module)
    return path.is_dir() or path.with_suffix(".py").exists()


def imports(path: Path) -> list[Module]:
    """The modules of this package that a file imports, wherever in the file."""
    inside = path.relative_to(ROOT).with_suffix("").parts
    found: list[Module] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = inside[: len(inside) - node.level] if node.level else ()
            name = tuple((node.module or "").split(".")) if node.module else ()
            if node.level == 0:
                if name[:1] != ("runtara_trio",):
                    continue
                name = name[1:]
            package = (*base, *name)
            for alias in node.names:
                named = (*package, alias.name)
                found.append(named if is_module(named) or not package else package)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                parts = tuple(alias.name.split("."))
                if parts[0] == "runtara_trio":
                    found.append(parts[1:])
    return found


def is_in(module: Module, name: str) -> bool:
    return ".".join(module) == name or ".".join(module).startswith(f"{name}.")


def wrong(here: Module, target: Module) -> str | None:
    """What is wrong with an import, if anything."""
    mine, its = layer_of(here), layer_of(target)
    if here[0] == "demo" and its is None:
        return None  # a user's program, that happens to be shipped
    if mine is None:
        return f"{'.'.join(here)} is of no layer"
    if its is None or HEIGHTS[its] > HEIGHTS[mine]:
        return f"{'.'.join(here)} imports {'.'.join(target)}, which is above it"
    for one, other in STRANGERS:
        for a, b in ((one, other), (other, one)):
            if is_in(here, a) and is_in(target, b):
                return (
                    f"{'.'.join(here)} imports {'.'.join(target)}: {one} and {other} are strangers"
                )
    return None


def test_no_import_goes_up_or_to_a_stranger() -> None:
    seen = 0
    found = []
    for path in ROOT.rglob("*.py"):
        here = module_of(path)
        if here[0] not in ABOVE_ALL:
            for target in imports(path):
                seen += 1
                found += [mistake for mistake in [wrong(here, target)] if mistake is not None]
    assert seen > 400
    assert not found


@pytest.mark.parametrize(
    ("here", "target"),
    [
        ("store.answers.instances", "store.sqlite.tables"),
        ("store.answers.instances", "store.postgres.tables"),
        ("store.sqlite.tables", "store.postgres.tables"),
        ("store.postgres.tables", "store.sqlite.leases"),
        ("quic.server.answers", "quic.client.asking"),
        ("quic.client.asking", "quic.server.answers"),
        ("quic.transport.driver", "quic.client.session"),
        ("engine.block", "store.location"),
        ("engine.block", "quic.client.backend"),
        ("engine.block", "opening"),
        ("quic.client.backend", "store.answers.rules"),
        ("messages", "backend"),
        ("cli.main", "open_runtara"),
    ],
)
def test_what_is_forbidden(here: str, target: str) -> None:
    assert wrong(tuple(here.split(".")), tuple(target.split("."))) is not None


@pytest.mark.parametrize(
    ("here", "target"),
    [
        ("store.sqlite.tables", "store.answers.rules"),
        ("store.postgres.saving", "store.values"),
        ("opening", "store.postgres.backend"),
        ("opening", "engine.services"),
        ("sdk.block", "opening"),
        ("quic.server.server", "quic.transport.link"),
        ("backend", "messages"),
    ],
)
def test_what_is_allowed(here: str, target: str) -> None:
    assert wrong(tuple(here.split(".")), tuple(target.split("."))) is None


def test_the_check_sees_every_kind_of_import() -> None:
    assert ("engine", "block") in imports(ROOT / "sdk" / "block.py")
    assert ("logs",) in imports(ROOT / "engine" / "block.py")


def test_every_folder_is_a_layer() -> None:
    folders = {path.name for path in ROOT.iterdir() if path.is_dir() and path.name[0] != "_"}
    assert folders == {name.partition(".")[0] for name in HEIGHTS if (ROOT / name).is_dir()}


def test_the_layers_are_shown_where_somebody_looks_for_them() -> None:
    assert drawn() in README
    assert runtara_trio.__doc__ is not None
    assert drawn() in runtara_trio.__doc__
