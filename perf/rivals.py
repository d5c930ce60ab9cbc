"""The contestants of perf/tunnel.py: each is a pair of processes between a client and services.

A contestant is a function that starts its pair on a `Stage` for some targets, which are ports of
services on the far side, and answers where the client finds them on the near side. The same
cipher class for all, AES-128-GCM (TLS 1.3: TLS_AES_128_GCM_SHA256), except spiped, which has only
AES-256-CTR with HMAC-SHA256. One thread of work for each process, or one core for all of its
threads, which are pinned by the stage. Compression is off. Peers are not verified where that is a
choice: it costs only a handshake. How each is tuned stands beside it.
"""

import functools
import getpass
import json
import os
import pathlib
import shutil
import subprocess

LOOPBACK = "127.0.0.1"
CONTESTANTS = {}


class Contestant:
    """A pair: its name, what it needs to run, and how it starts."""

    def __init__(self, name, rival, needs, start):
        self.name, self.rival, self.needs, self.start = name, rival, needs, start

    def lacks(self):
        """What keeps it from running here, in words; nothing if it can."""
        lacking = [program for program in self.needs if not find(program)]
        if lacking:
            return "no " + ", ".join(lacking)
        return "" if self.name != "ringway" else ringway_lacks()


def contestant(name, *needs, rival=True):
    def add(start):
        CONTESTANTS[name] = Contestant(name, rival, needs, start)
        return start
    return add


def find(program):
    """Where a program is; Debian keeps some where users do not look."""
    return shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin:/sbin")


@contestant("direct", rival=False)
def direct(stage, targets):
    """No tunnel at all: what the services and the clients can do."""
    return [(stage.ground.far_host, port) for port in targets]


@contestant("relays", "haproxy", rival=False)
def relays(stage, targets):
    """Two plain haproxy relays in a row: what any tunnel of two processes could reach at best."""
    return haproxy(stage, targets)


@contestant("relays-splice", "haproxy", rival=False)
def relays_splice(stage, targets):
    """The same, but the kernel moves the data from socket to socket, through pipes of 1 MiB: that
    is quicker with one connection, and slower with a hundred. TLS in user space cannot do it."""
    return haproxy(stage, targets, splice="option splice-auto")


@contestant("haproxy-tls", "haproxy", "openssl")
def haproxy_tls(stage, targets):
    """The near one speaks TLS 1.3 to the far one."""
    return haproxy(stage, targets, tls=True)


def haproxy(stage, targets, tls=False, splice=""):
    """64 KiB buffers instead of 16, which is best for all of these, and one thread."""
    nears, fars = [[stage.port() for _ in targets] for _ in range(2)]
    pem = "".join(pathlib.Path(part).read_text() for part in certificate(stage)) if tls else ""
    crt = f"ssl crt {stage.file('far.pem', pem)}" if tls else ""
    head = f"""
global
    nbthread 1
    maxconn 4000
    tune.bufsize 65536
    tune.pipesize 1048576
    ssl-default-bind-options ssl-min-ver TLSv1.3
    ssl-default-bind-ciphersuites TLS_AES_128_GCM_SHA256
    ssl-default-server-options ssl-min-ver TLSv1.3
    ssl-default-server-ciphersuites TLS_AES_128_GCM_SHA256
defaults
    mode tcp
    maxconn 4000
    timeout connect 5s
    timeout client 1h
    timeout server 1h
    {splice}
"""
    far, near = head, head
    for number, target in enumerate(targets):
        far += f"""
listen far{number}
    bind {stage.ground.far_host}:{fars[number]} {crt}
    server service {LOOPBACK}:{target}
"""
        near += f"""
listen near{number}
    bind {LOOPBACK}:{nears[number]}
    server far {stage.ground.far_host}:{fars[number]} {"ssl verify none" if tls else ""}
"""
    program = [find("haproxy"), "-db", "-f"]
    stage.far([*program, stage.file("far.cfg", far)], "far", *fars)
    stage.near([*program, stage.file("near.cfg", near)], "near", *nears)
    return [(LOOPBACK, port) for port in nears]


def certificate(stage):
    """A certificate and its key, made once for all runs: P-256, which makes handshakes cheap."""
    shared = stage.directory.parent
    crt, key = shared / "tls.crt", shared / "tls.key"
    if not crt.exists():
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
             "-nodes", "-subj", "/CN=far", "-days", "30", "-keyout", key, "-out", crt],
            check=True, capture_output=True)
    return crt, key


@contestant("stunnel", "stunnel", "openssl")
def stunnel(stage, targets):
    """TLS 1.3, Nagle's algorithm off. A thread for each connection, all on the side's one core."""
    nears, fars = [[stage.port() for _ in targets] for _ in range(2)]
    crt, key = certificate(stage)
    head = """
foreground = yes
pid =
debug = err
socket = a:SO_REUSEADDR=1
socket = l:TCP_NODELAY=1
socket = r:TCP_NODELAY=1
sslVersion = TLSv1.3
ciphersuites = TLS_AES_128_GCM_SHA256
"""
    far, near = head, head + "client = yes\n"
    for number, target in enumerate(targets):
        far += (f"[far{number}]\naccept = {stage.ground.far_host}:{fars[number]}\n"
                f"connect = {LOOPBACK}:{target}\ncert = {crt}\nkey = {key}\n")
        near += (f"[near{number}]\naccept = {LOOPBACK}:{nears[number]}\n"
                 f"connect = {stage.ground.far_host}:{fars[number]}\n")
    stage.far([find("stunnel"), stage.file("far.conf", far)], "far", *fars)
    stage.near([find("stunnel"), stage.file("near.conf", near)], "near", *nears)
    return [(LOOPBACK, port) for port in nears]


@contestant("shadowsocks", "sslocal", "ssserver")
def shadowsocks(stage, targets):
    """shadowsocks-rust in tunnel mode, Nagle's algorithm off, a runtime of one thread. From
    `cargo install shadowsocks-rust --no-default-features
    --features local,local-tunnel,server,aead-cipher`, wherever it is on the PATH."""
    nears, server = [stage.port() for _ in targets], stage.port()
    common = {"server": stage.ground.far_host, "server_port": server, "method": "aes-128-gcm",
              "password": "measured", "mode": "tcp_only", "no_delay": True,
              "runtime": {"mode": "single_thread"}}
    tunnels = [{"protocol": "tunnel", "local_address": LOOPBACK, "local_port": port,
                "forward_address": LOOPBACK, "forward_port": target, "mode": "tcp_only"}
               for port, target in zip(nears, targets)]
    far = stage.file("far.json", json.dumps(common))
    near = stage.file("near.json", json.dumps({**common, "locals": tunnels}))
    stage.far([find("ssserver"), "-c", far], "far", server)
    stage.near([find("sslocal"), "-c", near], "near", *nears)
    return [(LOOPBACK, port) for port in nears]


@contestant("spiped", "spiped")
def spiped(stage, targets):
    """A pair of processes for each target, since it has one target. It knows no other cipher than
    AES-256-CTR with HMAC-SHA256. 1000 connections may be open instead of 100."""
    key = stage.directory / "spiped.key"
    key.write_bytes(os.urandom(32))
    nears = [stage.port() for _ in targets]
    common = [find("spiped"), "-F", "-n", "1000", "-k", key]
    for number, target in enumerate(targets):
        far, near = stage.port(), nears[number]
        far_at = f"[{stage.ground.far_host}]:{far}"
        stage.far([*common, "-p", stage.directory / f"far{number}.pid", "-d", "-s", far_at,
                   "-t", f"[{LOOPBACK}]:{target}"], f"far{number}", far)
        stage.near([*common, "-p", stage.directory / f"near{number}.pid", "-e",
                    "-s", f"[{LOOPBACK}]:{near}", "-t", far_at], f"near{number}", near)
    return [(LOOPBACK, port) for port in nears]


@contestant("ssh", "ssh", "sshd", "ssh-keygen")
def ssh(stage, targets):
    """`ssh -L` to a server of our own, as this user: one connection for all, no compression."""
    nears, server = [stage.port() for _ in targets], stage.port()
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f",
                        stage.directory / name], check=True)
    if os.geteuid() == 0:
        # The server insists on it when root runs it; a machine that never booted lacks it.
        pathlib.Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    config = stage.file("sshd_config", f"""
ListenAddress {stage.ground.far_host}:{server}
HostKey {stage.directory}/host
AuthorizedKeysFile {stage.directory}/user.pub
PidFile none
UsePAM no
StrictModes no
PermitRootLogin prohibit-password
PasswordAuthentication no
AllowTcpForwarding yes
Ciphers aes128-gcm@openssh.com
Compression no
IPQoS none
""")
    stage.far([find("sshd"), "-D", "-e", "-f", config], "far", server)
    options = {"BatchMode": "yes", "ControlMaster": "no", "ControlPath": "none",
               "StrictHostKeyChecking": "no", "UserKnownHostsFile": "/dev/null",
               "IdentitiesOnly": "yes", "ExitOnForwardFailure": "yes", "IPQoS": "none",
               "Compression": "no", "Ciphers": "aes128-gcm@openssh.com"}
    forwards = [part for port, target in zip(nears, targets)
                for part in ("-L", f"{LOOPBACK}:{port}:{LOOPBACK}:{target}")]
    stage.near(["ssh", "-N", "-F", "none", "-i", stage.directory / "user", "-p", server,
                *(part for option in options.items() for part in ("-o", "=".join(option))),
                *forwards, f"{getpass.getuser()}@{stage.ground.far_host}"], "near", *nears)
    return [(LOOPBACK, port) for port in nears]


RINGWAY = os.environ.get("RINGWAY_BIN", "target/release/ringway")


def ringway_lacks():
    if not shutil.which(RINGWAY):
        return f"no {RINGWAY}; set RINGWAY_BIN"
    helped = subprocess.run([RINGWAY, "tunnel", "--help"], capture_output=True, text=True)
    return "" if "--config" in helped.stdout else f"{RINGWAY} has no `tunnel --config`"


@contestant("ringway", rival=False)
def ringway_pair(stage, targets, peer=""):
    """One shard each, AES-128-GCM; the rest as it comes. Compression is looked for as by default
    and finds nothing: iperf3 repeats 128 KiB of random bytes, and LZ4 looks back 64 KiB."""
    nears, carriers = [stage.port() for _ in targets], stage.port()
    public = {side: keygen(stage, f"{side}.key") for side in ("near", "far")}
    keygen(stage, "network.key", "--network")
    common = """[tunnel]
network_key = "network.key"
key = "{side}.key"
shards = 1
ciphers = ["aes-128-gcm"]
socket = "{directory}/{side}.sock"
"""
    far = common.format(side="far", directory=stage.directory) + f"""
listen = ["{stage.ground.far_host}:{carriers}"]

[[peer]]
name = "near"
public_key = "{public["near"]}"
{peer}
allow = [{", ".join(f'"{LOOPBACK}:{target}"' for target in targets)}]
"""
    near = common.format(side="near", directory=stage.directory) + f"""
[[peer]]
name = "far"
public_key = "{public["far"]}"
{peer}
addresses = ["{stage.ground.far_host}:{carriers}"]
"""
    for port, target in zip(nears, targets):
        near += f"""
[[forward]]
listen = "{LOOPBACK}:{port}"
peer = "far"
to = "{LOOPBACK}:{target}"
"""
    program = [RINGWAY, "tunnel", "--config"]
    stage.far([*program, stage.file("far.toml", far)], "far", carriers)
    stage.near([*program, stage.file("near.toml", near)], "near", *nears)
    return [(LOOPBACK, port) for port in nears]


# Not beside rivals: what packets cost is to be compared with what records cost.
RINGWAY_UDP = Contestant("ringway-udp", False, (),
                         functools.partial(ringway_pair, peer="udp = true"))


def keygen(stage, file, *flags):
    """Makes a key file; the half of it that peers know."""
    made = subprocess.run([RINGWAY, "keygen", *flags, stage.directory / file],
                          check=True, capture_output=True, text=True)
    return made.stdout.strip()
