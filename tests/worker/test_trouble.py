"""A worker whose store does not answer, or loses an answer."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from runtara_trio import (
    LeaseLost,
    RuntaraSdk,
    SharedBackend,
    StoreError,
    open_client,
    open_worker,
    workflow,
)
from runtara_trio.messages import Checkpoint, ClaimRuns, LookForWork, RecordOutcome, RecoverRuns
from runtara_trio.testing import memory_backend

from ..helpers.places import postgres_place
from ..helpers.support import Watched, leases_of, share_another, sql, store_of


@workflow
async def greets(sdk: RuntaraSdk) -> str:
    return "hello"


def test_a_store_that_is_away_is_asked_once_a_second() -> None:
    """Also while something is due."""

    async def main() -> None:
        async with memory_backend() as backend, open_client(backend, tenant_id="t") as client:
            watched = Watched(store_of(backend))
            share_another(backend, watched)
            async with open_worker(backend, [greets], stop_signals=()):
                handle = await client.start(greets, delay=10)
                await trio.sleep(5)
                before = len(watched.sent(ClaimRuns))
                away = StoreError("away", transient=True)
                watched.before = lambda message: away if isinstance(message, ClaimRuns) else None
                await trio.sleep(35)
                assert 20 <= len(watched.sent(ClaimRuns)) - before <= 40
                watched.before = lambda message: None
                assert await handle.result() == "hello"

    trio.run(main, clock=MockClock(autojump_threshold=0))


async def test_who_comes_back_behind_a_recovery_is_fenced(backend: SharedBackend) -> None:
    """Its run is ready for others, though nobody has taken it yet: it holds no place any more."""
    asked = {"queues": ("default",), "workflows": (("greets", 1),)}
    async with open_client(backend, tenant_id="t") as client:
        handle = await client.start(greets, id="a")
        (claimed,) = (await backend.request(ClaimRuns(**asked, limit=1))).runs
        await sql(backend, "UPDATE runtara_trio_leases SET owner = 'stopped'")
        dead = (await backend.request(LookForWork(**asked))).dead
        assert dead == ("stopped",)
        recovered = await backend.request(RecoverRuns(dead=dead, max_recoveries=10))
        assert recovered.count == 1
        late = Checkpoint(instance_id="a", lease=claimed.lease, checkpoint_id="late", state=b"late")
        with pytest.raises(LeaseLost):
            await backend.request(late)
        async with open_worker(backend, [greets], stop_signals=()):
            assert await handle.result(timeout=30) == "hello"


async def test_a_claim_whose_answer_was_lost(postgres_server: str) -> None:
    """What it took is not put off for ever by the one who took it."""
    asked = {"queues": ("default",), "workflows": (("greets", 1),)}
    async with (
        postgres_place(postgres_server) as place,
        open_client(place.backend, tenant_id="t") as client,
    ):
        await client.start(greets, id="a")
        await place.backend.request(ClaimRuns(**asked, limit=1))
        leases_of(place.backend).clear()  # nobody has heard of it
        again = await place.backend.request(ClaimRuns(**asked, limit=1, lost=True))
        assert [one.instance_id for one in again.runs] == ["a"]


@pytest.mark.parametrize("error", [LeaseLost("a"), StoreError("away", transient=True)])
def test_a_run_that_came_while_it_drains_and_cannot_be_given_back(error: Exception) -> None:
    """The drain ends as any other: somebody else has the run already, or takes it over."""

    async def main() -> None:
        async with memory_backend() as backend, open_client(backend, tenant_id="t") as client:
            watched = Watched(store_of(backend))
            share_another(backend, watched)
            refused: list[object] = []
            drains = trio.Event()

            def before(message: object) -> object:
                if isinstance(message, ClaimRuns):
                    return drains
                if isinstance(message, RecordOutcome) and message.payload.startswith(b"given back"):
                    refused.append(message.instance_id)
                    return error
                return None

            watched.before = before
            async with trio.open_nursery() as nursery:

                async def later() -> None:
                    await trio.sleep(2)
                    drains.set()

                nursery.start_soon(later)
                async with open_worker(backend, [greets], stop_signals=()):
                    await client.start(greets, id="a")
                    await trio.sleep(1)
            assert refused == ["a"]

    trio.run(main, clock=MockClock(autojump_threshold=0))
