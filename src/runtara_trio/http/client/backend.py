"""A server over HTTP as a backend."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from ...backend import Patience
from ...clock import Clock
from ...config import SdkConfig
from ...remote.backend import RemoteBackend
from ...remote.location import ServerLocation
from ...tasks import open_service_nursery
from .asking import HttpAsking
from .pool import Pool


@asynccontextmanager
async def open_http(
    server: ServerLocation, *, config: SdkConfig, clock: Clock, patience: Patience
) -> AsyncIterator[RemoteBackend]:
    """Open a client. The first request connects."""
    async with open_service_nursery() as nursery:
        pool = Pool(server, nursery, config.connect_timeout_ms / 1000)
        try:
            yield RemoteBackend(HttpAsking(pool, config), config, clock, nursery)
        finally:
            with trio.CancelScope(shield=True):
                await pool.close(patience.left())
