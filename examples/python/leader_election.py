#!/usr/bin/env python3
"""Leader election: any number of these processes, at most one of which leads.

    python leader_election.py --url redis://127.0.0.1:7400 --name jobs/leader --store /tmp/store

Start several. One prints `leader token=...` and works; the others wait, without polling. Kill the
leader, and the next one leads a few milliseconds later. Stop it (SIGSTOP), and the next one leads
once the lease is over; when the stopped one goes on (SIGCONT), it still believes that it leads, and
the store refuses what it writes, since its token is older. That last check is what makes an election
safe: no lease can keep a process from being slow.

Needs redis-py: python3 -m venv .venv && .venv/bin/pip install "redis>=6", and .venv/bin/python.
"""

import argparse
import fcntl
import json
import secrets
import sys
import threading
import time

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

LEASE_MS = 1000


class Fenced(Exception):
    """The store has seen a later leader."""


class Store:
    """A file that refuses writers with a token older than one it has seen.

    With a database it is one statement: UPDATE ... SET token = :mine WHERE token <= :mine.
    """

    def __init__(self, path):
        self.path = path

    def write(self, token, text):
        with open(self.path, "a+", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            last = [json.loads(line)["token"] for line in file][-1:]
            if last and last[0] > token:
                raise Fenced(f"the store has token {last[0]}, mine is {token}")
            file.write(json.dumps({"token": token, "text": text}) + "\n")


class Session:
    """A session that lives as long as this process does, and is renewed.

    BARE: it ends with its connection, so that the death of the process is known at once. The lease
    ends it where the process stands still, or the network does. A connection that waits for a name
    sends nothing else, so the session is renewed on another one.
    """

    def __init__(self, url):
        # Each is one connection, and one that is lost is an error: a client that connects again by
        # itself would have another session, and none of the names.
        one = {"single_connection_client": True, "retry": Retry(NoBackoff(), 0)}
        self.client = redis.Redis.from_url(url, decode_responses=True, **one)
        self.renewals = redis.Redis.from_url(
            url, decode_responses=True, socket_timeout=LEASE_MS / 1000, **one
        )
        answer = self.client.execute_command(
            "SESSION.OPEN", secrets.randbits(63), "BARE", "LEASE", LEASE_MS
        )
        opened = dict(zip(answer[::2], answer[1::2])) if isinstance(answer, list) else answer
        self.id, self.secret = opened["session"], opened["secret"]
        self.lost = threading.Event()
        threading.Thread(target=self._renew, daemon=True).start()

    def _renew(self):
        try:
            while True:
                self.renewals.execute_command("SESSION.RENEW", self.id, self.secret)
                time.sleep(LEASE_MS / 1000 / 3)
        except redis.RedisError:
            self.lost.set()

    def wait_for(self, name, ms=0):
        """The token under which this session holds the name, once it does; None: time is over."""
        granted = self.client.execute_command("PORT.WAIT", name, ms)
        return granted and int(granted[2])


def main():
    parser = argparse.ArgumentParser(description="Lead, or wait to lead.")
    parser.add_argument("--url", default="redis://127.0.0.1:7400")
    parser.add_argument("--name", default="jobs/leader")
    parser.add_argument("--store", default="/tmp/leader-election-store")
    args = parser.parse_args()

    session, store = Session(args.url), Store(args.store)
    print(f"waiting session={session.id}", flush=True)
    token = session.wait_for(args.name)
    print(f"leader token={token}", flush=True)
    try:
        # What a leader does once and again. That it asks whether the session is lost saves it
        # useless work; that the store compares tokens is what keeps it from doing harm.
        while not session.lost.is_set():
            store.write(token, f"work of {session.id}")
            time.sleep(0.05)
        print("lost the session", flush=True)
    except Fenced as why:
        print(f"fenced: {why}", flush=True)
    return 3


if __name__ == "__main__":
    try:
        sys.exit(main())
    except redis.RedisError as error:
        sys.exit(f"lost the server, or it refuses: {error}")
