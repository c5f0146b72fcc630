"""Calls over QUIC: our client and the stock Rust SDK, against a stock core and our server.

``nox -s bench_quic`` builds the stock parts, runs this and writes ``docs/benchmarks-quic.md``.
The clients take turns, each in a process of its own; a ratio is the median of the rounds'.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import msgspec
import trio

from runtara_trio import RuntaraSdk, SdkConfig, open_runtara

from .loads import Load, cpu, load, started, told
from .report import table

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks-quic.md"
TASKS = (1, 16, 64, 256)
SIZES = (200, 4096)
LARGE = 60_000_000
CORE, RUST = os.environ.get("INTEROP_CORE", ""), os.environ.get("INTEROP_RUST", "")
POSTGRES = os.environ.get("INTEROP_POSTGRES", "")


# ---- the client: a process of its own


async def run_client(
    port: int, name: str, call: str, size: int, seconds: float, tasks: int
) -> Load:
    """``tasks`` tasks of one instance, each making one call after the other."""
    state = b"x" * size
    times: list[float] = []
    config = SdkConfig(server_addr=f"127.0.0.1:{port}", heartbeat_interval_ms=0)

    async def work(sdk: RuntaraSdk, task: int) -> None:
        number = 0
        while (begin := time.perf_counter()) < until:
            if call == "checkpoint":
                await sdk.checkpoint(f"{os.getpid()}-{task}-{number}", state)
            else:
                assert await sdk.get_checkpoint("stored") is not None
            number += 1
            times.append(time.perf_counter() - begin)

    async with open_runtara(config, instance_id=name, tenant_id="bench", revive=True) as sdk:
        await sdk.checkpoint("stored", state)
        used = cpu()
        begin = time.perf_counter()
        until = begin + seconds
        async with trio.open_nursery() as nursery:
            for task in range(tasks):
                nursery.start_soon(work, sdk, task)
        elapsed = time.perf_counter() - begin
        used = cpu() - used
    return told(times, elapsed, used)


def ours(port: int, *arguments: object) -> Load:
    return load([sys.executable, "-m", "bench.quic", "--client", str(port)], *arguments)


def rust(port: int, *arguments: object) -> Load:
    return load([RUST, "load", f"127.0.0.1:{port}"], *arguments)


# ---- the servers


@contextlib.contextmanager
def server(kind: str, folder: Path) -> Iterator[int]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    path = tempfile.mkdtemp(dir=folder)
    commands = {
        "core, SQLite": ([CORE], f"sqlite://{path}/core.db?mode=rwc", b"server starting"),
        "core, PostgreSQL": ([CORE], POSTGRES, b"server starting"),
        "ours, SQLite": (_serve(f"sqlite:///{path}/ours.db", port), "", b"certificate"),
        "ours, :memory:": (_serve(":memory:", port), "", b"certificate"),
    }
    command, database, ready = commands[kind]
    environment = {**os.environ, "RUNTARA_QUIC_PORT": str(port)}
    if database:
        environment["RUNTARA_DATABASE_URL"] = database
    with started(command, ready, Path(path) / "log", environment):
        yield port


def _serve(store: str, port: int) -> list[str]:
    return [
        *(sys.executable, "-u", "-m", "runtara_trio", "serve"),
        *("--store", store, "--port", str(port)),
    ]


# ---- the measurements


def in_turns(
    port: int, name: str, call: str, size: int, tasks: int, rounds: int, seconds: float
) -> tuple[Load, Load, float]:
    """Our client and the Rust SDK: the middle of each, and the median ratio."""
    pairs = []
    for number in range(rounds):
        arguments = (f"{name}{number}", call, size, seconds, tasks)
        pairs.append((ours(port, *arguments), rust(port, *arguments, 1)))
    middle = [
        sorted(side, key=lambda one: one.rate)[rounds // 2] for side in zip(*pairs, strict=True)
    ]
    return middle[0], middle[1], statistics.median(a.rate / b.rate for a, b in pairs)


def measure(folder: Path, rounds: int, seconds: float) -> str:
    parts = [
        "# What QUIC costs",
        f"Measured on {date.today().isoformat()} with `nox -s bench_quic`: {os.cpu_count()} cores, "
        f"{platform.system()} {platform.machine()}, Python {platform.python_version()}, client and "
        "server on the same machine. One connection and one instance, so many tasks; each makes "
        "one call after the other through the whole SDK. Beside it the stock Rust SDK 1.4.1 "
        f"against the same server, in turns of {seconds:g} s; ratios are medians of {rounds} "
        "rounds. CPU is the client's, a call.",
    ]
    kinds = [
        kind
        for kind, there in (
            ("core, SQLite", CORE),
            ("core, PostgreSQL", CORE and POSTGRES),
            ("ours, SQLite", True),
            ("ours, :memory:", True),
        )
        if there
    ]
    titles = (
        "server",
        "state",
        "tasks",
        "calls/s",
        "p50 ms",
        "p99 ms",
        "CPU µs",
        "Rust SDK",
        "ratio",
    )
    for call in ("get_checkpoint", "checkpoint"):
        rows = []
        for kind in kinds:
            for size in SIZES:
                with server(kind, folder) as port:
                    for tasks in TASKS:
                        mine, other, ratio = in_turns(
                            port, f"{call}{size}{tasks}", call, size, tasks, rounds, seconds
                        )
                        rows.append(_row(kind, f"{size} B", tasks, mine, other, ratio))
                        print(call, *rows[-1], sep="  ", file=sys.stderr, flush=True)
        parts += [f"## `{call}`", table(titles, rows)]
    parts += [
        "## The Rust SDK, with a connection an instance",
        _with_instances(folder, rounds, seconds),
    ]
    parts += ["## One state of 60 MB", _large(folder, kinds)]
    return "\n\n".join(parts) + "\n"


def _row(
    kind: str, size: str, tasks: int, mine: Load, other: Load, ratio: float
) -> tuple[str, ...]:
    return (
        kind,
        size,
        str(tasks),
        f"{mine.rate:,.0f}",
        f"{mine.p50_ms:.2f}",
        f"{mine.p99_ms:.2f}",
        f"{mine.cpu_us:.0f}",
        f"{other.rate:,.0f}{other.lost}",
        f"{ratio:.2f}",
    )


def _with_instances(folder: Path, rounds: int, seconds: float) -> str:
    rows: list[tuple[str, ...]] = []
    for instances in (1, 64):
        found: dict[str, list[Load]] = {}
        for number in range(rounds):
            for kind in ("core, SQLite", "ours, SQLite", "ours, :memory:"):
                if kind.startswith("core") and not CORE:
                    continue
                with server(kind, folder) as port:
                    found.setdefault(kind, []).append(
                        rust(port, f"n{number}", "checkpoint", 200, seconds, instances, instances)
                    )
        base = [one.rate for one in found.get("core, SQLite", [])]
        for kind, loads in found.items():
            middle = sorted(loads, key=lambda one: one.rate)[rounds // 2]
            ratio = (
                statistics.median(a.rate / b for a, b in zip(loads, base, strict=True))
                if base
                else 0
            )
            rows.append(
                (
                    kind,
                    str(instances),
                    f"{middle.rate:,.0f}",
                    f"{middle.p50_ms:.2f}",
                    f"{middle.p99_ms:.2f}",
                    f"{middle.errors / middle.calls:.0%}",
                    f"{ratio:.1f}",
                )
            )
        print(".", end="", file=sys.stderr, flush=True)
    return table(
        ("server", "instances", "checkpoints/s", "p50 ms", "p99 ms", "errors", "times the core"),
        rows,
    )


def _large(folder: Path, kinds: list[str]) -> str:
    rows = []
    for kind in kinds:
        with server(kind, folder) as port:
            rows.append(
                (kind, *(f"{LARGE / 1e6 / one:.0f} MB/s" for one in trio.run(_up_and_down, port)))
            )
        print(".", end="", file=sys.stderr, flush=True)
    return table(("server", "up", "down"), rows)


async def _up_and_down(port: int) -> tuple[float, float]:
    config = SdkConfig(server_addr=f"127.0.0.1:{port}", request_timeout_ms=120_000)
    name = f"large-{os.getpid()}-{time.time()}"  # a core's PostgreSQL keeps what it has
    async with open_runtara(config, instance_id=name, tenant_id="bench") as sdk:
        begin = time.perf_counter()
        await sdk.checkpoint("large", bytes(LARGE))
        up = time.perf_counter()
        assert len(await sdk.get_checkpoint("large") or b"") == LARGE
        return up - begin, time.perf_counter() - up


def main() -> None:
    if sys.argv[1:2] == ["--client"]:
        port, name, call, size, seconds, tasks = sys.argv[2:]
        found = trio.run(run_client, int(port), name, call, int(size), float(seconds), int(tasks))
        print(msgspec.json.encode(found).decode())
        return
    parser = argparse.ArgumentParser(prog="bench.quic", description="Measure calls over QUIC.")
    parser.add_argument("--folder", type=Path, default=Path("build/bench"), help="on a real disk")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each client")
    parser.add_argument("--quick", action="store_true", help="one round, printed only")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        page = measure(Path(folder), 1 if options.quick else options.rounds, 0.5)
    print(file=sys.stderr)
    print(page)
    if not options.quick:
        PAGE.write_text(page)


if __name__ == "__main__":
    main()
