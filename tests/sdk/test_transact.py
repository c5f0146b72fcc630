"""``sdk.transact``: an effect on the store's database as often as its checkpoint."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest
import trio

from runtara_trio import (
    ConfigError,
    LeaseLost,
    NonRetryable,
    SdkError,
    SharedBackend,
    open_backend,
    open_runtara,
)

from ..helpers.places import Place, Shared, postgres_place
from ..helpers.support import sql, start


@pytest.fixture
async def store_file(url: str) -> AsyncIterator[SharedBackend]:
    async with open_backend(url) as opened:
        yield opened


@pytest.fixture
async def store_postgres(postgres_server: str) -> AsyncIterator[SharedBackend]:
    async with postgres_place(postgres_server) as opened:
        yield opened.backend


@pytest.fixture
async def backend(place: Place) -> SharedBackend:
    """One with a table of the user's."""
    async with open_runtara(place.backend, instance_id="first", tenant_id="t"):
        await sql(place.backend, "CREATE TABLE mine (text TEXT, number BIGINT)")
    return place.backend


def insert(connection: Any, text: str, number: int = 1) -> int:
    mark = "?" if isinstance(connection, sqlite3.Connection) else "%s"
    connection.execute(f"INSERT INTO mine VALUES ({mark}, {mark})", (text, number))
    (count,) = connection.execute("SELECT count(*) FROM mine").fetchone()
    return int(count)


async def texts(backend: SharedBackend) -> list[str]:
    return [text for (text,) in await sql(backend, "SELECT text FROM mine ORDER BY text")]


async def test_the_effect_is_there_as_often_as_the_result(backend: SharedBackend) -> None:
    for _ in range(2):
        async with open_runtara(backend, instance_id="a", tenant_id="t", revive=True) as sdk:
            assert await sdk.transact(insert, "one") == 1
            assert await sdk.transact(insert, "two", 5) == 2
            assert await sdk.transact(insert, "three", id="named") == 3
            assert await sdk.get_checkpoint("named", int) == 3
    assert await texts(backend) == ["one", "three", "two"]


async def test_an_exception_rolls_back_and_leaves(backend: SharedBackend) -> None:
    def wrong(connection: Any) -> None:
        insert(connection, "lost")
        raise NonRetryable("no")

    async with open_runtara(backend, instance_id="a", tenant_id="t") as sdk:
        with pytest.raises(NonRetryable):
            await sdk.transact(wrong)
        with pytest.raises((sqlite3.OperationalError, psycopg.errors.UndefinedTable)):
            await sdk.transact(
                lambda connection: connection.execute("SELECT 1 FROM nothing"), id="x"
            )
        assert await sdk.transact(insert, "kept") == 1
    assert await texts(backend) == ["kept"]


async def test_an_exception_that_keeps_a_half_read_cursor(backend: SharedBackend) -> None:
    """The file is free for others while somebody has the exception."""

    def wrong(connection: Any) -> None:
        insert(connection, "lost")
        cursors = [connection.cursor()]
        if isinstance(connection, sqlite3.Connection):
            cursors.append(connection.cursor(type("Own", (sqlite3.Cursor,), {})))
        for cursor in cursors:
            cursor.execute("SELECT 1 UNION ALL SELECT 2").fetchone()
        raise NonRetryable("no")

    async with open_runtara(backend, instance_id="a", tenant_id="t") as sdk:
        try:
            await sdk.transact(wrong)
        except NonRetryable:
            await sdk.checkpoint("after it", 1)
    assert await texts(backend) == []


@pytest.mark.parametrize("how", ["commit", "rollback", "COMMIT", "ROLLBACK", "END; BEGIN"])
async def test_the_function_may_not_end_the_transaction(backend: SharedBackend, how: str) -> None:
    def ends(connection: Any) -> int:
        insert(connection, "first")
        if how in ("commit", "rollback"):
            getattr(connection, how)()
        else:
            for statement in how.split(";"):
                connection.execute(statement)
        connection.execute("SELECT 1")
        return 1

    async with open_runtara(backend, instance_id="a", tenant_id="t") as sdk:
        with pytest.raises(SdkError, match="has ended its transaction by itself"):
            await sdk.transact(ends)
        assert await sdk.get_checkpoint("durable::ends::[]") is None


async def test_the_lease_is_checked_at_the_end(backend: SharedBackend) -> None:
    """Somebody else has the instance: nothing of the function is kept."""

    async def body() -> None:
        async with open_runtara(backend, instance_id="a", tenant_id="t") as sdk:
            await sql(backend, "UPDATE runtara_trio_leases SET epoch = epoch + 1000000")
            await sdk.transact(insert, "lost")

    with pytest.raises(LeaseLost):
        await body()
    assert await texts(backend) == []


async def test_what_is_no_function(memory: SharedBackend) -> None:
    async def asynchronous(connection: Any) -> None: ...

    async with open_runtara(memory, instance_id="a", tenant_id="t") as sdk:
        with pytest.raises(ConfigError, match=r"a sync function f\(connection, \*args\)"):
            await sdk.transact(asynchronous)
        with pytest.raises(ConfigError, match="limit"):
            await sdk.transact(insert, "x", limit=0)


async def test_a_limit_in_the_middle_of_a_statement(url: str) -> None:
    """Python's sqlite3 crashes where one thread closes what another one executes on; two threads
    can wait for each other; and a half-read statement keeps the file."""
    async with start("limits.py", url, 150) as program:
        assert await program.line() == "all were undone"


async def test_a_limit_on_a_file(store_file: SharedBackend) -> None:
    """The connection is interrupted and rolled back; what comes late is not written."""
    late: list[BaseException] = []
    over = trio.Event()
    token = trio.lowlevel.current_trio_token()

    def hangs(connection: sqlite3.Connection) -> None:
        insert(connection, "lost")
        try:
            while True:
                insert(connection, "lost")
                time.sleep(0.001)
        except sqlite3.Error as exc:
            late.append(exc)
            try:
                insert(connection, "late")
            except sqlite3.Error as exc:
                late.append(exc)
        finally:
            token.run_sync_soon(over.set)

    async with open_runtara(store_file, instance_id="a", tenant_id="t") as sdk:
        await sql(store_file, "CREATE TABLE mine (text TEXT, number BIGINT)")
        with pytest.raises(trio.TooSlowError, match="took longer than"):
            await sdk.transact(hangs, limit=0.2)
        await over.wait()
        assert len(late) == 2
        assert await sdk.transact(insert, "kept") == 1


async def test_nothing_begins_in_a_cancelled_scope(backend: SharedBackend) -> None:
    async with open_runtara(backend, instance_id="a", tenant_id="t") as sdk:
        with trio.CancelScope() as scope:
            scope.cancel()
            await sdk.transact(insert, "lost")
        assert scope.cancelled_caught
    assert await texts(backend) == []


@pytest.mark.parametrize("in_time", [True, False])
async def test_a_cancel_waits_for_it(shared: Shared, in_time: bool) -> None:
    """Within ``final_timeout``; then it is undone."""
    began, over = trio.Event(), trio.Event()
    go = threading.Event()
    token = trio.lowlevel.current_trio_token()

    def slow(connection: Any) -> int:
        try:
            count = insert(connection, "kept")
            token.run_sync_soon(began.set)
            go.wait()
            return count
        finally:
            token.run_sync_soon(over.set)

    async with open_backend(shared.url) as backend:
        async with open_runtara(backend, instance_id="first", tenant_id="t"):
            await sql(backend, "CREATE TABLE mine (text TEXT, number BIGINT)")
        with trio.CancelScope() as scope:
            async with open_runtara(
                backend, instance_id="a", tenant_id="t", final_timeout=30 if in_time else 0.1
            ) as sdk:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(sdk.transact, slow)
                    await began.wait()
                    scope.cancel()
                    if in_time:
                        go.set()
        assert await texts(backend) == (["kept"] if in_time else [])
        go.set()
        await over.wait()
        assert await texts(backend) == (["kept"] if in_time else [])


async def test_a_serialization_failure_is_tried_again(store_postgres: SharedBackend) -> None:
    tries: list[int] = []

    def conflicts(connection: psycopg.Connection[Any]) -> int:
        tries.append(1)
        if len(tries) < 3:
            raise psycopg.errors.SerializationFailure("again")
        return len(tries)

    async with open_runtara(store_postgres, instance_id="a", tenant_id="t") as sdk:
        assert await sdk.transact(conflicts) == 3


async def test_a_lost_connection_is_tried_again(store_postgres: SharedBackend) -> None:
    tries: list[int] = []

    def cut(connection: psycopg.Connection[Any]) -> int:
        tries.append(1)
        insert(connection, f"try {len(tries)}")
        if len(tries) == 1:
            connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        return len(tries)

    async with open_runtara(store_postgres, instance_id="a", tenant_id="t") as sdk:
        await sql(store_postgres, "CREATE TABLE mine (text TEXT, number BIGINT)")
        assert await sdk.transact(cut) == 2
    assert await texts(store_postgres) == ["try 2"]


async def test_what_a_cancelled_scope_has_saved_is_told_in_both_runs(
    backend: SharedBackend,
) -> None:
    token = trio.lowlevel.current_trio_token()
    told: list[int | None] = []
    for _ in range(2):
        async with open_runtara(backend, instance_id="a", tenant_id="t", revive=True) as sdk:
            got = None
            with trio.CancelScope() as scope:

                def cancel_and_insert(connection: Any) -> int:
                    token.run_sync_soon(scope.cancel)
                    return insert(connection, "one")

                got = await sdk.transact(cancel_and_insert, id="tx")
            told.append(got)
    assert told == [1, 1]
