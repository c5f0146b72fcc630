"""Private names of other libraries that this package uses: they do what it believes.

aioquic's have a test of their own, for they stand in one module, ``quic/transport/shim.py``;
psycopg's generators are what every test on PostgreSQL runs on.
"""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path
from typing import Any

import trio
from trio.testing import wait_all_tasks_blocked

import runtara_trio
from runtara_trio.engine.boundary import waits_for_children
from runtara_trio.testing.simulation.repeatable import repeatable

SOURCES = Path(runtara_trio.__file__).parent
USED = {"asyncio._unregister_task", "sys._getframe", "trio._core"}


def test_which_names_are_used() -> None:
    """A new one has to be added here, and to be tried below."""
    found: set[str] = set()
    for path in SOURCES.rglob("*.py"):
        pattern = r"\b(?:asyncio|sys|trio|trio\.lowlevel|trio_asyncio|psycopg|msgspec)\._[a-z]\w+"
        found |= set(re.findall(pattern, path.read_text()))
    assert found == USED


async def test_a_scope_knows_of_a_cancelled_one_around_it() -> None:
    with trio.CancelScope() as around:
        with trio.CancelScope() as scope:
            status = scope._cancel_status
            assert status is not None
            assert not status.effectively_cancelled
            around.cancel()
            assert status.effectively_cancelled
            assert not scope.cancel_called
            with trio.CancelScope(shield=True):
                await trio.lowlevel.checkpoint()
        assert scope._cancel_status is None
        await trio.lowlevel.checkpoint()


def test_the_order_of_tasks_comes_from_a_seed() -> None:
    """Trio's own order is another one in every run."""

    async def main() -> list[int]:
        order: list[int] = []

        async def task(number: int) -> None:
            for _ in range(3):
                await trio.lowlevel.checkpoint()
                order.append(number)

        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(task, number)
        return order

    orders: list[list[int]] = []
    for seed in (1, 1, 2):
        with repeatable(seed):
            orders.append(trio.run(main))
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]


async def test_a_task_that_waits_for_its_children_is_seen() -> None:
    waiting: list[trio.lowlevel.Task] = []

    async def parent() -> None:
        waiting.append(trio.lowlevel.current_task())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(parent)
        await wait_all_tasks_blocked()
        (task,) = waiting
        assert waits_for_children(task)
        (child,) = task.child_nurseries[0].child_tasks
        assert not waits_for_children(child)
        nursery.cancel_scope.cancel()


async def test_the_scopes_around_a_task_are_seen() -> None:
    with (
        trio.CancelScope(deadline=trio.current_time() + 100) as around,
        trio.CancelScope() as scope,
    ):
        await trio.lowlevel.checkpoint()
        status: Any = trio.lowlevel.current_task()._cancel_status  # type: ignore[attr-defined]
        assert status._scope is scope
        assert status._parent._scope is around


def test_asyncio_forgets_a_task() -> None:
    async def main() -> None:
        task = asyncio.create_task(asyncio.sleep(0))
        assert task in asyncio.all_tasks()
        asyncio._unregister_task(task)  # type: ignore[attr-defined]
        assert task not in asyncio.all_tasks()
        await task

    asyncio.run(main())


def test_the_frame_of_the_caller() -> None:
    beside = object()

    def decorates() -> object:
        return sys._getframe(1).f_locals["beside"]

    assert decorates() is beside
