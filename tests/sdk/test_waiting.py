"""Durable sleeps and waits for signals."""

from __future__ import annotations

import enum
from datetime import date, timedelta
from typing import Any, Literal

import msgspec
import pytest
import trio
import trio.testing
from trio.testing import MockClock

from runtara_trio import (
    CodecError,
    ConfigError,
    Operator,
    Outcome,
    RuntaraSdk,
    SdkConfig,
    SharedBackend,
    SignalRefused,
    open_backend,
)
from runtara_trio.ids import wake_id
from runtara_trio.messages import StopWaiting

from ..helpers.places import Place
from ..helpers.support import Wall, Watched, block


async def test_a_sleep_takes_its_time(autojump_clock: MockClock, memory: SharedBackend) -> None:
    start = trio.current_time()
    async with block(memory) as sdk:
        await sdk.sleep(7 * 86400, "week", {"why": "cooling off"})
        assert trio.current_time() - start == pytest.approx(7 * 86400, abs=0.002)
        assert await sdk.get_checkpoint("week", dict) == {"why": "cooling off"}
        await sdk.suspended()
    again = trio.current_time()
    async with block(memory) as sdk:
        await sdk.sleep(7 * 86400, "week")  # over: a replay passes it at once
    assert trio.current_time() == again


async def test_a_restart_sleeps_only_the_rest(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    start = trio.current_time()
    for interrupted_after in (1000, 1500):
        with trio.move_on_after(interrupted_after):
            async with block(memory) as sdk:
                await sdk.sleep(3600, "nap")
    async with block(memory) as sdk:
        await sdk.sleep(3600, "nap")
    assert trio.current_time() - start == pytest.approx(3600, abs=0.002)
    (wake,) = [
        one.state
        for one in (await Operator(memory).checkpoints("i")).checkpoints
        if one.checkpoint_id == wake_id("nap")
    ]
    assert len(wake) == 8


@pytest.mark.parametrize("jump", [-3000, 3000, 100_000])
async def test_a_wall_clock_that_jumps_does_not_shift_the_wake_time(
    autojump_clock: MockClock, jump: int
) -> None:
    wall = Wall()
    config = SdkConfig(store=":memory:", clock=wall)
    async with open_backend(config) as backend, trio.open_nursery() as nursery:

        async def jumps() -> None:
            await trio.sleep(600)
            wall.offset += jump

        async with block(backend) as sdk:
            start = wall.now()
            nursery.start_soon(jumps)
            await sdk.sleep(3600, "nap")
            woke = wall.now() - start
    assert woke >= 3600
    if jump < 3600:
        assert woke == pytest.approx(3600, abs=60)
    else:
        assert woke <= 600 + jump + 60  # noticed within a minute


async def test_the_status_stays_running_and_the_list_says_until_when(
    memory: SharedBackend,
) -> None:
    async with block(memory) as sdk, trio.open_nursery() as nursery:
        nursery.start_soon(sdk.sleep, 3600, "nap")
        await trio.testing.wait_all_tasks_blocked()
        (one,) = (await Operator(memory).list()).instances
        assert one.status == "running"
        assert one.sleep_until is not None
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "seconds", [-1, -0.001, float("nan"), float("inf"), -float("inf"), "3", None, True, 1e300]
)
async def test_a_duration_that_is_none_is_refused(memory: SharedBackend, seconds: Any) -> None:
    async with block(memory) as sdk:
        with pytest.raises(ConfigError, match="seconds must be"):
            await sdk.sleep(seconds, "nap")
        assert (await Operator(memory).checkpoints("i")).checkpoints == ()


async def test_a_signal_sent_before_the_wait(backend: SharedBackend) -> None:
    async with block(backend) as sdk:
        await Operator(backend).send_signal("i", "approve", {"by": "ana"})
        assert await sdk.wait_for_signal("approve") == b'{"by":"ana"}'


async def test_a_signal_sent_during_the_wait(backend: SharedBackend) -> None:
    got = []

    async def wait(sdk: RuntaraSdk, name: str) -> None:
        got.append((name, await sdk.wait_for_signal(name)))

    async with block(backend) as sdk, trio.open_nursery() as nursery:
        nursery.start_soon(wait, sdk, "a")
        nursery.start_soon(wait, sdk, "b")
        await trio.testing.wait_all_tasks_blocked()
        await Operator(backend).send_signal("i", "b", b"2")
        await Operator(backend).send_signal("i", "a", b"1")
    assert sorted(got) == [("a", b"1"), ("b", b"2")]


async def test_a_signal_sent_while_nobody_runs_is_there_for_every_replay(
    backend: SharedBackend,
) -> None:
    async with block(backend) as sdk:
        await sdk.suspended()
    await Operator(backend).send_signal("i", "approve", b"yes")
    for _ in range(2):
        async with block(backend) as sdk:
            assert await sdk.wait_for_signal("approve") == b"yes"
            await sdk.suspended()


async def test_a_waiter_that_goes_says_so(memory: SharedBackend) -> None:
    watched = Watched(memory)
    async with open_backend(watched) as shared, block(shared) as sdk:
        with trio.move_on_after(0.01):
            await sdk.wait_for_signal("never")
        await trio.testing.wait_all_tasks_blocked()
    assert watched.sent(StopWaiting) == [StopWaiting(instance_id="i", checkpoint_id="never")]
    assert sdk.outcome is Outcome.COMPLETED


async def test_a_cancelled_wait_ends(backend: SharedBackend) -> None:
    async with block(backend) as sdk, trio.open_nursery() as nursery:
        nursery.start_soon(sdk.wait_for_signal, "never")
        await trio.testing.wait_all_tasks_blocked()
        await Operator(backend).cancel("i")
    assert sdk.outcome is Outcome.CANCELLED


class Decision(msgspec.Struct):
    by: str
    approved: bool


@pytest.mark.core
async def test_a_signal_of_a_type(place: Place) -> None:
    async with block(place.backend) as sdk:
        await place.operator.send_signal("i", "approve", b'{"by":"ana","approved":true}')
        assert await sdk.wait_for_signal("approve", type=Decision) == Decision("ana", True)


@pytest.mark.core
async def test_a_wait_that_times_out_stays_so(place: Place) -> None:
    for _ in range(2):
        async with block(place.backend) as sdk:
            with pytest.raises(trio.TooSlowError, match="'approve'"):
                await sdk.wait_for_signal("approve", timeout=0.01)
            assert (await sdk.checkpoint("approve")).custom_signal is None
            await sdk.suspended()


@pytest.mark.core
async def test_a_signal_before_the_timeout_decides(place: Place) -> None:
    async with block(place.backend) as sdk, trio.open_nursery() as nursery:

        async def wait() -> None:
            assert await sdk.wait_for_signal("approve", timeout=60) == b"yes"

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        await place.operator.send_signal("i", "approve", b"yes")
    async with block(place.backend, revive=True) as sdk:
        assert await sdk.wait_for_signal("approve", timeout=0) == b"yes"


async def test_a_late_signal_is_refused(backend: SharedBackend) -> None:
    async with block(backend) as sdk:
        with pytest.raises(trio.TooSlowError):
            await sdk.wait_for_signal("approve", timeout=0)
        with pytest.raises(SignalRefused, match="timed out already"):
            await Operator(backend).send_signal("i", "approve", b"yes")


async def test_a_timeout_is_not_extended_by_a_restart(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    start = trio.current_time()
    for stop_after in (20, 30, 1000):
        with trio.move_on_after(stop_after):
            async with block(memory) as sdk:
                with pytest.raises(trio.TooSlowError):
                    await sdk.wait_for_signal("approve", timeout=60)
    assert sdk.outcome is Outcome.COMPLETED
    assert trio.current_time() - start == pytest.approx(60, abs=0.01)


@pytest.mark.parametrize("jump", [-3000, 3000])
async def test_a_timeout_is_wall_time(autojump_clock: MockClock, jump: int) -> None:
    wall = Wall()
    async with open_backend(SdkConfig(store=":memory:", clock=wall)) as backend:
        async with block(backend) as sdk, trio.open_nursery() as nursery:

            async def jumps() -> None:
                await trio.sleep(100)
                wall.offset += jump

            nursery.start_soon(jumps)
            start = wall.now()
            with pytest.raises(trio.TooSlowError):
                await sdk.wait_for_signal("approve", timeout=3600)
            assert wall.now() - start == pytest.approx(3600, abs=60)


@pytest.mark.parametrize("timeout", [-1, float("nan"), float("inf"), "3", True])
async def test_a_timeout_that_is_none_is_refused(memory: SharedBackend, timeout: Any) -> None:
    async with block(memory) as sdk:
        with pytest.raises(ConfigError, match="timeout must be"):
            await sdk.wait_for_signal("approve", timeout=timeout)


class Answer(enum.Enum):
    YES = "yes"


@pytest.mark.parametrize(
    ("sent", "wanted", "got"),
    [
        ("hello", bytes, b"hello"),
        ("hello", str, "hello"),
        ("42", str, "42"),
        ("42", int, 42),
        ("null", str, "null"),
        ('"quoted"', str, '"quoted"'),
        ("yes", Answer, Answer.YES),
        ("yes", Literal["yes", "no"], "yes"),
        ("yes", str | None, "yes"),
        ("2026-01-02", date, date(2026, 1, 2)),
        ('{"by":"ana","approved":true}', Decision, Decision("ana", True)),
        (Decision("ana", True), Decision, Decision("ana", True)),
        (b"\xff\0", bytes, b"\xff\0"),
        ("", bytes, b""),
        ("grüße", str, "grüße"),
    ],
)
async def test_what_is_sent_arrives(place: Place, sent: Any, wanted: Any, got: Any) -> None:
    """A text that somebody typed, as its bytes, and as what it stands for."""
    async with block(place.backend) as sdk:
        await place.operator.send_signal("i", "go", sent)
        assert await sdk.wait_for_signal("go", type=wanted) == got


@pytest.mark.core
async def test_a_signal_of_another_type_may_be_replaced(place: Place) -> None:
    with pytest.raises(CodecError, match="signal 'count'") as caught:
        async with block(place.backend) as sdk:
            await place.operator.send_signal("i", "count", b"many")
            await sdk.wait_for_signal("count", type=int)
    assert "signal --replace" in caught.value.__notes__[0]
    if not isinstance(place.operator, Operator):
        return  # a core's tables are written by hand there
    with pytest.raises(SignalRefused, match="is failed"):
        await place.operator.send_signal("i", "count", b"3")
    await place.operator.send_signal("i", "count", b"3", replace=True)
    async with block(place.backend, revive=True) as sdk:
        assert await sdk.wait_for_signal("count", type=int) == 3
        with pytest.raises(SignalRefused, match="was answered already"):
            await place.operator.send_signal("i", "count", b"4", replace=True)


async def test_a_signal_that_nobody_has_taken_may_be_replaced(backend: SharedBackend) -> None:
    operator = Operator(backend)
    async with block(backend) as sdk:
        await operator.send_signal("i", "count", 1)
        with pytest.raises(SignalRefused, match=r"has another signal already.*--replace"):
            await operator.send_signal("i", "count", 2)
        await operator.send_signal("i", "count", 2, replace=True)
        assert await sdk.wait_for_signal("count", type=int) == 2
        with pytest.raises(SignalRefused, match="was answered already"):
            await operator.send_signal("i", "count", 3, replace=True)
        with pytest.raises(trio.TooSlowError):
            await sdk.wait_for_signal("late", timeout=0)
        with pytest.raises(SignalRefused, match="timed out already"):
            await operator.send_signal("i", "late", 3, replace=True)
        await operator.send_signal("i", "new", 1, replace=True)  # there is nothing: sent


@pytest.mark.parametrize("finish", ["failed", "completed", "cancelled"])
async def test_an_unread_signal_outlives_a_revive(backend: SharedBackend, finish: str) -> None:
    operator = Operator(backend)
    async with block(backend) as sdk:
        await operator.send_signal("i", "approve", b"yes")
        if finish == "cancelled":
            await operator.cancel("i")
            await trio.sleep_forever()
        await getattr(sdk, finish)("")
    assert (await operator.show("i")).unread_signals == ("approve",)
    async with block(backend, revive=True) as sdk:
        assert await sdk.wait_for_signal("approve", timeout=0) == b"yes"


@pytest.mark.parametrize("hours", [1, 1.5])
async def test_a_timedelta_is_a_duration(
    autojump_clock: MockClock, memory: SharedBackend, hours: float
) -> None:
    start = trio.current_time()
    hour = timedelta(hours=hours)
    async with block(memory, pause_grace=hour, final_timeout=hour) as sdk:
        await sdk.sleep(hour, "nap")
        with pytest.raises(trio.TooSlowError):
            await sdk.wait_for_signal("go", timeout=hour)
        async with sdk.deadline("soon", hour):
            await trio.sleep_forever()
        assert trio.current_time() - start == pytest.approx(3 * 3600 * hours, abs=0.01)
        with pytest.raises(ConfigError, match="seconds must be a finite number"):
            await sdk.sleep(timedelta(days=-1), "back")
    assert await Operator(memory).prune(timedelta(days=1)) == 0


async def test_prune_goes_by_the_clock_of_the_configuration(autojump_clock: MockClock) -> None:
    wall = Wall()
    async with open_backend(SdkConfig(store=":memory:", clock=wall)) as backend:
        async with block(backend):
            pass
        assert await Operator(backend).prune(86400) == 0
        wall.offset += 2 * 86400
        assert await Operator(backend).prune(86400) == 1
