"""A server over HTTP as a backend."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from ...backend import Patience
from ...clock import Clock
from ...config import SdkConfig
from ...remote.backend import RemoteBackend
from ...tasks import open_service_nursery
from ..location import HttpTarget
from .asking import HttpAsking
from .operators import Operators
from .pool import Pool


@asynccontextmanager
async def open_http(
    target: HttpTarget, *, config: SdkConfig, clock: Clock, patience: Patience
) -> AsyncIterator[RemoteBackend]:
    """Open a client. The first request connects."""
    async with open_service_nursery() as nursery:
        timeout = config.connect_timeout_ms / 1000
        pools = [Pool(one, nursery, timeout) for one in target if one is not None]
        operators = Operators(pools[1], config) if target.operators is not None else None
        asking = HttpAsking(pools[0], config, operators)
        try:
            yield RemoteBackend(asking, config, clock, nursery)
        finally:
            with trio.CancelScope(shield=True):
                for pool in pools:
                    await pool.close(patience.left())
