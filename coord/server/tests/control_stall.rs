//! The control plane may block without any shard noticing: here it stands, while clients on the
//! shards are served.
//!
//! In this process, because only the node itself can put its control plane to sleep. RESP, because
//! it needs no library.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use ringway_coord_server::config::{AdminPlace, Config, Draft, Host, Key};
use ringway_coord_server::node::Node;

/// Rounds of three requests while the control plane stands.
const ROUNDS: usize = 3000;

fn config() -> Config {
    let mut draft = Draft::default();
    for (key, value) in [
        (Key::Listen, "127.0.0.1:0"),
        (Key::Admin, "127.0.0.1:0"),
        (Key::State, "temporary"),
        (Key::Shards, "2"),
        (Key::Pin, "false"),
        (Key::Spin, "false"),
        (Key::MaxMemory, "256MiB"),
    ] {
        draft.flag(key, value);
    }
    draft.check(&Host::probe()).expect("a configuration for any host")
}

struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    fn connect(addr: SocketAddr) -> Client {
        let stream = TcpStream::connect(addr).expect("connects");
        stream.set_nodelay(true).expect("a socket");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket");
        Client { stream: BufReader::new(stream) }
    }

    fn say(&mut self, line: &str) {
        self.stream.get_mut().write_all(format!("{line}\r\n").as_bytes()).expect("writes");
    }

    /// A line of the answer, without its end.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).expect("an answer");
        line.trim_end().to_owned()
    }

    /// Claims a name; whether it was granted.
    fn claim(&mut self, name: &str) -> bool {
        self.say(&format!("PORT.REGISTER {name}"));
        let answer: [String; 6] = std::array::from_fn(|_| self.line());
        answer[1] == ":1"
    }
}

/// The status line of `/healthz`.
fn ask_health(admin: SocketAddr) -> String {
    let mut stream = TcpStream::connect(admin).expect("the kernel accepts for it");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket");
    let request = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(request).expect("writes");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    text.lines().next().unwrap_or_default().to_owned()
}

/// Clients claim, query and give back on both shards, connections come and go, sessions open with
/// leases that are already on the disk: nothing of it waits for the control plane. A lease longer
/// than any before has to wait for the disk, and is granted once the control plane wakes.
#[test]
fn shards_do_not_notice_a_blocked_control_plane() {
    let node = Node::start(config()).expect("starts");
    let addr = node.addresses()[0];
    let AdminPlace::Tcp(admin) = *node.admin() else { panic!("an endpoint was asked for") };
    let mut client = Client::connect(addr);
    client.say("SESSION.OPEN 1 LEASE 9000");
    assert_eq!(client.line(), "*10");
    for _ in 0..17 {
        client.line();
    }
    assert!(client.claim("warm"));

    let stalled = node.stall_control();
    let health = std::thread::spawn(move || ask_health(admin));
    let waits = std::thread::spawn(move || {
        let mut client = Client::connect(addr);
        client.say("SESSION.OPEN 2 LEASE 25000");
        client.line()
    });
    // A shard that waited for the control plane would wait for ever: no answer would come.
    let mut worst = Duration::ZERO;
    for asked in 0..ROUNDS {
        let since = Instant::now();
        let name = format!("name/{asked}");
        assert!(client.claim(&name));
        client.say(&format!("PORT.RELEASE {name}"));
        assert_eq!(client.line(), ":1");
        client.say("SESSION.RENEW");
        assert_eq!(client.line(), "+OK");
        if asked % 100 == 0 {
            let mut other = Client::connect(addr);
            other.say(&format!("SESSION.OPEN {} LEASE 800", 100 + asked));
            assert_eq!(other.line(), "*10");
        }
        worst = worst.max(since.elapsed());
    }
    println!("{ROUNDS} rounds of three while the control plane stood; the worst took {worst:?}");
    assert!(!health.is_finished() && !waits.is_finished(), "the control plane did not stand");
    drop(stalled);
    let status = health.join().expect("an answer");
    assert!(status.contains("200"), "{status}");
    assert_eq!(waits.join().expect("an answer"), "*10", "once the disk has the lease");
    node.stop();
    node.join().expect("an orderly end");
}
