"""Libraries of AnyIO in blocks, workflows and durable calls: on Trio, AnyIO's scopes are Trio's."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
import httpx
import pytest
import trio
import trio.testing

from runtara_trio import (
    InstanceStatus,
    Operator,
    Outcome,
    RuntaraSdk,
    SharedBackend,
    current_sdk,
    durable,
    open_client,
    open_worker,
    workflow,
)

from ..helpers.support import block, checkpoint_ids


@durable
async def double(number: int) -> int:
    await anyio.sleep(0.01)
    return 2 * number


async def test_a_task_group_and_a_stream(memory: SharedBackend) -> None:
    """Tasks of AnyIO hand each other what durable calls give."""

    async def produce(stream: Any, numbers: range) -> None:
        async with stream:
            for number in numbers:
                await stream.send(await double(number))

    for _ in range(2):
        async with block(memory, revive=True):
            send, receive = anyio.create_memory_object_stream[int](1)
            async with anyio.create_task_group() as group, receive:
                group.start_soon(produce, send.clone(), range(3))
                group.start_soon(produce, send, range(3, 6))
                found = [number async for number in receive]
            assert sorted(found) == [0, 2, 4, 6, 8, 10]
    assert len(await checkpoint_ids(memory)) == 6


async def test_a_group_whose_task_fails(memory: SharedBackend) -> None:
    async def fails() -> None:
        raise OSError("no route")

    with pytest.raises(ExceptionGroup) as caught:
        async with block(memory) as sdk, anyio.create_task_group() as group:
            group.start_soon(fails)
            await sdk.sleep(3600, "long")
    assert caught.group_contains(OSError, match="no route")
    assert sdk.outcome is Outcome.FAILED


async def test_scopes_and_timeouts(
    memory: SharedBackend, autojump_clock: trio.testing.MockClock
) -> None:
    async with block(memory) as sdk:
        with anyio.move_on_after(5) as scope:
            await sdk.sleep(60, "too long")
        assert scope.cancelled_caught
        with pytest.raises(TimeoutError):
            with anyio.fail_after(5):
                await sdk.wait_for_signal("never")
        with anyio.CancelScope(shield=True):
            await sdk.checkpoint("shielded")
    assert sdk.outcome is Outcome.COMPLETED


@pytest.mark.parametrize("verb", ["cancel", "pause"])
async def test_a_signal_reaches_the_tasks_of_a_group(
    memory: SharedBackend, autojump_clock: trio.testing.MockClock, verb: str
) -> None:
    """Nothing of AnyIO's can swallow it, and a pause waits for what is half done."""
    done: list[str] = []

    @durable
    async def work(name: str) -> None:
        await anyio.sleep(10)
        done.append(name)

    async def run(sdk: RuntaraSdk, name: str) -> None:
        try:
            await work(name)
            await sdk.sleep(3600, f"after {name}")
        except anyio.get_cancelled_exc_class():
            done.append(f"{name} told")
            raise

    async with trio.open_nursery() as nursery:
        async with block(memory) as sdk:
            nursery.start_soon(send_after, Operator(memory), verb)
            async with anyio.create_task_group() as group:
                for name in ("a", "b"):
                    group.start_soon(run, sdk, name)
    assert sdk.outcome is (Outcome.CANCELLED if verb == "cancel" else Outcome.PAUSED)
    finished = ["a", "b"] if verb == "pause" else []
    assert sorted(done) == sorted([*finished, "a told", "b told"])


async def send_after(operator: Operator, verb: str) -> None:
    await trio.sleep(5)
    await getattr(operator, verb)("i")


async def test_threads(memory: SharedBackend) -> None:
    @durable
    async def in_a_thread() -> str:
        def work() -> str:
            key = anyio.from_thread.run_sync(lambda: current_sdk().step_key)
            return f"{key} in {threading.current_thread() is not threading.main_thread()}"

        return await anyio.to_thread.run_sync(work)

    async with block(memory) as sdk:
        assert await in_a_thread() == "i/durable::in_a_thread::[] in True"

        def saves() -> None:
            anyio.from_thread.run(sdk.checkpoint, "from a thread", b"x")

        await anyio.to_thread.run_sync(saves)
    assert "from a thread" in await checkpoint_ids(memory)


@workflow
async def asks_two(sdk: RuntaraSdk) -> list[str]:
    answers: list[str] = []

    async def ask(name: str) -> None:
        answers.append((await sdk.wait_for_signal(name)).decode())

    async with anyio.create_task_group() as group:
        for name in ("a", "b"):
            group.start_soon(ask, name)
    return sorted(answers)


async def test_a_group_whose_tasks_wait_costs_no_slot(
    backend: SharedBackend, operator: Operator
) -> None:
    async with (
        open_worker(backend, [asks_two], slots=1),
        open_client(backend, tenant_id="t") as client,
    ):
        instances = [await client.start(asks_two) for _ in range(3)]
        with trio.fail_after(30):
            for one in instances:
                while (await one.status()) is not InstanceStatus.RUNNING:
                    await trio.sleep(0.01)
            for one in instances:
                for name in ("a", "b"):
                    await one.signal(name, name)
                assert await one.result() == ["a", "b"]


@pytest.fixture
def server() -> Iterator[str]:
    """A web server of the standard library."""

    class Pages(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            answer = b"%s, with key %s" % (body, self.headers["idempotency-key"].encode())
            self.send_response(200)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *args: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pages) as web:
        thread = threading.Thread(target=web.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{web.server_port}/"
        web.shutdown()
        thread.join()


async def test_httpx(memory: SharedBackend, server: str) -> None:
    async with httpx.AsyncClient() as http:

        @durable(key="{cents}")
        async def charge(cents: int) -> str:
            headers = {"idempotency-key": current_sdk().step_key or ""}
            answer = await http.post(server, content=f"{cents} cents", headers=headers)
            return answer.raise_for_status().text

        async with block(memory):
            assert await charge(5) == "5 cents, with key i/durable::charge::5"


async def test_mcp(memory: SharedBackend) -> None:
    """A server of the Model Context Protocol in the block, and its tools as durable calls."""
    mcp = pytest.importorskip("mcp")
    from mcp.server.mcpserver import MCPServer

    server, asked = MCPServer("shop"), []

    @server.tool()
    async def price(name: str) -> int:
        asked.append(name)
        return len(name)

    for _ in range(2):
        async with mcp.Client(server) as client:

            @durable(key="{name}({arguments})", name="tool")
            async def tool(name: str, arguments: dict[str, str]) -> dict[str, Any]:
                answer = await client.call_tool(name, arguments)
                return dict(answer.structured_content)

            async with block(memory, revive=True):
                assert await tool("price", {"name": "boat"}) == {"result": 4}
    assert asked == ["boat"]
