"""Retries: which, how often, when; and over crashes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from runtara_trio import (
    LeaseLost,
    NonRetryable,
    Operator,
    Outcome,
    Retry,
    SharedBackend,
    StoreError,
    durable,
    open_backend,
)
from runtara_trio.messages import RecordRetry

from ..helpers.support import Watched, block


class Flaky(Exception):
    pass


def failing(
    times: int, error: BaseException | None = None, **options: Any
) -> tuple[Any, list[float]]:
    """A durable function that fails so often, and the times of its runs."""
    ran: list[float] = []

    @durable(**options)
    async def flaky() -> int:
        ran.append(trio.current_time())
        if len(ran) <= times:
            raise error or Flaky(f"run {len(ran)}")
        return len(ran)

    return flaky, ran


def waits(ran: list[float]) -> list[float]:
    return [round(later - earlier, 3) for earlier, later in pairwise(ran)]


async def test_three_retries_that_double(autojump_clock: MockClock, memory: SharedBackend) -> None:
    flaky, ran = failing(3)
    async with block(memory):
        assert await flaky() == 4
    assert waits(ran) == [1, 2, 4]


async def test_the_last_error_goes_out(autojump_clock: MockClock, memory: SharedBackend) -> None:
    flaky, ran = failing(9)
    with pytest.raises(Flaky, match="run 4"):
        async with block(memory) as sdk:
            await flaky()
    assert len(ran) == 4
    assert sdk.outcome is Outcome.FAILED


async def test_max_delay(autojump_clock: MockClock, memory: SharedBackend) -> None:
    flaky, ran = failing(6, max_retries=6, delay=0.5, max_delay=3)
    async with block(memory):
        await flaky()
    assert waits(ran) == [0.5, 1, 2, 3, 3, 3]


async def test_jitter(
    autojump_clock: MockClock, memory: SharedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        drawn.append((low, high))
        return high / 4

    monkeypatch.setattr("random.uniform", uniform)
    flaky, ran = failing(3, jitter=True)
    async with block(memory):
        await flaky()
    assert drawn == [(0, 1), (0, 2), (0, 4)]
    assert waits(ran) == [0.25, 0.5, 1]


@pytest.mark.parametrize(
    ("retry_on", "error", "retried"),
    [
        (None, Flaky(), True),
        (None, trio.TooSlowError(), True),
        (None, ExceptionGroup("", [Flaky(), OSError()]), True),
        (None, NonRetryable("declined"), False),
        (None, ExceptionGroup("", [Flaky(), NonRetryable()]), False),
        (None, StoreError("of a call inside"), False),
        (StoreError, StoreError("of a call inside"), True),
        (OSError, ConnectionError(), True),
        (OSError, Flaky(), False),
        (OSError, ExceptionGroup("", [OSError(), OSError()]), True),
        (OSError, ExceptionGroup("", [OSError(), Flaky()]), False),
        ((OSError, Flaky), Flaky(), True),
        (lambda error: "again" in str(error), Flaky("again"), True),
        (lambda error: "again" in str(error), Flaky("never"), False),
        (lambda error: True, NonRetryable(), False),
        (None, KeyboardInterrupt(), False),
        (None, SystemExit(3), False),
        (None, BaseExceptionGroup("", [Flaky(), KeyboardInterrupt()]), False),
    ],
)
async def test_which_errors(
    autojump_clock: MockClock,
    memory: SharedBackend,
    retry_on: Any,
    error: BaseException,
    retried: bool,
) -> None:
    flaky, ran = failing(1, error, retry_on=retry_on)
    async with block(memory):
        try:
            await flaky()
        except BaseException as exc:
            assert exc is error  # noqa: PT017
    assert len(ran) == (2 if retried else 1)


async def test_a_lost_lease_is_not_retried(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    flaky, ran = failing(1, LeaseLost("i"))
    with pytest.raises(LeaseLost):
        async with block(memory):
            await flaky()
    assert len(ran) == 1


async def test_a_cancelled_attempt_is_not(autojump_clock: MockClock, memory: SharedBackend) -> None:
    ran = []

    @durable
    async def slow() -> None:
        ran.append(1)
        async with trio.open_nursery() as nursery:  # a group of Cancelled
            nursery.start_soon(trio.sleep_forever)
            nursery.start_soon(trio.sleep_forever)

    async with block(memory):
        with trio.move_on_after(5) as scope:
            await slow()
    assert scope.cancelled_caught
    assert ran == [1]


async def test_each_attempt_has_its_timeout(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    ran = []

    @durable(timeout=2)
    async def slow() -> str:
        ran.append(trio.current_time())
        await trio.sleep(10 if len(ran) < 3 else 1)
        return "done"

    async with block(memory):
        assert await slow() == "done"
    assert waits(ran) == [3, 4]


async def test_on_retry(autojump_clock: MockClock, memory: SharedBackend) -> None:
    told: list[Retry] = []

    async def tell(retry: Retry) -> None:
        await trio.sleep(1)
        told.append(retry)

    for hook in (told.append, tell):
        told.clear()
        flaky, _ = failing(2, on_retry=hook)
        async with block(memory, f"i{hook}") as sdk:
            await flaky()
        assert [(one.function, one.attempt, one.max_retries, one.delay) for one in told] == [
            ("flaky", 1, 3, 1),
            ("flaky", 2, 3, 2),
        ]
        assert told[0].checkpoint_id == "durable::flaky::[]"
        assert str(told[0].error) == "run 1"
        assert sdk.outcome is Outcome.COMPLETED


async def test_the_log_says_what_which_and_when(
    autojump_clock: MockClock, memory: SharedBackend, caplog: pytest.LogCaptureFixture
) -> None:
    flaky, _ = failing(2, ValueError("secret"))
    with caplog.at_level(logging.WARNING, "runtara_trio"):
        async with block(memory):
            await flaky()
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [
        "'durable::flaky::[]' of i failed with ValueError, attempt 1 of 4; the next in 1.000 s",
        "'durable::flaky::[]' of i failed with ValueError, attempt 2 of 4; the next in 2.000 s",
    ]


async def crash(memory: SharedBackend, call: Any, when: Callable[[], bool]) -> None:
    """Run until something holds, then let nothing more be written."""
    watched = Watched(memory)
    async with open_backend(watched) as shared:
        with trio.CancelScope() as process:
            async with block(shared):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(call)
                    while not when():
                        await trio.sleep(0.1)
                    process.cancel()


async def test_the_attempts_of_a_call_are_all_that_it_has(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    """Made again in the same run, a call that has failed is not tried any more."""
    flaky, ran = failing(99)
    counts = []
    async with block(memory):
        for _ in range(3):
            before = len(ran)
            with pytest.raises(Flaky):
                await flaky()
            counts.append(len(ran) - before)
    assert counts == [4, 0, 0]


class TestOverCrashes:
    async def test_attempts_count(self, autojump_clock: MockClock, memory: SharedBackend) -> None:
        flaky, ran = failing(99)
        await crash(memory, flaky, lambda: len(ran) == 2)
        await trio.testing.wait_all_tasks_blocked()
        before = len(ran)
        with pytest.raises(Flaky, match="run 4"):
            async with block(memory):
                await flaky()
        assert (before, len(ran)) == (2, 4)

    async def test_a_long_wait_is_durable(
        self, autojump_clock: MockClock, memory: SharedBackend
    ) -> None:
        flaky, ran = failing(1, delay=3600)
        with trio.move_on_after(600):
            async with block(memory):
                await flaky()
        async with block(memory):
            assert await flaky() == 2
        assert waits(ran) == [pytest.approx(3600, abs=0.01)]

    async def test_a_short_one_is_not_waited_again(
        self, autojump_clock: MockClock, memory: SharedBackend
    ) -> None:
        flaky, ran = failing(1, delay=9)
        with trio.move_on_after(5):
            async with block(memory):
                await flaky()
        async with block(memory):
            assert await flaky() == 2
        assert waits(ran) == [5]

    async def test_a_revived_instance_has_all_again(
        self, autojump_clock: MockClock, memory: SharedBackend
    ) -> None:
        flaky, ran = failing(99)
        for revive in (False, True):
            with pytest.raises(Flaky):
                async with block(memory, revive=revive):
                    await flaky()
        assert len(ran) == 8


@pytest.mark.unless_http
@pytest.mark.core
async def test_attempts_are_recorded_before_the_next(backend: SharedBackend) -> None:
    flaky, ran = failing(99, delay=0.001)
    with pytest.raises(Flaky):
        async with block(backend) as sdk:
            await flaky()
    assert len(ran) == 4
    async with block(backend, register=False) as sdk:
        for attempt in (1, 2, 3):
            error = await sdk.get_checkpoint(f"durable::flaky::[]::retry::{attempt}")
            # A core on PostgreSQL has a column of its own for it.
            assert error in (f"Flaky: run {attempt}".encode(), b"")
        assert await sdk.get_checkpoint("durable::flaky::[]::retry::4") is None


async def test_a_record_that_fails_is_an_error(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    watched = Watched(memory)
    watched.before = lambda message: (
        StoreError("disk full") if isinstance(message, RecordRetry) else None
    )
    flaky, ran = failing(1)
    async with open_backend(watched) as shared, block(shared):
        with pytest.raises(StoreError, match="disk full") as caught:
            await flaky()
        assert isinstance(caught.value.__context__, Flaky)
    assert len(ran) == 1


@pytest.mark.parametrize("delay", [5, 3600])
async def test_a_retry_wait_is_a_boundary(
    autojump_clock: MockClock, memory: SharedBackend, delay: float
) -> None:
    flaky, ran = failing(1, delay=delay)
    start = trio.current_time()

    async def pause() -> None:
        await trio.sleep(1)
        await Operator(memory).pause("i")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(pause)
        async with block(memory) as sdk:
            await flaky()
    assert sdk.outcome is Outcome.PAUSED
    assert trio.current_time() - start == pytest.approx(1, abs=0.1)
    async with block(memory):
        assert await flaky() == 2
    assert len(ran) == 2


async def test_for_ever(autojump_clock: MockClock, memory: SharedBackend) -> None:
    """Until it succeeds; over crashes too, and with waits that are durations."""
    ran = []
    told: list[Retry] = []

    @durable(
        max_retries=None,
        delay=timedelta(seconds=1),
        max_delay=timedelta(minutes=1),
        on_retry=told.append,
    )
    async def flaky() -> str:
        ran.append(1)
        if len(ran) < 40:
            raise Flaky
        return "done"

    with trio.move_on_after(600):
        async with block(memory):
            await flaky()
    before = len(ran)
    assert 10 < before < 40
    async with block(memory):
        assert await flaky() == "done"
    assert len(ran) == 40
    assert {one.max_retries for one in told} == {None}
    assert told[-1].attempt == 39
    assert told[-1].delay == 60
