//! Which library is the fastest for each suite on this processor.

use std::time::Instant;

pub use ringway_crypto::{Backend, Calibration, Suite};

/// Tries all for some milliseconds, on the calling thread.
pub fn calibrate() -> [Calibration; Suite::ALL.len()] {
    let start = Instant::now();
    ringway_crypto::calibrate(|| start.elapsed())
}
