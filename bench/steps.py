"""Durable calls, fresh and replayed, beside DBOS's steps on a SQLite file of its own.

``python -m bench.steps`` measures, prints, and writes ``docs/benchmarks-steps.md``.
"""

from __future__ import annotations

import importlib.metadata
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import trio

from runtara_trio import RuntaraSdk, SdkConfig, durable, open_runtara

from .report import machine, table

PAYLOAD = "x" * 200
COUNTS = {1: 2_000, 16: 16_000, 64: 32_000}
DBOS_COUNTS = {1: 1_000, 16: 1_600, 64: 1_600}
REPLAYED = 10_000


class Steps(msgspec.Struct, frozen=True):
    """Calls a second, of one round."""

    tasks: int
    replayed: bool
    ours: float
    dbos: float | None
    """None: not measured."""


@durable
async def step(number: int) -> str:
    return PAYLOAD


async def work(sdk: RuntaraSdk, count: int, tasks: int) -> float:
    """Calls a second of so many calls, so many at once."""
    start = time.perf_counter()
    if tasks == 1:
        for number in range(count):
            await step(number)
    else:
        async with sdk.map(step, range(count), limit=tasks) as results:
            async for _ in results:
                pass
    return count / (time.perf_counter() - start)


async def ours(folder: Path, name: str, count: int, tasks: int, ends: bool = True) -> float:
    async with open_runtara(
        f"sqlite:///{folder}/{name}.db", instance_id="bench", tenant_id="bench"
    ) as sdk:
        rate = await work(sdk, count, tasks)
        if not ends:
            await sdk.suspended()
    return rate


async def without(url: str, name: str, count: int, tasks: int, history: Any) -> float:
    """Calls a second, with a history or without."""
    config = SdkConfig(store=url, history=history)
    async with open_runtara(config, instance_id=name, tenant_id="bench") as sdk:
        return await work(sdk, count, tasks)


def price(url: str, rounds: int = 5) -> dict[int, float]:
    """What the history leaves of the rate: the median of rounds that take turns."""
    ratios: dict[int, float] = {}
    for tasks in (1, 16):
        found = []
        for number in range(rounds):
            rates = {
                history: trio.run(
                    without, url, f"{tasks} {number} {history}", COUNTS[tasks], tasks, history
                )
                for history in (("none", "steps") if number % 2 else ("steps", "none"))
            }
            found.append(rates["steps"] / rates["none"])
        ratios[tasks] = statistics.median(found)
    return ratios


def dbos(folder: Path, name: str, mode: str, count: int, tasks: int) -> float:
    """The same of DBOS, in a process of its own."""
    program = (sys.executable, "-m", "bench.dbos_steps")
    done = subprocess.run(
        [*program, f"{folder}/{name}.db", mode, str(count), str(tasks)],
        stdout=subprocess.PIPE,
        check=True,
        timeout=600,
    )
    line = next(line for line in done.stdout.splitlines() if line.startswith(b"seconds"))
    return count / float(line.split()[1])


def measure(folder: Path, number: int) -> list[Steps]:
    """One round: what is compared runs in turns."""
    found = []
    for tasks, count in COUNTS.items():
        mine = trio.run(ours, folder, f"ours-{tasks}-{number}", count, tasks)
        theirs = dbos(folder, f"dbos-{tasks}-{number}", "fresh", DBOS_COUNTS[tasks], tasks)
        found.append(Steps(tasks, False, mine, theirs))
    for tasks in COUNTS:
        name = f"stored-{tasks}-{number}"
        trio.run(ours, folder, name, REPLAYED, tasks, False)
        if tasks == 1:
            dbos(folder, f"dbos-{name}", "stored", REPLAYED, 1)
        mine = trio.run(ours, folder, name, REPLAYED, tasks)
        recovered = None if tasks > 1 else dbos(folder, f"dbos-{name}", "recover", REPLAYED, 1)
        found.append(Steps(tasks, True, mine, recovered))
    return found


def page(rounds: list[list[Steps]], prices: dict[str, dict[int, float]]) -> str:
    """``docs/benchmarks-steps.md``."""
    rows = []
    for same in zip(*rounds, strict=True):
        ratios = [one.ours / one.dbos for one in same if one.dbos is not None]
        theirs = [one.dbos for one in same if one.dbos is not None]
        rows.append(
            (
                str(same[0].tasks),
                "replayed" if same[0].replayed else "fresh",
                f"{statistics.median(one.ours for one in same):,.0f}",
                f"{statistics.median(theirs):,.0f}" if theirs else "",
                f"{statistics.median(ratios):.1f}" if ratios else "",
            )
        )
    parts = [
        "# What durable calls cost",
        f"Measured on {date.today().isoformat()} with `nox -s bench_steps`: {machine()}, DBOS "
        f"{importlib.metadata.version('dbos')}. Medians of {len(rounds)} rounds, in which what "
        "is compared ran in turns.",
        "Calls of an async `@durable` function that returns 200 characters, one after the other "
        "and through `sdk.map` with so many at once; beside them DBOS's steps with the same "
        "result on a SQLite file, one after the other and in an `asyncio.gather` of so many. "
        f"*Replayed* is a run that finds {REPLAYED:,} stored results; of DBOS, the recovery of "
        "as many steps.",
        table(("at once", "calls", "calls/s", "DBOS steps/s", "ratio"), rows),
        'What is left of the rate with the [history](history.md), beside `history="none"`; '
        "medians of five rounds:",
        table(
            ("at once", *prices),
            [
                (str(tasks), *(f"{ratios[tasks]:.2f}" for ratios in prices.values()))
                for tasks in (1, 16)
            ],
        ),
    ]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    place = Path("build/bench")
    place.mkdir(parents=True, exist_ok=True)
    rounds = []
    for number in range(3):
        with tempfile.TemporaryDirectory(dir=place) as name:
            rounds.append(measure(Path(name).absolute(), number))
        print(rounds[-1], file=sys.stderr, flush=True)
    prices: dict[str, dict[int, float]] = {}
    with tempfile.TemporaryDirectory(dir=place) as name:
        prices["SQLite"] = price(f"sqlite:///{Path(name).absolute()}/price.db")
    from tests.helpers.postgres import running_postgres

    with running_postgres() as url:
        prices["PostgreSQL"] = price(url)
    text = page(rounds, prices)
    print(text)
    (Path(__file__).parent.parent / "docs" / "benchmarks-steps.md").write_text(text)


if __name__ == "__main__":
    main()
