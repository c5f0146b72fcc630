"""Pause: two phases, boundaries, steps. On a mocked clock, in memory."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from runtara_trio import (
    InstanceBusy,
    InstanceStatus,
    Operator,
    Outcome,
    RuntaraSdk,
    SharedBackend,
    current_sdk,
    durable,
)

from ..helpers.places import Place
from ..helpers.support import block


async def when(condition: Callable[[], bool]) -> None:
    while not condition():
        await trio.lowlevel.checkpoint()


async def pause(backend: SharedBackend, sdk: RuntaraSdk) -> None:
    with trio.CancelScope(shield=True):
        await Operator(backend).pause("i")
        await when(lambda: sdk.pause_requested)


async def test_a_running_step_is_not_interrupted(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    done = []

    async def other() -> None:
        async with sdk.step("work"):
            await trio.sleep(5)
            await sdk.checkpoint("work", b"result")
            done.append(trio.current_time())

    start = trio.current_time()
    async with block(memory) as sdk, trio.open_nursery() as nursery:
        nursery.start_soon(other)
        await trio.testing.wait_all_tasks_blocked()
        await pause(memory, sdk)
        await sdk.checkpoint("parks here")
        raise AssertionError("it parked, and went on into the cancelled scope")
    assert sdk.outcome is Outcome.PAUSED
    assert done == []  # the checkpoint of the step is a boundary itself: saved, then parked
    assert trio.current_time() - start == pytest.approx(5)
    saved = {one.checkpoint_id for one in (await Operator(memory).checkpoints("i")).checkpoints}
    assert saved == {"parks here", "work"}


async def test_no_new_step_starts(autojump_clock: MockClock, memory: SharedBackend) -> None:
    async with block(memory) as sdk:
        await pause(memory, sdk)
        async with sdk.step("never"):
            raise AssertionError("a new step started")
    assert sdk.outcome is Outcome.PAUSED


@pytest.mark.parametrize("boundary", ["checkpoint", "step", "check_paused", "sleep", "signal"])
async def test_every_boundary_parks(
    autojump_clock: MockClock, memory: SharedBackend, boundary: str
) -> None:
    async def reach() -> None:
        if boundary == "step":
            async with sdk.step():
                pass
        else:
            await {
                "checkpoint": lambda: sdk.checkpoint("a"),
                "check_paused": sdk.check_paused,
                "sleep": lambda: sdk.sleep(3600, "nap"),
                "signal": lambda: sdk.wait_for_signal("approve"),
            }[boundary]()

    start = trio.current_time()
    async with block(memory) as sdk:
        await pause(memory, sdk)
        await reach()
        raise AssertionError("it parked")
    assert sdk.outcome is Outcome.PAUSED
    assert trio.current_time() == start


@pytest.mark.parametrize("waiting", ["sleep", "signal"])
async def test_a_wait_is_a_boundary_for_its_whole_length(
    autojump_clock: MockClock, memory: SharedBackend, waiting: str
) -> None:
    async def later() -> None:
        await trio.sleep(10)
        await Operator(memory).pause("i")

    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        async with block(memory) as sdk:
            nursery.start_soon(later)
            await (sdk.sleep(3600, "nap") if waiting == "sleep" else sdk.wait_for_signal("s"))
    assert sdk.outcome is Outcome.PAUSED
    assert trio.current_time() - start == pytest.approx(10)


async def test_the_grace_ends_what_reaches_no_boundary(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    start = trio.current_time()
    async with block(memory, pause_grace=7) as sdk:
        await pause(memory, sdk)
        await trio.sleep_forever()
    assert sdk.outcome is Outcome.PAUSED
    assert trio.current_time() - start == pytest.approx(7)


async def test_a_pause_of_what_only_waits_has_settled_whatever_its_grace(
    memory: SharedBackend, caplog: pytest.LogCaptureFixture
) -> None:
    async with block(memory, pause_grace=0) as sdk, trio.open_nursery() as nursery:
        nursery.start_soon(sdk.wait_for_signal, "never")
        await trio.testing.wait_all_tasks_blocked()
        await Operator(memory).pause("i")
        await trio.sleep_forever()
    assert sdk.outcome is Outcome.PAUSED
    assert "grace" not in caplog.text


async def test_the_grace_lets_go_what_is_parked_in_a_shield(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    went_on = []

    async def shielded() -> None:
        with trio.CancelScope(shield=True):
            await sdk.checkpoint("a")
            went_on.append(trio.current_time())

    start = trio.current_time()
    async with block(memory, pause_grace=7) as sdk:
        async with trio.open_nursery() as nursery, sdk.step("long"):
            await pause(memory, sdk)
            nursery.start_soon(shielded)
            await trio.sleep(100)
    # the step worked on until the grace was over, though a task of it had parked
    assert went_on == [pytest.approx(start + 7)]
    assert sdk.outcome is Outcome.PAUSED


async def test_work_in_a_step_goes_on_while_another_task_of_it_is_parked(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    finished = []

    async def work() -> None:
        await trio.sleep(3)
        finished.append("work")

    start = trio.current_time()
    async with block(memory) as sdk, sdk.step("outer"), trio.open_nursery() as nursery:
        nursery.start_soon(work)
        nursery.start_soon(sdk.checkpoint, "parks")
        await pause(memory, sdk)
    assert finished == ["work"]
    assert sdk.outcome is Outcome.PAUSED
    assert 3 <= trio.current_time() - start < 4  # long before the grace


async def test_a_parked_task_in_a_shield_continues_once_the_scope_is_cancelled(
    autojump_clock: MockClock,
    memory: SharedBackend,
) -> None:
    async with block(memory) as sdk:
        await pause(memory, sdk)
        with trio.CancelScope(shield=True):
            await sdk.checkpoint("a")  # parks alone: settled at once
            await sdk.checkpoint("b")  # nothing parks in a cancelled scope
    assert sdk.outcome is Outcome.PAUSED


async def test_nothing_parks_under_a_cancelled_scope_around_the_block(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    async def finish_a_step() -> None:
        with trio.CancelScope(shield=True):
            async with sdk.step():
                await trio.sleep(5)

    start = trio.current_time()
    with trio.CancelScope() as around:
        async with block(memory) as sdk, trio.open_nursery() as nursery:
            nursery.start_soon(finish_a_step)
            await trio.testing.wait_all_tasks_blocked()
            around.cancel()
            with trio.CancelScope(shield=True):
                await Operator(memory).pause("i")
                await sdk.checkpoint("clean-up")
                assert trio.current_time() == start
    assert sdk.outcome is Outcome.STOPPED


async def test_a_resume_in_the_first_phase_withdraws_the_pause(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    operator = Operator(memory)

    async def working() -> None:
        async with sdk.step("work"):
            await trio.sleep(5)

    async def resuming() -> None:
        await trio.sleep(1)
        await operator.resume("i")

    start = trio.current_time()
    async with block(memory) as sdk:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(working)
            await trio.testing.wait_all_tasks_blocked()
            await pause(memory, sdk)
            nursery.start_soon(resuming)
            await sdk.checkpoint("parked for a second")
            assert trio.current_time() - start == pytest.approx(1)
            assert not sdk.pause_requested
        assert (await operator.show("i")).summary.signal is None
        await trio.sleep(100)  # longer than the grace: it is withdrawn, too
    assert sdk.outcome is Outcome.COMPLETED


async def test_nested_steps_do_not_wait_for_themselves(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    start = trio.current_time()
    async with block(memory) as sdk, sdk.step("outer"):
        await pause(memory, sdk)
        async with sdk.step("inner"):
            raise AssertionError("no new step starts")
    assert sdk.outcome is Outcome.PAUSED
    assert trio.current_time() == start


async def test_steps_in_parallel_inside_a_step_finish_first(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    finished = []

    async def child(seconds: float) -> None:
        async with sdk.step():
            await trio.sleep(seconds)
            finished.append(seconds)

    start = trio.current_time()
    async with block(memory) as sdk, sdk.step("outer"):
        async with trio.open_nursery() as nursery:
            for seconds in (1, 2, 3):
                nursery.start_soon(child, seconds)
            await trio.testing.wait_all_tasks_blocked()
            await pause(memory, sdk)
    assert finished == [1, 2, 3]
    assert sdk.outcome is Outcome.PAUSED
    assert trio.current_time() - start == pytest.approx(3)


async def test_an_error_in_a_step_is_not_parked(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    with pytest.raises(ValueError, match="payment refused"):
        async with block(memory) as sdk:
            async with sdk.step("pay"):
                await pause(memory, sdk)
                raise ValueError("payment refused")
    assert sdk.outcome is Outcome.FAILED


async def test_the_save_in_a_step_is_shielded(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    async with block(memory) as sdk:
        async with sdk.step("pay"):
            with trio.CancelScope(shield=True):
                await Operator(memory).cancel("i")
                await trio.sleep(1)  # the effect happens though the scope is cancelled
            assert not (await sdk.checkpoint("pay", b"receipt")).found
            await trio.lowlevel.checkpoint()
            raise AssertionError("saved, then Cancelled")
    assert sdk.outcome is Outcome.CANCELLED
    (saved,) = (await Operator(memory).checkpoints("i")).checkpoints
    assert saved.state == b"receipt"


async def test_an_unshielded_call_in_a_cancelled_scope_writes_nothing(
    autojump_clock: MockClock,
    memory: SharedBackend,
) -> None:
    async with block(memory) as sdk:
        with trio.CancelScope() as inner:
            inner.cancel()
            await sdk.checkpoint("never")
        assert inner.cancelled_caught
        assert await sdk.get_checkpoint("never") is None


async def test_clean_up_can_still_call_the_sdk(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    async with block(memory) as sdk:
        await Operator(memory).cancel("i")
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await sdk.checkpoint("tidied", b"yes")
                await sdk.custom_event("tidied")
            with pytest.raises(trio.Cancelled):  # level-triggered
                await sdk.checkpoint("again")
    assert sdk.outcome is Outcome.CANCELLED
    (saved,) = (await Operator(memory).checkpoints("i")).checkpoints
    assert saved.checkpoint_id == "tidied"


async def test_a_waiting_pause_stops_the_next_start_at_its_first_boundary(
    autojump_clock: MockClock,
    memory: SharedBackend,
) -> None:
    operator = Operator(memory)
    async with block(memory) as sdk:
        await sdk.suspended()
    answer = await operator.pause("i")
    assert answer.status is InstanceStatus.SUSPENDED
    reached = []
    async with block(memory) as sdk:
        assert sdk.pause_requested  # delivered before the body runs
        await trio.sleep(1)
        reached.append("work before the boundary")
        await sdk.checkpoint("a")
        reached.append("never")
    assert reached == ["work before the boundary"]
    assert sdk.outcome is Outcome.PAUSED
    async with block(memory) as sdk:  # acknowledged: it does not stop the one after
        await sdk.checkpoint("b")
    assert sdk.outcome is Outcome.COMPLETED


async def test_a_pause_that_was_asked_before_a_local_stop_waits_for_the_next_start(
    autojump_clock: MockClock,
    memory: SharedBackend,
) -> None:
    with trio.CancelScope() as around:
        async with block(memory) as sdk:
            await pause(memory, sdk)
            around.cancel()
            await trio.sleep_forever()
    assert sdk.outcome is Outcome.STOPPED
    async with block(memory) as sdk:
        assert sdk.pause_requested
        await sdk.check_paused()
    assert sdk.outcome is Outcome.PAUSED


async def test_a_cancel_goes_over_a_pause(autojump_clock: MockClock, memory: SharedBackend) -> None:
    async with block(memory) as sdk:
        await pause(memory, sdk)
        await Operator(memory).cancel("i")
        await trio.sleep_forever()
    assert sdk.outcome is Outcome.CANCELLED


async def test_a_cancel_after_the_pause_has_cancelled_the_scope_stands(
    autojump_clock: MockClock,
    memory: SharedBackend,
) -> None:
    async with block(memory) as sdk:
        await pause(memory, sdk)
        try:
            await sdk.sleep(3600, "nap")
        finally:
            with trio.CancelScope(shield=True):
                await Operator(memory).cancel("i")
    assert sdk.outcome is Outcome.CANCELLED


async def test_with_a_step_that_runs_and_nobody_parked_the_body_goes_on(
    autojump_clock: MockClock,
    memory: SharedBackend,
) -> None:
    async with block(memory) as sdk:
        async with sdk.step("last"):
            await pause(memory, sdk)
            await trio.sleep(1)
            await sdk.completed(b"all done")
    # the step's exit is a boundary, but the outcome was said before it
    assert sdk.outcome is Outcome.COMPLETED


async def test_a_pause_does_not_end_the_clean_up_after_the_outcome(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    async with block(memory, pause_grace=1) as sdk:
        await Operator(memory).pause("i")
        await trio.testing.wait_all_tasks_blocked()
        await sdk.completed(b"x")
        await trio.sleep(10)
        tidied = True
    assert tidied
    assert sdk.outcome is Outcome.COMPLETED


async def test_a_declined_pause_leaves_no_task_behind(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    async with block(memory, "warm-up"):
        pass
    before = trio.lowlevel.current_statistics().tasks_living
    for number in range(5):
        async with block(memory, f"i{number}") as sdk:
            await Operator(memory).pause(f"i{number}")
            await trio.testing.wait_all_tasks_blocked()
            assert sdk.pause_requested
        assert sdk.outcome is Outcome.COMPLETED
    await trio.sleep(10)
    assert trio.lowlevel.current_statistics().tasks_living == before


@pytest.mark.guard
async def test_a_hold_keeps_the_lease(place: Place) -> None:
    """Nobody else may run what is held; an operator sees it, and who has it."""
    operator = place.operator

    async def is_held() -> bool:
        return (await operator.show("i")).summary.status is InstanceStatus.SUSPENDED

    async with block(place.backend, on_pause="hold") as sdk, trio.open_nursery() as nursery:
        nursery.start_soon(sdk.sleep, 3600, "nap")
        await operator.pause("i")
        with trio.fail_after(10):
            while not await is_held():
                await trio.lowlevel.checkpoint()
        with pytest.raises(InstanceBusy):
            async with block(place.backend):
                raise AssertionError("not reached")
        assert (await operator.show("i")).summary.held
        answer = await operator.resume("i")
        assert answer.text == "resume delivered"
        with trio.fail_after(10):
            while await is_held() or sdk.pause_requested:
                await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert sdk.outcome is Outcome.COMPLETED
    events = (await operator.events("i")).events
    assert [one.type for one in events] == ["started", "suspended", "started", "completed"]
    assert (await operator.show("i")).summary.signal is None


@pytest.mark.parametrize("on_pause", ["suspend", "hold"])
async def test_steps_that_share_a_run_do_not_keep_a_pause(
    autojump_clock: MockClock, memory: SharedBackend, on_pause: str
) -> None:
    """All wait for one call, which waits for a signal: nothing is half done."""
    operator = Operator(memory)

    @durable
    async def shared() -> bytes:
        return await current_sdk().wait_for_signal("go")

    @durable
    async def outer(n: int) -> bytes:
        return await shared()

    async def operate() -> None:
        await trio.sleep(1)
        await operator.pause("i")
        await trio.sleep(1)
        assert (await operator.show("i")).summary.status is InstanceStatus.SUSPENDED
        if on_pause == "hold":
            await operator.resume("i")
            await operator.send_signal("i", "go", b"yes")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(operate)
        async with block(memory, on_pause=on_pause, pause_grace=1000) as sdk:
            async with trio.open_nursery() as steps:
                for n in range(3):
                    steps.start_soon(outer, n)
    assert sdk.outcome is (Outcome.COMPLETED if on_pause == "hold" else Outcome.PAUSED)
