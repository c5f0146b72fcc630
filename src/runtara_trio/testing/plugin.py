"""Fixtures for pytest, by pytest-trio or by AnyIO's plugin on Trio. A ``conftest.py`` names them::

    pytest_plugins = ["runtara_trio.testing.plugin"]

Each test has a store of its own. On one in memory, which is the default, Trio's MockClock may jump.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import trio

from ..client.client import Client, open_client
from ..codec import JSON, Codec
from ..engine.services import SharedBackend
from ..opening import open_backend
from ..sdk.workflow import AnyWorkflow
from ..worker.opening import open_worker
from ..worker.worker import Worker

TENANT = "test"
"""Whose instances ``runtara_client`` starts."""

StartWorker = Callable[..., Awaitable[Worker]]


@pytest.fixture
def runtara_url() -> str:
    """Of the store; override it for tests on a file or on PostgreSQL."""
    return ":memory:"


@pytest.fixture
def runtara_codec() -> Codec:
    """Of clients and workers; override it where the programs have another one."""
    return JSON


@pytest.fixture
async def runtara_store(runtara_url: str) -> AsyncIterator[SharedBackend]:
    """An open backend: for blocks, clients, workers, and an ``Operator`` of it."""
    async with open_backend(runtara_url, create=True) as backend:
        yield backend


@pytest.fixture
async def runtara_client(
    runtara_store: SharedBackend, runtara_codec: Codec
) -> AsyncIterator[Client]:
    """A client of the tenant ``test``."""
    async with open_client(runtara_store, tenant_id=TENANT, codec=runtara_codec) as client:
        yield client


@pytest.fixture
async def runtara_worker(
    runtara_store: SharedBackend, runtara_codec: Codec
) -> AsyncIterator[StartWorker]:
    """Starts a worker: ``await runtara_worker(order, ship, slots=1)``, with the options of
    :func:`open_worker`. It is stopped at the end of the test."""
    async with trio.open_nursery() as nursery:

        async def start(*workflows: AnyWorkflow, **options: Any) -> Worker:
            given = {"codec": runtara_codec, **options}
            work = functools.partial(_work, runtara_store, workflows, given)
            worker: Worker = await nursery.start(work)
            return worker

        yield start
        nursery.cancel_scope.cancel()


async def _work(
    store: SharedBackend,
    workflows: tuple[AnyWorkflow, ...],
    options: dict[str, Any],
    task_status: trio.TaskStatus[Worker],
) -> None:
    async with open_worker(store, workflows, **{"stop_signals": (), **options}) as worker:
        task_status.started(worker)
        await trio.sleep_forever()
