#!/usr/bin/env bash
# Checks dependencies: licences, sources, banned crates and known vulnerabilities (deny.toml). Where the database of
# vulnerabilities cannot be reached, its last copy is used; without one, that check alone is left out, and said so.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/places.sh

deny() { cargo deny --log-level error "$@"; }

deny check bans licenses sources
if timeout 120 cargo deny --log-level off fetch db >/dev/null 2>&1; then
    deny --offline check advisories
elif compgen -G "${CARGO_HOME:-$HOME/.cargo}/advisory-dbs/advisory-db-*/.git" >/dev/null; then
    echo "deny: the database of vulnerabilities is out of reach; using its last copy" >&2
    deny --offline check advisories
else
    echo "deny: NOT checked for known vulnerabilities: their database is out of reach" >&2
fi
