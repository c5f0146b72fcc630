"""The tables of workflows, by version: their own, for a program of 0.1, which does not know them,
refuses a newer number in the others."""

from __future__ import annotations

_RUN_TABLES = """
CREATE {temp} TABLE IF NOT EXISTS runtara_trio_runs_schema (
    version INTEGER NOT NULL,
    ended INTEGER NOT NULL
);
CREATE {temp} TABLE IF NOT EXISTS runtara_trio_runs (
    instance_id TEXT PRIMARY KEY {references},
    tenant_id TEXT NOT NULL,
    workflow TEXT NOT NULL,
    version INTEGER NOT NULL,
    queue TEXT NOT NULL,
    key TEXT NOT NULL DEFAULT '',
    priority INTEGER NOT NULL DEFAULT 0,
    state TEXT NOT NULL,
    due_ms INTEGER,
    ready_us INTEGER NOT NULL,
    waiting_for TEXT,
    waits INTEGER NOT NULL DEFAULT 0,
    recoveries INTEGER NOT NULL DEFAULT 0,
    progress INTEGER NOT NULL DEFAULT 0,
    parent_id TEXT,
    ended INTEGER
);
CREATE INDEX IF NOT EXISTS {schema}.runtara_trio_ready ON runtara_trio_runs
    (queue, workflow, version, tenant_id, key, priority DESC, ready_us) WHERE state = 'ready';
CREATE INDEX IF NOT EXISTS {schema}.runtara_trio_suspect ON runtara_trio_runs (queue)
    WHERE state = 'suspect';
CREATE INDEX IF NOT EXISTS {schema}.runtara_trio_due ON runtara_trio_runs (due_ms)
    WHERE state = 'timed';
CREATE INDEX IF NOT EXISTS {schema}.runtara_trio_ends ON runtara_trio_runs (ended)
    WHERE ended IS NOT NULL;
CREATE INDEX IF NOT EXISTS {schema}.runtara_trio_of_workflow ON runtara_trio_runs (workflow);
CREATE INDEX IF NOT EXISTS {schema}.runtara_trio_parked ON runtara_trio_runs (state)
    WHERE state = 'parked';
CREATE INDEX IF NOT EXISTS {schema}.runtara_trio_waiting ON runtara_trio_runs (waiting_for)
    WHERE waiting_for IS NOT NULL;
CREATE INDEX IF NOT EXISTS {schema}.runtara_trio_children ON runtara_trio_runs (parent_id)
    WHERE parent_id IS NOT NULL;
CREATE {temp} TABLE IF NOT EXISTS runtara_trio_attributes (
    instance_id TEXT NOT NULL {references},
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (instance_id, name)
);
CREATE {temp} TABLE IF NOT EXISTS runtara_trio_workers (
    owner TEXT NOT NULL,
    name TEXT NOT NULL,
    info TEXT NOT NULL,
    PRIMARY KEY (owner, name)
)
"""
_CHILDREN = """
ALTER TABLE {schema}.runtara_trio_runs ADD COLUMN depth INTEGER NOT NULL DEFAULT 0;
ALTER TABLE {schema}.runtara_trio_runs ADD COLUMN block TEXT;
ALTER TABLE {schema}.runtara_trio_runs ADD COLUMN children INTEGER NOT NULL DEFAULT 0;
ALTER TABLE {schema}.runtara_trio_runs ADD COLUMN by_parent INTEGER NOT NULL DEFAULT 0;
ALTER TABLE {schema}.runtara_trio_runs ADD COLUMN waits_children TEXT;
ALTER TABLE {schema}.runtara_trio_runs ADD COLUMN ended_ms INTEGER;
DROP INDEX IF EXISTS {schema}.runtara_trio_children;
CREATE INDEX IF NOT EXISTS {schema}.runtara_trio_children_of ON runtara_trio_runs
    (parent_id, block, ended) WHERE parent_id IS NOT NULL
"""
_QUEUES = """
ALTER TABLE {schema}.runtara_trio_runs ADD COLUMN place INTEGER NOT NULL DEFAULT 0;
ALTER TABLE {schema}.runtara_trio_runs ADD COLUMN wants INTEGER NOT NULL DEFAULT 0;
ALTER TABLE {schema}.runtara_trio_runs ADD COLUMN has_turn INTEGER NOT NULL DEFAULT 0;
CREATE INDEX IF NOT EXISTS {schema}.runtara_trio_places ON runtara_trio_runs (queue)
    WHERE place = 1;
CREATE INDEX IF NOT EXISTS {schema}.runtara_trio_wants ON runtara_trio_runs (queue)
    WHERE wants = 1;
CREATE INDEX IF NOT EXISTS {schema}.runtara_trio_turns ON runtara_trio_runs
    (queue, tenant_id, key) WHERE has_turn = 1;
CREATE INDEX IF NOT EXISTS {schema}.runtara_trio_behind ON runtara_trio_runs
    (queue, tenant_id, key, priority DESC, ready_us) WHERE state = 'behind';
CREATE {temp} TABLE IF NOT EXISTS runtara_trio_queues (
    name TEXT PRIMARY KEY,
    info TEXT NOT NULL,
    paused INTEGER NOT NULL DEFAULT 0
);
CREATE {temp} TABLE IF NOT EXISTS runtara_trio_begins (
    queue TEXT NOT NULL,
    began_us INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS {schema}.runtara_trio_begins_of ON runtara_trio_begins
    (queue, began_us)
"""
_FILTERS = """
CREATE INDEX IF NOT EXISTS {schema}.runtara_trio_attributes_of ON runtara_trio_attributes
    (name, value, instance_id);
CREATE INDEX IF NOT EXISTS {schema}.runtara_trio_of_tenant ON runtara_trio_runs
    (tenant_id, workflow)
"""
LISTS = """
CREATE INDEX IF NOT EXISTS main.runtara_trio_by_status ON instances (status)
    WHERE status <> 'completed';
CREATE INDEX IF NOT EXISTS main.runtara_trio_by_tenant ON instances (tenant_id);
CREATE INDEX IF NOT EXISTS main.runtara_trio_created ON instances (created_at)
"""
"""Of core's table, which a stand-in has no part of."""
_SCHEDULES = """
CREATE {temp} TABLE IF NOT EXISTS runtara_trio_schedules (
    name TEXT PRIMARY KEY,
    info TEXT NOT NULL
)
"""
_HISTORY = """
CREATE {temp} TABLE IF NOT EXISTS runtara_trio_steps (
    instance_id TEXT NOT NULL {references},
    step TEXT NOT NULL,
    run INTEGER NOT NULL,
    kind TEXT NOT NULL,
    worker TEXT NOT NULL,
    parent TEXT,
    started_ms INTEGER NOT NULL,
    ended_ms INTEGER,
    outcome TEXT,
    attempts TEXT,
    summary TEXT,
    PRIMARY KEY (instance_id, step, run)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS {schema}.runtara_trio_open_steps ON runtara_trio_steps (kind, step)
    WHERE outcome IS NULL;
CREATE INDEX IF NOT EXISTS {schema}.runtara_trio_open_steps_of ON runtara_trio_steps (instance_id)
    WHERE outcome IS NULL
"""
_PEOPLE = """
ALTER TABLE {schema}.runtara_trio_steps ADD COLUMN asks TEXT;
DROP INDEX IF EXISTS {schema}.runtara_trio_open_steps_of;
CREATE INDEX IF NOT EXISTS {schema}.runtara_trio_current_steps_of ON runtara_trio_steps
    (instance_id) WHERE outcome IS NULL OR outcome = 'unloaded';
CREATE INDEX IF NOT EXISTS {schema}.runtara_trio_open_waits ON runtara_trio_steps
    (started_ms, instance_id, step)
    WHERE kind = 'signal' AND (outcome IS NULL OR outcome = 'unloaded');
CREATE {temp} TABLE IF NOT EXISTS runtara_trio_audit (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at_ms INTEGER NOT NULL,
    who TEXT NOT NULL,
    what TEXT NOT NULL,
    instance_id TEXT,
    detail TEXT
);
CREATE INDEX IF NOT EXISTS {schema}.runtara_trio_audit_of ON runtara_trio_audit
    (instance_id, id) WHERE instance_id IS NOT NULL
"""
_TRACES = """
CREATE {temp} TABLE IF NOT EXISTS runtara_trio_traces (
    instance_id TEXT PRIMARY KEY {references},
    started TEXT,
    run TEXT
);
CREATE INDEX IF NOT EXISTS {schema}.runtara_trio_oldest ON runtara_trio_runs
    (queue || '', ready_us) WHERE state = 'ready'
"""
"""The index is of an expression: no plan of a claim must choose it, which would read all that is
ready."""
RUN_STEPS = (_RUN_TABLES, _CHILDREN, _QUEUES, _FILTERS, _SCHEDULES, _HISTORY, _PEOPLE, _TRACES)
"""The tables of workflows; the number of a step is the version that it makes."""
RUNS_VERSION = len(RUN_STEPS)
RUN_NAMES = (
    "runtara_trio_runs_schema",
    "runtara_trio_runs",
    "runtara_trio_attributes",
    "runtara_trio_workers",
    "runtara_trio_queues",
    "runtara_trio_begins",
    "runtara_trio_schedules",
    "runtara_trio_steps",
    "runtara_trio_audit",
    "runtara_trio_traces",
)
