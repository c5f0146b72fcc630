"""``migrate``: how far the tables of a store are, and bringing them to this version."""

from __future__ import annotations

import json
import re
import sqlite3
import sys
from pathlib import Path

import pytest
import trio

from runtara_trio import Operator, RuntaraSdk, open_backend, open_client, open_worker, workflow
from runtara_trio.store.postgres import run_schema as postgres_schema
from runtara_trio.store.sqlite import run_schema as sqlite_schema

from ..helpers.history import package_of, running
from ..helpers.places import Shared
from ..helpers.support import sql
from ..store.test_of_before import url_of_before  # noqa: F401  # a fixture
from .test_fleet import run

in_thread = trio.to_thread.run_sync


@workflow
async def job(sdk: RuntaraSdk) -> str:
    return "done"


def state(url: str) -> dict[str, object]:
    """Migrate, and what is said of the tables then."""
    run(url, "migrate")
    found: dict[str, object] = json.loads(run(url, "migrate", "--check", "--json"))
    return found


def check(url: str, code: int) -> str:
    return run(url, "migrate", "--check", code=code)


def dump(url: str) -> str:
    with sqlite3.connect(url.removeprefix("sqlite:///")) as db:
        return "\n".join(db.iterdump())


async def test_a_new_store(shared: Shared) -> None:
    assert "without --check" in await in_thread(check, shared.url, 1)
    if shared.url.startswith("sqlite"):
        assert not Path(shared.url.removeprefix("sqlite:///")).exists()
    assert "the tables are those of this version" in await in_thread(run, shared.url, "migrate")
    assert (await in_thread(state, shared.url))["current"] is True  # again: nothing to do
    async with open_client(shared.url, tenant_id="t") as client, open_worker(shared.url, [job]):
        assert await (await client.start(job)).result(timeout=30) == "done"


def test_a_store_of_before(url_of_before: str) -> None:  # noqa: F811
    file = url_of_before.startswith("sqlite")
    before = dump(url_of_before) if file else ""
    assert "without --check" in run(url_of_before, "migrate", "--check", code=1)
    if file:
        assert dump(url_of_before) == before
    assert state(url_of_before)["current"] is True
    listed = {
        one["instance_id"]: one["status"]
        for one in json.loads(run(url_of_before, "list", "--json"))
    }
    assert listed == {"done": "completed", "paused": "suspended", "killed": "running"}


LAST_OF_7 = "9e4c6f0"
"""The last commit whose tables of workflows had version 7."""

WORKER = """
import sys, trio
from runtara_trio import open_client, open_worker, workflow

@workflow
async def old(sdk, number: int) -> int:
    await sdk.checkpoint("before", b"")
    print("began", number, flush=True)
    await sdk.wait_for_signal("go")
    await sdk.checkpoint("after", b"")
    return number + 1

async def main(url):
    async with open_worker(url, [old]), open_client(url, tenant_id="t") as client:
        first = await client.start(old, 1, id="first")
        print("ended", await first.result(), flush=True)
        second = await client.start(old, 2, id="second")
        print("ended", await second.result(), flush=True)

trio.run(main, sys.argv[1])
"""


async def test_a_worker_of_before_goes_on(shared: Shared, tmp_path: Path) -> None:
    before = package_of(LAST_OF_7, tmp_path)
    async with running(before, WORKER, shared.url) as program:
        assert await program.line() == "began 1"
        assert "without --check" in await in_thread(check, shared.url, 1)
        assert (await in_thread(state, shared.url))["current"] is True
        async with open_client(shared.url, tenant_id="t") as client:
            await client.get("first").signal("go")
            assert await program.line() == "ended 2"
            assert await program.line() == "began 2"
            async with open_worker(shared.url, [job]):  # beside it
                assert await (await client.start(job)).result(timeout=30) == "done"
                await client.get("second").signal("go")
                assert await program.line() == "ended 3"
                assert await client.get("second").result(timeout=30) == 3


@pytest.mark.parametrize("options", [(), ("--check",)])
async def test_a_newer_store_is_refused(shared: Shared, options: tuple[str, ...]) -> None:
    await in_thread(run, shared.url, "migrate")
    async with open_backend(shared.url) as backend:
        await Operator(backend).list()  # it is opened at the first question
        await sql(backend, "UPDATE runtara_trio_runs_schema SET version = 99")
    told = await in_thread(lambda: run(shared.url, "migrate", *options, code=1))
    assert "workflows 99" in told
    assert "upgrade runtara-trio" in told


@pytest.mark.parametrize("options", [(), ("--check",)])
def test_what_is_no_store_is_refused(tmp_path: Path, options: tuple[str, ...]) -> None:
    def refused(url: str, code: int) -> str:
        return run(url, "migrate", *options, code=code)

    assert "needs the store itself" in refused("quic://127.0.0.1:8001", 2)
    assert "opened" in refused(":memory:", 2)
    (tmp_path / "text").write_text("not a database, and long enough to be looked at" * 40)
    assert "not a SQLite database" in refused(f"sqlite:///{tmp_path}/text", 1)
    with sqlite3.connect(tmp_path / "other.db") as db:
        db.execute("CREATE TABLE instances (id)")
    assert "neither runtara-core 1.4.1's" in refused(f"sqlite:///{tmp_path}/other.db", 1)


@pytest.mark.parametrize("options", [(), ("--check",)])
def test_a_server_needs_psycopg(monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]) -> None:
    monkeypatch.setitem(sys.modules, "runtara_trio.store.postgres.migrating", None)
    told = run("postgresql://127.0.0.1/shop", "migrate", *options, code=2)
    assert "pip install 'runtara-trio[postgres]'" in told


ADDS = re.compile(
    r"CREATE (\{temp\} |UNIQUE )?(TABLE|INDEX|SEQUENCE) |INSERT INTO runtara_trio_runs_schema"
    r"|ALTER TABLE \S+\s+ADD COLUMN|DROP INDEX"
)


@pytest.mark.parametrize("schema", [sqlite_schema, postgres_schema], ids=["file", "postgres"])
def test_each_step_only_adds(schema: object) -> None:
    """Programs of the version before work on what later steps have made: no step takes away or
    renames a table or a column, and a new column of an old table has a default."""
    steps: tuple[str, ...] = schema.RUN_STEPS  # type: ignore[attr-defined]
    lines = [" ".join(one.split()) for step in steps for one in step.split(";")]
    for statement in filter(None, lines):
        assert ADDS.match(statement), statement
        for column in re.findall(r"ADD COLUMN[^,]*", statement):
            assert "NOT NULL" not in column or "DEFAULT" in column, column


def test_new_tables_are_those_of_the_core_that_is_named(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/new.db?core=1.6.4"
    assert state(url)["current"] is True
    db = sqlite3.connect(tmp_path / "new.db")
    assert db.execute("SELECT max(version) FROM _sqlx_migrations").fetchone() == (8,)
    db.close()
