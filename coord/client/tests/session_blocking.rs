//! The face for threads: the suite of `session/suite.rs`, against a real server.

use ringway_client::Session;

/// Waits for what a method returns: here it is the value.
macro_rules! wait {
    ($call:expr) => {
        $call
    };
}

#[path = "session/mock.rs"]
mod mock;
#[path = "session/server.rs"]
mod server;
#[path = "session/suite.rs"]
mod suite;
