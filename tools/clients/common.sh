# Sourced by the scripts beside it: a server of its own for each, gone when the script ends.
# Not executable, so it is not taken for one of them.

: "${RINGWAY_BIN:?name the ringway binary in RINGWAY_BIN}"
scratch=$(mktemp -d)
server_pid=

finish() {
    status=$?
    [ -z "$server_pid" ] || kill "$server_pid" 2>/dev/null || true
    [ -z "$server_pid" ] || wait "$server_pid" 2>/dev/null || true
    rm -rf "$scratch"
    exit "$status"
}
trap finish EXIT
trap 'exit 1' INT TERM

# start_server [flags]: sets `port` once the server is ready.
start_server() {
    mkfifo "$scratch/ready"
    "$RINGWAY_BIN" serve --listen 127.0.0.1:0 --admin off --state temporary --pin false \
        --spin false --max-memory 256MiB "$@" >"$scratch/ready" 2>"$scratch/log" &
    server_pid=$!
    IFS= read -r ready <"$scratch/ready" || fail "the server did not start: $(cat "$scratch/log")"
    port=${ready#*listen=127.0.0.1:}
    port=${port%% *}
}

# stop_server: SIGTERM, and a clean end.
stop_server() {
    kill "$server_pid"
    wait "$server_pid" || fail "the server did not stop cleanly: $(cat "$scratch/log")"
    server_pid=
}

fail() {
    printf 'FAILED: %s\n' "$*" >&2
    exit 1
}

# is WHAT GOT EXPECTED
is() {
    [ "$2" = "$3" ] || fail "$1: got '$2', expected '$3'"
    printf '%s\n' "ok: $1"
}

# matches WHAT GOT PATTERN: a pattern of the shell.
matches() {
    # shellcheck disable=SC2254
    case $2 in
    $3) printf '%s\n' "ok: $1" ;;
    *) fail "$1: got '$2', expected '$3'" ;;
    esac
}
