"""Checkpoints on PostgreSQL, beside plain psycopg and beside DBOS on the same server.

``nox -s bench_postgres`` measures, prints, and writes ``docs/benchmarks-postgres.md``. The
server is the one of BENCH_POSTGRES, else one of the tests' wheel.
"""

from __future__ import annotations

import importlib.metadata
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from datetime import date
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import trio
from tests.helpers.postgres import Server

from runtara_trio import open_backend, open_runtara
from runtara_trio.messages import Register

from .report import machine, table

STATE = b"x" * 200
SECONDS = 3.0
TASKS = (1, 16, 64)
ROUNDS = 3
IDLE_SECONDS = 20.0

_PLAIN = (
    "WITH saved AS (INSERT INTO checkpoints (instance_id, checkpoint_id, state)"
    " SELECT 'plain', * FROM unnest(%s::text[], %s::bytea[]) ON CONFLICT DO NOTHING"
    " RETURNING checkpoint_id), newest AS (UPDATE instances SET checkpoint_id = %s"
    " WHERE instance_id = 'plain') SELECT * FROM saved"
)


async def ours(url: str, tasks: int) -> float:
    """Checkpoints a second of so many tasks of one instance."""
    done = 0

    async def work(number: int) -> None:
        nonlocal done
        step = 0
        while True:
            await sdk.checkpoint(f"{number}/{step}", STATE)
            step += 1
            done += 1

    async with open_runtara(url, instance_id=uuid.uuid4().hex, tenant_id="bench") as sdk:
        await sdk.checkpoint("first", STATE)
        start = time.perf_counter()
        with trio.move_on_after(SECONDS):
            async with trio.open_nursery() as nursery:
                for number in range(tasks):
                    nursery.start_soon(work, number)
        return done / (time.perf_counter() - start)


def plain(url: str, batch: int) -> float:
    """The same rows by psycopg, so many in a statement, nobody awaiting them."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DELETE FROM instances WHERE instance_id = 'plain'")
        connection.execute(
            "INSERT INTO instances (instance_id, tenant_id, status)"
            " VALUES ('plain', 't', 'running')"
        )
        done = 0
        start = time.perf_counter()
        while time.perf_counter() - start < SECONDS:
            names = [f"{done + number}" for number in range(batch)]
            connection.execute(_PLAIN, (names, [STATE] * batch, names[-1]), prepare=True).fetchall()
            done += batch
        return done / (time.perf_counter() - start)


def dbos(url: str, tasks: int) -> float:
    """DBOS's steps, in a process of their own, on a database of their own."""
    name = f"dbos{uuid.uuid4().hex[:8]}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    place = urlunsplit(urlsplit(url)._replace(path=f"/{name}"))
    count = 500 if tasks == 1 else 32 * tasks
    program = (sys.executable, "-m", "bench.dbos_steps")
    done = subprocess.run(
        [*program, place, "fresh", str(count), str(tasks)],
        stdout=subprocess.PIPE,
        check=True,
        timeout=300,
    )
    line = next(line for line in done.stdout.splitlines() if line.startswith(b"seconds"))
    return count / float(line.split()[1])


def on_a_file(tasks: int) -> float:
    """The same checkpoints in a SQLite file."""
    with tempfile.TemporaryDirectory() as folder:
        return trio.run(ours, f"sqlite:///{folder}/bench.db", tasks)


def measure(url: str) -> list[tuple[float, float, float, float]]:
    """One round: ours, plain psycopg, DBOS, ours on a file, for each number of tasks."""
    return [
        (trio.run(ours, url, tasks), plain(url, tasks), dbos(url, tasks), on_a_file(tasks))
        for tasks in TASKS
    ]


async def idle(url: str, instances: int) -> float:
    """Transactions a second on the server while so many instances wait."""

    def transactions() -> int:
        with psycopg.connect(url) as connection:
            # What a session has done is counted when it has been idle for a while.
            ((count,),) = connection.execute(
                "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
            ).fetchall()
        return int(count)

    async with open_backend(url, create=True) as backend, trio.open_nursery() as nursery:
        slots = trio.Semaphore(100)

        async def register() -> None:
            async with slots:
                message = Register(instance_id=uuid.uuid4().hex, tenant_id="bench")
                await backend.request(message)

        async with trio.open_nursery() as registers:
            for _ in range(instances):
                registers.start_soon(register)
        await trio.sleep(12)  # until idle sessions have said what they did
        before = transactions()
        await trio.sleep(IDLE_SECONDS)
        found = (transactions() - before) / IDLE_SECONDS
        nursery.cancel_scope.cancel()
    return found


def page(
    rounds: list[list[tuple[float, float, float, float]]],
    version: str,
    waiting: dict[int, float],
) -> str:
    """``docs/benchmarks-postgres.md``."""
    rows = []
    for number, tasks in enumerate(TASKS):
        same = [found[number] for found in rounds]
        rows.append(
            (
                str(tasks),
                f"{statistics.median(one[0] for one in same):,.0f}",
                f"{statistics.median(one[1] for one in same):,.0f}",
                f"{statistics.median(one[0] / one[1] for one in same):.2f}",
                f"{statistics.median(one[2] for one in same):,.0f}",
                f"{statistics.median(one[0] / one[2] for one in same):.1f}",
                f"{statistics.median(one[3] for one in same):,.0f}",
            )
        )
    parts = [
        "# What PostgreSQL costs",
        f"Measured on {date.today().isoformat()} with `nox -s bench_postgres`: {machine()}, "
        f"PostgreSQL {version} on the same machine, DBOS {importlib.metadata.version('dbos')}. "
        f"Medians of {len(rounds)} rounds, in which what is compared ran in turns.",
        "Checkpoints of 200 bytes, each awaited by its task; beside them plain psycopg in one "
        "synchronous loop with as many rows in each statement as there are tasks, which nobody "
        "awaits and which checks no lease; DBOS's steps, so many at once; and the same "
        "checkpoints in a file.",
        table(
            (
                *("tasks", "checkpoints/s", "plain psycopg", "ratio"),
                *("DBOS steps/s", "ratio", "on a file"),
            ),
            rows,
        ),
        "What the server has to do while instances wait, for all of them together: one look for "
        "signals a second, one renewal of their leases, one heartbeat.",
        table(
            ("instances that wait", "transactions/s"),
            [(f"{count:,}", f"{rate:.1f}") for count, rate in waiting.items()],
        ),
    ]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    given = os.environ.get("BENCH_POSTGRES")
    with tempfile.TemporaryDirectory() as folder:
        server = None if given else Server(Path(folder))
        url = given or (server.url if server is not None else "")
        rounds = []
        for _ in range(ROUNDS):
            rounds.append(measure(url))
            print(rounds[-1], file=sys.stderr, flush=True)
        waiting = {count: trio.run(idle, url, count) for count in (10, 10_000)}
        with psycopg.connect(url) as connection:
            ((version,),) = connection.execute("SHOW server_version").fetchall()
        if server is not None:
            server.close()
    text = page(rounds, version, waiting)
    print(text)
    (Path(__file__).parent.parent / "docs" / "benchmarks-postgres.md").write_text(text)


if __name__ == "__main__":
    main()
