#!/usr/bin/env python3
"""The programs in examples/, against a real server: they do what they say they do."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from common import Server, equal, fields

EXAMPLES = pathlib.Path(__file__).resolve().parents[2] / "examples"


class Program:
    """An example that runs; what it prints is read line by line."""

    def __init__(self, *words):
        self.process = subprocess.Popen(
            [str(word) for word in words], stdout=subprocess.PIPE, text=True
        )

    def says(self, start):
        line = self.process.stdout.readline()
        assert line.startswith(start), f"{line!r} instead of {start!r}"
        return line.removeprefix(start).strip()

    def signal(self, number):
        self.process.send_signal(number)

    def ends(self, code):
        equal("its exit code", self.process.wait(timeout=30), code)
        self.process.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def leaders(what, client, name, start):
    """One leads; it is stopped and is too late; the next is killed; the last leads at once."""
    with start() as a:
        a.says("waiting ")
        first = int(a.says("leader token="))
        with start() as b:
            b.says("waiting ")
            a.signal(signal.SIGSTOP)
            second = int(b.says("leader token="))
            a.signal(signal.SIGCONT)
            said = a.process.stdout.readline()
            # Whether the store refuses it or it hears first that its session is over.
            assert said.startswith(("fenced: ", "lost the session")), said
            a.ends(3)
            with start() as c:
                c.says("waiting ")
                patience = time.monotonic() + 30
                while fields(client.execute_command("PORT.WAITERS", name))["waiters"] != 1:
                    assert time.monotonic() < patience, "it never waits"
                killed = time.monotonic()
                b.signal(signal.SIGKILL)
                third = int(c.says("leader token="))
                took = time.monotonic() - killed
                assert first < second < third, (first, second, third)
    print(f"ok: leader election in {what}, the next leads {took * 1000:.1f} ms after the last was killed")


def discovery(server):
    program = EXAMPLES / "python/service_discovery.py"
    words = [sys.executable, program, "--url", server.url]

    def once(*more):
        return subprocess.run(
            [*words, *more], check=True, capture_output=True, text=True, timeout=30
        ).stdout.splitlines()

    equal("nobody yet", once("find", "billing"), [])
    with (
        Program(*words, "follow", "billing") as follower,
        Program(*words, "announce", "billing", "a", "--address", "10.0.0.7:80") as a,
        Program(*words, "announce", "billing", "b", "--address", "10.0.0.8:80") as b,
    ):
        a.says("announced svc/billing/a")
        b.says("announced svc/billing/b")
        both = ["svc/billing/a 10.0.0.7:80 up", "svc/billing/b 10.0.0.8:80 up"]
        equal("both", once("find", "billing"), both)
        equal("followed", sorted(follower.says("svc/") for _ in both), [x[4:] for x in both])
        equal("drained", once("drain", "billing", "a"), ["svc/billing/a is gone"])
        a.says("draining")
        a.ends(0)
        equal("one left", once("find", "billing"), both[1:])
        follower.says("svc/billing/a 10.0.0.7:80 draining")
        follower.says("svc/billing/a is gone")
        b.signal(signal.SIGKILL)
        follower.says("svc/billing/b is gone")
    patience = time.monotonic() + 30
    while once("find", "billing"):
        assert time.monotonic() < patience, "who was killed is still listed"
    print("ok: service discovery in Python")


def main():
    with Server() as server, tempfile.TemporaryDirectory() as scratch:
        python = [sys.executable, EXAMPLES / "python/leader_election.py", "--url", server.url]
        python += ["--name", "jobs/of-python", "--store", f"{scratch}/python"]
        client = server.client(3)
        leaders("Python", client, "jobs/of-python", lambda: Program(*python))
        discovery(server)
        # Modules are found from where the program lies, so it goes to where they are installed.
        program = shutil.copy(
            EXAMPLES / "javascript/leader_election.mjs", os.environ["RINGWAY_NODE"]
        )
        node = ["node", program, server.url, "jobs/of-node", f"{scratch}/node"]
        leaders("JavaScript", client, "jobs/of-node", lambda: Program(*node))
        client.close()


main()
