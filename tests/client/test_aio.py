"""Clients in programs on asyncio: real files, a worker in another thread."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
import trio

from runtara_trio import (
    ConfigError,
    InstanceFailed,
    InstanceStatus,
    RuntaraSdk,
    SdkError,
    SharedBackend,
    Start,
    StoreError,
    aio,
    workflow,
)

from ..helpers.working import Forever, threads_of, working

T = TypeVar("T")


@workflow
async def order(sdk: RuntaraSdk, cents: int) -> str:
    return f"{cents} of {sdk.instance_id}"


@workflow
async def asks(sdk: RuntaraSdk) -> str:
    return (await sdk.wait_for_signal("answer")).decode()


@pytest.fixture(autouse=True)
def nothing_is_left(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No thread, and nothing that asyncio has to say."""
    yield
    assert not threads_of("aio.open_client")
    assert not [one for one in caplog.records if one.levelno >= logging.ERROR]


def run(main: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(asyncio.wait_for(main, 60), debug=True)


def call(client: aio.Client, function: Callable[[], Awaitable[Any]]) -> asyncio.Task[Any]:
    """Any call in a client's thread, in a task of its own."""
    return asyncio.create_task(client._call(function))


async def is_set(event: threading.Event) -> None:
    assert await asyncio.to_thread(event.wait, 30)


def test_every_method(url: str) -> None:
    async def main() -> None:
        async with aio.open_client(url, tenant_id="t") as client:
            assert client.tenant_id == "t"
            (worker,) = await client.list_workers()
            assert worker.workflows == (("order", 1), ("asks", 1))
            first = await client.start(order, 1999, id="first", attributes={"shop": "north"})
            assert repr(first) == "<instance 'first'>"
            assert await first.result(timeout=30) == "1999 of first"
            assert await first.status() is InstanceStatus.COMPLETED
            assert (await first.show()).output == b'"1999 of first"'
            assert (await first.events(limit=1)).events
            by_name = await client.start("order", 5, id="second")
            assert await by_name.result(str, timeout=30) == "5 of second"
            starts = (Start(args=(n,), id=f"m{n}") for n in range(3))
            many = await client.start_many(order, starts)
            results = await asyncio.gather(*[one.result(timeout=30) for one in many])
            assert results == [f"{n} of m{n}" for n in range(3)]
            assert len((await client.list(limit=5)).instances) == 5
            nobodys = await client.start("unknown")
            assert "no worker takes it" in (await nobodys.pause()).text
            assert (await nobodys.resume()).status is InstanceStatus.PENDING
            waits = await client.start(asks)
            await waits.signal("answer", b"yes")
            assert await client.get(waits.id, asks).result(timeout=30) == "yes"
            cancelled = await client.start(asks)
            await cancelled.cancel()
            with pytest.raises(InstanceFailed, match="cancelled"):
                await cancelled.result(timeout=30)

    with working(url, order, asks):
        run(main())


def test_timeouts(url: str) -> None:
    async def main() -> None:
        async with aio.open_client(url, tenant_id="t") as client:
            handle = await client.start(order, 1)
            with pytest.raises(TimeoutError, match=r"has not ended within 0\.01 s"):
                await handle.result(timeout=0.01)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await handle.result()
            assert await handle.status() is InstanceStatus.PENDING

    run(main())


def test_a_cancelled_task_cancels_its_call(url: str) -> None:
    async def main() -> None:
        async with aio.open_client(url, tenant_id="t") as client:
            forever = Forever()
            task = call(client, forever)
            await is_set(forever.began)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert forever.cancelled.is_set()
            assert await client.list_workers() == ()

    run(main())


def test_a_cancelled_task_waits_for_the_end_of_its_call(url: str) -> None:
    """Also where it is cancelled twice, and the call fails in the end."""

    async def main() -> None:
        async with aio.open_client(url, tenant_id="t") as client:
            forever, go = Forever(), threading.Event()

            async def cleans_up() -> None:
                try:
                    await forever()
                except trio.Cancelled:
                    with trio.CancelScope(shield=True):
                        await trio.to_thread.run_sync(go.wait, 30)
                    raise ValueError("not told") from None

            task = call(client, cleans_up)
            await is_set(forever.began)
            task.cancel()
            await is_set(forever.cancelled)
            task.cancel()
            assert not (await asyncio.wait([task], timeout=0))[0]
            go.set()
            with pytest.raises(asyncio.CancelledError):
                await task

    run(main())


def test_who_waits_when_it_ends_is_told(url: str) -> None:
    async def main() -> None:
        forever = Forever()
        async with aio.open_client(url, tenant_id="t") as client:
            task = call(client, forever)
            await is_set(forever.began)
        assert forever.cancelled.is_set()
        assert not threads_of("aio.open_client")
        with pytest.raises(SdkError, match="the client was closed before the call had ended"):
            await task
        with pytest.raises(SdkError, match="the client is closed: open another one"):
            await client.list_workers()

    run(main())


def test_a_body_that_raises(url: str) -> None:
    async def main() -> None:
        with pytest.raises(ValueError, match="mine"):
            async with aio.open_client(url, tenant_id="t"):
                raise ValueError("mine")
        assert not threads_of("aio.open_client")

    run(main())


def test_a_body_that_is_cancelled(url: str) -> None:
    async def body() -> None:
        async with aio.open_client(url, tenant_id="t") as client:
            opened.set()
            await client.get("i").result()

    async def main() -> None:
        task = asyncio.create_task(body())
        await is_set(opened)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not threads_of("aio.open_client")

    opened = threading.Event()
    run(main())


def test_cancelled_while_it_opens(url: str) -> None:
    async def opens() -> None:
        async with aio.open_client(url, tenant_id="t"):
            raise AssertionError

    async def main() -> None:
        task = asyncio.create_task(opens())
        await asyncio.sleep(0)  # it has started its thread
        assert len(threads_of("aio.open_client")) == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not threads_of("aio.open_client")

    run(main())


def test_a_store_that_cannot_be_opened(tmp_path: Path) -> None:
    async def main() -> None:
        with pytest.raises(StoreError, match="absent"):
            async with aio.open_client(
                f"sqlite:///{tmp_path}/absent/a.db", tenant_id="t"
            ) as client:
                await client.list_workers()
        assert not threads_of("aio.open_client")

    run(main())


def test_a_client_that_cannot_be_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        with pytest.raises(ConfigError, match="needs psycopg"):
            async with aio.open_client("postgresql://127.0.0.1/shop", tenant_id="t"):
                raise AssertionError
        assert not threads_of("aio.open_client")

    monkeypatch.setitem(sys.modules, "runtara_trio.store.postgres.backend", None)
    run(main())


async def test_what_is_refused(memory: SharedBackend) -> None:
    async def main(target: Any) -> None:
        async with aio.open_client(target, tenant_id="t"):
            pass

    for target, text in ((memory, "belongs to one Trio run"), (":memory:", "the URL of a file")):
        with pytest.raises(ConfigError, match=text):
            await trio.to_thread.run_sync(run, main(target))


def test_a_client_in_two_loops(url: str) -> None:
    async def main() -> None:
        async with aio.open_client(url, tenant_id="t") as client:
            handle = await client.start(order, 1)

            async def other() -> str:
                return await handle.result(timeout=30)

            assert await asyncio.to_thread(run, other()) == f"1 of {handle.id}"

    with working(url, order):
        run(main())
