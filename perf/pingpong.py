#!/usr/bin/env python3
"""One message after the other: the client sends 64 bytes, the service sends them back.

pingpong.py echo HOST PORT
pingpong.py client HOST PORT SECONDS FLOWS: prints the round trips of all flows as JSON, in ms

Several flows at once only make more round trips to judge from; each waits for its answer.
"""

import json
import socket
import sys
import threading
import time

MESSAGE = bytes(range(64))


def receive(connection, count):
    """So many bytes, or fewer if the other side ended."""
    data = b""
    while len(data) < count:
        part = connection.recv(count - len(data))
        if not part:
            break
        data += part
    return data


def answer(connection):
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while message := receive(connection, len(MESSAGE)):
        connection.sendall(message)
    connection.close()


def echo(host, port):
    with socket.create_server((host, port), backlog=100) as door:
        while True:
            connection, _ = door.accept()
            threading.Thread(target=answer, args=(connection,), daemon=True).start()


def ask(address, end, found):
    with socket.create_connection(address, timeout=10) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(MESSAGE)  # The first opens the connection behind the tunnel, too.
        receive(connection, len(MESSAGE))
        while (before := time.perf_counter()) < end:
            connection.sendall(MESSAGE)
            if receive(connection, len(MESSAGE)) != MESSAGE:
                raise ConnectionError("the answer is not what was sent")
            found.append((time.perf_counter() - before) * 1e3)


def client(host, port, seconds, flows):
    found, failed = [], []
    end = time.perf_counter() + seconds

    def guarded():
        try:
            ask((host, port), end, found)
        except OSError as why:
            failed.append(str(why))
    threads = [threading.Thread(target=guarded) for _ in range(flows)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed or not found:
        sys.exit(f"pingpong: {failed or 'no round trip was done in time'}")
    found.sort()
    quantile = {f"p{share}_ms": round(found[int(len(found) * share / 100)], 3)
                for share in (50, 90, 99)}
    print(json.dumps({"count": len(found), "min_ms": round(found[0], 3), **quantile,
                      "max_ms": round(found[-1], 3)}))


def main():
    if len(sys.argv) == 4 and sys.argv[1] == "echo":
        echo(sys.argv[2], int(sys.argv[3]))
    elif len(sys.argv) == 6 and sys.argv[1] == "client":
        client(sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5]))
    else:
        sys.exit(__doc__)


main()
