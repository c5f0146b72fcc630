"""The API as a user writes it; type-checked, never run."""

from __future__ import annotations

import signal
import sqlite3
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, assert_type

from runtara_trio import (
    JSON,
    Backend,
    CheckpointResult,
    Child,
    Client,
    Codec,
    DurableNursery,
    InstanceHandle,
    InstanceInfo,
    Operator,
    Outcome,
    Queue,
    Rate,
    Retry,
    RuntaraSdk,
    Schedule,
    ScheduleInfo,
    SdkConfig,
    SharedBackend,
    Signal,
    SignalType,
    Start,
    Workflow,
    current_sdk,
    durable,
    open_backend,
    open_client,
    open_runtara,
    open_worker,
    run_worker,
    workflow,
)
from runtara_trio.testing import Case, Fault, Run, check_every_boundary, effect, run

T = TypeVar("T")


@dataclass
class Receipt:
    cents: int


class Backwards:
    def encode(self, value: Any, /) -> bytes:
        return JSON.encode(value)[::-1]

    def decode(self, data: bytes, type: type[T], /) -> T:
        return JSON.decode(data[::-1], type)


async def program() -> None:
    codec: Codec = Backwards()
    async with open_runtara(
        "sqlite:///orders.db",
        instance_id="order-7",
        tenant_id="shop",
        stop_signals=(signal.SIGTERM, signal.SIGHUP),
        codec=codec,
    ) as sdk:
        assert_type(sdk, RuntaraSdk)
        assert_type(current_sdk(), RuntaraSdk)
        result = await sdk.checkpoint("charge", Receipt(1999))
        assert_type(result, CheckpointResult)
        assert_type(result.decode(Receipt), Receipt)
        assert_type(result.existing_state, bytes | None)
        assert_type(result.should_cancel, bool)
        assert_type(await sdk.get_checkpoint("charge"), bytes | None)
        assert_type(await sdk.get_checkpoint("charge", Receipt), Receipt | None)
        async with sdk.step("charge") as nothing:
            assert_type(nothing, None)
            assert_type(sdk.step_key, str)
        await sdk.sleep(3600, "cooling-off", state={"any": "thing"})
        assert_type(await sdk.wait_for_signal("approve"), bytes)
        assert_type(await sdk.poll_signal(), Signal | None)
        await sdk.acknowledge_signal(SignalType.PAUSE)
        await sdk.acknowledge_signal("pause", acknowledged=False)
        assert_type(await sdk.get_status(), InstanceInfo)
        await sdk.completed(Receipt(1999))
    assert_type(sdk.outcome, Outcome | None)


async def operate() -> None:
    async with open_backend(SdkConfig(store=":memory:", lease_ms=1000)) as backend:
        assert_type(backend, SharedBackend)
        seam: Backend = backend
        operator = Operator(seam)
        assert_type((await operator.cancel("order-7")).text, str)
        assert_type((await operator.list()).next, str | None)
        assert_type(await operator.prune(86400), int)
        async with open_runtara(backend, signals="manual") as sdk:
            await sdk.check_cancelled()
        async with open_runtara(backend, signals="none"):  # type: ignore[arg-type]  # pyright: ignore
            pass


# ---- durable functions keep their own signatures


@durable
async def charge(order: str, cents: int = 1) -> Receipt:
    return Receipt(cents)


@durable(key="{order}", max_retries=5, delay=0.5, retry_on=(OSError, ValueError), timeout=2)
async def refund(order: str, *, cents: int) -> None: ...


@durable(retry_on=lambda error: "again" in str(error), on_retry=lambda retry: print(retry.error))
def compute(numbers: list[int]) -> int:
    return sum(numbers)


@durable(flavor="asyncio")
async def fetch(url: str) -> bytes:
    return url.encode()


def tell(retry: Retry) -> None:
    assert_type(retry.attempt, int)
    assert_type(retry.error, Exception)


class Shop:
    @durable(on_retry=tell)
    async def open(self, day: str) -> bool:
        return bool(day)

    @durable
    def close(self) -> int:
        return 1

    @staticmethod
    @durable
    async def rate(currency: str) -> float:
        return 1.5


async def calls(sdk: RuntaraSdk) -> None:
    assert_type(await charge("order-7"), Receipt)
    assert_type(await charge("order-7", cents=2), Receipt)
    await refund("order-7", cents=1)
    assert_type(await compute([1]), int)
    assert_type(await fetch("a"), bytes)
    shop = Shop()
    assert_type(await shop.open("monday"), bool)
    assert_type(await shop.close(), int)
    assert_type(await Shop.rate("EUR"), float)
    await charge(7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await refund("order-7")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await compute("7")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    assert_type(await sdk.wait_for_signal("a"), bytes)
    assert_type(await sdk.wait_for_signal("a", 60), bytes)
    assert_type(await sdk.wait_for_signal("a", timeout=60, type=Receipt), Receipt)
    assert_type(await sdk.asyncio(fetch, "a"), bytes)
    with sdk.scope("a"):
        async with sdk.open_nursery() as nursery:
            assert_type(nursery, DurableNursery)
            nursery.start_soon(charge, "order-7", 2, name="first")
    async with sdk.map(charge, ["a", "b"], limit=2, key=str) as results:
        async for receipt in results:
            assert_type(receipt, Receipt)
    async with sdk.deadline("a", 60) as scope:
        assert_type(scope.cancelled_caught, bool)


def kit() -> None:
    async def person(operator: Operator) -> None:
        await operator.send_signal("test", "a", b"")

    async def program(sdk: RuntaraSdk) -> int:
        return effect(sdk.step_key, 7)

    undisturbed = check_every_boundary(
        program, lambda run: None, operator=person, faults=[Fault.PAUSE], pause_grace=7
    )
    assert_type(undisturbed, Run)
    assert_type(undisturbed.effects, dict[str, Any])
    assert_type(run(program, case=Case(Fault.CANCEL, "end")), Run)


@workflow
async def order(sdk: RuntaraSdk, cents: int, name: str = "") -> Receipt:
    return Receipt(cents)


@workflow(name="mail", queue="slow", version=2, max_attempts=3, retry_delay=0.5, timeout=60)
async def letter(sdk: RuntaraSdk) -> None: ...


async def workflows(client: Client, sdk: RuntaraSdk) -> None:
    assert_type(order, Workflow[int, str, Receipt])
    assert_type(letter, Workflow[None])
    assert_type(await order(sdk, 5, "a"), Receipt)
    handle = await client.start(order, 1999, "", id="order-7", key="k", priority=3)
    assert_type(handle, InstanceHandle[Receipt])
    assert_type(await handle.result(timeout=5), Receipt)
    assert_type(await handle.result(bytes), bytes)
    assert_type(await (await client.start(letter)).result(), None)
    assert_type(await client.start("order", 5), InstanceHandle[Any])
    many = await client.start_many(order, [Start(args=(5, "a"), id="x")])
    assert_type(many, list[InstanceHandle[Receipt]])
    assert_type(client.get("x", order), InstanceHandle[Receipt])
    assert_type(await client.count(workflow="order", version=1), int)
    await client.start(order, "five", "")  # type: ignore[call-arg,misc]  # pyright: ignore
    await client.start(order)  # type: ignore[call-arg,misc]  # pyright: ignore
    await client.start(order, 5, "", colour=1)  # type: ignore[call-overload]  # pyright: ignore


async def workers(backend: SharedBackend) -> None:
    async with open_worker(backend, [order, letter], slots=5, versions={"order": [1]}) as worker:
        worker.drain()
        assert_type(worker.health().slots, int)
    async with open_client("postgresql://db/shop", tenant_id="shop") as client:
        assert_type(client, Client)
    await run_worker("sqlite:///shop.db", [order, letter], slots=5, queues=["mail"])


def book(connection: sqlite3.Connection, account: str, cents: int) -> int:
    return cents


async def families(sdk: RuntaraSdk) -> None:
    async with sdk.open_children() as children:
        child = await children.start(order, 5, "a", name="first", priority=3)
        assert_type(child, Child[Receipt])
        assert_type(await child.result(), Receipt)
        assert_type(await child.result(bytes), bytes)
        assert_type(await children.start("order", 5), Child[Any])
        await children.start(order, "five", "")  # type: ignore[call-arg,misc]  # pyright: ignore
        await children.start(order, 5, "", colour=1)  # type: ignore[call-overload]  # pyright: ignore
    assert_type(await sdk.call(order, 5, "a", name="x"), Receipt)
    assert_type(await sdk.start(order, 5, "a", id="x"), str)
    assert_type(sdk.parent_id, str | None)
    assert_type(await sdk.transact(book, "anna", 5), int)
    await sdk.transact(book, 5, 5)  # type: ignore[arg-type]  # pyright: ignore
    assert_type(await sdk.receive("line"), bytes)
    assert_type(await sdk.receive("line", 60, type=str), str)
    await sdk.set_attributes(state="paid", cents=5)
    number, receipt = await sdk.first(partial(charge, "a"), partial(charge, "b"))
    assert_type(number, int)
    assert_type(receipt, Receipt)
    async with sdk.map(charge, ["a"], on_error="collect", ordered=True) as results:
        async for either in results:
            assert_type(either, Receipt | Exception)


async def fleets(client: Client, operator: Operator) -> None:
    await client.set_queue(Queue("mail", limit=5, rate=Rate(100, per=60.0)))
    (queue,) = await operator.list_queues()
    assert_type(queue.queue.limit, int | None)
    nightly = Schedule("nightly", letter, cron="30 2 * * *", overlap="skip", tenant_id="shop")
    async with open_worker("sqlite:///shop.db", [letter], queues=["a"], schedules=[nightly]):
        assert_type(await client.list_schedules(), tuple[ScheduleInfo, ...])
    assert_type(await operator.cancel_many(workflow="order", attributes={"paid": True}), int)
    await operator.fork("a", "b", until="x", args=[5])
    await client.get("a").rerun()
