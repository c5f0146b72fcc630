"""A worker whose store does not answer, or loses an answer."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from runtara_trio import RuntaraSdk, StoreError, open_client, open_worker, workflow
from runtara_trio.messages import ClaimRuns
from runtara_trio.testing import memory_backend

from ..helpers.support import Watched, share_another, store_of


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
