-- Indexes of all access methods, and what is indexed.
CREATE TABLE kinds.indexed (id int, words text, tags text[], body jsonb, spot point, span int4range, address inet, vector tsvector,
    at timestamptz, token kinds.token, colour kinds.colour);
INSERT INTO kinds.indexed SELECT i, md5(i::text) || ' word' || i % 50, ARRAY['t' || i % 11, 't' || i % 13], jsonb_build_object('k', i % 17),
        point(i % 100, i / 100), int4range(i, i + i % 50), ('10.0.' || i % 250 || '.' || i % 99)::inet, to_tsvector('simple', 'word' || i % 90),
        timestamptz '2024-01-01 00:00+00' + i * interval '1 min', ('t' || i)::kinds.token, (enum_range(NULL::kinds.colour))[1 + i % 4]
    FROM generate_series(1, 3000) i;
CREATE UNIQUE INDEX indexed_id ON kinds.indexed (id) INCLUDE (colour, at) WITH (fillfactor = 80, deduplicate_items = off);
ALTER TABLE kinds.indexed ADD CONSTRAINT indexed_key UNIQUE USING INDEX indexed_id DEFERRABLE;
CREATE UNIQUE INDEX indexed_nulls ON kinds.indexed (nullif(id, 0)) NULLS NOT DISTINCT;
CREATE INDEX indexed_order ON kinds.indexed (at DESC NULLS LAST, lower(words) COLLATE "C" text_pattern_ops, token kinds.token_ops);
CREATE INDEX indexed_part ON kinds.indexed (colour) WHERE colour <> 'red' AND id % 2 = 0;
CREATE INDEX indexed_hash ON kinds.indexed USING hash (words);
CREATE INDEX indexed_tags ON kinds.indexed USING gin (tags) WITH (fastupdate = off);
CREATE INDEX indexed_body ON kinds.indexed USING gin (body jsonb_path_ops, vector);
CREATE INDEX indexed_trigrams ON kinds.indexed USING gin (words gin_trgm_ops);
CREATE INDEX indexed_spot ON kinds.indexed USING gist (spot, span) WITH (buffering = on);
CREATE INDEX indexed_similar ON kinds.indexed USING gist (words gist_trgm_ops (siglen = 32));
CREATE INDEX indexed_quad ON kinds.indexed USING spgist (spot);
CREATE INDEX indexed_kd ON kinds.indexed USING spgist (spot kd_point_ops);
CREATE INDEX indexed_span ON kinds.indexed USING spgist (span);
CREATE INDEX indexed_network ON kinds.indexed USING spgist (address) INCLUDE (id);
CREATE INDEX indexed_brin ON kinds.indexed USING brin (at, id int4_minmax_multi_ops, address inet_inclusion_ops) WITH (pages_per_range = 4, autosummarize = on);
CREATE INDEX indexed_bloom ON kinds.indexed USING brin (words text_bloom_ops (n_distinct_per_range = 90));
ALTER INDEX kinds.indexed_order ALTER COLUMN 2 SET STATISTICS 300;
ALTER TABLE kinds.indexed CLUSTER ON indexed_order;
ALTER TABLE kinds.indexed REPLICA IDENTITY NOTHING;
CREATE INDEX ranged_note ON kinds.ranged (note);
CREATE INDEX ranged_only ON ONLY kinds.ranged (at DESC);
CREATE INDEX ranged_late_at ON kinds.ranged_late (at DESC);
ALTER INDEX kinds.ranged_only ATTACH PARTITION kinds.ranged_late_at;
CREATE UNIQUE INDEX changed_a ON kinds.changed (a);
ALTER TABLE kinds.changed ALTER a SET NOT NULL, REPLICA IDENTITY USING INDEX changed_a;
CREATE STATISTICS kinds.depends (dependencies, ndistinct, mcv) ON colour, id FROM kinds.indexed;
CREATE STATISTICS kinds.of_expressions ON (id % 10), lower(words) FROM kinds.indexed;
ALTER STATISTICS kinds.depends SET STATISTICS 200;
-- Entries that come behind the building, as log of every access method.
INSERT INTO kinds.indexed SELECT id + 3000, words || ' late', tags, body, spot, span, address, vector, at + interval '3 days', token, colour
    FROM kinds.indexed WHERE id % 3 = 0;
UPDATE kinds.indexed SET tags = tags || 'more'::text, spot = spot + point(1, 1), span = '[1,4000)' WHERE id % 41 = 0;
DELETE FROM kinds.indexed WHERE id % 29 = 0;
