//! A server in this process, and a wire to it that can be cut.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use ringway_coord_server::config::{Draft, Host, Key};
use ringway_coord_server::node::Node;

/// How long a test waits for what has to happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// The address of the one server that all tests of a binary share: each has names and nodes of its
/// own.
pub(crate) fn addr() -> SocketAddr {
    static NODE: OnceLock<Node> = OnceLock::new();
    let node = NODE.get_or_init(|| {
        // Nothing ends a process's last server: what it keeps, some kilobytes, is left where builds
        // are, and goes with them.
        let name = format!("server-{}", std::process::id());
        let state = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = std::fs::remove_dir_all(&state);
        let mut draft = Draft::default();
        for (key, value) in [
            (Key::Listen, "127.0.0.1:0"),
            (Key::Admin, "off"),
            (Key::State, state.to_str().expect("text")),
            (Key::Shards, "2"),
            (Key::Pin, "false"),
            (Key::Spin, "false"),
            (Key::MaxMemory, "1GiB"),
        ] {
            draft.flag(key, value);
        }
        let config = draft.check(&Host::probe()).expect("a configuration for any host");
        Node::start(config).expect("it starts")
    });
    node.ready().listen
}

/// Waits until it is true.
#[track_caller]
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "never: {what}");
        std::thread::yield_now();
    }
}

/// A wire between a client and a server that can be cut, or go silent.
pub(crate) struct Wire {
    pub(crate) addr: SocketAddr,
    ends: Arc<Mutex<Vec<TcpStream>>>,
    faults: Arc<Faults>,
}

#[derive(Default)]
struct Faults {
    silent: AtomicBool,
    loses: AtomicBool,
}

impl Wire {
    pub(crate) fn to(server: SocketAddr) -> Wire {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port of the kernel's choice");
        let addr = listener.local_addr().expect("bound");
        let ends = Arc::new(Mutex::new(Vec::new()));
        let faults = Arc::new(Faults::default());
        let wire = Wire { addr, ends: Arc::clone(&ends), faults: Arc::clone(&faults) };
        std::thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                let Ok(server) = TcpStream::connect(server) else { continue };
                let both = [&client, &server].map(|end| end.try_clone().expect("a socket"));
                ends.lock().expect("whole").extend(both);
                for (from, to, back) in [(&client, &server, false), (&server, &client, true)] {
                    let ends = [from, to].map(|end| end.try_clone().expect("a socket"));
                    let faults = Arc::clone(&faults);
                    std::thread::spawn(move || carry(ends, back, &faults));
                }
            }
        });
        wire
    }

    /// Cuts all connections; the next one works.
    pub(crate) fn cut(&self) {
        for end in self.ends.lock().expect("whole").drain(..) {
            let _ = end.shutdown(Shutdown::Both);
        }
    }

    /// From now on nothing comes through, and nobody is told.
    pub(crate) fn silence(&self) {
        self.faults.silent.store(true, Ordering::SeqCst);
    }

    /// The next that the server says is lost, and its connection cut.
    pub(crate) fn lose_next(&self) {
        self.faults.loses.store(true, Ordering::SeqCst);
    }
}

fn carry([mut from, mut to]: [TcpStream; 2], back: bool, faults: &Faults) {
    let mut bytes = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        if back && faults.loses.swap(false, Ordering::SeqCst) {
            let _ = from.shutdown(Shutdown::Both);
            break;
        }
        let silent = faults.silent.load(Ordering::SeqCst);
        if !silent && to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}
