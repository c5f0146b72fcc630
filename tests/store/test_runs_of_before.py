"""Stores whose tables of workflows are of their first version are brought to this one."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

import psycopg
import pytest

from runtara_trio import (
    Operator,
    Queue,
    RuntaraSdk,
    open_backend,
    open_client,
    open_runtara,
    open_worker,
    workflow,
)
from runtara_trio.store.postgres import run_schema as postgres_schema
from runtara_trio.store.sqlite import run_schema

from ..helpers.places import postgres_place

FIRST = """
INSERT INTO instances (instance_id, tenant_id, definition_version, status, input)
    VALUES ('old', 't', 1, 'pending', '[20]');
INSERT INTO runtara_trio_runs
    (instance_id, tenant_id, workflow, version, queue, key, state, ready_us)
    VALUES ('old', 't', 'double', 1, 'default', 'k', 'ready', {now});
"""


@workflow
async def half(sdk: RuntaraSdk, number: int) -> int:
    return number // 2


@workflow
async def double(sdk: RuntaraSdk, number: int) -> int:
    return 4 * await sdk.call(half, number)


def first_of_sqlite(path: Path) -> None:
    step = run_schema.RUN_STEPS[0].format(
        temp="", schema="main", references="REFERENCES instances ON DELETE CASCADE"
    )
    with sqlite3.connect(path) as db:
        db.executescript(step)
        db.execute("INSERT INTO runtara_trio_runs_schema (version, ended) VALUES (1, 0)")
        db.executescript(FIRST.format(now=int(time.time() * 1_000_000)))
    db.close()


def first_of_postgres(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        step = postgres_schema.RUN_STEPS[0].format(id="TEXT")
        connection.execute(step + FIRST.format(now=int(time.time() * 1_000_000)))


async def goes_on(url: str) -> None:
    async with open_client(url, tenant_id="t") as client:
        assert [one.instance_id for one in (await client.list(workflow="double")).instances] == [
            "old"
        ]
        queue = Queue("default", limit=5, key_limit=1)
        async with open_worker(url, [double, half], queues=[queue]):
            assert await client.get("old", double).result(timeout=30) == 40
            assert await (await client.start(double, 4)).result(timeout=30) == 8
    async with open_backend(url) as backend:
        assert await Operator(backend).count(parent_id="old") == 1


async def test_on_sqlite(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/store.db"
    async with open_runtara(url, instance_id="block", tenant_id="t"):
        pass
    first_of_sqlite(tmp_path / "store.db")
    await goes_on(url)


@pytest.mark.direct
async def test_on_postgres(postgres_server: str) -> None:
    async with postgres_place(postgres_server) as place:
        async with open_runtara(place.url, instance_id="block", tenant_id="t"):
            pass
        first_of_postgres(place.url)
        await goes_on(place.url)
