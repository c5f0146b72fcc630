"""A module imports only from layers below its own, or from its own."""

from __future__ import annotations

import ast
from pathlib import Path

import runtara_trio

ROOT = Path(runtara_trio.__file__).parent
LAYERS = [
    "values",
    "seam",
    "wire",
    "store",
    "quic",
    "engine",
    "sdk",
    "demo",
    "cli",
    "testing",
]  # the lowest first
ASIDE = {("quic", "store")}  # above the one, and yet strangers
PUBLIC = len(LAYERS)
SEAM = {"backend"}
TOP = {"__init__", "__main__"}  # re-exports and starts: above everything


def layer(module: tuple[str, ...]) -> int:
    head = module[0] if module else ""
    if head in LAYERS:
        return LAYERS.index(head)
    if not (ROOT / f"{head}.py").exists():
        return PUBLIC  # a name that the package re-exports: from above everything
    return LAYERS.index("seam" if head in SEAM else "values")


def imports(path: Path) -> list[tuple[str, ...]]:
    """The modules of this package that a file imports, wherever in the file."""
    here = path.relative_to(ROOT).with_suffix("").parts
    found: list[tuple[str, ...]] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level] if node.level else ()
            name = tuple((node.module or "").split(".")) if node.module else ()
            if node.level == 0:
                if name[:1] != ("runtara_trio",):
                    continue
                name = name[1:]
            target = (*base, *name)
            found += [target] if target else [(alias.name,) for alias in node.names]
        elif isinstance(node, ast.Import):
            for alias in node.names:
                parts = tuple(alias.name.split("."))
                if parts[0] == "runtara_trio":
                    found.append(parts[1:])
    return found


def test_no_import_goes_up() -> None:
    wrong = []
    seen = 0
    for path in ROOT.rglob("*.py"):
        here = path.relative_to(ROOT).with_suffix("").parts
        if here[0] in TOP:
            continue
        for target in imports(path):
            seen += 1
            if here[0] == "demo" and layer(target) == PUBLIC:
                continue  # a user's program, that happens to be shipped
            if layer(target) > layer(here) or (here[0], target[0]) in ASIDE:
                wrong.append(f"{'.'.join(here)} imports {'.'.join(target)}")
    assert seen > 100
    assert not wrong


def test_the_check_sees_an_import_that_goes_up() -> None:
    assert layer(("store", "rules")) < layer(("engine", "block")) < layer(("sdk", "instance"))
    assert layer(("messages",)) < layer(("backend",)) < layer(("store", "verbs"))
    assert layer(("open_runtara",)) > layer(("cli", "main"))
    assert ("engine", "block") in imports(ROOT / "sdk" / "instance.py")


def test_the_folders_are_the_layers() -> None:
    folders = {path.name for path in ROOT.iterdir() if path.is_dir() and path.name[0] != "_"}
    assert folders == {"wire", "store", "quic", "engine", "sdk", "demo", "cli", "testing"}
