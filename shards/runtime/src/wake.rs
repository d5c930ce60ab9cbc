//! Who sleeps, and who must therefore be woken.
//!
//! A bell costs a system call here and 25 us there; mail to a shard that is awake needs none. So
//! a shard says when it is about to sleep, and looks at its mail once more after saying so. A
//! sender publishes, and looks whether the receiver sleeps after that. Each side writes, then
//! reads what the other writes; a SeqCst fence between the two on both sides makes it impossible
//! that both miss. (The fence is the caller's, so that one serves for many peers.)
//!
//! Every change is a swap, so that all changes form one chain: the proof is short, and loom, which
//! lets a swap and a plain store pass each other, can follow it.
//!
//! Always: whoever published to a sleeper either saw it asleep and rings, or is seen by it before
//! it sleeps.
//! Tests: `loom_*` below under loom (see `sync.rs`).

use crate::sync::{AtomicBool, Ordering};

/// Whether one thread is asleep, or about to be.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Sleeper {
    asleep: AtomicBool,
}

impl Sleeper {
    /// Awake.
    pub(crate) fn new() -> Self {
        Self { asleep: AtomicBool::new(false) }
    }

    /// By its own thread: "I am about to sleep". A SeqCst fence and another look at all mail
    /// follow, and [`Self::get_up`] if there is some.
    pub(crate) fn lie_down(&self) {
        self.asleep.swap(true, Ordering::Relaxed);
    }

    /// By its own thread: "I am awake". Mail published before is seen by the next look at it.
    pub(crate) fn get_up(&self) {
        self.asleep.swap(false, Ordering::Relaxed);
    }

    /// By a sender, which has published and then made a SeqCst fence: whether it must ring. Of
    /// several senders one is told.
    pub(crate) fn must_be_woken(&self) -> bool {
        self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::Relaxed)
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use loom::sync::{Arc, Condvar, Mutex};
    use loom::thread;

    use super::*;
    use crate::mailbox::mailbox;
    use crate::sync::fence;

    /// A bell that remembers.
    #[derive(Default)]
    struct Bell {
        rung: Mutex<bool>,
        changed: Condvar,
    }

    impl Bell {
        fn ring(&self) {
            *self.rung.lock().unwrap() = true;
            self.changed.notify_one();
        }

        fn wait(&self) {
            let mut rung = self.rung.lock().unwrap();
            while !*rung {
                rung = self.changed.wait(rung).unwrap();
            }
            *rung = false;
        }
    }

    /// Mail is never left lying while its receiver sleeps: a lost wake-up would be a deadlock
    /// here, which loom reports.
    #[test]
    fn loom_no_wake_up_is_lost() {
        loom::model(|| {
            let (mut sender, mut receiver) = mailbox(32);
            let shared = Arc::new((Sleeper::new(), Bell::default()));
            let theirs = Arc::clone(&shared);
            let posting = thread::spawn(move || {
                for byte in 0..2u8 {
                    assert!(sender.push(0, &[byte]));
                    sender.publish();
                    fence(Ordering::SeqCst);
                    if theirs.0.must_be_woken() {
                        theirs.1.ring();
                    }
                }
            });
            let mut got = 0;
            while got < 2 {
                receiver.receive(|_, _| got += 1);
                if got == 2 {
                    break;
                }
                shared.0.lie_down();
                fence(Ordering::SeqCst);
                if !receiver.has_mail() {
                    shared.1.wait();
                }
                shared.0.get_up();
            }
            posting.join().unwrap();
        });
    }

    /// A sender that sleeps for want of room is woken by the receiver that makes some.
    #[test]
    fn loom_no_room_is_lost() {
        loom::model(|| {
            let (mut sender, mut receiver) = mailbox(16);
            let bell = Arc::new(Bell::default());
            let theirs = Arc::clone(&bell);
            assert!(sender.push(0, &[1]));
            sender.publish();
            let reading = thread::spawn(move || {
                let mut got = 0;
                while got < 2 {
                    if receiver.receive(|_, _| got += 1) > 0 {
                        fence(Ordering::SeqCst);
                        if receiver.sender_waits() {
                            theirs.ring();
                        }
                    }
                    thread::yield_now();
                }
            });
            while !sender.push(0, &[2]) {
                sender.ask_for_room();
                fence(Ordering::SeqCst);
                if !sender.has_room(1) {
                    bell.wait();
                }
            }
            sender.publish();
            reading.join().unwrap();
        });
    }
}
