"""``signals="manual"``: the program polls and acknowledges, as with the Rust SDK."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from runtara_trio import (
    ConfigError,
    InstanceCancelled,
    InstancePaused,
    InstanceStatus,
    Operator,
    Outcome,
    SharedBackend,
    SignalType,
    open_runtara,
)

from ..helpers.support import leave_with


def block(backend: Any, **options: Any) -> Any:
    return open_runtara(backend, instance_id="i", tenant_id="t", signals="manual", **options)


async def status(backend: SharedBackend) -> tuple[InstanceStatus, SignalType | None]:
    summary = (await Operator(backend).show("i")).summary
    return summary.status, summary.signal


async def test_nothing_is_mapped(backend: SharedBackend) -> None:
    async with block(backend) as sdk:
        await Operator(backend).cancel("i")
        result = await sdk.checkpoint("a")
        assert result.should_cancel
        assert result.should_exit
        assert not result.should_pause
        await trio.lowlevel.checkpoint()
        assert not sdk.pause_requested
    assert sdk.outcome is Outcome.COMPLETED  # the program did not care: that is its right here
    assert await status(backend) == (InstanceStatus.COMPLETED, None)


async def test_instance_cancelled_leaves_the_body(backend: SharedBackend) -> None:
    with pytest.raises(InstanceCancelled):
        async with block(backend) as sdk:
            await sdk.check_cancelled()
            await Operator(backend).cancel("i")
            await sdk.check_paused()
            await sdk.check_cancelled()
    assert sdk.outcome is Outcome.CANCELLED
    assert await status(backend) == (InstanceStatus.CANCELLED, None)


async def test_instance_paused_leaves_the_body(backend: SharedBackend) -> None:
    with pytest.raises(InstancePaused):
        async with block(backend) as sdk:
            await Operator(backend).pause("i")
            await sdk.check_cancelled()
            await sdk.check_paused()
    assert sdk.outcome is Outcome.PAUSED
    assert await status(backend) == (InstanceStatus.SUSPENDED, None)


async def test_a_group_of_them_counts_and_leaves_as_it_is(backend: SharedBackend) -> None:
    mine = ExceptionGroup("", [InstancePaused(), InstanceCancelled()])
    sdk, caught = await leave_with(backend, mine, signals="manual")
    assert caught is mine
    assert sdk.outcome is Outcome.CANCELLED


async def test_with_something_else_it_is_a_failure(backend: SharedBackend) -> None:
    with pytest.raises(ExceptionGroup):
        async with block(backend) as sdk:
            raise ExceptionGroup("", [InstanceCancelled(), ValueError()])
    assert sdk.outcome is Outcome.FAILED


async def test_in_scopes_mode_it_is_a_failure(backend: SharedBackend) -> None:
    with pytest.raises(InstanceCancelled):
        async with open_runtara(backend, instance_id="i", tenant_id="t") as sdk:
            raise InstanceCancelled
    assert sdk.outcome is Outcome.FAILED


async def test_an_acknowledged_pause_suspends_at_the_end(backend: SharedBackend) -> None:
    async with block(backend) as sdk:
        await Operator(backend).pause("i")
        signal = await sdk.poll_signal()
        assert signal is not None
        await sdk.acknowledge_signal(signal.type)
        assert await status(backend) == (InstanceStatus.RUNNING, None)
        await sdk.checkpoint("a")  # it may still write
    assert sdk.outcome is Outcome.PAUSED
    assert await status(backend) == (InstanceStatus.SUSPENDED, None)


async def test_a_pause_that_is_not_acknowledged_stays(backend: SharedBackend) -> None:
    async with block(backend) as sdk:
        await Operator(backend).pause("i")
        await sdk.acknowledge_signal(SignalType.PAUSE, False)
        await sdk.acknowledge_signal("resume")  # none is there
        assert await status(backend) == (InstanceStatus.RUNNING, SignalType.PAUSE)
        with pytest.raises(ConfigError, match="must be cancel, pause or resume, not 'stop'"):
            await sdk.acknowledge_signal("stop")
    assert sdk.outcome is Outcome.COMPLETED


async def test_poll_signal_asks_once_an_interval(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    async with block(memory) as sdk:
        assert await sdk.poll_signal() is None
        await Operator(memory).pause("i")
        assert await sdk.poll_signal() is None
        signal = await sdk.poll_signal_now()
        assert signal is not None
        assert await sdk.poll_signal() is None
        await trio.sleep(1)
        assert await sdk.poll_signal() == signal


async def test_a_local_stop_works_as_ever(backend: SharedBackend) -> None:
    with trio.move_on_after(0.01):
        async with block(backend) as sdk:
            await trio.sleep_forever()
    assert sdk.outcome is Outcome.STOPPED
