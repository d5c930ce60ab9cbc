//! The programs that everybody uses, unmodified, through the tunnel.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;

use super::flows::listen;
use super::sites::{Pair, Words};
use crate::support::{Held, Told, hold, until};

/// Runs a program to its end, which must be a good one, within a minute.
#[track_caller]
pub(crate) fn run(words: &[&str]) -> String {
    let output = Command::new("timeout").arg("60").args(words).output();
    let told = Told::from(output.expect("coreutils are everywhere"));
    assert_ne!(told.code, Some(127), "{} is not installed: {told:?}", words[0]);
    assert_eq!(told.code, Some(0), "{words:?}: {told:?}");
    told.out
}

/// A port that is free at this moment: the servers here take no port 0. Somebody else may take it
/// before they do; then the server says so and another port is tried.
pub(crate) fn server(mut command: impl FnMut(SocketAddr) -> Command) -> (Held, SocketAddr) {
    for _ in 0..10 {
        let (free, addr) = listen("127.0.0.1:0");
        drop::<TcpListener>(free);
        let mut held = hold(command(addr));
        let serves = until("the server listens, or ends", || match held.ended() {
            true => Some(false),
            false => TcpStream::connect(addr).is_ok().then_some(true),
        });
        if serves {
            return (held, addr);
        }
        println!("{addr}: {}", held.err());
    }
    panic!("no port is free ten times in a row");
}

pub(crate) fn program(words: &[&str]) -> Command {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]);
    command
}

/// Where a program is that the PATH of users may lack.
#[track_caller]
pub(crate) fn tool(name: &str) -> String {
    let place = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .chain([Path::new("/usr/sbin").to_owned()])
        .map(|folder| folder.join(name))
        .find(|path| path.exists());
    let place = place.unwrap_or_else(|| panic!("{name} is not installed"));
    place.to_str().expect("text").to_owned()
}

/// Runs curl with these words; what it prints.
#[track_caller]
pub(crate) fn curl(words: &[&str]) -> String {
    let always = ["curl", "-sS", "--fail", "--noproxy", "", "--max-time", "30"];
    run(&[&always[..], words].concat())
}

/// A redis that keeps nothing.
pub(crate) fn redis_server(dir: &Path) -> (Held, SocketAddr) {
    let dir = dir.to_str().expect("text");
    server(|addr| {
        let port = addr.port().to_string();
        let words = ["--port", &port, "--bind", "127.0.0.1", "--save", "", "--dir", dir];
        program(&[&["redis-server"], &words[..]].concat())
    })
}

/// iperf3: four streams up, four down, and both ways at once.
#[test]
fn iperf3() {
    let (_server, addr) = server(|addr| {
        program(&["iperf3", "-s", "-B", "127.0.0.1", "-p", &addr.port().to_string()])
    });
    let pair = Pair::start(&Words::default().forward(addr), &Words::default().allow([addr]));
    let port = pair.near.door(0).port().to_string();
    let common = ["iperf3", "-c", "127.0.0.1", "-p", &port, "-J", "-P", "4"];
    for more in [&["-t", "1"][..], &["-t", "1", "-R"], &["-t", "1", "--bidir"]] {
        let report = until("the server has ended the run before", || {
            let told = run(&[&common[..], more].concat());
            let report: serde_json::Value = serde_json::from_str(&told).expect("JSON");
            let busy = report["error"].as_str().is_some_and(|error| error.contains("is busy"));
            (!busy).then_some(report)
        });
        let moved = report["end"]["sum_received"]["bytes"].as_f64().unwrap_or_default();
        assert!(report["error"].is_null() && moved > 1e6, "{more:?}: {report}");
        println!("{more:?}: {:.0} MB", moved / 1e6);
    }
    pair.stop();
}

/// curl: by a forward, through SOCKS5 with the name resolved by the far side, through CONNECT.
#[test]
fn curl_by_every_way() {
    let page = "a page\n".repeat(100_000);
    let body = page.clone();
    let web = super::flows::serve("127.0.0.1:0", move |mut stream, _| {
        use std::io::{Read, Write};
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
            head.push(byte[0]);
        }
        let len = body.len();
        // Who hangs up early has its reasons.
        let _ = write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Length: {len}\r\nConnection: close\r\n\r\n{body}"
        );
    });
    let near = Words::default().forward(web).door("socks5").door("http_connect");
    let pair = Pair::start(&near, &Words::default().allow([web]));
    let (here, there) = (format!("http://{}/", pair.near.door(0)), format!("http://{web}/"));
    let by_name = format!("http://localhost:{}/", web.port());
    let (socks, http) = (pair.near.door(1).to_string(), format!("http://{}", pair.near.door(2)));
    let ways: [&[&str]; 5] = [
        &[&here],
        &["--socks5-hostname", &socks, &there],
        &["--socks5-hostname", &socks, &by_name],
        &["--socks5", &socks, &there],
        &["--proxytunnel", "--proxy", &http, &there],
    ];
    for way in ways {
        let told = curl(way);
        assert!(told == page, "{way:?}: {} bytes", told.len());
    }
    pair.stop();
}

/// ssh and rsync, by a server of their own with keys that are thrown away.
#[test]
fn ssh_and_rsync() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name).to_str().expect("text").to_owned();
    for key in ["host", "user"] {
        run(&["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", &path(key)]);
    }
    std::fs::copy(path("user.pub"), path("authorized")).expect("our directory");
    // What sshd wants to exist when root runs it, and packages make only where it is a service.
    if rustix::process::geteuid().is_root() {
        std::fs::create_dir_all("/run/sshd").expect("we are root");
    }
    let sshd = tool("sshd");
    let (_server, addr) = server(|addr| {
        let config = format!(
            "ListenAddress {addr}\nHostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\n\
             PasswordAuthentication no\nPidFile none\nPermitRootLogin prohibit-password\n",
            path("host"),
            path("authorized")
        );
        std::fs::write(path("sshd_config"), config).expect("our directory");
        program(&[&sshd, "-D", "-e", "-f", &path("sshd_config")])
    });
    let pair = Pair::start(&Words::default().forward(addr), &Words::default().allow([addr]));
    let (port, user) = (pair.near.door(0).port().to_string(), path("user"));
    let ssh = ["ssh", "-F", "none", "-p", &port, "-i", &user, "-o", "BatchMode=yes"];
    let ssh = [&ssh[..], &["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]]
        .concat();
    let told = run(&[
        &ssh[..],
        &["-o", "LogLevel=ERROR", "127.0.0.1", "echo hello; head -c 3000000 /dev/zero | wc -c"],
    ]
    .concat());
    assert_eq!(told, "hello\n3000000\n");
    // A tree that rsync brings over, changes, and brings over again.
    let tree = dir.path().join("tree");
    std::fs::create_dir(&tree).expect("our directory");
    for number in 0..200u64 {
        let mut bytes = vec![0; 1 + (number as usize * 997) % 60_000];
        super::flows::Pattern::new(number).fill(&mut bytes);
        std::fs::write(tree.join(format!("file-{number}")), bytes).expect("our directory");
    }
    let (from, to, shell) =
        (format!("{}/", path("tree")), format!("127.0.0.1:{}/", path("copy")), ssh.join(" "));
    let sync = ["rsync", "-a", "--checksum", "-e", &shell, &from, &to];
    run(&sync);
    run(&["diff", "-r", &path("tree"), &path("copy")]);
    std::fs::write(tree.join("file-7"), vec![1; 3_000_000]).expect("our directory");
    run(&sync);
    run(&["diff", "-r", &path("tree"), &path("copy")]);
    pair.stop();
}

/// redis-cli and redis-benchmark, with pipelines and without.
#[test]
fn redis() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_server, addr) = redis_server(dir.path());
    let pair = Pair::start(&Words::default().forward(addr), &Words::default().allow([addr]));
    let port = pair.near.door(0).port().to_string();
    let cli = ["redis-cli", "-h", "127.0.0.1", "-p", &port];
    assert_eq!(run(&[&cli[..], &["set", "name", "value"]].concat()), "OK\n");
    assert_eq!(run(&[&cli[..], &["get", "name"]].concat()), "value\n");
    let bench =
        ["redis-benchmark", "-h", "127.0.0.1", "-p", &port, "-t", "set,get,lrange_100", "--csv"];
    for more in [&["-n", "3000", "-c", "50"][..], &["-n", "20000", "-c", "20", "-P", "16"]] {
        let told = run(&[&bench[..], more].concat());
        assert!(
            told.contains("SET") && told.contains("GET") && told.contains("LRANGE_100"),
            "{told}"
        );
        println!("{told}");
    }
    pair.stop();
}
