"""A backend that opens, and one that closes while blocks still use it."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from runtara_trio import Operator, Outcome, SdkError, SharedBackend, StoreError, open_backend
from runtara_trio.messages import ReadCheckpoints, RecordOutcome, Request

from ..helpers.support import Watched, block


@pytest.mark.parametrize("passes", range(6))
async def test_cancelled_while_it_opens(url: str, passes: int) -> None:
    with trio.fail_after(10), trio.CancelScope() as around:
        async with trio.open_nursery() as nursery:

            async def cancel() -> None:
                for _ in range(passes):
                    await trio.lowlevel.checkpoint()
                around.cancel()

            nursery.start_soon(cancel)
            async with block(url):
                await trio.sleep_forever()
    assert around.cancelled_caught


async def test_calls_after_the_end_of_a_backend(url: str) -> None:
    async with open_backend(url) as backend:
        async with block(backend):
            pass
    for _ in range(3):
        with pytest.raises(StoreError, match="the store was closed"):
            await Operator(backend).list()
    with pytest.raises(SdkError, match="the backend was closed"):
        async with block(backend, "j"):
            raise AssertionError("it does not run")


@pytest.mark.parametrize("kind", [RecordOutcome, ReadCheckpoints])
async def test_a_backend_that_is_closed_waits_for_what_is_being_recorded(
    memory: SharedBackend, kind: type[Request[Any]]
) -> None:
    """Its Cancelled does not leave the block, where it would end the program's nursery."""
    async with block(memory) as sdk:
        await sdk.checkpoint("a")
        await sdk.suspended()
    watched = Watched(memory)
    asked, go = trio.Event(), trio.Event()

    def hold(message: Request[Any]) -> trio.Event | None:
        if not isinstance(message, kind):
            return None
        asked.set()
        return go

    ended = []

    async def run(backend: SharedBackend) -> None:
        async with block(backend) as sdk:
            pass
        ended.append(sdk.outcome)

    async def let_go() -> None:
        await asked.wait()
        await trio.testing.wait_all_tasks_blocked()
        go.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(let_go)
        async with open_backend(watched) as backend:
            watched.before = hold
            nursery.start_soon(run, backend)
            await asked.wait()
    assert ended == [Outcome.COMPLETED]


async def test_a_block_that_said_its_end_may_outlive_its_backend(memory: SharedBackend) -> None:
    async with block(memory) as sdk:
        await sdk.suspended()
    said, go = trio.Event(), trio.Event()

    async def run(backend: SharedBackend) -> None:
        async with block(backend) as sdk:
            await sdk.completed()
            said.set()
            await go.wait()
        assert sdk.outcome is Outcome.COMPLETED

    async with trio.open_nursery() as nursery:
        async with open_backend(Watched(memory)) as backend:
            nursery.start_soon(run, backend)
            await said.wait()
        go.set()
