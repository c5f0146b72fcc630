"""``python -m bench.scale``: a store of a million instances; writes docs/benchmarks-scale.md.

Four workers and a client are processes of their own on one store; on PostgreSQL the server is one
more. All share the machine.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import psutil
import trio

from runtara_trio import (
    Client,
    InstanceStatus,
    Operator,
    Start,
    open_backend,
    open_client,
    open_runtara,
)

from .far import far
from .report import machine, table
from .spending import Store
from .workers import claims, lateness, one, process, sleeper, throughput, twenty

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks-scale.md"
WORKERS = 4
SLOTS = 100
DAY = 86400.0
BATCH = 50_000

Row = tuple[str, str]


class Cost(msgspec.Struct, frozen=True):
    """What each of so many runs has cost."""

    rate: float
    """Runs a second."""
    bytes: float
    """That the store has grown by."""
    server_ms: float
    """Of a processor."""
    workers_ms: float
    wal: float
    commits: float


@contextlib.contextmanager
def fleet(url: str) -> Iterator[list[psutil.Process]]:
    """Four workers until the end of the block."""
    with contextlib.ExitStack() as stack:
        yield [
            psutil.Process(stack.enter_context(process("worker", url, str(SLOTS))).pid)
            for _ in range(WORKERS)
        ]


def processor_seconds(processes: list[psutil.Process]) -> float:
    return sum(sum(one.cpu_times()[:2]) for one in processes)


async def until_all_work(client: Client) -> None:
    """All workers are up."""
    while len(await client.list_workers()) < WORKERS:  # noqa: ASYNC110
        await trio.sleep(0.1)
    await (await client.start(one, 0)).result(timeout=60)


async def run_all(store: Store, workflow: Any, count: int) -> Cost:
    """Runs that are there before the four workers take them."""
    with fleet(store.url) as workers:
        async with open_client(store.url, tenant_id="bench") as client:
            await until_all_work(client)
            size, spent, used = store.bytes(), store.spent(), processor_seconds(workers)
            begun = time.perf_counter()
            for first in range(0, count, BATCH):
                batch = range(first, min(count, first + BATCH))
                wanted = [Start(args=(n,), attributes={"shard": n % 1000}) for n in batch]
                handles = await client.start_many(workflow, wanted)
            left = [InstanceStatus.PENDING, InstanceStatus.RUNNING]
            await handles[-1].result(timeout=900)
            while await client.count(statuses=left, workflow=workflow.name):  # noqa: ASYNC110
                await trio.sleep(0.2)
            seconds = time.perf_counter() - begun
            used = processor_seconds(workers) - used
    now = store.spent()
    return Cost(
        rate=count / seconds,
        bytes=(store.bytes() - size) / count,
        server_ms=(now.cpu - spent.cpu) / count * 1000,
        workers_ms=used / count * 1000,
        wal=(now.wal - spent.wal) / count,
        commits=(now.commits - spent.commits) / count,
    )


async def fill(store: Store, count: int) -> float:
    """Starts that are due tomorrow, some of them in a queue of which no worker takes any."""
    async with open_client(store.url, tenant_id="bench") as client:
        begun = time.perf_counter()
        for first in range(0, count, BATCH):
            batch = range(first, min(count, first + BATCH))
            await client.start_many(
                sleeper,
                [
                    Start(args=(0.0,), queue="nobody")
                    if n % 5 == 0
                    else Start(args=(0.0,), delay=DAY + n / 10)
                    for n in batch
                ],
            )
        return count / (time.perf_counter() - begun)


async def timed(act: Callable[[], Awaitable[object]], times: int = 15) -> str:
    """Milliseconds, by the median."""
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        await act()
        taken.append((time.perf_counter() - begun) * 1000)
    return f"{statistics.median(taken):.1f} ms"


async def looks(url: str) -> list[Row]:
    """What people ask of it."""
    done, waiting = [InstanceStatus.COMPLETED], [InstanceStatus.PENDING]
    async with open_backend(url) as backend:
        operator = Operator(backend)
        deep = None
        for _ in range(20):
            deep = (await operator.list(limit=1000, before=deep)).next
        some = (await operator.list(limit=1)).instances[0].instance_id
        asked: list[tuple[str, Callable[[], Awaitable[object]]]] = [
            ("the newest 100", operator.list),
            ("100 after the newest 20,000", lambda: operator.list(before=deep)),
            ("100 of a status", lambda: operator.list(statuses=done)),
            (
                "100 of a tenant's, a workflow's and a status",
                lambda: operator.list(tenant_id="bench", workflow="one", statuses=done),
            ),
            (
                "100 by an attribute that one in 1,000 of the ended has",
                lambda: operator.list(attributes={"shard": 7}),
            ),
            ("one, with all about it", lambda: operator.show(some)),
        ]
        rows = [(what, await timed(act)) for what, act in asked]
        count = await timed(lambda: operator.count(statuses=waiting), 3)
        return [*rows, ("a count of the pending", count)]


async def prune(store: Store) -> list[Row]:
    """All that has ended."""
    async with open_backend(store.url) as backend:
        operator = Operator(backend)
        begun = time.perf_counter()
        removed = await operator.prune(0)
        rate = removed / (time.perf_counter() - begun)
        begun = time.perf_counter()
        sizes = await operator.vacuum()
        seconds = time.perf_counter() - begun
    return [
        (f"`prune` of the {removed:,} that have ended", f"{rate:,.0f}/s"),
        (
            "`prune --vacuum` then",
            f"{seconds:.1f} s, {sizes.bytes_before / 1e6:,.0f} → {sizes.bytes_after / 1e6:,.0f} MB",
        ),
    ]


def measure(name: str, store: Store, instances: int) -> list[Row]:
    rows: list[Row] = []

    def add(what: str, value: str) -> None:
        rows.append((what, value))
        print(f"{name}: {what}: {value}", flush=True)

    def add_costs(where: str, count: int) -> None:
        a = trio.run(run_all, store, one, count)
        b = trio.run(run_all, store, twenty, count // 10)
        for what, cost in (("one step", a), ("20 checkpoints", b)):
            add(f"runs of {what}, {where}", f"{cost.rate:,.0f}/s")
        both = zip(msgspec.structs.astuple(a), msgspec.structs.astuple(b), strict=True)
        step = Cost(*((all_twenty - first) / 19 for first, all_twenty in both))
        add(
            "disk of a run with its first step, of a further checkpoint",
            f"{a.bytes:,.0f} B, {step.bytes:,.0f} B",
        )
        add(
            "processor of the workers for these, each",
            f"{a.workers_ms:.2f} ms, {step.workers_ms:.3f} ms",
        )
        if store.has_server:
            add("processor of the server, each", f"{a.server_ms:.2f} ms, {step.server_ms:.3f} ms")
            add("WAL, each", f"{a.wal:,.0f} B, {step.wal:,.0f} B")
            add("commits, each", f"{a.commits:.2f}, {step.commits:.2f}")

    add_costs("an empty store", instances // 50)
    few = trio.run(claims, store.url)
    add("a claim of 100, few rows", f"{few:.1f} ms")
    rate = trio.run(fill, store, instances * 7 // 10)
    add(f"starting {instances * 7 // 10:,}, in batches", f"{rate:,.0f}/s")
    add_costs(f"{instances * 7 // 10:,} beside", instances * 3 // 10)
    many = trio.run(claims, store.url)
    add("a claim of 100 among all", f"{many:.1f} ms ({many / few:.2f} ×)")
    with fleet(store.url) as workers:
        for count, seconds in ((10_000, 60.0), (100_000, 120.0)):
            late = trio.run(lateness, store.url, count * instances // 1_000_000, seconds)
            add(
                f"{len(late):,} due in {seconds:.0f} s, late by p50, p99",
                f"{late[len(late) // 2] * 1000:.0f}, {late[len(late) * 99 // 100] * 1000:.0f} ms",
            )
        used = sum(worker.memory_info().rss for worker in workers) / WORKERS / 1e6
        add("memory of a worker then", f"{used:.0f} MB")
    for what, value in trio.run(looks, store.url):
        add(what, value)
    add("size of the store", f"{store.bytes() / 1e6:,.0f} MB")
    for what, value in trio.run(prune, store):
        add(what, value)
    return rows


# ---- a server that is slow, and one that is far


async def checkpoints(url: str, tasks: int) -> float:
    """A second, of so many tasks of one instance."""
    count = 0
    async with open_runtara(url, instance_id=f"saves-{tasks}-{time.time()}", tenant_id="b") as sdk:

        async def save(task: int) -> None:
            nonlocal count
            while True:
                await sdk.checkpoint(f"{task} {count}", b"x" * 200)
                count += 1

        with trio.move_on_after(5):
            async with trio.open_nursery() as nursery:
                for task in range(tasks):
                    nursery.start_soon(save, task)
    return count / 5


async def at_a_distance(url: str) -> list[str]:
    """Of one server: checkpoints, one at a time, and all at once."""
    saved = [await checkpoints(url, tasks) for tasks in (1, 64)]
    with fleet(url):
        async with open_client(url, tenant_id="bench") as client:
            await until_all_work(client)
        ran = await throughput(url, 5000)
    return [
        *(f"{rate:,.0f}/s" for rate in saved),
        f"{ran.p50:.0f} ms",
        f"{ran.rate:,.0f}/s",
    ]


async def through(url: str, seconds: float) -> list[str]:
    """In a process beside the proxy's."""
    async with far(url, seconds) as there:
        done = await trio.run_process(
            [sys.executable, "-m", "bench.scale", "distance", there], capture_stdout=True
        )
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=list[str])


def distances(store: Store) -> str:
    found = [("near, and quick", trio.run(at_a_distance, store.url))]
    for delay in ("5000", "0"):
        store.ask(f"ALTER SYSTEM SET commit_delay = {delay}")
        store.ask(f"ALTER SYSTEM SET commit_siblings = {0 if delay != '0' else 5}")
        store.ask("SELECT pg_reload_conf()")
        if delay != "0":
            found.append(("5 ms a commit", trio.run(at_a_distance, store.url)))
    found.append(("20 ms a round trip", trio.run(through, store.url, 0.020)))
    titles = (
        *("server", "checkpoints, 1 task", "64 tasks"),
        *("start → run → result, one at a time", "5,000 at once"),
    )
    for what, values in found:
        print(what, values, flush=True)
    return table(titles, [(what, *values) for what, values in found])


# ---- the page


def page(tables: list[tuple[str, list[Row]]], servers: str, instances: int) -> str:
    parts = [
        "# A million instances",
        f"Measured on {date.today()} with `nox -s bench_scale`: {machine()}. {WORKERS} workers of "
        f"{SLOTS} slots and a client are processes on one store of {instances:,} instances; they, "
        "and on PostgreSQL the server, share the cores. Everything that is acknowledged is on the "
        "disk. [What one database carries](scale.md) reckons with these figures.",
    ]
    for name, rows in tables:
        parts += [f"## {name}", table(("work", "measured"), rows)]
    parts += [
        "## A server that is slow, or far",
        "An empty PostgreSQL, the same workers. *5 ms a commit* is its `commit_delay`; *20 ms a "
        "round trip* is a proxy on this machine that holds every byte for 10 ms.",
        servers,
    ]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    from tests.helpers.postgres import Server

    parser = argparse.ArgumentParser()
    parser.add_argument("--instances", type=int, default=1_000_000)
    options = parser.parse_args()
    tables = []
    server = Server()
    try:
        servers = distances(Store(server.url, server))
    finally:
        server.close()
    with tempfile.TemporaryDirectory() as folder:
        store = Store(f"sqlite:///{folder}/scale.db")
        tables.append(("SQLite", measure("SQLite", store, options.instances)))
    server = Server()
    try:
        store = Store(server.url, server)
        tables.append(("PostgreSQL", measure("PostgreSQL", store, options.instances)))
    finally:
        server.close()
    PAGE.write_text(page(tables, servers, options.instances))


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
    match sys.argv[1:]:
        case ["distance", url]:
            print(msgspec.json.encode(trio.run(at_a_distance, url)).decode())
        case _:
            main()
