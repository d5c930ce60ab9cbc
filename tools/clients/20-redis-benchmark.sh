#!/usr/bin/env bash
# redis-benchmark as a load that nobody here wrote: with and without pipeline, on Redis's own test
# of PING, on our verbs, and on locks. No number is judged here; every request must be answered
# without an error, and the server must have counted them.
set -euo pipefail
# shellcheck source=tools/clients/common.sh
. "$(dirname "$0")/common.sh"
start_server --shards 2

requests=20000

# bench WHAT PIPELINE [words of redis-benchmark]
bench() {
    what=$1 pipeline=$2
    shift 2
    said=$(redis-benchmark -p "$port" -n "$requests" -c 20 -P "$pipeline" -r 1000000 -q "$@" 2>&1 |
        tr '\r' '\n') || fail "$what, pipeline $pipeline: $said"
    line=$(grep 'requests per second' <<<"$said" | tail -1) || fail "$what: no result: $said"
    if grep -qiE 'error|refused|unexpected' <<<"$said"; then
        fail "$what, pipeline $pipeline: $said"
    fi
    printf 'ok: %s, pipeline %s:%s\n' "$what" "$pipeline" "${line##*:}"
}

total() {
    "$RINGWAY_BIN" --server "127.0.0.1:$port" shards --json |
        tr ',' '\n' | awk -F'[: ]+' '/^ *"requests"/ { sum += $NF } END { print sum + 0 }'
}

for pipeline in 1 16; do
    bench "PING" "$pipeline" -t ping_mbulk
    before=$(total)
    bench "PORT.QUERY of free names" "$pipeline" PORT.QUERY name:__rand_int__
    counted=$(($(total) - before))
    [ "$counted" -ge "$requests" ] || fail "the server counted $counted of $requests queries"
    bench "PORT.REGISTER" "$pipeline" PORT.REGISTER name:__rand_int__
    bench "PORT.RELEASE" "$pipeline" PORT.RELEASE name:__rand_int__
    bench "SET NX PX" "$pipeline" SET lock:__rand_int__ me NX PX 20000
    bench "GET" "$pipeline" GET lock:__rand_int__
    bench "DEL" "$pipeline" DEL lock:__rand_int__
done

stop_server
echo "redis-benchmark: ok"
