"""A runtara-core 1.4, or ``runtara-trio serve``, as a backend."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ...clock import Clock
from ...config import SdkConfig
from ...remote.backend import RemoteBackend
from ...remote.location import ServerLocation
from ...tasks import open_service_nursery
from .asking import QuicAsking
from .session import OpenLink, Session


@asynccontextmanager
async def open_quic(
    server: ServerLocation, *, config: SdkConfig, clock: Clock, open_link: OpenLink | None = None
) -> AsyncIterator[RemoteBackend]:
    """Open a client. The first request connects."""
    timeout = config.connect_timeout_ms / 1000
    session = Session(server, timeout) if open_link is None else Session(server, timeout, open_link)
    async with open_service_nursery() as nursery:
        asking = QuicAsking(session, config.request_timeout_ms / 1000)
        nursery.start_soon(session.run)
        yield RemoteBackend(asking, config, clock, nursery)
