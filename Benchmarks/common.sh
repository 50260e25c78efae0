# Shared by the scripts here; sourced, not run. Needs bash, coreutils, grep, sed, awk, find, procps, util-linux
# (taskset), a C compiler and, for TLS, the openssl command.
#
# A script that sources this may start servers and one client, and whatever it started is ended when it exits,
# however it exits, by process id.

set -euo pipefail
LC_ALL=C
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
build=$root/.build-bench
relay=${RELAY:-$root/.build/release/relay}
load=${LOAD:-$root/.build/release/relay-load}

# The relay is measured as it comes: nothing of the caller's configuration may leak in.
for name in ${!RELAY_@}; do unset "$name"; done

fail() {
    echo "${0##*/}: $*" >&2
    exit 1
}

# ---- processes ----

started=()
# A command for the end, after all that was started has ended.
at_exit=()
scratch=$(mktemp -d)

# Ends one process that this script started: politely, then not.
end() {
    local pid=$1 tries
    kill "$pid" 2>/dev/null || return 0
    for ((tries = 0; tries < 100; tries++)); do
        kill -0 "$pid" 2>/dev/null || break
        ((tries < 50)) || kill -KILL "$pid" 2>/dev/null || true
        sleep 0.1
    done
    wait "$pid" 2>/dev/null || true
}

# An ended process's id may soon be another's: it must not be ended again.
forget() {
    local pid kept=()
    for pid in "${started[@]}"; do [[ $pid == "$1" ]] || kept+=("$pid"); done
    started=("${kept[@]}")
}

clean_up() {
    local status=$? pid
    trap - EXIT
    for pid in "${started[@]}"; do end "$pid"; done
    ((${#at_exit[@]} == 0)) || "${at_exit[@]}" || true
    rm -rf "$scratch"
    exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# ---- CPUs: the server gets one, the client the other, for every server alike ----

cpus=($(taskset -cp $$ | awk -F': ' '{
    count = split($2, parts, ",")
    for (i = 1; i <= count; i++) {
        last = split(parts[i], ends, "-")
        for (cpu = ends[1]; cpu <= ends[last]; cpu++) print cpu
    }
}'))
if ((${#cpus[@]} >= 2)); then
    on_server_cpu=(taskset -c "${cpus[0]}")
    on_client_cpu=(taskset -c "${cpus[1]}")
else
    on_server_cpu=() on_client_cpu=()
    echo "${0##*/}: one CPU only: server and client share it, read ratios with care" >&2
fi

# ---- builds ----

compile() {
    mkdir -p "$build"
    "${CC:-cc}" -std=gnu11 -O2 -Wall -Wextra "$@"
}

build_fanout() {
    compile -o "$build/fanout" "$here/fanout.c" -lssl -lcrypto
}

need_relay() {
    [[ -x $relay && -x $load ]] || fail "no release build ($relay, $load): run \`swift build -c release\` first"
}

# ---- TLS: on from `use_tls` to `use_plain`, for servers and client alike ----

certificate=$scratch/certificate.pem
key=$scratch/key.pem
tls=

# ECDSA with P-256, made for this run and gone with it.
use_tls() {
    tls=1
    [[ ! -s $certificate ]] || return 0
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=relay-bench \
        -addext subjectAltName=IP:127.0.0.1 -keyout "$key" -out "$certificate" 2>"$scratch/openssl.log" || {
        cat "$scratch/openssl.log" >&2
        fail "the openssl command made no certificate"
    }
}

use_plain() { tls=; }

# ---- HTTP over bash's /dev/tcp, or the openssl command ----

# get PORT PATH: the whole answer, or failure.
get() {
    local request="GET $2 HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
    if [[ $tls ]]; then
        printf %b "$request" |
            timeout 2 openssl s_client -quiet -connect "127.0.0.1:$1" -CAfile "$certificate" 2>/dev/null
    else
        timeout 2 bash -c 'exec 3<>"/dev/tcp/127.0.0.1/$0"; printf %b "$1" >&3; cat <&3' "$1" "$request" 2>/dev/null
    fi
}

# A port nobody listens on, below the range that clients' own ports come from.
free_port() {
    local port
    while :; do
        port=$(shuf -i 20000-29999 -n 1)
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
    done
    echo "$port"
}

await_health() {
    local tries
    for ((tries = 0; tries < 100; tries++)); do
        if [[ $(get "$port" /health) == *'"status":"ok"'* ]]; then return; fi
        kill -0 "$server" 2>/dev/null || break
        sleep 0.1
    done
    cat "$scratch/server.log" >&2
    fail "$1 did not answer /health"
}

# ---- servers: set `server` (to end), `measured` (whose CPU and memory count) and `port` ----

# start_relay [NAME=VALUE...]: one worker, further settings from the arguments.
start_relay() {
    local settings=()
    port=$(free_port)
    # Root's relay gives its workers another user; they get the key from the supervisor.
    if [[ $tls ]]; then settings=(RELAY_TLS_CERT="$certificate" RELAY_TLS_KEY="$key"); fi
    env RELAY_ADDR="127.0.0.1:$port" RELAY_WORKERS=1 RELAY_RATE_LIMIT_PER_IP=0 RELAY_SHUTDOWN_GRACE=1 \
        RELAY_MAX_CONNECTIONS_PER_IP=0 RELAY_MAX_ROOMS_PER_IP=0 \
        "${settings[@]}" "$@" "${on_server_cpu[@]}" "$relay" >"$scratch/server.log" 2>&1 &
    server=$!
    started+=("$server")
    await_health relay
    measured=$(pgrep -P "$server" | head -n 1) || fail "the relay has no worker process"
}

# start_fanout [evp|ssl [ARGUMENT...]]: with TLS in the way of fanout_tls.h; further arguments are fanout's.
start_fanout() {
    local settings=()
    port=$(free_port)
    if [[ $tls ]]; then settings=(--tls "$1" --tls-cert "$certificate" --tls-key "$key"); fi
    if [[ ${UNSENT:-} ]]; then settings+=(--unsent "$UNSENT"); fi
    if [[ ${GATHER:-} ]]; then settings+=(--gather 1); fi
    settings+=("${@:2}")
    "${on_server_cpu[@]}" "$build/fanout" --port "$port" "${settings[@]}" >"$scratch/server.log" 2>&1 &
    server=$!
    started+=("$server")
    await_health fanout
    measured=$server
}

start_evp() { start_fanout evp "$@"; }
start_ssl() { start_fanout ssl "$@"; }

stop_server() {
    end "$server"
    forget "$server"
}

# ---- the client ----

# start_client SECONDS ARGUMENT...: relay-load against the server; sets `client`. What it prints goes to
# $scratch/client.json, its complaints to client.log. In the background, so that a signal to the script
# is obeyed at once and not after the run.
start_client() {
    local seconds=$1 url=(--url "ws://127.0.0.1:$port")
    if [[ $tls ]]; then url=(--url "wss://127.0.0.1:$port" --ca "$certificate"); fi
    shift
    timeout -k 5 $((seconds + 180)) "${on_client_cpu[@]}" "$load" bench "${url[@]}" \
        --server-pid "$measured" --seconds "$seconds" --json "$@" \
        >"$scratch/client.json" 2>"$scratch/client.log" &
    client=$!
    started+=("$client")
}

await_client() {
    local status=0
    wait "$client" || status=$?
    forget "$client"
    ((status == 0)) || client_failed "exit status $status"
}

client_failed() {
    cat "$scratch/client.json" "$scratch/client.log" "$scratch/server.log" >&2
    fail "relay-load: $1"
}

# field NAME: a number out of the client's flat JSON line.
field() {
    local value
    value=$(grep -o "\"$1\" *: *[-0-9.eE+]*" "$scratch/client.json" | head -n 1 | sed 's/.*: *//') || true
    [[ -n $value ]] || client_failed "no number \"$1\" in its output"
    echo "$value"
}
