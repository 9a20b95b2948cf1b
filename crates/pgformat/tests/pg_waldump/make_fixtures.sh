#!/bin/bash
# Makes the WAL fixtures of one major version: make_fixtures.sh <major version> <directory of its programs>
# [<wal_compression>]. Run it as a user who may start servers, from a directory that user may write to.
#
# wal_<major>.bin is a stretch of log from a page's start, wal_<major>.txt what pg_waldump says of it, and in
# comments where it begins and what must be found in it.
set -eu
major=$1 bin=$2 compression=${3:-off}
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d "$PWD/wal_fixture.XXXXXX")
trap '"$bin/pg_ctl" -D "$work/data" -m immediate stop >/dev/null 2>&1 || true; rm -rf "$work"' EXIT

"$bin/initdb" -D "$work/data" -U postgres -A trust -k --no-locale -E UTF8 --wal-segsize=1 >/dev/null
cat >>"$work/data/postgresql.conf" <<C
listen_addresses = ''
unix_socket_directories = '$work'
wal_level = logical
wal_compression = $compression
max_prepared_transactions = 2
track_commit_timestamp = on
autovacuum = off
checkpoint_timeout = 1d
max_wal_size = 1GB
wal_keep_size = 1GB
C
"$bin/pg_ctl" -D "$work/data" -l "$work/log" -w start >/dev/null
sql() { "$bin/psql" -X -q -A -t -h "$work" -U postgres -v ON_ERROR_STOP=1 "$@"; }

sql <<'S' >/dev/null
create table t (id int primary key, v int, s text, p point, a int[]);
create index on t using hash (v);
create index on t using gin (a);
create index on t using gist (p);
create index on t using spgist (p);
create index on t using brin (v);
create table cut (i int);
insert into cut select generate_series(1, 400);
create sequence numbers;
create database shop strategy file_copy;
checkpoint;
S
start=$(sql -c "select pg_current_wal_lsn()")
sql <<'S' >/dev/null
insert into t select g, g % 5, md5(g::text), point(g, g), array[g, g % 3] from generate_series(1, 60) g;
update t set v = v + 1 where id % 4 = 0;
delete from t where id % 7 = 0;
begin; insert into t values (1001); savepoint a; insert into t values (1002); rollback to a; commit;
begin; insert into t values (2001); rollback;
begin; insert into t values (3001); savepoint b; insert into t values (3002); prepare transaction 'first';
begin; insert into t values (4001); prepare transaction 'second';
commit prepared 'first';
rollback prepared 'second';
delete from cut where i > 10;
vacuum (freeze) cut;
truncate cut;
select nextval('numbers');
select pg_logical_emit_message(true, 'everpoint', 'a message');
select pg_logical_emit_message(false, 'everpoint', repeat('long', 4000));
select pg_create_restore_point('before the mistake');
select pg_replication_origin_create('elsewhere');
select pg_replication_origin_session_setup('elsewhere');
begin;
select pg_replication_origin_xact_setup('1/23456', now());
insert into t values (5001);
commit;
alter database shop rename to store;
drop database store;
insert into t values (6001);
S
end=$(sql -c "select pg_current_wal_lsn()")
sql -c "select pg_switch_wal()" >/dev/null
if [ ! -x "$bin/pg_waldump" ]; then
    sql -v start="$start" -v end="$end" -f "$here/walinspect.sql" >"$work/dump"
fi
"$bin/pg_ctl" -D "$work/data" -m fast -w stop >/dev/null
if [ -x "$bin/pg_waldump" ]; then
    TZ=UTC "$bin/pg_waldump" -p "$work/data/pg_wal" -s "$start" -e "$end" >"$work/dump"
fi
python3 "$here/cut_fixture.py" "$work/data/pg_wal" "$work/dump" "$start" "$end" "$PWD/wal_$major"
