"""Workflows of a small shop, for simulations, and the scenarios that they make."""

from __future__ import annotations

from functools import partial
from typing import Any

import trio

from runtara_trio import Queue, Rate, RuntaraSdk, Schedule, Start, durable, workflow
from runtara_trio.testing import effect


@durable(max_retries=2, delay=1.0)
async def step(name: str, number: int) -> str:
    return str(effect(f"{name} {number}", f"did {number}"))


@durable(max_retries=1, delay=0.5)
async def breaks(number: int) -> int:
    raise ValueError(f"broken {number}")


@workflow
async def order(sdk: RuntaraSdk, name: str) -> str:
    for number in range(3):
        await step(name, number)
        await sdk.sleep(5, f"nap {number}")
    return name


@workflow
async def asks(sdk: RuntaraSdk) -> str:
    return (await sdk.wait_for_signal("approval")).decode()


@workflow(queue="mail", max_attempts=2, retry_delay=2.0)
async def mail(sdk: RuntaraSdk, number: int) -> int:
    await step(sdk.instance_id, number)
    await trio.sleep(0.5)
    await sdk.sleep(3, "nap")
    await step(sdk.instance_id, 100 + number)
    if number % 4 == 3:
        await breaks(number)
    return number


@workflow
async def family(sdk: RuntaraSdk, count: int) -> int:
    async with sdk.open_children("mails") as children:
        for number in range(count):
            await children.start(mail, number, name=str(number))
    return count


@workflow(timeout=60)
async def races(sdk: RuntaraSdk) -> str:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sdk.sleep, 5, "short")
        nursery.start_soon(sdk.sleep, 9, "long")
    with trio.move_on_after(30):
        await sdk.wait_for_signal("never", timeout=8)
    named = await sdk.call(order, "inner")
    await sdk.start(mail, 50)
    return named


@workflow
async def tick(sdk: RuntaraSdk) -> None:
    await step(sdk.instance_id, 0)


WORKFLOWS = [order, asks, mail, family, races, tick]

SIGNALS = {"approval": b"yes"}

SHOP: dict[str, Any] = {
    "workflows": WORKFLOWS,
    "starts": [
        *((order, (f"order {number}",)) for number in range(3)),
        *((mail, Start(args=(number,), key="k" if number < 3 else None)) for number in range(5)),
        (family, (2,)),
        (family, (5,)),
        (races, ()),
        (asks, ()),
    ],
    "queues": [Queue("mail", limit=2, key_limit=1)],
    "schedules": [Schedule("tick", tick, every=15, tenant_id="simulated")],
    "signals": SIGNALS,
}
"""All that there is, in a queue with places and turns."""


@durable(max_retries=1, delay=0.5)
async def part(name: str, number: int) -> int:
    effect(f"{name} part {number}", number)
    await trio.sleep(0.2)
    return number


@workflow
async def maps(sdk: RuntaraSdk, name: str) -> int:
    async with sdk.map(partial(part, name), range(6), limit=3) as results:
        return sum([number async for number in results])


@workflow
async def receives(sdk: RuntaraSdk) -> list[str]:
    return [(await sdk.receive("post", type=str)) for _ in range(3)]


def insert(connection: Any, name: str, number: int) -> int:
    """A row, and how often it is there."""
    connection.execute("CREATE TABLE IF NOT EXISTS main.mine (name TEXT, number INTEGER)")
    connection.execute("INSERT INTO main.mine VALUES (?, ?)", (name, number))
    (count,) = connection.execute(
        "SELECT count(*) FROM main.mine WHERE name = ? AND number = ?", (name, number)
    ).fetchone()
    return int(count)


@workflow
async def writes(sdk: RuntaraSdk, name: str) -> list[int]:
    counts = []
    for number in range(4):
        counts.append(await sdk.transact(insert, name, number))
        await sdk.sleep(2, f"nap {number}")
    return counts


@workflow
async def slow_tick(sdk: RuntaraSdk) -> None:
    await sdk.sleep(20, "nap")
    await step(sdk.instance_id, 0)


MIXED: dict[str, Any] = {
    "workflows": [maps, receives, writes, slow_tick],
    "starts": [
        *((maps, (f"maps {number}",)) for number in range(2)),
        *((receives, ()) for _ in range(2)),
        *((writes, (f"writes {number}",)) for number in range(2)),
    ],
    "schedules": [Schedule("slow", slow_tick, every=15, tenant_id="simulated", overlap="skip")],
    "signals": {"post": b"a letter"},
}
"""Maps, messages, transactions, and a schedule whose slots would overlap."""

RATED: dict[str, Any] = {
    **SHOP,
    "queues": [Queue("mail", rate=Rate(3, per=20))],
}
"""The same with a rate."""
