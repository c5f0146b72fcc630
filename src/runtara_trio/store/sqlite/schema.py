"""Tables: those of runtara-core 1.4.1, and our own beside them.

A stock core that finds our file must take it as its own: same tables and columns, its
seven rows in ``_sqlx_migrations``, times in texts it reads. Secondary indexes and
AUTOINCREMENT cost almost half of the throughput and core misses neither, so they are
left out but for the one by which an instance's history is read and removed.

Our own tables: owners (who has the file open), leases (who runs what), starts (the
started_at that our register wrote; another one means that a core started the instance
since), and one row of the schema's version and the last epoch. Beside them, with a version
of their own, those of workflows: a program of 0.1, which does not know them, refuses a newer
number in the first.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache

from ...errors import StoreError
from ..core import check_core
from .run_schema import LISTS, RUN_NAMES, RUN_STEPS, RUNS_VERSION

VERSION = 1

CORE_TABLES = """
CREATE TABLE instances (
    instance_id TEXT PRIMARY KEY,
    tenant_id TEXT NOT NULL,
    definition_version INTEGER NOT NULL DEFAULT 1,
    status TEXT NOT NULL DEFAULT 'pending',
    checkpoint_id TEXT,
    attempt INTEGER NOT NULL DEFAULT 1,
    max_attempts INTEGER NOT NULL DEFAULT 3,
    created_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP,
    started_at TEXT,
    finished_at TEXT,
    output BLOB,
    error TEXT,
    sleep_until TEXT,
    memory_peak_bytes INTEGER,
    cpu_usage_usec INTEGER,
    stderr TEXT,
    input BLOB,
    CHECK (attempt >= 1 AND attempt <= max_attempts)
);
CREATE TABLE checkpoints (
    id INTEGER PRIMARY KEY,
    instance_id TEXT NOT NULL REFERENCES instances (instance_id) ON DELETE CASCADE,
    checkpoint_id TEXT NOT NULL,
    state BLOB NOT NULL,
    created_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP,
    UNIQUE (instance_id, checkpoint_id)
);
CREATE TABLE instance_events (
    id INTEGER PRIMARY KEY,
    instance_id TEXT NOT NULL REFERENCES instances (instance_id) ON DELETE CASCADE,
    event_type TEXT NOT NULL,
    checkpoint_id TEXT,
    payload BLOB,
    created_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP,
    subtype TEXT
);
CREATE INDEX runtara_trio_events_of ON instance_events (instance_id);
CREATE TABLE pending_signals (
    instance_id TEXT PRIMARY KEY REFERENCES instances (instance_id) ON DELETE CASCADE,
    signal_type TEXT NOT NULL,
    payload BLOB,
    created_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP,
    acknowledged_at TEXT
);
CREATE TABLE pending_custom_signals (
    instance_id TEXT NOT NULL REFERENCES instances (instance_id) ON DELETE CASCADE,
    checkpoint_id TEXT NOT NULL,
    payload BLOB,
    created_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP,
    PRIMARY KEY (instance_id, checkpoint_id)
);
CREATE TABLE _sqlx_migrations (
    version BIGINT PRIMARY KEY,
    description TEXT NOT NULL,
    installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    success BOOLEAN NOT NULL,
    checksum BLOB NOT NULL,
    execution_time BIGINT NOT NULL
)
"""

CORE_MIGRATIONS = (
    (
        1,
        "initial schema",
        "18ed89a772493b52a90c8fbbf0b933b18e3ce37840d400ae6436f6529f8b9102538d6386b4d7d4ee8f1af5164e739d0d",
    ),
    (
        2,
        "add sleep until",
        "0330c58e7dac73c5b948f36682e39a03e40507de1c6f37b214c2519f6a108c00a5391d9da25f32423f70427ff866d556",
    ),
    (
        3,
        "add custom event",
        "08f90bb13a25d10e788cdbc1867e57052e1e78a377931a0e15be6e78999e8f4bf2ea989bfa6a10e4a3e6859cca2c7dcb",
    ),
    (
        4,
        "add metrics",
        "139a96a122c30d8246b6d463d75d72a6fc59664ac99b8c4f08318e84e8b9491a6e26d39e2fa96d4018324e13c3b148f7",
    ),
    (
        5,
        "drop wake queue",
        "4d5ebca3a3c0391551096462628f01981169afedb96dbaffcdc0bb357be21e7f0f1e063202990db637700e1dba32d0f5",
    ),
    (
        6,
        "add stderr",
        "36a8f8dd6fc1f15ad6074ce055f3ff6d104dacb03cf9421e3358be107e98c291565d20028e33b4aa0f38dc6827c390d8",
    ),
    (
        7,
        "add input",
        "3810b30f35e7f209f70961b5565b589fc6d1ec91992f0784354a575f32142088a6f875d8107f32cf9582c9dd926c0019",
    ),
)
"""Version, description and SHA-384 of core's migrations; one that differs, and core refuses."""

CORE_1_6 = (
    (
        8,
        "termination tracking",
        "794c55db98d4ba95c31c00372e2545647f4a5011d19b6e543eefc3ae2e2bdc39a6dbf52e6f47295aba85e3ab7f2876d9",
    ),
)
"""Those of 1.6.4, which makes them on any file that it opens."""

CORE_1_6_TABLES = """
ALTER TABLE instances ADD COLUMN termination_reason TEXT CHECK (termination_reason IN ('completed',
    'application_error', 'crashed', 'timeout', 'heartbeat_timeout', 'cancelled', 'paused',
    'sleeping'));
ALTER TABLE instances ADD COLUMN exit_code INTEGER
"""

OUR_TABLES = """
CREATE {temp} TABLE IF NOT EXISTS runtara_trio_schema (
    version INTEGER NOT NULL,
    epoch INTEGER NOT NULL
);
CREATE {temp} TABLE IF NOT EXISTS runtara_trio_owners (
    owner TEXT PRIMARY KEY,
    holder TEXT NOT NULL,
    renewed_ms INTEGER NOT NULL,
    lease_ms INTEGER NOT NULL,
    heartbeat_at TEXT
);
CREATE {temp} TABLE IF NOT EXISTS runtara_trio_leases (
    instance_id TEXT PRIMARY KEY {references},
    owner TEXT NOT NULL,
    epoch INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS {schema}.runtara_trio_leases_of ON runtara_trio_leases (owner);
CREATE {temp} TABLE IF NOT EXISTS runtara_trio_starts (
    instance_id TEXT PRIMARY KEY {references},
    started_at TEXT NOT NULL
)
"""
OUR_NAMES = (
    "runtara_trio_schema",
    "runtara_trio_owners",
    "runtara_trio_leases",
    "runtara_trio_starts",
)


def tables(db: sqlite3.Connection) -> set[str]:
    """The names of the file's own tables."""
    return {
        name for (name,) in db.execute("SELECT name FROM main.sqlite_master WHERE type = 'table'")
    }


@contextlib.contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """One that writes; an exception undoes it."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        undo(db)
        raise


def undo(db: sqlite3.Connection) -> None:
    """End a transaction, if there is one, as if it had not been."""
    if db.in_transaction:
        db.execute("ROLLBACK")


def has_ours(db: sqlite3.Connection) -> bool:
    """Whether a register has put our tables beside core's."""
    return "runtara_trio_schema" in tables(db)


def runs_version(db: sqlite3.Connection) -> int:
    """The version of the tables of workflows; 0: they are not there, 0.1 made none."""
    if "runtara_trio_runs_schema" not in tables(db):
        return 0
    (version,) = db.execute("SELECT version FROM main.runtara_trio_runs_schema").fetchone()
    return int(version)


def tracks_ends(db: sqlite3.Connection) -> bool:
    """Whether instances have the columns in which 1.6.4 has why they ended."""
    found = db.execute("SELECT name FROM pragma_table_info('instances')")
    return any(name == "termination_reason" for (name,) in found)


def check_version(db: sqlite3.Connection, path: str) -> bool:
    """Whether the file has runtara's tables, all of a version this one knows.

    Raises:
      StoreError: tables without core's records, or a newer or older version.
    """
    names = tables(db)
    if "instances" not in names:
        return False
    found: set[tuple[int, str]] = set()
    if "_sqlx_migrations" in names:
        found = {
            (version, bytes(checksum).hex())
            for version, checksum in db.execute("SELECT version, checksum FROM _sqlx_migrations")
        }
    check_core(found, CORE_MIGRATIONS, CORE_1_6, path, "a file of its own")
    if "runtara_trio_schema" in names:
        (version,) = db.execute("SELECT version FROM main.runtara_trio_schema").fetchone()
        if version > VERSION:
            raise StoreError(
                f"{path} is of a newer runtara-trio (schema {version}, this one knows "
                f"{VERSION}); upgrade runtara-trio"
            )
    version = runs_version(db)
    if version > RUNS_VERSION:
        raise StoreError(
            f"{path} is of a newer runtara-trio (workflows {version}, this one knows "
            f"{RUNS_VERSION}); upgrade runtara-trio"
        )
    return True


def create(db: sqlite3.Connection, core: str = "1.4.1") -> None:
    """Make what is missing; inside a transaction, so that first starts may race.

    ``core``: whose tables new ones are.
    """
    names = tables(db)
    if "instances" not in names:
        _script(db, CORE_TABLES)
        later = CORE_1_6 if core == "1.6.4" else ()
        if later:
            _script(db, CORE_1_6_TABLES)
        db.executemany(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum,"
            " execution_time) VALUES (?, ?, 1, ?, 0)",
            [
                (version, what, bytes.fromhex(digest))
                for version, what, digest in (*CORE_MIGRATIONS, *later)
            ],
        )
    references = "REFERENCES instances (instance_id) ON DELETE CASCADE"
    _make_runs(db, references)
    if not has_ours(db):
        _script(db, OUR_TABLES.format(temp="", schema="main", references=references))
        db.execute("INSERT INTO runtara_trio_schema (version, epoch) VALUES (?, 0)", (VERSION,))


def upgrade_runs(db: sqlite3.Connection) -> None:
    """Bring tables of workflows that are there to this version; in a transaction of its own."""
    if 0 < runs_version(db) < RUNS_VERSION:
        with transaction(db):
            _make_runs(db, "REFERENCES instances (instance_id) ON DELETE CASCADE")


def _make_runs(db: sqlite3.Connection, references: str) -> None:
    version = runs_version(db)
    for step in RUN_STEPS[version:]:
        _script(db, step.format(temp="", schema="main", references=references))
    _script(db, LISTS)
    if version == 0:
        db.execute("INSERT INTO runtara_trio_runs_schema (version, ended) VALUES (0, 0)")
    db.execute("UPDATE runtara_trio_runs_schema SET version = ?", (RUNS_VERSION,))


def stand_in(db: sqlite3.Connection) -> None:
    """Empty temporary tables in place of ours, so that an operator's statements read a
    database that only a core has used, or a program of 0.1, and leave it as it is."""
    ours, runs = has_ours(db), runs_version(db) > 0
    for there, statements in ((ours, OUR_TABLES), *((runs, step) for step in RUN_STEPS)):
        if not there:
            _script(db, statements.format(temp="TEMP", schema="temp", references=""))


def drop_stand_ins(db: sqlite3.Connection) -> None:
    for name in (*OUR_NAMES, *RUN_NAMES):
        db.execute(f"DROP TABLE IF EXISTS temp.{name}")


def _script(db: sqlite3.Connection, statements: str) -> None:
    for statement in statements.split(";"):  # executescript would commit
        db.execute(statement)


# ---- times, in texts that core reads


@lru_cache(8)
def time_text(unix: int) -> str:
    """``2026-11-22 16:10:15``: as core writes most times."""
    return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%d %H:%M:%S")


def started_text(unix: float) -> str:
    """``2026-11-22T16:10:15.516583+00:00``: as core writes started_at."""
    return datetime.fromtimestamp(unix, UTC).isoformat(timespec="microseconds")


def parse_time(text: str | None) -> datetime | None:
    """A time text of ours or core's; None: it is not set, or invalid."""
    if text is None:
        return None
    try:
        parsed = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)
