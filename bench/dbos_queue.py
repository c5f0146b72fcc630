"""DBOS's queue: ``python -m bench.dbos_queue PLACE COUNT``.

PLACE is a SQLite file, or the URL of a PostgreSQL database. A client in this process enqueues so
many one-step workflows for a worker in another. Prints the runs a second.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from typing import Any

from dbos import DBOS, DBOSClient

QUEUE = "bench"


@DBOS.step()
async def step(number: int) -> int:
    return number


@DBOS.workflow(name="one")
async def one(number: int) -> int:
    return await step(number)


def work(url: str) -> None:
    """The worker, until it is killed."""
    DBOS(
        config={
            "name": "bench",
            "system_database_url": url,
            "log_level": "ERROR",
            "run_admin_server": False,
        }
    )
    DBOS.launch()
    DBOS.register_queue(QUEUE)
    print("ready", flush=True)
    while True:
        time.sleep(10)


async def ask(url: str, count: int) -> float:
    client = DBOSClient(system_database_url=url)
    options: Any = {"workflow_name": "one", "queue_name": QUEUE}
    await (await client.enqueue_async(options, 0)).get_result()
    begun = time.perf_counter()
    handles = [await client.enqueue_async(options, number) for number in range(count)]
    for handle in handles:
        await handle.get_result()
    return count / (time.perf_counter() - begun)


def main(place: str, count: int) -> None:
    url = place if "://" in place else f"sqlite:///{place}"
    arguments = [sys.executable, "-m", "bench.dbos_queue", url]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        while "ready" not in worker.stdout.readline():
            pass
        try:
            print(asyncio.run(ask(url, count)))
        finally:
            worker.kill()


if __name__ == "__main__":
    if len(sys.argv) == 2:
        work(sys.argv[1])
    else:
        main(sys.argv[1], int(sys.argv[2]))
