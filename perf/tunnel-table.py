#!/usr/bin/env python3
"""What was measured beside rivals, as tables: perf/tunnel-table.py DIR, which perf/tunnel.py wrote.

The first table holds what the tunnel has to reach; what is short of its bar is called so. A row of
it without reports says which row of perf/tunnel.py would make them. Behind it stands a table for
each row with all contestants: medians, with the least and the most of the rounds in brackets.
A ratio compares runs of the same round, then takes the middle; two plain relays and no tunnel at
all are references, not rivals. Runs that the machine disturbed are named at the end.
"""

import json
import pathlib
import statistics
import sys

OURS = "ringway"
RELAYS, DIRECT = ("relays", "relays-splice"), "direct"
RTT_MS = 40
# Of one core's time, what others may take, and of the line's packets, what may come out late.
OTHERS_MAX, LATE_MAX = 0.1, 0.01
NAMED_MAX = 5


class Missing(Exception):
    """A contestant has no reports for a row."""


class Results:
    """The reports of one directory: by row, by contestant, by round."""

    def __init__(self, directory):
        self.rows, self.doubts, self.broken = {}, {}, []
        for path in sorted(pathlib.Path(directory).glob("*-[0-9]*.json")):
            try:
                report = json.loads(path.read_text())
                who, number = report["contestant"], report["round"]
                self.rows.setdefault(report["row"], {}).setdefault(who, {})[number] = report
            except (ValueError, KeyError):
                self.broken.append(path.name)
                continue
            self.doubt(path.name, report)

    def doubt(self, name, report):
        others = report["others_cpu_s"] / report["wall_s"]
        if others > OTHERS_MAX:
            self.doubts.setdefault("per cent of a core that others took", []).append(
                (others * 100, name))
        for way, count in report.get("emulator", {}).items():
            # Reports from before `ringway wan link` have another name for those that arrived.
            arrived = count.get("arrived", count.get("packets", 0))
            late = count["late_1ms"] / max(1, arrived)
            if late > LATE_MAX:
                self.doubts.setdefault(f"per cent of the packets {way} that came late", []).append(
                    (late * 100, name))
            if own := count["refused"] + count["device_dropped"] + count.get("no_memory", 0):
                self.doubts.setdefault(f"packets {way} that the emulator lost itself", []).append(
                    (own, name))

    def doubtful(self):
        """Why which runs may say little, the worst first."""
        for why, runs in self.doubts.items():
            runs = sorted(runs, reverse=True)
            named = ", ".join(f"{name} {much:.0f}" for much, name in runs[:NAMED_MAX])
            more = f" and {len(runs) - NAMED_MAX} more" if len(runs) > NAMED_MAX else ""
            yield f"{why}: {named}{more}"

    def contestants(self, row):
        return self.rows.get(row, {})

    def values(self, row, who, path):
        """A value of each round of a contestant, by round."""
        reports = self.contestants(row).get(who)
        if not reports:
            raise Missing(who)
        return {number: at(report, path) for number, report in reports.items()}

    def median(self, row, who, path):
        return statistics.median(self.values(row, who, path).values())

    def spread(self, row, who, path, text="{:.2f}"):
        found = sorted(self.values(row, who, path).values())
        middle, low, high = (text.format(part) for part in (
            statistics.median(found), found[0], found[-1]))
        return f"{middle} ({low} to {high})"

    def best_rival(self, row, path):
        rivals = [who for who, reports in self.contestants(row).items()
                  if all(report["rival"] for report in reports.values())]
        return self.best(row, path, rivals, "any rival")

    def best(self, row, path, among, words):
        """The contestant with the highest median."""
        there = [who for who in among if who in self.contestants(row)]
        if not there:
            raise Missing(words)
        return max(there, key=lambda who: self.median(row, who, path))

    def against(self, row, who, other, path):
        """The ratios of runs of the same round."""
        ours, theirs = self.values(row, who, path), self.values(row, other, path)
        ratios = sorted(ours[number] / theirs[number] for number in ours.keys() & theirs.keys())
        if not ratios:
            raise Missing(f"a round of {who} and {other}")
        return ratios


def at(report, path):
    for key in path.split("."):
        report = report[key]
    return report


def verdict(reached, text):
    return f"**{text}**" if reached else f"{text} (not reached)"


def ratio_text(ratios):
    return f"{statistics.median(ratios):.2f} times ({ratios[0]:.2f} to {ratios[-1]:.2f})"


def against_rivals(row, path, bar):
    def measured(results):
        best = results.best_rival(row, path)
        ratios = results.against(row, OURS, best, path)
        return (verdict(statistics.median(ratios) >= bar, ratio_text(ratios))
                + f" the best rival, {best}")
    return measured


def against_relays(row):
    def measured(results):
        best = results.best(row, "gbit_s", RELAYS, "plain relays")
        ratios = results.against(row, OURS, best, "gbit_s")
        return verdict(statistics.median(ratios) >= 0.9, ratio_text(ratios)) + f", {best}"
    return measured


def by_udp(row, bar):
    def measured(results):
        ratios = results.against(row, "ringway-udp", OURS, "gbit_s")
        return verdict(statistics.median(ratios) >= bar, ratio_text(ratios)) + " carriers over TCP"
    return measured


def cpu(row):
    def measured(results):
        found = results.median(row, OURS, "cpu_s_per_gb")
        return verdict(found <= 0.9, f"{found:.2f}")
    return measured


def added(row):
    def measured(results):
        texts = []
        for key in ("p50_ms", "p99_ms"):
            ours, bare = (results.median(row, who, key) for who in (OURS, DIRECT))
            texts.append(f"{ours - bare:.2f} ms")
        return " and ".join(texts)
    return measured


def beside(results):
    busy, calm = (results.median(row, OURS, "p99_ms") for row in ("redis-beside", "redis"))
    return verdict(busy <= 3 * calm, f"{busy / calm:.2f} times") + f", {busy:.2f} ms"


def link(row):
    def measured(results):
        p99, bulk = (results.median(row, OURS, key) for key in ("beside.p99_ms", "bulk_gbit_s"))
        bar = RTT_MS + 20
        return verdict(p99 <= bar, f"{p99:.1f} ms") + f", bulk at {bulk * 1e3:.0f} Mbit/s"
    return measured


BARS = [
    *((f"{what}, against rivals", "1.15 times (goal 1.3)", row,
       against_rivals(row, "gbit_s", 1.15))
      for what, row in (("one connection", "single"), ("100 connections", "hundred"))),
    *((f"{what}, against the better two plain relays", "0.9 times", row, against_relays(row))
      for what, row in (("one connection", "single"), ("100 connections", "hundred"))),
    *((f"{what}, near and far, CPU seconds a GB", "0.9", row, cpu(row))
      for what, row in (("one connection", "single"), ("100 connections", "hundred"))),
    ("redis-benchmark -P 1 -c 50, requests/s", "more than through any rival", "redis",
     against_rivals("redis", "requests_per_s", 1.0)),
    ("its p50 and p99 above those without a tunnel", "stated", "redis", added("redis")),
    ("its p99 beside a saturating iperf3", "3 times", "redis-beside", beside),
    *((f"64 bytes there and back beside bulk, 200 Mbit/s and 40 ms, {control}: p99",
       "60 ms", f"link-{control}", link(f"link-{control}")) for control in ("cubic", "bbr")),
    *((f"one connection by carriers over UDP, loopback with an MTU of {mtu}", f"{bar} times",
       f"udp-{mtu}", by_udp(f"udp-{mtu}", bar)) for mtu, bar in ((1500, 0.9), (9000, 1.0))),
]


def rate_columns(results, row, who):
    gbit = results.median(row, who, "gbit_s")
    near, far = (results.median(row, who, f"{side}_cpu_s")
                 / results.median(row, who, "gigabytes") for side in ("near", "far"))
    return [results.spread(row, who, "gbit_s"), f"{gbit / 8:.2f}",
            results.spread(row, who, "cpu_s_per_gb"), f"{near:.2f} and {far:.2f}"]


def request_columns(results, row, who):
    cells = [results.spread(row, who, "requests_per_s", "{:.0f}"),
             results.spread(row, who, "p50_ms"), results.spread(row, who, "p99_ms")]
    try:
        cells += [f"{results.median(row, who, key) - results.median(row, DIRECT, key):.2f}"
                  for key in ("p50_ms", "p99_ms")]
    except Missing:
        cells += ["", ""]
    return cells


def beside_columns(results, row, who):
    cells = [*request_columns(results, row, who)[:3],
             results.spread(row, who, "bulk_gbit_s")]
    try:
        ratio = results.median(row, who, "p99_ms") / results.median("redis", who, "p99_ms")
        return [*cells, f"{ratio:.1f}"]
    except Missing:
        return [*cells, ""]


def link_columns(results, row, who):
    return [*(results.spread(row, who, f"beside.{key}_ms", "{:.1f}") for key in ("p50", "p99")),
            results.spread(row, who, "idle.p50_ms", "{:.1f}"),
            f"{results.median(row, who, 'bulk_gbit_s') * 1e3:.0f}"]


LINK_HEAD = ["p50 ms", "p99 ms", "p50 ms without bulk", "bulk Mbit/s"]
RATE_HEAD = ["Gbit/s", "GB/s", "CPU s a GB", "near and far"]
TABLES = {
    "single": ("One connection", "gbit_s", RATE_HEAD, rate_columns),
    "hundred": ("100 connections", "gbit_s", RATE_HEAD, rate_columns),
    "redis": ("redis-benchmark -P 1 -c 50", "requests_per_s",
              ["requests/s", "p50 ms", "p99 ms", "added p50", "added p99"], request_columns),
    "redis-beside": ("The same beside a saturating iperf3", "requests_per_s",
                     ["requests/s", "p50 ms", "p99 ms", "bulk Gbit/s", "p99, times that alone"],
                     beside_columns),
    "udp-1500": ("One connection over a loopback with an MTU of 1500", "gbit_s", RATE_HEAD,
                 rate_columns),
    "udp-9000": ("The same with an MTU of 9000", "gbit_s", RATE_HEAD, rate_columns),
    "link-cubic": ("64 bytes there and back beside bulk, 200 Mbit/s, 40 ms, CUBIC", None,
                   LINK_HEAD, link_columns),
    "link-bbr": ("64 bytes there and back beside bulk, 200 Mbit/s, 40 ms, BBR", None,
                 LINK_HEAD, link_columns),
}


def line(cells):
    print(f"| {' | '.join(cells)} |")


def row_table(results, row):
    title, path, head, columns = TABLES[row]
    # The rival that the first table names is the one that all are compared with here.
    try:
        best = results.best_rival(row, path) if path else None
    except Missing:
        best = None
    print(f"\n{title}\n")
    head = ["contestant", *head, *([f"against {best}"] if best else [])]
    line(head)
    line(["---"] * len(head))
    for who in results.contestants(row):
        cells = [who, *columns(results, row, who)]
        if best:
            try:
                cells.append(ratio_text(results.against(row, who, best, path)))
            except Missing:
                cells.append("")
        line(cells)


def main():
    if len(sys.argv) != 2 or not pathlib.Path(sys.argv[1]).is_dir():
        sys.exit(__doc__)
    results, missing = Results(sys.argv[1]), []
    line(["what", "bar", "measured"])
    line(["---"] * 3)
    for what, bar, row, measure in BARS:
        try:
            measured = measure(results)
        except Missing as who:
            name = "link" if row.startswith("link") else row
            missing.append(name)
            measured = f"not measured (perf/tunnel.py, row {name}, lacks {who})"
        line([what, bar, measured])
    for row in TABLES:
        if results.contestants(row):
            row_table(results, row)
    if missing:
        print(f"\nNot measured: perf/tunnel.py DIR {' '.join(dict.fromkeys(missing))}")
    if results.broken:
        print(f"\nNo whole reports: {', '.join(results.broken)}")
    for doubt in results.doubtful():
        print(f"\nDoubtful: {doubt}")


main()
