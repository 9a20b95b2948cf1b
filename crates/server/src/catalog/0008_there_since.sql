ALTER TABLE databases ADD COLUMN there_us BIGINT NOT NULL DEFAULT 0;
ALTER TABLE databases ADD COLUMN there_known BIGINT NOT NULL DEFAULT 0;
UPDATE databases SET there_us = created_us;
