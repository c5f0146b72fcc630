"""Finding instances: filters and counts, on every store."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trio

from runtara_trio import (
    ConfigError,
    InstanceStatus,
    Operator,
    RuntaraSdk,
    SharedBackend,
    Start,
    open_client,
    open_runtara,
    open_worker,
    workflow,
)

from ..helpers.support import sql, until


@workflow
async def order(sdk: RuntaraSdk) -> None: ...


@workflow(queue="mail", version=2)
async def letter(sdk: RuntaraSdk) -> None:
    await sdk.wait_for_signal("address")


HOUR = timedelta(hours=1)

FILTERS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "all": ({}, {"o-1", "o-2", "o-3", "l-1", "plain"}),
    "workflow": ({"workflow": "order"}, {"o-1", "o-2", "o-3"}),
    "version": ({"workflow": "letter", "version": 2}, {"l-1"}),
    "another version": ({"workflow": "letter", "version": 1}, set()),
    "queue": ({"workflow": "order", "queue": "slow"}, {"o-3"}),
    "prefix": ({"id_prefix": "o-"}, {"o-1", "o-2", "o-3"}),
    "prefix of a workflow's": ({"id_prefix": "o-", "workflow": "letter"}, set()),
    "status": ({"workflow": "order", "statuses": ["completed"]}, {"o-1"}),
    "statuses": ({"statuses": ["completed", "failed"]}, {"o-1", "plain"}),
    "later": ({"created_after": datetime.now(UTC) + HOUR}, set()),
    "earlier": ({"workflow": "order", "created_before": datetime.now(UTC) - HOUR}, set()),
    "since": ({"created_after": datetime.now(UTC) - HOUR, "workflow": "letter"}, {"l-1"}),
    "waiting": ({"waiting_for": "address"}, {"l-1"}),
    "waiting for another": ({"waiting_for": "x"}, set()),
    "no live worker": ({"no_live_worker": True}, {"o-2", "o-3"}),
    "parked": ({"parked": True}, {"o-2"}),
    "parent": ({"parent_id": "o-1"}, {"l-1"}),
}


async def test_filters(backend: SharedBackend, operator: Operator) -> None:
    async with open_client(backend, tenant_id="t") as client:
        async with open_worker(backend, [order, letter], max_loaded=1):
            await (await client.start(order, id="o-1")).result(timeout=30)
            await client.start(letter, id="l-1")
            await client.start(letter, id="l-2")

            async def unloaded() -> bool:
                return await operator.count(waiting_for="address") > 0

            with trio.fail_after(30):
                while not await unloaded():
                    await trio.sleep(0.01)
        await sql(backend, "DELETE FROM instances WHERE instance_id = 'l-2'")
        await sql(
            backend,
            "UPDATE runtara_trio_runs SET state = 'waiting', waiting_for = '[\"address\"]',"
            " parent_id = 'o-1' WHERE instance_id = 'l-1'",
        )
        await client.start(order, id="o-2")
        await client.start(order, id="o-3", queue="slow")
        async with open_runtara(backend, instance_id="plain", tenant_id="t"):
            pass

        for name, (filters, expected) in FILTERS.items():
            if name == "parked":
                await sql(
                    backend,
                    "UPDATE runtara_trio_runs SET state = 'parked' WHERE instance_id = 'o-2'",
                )
            found = await client.list(**filters)
            assert {one.instance_id for one in found.instances} == expected, name
            assert await client.count(**filters) == len(expected), name

        async with open_worker(backend, [order], queues=["slow"], slots=1):
            await client.get("o-3").result(timeout=30)
            assert await client.count(no_live_worker=True) == 0


async def test_no_worker_of_a_tenant(backend: SharedBackend, operator: Operator) -> None:
    """Workers of some tenants serve a kind for these alone."""
    async with (
        open_client(backend, tenant_id="served") as served,
        open_client(backend, tenant_id="forgotten") as forgotten,
        open_worker(backend, [order], tenant_ids=["served", "nobody"]),
    ):
        await (await served.start(order, id="s-1")).result(timeout=30)
        await served.start(order, id="s-2", delay=3600)
        await forgotten.start(order, id="f-1")
        await sql(backend, "UPDATE runtara_trio_runs SET state = 'ready' WHERE state = 'timed'")
        found = await operator.list(no_live_worker=True)
        assert [one.instance_id for one in found.instances] == ["f-1"]
        assert await served.count(no_live_worker=True) == 0
        assert await forgotten.count(no_live_worker=True) == 1


async def test_pages(backend: SharedBackend, operator: Operator) -> None:
    async with open_client(backend, tenant_id="t") as client:
        await client.start_many(order, [Start(args=(), id=f"o-{n}") for n in range(7)])
        await client.start(letter)
        found: list[str] = []
        before = None
        while True:
            page = await client.list(workflow="order", limit=3, before=before)
            found += [one.instance_id for one in page.instances]
            before = page.next
            if before is None:
                break
        assert sorted(found) == [f"o-{n}" for n in range(7)]
        assert await operator.count(tenant_id="t") == 8
        assert await operator.count(tenant_id="nobody") == 0


@pytest.mark.parametrize(
    ("filters", "match"),
    [
        ({"version": 1}, "version=1 needs a workflow: add workflow="),
        ({"queue": "mail"}, "queue='mail' needs a workflow"),
        ({"colour": "red"}, "'colour' is an unknown filter; there are workflow, version"),
        ({"created_after": datetime(2026, 1, 1)}, "created_after must be a time with its zone"),
        ({"workflow": ""}, "workflow is empty"),
        ({"statuses": ["asleep"]}, "statuses must be of InstanceStatus"),
    ],
)
async def test_what_no_index_answers(
    memory: SharedBackend, filters: dict[str, Any], match: str
) -> None:
    async with open_client(memory, tenant_id="t") as client:
        with pytest.raises(ConfigError, match=match):
            await client.list(**filters)
        with pytest.raises(ConfigError, match=match):
            await client.count(**filters)


async def test_statuses_of_workflows(memory: SharedBackend) -> None:
    async with open_client(memory, tenant_id="t") as client, open_worker(memory, [letter]) as one:
        handle = await client.start(letter)
        await until(lambda: one.health().loaded == 1)
        assert await client.count(workflow="letter", statuses=[InstanceStatus.RUNNING]) == 1
        await handle.cancel()
