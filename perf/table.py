#!/usr/bin/env python3
"""The README's table of what was measured: perf/table.py DIR, which perf/measure.sh wrote.

Every row is printed, with medians where there are several rounds. A row without its reports says
which row of perf/measure.sh would make them, and what is short of its bar is called so. Reports
with answers that were not expected, or that were stopped early, are named behind the table.
"""

import json
import pathlib
import statistics
import sys

COUNTS = (10, 30, 70, 100)  # Millions of names.


class Missing(Exception):
    """No report has what a row needs: the row of perf/measure.sh, and what else is to be said."""

    def __init__(self, row, why=""):
        super().__init__(row + why)
        self.row = row


class Results:
    """The reports of one directory."""

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.doubtful = []

    def reports(self, prefix):
        """All rounds of a row; those that are empty or cut off are doubtful."""
        found = []
        for path in sorted(self.directory.glob(f"{prefix}-[0-9]*.json")):
            try:
                found.append(json.loads(path.read_text()))
                self.doubt(path.name, found[-1])
            except ValueError:
                self.doubtful.append(f"{path.name} is no whole report")
        return found

    def doubt(self, name, report):
        """Notes what makes a report doubtful, at any depth."""
        if isinstance(report, list):
            for part in report:
                self.doubt(name, part)
        if not isinstance(report, dict):
            return
        for key, value in report.items():
            if key in ("unexpected", "unsent", "unanswered") and value:
                self.doubtful.append(f"{name}: {value} {key}")
            elif key == "stopped" and value:
                self.doubtful.append(f"{name} was stopped early")
            else:
                self.doubt(name, value)

    def values(self, prefix, row, *paths, of=statistics.median):
        """The median over all rounds of each of some values, which stand at these paths."""
        reports = self.reports(prefix)
        if not reports:
            raise Missing(row)
        found = []
        for path in paths:
            values = [value for value in (at(report, path) for report in reports)
                      if value is not None]
            if not values:
                raise Missing(row, f", since its reports have no {path}")
            found.append(of(values))
        return found

    def step(self, prefix, row, name, *keys):
        """Values of one step of a fill; those that older reports lack are None."""
        for report in self.reports(prefix):
            for step in report.get("steps", []):
                if step["step"] == name:
                    return [step.get(key) for key in keys]
        raise Missing(row)


def at(report, path):
    for key in path.split("."):
        report = report.get(key) if isinstance(report, dict) else None
    return report


def million(value):
    return f"{value / 1e6:.2f} M"


def verdict(reached, text):
    return f"**{text}**" if reached else f"{text} (not reached)"


def rate(row, bar):
    def measured(results):
        (found,) = results.values(row, row, "server.ops_per_cpu_s")
        return verdict(found >= bar, million(found))
    return measured


def at_100m(prefix, small):
    def measured(results):
        (large,) = results.values(prefix, "large", "server.ops_per_cpu_s")
        (usual,) = results.values(small, small, "server.ops_per_cpu_s")
        return verdict(large >= usual / 2, f"{million(large)}, {large / usual:.2f} times")
    return measured


def fill(count):
    def measured(results):
        row = f"fill{count}"
        cpu, wall, turn = results.step(
            row, row, "fill", "ops_per_cpu_s", "ops_per_s", "worst_turn_ms")
        turn = "not reported" if turn is None else f"{turn:.1f} ms"
        return (verdict(cpu >= 2e6, f"{million(cpu)} per server CPU second")
                + f", {million(wall)}/s on the wall, worst turn {turn}")
    return measured


def bytes_a_name(count):
    def measured(results):
        row, texts = f"fill{count}", []
        for step, words in (("fill", "fresh"), ("churn", "half churned")):
            table, resident = results.step(
                row, row, step, "table_bytes_per_name", "rss_bytes_per_name")
            text = f"{words} {table:.1f}, resident {resident:.1f}"
            texts.append(verdict(max(table, resident) <= 48, text))
        return "; ".join(texts)
    return measured


def resp(pipeline, bar):
    def measured(results):
        row = f"resp{pipeline}"
        keys = ("ratio_min", "ratio_max", "a", "b")
        low, high, ours, theirs = results.values(
            row, row, *(f"ops_per_cpu_s.{key}" for key in keys))
        # Sides that ran together are compared, then the middle is taken.
        (report,) = results.reports(row)
        rounds = zip(report["a"], report["b"])
        ratio = statistics.median(
            a["server"]["ops_per_cpu_s"] / b["server"]["ops_per_cpu_s"] for a, b in rounds)
        return (verdict(ratio >= bar, f"{ratio:.2f} times")
                + f", {million(ours)} beside {million(theirs)}; rounds {low:.2f} to {high:.2f}")
    return measured


def benchmark(pipeline, bar):
    def measured(results):
        (rate_ours, cpu_ours), (rate_theirs, cpu_theirs) = (
            results.values(f"bench{pipeline}-{who}", "bench", "rate", "cpu_ns_per_op")
            for who in ("ringway", "redis"))
        wall, cpu = rate_ours / rate_theirs, cpu_ours / cpu_theirs
        return (verdict(wall >= bar, f"wall {wall:.2f} times") + ", "
                + verdict(cpu <= 0.75, f"CPU {cpu:.2f} times"))
    return measured


def claims(results):
    keys = ("ops_per_cpu_s", "rss_bytes_per_name")
    ours, ours_bytes = results.step("memory-ringway", "memory", "fill", *keys)
    theirs, theirs_bytes = results.step("memory-redis", "memory", "fill", *keys)
    speed, size = ours / theirs, ours_bytes / theirs_bytes
    return (verdict(speed >= 2.5, f"{speed:.2f} times") + ", bytes "
            + verdict(size <= 0.4, f"{size:.2f} times")
            + f", {ours_bytes:.1f} beside {theirs_bytes:.1f}")


def forwarded(results):
    path = "server.cpu_us_per_op"
    (one,) = results.values("forwarded-one", "forwarded", path)
    (two,) = results.values("forwarded-two", "forwarded", path)
    return verdict(two / one <= 1.4, f"{two / one:.2f} times")


def sessions(row):
    def measured(results):
        share, count, renewals, window = results.values(
            row, row, "server_cpu_share", "sessions", "renewals", "window_s")
        fewer = "" if count >= 100_000 else "; the bar is for 100000"
        return (verdict(share <= 0.05, f"{share * 100:.1f} % of a core")
                + f", {count:.0f} sessions at {renewals / window:.0f} renewals a second{fewer}")
    return measured


def session_bytes(row):
    def measured(results):
        # Later rounds find the memory of earlier ones: the most is what a session costs.
        ours, kernel, connections, count = results.values(
            row, row, "server_bytes_per_session", "kernel_bytes_per_connection",
            "spec.connections", "sessions", of=max)
        kernel = kernel * connections / count
        return verdict(ours <= 512, f"{ours:.0f}") + f", and the kernel's {kernel:.0f}"
    return measured


def latency(results):
    ours, theirs, ours_p50, theirs_p50, done, done_theirs = results.values(
        "latency", "latency",
        "p99_us.a", "p99_us.b", "p50_us.a", "p50_us.b", "ops_per_s.a", "ops_per_s.b")
    text = verdict(ours < theirs, f"{ours:.0f} us beside {theirs:.0f} us")
    text += f", p50 {ours_p50:.0f} and {theirs_p50:.0f}, at {done:.0f}/s"
    try:
        most, most_theirs = results.values(
            "latency-maxima", "latency", "ops_per_s.a", "ops_per_s.b")
    except Missing:
        return text + "; the maxima were not recorded: whether that is half of ours is not known"
    text += f"; the maxima are {most:.0f} and {most_theirs:.0f}"
    if done_theirs < 0.99 * done:
        text += f"; Redis did not keep up, it answered {done_theirs:.0f}/s"
    return text


def sweep(results):
    def micros(when):
        keys = ("p50_us", "p99_us", "p999_us", "max_us")
        found = results.values("sweep", "sweep", *(f"{when}.latency.{key}" for key in keys))
        return " / ".join(f"{value:.0f}" for value in found)
    turn, free, swept = results.values("sweep", "sweep", "worst_turn_ms", "free_ms", "swept_ms")
    return (f"{micros('during')} us (calm {micros('calm')}); worst turn {turn:.2f} ms, "
            f"all free after {free:.1f} ms, swept after {swept:.0f} ms")


def messages(prefix, bar=None):
    def measured(results):
        paths = ("server.ops_per_cpu_s", "messages_per_s", "latency.p50_us", "latency.p99_us")
        found, wall, p50, p99 = results.values(prefix, "messages", *paths)
        text = million(found) if bar is None else verdict(found >= bar, million(found))
        return f"{text} per server CPU second, {million(wall)}/s, p50 {p50:.0f}, p99 {p99:.0f} us"
    return measured


def watchers(results):
    (count,) = results.values("watchers", "watchers", "spec.watchers")
    def millis(who):
        keys = ("p50_us", "p90_us", "max_us")
        found = results.values("watchers", "watchers", *(f"{who}.all.{key}" for key in keys))
        return " / ".join(f"{value / 1e3:.0f}" for value in found)
    ratio, told, kept = results.values(
        "watchers", "watchers", "ratio", "unread_told_bytes", "unread_kept_bytes")
    fewer = "" if count >= 10_000 else f"; {count:.0f} watchers"
    return (f"{millis('calm')} ms, with it {millis('stuck')} ms, "
            + verdict(ratio <= 1.05, f"{ratio:.2f} times")
            + f"; it was told {told / 1e6:.0f} MB, the server keeps {kept / 1024:.0f} KiB{fewer}")


def idle(results):
    (cpu,) = results.values("idle", "idle", "cpu_ns_per_s")
    # Less than a thousandth of a core is the kernel's timer, not ours.
    return verdict(cpu < 1e6, f"{cpu / 1e7:.3f} % of a core")


CORE = "5 % of a core"
ROWS = [
    ("native query, frames of 64, 8 in flight, 16 connections, 1 M names",
     "8 M per server CPU second (goal 10)", rate("query", 8e6)),
    ("register and release, the same way", "4 M (goal 6)", rate("churn", 4e6)),
    *((f"fresh fill of {count} M names", "2 M/s, worst turn stated", fill(count))
      for count in COUNTS),
    ("query at 100 M names", "half of the above", at_100m("query100", "query")),
    ("register and release at 100 M names", "half of the above", at_100m("churn100", "churn")),
    *((f"bytes a name at {count} M, all tables", "48 (goal 40 when fresh)", bytes_a_name(count))
      for count in COUNTS),
    *((f"`PORT.QUERY` against Redis `GET`, per server CPU second, pipeline {pipeline}",
       f"{bar} times", resp(pipeline, bar)) for pipeline, bar in ((1, 1.35), (16, 1.7), (32, 2))),
    *((f"the same with redis-benchmark `-P {pipeline}`",
       f"wall {bar} times, CPU an op 0.75 times", benchmark(pipeline, bar))
      for pipeline, bar in ((1, 0.97), (16, 1.1))),
    ("`PORT.REGISTER` of fresh names against `SET NX`, per server CPU second, pipeline 16",
     "2.5 times; bytes a name 0.4 times", claims),
    ("two shards, half of the requests forwarded: server CPU per op", "1.4 times the local one",
     forwarded),
    ("100 connections x 1000 sessions, 1 s leases, batched renewal", CORE, sessions("gateway")),
    ("bytes a session of those", "512", session_bytes("gateway")),
    ("sessions on own connections, 30 s leases renewed at 10 s", CORE, sessions("own")),
    ("bytes a session of those", "512, the kernel's stated", session_bytes("own")),
    ("p99 of single queries at half of the unpipelined maximum, open loop",
     "below Redis's at the same rate", latency),
    ("single queries, 20 000/s, while 1 M names of a dead session are swept: "
     "p50 / p99 / p99.9 / max", "others do not stall", sweep),
    ("messages of 64 bytes, name to name, frames of 64, each checked", "3 M per server CPU second",
     messages("message", 3e6)),
    ("the same with receipts", "stated", messages("message-receipt")),
    ("the same, fenced", "stated", messages("message-fenced")),
    ("until 10 000 watchers on own connections heard a change: p50 / p90 / max; "
     "with one more that never reads", "nobody is delayed", watchers),
    ("idle server", "no measurable CPU", idle),
]


def main():
    if len(sys.argv) != 2 or not pathlib.Path(sys.argv[1]).is_dir():
        sys.exit(__doc__)
    results, missing = Results(sys.argv[1]), []
    print("| what | bar | measured |")
    print("|---|---|---|")
    for what, bar, measure in ROWS:
        try:
            measured = measure(results)
        except Missing as why:
            missing.append(why.row)
            measured = f"not measured (perf/measure.sh, row {why})"
        print(f"| {what} | {bar} | {measured} |")
    if missing:
        print(f"\nNot measured: perf/measure.sh DIR {' '.join(dict.fromkeys(missing))}")
    if results.doubtful:
        print("\nDoubtful: " + "; ".join(dict.fromkeys(results.doubtful)))


main()
