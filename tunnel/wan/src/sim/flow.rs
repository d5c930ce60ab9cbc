//! A flow without bytes: a writer that always has more, and a reader that puts runs in order.
//!
//! What always holds: what was read is a prefix of what was written, and each position is read
//! once. Both ends say how much memory the bytes would take.
//!
//! Bounds: a bit for each run within the window.

use ringway_tunnel_proto::path::Run;

/// The end that writes.
#[derive(Debug)]
pub(super) struct Writer {
    run_bytes: u32,
    next: u64,
    /// The reader has everything before this, and takes so much more than that.
    below: u64,
    window: u64,
    /// It writes nothing from here on.
    end: u64,
    /// The most that was kept.
    pub(super) kept_max: u64,
}

impl Writer {
    pub(super) fn new(run_bytes: u32, window: u64) -> Self {
        Self { run_bytes, next: 0, below: 0, window, end: u64::MAX, kept_max: 0 }
    }

    pub(super) fn stop_at(&mut self, end: u64) {
        assert!(self.next <= end, "it has written more than that");
        self.end = end;
    }

    /// Whether it has written all, and heard that it was read.
    pub(super) fn is_done(&self) -> bool {
        self.below == self.end
    }

    pub(super) fn has_more(&self) -> bool {
        let next = self.next + u64::from(self.run_bytes);
        next <= self.end && next <= self.below + self.window
    }

    /// What goes next, for the first time.
    pub(super) fn cut(&mut self) -> Option<Run<u32>> {
        if !self.has_more() {
            return None;
        }
        let run = Run { flow: 0, start: self.next, len: self.run_bytes };
        self.next += u64::from(self.run_bytes);
        self.kept_max = self.kept_max.max(self.next - self.below);
        Some(run)
    }

    pub(super) fn below(&self) -> u64 {
        self.below
    }

    /// The reader's word.
    pub(super) fn acknowledged(&mut self, below: u64) {
        assert!(below <= self.next, "nothing is read that was not written");
        self.below = self.below.max(below);
    }
}

/// The end that reads.
#[derive(Debug)]
pub(super) struct Reader {
    run_bytes: u64,
    /// Runs that were read, in order.
    below: u64,
    /// A bit for each run beyond those, as a ring.
    came: Vec<u64>,
    early: u64,
    pub(super) early_max: u64,
    /// Runs that came again.
    pub(super) twice: u64,
}

impl Reader {
    pub(super) fn new(run_bytes: u32, window: u64) -> Self {
        let runs = (window / u64::from(run_bytes) + 64).next_power_of_two();
        let came = vec![0; (runs / 64) as usize];
        Self { run_bytes: run_bytes.into(), below: 0, came, early: 0, early_max: 0, twice: 0 }
    }

    fn place(&self, run: u64) -> (usize, u64) {
        ((run / 64) as usize & (self.came.len() - 1), 1 << (run % 64))
    }

    pub(super) fn take(&mut self, run: Run<u32>) {
        let at = run.start / self.run_bytes;
        assert!(at < self.below + self.came.len() as u64 * 64, "beyond the window");
        let (word, bit) = self.place(at);
        if at < self.below || self.came[word] & bit != 0 {
            self.twice += 1;
            return;
        }
        self.came[word] |= bit;
        self.early += 1;
        loop {
            let (word, bit) = self.place(self.below);
            if self.came[word] & bit == 0 {
                break;
            }
            self.came[word] &= !bit;
            (self.below, self.early) = (self.below + 1, self.early - 1);
        }
        self.early_max = self.early_max.max(self.early * self.run_bytes);
    }

    /// Bytes that were read.
    pub(super) fn below(&self) -> u64 {
        self.below * self.run_bytes
    }

    /// Bytes that came for the first time.
    pub(super) fn came(&self) -> u64 {
        (self.below + self.early) * self.run_bytes
    }
}
