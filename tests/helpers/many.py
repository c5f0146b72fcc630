"""Stores of a million instances. Filled by SQL: how they came there is not what is looked at."""

from __future__ import annotations

import sqlite3
from datetime import datetime

import psycopg

_KIND = """
    CASE WHEN n % 1000 = 0 THEN 'failed' WHEN n % 5000 = 1 THEN 'suspended'
        WHEN n % 10000 = 2 THEN 'pending' ELSE 'completed' END"""
_TENANT = "CASE WHEN n % 20000 = 0 THEN 'small' ELSE 'big' END"
_STATE = """
    CASE WHEN n % 5000 = 1 THEN CASE WHEN n % 50000 = 1 THEN 'parked' ELSE 'waiting' END
        WHEN n % 10000 = 2 THEN 'ready' ELSE 'ended' END"""
_FILL = f"""
INSERT INTO instances (instance_id, tenant_id, status, created_at)
SELECT 'i-' || n, {_TENANT}, {{kind}}, {{created}} FROM numbers;
INSERT INTO runtara_trio_runs (instance_id, tenant_id, workflow, version, queue, state, ready_us,
    waiting_for, parent_id, block, ended{{more}})
SELECT 'i-' || n, {_TENANT}, CASE WHEN n % 20000 = 3 THEN 'rare' ELSE 'common' END,
    CASE WHEN n % 40000 = 3 THEN 2 ELSE 1 END,
    CASE WHEN n % 40000 = 3 THEN 'slow' ELSE 'default' END,
    {_STATE}, n, CASE WHEN n % 5000 = 1 AND n % 50000 <> 1 THEN '["approval"]' END,
    CASE WHEN n % 10000 = 4 THEN 'i-500' END, CASE WHEN n % 10000 = 4 THEN 'b' END,
    CASE WHEN {_STATE} = 'ended' THEN n END{{created_too}} FROM numbers;
INSERT INTO runtara_trio_attributes (instance_id, name, value)
SELECT 'i-' || n, 'customer', '"c-' || (n % 1000) || '"' FROM numbers WHERE n % 10 = 7;
INSERT INTO runtara_trio_attributes (instance_id, name, value)
SELECT 'i-' || n, 'paid', 'true' FROM numbers WHERE n % 20 = 7;
INSERT INTO runtara_trio_steps (instance_id, step, run, kind, worker, started_ms)
SELECT 'i-' || n, 'approval', 1, 'signal', 'w', {{from_ms}} + n * 1000
FROM numbers WHERE n % 5000 = 1 AND n % 50000 <> 1;
"""


def fill_file(path: str, count: int, last: datetime) -> None:
    """Fill the tables of a file: an instance a second, up to ``last``."""
    first = int(last.timestamp()) - count
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA synchronous = OFF")
        db.execute(
            f"CREATE TEMP TABLE numbers AS WITH RECURSIVE c (n) AS (SELECT 1 UNION ALL"
            f" SELECT n + 1 FROM c WHERE n < {count}) SELECT n FROM c"
        )
        created = f"datetime({first} + n, 'unixepoch')"
        texts = {"kind": _KIND, "created": created, "more": "", "created_too": ""}
        db.executescript(_FILL.format(**texts, from_ms=first * 1000))
        db.execute("DROP TABLE temp.numbers")
    db.close()


def fill_postgres(url: str, count: int, last: datetime) -> None:
    """The same in a database."""
    first = int(last.timestamp()) - count
    created = f"to_timestamp({first} + n)"
    texts = {
        "kind": f"({_KIND})::instance_status",
        "created": created,
        "more": ", created_at",
        "created_too": f", {created}",
    }
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica; SET synchronous_commit = off")
        connection.execute(f"CREATE TEMP TABLE numbers AS SELECT generate_series(1, {count}) AS n")
        connection.execute(_FILL.format(**texts, from_ms=f"{first * 1000}::bigint"))
        connection.execute("ANALYZE")
