"""Parents and children in several processes, which are killed and drained."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import trio

from runtara_trio import InstanceStatus, Operator, open_backend, open_client

from ..helpers.fleet import open_fleet
from ..helpers.places import Shared

LONG = 60


async def test_a_tree_whose_workers_are_killed(shared: Shared, tmp_path: Path) -> None:
    """Parents and children are killed again and again; every step is made and saved once."""
    draw = random.Random(17)
    generations, children, kills = 3, 4, 8
    everyone = sum(children**n for n in range(generations + 1))
    async with (
        open_client(shared.url, tenant_id="t") as client,
        open_fleet(shared, tmp_path) as fleet,
    ):
        root = await client.start("tree", generations, children, 0.02, id="t", version=1)
        workers = [await fleet.start(slots=8, max_loaded=20) for _ in range(3)]
        points = sorted(draw.sample(range(5, everyone * 4), kills))

        async def replace() -> None:
            workers.append(await fleet.start(slots=8, max_loaded=20))

        async with trio.open_nursery() as nursery:
            for point in points:
                await fleet.until_lines(point)
                await fleet.until(lambda: bool(workers))
                await fleet.kill(workers.pop(draw.randrange(len(workers))))
                nursery.start_soon(replace)
            assert len(await root.result(list[str], timeout=LONG)) == 2
        found = await client.list(workflow="tree", limit=1000)
        results = {
            one.instance_id: await client.get(one.instance_id).result(list[str], timeout=LONG)
            for one in found.instances
        }
    assert len(results) == everyone
    fleet.ledger.check(results, moves=True)


@pytest.mark.parametrize("kill", [False, True])
async def test_a_cancel_goes_down_over_processes(
    shared: Shared, tmp_path: Path, kill: bool
) -> None:
    """Each of a chain is told, whoever runs it; one whose worker has just died is, too."""
    async with (
        open_client(shared.url, tenant_id="t") as client,
        open_backend(shared.url) as backend,
        open_fleet(shared, tmp_path) as fleet,
    ):
        operator = Operator(backend)
        first, _ = [await fleet.start(slots=1) for _ in range(2)]
        await client.start("stays", 3, id="s", version=1)
        last = "s/c/c/c"
        await fleet.until_noted("stays", last)
        if kill:
            await fleet.kill(first)
        await operator.cancel("s")
        chain = ["s", "s/c", "s/c/c", last]
        with trio.fail_after(LONG):
            for one in chain:
                while await client.get(one).status() is not InstanceStatus.CANCELLED:
                    await trio.sleep(0.02)


async def test_a_parent_whose_worker_died_hears_of_the_end(shared: Shared, tmp_path: Path) -> None:
    """The child has ended while nobody had the parent."""
    async with (
        open_client(shared.url, tenant_id="t") as client,
        open_fleet(shared, tmp_path) as fleet,
    ):
        (tmp_path / "gate").unlink(missing_ok=True)
        first = await fleet.start(slots=4)
        root = await client.start("tree", 1, 2, 0.3, id="t", version=1)
        await fleet.until_noted("begin", "t/c::1")
        await fleet.kill(first)
        second = await fleet.start(slots=1)
        assert len(await root.result(list[str], timeout=LONG)) == 2
        assert second.process.poll() is None
