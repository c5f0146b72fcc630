"""Operators' commands on a database of many instances: by indexes, never by reading it all."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import psycopg
import pytest
import trio

from runtara_trio import InstanceStatus, Operator, open_backend, open_runtara

from ...docs.test_docs import DOCS
from ...helpers.documents import blocks
from ...helpers.places import postgres_place
from ...helpers.statements import explain

MANY = 100_000
MINUTE = 60.0

_FILL = """
SET session_replication_role = replica;
INSERT INTO instances (instance_id, tenant_id, status, created_at, started_at, finished_at)
SELECT 'i' || n, 't' || n % 10, (CASE WHEN n % 10000 = 0 THEN 'running'
    WHEN n % 1000 = 1 THEN 'suspended' WHEN n % 50 = 2 THEN 'failed'
    ELSE 'completed' END)::instance_status, t, t, CASE WHEN n % 1000 > 1 THEN t END
FROM generate_series(1, {many}) n, LATERAL (SELECT now() - n * interval '1 minute' AS t) _;
INSERT INTO runtara_trio_starts SELECT instance_id, started_at FROM instances
    ON CONFLICT DO NOTHING;
INSERT INTO checkpoints (instance_id, checkpoint_id, state)
    SELECT instance_id, 'a', '' FROM instances ON CONFLICT DO NOTHING;
INSERT INTO instance_events (instance_id, event_type) SELECT instance_id, 'started'
    FROM instances;
ANALYZE;
"""

_OF_CORE = """
DROP INDEX runtara_trio_by_status, runtara_trio_by_tenant, runtara_trio_ended,
    runtara_trio_events_of, runtara_trio_heartbeats;
CREATE INDEX ON instances (tenant_id);
CREATE INDEX ON instances (status);
CREATE INDEX ON instances (created_at);
CREATE INDEX ON instance_events (instance_id);
ANALYZE;
"""
"""The indexes that a database of runtara-core has instead of ours."""


@pytest.fixture(scope="module", params=["our tables", "those of a core"])
def filled(request: pytest.FixtureRequest, postgres_server: str) -> Iterator[str]:
    """The URL of a store with many instances."""

    async def fill() -> None:
        async with open_runtara(url, instance_id="i0", tenant_id="t") as sdk:
            await sdk.checkpoint("a")

    schema = f"plans_{'core' if 'core' in request.param else 'ours'}"
    url = (
        f"{postgres_server}{'&' if '?' in postgres_server else '?'}options=-csearch_path%3D{schema}"
    )
    with psycopg.connect(postgres_server, autocommit=True) as server:
        server.execute(f"CREATE SCHEMA {schema}")
        trio.run(fill)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(_FILL.format(many=MANY))
            if "core" in request.param:
                connection.execute(_OF_CORE)
        yield url
        server.execute(f"DROP SCHEMA {schema} CASCADE")


COMMANDS: dict[str, Callable[[Operator], Awaitable[Any]]] = {
    "list": lambda operator: operator.list(),
    "list of a time": lambda operator: operator.list(before="2026-01-01 00:00:00+00:00 i"),
    "list what runs": lambda operator: operator.list(statuses=[InstanceStatus.RUNNING]),
    "list what failed": lambda operator: operator.list(statuses=[InstanceStatus.FAILED]),
    "list a tenant's": lambda operator: operator.list(
        tenant_id="t2", statuses=[InstanceStatus.FAILED]
    ),
    "show": lambda operator: operator.show("i7"),
    "events": lambda operator: operator.events("i7"),
    "checkpoints": lambda operator: operator.checkpoints("i7"),
    "cancel": lambda operator: operator.cancel("i1"),
    "send a signal": lambda operator: operator.send_signal("i1001", "approve"),
    "prune": lambda operator: operator.prune((MANY - 700) * MINUTE),
}


@pytest.mark.parametrize("command", COMMANDS)
async def test_a_command_reads_few_rows(
    filled: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if command == "prune" and "core" in filled:
        pytest.skip("a core has no index of ends; the documentation gives it")
    read: dict[str, int] = {}
    async with open_backend(filled) as backend:
        explain(monkeypatch, read.__setitem__)
        await COMMANDS[command](Operator(backend))
    assert 0 < max(read.values()) < MANY / 10, read


async def test_prune_goes_in_batches(filled: str) -> None:
    seen: list[int] = []
    async with open_backend(filled) as backend:
        removed = await Operator(backend).prune((MANY - 2000) * MINUTE, progress=seen.append)
    assert len(seen) > 2
    assert seen[-1] == removed
    assert [later - earlier for earlier, later in itertools.pairwise([0, *seen[:-1]])] == [500] * (
        len(seen) - 1
    )


async def test_the_documented_indexes_are_ours(postgres_server: str) -> None:
    """Those that it gives for the tables of a core."""
    (block,) = [one for one in blocks(DOCS / "postgres.md") if one.name == "indexes.sql"]
    named = (
        "SELECT indexname, replace(indexdef, 'CONCURRENTLY ', '') FROM pg_indexes"
        " WHERE schemaname = current_schema() AND indexname = ANY"
        " ('{runtara_trio_by_tenant,runtara_trio_by_status,runtara_trio_ended}')"
    )
    async with postgres_place(postgres_server) as place:
        async with open_runtara(place.url, instance_id="i", tenant_id="t"):
            pass
        with psycopg.connect(place.url, autocommit=True) as connection:
            ours = dict(connection.execute(named).fetchall())
            for name in ours:
                connection.execute(f"DROP INDEX {name}")
            for statement in block.code.strip().split(";")[:-1]:
                connection.execute(statement)
            assert dict(connection.execute(named).fetchall()) == ours
    assert len(ours) == 3
