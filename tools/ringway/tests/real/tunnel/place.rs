//! Networks that a test has for itself, to break as it likes.

use std::fs::File;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Runs a program that must succeed.
#[track_caller]
pub(crate) fn run(words: &[&str]) {
    let output = Command::new(words[0]).args(&words[1..]).output();
    let output = output.unwrap_or_else(|error| panic!("{words:?} does not start: {error}"));
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Runs a story in a network namespace that has loopback only. All threads and processes that it
/// starts are there, too; the namespace goes with the last of them.
#[track_caller]
pub(crate) fn in_a_network_of_its_own(story: impl FnOnce() + Send) {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    assert!(
        rustix::process::geteuid().is_root(),
        "this test makes a network namespace (`ip netns add`) and needs root for it: run the tests \
         as root, as CI does"
    );
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("ringway-test-{}-{number}", std::process::id());
    run(&["ip", "netns", "add", &name]);
    let space = File::open(format!("/run/netns/{name}")).expect("it was just made");
    // Its name goes at once: a test that fails leaves nothing behind.
    run(&["ip", "netns", "delete", &name]);
    let told = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            move_into_link_name_space(
                std::os::fd::AsFd::as_fd(&space),
                Some(LinkNameSpaceType::Network),
            )
            .expect("we are root");
            run(&["ip", "link", "set", "lo", "up"]);
            story();
        });
        thread.join()
    });
    if let Err(panic) = told {
        std::panic::resume_unwind(panic);
    }
}
