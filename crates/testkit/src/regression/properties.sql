DO $$
DECLARE name text := current_setting('everpoint.database');
BEGIN
    EXECUTE format('ALTER DATABASE %I OWNER TO kind_owner', name);
    EXECUTE format('REVOKE TEMPORARY, CONNECT ON DATABASE %I FROM PUBLIC', name);
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO kind_reader WITH GRANT OPTION', name);
    SET LOCAL ROLE kind_reader;
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO kind_writer', name);
    RESET ROLE;
    EXECUTE format('ALTER DATABASE %I CONNECTION LIMIT 77', name);
    EXECUTE format('ALTER DATABASE %I SET search_path TO kinds, "Kinds, odd", ''$user'', public', name);
    EXECUTE format('ALTER DATABASE %I SET work_mem = ''9MB''', name);
    EXECUTE format('ALTER DATABASE %I SET app.tenant = ''it''''s one, or two''', name);
    EXECUTE format('ALTER ROLE kind_reader IN DATABASE %I SET default_transaction_read_only = on', name);
    EXECUTE format('ALTER ROLE kind_reader IN DATABASE %I SET temp_tablespaces = ''''', name);
    EXECUTE format('ALTER ROLE "Kind ""Group""" IN DATABASE %I SET statement_timeout = ''7s''', name);
    EXECUTE format('COMMENT ON DATABASE %I IS ''database of ''''kinds''''''', name);
END $$;
