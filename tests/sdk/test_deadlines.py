"""Durable deadlines: absolute, clean, and the same in a replay."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from runtara_trio import (
    ConfigError,
    Operator,
    Outcome,
    RuntaraSdk,
    SdkConfig,
    SharedBackend,
    current_sdk,
    durable,
    open_backend,
)
from runtara_trio.ids import deadline_id, ended_id

from ..helpers.support import Wall, block
from ..helpers.support import checkpoint_ids as ids


async def test_it_cancels_in_time(autojump_clock: MockClock, memory: SharedBackend) -> None:
    start = trio.current_time()
    async with block(memory) as sdk:
        async with sdk.deadline("soon", 60) as scope:
            assert isinstance(scope, trio.CancelScope)
            await trio.sleep(3600)
        assert scope.cancelled_caught
        assert trio.current_time() - start == pytest.approx(60, abs=0.01)
        async with sdk.deadline("later", 60) as scope:
            await trio.sleep(1)
        assert not scope.cancelled_caught
    assert sdk.outcome is Outcome.COMPLETED


@pytest.mark.unless_http
@pytest.mark.core
async def test_what_is_stored(backend: SharedBackend) -> None:
    async with block(backend) as sdk:
        async with sdk.deadline("soon", 60):
            pass
    async with block(backend, register=False) as sdk:
        assert await sdk.get_checkpoint("soon") is None  # a checkpoint may have the same name
        with pytest.raises(ConfigError):
            await sdk.get_checkpoint(deadline_id("soon"))


async def test_a_restart_gives_no_new_time(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    start = trio.current_time()
    for stop_after in (20, 30, 1000):
        with trio.move_on_after(stop_after):
            async with block(memory) as sdk:
                async with sdk.deadline("soon", 60) as scope:
                    await trio.sleep(3600)
                assert scope.cancelled_caught
    assert sdk.outcome is Outcome.COMPLETED
    assert trio.current_time() - start == pytest.approx(60, abs=0.01)


@pytest.mark.parametrize("jump", [-3000, 3000, 100_000])
async def test_a_clock_that_jumps_does_not_shift_it(autojump_clock: MockClock, jump: int) -> None:
    wall = Wall()
    async with open_backend(SdkConfig(store=":memory:", clock=wall)) as backend:
        async with trio.open_nursery() as nursery:

            async def jumps() -> None:
                await trio.sleep(600)
                wall.offset += jump

            async with block(backend) as sdk:
                start = wall.now()
                nursery.start_soon(jumps)
                async with sdk.deadline("hour", 3600) as scope:
                    await trio.sleep_forever()
                assert scope.cancelled_caught
                assert wall.now() - start >= 3600
                late = wall.now() - start - 3600
    assert late <= (60 if jump < 3000 else jump - 3000 + 60)


@pytest.mark.parametrize("jump", [-7200, 7200])
async def test_what_was_decided_stays_so_when_the_clock_jumps(
    autojump_clock: MockClock, jump: int
) -> None:
    """A replay takes the branch of the first run, whatever the time is then."""
    wall = Wall()
    async with open_backend(SdkConfig(store=":memory:", clock=wall)) as backend:
        for _ in range(2):
            async with block(backend) as sdk:
                async with sdk.deadline("in time", 3600) as first:
                    await trio.sleep(1)
                async with sdk.deadline("too late", 60) as second:
                    await trio.sleep_forever()
                assert not first.cancelled_caught
                assert second.cancelled_caught
                await sdk.suspended()
            wall.offset += jump


class TestAReplayAfterTheDeadline:
    """It gets back what the first run had, and is cancelled where that had not come further."""

    async def test_what_is_stored_comes_back(
        self, autojump_clock: MockClock, memory: SharedBackend
    ) -> None:
        ran = []

        @durable
        async def step(name: str) -> str:
            ran.append(name)
            return name

        async def forever(sdk: RuntaraSdk) -> None:
            await trio.sleep_forever()

        async def program(sdk: RuntaraSdk, waits: Any, got: list[Any]) -> bool:
            async with sdk.deadline("day", 86400) as scope:
                await all_verbs(sdk, step, got)
                await waits(sdk)
                got.append("never")
            return scope.cancelled_caught

        expected = ["a", b"b", b"yes", b"b", "e", "f", b"g", "h"]
        for number, waits in enumerate(
            (
                forever,
                lambda sdk: sdk.sleep(10 * 86400, "long"),
                lambda sdk: sdk.wait_for_signal("never"),
                lambda sdk: step("new"),
                lambda sdk: sdk.checkpoint("new"),
            )
        ):
            ran.clear()
            got: list[Any] = []
            with trio.move_on_after(3600):
                async with block(memory, str(number)) as sdk:
                    await Operator(memory).send_signal(str(number), "approve", b"yes")
                    await program(sdk, forever, got)
            assert got == expected
            await trio.sleep(2 * 86400)
            before = trio.current_time()
            seen = len(ran)
            got.clear()
            async with block(memory, str(number)) as sdk:
                assert await program(sdk, waits, got)
            assert got == expected
            assert len(ran) == seen, "new work began after the deadline"
            assert trio.current_time() - before <= 1  # at once, or after a second of nothing
            assert sdk.outcome is Outcome.COMPLETED

    async def test_an_event_is_not_the_end_of_it(
        self, autojump_clock: MockClock, memory: SharedBackend
    ) -> None:
        """Of an event nobody knows whether it is new."""

        async def program(sdk: RuntaraSdk) -> list[bytes | None]:
            got = []
            async with sdk.deadline("hour", 3600):
                await sdk.custom_event("progress")
                assert await sdk.get_checkpoint("nothing") is None
                got.append((await sdk.checkpoint("a", b"1")).decode(bytes))
                await trio.sleep_forever()
            return got

        with trio.move_on_after(60):
            async with block(memory) as sdk:
                await program(sdk)
        await trio.sleep(7200)
        async with block(memory) as sdk:
            assert await program(sdk) == [b"1"]

    async def test_tasks_beside_each_other_get_back_all_that_they_had(
        self, autojump_clock: MockClock, memory: SharedBackend
    ) -> None:
        """One has nothing more to replay: the other has, in whatever order they run."""

        @durable
        async def step(n: int) -> int:
            if n == 99:
                await trio.sleep_forever()
            return n

        async def program(sdk: RuntaraSdk) -> list[int]:
            got: list[int] = []

            async def steps() -> None:
                for n in range(5):
                    got.append(await step(n))  # noqa: PERF401

            async with sdk.deadline("hour", 3600), trio.open_nursery() as nursery:
                nursery.start_soon(step, 99)
                nursery.start_soon(steps)
            return got

        for _ in range(20):
            async with block(memory) as sdk:
                assert await program(sdk) == [0, 1, 2, 3, 4]
                await sdk.suspended()

    async def test_what_was_too_late_stays_so(
        self, autojump_clock: MockClock, memory: SharedBackend
    ) -> None:
        for seconds in (3600, 0):  # the second time the body is quick
            async with block(memory) as sdk:
                async with sdk.deadline("hour", 60) as scope:
                    await trio.sleep(seconds)
                assert scope.cancelled_caught
                await sdk.suspended()

    async def test_work_that_was_not_begun_does_not_begin(
        self, autojump_clock: MockClock, memory: SharedBackend
    ) -> None:
        ran = []

        @durable
        async def step(name: str) -> str:
            ran.append(name)
            if name == "b":
                await trio.sleep_forever()
            return name

        async def program(sdk: RuntaraSdk) -> list[str]:
            got = []
            async with sdk.deadline("hour", 3600):
                got.append(await step("a"))
                got.append(await step("b"))
            return got

        with trio.move_on_after(60):
            async with block(memory) as sdk:
                await program(sdk)
        await trio.sleep(7200)
        async with block(memory) as sdk:
            assert await program(sdk) == ["a"]
        assert ran == ["a", "b"]

    async def test_the_outcome_said_inside_is_not_said(
        self, autojump_clock: MockClock, memory: SharedBackend
    ) -> None:
        async with block(memory) as sdk:
            async with sdk.deadline("hour", 3600):
                await sdk.suspended()
        await trio.sleep(7200)
        async with block(memory) as sdk:
            async with sdk.deadline("hour", 3600) as scope:
                await sdk.completed("in time")
            assert scope.cancelled_caught
            await sdk.completed("too late")
        assert (await Operator(memory).show("i")).output == b'"too late"'

    async def test_a_deadline_of_the_outer_block_ends_work_of_an_inner_one(
        self, autojump_clock: MockClock, memory: SharedBackend
    ) -> None:
        for _ in range(2):
            async with block(memory, "outer") as outer:
                async with outer.deadline("hour", 3600) as scope:
                    async with block(memory, f"inner{trio.current_time()}") as inner:
                        await inner.checkpoint("a")
                    await trio.sleep_forever()
                assert scope.cancelled_caught
                await outer.suspended()
        assert inner.outcome is Outcome.STOPPED


async def all_verbs(sdk: RuntaraSdk, step: Any, got: list[Any]) -> None:
    """Work of every kind."""
    got.append(await step("a"))
    got.append((await sdk.checkpoint("b", b"b")).decode(bytes))
    await sdk.sleep(10, "nap")
    got.append(await sdk.wait_for_signal("approve"))
    got.append(await sdk.get_checkpoint("b"))
    async with sdk.open_nursery() as nursery:
        nursery.start_soon(step, "c")
        nursery.start_soon(step, "d")
    async with sdk.map(step, ["e", "f"]) as results:
        got += sorted([result async for result in results])
    async with sdk.step("g"):
        got.append((await sdk.checkpoint("g", b"g")).decode(bytes))
    async with sdk.deadline("inner", 5):
        got.append(await step("h"))


async def test_an_error_leaves_unwrapped_and_decides_nothing(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    async with block(memory) as sdk:
        with pytest.raises(KeyError):
            async with sdk.deadline("soon", 60):
                raise KeyError
        assert ended_id("soon") not in await ids(memory)


async def test_an_outer_cancel_decides_nothing(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    async with block(memory) as sdk:
        with trio.move_on_after(10):
            async with sdk.deadline("soon", 60):
                await trio.sleep_forever()
        assert ended_id("soon") not in await ids(memory)


async def test_a_step_that_it_cancels_is_saved_if_it_was_done(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    @durable
    async def work() -> str:
        with trio.CancelScope(shield=True):
            await trio.sleep(100)
        return current_sdk().step_key

    async with block(memory) as sdk:
        async with sdk.deadline("soon", 60) as scope:
            assert await work() == "i/durable::work::[]"
            await trio.lowlevel.checkpoint()
        assert scope.cancelled_caught
        assert await sdk.get_checkpoint("durable::work::[]", str) == "i/durable::work::[]"


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), "3", None, True])
async def test_a_duration_that_is_none_is_refused(memory: SharedBackend, seconds: Any) -> None:
    async with block(memory) as sdk:
        with pytest.raises(ConfigError, match="seconds must be"):
            sdk.deadline("soon", seconds)
