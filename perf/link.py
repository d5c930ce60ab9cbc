"""The line of perf/tunnel.py's row `link`: two network namespaces with a link between them.

200 Mbit/s of IP bytes and 40 ms, the same in both directions, by `ringway wan link`: kernels
without netem have no delay. Senders in the namespaces use the congestion control that is asked for,
and remember nothing of earlier connections.
"""

import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import sys

from rivals import RINGWAY
from stage import Broken, Ground

LINE = "rate=200mbit rtt=40ms"
CONTROLS = ("cubic", "bbr")
ALLOWED = pathlib.Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control")
FAR_HOST = "10.77.1.2"


class Link:
    """The running link, and what it has counted."""

    def __init__(self, name):
        self.name = name

    def counted(self, since=None):
        """Its counters in both directions, or what these have grown."""
        said = command(RINGWAY, "--json", "wan", "link", "show", "--name", self.name)
        (link,) = json.loads(said)["links"]
        now = {"up": link["there"], "down": link["back"]}
        if since is None:
            return now
        return {way: {key: count - (0 if key.endswith("_max") else since[way][key])
                      for key, count in counts.items()} for way, counts in now.items()}


def command(*argv):
    said = subprocess.run(argv, capture_output=True, text=True)
    if said.returncode != 0:
        raise Broken(f"{' '.join(map(str, argv))}: {said.stderr.strip()}")
    return said.stdout


def impossible(control):
    """What keeps the row from being measured here, in words."""
    if os.geteuid() != 0:
        return "only root can make network namespaces"
    if not os.access("/dev/net/tun", os.W_OK):
        return "no /dev/net/tun"
    if not shutil.which(RINGWAY):
        return f"no {RINGWAY}; set RINGWAY_BIN"
    known = pathlib.Path("/proc/sys/net/ipv4/tcp_available_congestion_control").read_text()
    return "" if control in known.split() else f"the kernel does not have {control} at hand"


def choose(namespace, control):
    """What senders in a namespace are like."""
    with allowed(control):
        command("ip", "netns", "exec", namespace, "sysctl", "-q",
                f"net.ipv4.tcp_congestion_control={control}", "net.ipv4.tcp_no_metrics_save=1")


@contextlib.contextmanager
def allowed(control):
    """A namespace may make only that its default which the machine allows to everybody. It stays
    a default: a tunnel may ask for another one itself."""
    before = ALLOWED.read_text()
    ALLOWED.write_text(f"{before.strip()} {control}")
    try:
        yield
    finally:
        ALLOWED.write_text(before)


@contextlib.contextmanager
def narrowed(mtu):
    """The ground in a namespace whose loopback has this MTU; nothing if that cannot be."""
    if os.geteuid() != 0:
        print(f"udp-{mtu} is skipped: only root can make network namespaces", file=sys.stderr)
        yield None
        return
    space = f"rw-perf-{os.getpid()}-{mtu}"
    command("ip", "netns", "add", space)
    inside = ["ip", "netns", "exec", space]
    try:
        command(*inside, "ip", "link", "set", "lo", "mtu", str(mtu), "up")
        yield Ground(inside, inside)
    finally:
        command("ip", "netns", "delete", space)


@contextlib.contextmanager
def linked(control):
    """The ground on both ends of the line while this is entered; nothing if that cannot be."""
    if why := impossible(control):
        print(f"link-{control} is skipped: {why}", file=sys.stderr)
        yield None
        return
    name = f"rw-perf-{os.getpid()}"
    # Whatever ends us ends it, and it cleans up after itself.
    program = ["setpriv", "--pdeathsig", "TERM",
               RINGWAY, "wan", "link", "run", "--name", name, LINE]
    process = subprocess.Popen(program, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    try:
        if not process.stdout.readline().startswith("ready"):
            raise Broken(f"{' '.join(program)} does not get ready")
        spaces = [f"{name}-a", f"{name}-b"]
        for space in spaces:
            choose(space, control)
        ground = Ground(*(["ip", "netns", "exec", space] for space in spaces), FAR_HOST)
        ground.emulator = Link(name)
        yield ground
    finally:
        process.terminate()
        process.wait()
