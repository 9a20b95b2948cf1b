#!/usr/bin/env bash
# Measures Everpoint beside pgBackRest and pg_basebackup; `scripts/bench.sh --help` lists what can be chosen.
#
#   BENCH_RUNS           how often (5)
#   EVERPOINT_BENCH_DIR  where the cluster is kept and the repositories are made (/var/tmp/everpoint-bench, 25 GB free);
#                        the disk it lies on is the disk that is measured
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/places.sh

if ! command -v pgbackrest >/dev/null; then
    echo "bench: installing pgbackrest" >&2
    sudo=
    [ "$(id -u)" -eq 0 ] || sudo=sudo
    $sudo apt-get update -qq
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends pgbackrest >/dev/null
fi

EVERPOINT_PG15_BIN=$(postgres_bin 15)
export EVERPOINT_PG15_BIN
exec python3 -B scripts/bench "$@"
