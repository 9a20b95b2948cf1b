-- Who may do what, what lies elsewhere, what is replicated, large objects, comments.
ALTER TABLE kinds.watched OWNER TO kind_owner;
ALTER FUNCTION kinds.who() OWNER TO kind_owner;
ALTER TYPE kinds.pair OWNER TO kind_owner;
ALTER SEQUENCE kinds.down OWNER TO kind_owner;
GRANT CREATE ON SCHEMA "Kinds, odd" TO kind_owner WITH GRANT OPTION;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT SELECT, INSERT (id, a), UPDATE (b), REFERENCES (id) ON kinds.watched TO kind_writer WITH GRANT OPTION;
SET ROLE kind_writer;
GRANT SELECT ON kinds.watched TO "Kind ""Group""";
GRANT UPDATE (b) ON kinds.watched TO kind_reader;
RESET ROLE;
GRANT ALL ON kinds.every_type TO "Kind ""Group""";
REVOKE ALL ON kinds.base FROM postgres;
GRANT SELECT (note) ON kinds.base TO PUBLIC;
GRANT USAGE, UPDATE ON SEQUENCE kinds.down TO kind_reader;
REVOKE EXECUTE ON FUNCTION kinds.who() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION kinds.who() TO kind_reader;
GRANT EXECUTE ON PROCEDURE kinds.proceed(int, text) TO kind_writer WITH GRANT OPTION;
REVOKE USAGE ON TYPE kinds.colour FROM PUBLIC;
GRANT USAGE ON DOMAIN kinds.code TO kind_reader;
GRANT USAGE ON LANGUAGE plpgsql TO kind_reader WITH GRANT OPTION;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_ls_waldir() TO kind_reader;
GRANT SELECT ON pg_catalog.pg_authid TO kind_reader;
ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE kind_owner IN SCHEMA kinds GRANT SELECT ON TABLES TO kind_reader WITH GRANT OPTION;
ALTER DEFAULT PRIVILEGES FOR ROLE kind_owner GRANT USAGE ON SCHEMAS TO kind_writer;
ALTER TABLE kinds.watched ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON kinds.watched TO kind_reader, kind_writer USING (a < 2) WITH CHECK (b <> current_user);
CREATE POLICY narrow ON kinds.watched AS RESTRICTIVE FOR UPDATE TO PUBLIC USING (id IN (SELECT id FROM kinds.of_type));
CREATE POLICY unused ON kinds.wide FOR INSERT WITH CHECK (true);

CREATE FOREIGN DATA WRAPPER nothing NO HANDLER OPTIONS (debug 'it''s on');
CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
CREATE SERVER "no where" TYPE 'x' VERSION '1.2' FOREIGN DATA WRAPPER nothing OPTIONS (host 'nowhere');
CREATE USER MAPPING FOR kind_reader SERVER "no where" OPTIONS (user 'reader', password 'secret');
CREATE USER MAPPING FOR PUBLIC SERVER "no where";
CREATE FOREIGN TABLE kinds.afar (line text OPTIONS (force_null 'true') NOT NULL, CHECK (line <> '')) SERVER files OPTIONS (filename '/dev/null', format 'csv');
GRANT USAGE ON FOREIGN SERVER files TO kind_reader;
GRANT USAGE ON FOREIGN DATA WRAPPER nothing TO kind_owner;

CREATE PUBLICATION everything FOR ALL TABLES WITH (publish = 'insert, truncate');
CREATE PUBLICATION some_rows FOR TABLE kinds.watched (id, a) WHERE (id > 10), ONLY kinds.base WITH (publish = 'insert');
CREATE PUBLICATION schemas FOR TABLES IN SCHEMA "Kinds, odd", TABLE kinds.wide WITH (publish_via_partition_root = true);
CREATE SUBSCRIPTION afar CONNECTION 'host=/nowhere dbname=x' PUBLICATION p, "q r" WITH (connect = false, slot_name = 'afar', streaming = true, binary = true);

SELECT lo_create(880001);
SELECT lo_from_bytea(880002, decode(repeat('00ff', 9000), 'hex'));
SELECT lo_from_bytea(880003, 'short');
ALTER LARGE OBJECT 880002 OWNER TO kind_owner;
GRANT SELECT, UPDATE ON LARGE OBJECT 880002 TO kind_reader WITH GRANT OPTION;
REVOKE UPDATE ON LARGE OBJECT 880002 FROM kind_owner;
GRANT SELECT ON LARGE OBJECT 880003 TO PUBLIC;

-- A comment on everything of these schemas, and on what has none.
DO $$
DECLARE object record;
BEGIN
    FOR object IN
        SELECT DISTINCT found.type, found.identity FROM (
            SELECT 'pg_class'::regclass AS class, oid FROM pg_class WHERE relnamespace IN ('kinds'::regnamespace, '"Kinds, odd"'::regnamespace)
            UNION ALL SELECT 'pg_proc'::regclass, oid FROM pg_proc WHERE pronamespace = 'kinds'::regnamespace
            UNION ALL SELECT 'pg_type'::regclass, oid FROM pg_type WHERE typnamespace = 'kinds'::regnamespace AND typtype IN ('d', 'e', 'r') AND typelem = 0
            UNION ALL SELECT 'pg_constraint'::regclass, oid FROM pg_constraint WHERE connamespace = 'kinds'::regnamespace AND conrelid <> 0 AND contype <> 't' AND contype <> 'n'
            UNION ALL SELECT 'pg_trigger'::regclass, oid FROM pg_trigger WHERE NOT tgisinternal AND tgparentid = 0
            UNION ALL SELECT 'pg_policy'::regclass, oid FROM pg_policy
            UNION ALL SELECT 'pg_rewrite'::regclass, oid FROM pg_rewrite WHERE rulename IN ('logged', 'kept')
            UNION ALL SELECT 'pg_operator'::regclass, oid FROM pg_operator WHERE oprnamespace = 'kinds'::regnamespace AND oprcode <> 0
            UNION ALL SELECT 'pg_statistic_ext'::regclass, oid FROM pg_statistic_ext
            UNION ALL SELECT 'pg_event_trigger'::regclass, oid FROM pg_event_trigger
            UNION ALL SELECT 'pg_publication'::regclass, oid FROM pg_publication
            UNION ALL SELECT 'pg_namespace'::regclass, oid FROM pg_namespace WHERE nspname IN ('kinds', 'Kinds, odd')
            UNION ALL SELECT 'pg_extension'::regclass, oid FROM pg_extension WHERE extname <> 'plpgsql'
            UNION ALL SELECT 'pg_foreign_server'::regclass, oid FROM pg_foreign_server
            UNION ALL SELECT 'pg_collation'::regclass, oid FROM pg_collation WHERE collnamespace = 'kinds'::regnamespace
        ) all_of, LATERAL pg_identify_object(class, oid, 0) found
        WHERE found.type NOT IN ('toast table', 'index column') AND found.type !~ 'column'
    LOOP
        EXECUTE format('COMMENT ON %s %s IS %L', CASE object.type WHEN 'table constraint' THEN 'CONSTRAINT' WHEN 'statistics object' THEN 'STATISTICS'
            WHEN 'composite type' THEN 'TYPE' ELSE upper(object.type) END, object.identity, E'on ''it''\n' || object.identity);
    END LOOP;
    FOR object IN SELECT attrelid::regclass AS relation, attname FROM pg_attribute JOIN pg_class c ON c.oid = attrelid
        WHERE relnamespace = 'kinds'::regnamespace AND relkind IN ('r', 'v', 'm', 'p', 'f', 'c') AND attnum > 0 AND NOT attisdropped
            AND relname <> 'every_type'
    LOOP
        EXECUTE format('COMMENT ON COLUMN %s.%I IS %L', object.relation, object.attname, 'column ' || object.attname);
    END LOOP;
END $$;
COMMENT ON LARGE OBJECT 880002 IS 'large';
COMMENT ON CAST (int AS kinds.pair) IS 'cast';
COMMENT ON CONVERSION kinds.latin IS 'conversion';
COMMENT ON OPERATOR CLASS kinds.token_ops USING btree IS 'class';
COMMENT ON OPERATOR FAMILY kinds.tokens USING btree IS 'family';
COMMENT ON TEXT SEARCH CONFIGURATION kinds.search IS 'configuration';
COMMENT ON TEXT SEARCH DICTIONARY kinds.words IS 'dictionary';
COMMENT ON TEXT SEARCH PARSER kinds.parser IS 'parser';
COMMENT ON TEXT SEARCH TEMPLATE kinds.plainly IS 'template';
COMMENT ON ACCESS METHOD "other heap" IS 'method';
COMMENT ON SUBSCRIPTION afar IS 'subscription';
COMMENT ON FOREIGN DATA WRAPPER nothing IS 'wrapper';
COMMENT ON CONSTRAINT shape ON DOMAIN kinds.code IS 'of a domain';
COMMENT ON LANGUAGE plpgsql IS 'another comment';
