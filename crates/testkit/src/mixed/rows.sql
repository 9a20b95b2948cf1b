INSERT INTO mixed.document (id, title, body, tags, span, at, mood, cost, place, share)
SELECT i,
       'document ' || md5(i::text) || ' of ' || i % 97,
       jsonb_build_object('id', i, 'name', md5((i * 3)::text), 'parts', jsonb_build_array(i % 7, i % 11, null, true),
                          'text', repeat(md5((i % 50)::text), 4)),
       ARRAY['tag' || i % 13, 'tag' || i % 29],
       int4range(i, i + i % 100, '[]'),
       timestamptz '2024-01-01 00:00:00+00' + i * interval '37 seconds',
       (enum_range(NULL::mixed.mood))[i % 4],
       (i % 1000) * 1.125,
       ROW('street ' || i % 40, i)::mixed.place,
       sqrt(i)
FROM generate_series(1, current_setting('everpoint.rows')::int) i;
SELECT setval(pg_get_serial_sequence('mixed.document', 'id'), current_setting('everpoint.rows')::int);
ALTER TABLE mixed.document ADD COLUMN late text NOT NULL DEFAULT 'there all along';

-- Every fourth document has 3 kB of compressible text and 5 kB of noise.
INSERT INTO mixed.blob
SELECT i,
       (SELECT string_agg(md5((i + j % 20)::text), ' ') FROM generate_series(1, 90) j),
       (SELECT string_agg(sha256((i::text || ':' || j)::bytea), '') FROM generate_series(1, 160) j)
FROM generate_series(4, current_setting('everpoint.rows')::int, 4) i;

INSERT INTO mixed.event
SELECT i, date '2023-12-01' + i % 800, 'event ' || sha256(i::text::bytea)::text
FROM generate_series(1, current_setting('everpoint.rows')::int) i;

INSERT INTO mixed.parent SELECT i, 'parent ' || i FROM generate_series(1, 100) i;
INSERT INTO mixed.child SELECT i, 'child ' || i, md5(i::text) FROM generate_series(101, 200) i;
INSERT INTO mixed.no_columns SELECT FROM generate_series(1, 3);
INSERT INTO mixed."Odd ""name"" of ünïcode, 100%" VALUES (1, 'naïve ' || chr(128512)), (NULL, E'tab\tline\n');
INSERT INTO mixed.unlogged SELECT i, md5(i::text) FROM generate_series(1, 500) i;
INSERT INTO mixed_temporary SELECT i, md5(i::text) FROM generate_series(1, 500) i;

-- Dead rows, and rows that moved.
UPDATE mixed.document SET title = title || ', revised' WHERE id % 20 = 0;
DELETE FROM mixed.event WHERE id % 25 = 0;
