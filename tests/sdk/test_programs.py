"""Programs on every backend: what section by section is promised to whoever writes one.

Marked ``core``: they run on stores, on a store behind our server, and against a stock
runtara-core on both of its databases.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import trio

from runtara_trio import (
    InstanceCancelled,
    InstanceFinished,
    InstancePaused,
    InstanceStatus,
    NotSupported,
    Outcome,
    RuntaraSdk,
    SdkError,
    SignalType,
)

from ..helpers.places import Place
from ..helpers.support import block

pytestmark = pytest.mark.core


async def status(place: Place, instance_id: str = "i") -> InstanceStatus:
    async with block(place.backend, "observer", register=False) as sdk:
        return (await sdk.get_instance_status(instance_id)).status


@asynccontextmanager
async def soon(
    function: Callable[..., Awaitable[object]], *args: object
) -> AsyncIterator[trio.Nursery]:
    """Do something beside the block."""
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(function, *args)
            yield nursery


async def started(sdk: RuntaraSdk, mark: trio.Event) -> None:
    await sdk.checkpoint("started")
    mark.set()


# ---- life


async def test_a_program_and_its_replay(place: Place) -> None:
    ran: list[int] = []

    async def program(sdk: RuntaraSdk) -> None:
        for n in range(5):
            async with sdk.step(f"step-{n}"):
                if await sdk.get_checkpoint(f"step-{n}") is None:
                    ran.append(n)
                    await sdk.checkpoint(f"step-{n}", {"n": n})
            if len(ran) == 3 and not crashed.is_set():
                crashed.set()
                raise KeyboardInterrupt

    crashed = trio.Event()
    with pytest.raises(KeyboardInterrupt):
        async with block(place.backend) as sdk:
            await program(sdk)
    assert sdk.outcome is Outcome.STOPPED
    assert await status(place) is InstanceStatus.SUSPENDED
    async with block(place.backend) as sdk:
        await program(sdk)
        assert await sdk.get_checkpoint("step-4", dict) == {"n": 4}
        await sdk.completed({"ran": len(ran)})
        with pytest.raises(SdkError, match="has ended"):
            await sdk.checkpoint("late")
    assert sdk.outcome is Outcome.COMPLETED
    assert ran == [0, 1, 2, 3, 4]
    with pytest.raises(InstanceFinished) as finished:
        async with block(place.backend):
            pass
    assert finished.value.output == b'{"ran":5}'
    async with block(place.backend, revive=True) as sdk:
        await program(sdk)
    assert ran == [0, 1, 2, 3, 4]


async def test_a_body_that_raises_has_failed(place: Place) -> None:
    with pytest.raises(ZeroDivisionError) as raised:
        async with block(place.backend) as sdk:
            1 / 0  # noqa: B018
    assert raised.value.__cause__ is None
    assert sdk.outcome is Outcome.FAILED
    with pytest.raises(InstanceFinished) as finished:
        async with block(place.backend):
            pass
    assert (finished.value.error or "").startswith("ZeroDivisionError: division by zero\n\n")


@pytest.mark.parametrize(
    ("verb", "argument", "outcome", "recorded"),
    [
        ("completed", {"a": 1}, Outcome.COMPLETED, InstanceStatus.COMPLETED),
        ("failed", "why", Outcome.FAILED, InstanceStatus.FAILED),
        ("suspended", "why", Outcome.PAUSED, InstanceStatus.SUSPENDED),
    ],
)
async def test_what_the_body_says_stands(
    place: Place, verb: str, argument: Any, outcome: Outcome, recorded: InstanceStatus
) -> None:
    with pytest.raises(ValueError, match="after it"):
        async with block(place.backend) as sdk:
            await getattr(sdk, verb)(argument)
            assert await status(place) is recorded
            raise ValueError("after it")
    assert sdk.outcome is outcome
    assert await status(place) is recorded


async def test_a_cancelled_scope_around_the_block_stops_it(place: Place) -> None:
    with trio.CancelScope() as around:
        async with block(place.backend) as sdk:
            await sdk.checkpoint("a")
            around.cancel()
            with pytest.raises(trio.Cancelled):
                await sdk.checkpoint("b")
            await trio.lowlevel.checkpoint()
    assert sdk.outcome is Outcome.STOPPED
    assert await status(place) is InstanceStatus.SUSPENDED
    async with block(place.backend) as sdk:
        assert await sdk.get_checkpoint("a") == b""


async def test_clean_up_can_still_call(place: Place) -> None:
    async with soon(_when_started, mark := trio.Event(), place.operator.cancel, "i"):
        async with block(place.backend) as sdk:
            try:
                await started(sdk, mark)
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    await sdk.checkpoint("cleaned up", b"yes")
    assert sdk.outcome is Outcome.CANCELLED
    async with block(place.backend, revive=True) as sdk:
        assert await sdk.get_checkpoint("cleaned up") == b"yes"


async def _when_started(
    mark: trio.Event, function: Callable[..., Awaitable[object]], *args: object
) -> None:
    await mark.wait()
    await function(*args)


# ---- signals


async def test_a_cancel_cannot_be_swallowed(place: Place) -> None:
    mark = trio.Event()
    async with soon(_when_started, mark, place.operator.cancel, "i"):
        async with block(place.backend) as sdk:
            await started(sdk, mark)
            for _ in range(2):
                with suppress(trio.Cancelled):  # a program that will not hear
                    await trio.sleep_forever()
    assert sdk.outcome is Outcome.CANCELLED
    assert await status(place) is InstanceStatus.CANCELLED


async def test_a_pause_lets_the_step_finish_and_the_program_goes_on(place: Place) -> None:
    mark, done = trio.Event(), []

    async def program(sdk: RuntaraSdk) -> None:
        async with sdk.step("work"):
            if await sdk.get_checkpoint("work") is None:
                await started(sdk, mark)
                while not sdk.pause_requested:
                    await trio.sleep(0.01)
                await trio.sleep(0.05)
                await sdk.checkpoint("work", b"whole")
        done.append("after")

    async with soon(_when_started, mark, place.operator.pause, "i"):
        async with block(place.backend) as sdk:
            await program(sdk)
    assert sdk.outcome is Outcome.PAUSED
    assert done == []
    assert await status(place) is InstanceStatus.SUSPENDED
    async with block(place.backend) as sdk:
        assert await sdk.get_checkpoint("work") == b"whole"
        await program(sdk)
        await sdk.checkpoint("later")  # the acknowledged pause stops nothing twice
        await trio.sleep(0.2)
        await sdk.check_paused()
    assert sdk.outcome is Outcome.COMPLETED
    assert done == ["after"]


async def test_two_pauses_are_two(place: Place) -> None:
    for n in range(2):
        mark = trio.Event()
        async with soon(_when_started, mark, place.operator.pause, "i"):
            async with block(place.backend) as sdk:
                await started(sdk, mark)
                await sdk.sleep(60, f"nap-{n}")
        assert sdk.outcome is Outcome.PAUSED, n


async def test_a_resume_withdraws_a_pause(place: Place) -> None:
    mark = trio.Event()

    async def pause_and_resume(sdk: RuntaraSdk) -> None:
        await mark.wait()
        await place.operator.pause("i")
        while not sdk.pause_requested:
            await trio.sleep(0.01)
        await place.operator.resume("i")
        while sdk.pause_requested:
            await trio.sleep(0.01)
        withdrawn.set()

    withdrawn = trio.Event()
    with trio.fail_after(30):
        async with block(place.backend) as sdk, trio.open_nursery() as nursery:
            nursery.start_soon(pause_and_resume, sdk)
            async with sdk.step("long"):
                await started(sdk, mark)
                await withdrawn.wait()
            await sdk.checkpoint("went on")
    assert sdk.outcome is Outcome.COMPLETED


async def test_a_signal_that_waits_for_the_start(place: Place) -> None:
    with pytest.raises(KeyboardInterrupt):
        async with block(place.backend):
            raise KeyboardInterrupt
    await place.operator.pause("i")
    async with block(place.backend) as sdk:
        await sdk.checkpoint("first")
        pytest.fail("the pause waited at the first boundary")
    assert sdk.outcome is Outcome.PAUSED


@pytest.mark.parametrize("sent_before", [True, False])
async def test_a_custom_signal_is_handed_out_and_kept(place: Place, sent_before: bool) -> None:
    mark = trio.Event()
    if sent_before:
        mark.set()
    with trio.fail_after(30):
        async with block(place.backend) as sdk, trio.open_nursery() as nursery:
            if sent_before:
                await place.operator.send_signal("i", "approve", b"yes")
            else:
                nursery.start_soon(
                    _when_started, mark, place.operator.send_signal, "i", "approve", b"yes"
                )
                nursery.start_soon(_set_after, mark, 0.1)
            assert await sdk.wait_for_signal("approve") == b"yes"
            await sdk.suspended()
    async with block(place.backend) as sdk:
        assert await sdk.wait_for_signal("approve") == b"yes"


async def _set_after(mark: trio.Event, seconds: float) -> None:
    await trio.sleep(seconds)
    mark.set()


async def test_many_waits_at_once(place: Place) -> None:
    got: dict[int, bytes] = {}

    async def wait(sdk: RuntaraSdk, n: int) -> None:
        got[n] = await sdk.wait_for_signal(f"w{n}")

    async def send() -> None:
        for n in reversed(range(5)):
            await place.operator.send_signal("i", f"w{n}", str(n).encode())

    with trio.fail_after(30):
        async with block(place.backend) as sdk:
            async with trio.open_nursery() as nursery:
                for n in range(5):
                    nursery.start_soon(wait, sdk, n)
                await sdk.checkpoint("started")
                nursery.start_soon(send)
    assert got == {n: str(n).encode() for n in range(5)}


# ---- sleep


async def test_a_sleep_goes_on_where_it_was(place: Place) -> None:
    with trio.move_on_after(0.2):
        async with block(place.backend) as sdk:
            await sdk.sleep(0.5, "nap", {"before": True})
    assert sdk.outcome is Outcome.STOPPED
    async with block(place.backend) as sdk:
        assert await sdk.get_checkpoint("nap", dict) == {"before": True}
        with trio.fail_after(20):
            await sdk.sleep(3600, "nap")  # the first wake time stands
    assert sdk.outcome is Outcome.COMPLETED


# ---- manual


async def test_manual_signals(place: Place) -> None:
    with pytest.raises(InstancePaused):
        async with block(place.backend, signals="manual") as sdk:
            await sdk.checkpoint("a")
            await place.operator.pause("i")
            signal = await sdk.poll_signal_now()
            assert signal is not None
            assert signal.type is SignalType.PAUSE
            await sdk.check_paused()
    assert sdk.outcome is Outcome.PAUSED
    assert await status(place) is InstanceStatus.SUSPENDED
    with pytest.raises(InstanceCancelled):
        async with block(place.backend, signals="manual") as sdk:
            assert await sdk.poll_signal_now() is None
            await place.operator.cancel("i")
            result = await sdk.checkpoint("b")
            assert result.should_cancel
            await sdk.check_cancelled()
    assert sdk.outcome is Outcome.CANCELLED
    assert await status(place) is InstanceStatus.CANCELLED


async def test_manual_acknowledgement_of_a_cancel(place: Place) -> None:
    async with block(place.backend, signals="manual") as sdk:
        await place.operator.cancel("i")
        await sdk.acknowledge_signal("cancel")
        assert await status(place) is InstanceStatus.CANCELLED
    assert sdk.outcome is Outcome.CANCELLED


# ---- the rest of the verbs


@pytest.mark.unless_http
async def test_events_and_retries(place: Place) -> None:
    async with block(place.backend) as sdk:
        await sdk.heartbeat()
        await sdk.custom_event("note", {"a": 1})
        await sdk.record_retry_attempt("work", 1, "broken")
        assert await sdk.get_checkpoint("work::retry::1") is not None
        info = await sdk.get_status()
        assert info.status is InstanceStatus.RUNNING
        assert info.started_at is not None
        assert sdk.is_registered
        assert sdk.is_connected


async def test_a_resume_point_must_exist(place: Place) -> None:
    with pytest.raises(SdkError, match="nowhere"):
        async with block(place.backend, checkpoint_id="nowhere"):
            pass
    with pytest.raises(KeyboardInterrupt):
        async with block(place.backend) as sdk:
            await sdk.checkpoint("here")
            raise KeyboardInterrupt
    async with block(place.backend, checkpoint_id="here") as sdk:
        assert sdk.checkpoint_id == "here"


async def test_sixty_four_instances_at_once_see_no_error(place: Place) -> None:
    async def program(name: str) -> None:
        async with block(place.backend, name) as sdk:
            for n in range(5):
                result = await sdk.checkpoint(f"step-{n}", name.encode())
                assert not result.found, (name, n)
            await sdk.completed(name)

    async with trio.open_nursery() as nursery:
        for n in range(64):
            nursery.start_soon(program, f"i{n}")
    for n in range(64):
        assert await status(place, f"i{n}") is InstanceStatus.COMPLETED


@pytest.mark.core
async def test_an_instance_without_an_input(place: Place) -> None:
    async with block(place.backend) as sdk:
        if place.url.startswith("quic"):
            with pytest.raises(NotSupported, match="the input of an instance cannot be asked for"):
                await sdk.input()
        else:
            assert await sdk.input() is None
            assert await sdk.input(list) is None
