"""A store that is away for a while ends no worker, and no run of it."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Iterator

import pytest
import trio

from runtara_trio import RuntaraSdk, Start, durable, open_client, open_worker, workflow

from ..helpers.postgres import Server
from ..store.postgres.test_hosts import admin, together


@pytest.fixture
def own() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


class Steps:
    """How many steps were done, and where they wait for the test."""

    def __init__(self) -> None:
        self.done: dict[str, int] = {}
        self.reached = trio.Event()
        self.go = trio.Event()


def job_of(steps: Steps) -> object:
    @durable
    async def step(name: str) -> str:
        steps.done[name] = steps.done.get(name, 0) + 1
        if len(steps.done) >= 30:
            steps.reached.set()
        if steps.reached.is_set():
            await steps.go.wait()
        return name

    @workflow
    async def job(sdk: RuntaraSdk, number: int) -> str:
        for place in range(5):
            await step(f"{number} {place}")
        return f"done {number}"

    return job


async def check(url: str, steps: Steps, away: object, back: object, most: int = 1) -> None:
    """Twenty runs of five steps, and a store that goes away between them. ``most``: how often a
    step may be done; a standby that follows by itself may lack the last saves."""
    job = job_of(steps)
    async with (
        open_client(url, tenant_id="t") as client,
        open_worker(url, [job], slots=20) as worker,
    ):
        handles = await client.start_many(job, [Start(args=(n,)) for n in range(20)])
        await steps.reached.wait()
        await trio.to_thread.run_sync(away)
        steps.go.set()
        await trio.to_thread.run_sync(back)
        for number, handle in enumerate(handles):
            assert await handle.result(timeout=60) == f"done {number}"
        assert not worker.draining
        more = await client.start(job, 99)
        assert await more.result(timeout=60) == "done 99"
    assert max(steps.done.values()) <= most


async def test_a_server_that_starts_again(own: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "runtara_trio.worker")
    await check(own.url, Steps(), own.shut_down_at_once, own.start)
    said = [one.getMessage() for one in caplog.records if one.name == "runtara_trio.worker"]
    assert len([text for text in said if "it is tried again" in text]) <= 4  # not once a try


async def test_a_primary_that_fails_over(own: Server) -> None:
    async with open_client(own.url, tenant_id="t") as client:
        await client.start("other")  # the tables are on the standby as well
    standby = await trio.to_thread.run_sync(own.standby)
    try:
        await check(
            together(standby.url, own.url),
            Steps(),
            own.shut_down_at_once,
            lambda: admin(standby.url, "SELECT pg_promote()"),
            most=2,
        )
    finally:
        standby.close()


async def test_a_file_that_somebody_locks(url: str) -> None:
    """An administrator's transaction holds the file for longer than a save waits."""
    path = url.removeprefix("sqlite:///")
    locks: list[sqlite3.Connection] = []
    released = threading.Event()

    def lock() -> None:
        db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        db.execute("BEGIN IMMEDIATE")
        locks.append(db)

    def release() -> None:
        released.wait(1.5)  # what the lock lasts is the point: nothing is waited for
        locks[0].execute("COMMIT")
        locks[0].close()

    await check(url, Steps(), lock, release)
