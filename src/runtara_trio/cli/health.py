"""``worker --health-port``: what an orchestrator asks, over HTTP.

/livez    the worker goes on asking for work, whether the store answers or is away
/readyz   the store answers, and the worker does not drain
"""

from __future__ import annotations

from datetime import UTC, datetime

import h11
import msgspec
import trio

from ..worker.settings import WorkerHealth
from ..worker.worker import Worker

STALE = 10.0
"""Seconds since the last answer of the store after which a worker is not ready."""

STUCK = 120.0
"""Seconds since it last asked for work after which a worker is taken to be stuck. A store that is
away answers with an error before that."""

LONGEST = 10.0
"""Seconds that one request may take."""


async def serve(worker: Worker, port: int) -> None:
    """Answer on all addresses. Runs until cancelled. Raises OSError: the port is taken."""

    async def answer(stream: trio.SocketStream) -> None:
        with trio.move_on_after(LONGEST):
            await _answer(worker, stream)

    await trio.serve_tcp(answer, port)


async def _answer(worker: Worker, stream: trio.SocketStream) -> None:
    connection = h11.Connection(h11.SERVER)
    try:
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await stream.receive_some())
            elif isinstance(event, h11.Request):
                path = event.target.decode("ascii", "replace").partition("?")[0]
                status, body = answer_to(path, worker.health(), datetime.now(UTC))
                headers = [
                    ("Content-Type", "application/json"),
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
