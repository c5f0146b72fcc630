"""Stores with the tables of a runtara-core 1.6.4: ``core=1.6.4``, and why instances ended."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from runtara_trio import (
    ConfigError,
    Operator,
    Outcome,
    SdkConfig,
    SharedBackend,
    open_backend,
    open_client,
    workflow,
)

from ..helpers.places import postgres_place
from ..helpers.support import backend_of, block, sql


@workflow(name="never")
async def never(sdk: Any) -> None:
    await trio.sleep_forever()


@pytest.fixture(params=["memory", "file", "postgres"])
async def newer(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SharedBackend]:
    """A store of each kind whose new tables are those of 1.6.4."""
    if request.param == "postgres":
        async with postgres_place(request.getfixturevalue("postgres_server")) as place:
            async with open_backend(f"{place.url}&core=1.6.4") as backend:
                yield backend
        return
    url = ":memory:" if request.param == "memory" else f"sqlite:///{tmp_path}/store.db"
    async with open_backend(SdkConfig(store=url, core="1.6.4")) as backend:
        yield backend


async def ended(backend: SharedBackend, instance_id: str = "i") -> tuple[Any, ...]:
    (row,) = await sql(
        backend,
        "SELECT CAST(termination_reason AS text), exit_code FROM instances"
        f" WHERE instance_id = '{instance_id}'",
    )
    return tuple(row)


async def test_why_an_instance_ended(newer: SharedBackend) -> None:
    operator = Operator(newer)
    async with block(newer) as sdk:
        assert await ended(newer) == (None, None)
        await operator.pause("i")
        await sdk.sleep(60, "nap")
    assert sdk.outcome is Outcome.PAUSED
    assert await ended(newer) == ("paused", None)
    assert (await operator.show("i")).termination_reason == "paused"
    async with block(newer) as sdk:
        assert (await operator.show("i")).termination_reason is None
        await sdk.suspended("until tomorrow")
    assert await ended(newer) == (None, None)
    with pytest.raises(ZeroDivisionError):
        async with block(newer):
            raise ZeroDivisionError
    assert await ended(newer) == ("application_error", 1)
    async with block(newer, revive=True):
        pass
    assert await ended(newer) == ("completed", 0)


async def test_why_cancelled_ones_ended(newer: SharedBackend) -> None:
    operator = Operator(newer)
    async with block(newer) as sdk:
        await operator.cancel("i")
        await sdk.sleep(60, "nap")
    assert await ended(newer) == ("cancelled", None)
    async with block(newer, "suspended") as sdk:
        await sdk.suspended()
    await operator.cancel("suspended")
    assert await ended(newer, "suspended") == ("cancelled", None)
    async with open_client(newer, tenant_id="t") as client:
        await client.start(never, id="pending")
        await operator.cancel("pending")
    assert await ended(newer, "pending") == ("cancelled", None)


async def test_a_store_without_the_columns(backend: SharedBackend) -> None:
    async with block(backend) as sdk:
        await sdk.checkpoint("a")
    columns = await sql(backend, "SELECT * FROM instances")
    assert len(columns[0]) == 17


async def test_what_core_may_be(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"core must be 1\.4\.1 or 1\.6\.4, not '1\.5'"):
        async with open_backend(f"sqlite:///{tmp_path}/a.db?core=1.5"):
            pass
    with pytest.raises(ConfigError, match=r"core must be '1\.4\.1' or '1\.6\.4', not 2"):
        SdkConfig(core=2)  # type: ignore[arg-type]


async def test_it_is_about_new_stores(tmp_path: Path) -> None:
    """One that is there stays as it is."""
    path = tmp_path / "orders.db"
    async with block(f"sqlite:///{path}") as sdk:
        await sdk.suspended()
    for mode in ("?core=1.6.4", "?mode=rw&core=1.6.4"):
        async with block(f"sqlite:///{path}{mode}") as sdk:
            await sdk.suspended()
    db = sqlite3.connect(path)
    assert db.execute("SELECT max(version) FROM _sqlx_migrations").fetchone() == (7,)
    db.close()


async def test_an_operator_finds_the_place(newer: SharedBackend) -> None:
    async with block(newer):
        pass
    details = await Operator(newer).show("i")
    assert details.events == 2
    assert (details.termination_reason, details.exit_code) == ("completed", 0)
    assert backend_of(Operator(newer)) is newer
