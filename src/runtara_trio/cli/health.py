"""``worker --health-port`` and ``--metrics-port``: what orchestrators and scrapers ask, over HTTP.

/livez    the worker goes on asking for work, whether the store answers or is away
/readyz   the store answers, and the worker does not drain
/metrics  what this process has measured, for Prometheus, at a port of its own
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import h11
import msgspec
import trio

from .. import logs, measures
from ..errors import ConfigError, SdkError
from ..worker.settings import WorkerHealth
from ..worker.worker import Worker

STALE = 10.0
"""Seconds since the last answer of the store after which a worker is not ready."""

STUCK = 120.0
"""Seconds since it last asked for work after which a worker is taken to be stuck. A store that is
away answers with an error before that."""

LONGEST = 10.0
"""Seconds that one request may take."""


Answered = tuple[int, str, bytes]
"""Status, type and body."""


Answer = Callable[[str], Answered]
"""What a path is answered."""


@asynccontextmanager
async def listening(port: int | None) -> AsyncIterator[list[trio.SocketListener]]:
    """Listen on all addresses; None: nowhere. Raises SdkError: the port is taken."""
    try:
        listeners = [] if port is None else await trio.open_tcp_listeners(port)
    except OSError as exc:
        raise SdkError(f"cannot listen on port {port}: {exc.strerror}") from exc
    try:
        yield listeners
    finally:
        for listener in listeners:
            listener.socket.close()


async def serve(listeners: list[trio.SocketListener], answer: Answer) -> None:
    """Answer there. Runs until cancelled."""

    async def handle(stream: trio.SocketStream) -> None:
        try:
            with trio.move_on_after(LONGEST):
                await _handle(answer, stream)
        except Exception as exc:  # of one request: the worker must not end with it
            logs.service_failed(exc_info=exc, task="health", error=str(exc))

    if listeners:
        await trio.serve_listeners(handle, listeners)


async def _handle(answer: Answer, stream: trio.SocketStream) -> None:
    connection = h11.Connection(h11.SERVER)
    try:
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await stream.receive_some())
            elif isinstance(event, h11.Request):
                path = event.target.decode("ascii", "replace").partition("?")[0]
                if event.method in (b"GET", b"HEAD"):
                    status, kind, body = answer(path)
                else:  # a CONNECT would be another protocol from there on
                    return
                headers = [
                    ("Content-Type", kind),
                    ("Content-Length", str(len(body))),
                    ("Connection", "close"),
                ]
                for sent in (
                    h11.Response(status_code=status, headers=headers),
                    h11.Data(data=b"" if event.method == b"HEAD" else body),
                    h11.EndOfMessage(),
                ):
                    await stream.send_all(connection.send(sent) or b"")
                return
            else:
                return
    except (h11.RemoteProtocolError, trio.BrokenResourceError):
        return  # who asks so wants no answer


def probes(worker: Worker) -> Answer:
    """What an orchestrator is answered."""

    def answer(path: str) -> Answered:
        status, body = answer_to(path, worker.health(), datetime.now(UTC))
        return status, "application/json", body

    return answer


def answer_to(path: str, health: WorkerHealth, now: datetime) -> tuple[int, bytes]:
    """The status and the body for a path."""
    stale = (now - health.last_look).total_seconds() > STALE
    if path == "/livez":
        status = 503 if (now - health.last_turn).total_seconds() > STUCK else 200
    elif path == "/readyz":
        status = 503 if stale or health.draining else 200
    else:
        return 404, b'{"error": "there are /livez and /readyz"}'
    return status, msgspec.json.encode(health)


@asynccontextmanager
async def measured(port: int | None) -> AsyncIterator[Answer]:
    """What a scraper is answered of what is measured meanwhile; None: nothing is measured.

    Raises:
      ConfigError: prometheus-client is not installed.
    """
    if port is None:
        yield lambda path: (404, "text/plain", b"")
        return
    try:
        from ..telemetry.prometheus import CONTENT_TYPE, Scraped
    except ImportError as exc:
        raise ConfigError(
            "--metrics-port needs prometheus-client: pip install 'runtara-trio[prometheus]'"
        ) from exc
    sink = Scraped()

    def answer(path: str) -> Answered:
        if path != "/metrics":
            return 404, "text/plain", b"there is /metrics"
        return 200, CONTENT_TYPE, sink.page()

    with measures.told_to(sink):
        yield answer
