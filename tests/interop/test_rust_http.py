"""A program on the stock Rust SDK 1.6.4, over HTTP: what a server looks like to it."""

from __future__ import annotations

import os
import signal
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
import trio

from runtara_trio import InstanceStatus

from ..helpers.places import free_tcp_port, http_core_place, served_http_place
from ..helpers.support import Program, start_args, start_command

RUST = os.environ.get("INTEROP_RUST_1_6", "")

pytestmark = pytest.mark.skipif(not RUST, reason="nox -s interop builds what this needs")


def rust(url: str, program: str, *arguments: object) -> AbstractAsyncContextManager[Program]:
    """A program on the stock SDK, against a server."""
    return start_command(RUST, program, url, *map(str, arguments))


async def test_every_verb_answers_as_the_cores_does(tmp_path: Path) -> None:
    said = []
    for opening in (served_http_place(), http_core_place("http-sqlite", tmp_path)):
        async with opening as place, rust(place.url, "verbs", "i") as program:
            assert await program.wait() == 0, program.lines
            said.append(program.lines)
    assert said[0] == said[1]
    assert len(said[0]) > 25
    assert 'completed: status=Completed output=Some("done")' in said[0]


async def test_the_durable_attribute() -> None:
    async with served_http_place() as place:
        for runs in (20, 0):
            async with rust(place.url, "durable", "i", 20) as program:
                assert await program.wait() == 0
                assert program.lines == ["retried Ok(2)", f"sum 380 runs {runs}"]


@pytest.mark.parametrize(
    ("verb", "last", "status"),
    [
        ("cancel", "cancelled", InstanceStatus.CANCELLED),
        ("pause", "suspended", InstanceStatus.SUSPENDED),
    ],
)
async def test_signals_reach_the_stock_sdk(verb: str, last: str, status: InstanceStatus) -> None:
    async with served_http_place() as place, rust(place.url, "steps", "i", 10_000) as program:
        await program.line("step 3")
        await getattr(place.operator, verb)("i")
        assert await program.wait() == 0
        assert program.lines[-1] == last
        summary = (await place.operator.show("i")).summary
        assert (summary.status, summary.signal, summary.held) == (status, None, False)


async def test_a_custom_signal_reaches_the_stock_sdk() -> None:
    async with served_http_place() as place, rust(place.url, "steps", "i", 10_000) as program:
        await program.line("registered")
        await place.operator.send_signal("i", "step-20", b"hello")
        assert await program.line("custom") == 'custom step-20 "hello"'


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
async def test_it_goes_on_over_a_restarted_server(end: signal.Signals, tmp_path: Path) -> None:
    store, port = f"sqlite:///{tmp_path}/served.db", free_tcp_port()
    options = ("--store", store, "--no-quic", "--http-port", str(port))
    arguments = ("-m", "runtara_trio", "serve", *options)
    async with start_args(*arguments) as first:
        await first.line("serving")
        async with rust(f"http://127.0.0.1:{port}", "steps", "i", 200) as program:
            await program.line("step 3")
            first.send(end)
            await first.wait()
            async with start_args(*arguments) as second:
                await second.line("serving")
                with trio.fail_after(60):
                    assert await program.wait() == 0
                assert program.lines[-1] == "completed"
    assert len([line for line in program.lines if line.startswith("step ")]) == 200


async def test_under_load_it_sees_no_error(tmp_path: Path) -> None:
    """A stock core on SQLite refuses one call in ten of these."""
    store = f"sqlite:///{tmp_path}/served.db"
    options = ("--store", store, "--no-quic", "--http-port", "0")
    async with start_args("-m", "runtara_trio", "serve", *options) as server:
        url = (await server.line("serving")).rpartition(" ")[2]
        async with rust(url, "load", "l", "checkpoint", 200, 2, 64) as program:
            assert await program.wait() == 0
            assert '"errors":0' in program.lines[-1]
