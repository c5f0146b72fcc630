"""The clients for programs that do not run on Trio; type-checked, never run."""

from __future__ import annotations

from typing import Any, assert_type

from runtara_trio import (
    EventPage,
    InstanceDetails,
    InstancePage,
    InstanceStatus,
    RuntaraSdk,
    SignalAnswer,
    Start,
    WorkerInfo,
    aio,
    blocking,
    workflow,
)


@workflow
async def order(sdk: RuntaraSdk, cents: int) -> str:
    return str(cents)


def script() -> None:
    with blocking.open_client("sqlite:///shop.db", tenant_id="shop") as client:
        assert_type(client, blocking.Client)
        instance = client.start(order, 1999, id="order-7", if_exists="fail", priority=3)
        assert_type(instance, blocking.InstanceHandle[str])
        assert_type(instance.id, str)
        assert_type(instance.result(), str)
        assert_type(instance.result(timeout=60), str)
        assert_type(instance.result(int, timeout=60), int)
        assert_type(instance.status(), InstanceStatus)
        assert_type(instance.show(), InstanceDetails)
        assert_type(instance.events(after=7, limit=10), EventPage)
        assert_type(instance.cancel(), SignalAnswer)
        assert_type(instance.pause(), SignalAnswer)
        assert_type(instance.resume(), SignalAnswer)
        instance.signal("approve", b"yes", replace=True)
        by_name = client.start("order", 1999, version=2)
        assert_type(by_name, blocking.InstanceHandle[Any])
        many = client.start_many(order, [Start(args=(1999,), id="order-8")], version=2)
        assert_type(many, list[blocking.InstanceHandle[str]])
        assert_type(client.get("order-7"), blocking.InstanceHandle[Any])
        assert_type(client.get("order-7", order), blocking.InstanceHandle[str])
        assert_type(client.list(limit=7), InstancePage)
        assert_type(client.list_workers(), tuple[WorkerInfo, ...])
        client.start(order, "1999")  # type: ignore[misc]  # pyright: ignore
        client.start(order, 1999, prority=3)  # type: ignore[call-overload]  # pyright: ignore
        client.start(order, 1999, priority="3")  # type: ignore[call-overload]  # pyright: ignore
        client.start_many(order, [Start(args=("1",))])  # type: ignore[misc]  # pyright: ignore
        instance.events(after="7")  # type: ignore[arg-type]  # pyright: ignore


async def service() -> None:
    async with aio.open_client("sqlite:///shop.db", tenant_id="shop") as client:
        assert_type(client, aio.Client)
        instance = await client.start(order, 1999, id="order-7", if_exists="fail", priority=3)
        assert_type(instance, aio.InstanceHandle[str])
        assert_type(instance.id, str)
        assert_type(await instance.result(), str)
        assert_type(await instance.result(timeout=60), str)
        assert_type(await instance.result(int, timeout=60), int)
        assert_type(await instance.status(), InstanceStatus)
        assert_type(await instance.show(), InstanceDetails)
        assert_type(await instance.events(after=7, limit=10), EventPage)
        assert_type(await instance.cancel(), SignalAnswer)
        assert_type(await instance.pause(), SignalAnswer)
        assert_type(await instance.resume(), SignalAnswer)
        await instance.signal("approve", b"yes", replace=True)
        by_name = await client.start("order", 1999, version=2)
        assert_type(by_name, aio.InstanceHandle[Any])
        many = await client.start_many(order, [Start(args=(1999,), id="order-8")], version=2)
        assert_type(many, list[aio.InstanceHandle[str]])
        assert_type(client.get("order-7"), aio.InstanceHandle[Any])
        assert_type(client.get("order-7", order), aio.InstanceHandle[str])
        assert_type(await client.list(limit=7), InstancePage)
        assert_type(await client.list_workers(), tuple[WorkerInfo, ...])
        await client.start(order, "1999")  # type: ignore[misc]  # pyright: ignore
        await client.start(order, 1999, prority=3)  # type: ignore[call-overload]  # pyright: ignore
        await client.start_many(order, [Start(args=("1",))])  # type: ignore[misc]  # pyright: ignore
        await instance.events(after="7")  # type: ignore[arg-type]  # pyright: ignore
