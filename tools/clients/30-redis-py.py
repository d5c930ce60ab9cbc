#!/usr/bin/env python3
"""redis-py and its Lock, unmodified, over RESP2 and RESP3."""

import threading
import time

from common import Server, equal, fields, raises

import redis
from redis.exceptions import LockError, LockNotOwnedError, ResponseError


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


def waits(server, one, protocol):
    """A blocking wait in a thread, as BLPOP: nil when its time is over, the grant when it comes."""
    name, heard = f"wait/{protocol}", []
    won, _, first = one.execute_command("PORT.WAIT", name, 1000)
    waiter = server.client(protocol)
    equal("a wait that is over", waiter.execute_command("PORT.WAIT", name, 50), None)

    def wait():
        heard.append(waiter.execute_command("PORT.WAIT", name, 0))

    thread = threading.Thread(target=wait)
    thread.start()
    patience = time.monotonic() + 30
    while fields(one.execute_command("PORT.WAITERS", name))["waiters"] != 1:
        assert time.monotonic() < patience, "it never waits"
    equal("nothing is heard before", heard, [])
    equal("release", one.execute_command("PORT.RELEASE", name), 1)
    thread.join(timeout=30)
    equal("granted", (won, heard[0][0], int(heard[0][2]) > int(first)), (1, 1, True))
    waiter.close()


def shared(one, two, protocol):
    name = f"shared/{protocol}"
    mine, theirs = (
        client.execute_command("PORT.REGISTER", name, "MODE", "SHARED") for client in (one, two)
    )
    equal("both hold it", (mine[0], theirs[0]), (1, 1))
    error = raises(
        ResponseError, "another mode", lambda: one.execute_command("PORT.REGISTER", name)
    )
    assert str(error).startswith("MODE "), error


def metadata(one, two, protocol):
    """Compare and set: the second of two writers who read the same is told."""
    name = f"meta/{protocol}"
    one.execute_command("PORT.REGISTER", name)
    equal("set", one.execute_command("PORT.META", name, "SET", "blue", "VERSION", 0), 1)
    equal("set again", one.execute_command("PORT.META", name, "SET", "green", "VERSION", 1), 2)
    late = lambda: one.execute_command("PORT.META", name, "SET", "red", "VERSION", 1)
    error = raises(ResponseError, "a late writer", late)
    assert str(error).startswith("CONFLICT "), error
    said = fields(two.execute_command("PORT.META", name))
    equal("all see it", (said["metadata"], said["version"]), ("green", 2))


def transfer(server, one):
    """The receiver of a name hears of it at once, as a push on its connection."""
    pool = server.client(3).connection_pool
    receiver = pool.get_connection()
    receiver.send_command("SESSION.OPEN", 4711, "LEASE", 30000)
    session = receiver.read_response()["session"]
    mine = one.execute_command("PORT.REGISTER", "move/a", "move/b")
    moved = one.execute_command("PORT.TRANSFER", session, "move/a", "move/b")
    equal("to whom", [(won, to) for won, to, _ in moved], [(1, session)] * 2)
    pushes = sorted(receiver.read_response(push_request=True) for _ in range(2))
    equal(
        "what is pushed", pushes,
        [["received", f"move/{at}", moved[i][2], mine[i][1]] for i, at in enumerate("ab")],
    )
    assert all(int(new[2]) > int(old[2]) for new, old in zip(moved, mine)), (moved, mine)
    equal("revoke", one.execute_command("PORT.REVOKE", "move/a"), 1)
    lost = receiver.read_response(push_request=True)
    equal("lost", lost, ["lost", "move/a", moved[0][2], "0" * 16, "revoked"])
    receiver.disconnect()


def messages(server, one):
    """A message reaches whoever owns the name, through the handler of pushes that redis-py has."""
    heard = []
    client = server.client(3)
    pubsub = client.pubsub(push_handler_func=lambda push: heard.append(push) or push)
    pubsub.execute_command("PORT.REGISTER", "inbox")
    won, session, _ = pubsub.parse_response()
    won_mine, mine, token = one.execute_command("PORT.REGISTER", "outbox")
    equal("both have a name", (won, won_mine), (1, 1))
    equal("sent", one.execute_command("PORT.SEND", "inbox", "hi", "RECEIPT"), 1)
    fenced = ("PORT.SENDTO", session, "ho", "FROM", "outbox", "TOKEN", token, "RECEIPT")
    equal("sent to the session", one.execute_command(*fenced), 1)
    equal("to nobody", one.execute_command("PORT.SEND", "nobody", "hi"), 0)
    late = lambda: one.execute_command("PORT.SEND", "inbox", "x", "FROM", "outbox", "TOKEN", 1)
    error = raises(ResponseError, "an old token", late)
    assert str(error).startswith("FENCED "), error
    pubsub.parse_response(), pubsub.parse_response()
    expected = [
        ["message", "inbox", mine, "hi", None, None],
        ["message", None, mine, "ho", "outbox", token],
    ]
    equal("heard", heard, expected)
    counts = fields(one.execute_command("PORT.BROADCAST", "all", "RECEIPT"))
    assert counts["reached"] >= 1 and counts["full"] == 0, counts
    equal("heard by all", pubsub.parse_response()[:4], ["message", None, mine, "all"])
    pubsub.close()
    client.close()


def watches(server, one):
    """Who watches hears what there is, then what happens; RESP2 is told to speak RESP3."""
    heard = []
    client = server.client(3)
    pubsub = client.pubsub(push_handler_func=lambda push: heard.append(push) or push)
    _, mine, first = one.execute_command("PORT.REGISTER", "watched/a")
    pubsub.execute_command("PORT.WATCH", "watched/", "SNAPSHOT")
    while len(heard) < 2:
        pubsub.parse_response()
    state = ["state", "watched/a", mine, first]
    equal("what there is", heard, [state, ["snapshot-end", "watched/"]])
    heard.clear()
    _, _, second = one.execute_command("PORT.REGISTER", "watched/b")
    pubsub.parse_response()
    one.execute_command("PORT.META", "watched/b", "SET", "blue")
    pubsub.parse_response()
    one.execute_command("PORT.RELEASE", "watched/a")
    pubsub.parse_response()
    happened = [
        ["acquired", "watched/b", mine, second, False],
        ["changed", "watched/b", mine, second, False, 1],
        ["released", "watched/a", mine, first, False, False],
    ]
    equal("what happened", heard, happened)
    one.execute_command("PORT.RELEASE", "watched/b")
    pubsub.close()
    client.close()
    with server.client(2) as old:
        error = raises(ResponseError, "RESP2", lambda: old.execute_command("PORT.WATCH", "x"))
        assert "HELLO 3" in str(error), error


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
            waits(server, alone, protocol)
            shared(alone, two, protocol)
            metadata(alone, two, protocol)
            transfer(server, alone)
            messages(server, alone)
            watches(server, alone)
            print(f"ok: RESP{protocol}")
            for client in (one, two, alone):
                client.close()
        cluster(server)
        print("ok: cluster")
    print(f"redis-py {redis.__version__}: ok")


main()
