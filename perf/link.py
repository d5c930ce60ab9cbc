"""The line of perf/tunnel.py's row `link`: two network namespaces with an emulator between them.

200 Mbit/s of IP bytes and 40 ms, the same in both directions: bottleneck, then a drop-tail queue of
one round trip's bytes, then loss (none here), then half of the round trip. Kernels without netem
have no delay, so that the emulator is a program (perf/examples/link.rs) between two TUN devices. We
make those here and then move them into the namespaces; the emulator inherits them as its standard
input and output. Senders in the namespaces use the congestion control that is asked for, and
remember nothing of earlier connections.
"""

import contextlib
import fcntl
import json
import os
import pathlib
import struct
import subprocess
import sys

from stage import Broken, Ground, Stage, until

LINK = os.environ.get("LINK_BIN", "target/release/examples/link")
RATE_MBIT, RTT_MS = 200, 40
CONTROLS = ("cubic", "bbr")
ALLOWED = pathlib.Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control")
TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
NEAR_HOST, FAR_HOST = "10.77.0.1", "10.77.0.2"


class Link:
    """The running emulator, and what it has counted."""

    def __init__(self, process, names):
        self.process, self.names = process, names

    def counted(self, since=None):
        """Its counters and the devices' losses, or what these have grown."""
        until(lambda: "\n" in self.process.log.read_text(), self.process, "the emulator to count")
        whole = self.process.log.read_text().rpartition("\n")[0]
        now = json.loads(whole.splitlines()[-1])
        for way, name in zip(("up", "down"), self.names):
            (device,) = json.loads(command("ip", "-n", name, "-j", "-s", "link", "show", "line"))
            now[way]["device_dropped"] = device["stats64"]["tx"]["dropped"]
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
    if not os.access(LINK, os.X_OK):
        return f"no {LINK}: cargo build --release -p ringway-perf --example link"
    known = pathlib.Path("/proc/sys/net/ipv4/tcp_available_congestion_control").read_text()
    return "" if control in known.split() else f"the kernel does not have {control} at hand"


def device(namespace, host, control):
    """A TUN device in a namespace; the descriptor on which its packets are."""
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    asked = struct.pack("16sH22x", b"rw-line%d", IFF_TUN | IFF_NO_PI)
    name = fcntl.ioctl(tun, TUNSETIFF, asked)[:16].rstrip(b"\0").decode()
    command("ip", "link", "set", name, "netns", namespace, "name", "line")
    here = ["ip", "-n", namespace]
    command(*here, "link", "set", "lo", "up")
    # A device that is too small for what a sender sends at once would lose what the line does not.
    command(*here, "link", "set", "line", "mtu", "1500", "txqueuelen", "10000", "up")
    command(*here, "addr", "add", f"{host}/24", "dev", "line")
    with allowed(control):
        command("ip", "netns", "exec", namespace, "sysctl", "-q",
                f"net.ipv4.tcp_congestion_control={control}", "net.ipv4.tcp_no_metrics_save=1")
    return tun


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
def linked(directory, control):
    """The ground on both ends of the line while this is entered; nothing if that cannot be."""
    if why := impossible(control):
        print(f"link-{control} is skipped: {why}", file=sys.stderr)
        yield None
        return
    names = [f"rw-{side}-{os.getpid()}" for side in ("near", "far")]
    made = []
    try:
        for name in names:
            command("ip", "netns", "add", name)
            made.append(name)
        tuns = [device(name, host, control) for name, host in zip(names, (NEAR_HOST, FAR_HOST))]
        ground = Ground(*(["ip", "netns", "exec", name] for name in names), FAR_HOST)
        with Stage(ground, directory) as stage:
            # The line is no contestant: it goes first, or it would measure the scheduler.
            process = stage.start(
                ["nice", "-n", "-20"], [LINK, RATE_MBIT, RTT_MS], "link",
                stdin=tuns[0], stdout=tuns[1])
            for tun in tuns:
                os.close(tun)
            ground.emulator = Link(process, names)
            yield ground
    finally:
        for name in made:
            command("ip", "netns", "delete", name)
