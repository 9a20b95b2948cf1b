CREATE SEQUENCE mixed.counter INCREMENT BY 5 START WITH 1000;
CREATE SEQUENCE mixed.untouched;
SELECT count(nextval('mixed.counter')) FROM generate_series(1, 77);

CREATE VIEW mixed.keen AS SELECT id, title FROM mixed.document WHERE mood = 'keen';
CREATE MATERIALIZED VIEW mixed.summary AS SELECT mood, count(*), sum(cost) FROM mixed.document GROUP BY mood;
CREATE FUNCTION mixed.twice(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 2';
CREATE TABLE mixed.uses_function (id int, doubled int GENERATED ALWAYS AS (mixed.twice(id)) STORED);
INSERT INTO mixed.uses_function SELECT generate_series(1, 10);
COMMENT ON TABLE mixed.document IS 'Content of every kind';

-- Large objects of 10 kB, one for a hundred documents, and an empty one.
SELECT count(lo_from_bytea(0, (
    SELECT string_agg(sha256(('large ' || i || ':' || j)::bytea), '') FROM generate_series(1, 320) j)))
FROM generate_series(1, current_setting('everpoint.rows')::int / 100) i;
SELECT lo_create(0);

DO $$
BEGIN
    FOR number IN 1..40 LOOP
        EXECUTE format('CREATE TABLE mixed.small_%s (id int PRIMARY KEY, note text)', number);
        EXECUTE format('INSERT INTO mixed.small_%s SELECT i, md5(i::text) FROM generate_series(1, %s) i', number, number);
    END LOOP;
END
$$;
