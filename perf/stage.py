"""What is started for a run, where it runs, what it costs, and how it ends.

Every process belongs to a `Stage`, which ends it and what it started, also when the run fails; a
process dies with the harness, too, if that is killed. Nothing listens on a fixed port.
"""

import os
import pathlib
import resource
import signal
import socket
import subprocess
import tempfile
import time

TICKS = os.sysconf("SC_CLK_TCK")
LISTENING = "0A"


class Broken(Exception):
    """A contestant or a service did not do what it is for."""


class Ground:
    """Where the two sides run: near on core 0, far on core 1; by default both on loopback."""

    def __init__(self, near=(), far=(), far_host="127.0.0.1"):
        self.near = ["taskset", "-c", "0", *near]
        self.far = ["taskset", "-c", "1", *far]
        self.far_host = far_host


class Stage:
    """The processes and files of one run, which end with it."""

    def __init__(self, ground, directory):
        self.ground = ground
        self.directory = pathlib.Path(tempfile.mkdtemp(dir=directory))
        self.started = []
        self.ports = set()
        # What the contestant's sides are: their CPU time is what a gigabyte costs.
        self.near_pids = []
        self.far_pids = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pids = tree([process.pid for process in self.started])
        for process in reversed(self.started):
            process.terminate()
        deadline = time.monotonic() + 5
        for process in self.started:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for pid in pids:  # Those whose parent went before them.
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def file(self, name, text):
        """A file of this run that nobody else can read; its path."""
        path = self.directory / name
        path.touch(0o600)
        path.write_text(text)
        return str(path)

    def port(self):
        """A port that the kernel says is free, and that this run has not been given before."""
        while True:
            with socket.socket() as door:
                door.bind(("127.0.0.1", 0))
                port = door.getsockname()[1]
            if port not in self.ports:
                self.ports.add(port)
                return port

    def start(self, prefix, argv, name, **more):
        """A process with its output in a log file; it dies with us."""
        command = [*prefix, "setpriv", "--pdeathsig", "KILL", *map(str, argv)]
        log = open(self.directory / f"{name}.log", "ab")
        with log:
            process = subprocess.Popen(
                command, **{"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log, **more})
        process.log = self.directory / f"{name}.log"
        self.started.append(process)
        return process

    def near(self, argv, name, *ports):
        """Starts the near side, or a part of it, and waits until it listens on these ports."""
        self.near_pids.append(self.listening(self.ground.near, argv, name, ports).pid)

    def far(self, argv, name, *ports):
        """Starts the far side, or a part of it, and waits until it listens on these ports."""
        self.far_pids.append(self.listening(self.ground.far, argv, name, ports).pid)

    def service(self, argv, name, port):
        """Starts what the contestants lead to, and waits until it listens."""
        return self.listening(self.ground.far, argv, name, [port])

    def listening(self, prefix, argv, name, ports):
        process = self.start(prefix, argv, name)
        until(lambda: all(port in doors(process.pid) for port in ports), process,
              f"{name} to listen")
        return process

    def run(self, prefix, argv, name, limit_s):
        """Runs a client to its end; its standard output."""
        process = self.start(prefix, argv, name, stdout=subprocess.PIPE)
        try:
            output, _ = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            raise Broken(f"{name} was not done after {limit_s:.0f} s") from None
        if process.returncode != 0:
            said = output.decode(errors="replace")[-400:] + tail(process)
            raise Broken(f"{name} ended with {process.returncode}: {said}")
        self.started.remove(process)
        return output.decode()


def until(condition, process, what, limit_s=20):
    """Waits for a condition, as long as a process lives."""
    deadline = time.monotonic() + limit_s
    while not condition():
        if process.poll() is not None:
            raise Broken(f"ended with {process.returncode} while we waited for {what}: "
                         + tail(process))
        if time.monotonic() > deadline:
            raise Broken(f"waited {limit_s} s for {what}: {tail(process)}")
        time.sleep(0.01)


def tail(process):
    return process.log.read_text(errors="replace")[-400:].strip()


def doors(pid):
    """The ports on which somebody listens in the network namespace of a process."""
    found = set()
    for family in ("tcp", "tcp6"):
        try:
            lines = pathlib.Path(f"/proc/{pid}/net/{family}").read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == LISTENING:
                found.add(int(fields[1].rsplit(":", 1)[1], 16))
    return found


def stats():
    """The fields of every process's /proc/PID/stat from the state on, by process id."""
    found = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                text = pathlib.Path(entry.path, "stat").read_text()
            except OSError:
                continue
            found[int(entry.name)] = text.rsplit(")", 1)[1].split()
    return found


def tree(pids, known=None):
    """These processes and all that they started, as far as those live."""
    known = stats() if known is None else known
    found = set(pids) & known.keys()
    while True:
        more = {pid for pid, fields in known.items() if int(fields[1]) in found} - found
        if not more:
            return found
        found |= more


def cpu_s(pids):
    """CPU seconds of processes: all threads, io_uring's workers, children that live or ended."""
    known = stats()
    ticks = sum(int(ticks) for pid in tree(pids, known) for ticks in known[pid][11:15])
    return ticks / TICKS


class Meter:
    """What a run cost, by who spent it. Made before the run, asked after it."""

    def __init__(self, stage, services):
        self.groups = {"near": stage.near_pids, "far": stage.far_pids, "service": services}
        self.before, self.began = self.read(), time.monotonic()

    def read(self):
        now = {who: cpu_s(pids) for who, pids in self.groups.items()}
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        now["client"] = ended.ru_utime + ended.ru_stime
        cores = pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
        user, nice, system, _, _, irq, softirq, steal = map(int, cores)
        now["machine"] = (user + nice + system + irq + softirq + steal) / TICKS
        return now

    def spent(self):
        """CPU seconds; `others` is what the machine did besides, and what was stolen from it."""
        after = self.read()
        cost = {f"{who}_cpu_s": after[who] - before for who, before in self.before.items()}
        machine = cost.pop("machine_cpu_s")
        cost["others_cpu_s"] = max(0.0, machine - sum(cost.values()))
        cost["wall_s"] = time.monotonic() - self.began
        return {who: round(seconds, 3) for who, seconds in cost.items()}
