"""Waiting for ends whose numbers are committed out of order, as PostgreSQL's are."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from typing import Any

import trio
import trio.testing

from runtara_trio import InstanceStatus
from runtara_trio.backend import SignalBatch
from runtara_trio.engine.ends import EndsOfRuns
from runtara_trio.messages import Ends, EndsSince, GetResults, Result, Results


class Store:
    """Ends, each committed when a test says so."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self.ended: dict[int, str] = {}
        self.asked: list[Any] = []

    def every(self, seconds: float) -> float:
        return math.inf

    def start_service(self, service: EndsOfRuns) -> None:
        self._nursery.start_soon(service.watch)

    def signals(self) -> AsyncIterator[SignalBatch]:
        raise NotImplementedError

    async def request(self, message: Any) -> Any:
        await trio.lowlevel.checkpoint()
        self.asked.append(message)
        if isinstance(message, GetResults):
            over = set(self.ended.values())
            return Results(
                results={
                    one: Result(
                        status=InstanceStatus.COMPLETED if one in over else InstanceStatus.RUNNING,
                        tenant_id="t",
                        workflow="w",
                        output=b"1",
                        error=None,
                    )
                    for one in message.instance_ids
                }
            )
        assert isinstance(message, EndsSince)
        if message.after is None:
            return Ends(last=max(self.ended, default=0), ended=())
        found = [(n, self.ended[n]) for n in sorted(self.ended) if n > message.after]
        return Ends(last=message.after, ended=tuple(found[: message.limit]))


async def told(store: Store, ends: EndsOfRuns, instance_id: str, done: trio.Event) -> None:
    """Until somebody who waits for an instance is told; nobody looks at all of them meanwhile."""
    with trio.fail_after(2), ends.waiting(instance_id) as waiter:
        await waiter.wait()
        done.set()


async def test_an_end_is_committed_after_a_later_one() -> None:
    async with trio.open_nursery() as nursery:
        store, done = Store(nursery), trio.Event()
        ends = EndsOfRuns(store)
        store.ended = {5: "later"}  # 4 is on its way when the watch begins
        nursery.start_soon(told, store, ends, "late", done)
        await trio.testing.wait_all_tasks_blocked()
        store.ended[4] = "late"
        ends.tell()
        await done.wait()
        nursery.cancel_scope.cancel()


async def test_thousands_of_ends_behind_a_gap() -> None:
    """A number that is never committed holds nobody up."""
    async with trio.open_nursery() as nursery:
        store, done = Store(nursery), trio.Event()
        ends = EndsOfRuns(store)
        nursery.start_soon(told, store, ends, "last", done)
        await trio.testing.wait_all_tasks_blocked()
        store.ended = {number: f"i{number}" for number in range(2, 3000)}  # 1 is missing
        ends.tell()
        await trio.testing.wait_all_tasks_blocked()
        store.ended[3000] = "last"
        ends.tell()
        await done.wait()
        nursery.cancel_scope.cancel()
