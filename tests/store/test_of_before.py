"""Stores that earlier versions made are opened, and their instances go on.

``data`` has dumps of them: a process was killed in the middle of the instance ``killed``, which
had made calls, tried one again, slept, taken a signal and not taken another.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from runtara_trio import InstanceFinished, InstanceStatus, Operator, durable, open_backend
from runtara_trio import open_runtara as open_block
from runtara_trio.console import app
from runtara_trio.console.people import everybody

from ..console.conftest import visiting

DATA = Path(__file__).parent / "data"


@pytest.fixture(params=["sqlite_0_1_0", "sqlite_0_2", "postgres_0_2"])
def url_of_before(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    dump = (DATA / f"{request.param}.sql").read_text()
    if request.param.startswith("sqlite"):
        path = tmp_path / "store.db"
        with sqlite3.connect(path) as db:
            db.executescript(dump)
        db.close()
        owner = re.findall(r'"runtara_trio_owners" VALUES\(\'(\w+)\'', dump)
        Path(f"{path}-owner-{owner[0]}").touch()  # as the killed process left it: unlocked
        yield f"sqlite:///{path}"
        return
    url = request.getfixturevalue("postgres_server")
    schema = request.param
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(dump)
        try:
            yield f"{url}{'&' if '?' in url else '?'}options=-csearch_path%3D{schema}"
        finally:
            connection.execute(f"DROP SCHEMA {schema} CASCADE")


@pytest.mark.direct
async def test_a_store_of_before_goes_on(url_of_before: str) -> None:
    ran: list[str] = []

    @durable(delay=0.01)
    async def pay(order: str) -> str:
        ran.append(f"pay {order}")
        return "again"

    @durable(delay=0.01)
    async def flaky(order: str) -> str:
        ran.append(f"flaky {order}")
        return "again"

    async with open_backend(url_of_before) as backend:
        operator = Operator(backend)
        found = {one.instance_id: one for one in (await operator.list()).instances}
        assert {name: one.status.value for name, one in found.items()} == {
            "done": "completed",
            "paused": "suspended",
            "killed": "running",
        }
        assert all(one.ours for one in found.values())
        assert (await operator.show("killed")).unread_signals == ("second",)

        async with open_block(backend, instance_id="killed", tenant_id="shop") as sdk:
            assert await pay("o-1") == "paid o-1"
            assert await flaky("o-1") == "shipped o-1"
            await sdk.sleep(3600, "nap")  # the wake time of then stands
            assert await sdk.wait_for_signal("approval") == b'"taken"'
            assert await sdk.wait_for_signal("second") == b'"waits"'
            assert await pay("o-2") == "again"
            await sdk.completed("over")
        assert ran == ["pay o-2"]
        events = [event.type for event in (await operator.events("killed")).events]
        assert events == ["started", "custom", "heartbeat", "started", "completed"]

        async with open_block(backend, instance_id="paused", tenant_id="shop") as sdk:
            assert await sdk.get_checkpoint("a", dict) == {"n": 2}
            assert await sdk.wait_for_signal("approval") == b'"yes"'

        with pytest.raises(InstanceFinished) as finished:
            async with open_block(backend, instance_id="done", tenant_id="shop"):
                raise AssertionError("it does not run")
        assert finished.value.output == b'{"total":3}'
        async with open_block(backend, instance_id="killed", tenant_id="shop", revive=True):
            ids = [one.checkpoint_id for one in (await operator.checkpoints("killed")).checkpoints]
            assert not [one for one in ids if "::retry::" in one]
            assert "durable::pay::o-1" in ids
        assert (await operator.show("killed")).summary.status is InstanceStatus.COMPLETED


@pytest.mark.direct
async def test_the_console_shows_a_store_of_before(url_of_before: str) -> None:
    async with (
        open_backend(url_of_before) as backend,
        visiting(app(backend, authorize=everybody)) as visitor,
    ):
        page = await visitor.get("/")
        assert "/instance?id=killed" in page
        page = await visitor.get("/instance?id=killed")
        assert "its process has died" in page
        for path in ("/waiting", "/workers", "/queues", "/schedules", "/audit", "/metrics"):
            await visitor.get(path)
        page = await visitor.get("/instance?id=killed&as=table")
        token = page.partition('name="token" value="')[2].partition('"')[0]
        form = {"act": "instance", "what": "cancel", "id": "killed", "token": token, "sure": "1"}
        answer = await visitor.http.post("/act", data=form)
        assert "cancelled" in answer.text
        assert (await Operator(backend).show("killed")).summary.status == "cancelled"
