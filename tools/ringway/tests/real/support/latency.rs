//! One client that asks one question after the other, and how long it waits for the answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::Server;

/// What the questions took.
#[derive(Clone, Copy)]
pub(crate) struct Latency {
    asked: usize,
    p50: Duration,
    p99: Duration,
    pub(crate) worst: Duration,
}

impl std::fmt::Debug for Latency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Latency { asked, p50, p99, worst } = self;
        write!(f, "{asked} questions: p50 {p50:.0?}, p99 {p99:.0?}, worst {worst:.1?}")
    }
}

/// The client at work on a thread of its own.
pub(crate) struct Watch {
    enough: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Duration>>,
}

impl Watch {
    /// Begins to query, one name at a time; returns once the first answer has come.
    pub(crate) fn begin(server: &Server) -> Watch {
        let enough = Arc::new(AtomicBool::new(false));
        let (told, mut client) = (Arc::clone(&enough), server.client());
        client.query_one(b"watched").expect("an answer");
        let thread = std::thread::spawn(move || {
            let mut took = Vec::new();
            while !told.load(Ordering::Relaxed) {
                let asked = Instant::now();
                client.query_one(b"watched").expect("an answer");
                took.push(asked.elapsed());
            }
            took
        });
        Watch { enough, thread }
    }

    #[track_caller]
    pub(crate) fn end(self) -> Latency {
        self.enough.store(true, Ordering::Relaxed);
        let mut took = self.thread.join().expect("every question was answered");
        took.sort_unstable();
        let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
        assert!(!took.is_empty(), "not one question was answered");
        Latency { asked: took.len(), p50: at(0.5), p99: at(0.99), worst: at(1.0) }
    }
}
