# Where the set-up keeps what it downloads. Sourced by the other scripts; the testkit looks in the same places.
if [ "$(id -u)" -eq 0 ]; then
    cache=/var/cache/everpoint
else
    cache=${XDG_CACHE_HOME:-$HOME/.cache}/everpoint
fi
servers=${EVERPOINT_SERVERS:-$cache/servers}
tools=${EVERPOINT_TOOLS:-$cache/tools}
export PATH="$PATH:$tools"

# postgres_bin MAJOR: prints the directory of that version's programs.
postgres_bin() {
    local named=EVERPOINT_PG$1_BIN bin
    for bin in "${!named:-}" "$servers/$1/bin" "/usr/lib/postgresql/$1/bin"; do
        [ -x "$bin/postgres" ] && echo "$bin" && return
    done
    echo "PostgreSQL $1 is not installed. Run make setup" >&2
    return 1
}
