"""A start in the user's own transaction."""

from __future__ import annotations

import sqlite3
from typing import Any

import psycopg
import pytest
import trio

from runtara_trio import (
    ConfigError,
    InstanceExists,
    InstanceStatus,
    RuntaraSdk,
    StoreError,
    open_client,
    open_worker,
    start_in,
    workflow,
)

from ..helpers.places import Shared


@workflow
async def double(sdk: RuntaraSdk, number: int) -> int:
    return 2 * number


def connect(url: str) -> Any:
    if url.startswith("sqlite"):
        return sqlite3.connect(url.removeprefix("sqlite:///"))
    return psycopg.connect(url)


@pytest.mark.direct
async def test_it_exists_if_the_transaction_commits(shared: Shared) -> None:
    def work() -> None:
        connection = connect(shared.url)
        try:
            connection.execute("CREATE TABLE orders (id INTEGER)")
            connection.execute("INSERT INTO orders VALUES (7)")
            assert start_in(connection, double, 7, tenant_id="t", id="o-7") == "o-7"
            connection.commit()
            start_in(connection, double, 8, tenant_id="t", id="o-8", attributes={"a": 1})
            connection.rollback()
            start_in(connection, double, 7, tenant_id="t", id="o-7")
            with pytest.raises(InstanceExists):
                start_in(connection, double, 9, tenant_id="t", id="o-7")
            start_in(connection, "double", 10, tenant_id="t", id="o-10", delay=0.05, key="k")
            connection.commit()
        finally:
            connection.close()

    async with open_client(shared.url, tenant_id="t") as client:
        await client.list()
        await client.list_workers()
        await client.start(double, 1)  # makes the tables
        async with open_worker(shared.url, [double]):
            await trio.to_thread.run_sync(work)
            assert await client.get("o-7").result(int, timeout=30) == 14
            assert await client.get("o-10").result(int, timeout=30) == 20
            assert await client.get("o-8").status() is InstanceStatus.UNKNOWN


@pytest.mark.direct
async def test_without_tables(shared: Shared) -> None:
    def work() -> None:
        connection = connect(shared.url)
        try:
            with pytest.raises(StoreError, match="no tables of workflows"):
                start_in(connection, double, 7, tenant_id="t")
        finally:
            connection.close()

    await trio.to_thread.run_sync(work)


def test_what_is_no_connection() -> None:
    connection: Any = object()
    with pytest.raises(ConfigError, match=r"sqlite3\.Connection or a psycopg\.Connection"):
        start_in(connection, double, 7, tenant_id="t")
