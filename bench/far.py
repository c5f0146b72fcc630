"""A PostgreSQL that is far away: every byte takes its time in both directions."""

from __future__ import annotations

import contextlib
import math
from collections.abc import AsyncIterator
from urllib.parse import parse_qs, urlsplit

import trio


@contextlib.asynccontextmanager
async def far(url: str, seconds: float) -> AsyncIterator[str]:
    """The URL of the same server, a round trip of so many seconds away, until the end of the block.

    ``url``: of a server on a Unix socket of this machine.
    """
    parts = urlsplit(url)
    path = f"{parse_qs(parts.query)['host'][0]}/.s.PGSQL.5432"

    async def serve(near: trio.SocketStream) -> None:
        server = await trio.open_unix_socket(path)
        async with near, server, trio.open_nursery() as nursery:
            for source, target in ((near, server), (server, near)):
                nursery.start_soon(_carry, source, target, seconds / 2)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, serve, 0)
        port = listeners[0].socket.getsockname()[1]
        yield f"postgresql://{parts.username}@127.0.0.1:{port}{parts.path}?sslmode=disable"
        nursery.cancel_scope.cancel()


async def _carry(source: trio.abc.ReceiveStream, target: trio.SocketStream, late: float) -> None:
    """All that comes goes on ``late`` seconds later, in its order."""
    send, receive = trio.open_memory_channel[tuple[float, bytes]](math.inf)

    async def read() -> None:
        with send, contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for data in source:
                send.send_nowait((trio.current_time() + late, bytes(data)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        async for due, data in receive:
            await trio.sleep_until(due)
            try:
                await target.send_all(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                break
        nursery.cancel_scope.cancel()
    with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        await target.send_eof()
