"""The documentation says what is true: every code block of it runs."""

from __future__ import annotations

import configparser
import inspect
import json
import re
import shlex
import signal
import sys
from pathlib import Path

import pytest

from runtara_trio import Worker, open_worker

from ..helpers.documents import Block, blocks, matches, play
from ..helpers.support import needs_trio_asyncio, start_args

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(DOCS.glob("*.md"))
RUN = {"python", "console"}
LOOKED_AT = {"ini", "dockerfile", "sh", "sql"}  # sql: in test_postgres_plans and _roles


def page_to_run(page: Path) -> object:
    """A parameter: the page, and what it needs."""
    asyncio = any("import asyncio" in block.code for block in blocks(page))
    return pytest.param(page, id=page.stem, marks=[needs_trio_asyncio] if asyncio else [])


@pytest.mark.parametrize("page", [page_to_run(page) for page in PAGES])
def test_every_block_of_a_page_runs(page: Path, tmp_path: Path) -> None:
    play(page, tmp_path)


def test_no_block_is_overlooked() -> None:
    """Every fence that shows code is of a language that is run, or looked at below."""
    languages = {block.language for page in PAGES for block in blocks(page)}
    assert languages == RUN | LOOKED_AT
    for page in PAGES:
        fences = re.findall(r"^```+(?!\{(?!code-block))\S.*$", page.read_text(), re.MULTILINE)
        assert len(fences) == len(list(blocks(page))), page.name
    assert sum(1 for page in PAGES for _ in blocks(page)) > 30


def test_a_block_that_does_not_run_is_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```console\n$ echo one\ntwo\n```\n")
    with pytest.raises(AssertionError, match=r"page\.md, line 1: \$ echo one\none"):
        play(page, tmp_path)
    page.write_text("```python\nraise ValueError\n```\n")
    with pytest.raises(AssertionError, match="ValueError"):
        play(page, tmp_path)
    assert matches("a 12 b\nc\nd\ne", "a … b\n…\ne")
    assert not matches("a 12 b\nc", "a … b")
    assert not matches("", "a")


# ---- blocks that are not run as they stand: what they start is


def block_of(page: str, name: str) -> Block:
    (found,) = [block for block in blocks(DOCS / page) if block.name == name]
    return found


async def stops_well(arguments: list[str], environment: dict[str, str], folder: Path) -> None:
    """What a supervisor starts works, and ends by SIGTERM as the page says."""
    (folder / "shop.py").write_text(block_of("running.md", "shop.py").code)
    settings = [f"{name}={value}" for name, value in environment.items()]
    assert arguments[0].endswith("runtara-trio")
    code = "import os, sys; os.execvp(sys.argv[1], sys.argv[1:])"
    command = ["env", *settings, sys.executable, "-u", "-m", "runtara_trio", *arguments[1:]]
    async with start_args("-c", code, *command, cwd=folder) as program:
        await program.line("round 1")
        program.send(signal.SIGTERM)
        assert await program.wait() == 143


async def test_the_unit_file(tmp_path: Path) -> None:
    unit = configparser.RawConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    text = block_of("running.md", "shop.service").code
    settings = dict(re.findall(r"^Environment=(\w+)=(.*)$", text, re.MULTILINE))
    unit.read_string(text)
    service = unit["Service"]
    assert service["Restart"] == "on-abnormal"
    assert service["SuccessExitStatus"] == "143"
    settings["RUNTARA_DATABASE_URL"] = f"sqlite:///{tmp_path}/shop.db"
    await stops_well(shlex.split(service["ExecStart"]), settings, tmp_path)


async def test_the_dockerfile(tmp_path: Path) -> None:
    text = block_of("running.md", "Dockerfile").code
    settings = dict(re.findall(r"^ENV (\w+)=(.*)$", text, re.MULTILINE))
    (entry,) = re.findall(r"^ENTRYPOINT (.*)$", text, re.MULTILINE)
    settings["RUNTARA_DATABASE_URL"] = f"sqlite:///{tmp_path}/shop.db"
    await stops_well(json.loads(entry), settings, tmp_path)


def a_worker(arguments: list[str]) -> None:
    """What a supervisor starts is our command, with a workflow of the page."""
    assert arguments[0].endswith("runtara-trio")
    assert arguments[1:3] == ["worker", "shop:order"]
    assert "async def order(" in block_of("workers.md", "shop.py").code


def test_the_unit_file_of_a_worker() -> None:
    unit = configparser.RawConfigParser(strict=False, interpolation=None)
    unit.read_string(block_of("workers.md", "shop-worker@.service").code)
    service = unit["Service"]
    a_worker(shlex.split(service["ExecStart"]))
    assert service["Restart"] == "always"
    assert service["SuccessExitStatus"] == "143"
    drain = inspect.signature(open_worker).parameters["drain_timeout"].default
    assert int(service["TimeoutStopSec"]) > drain + Worker.final_timeout


def test_the_dockerfile_of_a_worker() -> None:
    text = block_of("workers.md", "Dockerfile").code
    (entry,) = re.findall(r"^ENTRYPOINT (.*)$", text, re.MULTILINE)
    a_worker(json.loads(entry))


def test_the_benchmarks_are_of_this_bench() -> None:
    """The page is what ``nox -s bench`` writes, not somebody's words."""
    page = (DOCS / "benchmarks.md").read_text()
    assert page.startswith("# What it costs\n\nMeasured on ")
    for title in ("## Checkpoints", "## Instances that wait", "## Starting"):
        assert title in page


@pytest.mark.parametrize(
    ("page", "title", "columns"),
    [
        ("benchmarks-steps", "What durable calls cost", "| at once | calls | calls/s |"),
        ("benchmarks-postgres", "What PostgreSQL costs", "| tasks | checkpoints/s | plain"),
    ],
)
def test_the_other_benchmarks_are_too(page: str, title: str, columns: str) -> None:
    text = (DOCS / f"{page}.md").read_text()
    assert text.startswith(f"# {title}\n\nMeasured on ")
    assert columns in text


def test_the_cores_of_the_pages_are_those_that_are_tested() -> None:
    shown = [block.code for block in blocks(DOCS / "server.md") if block.language == "sh"]
    tested = re.findall(
        r'^CORE_(?:VERSION|OVER_HTTP) = "(.*)"', (DOCS.parent / "noxfile.py").read_text(), re.M
    )
    for code, version in zip(shown, tested, strict=True):
        assert f"cargo install runtara-core --version {version} --locked" in code
        assert "sqlite://core.db?mode=rwc" in code


def test_the_benchmarks_over_quic_are_of_this_bench() -> None:
    page = (DOCS / "benchmarks-quic.md").read_text()
    assert page.startswith("# What QUIC costs\n\nMeasured on ")
    for title in ("## `get_checkpoint`", "## `checkpoint`", "## One state of 60 MB"):
        assert title in page


def test_the_benchmarks_over_http_are_of_this_bench() -> None:
    page = (DOCS / "benchmarks-http.md").read_text()
    assert page.startswith("# What HTTP costs\n\nMeasured on ")
    for title in ("## `GET /signals`", "## Checkpoints on", "## Our server under"):
        assert title in page
