"""Stock parts: a runtara-core 1.4.1 and a program on the Rust SDK 1.4.1, built from their
published crates.

``nox -s interop`` builds them and says where they are; elsewhere these are skipped. (What
every backend does runs against the core by ``--core``, which that session gives.)
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from runtara_trio import InstanceStatus, Operator, Outcome, StoreError, open_backend
from runtara_trio.messages import GetCheckpoint
from tests.helpers.places import (
    CORES,
    HTTP_CORES,
    SERVED_HTTP,
    Place,
    client,
    core_place,
    free_port,
    http_core_place,
    running_core,
    served_http_place,
    served_place,
)
from tests.helpers.support import Program, block, start, start_args

RUST = os.environ.get("INTEROP_RUST", "")
EXAMPLES = Path(__file__).parents[2] / "examples"

pytestmark = pytest.mark.skipif(not RUST, reason="nox -s interop builds what this needs")


@asynccontextmanager
async def rust(place: Place | str, program: str, *arguments: object) -> AsyncIterator[Program]:
    """A program on the stock SDK, against a server."""
    url = place if isinstance(place, str) else place.url
    process = await trio.lowlevel.open_process(
        [RUST, program, url.removeprefix("quic://"), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        yield Program(process)
    finally:
        if process.poll() is None:
            process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            assert process.stdout is not None
            await process.stdout.aclose()


def opening(kind: str, folder: Path):  # type: ignore[no-untyped-def]
    if kind == SERVED_HTTP:
        return served_http_place()
    if kind in HTTP_CORES:
        if "INTEROP_CORE_1_6" not in os.environ:
            pytest.skip("runtara-core 1.6 could not be built")
        return http_core_place(kind, folder)
    return served_place() if kind == "served" else core_place(kind, folder)


# ---- the stock SDK against our server


async def test_every_verb_answers_as_the_cores_does(tmp_path: Path) -> None:
    said = {}
    for kind in ("served", "sqlite"):
        async with opening(kind, tmp_path) as place, rust(place, "verbs", "i") as program:
            assert await program.wait() == 0, program.lines
            said[kind] = program.lines
    assert said["served"] == said["sqlite"]
    assert len(said["served"]) > 20
    assert "cancelled: status=Cancelled" in said["served"]


async def test_the_durable_attribute(tmp_path: Path) -> None:
    async with served_place() as place:
        async with rust(place, "durable", "i", 20) as program:
            assert await program.wait() == 0
            assert program.lines == ["retried Ok(2)", "sum 380 runs 20"]
        async with rust(place, "durable", "i", 20) as program:
            await program.wait()
            assert program.lines == ["retried Ok(2)", "sum 380 runs 0"]
        stored = (await place.operator.checkpoints("i", prefix="durable::third_time")).checkpoints
        assert {one.checkpoint_id for one in stored} >= {"durable::third_time::once"}


@pytest.mark.parametrize(
    ("verb", "last", "status"),
    [
        ("cancel", "cancelled", InstanceStatus.CANCELLED),
        ("pause", "suspended", InstanceStatus.SUSPENDED),
    ],
)
async def test_signals_reach_the_stock_sdk(verb: str, last: str, status: InstanceStatus) -> None:
    async with served_place() as place, rust(place, "steps", "i", 10_000) as program:
        await program.line("step 3")
        await getattr(place.operator, verb)("i")
        assert await program.wait() == 0
        assert program.lines[-1] == last
        summary = (await place.operator.show("i")).summary
        assert (summary.status, summary.signal) == (status, None)


async def test_a_custom_signal_reaches_the_stock_sdk() -> None:
    async with served_place() as place, rust(place, "steps", "i", 10_000) as program:
        await program.line("registered")
        await place.operator.send_signal("i", "step-20", b"hello")
        assert await program.line("custom") == 'custom step-20 "hello"'


async def test_the_stock_sdk_goes_on_over_a_restarted_server(tmp_path: Path) -> None:
    store, port = f"sqlite:///{tmp_path}/served.db", free_port()
    arguments = ("-m", "runtara_trio", "serve", "--store", store, "--port", str(port))
    async with start_args(*arguments) as first:
        await first.line("serving")
        async with rust(f"127.0.0.1:{port}", "steps", "i", 400) as program:
            await program.line("step 3")
            first.send(signal.SIGTERM)
            assert await first.wait() == 0
            async with start_args(*arguments) as second:
                await second.line("serving")
                with trio.fail_after(60):
                    assert await program.wait() == 0
                assert program.lines[-1] == "completed"
    steps = [line for line in program.lines if line.startswith("step ")]
    assert len(steps) == 400


async def test_the_stock_sdk_under_load_sees_no_error() -> None:
    async with (
        served_place() as place,
        rust(place, "load", "l", "checkpoint", 200, 2, 64, 64) as program,
    ):
        assert await program.wait() == 0
        assert '"errors":0' in program.lines[-1]


# ---- the examples through our client


@pytest.mark.parametrize("kind", ["served", *CORES, SERVED_HTTP, *HTTP_CORES])
async def test_examples_against_a_server(kind: str, tmp_path: Path) -> None:
    async with opening(kind, tmp_path) as place:

        def example(name: str, store: str) -> Path:
            text = (EXAMPLES / name).read_text()
            assert store in text
            path = tmp_path / name
            path.write_text(text.replace(store, place.url))
            return path

        path = example("smallest.py", "sqlite:///smallest.db")
        async with start(path) as program:
            await program.line("saved 3")
            await program.kill()
        async with start(path) as program:
            assert await program.wait() == 0
            assert program.lines[:3] == ["found 1", "found 2", "found 3"]
            assert program.lines[-1] == "completed"
        path = example("durable_sleep.py", "sqlite:///tea.db")
        async with start(path, "1.5") as program:
            await program.line("poured")
            sleeps = GetCheckpoint(instance_id="tea", checkpoint_id="drawing")
            while not (await place.backend.request(sleeps)).found:
                await trio.sleep(0.01)
            await program.kill()
        async with start(path, "3600") as program:
            assert await program.wait() == 0
            assert program.lines[-1].startswith("ready, ")
        path = example("pause_and_cancel.py", "sqlite:///report.db")
        async with start(path) as program:
            await program.line("begun 2")
            await place.operator.pause("report")
            assert await program.wait() == 0
            assert program.lines[-1] == "paused"
        async with start(path) as program:
            assert await program.line() == "begun 3"
            await place.operator.cancel("report")
            assert await program.wait() == 0
            assert program.lines[-1] == "cancelled"


# ---- growing from the file to the server


async def test_a_program_moves_from_the_file_to_a_core(tmp_path: Path) -> None:
    path = tmp_path / "orders.db"
    with trio.move_on_after(0.3):
        async with block(f"sqlite:///{path}") as sdk:
            await sdk.checkpoint("a", b"embedded")
            await sdk.sleep(1, "nap")
    assert sdk.outcome is Outcome.STOPPED
    port = free_port()
    async with running_core(f"sqlite://{path}", port), client(f"127.0.0.1:{port}") as backend:
        async with block(backend) as sdk:
            assert await sdk.get_checkpoint("a") == b"embedded"
            with trio.fail_after(10):
                await sdk.sleep(3600, "nap")  # the wake time of the file stands
            await sdk.checkpoint("b", b"over quic")
            with pytest.raises(StoreError, match="stop that server first"):
                async with block(f"sqlite:///{path}", "other"):
                    pass
            await sdk.suspended()
    async with open_backend(f"sqlite:///{path}") as store:
        details = await Operator(store).show("i")
        assert details.summary.status is InstanceStatus.SUSPENDED
        assert details.checkpoints == 4  # a, the nap, its wake time, b


async def test_operators_leave_a_cores_database_as_it_is(tmp_path: Path) -> None:
    async with core_place("sqlite", tmp_path) as place:
        async with block(place.backend) as sdk:
            before = _shape(tmp_path / "core.db")
            async with open_backend(f"sqlite:///{tmp_path}/core.db") as store:
                operator = Operator(store)
                await operator.list()
                await operator.show("i")
                await operator.pause("i")
                await operator.resume("i")
            await sdk.checkpoint("a")
        assert _shape(tmp_path / "core.db") == before


def _shape(path: Path) -> list[object]:
    import sqlite3

    db = sqlite3.connect(path)
    tables = db.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall()
    mode = db.execute("PRAGMA journal_mode").fetchall()
    db.close()
    return [tables, mode]
