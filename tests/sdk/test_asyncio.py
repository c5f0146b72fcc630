"""asyncio libraries inside a block: one loop, real sockets, and no task left behind."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Any

import aiohttp
import pytest
import trio
import trio.lowlevel
import trio.testing
from trio.testing import MockClock

from runtara_trio import (
    ConfigError,
    Operator,
    Outcome,
    RuntaraSdk,
    SdkError,
    SharedBackend,
    current_sdk,
    durable,
    open_backend,
    open_runtara,
)
from runtara_trio.sdk import asyncio_bridge

from ..helpers.support import block, needs_trio_asyncio

pytestmark = needs_trio_asyncio

variable: ContextVar[str] = ContextVar("variable", default="unset")


class Server:
    """An HTTP server on Trio that counts its requests."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self.port = 0

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listener.socket.getsockname()[1]
        await trio.serve_listeners(self._answer, [listener], task_status=task_status)

    async def _answer(self, stream: trio.SocketStream) -> None:
        head = await stream.receive_some()
        self.requests.append(head.split()[1])
        body = b'{"id": "r-%d"}' % len(self.requests)
        await stream.send_all(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
        )


@pytest.fixture
async def server(nursery: trio.Nursery) -> AsyncIterator[Server]:
    server = Server()
    await nursery.start(server.run)
    yield server
    nursery.cancel_scope.cancel()


@durable(flavor="asyncio")
async def charge(port: int, order: str) -> dict[str, str]:
    async with aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{port}/{order}"
        async with session.get(url, headers={"Idempotency-Key": current_sdk().step_key}) as answer:
            result: dict[str, str] = await answer.json()
            return result


async def test_a_real_library_against_a_real_server(backend: SharedBackend, server: Server) -> None:
    for _ in range(2):
        async with block(backend) as sdk:
            assert await charge(server.port, "order-7") == {"id": "r-1"}
            await sdk.suspended()
    assert server.requests == [b"/order-7"]


async def test_many_at_once(memory: SharedBackend, server: Server) -> None:
    async with block(memory) as sdk:
        orders = [f"order-{n}" for n in range(20)]
        async with sdk.map(lambda order: charge(server.port, order), orders) as results:
            assert len([result async for result in results]) == 20
    assert len(server.requests) == 20


async def test_one_loop_a_block(memory: SharedBackend) -> None:
    async def loop() -> Any:
        return asyncio.get_running_loop()

    async with block(memory) as sdk:
        assert await sdk.asyncio(loop) is await sdk.asyncio(loop)
    assert sdk.outcome is Outcome.COMPLETED


async def test_arguments_context_and_exceptions(memory: SharedBackend) -> None:
    error = KeyError("own")

    async def work(a: int, *, b: int) -> tuple[int, str, RuntaraSdk]:
        await asyncio.sleep(0)
        return a + b, variable.get(), current_sdk()

    async def fail() -> None:
        await asyncio.sleep(0)
        raise error

    variable.set("set")
    async with block(memory) as sdk:
        assert await sdk.asyncio(work, 1, b=2) == (3, "set", sdk)
        with pytest.raises(KeyError) as caught:
            await sdk.asyncio(fail)
        assert caught.value is error


async def test_a_cancelled_scope_cancels_the_task(memory: SharedBackend) -> None:
    seen = []

    async def wait() -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    async with block(memory) as sdk:
        await sdk.asyncio(asyncio.sleep, 0)
        with trio.move_on_after(0.01) as scope:
            await sdk.asyncio(wait)
        assert scope.cancelled_caught
        assert seen == ["cancelled"]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sdk.asyncio, wait)
            await trio.testing.wait_all_tasks_blocked()
            await Operator(memory).cancel("i")
    assert sdk.outcome is Outcome.CANCELLED
    assert seen == ["cancelled"] * 2


async def test_it_is_retried(autojump_clock: MockClock, memory: SharedBackend) -> None:
    ran = []

    @durable(flavor="asyncio", timeout=5)
    async def flaky() -> str:
        ran.append(1)
        await asyncio.sleep(3600 if len(ran) < 3 else 1)
        return "done"

    async with block(memory):
        assert await flaky() == "done"
    assert len(ran) == 3


class TestTasksThatAreLeftBehind:
    async def test_they_are_cancelled_before_the_outcome(self, memory: SharedBackend) -> None:
        seen = []

        async def background() -> None:
            try:
                await asyncio.sleep(3600)
            finally:
                seen.append((await Operator(memory).show("i")).summary.status)

        async def leave() -> None:
            kept.append(asyncio.create_task(background()))
            await asyncio.sleep(0)

        kept: list[Any] = []
        async with block(memory) as sdk:
            await sdk.asyncio(leave)
        assert sdk.outcome is Outcome.COMPLETED
        assert kept[0].done()

    async def test_one_that_does_not_end_does_not_hang_the_block(
        self,
        memory: SharedBackend,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        monkeypatch.setattr(asyncio_bridge, "CLOSE_WITHIN", 0.05)
        kept: list[Any] = []

        async def stubborn() -> None:
            while True:
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(3600)

        async def leave() -> None:
            kept.append(asyncio.create_task(stubborn()))
            await asyncio.sleep(0)

        with trio.fail_after(10):
            async with block(memory) as sdk:
                await sdk.asyncio(leave)
        assert sdk.outcome is Outcome.COMPLETED
        assert "1 asyncio tasks that were left behind do not end" in caplog.text
        kept[0]._log_destroy_pending = False

    async def test_one_that_fails_is_logged_and_no_more(
        self, memory: SharedBackend, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def fail() -> None:
            raise KeyError("nobody waits for it")

        async def leave() -> None:
            asyncio.create_task(fail())  # noqa: RUF006
            await asyncio.sleep(0)
            await asyncio.sleep(0)

        def callback() -> None:
            raise KeyError("of a callback")

        async def call() -> None:
            asyncio.get_running_loop().call_soon(callback)
            await asyncio.sleep(0.001)

        with caplog.at_level(logging.ERROR, "runtara_trio"):
            async with block(memory) as sdk:
                await sdk.asyncio(leave)
                await sdk.asyncio(call)
                await sdk.checkpoint("after")
        assert sdk.outcome is Outcome.COMPLETED
        assert "of a callback" in caplog.text


async def test_what_is_no_coroutine_function(memory: SharedBackend) -> None:
    def plain() -> int:
        return 7

    async with block(memory) as sdk:
        with pytest.raises(ConfigError, match="plain returned a int, not a coroutine"):
            await sdk.asyncio(plain)  # type: ignore[arg-type]


async def test_after_the_block_it_is_an_error(memory: SharedBackend) -> None:
    for used in (False, True):
        async with block(memory, f"i{used}") as sdk:
            if used:
                await sdk.asyncio(asyncio.sleep, 0)
        with pytest.raises(SdkError, match=r"has (ended|closed)"):
            await sdk.asyncio(asyncio.sleep, 0)


@pytest.mark.parametrize("error", [SystemExit(5), KeyboardInterrupt()])
@pytest.mark.parametrize(
    "where", ["the call", "a task of a library", "soon", "later", "when done", "from a thread"]
)
async def test_what_ends_the_program_ends_one_block(
    memory: SharedBackend, error: BaseException, where: str
) -> None:
    """The others on the backend are told by whoever holds them all, and by nobody else."""

    async def raises() -> None:
        await asyncio.sleep(0)
        raise error

    @durable(flavor="asyncio", max_retries=0)
    async def ends() -> None:
        def raise_it(*_: object) -> None:
            raise error

        loop = asyncio.get_running_loop()
        match where:
            case "the call":
                await raises()
            case "soon":
                loop.call_soon(raise_it)
            case "later":
                loop.call_later(0.01, raise_it)
            case "when done":
                asyncio.create_task(asyncio.sleep(0)).add_done_callback(raise_it)
            case "from a thread":
                loop.run_in_executor(None, loop.call_soon_threadsafe, raise_it)
        if where != "a task of a library":
            await asyncio.sleep(3600)
        task = asyncio.create_task(raises())
        await asyncio.sleep(3600)
        await task

    done = trio.Event()
    left: list[BaseException] = []
    outcomes = {}

    async def innocent() -> None:
        async with block(memory, "innocent") as sdk:
            await sdk.checkpoint("before")
            await done.wait()
            await sdk.checkpoint("after")
        outcomes["innocent"] = sdk.outcome

    async with trio.open_nursery() as nursery:
        nursery.start_soon(innocent)
        try:
            async with block(memory, "ends") as sdk:
                await ends()
        except (SystemExit, KeyboardInterrupt) as exc:
            left.append(exc)
        outcomes["ends"] = sdk.outcome
        done.set()
    assert left == [error]
    assert outcomes == {"ends": Outcome.STOPPED, "innocent": Outcome.COMPLETED}
    assert (await Operator(memory).show("ends")).summary.status == "suspended"


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("sdk", "called from code that does not run on Trio"),
        ("durable", "called from code that does not run on Trio"),
        ("run", "await the coroutine instead of asyncio.run"),
        ("trio", "asyncio code cannot await a function of Trio"),
        ("sleep", r"give @durable\(flavor='asyncio'\)"),
    ],
)
async def test_a_mistake_of_flavor_says_what_to_do(
    memory: SharedBackend, program: str, said: str
) -> None:
    @durable
    async def inner() -> int:
        return 1

    async def nothing() -> None: ...

    async def wrong() -> None:
        match program:
            case "sdk":
                await current_sdk().checkpoint("mark")
            case "durable":
                await inner()
            case "run":
                with contextlib.closing(nothing()) as made:
                    asyncio.run(made)
            case "trio":
                await trio.lowlevel.checkpoint()
            case "sleep":
                await asyncio.sleep(0.1)

    flavor: Any = "trio" if program == "sleep" else "asyncio"
    async with block(memory):
        with pytest.raises(SdkError, match=said):
            await durable(flavor=flavor)(wrong)()


def test_without_trio() -> None:
    async def main() -> None:
        async with open_runtara(":memory:", instance_id="i", tenant_id="t"):
            raise AssertionError("it does not run")

    async def backend() -> None:
        async with open_backend(":memory:"):
            raise AssertionError("it does not run")

    for program in (main, backend):
        with (
            contextlib.closing(asyncio.new_event_loop()) as loop,
            pytest.raises(SdkError, match=r"start the program with trio\.run"),
        ):
            loop.run_until_complete(program())


@needs_trio_asyncio
async def test_a_library_that_has_imported_asyncio_before(memory: SharedBackend) -> None:
    """It has the names of asyncio as they were before trio-asyncio was there, as AnyIO has."""
    from _asyncio import get_running_loop

    async def asks() -> list[bool]:
        loop = get_running_loop()
        called: asyncio.Future[bool] = loop.create_future()
        loop.call_later(0.001, lambda: called.set_result(get_running_loop() is loop))
        return [await called, get_running_loop() is loop is asyncio.get_running_loop()]

    async with block(memory) as sdk:
        assert await sdk.asyncio(asks) == [True, True]
        with pytest.raises(RuntimeError, match="no running event loop"):
            get_running_loop()
