"""``python -m bench.workers``: what clients and workers cost; writes docs/benchmarks-workers.md.

A worker, a client and, for what is compared, DBOS's queue each run in a process of their own, on
one store, one after the other.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import msgspec
import trio

from runtara_trio import (
    RuntaraSdk,
    Start,
    durable,
    open_backend,
    open_client,
    open_worker,
    run_worker,
    workflow,
)
from runtara_trio.messages import ClaimRuns, RecordOutcome
from runtara_trio.sdk.workflow import AnyWorkflow
from runtara_trio.types import InstanceStatus

from .report import machine

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks-workers.md"


@durable
async def step(number: int) -> int:
    return number


@workflow
async def one(sdk: RuntaraSdk, number: int) -> int:
    return await step(number)


@workflow
async def twenty(sdk: RuntaraSdk, number: int) -> int:
    for place in range(20):
        async with sdk.step():
            await sdk.checkpoint(f"step {place}", place)
    return number


@workflow
async def sleeper(sdk: RuntaraSdk, due: float) -> float:
    await sdk.sleep(max(0.0, due - time.time()), "sleep")
    return time.time() - due


@workflow
async def fan_out(sdk: RuntaraSdk, count: int) -> int:
    """Children of one step each; the sum of their results."""
    async with sdk.open_children() as children:
        started = [await children.start(one, number) for number in range(count)]
        return sum([await child.result() for child in started])


@workflow
async def fan_out_twice(sdk: RuntaraSdk, count: int) -> float:
    """The same, and then a wait: the seconds in which the run behind it has the results again."""
    begun = time.perf_counter()
    async with sdk.open_children() as children:
        started = [await children.start(one, number) for number in range(count)]
        for child in started:
            await child.result()
    seconds = time.perf_counter() - begun
    await sdk.wait_for_signal("again")
    return seconds


WORKFLOWS: list[AnyWorkflow] = [one, twenty, sleeper, fan_out, fan_out_twice]


# ---- the processes


@contextlib.contextmanager
def process(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """This module in a process of its own, until the end of the block."""
    started = subprocess.Popen([sys.executable, "-m", "bench.workers", *arguments])
    try:
        yield started
    finally:
        started.terminate()
        started.wait()


def memory_mb(pid: int) -> float:
    """Memory of a process, shared pages by their share."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(text.partition("Pss:")[2].split()[0]) / 1024


# ---- what is measured


class Throughput(msgspec.Struct):
    rate: float
    p50: float
    p99: float


async def throughput(url: str, count: int) -> Throughput:
    """Starts, runs and results a second, all at once; and one at a time, in ms."""
    async with open_client(url, tenant_id="bench") as client:
        await (await client.start(one, 0)).result(timeout=60)
        begun = time.perf_counter()
        handles = await client.start_many(one, [Start(args=(n,)) for n in range(count)])
        async with trio.open_nursery() as nursery:
            for handle in handles:
                nursery.start_soon(handle.result)
        rate = count / (time.perf_counter() - begun)
        times = []
        for number in range(200):
            begun = time.perf_counter()
            await (await client.start(one, number)).result()
            times.append((time.perf_counter() - begun) * 1000)
    times.sort()
    return Throughput(rate, times[100], times[197])


async def in_one_process(url: str) -> Throughput:
    async with (
        open_backend(url, create=True) as backend,
        open_worker(backend, WORKFLOWS, stop_signals=()),
        open_client(backend, tenant_id="bench") as client,
    ):
        times = []
        for number in range(300):
            begun = time.perf_counter()
            await (await client.start(one, number)).result()
            times.append((time.perf_counter() - begun) * 1000)
    times = sorted(times[100:])
    return Throughput(0, times[100], times[197])


async def starts(url: str, count: int) -> float:
    async with open_client(url, tenant_id="bench") as client:
        wanted: list[Start[int]] = [Start(args=(n,), delay=10**6) for n in range(count)]
        begun = time.perf_counter()
        await client.start_many(one, wanted)
        return count / (time.perf_counter() - begun)


async def fill(url: str, count: int) -> None:
    """Rows that are not ready."""
    async with open_client(url, tenant_id="bench") as client:
        for first in range(0, count, 50_000):
            batch = range(first, min(count, first + 50_000))
            await client.start_many(one, [Start(args=(n,), delay=10**6) for n in batch])


async def claims(url: str) -> float:
    """Milliseconds of a claim of 100, median."""
    async with open_backend(url) as backend, open_client(backend, tenant_id="bench") as client:
        times = []
        for _ in range(15):
            await client.start_many("claimed", [Start(args=()) for _ in range(100)])
            begun = time.perf_counter()
            found = await backend.request(
                ClaimRuns(queues=("default",), workflows=(("claimed", 1),), limit=100)
            )
            times.append((time.perf_counter() - begun) * 1000)
            assert len(found.runs) == 100
            for run in found.runs:
                await backend.request(
                    RecordOutcome(
                        instance_id=run.instance_id,
                        lease=run.lease,
                        status=InstanceStatus.COMPLETED,
                    )
                )
    return statistics.median(times)


async def lateness(url: str, count: int, seconds: float) -> list[float]:
    """Seconds by which sleepers that are due one after the other wake too late."""
    async with open_client(url, tenant_id="bench") as client:
        begin = time.time() + 20
        due = [begin + n * seconds / count for n in range(count)]
        handles = await client.start_many(
            sleeper, [Start(args=(at,), at=datetime.fromtimestamp(at, UTC)) for at in due]
        )
        late: list[float] = []

        async def wait(handle: Any) -> None:
            late.append(await handle.result())

        async with trio.open_nursery() as nursery:
            for handle in handles:
                nursery.start_soon(wait, handle)
    return sorted(late)


async def killed(url: str, runs: int, *, kill: bool) -> float:
    """Seconds until all are finished, two workers beside; one is killed half-way."""
    async with open_client(url, tenant_id="bench") as client:
        with process("worker", url, "100"), process("worker", url, "100") as second:
            await (await client.start(one, 0)).result(timeout=60)
            begun = time.perf_counter()
            handles = await client.start_many(twenty, [Start(args=(n,)) for n in range(runs)])
            if kill:
                for handle in handles[: runs // 2]:
                    await handle.result(timeout=120)
                second.send_signal(signal.SIGKILL)
            for handle in handles:
                await handle.result(timeout=120)
            return time.perf_counter() - begun


async def children(url: str, count: int) -> tuple[float, float]:
    """Children a second of one parent, in a worker beside; and the seconds of its replay."""
    async with open_client(url, tenant_id="bench") as client:
        with process("worker", url, "200"):
            await (await client.start(one, 0)).result(timeout=60)
            begun = time.perf_counter()
            handle = await client.start(fan_out, count)
            assert await handle.result(timeout=300) == count * (count - 1) // 2
            rate = count / (time.perf_counter() - begun)
            again = await client.start(fan_out_twice, count)
            done = [InstanceStatus.COMPLETED]
            while await client.count(parent_id=again.id, statuses=done) < count:  # noqa: ASYNC110
                await trio.sleep(0.1)
            await trio.sleep(1)  # it waits by now
        await again.signal("again")
        with process("worker", url, "200"):
            return rate, await again.result(timeout=300)


async def loaded_sleepers(url: str, count: int) -> tuple[float, float]:
    """KB of each loaded sleeper, and the seconds in which a worker drains them."""
    async with (
        open_backend(url, create=True) as backend,
        open_client(backend, tenant_id="bench") as client,
    ):
        async with open_worker(
            backend, WORKFLOWS, max_loaded=2 * count, drain_timeout=60, stop_signals=()
        ) as worker:
            await (await client.start(one, 0)).result()
            before = memory_mb(os.getpid())
            due = time.time() + 10**5
            await client.start_many(sleeper, [Start(args=(due,)) for _ in range(count)])
            while worker.health().loaded < count or worker.health().working:  # noqa: ASYNC110
                await trio.sleep(0.1)
            each = (memory_mb(os.getpid()) - before) * 1024 / count
            begun = time.perf_counter()
        return each, time.perf_counter() - begun


# ---- the page


def measure(name: str, url: str, place: str, options: argparse.Namespace) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []

    def add(what: str, value: str) -> None:
        rows.append((what, value))
        print(f"{name}: {what}: {value}", flush=True)

    with process("worker", url, "200"):
        rates = [trio.run(throughput, url, 2000) for _ in range(options.rounds)]
    ours = statistics.median(one.rate for one in rates)
    add("start → run → result, 2,000 at once, two processes", f"{ours:,.0f}/s")
    p50 = statistics.median(one.p50 for one in rates)
    add("one at a time, two processes, p50 (p99)", f"{p50:.1f} ({rates[-1].p99:.1f}) ms")
    alone = trio.run(in_one_process, url)
    add("one at a time, one process, p50 (p99)", f"{alone.p50:.1f} ({alone.p99:.1f}) ms")
    if not options.without_dbos:
        theirs = float(
            subprocess.run(
                [sys.executable, "-m", "bench.dbos_queue", place, "200"],
                stdout=subprocess.PIPE,
                check=True,
            ).stdout.split()[-1]
        )
        add("DBOS's queue, 200 at once", f"{theirs:,.0f}/s (ours is {ours / theirs:.0f} ×)")
    undisturbed = trio.run(lambda: killed(url, 500, kill=False))
    disturbed = trio.run(lambda: killed(url, 500, kill=True))
    add("500 runs × 20 steps, two workers", f"{undisturbed:.1f} s")
    add("the same, one of them killed half-way", f"{disturbed:.1f} s")
    add("`start_many` of 100,000", f"{trio.run(starts, url, 100_000):,.0f}/s")
    rate, replay = trio.run(children, url, 10_000)
    add("a fan-out of 10,000 children, each one step", f"{rate:,.0f}/s")
    add("the parent's replay of them", f"{replay:.1f} s")
    each, drained = trio.run(loaded_sleepers, url, 10_000)
    add("10,000 loaded sleepers", f"{each:.1f} KB each, drained in {drained:.1f} s")
    few = trio.run(claims, url)
    add("a claim of 100, 100,000 rows that are not ready", f"{few:.1f} ms")
    trio.run(fill, url, options.rows)
    many = trio.run(claims, url)
    add(f"the same, {options.rows:,} more", f"{many:.1f} ms ({many / few:.2f} ×)")
    with process("worker", url, "200") as worker:
        late = trio.run(lateness, url, 10_000, 60.0)
        used = memory_mb(worker.pid)
    add(
        "10,000 due in a minute among them, late by p50, p99",
        f"{late[len(late) // 2] * 1000:.0f}, {late[len(late) * 99 // 100] * 1000:.0f} ms",
    )
    add("the worker's memory then", f"{used:.0f} MB")
    return rows


def restate(server: str, tables: list[tuple[str, list[tuple[str, str]]]]) -> None:
    """The same work through Restate's server, which keeps it on the disk as well."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.restate_queue", server, "1000"],
        stdout=subprocess.PIPE,
        check=True,
        timeout=300,
    )
    rate, p50 = map(float, done.stdout.split()[-2:])
    rows = [
        ("start → run → result, 1,000, client, service and server", f"{rate:,.0f}/s"),
        ("one at a time, p50", f"{p50:.1f} ms"),
    ]
    tables.append(("Restate's server, in the same run", rows))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--without-dbos", action="store_true")
    parser.add_argument("--restate", help="the program restate-server")
    options = parser.parse_args()
    tables = []
    with tempfile.TemporaryDirectory() as folder:
        place = f"{folder}/dbos.db"
        tables.append(("SQLite", measure("SQLite", f"sqlite:///{folder}/w.db", place, options)))
        from tests.helpers.postgres import running_postgres

        with running_postgres() as url:
            tables.append(("PostgreSQL", measure("PostgreSQL", url, url, options)))
    if options.restate is not None:
        restate(options.restate, tables)
    PAGE.write_text(page(tables))


def page(tables: list[tuple[str, list[tuple[str, str]]]]) -> str:
    lines = [
        "# What workers cost",
        "",
        f"Measured on {date.today()} with `nox -s bench_workers`: {machine()}. A worker with 200 "
        "slots and a client are two processes on one store, where the table says nothing else; "
        "both, and on PostgreSQL the server, share the cores. Everything that is acknowledged "
        "is on the disk.",
    ]
    for name, rows in tables:
        lines += ["", f"## {name}", "", "| work | measured |", "| --- | --- |"]
        lines += [f"| {what} | {value} |" for what, value in rows]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
    match sys.argv[1:]:
        case ["worker", url, slots]:
            trio.run(lambda: run_worker(url, WORKFLOWS, slots=int(slots)))
        case _:
            main()
