ALTER TABLE principals ADD COLUMN kind TEXT NOT NULL DEFAULT 'ServicePrincipal';
ALTER TABLE principals ADD COLUMN external TEXT;
ALTER TABLE principals ADD COLUMN disabled_us BIGINT;
CREATE UNIQUE INDEX users_by_name ON principals (lower(name)) WHERE kind = 'User';
CREATE TABLE secrets (
    id TEXT PRIMARY KEY,
    principal TEXT NOT NULL REFERENCES principals (id) ON DELETE CASCADE,
    hash TEXT NOT NULL,
    created_us BIGINT NOT NULL,
    expires_us BIGINT
);
CREATE INDEX secrets_by_principal ON secrets (principal);
INSERT INTO secrets (id, principal, hash, created_us)
    SELECT id, id, secret, created_us FROM principals WHERE secret <> '';
ALTER TABLE principals DROP COLUMN secret;
ALTER TABLE operations ADD COLUMN owner TEXT NOT NULL DEFAULT '';
CREATE TABLE changes (
    name TEXT PRIMARY KEY,
    number BIGINT NOT NULL
);
INSERT INTO changes (name, number) VALUES ('access', 1);
CREATE TABLE servers (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    beats BIGINT NOT NULL,
    started_us BIGINT NOT NULL
);
CREATE TABLE leases (
    name TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    term BIGINT NOT NULL,
    beats BIGINT NOT NULL
);
INSERT INTO leases (name, owner, term, beats) VALUES ('schedule', '', 0, 0);
CREATE TABLE audit_queue (
    id TEXT PRIMARY KEY,
    time_us BIGINT NOT NULL,
    principal TEXT NOT NULL,
    action TEXT NOT NULL,
    scope TEXT NOT NULL,
    detail TEXT NOT NULL
);
