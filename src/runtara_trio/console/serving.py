"""The console as a server of its own: hypercorn on Trio, on the store's own Trio run."""

from __future__ import annotations

import os
import socket
from collections.abc import Awaitable, Callable

import trio
from hypercorn.config import Config
from hypercorn.trio import serve as serve_hypercorn
from starlette.types import ASGIApp, Receive, Scope, Send

CLOSING = 3.0
"""Seconds that open streams have at the end."""


class UnderBase:
    """An application that browsers reach under a path, which a proxy takes away or leaves."""

    def __init__(self, app: ASGIApp, base: str) -> None:
        self._app = app
        self._base = base

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if not path.startswith(f"{self._base}/"):
            path = f"{self._base}{path}"
        await self._app({**scope, "root_path": self._base, "path": path}, receive, send)


async def serve(
    app: ASGIApp,
    *,
    host: str,
    port: int,
    base_path: str = "",
    stop: Callable[[], Awaitable[object]] = trio.sleep_forever,
    started: Callable[[str], None] = lambda _: None,
) -> None:
    """Serve it until ``stop`` returns, or it is cancelled. ``started`` gets the URL.

    Raises OSError: it cannot listen there.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family) as listening:
        config = Config()
        config.bind = [f"fd://{os.dup(listening.fileno())}"]  # it closes its own
        config.accesslog = None
        config.errorlog = "-"
        config.loglevel = "WARNING"
        config.graceful_timeout = CLOSING
        config.keep_alive_timeout = 30.0
        config.h11_max_incomplete_size = 64 * 1024
        shown = f"[{host}]" if ":" in host else host
        started(f"http://{shown}:{listening.getsockname()[1]}{base_path}/")
        served = UnderBase(app, base_path) if base_path else app

        async def until_stopped() -> None:
            await stop()

        await serve_hypercorn(served, config, shutdown_trigger=until_stopped)  # type: ignore[arg-type]
