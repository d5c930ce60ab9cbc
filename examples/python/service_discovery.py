#!/usr/bin/env python3
"""Service discovery: instances announce themselves under names, clients list and follow them.

    python service_discovery.py announce billing a --address 10.0.0.7:8080   # until it is killed
    python service_discovery.py find billing                                 # who is there
    python service_discovery.py follow billing                               # who comes and goes
    python service_discovery.py drain billing a                              # sends no more to it

An instance owns the name `svc/billing/a` as long as its connection lasts, and says what others
should know as the metadata of that name. There is nothing to expire and nothing to clean up: an
instance that dies is gone from the list in the same moment, and who follows the service hears of it
as a push. Who wants an instance drained asks it through a name of its own, which the instance
watches: metadata can only be changed by the owner of a name, who compares and sets it, so that two
of its threads do not undo each other's changes.

Needs redis-py: python3 -m venv .venv && .venv/bin/pip install "redis>=6", and .venv/bin/python.
"""

import argparse
import json
import sys
import time

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry


def connect(url):
    # Names belong to the session of one connection. One that is lost is an error here, since the
    # names are lost with it: announce again. Changes are told as pushes, which RESP3 has.
    return redis.Redis.from_url(
        url, decode_responses=True, single_connection_client=True, retry=Retry(NoBackoff(), 0),
        protocol=3,
    )


def metadata(client, name):
    """What is said about a name, and its version; None if nobody owns it."""
    fields = client.execute_command("PORT.META", name)
    return fields and (json.loads(fields["metadata"] or "{}"), fields["version"])


def change(client, name, **changes):
    """Changes some fields of what is said about a name that this session owns."""
    while True:
        said, version = metadata(client, name)
        try:
            said = json.dumps({**said, **changes}, separators=(",", ":"))
            return client.execute_command("PORT.META", name, "SET", said, "VERSION", version)
        except redis.ResponseError as error:
            if not str(error).startswith("CONFLICT"):
                raise


def names(client, prefix):
    """All names that start like this and have an owner."""
    cursor = "0"
    while True:
        cursor, page = client.execute_command("PORT.LIST", "CURSOR", cursor, "PREFIX", prefix)
        yield from (name for name, _session, _token in page)
        if cursor == "0":
            return


def owned(connection, watched):
    """The names that are owned, of a name or of a prefix that ends with `/`: as a set, now and
    after each change, with the name that changed. The connection is for nothing else meanwhile: a
    command would read past pushes."""
    connection.send_command("PORT.WATCH", watched, "SNAPSHOT")
    there, whole = set(), False
    while True:
        said = connection.read_response(push_request=True)
        if not isinstance(said, list):
            continue  # the answer to the command
        kind, name, *rest = said
        if kind == "gap":  # this program was too slow: the server says again what there is
            there, whole = set(), False
        elif kind == "snapshot-end":
            whole = True
        elif kind == "released":
            if not rest[-1]:  # nobody shares it
                there.discard(name)
        else:
            there.add(name)
        if whole:
            yield there, name


def announce(client, service, instance, address):
    name, wish = f"svc/{service}/{instance}", f"drain/{service}/{instance}"
    won, owner, _token = client.execute_command("PORT.REGISTER", name)
    if not won:
        sys.exit(f"{name} is announced by session {owner} already")
    change(client, name, address=address, state="up")
    print(f"announced {name}", flush=True)
    next(there for there, _ in owned(client.connection, wish) if there)
    change(client, name, state="draining")
    print("draining", flush=True)
    # What is under way is done now. The name, and with it the entry, goes with the connection.
    time.sleep(0.5)


def described(client, name):
    """A line about an instance; None if it has gone since it was heard of, or said nothing yet."""
    found = metadata(client, name)
    return f"{name} {found[0]['address']} {found[0]['state']}" if found and found[0] else None


def find(client, service):
    for name in sorted(names(client, f"svc/{service}/")):
        if line := described(client, name):
            print(line)


def follow(client, service):
    shown = {}
    for there, changed in owned(client.connection_pool.get_connection(), f"svc/{service}/"):
        for name in sorted(shown.keys() - there):
            print(f"{name} is gone", flush=True)
            del shown[name]
        # What was read may be newer than the change that is told, and is told again then.
        for name in sorted((there - shown.keys()) | ({changed} & there)):
            line = described(client, name)
            if line and line != shown.get(name):
                print(line, flush=True)
                shown[name] = line


def drain(client, service, instance):
    client.execute_command("PORT.REGISTER", f"drain/{service}/{instance}")
    name = f"svc/{service}/{instance}"
    next(True for there, _ in owned(client.connection, name) if not there)
    print(f"{name} is gone")


def main():
    parser = argparse.ArgumentParser(description="Announce instances of services, and find them.")
    parser.add_argument("--url", default="redis://127.0.0.1:7400")
    acts = parser.add_subparsers(dest="act", required=True)
    for act in ("announce", "find", "follow", "drain"):
        words = acts.add_parser(act)
        words.add_argument("service")
        if act in ("announce", "drain"):
            words.add_argument("instance")
        if act == "announce":
            words.add_argument("--address", required=True)
    args = parser.parse_args()
    client = connect(args.url)
    if args.act == "announce":
        announce(client, args.service, args.instance, args.address)
    elif args.act == "find":
        find(client, args.service)
    elif args.act == "follow":
        follow(client, args.service)
    else:
        drain(client, args.service, args.instance)


if __name__ == "__main__":
    main()
