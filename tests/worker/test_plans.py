"""A claim reads what is ready, and nothing of what is not, however much that is."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from runtara_trio import RuntaraSdk, SdkConfig, Start, open_backend, open_client, workflow
from runtara_trio.messages import ClaimRuns, EndsSince, LookForWork

from ..helpers.places import postgres_place
from ..helpers.statements import explain
from ..helpers.support import sqlite_of

MANY = 20_000
KIND: dict[str, Any] = {"queues": ("default", "mail"), "workflows": (("job", 1), ("rare", 1))}


@workflow
async def job(sdk: RuntaraSdk) -> None: ...


async def fill(client: Any, many: int) -> None:
    """Runs that sleep, that nobody here knows, and that have ended; then ten that are ready."""
    await client.start_many(job, [Start(args=(), delay=10**6) for _ in range(many)])
    await client.start_many("unknown", [Start(args=(), key=f"{n}") for n in range(many)])
    await client.start_many(job, [Start(args=()) for _ in range(10)])


async def test_on_a_file(url: str) -> None:
    steps: list[int] = []
    async with open_backend(url) as backend, open_client(backend, tenant_id="t") as client:
        await client.start(job)
        await backend.request(ClaimRuns(**KIND, limit=1))
        for many in (1000, MANY):
            await fill(client, many)
            counter = itertools.count()
            sqlite_of(backend).set_progress_handler(
                lambda counter=counter: next(counter) and None, 10
            )
            assert len((await backend.request(ClaimRuns(**KIND, limit=100))).runs) == 10
            await backend.request(LookForWork(**KIND))
            await backend.request(EndsSince(after=0))
            sqlite_of(backend).set_progress_handler(None, 0)
            steps.append(next(counter))
    assert steps[1] < 1.5 * steps[0] + 50, steps


async def test_on_postgres(postgres_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read: dict[str, int] = {}
    async with (
        postgres_place(postgres_server) as place,
        open_backend(SdkConfig(store=place.url, heartbeat_interval_ms=0)) as backend,
        open_client(backend, tenant_id="t") as client,
    ):
        await fill(client, MANY)
        await backend.request(LookForWork(**KIND))
        explain(monkeypatch, read.__setitem__)
        assert len((await backend.request(ClaimRuns(**KIND, limit=100))).runs) == 10
        await backend.request(LookForWork(**KIND))
        await backend.request(EndsSince(after=0))
    many = {statement: rows for statement, rows in read.items() if rows > 1000}
    assert not many
