"""The cluster that is backed up: 5 GB of mixed contents, made once and kept.

Contents are the same on every machine (fixed seeds, no clock). They shrink to about two sevenths at zstd level 1.
"""

import os
import random
import shutil
import subprocess
import time

from server import SUPERUSER, Server, programs

RECIPE = "1"  # another number has kept clusters made anew

PGBENCH_SCALE = 80
WORDS, SENTENCES = 20_000, 200_000
ORDERS, EVENTS, DOCUMENTS, ATTACHMENTS = 4_700_000, 3_000_000, 12_000, 2_000
SMALL_DATABASES, SMALL_TABLES = 20, 150
ONE = "small_7"  # the one that is restored of many
LOG_ROUNDS = 10

# Tables whose rows are updated in place, with the key's highest value.
UPDATED = {
    ("bank", "pgbench_accounts", "aid", "abalance"): PGBENCH_SCALE * 100_000,
    ("shop", "orders", "id", "revision"): ORDERS,
    ("shop", "events", "id", "revision"): EVENTS,
}

# All is logged, as it is where log is archived: a page that was not has no LSN, and no differential can know it.
FAST = {
    "fsync": "off", "full_page_writes": "off", "wal_level": "replica", "autovacuum": "off",
    "max_wal_size": "2GB", "shared_buffers": "512MB", "maintenance_work_mem": "512MB", "work_mem": "64MB",
    "max_parallel_workers_per_gather": "0", "max_parallel_maintenance_workers": "1",
}

SHOP = f"""
CREATE TABLE orders (
    id bigint, customer int, placed timestamptz, state text, amount numeric(12,2), revision int, token uuid, note text
) WITH (fillfactor = 90);
SELECT setseed(0.25);
INSERT INTO orders
SELECT g, customer, placed, state, amount, 0, md5(g::text)::uuid, a.words || ' ' || b.words
FROM (SELECT g, (random() ^ 2 * 200000)::int AS customer,
             timestamptz '2020-01-01 00:00 UTC' + g * interval '20 s' + random() * interval '1 h' AS placed,
             (ARRAY['placed', 'paid', 'packed', 'sent', 'sent', 'sent', 'returned'])[1 + random() * 6] AS state,
             (random() * 1000)::numeric(12,2) AS amount,
             1 + (random() * {SENTENCES - 1})::int AS x, 1 + (random() * {SENTENCES - 1})::int AS y
      FROM generate_series(1, {ORDERS}) g) AS row
JOIN sentence a ON a.id = x JOIN sentence b ON b.id = y;
ALTER TABLE orders ADD PRIMARY KEY (id);
CREATE INDEX ON orders (customer);
CREATE INDEX ON orders (placed);
CREATE INDEX ON orders (token);

CREATE TABLE events (id bigint, revision int, body jsonb) WITH (fillfactor = 90);
INSERT INTO events
SELECT g, 0, jsonb_build_object(
    'kind', (ARRAY['view', 'click', 'search', 'buy'])[1 + random() * 3], 'user', (random() * 1000000)::int,
    'session', md5((g / 20)::text), 'at', 1577836800000 + g * 1000::bigint + (random() * 1000)::int,
    'page', jsonb_build_object('path', '/' || replace(left(a.words, 30), ' ', '/'), 'status', 200, 'cached', x % 3 = 0),
    'text', a.words, 'score', random())
FROM (SELECT g, 1 + (random() * {SENTENCES - 1})::int AS x FROM generate_series(1, {EVENTS}) g) AS row
JOIN sentence a ON a.id = x;
ALTER TABLE events ADD PRIMARY KEY (id);
CREATE INDEX ON events ((body->>'user'));
VACUUM (FREEZE, ANALYZE);
"""

ARCHIVE = f"""
CREATE TABLE documents (id int PRIMARY KEY, title text, body text, tags text[]);
SELECT setseed(0.5);
INSERT INTO documents
SELECT d, 'document ' || d, string_agg(words, '. '), ARRAY['tag' || d % 17, 'tag' || d % 23]
FROM (SELECT d, 1 + (random() * {SENTENCES - 1})::int AS x
      FROM generate_series(1, {DOCUMENTS}) d, generate_series(1, 60 + d % 700)) AS row
JOIN sentence ON id = x GROUP BY d ORDER BY d;
CREATE TABLE attachments (id int PRIMARY KEY, name text, contents bytea);
ALTER TABLE attachments ALTER contents SET STORAGE external;
INSERT INTO attachments
SELECT a, 'attachment ' || a, string_agg(sha512((a * 10000 + part)::text::bytea), ''::bytea)
FROM generate_series(1, {ATTACHMENTS}) a, generate_series(1, 800) part GROUP BY a ORDER BY a;
VACUUM (FREEZE, ANALYZE);
"""

SMALL = f"""
DO $$ BEGIN
FOR t IN 1..{SMALL_TABLES} LOOP
    EXECUTE format('CREATE TABLE t%s (id int PRIMARY KEY, name text, value numeric, changed timestamptz)', t);
    EXECUTE format('INSERT INTO t%s SELECT g, $1 || g, g * 1.5, timestamptz ''2024-01-01 00:00 UTC'' + g * interval ''1 h''
        FROM generate_series(1, %s) g', t, t * 3) USING 'row of table ' || t || ' number ';
END LOOP; END $$;
VACUUM (FREEZE, ANALYZE);
"""


def sentences():
    """Sentences whose words are as unequally common as in any language, as COPY wants them."""
    chance = random.Random(7)
    syllables = [a + b + c for a in "bdfgklmnprstvz" for b in "aeiou" for c in ("", "n", "r", "s", "t")]
    words = sorted({"".join(chance.choices(syllables, k=chance.choice((1, 2, 2, 3)))) for _ in range(WORDS * 2)})
    chance.shuffle(words)
    words = words[:WORDS]
    weights = [1 / (rank + 3) for rank in range(len(words))]
    for number in range(1, SENTENCES + 1):
        yield f"{number}\t{' '.join(chance.choices(words, weights, k=chance.randint(6, 12)))}\n"


def load_sentences(server, database):
    server.sql("CREATE TABLE sentence (id int PRIMARY KEY, words text)", database)
    command = ["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", database, "-c", "COPY sentence FROM STDIN"]
    server.run(*command, input="".join(sentences()))


def ensure(account, root, say):
    """Makes the cluster in `root` unless it is there. Returns its data directory."""
    data, stamp = root / "cluster", root / "cluster.recipe"
    if stamp.exists() and stamp.read_text() == RECIPE and data.stat().st_uid == account.uid:
        return data
    say("making the cluster (once; some minutes)")
    stamp.unlink(missing_ok=True)
    if data.exists():
        shutil.rmtree(data)
    command = [programs() / "initdb", "-D", data, "-U", SUPERUSER, "--auth=trust", "--data-checksums", "--no-sync",
               "--locale=C", "--encoding=UTF8", "--no-instructions"]
    subprocess.run(command, check=True, cwd="/", stdout=subprocess.DEVNULL, **account.options)
    with Server(account, data, root / "socket", FAST) as server:
        fill(server, say)
    os.sync()
    stamp.write_text(RECIPE)
    return data


def fill(server, say):
    def step(what):
        say(f"  {what} ({time.strftime('%H:%M:%S')})")

    step("pgbench's tables")
    server.sql("CREATE DATABASE bank; CREATE DATABASE shop; CREATE DATABASE archive; CREATE DATABASE small_1")
    server.run("pgbench", "-i", "-I", "dtGvp", "-q", "-F", "90", "-s", str(PGBENCH_SCALE), "bank",
               stderr=subprocess.DEVNULL)
    step("text and JSON")
    load_sentences(server, "shop")
    server.sql(SHOP, "shop")
    step("wide rows")
    load_sentences(server, "archive")
    server.sql(ARCHIVE, "archive")
    step("many small tables")
    server.sql(SMALL, "small_1")
    for number in range(2, SMALL_DATABASES + 1):
        server.sql(f"CREATE DATABASE small_{number} TEMPLATE small_1 STRATEGY file_copy")
    server.sql("CHECKPOINT")


LOADED = [ONE, *(f"small_{number}" for number in range(1, 11) if f"small_{number}" != ONE)]


def write_log(server):
    """Writes as much log in each of ten databases. Returns the share of the one that is restored."""
    sizes = {}
    for database in LOADED:
        before = server.sql("SELECT pg_current_wal_insert_lsn()")
        server.sql(f"""
            CREATE TABLE IF NOT EXISTS load (id int PRIMARY KEY, name text, value numeric);
            TRUNCATE load;
            INSERT INTO load SELECT g, md5(g::text), g FROM generate_series(1, 40000) g;
            DO $$ BEGIN FOR r IN 1..{LOG_ROUNDS} LOOP
                UPDATE load SET value = value + 1, name = md5(name);
            END LOOP; END $$""", database)
        sizes[database] = int(server.sql(f"SELECT pg_current_wal_insert_lsn() - '{before}'::pg_lsn"))
    return sizes[ONE] / sum(sizes.values())


def forget_log(server):
    """Takes away what writing log left, so that the kept cluster stays as it was made."""
    for database in LOADED:
        server.sql("DROP TABLE load", database)


def change(server, pages):
    """Updates about this many pages, spread at random over the large tables. Returns how many were changed."""
    total = sum(UPDATED.values())
    changed = 0
    for (database, table, key, column), highest in UPDATED.items():
        count = pages * highest // total
        text = server.sql(f"""
            WITH updated AS (
                UPDATE {table} SET {column} = {column} + 1
                WHERE {key} IN (SELECT 1 + (random() * {highest - 1})::bigint FROM generate_series(1, {count}))
                RETURNING ctid)
            SELECT count(DISTINCT (ctid::text::point)[0]) FROM updated""", database)
        changed += int(text)
    return changed


TWIN = "_twin"


def double(server):
    """Copies every database beside itself, so that the cluster holds twice as much."""
    names = "SELECT datname FROM pg_database WHERE NOT datistemplate AND datname <> 'postgres'"
    for name in server.sql(names).split():
        server.sql(f"CREATE DATABASE {name}{TWIN} TEMPLATE {name} STRATEGY file_copy")


def halve(server):
    """Drops what doubling made, also what was left when it was interrupted."""
    names = f"SELECT datname FROM pg_database WHERE datname LIKE '%\\{TWIN}'"
    for name in server.sql(names).split():
        server.sql(f"DROP DATABASE {name}")
