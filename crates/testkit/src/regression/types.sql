-- Types of users, and a row of every type that there is.
CREATE SCHEMA kinds AUTHORIZATION kind_owner;
CREATE SCHEMA "Kinds, odd";
GRANT USAGE ON SCHEMA kinds TO PUBLIC;
CREATE EXTENSION hstore SCHEMA "Kinds, odd";
CREATE EXTENSION btree_gist;
CREATE EXTENSION pg_trgm;
CREATE EXTENSION citext;
CREATE EXTENSION file_fdw;

CREATE TYPE kinds.colour AS ENUM ('red', 'green', 'it''s "blue"');
ALTER TYPE kinds.colour ADD VALUE 'amber' BEFORE 'green';
CREATE TYPE kinds.pair AS (a int, b text COLLATE "C");
CREATE TYPE kinds.nest AS (pairs kinds.pair[], colours kinds.colour[], during tstzrange);
CREATE DOMAIN kinds.positive AS int CHECK (VALUE > 0) DEFAULT 1;
CREATE DOMAIN kinds.code AS varchar(9) COLLATE "C" NOT NULL CONSTRAINT shape CHECK (VALUE ~ '^[A-Z]+$');
CREATE DOMAIN kinds.codes AS kinds.code[];
CREATE DOMAIN kinds.whole AS kinds.pair CHECK ((VALUE).a > 0);
ALTER DOMAIN kinds.positive ADD CONSTRAINT small CHECK (VALUE < 1000000) NOT VALID;
CREATE FUNCTION kinds.distance(float8, float8) RETURNS float8 LANGUAGE sql IMMUTABLE STRICT RETURN $1 - $2;
CREATE TYPE kinds.stretch AS RANGE (subtype = float8, subtype_diff = kinds.distance, multirange_type_name = kinds.stretches);
CREATE TYPE kinds.text_stretch AS RANGE (subtype = text, collation = "C");
-- A base type, by functions that are there for another.
CREATE TYPE kinds.token;
CREATE FUNCTION kinds.token_in(cstring) RETURNS kinds.token LANGUAGE internal IMMUTABLE STRICT AS 'textin';
CREATE FUNCTION kinds.token_out(kinds.token) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'textout';
CREATE TYPE kinds.token (INPUT = kinds.token_in, OUTPUT = kinds.token_out, LIKE = text, CATEGORY = 'S', COLLATABLE = true);

CREATE TABLE kinds.every_type (
    id bigint GENERATED ALWAYS AS IDENTITY (START 100 INCREMENT 3 MINVALUE 5 CYCLE) PRIMARY KEY,
    a_boolean boolean, a_smallint smallint, an_int int, a_bigint bigint, a_real real, a_double double precision,
    a_numeric numeric(30, 6), any_numeric numeric, a_money money, a_char char(7), a_varchar varchar(20), a_text text,
    a_name name, an_internal "char", a_bytea bytea, a_date date, a_time time(3), a_timetz timetz, a_timestamp timestamp,
    a_timestamptz timestamptz(0), an_interval interval, a_year interval year to month, a_uuid uuid, a_json json,
    a_jsonb jsonb, a_path jsonpath, an_xml xml, an_inet inet, a_cidr cidr, a_macaddr macaddr, a_macaddr8 macaddr8,
    a_bit bit(5), a_varbit varbit, a_point point, a_line line, a_lseg lseg, a_box box, a_geo_path path, a_polygon polygon,
    a_circle circle, a_tsvector tsvector, a_tsquery tsquery, an_lsn pg_lsn, a_snapshot pg_snapshot, an_old_snapshot txid_snapshot,
    an_xid xid, an_xid8 xid8, a_cid cid, a_tid tid, an_oid oid, an_oidvector oidvector, an_int2vector int2vector,
    a_class regclass, a_type regtype, a_proc regproc, a_procedure regprocedure, an_oper regoper, an_operator regoperator,
    a_role regrole, a_namespace regnamespace, a_config regconfig, a_dictionary regdictionary, a_collation regcollation,
    an_acl aclitem, an_int4range int4range, an_int8range int8range, a_numrange numrange, a_tsrange tsrange, a_tstzrange tstzrange,
    a_daterange daterange, an_int4multirange int4multirange, a_nummultirange nummultirange, a_tstzmultirange tstzmultirange,
    a_refcursor refcursor, ints int[], texts text[][], points point[], boxes box[], ranges int4range[], multiranges int8multirange[],
    classes regclass[], acls aclitem[], jsons jsonb[], moneys money[], internals "char"[], names name[],
    a_colour kinds.colour, colours kinds.colour[], a_pair kinds.pair, pairs kinds.pair[], a_nest kinds.nest, nests kinds.nest[],
    a_positive kinds.positive, positives kinds.positive[], some_codes kinds.codes, a_whole kinds.whole, a_stretch kinds.stretch,
    some_stretches kinds.stretches, a_text_stretch kinds.text_stretch, a_token kinds.token, tokens kinds.token[],
    an_hstore "Kinds, odd".hstore, hstores "Kinds, odd".hstore[], a_citext citext
);
INSERT INTO kinds.every_type OVERRIDING SYSTEM VALUE
SELECT i, i % 2 = 0, -i, i * 1000, i * 10000000000, 1.1 / i, pi() / i, 1234567.000100 * i, ('1e' || i * 7)::numeric, i::numeric::money,
    'c' || i, 'v' || i, repeat('ü' || i, i), 'n' || i, chr(64 + i)::"char", decode(md5(i::text), 'hex'), date '2024-02-29' + i,
    time '23:59:59.123456', timetz '12:00:00.5+03', timestamp '-infinity', timestamptz '2024-06-01 12:00:00+02' + i * interval '1 h',
    interval '1 mon 2 days 3.000004 s' * i, interval '3 years 2 mons', md5(i::text)::uuid, '{"a":  1, "a": 2}', '{"b": [1, 2.50, null]}',
    '$.a[*] ? (@ > 1 && @.b like_regex "^x" flag "i")', '<a b="c">ü</a>', '10.0.0.1/24', '2001:db8::/32', '08:00:2b:01:02:03',
    '08:00:2b:01:02:03:04:05', B'10101', B'101010101', '(1,2.5)', '{1,2,3}', '[(0,0),(1,1)]', '((0,0),(1,1))', '[(0,0),(1,1),(2,0)]',
    '((0,0),(1,1),(2,0))', '<(1,1),2>', 'a:1A b:2 ''it''''s'':3', 'a & !b <-> c:*', '16/B374D848', '10:20:10,14,15', '10:20:10,14,15',
    '123', '9223372036854775807', '7', '(42,7)', 4294967295, '1 2 3', '4 5 6', 'pg_catalog.pg_class', 'kinds.colour', 'kinds.distance',
    'kinds.distance(float8,float8)', 'pg_catalog.||/', 'pg_catalog.+(int4,int4)', 'kind_owner', 'kinds', 'pg_catalog.simple',
    'pg_catalog.simple', 'pg_catalog."C"', 'kind_owner=r*w/kind_owner', '[1,5)', '(,9]', 'empty', '[2024-01-01,)', '[2024-01-01 00:00+00,)',
    '[2024-01-01,infinity]', '{[1,3),[5,9)}', '{}', '{[2024-01-01 00:00+00,2024-01-02 00:00+00)}', 'a cursor',
    '[2:4]={1,NULL,3}', '{{a,NULL},{"c,d","{}"}}', '{"(1,2)","(3,4)"}', '{((1,1),(0,0));((2,2),(0,0))}', '{"[1,2)",empty}', '{"{[1,2)}"}',
    '{pg_catalog.pg_class,kinds.every_type}', '{kind_reader=r/kind_owner,=w/kind_owner}', '{"{\"x\": 1}",NULL}', '{1,2.50}', '{a,""}', '{n1,n2}',
    'green', '{red,NULL,"it''s \"blue\""}', ROW(i, 'x, "y"')::kinds.pair, ARRAY[ROW(1, NULL)::kinds.pair, NULL],
    ROW(ARRAY[ROW(1, 'p')::kinds.pair], '{green}', '[2024-01-01 00:00+00,)')::kinds.nest,
    ARRAY[ROW(NULL, '{}', NULL)::kinds.nest], i, '{1,2}', '{AB,CD}', ROW(1, NULL)::kinds.pair, '[1.5,2.5)', '{[1,2),[3.5,4)}', '[a,b]', 'tok' || i, '{t,NULL}',
    'k=>v, n=>NULL', '{"a=>\"1\""}', 'CiTeXt'
FROM generate_series(1, 30) i;
INSERT INTO kinds.every_type (a_text) VALUES (NULL), (''), ('\N'), (E'\\.\t\n\r\b');
