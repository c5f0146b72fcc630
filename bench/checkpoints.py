"""Checkpoints a second, through the SDK and in plain sqlite3 on the same tables."""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path

import msgspec
import trio

from runtara_trio import RuntaraSdk, open_runtara

TASKS = (1, 16, 128)
PER_COMMIT = (1, 16, 64)
COUNTS = {1: 1_500, 16: 8_000, 64: 12_800, 128: 16_000}
"""How many checkpoints a measurement saves: half a second's work, more or less."""

READ = (
    "SELECT i.status, s.signal_type, c.state FROM instances i"
    " LEFT JOIN pending_signals s ON s.instance_id = i.instance_id"
    " LEFT JOIN checkpoints c ON c.instance_id = i.instance_id AND c.checkpoint_id = ?"
    " WHERE i.instance_id = ?"
)
INSERT = (
    "INSERT INTO checkpoints (instance_id, checkpoint_id, state, created_at) VALUES (?, ?, ?, ?)"
)
UPDATE = "UPDATE instances SET checkpoint_id = ? WHERE instance_id = ?"


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement: checkpoints a second, and ms a call where single calls were timed."""

    rate: float
    p50: float | None = None
    p99: float | None = None


def url(folder: Path) -> str:
    return f"sqlite:///{folder}/bench.db"


async def through_the_sdk(
    folder: Path, instance_id: str, tasks: int, size: int, count: int, *, saturated: bool = False
) -> Measured:
    """``tasks`` tasks of one instance, each saving one checkpoint after the other."""
    state = os.urandom(size)
    took: list[float] = []

    async def save(sdk: RuntaraSdk, task: int) -> None:
        for number in range(count // tasks):
            begin = time.perf_counter()
            await sdk.checkpoint(f"{task}/{number}", state)
            took.append(time.perf_counter() - begin)

    async with (
        open_runtara(url(folder), instance_id=instance_id, tenant_id="bench") as sdk,
        trio.open_nursery() as around,
    ):
        if saturated:
            around.start_soon(never_idle)
        begin = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for task in range(tasks):
                nursery.start_soon(save, sdk, task)
        seconds = time.perf_counter() - begin
        around.cancel_scope.cancel()
    took.sort()
    return Measured(
        rate=len(took) / seconds,
        p50=took[len(took) // 2] * 1000,
        p99=took[len(took) * 99 // 100] * 1000,
    )


async def never_idle() -> None:
    """A task that is always ready, and computes for 50 µs each time."""
    while True:
        until = time.perf_counter() + 50e-6
        while time.perf_counter() < until:
            pass
        await trio.lowlevel.checkpoint()


def in_plain_sqlite(
    folder: Path, instance_id: str, per_commit: int, tasks: int, size: int, count: int
) -> Measured:
    """The same reads and writes on one thread, ``per_commit`` in a transaction.

    The file was made by the SDK: the same tables, WAL and synchronous FULL. The ids are
    those that ``tasks`` tasks would save in turns.
    """
    state = os.urandom(size)
    db = sqlite3.connect(folder / "bench.db", isolation_level=None)
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA foreign_keys = ON")
    now = "2026-01-01 00:00:00"
    db.execute(
        "INSERT INTO instances (instance_id, tenant_id, status, created_at)"
        " VALUES (?, 'bench', 'running', ?)",
        (instance_id, now),
    )
    begin = time.perf_counter()
    for start in range(0, count, per_commit):
        db.execute("BEGIN IMMEDIATE")
        for number in range(start, start + per_commit):
            name = f"{number % tasks}/{number // tasks}"
            status, signal, found = db.execute(READ, (name, instance_id)).fetchone()
            if status == "running" and signal is None and found is None:
                db.execute(INSERT, (instance_id, name, state, now))
                db.execute(UPDATE, (name, instance_id))
        db.execute("COMMIT")
    seconds = time.perf_counter() - begin
    db.close()
    return Measured(rate=count / seconds)


async def replay(folder: Path, stored: int, tasks: int) -> Measured:
    """A run that finds every one of ``stored`` checkpoints; those are saved first."""
    instance_id = f"replay-{tasks}"

    async def ask(sdk: RuntaraSdk, task: int) -> None:
        for number in range(task, stored, tasks):
            await sdk.checkpoint(f"step/{number}", b"x" * 200)

    seconds = 0.0
    for _ in range(2):
        async with open_runtara(url(folder), instance_id=instance_id, tenant_id="bench") as sdk:
            begin = time.perf_counter()
            async with trio.open_nursery() as nursery:
                for task in range(tasks):
                    nursery.start_soon(ask, sdk, task)
            seconds = time.perf_counter() - begin
            await sdk.suspended()
    return Measured(rate=stored / seconds)


def disk(folder: Path) -> Measured:
    """Appends of 4 KB, each with an fdatasync: what the disk can do at best."""
    file = os.open(folder / "disk", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    took = []
    for _ in range(1000):
        begin = time.perf_counter()
        os.write(file, b"x" * 4096)
        os.fdatasync(file)
        took.append(time.perf_counter() - begin)
    os.close(file)
    took.sort()
    return Measured(rate=1000 / sum(took), p50=took[500] * 1000, p99=took[990] * 1000)
