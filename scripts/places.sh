# Where the set-up keeps what it downloads. Sourced by the other scripts; the testkit looks in the same places.
if [ "$(id -u)" -eq 0 ]; then
    cache=/var/cache/everpoint
else
    cache=${XDG_CACHE_HOME:-$HOME/.cache}/everpoint
fi
servers=${EVERPOINT_SERVERS:-$cache/servers}
tools=${EVERPOINT_TOOLS:-$cache/tools}
export PATH="$PATH:$tools"
