"""A worker and its client, and what their runs tell a test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from runtara_trio import Client, SharedBackend, Worker, open_client, open_worker


@asynccontextmanager
async def working(
    backend: SharedBackend, *workflows: Any, **options: Any
) -> AsyncIterator[tuple[Worker, Client]]:
    """A worker and a client on one backend."""
    async with (
        open_worker(backend, workflows, **options) as worker,
        open_client(backend, tenant_id="t") as client,
    ):
        yield worker, client


class Log:
    """What runs did, in order, and events by which a test steers them."""

    def __init__(self) -> None:
        self.did: list[str] = []
        self.began = trio.Event()
        self.go = trio.Event()
