BEGIN TRANSACTION;
CREATE TABLE _sqlx_migrations (
    version BIGINT PRIMARY KEY,
    description TEXT NOT NULL,
    installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    success BOOLEAN NOT NULL,
    checksum BLOB NOT NULL,
    execution_time BIGINT NOT NULL
);
INSERT INTO "_sqlx_migrations" VALUES(1,'initial schema','2026-11-26 11:58:47',1,X'18ED89A772493B52A90C8FBBF0B933B18E3CE37840D400AE6436F6529F8B9102538D6386B4D7D4EE8F1AF5164E739D0D',0);
INSERT INTO "_sqlx_migrations" VALUES(2,'add sleep until','2026-11-26 11:58:47',1,X'0330C58E7DAC73C5B948F36682E39A03E40507DE1C6F37B214C2519F6A108C00A5391D9DA25F32423F70427FF866D556',0);
INSERT INTO "_sqlx_migrations" VALUES(3,'add custom event','2026-11-26 11:58:47',1,X'08F90BB13A25D10E788CDBC1867E57052E1E78A377931A0E15BE6E78999E8F4BF2EA989BFA6A10E4A3E6859CCA2C7DCB',0);
INSERT INTO "_sqlx_migrations" VALUES(4,'add metrics','2026-11-26 11:58:47',1,X'139A96A122C30D8246B6D463D75D72A6FC59664AC99B8C4F08318E84E8B9491A6E26D39E2FA96D4018324E13C3B148F7',0);
INSERT INTO "_sqlx_migrations" VALUES(5,'drop wake queue','2026-11-26 11:58:47',1,X'4D5EBCA3A3C0391551096462628F01981169AFEDB96DBAFFCDC0BB357BE21E7F0F1E063202990DB637700E1DBA32D0F5',0);
INSERT INTO "_sqlx_migrations" VALUES(6,'add stderr','2026-11-26 11:58:47',1,X'36A8F8DD6FC1F15AD6074CE055F3FF6D104DACB03CF9421E3358BE107E98C291565D20028E33B4AA0F38DC6827C390D8',0);
INSERT INTO "_sqlx_migrations" VALUES(7,'add input','2026-11-26 11:58:47',1,X'3810B30F35E7F209F70961B5565B589FC6D1EC91992F0784354A575F32142088A6F875D8107F32CF9582C9DD926C0019',0);
CREATE TABLE checkpoints (
    id INTEGER PRIMARY KEY,
    instance_id TEXT NOT NULL REFERENCES instances (instance_id) ON DELETE CASCADE,
    checkpoint_id TEXT NOT NULL,
    state BLOB NOT NULL,
    created_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP,
    UNIQUE (instance_id, checkpoint_id)
);
INSERT INTO "checkpoints" VALUES(1,'done','a',X'7B226E223A317D','2026-11-26 11:58:47');
INSERT INTO "checkpoints" VALUES(2,'paused','a',X'7B226E223A327D','2026-11-26 11:58:47');
INSERT INTO "checkpoints" VALUES(3,'killed','durable::pay::o-1',X'2270616964206F2D3122','2026-11-26 11:58:47');
INSERT INTO "checkpoints" VALUES(4,'killed','durable::flaky::o-1::retry::1',X'4F534572726F723A20646F776E','2026-11-26 11:58:47');
INSERT INTO "checkpoints" VALUES(5,'killed','durable::flaky::o-1::retry::2',X'4F534572726F723A20646F776E','2026-11-26 11:58:47');
INSERT INTO "checkpoints" VALUES(6,'killed','durable::flaky::o-1',X'2273686970706564206F2D3122','2026-11-26 11:58:47');
INSERT INTO "checkpoints" VALUES(7,'killed','runtara_trio::wake::nap',X'000001A217B8F84D','2026-11-26 11:58:47');
INSERT INTO "checkpoints" VALUES(8,'killed','nap',X'','2026-11-26 11:58:47');
INSERT INTO "checkpoints" VALUES(9,'killed','runtara_trio::signal::approval',X'012274616B656E22','2026-11-26 11:58:47');
CREATE TABLE instance_events (
    id INTEGER PRIMARY KEY,
    instance_id TEXT NOT NULL REFERENCES instances (instance_id) ON DELETE CASCADE,
    event_type TEXT NOT NULL,
    checkpoint_id TEXT,
    payload BLOB,
    created_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP,
    subtype TEXT
);
INSERT INTO "instance_events" VALUES(1,'done','started',NULL,NULL,'2026-11-26 11:58:47',NULL);
INSERT INTO "instance_events" VALUES(2,'done','completed',NULL,X'7B22746F74616C223A337D','2026-11-26 11:58:47',NULL);
INSERT INTO "instance_events" VALUES(3,'paused','started',NULL,NULL,'2026-11-26 11:58:47',NULL);
INSERT INTO "instance_events" VALUES(4,'paused','suspended',NULL,X'6279207468652070726F6772616D','2026-11-26 11:58:47',NULL);
INSERT INTO "instance_events" VALUES(5,'killed','started',NULL,NULL,'2026-11-26 11:58:47',NULL);
INSERT INTO "instance_events" VALUES(6,'killed','custom',NULL,X'7B226279223A227465737473227D','2026-11-26 11:58:47','billed');
INSERT INTO "instance_events" VALUES(7,'killed','heartbeat',NULL,NULL,'2026-11-26 11:58:47',NULL);
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
INSERT INTO "instances" VALUES('done','shop',1,'completed','a',1,3,'2026-11-26 11:58:47','2026-11-26T11:58:47.819645+00:00','2026-11-26 11:58:47',X'7B22746F74616C223A337D',NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "instances" VALUES('paused','shop',1,'suspended','a',1,3,'2026-11-26 11:58:47','2026-11-26T11:58:47.832042+00:00',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "instances" VALUES('killed','shop',1,'running','nap',1,3,'2026-11-26 11:58:47','2026-11-26T11:58:47.836271+00:00',NULL,NULL,NULL,'2026-11-26 11:58:48',NULL,NULL,NULL,NULL);
CREATE TABLE pending_custom_signals (
    instance_id TEXT NOT NULL REFERENCES instances (instance_id) ON DELETE CASCADE,
    checkpoint_id TEXT NOT NULL,
    payload BLOB,
    created_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP,
    PRIMARY KEY (instance_id, checkpoint_id)
);
INSERT INTO "pending_custom_signals" VALUES('paused','approval',X'2279657322','2026-11-26 11:58:47');
INSERT INTO "pending_custom_signals" VALUES('killed','second',X'22776169747322','2026-11-26 11:58:47');
CREATE TABLE pending_signals (
    instance_id TEXT PRIMARY KEY REFERENCES instances (instance_id) ON DELETE CASCADE,
    signal_type TEXT NOT NULL,
    payload BLOB,
    created_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP,
    acknowledged_at TEXT
);
CREATE TABLE runtara_trio_leases (
    instance_id TEXT PRIMARY KEY REFERENCES instances (instance_id) ON DELETE CASCADE,
    owner TEXT NOT NULL,
    epoch INTEGER NOT NULL
);
INSERT INTO "runtara_trio_leases" VALUES('killed','e5d35da3dc9cb069',3);
CREATE TABLE runtara_trio_owners (
    owner TEXT PRIMARY KEY,
    holder TEXT NOT NULL,
    renewed_ms INTEGER NOT NULL,
    lease_ms INTEGER NOT NULL,
    heartbeat_at TEXT
);
INSERT INTO "runtara_trio_owners" VALUES('e5d35da3dc9cb069','process 14341 on a machine',14442398,30000,NULL);
CREATE TABLE runtara_trio_schema (
    version INTEGER NOT NULL,
    epoch INTEGER NOT NULL
);
INSERT INTO "runtara_trio_schema" VALUES(1,3);
CREATE TABLE runtara_trio_starts (
    instance_id TEXT PRIMARY KEY REFERENCES instances (instance_id) ON DELETE CASCADE,
    started_at TEXT NOT NULL
);
INSERT INTO "runtara_trio_starts" VALUES('done','2026-11-26T11:58:47.819645+00:00');
INSERT INTO "runtara_trio_starts" VALUES('paused','2026-11-26T11:58:47.832042+00:00');
INSERT INTO "runtara_trio_starts" VALUES('killed','2026-11-26T11:58:47.836271+00:00');
CREATE INDEX runtara_trio_events_of ON instance_events (instance_id);
CREATE INDEX runtara_trio_leases_of ON runtara_trio_leases (owner);
COMMIT;
