CREATE SCHEMA postgres_0_2;
CREATE TYPE postgres_0_2.instance_event_type AS ENUM (
    'started',
    'progress',
    'completed',
    'failed',
    'suspended',
    'heartbeat',
    'custom'
);
CREATE TYPE postgres_0_2.instance_status AS ENUM (
    'pending',
    'running',
    'suspended',
    'completed',
    'failed',
    'cancelled'
);
CREATE TYPE postgres_0_2.signal_type AS ENUM (
    'cancel',
    'pause',
    'resume'
);
CREATE TABLE postgres_0_2._sqlx_migrations (
    version bigint NOT NULL,
    description text NOT NULL,
    installed_on timestamp with time zone DEFAULT now() NOT NULL,
    success boolean NOT NULL,
    checksum bytea NOT NULL,
    execution_time bigint NOT NULL
);
CREATE TABLE postgres_0_2.checkpoints (
    id bigint NOT NULL,
    instance_id text NOT NULL COLLATE pg_catalog."C",
    checkpoint_id text NOT NULL COLLATE pg_catalog."C",
    state bytea NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    is_retry_attempt boolean DEFAULT false NOT NULL,
    attempt_number integer,
    error_message text
);
CREATE SEQUENCE postgres_0_2.checkpoints_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE postgres_0_2.checkpoints_id_seq OWNED BY postgres_0_2.checkpoints.id;
CREATE TABLE postgres_0_2.containers (
    container_id text NOT NULL,
    instance_id text NOT NULL COLLATE pg_catalog."C",
    bundle_path text NOT NULL,
    status text DEFAULT 'created'::text NOT NULL,
    exit_code integer,
    last_heartbeat timestamp with time zone DEFAULT now() NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL
);
CREATE TABLE postgres_0_2.instance_events (
    id bigint NOT NULL,
    instance_id text NOT NULL COLLATE pg_catalog."C",
    event_type postgres_0_2.instance_event_type NOT NULL,
    checkpoint_id text COLLATE pg_catalog."C",
    payload bytea,
    subtype text,
    created_at timestamp with time zone DEFAULT now() NOT NULL
);
CREATE SEQUENCE postgres_0_2.instance_events_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE postgres_0_2.instance_events_id_seq OWNED BY postgres_0_2.instance_events.id;
CREATE TABLE postgres_0_2.instances (
    instance_id text NOT NULL COLLATE pg_catalog."C",
    tenant_id text NOT NULL COLLATE pg_catalog."C",
    definition_version integer DEFAULT 1 NOT NULL,
    status postgres_0_2.instance_status DEFAULT 'pending'::postgres_0_2.instance_status NOT NULL,
    checkpoint_id text COLLATE pg_catalog."C",
    attempt integer DEFAULT 1 NOT NULL,
    max_attempts integer DEFAULT 3 NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    started_at timestamp with time zone,
    finished_at timestamp with time zone,
    sleep_until timestamp with time zone,
    output bytea,
    error text,
    memory_peak_bytes bigint,
    cpu_usage_usec bigint,
    stderr text,
    input bytea,
    CONSTRAINT instance_id_not_empty CHECK ((instance_id <> ''::text)),
    CONSTRAINT valid_attempt CHECK (((attempt >= 1) AND (attempt <= max_attempts)))
);
CREATE TABLE postgres_0_2.pending_checkpoint_signals (
    id bigint NOT NULL,
    instance_id text NOT NULL COLLATE pg_catalog."C",
    checkpoint_id text NOT NULL COLLATE pg_catalog."C",
    payload bytea,
    created_at timestamp with time zone DEFAULT now() NOT NULL
);
CREATE SEQUENCE postgres_0_2.pending_checkpoint_signals_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE postgres_0_2.pending_checkpoint_signals_id_seq OWNED BY postgres_0_2.pending_checkpoint_signals.id;
CREATE TABLE postgres_0_2.pending_signals (
    instance_id text NOT NULL COLLATE pg_catalog."C",
    signal_type postgres_0_2.signal_type NOT NULL,
    payload bytea,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    acknowledged_at timestamp with time zone
);
CREATE SEQUENCE postgres_0_2.runtara_trio_epochs
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
CREATE TABLE postgres_0_2.runtara_trio_leases (
    instance_id text NOT NULL COLLATE pg_catalog."C",
    owner text NOT NULL,
    epoch bigint NOT NULL
);
CREATE TABLE postgres_0_2.runtara_trio_owners (
    owner text NOT NULL,
    holder text NOT NULL,
    lock_key bigint NOT NULL,
    renewed_at timestamp with time zone NOT NULL,
    lease_ms bigint NOT NULL,
    heartbeat_at timestamp with time zone
);
CREATE TABLE postgres_0_2.runtara_trio_schema (
    version integer NOT NULL
);
CREATE TABLE postgres_0_2.runtara_trio_starts (
    instance_id text NOT NULL COLLATE pg_catalog."C",
    started_at timestamp with time zone NOT NULL,
    ended bigint
);
CREATE TABLE postgres_0_2.schedules (
    schedule_id uuid DEFAULT gen_random_uuid() NOT NULL,
    tenant_id text NOT NULL COLLATE pg_catalog."C",
    definition_id uuid NOT NULL,
    definition_version integer,
    cron_expression text NOT NULL,
    timezone text DEFAULT 'UTC'::text NOT NULL,
    enabled boolean DEFAULT true NOT NULL,
    next_run_at timestamp with time zone,
    last_run_at timestamp with time zone,
    last_instance_id text,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL
);
ALTER TABLE ONLY postgres_0_2.checkpoints ALTER COLUMN id SET DEFAULT nextval('postgres_0_2.checkpoints_id_seq'::regclass);
ALTER TABLE ONLY postgres_0_2.instance_events ALTER COLUMN id SET DEFAULT nextval('postgres_0_2.instance_events_id_seq'::regclass);
ALTER TABLE ONLY postgres_0_2.pending_checkpoint_signals ALTER COLUMN id SET DEFAULT nextval('postgres_0_2.pending_checkpoint_signals_id_seq'::regclass);
INSERT INTO postgres_0_2._sqlx_migrations VALUES (1, 'initial schema', '2026-11-26 11:59:15.015929+00', true, '\x2de80a79a52709df0d072dd55a470612de9a2f7238c9bdca88f1236c6028f30042c7b2f6948f8b4318c1a47cf43d654d', 0);
INSERT INTO postgres_0_2._sqlx_migrations VALUES (2, 'add metrics', '2026-11-26 11:59:15.015929+00', true, '\x2479c694165e43c1efc53bd980373bd83801ffe6116945021eeaecb1f7ee113b72bfd8d0e1a9b31059a5b3f83271526d', 0);
INSERT INTO postgres_0_2._sqlx_migrations VALUES (3, 'drop wake queue', '2026-11-26 11:59:15.015929+00', true, '\x4d5ebca3a3c0391551096462628f01981169afedb96dbaffcdc0bb357be21e7f0f1e063202990db637700e1dba32d0f5', 0);
INSERT INTO postgres_0_2._sqlx_migrations VALUES (4, 'add stderr', '2026-11-26 11:59:15.015929+00', true, '\x92f7b8776d447fc1d23cf0d44d3a84b59f5baee56debc5d58f05d44240815b33e349655b215ffd04c91911b2daa69478', 0);
INSERT INTO postgres_0_2._sqlx_migrations VALUES (5, 'add input', '2026-11-26 11:59:15.015929+00', true, '\x2d7b569659d1f4135210969120491afdbd9e2fc0dd8b1bc03d54ea33c41028467646cb164e73640d826841ece5711c12', 0);
INSERT INTO postgres_0_2.checkpoints VALUES (1, 'done', 'a', '\x7b226e223a317d', '2026-11-26 11:59:15.100015+00', false, NULL, NULL);
INSERT INTO postgres_0_2.checkpoints VALUES (2, 'paused', 'a', '\x7b226e223a327d', '2026-11-26 11:59:15.111531+00', false, NULL, NULL);
INSERT INTO postgres_0_2.checkpoints VALUES (3, 'killed', 'durable::pay::o-1', '\x2270616964206f2d3122', '2026-11-26 11:59:15.119553+00', false, NULL, NULL);
INSERT INTO postgres_0_2.checkpoints VALUES (4, 'killed', 'durable::flaky::o-1::retry::1', '\x4f534572726f723a20646f776e', '2026-11-26 11:59:15.120845+00', true, 1, 'OSError: down');
INSERT INTO postgres_0_2.checkpoints VALUES (5, 'killed', 'durable::flaky::o-1::retry::2', '\x4f534572726f723a20646f776e', '2026-11-26 11:59:15.133231+00', true, 2, 'OSError: down');
INSERT INTO postgres_0_2.checkpoints VALUES (6, 'killed', 'durable::flaky::o-1', '\x2273686970706564206f2d3122', '2026-11-26 11:59:15.155369+00', false, NULL, NULL);
INSERT INTO postgres_0_2.checkpoints VALUES (7, 'killed', 'runtara_trio::wake::nap', '\x000001a217b962df', '2026-11-26 11:59:15.156934+00', false, NULL, NULL);
INSERT INTO postgres_0_2.checkpoints VALUES (8, 'killed', 'nap', '\x', '2026-11-26 11:59:15.156934+00', false, NULL, NULL);
INSERT INTO postgres_0_2.checkpoints VALUES (9, 'killed', 'runtara_trio::signal::approval', '\x012274616b656e22', '2026-11-26 11:59:15.169845+00', false, NULL, NULL);
INSERT INTO postgres_0_2.instance_events VALUES (1, 'done', 'started', NULL, NULL, NULL, '2026-11-26 11:59:15.083297+00');
INSERT INTO postgres_0_2.instance_events VALUES (2, 'done', 'completed', NULL, '\x7b22746f74616c223a337d', NULL, '2026-11-26 11:59:15.10463+00');
INSERT INTO postgres_0_2.instance_events VALUES (3, 'paused', 'started', NULL, NULL, NULL, '2026-11-26 11:59:15.109444+00');
INSERT INTO postgres_0_2.instance_events VALUES (4, 'paused', 'suspended', NULL, '\x6279207468652070726f6772616d', NULL, '2026-11-26 11:59:15.112664+00');
INSERT INTO postgres_0_2.instance_events VALUES (5, 'killed', 'started', NULL, NULL, NULL, '2026-11-26 11:59:15.117451+00');
INSERT INTO postgres_0_2.instance_events VALUES (6, 'killed', 'custom', NULL, '\x7b226279223a227465737473227d', 'billed', '2026-11-26 11:59:15.173758+00');
INSERT INTO postgres_0_2.instance_events VALUES (7, 'killed', 'heartbeat', NULL, NULL, NULL, '2026-11-26 11:59:15.175048+00');
INSERT INTO postgres_0_2.instances VALUES ('done', 'shop', 1, 'completed', 'a', 1, 3, '2026-11-26 11:59:15.083297+00', '2026-11-26 11:59:15.083297+00', '2026-11-26 11:59:15.10463+00', NULL, '\x7b22746f74616c223a337d', NULL, NULL, NULL, NULL, NULL);
INSERT INTO postgres_0_2.instances VALUES ('paused', 'shop', 1, 'suspended', 'a', 1, 3, '2026-11-26 11:59:15.109444+00', '2026-11-26 11:59:15.109444+00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO postgres_0_2.instances VALUES ('killed', 'shop', 1, 'running', 'nap', 1, 3, '2026-11-26 11:59:15.117451+00', '2026-11-26 11:59:15.117451+00', NULL, '2026-11-26 11:59:15.167+00', NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO postgres_0_2.pending_checkpoint_signals VALUES (1, 'paused', 'approval', '\x2279657322', '2026-11-26 11:59:15.114281+00');
INSERT INTO postgres_0_2.pending_checkpoint_signals VALUES (3, 'killed', 'second', '\x22776169747322', '2026-11-26 11:59:15.172552+00');
INSERT INTO postgres_0_2.runtara_trio_leases VALUES ('killed', 'postgres-1', 4);
INSERT INTO postgres_0_2.runtara_trio_owners VALUES ('postgres-1', 'process 14395 on a machine', 3168948360581218305, '2026-11-26 11:59:15.079551+00', 30000, NULL);
INSERT INTO postgres_0_2.runtara_trio_schema VALUES (2);
INSERT INTO postgres_0_2.runtara_trio_starts VALUES ('done', '2026-11-26 11:59:15.083297+00', 2);
INSERT INTO postgres_0_2.runtara_trio_starts VALUES ('paused', '2026-11-26 11:59:15.109444+00', 3);
INSERT INTO postgres_0_2.runtara_trio_starts VALUES ('killed', '2026-11-26 11:59:15.117451+00', NULL);
SELECT pg_catalog.setval('postgres_0_2.checkpoints_id_seq', 9, true);
SELECT pg_catalog.setval('postgres_0_2.instance_events_id_seq', 7, true);
SELECT pg_catalog.setval('postgres_0_2.pending_checkpoint_signals_id_seq', 3, true);
SELECT pg_catalog.setval('postgres_0_2.runtara_trio_epochs', 4, true);
ALTER TABLE ONLY postgres_0_2._sqlx_migrations
    ADD CONSTRAINT _sqlx_migrations_pkey PRIMARY KEY (version);
ALTER TABLE ONLY postgres_0_2.checkpoints
    ADD CONSTRAINT checkpoints_instance_id_checkpoint_id_key UNIQUE (instance_id, checkpoint_id);
ALTER TABLE ONLY postgres_0_2.checkpoints
    ADD CONSTRAINT checkpoints_pkey PRIMARY KEY (id);
ALTER TABLE ONLY postgres_0_2.containers
    ADD CONSTRAINT containers_instance_id_key UNIQUE (instance_id);
ALTER TABLE ONLY postgres_0_2.containers
    ADD CONSTRAINT containers_pkey PRIMARY KEY (container_id);
ALTER TABLE ONLY postgres_0_2.instance_events
    ADD CONSTRAINT instance_events_pkey PRIMARY KEY (id);
ALTER TABLE ONLY postgres_0_2.instances
    ADD CONSTRAINT instances_pkey PRIMARY KEY (instance_id);
ALTER TABLE ONLY postgres_0_2.pending_checkpoint_signals
    ADD CONSTRAINT pending_checkpoint_signals_instance_id_checkpoint_id_key UNIQUE (instance_id, checkpoint_id);
ALTER TABLE ONLY postgres_0_2.pending_checkpoint_signals
    ADD CONSTRAINT pending_checkpoint_signals_pkey PRIMARY KEY (id);
ALTER TABLE ONLY postgres_0_2.pending_signals
    ADD CONSTRAINT pending_signals_pkey PRIMARY KEY (instance_id);
ALTER TABLE ONLY postgres_0_2.runtara_trio_leases
    ADD CONSTRAINT runtara_trio_leases_pkey PRIMARY KEY (instance_id);
ALTER TABLE ONLY postgres_0_2.runtara_trio_owners
    ADD CONSTRAINT runtara_trio_owners_pkey PRIMARY KEY (owner);
ALTER TABLE ONLY postgres_0_2.runtara_trio_starts
    ADD CONSTRAINT runtara_trio_starts_pkey PRIMARY KEY (instance_id);
ALTER TABLE ONLY postgres_0_2.schedules
    ADD CONSTRAINT schedules_pkey PRIMARY KEY (schedule_id);
CREATE INDEX runtara_trio_by_status ON postgres_0_2.instances USING btree (status, created_at);
CREATE INDEX runtara_trio_by_tenant ON postgres_0_2.instances USING btree (tenant_id, status, created_at);
CREATE INDEX runtara_trio_ended ON postgres_0_2.instances USING btree (COALESCE(finished_at, started_at, created_at)) WHERE (status = ANY (ARRAY['cancelled'::postgres_0_2.instance_status, 'completed'::postgres_0_2.instance_status, 'failed'::postgres_0_2.instance_status]));
CREATE INDEX runtara_trio_events_of ON postgres_0_2.instance_events USING btree (instance_id, id);
CREATE INDEX runtara_trio_heartbeats ON postgres_0_2.instance_events USING btree (instance_id) WHERE (subtype = 'runtara_trio'::text);
CREATE INDEX runtara_trio_leases_of ON postgres_0_2.runtara_trio_leases USING btree (owner);
ALTER TABLE ONLY postgres_0_2.checkpoints
    ADD CONSTRAINT checkpoints_instance_id_fkey FOREIGN KEY (instance_id) REFERENCES postgres_0_2.instances(instance_id) ON DELETE CASCADE;
ALTER TABLE ONLY postgres_0_2.containers
    ADD CONSTRAINT containers_instance_id_fkey FOREIGN KEY (instance_id) REFERENCES postgres_0_2.instances(instance_id) ON DELETE CASCADE;
ALTER TABLE ONLY postgres_0_2.instance_events
    ADD CONSTRAINT instance_events_instance_id_fkey FOREIGN KEY (instance_id) REFERENCES postgres_0_2.instances(instance_id) ON DELETE CASCADE;
ALTER TABLE ONLY postgres_0_2.pending_checkpoint_signals
    ADD CONSTRAINT pending_checkpoint_signals_instance_id_fkey FOREIGN KEY (instance_id) REFERENCES postgres_0_2.instances(instance_id) ON DELETE CASCADE;
ALTER TABLE ONLY postgres_0_2.pending_signals
    ADD CONSTRAINT pending_signals_instance_id_fkey FOREIGN KEY (instance_id) REFERENCES postgres_0_2.instances(instance_id) ON DELETE CASCADE;
ALTER TABLE ONLY postgres_0_2.runtara_trio_leases
    ADD CONSTRAINT runtara_trio_leases_instance_id_fkey FOREIGN KEY (instance_id) REFERENCES postgres_0_2.instances(instance_id) ON DELETE CASCADE;
ALTER TABLE ONLY postgres_0_2.runtara_trio_starts
    ADD CONSTRAINT runtara_trio_starts_instance_id_fkey FOREIGN KEY (instance_id) REFERENCES postgres_0_2.instances(instance_id) ON DELETE CASCADE;
