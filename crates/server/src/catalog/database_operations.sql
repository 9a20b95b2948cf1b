CREATE TABLE database_operations (
    operation TEXT PRIMARY KEY REFERENCES operations (id) ON DELETE CASCADE,
    instance TEXT NOT NULL,
    name TEXT NOT NULL,
    holds BIGINT NOT NULL,
    attempts BIGINT NOT NULL,
    server TEXT NOT NULL,
    request TEXT NOT NULL,
    details TEXT
);
CREATE UNIQUE INDEX one_operation_of_a_database ON database_operations (instance, name) WHERE holds = 1;
CREATE INDEX database_operations_by_name ON database_operations (instance, name);
