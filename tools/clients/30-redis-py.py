#!/usr/bin/env python3
"""redis-py and its Lock, unmodified, over RESP2 and RESP3."""

import os
import subprocess
import sys
import threading
import time

# The python that has redis-py is the one that is named; the first line finds any.
if os.environ.get("PYTHON") and os.environ.get("RINGWAY_PYTHON") != os.environ["PYTHON"]:
    os.environ["RINGWAY_PYTHON"] = os.environ["PYTHON"]
    os.execv(os.environ["PYTHON"], [os.environ["PYTHON"], *sys.argv])

import redis
from redis.exceptions import LockError, LockNotOwnedError, ResponseError


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


def token(client, name):
    return int(client.execute_command("PORT.QUERY", name).split(":")[1])


def basics(client, protocol):
    equal("PING", client.ping(), True)
    info = client.info()
    equal("INFO", (info["redis_version"], info["loading"], info["role"]), ("7.2.0", 0, "master"))
    equal("INFO of us", "ringway_version" in info, True)
    equal("INFO keyspace", "keys" in client.info("keyspace")["db0"], True)
    equal("CLIENT SETNAME", client.client_setname("story"), True)
    equal("CLIENT GETNAME", client.client_getname(), "story")
    name = f"basic/{protocol}"
    equal("SET", client.set(name, "me", nx=True, px=20000), True)
    equal("SET of a taken name", client.set(name, "you", nx=True, px=20000), None)
    equal("GET", client.get(name), "me")
    equal("EXISTS", client.exists(name, "nobody"), 1)
    assert 10000 < client.pttl(name) <= 20000
    equal("PEXPIRE", client.pexpire(name, 15000), True)
    equal("DEL", client.delete(name), 1)
    equal("GET of a free name", client.get(name), None)
    error = raises(ResponseError, "SET without NX", lambda: client.set(name, "x"))
    assert "UNSUPPORTED" in str(error), error


def lock_alone(client, protocol):
    lock = client.lock(f"jobs/{protocol}", timeout=20)
    equal("acquire", lock.acquire(blocking=False), True)
    equal("locked", lock.locked(), True)
    equal("owned", lock.owned(), True)
    first = token(client, lock.name)
    before = client.pttl(lock.name)
    equal("extend", lock.extend(5), True)
    assert client.pttl(lock.name) > before + 3000, (before, client.pttl(lock.name))
    equal("extend to a new time", lock.extend(10, replace_ttl=True), True)
    assert 8000 < client.pttl(lock.name) <= 10000, client.pttl(lock.name)
    equal("reacquire", lock.reacquire(), True)
    assert client.pttl(lock.name) > 15000, client.pttl(lock.name)
    equal("the token stays", token(client, lock.name), first)
    lock.release()
    equal("locked after release", lock.locked(), False)
    raises(LockError, "release of an unlocked lock", lock.release)
    with client.lock(lock.name, timeout=20):
        assert token(client, lock.name) > first, "a later holder has a larger token"


def lock_of_two(one, two, protocol):
    name = f"two/{protocol}"
    first, second = one.lock(name, timeout=20), two.lock(name, timeout=20, sleep=0.01)
    equal("the first acquires", first.acquire(blocking=False), True)
    equal("the second does not", second.acquire(blocking=False), False)
    raises(LockError, "the second cannot release", second.release)
    thief = two.lock(name, timeout=20)
    thief.local.token = b"guess"
    raises(LockNotOwnedError, "a guess does not release", thief.release)
    thief.local.token = b"guess"
    raises(LockNotOwnedError, "a guess does not extend", lambda: thief.extend(1))
    # The second waits until the first lets go.
    waited = []
    waiter = threading.Thread(
        target=lambda: waited.append(two.lock(name, timeout=20, sleep=0.01).acquire())
    )
    waiter.start()
    first.release()
    waiter.join(timeout=30)
    equal("who waited has it", waited, [True])
    one.delete(name)


def lock_excludes(server, protocol):
    """Many threads, one lock: nobody is inside with another, and tokens only grow."""
    inside, tokens, wrong = [], [], []

    def work():
        client = server.client(protocol)
        for _ in range(10):
            with client.lock(f"crowd/{protocol}", timeout=20, sleep=0.001):
                inside.append(1)
                tokens.append(token(client, f"crowd/{protocol}"))
                if len(inside) != 1:
                    wrong.append(len(inside))
                inside.pop()
        client.close()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    equal("nobody shared the lock", wrong, [])
    equal("everybody had it", len(tokens), 40)
    assert tokens == sorted(set(tokens)), f"tokens do not grow: {tokens}"


def lock_that_expired(one, two, protocol):
    name = f"late/{protocol}"
    late = one.lock(name, timeout=0.2)
    equal("acquire", late.acquire(blocking=False), True)
    old = token(one, name)
    next_holder = two.lock(name, timeout=20, sleep=0.01)
    equal("another gets it when its time is over", next_holder.acquire(blocking_timeout=30), True)
    assert token(two, name) > old
    raises(LockNotOwnedError, "release of an expired lock", late.release)
    equal("the new holder did not lose it", next_holder.owned(), True)
    next_holder.release()
    alone = one.lock(name, timeout=0.2)
    equal("acquire again", alone.acquire(blocking=False), True)
    patience = time.monotonic() + 30
    while one.get(name) is not None:
        assert time.monotonic() < patience, "the lock never ran out"
    raises(LockNotOwnedError, "release of a lock that nobody has", alone.release)
    alone.local.token = b"late"
    raises(LockNotOwnedError, "extend of a lock that nobody has", lambda: alone.extend(1))


def pipelines(client, protocol):
    with client.pipeline(transaction=False) as pipe:
        for index in range(500):
            pipe.set(f"p{protocol}/{index}", f"v{index}", nx=True, px=20000)
            pipe.get(f"p{protocol}/{index}")
        answers = pipe.execute()
    equal("a pipeline", answers, [x for i in range(500) for x in (True, f"v{i}")])
    with client.pipeline(transaction=False) as pipe:
        pipe.execute_command("PORT.QUERY", "nobody").execute_command("NO.SUCH").ping()
        answers = pipe.execute(raise_on_error=False)
    assert answers[0] is None and isinstance(answers[1], ResponseError) and answers[2] is True
    error = raises(
        ResponseError,
        "a transaction",
        lambda: client.pipeline(transaction=True).set("a", "b").set("c", "d").execute(),
    )
    assert "UNSUPPORTED" in str(error) or "ERR" in str(error), error


def verbs(one, two, protocol):
    name = f"svc/{protocol}"
    won, session, number = one.execute_command("PORT.REGISTER", name)
    equal("PORT.REGISTER", (won, len(session)), (1, 16))
    equal("held", two.execute_command("PORT.REGISTER", name), [0, session, number])
    equal("PORT.QUERY", two.execute_command("PORT.QUERY", name, "x"), [f"{session}:{number}", None])
    equal("PORT.RELEASE", one.execute_command("PORT.RELEASE", name, "TOKEN", number), 1)


def cluster(server):
    client = redis.RedisCluster(host="127.0.0.1", port=server.port, decode_responses=True)
    for index in range(100):
        equal("SET", client.set(f"c/{index}", f"v{index}", nx=True, px=20000), True)
        equal("GET", client.get(f"c/{index}"), f"v{index}")
    lock = client.lock("c/lock", timeout=20)
    equal("a lock in the cluster", lock.acquire(blocking=False), True)
    lock.release()
    client.close()


def main():
    with Server() as server:
        for protocol in (2, 3):
            one, two = server.client(protocol), server.client(protocol)
            # A connection of its own for what belongs to the connection.
            alone = redis.Redis(
                port=server.port, protocol=protocol, decode_responses=True,
                single_connection_client=True,
            )
            basics(alone, protocol)
            lock_alone(one, protocol)
            lock_of_two(one, two, protocol)
            lock_excludes(server, protocol)
            lock_that_expired(one, two, protocol)
            pipelines(one, protocol)
            verbs(alone, two, protocol)
            print(f"ok: RESP{protocol}")
            for client in (one, two, alone):
                client.close()
        cluster(server)
        print("ok: cluster")
    print(f"redis-py {redis.__version__}: ok")


main()
