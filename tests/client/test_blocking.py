"""Clients in programs that block: real files, a worker in another thread."""

from __future__ import annotations

import inspect
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

import runtara_trio
from runtara_trio import (
    ConfigError,
    InstanceFailed,
    InstanceStatus,
    NotSupported,
    RuntaraSdk,
    SdkConfig,
    SdkError,
    SharedBackend,
    Start,
    StoreError,
    aio,
    blocking,
    workflow,
)
from runtara_trio.sdk.starts import StartOptions

from ..helpers.support import until
from ..helpers.working import Forever, threads_of, waits_for_a_future, working


@workflow
async def order(sdk: RuntaraSdk, cents: int) -> str:
    return f"{cents} of {sdk.instance_id}"


@workflow
async def asks(sdk: RuntaraSdk) -> str:
    return (await sdk.wait_for_signal("answer")).decode()


@pytest.fixture
def client(url: str) -> Iterator[blocking.Client]:
    with blocking.open_client(url, tenant_id="t") as client:
        yield client


def call(client: blocking.Client, function: Callable[[], Any]) -> Any:
    """Any call in a client's thread."""
    return client._call(function)


@contextmanager
def the_thread_ends() -> Iterator[None]:
    assert not threads_of("blocking.open_client")
    try:
        yield
    finally:
        assert not threads_of("blocking.open_client")


def test_every_method(client: blocking.Client, url: str) -> None:
    with working(url, order, asks):
        assert client.tenant_id == "t"
        assert [one.workflows for one in client.list_workers()] == [(("order", 1), ("asks", 1))]
        first = client.start(order, 1999, id="first", attributes={"shop": "north"})
        assert first.id == "first"
        assert repr(first) == "<instance 'first'>"
        assert first.result(timeout=30) == "1999 of first"
        assert first.status() is InstanceStatus.COMPLETED
        assert first.show().output == b'"1999 of first"'
        assert first.events(limit=1).events[0].id < first.events().events[-1].id
        by_name = client.start("order", 5, id="second")
        assert by_name.result(str, timeout=30) == "5 of second"
        many = client.start_many(order, [Start(args=(n,), id=f"m{n}") for n in range(3)])
        assert [one.result(timeout=30) for one in many] == [f"{n} of m{n}" for n in range(3)]
        assert {one.instance_id for one in client.list(limit=5).instances} == {
            *("first", "second", "m0", "m1", "m2")
        }
        nobodys = client.start("unknown")
        assert "no worker takes it" in nobodys.pause().text
        assert nobodys.resume().status is InstanceStatus.PENDING
        waits = client.start(asks)
        waits.signal("answer", b"yes")
        assert client.get(waits.id, asks).result(timeout=30) == "yes"
        cancelled = client.start(asks)
        cancelled.cancel()
        with pytest.raises(InstanceFailed, match="cancelled"):
            cancelled.result(timeout=30)


def test_a_timeout(client: blocking.Client) -> None:
    handle = client.start(order, 1)
    with pytest.raises(TimeoutError, match=r"has not ended within 0\.01 s"):
        handle.result(timeout=0.01)
    assert handle.status() is InstanceStatus.PENDING


def test_four_threads(client: blocking.Client, url: str) -> None:
    def sell(number: int) -> list[str]:
        handles = [client.start(order, number, id=f"{number}-{n}") for n in range(5)]
        return [one.result(timeout=30) for one in handles]

    with working(url, order), ThreadPoolExecutor(4) as threads:
        for number, results in enumerate(threads.map(sell, range(4), timeout=60)):
            assert results == [f"{number} of {number}-{n}" for n in range(5)]


def test_starts_are_made_in_the_callers_thread(client: blocking.Client) -> None:
    def starts() -> Iterator[Start[int]]:
        made_in.append(threading.current_thread())
        yield Start(args=(1,))

    made_in: list[threading.Thread] = []
    client.start_many(order, starts())
    assert made_in == [threading.current_thread()]


def test_the_end(url: str) -> None:
    with the_thread_ends():
        with blocking.open_client(SdkConfig(store=url, tenant_id="t")) as client:
            handle = client.start(order, 1)
            assert len(threads_of("blocking.open_client")) == 1
    for after in (lambda: client.start(order, 1), handle.status, handle.result):
        with pytest.raises(SdkError, match="the client is closed: open another one"):
            after()


def test_a_body_that_raises(url: str) -> None:
    with the_thread_ends(), pytest.raises(ValueError, match="mine"):
        with blocking.open_client(url, tenant_id="t"):
            raise ValueError("mine")


def test_who_waits_when_it_ends_is_told(url: str) -> None:
    forever = Forever()
    with the_thread_ends(), ThreadPoolExecutor(1) as threads:
        with blocking.open_client(url, tenant_id="t") as client:
            waits = threads.submit(call, client, forever)
            assert forever.began.wait(30)
        with pytest.raises(SdkError, match="the client was closed before the call had ended"):
            waits.result(timeout=30)
    assert forever.cancelled.is_set()


@pytest.mark.parametrize(
    "error", [ValueError("mine"), SystemExit(3), ExceptionGroup("", [OSError()])]
)
def test_an_error_is_the_callers(client: blocking.Client, error: BaseException) -> None:
    async def fails() -> None:
        raise error

    with pytest.raises(type(error)) as raised:
        call(client, fails)
    assert raised.value is error
    assert client.list_workers() == ()


def test_a_store_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("no database, but a text that is long enough" * 100)
    with the_thread_ends(), pytest.raises(StoreError, match=r"text\.db"):
        with blocking.open_client(f"sqlite:///{tmp_path}/text.db", tenant_id="t") as client:
            client.list_workers()
    with the_thread_ends(), pytest.raises(StoreError, match="absent"):
        with blocking.open_client(f"sqlite:///{tmp_path}/absent/a.db", tenant_id="t") as client:
            client.list_workers()


def test_a_client_that_cannot_be_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "runtara_trio.store.postgres.backend", None)
    with the_thread_ends(), pytest.raises(ConfigError, match="needs psycopg"):
        with blocking.open_client("postgresql://127.0.0.1/shop", tenant_id="t"):
            raise AssertionError


async def test_an_open_backend(memory: SharedBackend) -> None:
    def opens() -> None:
        with blocking.open_client(memory, tenant_id="t"):  # type: ignore[arg-type]
            pass

    with pytest.raises(ConfigError, match=r"needs the URL of a store.*belongs to one Trio run"):
        await trio.to_thread.run_sync(opens)
    with pytest.raises(SdkError, match="a Trio task must not block"):
        opens()


@pytest.mark.parametrize(
    ("target", "options", "error", "text"),
    [
        (":memory:", {"tenant_id": "t"}, ConfigError, "alone with it: give the URL of a file"),
        ("quic://localhost", {"tenant_id": "t"}, NotSupported, "needs the store itself"),
        ("sqlite:///a.db", {}, ConfigError, "tenant_id"),
        (7, {"tenant_id": "t"}, ConfigError, "needs the URL of a store"),
    ],
)
def test_what_is_refused(
    target: Any, options: dict[str, str], error: type[SdkError], text: str
) -> None:
    with the_thread_ends(), pytest.raises(error, match=text):
        with blocking.open_client(target, **options):
            pass


def test_ctrl_c(url: str) -> None:
    """It leaves the call at once, and cancels it on the other side."""
    forever = Forever()
    mine = threading.current_thread()

    async def interrupted() -> None:
        await until(lambda: waits_for_a_future(mine))
        assert mine.ident is not None
        signal.pthread_kill(mine.ident, signal.SIGINT)
        await forever()

    with the_thread_ends():
        with blocking.open_client(url, tenant_id="t") as client:
            with pytest.raises(KeyboardInterrupt):
                call(client, interrupted)
            assert forever.cancelled.wait(30)
            assert client.list_workers() == ()
        with pytest.raises(KeyboardInterrupt):
            with blocking.open_client(url, tenant_id="t") as client:
                call(client, interrupted)


def test_in_a_program(url: str) -> None:
    """It needs no asyncio; a copy of the process is told; what is never left ends with it."""
    program = f"""
import os, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of os.fork, from 3.12 on
from runtara_trio import SdkError, blocking
with blocking.open_client({url!r}, tenant_id="t") as client:
    assert "asyncio" not in sys.modules
    client.start("order", 1)
    sys.stdout.flush()
    child = os.fork()
    if not child:
        try:
            client.list_workers()
        except SdkError as exc:
            print(exc)
assert not child or os.waitpid(child, 0)[1] == 0
if child:
    left = blocking.open_client({url!r}, tenant_id="t")
    left.__enter__().list_workers()
    print("end")
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], check=True, timeout=60, capture_output=True, text=True
    )
    assert ran.stdout.splitlines() == [
        "the client's thread is not in this process: open it after the fork",
        "end",
    ]
    assert not ran.stderr


@pytest.mark.parametrize("front", [blocking, aio])
@pytest.mark.parametrize("name", ["Client", "InstanceHandle"])
def test_the_methods_are_the_same(front: Any, name: str) -> None:
    theirs, mine = getattr(runtara_trio, name), getattr(front, name)
    methods = {one for one, _ in inspect.getmembers(theirs, callable) if one[0] != "_"}
    assert methods == {one for one, _ in inspect.getmembers(mine, callable) if one[0] != "_"}
    for method in methods:
        original, same = getattr(theirs, method), getattr(mine, method)
        if front is aio:
            assert inspect.iscoroutinefunction(original) == inspect.iscoroutinefunction(same)
        else:
            assert not inspect.iscoroutinefunction(same)
        if method not in ("start", "start_many"):  # they hand their options on
            parameters = list(inspect.signature(same).parameters)
            assert parameters == list(inspect.signature(original).parameters)


def test_the_options_of_a_start_are_the_same() -> None:
    parameters = inspect.signature(runtara_trio.Client.start).parameters.values()
    options = {one.name: one for one in parameters if one.kind is one.KEYWORD_ONLY}
    assert options.keys() == StartOptions.__annotations__.keys()
