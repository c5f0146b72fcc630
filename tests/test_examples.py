"""Every example runs, and does what its first lines say."""

from __future__ import annotations

import json
import signal
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import trio

from runtara_trio import Operator, SharedBackend, open_backend, open_runtara

from .support import Program, start

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_all_are_here() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == {
        "smallest.py",
        "pause_and_cancel.py",
        "durable_sleep.py",
        "web_server.py",
    }


async def test_smallest(tmp_path: Path) -> None:
    async with start(EXAMPLES / "smallest.py", cwd=tmp_path) as program:
        await program.line("saved 3")
        await program.kill()
    async with start(EXAMPLES / "smallest.py", cwd=tmp_path) as program:
        assert await program.wait() == 0
    assert program.lines[:3] == ["found 1", "found 2", "found 3"]
    assert program.lines[-2:] == ["saved 10", "completed"]
    async with start(EXAMPLES / "smallest.py", cwd=tmp_path) as program:
        assert await program.wait() == 0
    assert program.lines == ["it has counted to ten; remove smallest.db to count again"]


class TestPauseAndCancel:
    PROGRAM = EXAMPLES / "pause_and_cancel.py"

    async def test_a_pause_finishes_the_page(self, tmp_path: Path) -> None:
        async with start(self.PROGRAM, cwd=tmp_path) as program:
            await program.line("begun 2")
            async with open_backend(f"sqlite:///{tmp_path}/report.db") as backend:
                await Operator(backend).pause("report")
            assert await program.wait() == 0
        assert program.lines[-3:] == ["written 2", "put the pen away", "paused"]
        async with start(self.PROGRAM, cwd=tmp_path) as program:
            assert await program.line() == "begun 3"

    async def test_a_cancel_does_not(self, tmp_path: Path) -> None:
        async with start(self.PROGRAM, cwd=tmp_path) as program:
            await program.line("begun 2")
            async with open_backend(f"sqlite:///{tmp_path}/report.db") as backend:
                await Operator(backend).cancel("report")
            assert await program.wait() == 0
        assert program.lines[-3:] == ["begun 2", "put the pen away", "cancelled"]
        async with start(self.PROGRAM, cwd=tmp_path) as program:
            assert (await program.line()).startswith("nothing to do: cancelled before")


async def checkpoints(backend: SharedBackend, prefix: str) -> list[bytes]:
    """The states that begin so; empty also where the instance is not there yet."""
    page = await Operator(backend).checkpoints("tea", prefix=prefix)
    return [one.state for one in page.checkpoints]


async def test_durable_sleep(tmp_path: Path) -> None:
    program_file = EXAMPLES / "durable_sleep.py"
    async with start(program_file, 2, cwd=tmp_path) as program:
        await program.line("poured")
        async with open_backend(f"sqlite:///{tmp_path}/tea.db") as backend:
            while not (wake := await checkpoints(backend, "runtara_trio::wake::drawing")):
                await trio.lowlevel.checkpoint()
        await program.kill()
    async with start(program_file, 2, cwd=tmp_path) as program:
        assert await program.wait() == 0
    assert float(program.lines[-1].removeprefix("ready, ").split()[0]) >= 2
    async with open_backend(f"sqlite:///{tmp_path}/tea.db") as backend:
        assert await checkpoints(backend, "runtara_trio::wake::drawing") == wake


class Server:
    """The web server in a process of its own, asked over HTTP."""

    def __init__(self, program: Program, address: str) -> None:
        self.program = program
        self.address = address

    async def ask(self, method: str, path: str, body: bytes = b"", kind: str = "") -> Any:
        """The answer's JSON and its status."""
        request = urllib.request.Request(
            self.address + path, data=body or None, method=method, headers={"Content-Type": kind}
        )
        return await trio.to_thread.run_sync(self._ask, request)

    def _ask(self, request: urllib.request.Request) -> tuple[Any, int]:
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return json.load(answer), answer.status
        except urllib.error.HTTPError as exc:
            return json.load(exc), exc.code

    async def order(self, number: int) -> int:
        body = json.dumps({"cents": number}).encode()
        _, status = await self.ask("POST", f"/orders/{number}", body, "application/json")
        return int(status)

    async def until(self, number: int, status: str) -> dict[str, Any]:
        with trio.fail_after(20):
            while True:
                answer, _ = await self.ask("GET", f"/orders/{number}")
                if answer["status"] == status:
                    return dict(answer)


async def serving(program: Program) -> Server:
    line = ""
    while "Running on http" not in line:
        line = await program.line()
    return Server(program, line.partition("Running on ")[2].split()[0])


async def test_web_server(url: str) -> None:
    pytest.importorskip("quart_trio")
    web_server = EXAMPLES / "web_server.py"
    async with start(web_server, url, 0) as program:
        server = await serving(program)
        for number in range(30):
            assert await server.order(number) == 202
        assert await server.order(7) == 409
        assert (await server.ask("GET", "/orders/none"))[1] == 404
        assert (await server.ask("POST", "/orders/1/decision", b"yes"))[1] == 202
        assert json.loads((await server.until(1, "completed"))["output"]) == {
            "decision": "yes",
            "cents": 1,
        }
        await program.kill()
    async with start(web_server, url, 0) as program:  # goes on with what it left
        server = await serving(program)
        await server.until(2, "running")
        assert (await server.ask("POST", "/orders/2/cancel"))[1] == 202
        await server.until(2, "cancelled")
        await server.ask("POST", "/orders/3/decision", b"no")
        assert "no" in (await server.until(3, "completed"))["output"]
        program.send(signal.SIGTERM)
        assert await program.wait() == 0
    async with start(web_server, url, 0) as program:  # suspended, not lost
        server = await serving(program)
        for number in range(4, 30):
            await server.ask("POST", f"/orders/{number}/decision", b"yes")
        for number in range(4, 30):
            await server.until(number, "completed")


async def test_web_server_when_an_order_is_not_stored(url: str) -> None:
    pytest.importorskip("quart_trio")
    async with open_backend(url, create=True) as backend:
        for number in (1, 2):  # a process that was killed between register and checkpoint
            async with open_runtara(backend, instance_id=str(number), tenant_id="shop") as sdk:
                await sdk.suspended()
        await Operator(backend).pause("2")
    async with start(EXAMPLES / "web_server.py", url, 0) as program:
        server = await serving(program)
        assert await server.order(1) == 202  # the one who sends it again is heard
        await server.ask("POST", "/orders/1/decision", b"yes")
        assert json.loads((await server.until(1, "completed"))["output"])["cents"] == 1
        async with open_backend(url) as backend:
            await Operator(backend).pause("2")
        assert await server.order(2) == 409
