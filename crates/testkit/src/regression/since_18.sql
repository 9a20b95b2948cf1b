CREATE TABLE kinds.virtual (a int CONSTRAINT a_there NOT NULL NO INHERIT, b int GENERATED ALWAYS AS (a * 2), c int GENERATED ALWAYS AS (a * 3) STORED);
INSERT INTO kinds.virtual SELECT generate_series(1, 20);
ALTER TABLE kinds.virtual ADD CONSTRAINT not_held CHECK (a > 100) NOT ENFORCED;
ALTER TABLE kinds.wide ADD CONSTRAINT unproven_there NOT NULL plain NOT VALID;
CREATE TABLE kinds.temporal (id int, during daterange, PRIMARY KEY (id, during WITHOUT OVERLAPS));
INSERT INTO kinds.temporal VALUES (1, '[2024-01-01,2024-02-01)'), (1, '[2024-02-01,)');
CREATE TABLE kinds.within (id int, during daterange, FOREIGN KEY (id, PERIOD during) REFERENCES kinds.temporal (id, PERIOD during));
INSERT INTO kinds.within VALUES (1, '[2024-01-05,2024-03-01)');
CREATE INDEX built_in_parallel ON kinds.indexed USING gin (tags, body);
