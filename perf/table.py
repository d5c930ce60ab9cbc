#!/usr/bin/env python3
"""Medians of what perf/measure.sh wrote: perf/table.py OUTPUT_DIR prints the README's table."""

import json
import pathlib
import statistics
import sys

directory = pathlib.Path(sys.argv[1])


def reports(prefix):
    found = sorted(directory.glob(f"{prefix}-[0-9]*.json"))
    return [json.loads(path.read_text()) for path in found if path.stat().st_size]


def median(prefix, *path):
    values = []
    for report in reports(prefix):
        for key in path:
            report = report[key]
        values.append(report)
    return statistics.median(values) if values else None


def million(value):
    return "not measured" if value is None else f"{value / 1e6:.2f} M"


def row(what, bar, measured):
    print(f"| {what} | {bar} | {measured} |")


print("| what | bar | measured |")
print("|---|---|---|")
per_cpu = ("server", "ops_per_cpu_s")
row("native query, frames of 64, 8 in flight, 16 connections, 1 M names",
    "8 M per server CPU second", million(median("query", *per_cpu)))
row("register and release, the same way", "4 M", million(median("churn", *per_cpu)))
row("query at 100 M names", "half of the above", million(median("query100", *per_cpu)))
row("register and release at 100 M names", "half of the above", million(median("churn100", *per_cpu)))
for count in (10, 30, 70, 100):
    for fill in reports(f"fill{count}"):
        steps = [fill] if "steps" not in fill else fill["steps"]
        for step in steps:
            print(f"<!-- fill{count}: {json.dumps(step)[:600]} -->")
for pipeline, bar in ((1, 1.35), (16, 1.7), (32, 2)):
    for report in reports(f"resp{pipeline}"):
        print(f"<!-- resp{pipeline}: {json.dumps({k: v for k, v in report.items() if k != 'runs'})[:900]} -->")
for pipeline in (1, 16):
    ours, theirs = f"bench{pipeline}-ringway", f"bench{pipeline}-redis"
    if reports(ours):
        wall = median(ours, "rate") / median(theirs, "rate")
        cpu = median(ours, "cpu_ns_per_op") / median(theirs, "cpu_ns_per_op")
        bar = "wall 0.97 times, CPU 0.75 times" if pipeline == 1 else "wall 1.1 times, CPU 0.75 times"
        row(f"redis-benchmark -P {pipeline}", bar, f"wall {wall:.2f} times, CPU {cpu:.2f} times")
one, two = median("forwarded-one", "server", "cpu_us_per_op"), median("forwarded-two", "server", "cpu_us_per_op")
if one and two:
    row("two shards, half of the requests forwarded", "1.4 times the CPU", f"{two / one:.2f} times")
share = median("gateway", "server_cpu_share")
if share is not None:
    row("100 connections x 1000 sessions, 1 s leases", "5 % of a core", f"{share * 100:.1f} %")
    row("bytes a session", "512", f"{median('gateway', 'server_bytes_per_session'):.0f}")
share = median("own", "server_cpu_share")
if share is not None:
    count = median("own", "sessions")
    row(f"{count:.0f} sessions on own connections, 10 000 renewals a second", "5 % of a core", f"{share * 100:.1f} %")
    row("bytes a session on its own connection", "512", f"{median('own', 'server_bytes_per_session'):.0f}")
if reports("sweep"):
    def micros(when):
        keys = ("p50_us", "p99_us", "p999_us", "max_us")
        return " / ".join(f"{median('sweep', when, 'latency', key):.0f}" for key in keys)
    row("single queries, 20 000/s, while 1 M names of a dead session are swept: "
        "p50 / p99 / p99.9 / max", "others do not stall",
        f"{micros('during')} us (calm {micros('calm')}); worst turn "
        f"{median('sweep', 'worst_turn_ms'):.2f} ms, all free after {median('sweep', 'free_ms'):.1f} ms, "
        f"swept after {median('sweep', 'swept_ms'):.0f} ms")
for count in (10, 30, 70, 100):
    turn = [step["worst_turn_ms"] for fill in reports(f"fill{count}") for step in fill.get("steps", [])
            if step["step"] == "fill" and step.get("worst_turn_ms") is not None]
    if turn:
        row(f"worst turn during the fresh fill of {count} M names", "stated", f"{max(turn):.2f} ms")
idle = median("idle", "cpu_ns_per_s")
if idle is not None:
    row("idle server", "no measurable CPU", f"{idle / 1e7:.3f} % of a core")
