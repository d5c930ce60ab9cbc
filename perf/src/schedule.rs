//! Open loop: when each request is *intended* to be sent, whatever the server does.
//!
//! Latency counts from the intended time. A server that stalls for a second therefore shows a
//! second of latency in every request that was due meanwhile, not in the one that was on the way:
//! there is no coordinated omission to correct afterwards.
//!
//! Always holds: request `i` of thread `t` of `T` is due at `start + (i T + t) / rate`, computed
//! afresh each time, so that rounding never adds up. Tests: below.

/// The due times of one thread's requests.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    start_ns: u64,
    interval_ns: f64,
    threads: u64,
    thread: u64,
    next: u64,
}

impl Schedule {
    /// Requests at `rate` a second over all `threads`, beginning at `start_ns`.
    pub(crate) fn new(start_ns: u64, rate: f64, thread: usize, threads: usize) -> Schedule {
        let (thread, threads) = (thread as u64, threads as u64);
        Schedule { start_ns, interval_ns: 1e9 / rate, threads, thread, next: 0 }
    }

    /// When the next request is due.
    #[inline]
    pub(crate) fn next_due(&self) -> u64 {
        let number = self.next * self.threads + self.thread;
        self.start_ns + (number as f64 * self.interval_ns) as u64
    }

    /// The next request has been taken.
    #[inline]
    pub(crate) fn take(&mut self) {
        self.next += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dues(mut schedule: Schedule, count: usize) -> Vec<u64> {
        let mut take = || {
            let due = schedule.next_due();
            schedule.take();
            due
        };
        (0..count).map(|_| take()).collect()
    }

    /// Threads share the rate evenly and none falls on another's time.
    #[test]
    fn threads_interleave() {
        assert_eq!(dues(Schedule::new(7, 1e9, 0, 2), 3), [7, 9, 11]);
        assert_eq!(dues(Schedule::new(7, 1e9, 1, 2), 3), [8, 10, 12]);
    }

    /// A rate that does not divide a second keeps its pace: a day's worth is off by no more than
    /// a nanosecond, not by a rounding a request.
    #[test]
    fn rounding_does_not_add_up() {
        let mut schedule = Schedule::new(0, 3.0, 0, 1);
        schedule.next = 3 * 86_400;
        let day = 86_400 * 1_000_000_000;
        assert!(schedule.next_due().abs_diff(day) <= 1, "{}", schedule.next_due());
    }
}
