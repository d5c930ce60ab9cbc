#!/usr/bin/env bash
# Measures every row of the README's table on this machine and keeps the raw reports.
#
#   perf/measure.sh OUTPUT_DIR [ROW ...]
#
# The server runs on core 0, the load on core 1. Needs two idle cores, 6 GB of free memory for the
# rows of 100 M names, and redis-server with redis-benchmark for those beside Redis. Each row writes
# OUTPUT_DIR/ROW-N.json; the medians are `perf/table.py OUTPUT_DIR`.
set -euo pipefail

out=${1:?where to keep the reports}
shift
rows=("$@")
[ ${#rows[@]} -gt 0 ] || rows=(query churn fill10 fill30 fill70 fill100 large resp1 resp16 resp32 \
    bench memory forwarded gateway own latency sweep messages watchers idle)
rounds=${ROUNDS:-5}
seconds=${SECONDS_PER_RUN:-5}
ringway=${RINGWAY_BIN:-target/release/ringway}
port=7555
redis_port=7556
mkdir -p "$out"
state=$(mktemp -d)
server=
redis=
trap 'kill $server $redis 2>/dev/null || true; wait; rm -rf "$state"' EXIT

serve() { # shards, cores, more flags
    local shards=$1 cores=$2
    shift 2
    taskset -c "$cores" "$ringway" serve --listen 127.0.0.1:$port --state "$state/$RANDOM" \
        --admin off --own-ports false --shards "$shards" --log-level warn "$@" >"$state/log" &
    server=$!
    until grep -q '^ready' "$state/log"; do kill -0 $server && sleep 0.05; done
}

unserve() {
    kill "$server"
    wait "$server" || true
    server=
}

with_redis() {
    taskset -c 0 redis-server --port $redis_port --bind 127.0.0.1 --save '' --appendonly no \
        --dir "$state" >/dev/null &
    redis=$!
    until redis-cli -p $redis_port ping >/dev/null 2>&1; do kill -0 $redis && sleep 0.05; done
}

without_redis() {
    kill "$redis"
    wait "$redis" || true
    redis=
}

until_names() { # count
    until [ "$("$ringway" shards --json --server 127.0.0.1:$port \
        | python3 -c 'import json,sys; print(sum(s["names"] for s in json.load(sys.stdin)))')" = "$1" ]
    do
        kill -0 "$server" && sleep 0.2
    done
}

load() { taskset -c 1 "$ringway" load "$@" --json --server 127.0.0.1:$port; }
times() { seq 1 "$rounds"; }

row_query() {
    serve 1 0
    for n in $(times); do
        load --pid "$server" --prefill --expect owned --duration-s "$seconds" \
            >"$out/query-$n.json"
    done
    unserve
}

row_churn() {
    serve 1 0
    for n in $(times); do
        load --pid "$server" --mix register=50,release=50 --duration-s "$seconds" \
            >"$out/churn-$n.json"
    done
    unserve
}

row_fill() { # millions
    serve 1 0 --max-memory 10GiB
    load fill --pid "$server" --names "${1}M" --churn-half >"$out/fill$1-1.json"
    "$ringway" shards --json --server 127.0.0.1:$port >"$out/fill$1-shards.json"
    unserve
}

row_large() { # 100 M names, held by a connection of their own while others are measured
    serve 1 0 --max-memory 10GiB
    load --prefill --names 100M --expect owned --rate 1 --duration-s 3600 --spin false \
        >"$state/holder" 2>"$state/progress" &
    local holder=$!
    until grep -q measure "$state/progress"; do kill -0 $holder && sleep 1; done
    for n in $(times); do
        load --pid "$server" --names 100M --expect owned --duration-s "$seconds" \
            >"$out/query100-$n.json"
    done
    for n in $(times); do
        until_names 100000000 # Those of the round before are swept.
        load --pid "$server" --mix register=50,release=50 --seed 9 --churn 10M \
            --duration-s "$seconds" >"$out/churn100-$n.json"
    done
    "$ringway" shards --json --server 127.0.0.1:$port >"$out/large-shards.json"
    kill $holder
    wait $holder || true
    unserve
}
row_fill10() { row_fill 10; }
row_fill30() { row_fill 30; }
row_fill70() { row_fill 70; }
row_fill100() { row_fill 100; }

row_resp() { # pipeline
    serve 1 0
    with_redis
    load compare --label "PORT.QUERY against GET, pipeline $1" --protocol port --pid "$server" \
        --against 127.0.0.1:$redis_port --against-protocol keys --against-pid "$redis" \
        --alphabet printable --prefill --expect owned --connections 50 --pipeline "$1" --frame 1 \
        --duration-s "$seconds" --rounds "$rounds" >"$out/resp$1-1.json"
    without_redis
    unserve
}
row_resp1() { row_resp 1; }
row_resp16() { row_resp 16; }
row_resp32() { row_resp 32; }

cpu_ns() { cat /proc/"$1"/task/*/schedstat | awk '{ sum += $1 } END { printf "%.0f", sum }'; }

bench() { # file, port, pid, pipeline, command...
    local file=$1 at=$2 pid=$3 pipeline=$4 before after rate
    local count=$((300000 + 100000 * (pipeline - 1)))
    shift 4
    before=$(cpu_ns "$pid")
    rate=$(taskset -c 1 redis-benchmark -p "$at" -c 50 -n $count -P "$pipeline" --csv "$@" \
        | tail -n 1 | awk -F'","' '{ print $2 }')
    after=$(cpu_ns "$pid")
    echo "{\"rate\":$rate,\"cpu_ns_per_op\":$(((after - before) / count))}" >"$file"
}

row_bench() {
    serve 1 0
    with_redis
    exec 3<>/dev/tcp/127.0.0.1/$port
    printf 'PORT.REGISTER key:1\r\n' >&3
    head -c 4 <&3 >/dev/null
    redis-cli -p $redis_port set key:1 0123456789abcdef >/dev/null
    for pipeline in 1 16; do
        for n in $(times); do
            bench "$out/bench$pipeline-ringway-$n.json" $port "$server" "$pipeline" PORT.QUERY key:1
            bench "$out/bench$pipeline-redis-$n.json" $redis_port "$redis" "$pipeline" GET key:1
        done
    done
    exec 3>&-
    without_redis
    unserve
}

row_memory() {
    local common=(--alphabet printable --connections 16 --pipeline 16 --frame 1 --names 4M)
    for n in $(times); do
        serve 1 0
        with_redis
        load fill --protocol port --pid "$server" "${common[@]}" >"$out/memory-ringway-$n.json"
        taskset -c 1 "$ringway" load fill --json --protocol keys \
            --server 127.0.0.1:$redis_port --pid "$redis" "${common[@]}" \
            >"$out/memory-redis-$n.json"
        without_redis
        unserve
    done
}

row_forwarded() {
    for n in $(times); do
        serve 1 0,1 --pin false
        load --pid "$server" --prefill --expect owned --spin false --duration-s "$seconds" \
            >"$out/forwarded-one-$n.json"
        unserve
        serve 2 0,1 --pin false
        load --pid "$server" --prefill --expect owned --spin false --duration-s "$seconds" \
            >"$out/forwarded-two-$n.json"
        unserve
    done
}

row_gateway() {
    for n in $(times); do
        # A server of its own: the sessions of the round before would end in this one.
        serve 1 0
        load sessions --pid "$server" --connections 100 --sessions 1000 --lease-ms 1000 --core 1 \
            --duration-s "$seconds" >"$out/gateway-$n.json"
        unserve
    done
}

row_own() {
    # Only root may raise the hard limit; everybody else needs it raised beforehand.
    ulimit -Hn 1048576 2>/dev/null || true
    ulimit -Sn "$(ulimit -Hn)"
    local connections=$(($(ulimit -Hn) - 500))
    [ $connections -lt 100000 ] || connections=100000
    # However many there are, they renew as often as 100 000 would: 10 000 times a second.
    local renew=$((connections / 10))
    serve 1 0
    load sessions --pid "$server" --connections $connections --sessions 1 --lease-ms $((renew * 3)) \
        --renew-ms $renew --core 1 --duration-s 20 >"$out/own-1.json"
    unserve
}

row_latency() { # at half of our unpipelined maximum, both at the same rate, in turns
    serve 1 0
    with_redis
    local common=(--protocol port --pid "$server" --against 127.0.0.1:$redis_port
        --against-protocol keys --against-pid "$redis" --alphabet printable --prefill
        --expect owned --connections 50 --pipeline 1 --frame 1 --duration-s "$seconds"
        --rounds "$rounds")
    # Redis's maximum is kept as well: a rate that it does not reach would prove nothing.
    load compare --label "one query at a time, as fast as it goes" "${common[@]}" \
        >"$out/latency-maxima-1.json"
    local rate
    rate=$(python3 -c 'import json,sys; print(int(json.load(sys.stdin)["ops_per_s"]["a"] / 2))' \
        <"$out/latency-maxima-1.json")
    load compare --label "one query at a time, open loop, $rate/s" "${common[@]}" --rate "$rate" \
        >"$out/latency-1.json"
    without_redis
    unserve
}

row_sweep() { # a million names of a dead session, under 20 000 single queries a second
    serve 1 0
    for n in $(times); do
        load sweep --pid "$server" --doomed 1M --rate 20000 --connections 50 --pipeline 16 \
            --prefill --expect owned --seed "$n" --duration-s "$seconds" >"$out/sweep-$n.json"
    done
    unserve
}

row_messages() { # each message is checked; three ways to send them, in turns
    serve 1 0
    for n in $(times); do
        load messages --pid "$server" --duration-s "$seconds" >"$out/message-$n.json"
        load messages --receipts --pid "$server" --duration-s "$seconds" \
            >"$out/message-receipt-$n.json"
        load messages --fenced --pid "$server" --duration-s "$seconds" >"$out/message-fenced-$n.json"
    done
    unserve
}

row_watchers() { # a descriptor for each watcher, on both sides
    ulimit -Sn "$(ulimit -Hn)"
    serve 1 0
    load watchers --watchers 10000 --changes 10 --rounds $((2 * rounds)) --pid "$server" \
        >"$out/watchers-1.json"
    unserve
}

row_idle() {
    serve 1 0
    local before after
    before=$(cpu_ns "$server")
    sleep 10 # Idle time is what is measured.
    after=$(cpu_ns "$server")
    echo "{\"cpu_ns_per_s\":$(((after - before) / 10))}" >"$out/idle-1.json"
    unserve
}

{
    echo "date: $(date -u +%F)"
    echo "commit: $(git rev-parse --short HEAD 2>/dev/null || echo unknown)"
    echo "kernel: $(uname -r)"
    echo "cpu: $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n 1), $(nproc) cores"
    echo "rustc: $(rustc --version)"
    echo "redis: $(redis-server --version 2>/dev/null || echo none)"
    echo "load: $(cut -d' ' -f1-3 /proc/loadavg)"
    echo "command: perf/measure.sh, $rounds rounds of $seconds s"
} >"$out/machine.txt"
for row in "${rows[@]}"; do
    echo "$row ..." >&2
    "row_$row"
done
