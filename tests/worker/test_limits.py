"""Limits of queues over several processes, which are killed and drained."""

from __future__ import annotations

import random
from pathlib import Path

import trio

from runtara_trio import Queue, Start, open_client

from ..helpers.fleet import Ledger, open_fleet
from ..helpers.places import Shared

LONG = 60
RUNS, STEPS, LIMIT, KEYS = 60, 4, 5, "abcdefgh"


def most_at_once(ledger: Ledger) -> tuple[int, int]:
    """How many runs worked at once, and how many of one key. Who is killed works no more."""
    working: dict[str, int] = {}
    most = of_key = 0
    for line in ledger.lines():
        if line.what == "kill":
            working = {one: pid for one, pid in working.items() if pid != line.pid}
        elif line.what == "begin":
            working[line.instance] = line.pid
        elif line.what == "end":
            working.pop(line.instance, None)
        most = max(most, len(working))
        keys = [instance[0] for instance in working]
        of_key = max([of_key, *(keys.count(key) for key in keys)])
    return most, of_key


def order_of_begins(ledger: Ledger, key: str) -> list[int]:
    firsts = dict.fromkeys(line.instance for line in ledger.lines("begin"))
    return [int(instance[1:]) for instance in firsts if instance[0] == key]


async def test_limits_hold_while_workers_die(shared: Shared, tmp_path: Path) -> None:
    draw = random.Random(6)
    async with (
        open_client(shared.url, tenant_id="t") as client,
        open_fleet(shared, tmp_path) as fleet,
    ):
        await client.set_queue(Queue("default", limit=LIMIT, key_limit=1))
        starts = [
            Start(args=(STEPS, 0.01), id=f"{KEYS[n % len(KEYS)]}{n}", key=KEYS[n % len(KEYS)])
            for n in range(RUNS)
        ]
        handles = await client.start_many("steps", starts, version=1)
        workers = [await fleet.start(slots=10) for _ in range(3)]

        async def replace() -> None:
            workers.append(await fleet.start(slots=10))

        async with trio.open_nursery() as nursery:
            for number, point in enumerate(sorted(draw.sample(range(RUNS * STEPS * 2), 6))):
                await fleet.until_lines(point)
                await fleet.until(lambda: bool(workers))
                worker = workers.pop(draw.randrange(len(workers)))
                await (fleet.drain(worker) if number % 3 == 2 else fleet.kill(worker))
                nursery.start_soon(replace)
            results = {one.id: await one.result(list[str], timeout=LONG) for one in handles}
    fleet.ledger.check(results)
    assert most_at_once(fleet.ledger) == (LIMIT, 1)
    for key in KEYS:
        order = order_of_begins(fleet.ledger, key)
        assert order == sorted(order)
