"""What tasks wait for: an answer, an event again and again, the end of what is under way."""

from __future__ import annotations

import math
import signal
import threading

import outcome
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from runtara_trio.tasks import Answer, InFlight, RepeatedEvent, open_service_nursery, runs_on_trio

# ---- an awaited answer


async def test_an_answer_that_was_given_before_it_is_awaited() -> None:
    answer = Answer()
    answer.give(outcome.Value(1))
    answer.give(outcome.Value(2))
    assert not answer.is_awaited
    assert await answer.wait() == 1


async def test_an_answer_that_is_awaited() -> None:
    answer = Answer()

    async def ask() -> None:
        with pytest.raises(KeyError):
            await answer.wait()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await wait_all_tasks_blocked()
        assert answer.is_awaited
        answer.give(outcome.Error(KeyError("no")))


async def test_a_cancelled_task_leaves_its_answer() -> None:
    answer = Answer()
    left: list[str] = []
    with trio.move_on_after(0) as scope:
        await answer.wait(leaves=lambda: left.append("left"))
    assert scope.cancelled_caught
    assert left == ["left"]
    answer.give(outcome.Value(1))  # nobody waits, and nothing breaks


async def test_a_cancelled_task_waits_for_a_while(autojump_clock: MockClock) -> None:
    answer, late = Answer(), Answer()

    async def give() -> None:
        await trio.sleep(1)
        answer.give(outcome.Value("in time"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(give)
        with trio.CancelScope() as scope:
            scope.cancel()
            assert await answer.wait(grace=2) == "in time"
    started = trio.current_time()
    with trio.CancelScope() as scope:
        scope.cancel()
        await late.wait(grace=2)
    assert scope.cancelled_caught
    assert trio.current_time() - started == 2


async def test_neither_a_cancel_nor_ctrl_c_ends_an_infinite_grace() -> None:
    answer = Answer()

    async def give() -> None:
        await wait_all_tasks_blocked()
        answer.give(outcome.Value("here"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(give)
        with trio.CancelScope() as scope:
            scope.cancel()
            assert await answer.wait(grace=math.inf) == "here"


# ---- an event again and again


async def test_each_set_wakes_all_who_wait() -> None:
    event = RepeatedEvent()
    woken: list[int] = []

    async def wait(number: int) -> None:
        await event.wait()
        woken.append(number)

    event.set()  # nobody waits: it is forgotten
    for round_ in (1, 2):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(wait, round_)
            await wait_all_tasks_blocked()
            assert woken.count(round_) == 0
            event.set()
        assert woken.count(round_) == 3


async def test_a_wait_for_an_event_is_cancelled() -> None:
    event = RepeatedEvent()
    with trio.move_on_after(0) as scope:
        await event.wait()
    assert scope.cancelled_caught
    event.set()


# ---- what is under way


async def test_the_end_of_what_is_under_way() -> None:
    flights = InFlight()
    await flights.until_none()
    over = False

    async def wait() -> None:
        nonlocal over
        await flights.until_none()
        over = True

    async with trio.open_nursery() as nursery:
        with flights.one():
            with pytest.raises(ValueError, match="inner"), flights.one():
                nursery.start_soon(wait)
                await wait_all_tasks_blocked()
                raise ValueError("inner")
            await wait_all_tasks_blocked()
            assert not over
    assert over


# ---- services


async def test_services_outlive_the_body_of_a_cancelled_block() -> None:
    seen: list[str] = []

    async def service() -> None:
        try:
            await trio.sleep_forever()
        finally:
            seen.append("service")

    with trio.CancelScope() as around:
        async with open_service_nursery() as nursery:
            nursery.start_soon(service)
            await wait_all_tasks_blocked()
            around.cancel()
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    await wait_all_tasks_blocked()
                seen.append("body")
    assert seen == ["body", "service"]


async def test_services_of_a_block_that_is_cancelled_before_it_is_opened() -> None:
    with trio.fail_after(5), trio.CancelScope() as around:
        around.cancel()
        async with open_service_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            await trio.sleep_forever()
    assert around.cancelled_caught


async def test_a_service_that_fails_ends_the_body() -> None:
    async def service() -> None:
        raise KeyError("failed")

    with pytest.RaisesGroup(pytest.RaisesGroup(KeyError), flatten_subgroups=False):
        async with open_service_nursery() as nursery:
            nursery.start_soon(service)
            await trio.sleep_forever()


def test_ctrl_c_in_the_body_ends_the_services() -> None:
    ended = False

    async def service() -> None:
        nonlocal ended
        try:
            await trio.sleep_forever()
        finally:
            ended = True

    async def main() -> None:
        async with open_service_nursery() as nursery:
            nursery.start_soon(service)
            await wait_all_tasks_blocked()
            signal.raise_signal(signal.SIGINT)
            await trio.sleep_forever()

    with pytest.raises(BaseException) as caught:  # noqa: PT011
        trio.run(main)
    assert caught.group_contains(KeyboardInterrupt) or isinstance(caught.value, KeyboardInterrupt)
    assert ended


# ---- where code runs


async def test_code_in_a_thread_does_not_run_on_trio() -> None:
    assert runs_on_trio()
    assert not await trio.to_thread.run_sync(runs_on_trio)
    found: list[bool] = []
    thread = threading.Thread(target=lambda: found.append(runs_on_trio()))
    thread.start()
    thread.join()
    assert found == [False]
