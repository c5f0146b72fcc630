"""What was saved is handed out, in the first run as in a replay, however late it came."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import psycopg
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from runtara_trio import (
    Operator,
    Outcome,
    RuntaraSdk,
    SdkConfig,
    SharedBackend,
    Signal,
    SignalType,
    durable,
    open_backend,
)
from runtara_trio.backend import SignalBatch
from runtara_trio.messages import Checkpoint, ReplyT, Request
from runtara_trio.tasks import GRACE, Answer

from ..helpers.places import Shared
from ..helpers.support import Wall, Watched, block

DAY = 86400.0


async def late(seconds: float) -> str:
    """Work that no scope interrupts, as a call in a thread."""
    with trio.CancelScope(shield=True):
        await trio.sleep(seconds)
    return "receipt"


@durable
async def charge(seconds: float) -> str:
    return await late(seconds)


async def twice(
    backend: Any, program: Callable[[RuntaraSdk], Any], *, between: float = DAY, **options: Any
) -> list[Any]:
    """What a program returns in its first run, and in a replay a day later."""
    found = []
    for _ in range(2):
        async with block(backend, **options) as sdk:
            found.append(await program(sdk))
            await sdk.suspended()
        await trio.sleep(between)
    return found


@asynccontextmanager
async def durable_deadline(sdk: RuntaraSdk, seconds: float) -> AsyncIterator[None]:
    async with sdk.deadline("soon", seconds):
        yield


@asynccontextmanager
async def plain_timeout(sdk: RuntaraSdk, seconds: float) -> AsyncIterator[None]:
    with trio.move_on_after(seconds):
        yield


limits = pytest.mark.parametrize("limited", [durable_deadline, plain_timeout])


@limits
async def test_a_durable_call(
    autojump_clock: MockClock, memory: SharedBackend, limited: Any
) -> None:
    async def program(sdk: RuntaraSdk) -> str | None:
        receipt = None
        async with limited(sdk, 5):
            receipt = await charge(10)
        return receipt

    assert await twice(memory, program) == ["receipt", "receipt"]


@limits
async def test_a_nested_call(
    autojump_clock: MockClock, memory: SharedBackend, limited: Any
) -> None:
    @durable
    async def order() -> str:
        return "for " + await charge(10)

    async def program(sdk: RuntaraSdk) -> str | None:
        result = None
        async with limited(sdk, 5):
            result = await order()
        return result

    assert await twice(memory, program) == ["for receipt", "for receipt"]


async def test_the_cancel_comes_at_the_next_await(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    async def program(sdk: RuntaraSdk) -> tuple[str | None, bool]:
        receipt, went_on = None, False
        async with sdk.deadline("soon", 5) as scope:
            receipt = await charge(10)
            await sdk.checkpoint("next")
            went_on = True
        assert scope.cancelled_caught
        return receipt, went_on

    assert await twice(memory, program) == [("receipt", False)] * 2


@asynccontextmanager
async def slow(url: str, seconds: float) -> AsyncIterator[None]:
    """A store in which somebody else has locked all for a while."""

    def lock() -> Any:
        if url.startswith("sqlite"):
            other: Any = sqlite3.connect(
                url.removeprefix("sqlite:///"), isolation_level=None, check_same_thread=False
            )
            other.execute("BEGIN IMMEDIATE")
        else:
            other = psycopg.connect(url)
            other.execute("SELECT 1 FROM instances FOR UPDATE")
        return other

    other = await trio.to_thread.run_sync(lock)

    async def unlock() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(seconds)
            await trio.to_thread.run_sync(other.close)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(unlock)
        yield


@pytest.mark.direct
@limits
@pytest.mark.parametrize("what", ["checkpoint", "signal"])
async def test_what_a_slow_store_has_saved(shared: Shared, limited: Any, what: str) -> None:
    async with open_backend(shared.url) as backend:

        async def program(sdk: RuntaraSdk, *, first: bool) -> bytes | None:
            saved = None
            async with AsyncExitStack() as around:
                if first:
                    await sdk.checkpoint("before")
                await around.enter_async_context(limited(sdk, 0.2 if first else 10))
                if first:
                    await around.enter_async_context(slow(shared.url, 0.5))
                if what == "checkpoint":
                    saved = (await sdk.checkpoint("mark", b"yes")).decode(bytes)
                else:
                    saved = await sdk.wait_for_signal("approve")
            return saved

        async with block(backend) as sdk:
            await sdk.suspended()
        await Operator(backend).send_signal("i", "approve", b"yes")
        for first in (True, False):
            async with block(backend) as sdk:
                assert await program(sdk, first=first) == b"yes"
                await sdk.suspended()


async def test_a_backend_that_is_gone_keeps_nobody_for_long(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    class Silent(Watched):
        async def request(self, message: Request[ReplyT], /) -> ReplyT:
            if isinstance(message, Checkpoint):
                await Answer().wait(grace=GRACE)  # as a store waits, or a client
            return await super().request(message)

    async with open_backend(Silent(memory)) as shared, block(shared) as sdk:
        started = trio.current_time()
        with trio.move_on_after(5) as scope:
            await sdk.checkpoint("never")
        assert scope.cancelled_caught
        assert trio.current_time() - started == 6


async def test_a_signal_that_does_not_come_is_cancelled(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    async def program(sdk: RuntaraSdk) -> bool:
        async with sdk.deadline("soon", 5) as scope:
            await sdk.wait_for_signal("approve")
        return scope.cancelled_caught

    assert await twice(memory, program) == [True, True]


@limits
async def test_the_children_of_a_map(
    autojump_clock: MockClock, memory: SharedBackend, limited: Any
) -> None:
    async def program(sdk: RuntaraSdk) -> list[str]:
        got: list[str] = []
        async with limited(sdk, 5), sdk.map(charge, [1, 2, 10, 11], limit=4) as results:
            async for result in results:
                got.append(result)  # noqa: PERF401 - what comes before the cancel counts
        return got

    first, again = await twice(memory, program)
    assert first == again == ["receipt"] * 4


async def test_a_map_whose_taker_alone_is_cancelled_goes_on(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    got = []
    async with block(memory) as sdk, sdk.map(charge, [3, 4], limit=2) as results:
        with trio.move_on_after(1) as scope:
            async for result in results:
                got.append(result)  # noqa: PERF401
        assert (got, scope.cancelled_caught, trio.current_time()) == ([], True, 1)
        got = [result async for result in results]
    assert got == ["receipt", "receipt"]


@pytest.mark.parametrize(("seconds", "in_time"), [(10, False), (3, True)])
async def test_a_sleep_was_slept_where_it_ended_before_the_deadline(
    autojump_clock: MockClock, memory: SharedBackend, seconds: float, in_time: bool
) -> None:
    async def program(sdk: RuntaraSdk) -> bool:
        slept = False
        async with sdk.deadline("soon", 5):
            await sdk.sleep(seconds, "nap")
            slept = True
            await sdk.sleep(10, "long nap")
        return slept

    assert await twice(memory, program) == [in_time, in_time]


@limits
async def test_a_deadline_that_passes_during_a_hold(
    autojump_clock: MockClock, memory: SharedBackend, limited: Any
) -> None:
    got: list[str] = []
    operator = Operator(memory)
    async with block(memory, on_pause="hold") as sdk, trio.open_nursery() as nursery:

        async def work() -> None:
            async with limited(sdk, 5):
                got.append(await charge(1))

        nursery.start_soon(work)
        await wait_all_tasks_blocked()
        await operator.pause("i")
        await trio.sleep(10)  # held behind the call, and the deadline passes
        await operator.resume("i")
    assert (got, sdk.outcome) == (["receipt"], Outcome.COMPLETED)


@pytest.mark.parametrize("stop", ["cancel", "around"])
async def test_clean_up_knows_what_was_done(
    autojump_clock: MockClock, memory: SharedBackend, stop: str
) -> None:
    receipts = []
    with trio.CancelScope() as around:
        async with block(memory) as sdk, trio.open_nursery() as nursery:

            async def work() -> None:
                receipts.append(await charge(2))
                await trio.sleep_forever()

            nursery.start_soon(work)
            await wait_all_tasks_blocked()
            if stop == "cancel":
                await Operator(memory).cancel("i")
            else:
                around.cancel()
    assert receipts == ["receipt"]
    assert sdk.outcome is (Outcome.CANCELLED if stop == "cancel" else Outcome.STOPPED)


async def test_in_a_step_such_a_backend_keeps_nobody_beyond_the_final_timeout(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    class Silent(Watched):
        async def request(self, message: Request[ReplyT], /) -> ReplyT:
            if isinstance(message, Checkpoint):
                await trio.sleep_forever()
            return await super().request(message)

    silent = Silent(memory)
    async with open_backend(silent) as shared:
        async with block(shared, final_timeout=0.5) as sdk, trio.open_nursery() as nursery:
            nursery.start_soon(charge, 0)
            await wait_all_tasks_blocked(0.1)
            silent.push(SignalBatch(signals=(("i", Signal(SignalType.CANCEL)),)))
            started = trio.current_time()
        assert sdk.outcome is Outcome.CANCELLED
        assert trio.current_time() - started <= 1


async def test_an_end_that_was_saved_is_gone_through(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    """The outer deadline passes while a hold keeps the inner one's exit."""
    operator = Operator(memory)
    seen: list[str] = []

    async def program(sdk: RuntaraSdk) -> None:
        async with sdk.deadline("outer", 10):
            async with sdk.deadline("inner", 60):
                await sdk.checkpoint("mark")
                await trio.sleep(0.5)  # the pause is asked meanwhile
            seen.append("inner over")
            await sdk.sleep(DAY, "nap")

    async with block(memory, on_pause="hold") as sdk, trio.open_nursery() as nursery:
        nursery.start_soon(program, sdk)
        await wait_all_tasks_blocked(0.1)
        await operator.pause("i")
        await trio.sleep(20)
        await operator.resume("i")
        await trio.sleep(20)
        nursery.cancel_scope.cancel()
    first, seen = seen, []
    async with block(memory, revive=True) as sdk:
        await program(sdk)
    assert (first, seen) == (["inner over"], ["inner over"])


async def test_a_slow_store_takes_nothing_from_a_replay(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    class Slow(Watched):
        async def request(self, message: Request[ReplyT], /) -> ReplyT:
            await trio.sleep(3)
            return await super().request(message)

    async def program(sdk: RuntaraSdk) -> list[str]:
        seen = []
        async with sdk.deadline("soon", 30) as scope:
            for name in ("one", "two", "three"):
                seen.append(name)
                await sdk.checkpoint(name)
                await charge(0)
            await trio.sleep_forever()
        assert scope.cancelled_caught
        return seen

    async with block(memory) as sdk:
        assert await program(sdk) == ["one", "two", "three"]
        await sdk.suspended()
    await trio.sleep(DAY)
    async with open_backend(Slow(memory)) as slow, block(slow) as sdk:
        assert await program(sdk) == ["one", "two", "three"]


class TestNestedDeadlines:
    """What was cancelled by the inner one, and went on behind it, does so in a replay."""

    @staticmethod
    async def program(sdk: RuntaraSdk, work: Callable[[], Any]) -> tuple[str | None, bool, bool]:
        label = None
        async with sdk.deadline("all", 60) as outer:
            async with sdk.deadline("courier", 10) as inner:
                await work()
            if inner.cancelled_caught:
                label = await charge(1)
            await sdk.sleep(DAY, "delivery")
        return label, inner.cancelled_caught, outer.cancelled_caught

    @pytest.mark.parametrize("stopped_at", [5, 30, 70])
    @pytest.mark.parametrize("works", ["durably", "for something else"])
    async def test_started_again_after_both(
        self, autojump_clock: MockClock, memory: SharedBackend, stopped_at: float, works: str
    ) -> None:
        @durable
        async def durably() -> None:
            await trio.sleep(100)

        async def work() -> None:
            if works == "durably":
                await durably()
            await trio.sleep(100)

        found = None
        with trio.move_on_after(stopped_at):
            async with block(memory) as sdk:
                found = await self.program(sdk, work)
                await sdk.suspended()
        await trio.sleep(DAY)
        async with block(memory) as sdk:
            again = await self.program(sdk, work)
        if stopped_at == 5:  # at 10 nobody ran: then the outer one left no time for the label
            assert again == (None, True, True)
        else:
            assert again == ("receipt", True, True)
        assert found in (None, again)

    async def test_three(self, autojump_clock: MockClock, memory: SharedBackend) -> None:
        async def program(sdk: RuntaraSdk) -> list[str]:
            seen = []
            async with sdk.deadline("a", 100):
                async with sdk.deadline("b", 50):
                    async with sdk.deadline("c", 10):
                        await sdk.wait_for_signal("never")
                    seen.append(await charge(1))
                    await sdk.wait_for_signal("nor this")
                seen.append(await charge(2))
                await sdk.wait_for_signal("nor that")
            seen.append(await charge(3))
            return seen

        assert await twice(memory, program) == [["receipt"] * 3] * 2


async def test_a_deadline_that_the_program_moves_stays_where_it_is(
    autojump_clock: MockClock,
) -> None:
    wall = Wall()
    async with open_backend(SdkConfig(store=":memory:", clock=wall)) as backend:
        async with block(backend) as sdk:
            started = trio.current_time()
            async with sdk.deadline("soon", 100) as scope:
                scope.deadline += 1000
                await trio.sleep(500)
                scope.deadline = trio.current_time() + 5
                await trio.sleep_forever()
            assert trio.current_time() - started == 505
