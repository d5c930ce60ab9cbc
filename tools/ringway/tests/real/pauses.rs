//! Processes that stand still and go on: a client longer than its lease, the server longer than
//! everybody's.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ringway_client::{OpenRequest, Refusal};
use ringway_core::NodeId;
use rustix::process::Signal;

use crate::support::{Setup, granted, granted_at_last, held, pass, ringway_at, spawn_at, until};

/// A client process stands longer than its lease. Its session has ended, another has the name under
/// a larger token, and when it goes on it is told, and everything it tries under its session is
/// refused.
#[test]
fn a_client_that_slept_too_long_is_told() {
    let server = Setup::new().shards(2).start();
    let dir = tempfile::tempdir().expect("temporary directory");
    let saved = dir.path().join("session.json");
    let saved = saved.to_str().expect("text");
    let open = ["session", "open", "--node", "7", "--lease-ms", "3000", "--save", saved, "--hold"];
    let mut process = spawn_at(server.addr, &open);
    process.line_with("opened for node 7");
    ringway_at(server.addr, &["port", "register", "job", "--as", saved]).with(0);
    let mut client = server.client();
    let before = held(&mut client, "job");
    process.pause();
    let after = granted_at_last(&mut client, "job");
    assert!(after.token > before.token && after.session != before.session);
    process.signal(Signal::CONT);
    assert_eq!(process.wait(), Some(1), "{}", process.err());
    assert!(process.err().contains("is lost, with all its names"), "{}", process.err());
    for words in [
        ["session", "renew", "--as", saved].as_slice(),
        &["port", "register", "job", "--as", saved],
        &["port", "release", "job", "--as", saved],
    ] {
        ringway_at(server.addr, words).with(1).complains(&["NOSESSION"]);
    }
    assert_eq!(held(&mut server.client(), "job").token, after.token, "it did not get it back");
    server.stop();
}

/// The server stands for longer than every lease while its clients go on sending renewals. When it
/// goes on, nobody who renewed has expired: not those whose renewals wait in its sockets, and not
/// those whose lease was nearly over. Who did not renew expires, only later.
#[test]
fn a_server_that_slept_expires_nobody_who_renewed() {
    const CLIENTS: usize = 8;
    let lease = Duration::from_millis(3000);
    let server = Setup::new().shards(2).start();
    let (ready, done) = (Barrier::new(CLIENTS + 1), AtomicBool::new(false));
    let mut idle = server.client();
    let request = |node| OpenRequest { lease, ..OpenRequest::new(NodeId(node)) };
    let silent = idle.open(request(1000)).expect("opens").session;
    granted(&mut idle, "silent");
    std::thread::scope(|scope| {
        let renew = |index: usize| {
            let mut client = server.client();
            let opened = client.open(request(index as u64)).expect("opens");
            let owner = granted(&mut client, &format!("kept/{index}"));
            ready.wait();
            let mut renewals = 0;
            while !done.load(Ordering::Relaxed) {
                client.renew().unwrap_or_else(|error| panic!("client {index}: {error}"));
                renewals += 1;
                pass(lease / 30);
            }
            // The same session still holds the same name under the same token.
            assert_eq!(granted(&mut client, &format!("kept/{index}")), owner);
            assert_eq!(client.take_notice(), None);
            (opened.session, renewals)
        };
        let clients: Vec<_> = (0..CLIENTS).map(|index| scope.spawn(move || renew(index))).collect();
        ready.wait();
        for _ in 0..2 {
            server.pause();
            pass(lease * 5 / 4);
            server.signal(Signal::CONT);
            // Everybody is answered again before it stands once more.
            pass(lease / 3);
        }
        let mut watcher = server.client();
        until("who was silent expires", || match watcher.session(silent) {
            Ok(_) => None,
            Err(error) => {
                assert_eq!(error.refusal(), Some(Refusal::NoSession), "{error}");
                Some(())
            }
        });
        granted_at_last(&mut watcher, "silent");
        done.store(true, Ordering::Relaxed);
        for client in clients {
            let (session, renewals) = client.join().expect("it kept its session");
            assert!(renewals > 2, "{session} renewed {renewals} times");
        }
    });
    server.stop();
}
