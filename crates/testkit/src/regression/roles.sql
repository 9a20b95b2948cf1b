DO $$
DECLARE wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['kind_owner', 'kind_reader', 'kind_writer', 'Kind "Group"'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) THEN
            EXECUTE format('CREATE ROLE %I', wanted);
        END IF;
    END LOOP;
    ALTER ROLE kind_reader LOGIN;
    GRANT "Kind ""Group""" TO kind_reader, kind_writer;
END $$;
