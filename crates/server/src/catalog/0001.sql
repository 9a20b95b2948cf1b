CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
);
CREATE TABLE principals (
    id TEXT PRIMARY KEY,
    client_id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    secret TEXT NOT NULL,
    created_us BIGINT NOT NULL
);
CREATE TABLE assignments (
    id TEXT PRIMARY KEY,
    principal TEXT NOT NULL REFERENCES principals (id),
    role TEXT NOT NULL,
    scope TEXT NOT NULL,
    created_us BIGINT NOT NULL
);
CREATE TABLE databases (
    instance TEXT NOT NULL,
    oid BIGINT NOT NULL,
    created_us BIGINT NOT NULL,
    name TEXT NOT NULL,
    "collation" TEXT NOT NULL,
    retention_days BIGINT NOT NULL,
    deleted_us BIGINT,
    PRIMARY KEY (instance, oid, created_us)
);
CREATE INDEX databases_by_name ON databases (instance, name);
CREATE TABLE operations (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    instance TEXT NOT NULL,
    actor TEXT NOT NULL,
    state TEXT NOT NULL,
    phase TEXT NOT NULL,
    total_bytes BIGINT NOT NULL,
    done_bytes BIGINT NOT NULL,
    stored_bytes BIGINT NOT NULL,
    started_us BIGINT NOT NULL,
    ended_us BIGINT,
    error_code TEXT,
    error_text TEXT
);
CREATE INDEX operations_by_instance ON operations (instance, started_us);
CREATE TABLE operation_events (
    operation TEXT NOT NULL REFERENCES operations (id) ON DELETE CASCADE,
    number BIGINT NOT NULL,
    time_us BIGINT NOT NULL,
    message TEXT NOT NULL,
    PRIMARY KEY (operation, number)
);
