//! Leader election: of all processes that run this, one leads; when it ends, dies or is cut off,
//! another one does.
//!
//! ```text
//! cargo run -p ringway-client --example leader -- 127.0.0.1:7400 1  # node 1
//! cargo run -p ringway-client --example leader -- 127.0.0.1:7400 2  # node 2, elsewhere
//! ```
//!
//! Electing is locking: whoever holds the name `leader/reports` leads. The others wait in line, and
//! the server hands the name over in the same step in which it becomes free.

use std::env::args;
use std::error::Error;
use std::time::Duration;

use ringway_client::engine::Event;
use ringway_client::{Held, Session};

fn main() -> Result<(), Box<dyn Error>> {
    let address = args().nth(1).ok_or("usage: leader ADDRESS NODE")?;
    let node: u64 = args().nth(2).ok_or("usage: leader ADDRESS NODE")?.parse()?;
    loop {
        // The lease says how long the others wait for a leader of whom nobody hears any more.
        let lease = Duration::from_secs(2);
        let session = Session::builder().node(node).lease(lease).connect(&address)?;
        println!("node {node} stands for election");
        // Nobody else leads from here on, until `held` is dropped or lost.
        if let Ok(held) = session.lock("leader/reports", None) {
            println!("node {node} leads under token {}", held.token());
            lead(&session, &held);
            println!("node {node} leads no more");
        }
        // A session that is lost stays lost: the next one stands for election anew.
    }
}

/// Leads for as long as it may.
fn lead(session: &Session, held: &Held) {
    let mut events = session.events();
    while !held.is_lost() {
        // Here a leader does a small piece of its work. Between the check and the work it may have
        // stood still for longer than its lease, so whatever it writes carries `held.token()`, and
        // who stores it refuses a smaller token than the largest it has seen: see `lock.rs`.
        match events.recv_timeout(Duration::from_millis(20)) {
            // Nobody has confirmed the lease for a while: begin nothing that takes longer.
            Some(Event::AtRisk { left }) => println!("it may be over in {left:?}"),
            Some(Event::Safe) => println!("it goes on"),
            _ => {}
        }
    }
}
