"""What instances cost that only wait: ``python -m bench.idle FOLDER NUMBER`` prints JSON.

A process of its own, so that its memory is its own.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from pathlib import Path

import msgspec
import trio

from runtara_trio import SharedBackend, open_backend, open_runtara

WATCHED = 10.0
"""Seconds of waiting that are looked at."""


class Idle(msgspec.Struct, frozen=True, kw_only=True):
    """``number`` instances in one process, each with the task that sleeps in it."""

    number: int
    open_seconds: float
    close_seconds: float
    kilobytes_each: float
    """Growth of the resident memory."""
    cpu_percent: float
    """Of one core, while they wait."""
    statements_a_second: float


def resident() -> int:
    """Bytes of memory that the process holds."""
    gc.collect()
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


class Arrivals:
    """Set once all have come."""

    def __init__(self, number: int) -> None:
        self.left = number
        self.all_here = trio.Event()

    def arrive(self) -> None:
        self.left -= 1
        if not self.left:
            self.all_here.set()


async def wait_as_instance(backend: SharedBackend, number: int, arrivals: Arrivals) -> None:
    async with open_runtara(backend, instance_id=f"idle-{number}", tenant_id="bench") as sdk:
        arrivals.arrive()
        await sdk.sleep(3600, "nap")


async def measure(folder: Path, number: int) -> Idle:
    """Open, watch and close them."""
    statements: list[str] = []
    async with open_backend(f"sqlite:///{folder}/idle.db") as backend:
        async with open_runtara(backend, instance_id="first", tenant_id="bench"):
            pass
        before = resident()
        async with trio.open_nursery() as nursery:
            arrivals = Arrivals(number)
            begin = time.perf_counter()
            for one in range(number):
                nursery.start_soon(wait_as_instance, backend, one, arrivals)
            await arrivals.all_here.wait()
            opened = time.perf_counter() - begin
            await trio.sleep(2)  # their sleeps are saved
            grown = resident() - before
            database = backend._backend._database.file.db  # type: ignore[attr-defined]
            database.set_trace_callback(statements.append)
            busy = time.process_time()
            await trio.sleep(WATCHED)
            busy = time.process_time() - busy
            database.set_trace_callback(None)
            begin = time.perf_counter()
            nursery.cancel_scope.cancel()
        closed = time.perf_counter() - begin
    return Idle(
        number=number,
        open_seconds=opened,
        close_seconds=closed,
        kilobytes_each=grown / number / 1024,
        cpu_percent=busy / WATCHED * 100,
        statements_a_second=len(statements) / WATCHED,
    )


if __name__ == "__main__":
    result = trio.run(measure, Path(sys.argv[1]), int(sys.argv[2]))
    print(msgspec.json.encode(result).decode())
