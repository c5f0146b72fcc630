"""The roles and grants of the page on PostgreSQL: they suffice."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from runtara_trio import (
    Operator,
    RuntaraSdk,
    StoreError,
    open_backend,
    open_client,
    open_runtara,
    open_worker,
    workflow,
)
from runtara_trio.migrating import migrate, table_versions

from ...docs.test_docs import DOCS
from ...helpers.documents import blocks
from ...helpers.postgres import Server


@workflow
async def job(sdk: RuntaraSdk) -> str:
    return "done"


@pytest.fixture
def own() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


def run_block(server: Server, name: str) -> None:
    """The statements of a block, as a superuser."""
    (block,) = [one for one in blocks(DOCS / "postgres.md") if one.name == name]
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(block.code)


def url_of(server: Server, role: str) -> str:
    return f"{server.url.replace('postgres:@', f'{role}:@')}&options=-csearch_path%3Dshop"


async def register(server: Server, role: str) -> None:
    async with open_runtara(url_of(server, role), instance_id=role, tenant_id="t") as sdk:
        await sdk.checkpoint("a")
        await sdk.custom_event("note")


async def each_does_its_part(server: Server) -> None:
    await register(server, "shop_app")
    async with open_backend(url_of(server, "shop_ops")) as backend:
        operator = Operator(backend)
        assert len((await operator.list()).instances) == 2
        assert (await operator.show("shop_app")).checkpoints == 1
        assert (await operator.events("shop_app")).events
        with pytest.raises(StoreError, match="permission denied"):
            await operator.prune(0)
    async with open_backend(url_of(server, "shop_app")) as backend:
        assert await Operator(backend).prune(0) == 2


async def test_one_role(own: Server) -> None:
    run_block(own, "one_role.sql")
    await register(own, "shop_owner")


async def test_three_roles(own: Server) -> None:
    run_block(own, "three_roles.sql")
    await register(own, "shop_owner")
    await each_does_its_part(own)


async def test_tables_that_are_there(own: Server) -> None:
    run_block(own, "one_role.sql")
    await register(own, "shop_owner")
    with psycopg.connect(own.url, autocommit=True) as connection:
        connection.execute("CREATE ROLE shop_app LOGIN")
        connection.execute("CREATE ROLE shop_ops LOGIN")
    with pytest.raises(StoreError, match="no schema"):  # as the page says
        await register(own, "shop_app")
    with psycopg.connect(own.url, autocommit=True) as connection:
        connection.execute("GRANT USAGE ON SCHEMA shop TO shop_app, shop_ops")
    with pytest.raises(StoreError, match="permission denied"):
        await register(own, "shop_app")
    run_block(own, "tables_that_are_there.sql")
    await each_does_its_part(own)


async def test_a_search_path_of_the_role(own: Server) -> None:
    """For a pooler, which takes no options."""
    run_block(own, "three_roles.sql")
    await register(own, "shop_owner")
    (block,) = [one for one in blocks(DOCS / "postgres.md") if one.name == "search_path.sql"]
    with psycopg.connect(own.url, autocommit=True) as connection:
        connection.execute(block.code.replace("DATABASE orders", "DATABASE postgres"))
    bare = own.url.replace("postgres:@", "shop_app:@")
    async with open_backend(bare) as backend:
        assert len((await Operator(backend).list()).instances) == 1


async def test_the_owner_migrates_for_the_others(own: Server) -> None:
    run_block(own, "three_roles.sql")
    with pytest.raises(StoreError, match="needs rights"):
        await migrate(url_of(own, "shop_app"))
    assert not (await table_versions(url_of(own, "shop_ops"))).core
    await migrate(url_of(own, "shop_owner"))
    assert (await table_versions(url_of(own, "shop_ops"))).is_current
    await migrate(url_of(own, "shop_app"))  # there is nothing to make
    async with (
        open_client(url_of(own, "shop_app"), tenant_id="t") as client,
        open_worker(url_of(own, "shop_app"), [job]),
    ):
        assert await (await client.start(job)).result(timeout=30) == "done"
    async with open_backend(url_of(own, "shop_ops")) as backend:
        operator = Operator(backend)
        (one,) = (await operator.list(workflow="job")).instances
        assert await operator.steps(one.instance_id) == ()
        assert await operator.open_steps([one.instance_id]) == ()
        assert (await operator.waits()).waits == ()
        assert (await operator.audit()).records == ()
        assert await operator.list_queues() == ()
        assert await operator.list_schedules() == ()
        assert await operator.list_workers() == ()
        with pytest.raises(StoreError, match="permission denied"):
            await operator.rerun(one.instance_id)
