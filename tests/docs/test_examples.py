"""Every example runs, and does what its first lines say."""

from __future__ import annotations

import asyncio
import json
import runpy
import signal
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from runtara_trio import Operator, RuntaraSdk, SharedBackend, open_backend, open_runtara
from runtara_trio.testing import Run, check_every_boundary, effect

from ..helpers.places import Shared, free_port
from ..helpers.support import Program, needs_trio_asyncio, sql, start, start_args

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_all_are_here() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == {
        "smallest.py",
        "pause_and_cancel.py",
        "durable_sleep.py",
        "web_server.py",
        "web_shop.py",
        "order.py",
        "order_workflow.py",
        "carrier.py",
        "sqlalchemy_step.py",
        "fastapi_shop.py",
        "django_shop.py",
        "refunds.py",
    }


async def test_smallest(tmp_path: Path, shared: Shared) -> None:
    smallest = shared.program(EXAMPLES / "smallest.py", tmp_path)
    async with start(smallest, cwd=tmp_path) as program:
        await program.line("saved 3")
        await program.kill()
    await shared.expire(program)
    async with start(smallest, cwd=tmp_path) as program:
        assert await program.wait() == 0
    assert program.lines[:3] == ["found 1", "found 2", "found 3"]
    assert program.lines[-2:] == ["saved 10", "completed"]
    async with start(smallest, cwd=tmp_path) as program:
        assert await program.wait() == 0
    assert program.lines[0].startswith("it has counted to ten; remove smallest.db")


async def test_a_step_of_sqlalchemy(tmp_path: Path, url: str) -> None:
    """Its effect and its checkpoint are one commit: a second run of the program adds nothing."""
    async with start(EXAMPLES / "sqlalchemy_step.py", url, cwd=tmp_path) as program:
        assert await program.wait() == 0
    assert program.lines == ["1999", "2499"]
    async with start(EXAMPLES / "sqlalchemy_step.py", url, cwd=tmp_path) as program:
        assert await program.wait() == 1
    assert "'order-7' is completed" in program.lines[-1]
    async with open_backend(url) as backend:
        await Operator(backend).show("order-7")
        assert await sql(backend, "SELECT sum(cents), count(*) FROM bookings") == [(2499, 2)]


class TestPauseAndCancel:
    async def test_a_pause_finishes_the_page(self, tmp_path: Path, shared: Shared) -> None:
        report = shared.program(EXAMPLES / "pause_and_cancel.py", tmp_path)
        async with start(report, cwd=tmp_path) as program:
            await program.line("begun 2")
            async with open_backend(shared.url) as backend:
                await Operator(backend).pause("report")
            assert await program.wait() == 0
        assert program.lines[-3:] == ["written 2", "put the pen away", "paused"]
        async with start(report, cwd=tmp_path) as program:
            assert await program.line() == "begun 3"

    async def test_a_cancel_does_not(self, tmp_path: Path, shared: Shared) -> None:
        report = shared.program(EXAMPLES / "pause_and_cancel.py", tmp_path)
        async with start(report, cwd=tmp_path) as program:
            await program.line("begun 2")
            async with open_backend(shared.url) as backend:
                await Operator(backend).cancel("report")
            assert await program.wait() == 0
        assert program.lines[-3:] == ["begun 2", "put the pen away", "cancelled"]
        async with start(report, cwd=tmp_path) as program:
            assert (await program.line()).startswith("nothing to do: cancelled before")


async def checkpoints(backend: SharedBackend, prefix: str) -> list[bytes]:
    """The states that begin so; empty also where the instance is not there yet."""
    page = await Operator(backend).checkpoints("tea", prefix=prefix)
    return [one.state for one in page.checkpoints]


async def test_durable_sleep(tmp_path: Path, shared: Shared) -> None:
    program_file = shared.program(EXAMPLES / "durable_sleep.py", tmp_path)
    async with start(program_file, 2, cwd=tmp_path) as program:
        await program.line("poured")
        async with open_backend(shared.url) as backend:
            while not (wake := await checkpoints(backend, "runtara_trio::wake::drawing")):
                await trio.lowlevel.checkpoint()
        await program.kill()
    await shared.expire(program)
    async with start(program_file, 2, cwd=tmp_path) as program:
        assert await program.wait() == 0
    assert float(program.lines[-1].removeprefix("ready, ").split()[0]) >= 2
    async with open_backend(shared.url) as backend:
        assert await checkpoints(backend, "runtara_trio::wake::drawing") == wake


def load(name: str) -> Any:
    """An example as a module."""
    return runpy.run_path(str(EXAMPLES / name), run_name=name)


class TestEveryBoundary:
    """Each example, with every fault at every boundary that it has."""

    def test_smallest(self) -> None:
        count = load("smallest.py")["count"]
        assert len(check_every_boundary(count).boundaries) == 11

    def test_pause_and_cancel(self) -> None:
        write_report = load("pause_and_cancel.py")["write_report"]
        undisturbed = check_every_boundary(lambda sdk: write_report())
        assert undisturbed.result == sum(len(f"text of page {page}") for page in range(1, 21))

    def test_durable_sleep(self) -> None:
        make_tea = load("durable_sleep.py")["make_tea"]
        check_every_boundary(lambda sdk: make_tea(sdk, 180))

    def test_web_server(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("quart_trio")
        module = load("web_server.py")

        async def pay(key: str, cents: int) -> None:
            effect(key, cents)

        monkeypatch.setitem(module["charge"].__wrapped__.__globals__, "pay", pay)

        async def program(sdk: RuntaraSdk) -> None:
            await sdk.checkpoint("order", 1999)
            await module["carry_out"](sdk)

        async def decide(operator: Operator) -> None:
            await trio.sleep(60)
            await operator.send_signal("test", "decision", b"yes")

        undisturbed = check_every_boundary(program, operator=decide)
        assert list(undisturbed.effects.values()) == [1999]

    def test_web_shop(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("quart_trio")
        module = load("web_shop.py")

        async def pay(key: str, cents: int) -> str:
            return str(effect(key, f"{cents} cents"))

        monkeypatch.setitem(module["charge"].__wrapped__.__globals__, "pay", pay)

        async def pack(operator: Operator) -> None:
            await trio.sleep(60)
            await operator.send_signal("test", "packed", b"ana")

        undisturbed = check_every_boundary(lambda sdk: module["order"](sdk, 1999), operator=pack)
        assert undisturbed.result == "1999 cents, packed by ana"
        assert len(undisturbed.effects) == 1


class World:
    """The services of the order, as a test wants them."""

    def __init__(self, module: dict[str, Any], answer: bytes | None, carrier: float = 1) -> None:
        self.module = module
        self.answer = answer
        self.carrier = carrier
        """Seconds for a label."""
        self.order = module["Order"]("order-7", "kim", 4500, ["books", "lamp", "teapot"])
        globals_ = module["carry_out"].__globals__
        globals_["bank"] = self
        globals_["request_label"] = self.request_label

    async def charge(self, key: str, order_id: str, cents: int) -> None:
        effect(key, cents)

    async def pay_back(self, key: str, order_id: str) -> None:
        effect(key, "paid back")

    async def request_label(self, url: str, key: str, parcel: str) -> str:
        await asyncio.sleep(self.carrier)
        return str(effect(key, f"T-{parcel}"))

    async def program(self, sdk: RuntaraSdk) -> Any:
        result = await self.module["carry_out"](sdk, self.order)
        await sdk.completed(result)  # from now on no cancel can come
        return result

    async def person(self, operator: Operator) -> None:
        await trio.sleep(24 * 3600)
        if self.answer is not None:
            await operator.send_signal("test", "approval", self.answer)

    def check(self, run: Run) -> None:
        values = list(run.effects.values())
        shipped = (run.output or b"").startswith(b'"shipped')
        assert ("paid back" in values) is not shipped, "paid for nothing, or sent for nothing"

    def everywhere(self) -> Run:
        return check_every_boundary(self.program, self.check, operator=self.person)


@needs_trio_asyncio
class TestOrder:
    def test_shipped(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        undisturbed = World(load("order.py"), b'{"by":"ana","approved":true}').everywhere()
        assert undisturbed.result == "shipped, see order-7.txt"
        assert len(undisturbed.effects) == 4
        papers = (tmp_path / "order-7.txt").read_text()
        assert papers == "books T-books\nlamp T-lamp\nteapot T-teapot\n"

    def test_refused(self) -> None:
        undisturbed = World(load("order.py"), b'{"by":"ana","approved":false}').everywhere()
        assert undisturbed.result == "not approved by ana"

    def test_nobody_answers(self) -> None:
        undisturbed = World(load("order.py"), None).everywhere()
        assert undisturbed.result == "not approved by nobody"

    def test_a_carrier_that_is_too_slow(self) -> None:
        world = World(load("order.py"), b'{"by":"ana","approved":true}', carrier=3 * 24 * 3600)
        undisturbed = world.everywhere()
        assert undisturbed.result == "not shipped in time: 0 of 3 parcels"

    def test_declined(self) -> None:
        world = World(load("order.py"), None)
        world.order = msgspec.structs.replace(world.order, cents=0)
        undisturbed = check_every_boundary(world.program, may_fail=True)
        assert undisturbed.error == "Declined: 0 cents"

    async def test_for_real(self, tmp_path: Path, shared: Shared) -> None:
        """With its carrier, killed, and approved from the command line."""
        order = shared.program(EXAMPLES / "order.py", tmp_path)
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        async with start(EXAMPLES / "carrier.py", port, cwd=tmp_path) as carrier:
            await carrier.line("======== Running on")
            async with start(order, "order-7", url, cwd=tmp_path) as program:
                await program.line("bank: order-7 4500")
                await program.kill()
            await shared.expire(program)
            approval = '{"by": "ana", "approved": true}'
            command = ("signal", "order-7", "approval", approval, "--store", shared.url)
            async with start_args("-m", "runtara_trio", *command) as signal_:
                assert await signal_.wait() == 0
            async with start(order, "order-7", url, cwd=tmp_path) as program:
                assert await program.wait() == 0
            assert program.lines == ["running order-7", "order-7 completed"]
            async with start(order, "order-7", url, cwd=tmp_path) as program:
                assert await program.wait() == 0
            assert program.lines == ['order-7 is completed: "shipped, see order-7.txt"']
            assert len((tmp_path / "order-7.txt").read_text().splitlines()) == 3
            carrier.send(signal.SIGTERM)
            await carrier.wait()
            assert len([line for line in carrier.lines if line.startswith("label")]) == 3


class TestOrderWorkflow:
    @pytest.mark.parametrize(
        ("answer", "result", "effects"),
        [
            (b"yes", "shipped: T-test", [4500, "test"]),
            (b"no", "paid back: no", [4500, -4500]),
            (None, "paid back: not in time", [4500, -4500]),
        ],
    )
    def test_every_boundary(self, answer: bytes | None, result: str, effects: list[object]) -> None:
        module = load("order_workflow.py")
        order = module["order"]
        globals_ = order.__wrapped__.__globals__

        async def pay(key: str, cents: int) -> None:
            effect(key, cents)

        async def send(key: str, order_id: str) -> str:
            effect(key, order_id)
            return f"T-{order_id}"

        globals_["pay"], globals_["send"] = pay, send

        async def person(operator: Operator) -> None:
            await trio.sleep(24 * 3600)
            if answer is not None:
                await operator.send_signal("test", "approval", answer)

        undisturbed = check_every_boundary(order, operator=person, args=(4500,))
        assert undisturbed.result == result
        assert list(undisturbed.effects.values()) == effects

    async def test_for_real(self, tmp_path: Path, shared: Shared) -> None:
        """Killed with its worker, approved from the command line, and asked once more."""
        order = shared.program(EXAMPLES / "order_workflow.py", tmp_path)
        async with start(order, "order-7", cwd=tmp_path) as program:
            await program.line("bank: 4500 under order-7/")
            await program.kill()
        await shared.expire(program)
        async with start(order, "order-7", cwd=tmp_path) as program:
            await program.line("order-7 waits")
            command = ("signal", "order-7", "approval", "yes", "--store", shared.url)
            async with start_args("-m", "runtara_trio", *command) as signal_:
                assert await signal_.wait() == 0
            assert await program.wait() == 0
        assert program.lines[-1] == "order-7 is shipped: T-order-7"
        async with start(order, "order-7", cwd=tmp_path) as program:
            assert await program.wait() == 0
        assert program.lines == ["started order-7", "order-7 is shipped: T-order-7"]


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


async def test_web_server(shared: Shared) -> None:
    pytest.importorskip("quart_trio")
    web_server = EXAMPLES / "web_server.py"
    async with start(web_server, shared.url, 0) as program:
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
    await shared.expire(program)
    async with start(web_server, shared.url, 0) as program:  # goes on with what it left
        server = await serving(program)
        await server.until(2, "running")
        assert (await server.ask("POST", "/orders/2/cancel"))[1] == 202
        await server.until(2, "cancelled")
        await server.ask("POST", "/orders/3/decision", b"no")
        assert "no" in (await server.until(3, "completed"))["output"]
        program.send(signal.SIGTERM)
        assert await program.wait() == 0
    async with start(web_server, shared.url, 0) as program:  # suspended, not lost
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


class TestWebShop:
    @pytest.fixture(autouse=True)
    def quart_trio(self) -> None:
        pytest.importorskip("quart_trio")

    async def test_killed_with_its_worker(self, shared: Shared) -> None:
        web_shop = EXAMPLES / "web_shop.py"
        async with start(web_shop, shared.url, 0) as program:
            server = await serving(program)
            for number in range(30):
                assert await server.order(number) == 202
            assert await server.order(7) == 202  # the same order, sent again
            assert (await server.ask("POST", "/orders/1/packed", b"ana"))[1] == 202
            assert await server.ask("GET", "/orders/1/result") == (
                {"result": "receipt for 1 cents, packed by ana"},
                200,
            )
            assert (await server.ask("GET", "/orders/2/result?seconds=0"))[1] == 202
            await program.kill()
        await shared.expire(program)
        async with start(web_shop, shared.url, 0) as program:  # goes on with what it left
            server = await serving(program)
            await server.until(2, "running")
            assert (await server.ask("POST", "/orders/2/cancel"))[1] == 202
            assert (await server.ask("GET", "/orders/2/result"))[1] == 409  # it was cancelled
            program.send(signal.SIGTERM)
            assert await program.wait() == 0
        async with start(web_shop, shared.url, 0) as program:  # drained, not lost
            server = await serving(program)
            for number in range(3, 30):
                await server.ask("POST", f"/orders/{number}/packed", b"ben")
            for number in range(3, 30):
                answer, _ = await server.ask("GET", f"/orders/{number}/result")
                assert answer == {"result": f"receipt for {number} cents, packed by ben"}

    async def test_without_a_worker(self, shared: Shared) -> None:
        async with start(EXAMPLES / "web_shop.py", shared.url, 0, "--no-worker") as program:
            server = await serving(program)
            assert await server.order(7) == 202
            await server.ask("POST", "/orders/7/packed", b"ana")
            assert await server.ask("GET", "/orders/7") == ({"status": "pending"}, 200)
            command = ("-m", "runtara_trio", "worker", "web_shop", "--store", shared.url)
            async with start_args(*command, cwd=EXAMPLES) as worker:
                await worker.line("worker ")
                answer, _ = await server.ask("GET", "/orders/7/result")
                assert answer == {"result": "receipt for 7 cents, packed by ana"}
                worker.send(signal.SIGTERM)
                assert await worker.wait() == 128 + signal.SIGTERM
            program.send(signal.SIGTERM)
            assert await program.wait() == 0

    async def test_what_is_refused(self, url: str) -> None:
        async with start(EXAMPLES / "web_shop.py", url, 0, "--no-worker") as program:
            server = await serving(program)
            assert await server.order(7) == 202
            other = b'{"cents": 8}'
            assert (await server.ask("POST", "/orders/7", other, "application/json"))[1] == 409
            assert (await server.ask("GET", "/orders/7/result?seconds=-1"))[1] == 400
            for method, path in (
                ("GET", "/orders/8"),
                ("GET", "/orders/8/result"),
                ("POST", "/orders/8/packed"),
                ("POST", "/orders/8/cancel"),
            ):
                assert (await server.ask(method, path))[1] == 404
