#!/usr/bin/env python3
"""Measures the tunnel beside its rivals on this machine and keeps a raw report of every run.

    perf/tunnel.py OUTPUT_DIR [ROW ...]     rows: single hundred redis redis-beside link udp

The client and the near side run on core 0, the far side and the service on core 1, the same for
all contestants (perf/rivals.py says how each is tuned). In every round each contestant runs once,
with processes of its own. Each run writes OUTPUT_DIR/ROW-CONTESTANT-N.json; the medians are
`perf/tunnel-table.py OUTPUT_DIR`.

Needs two idle cores, iperf3, redis-server with redis-benchmark, and whichever rivals there are:
on Debian stunnel4, haproxy, spiped, openssh-server; shadowsocks-rust from crates.io. A contestant
whose program is missing is skipped, and machine.txt says so. The row `link` needs root and
/dev/net/tun (perf/link.py). The row `udp` is of ours alone, by carriers over UDP and over TCP, on a
loopback of its own with the MTU of a network, and needs root.

SECONDS_PER_RUN=10, LINK_SECONDS=20, ROUNDS=5, CONTESTANTS="direct ringway ...",
RINGWAY_BIN=target/release/ringway
"""

import csv
import datetime
import json
import os
import pathlib
import platform
import re
import signal
import statistics
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True  # The working tree stays as it was.

from link import CONTROLS, linked, narrowed
from rivals import CONTESTANTS, LOOPBACK, RINGWAY, RINGWAY_UDP, find
from stage import Broken, Ground, Meter, Stage, until

SECONDS = float(os.environ.get("SECONDS_PER_RUN", 10))
LINK_SECONDS = float(os.environ.get("LINK_SECONDS", 20))
ROUNDS = int(os.environ.get("ROUNDS", 5))
HERE = pathlib.Path(__file__).parent
GRACE_S = 60  # For what a client does before and after the time that it measures.
REDIS_CLIENTS = 50
REDIS_TRIED = 2000
# The first requests of connections wait until the tunnel has opened those, which for TLS beside
# bulk takes seconds: they have to stay behind the p99.
REDIS_COUNT_MIN = 200 * REDIS_CLIENTS
# More flows than one make more round trips to judge from: 40 ms each allow only 25 a second.
PING_FLOWS = 8
UDP_MTUS = (1500, 9000)
IDLE_S = 3
SETTLE_S = 5


def iperf_server(stage):
    """A receiver; its port, its process. It says every second how much came."""
    port = stage.port()
    return port, stage.service(
        ["iperf3", "-s", "-p", port, "-i", 1, "-f", "k", "--forceflush"], "iperf3-server", port)


def iperf(stage, address, connections):
    """Sends for a while; what the receiver says that it got."""
    host, port = address
    said = json.loads(stage.run(
        stage.ground.near,
        ["iperf3", "-c", host, "-p", port, "-t", SECONDS, "-P", connections, "-J"],
        "iperf3", SECONDS + GRACE_S))
    if "error" in said:
        raise Broken(f"iperf3: {said['error']}")
    end = said["end"]
    streams = sorted(stream["receiver"]["bytes"] for stream in end["streams"])
    return {
        "sum_received": end["sum_received"], "sum_sent": end["sum_sent"],
        "cpu_utilization_percent": end["cpu_utilization_percent"],
        "interval_bits_per_second": [
            part["sum"]["bits_per_second"] for part in said["intervals"]],
        "stream_bytes": {"min": streams[0], "median": statistics.median(streams),
                         "max": streams[-1]},
    }


def throughput(contestant, stage, connections):
    port, server = iperf_server(stage)
    (address,) = contestant.start(stage, [port])
    meter = Meter(stage, [server.pid])
    report = iperf(stage, address, connections)
    spent, received = meter.spent(), report["sum_received"]
    gigabytes = received["bytes"] / 1e9
    return {
        "gbit_s": received["bits_per_second"] / 1e9, "gigabytes": gigabytes,
        "cpu_s_per_gb": (spent["near_cpu_s"] + spent["far_cpu_s"]) / gigabytes,
        **spent, "iperf3": report,
    }


class Bulk:
    """One connection that sends all it can until it is stopped."""

    def __init__(self, stage, server, address):
        self.server = server
        host, port = address
        self.client = stage.start(
            stage.ground.near, ["iperf3", "-c", host, "-p", port, "-t", 3600], "iperf3")
        self.mark = 0

    def seconds(self):
        """What came in each whole second, in bit/s."""
        said = self.server.log.read_text()
        return [float(rate) * 1e3 for rate in
                re.findall(r"-\d+\.\d+ +sec .* ([\d.]+) Kbits/sec *$", said, re.MULTILINE)]

    def settle(self, seconds):
        """Waits until it has been received for so long, and notes where the run begins."""
        until(lambda: len(self.seconds()) >= seconds, self.client, "the bulk flow",
              limit_s=seconds + GRACE_S)
        self.mark = len(self.seconds())

    def gbit_s(self):
        """What came since then, without the second in which it began."""
        until(lambda: len(self.seconds()) > self.mark + 1, self.client, "the bulk flow to go on")
        return statistics.mean(self.seconds()[self.mark + 1:]) / 1e9


def redis_server(stage):
    port = stage.port()
    return port, stage.service(
        ["redis-server", "--port", port, "--bind", LOOPBACK, "--save", "", "--appendonly", "no",
         "--dir", stage.directory], "redis-server", port)


def redis_benchmark(stage, address, count):
    """SET, then GET, so often each; requests/s and latencies by command."""
    host, port = address
    said = stage.run(
        stage.ground.near,
        ["redis-benchmark", "-h", host, "-p", port, "-P", 1, "-c", REDIS_CLIENTS, "-t", "get,set",
         "-n", count, "--csv"], "redis-benchmark", SECONDS * 6 + 2 * GRACE_S)
    found = {row["test"].lower(): {key: float(value) for key, value in row.items()
                                   if key != "test"}
             for row in csv.DictReader(said.splitlines())}
    if set(found) != {"get", "set"}:
        raise Broken(f"redis-benchmark answered: {said}")
    return found


def requests(contestant, stage, beside):
    """As many requests as fill the time at the rate that a short run of it finds."""
    redis_port, redis = redis_server(stage)
    sink_port, sink = iperf_server(stage)
    sink_at, redis_at = contestant.start(stage, [sink_port, redis_port])
    bulk = Bulk(stage, sink, sink_at) if beside else None
    if bulk:
        bulk.settle(2)
    # Clients that wait for one answer each: their number by the latency is the rate that counts.
    first = redis_benchmark(stage, redis_at, REDIS_TRIED)
    rate = REDIS_CLIENTS / statistics.mean(part["p50_latency_ms"] / 1e3 for part in first.values())
    count = max(REDIS_COUNT_MIN, int(rate * SECONDS / 2))
    if bulk:
        bulk.settle(0)
    meter = Meter(stage, [redis.pid, sink.pid])
    found = redis_benchmark(stage, redis_at, count)
    spent = meter.spent()
    report = {
        # Of both commands together, as if they had come in turns.
        "requests_per_s": statistics.harmonic_mean(part["rps"] for part in found.values()),
        "p50_ms": statistics.mean(part["p50_latency_ms"] for part in found.values()),
        "p99_ms": max(part["p99_latency_ms"] for part in found.values()),
        "count": 2 * count, **spent, "commands": found,
    }
    return {**report, "bulk_gbit_s": bulk.gbit_s()} if bulk else report


def pingpong(stage, address, seconds):
    host, port = address
    return json.loads(stage.run(
        stage.ground.near,
        [sys.executable, HERE / "pingpong.py", "client", host, port, seconds, PING_FLOWS],
        "pingpong", seconds + GRACE_S))


def ping_beside_bulk(contestant, stage):
    echo_port = stage.port()
    sink_port, sink = iperf_server(stage)
    echo = stage.service([sys.executable, HERE / "pingpong.py", "echo", "0.0.0.0", echo_port],
                         "echo", echo_port)
    sink_at, echo_at = contestant.start(stage, [sink_port, echo_port])
    idle = pingpong(stage, echo_at, IDLE_S)
    bulk = Bulk(stage, sink, sink_at)
    bulk.settle(SETTLE_S)
    before = stage.ground.emulator.counted()
    meter = Meter(stage, [sink.pid, echo.pid])
    beside = pingpong(stage, echo_at, LINK_SECONDS)
    spent = meter.spent()
    return {"idle": idle, "beside": beside, "bulk_gbit_s": bulk.gbit_s(), **spent,
            "emulator": stage.ground.emulator.counted(since=before)}


def row_single(out, contestants):
    rounds(out, "single", contestants, lambda who, stage: throughput(who, stage, 1))


def row_hundred(out, contestants):
    rounds(out, "hundred", contestants, lambda who, stage: throughput(who, stage, 100))


def row_redis(out, contestants):
    rounds(out, "redis", contestants, lambda who, stage: requests(who, stage, beside=False))


def row_redis_beside(out, contestants):
    rounds(out, "redis-beside", contestants, lambda who, stage: requests(who, stage, beside=True))


def row_link(out, contestants):
    """Once for each congestion control that senders may have: what fills the queue is theirs."""
    for control in CONTROLS:
        with linked(control) as ground:
            if ground:
                rounds(out, f"link-{control}", contestants, ping_beside_bulk, ground)


def row_udp(out, contestants):
    """Carriers over UDP beside those over TCP."""
    ours = [one for one in contestants if one.name == "ringway"]
    for mtu in UDP_MTUS:
        with narrowed(mtu) as ground:
            if ground and ours:
                rounds(out, f"udp-{mtu}", [*ours, RINGWAY_UDP],
                       lambda who, stage: throughput(who, stage, 1), ground)


class Output:
    """The directory of the reports, and one for what runs need, which goes when all is done."""

    def __init__(self, directory, scratch):
        self.directory, self.scratch = pathlib.Path(directory), pathlib.Path(scratch)
        self.failed = []
        self.directory.mkdir(parents=True, exist_ok=True)


def rounds(out, row, contestants, run, ground=None):
    """Every contestant once in each round: what the machine does meanwhile, it does to all."""
    for number in range(1, ROUNDS + 1):
        for contestant in contestants:
            print(f"{row} {contestant.name} {number} ...", file=sys.stderr, flush=True)
            try:
                with Stage(ground or Ground(), out.scratch) as stage:
                    report = run(contestant, stage)
            except Broken as why:
                out.failed.append(f"{row} {contestant.name} {number}: {why}")
                print(f"    failed: {why}", file=sys.stderr)
                continue
            report = {"row": row, "contestant": contestant.name, "rival": contestant.rival,
                      "round": number, **report}
            path = out.directory / f"{row}-{contestant.name}-{number}.json"
            path.write_text(json.dumps(report, indent=1) + "\n")


def first_line(*command):
    """What a program says that it is."""
    try:
        said = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        return "none"
    lines = (said.stdout + said.stderr).strip().splitlines()
    return lines[0] if lines else "unknown"


def machine(skipped, rows):
    cpu = re.search(r"^model name.*: (.*)$", pathlib.Path("/proc/cpuinfo").read_text(), re.M)
    control = pathlib.Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()
    lines = {
        "date": datetime.datetime.now(datetime.UTC).date(),
        "commit": first_line("git", "-C", HERE, "rev-parse", "--short", "HEAD"),
        "kernel": f"{platform.release()}, congestion control {control}",
        "cpu": f"{cpu[1] if cpu else 'unknown'}, {os.cpu_count()} cores",
        "iperf3": first_line("iperf3", "--version"),
        "redis": first_line("redis-server", "--version"),
        "openssl": first_line("openssl", "version"),
        "haproxy": first_line(find("haproxy") or "haproxy", "-v"),
        "stunnel": first_line("sh", "-c", "stunnel -version 2>&1 | grep ^stunnel"),
        "spiped": first_line("spiped", "-v"),
        "ssh": first_line("ssh", "-V"),
        "shadowsocks": first_line("ssserver", "--version"),
        "ringway": first_line(RINGWAY, "--version"),
        "skipped": "; ".join(f"{name} ({why})" for name, why in skipped) or "none",
        "load": " ".join(map(str, os.getloadavg())),
        "command": f"perf/tunnel.py, {ROUNDS} rounds of {SECONDS:g} s ({LINK_SECONDS:g} s of "
                   f"link), rows {' '.join(rows)}",
    }
    return "".join(f"{key}: {value}\n" for key, value in lines.items())


ROWS = {"single": row_single, "hundred": row_hundred, "redis": row_redis,
        "redis-beside": row_redis_beside, "link": row_link, "udp": row_udp}


def main():
    rows = sys.argv[2:] or list(ROWS)
    if len(sys.argv) < 2 or set(rows) - set(ROWS):
        sys.exit(__doc__)
    # Whatever ends us ends what we started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    wanted = os.environ.get("CONTESTANTS", " ".join(CONTESTANTS)).split()
    if unknown := set(wanted) - set(CONTESTANTS):
        sys.exit(f"no contestant {', '.join(unknown)}; there are {', '.join(CONTESTANTS)}")
    wanted = [CONTESTANTS[name] for name in wanted]
    skipped = [(one.name, why) for one in wanted if (why := one.lacks())]
    for name, why in skipped:
        print(f"{name} is skipped: {why}", file=sys.stderr)
    contestants = [one for one in wanted if one.name not in dict(skipped)]
    with tempfile.TemporaryDirectory(prefix="tunnel-perf-") as scratch:
        out = Output(sys.argv[1], scratch)
        (out.directory / "machine.txt").write_text(machine(skipped, rows))
        for row in rows:
            try:
                ROWS[row](out, contestants)
            except Broken as why:
                out.failed.append(f"{row}: {why}")
    if out.failed:
        sys.exit("These runs failed:\n" + "\n".join(out.failed))


main()
