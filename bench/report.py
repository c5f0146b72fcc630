"""The results as a page of the documentation, and as a plot."""

from __future__ import annotations

import os
import platform
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import msgspec
import trio

from .checkpoints import Measured
from .idle import Idle
from .starting import Start


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """The SDK with so many tasks, beside plain sqlite3 with so many a commit."""

    tasks: int
    size: int
    ours: Measured
    per_commit: int
    plain: Measured
    ratio: float


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """All that one run of the bench found."""

    day: str
    machine: str
    disk: Measured
    rates: list[Rate]
    saturated: list[tuple[int, Measured]]
    replay: list[tuple[int, Measured]]
    idle: list[Idle]
    starts: list[Start]


def machine() -> str:
    """What this was measured on."""
    return (
        f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, "
        f"Python {platform.python_version()}, Trio {trio.__version__}, "
        f"SQLite {sqlite3.sqlite_version}"
    )


def page(results: Results, *, plotted: bool) -> str:
    """``docs/benchmarks.md``."""
    disk = results.disk
    parts = [
        "# What it costs",
        f"Measured on {results.day} with `nox -s bench`: {results.machine}. The disk takes "
        f"{disk.rate:,.0f} appends of 4 KB a second, each with its own fdatasync "
        f"(p50 {disk.p50:.2f} ms, p99 {disk.p99:.2f} ms). Every figure of a table comes from "
        "one run; what is compared ran in turns, and ratios are medians of the rounds.",
        "## Checkpoints",
        "One instance, each task saving one checkpoint after the other; every one is on disk "
        "before its call returns. Beside it the same reads and writes in plain `sqlite3` on "
        "one thread, on the same tables, with so many in a transaction: nobody awaits them, "
        "and none is on disk before all are.",
        table(
            ("tasks", "state", "checkpoints/s", "p50 ms", "p99 ms", "plain sqlite3", "ratio"),
            [
                (
                    str(rate.tasks),
                    f"{rate.size} B",
                    f"{rate.ours.rate:,.0f}",
                    f"{rate.ours.p50:.2f}",
                    f"{rate.ours.p99:.2f}",
                    f"{rate.plain.rate:,.0f} ({rate.per_commit} a commit)",
                    f"{rate.ratio:.2f}",
                )
                for rate in results.rates
            ],
        ),
        *(["![Checkpoints a second](benchmarks.svg)"] if plotted else []),
        "Beside a task that is always ready and computes for 50 µs at a time, so that the "
        "Trio loop never idles (200 B):",
        table(
            ("tasks", "checkpoints/s", "p50 ms", "p99 ms"),
            [
                (str(tasks), f"{one.rate:,.0f}", f"{one.p50:.2f}", f"{one.p99:.2f}")
                for tasks, one in results.saturated
            ],
        ),
        "A run that finds 10,000 stored checkpoints of 200 B, as one that starts again does:",
        table(
            ("tasks", "checkpoints/s", "ms for all"),
            [
                (str(tasks), f"{one.rate:,.0f}", f"{10_000_000 / one.rate:,.0f}")
                for tasks, one in results.replay
            ],
        ),
        "## Instances that wait",
        "All in one process on one backend, each in a `sleep`. Memory is the growth of the "
        "process with the task that waits; CPU is of one core.",
        table(
            ("instances", "open all", "close all", "memory each", "CPU", "statements/s"),
            [
                (
                    f"{one.number:,}",
                    f"{one.open_seconds:.2f} s",
                    f"{one.close_seconds:.2f} s",
                    f"{one.kilobytes_each:.1f} KB",
                    f"{one.cpu_percent:.1f} %",
                    f"{one.statements_a_second:.0f}",
                )
                for one in results.idle
            ],
        ),
        "## Starting",
        "From the start of a process to its first line, as another process sees it.",
        table(
            ("program", "ms", "more than the base", "times the base"),
            [
                (
                    f"`{one.what}`" if one.what.startswith("import") else one.what,
                    f"{one.milliseconds:.0f}",
                    f"{one.over_base:+.0f} ms",
                    f"{one.ratio:.2f}",
                )
                for one in results.starts
            ],
        ),
        "The base is `import trio, msgspec, sqlite3`.",
    ]
    return "\n\n".join(parts) + "\n"


def table(titles: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A table in Markdown."""
    lines = [titles, ("---",) * len(titles), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def plot(results: Results, path: Path) -> None:
    """Checkpoints a second: the SDK, and plain sqlite3 beside it."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "runtara-trio"  # the same picture for the same figures
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
    for axis, size in zip(axes, (200, 4096), strict=True):
        rates = [rate for rate in results.rates if rate.size == size]
        places = range(len(rates))
        ours = axis.bar(
            [place - 0.2 for place in places],
            [rate.ours.rate for rate in rates],
            0.38,
            color="#2f6f8f",
            label="runtara-trio, awaited",
        )
        axis.bar(
            [place + 0.2 for place in places],
            [rate.plain.rate for rate in rates],
            0.38,
            color="#c9c2b4",
            label="plain sqlite3, batched by hand",
        )
        axis.bar_label(ours, [f"{rate.ratio:.0%}" for rate in rates], padding=2, fontsize=9)
        axis.set_xticks(
            places,
            [
                f"{rate.tasks} task{'s' * (rate.tasks > 1)}\n{rate.per_commit} a commit"
                for rate in rates
            ],
        )
        axis.set_title(f"{size:,} bytes", fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes[0].set_ylabel("checkpoints a second")
    axes[0].legend(frameon=False, loc="upper left")
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
