"""A fleet under load and faults for a long time: what must not grow.

``nox -s soak -- SECONDS`` runs this on a file and on PostgreSQL; an hour is the default. One worker
is never killed, stopped or drained. What it has in memory, its files and threads, the connections
to the server and the size of the store are looked at all the time; what has ended is pruned.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable
from pathlib import Path

import trio

from runtara_trio import Operator, SdkError, open_backend, open_client
from runtara_trio.store.sqlite.file import LARGEST_LOG

from ..helpers.fleet import open_fleet
from ..helpers.places import Shared
from ..helpers.support import Program, sql
from .test_chaos import LEASE_MS, Chaos, until_all_ended

SECONDS = float(os.environ.get("SOAK_SECONDS", "3600"))
SAMPLES = 80
KEPT = min(60.0, SECONDS / 20)
"""Seconds for which what has ended is kept."""

MAY_GROW = {
    "memory MB": (1.1, 4.0),
    "files": (1.0, 3),
    "threads": (1.0, 1),
    "connections": (1.0, 4),
    "disk MB": (1.25, 2.0),
    "WAL MB": (1.0, LARGEST_LOG / 1e6),  # it keeps that much: a process that was stopped reads on
    "tasks": (1.1, 30),
    "log lines": (1.5, 20),
}
"""From the second quarter of the time to the last: by a factor, and so much more. Lines are those
that a worker has logged since the last look."""


def looked_at(program: Program) -> dict[str, float]:
    """A process from outside."""
    status = dict(
        line.split(":", 1)
        for line in Path(f"/proc/{program.pid}/status").read_text().splitlines()
        if ":" in line
    )
    return {
        "memory MB": int(status["VmRSS"].split()[0]) / 1024,
        "threads": int(status["Threads"]),
        "files": len(os.listdir(f"/proc/{program.pid}/fd")),
    }


async def size_of(shared: Shared, backend: object) -> dict[str, float]:
    """The store: what it takes, and who is connected to it."""
    if shared.url.startswith("sqlite"):
        path = shared.url.removeprefix("sqlite:///")
        files = {"disk MB": Path(path), "WAL MB": Path(f"{path}-wal")}
        return {name: one.stat().st_size / 1e6 for name, one in files.items() if one.exists()}
    ((size, count),) = await sql(
        backend,
        "SELECT pg_database_size(current_database()), (SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database())",
    )
    return {"disk MB": int(size) / 1e6, "connections": int(count)}


def check(samples: list[dict[str, float]], say: Callable[[str], None]) -> list[str]:
    """What has grown."""
    grown: list[str] = []
    quarter = len(samples) // 4
    for name, (factor, more) in MAY_GROW.items():
        values = [one[name] for one in samples if name in one]
        if not values:
            continue
        early, late = (
            statistics.median(part) for part in (values[quarter : 2 * quarter], values[-quarter:])
        )
        say(f"{name:<12} {values[0]:8.1f} at first, {early:8.1f}, {late:8.1f} at the end")
        if late > early * factor + more:
            grown.append(f"{name}: {early:.1f}, then {late:.1f}")
    return grown


async def test_nothing_grows(shared: Shared, tmp_path: Path) -> None:
    samples: list[dict[str, float]] = []
    async with (
        open_backend(shared.url, create=True) as backend,
        open_client(backend, tenant_id="t") as client,
        open_fleet(shared, tmp_path) as fleet,
    ):
        operator = Operator(backend)
        chaos = Chaos(shared, fleet, client, operator)
        await chaos.start_runs()
        steady = await fleet.start(
            slots=10, max_loaded=20, lease_ms=LEASE_MS, max_recoveries=1_000_000, counts=True
        )

        async def look() -> None:
            logged = 0
            while True:
                await trio.sleep(SECONDS / SAMPLES)
                lines, logged = len(steady.lines) - logged, len(steady.lines)
                try:
                    await operator.prune(KEPT)
                    seen = looked_at(steady) | await size_of(shared, backend)
                    tasks = int((tmp_path / f"tasks-{steady.pid}").read_text() or 0)
                    samples.append(seen | {"log lines": lines, "tasks": tasks})
                except (SdkError, OSError) as exc:
                    print(f"no sample: {exc}")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(look)
            await chaos.go_on(SECONDS)
            nursery.cancel_scope.cancel()
        assert steady.process.poll() is None
        print(
            f"\n{len(chaos.handles)} starts, {dict(chaos.done)}, {len(steady.lines)} lines logged"
        )
        grown = check(samples, print)
        await chaos.calm_down()
        await until_all_ended(operator, fleet)
    assert not grown
