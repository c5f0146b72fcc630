"""DBOS's steps, in a process of their own: ``python -m bench.dbos_steps PLACE MODE COUNT TASKS``.

PLACE is a SQLite file, or the URL of a PostgreSQL database.

MODE ``fresh``: a workflow of so many steps, so many at once. ``stored``: the same, and then
it dies. ``recover``: a new process recovers that workflow, which finds all its steps.
Prints the seconds between the first step and the last, as the workflow sees them.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time

from dbos import DBOS, SetWorkflowID

PAYLOAD = "x" * 200


@DBOS.step()
async def step(number: int) -> str:
    return PAYLOAD


@DBOS.workflow()
async def work(count: int, tasks: int, dies: bool) -> float:
    start = time.perf_counter()
    for first in range(0, count, tasks):
        if tasks == 1:
            await step(first)
        else:
            await asyncio.gather(*(step(number) for number in range(first, first + tasks)))
    seconds = time.perf_counter() - start
    print("seconds", seconds, flush=True)
    if dies and "recover" not in sys.argv:
        os._exit(0)
    return seconds


async def main(place: str, mode: str, count: int, tasks: int) -> None:
    DBOS(
        config={
            "name": "bench",
            "system_database_url": place if "://" in place else f"sqlite:///{place}",
            "log_level": "ERROR",
            "run_admin_server": False,
        }
    )
    DBOS.launch()
    if mode == "recover":
        handle = await DBOS.retrieve_workflow_async("bench")
        await handle.get_result()
    else:
        with SetWorkflowID("bench"):
            await work(count, tasks, mode == "stored")
    DBOS.destroy()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
