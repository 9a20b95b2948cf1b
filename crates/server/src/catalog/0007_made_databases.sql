ALTER TABLE database_operations ADD COLUMN made_oid BIGINT;
