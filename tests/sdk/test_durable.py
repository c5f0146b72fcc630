"""``@durable``: keys, results, saves and shared runs."""

from __future__ import annotations

import enum
import functools
import threading
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, TypedDict

import msgspec
import pytest
import trio
from trio.testing import MockClock

from runtara_trio import (
    CodecError,
    ConfigError,
    Outcome,
    SdkError,
    SharedBackend,
    StoreError,
    current_sdk,
    durable,
    open_backend,
)
from runtara_trio.messages import Checkpoint, GetCheckpoint, ReadCheckpoints

from ..helpers.support import Watched, block
from ..helpers.support import checkpoint_ids as ids

pytestmark = pytest.mark.core


class Receipt(msgspec.Struct):
    id: str
    cents: int


@dataclass
class Point:
    x: int
    y: int = 0


class Movie(TypedDict):
    title: str
    year: int


class Colour(enum.Enum):
    RED = "red"


async def test_it_runs_once_over_all_runs(backend: SharedBackend) -> None:
    ran = []

    @durable
    async def charge(order: str, cents: int) -> Receipt:
        ran.append(order)
        return Receipt(current_sdk().step_key, cents)

    for _ in range(3):
        async with block(backend) as sdk:
            receipt = await charge("order-7", 1999)
            assert receipt == Receipt('i/durable::charge::["order-7",1999]', 1999)
            assert await charge("order-7", cents=1999) == receipt  # the same call
            await sdk.suspended()
    assert ran == ["order-7"]


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (None, None),
        (int, 7),
        (str, "a\nb"),
        (bytes, b"\0\xff"),
        (bytes, b""),
        (bytes | None, None),
        (bytes | None, b"null"),
        (int | bytes, b"7"),
        (Receipt, Receipt("a", 1)),
        (Receipt | None, None),
        (Point, Point(1, 2)),
        (Movie, {"title": "M", "year": 1931}),
        (list[Point], [Point(1)]),
        (dict[str, datetime], {"at": datetime(2026, 1, 2, tzinfo=UTC)}),
        (tuple[int, str], (1, "a")),
        (set[int], {1, 2}),
        (Colour, Colour.RED),
        (date, date(2026, 1, 2)),
        (timedelta, timedelta(seconds=5)),
        (Any, [1, {"a": None}]),
    ],
)
async def test_a_result_comes_back_as_annotated(
    backend: SharedBackend, annotation: Any, value: Any
) -> None:
    async def work() -> Any:
        return value

    work.__annotations__["return"] = annotation
    saved = durable(work)
    for _ in range(2):
        async with block(backend) as sdk:
            result = await saved()
            assert result == value
            assert type(result) is type(value)
            await sdk.suspended()


async def test_without_an_annotation_it_is_plain_json(backend: SharedBackend) -> None:
    @durable
    async def work():  # type: ignore[no-untyped-def]
        return Receipt("a", 1)

    async with block(backend):
        assert await work() == {"id": "a", "cents": 1}  # in the first run as in a replay


async def test_a_sync_function_runs_in_a_thread(backend: SharedBackend) -> None:
    @durable
    def compute(n: int) -> int:
        assert threading.current_thread() is not threading.main_thread()
        assert current_sdk().step_key == "i/durable::compute::[7]"
        return n * n

    for _ in range(2):
        async with block(backend) as sdk:
            assert await compute(7) == 49
            await sdk.suspended()


async def test_methods_leave_self_out(backend: SharedBackend) -> None:
    class Bank:
        def __init__(self, name: str) -> None:
            self.name = name

        @durable
        async def balance(self, account: str) -> str:
            return f"{self.name}: {account}"

        @durable(key="{self.name}/{account}", name="Bank.open")
        async def open(self, account: str) -> None:
            pass

        @staticmethod
        @durable
        async def rate(currency: str) -> float:
            return 1.5

        @classmethod
        @durable
        async def found(cls, name: str) -> str:
            return cls(name).name

    async with block(backend) as sdk:
        bank = Bank("north")
        assert await bank.balance("a") == "north: a"
        await bank.open("a")
        assert await bank.rate("EUR") == 1.5
        assert await Bank.found("south") == "south"
        for name in (
            "balance::a",
            "Bank.open::north/a",
            "rate::EUR",
            "found::south",
        ):
            assert await sdk.get_checkpoint(f"durable::{name}") is not None, name


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"key": "{nothing}"}, "names 'nothing', which is not one of its parameters: a"),
        ({"key": "{a"}, "not a format string"),
        ({"key": 7}, "format string or a callable, not 7"),
        ({"name": 7}, "name must be a str"),
        (
            {"max_retries": -1},
            "max_retries of f must be a whole number from 0, or None for ever, not -1",
        ),
        ({"max_retries": True}, "max_retries"),
        ({"delay": -1}, "delay of f must be a finite number"),
        ({"max_delay": float("inf")}, "max_delay of f"),
        ({"timeout": 0}, "timeout of f must be more than 0"),
        ({"retry_on": trio.Cancelled}, "an exception type, which Cancelled is not"),
        ({"retry_on": (ValueError, 7)}, "retry_on of f"),
        ({"on_retry": 7}, "on_retry of f must be callable"),
        ({"flavor": "curio"}, "flavor of f must be 'trio' or 'asyncio', not 'curio'"),
    ],
)
def test_a_wrong_option_is_refused_where_it_stands(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):

        @durable(**options)
        async def f(a: int) -> None: ...


def test_what_cannot_be_durable_is_refused() -> None:
    async def generator() -> Any:
        yield 1

    def sync() -> None: ...

    async def work() -> None: ...

    for wrong, said in (
        (generator, "is a generator"),
        (staticmethod(work), "below @staticmethod"),
        (len, "functions and methods"),
        (7, "functions and methods"),
    ):
        with pytest.raises(ConfigError, match=said):
            durable(wrong)  # type: ignore[call-overload]
    with pytest.raises(ConfigError, match="a thread cannot be ended"):
        durable(timeout=1)(sync)
    with pytest.raises(ConfigError, match="not a coroutine function"):
        durable(flavor="asyncio")(sync)


async def test_outside_a_block_it_is_an_error(memory: SharedBackend) -> None:
    @durable
    async def f() -> None: ...

    with pytest.raises(SdkError, match="no open_runtara block"):
        await f()
    async with block(memory, register=False):
        with pytest.raises(SdkError, match="not registered"):
            await f()


async def test_two_functions_of_one_name_are_an_error(memory: SharedBackend) -> None:
    def make(number: int) -> Any:
        if number == 1:

            @durable
            async def f() -> int:
                return 1
        else:

            @durable
            async def f() -> int:
                return 2

        return f

    async with block(memory):
        assert await make(1)() == 1
        assert await make(1)() == 1  # the same function, made again
        with pytest.raises(SdkError, match=r"two durable functions .* 'f'.*name="):
            await make(2)()


async def test_functions_behind_one_decorator_are_not_one(memory: SharedBackend) -> None:
    def traced(function: Any) -> Any:
        @functools.wraps(function)
        async def call(*args: Any) -> Any:
            return await function(*args)

        return call

    class Bank:
        @durable
        @traced
        async def charge(self) -> str:
            return "bank"

    class Card:
        @durable
        @traced
        async def charge(self) -> str:
            return "card"

    async with block(memory):
        assert await Bank().charge() == "bank"
        with pytest.raises(SdkError, match="two durable functions"):
            await Card().charge()


class Unknown:
    """Nothing that JSON knows."""


class TestResultsThatCannotBe:
    async def test_known_from_the_annotation_before_it_runs(self, memory: SharedBackend) -> None:
        ran = []

        @durable
        async def f() -> list[Unknown]:
            ran.append(1)
            return []

        @durable
        async def g() -> "Nothing":  # type: ignore[name-defined]  # noqa: F821, UP037
            ran.append(1)

        async with block(memory):
            with pytest.raises(CodecError, match=r"durable function f cannot run.*Unknown"):
                await f()
            with pytest.raises(ConfigError, match="return annotation of the durable function g"):
                await g()
        assert ran == []

    async def test_no_encoding(self, memory: SharedBackend) -> None:
        @durable(max_retries=0)
        async def f(n: str) -> Any:
            return Unknown()

        async with block(memory):
            with pytest.raises(CodecError, match=r"durable function f \('durable::f::a'\)"):
                await f("a")
        assert await ids(memory) == []

    async def test_another_type_than_annotated(self, memory: SharedBackend) -> None:
        @durable
        async def f() -> int:
            return "seven"  # type: ignore[return-value]

        @durable
        async def g() -> bytes:
            return "seven"  # type: ignore[return-value]

        @durable
        async def h() -> str:
            return b"seven"  # type: ignore[return-value]

        async with block(memory):
            with pytest.raises(CodecError, match="durable function f"):
                await f()
            with pytest.raises(CodecError, match="is a str, not bytes as annotated"):
                await g()
            with pytest.raises(CodecError, match="-> bytes"):
                await h()

    async def test_too_large(self, memory: SharedBackend, monkeypatch: Any) -> None:
        monkeypatch.setattr("runtara_trio.codec.codec.MAX_STATE", 1000)

        @durable
        async def f() -> bytes:
            return b"x" * 1001

        async with block(memory):
            with pytest.raises(ConfigError, match=r"durable function f .*1001 bytes, at most 1000"):
                await f()


async def test_a_failed_save_raises(memory: SharedBackend) -> None:
    watched = Watched(memory)
    watched.before = lambda message: (
        StoreError("disk full") if isinstance(message, Checkpoint) else None
    )
    ran = []

    @durable
    async def f() -> None:
        ran.append(1)

    async with open_backend(watched) as shared, block(shared):
        with pytest.raises(StoreError, match="disk full"):
            await f()
    assert ran == [1]  # and a failed save is no reason to do the work again


async def test_an_error_is_the_functions_own(memory: SharedBackend) -> None:
    error = KeyError("own")

    @durable(max_retries=0)
    async def f() -> None:
        raise error

    async with block(memory):
        with pytest.raises(KeyError) as caught:
            await f()
        assert caught.value is error
    assert await ids(memory) == ["runtara_trio::failure::durable::f::[]"]


class TestSharing:
    async def test_two_tasks_share_a_run(
        self, autojump_clock: MockClock, memory: SharedBackend
    ) -> None:
        ran = []
        got = []

        @durable
        async def f(name: str) -> int:
            ran.append(name)
            await trio.sleep(1)
            return len(ran)

        async def call() -> None:
            got.append(await f("a"))

        async with block(memory), trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(call)
        assert ran == ["a"]
        assert got == [1, 1, 1]

    async def test_and_its_error(self, autojump_clock: MockClock, memory: SharedBackend) -> None:
        caught = []

        @durable(max_retries=0)
        async def f() -> None:
            await trio.sleep(1)
            raise KeyError

        async def call() -> None:
            try:
                await f()
            except KeyError as exc:
                caught.append(exc)

        async with block(memory), trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(call)
        assert len(caught) == 3
        assert caught[0] is caught[1] is caught[2]

    async def test_one_who_waits_goes_on_for_one_who_was_cancelled(
        self, autojump_clock: MockClock, memory: SharedBackend
    ) -> None:
        ran = []
        got = []

        @durable
        async def f() -> str:
            ran.append(trio.current_time())
            await trio.sleep(10)
            return "done"

        async def call(seconds: float) -> None:
            with trio.move_on_after(seconds):
                got.append(await f())

        async with block(memory), trio.open_nursery() as nursery:
            nursery.start_soon(call, 3)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(call, 100)
        assert len(ran) == 2
        assert ran[1] - ran[0] == 3
        assert got == ["done"]

    async def test_a_call_that_waits_for_itself_is_an_error(
        self, autojump_clock: MockClock, memory: SharedBackend
    ) -> None:
        @durable(max_retries=0)
        async def f(n: int) -> int:
            return await f(n)

        @durable(max_retries=0)
        async def g(n: int) -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(g, n)

        @durable(max_retries=0)
        async def a() -> None:
            await trio.sleep(1)
            await b()

        @durable(max_retries=0)
        async def b() -> None:
            await trio.sleep(2)
            await a()

        async with block(memory):
            with pytest.raises(SdkError, match="'durable::f::\\[7\\]' waits for itself"):
                await f(7)
            with pytest.RaisesGroup(pytest.RaisesExc(SdkError, match="waits for itself")):
                await g(7)
            with pytest.RaisesGroup(SdkError, SdkError):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(a)
                    nursery.start_soon(b)

    async def test_another_key_from_inside_is_fine(self, backend: SharedBackend) -> None:
        @durable
        async def factorial(n: int) -> int:
            return 1 if n == 0 else n * await factorial(n - 1)

        async with block(backend):
            assert await factorial(5) == 120


class TestReplay:
    """What was stored is read in pages, and a new instance has nothing to read."""

    async def run(self, watched: Watched, count: int, *, end: bool = False) -> tuple[int, int]:
        """How often the function ran, and how many reads there were."""
        ran = []

        @durable
        async def f(n: int) -> str:
            ran.append(n)
            return f"result {n}"

        watched.requests.clear()
        async with open_backend(watched) as shared, block(shared) as sdk:
            for n in range(count):
                assert await f(n) == f"result {n}"
            if not end:
                await sdk.suspended()
        return len(ran), len(watched.sent(GetCheckpoint)) + len(watched.sent(ReadCheckpoints))

    async def test_reads(self, memory: SharedBackend) -> None:
        watched = Watched(memory)
        assert await self.run(watched, 2500) == (2500, 0)
        assert await self.run(watched, 2600) == (100, 4)  # of results, and of failures
        ran, reads = await self.run(watched, 2600, end=True)
        assert ran == 0
        assert reads <= 6  # those of the look for ids that were not visited among them

    async def test_large_states_are_not_kept_all(
        self, memory: SharedBackend, monkeypatch: Any
    ) -> None:
        monkeypatch.setattr("runtara_trio.engine.stored.PAGE_BYTES", 1000)
        monkeypatch.setattr("runtara_trio.engine.stored.MOST_BYTES", 5000)
        ran = []

        @durable
        async def f(n: int) -> bytes:
            ran.append(n)
            return b"%100d" % n

        order = list(range(100))
        for _ in range(2):
            async with block(memory) as sdk:
                for n in order:
                    assert await f(n) == b"%100d" % n
                await sdk.suspended()
            order.reverse()  # the last ones first: pages are read, and not asked for yet
        assert len(ran) == 100

    async def test_a_call_twice_in_one_run(self, backend: SharedBackend) -> None:
        ran = []

        @durable
        async def f() -> int:
            ran.append(1)
            return 7

        for _ in range(2):
            async with block(backend) as sdk:
                for _ in range(3):
                    assert await f() == 7
                await sdk.suspended()
        assert ran == [1]


async def test_a_cancelled_call_keeps_what_it_has_done(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    effects = []

    @durable
    async def f() -> str:
        effects.append(1)
        current_scope.cancel()  # from now on every await that can be cancelled is
        return "done"

    async with block(memory) as sdk:
        with trio.CancelScope() as current_scope:
            assert await f() == "done"
            await trio.lowlevel.checkpoint()
            raise AssertionError("the cancel comes at the next await")
        assert await f() == "done"
        assert effects == [1]
        assert await sdk.get_checkpoint("durable::f::[]", str) == "done"
    assert sdk.outcome is Outcome.COMPLETED
