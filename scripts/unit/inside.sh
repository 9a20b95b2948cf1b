#!/usr/bin/env bash
# Runs in the virtual machine: sets the service up as its operators' guide says, and has it back up, restore, reload,
# die and end under the unit.
set -euo pipefail

say() { echo "unit: $*"; }
trap 'say "FAILED at line $LINENO: $BASH_COMMAND"; journalctl --no-pager -u everpoint | tail -60' ERR
export HOME=/root

postgres() { sudo -u postgres env PGUSER=postgres "$@"; }
sql() { postgres psql -X -q -A -t -v ON_ERROR_STOP=1 -d "$1" -c "$2"; }

# eventually SECONDS WHAT COMMAND...: until it succeeds.
eventually() {
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $deadline ] || { say "waited in vain: $what"; "$@"; return 1; }
        sleep 1
    done
}

say "$(systemctl --version | head -n 1), $(postgres psql --version)"
eventually 120 "PostgreSQL" sql postgres "SELECT 1"

# --- as docs/operators has it ---
install -d -o postgres -g postgres -m 0700 /backups
install -d -o postgres -g postgres -m 0700 /etc/everpoint
at_home=(EVERPOINT_REPOSITORY=/backups/everpoint EVERPOINT_KEY_FILE=/etc/everpoint/repository.key)
here() { postgres env "${at_home[@]}" everpoint "$@"; }
here init --generate-key-file >/dev/null
here instance grant-script --role everpoint --database postgres | postgres psql -X -q -d postgres
configuration=/etc/postgresql/15/main
echo "everpoint postgres everpoint" >>$configuration/pg_ident.conf
sed -i '1i local postgres everpoint peer map=everpoint\nlocal replication everpoint peer map=everpoint' $configuration/pg_hba.conf
sql postgres "SELECT pg_reload_conf()" >/dev/null
sleep 1
here instance add shop --connection 'host=/run/postgresql user=everpoint dbname=postgres' >/dev/null
cat >/etc/everpoint/everpoint.toml <<'TOML'
listen = "127.0.0.1:8443"
public_url = "https://localhost:8443"
state_directory = "/var/lib/everpoint"

[repository]
url = "/backups/everpoint"
key_file = "/etc/everpoint/repository.key"

[instances.shop]
admin_connection_file = "/etc/everpoint/shop.admin"
TOML
echo "host=/run/postgresql user=postgres dbname=postgres" >/etc/everpoint/shop.admin
chown postgres: /etc/everpoint/*
chmod 0600 /etc/everpoint/*
sql postgres "CREATE DATABASE app"
sql app "CREATE TABLE t AS SELECT a, md5(a::text) FROM generate_series(1, 20000) AS a"

# A scratch server of a restore, if one runs.
pgrep_scratch() { grep -lsz /var/lib/everpoint/scratch /proc/[0-9]*/cmdline; }

# --- started ---
systemctl enable --now everpoint
authority=/var/lib/everpoint/tls/ca.pem
answers() { curl -sS --fail --cacert $authority "https://localhost:8443$1"; }
eventually 120 "the service" answers /readyz
[ "$(systemctl is-active everpoint)" = active ]
say "ready: $(answers /readyz | paste -sd ' ')"
score=$(systemd-analyze security everpoint --no-pager | tail -n 1)
say "$score"

journal=$(journalctl --no-pager -o cat -u everpoint)
client=$(grep -oE 'client id +.*' <<<"$journal" | awk '{print $NF}')
EVERPOINT_CLIENT_SECRET=$(grep -oE 'client secret +.*' <<<"$journal" | awk '{print $NF}')
export EVERPOINT_CLIENT_SECRET EVERPOINT_SERVER=https://localhost:8443
everpoint login --client-id "$client" --ca $authority

# --- backs up ---
backed_up() { everpoint operation list shop --output json | jq -e "[.. | objects | select(.state? == \"Succeeded\" and .operation? == \"$1\")] | length >= 1"; }
eventually 600 "the first full backup" backed_up FullBackup
say "the first full backup was taken"

# --- restores, to a moment whose log is not stored yet ---
proof="SELECT count(*) || ' ' || sum(hashtextextended(t::text, 0)) FROM t"
expected=$(sql app "$proof")
moment=$(sql postgres "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')")
sleep 1
sql app "DROP TABLE t"
everpoint restore database shop/app --at "$moment" --to app_back
[ "$(sql app_back "$proof")" = "$expected" ]
say "restored: $expected"

# --- what the unit keeps it from ---
pid=$(systemctl show -p MainPID --value everpoint)
inside() { nsenter -t "$pid" -m sudo -u postgres "$@"; }
inside test -w /var/lib/everpoint
inside test -w /backups
if inside touch /var/lib/postgresql/15/main/touched 2>/dev/null; then say "it may write data directories"; false; fi
grep -q '^NoNewPrivs:\s1$' "/proc/$pid/status"
grep -q '^Seccomp:\s2$' "/proc/$pid/status"
grep -q '^CapBnd:\s0*$' "/proc/$pid/status"
[ "$(systemctl show -p User --value everpoint)" = postgres ]
say "it is kept from what it does not need"

# --- reloads ---
echo -e '\n[backups]\nlog_every = "30s"' >>/etc/everpoint/everpoint.toml
systemctl reload everpoint
[ "$(systemctl show -p MainPID --value everpoint)" = "$pid" ]
sed -i 's/30s/thirty/' /etc/everpoint/everpoint.toml
if systemctl reload everpoint 2>/dev/null; then say "a mistake was taken up"; false; fi
[ "$(systemctl show -p MainPID --value everpoint)" = "$pid" ]
answers /readyz >/dev/null
say "reloaded; a mistake is refused, and the service goes on: $(journalctl --no-pager -o cat -u everpoint | grep -m 1 thirty)"
sed -i 's/thirty/30s/' /etc/everpoint/everpoint.toml

# --- dies in the middle of a restore, and comes back ---
everpoint restore database shop/app --at "$moment" --to finished >/dev/null 2>&1 &
eventually 60 "a scratch server" pgrep_scratch
kill -9 "$pid"
came_back() { [ "$(systemctl show -p MainPID --value everpoint)" -gt 0 ] && [ "$(systemctl show -p MainPID --value everpoint)" != "$pid" ] && answers /readyz; }
eventually 120 "its return" came_back
finished() { [ "$(sql finished "$proof")" = "$expected" ]; }
eventually 300 "the end of the restore" finished
sql app_back "INSERT INTO t VALUES (0, 'after the kill')"
last=$(sql app_back "$proof")
everpoint database delete shop/app_back >/dev/null
deleted() { everpoint deleted shop --output json | grep -q app_back; }
eventually 60 "the deleted database" deleted
everpoint restore database --deleted shop/app_back --to again
[ "$(sql again "$proof")" = "$last" ]
say "killed in the middle of a restore, it came back and finished that; a database was deleted and had back to its last transaction"

# --- ends ---
systemctl stop everpoint
[ "$(systemctl show -p Result --value everpoint)" = success ]
left=$(systemctl show -p ControlGroup --value everpoint)
[ -z "$left" ] || [ ! -s "/sys/fs/cgroup$left/cgroup.procs" ]
[ -z "$(find /var/lib/everpoint/scratch -mindepth 1 -type d)" ]
postgres everpoint audit verify /var/lib/everpoint/audit.jsonl
say "ended; the audit log is whole"

# --- does not start with a mistake ---
echo 'colour = "blue"' >/etc/everpoint/wrong.toml
cat /etc/everpoint/everpoint.toml >>/etc/everpoint/wrong.toml
cp /etc/everpoint/everpoint.toml /etc/everpoint/right.toml
cp /etc/everpoint/wrong.toml /etc/everpoint/everpoint.toml
if systemctl start everpoint 2>/dev/null; then say "it started with a mistake"; false; fi
say "refused: $(journalctl --no-pager -o cat -u everpoint | grep -m 1 colour)"
cp /etc/everpoint/right.toml /etc/everpoint/everpoint.toml
systemctl reset-failed everpoint
systemctl stop everpoint
systemctl start everpoint
eventually 120 "the service" answers /readyz
systemctl stop everpoint
say "all is well"
