"""The tables of workflows on PostgreSQL, by version; see ``sqlite.run_schema``."""

from __future__ import annotations

ID = 'TEXT COLLATE "C"'
"""The type of ids in tables that are made here: they are compared, and read in order, as bytes."""

_RUN_TABLES = f"""
CREATE TABLE IF NOT EXISTS runtara_trio_runs_schema (
    version INTEGER NOT NULL
);
CREATE SEQUENCE IF NOT EXISTS runtara_trio_ends;
CREATE TABLE IF NOT EXISTS runtara_trio_runs (
    instance_id {{id}} PRIMARY KEY REFERENCES instances ON DELETE CASCADE,
    tenant_id {ID} NOT NULL,
    workflow {ID} NOT NULL,
    version INTEGER NOT NULL,
    queue {ID} NOT NULL,
    key {ID} NOT NULL DEFAULT '',
    priority INTEGER NOT NULL DEFAULT 0,
    state TEXT NOT NULL,
    due_ms BIGINT,
    ready_us BIGINT NOT NULL,
    waiting_for TEXT,
    waits BOOLEAN NOT NULL DEFAULT false,
    recoveries INTEGER NOT NULL DEFAULT 0,
    progress BIGINT NOT NULL DEFAULT 0,
    parent_id {{id}},
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    ended BIGINT
);
CREATE INDEX IF NOT EXISTS runtara_trio_ready ON runtara_trio_runs
    (queue, workflow, version, tenant_id, key, priority DESC, ready_us) WHERE state = 'ready';
CREATE INDEX IF NOT EXISTS runtara_trio_suspect ON runtara_trio_runs (queue)
    WHERE state = 'suspect';
CREATE INDEX IF NOT EXISTS runtara_trio_due ON runtara_trio_runs (due_ms) WHERE state = 'timed';
CREATE INDEX IF NOT EXISTS runtara_trio_ends_of ON runtara_trio_runs (ended)
    WHERE ended IS NOT NULL;
CREATE INDEX IF NOT EXISTS runtara_trio_of_workflow ON runtara_trio_runs
    (workflow, created_at, instance_id);
CREATE INDEX IF NOT EXISTS runtara_trio_parked ON runtara_trio_runs (created_at, instance_id)
    WHERE state = 'parked';
CREATE INDEX IF NOT EXISTS runtara_trio_waiting ON runtara_trio_runs (waiting_for)
    WHERE waiting_for IS NOT NULL;
CREATE INDEX IF NOT EXISTS runtara_trio_children ON runtara_trio_runs (parent_id)
    WHERE parent_id IS NOT NULL;
CREATE TABLE IF NOT EXISTS runtara_trio_attributes (
    instance_id {{id}} NOT NULL REFERENCES instances ON DELETE CASCADE,
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (instance_id, name)
);
CREATE TABLE IF NOT EXISTS runtara_trio_workers (
    owner TEXT NOT NULL,
    name TEXT NOT NULL,
    info TEXT NOT NULL,
    PRIMARY KEY (owner, name)
);
INSERT INTO runtara_trio_runs_schema SELECT 1
    WHERE NOT EXISTS (SELECT 1 FROM runtara_trio_runs_schema);
"""
_CHILDREN = """
ALTER TABLE runtara_trio_runs
    ADD COLUMN IF NOT EXISTS depth INTEGER NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS block TEXT,
    ADD COLUMN IF NOT EXISTS children INTEGER NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS by_parent BOOLEAN NOT NULL DEFAULT false,
    ADD COLUMN IF NOT EXISTS waits_children TEXT,
    ADD COLUMN IF NOT EXISTS ended_ms BIGINT;
DROP INDEX IF EXISTS runtara_trio_children;
CREATE INDEX IF NOT EXISTS runtara_trio_children_of ON runtara_trio_runs
    (parent_id, block, ended) WHERE parent_id IS NOT NULL;
"""
_QUEUES = f"""
ALTER TABLE runtara_trio_runs
    ADD COLUMN IF NOT EXISTS place BOOLEAN NOT NULL DEFAULT false,
    ADD COLUMN IF NOT EXISTS wants BOOLEAN NOT NULL DEFAULT false,
    ADD COLUMN IF NOT EXISTS has_turn BOOLEAN NOT NULL DEFAULT false;
CREATE INDEX IF NOT EXISTS runtara_trio_places ON runtara_trio_runs (queue) WHERE place;
CREATE INDEX IF NOT EXISTS runtara_trio_wants ON runtara_trio_runs (queue) WHERE wants;
CREATE INDEX IF NOT EXISTS runtara_trio_turns ON runtara_trio_runs (queue, tenant_id, key)
    WHERE has_turn;
CREATE INDEX IF NOT EXISTS runtara_trio_behind ON runtara_trio_runs
    (queue, tenant_id, key, priority DESC, ready_us) WHERE state = 'behind';
CREATE TABLE IF NOT EXISTS runtara_trio_queues (
    name {ID} PRIMARY KEY,
    info TEXT NOT NULL,
    paused BOOLEAN NOT NULL DEFAULT false
);
CREATE TABLE IF NOT EXISTS runtara_trio_begins (
    queue {ID} NOT NULL,
    began_us BIGINT NOT NULL
);
CREATE INDEX IF NOT EXISTS runtara_trio_begins_of ON runtara_trio_begins (queue, began_us);
"""
_FILTERS = """
CREATE INDEX IF NOT EXISTS runtara_trio_attributes_of ON runtara_trio_attributes
    (name, value, instance_id);
CREATE INDEX IF NOT EXISTS runtara_trio_of_tenant ON runtara_trio_runs
    (tenant_id, workflow, created_at, instance_id);
"""
_SCHEDULES = f"""
CREATE TABLE IF NOT EXISTS runtara_trio_schedules (
    name {ID} PRIMARY KEY,
    info TEXT NOT NULL
);
"""
_HISTORY = f"""
CREATE TABLE IF NOT EXISTS runtara_trio_steps (
    instance_id {{id}} NOT NULL REFERENCES instances ON DELETE CASCADE,
    step {ID} NOT NULL,
    run BIGINT NOT NULL,
    kind TEXT NOT NULL,
    worker TEXT NOT NULL,
    parent TEXT,
    started_ms BIGINT NOT NULL,
    ended_ms BIGINT,
    outcome TEXT,
    attempts TEXT,
    summary TEXT,
    PRIMARY KEY (instance_id, step, run)
);
CREATE INDEX IF NOT EXISTS runtara_trio_open_steps ON runtara_trio_steps (kind, step)
    WHERE outcome IS NULL;
CREATE INDEX IF NOT EXISTS runtara_trio_open_steps_of ON runtara_trio_steps (instance_id)
    WHERE outcome IS NULL;
"""
_PEOPLE = f"""
ALTER TABLE runtara_trio_steps ADD COLUMN IF NOT EXISTS asks TEXT;
DROP INDEX IF EXISTS runtara_trio_open_steps_of;
CREATE INDEX IF NOT EXISTS runtara_trio_current_steps_of ON runtara_trio_steps (instance_id)
    WHERE outcome IS NULL OR outcome = 'unloaded';
CREATE INDEX IF NOT EXISTS runtara_trio_open_waits ON runtara_trio_steps
    (started_ms, instance_id, step)
    WHERE kind = 'signal' AND (outcome IS NULL OR outcome = 'unloaded');
CREATE TABLE IF NOT EXISTS runtara_trio_audit (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at_ms BIGINT NOT NULL,
    who TEXT NOT NULL,
    what TEXT NOT NULL,
    instance_id {ID},
    detail TEXT
);
CREATE INDEX IF NOT EXISTS runtara_trio_audit_of ON runtara_trio_audit (instance_id, id)
    WHERE instance_id IS NOT NULL;
"""
_TRACES = """
CREATE TABLE IF NOT EXISTS runtara_trio_traces (
    instance_id {id} PRIMARY KEY REFERENCES instances ON DELETE CASCADE,
    started TEXT,
    run TEXT
);
CREATE INDEX IF NOT EXISTS runtara_trio_oldest ON runtara_trio_runs ((queue || ''), ready_us)
    WHERE state = 'ready';
"""
"""The index is of an expression: no plan of a claim must choose it, which would read all that is
ready."""
RUN_STEPS = (_RUN_TABLES, _CHILDREN, _QUEUES, _FILTERS, _SCHEDULES, _HISTORY, _PEOPLE, _TRACES)
"""The tables of workflows, which have a version of their own: 0.1 refuses a newer one of the
others. The number of a step is the version that it makes."""
RUNS_VERSION = len(RUN_STEPS)
