#!/usr/bin/env python3
"""Who leaves what to whom before a real emulated link: ours by UDP, the kernel's CUBIC and its BBR.

    perf/beside.py OUTPUT.json

For each buffer of one and two round trips' bytes, pairs meet on a link of 100 Mbit/s and 40 ms, in
both orders, 5 s apart. They settle, and then it is judged what the receivers of iperf3 get. That is
what `ringway wan sim --beside` does with models. A table comes out, and the file has every run.

Needs root, iperf3, a kernel with BBR, and two idle cores.

SETTLE=20, JUDGE=40 (seconds), RINGWAY_BIN=target/release/ringway
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

RINGWAY = str(pathlib.Path(os.environ.get("RINGWAY_BIN", "target/release/ringway")).resolve())
SETTLE = int(os.environ.get("SETTLE", 20))
JUDGE = int(os.environ.get("JUDGE", 40))
STAGGER_S = 5
GRACE_S = 30
MBIT = 100
MEETINGS = (
    ("bbr", "cubic"),
    ("cubic", "bbr"),
    ("ours", "cubic"),
    ("cubic", "ours"),
    ("ours", "bbr"),
    ("bbr", "ours"),
    ("ours", "ours"),
)
THERE = "10.77.1.2"
CARRIERS = 4600
FIRST_PORT = 5201


class Link:
    """A link that runs; what is started in its namespaces goes with it."""

    def __init__(self, words):
        self.name = f"rwb{os.getpid()}"
        self.programs = []
        self.run = subprocess.Popen(
            [RINGWAY, "wan", "link", "run", "--name", self.name, words], stdout=subprocess.PIPE, text=True
        )
        while not (line := self.run.stdout.readline()).startswith("ready"):
            assert line, "the link did not start"

    def start(self, end, *command):
        program = subprocess.Popen(
            ["ip", "netns", "exec", f"{self.name}-{end}", *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.programs.append(program)
        return program

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for program in [*self.programs, self.run]:
            program.terminate()
            try:
                program.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                program.kill()
                program.wait()


def listens(link, end, port):
    """Waits until somebody listens at this port."""
    for _ in range(400):
        shown = subprocess.run(
            ["ip", "netns", "exec", f"{link.name}-{end}", "ss", "-Hltn", f"sport = :{port}"],
            capture_output=True,
            text=True,
            check=True,
        )
        if shown.stdout.strip():
            return
        time.sleep(0.025)
    raise SystemExit(f"nobody listens at port {port}")


def tunnels(link, directory, ports):
    """One tunnel for each connection of ours, so that each has carriers of its own."""
    for kind in ("network", "shared"):
        subprocess.run([RINGWAY, "keygen", f"--{kind}", f"{directory}/{kind}.key"], check=True, capture_output=True)
    for at, port in enumerate(ports):
        common = f'[tunnel]\nnetwork_key = "network.key"\nsocket = "%s{at}.sock"\n'
        peer = '[[peer]]\nname = "it"\nshared_key = "shared.key"\nudp = true\n'
        far = f'{common % "far"}listen = "0.0.0.0:{CARRIERS + at}"\n{peer}allow = ["127.0.0.1:{port}"]\n'
        near = (
            f'{common % "near"}{peer}addresses = ["{THERE}:{CARRIERS + at}"]\n'
            f'[[forward]]\npeer = "it"\nlisten = "127.0.0.1:{port}"\nto = "127.0.0.1:{port}"\n'
        )
        for side, text, end, door in (("far", far, "b", CARRIERS + at), ("near", near, "a", port)):
            path = pathlib.Path(directory, f"{side}{at}.toml")
            path.write_text(text)
            link.start(end, RINGWAY, "tunnel", "--log-level", "error", "--config", str(path))
            listens(link, end, door)


def received(server, begin):
    """Mbit/s that came while it is judged, which begins so many seconds after the first byte."""
    said, _ = server.communicate(timeout=STAGGER_S + SETTLE + JUDGE + GRACE_S)
    intervals = [one["sum"] for one in json.loads(said)["intervals"]]
    judged = [one for one in intervals if one["start"] >= begin and one["end"] <= begin + JUDGE + 1]
    return sum(one["bytes"] for one in judged) * 8e-6 / sum(one["seconds"] for one in judged)


def meet(buffer, who):
    """What each of them gets, in Mbit/s."""
    words = f"rate={MBIT}mbit rtt=40ms queue={buffer}"
    with tempfile.TemporaryDirectory() as directory, Link(words) as link:
        ports = [FIRST_PORT + at for at in range(len(who))]
        servers = [link.start("b", "iperf3", "-s", "-1", "-J", "-p", str(port)) for port in ports]
        for port in ports:
            listens(link, "b", port)
        tunnels(link, directory, [port for port, one in zip(ports, who) if one == "ours"])
        for at, (port, one) in enumerate(zip(ports, who)):
            last = STAGGER_S * (len(who) - 1 - at)
            route = ["-c", "127.0.0.1"] if one == "ours" else ["-c", THERE, "-C", one]
            length = last + SETTLE + JUDGE + 2
            link.start("a", "iperf3", *route, "-p", str(port), "-t", str(length))
            if last:
                time.sleep(STAGGER_S)
        return [
            received(server, SETTLE + STAGGER_S * (len(who) - 1 - at)) for at, server in enumerate(servers)
        ]


def main():
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    runs = []
    for buffer in ("1bdp", "2bdp"):
        for who in MEETINGS:
            mbit = [round(one, 1) for one in meet(buffer, who)]
            runs.append({"buffer": buffer, "who": who, "mbit": mbit})
            print(f"{buffer}  {', '.join(who):<14}" + "".join(f"{one:8.1f}" for one in mbit), flush=True)
            pathlib.Path(sys.argv[1]).write_text(json.dumps(runs, indent=1) + "\n")


if __name__ == "__main__":
    main()
