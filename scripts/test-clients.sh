#!/usr/bin/env bash
# Drives the service with the unmodified az command and Azure's SDK for JavaScript, which it fetches from PyPI and
# npm: about 1 GB. Azure's SDK for Python is driven by `make test`. Names of clients (az, js) choose.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/places.sh

AZURE_CLI=2.91.0
ARM_SQL=10.0.0
IDENTITY=4.13.1

if ! [ -x "$tools/azure-cli/bin/az" ] || [ "$(cat "$tools/azure-cli/version" 2>/dev/null)" != "$AZURE_CLI" ]; then
    echo "clients: fetching azure-cli $AZURE_CLI" >&2
    rm -rf "$tools/azure-cli"
    python3 -m venv "$tools/azure-cli"
    "$tools/azure-cli/bin/pip" install --quiet --disable-pip-version-check "azure-cli==$AZURE_CLI"
    echo "$AZURE_CLI" >"$tools/azure-cli/version"
fi
packages="@azure/arm-sql@$ARM_SQL @azure/identity@$IDENTITY"
if [ "$(cat "$tools/azure-js/version" 2>/dev/null)" != "$packages" ]; then
    echo "clients: fetching $packages" >&2
    rm -rf "$tools/azure-js"
    mkdir -p "$tools/azure-js"
    # shellcheck disable=SC2086 # two packages
    (cd "$tools/azure-js" && npm install --silent --no-audit --no-fund $packages)
    echo "$packages" >"$tools/azure-js/version"
fi

EVERPOINT_PG15_BIN=$(postgres_bin 15)
EVERPOINT_PROGRAM=${EVERPOINT_PROGRAM:-${CARGO_TARGET_DIR:-target}/release/everpoint}
export EVERPOINT_PG15_BIN EVERPOINT_PROGRAM TOOLS=$tools
exec python3 -B scripts/clients "$@"
