"""Every filter is answered by an index: what a page reads does not grow with the store.

At 1,000,000 instances on both databases. Filled by SQL, for that is what is looked at.
"""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
import trio

from runtara_trio import Operator, RuntaraSdk, open_backend, open_client, workflow

from ..helpers.many import fill_file, fill_postgres
from ..helpers.statements import explain
from ..helpers.support import sqlite_of

MANY = 1_000_000
NOW = datetime.now(UTC).replace(microsecond=0)


@workflow
async def common(sdk: RuntaraSdk) -> None: ...


FILTERS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "failed": {"statuses": ["failed"]},
    "unfinished": {"statuses": ["pending", "running", "suspended"]},
    "a small tenant": {"tenant_id": "small"},
    "a small tenant's failed": {"tenant_id": "small", "statuses": ["failed"]},
    "a rare workflow": {"workflow": "rare"},
    "a version of it": {"workflow": "rare", "version": 2},
    "its runs in a queue": {"workflow": "rare", "queue": "slow"},
    "failed ones of a common workflow": {"workflow": "common", "statuses": ["failed"]},
    "a common workflow of a small tenant": {"workflow": "common", "tenant_id": "small"},
    "children": {"parent_id": "i-500"},
    "a prefix": {"id_prefix": "i-99999"},
    "a prefix and a workflow": {"id_prefix": "i-99999", "workflow": "common"},
    "a broad prefix": {"id_prefix": "i-"},
    "a broad prefix and a workflow": {"id_prefix": "i-", "workflow": "rare"},
    "a broad prefix, failed": {"id_prefix": "i-", "statuses": ["failed"]},
    "a broad prefix of a small tenant": {"id_prefix": "i-", "tenant_id": "small"},
    "the newest": {"created_after": NOW - timedelta(hours=1)},
    "the oldest": {"created_before": NOW - timedelta(seconds=MANY - 1000)},
    "an attribute": {"attributes": {"customer": "c-7"}},
    "two attributes": {"attributes": {"customer": "c-7", "paid": True}},
    "an attribute and a workflow": {"attributes": {"customer": "c-7"}, "workflow": "common"},
    "waiting for": {"waiting_for": "approval"},
    "parked": {"parked": True},
    "no live worker": {"no_live_worker": True},
}


async def make(url: str) -> None:
    """The tables."""
    async with open_client(url, tenant_id="big") as client:
        await client.start(common, id="first")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("scale") / "store.db"
    trio.run(make, f"sqlite:///{path}")
    fill_file(str(path), MANY, NOW)
    return f"sqlite:///{path}"


@pytest.fixture(scope="module")
def postgres(postgres_server: str) -> Any:
    schema = "filters_at_scale"
    url = (
        f"{postgres_server}{'&' if '?' in postgres_server else '?'}options=-csearch_path%3D{schema}"
    )
    with psycopg.connect(postgres_server, autocommit=True) as server:
        server.execute(f"CREATE SCHEMA {schema}")
        trio.run(make, url)
        fill_postgres(url, MANY, NOW)
        yield url
        server.execute(f"DROP SCHEMA {schema} CASCADE")


async def test_on_a_file(file: str) -> None:
    """By the steps of SQLite's machine, in thousands: a scan of a table has thousands of them."""
    too_many: dict[str, int] = {}
    found: dict[str, int] = {}
    async with open_backend(file) as backend:
        operator = Operator(backend)
        await operator.show("first")
        for name, filters in FILTERS.items():
            counter = itertools.count()
            sqlite_of(backend).set_progress_handler(
                lambda counter=counter: next(counter) and None, 1000
            )
            page = await operator.list(limit=20, **filters)
            sqlite_of(backend).set_progress_handler(None, 0)
            found[name] = len(page.instances)
            steps = next(counter)
            if steps > 60:
                too_many[name] = steps
    assert not too_many
    assert {name for name, count in found.items() if not count} == set()


@pytest.mark.direct
async def test_on_postgres(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read: dict[str, int] = {}
    now = ""
    found: dict[str, int] = {}
    async with open_backend(postgres) as backend:
        operator = Operator(backend)
        await operator.show("first")
        explain(
            monkeypatch,
            lambda _, rows: read.__setitem__(now, max(rows, read.get(now, 0))),
        )
        for name, filters in FILTERS.items():
            now = name
            page = await operator.list(limit=20, **filters)
            found[name] = len(page.instances)
    assert {name: rows for name, rows in read.items() if rows > 5000} == {}
    assert set(read) == set(FILTERS)
    assert {name for name, count in found.items() if not count} == set()
