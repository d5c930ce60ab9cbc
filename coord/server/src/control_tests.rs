//! Stories of the control plane, each told of both runtimes.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Condvar;
use std::time::Instant;

use super::*;
use crate::admin::{ADMIN_CONNS_MAX, Health, ShardsPage};
use crate::metrics::{ShardMetrics, ShardView};
use crate::quotas::NamespaceView;
use crate::state::Previous;

struct Node;

impl NodeView for Node {
    fn shards(&self) -> Vec<ShardView> {
        vec![ShardMetrics::default().snapshot(0, None)]
    }

    fn namespaces(&self) -> Vec<NamespaceView> {
        Vec::new()
    }

    fn health(&self) -> Health {
        Health::Ready
    }
}

/// Counts news, so that a test waits for what it waits for and not for a time.
#[derive(Default)]
struct Mailbox {
    count: Mutex<u64>,
    arrived: Condvar,
}

impl Mailbox {
    fn news(self: &Arc<Self>) -> News {
        let mailbox = self.clone();
        Arc::new(move || {
            *mailbox.count.lock().expect("no panic inside") += 1;
            mailbox.arrived.notify_all();
        })
    }

    /// Waits for news until `done`.
    fn until(&self, done: impl Fn() -> bool) {
        let mut count = self.count.lock().expect("no panic inside");
        while !done() {
            let (again, waited) =
                self.arrived.wait_timeout(count, Duration::from_secs(20)).expect("no panic inside");
            assert!(!waited.timed_out(), "no news");
            count = again;
        }
    }
}

const BOTH: [Runtime; 2] = [Runtime::Glommio, Runtime::Std];

fn settings(runtime: Runtime, dir: &Path) -> ControlSettings {
    ControlSettings {
        state: StatePlace::Dir(dir.to_owned()),
        admin: AdminPlace::Tcp(SocketAddr::from(([127, 0, 0, 1], 0))),
        lease_max: Span::from_s(30),
        runtime,
    }
}

fn started(settings: &ControlSettings) -> (Started, Arc<Mailbox>) {
    let mailbox = Arc::new(Mailbox::default());
    let started = start(settings, Arc::new(Node), mailbox.news()).expect("starts");
    (started, mailbox)
}

fn tcp(admin: &AdminPlace) -> TcpStream {
    let AdminPlace::Tcp(addr) = admin else { panic!("listens on TCP, not {admin}") };
    TcpStream::connect(addr).expect("listens")
}

fn talk(mut stream: impl Read + Write, request: &str) -> String {
    stream.write_all(request.as_bytes()).expect("is read");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("is answered");
    answer
}

/// A server that has just been scraped can be started again on the same port at once: the answered
/// connection lingers there, and must not keep the next server out.
#[test]
fn a_restart_right_after_a_scrape_starts() {
    for runtime in BOTH {
        let dir = tempfile::tempdir().expect("temporary directory");
        let mut settings = settings(runtime, dir.path());
        let (first, _) = started(&settings);
        assert!(talk(tcp(&first.admin), "GET /healthz HTTP/1.1\r\n\r\n").contains("200"));
        first.control.stop(true).expect("stops");
        settings.admin = first.admin;
        let (second, _) = started(&settings);
        assert_eq!(second.admin, settings.admin);
        second.control.stop(true).expect("stops");
    }
}

/// `--state ./state` is what people type: a path relative to where the server was started.
#[test]
fn a_relative_state_directory_is_one_too() {
    for runtime in BOTH {
        let here = std::env::current_dir().expect("there is one");
        let dir = tempfile::tempdir_in(&here).expect("temporary directory");
        let relative = dir.path().strip_prefix(&here).expect("below it").to_owned();
        assert!(relative.is_relative());
        let (started, _) = started(&settings(runtime, &relative));
        assert_eq!(started.opened.previous, Previous::Fresh);
        started.control.stop(true).expect("stops");
    }
}

/// The whole life: a fresh start, a lease persisted before it may be granted, another epoch, a
/// clean stop; and what the next start makes of it. The same on either runtime.
#[test]
fn wishes_become_facts() {
    for runtime in BOTH {
        let dir = tempfile::tempdir().expect("temporary directory");
        let settings = settings(runtime, dir.path());
        let (first, mailbox) = started(&settings);
        let port = first.port;
        assert_eq!((first.opened.previous, port.epoch()), (Previous::Fresh, Epoch(1)));
        assert!(!port.want_lease(Span::from_s(10)), "not before it is on the disk");
        mailbox.until(|| port.want_lease(Span::from_s(10)));
        assert!(!port.want_lease(Span::from_s(31)), "longer than the longest");
        assert_eq!(port.want_epoch_after(Epoch(1)), None);
        mailbox.until(|| port.want_epoch_after(Epoch(1)) == Some(Epoch(2)));
        assert_eq!(port.failures(), 0);
        first.control.stop(false).expect("stops");

        let (second, _) = started(&settings);
        let longest_lease = Span::from_s(10);
        assert_eq!(second.opened.previous, Previous::Unclean { longest_lease });
        assert_eq!(second.opened.epoch, Epoch(3));
        second.port.settle();
        second.control.stop(true).expect("stops");

        let (third, _) = started(&settings);
        assert_eq!(third.opened.previous, Previous::Clean);
        third.control.stop(false).expect("stops");
    }
}

/// Many shards wishing at once: every wish is granted, none waits for another's.
#[test]
fn many_shards_wish_at_once() {
    for runtime in BOTH {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (started, mailbox) = started(&settings(runtime, dir.path()));
        std::thread::scope(|scope| {
            for shard in 1..=8u64 {
                let (port, mailbox) = (started.port.clone(), mailbox.clone());
                scope.spawn(move || {
                    for step in 0..20 {
                        let span = Span::from_ms(shard * 100 + step * 1_000);
                        mailbox.until(|| port.want_lease(span));
                        let epoch = port.epoch();
                        mailbox.until(|| port.want_epoch_after(epoch).is_some());
                    }
                });
            }
        });
        assert!(started.port.epoch() >= Epoch(21));
        started.control.stop(true).expect("stops");
    }
}

/// C2 and C1: while the thread sleeps, a shard's calls return at once, and none returns a fact
/// that is not one.
#[test]
fn a_stalled_plane_is_not_felt() {
    for runtime in BOTH {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (started, mailbox) = started(&settings(runtime, dir.path()));
        let port = started.port.clone();
        let stalled = started.control.stall();
        // A call that waited for the thread would not return.
        for _ in 0..10_000 {
            assert!(!port.want_lease(Span::from_s(5)), "nothing is persisted meanwhile");
        }
        drop(stalled);
        mailbox.until(|| port.want_lease(Span::from_s(5)));
        started.control.stop(true).expect("stops");
    }
}

/// The pages are served, on TCP and on a socket file; broken and silent peers do not stop that.
#[test]
fn the_endpoint_answers() {
    const ASK: &str = "GET /shards HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for runtime in BOTH {
        let dir = tempfile::tempdir().expect("temporary directory");
        let mut settings = settings(runtime, dir.path());
        let (over_tcp, _) = started(&settings);
        let silent = tcp(&over_tcp.admin);
        assert!(talk(tcp(&over_tcp.admin), "\x16\x03\x01").starts_with("HTTP/1.1 400 "));
        drop(tcp(&over_tcp.admin));
        tcp(&over_tcp.admin).shutdown(Shutdown::Write).expect("half closed");
        let answer = talk(tcp(&over_tcp.admin), ASK);
        let (head, body) = answer.split_once("\r\n\r\n").expect("head and body");
        assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
        let page: ShardsPage = serde_json::from_str(body).expect("JSON");
        assert_eq!((page.health, page.shards.len()), (Health::Ready, 1));
        drop(silent);
        over_tcp.control.stop(true).expect("stops");

        let path = dir.path().join("admin.sock");
        settings.admin = AdminPlace::Unix(path.clone());
        // A killed server leaves its socket file behind.
        drop(std::os::unix::net::UnixListener::bind(&path).expect("binds"));
        for _ in 0..2 {
            let (over_unix, _) = started(&settings);
            let stream = UnixStream::connect(&path).expect("listens");
            assert!(talk(stream, ASK).starts_with("HTTP/1.1 200 OK"));
            let again = start(&settings, Arc::new(Node), Arc::new(|| ()));
            assert!(again.expect_err("locked").to_string().contains("in use"));
            over_unix.control.stop(true).expect("stops");
            assert!(!path.exists());
        }
    }
}

/// More silent peers than seats: the one behind them is served when the others' deadline is over,
/// and the facts flow meanwhile.
#[test]
fn silent_peers_lose_their_seats() {
    let deadline = Duration::from_nanos(crate::admin::ADMIN_DEADLINE.0);
    let both = BOTH.map(|runtime| {
        std::thread::spawn(move || {
            let dir = tempfile::tempdir().expect("temporary directory");
            let (started, mailbox) = started(&settings(runtime, dir.path()));
            let begun = Instant::now();
            let silent: Vec<_> = (0..ADMIN_CONNS_MAX).map(|_| tcp(&started.admin)).collect();
            mailbox.until(|| started.port.want_lease(Span::from_s(7)));
            let answer = talk(tcp(&started.admin), "GET /healthz HTTP/1.1\r\n\r\n");
            assert!(answer.ends_with("{\"state\":\"ready\"}"), "{answer}");
            let waited = begun.elapsed();
            assert!(deadline / 2 < waited && waited < 2 * deadline, "{waited:?}");
            drop(silent);
            started.control.stop(true).expect("stops");
        })
    });
    both.into_iter().for_each(|story| story.join().expect("both tell the same story"));
}

/// What cannot start says why: a taken port, a taken directory, a place that is none.
#[test]
fn refusals_are_reported() {
    for runtime in BOTH {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (holder, mailbox) = started(&settings(runtime, dir.path()));
        let again = start(&settings(runtime, dir.path()), Arc::new(Node), mailbox.news());
        let error = again.expect_err("locked").to_string();
        assert!(error.contains("is in use by another server"), "{error}");

        let other = tempfile::tempdir().expect("temporary directory");
        let mut taken = settings(runtime, other.path());
        taken.admin = holder.admin.clone();
        let again = start(&taken, Arc::new(Node), mailbox.news());
        let error = again.expect_err("port taken").to_string();
        assert!(error.contains("--admin off"), "{error}");

        let file = other.path().join("file");
        std::fs::write(&file, "").expect("writes");
        taken.state = StatePlace::Dir(file);
        let again = start(&taken, Arc::new(Node), mailbox.news());
        let error = again.expect_err("a file").to_string();
        assert!(error.contains("is not a directory"), "{error}");
        holder.control.stop(true).expect("stops");
    }
}

/// A directory that can no longer be written: the failure is counted, the wish stays open, and it
/// is granted when the directory is back.
#[test]
fn a_lost_directory_is_counted_and_retried() {
    for runtime in BOTH {
        let parent = tempfile::tempdir().expect("temporary directory");
        let (dir, aside) = (parent.path().join("state"), parent.path().join("aside"));
        let (started, mailbox) = started(&settings(runtime, &dir));
        std::fs::rename(&dir, &aside).expect("moves");
        assert!(!started.port.want_lease(Span::from_s(3)));
        mailbox.until(|| started.port.failures() > 0);
        assert!(!started.port.want_lease(Span::from_s(3)));
        std::fs::rename(&aside, &dir).expect("moves back");
        mailbox.until(|| started.port.want_lease(Span::from_s(3)));
        started.control.stop(true).expect("stops");
    }
}

/// A temporary place is gone afterwards.
#[test]
fn a_temporary_place_leaves_nothing() {
    let mut settings = settings(Runtime::Auto, Path::new("unused"));
    settings.state = StatePlace::Temporary;
    let (started, _) = started(&settings);
    let dir = started.control._place.dir.clone();
    assert!(dir.join("state.toml").exists());
    started.control.stop(true).expect("stops");
    assert!(!dir.exists());
}
