-- Tables with everything that comes with tables, and things around them.
CREATE EXTENSION hstore;
CREATE SCHEMA sales AUTHORIZATION owner_of_things;
COMMENT ON SCHEMA sales IS 'what is sold';
GRANT USAGE ON SCHEMA sales TO reader_of_things;
CREATE SCHEMA "My Schema";
CREATE TYPE sales.mood AS ENUM ('calm', 'keen');
CREATE TYPE sales.place AS (street text, number int);
CREATE DOMAIN sales.amount AS numeric(12, 2) CHECK (VALUE >= 0);
CREATE FUNCTION sales.noted() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN NEW.note := coalesce(NEW.note, '') || '+'; RETURN NEW; END $$;
CREATE FUNCTION sales.twice(int) RETURNS int LANGUAGE sql IMMUTABLE RETURN $1 * 2;
CREATE SEQUENCE sales.shared START 500;

CREATE TABLE sales.customers (id int PRIMARY KEY, name text NOT NULL, UNIQUE (name));
INSERT INTO sales.customers SELECT i, 'customer ' || i FROM generate_series(1, 200) i;

CREATE TABLE sales.orders (
    id bigint GENERATED ALWAYS AS IDENTITY (START 7 INCREMENT 3),
    number serial,
    shared int DEFAULT nextval('sales.shared'),
    customer int NOT NULL CONSTRAINT orders_customer_fkey REFERENCES sales.customers ON DELETE CASCADE,
    earlier bigint,
    mood sales.mood DEFAULT 'calm', moods sales.mood[], place sales.place, amount sales.amount, tags hstore,
    doubled int GENERATED ALWAYS AS (sales.twice(customer)) STORED,
    note text COLLATE "C" DEFAULT 'none', document text, during tstzrange,
    CONSTRAINT orders_pkey PRIMARY KEY (id),
    CONSTRAINT sensible CHECK (customer > 0),
    UNIQUE (number) INCLUDE (note),
    EXCLUDE USING gist (during WITH &&),
    FOREIGN KEY (earlier) REFERENCES sales.orders DEFERRABLE INITIALLY DEFERRED
) WITH (fillfactor = 90, autovacuum_enabled = false);
ALTER TABLE sales.orders ALTER document SET STORAGE EXTERNAL, ALTER note SET COMPRESSION pglz, ALTER customer SET STATISTICS 500;
INSERT INTO sales.orders (customer, mood, moods, place, amount, tags, document, during)
SELECT i, 'keen', '{keen,NULL}', ROW('s' || i, i)::sales.place, i * 1.5, 'k=>v', repeat(md5(i::text), 200),
    tstzrange(timestamptz '2024-01-01 00:00+00' + i * interval '1 hour', timestamptz '2024-01-01 00:00+00' + (i + 1) * interval '1 hour')
FROM generate_series(1, 150) i;
UPDATE sales.orders SET earlier = id - 3 WHERE id > 7;
SET CONSTRAINTS ALL IMMEDIATE;
CREATE INDEX ON sales.orders (customer, lower(note)) WHERE customer > 3;
CREATE INDEX by_mood ON sales.orders (mood);
CREATE STATISTICS sales.orders_stat (dependencies) ON customer, mood FROM sales.orders;
CREATE TRIGGER noted BEFORE INSERT OR UPDATE ON sales.orders FOR EACH ROW EXECUTE FUNCTION sales.noted();
ALTER TABLE sales.orders ENABLE ALWAYS TRIGGER noted;
CREATE RULE no_deletes AS ON DELETE TO sales.orders WHERE old.id < 10 DO INSTEAD NOTHING;
ALTER TABLE sales.orders ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_orders ON sales.orders TO reader_of_things USING (customer < 100);
GRANT SELECT (id, customer), UPDATE (note) ON sales.orders TO reader_of_things;
ALTER TABLE sales.orders OWNER TO owner_of_things;
ALTER TABLE sales.orders CLUSTER ON orders_pkey;
ALTER TABLE sales.orders REPLICA IDENTITY USING INDEX orders_pkey;
COMMENT ON TABLE sales.orders IS 'all of them';
COMMENT ON COLUMN sales.orders.note IS E'with ''quotes''';
COMMENT ON CONSTRAINT sensible ON sales.orders IS 'it is';
COMMENT ON INDEX sales.by_mood IS 'of moods';

CREATE TABLE sales.lines (order_id bigint REFERENCES sales.orders, line int, PRIMARY KEY (order_id, line));
INSERT INTO sales.lines SELECT id, 1 FROM sales.orders;

CREATE TABLE sales.events (at date NOT NULL, customer int REFERENCES sales.customers, kind text, PRIMARY KEY (at, kind))
    PARTITION BY RANGE (at);
CREATE TABLE sales.events_2024 PARTITION OF sales.events FOR VALUES FROM ('2024-01-01') TO ('2025-01-01') PARTITION BY LIST (kind);
CREATE TABLE sales.events_2024_a PARTITION OF sales.events_2024 FOR VALUES IN ('a');
CREATE TABLE "My Schema"."odd events" PARTITION OF sales.events_2024 DEFAULT;
CREATE TABLE sales.events_late PARTITION OF sales.events DEFAULT;
CREATE INDEX ON sales.events (customer);
CREATE TRIGGER noted BEFORE UPDATE ON sales.events FOR EACH ROW WHEN (old.kind IS DISTINCT FROM new.kind) EXECUTE FUNCTION sales.noted();
INSERT INTO sales.events SELECT date '2024-06-01' + i, 1 + i % 200, CASE i % 3 WHEN 0 THEN 'a' ELSE 'b' END FROM generate_series(0, 400) i;

CREATE TABLE "My Schema"."a.b" ("Größe" int PRIMARY KEY, "select" text DEFAULT 'x''y');
INSERT INTO "My Schema"."a.b" SELECT i FROM generate_series(1, 30) i;
CREATE TABLE sales.parent (a int);
CREATE TABLE sales.child (b int) INHERITS (sales.parent);
INSERT INTO sales.child VALUES (1, 2), (3, 4);
INSERT INTO sales.parent VALUES (5);
CREATE UNLOGGED TABLE sales.fleeting (a int PRIMARY KEY);
CREATE VIEW sales.seen AS SELECT id FROM sales.orders;
