"""``on_sleep="exit"``: a program that only sleeps ends, and goes on when it is started again."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from runtara_trio import (
    ConfigError,
    InstanceFinished,
    InstanceStatus,
    Operator,
    Outcome,
    SharedBackend,
    open_runtara,
)

from ..helpers.support import block


async def test_a_long_sleep_ends_the_program(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    unwound = []
    start = trio.current_time()
    for run in range(2):
        async with block(memory, on_sleep="exit") as sdk:
            await sdk.checkpoint("before")
            try:
                await sdk.sleep(3600, "nap")
            finally:
                unwound.append(run)
            await sdk.checkpoint("after")
        if run == 0:
            assert sdk.outcome is Outcome.STOPPED
            assert trio.current_time() - start < 2
            summary = (await Operator(memory).show("i")).summary
            assert summary.status is InstanceStatus.SUSPENDED
            assert summary.sleep_until is not None
            await trio.sleep(3600)
    assert sdk.outcome is Outcome.COMPLETED
    assert unwound == [0, 1]
    assert trio.current_time() - start < 3605


async def test_who_is_started_too_early_ends_again(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    start = trio.current_time()
    for wait in (3000, 595, 0):
        async with block(memory, on_sleep="exit") as sdk:
            await sdk.sleep(3600, "nap")
        await trio.sleep(wait)
    assert sdk.outcome is Outcome.COMPLETED  # five seconds are waited for
    assert trio.current_time() - start == pytest.approx(3600, abs=2)


async def test_a_short_sleep_is_waited_for(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    async with block(memory, on_sleep="exit") as sdk:
        for number in range(5):
            await sdk.sleep(9, f"nap-{number}")
    assert sdk.outcome is Outcome.COMPLETED


async def test_a_program_that_does_something_else_goes_on(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    """It ends with the last of its tasks that works."""
    done: list[float] = []
    start = trio.current_time()

    async def work(sdk: Any) -> None:
        await trio.sleep(100)
        await sdk.checkpoint("worked")
        done.append(trio.current_time() - start)

    async with block(memory, on_sleep="exit") as sdk, trio.open_nursery() as nursery:
        nursery.start_soon(work, sdk)
        nursery.start_soon(sdk.sleep, 3600, "nap")
        nursery.start_soon(sdk.sleep, 7200, "longer")
    assert sdk.outcome is Outcome.STOPPED
    assert done == [100]
    assert trio.current_time() - start < 102
    sleep_until = (await Operator(memory).show("i")).summary.sleep_until
    assert sleep_until is not None


async def test_a_wait_for_a_signal_is_no_sleep(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    async with block(memory, on_sleep="exit") as sdk:
        with pytest.raises(trio.TooSlowError):
            await sdk.wait_for_signal("go", timeout=100)
        with trio.move_on_after(50):  # a deadline of the body's own would be lost with it
            await sdk.sleep(3600, "nap")
    assert sdk.outcome is Outcome.COMPLETED


async def test_signals_come_before_it(autojump_clock: MockClock, memory: SharedBackend) -> None:
    async with block(memory, on_sleep="exit") as sdk:
        await Operator(memory).cancel("i")
        await sdk.sleep(3600, "nap")
    assert sdk.outcome is Outcome.CANCELLED


async def test_what_it_may_be(memory: SharedBackend) -> None:
    with pytest.raises(ConfigError, match="on_sleep must be 'wait' or 'exit', not 'end'"):
        open_runtara(memory, instance_id="i", tenant_id="t", on_sleep="end")  # type: ignore[arg-type]


async def test_the_resume_point_of_an_environment_may_be_the_sdks_own(
    memory: SharedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with block(memory) as sdk:
        await sdk.sleep(0, "nap")
        await sdk.suspended()
    (last,) = [
        one.checkpoint_id
        for one in (await Operator(memory).checkpoints("i")).checkpoints
        if one.checkpoint_id.startswith("runtara_trio::")
    ]
    monkeypatch.setenv("RUNTARA_CHECKPOINT_ID", last)
    async with block(memory) as sdk:
        assert sdk.checkpoint_id == last
    with pytest.raises(ConfigError, match="which the SDK keeps"):
        async with block(memory, checkpoint_id=last):
            pass


async def test_what_could_not_be_registered_is_not_looked_after(memory: SharedBackend) -> None:
    async with block(memory):
        pass
    before = trio.lowlevel.current_statistics().tasks_living
    for _ in range(5):
        with pytest.raises(InstanceFinished):
            async with block(memory, on_sleep="exit"):
                pass
    assert trio.lowlevel.current_statistics().tasks_living == before
