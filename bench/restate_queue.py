"""Restate's server: ``python -m bench.restate_queue SERVER COUNT``.

SERVER is the program ``restate-server``, of npm. A client in this process calls so many one-step
workflows, 64 at once, which a service in another process runs. Prints the runs a second, and the
milliseconds of one at a time (p50).
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp
import hypercorn.asyncio
import hypercorn.config
import restate

SERVICE, INGRESS, ADMIN, NODE = 19080, 18080, 19070, 15122
AT_ONCE = 64
"""Connections of the client: with 500 the server's answers did not come any more."""

one = restate.Workflow("one")


@one.main()
async def run(context: restate.WorkflowContext, number: int) -> int:
    return await context.run_typed("step", step, number=number)


async def step(number: int) -> int:
    return number


def serve() -> None:
    config = hypercorn.config.Config()
    config.bind = [f"127.0.0.1:{SERVICE}"]
    asyncio.run(hypercorn.asyncio.serve(restate.app([one]), config))  # type: ignore[arg-type]


@contextmanager
def running(server: str) -> Iterator[None]:
    """The server and the service."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            **os.environ,
            "RESTATE_BASE_DIR": folder,
            "RESTATE_INGRESS__BIND_ADDRESS": f"127.0.0.1:{INGRESS}",
            "RESTATE_ADMIN__BIND_ADDRESS": f"127.0.0.1:{ADMIN}",
            "RESTATE_BIND_ADDRESS": f"127.0.0.1:{NODE}",
            "RESTATE_DISABLE_TELEMETRY": "true",
        }
        log = subprocess.DEVNULL
        processes = [
            subprocess.Popen([server], env=environment, stdout=log, stderr=log, cwd=folder),
            subprocess.Popen([sys.executable, "-m", "bench.restate_queue", "serve"]),
        ]
        try:
            yield
        finally:
            for process in processes:
                process.terminate()
                process.wait()


async def register(client: aiohttp.ClientSession) -> None:
    """Tell the server of the service, once both are up."""
    deadline = time.monotonic() + 60
    while True:
        try:
            body = {"uri": f"http://127.0.0.1:{SERVICE}", "force": True}
            async with client.post(f"http://127.0.0.1:{ADMIN}/deployments", json=body) as answer:
                if answer.status < 300:
                    return
                problem = await answer.text()
        except aiohttp.ClientError as exc:
            problem = str(exc)
        if time.monotonic() > deadline:
            raise RuntimeError(f"the server does not take the service: {problem}")
        await asyncio.sleep(0.5)


async def ask(count: int) -> tuple[float, float]:
    connector = aiohttp.TCPConnector(limit=AT_ONCE)
    async with aiohttp.ClientSession(connector=connector) as client:
        await register(client)

        async def call(key: str) -> None:
            url = f"http://127.0.0.1:{INGRESS}/one/{key}/run"
            async with client.post(url, json=7) as answer:
                assert await answer.json() == 7

        await call("warm")
        begun = time.perf_counter()
        await asyncio.gather(*(call(f"many-{number}") for number in range(count)))
        rate = count / (time.perf_counter() - begun)
        times = []
        for number in range(100):
            begun = time.perf_counter()
            await call(f"single-{number}")
            times.append((time.perf_counter() - begun) * 1000)
    return rate, sorted(times)[50]


def main(server: str, count: int) -> None:
    with running(server):
        rate, p50 = asyncio.run(ask(count))
    print(rate, p50)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve()
    else:
        main(sys.argv[1], int(sys.argv[2]))
