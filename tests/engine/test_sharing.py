"""Tasks that make one durable call at once share one run of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from runtara_trio import SdkError
from runtara_trio.engine.boundary import Boundary
from runtara_trio.engine.sharing import Runs


@pytest.fixture
def scope() -> trio.CancelScope:
    """The scope that a pause would cancel."""
    return trio.CancelScope()


@pytest.fixture
def boundary(scope: trio.CancelScope) -> Boundary:
    return Boundary("i", scope, grace=30)


@pytest.fixture
def runs(boundary: Boundary) -> Runs:
    return Runs(boundary)


class Work:
    """A call that is made as often as it must be, and ends when it is told to."""

    def __init__(self, *results: object) -> None:
        self.results = list(results)
        self.made = 0
        self.may_end = trio.Event()

    async def __call__(self) -> object:
        self.made += 1
        await self.may_end.wait()
        result = self.results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result


async def keep(kept: list[Any], call: Callable[[], Awaitable[Any]]) -> None:
    """Make a call, and keep what it returns or raises."""
    try:
        kept.append(await call())
    except Exception as exc:
        kept.append(exc)


async def shared_by(runs: Runs, work: Work, tasks: int) -> list[Any]:
    """What so many tasks get that call at once."""
    kept: list[Any] = []
    async with trio.open_nursery() as nursery:
        for _ in range(tasks):
            nursery.start_soon(keep, kept, lambda: runs.share("a", work))
        await wait_all_tasks_blocked()
        work.may_end.set()
    return kept


async def test_tasks_that_call_at_once_share_one_run(runs: Runs) -> None:
    result = object()
    work = Work(result)
    kept = await shared_by(runs, work, tasks=3)
    assert work.made == 1
    assert all(one is result for one in kept)
    assert len(kept) == 3


async def test_a_result_of_none_is_shared_too(runs: Runs) -> None:
    work = Work(None)
    assert await shared_by(runs, work, tasks=2) == [None, None]
    assert work.made == 1


async def test_an_error_is_shared(runs: Runs) -> None:
    """Who waits does not try again what has failed for another."""
    error = ValueError("declined")
    work = Work(error)
    kept = await shared_by(runs, work, tasks=3)
    assert work.made == 1
    assert all(one is error for one in kept)
    assert len(kept) == 3


async def test_a_run_that_has_ended_is_not_shared(runs: Runs) -> None:
    """Whether it is made once more is not decided here: its result may be stored."""
    work = Work(1, ValueError("declined"), 3)
    work.may_end.set()
    assert await runs.share("a", work) == 1
    with pytest.raises(ValueError, match="declined"):
        await runs.share("a", work)
    assert await runs.share("a", work) == 3


async def test_calls_under_other_ids_do_not_wait(runs: Runs) -> None:
    first, second = Work(1), Work(2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(runs.share, "a", first)
        await wait_all_tasks_blocked()
        second.may_end.set()
        assert await runs.share("b", second) == 2
        first.may_end.set()


async def test_the_work_of_a_cancelled_maker_is_taken_up(runs: Runs) -> None:
    """By one of those who wait; the others wait for him then."""
    work = Work("done")
    kept: list[Any] = []

    async def maker(scope: trio.CancelScope) -> None:
        with scope:
            await runs.share("a", work)

    cancelled = trio.CancelScope()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(maker, cancelled)
        await wait_all_tasks_blocked()
        for _ in range(3):
            nursery.start_soon(keep, kept, lambda: runs.share("a", work))
        await wait_all_tasks_blocked()
        assert work.made == 1
        cancelled.cancel()
        await wait_all_tasks_blocked()
        assert work.made == 2
        work.may_end.set()
    assert cancelled.cancelled_caught
    assert kept == ["done"] * 3


async def test_a_cancelled_waiter_leaves_the_run_alone(runs: Runs) -> None:
    work = Work("done")
    kept: list[Any] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep, kept, lambda: runs.share("a", work))
        await wait_all_tasks_blocked()
        with trio.CancelScope() as waiting:
            waiting.cancel()
            await runs.share("a", work)
        assert waiting.cancelled_caught
        work.may_end.set()
    assert kept == ["done"]
    assert work.made == 1


async def test_who_waits_for_a_run_is_at_a_boundary(
    runs: Runs, boundary: Boundary, scope: trio.CancelScope
) -> None:
    """A pause need not wait for him, only for what the run does."""
    work = Work("done")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(runs.share, "a", work)
        await wait_all_tasks_blocked()
        boundary.ask()
        assert not boundary.settled
        nursery.start_soon(runs.share, "a", work)
        await wait_all_tasks_blocked()
        assert boundary.settled
        assert scope.cancel_called
        work.may_end.set()


# ---- a call that would wait for itself


WAITS_FOR_ITSELF = "the durable call 'a' waits for itself"


async def test_a_call_from_inside_its_own_run_is_an_error(runs: Runs) -> None:
    async def again() -> Any:
        return await runs.share("a", again)

    with pytest.raises(SdkError, match=WAITS_FOR_ITSELF), trio.fail_after(10):
        await runs.share("a", again)


async def test_a_call_through_another_is_an_error(runs: Runs) -> None:
    async def a() -> Any:
        return await runs.share("b", b)

    async def b() -> Any:
        return await runs.share("a", a)

    with pytest.raises(SdkError, match=WAITS_FOR_ITSELF), trio.fail_after(10):
        await runs.share("a", a)


async def test_a_call_from_a_task_that_its_run_started_is_an_error(runs: Runs) -> None:
    kept: list[Any] = []

    async def a() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep, kept, lambda: runs.share("a", a))

    with trio.fail_after(10):
        await runs.share("a", a)
    (error,) = kept
    assert isinstance(error, SdkError)


async def test_two_runs_that_wait_for_each_other_are_an_error(runs: Runs) -> None:
    """The second wait closes the circle; who waits for its run is told the same."""
    both_run = trio.Event()
    kept: list[Any] = []

    async def a() -> Any:
        await both_run.wait()
        return await runs.share("b", b)

    async def b() -> Any:
        both_run.set()
        await wait_all_tasks_blocked()
        return await runs.share("a", a)

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep, kept, lambda: runs.share("a", a))
            await wait_all_tasks_blocked()
            nursery.start_soon(keep, kept, lambda: runs.share("b", b))
    first, second = kept
    assert first is second
    assert isinstance(first, SdkError)
    assert str(first).startswith(WAITS_FOR_ITSELF)


async def test_a_wait_that_is_over_is_no_part_of_a_circle(runs: Runs) -> None:
    """Else a run could not call again what once waited for it."""
    outer, inner = Work("outer"), Work("inner")

    async def a() -> Any:
        with trio.CancelScope() as scope:
            scope.cancel()
            await runs.share("b", inner)
        return await outer()

    async def b() -> Any:
        await inner()
        return await runs.share("a", a)

    kept: list[Any] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep, kept, lambda: runs.share("b", b))
        await wait_all_tasks_blocked()
        nursery.start_soon(keep, kept, lambda: runs.share("a", a))
        await wait_all_tasks_blocked()
        inner.may_end.set()
        await wait_all_tasks_blocked()
        outer.may_end.set()
    assert kept == ["outer", "outer"]


async def test_after_such_an_error_the_call_can_be_made(runs: Runs) -> None:
    async def again() -> Any:
        return await runs.share("a", again)

    with pytest.raises(SdkError), trio.fail_after(10):
        await runs.share("a", again)
    work = Work("done")
    work.may_end.set()
    assert await runs.share("a", work) == "done"
