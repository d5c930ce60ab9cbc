//! What the stories need: servers and commands as processes, and ways to wait for something.

mod command;
mod latency;
mod proxy;
mod server;

use std::path::Path;
use std::time::{Duration, Instant};

pub(crate) use command::{Held, Told, command, hold, ringway, ringway_at, ringway_fed, spawn_at};
pub(crate) use latency::Watch;
pub(crate) use proxy::Proxy;
pub(crate) use server::{
    Server, Setup, cpu_of, pause, raise_open_files, refused, signal_to, status_bytes,
};

use ringway_client::{Client, Owner, Registered};

/// Longer than anything takes on a machine that is busy with other things.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Asks again until there is an answer.
#[track_caller]
pub(crate) fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(begun.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain: {what}");
        pass(Duration::from_millis(2));
    }
}

/// Lets time pass: between two looks, or where the story is that nothing happens for a while.
pub(crate) fn pass(span: Duration) {
    let until = Instant::now() + span;
    while let Some(left) = until.checked_duration_since(Instant::now()).filter(|d| !d.is_zero()) {
        std::thread::park_timeout(left);
    }
}

/// Opens a session for a node and saves it; the file for `--as`, and the session.
#[track_caller]
pub(crate) fn saved_session(server: &Server, dir: &Path, node: u32) -> (String, String) {
    let file = dir.join(format!("session-{node}.json")).to_str().expect("text").to_owned();
    let node = node.to_string();
    let words = ["session", "open", "--node", &node, "--lease-ms", "30000", "--save", &file];
    let opened = ringway_at(server.addr, &[&words[..], &["--json"]].concat()).with(0).json();
    (file, opened["session"].as_str().expect("a session").to_owned())
}

/// Waits until so many wait for the name.
#[track_caller]
pub(crate) fn until_waiting(client: &mut Client, name: &str, most: u32) {
    until("the queue is as long as that", || {
        let queue = client.waiters(name.as_bytes(), 1).expect("an answer");
        (queue.map_or(0, |queue| queue.waiters_in_all) == most).then_some(())
    });
}

/// Claims a name that must be free.
#[track_caller]
pub(crate) fn granted(client: &mut Client, name: &str) -> Owner {
    match client.register_one(name.as_bytes()).expect("an answer") {
        Registered::Granted(owner) => owner,
        Registered::Held(owner) => panic!("{name} is held: {owner:?}"),
    }
}

/// Claims a name that another must hold; the holder.
#[track_caller]
pub(crate) fn held(client: &mut Client, name: &str) -> Owner {
    match client.register_one(name.as_bytes()).expect("an answer") {
        Registered::Held(owner) => owner,
        Registered::Granted(owner) => panic!("{name} was free: {owner:?}"),
    }
}

/// Claims a name until its holder has lost it.
#[track_caller]
pub(crate) fn granted_at_last(client: &mut Client, name: &str) -> Owner {
    until("the name becomes free", || match client.register_one(name.as_bytes()) {
        Ok(Registered::Granted(owner)) => Some(owner),
        Ok(Registered::Held(_)) => None,
        Err(error) => panic!("{name}: {error}"),
    })
}
