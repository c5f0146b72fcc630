"""What the next run of a parent asks for: pages, however many children it has."""

from __future__ import annotations

from runtara_trio import Operator, RuntaraSdk, SharedBackend, open_client, open_worker, workflow
from runtara_trio.messages import Checkpoint, GetResults, StartRuns

from ..helpers.runs import Log
from ..helpers.support import Watched, share_another, store_of, until

CHILDREN = 2_500


@workflow
async def double(sdk: RuntaraSdk, number: int) -> int:
    return 2 * number


async def test_many_children_in_pages(memory: SharedBackend, log: Log) -> None:
    @workflow
    async def parent(sdk: RuntaraSdk) -> int:
        async with sdk.open_children("doubles") as children:
            for number in range(CHILDREN):
                await children.start(double, number, name=str(number))
        async with sdk.open_children("again") as children:
            handles = [await children.start(double, n, name=str(n)) for n in range(CHILDREN)]
            total = sum([await one.result() for one in handles])
        log.did.append("all")
        await sdk.wait_for_signal("go")
        return total

    async with open_client(memory, tenant_id="t") as client:
        handle = await client.start(parent, id="p")
        async with open_worker(memory, [parent, double]):
            await until(lambda: log.did == ["all"])
        watched = Watched(store_of(memory))
        share_another(memory, watched)
        async with open_worker(memory, [parent]):  # nobody runs children any more
            await until(lambda: log.did == ["all", "all"])
            await Operator(memory).send_signal("p", "go", b"")
            assert await handle.result(timeout=30) == sum(2 * n for n in range(CHILDREN))
    started = [len(message.runs) for message in watched.sent(StartRuns)]
    assert sum(started) == 2 * CHILDREN  # which finds them
    assert len(started) <= 2 * (CHILDREN // 1000 + 1)
    asked = [len(message.instance_ids) for message in watched.sent(GetResults)]
    assert len(asked) <= 2 * (CHILDREN // 1000 + 2)
    assert max(asked) <= 1000
    assert not watched.sent(Checkpoint)  # results are not saved again
