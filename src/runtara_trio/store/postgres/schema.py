"""Tables on PostgreSQL: those of runtara-core 1.4.1, and our own beside them.

A stock core that is started later must take them as its own: same tables, types and
columns, its five rows in ``_sqlx_migrations``. Of its secondary indexes there are those
that serve our reads.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import trio

from ...errors import StoreError
from ..core import check_core
from . import limits
from .connection import Connection
from .run_schema import ID, RUN_STEPS, RUNS_VERSION

VERSION = 2
LOCK = "hashtextextended('runtara_trio schema', 0)"
"""The advisory lock under which tables are made: first starts may race."""

CORE_TABLES = f"""
CREATE TYPE instance_status AS ENUM
    ('pending', 'running', 'suspended', 'completed', 'failed', 'cancelled');
CREATE TYPE instance_event_type AS ENUM
    ('started', 'progress', 'completed', 'failed', 'suspended', 'heartbeat', 'custom');
CREATE TYPE signal_type AS ENUM ('cancel', 'pause', 'resume');
CREATE TABLE instances (
    instance_id {ID} PRIMARY KEY CONSTRAINT instance_id_not_empty CHECK (instance_id <> ''),
    tenant_id {ID} NOT NULL,
    definition_version INTEGER NOT NULL DEFAULT 1,
    status instance_status NOT NULL DEFAULT 'pending',
    checkpoint_id {ID},
    attempt INTEGER NOT NULL DEFAULT 1,
    max_attempts INTEGER NOT NULL DEFAULT 3,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    started_at TIMESTAMPTZ,
    finished_at TIMESTAMPTZ,
    sleep_until TIMESTAMPTZ,
    output BYTEA,
    error TEXT,
    memory_peak_bytes BIGINT,
    cpu_usage_usec BIGINT,
    stderr TEXT,
    input BYTEA,
    CONSTRAINT valid_attempt CHECK (attempt BETWEEN 1 AND max_attempts)
);
CREATE INDEX runtara_trio_by_status ON instances (status, created_at);
CREATE INDEX runtara_trio_by_tenant ON instances (tenant_id, status, created_at);
CREATE INDEX runtara_trio_ended ON instances (COALESCE(finished_at, started_at, created_at))
    WHERE status IN ('cancelled', 'completed', 'failed');
CREATE TABLE checkpoints (
    id BIGSERIAL PRIMARY KEY,
    instance_id {ID} NOT NULL REFERENCES instances ON DELETE CASCADE,
    checkpoint_id {ID} NOT NULL,
    state BYTEA NOT NULL,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    is_retry_attempt BOOLEAN NOT NULL DEFAULT false,
    attempt_number INTEGER,
    error_message TEXT,
    UNIQUE (instance_id, checkpoint_id)
);
CREATE TABLE instance_events (
    id BIGSERIAL PRIMARY KEY,
    instance_id {ID} NOT NULL REFERENCES instances ON DELETE CASCADE,
    event_type instance_event_type NOT NULL,
    checkpoint_id {ID},
    payload BYTEA,
    subtype TEXT,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now()
);
CREATE INDEX runtara_trio_events_of ON instance_events (instance_id, id);
CREATE INDEX runtara_trio_heartbeats ON instance_events (instance_id)
    WHERE subtype = 'runtara_trio';
CREATE TABLE pending_signals (
    instance_id {ID} PRIMARY KEY REFERENCES instances ON DELETE CASCADE,
    signal_type signal_type NOT NULL,
    payload BYTEA,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    acknowledged_at TIMESTAMPTZ
);
CREATE TABLE pending_checkpoint_signals (
    id BIGSERIAL PRIMARY KEY,
    instance_id {ID} NOT NULL REFERENCES instances ON DELETE CASCADE,
    checkpoint_id {ID} NOT NULL,
    payload BYTEA,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    UNIQUE (instance_id, checkpoint_id)
);
CREATE TABLE containers (
    container_id TEXT PRIMARY KEY,
    instance_id {ID} NOT NULL UNIQUE REFERENCES instances ON DELETE CASCADE,
    bundle_path TEXT NOT NULL,
    status TEXT NOT NULL DEFAULT 'created',
    exit_code INTEGER,
    last_heartbeat TIMESTAMPTZ NOT NULL DEFAULT now(),
    created_at TIMESTAMPTZ NOT NULL DEFAULT now()
);
CREATE TABLE schedules (
    schedule_id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant_id {ID} NOT NULL,
    definition_id UUID NOT NULL,
    definition_version INTEGER,
    cron_expression TEXT NOT NULL,
    timezone TEXT NOT NULL DEFAULT 'UTC',
    enabled BOOLEAN NOT NULL DEFAULT true,
    next_run_at TIMESTAMPTZ,
    last_run_at TIMESTAMPTZ,
    last_instance_id TEXT,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    updated_at TIMESTAMPTZ NOT NULL DEFAULT now()
);
CREATE TABLE _sqlx_migrations (
    version BIGINT PRIMARY KEY,
    description TEXT NOT NULL,
    installed_on TIMESTAMPTZ NOT NULL DEFAULT now(),
    success BOOLEAN NOT NULL,
    checksum BYTEA NOT NULL,
    execution_time BIGINT NOT NULL
);
"""

CORE_MIGRATIONS = (
    (
        1,
        "initial schema",
        "2de80a79a52709df0d072dd55a470612de9a2f7238c9bdca88f1236c6028f30042c7b2f6948f8b4318c1a47cf43d654d",
    ),
    (
        2,
        "add metrics",
        "2479c694165e43c1efc53bd980373bd83801ffe6116945021eeaecb1f7ee113b72bfd8d0e1a9b31059a5b3f83271526d",
    ),
    (
        3,
        "drop wake queue",
        "4d5ebca3a3c0391551096462628f01981169afedb96dbaffcdc0bb357be21e7f0f1e063202990db637700e1dba32d0f5",
    ),
    (
        4,
        "add stderr",
        "92f7b8776d447fc1d23cf0d44d3a84b59f5baee56debc5d58f05d44240815b33e349655b215ffd04c91911b2daa69478",
    ),
    (
        5,
        "add input",
        "2d7b569659d1f4135210969120491afdbd9e2fc0dd8b1bc03d54ea33c41028467646cb164e73640d826841ece5711c12",
    ),
)
"""Version, description and SHA-384 of core's migrations; one that differs, and core refuses."""

CORE_1_6 = (
    (
        6,
        "structured errors",
        "b5d170ae694a00c667932eb77cb99a3356eef7b2aadf228aef7ae798907d7cf4c50baeea1c8f95989e1c9589bc6051d1",
    ),
    (
        7,
        "compensation",
        "3b57e6ea29dd058f19fc852230d0d8949133933d61449932ac82130587e0b6102754641ac205b37b93adcbb4e463df76",
    ),
    (
        8,
        "termination tracking",
        "05fbc15e37b3a50b19e27c305b1ceacaa9f1fb09832f99bb73fff0ff95ece3be9987fc5fd4ad9b68c16cd40309abc3e2",
    ),
    (
        9,
        "add orphaned termination",
        "4e58f9f3baab308efea722d909b2522dba4977eaf33ba3cbe3855c13e80a371669305d5c7966ed211fde35ea7674a899",
    ),
)
"""Those that cores made until 1.6.4, each on any database that it opens."""

CORE_1_6_TABLES = f"""
CREATE TYPE error_category AS ENUM ('unknown', 'transient', 'permanent', 'business');
CREATE TYPE error_severity AS ENUM ('info', 'warning', 'error', 'critical');
CREATE TYPE compensation_state AS ENUM ('none', 'pending', 'triggered', 'completed', 'failed');
CREATE TYPE termination_reason AS ENUM ('completed', 'application_error', 'crashed', 'timeout',
    'heartbeat_timeout', 'cancelled', 'paused', 'sleeping', 'orphaned');
CREATE TABLE error_history (
    id BIGSERIAL PRIMARY KEY,
    instance_id {ID} NOT NULL REFERENCES instances ON DELETE CASCADE,
    checkpoint_id TEXT,
    step_id TEXT,
    error_code TEXT NOT NULL,
    error_message TEXT NOT NULL,
    category error_category NOT NULL DEFAULT 'unknown',
    severity error_severity NOT NULL DEFAULT 'error',
    retry_hint TEXT,
    retry_after_ms BIGINT,
    attributes JSONB DEFAULT '{{}}',
    cause_error_id BIGINT REFERENCES error_history,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now()
);
CREATE INDEX runtara_trio_errors_of ON error_history (instance_id);
CREATE TABLE compensation_log (
    id BIGSERIAL PRIMARY KEY,
    instance_id {ID} NOT NULL REFERENCES instances ON DELETE CASCADE,
    checkpoint_id TEXT NOT NULL,
    compensation_step_id TEXT NOT NULL,
    attempt_number INTEGER NOT NULL DEFAULT 1,
    started_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    finished_at TIMESTAMPTZ,
    success BOOLEAN,
    error_message TEXT,
    error_id BIGINT REFERENCES error_history
);
CREATE INDEX runtara_trio_compensations_of ON compensation_log (instance_id);
ALTER TABLE instances
    ADD last_error_id BIGINT REFERENCES error_history,
    ADD compensation_state compensation_state NOT NULL DEFAULT 'none',
    ADD compensation_triggered_at TIMESTAMPTZ,
    ADD compensation_reason TEXT,
    ADD termination_reason termination_reason,
    ADD exit_code INTEGER;
ALTER TABLE checkpoints
    ADD error_category error_category,
    ADD error_severity error_severity,
    ADD error_attributes JSONB,
    ADD is_compensatable BOOLEAN NOT NULL DEFAULT false,
    ADD compensation_step_id TEXT,
    ADD compensation_data BYTEA,
    ADD compensation_state compensation_state NOT NULL DEFAULT 'none',
    ADD compensation_order INTEGER NOT NULL DEFAULT 0,
    ADD compensated_at TIMESTAMPTZ;
"""

FIRST_OF_ENVIRONMENT = 20250101000000
"""The first version among the migrations of a runtara-environment, which keeps its own
tables beside core's."""

NEXT_EPOCH = "nextval('runtara_trio_epochs')"

OUR_TABLES = """
CREATE TABLE IF NOT EXISTS runtara_trio_schema (
    version INTEGER NOT NULL
);
CREATE SEQUENCE IF NOT EXISTS runtara_trio_epochs;
CREATE TABLE IF NOT EXISTS runtara_trio_owners (
    owner TEXT PRIMARY KEY,
    holder TEXT NOT NULL,
    lock_key BIGINT NOT NULL,
    renewed_at TIMESTAMPTZ NOT NULL,
    lease_ms BIGINT NOT NULL,
    heartbeat_at TIMESTAMPTZ
);
CREATE TABLE IF NOT EXISTS runtara_trio_leases (
    instance_id {id} PRIMARY KEY REFERENCES instances ON DELETE CASCADE,
    owner TEXT NOT NULL,
    epoch BIGINT NOT NULL
);
CREATE INDEX IF NOT EXISTS runtara_trio_leases_of ON runtara_trio_leases (owner);
CREATE TABLE IF NOT EXISTS runtara_trio_starts (
    instance_id {id} PRIMARY KEY REFERENCES instances ON DELETE CASCADE,
    started_at TIMESTAMPTZ NOT NULL,
    ended BIGINT
);
INSERT INTO runtara_trio_schema SELECT 2
    WHERE NOT EXISTS (SELECT 1 FROM runtara_trio_schema);
"""


async def runs_version(connection: Connection, name: str) -> int:
    """The version of the tables of workflows; 0: they are not there.

    Raises:
      StoreError: a newer version.
    """
    ((there,),) = await connection.run("SELECT to_regclass('runtara_trio_runs_schema') IS NOT NULL")
    if not there:
        return 0
    ((version,),) = await connection.run("SELECT version FROM runtara_trio_runs_schema")
    if version > RUNS_VERSION:
        raise StoreError(
            f"{name} is of a newer runtara-trio (workflows {version}, this one knows "
            f"{RUNS_VERSION}); upgrade runtara-trio"
        )
    return int(version)


async def made(connection: Connection, name: str) -> tuple[bool, bool]:
    """Whether runtara's tables are there, and ours, of versions this one knows.

    Raises:
      StoreError: tables of another version.
    """
    ((core, ours, sqlx),) = await connection.run(
        "SELECT to_regclass('instances') IS NOT NULL,"
        " to_regclass('runtara_trio_schema') IS NOT NULL,"
        " to_regclass('_sqlx_migrations') IS NOT NULL"
    )
    if core:
        found = set()
        if sqlx:
            found = {
                (version, checksum.hex())
                for version, checksum in await connection.run(
                    "SELECT version, checksum FROM _sqlx_migrations WHERE version < $1",
                    FIRST_OF_ENVIRONMENT,
                )
            }
        check_core(found, CORE_MIGRATIONS, CORE_1_6, name, "a database, or a schema, of its own")
    if ours:
        ((version,),) = await connection.run("SELECT version FROM runtara_trio_schema")
        if version < VERSION:
            raise StoreError(
                f"{name} has tables of a runtara-trio before its first release (schema {version}); "
                "drop its four tables runtara_trio_…, and the next start makes them anew"
            )
        if version > VERSION:
            raise StoreError(
                f"{name} is of a newer runtara-trio (schema {version}, this one knows "
                f"{VERSION}); upgrade runtara-trio"
            )
    return bool(core), bool(ours)


async def tracks_ends(connection: Connection) -> bool:
    """Whether instances have the columns in which 1.6.4 has why they ended."""
    ((found,),) = await connection.run(
        "SELECT EXISTS (SELECT 1 FROM pg_attribute WHERE attrelid = 'instances'::regclass"
        " AND attname = 'termination_reason' AND NOT attisdropped)"
    )
    return bool(found)


async def is_ready(connection: Connection, name: str) -> bool:
    """Whether both are there; see :func:`made`."""
    return all(await made(connection, name))


async def create(connection: Connection, name: str, core: str = "1.4.1") -> None:
    """Make what is missing, but for the tables of workflows; ``core``: whose new ones are."""
    async with _by_one(connection):
        theirs, ours = await made(connection, name)
        later = CORE_1_6 if core == "1.6.4" else ()
        if not (theirs and ours):
            records = "".join(
                "INSERT INTO _sqlx_migrations"
                " (version, description, success, checksum, execution_time) VALUES"
                f" ({version}, '{description}', true, '\\x{checksum}', 0);"
                for version, description, checksum in (*CORE_MIGRATIONS, *later)
            )
            # The ids of a core's tables are of the database's collation, and so are ours beside.
            await connection.script(
                OUR_TABLES.format(id="TEXT")
                if theirs
                else CORE_TABLES
                + (CORE_1_6_TABLES if later else "")
                + records
                + OUR_TABLES.format(id=ID)
            )


@asynccontextmanager
async def _by_one(connection: Connection) -> AsyncIterator[None]:
    """A transaction that only one may be in: first starts may race."""
    connection.begin()
    try:
        await connection.run(f"SELECT pg_advisory_xact_lock({LOCK})")
        # A session hears of the tables of others where a transaction begins, and where it locks
        # one: else it knows after the wait what it knew before.
        await connection.value("SELECT 1 FROM pg_class LIMIT 1")
        yield
        await connection.commit()
    except BaseException:
        with trio.CancelScope(shield=True), trio.move_on_after(limits.RETRY):
            await connection.roll_back()
        raise


def from_ms(ms: int) -> str:
    """Unix ms as a text that PostgreSQL reads as a time; the year 9999 is the last."""
    last = 253402300799000
    return datetime.fromtimestamp(min(ms, last) / 1000, UTC).isoformat()


async def create_runs(connection: Connection, name: str) -> None:
    """Make the tables of workflows, or bring them to this version."""
    async with _by_one(connection):
        ((collation,),) = await connection.run(
            "SELECT attcollation::regcollation::text FROM pg_attribute"
            " WHERE attrelid = 'instances'::regclass AND attname = 'instance_id'"
        )
        steps = RUN_STEPS[await runs_version(connection, name) :]
        made = "".join(steps).format(id=ID if '"C"' in collation else "TEXT")
        await connection.script(
            f"{made}UPDATE runtara_trio_runs_schema SET version = {RUNS_VERSION};"
        )
