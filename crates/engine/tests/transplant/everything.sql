-- Objects of every kind. Runs in a database that has the testkit's mixed contents.
CREATE SCHEMA "Odd Schema" AUTHORIZATION owner_of_things;
CREATE EXTENSION hstore SCHEMA "Odd Schema";
CREATE EXTENSION pg_trgm;
CREATE EXTENSION file_fdw;
COMMENT ON EXTENSION pg_trgm IS 'for finding titles';

CREATE COLLATION mixed.plain (provider = libc, locale = 'C');
CREATE DOMAIN mixed.code AS text CHECK (VALUE ~ '^[A-Z]+$') NOT NULL;
CREATE TYPE mixed.period AS RANGE (subtype = float8, subtype_diff = float8mi);
CREATE TYPE mixed.nested AS (moods mixed.mood[], place mixed.place, at timestamptz);
CREATE FUNCTION mixed.noted() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' AS
    $$ BEGIN NEW.note := coalesce(NEW.note, '') || '+'; RETURN NEW; END $$;
CREATE FUNCTION mixed.joined(text, text) RETURNS text LANGUAGE sql IMMUTABLE RETURN $1 || $2;
CREATE AGGREGATE mixed.all_of (text) (SFUNC = mixed.joined, STYPE = text, INITCOND = '');
CREATE OPERATOR mixed.|+| (FUNCTION = mixed.joined, LEFTARG = text, RIGHTARG = text);
CREATE PROCEDURE mixed.nothing() LANGUAGE sql BEGIN ATOMIC SELECT 1; END;
CREATE CAST (mixed.place AS text) WITH INOUT;
CREATE TEXT SEARCH CONFIGURATION mixed.words (COPY = english);
CREATE STATISTICS mixed.together (dependencies, ndistinct) ON mood, cost FROM mixed.document;

-- Types without a binary form, and types whose binary form carries numbers of objects.
CREATE TABLE mixed.every_type (
    id bigint GENERATED ALWAYS AS IDENTITY (START 7 INCREMENT 3) PRIMARY KEY,
    a_boolean boolean, a_smallint smallint, a_real real, a_double double precision, a_numeric numeric,
    a_money money, a_char char(7), a_varchar varchar(20) COLLATE mixed.plain, a_name name, an_internal "char",
    a_bytea bytea, a_date date, a_time time, a_timetz timetz, a_timestamp timestamp, an_interval interval,
    a_uuid uuid, a_json json, a_jsonb jsonb, a_path jsonpath, an_xml xml, an_inet inet, a_cidr cidr,
    a_macaddr macaddr, a_macaddr8 macaddr8, a_bit bit(5), a_varbit varbit, a_point point, a_line line, a_lseg lseg,
    a_box box, a_geo_path path, a_polygon polygon, a_circle circle, a_tsvector tsvector, a_tsquery tsquery,
    an_lsn pg_lsn, a_snapshot pg_snapshot, a_range tstzrange, a_multirange int4multirange,
    a_class regclass, a_type regtype, a_role regrole, an_acl aclitem, some_classes regclass[],
    a_mood mixed.mood, some_moods mixed.mood[], a_code mixed.code, a_period mixed.period, a_nested mixed.nested,
    some_nested mixed.nested[], an_hstore "Odd Schema".hstore, an_oid oid, some_text text[][]
);
INSERT INTO mixed.every_type OVERRIDING SYSTEM VALUE
SELECT i, i % 2 = 0, i, 1.0 / i, pi() / i, 1234567.000100 * i, i::numeric::money, 'c' || i, 'v' || i, 'n' || i, chr(64 + i)::"char",
    decode(md5(i::text), 'hex'), date '2024-02-29' + i, time '23:59:59.123456', timetz '12:00:00.5+03', timestamp 'infinity',
    interval '1 mon 2 days 3.000004 s' * i, md5(i::text)::uuid, '{"a":  1}', '{"b": [1, 2.50]}', '$.a[*] ? (@ > 1)',
    '<a>ü</a>', '10.0.0.1/24', '10.1.0.0/16', '08:00:2b:01:02:03', '08:00:2b:01:02:03:04:05', B'10101', B'1', '(1,2.5)',
    '{1,2,3}', '[(0,0),(1,1)]', '((0,0),(1,1))', '[(0,0),(1,1),(2,0)]', '((0,0),(1,1),(2,0))', '<(1,1),2>',
    'a:1A b:2', 'a & !b', '16/B374D848', '10:20:10,14,15', '[2024-01-01 00:00+00,)', '{[1,3),[5,9)}',
    'mixed.document', 'mixed.mood', 'owner_of_things', 'owner_of_things=r/owner_of_things', '{mixed.event,mixed.blob}',
    'keen', '{calm,NULL,sour}', 'ABC', '[1.5,2.5)', ROW('{keen}'::mixed.mood[], ROW('x, "y"', 1)::mixed.place, timestamptz '2024-01-01 00:00+00')::mixed.nested,
    ARRAY[ROW('{}'::mixed.mood[], NULL::mixed.place, NULL::timestamptz)::mixed.nested], 'k=>v, n=>NULL', 4294967295, '{{a,NULL},{"c,d","{}"}}'
FROM generate_series(1, 20) i;
INSERT INTO mixed.every_type (id, a_code) OVERRIDING SYSTEM VALUE VALUES (1000, 'NULLS');

CREATE TABLE mixed.guarded (id int PRIMARY KEY, who name DEFAULT current_user, note text);
INSERT INTO mixed.guarded SELECT i, 'reader_of_things', NULL FROM generate_series(1, 50) i;
ALTER TABLE mixed.guarded OWNER TO owner_of_things;
GRANT USAGE ON SCHEMA mixed TO owner_of_things;
ALTER TABLE mixed.guarded ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own_rows ON mixed.guarded TO reader_of_things USING (who = current_user) WITH CHECK (id > 0);
GRANT SELECT (id, who), UPDATE (note) ON mixed.guarded TO reader_of_things WITH GRANT OPTION;
CREATE TRIGGER noted BEFORE INSERT OR UPDATE ON mixed.guarded FOR EACH ROW EXECUTE FUNCTION mixed.noted();
ALTER TABLE mixed.guarded ENABLE ALWAYS TRIGGER noted;
CREATE RULE no_deletes AS ON DELETE TO mixed.guarded DO INSTEAD NOTHING;

CREATE TABLE mixed.rooms (id int, during tstzrange, EXCLUDE USING gist (during WITH &&) DEFERRABLE);
INSERT INTO mixed.rooms VALUES (1, '[2024-01-01,2024-01-02)'), (2, '[2024-01-02,2024-01-03)');
ALTER TABLE mixed.rooms ADD CONSTRAINT positive CHECK (id > 0) NOT VALID;
CREATE TABLE mixed.refers (id int REFERENCES mixed.guarded ON DELETE SET NULL DEFERRABLE INITIALLY DEFERRED,
    self int, UNIQUE NULLS NOT DISTINCT (self));
INSERT INTO mixed.refers SELECT i, i FROM generate_series(1, 50) i;
CREATE INDEX titles ON mixed.document USING gin (title gin_trgm_ops);
CREATE TABLE mixed.of_type OF mixed.place (PRIMARY KEY (number));
INSERT INTO mixed.of_type VALUES ('s', 1);
CREATE TABLE mixed.all_computed (a int GENERATED ALWAYS AS (1) STORED);
INSERT INTO mixed.all_computed DEFAULT VALUES;
INSERT INTO mixed.all_computed DEFAULT VALUES;
CREATE TABLE mixed.listed (region text, n int) PARTITION BY LIST (region);
CREATE TABLE mixed.listed_eu PARTITION OF mixed.listed FOR VALUES IN ('de', 'fr') PARTITION BY RANGE (n);
CREATE TABLE mixed.listed_eu_1 PARTITION OF mixed.listed_eu FOR VALUES FROM (0) TO (50);
CREATE TABLE mixed.listed_eu_2 PARTITION OF mixed.listed_eu DEFAULT;
CREATE INDEX listed_n ON mixed.listed (n);
INSERT INTO mixed.listed SELECT CASE i % 2 WHEN 0 THEN 'de' ELSE 'fr' END, i FROM generate_series(0, 99) i;

CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
CREATE USER MAPPING FOR reader_of_things SERVER files;
CREATE FOREIGN TABLE mixed.elsewhere (line text) SERVER files OPTIONS (filename '/dev/null');
CREATE VIEW mixed.secure WITH (security_barrier) AS SELECT * FROM mixed.guarded WHERE id > 3 WITH CHECK OPTION;
CREATE MATERIALIZED VIEW mixed.upon AS SELECT s.count FROM (SELECT * FROM mixed.summary) s;
CREATE VIEW mixed.between AS SELECT count FROM mixed.upon;
CREATE MATERIALIZED VIEW mixed.upon_upon AS SELECT sum(count) FROM mixed.between;
CREATE UNIQUE INDEX ON mixed.upon_upon (sum);
CREATE MATERIALIZED VIEW mixed.unfilled AS SELECT 1 AS a WITH NO DATA;
CREATE SEQUENCE mixed.down AS smallint INCREMENT -1 MINVALUE -100 CYCLE OWNED BY mixed.rooms.id;
SELECT setval('mixed.down', -7, false);
CREATE PUBLICATION everything FOR ALL TABLES WITH (publish = 'insert');
CREATE PUBLICATION some_rows FOR TABLE mixed.guarded (id, who) WHERE (id > 10);
CREATE PUBLICATION some_schemas FOR TABLE mixed.rooms, TABLES IN SCHEMA "Odd Schema";
CREATE SUBSCRIPTION afar CONNECTION 'host=/nowhere dbname=x' PUBLICATION p WITH (connect = false, slot_name = 'afar');
ALTER DEFAULT PRIVILEGES FOR ROLE owner_of_things IN SCHEMA mixed GRANT SELECT ON TABLES TO reader_of_things;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_ls_waldir() TO reader_of_things;
GRANT USAGE ON SCHEMA mixed TO reader_of_things;
GRANT ALL ON SCHEMA public TO PUBLIC;
COMMENT ON COLUMN mixed.guarded.note IS E'with ''quotes'' and \\ and\nlines';
COMMENT ON CONSTRAINT positive ON mixed.rooms IS 'not yet valid';

SELECT lo_create(700001);
SELECT lo_from_bytea(700002, decode(repeat('00ff', 5000), 'hex'));
ALTER LARGE OBJECT 700002 OWNER TO owner_of_things;
GRANT SELECT ON LARGE OBJECT 700002 TO reader_of_things WITH GRANT OPTION;
REVOKE UPDATE ON LARGE OBJECT 700002 FROM owner_of_things;
COMMENT ON LARGE OBJECT 700002 IS 'zebra';

CREATE TABLE mixed.ddl_log (tag text);
CREATE FUNCTION mixed.log_ddl() RETURNS event_trigger LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO mixed.ddl_log VALUES (tg_tag); END $$;
CREATE EVENT TRIGGER log_ddl ON ddl_command_end EXECUTE FUNCTION mixed.log_ddl();
ALTER EVENT TRIGGER log_ddl ENABLE ALWAYS;
