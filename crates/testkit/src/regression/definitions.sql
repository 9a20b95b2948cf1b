-- Functions of every kind, and what is made of them.
CREATE FUNCTION kinds.joined(text, text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN coalesce($1, '') || $2;
CREATE FUNCTION kinds.defaults(a int, b int DEFAULT 2, VARIADIC rest text[] DEFAULT '{}', OUT total int, OUT words text)
    LANGUAGE plpgsql STABLE COST 12 AS $f$ BEGIN total := a + b; words := array_to_string(rest, $q$'$q$); END $f$;
CREATE FUNCTION kinds.series(n int) RETURNS TABLE (i int, square int) LANGUAGE sql ROWS 7 LEAKPROOF IMMUTABLE STRICT
    AS 'SELECT i, i * i FROM generate_series(1, n) i';
CREATE FUNCTION kinds.any_of(anyelement, anyarray) RETURNS boolean LANGUAGE sql AS 'SELECT $1 = ANY ($2)';
CREATE FUNCTION kinds.who() RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = kinds, "Kinds, odd", pg_temp SET work_mem = '5MB'
    AS $f$ BEGIN RETURN current_user; END $f$;
CREATE FUNCTION kinds.standard(a int) RETURNS SETOF kinds.pair LANGUAGE sql BEGIN ATOMIC SELECT a, 'x' AS b; SELECT a + 1 AS a, 'y' AS b; END;
CREATE PROCEDURE kinds.proceed(INOUT a int, b text DEFAULT 'b') LANGUAGE plpgsql AS $p$ BEGIN a := a + 1; END $p$;
CREATE AGGREGATE kinds.all_of (text) (SFUNC = kinds.joined, STYPE = text, INITCOND = '', PARALLEL = SAFE, COMBINEFUNC = kinds.joined);
CREATE AGGREGATE kinds.moving (float8) (SFUNC = float8pl, STYPE = float8, INITCOND = '0', MSFUNC = float8pl, MINVFUNC = float8mi,
    MSTYPE = float8, MINITCOND = '0');
CREATE AGGREGATE kinds.place (float8 ORDER BY anyelement) (SFUNC = ordered_set_transition, STYPE = internal,
    FINALFUNC = percentile_disc_final, FINALFUNC_EXTRA);
CREATE FUNCTION kinds.nth() RETURNS bigint LANGUAGE internal WINDOW IMMUTABLE AS 'window_row_number';
CREATE FUNCTION kinds.token_eq(kinds.token, kinds.token) RETURNS boolean LANGUAGE internal IMMUTABLE STRICT AS 'texteq';
CREATE FUNCTION kinds.token_lt(kinds.token, kinds.token) RETURNS boolean LANGUAGE internal IMMUTABLE STRICT AS 'text_lt';
CREATE FUNCTION kinds.token_le(kinds.token, kinds.token) RETURNS boolean LANGUAGE internal IMMUTABLE STRICT AS 'text_le';
CREATE FUNCTION kinds.token_gt(kinds.token, kinds.token) RETURNS boolean LANGUAGE internal IMMUTABLE STRICT AS 'text_gt';
CREATE FUNCTION kinds.token_ge(kinds.token, kinds.token) RETURNS boolean LANGUAGE internal IMMUTABLE STRICT AS 'text_ge';
CREATE FUNCTION kinds.token_cmp(kinds.token, kinds.token) RETURNS int LANGUAGE internal IMMUTABLE STRICT AS 'bttextcmp';
CREATE OPERATOR kinds.= (FUNCTION = kinds.token_eq, LEFTARG = kinds.token, RIGHTARG = kinds.token, COMMUTATOR = OPERATOR(kinds.=),
    RESTRICT = eqsel, JOIN = eqjoinsel, MERGES);
CREATE OPERATOR kinds.< (FUNCTION = kinds.token_lt, LEFTARG = kinds.token, RIGHTARG = kinds.token, COMMUTATOR = OPERATOR(kinds.>));
CREATE OPERATOR kinds.<= (FUNCTION = kinds.token_le, LEFTARG = kinds.token, RIGHTARG = kinds.token, COMMUTATOR = OPERATOR(kinds.>=));
CREATE OPERATOR kinds.> (FUNCTION = kinds.token_gt, LEFTARG = kinds.token, RIGHTARG = kinds.token, COMMUTATOR = OPERATOR(kinds.<));
CREATE OPERATOR kinds.>= (FUNCTION = kinds.token_ge, LEFTARG = kinds.token, RIGHTARG = kinds.token);
CREATE OPERATOR kinds.|+| (FUNCTION = kinds.joined, LEFTARG = text, RIGHTARG = text);
CREATE OPERATOR FAMILY kinds.tokens USING btree;
CREATE OPERATOR CLASS kinds.token_ops DEFAULT FOR TYPE kinds.token USING btree FAMILY kinds.tokens AS
    OPERATOR 1 kinds.<, OPERATOR 2 kinds.<=, OPERATOR 3 kinds.=, OPERATOR 4 kinds.>=, OPERATOR 5 kinds.>,
    FUNCTION 1 kinds.token_cmp(kinds.token, kinds.token);
CREATE FUNCTION kinds.pair_of(int) RETURNS kinds.pair LANGUAGE sql IMMUTABLE AS $$ SELECT ROW($1, 'of')::kinds.pair $$;
CREATE CAST (int AS kinds.pair) WITH FUNCTION kinds.pair_of(int) AS ASSIGNMENT;
CREATE CAST (kinds.token AS text) WITHOUT FUNCTION AS IMPLICIT;
CREATE CAST (kinds.pair AS kinds.token) WITH INOUT;
CREATE COLLATION kinds.plain (provider = libc, locale = 'C');
DO $$ BEGIN
    IF (SELECT count(*) FROM pg_collation WHERE collprovider = 'i') > 10 THEN
        CREATE COLLATION kinds.loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
        CREATE TABLE kinds.folded (word text COLLATE kinds.loose UNIQUE);
        INSERT INTO kinds.folded VALUES ('Straße'), ('ärger');
    END IF;
END $$;
CREATE DEFAULT CONVERSION kinds.latin FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8;
CREATE TEXT SEARCH TEMPLATE kinds.plainly (INIT = dsimple_init, LEXIZE = dsimple_lexize);
CREATE TEXT SEARCH DICTIONARY kinds.words (TEMPLATE = kinds.plainly, ACCEPT = false);
CREATE TEXT SEARCH PARSER kinds.parser (START = prsd_start, GETTOKEN = prsd_nexttoken, END = prsd_end, LEXTYPES = prsd_lextype);
CREATE TEXT SEARCH CONFIGURATION kinds.search (PARSER = kinds.parser);
ALTER TEXT SEARCH CONFIGURATION kinds.search ADD MAPPING FOR asciiword, word WITH kinds.words, simple;
CREATE ACCESS METHOD "other heap" TYPE TABLE HANDLER heap_tableam_handler;
CREATE SEQUENCE kinds.down AS smallint INCREMENT -3 MINVALUE -100 MAXVALUE 50 START 20 CYCLE;
CREATE SEQUENCE kinds.cached CACHE 20;
CREATE SEQUENCE kinds.untouched AS int START 12;
CREATE UNLOGGED SEQUENCE kinds.fleeting;
SELECT nextval('kinds.down'), nextval('kinds.cached'), nextval('kinds.fleeting');
