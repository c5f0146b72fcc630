"""Calls over HTTP: our client and the stock Rust SDK 1.6.4, against a stock core and our server.

``nox -s bench_http`` builds the stock parts, runs this and writes ``docs/benchmarks-http.md``. The
clients take turns, each in a process of its own; a figure is the median of the rounds, a ratio that
of the rounds' ratios.
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

import h11
import msgspec
import trio

from runtara_trio import SdkConfig, open_backend
from runtara_trio.messages import Checkpoint, PollSignals, Register

from .loads import Load, cpu, load, started, told
from .report import table

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks-http.md"
TASKS = (1, 16, 64)
CORE, RUST = os.environ.get("INTEROP_CORE_1_6", ""), os.environ.get("INTEROP_RUST_1_6", "")
POSTGRES = os.environ.get("INTEROP_POSTGRES", "")
STATE = b"x" * 200


# ---- the clients: each a process of its own


async def run_ours(url: str, name: str, call: str, seconds: float, tasks: int) -> Load:
    """``tasks`` tasks, each with an instance of its own, make one call after the other."""
    times: list[float] = []
    config = SdkConfig(store=url, heartbeat_interval_ms=0, signal_poll_interval_ms=3_600_000)

    async with open_backend(config) as backend:

        async def work(task: int) -> None:
            instance, number = f"{name}-{task}", 0
            while (begin := time.perf_counter()) < until:
                if call == "checkpoint":
                    await backend.request(
                        Checkpoint(
                            instance_id=instance, lease=0, checkpoint_id=f"{number}", state=STATE
                        )
                    )
                else:
                    await backend.request(PollSignals(instance_id=instance))
                number += 1
                times.append(time.perf_counter() - begin)

        for task in range(tasks):
            await backend.request(Register(instance_id=f"{name}-{task}", tenant_id="bench"))
        used, begin = cpu(), time.perf_counter()
        until = begin + seconds
        async with trio.open_nursery() as nursery:
            for task in range(tasks):
                nursery.start_soon(work, task)
        return told(times, time.perf_counter() - begin, cpu() - used)


async def run_h11(url: str, name: str, call: str, seconds: float, tasks: int) -> Load:
    """The same questions on a connection a task, with h11 on Trio's streams."""
    assert call == "signals"
    times: list[float] = []
    host, _, port = url.removeprefix("http://").partition(":")
    until = time.perf_counter() + seconds

    async def work(task: int) -> None:
        stream = await trio.open_tcp_stream(host, int(port))
        connection = h11.Connection(h11.CLIENT)
        target = f"/api/v1/instances/{name}-{task}/signals"
        async with stream:
            while (begin := time.perf_counter()) < until:
                asked = h11.Request(method="GET", target=target, headers=[("Host", host)])
                data = connection.send(asked) or b""
                await stream.send_all(data + (connection.send(h11.EndOfMessage()) or b""))
                while not isinstance(event := connection.next_event(), h11.EndOfMessage):
                    if event is h11.NEED_DATA:
                        connection.receive_data(await stream.receive_some())
                connection.start_next_cycle()
                times.append(time.perf_counter() - begin)

    used, begin = cpu(), time.perf_counter()
    async with trio.open_nursery() as nursery:
        for task in range(tasks):
            nursery.start_soon(work, task)
    return told(times, time.perf_counter() - begin, cpu() - used)


CLIENTS = {"ours": run_ours, "h11": run_h11}


def run(client: str, url: str, name: str, call: str, seconds: float, tasks: int) -> Load:
    if client == "rust":
        return load([RUST, "load", url], name, call, len(STATE), seconds, tasks)
    command = [sys.executable, "-m", "bench.http", "--client", client, url]
    return load(command, name, call, seconds, tasks)


# ---- the servers


@contextlib.contextmanager
def server(kind: str, folder: Path) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    path = tempfile.mkdtemp(dir=folder)
    databases = {
        "core, SQLite": f"sqlite://{path}/core.db?mode=rwc",
        "core, PostgreSQL": POSTGRES,
        "ours, SQLite": f"sqlite:///{path}/ours.db",
        "ours, PostgreSQL": POSTGRES,
        "ours, :memory:": ":memory:",
    }
    environment = {
        **os.environ,
        "RUNTARA_HTTP_PORT": str(port),
        "RUNTARA_DATABASE_URL": databases[kind],
    }
    serve = ("-u", "-m", "runtara_trio", "serve", "--no-quic", "--http-port", str(port))
    ours = [sys.executable, *serve, "--store", databases[kind]]
    command, ready = ([CORE], b"ready") if kind.startswith("core") else (ours, b"serving")
    with started(command, ready, Path(path) / "log", environment):
        url = f"http://127.0.0.1:{port}"
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.02)
        yield url


# ---- the measurements


class Turns:
    """Several (server, client) in turns."""

    def __init__(self, folder: Path, rounds: int, seconds: float) -> None:
        self._folder = folder
        self._rounds = rounds
        self._seconds = seconds

    def measure(
        self, sides: list[tuple[str, str]], call: str, tasks: int
    ) -> tuple[list[Load], list[float]]:
        """The middle of each, and the median ratio of each to the last one."""
        rounds: list[list[Load]] = []
        with contextlib.ExitStack() as stack:
            urls = {
                kind: stack.enter_context(server(kind, self._folder))
                for kind in dict.fromkeys(kind for kind, _ in sides)
            }
            for number in range(self._rounds):
                name = f"{time.time_ns()}-{number}"
                rounds.append(
                    [
                        run(client, urls[kind], f"{client}-{name}", call, self._seconds, tasks)
                        for kind, client in sides
                    ]
                )
        middle = [
            sorted(one, key=lambda load: load.rate)[self._rounds // 2]
            for one in zip(*rounds, strict=True)
        ]
        ratios = [
            statistics.median(one[side].rate / one[-1].rate for one in rounds)
            for side in range(len(sides))
        ]
        return middle, ratios


def _clients(turns: Turns, call: str, kinds: list[str], clients: list[str]) -> str:
    """Clients side by side; ratios to the Rust SDK."""
    rows = []
    for kind in kinds:
        for tasks in TASKS:
            found, ratios = turns.measure([(kind, one) for one in clients], call, tasks)
            cells = [f"{one.rate:,.0f}{one.lost}" for one in found]
            mine = found[0]
            rows.append(
                (
                    *(kind, str(tasks)),
                    *cells,
                    *(f"{ratios[0]:.2f}", f"{mine.p50_ms:.2f}", f"{mine.p99_ms:.2f}"),
                    f"{mine.cpu_us:.0f}",
                )
            )
            print(call, *rows[-1], sep="  ", file=sys.stderr, flush=True)
    titles = ("server", "tasks", *clients, "ours to Rust", "p50 ms", "p99 ms", "CPU µs")
    return table(titles, rows)


def _servers(turns: Turns, kinds: list[str]) -> str:
    """Servers under the Rust SDK; ratios to a core on SQLite."""
    rows = []
    for tasks in TASKS:
        found, ratios = turns.measure([(kind, "rust") for kind in kinds], "checkpoint", tasks)
        for kind, one, ratio in zip(kinds, found, ratios, strict=True):
            rows.append(
                (
                    *(kind, str(tasks), f"{one.rate:,.0f}", f"{one.p50_ms:.2f}"),
                    *(f"{one.p99_ms:.2f}", f"{one.errors / one.calls:.0%}", f"{ratio:.1f}"),
                )
            )
            print(*rows[-1], sep="  ", file=sys.stderr, flush=True)
    titles = ("server", "threads", "checkpoints/s", "p50 ms", "p99 ms", "errors", "times the core")
    return table(titles, rows)


def measure(folder: Path, rounds: int, seconds: float) -> str:
    turns = Turns(folder, rounds, seconds)
    cores = ["core, SQLite", *(["core, PostgreSQL"] if POSTGRES else [])]
    stores = ["ours, SQLite", "ours, :memory:", *(["ours, PostgreSQL"] if POSTGRES else [])]
    return "\n\n".join(
        [
            "# What HTTP costs",
            f"Measured on {date.today().isoformat()} with `nox -s bench_http`: {os.cpu_count()} "
            f"cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}, "
            "client, server and database on the same machine. States have 200 bytes; each task, or "
            "thread of the Rust SDK, has an instance of its own and makes one call after the "
            f"other. Turns of {seconds:g} s; figures are medians of {rounds} rounds, and ratios "
            "those of the rounds' ratios. Calls a second are those that ended well.",
            "## `GET /signals` on a stock core 1.6.4",
            _clients(turns, "signals", cores[:1], ["ours", "h11", "rust"]),
            "## Checkpoints on a stock core 1.6.4",
            _clients(turns, "checkpoint", cores, ["ours", "rust"]),
            "## Our server under the stock Rust SDK 1.6.4",
            _servers(turns, [*stores, "core, SQLite"]),
        ]
    )


def main() -> None:
    if sys.argv[1:2] == ["--client"]:
        client, url, name, call, seconds, tasks = sys.argv[2:]
        found = trio.run(CLIENTS[client], url, name, call, float(seconds), int(tasks))
        print(msgspec.json.encode(found).decode())
        return
    parser = argparse.ArgumentParser(prog="bench.http", description="Measure calls over HTTP.")
    parser.add_argument("--folder", type=Path, default=Path("build/bench"), help="on a real disk")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each client")
    parser.add_argument("--quick", action="store_true", help="one round, printed only")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        page = measure(Path(folder), 1 if options.quick else options.rounds, 0.7) + "\n"
    print(file=sys.stderr)
    print(page)
    if not options.quick:
        PAGE.write_text(page)


if __name__ == "__main__":
    main()
