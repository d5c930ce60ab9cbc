//! What the stories need: servers and commands as processes, and ways to wait for something.

mod command;
mod latency;
mod server;

use std::time::{Duration, Instant};

pub(crate) use command::{Told, command, ringway, ringway_at, spawn_at};
pub(crate) use latency::Watch;
pub(crate) use server::{Server, Setup, refused};

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
