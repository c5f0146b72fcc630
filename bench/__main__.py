"""``python -m bench``: measure, print, and write ``docs/benchmarks.md``."""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path

import msgspec
import trio

from . import checkpoints, idle, report, starting
from .checkpoints import PER_COMMIT, TASKS, Measured

DOCS = Path(__file__).parent.parent / "docs"


def measure_checkpoints(folder: Path, size: int, rounds: int) -> list[report.Rate]:
    """The SDK and plain sqlite3 in turns, on a new file each round."""
    ours: dict[int, list[Measured]] = {tasks: [] for tasks in TASKS}
    plain: dict[int, list[Measured]] = {per: [] for per in PER_COMMIT}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(dir=folder) as name:
            place = Path(name)
            for tasks, per in zip(TASKS, PER_COMMIT, strict=True):
                count = checkpoints.COUNTS[tasks]
                ours[tasks].append(
                    trio.run(checkpoints.through_the_sdk, place, f"o{tasks}", tasks, size, count)
                )
                count = checkpoints.COUNTS[per]
                plain[per].append(
                    checkpoints.in_plain_sqlite(place, f"p{per}", per, tasks, size, count)
                )
        progress()
    return [
        report.Rate(
            tasks=tasks,
            size=size,
            ours=middle(ours[tasks]),
            per_commit=per,
            plain=middle(plain[per]),
            ratio=statistics.median(
                a.rate / b.rate for a, b in zip(ours[tasks], plain[per], strict=True)
            ),
        )
        for tasks, per in zip(TASKS, PER_COMMIT, strict=True)
    ]


def measure_saturated(folder: Path, rounds: int) -> list[tuple[int, Measured]]:
    """Beside a Trio loop that never idles."""
    found: dict[int, list[Measured]] = {1: [], 16: []}
    for number in range(rounds):
        for tasks, count in ((1, 500), (16, 4_000)):
            measured = trio.run(
                lambda name, tasks, count: checkpoints.through_the_sdk(
                    folder, name, tasks, 200, count, saturated=True
                ),
                f"saturated-{tasks}-{number}",
                tasks,
                count,
            )
            found[tasks].append(measured)
        progress()
    return [(tasks, middle(measured)) for tasks, measured in found.items()]


def measure_idle(folder: Path, number: int) -> idle.Idle:
    with tempfile.TemporaryDirectory(dir=folder) as name:
        done = subprocess.run(
            [sys.executable, "-m", "bench.idle", name, str(number)],
            stdout=subprocess.PIPE,
            check=True,
        )
    progress()
    return msgspec.json.decode(done.stdout, type=idle.Idle)


def middle(measured: list[Measured]) -> Measured:
    """The measurement in the middle, by its rate."""
    return sorted(measured, key=lambda one: one.rate)[len(measured) // 2]


def progress() -> None:
    print(".", end="", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench", description="Measure what a checkpoint costs.")
    parser.add_argument("--folder", type=Path, default=Path("build/bench"), help="on a real disk")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, printed only")
    parser.add_argument("--plot", action="store_true", help="draw docs/benchmarks.svg as well")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    rounds = 2 if options.quick else 9
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        results = report.Results(
            day=date.today().isoformat(),
            machine=report.machine(),
            disk=checkpoints.disk(folder),
            rates=[
                rate for size in (200, 4096) for rate in measure_checkpoints(folder, size, rounds)
            ],
            saturated=measure_saturated(folder, rounds),
            replay=[
                (tasks, trio.run(checkpoints.replay, folder, 10_000, tasks)) for tasks in (1, 16)
            ],
            idle=[measure_idle(folder, number) for number in (1_000, 10_000)],
            starts=starting.measure(folder, rounds * 3),
        )
    print(file=sys.stderr)
    page = report.page(results, plotted=options.plot)
    print(page)
    if not options.quick:
        (DOCS / "benchmarks.md").write_text(page)
    if options.plot:
        report.plot(results, DOCS / "benchmarks.svg")


if __name__ == "__main__":
    main()
