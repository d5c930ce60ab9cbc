//! One client that asks one question after the other, and how long it waits for the answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Server, pass};

/// What the questions took: shares of them, and shares of the time that went into them.
#[derive(Clone, Copy)]
pub(crate) struct Latency {
    asked: usize,
    p50: Duration,
    p90: Duration,
    p99: Duration,
    pub(crate) worst: Duration,
    /// Half of the time went into questions that took at most this. One wait of a second among ten
    /// thousand quick answers is seen by no share of the questions, but it is most of the time.
    half: Duration,
}

impl Latency {
    /// What `took`, sorted, comes to.
    fn of(took: &[Duration]) -> Latency {
        let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
        let (whole, mut passed) = (took.iter().sum::<Duration>(), Duration::ZERO);
        let reached = took.iter().find(|one| {
            passed += **one;
            passed >= whole / 2
        });
        let half = reached.copied().unwrap_or_default();
        let [p50, p90, p99, worst] = [0.5, 0.9, 0.99, 1.0].map(at);
        Latency { asked: took.len(), p50, p90, p99, worst, half }
    }

    /// What went on was not felt: who looks at any moment finds a question that takes about as long
    /// as it did before, and so do nine questions in ten. Both may take three times as
    /// long, and `slack` more, since a busy machine delays either.
    #[track_caller]
    pub(crate) fn assert_as(&self, calm: &Latency, slack: Duration) {
        let most = calm.half * 3 + slack;
        assert!(self.half < most, "half of the time, at most {most:?}: {self:?}; calm {calm:?}");
        self.assert_mostly_as(calm, slack);
    }

    /// Nine questions in ten took about as long as before.
    #[track_caller]
    pub(crate) fn assert_mostly_as(&self, calm: &Latency, slack: Duration) {
        let most = calm.p90 * 3 + slack;
        assert!(self.p90 < most, "p90, at most {most:?}: {self:?}; calm {calm:?}");
    }
}

impl std::fmt::Debug for Latency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Latency { asked, p50, p90, p99, worst, half } = self;
        write!(f, "{asked} questions: p50 {p50:.0?}, p90 {p90:.0?}, p99 {p99:.0?}, ")?;
        write!(f, "worst {worst:.1?}, half of the time {half:.0?}")
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
        assert!(!took.is_empty(), "not one question was answered");
        Latency::of(&took)
    }

    /// Asks for a while, when nobody else asks for anything.
    pub(crate) fn calm(server: &Server) -> Latency {
        let watch = Watch::begin(server);
        pass(Duration::from_millis(300));
        watch.end()
    }
}
