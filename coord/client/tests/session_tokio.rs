//! The face for tasks: the suite of `session/suite.rs`, and what only tasks can do.
#![cfg(feature = "tokio")]

use std::sync::OnceLock;
use std::time::Duration;

use ringway_client::tokio::Session;
use tokio::runtime::Runtime;

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(2).enable_all().build().expect("threads")
    })
}

/// Waits for what a method returns: here it is a future.
macro_rules! wait {
    ($call:expr) => {
        crate::runtime().block_on($call)
    };
}

#[path = "session/mock.rs"]
mod mock;
#[path = "session/server.rs"]
mod server;
#[path = "session/suite.rs"]
mod suite;

/// A future that is dropped leaves the queue it stood in, and what was granted to it meanwhile goes
/// to the next one.
#[test]
fn a_dropped_future_waits_no_longer() {
    let holder = suite::session(server::addr(), 901);
    let other = suite::session(server::addr(), 902);
    let held = wait!(holder.lock("tokio/dropped", None)).expect("free");
    runtime().block_on(async {
        let short = Duration::from_millis(30);
        let lock = tokio::time::timeout(short, other.lock("tokio/dropped", None)).await;
        assert!(lock.is_err(), "it is held");
    });
    server::until("nobody waits", || {
        let queue = wait!(holder.waiters("tokio/dropped", 10)).expect("answered");
        queue.is_some_and(|queue| queue.waiters_in_all == 0)
    });
    drop(held);
    assert!(wait!(holder.lock("tokio/dropped", Some(Duration::from_secs(9)))).is_ok());
}

/// Futures of a session can be sent between threads, so that any task may use it.
#[test]
fn futures_are_send() {
    fn send<T: Send>(value: T) -> T {
        value
    }
    let session = suite::session(server::addr(), 903);
    let names = ["tokio/send/1", "tokio/send/2"];
    let task = send(async move {
        let registered = session.register(&names).await?.len();
        let held = session.lock("tokio/send/3", None).await?;
        Ok::<_, ringway_client::SessionError>((registered, held.name().to_vec()))
    });
    let (registered, name) = wait!(task).expect("free");
    assert_eq!((registered, name.as_slice()), (2, b"tokio/send/3".as_slice()));
}
