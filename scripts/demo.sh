#!/usr/bin/env bash
# The story of a lost table, on a PostgreSQL server of its own in a temporary directory: backups, log,
# the mistake, the restore to the second before, and the proof.
set -euo pipefail
cd "$(dirname "$0")/.."

everpoint=${CARGO_TARGET_DIR:-target}/release/everpoint
everpoint=$(realpath "$everpoint")
. scripts/places.sh
bin=$(postgres_bin 15) || { echo "demo: no PostgreSQL 15; run make setup" >&2; exit 1; }

work=$(mktemp -d "${TMPDIR:-/tmp}/everpoint-demo.XXXXXX")
receiver=
as_server() { "$@"; }
if [ "$(id -u)" = 0 ]; then
    # PostgreSQL refuses to run as root.
    chown postgres "$work"
    as_server() { runuser -u postgres -- "$@"; }
fi
chmod 755 "$work"
cleanup() {
    [ -z "$receiver" ] || kill "$receiver" 2>/dev/null || true
    for data in "$work/original" "$work/restored"; do
        [ ! -f "$data/postmaster.pid" ] || as_server "$bin/pg_ctl" -D "$data" -m immediate -w stop >/dev/null 2>&1 || true
    done
    rm -rf "$work"
}
trap cleanup EXIT

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
show() { printf '$ everpoint %s\n' "$*"; "$everpoint" "$@"; }
sql() { as_server "$bin/psql" -X -qAt -h "$work" -p "$1" -d "${3:-shop}" -c "$2"; }
seconds_since() { awk "BEGIN { printf \"%.1f\", $(date +%s.%N) - $1 }"; }

# What a restore has to bring back, and what it must not.
proof="SELECT count(*) || ' orders, sum ' || sum(total) || ', checksum ' || sum(hashtextextended(o::text, 0)) FROM orders o"
later="SELECT count(*) FROM customers WHERE id = 0"
check() {
    printf 'before   %s\nrestored %s\n' "$before" "$1"
    [ "$before" = "$1" ] || { echo "demo: the restored orders DIFFER" >&2; exit 1; }
    [ "$2" = 0 ] || { echo "demo: a later row came along" >&2; exit 1; }
}

say "1. A PostgreSQL server of its own, with a shop in it"
as_server "$bin/initdb" --data-checksums --no-sync --username=demo -D "$work/original" >/dev/null
as_server "$bin/pg_ctl" -D "$work/original" -l "$work/original.log" -w \
    -o "-k $work -p 54321 -c listen_addresses=''" start >/dev/null
export PGUSER=demo
as_server "$bin/createdb" -h "$work" -p 54321 shop
sql 54321 "CREATE TABLE customers AS SELECT g AS id, 'customer ' || g AS name FROM generate_series(1, 50000) g;
           CREATE TABLE orders (id bigint PRIMARY KEY, customer int, total numeric, placed timestamptz, note text);
           INSERT INTO orders SELECT g, 1 + g % 50000, (g * 37 % 10000) / 100.0, now(), md5(g::text)
           FROM generate_series(1, 600000) g;"
echo "$(sql 54321 "SELECT count(*) || ' orders, ' || pg_size_pretty(pg_database_size('shop')) FROM orders")"

say "2. A repository, encrypted, and the server in it"
export EVERPOINT_REPOSITORY="file://$work/repository" EVERPOINT_KEY_FILE="$work/key"
show init --generate-key-file
printf '\n'
show instance add shop --connection "host=$work port=54321 user=demo dbname=postgres" | grep -v '^warning\|->'

say "3. Log is received from now on; a full backup"
"$everpoint" wal receive shop --interval 1s >"$work/receive.log" 2>&1 &
receiver=$!
show backup shop

say "4. Business goes on; a differential backup; business goes on"
sql 54321 "INSERT INTO orders SELECT g, 1 + g % 50000, 9.99, now(), md5(g::text) FROM generate_series(600001, 620000) g;
           UPDATE orders SET total = total + 1 WHERE id % 100 = 0;"
show backup shop --type differential
sql 54321 "INSERT INTO orders SELECT g, 1 + g % 50000, 19.99, now(), md5(g::text) FROM generate_series(620001, 625000) g;"
before=$(sql 54321 "$proof")
moment=$(sql 54321 "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')")
echo "at $moment: $before"

say "5. The mistake"
sleep 1
sql 54321 "DROP TABLE orders"
sql 54321 "INSERT INTO customers VALUES (0, 'who comes after the mistake')"
echo "DROP TABLE orders;   -- gone"
sleep 2.5

say "6. What happened, and what can be restored"
show log shop --kind drop --database shop
show window shop

say "7. The database as of the second before, in the running server, beside the living one"
begun=$(date +%s.%N)
show restore database shop/shop --at "$moment" --to shop_before --scratch "$work/scratch" --bin-directory "$bin"
took=$(seconds_since "$begun")
check "$(sql 54321 "$proof" shop_before)" "$(sql 54321 "$later" shop_before)"
printf 'Back %s s after asking.\n' "$took"

say "8. Or the whole server, in a directory of its own"
begun=$(date +%s.%N)
show restore instance shop --to "$work/restored" --at "$moment" \
    --start --port 54322 --socket-directory "$work" --bin-directory "$bin" --owner "$(stat -c %U "$work/original")"
took=$(seconds_since "$begun")
check "$(sql 54322 "$proof")" "$(sql 54322 "$later")"
printf 'Back %s s after asking.\n' "$took"

say "9. Everything that is stored, compared"
show verify --full
database=$(du -sb "$work/restored" --exclude=pg_wal | cut -f1)
stored=$(du -sb "$work/repository" | cut -f1)
printf '\n%s MB of cluster, two backups and all log in %s MB.\n' $((database / 1000000)) $((stored / 1000000))
