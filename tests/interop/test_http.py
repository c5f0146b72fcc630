"""A stock runtara-core 1.6 over HTTP. (What every backend does runs against it by ``--core``.)"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import psycopg
import pytest
import trio

from runtara_trio import InstanceStatus, Operator, Outcome, SdkConfig, StoreError, open_backend
from runtara_trio.messages import Register

from ..helpers.places import (
    HTTP_CORES,
    free_tcp_port,
    http_core_place,
    new_database,
    running_http_core,
)
from ..helpers.support import block

pytestmark = pytest.mark.skipif(
    "INTEROP_CORE_1_6" not in os.environ, reason="nox -s interop builds what this needs"
)


async def test_a_core_that_is_killed_and_started_again_under_many_calls(tmp_path: Path) -> None:
    """Every call gets its answer; what was acknowledged is there."""
    port, path = free_tcp_port(), tmp_path / "core.db"
    database = f"sqlite://{path}?mode=rwc"
    acknowledged: set[str] = set()
    enough = trio.Event()
    async with open_backend(f"http://127.0.0.1:{port}") as backend:

        async def save(number: int) -> None:
            async with block(backend, f"i{number}") as sdk:
                for step in range(12):
                    await sdk.checkpoint(f"c{step}", f"{number}/{step}")
                    acknowledged.add(f"i{number}/c{step}")
                    if len(acknowledged) > 100:
                        enough.set()

        with trio.fail_after(120):
            async with trio.open_nursery() as nursery:
                async with running_http_core(database, port) as process:
                    for number in range(64):
                        nursery.start_soon(save, number)
                    await enough.wait()
                    process.kill()
                async with running_http_core(database, port):
                    while nursery.child_tasks:
                        await trio.sleep(0.01)
    assert len(acknowledged) == 64 * 12
    async with open_backend(f"sqlite:///{path}") as store:
        operator = Operator(store)
        for number in range(64):
            found = (await operator.checkpoints(f"i{number}")).checkpoints
            assert {f"c{step}" for step in range(12)} <= {one.checkpoint_id for one in found}
            status = (await operator.show(f"i{number}")).summary.status
            assert status is InstanceStatus.COMPLETED


@pytest.mark.parametrize("kind", HTTP_CORES)
async def test_first_registers_of_one_id_at_once(kind: str, tmp_path: Path) -> None:
    """A core refuses some of them with the error of its database: it reaches nobody."""
    async with http_core_place(kind, tmp_path) as place, trio.open_nursery() as nursery:
        for _ in range(8):
            message = Register(instance_id="one", tenant_id="t")
            nursery.start_soon(place.backend.request, message)


async def test_a_program_moves_from_the_file_to_a_core_and_back(tmp_path: Path) -> None:
    path = tmp_path / "orders.db"
    with trio.move_on_after(0.3):
        async with block(f"sqlite:///{path}") as sdk:
            await sdk.checkpoint("a", b"embedded")
            await sdk.sleep(1, "nap")
    assert sdk.outcome is Outcome.STOPPED
    port = free_tcp_port()
    config = SdkConfig(store=f"http://127.0.0.1:{port}", signal_poll_interval_ms=50)
    async with running_http_core(f"sqlite://{path}", port), open_backend(config) as backend:
        async with block(backend) as sdk:
            assert await sdk.get_checkpoint("a") == b"embedded"
            with trio.fail_after(10):
                await sdk.sleep(3600, "nap")  # the wake time of the file stands
            await sdk.checkpoint("b", b"over http")
            with pytest.raises(StoreError, match="stop that server first"):
                async with block(f"sqlite:///{path}", "other"):
                    pass
            await sdk.suspended()
    async with block(f"sqlite:///{path}") as sdk:  # the core has added columns
        assert await sdk.get_checkpoint("b") == b"over http"
    assert sdk.outcome is Outcome.COMPLETED


async def test_the_input_that_an_instance_was_started_with(tmp_path: Path) -> None:
    async with http_core_place("http-sqlite", tmp_path) as place:
        async with block(place.backend) as sdk:
            with sqlite3.connect(tmp_path / "core.db") as db:
                db.execute("UPDATE instances SET input = ?", (b'{"order": 7}',))
            db.close()
            assert await sdk.input(dict[str, int]) == {"order": 7}


# ---- databases of both


def shape(path: Path) -> list[object]:
    """The columns and records of a file, as its core made them or ours."""
    db = sqlite3.connect(path)
    tables = ("instances", "checkpoints", "instance_events", "pending_signals")
    found = [db.execute(f"PRAGMA table_info({table})").fetchall() for table in tables]
    records = db.execute("SELECT version, hex(checksum) FROM _sqlx_migrations").fetchall()
    db.close()
    columns = [sorted((row[1], row[2], row[3]) for row in one) for one in found]
    return [columns, sorted(records)]


async def test_a_new_file_is_as_a_core_makes_it(tmp_path: Path) -> None:
    async with running_http_core(f"sqlite://{tmp_path}/theirs.db?mode=rwc", free_tcp_port()):
        pass
    async with block(f"sqlite:///{tmp_path}/ours.db?core=1.6.4") as sdk:
        await sdk.suspended()
    before = shape(tmp_path / "ours.db")
    assert before == shape(tmp_path / "theirs.db")
    port = free_tcp_port()
    async with (
        running_http_core(f"sqlite://{tmp_path}/ours.db", port),
        open_backend(f"http://127.0.0.1:{port}") as backend,
        block(backend) as sdk,
    ):
        await sdk.checkpoint("a", b"over http")
    assert shape(tmp_path / "ours.db") == before


async def test_a_new_database_is_as_a_core_makes_it() -> None:
    server = os.environ["INTEROP_POSTGRES"]
    async with new_database(server) as theirs, new_database(server) as ours:
        async with running_http_core(theirs, free_tcp_port()):
            pass
        mark = "&" if "?" in ours else "?"
        async with block(f"{ours}{mark}core=1.6.4") as sdk:
            await sdk.suspended()
        found = [await trio.to_thread.run_sync(columns_of, url) for url in (theirs, ours)]
        assert found[0] == found[1]
        port = free_tcp_port()
        async with (
            running_http_core(ours, port),
            open_backend(f"http://127.0.0.1:{port}") as backend,
            block(backend) as sdk,
        ):
            await sdk.checkpoint("a", b"over http")
        assert await trio.to_thread.run_sync(columns_of, ours) == found[1]


def columns_of(url: str) -> list[object]:
    """The columns, types and records of a database, but those of ours alone."""
    with psycopg.connect(url) as connection:
        columns = connection.execute(
            "SELECT table_name::text, column_name::text, udt_name::text, is_nullable::text"
            " FROM information_schema.columns WHERE table_schema = 'public'"
            " AND table_name NOT LIKE 'runtara_trio%' ORDER BY 1, 2"
        ).fetchall()
        kinds = connection.execute(
            "SELECT t.typname::text, e.enumlabel::text FROM pg_enum e JOIN pg_type t"
            " ON t.oid = e.enumtypid ORDER BY 1, e.enumsortorder"
        ).fetchall()
        records = connection.execute(
            "SELECT version, checksum FROM _sqlx_migrations ORDER BY 1"
        ).fetchall()
    return [columns, kinds, records]


async def test_a_file_that_a_core_migrates_under_us_is_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "orders.db"
    async with open_backend(f"sqlite:///{path}") as store:
        async with block(store) as sdk:
            await sdk.checkpoint("a", b"before")
            await sdk.suspended()
        port = free_tcp_port()
        async with running_http_core(f"sqlite://{path}", port):
            pass
        async with block(store) as sdk:
            assert await sdk.get_checkpoint("a") == b"before"
            await sdk.checkpoint("b", b"behind")
    async with block(f"sqlite:///{path}", "other"):
        pass
    db = sqlite3.connect(path)
    reasons = dict(db.execute("SELECT instance_id, termination_reason FROM instances").fetchall())
    db.close()
    assert reasons["other"] == "completed"
