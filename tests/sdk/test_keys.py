"""The checkpoint ids of durable calls: what tells two calls apart, and what does not."""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from math import inf, nan
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
import pytest
from trio.testing import MockClock

from runtara_trio import ConfigError, SdkError, SharedBackend, durable, open_backend

from ..helpers.support import block
from ..helpers.support import checkpoint_ids as ids

pytestmark = pytest.mark.core


class Receipt(msgspec.Struct):
    id: str
    cents: int


@dataclass(frozen=True)
class Email:
    to: str


@dataclass(frozen=True)
class Sms:
    to: str


class EmailStruct(msgspec.Struct):
    to: str


class SmsStruct(msgspec.Struct):
    to: str


class Box(msgspec.Struct):
    value: Any


class Colour(enum.Enum):
    RED = "red"


class Paint(enum.StrEnum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


class Size(enum.Enum):
    LOW = 1


class Spot(NamedTuple):
    x: int
    y: int


class Extent(NamedTuple):
    x: int
    y: int


class TestKeys:
    async def key(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
        """What a call is saved under."""
        async with open_backend(":memory:") as backend:
            async with block(backend):
                await function(*args, **kwargs)
            (only,) = await ids(backend)
            return only

    async def test_the_default(self) -> None:
        @durable
        async def f(a: Any, b: Any = 2, *rest: Any, **named: Any) -> None: ...

        @durable
        async def one(a: Any) -> None: ...

        @durable
        async def none() -> None: ...

        assert await self.key(one, "order-7") == "durable::one::order-7"
        assert await self.key(one, "a/b:c%") == "durable::one::a%2Fb%3Ac%25"
        assert await self.key(one, "") == "durable::one::"
        assert await self.key(one, "[1]") == 'durable::one::["[1]"]'
        assert await self.key(one, '{"a"') == r'durable::one::["{\"a\""]'
        assert await self.key(one, '"') == r'durable::one::["\""]'
        assert await self.key(one, 7) == "durable::one::[7]"
        assert await self.key(one, "7") == "durable::one::7"
        assert await self.key(one, None) == "durable::one::[null]"
        assert await self.key(one, [1, {"b": None}]) == 'durable::one::[[1,{"b"%3Anull}]]'
        assert await self.key(none) == "durable::none::[]"
        assert await self.key(f, 1) == "durable::f::[1,2,[],{}]"
        assert await self.key(f, 1, 2) == "durable::f::[1,2,[],{}]"
        assert await self.key(f, 1, 3, 4, z=5) == 'durable::f::[1,3,[4],{"z"%3A5}]'

    @pytest.mark.parametrize(
        "values",
        [
            (Email("ana"), Sms("ana"), {"to": "ana"}),
            (EmailStruct("ana"), SmsStruct("ana")),
            (Colour.RED, Paint.RED, "red"),
            (Level.LOW, Size.LOW, 1),
            (b"hi", "aGk="),
            ({Paint.RED: "a"}, {"red": "a"}),
            ({1, 2}, [1, 2]),
            (Spot(1, 2), Extent(1, 2), (1, 2)),
            (date(2026, 1, 2), "2026-01-02", datetime(2026, 1, 2), "2026-01-02T00:00:00"),
            (Decimal("1.5"), "1.5", 1.5),
            (UUID(int=5), str(UUID(int=5))),
            (timedelta(seconds=1), "PT1S"),
            (True, 1, 1.0),
        ],
    )
    @pytest.mark.parametrize(
        "around",
        [
            lambda value: value,
            lambda value: [0, value],
            lambda value: {"in": {"it": value}},
            lambda value: Box(value),
        ],
    )
    async def test_types_tell_calls_apart(
        self, memory: SharedBackend, values: tuple[Any, ...], around: Any
    ) -> None:
        got = []

        @durable
        async def notify(message: Any) -> str:
            got.append(message)
            return f"sent {len(got)}"

        for number in (1, 2):
            async with block(memory) as sdk:
                for count, value in enumerate(values, 1):
                    assert await notify(around(value)) == f"sent {count}"
                assert len(got) == len(values)
                if number == 1:
                    await sdk.suspended()

    async def test_the_places_of_types_count(self) -> None:
        @durable
        async def f(*messages: Any) -> None: ...

        a, b = Email("ana"), {"to": "ana"}
        assert await self.key(f, a, b) != await self.key(f, b, a)
        assert await self.key(f, {"x": a, "y": b}) == await self.key(f, {"y": b, "x": a})

    @pytest.mark.parametrize(
        "value",
        [
            {1: "a"},
            {"red", Colour.RED},
            nan,
            [nan],
            {"a": {"b": inf}},
            Box(nan),
            (1, -inf),
            Box({"c": [nan]}),
        ],
    )
    async def test_what_cannot_be_told_apart_is_refused(self, value: Any) -> None:
        @durable
        async def f(value: Any) -> None: ...

        with pytest.raises(TypeError, match=r"argument 'value' of the durable .* key="):
            await self.key(f, value)

    async def test_types_of_one_name(self, memory: SharedBackend) -> None:
        @durable
        async def f(value: Any) -> None: ...

        other = type("Email", (msgspec.Struct,), {"__annotations__": {}, "__module__": "elsewhere"})
        async with block(memory):
            await f(Email("ana"))
            with pytest.raises(SdkError, match=r"two types called 'Email', of .* and of elsewhere"):
                await f(other())

    async def test_a_key_that_ends_as_a_retry_is_refused(self, memory: SharedBackend) -> None:
        @durable(key="{a}")
        async def f(a: str) -> str:
            return a

        async with block(memory):
            assert await f("x::retry::y") == "x::retry::y"
            with pytest.raises(ConfigError, match="ends as the record of a retry"):
                await f("x::retry::1")

    async def test_of_a_format_string(self) -> None:
        @durable(key="{order.id}-{n:03}")
        async def f(order: Receipt, n: int = 7) -> None: ...

        assert await self.key(f, Receipt("a:b", 1)) == "durable::f::a:b-007"

    async def test_of_a_callable(self) -> None:
        @durable(key=lambda order, n: f"{order.id}/{n}")
        async def f(order: Receipt, n: int) -> None: ...

        assert await self.key(f, Receipt("a", 1), n=2) == "durable::f::a/2"

    async def test_of_a_name(self) -> None:
        @durable(name="charge:v2")
        async def f() -> None: ...

        assert await self.key(f) == "durable::charge%3Av2::[]"

    async def test_that_is_too_long_gets_a_digest(self) -> None:
        @durable
        async def f(a: str) -> None: ...

        long, other = await self.key(f, "é" * 2000), await self.key(f, "é" * 2001)
        assert long.startswith("durable::f::éé")
        assert len(long.encode()) <= 1024
        assert len(long.rpartition("~")[2]) == 64
        assert long != other

    async def test_that_cannot_be_made(self, memory: SharedBackend) -> None:
        @durable
        async def plain(thing: Any) -> None: ...

        @durable(key="{thing.id}")
        async def formatted(thing: Any) -> None: ...

        @durable(key=lambda thing: 7)  # type: ignore[arg-type, return-value]
        async def called(thing: Any) -> None: ...

        async with block(memory):
            with pytest.raises(TypeError, match=r"'thing' of .* plain, a object, .*key="):
                await plain(object())
            with pytest.raises(ConfigError, match=r"key of formatted, '\{thing.id\}', cannot be"):
                await formatted(object())
            with pytest.raises(ConfigError, match="key of called returned 7"):
                await called(object())
            with pytest.raises(TypeError, match="missing a required argument: 'thing'"):
                await plain()
            with pytest.raises(ConfigError, match="NUL"):
                await plain("a\0")
            with pytest.raises(TypeError, match="only finite numbers"):
                await plain(float("nan"))
        assert await ids(memory) == []


class TestFormerKeys:
    """What an earlier version has stored is not done again."""

    async def test_a_parameter_with_a_default_was_added(self, memory: SharedBackend) -> None:
        ran = []

        def version(number: int) -> Any:
            async def charge(order: str, *, currency: str = "EUR", tip: int = 0) -> str:
                ran.append(number)
                return f"version {number}"

            async def charge_1(order: str) -> str:
                ran.append(number)
                return f"version {number}"

            async def charge_2(order: str, *, currency: str = "EUR") -> str:
                ran.append(number)
                return f"version {number}"

            return durable(name="charge")({1: charge_1, 2: charge_2, 3: charge}[number])

        for number in (1, 2, 3):
            async with block(memory) as sdk:
                assert await version(number)("order-7") == "version 1"
                if number > 1:
                    dollars = await version(number)("order-7", currency="USD")
                    assert dollars == "version 2"
                await sdk.suspended()
        assert ran == [1, 2]

    async def test_failures_and_attempts_count_too(
        self, autojump_clock: MockClock, memory: SharedBackend
    ) -> None:
        ran = []

        @durable(name="f", max_retries=2)
        async def before(a: int) -> None:
            ran.append(1)
            raise ValueError("no")

        @durable(name="f", max_retries=2)
        async def after(a: int, b: int = 2) -> None:
            ran.append(2)
            raise ValueError("no")

        for function in (before, after):
            async with block(memory) as sdk:
                with pytest.raises(ValueError, match="no"):
                    await function(7)
                await sdk.suspended()
        assert ran == [1, 1, 1]

    @pytest.mark.parametrize("value", [Email("ana"), Colour.RED, b"hi", {"s"}])
    async def test_of_0_1_which_knew_no_types(self, memory: SharedBackend, value: Any) -> None:
        @durable
        async def f(value: Any) -> str:
            raise AssertionError("it was done by 0.1")

        key = f"[{msgspec.json.encode(value).decode()}]"
        async with block(memory) as sdk:
            await sdk.checkpoint(f"durable::f::{key.replace(':', '%3A')}", "of 0.1")
            await sdk.suspended()
        async with block(memory):
            assert await f(value) == "of 0.1"

    async def test_another_call_of_this_run_is_not_it(self, memory: SharedBackend) -> None:
        sent = []

        @durable
        async def notify(message: Any) -> str:
            sent.append(message)
            return f"sent {len(sent)}"

        async with block(memory) as sdk:
            assert await notify({"to": "ana"}) == "sent 1"
            await sdk.suspended()
        async with block(memory) as sdk:
            assert await notify({"to": "ana"}) == "sent 1"
            assert await notify(Email("ana")) == "sent 2"
            await sdk.suspended()


class TestNames:
    """Two functions of one name in a block are an error, not one result."""

    def decorated(self, *functions: Any) -> list[Any]:
        def plain(function: Any) -> Any:
            async def wrapper(*args: Any) -> Any:
                return await function(*args)

            return wrapper

        return [durable(plain(function)) for function in functions]

    async def refused(self, memory: SharedBackend, first: Any, second: Any) -> None:
        async with block(memory):
            await first(1)
            with pytest.raises(SdkError, match=r"two durable functions .*name="):
                await second(1)

    async def test_behind_a_decorator_without_wraps(self, memory: SharedBackend) -> None:
        async def net(cents: int) -> int:
            return cents

        async def gross(cents: int) -> int:
            return cents * 119 // 100

        await self.refused(memory, *self.decorated(net, gross))

    async def test_of_one_function_with_other_values(self, memory: SharedBackend) -> None:
        def taxed(percent: int) -> Any:
            @durable
            async def price(cents: int) -> int:
                return cents * (100 + percent) // 100

            return price

        await self.refused(memory, taxed(7), taxed(19))

    async def test_of_one_source_and_ids_that_do_not_meet(self, memory: SharedBackend) -> None:
        """In a map, in a loop: they share nothing."""
        ran = []

        async def handle(order: str) -> None:
            @durable
            async def charge(n: int) -> str:
                ran.append(order)
                return order

            assert await charge(1) == order

        async with block(memory) as sdk:
            async with sdk.map(handle, ["a", "b"]) as results:
                async for _ in results:
                    pass
            for step in range(3):

                @durable
                async def one(n: int) -> int:
                    return n * 10 + step  # noqa: B023

                assert await one(step) == step * 11
        assert sorted(ran) == ["a", "b"]

    async def test_of_one_method_of_two_partials(self, memory: SharedBackend) -> None:
        async def price(percent: int, cents: int) -> int:
            return cents * (100 + percent) // 100

        first, second = (functools.partial(price, percent) for percent in (7, 19))
        await self.refused(memory, *self.decorated(first, second))

    async def test_the_same_made_anew_is_the_same(self, memory: SharedBackend) -> None:
        calls = 0

        def made(database: object) -> Any:
            count = 0

            @durable
            async def f(n: int) -> bool:
                nonlocal calls, count
                calls += 1
                count += 1
                return database is not None

            return f

        async with block(memory):
            for _ in range(3):
                assert await made(object())(1) is True
        assert calls == 1
