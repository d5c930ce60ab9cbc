"""What the scripts in Python share: the python that has redis-py, a server, and comparisons."""

import os
import subprocess
import sys

# The python that has redis-py is the one that is named; the first line of a script finds any.
if os.environ.get("PYTHON") and os.environ.get("RINGWAY_PYTHON") != os.environ["PYTHON"]:
    os.environ["RINGWAY_PYTHON"] = os.environ["PYTHON"]
    os.execv(os.environ["PYTHON"], [os.environ["PYTHON"], *sys.argv])

import redis


class Server:
    """A server on a port of the kernel's choice; killed when the story ends."""

    def __enter__(self):
        words = "serve --listen 127.0.0.1:0 --admin off --state temporary --shards 2 --pin false"
        words += " --spin false --max-memory 256MiB"
        self.process = subprocess.Popen(
            [os.environ["RINGWAY_BIN"], *words.split()], stdout=subprocess.PIPE, text=True
        )
        ready = self.process.stdout.readline()
        assert ready.startswith("ready listen=127.0.0.1:"), ready
        self.port = int(ready.split()[1].rsplit(":", 1)[1])
        self.url = f"redis://127.0.0.1:{self.port}"
        return self

    def client(self, protocol):
        return redis.Redis(
            port=self.port, protocol=protocol, decode_responses=True, socket_timeout=30
        )

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                code = self.process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                raise
            assert code == 0, f"the server ended with {code}"


def equal(what, got, expected):
    assert got == expected, f"{what}: got {got!r}, expected {expected!r}"


def raises(kind, what, act):
    try:
        got = act()
    except kind as error:
        return error
    raise AssertionError(f"{what}: {got!r} instead of {kind.__name__}")


def fields(answer):
    """A map: what RESP2 sends as keys and values."""
    return dict(zip(answer[::2], answer[1::2])) if isinstance(answer, list) else answer
