UPDATE mixed.document SET title = md5(title), cost = cost + 1 WHERE id % 30 = 7;
DELETE FROM mixed.blob WHERE id % 40 = 0;
DELETE FROM mixed.document WHERE id % 40 = 0;
INSERT INTO mixed.document (title, body, tags, span, at)
SELECT 'late ' || i, '{"late": true}', '{late}', int4range(i::int, i::int, '[]'), timestamptz '2025-06-01 00:00:00+00' + i * interval '1 s'
FROM generate_series(1, (SELECT count(*) / 20 FROM mixed.document)) i;
TRUNCATE mixed.small_3;
DROP TABLE mixed.small_4;
CREATE TABLE mixed.made_later AS SELECT i AS id, sha256(i::text::bytea) AS noise FROM generate_series(1, 1000) i;
SELECT count(nextval('mixed.counter')) FROM generate_series(1, 10);
SELECT count(lo_put(oid, 100, 'rewritten')) FROM pg_largeobject_metadata WHERE oid::bigint % 3 = 0;
REFRESH MATERIALIZED VIEW mixed.summary;
ALTER TABLE mixed.event_2024 SET (fillfactor = 70);
CLUSTER mixed.event_2024 USING event_2024_pkey;
REINDEX INDEX mixed.document_hash;
