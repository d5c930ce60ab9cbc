//! Delay that varies: a line through points, of which one is drawn for every span of the jitter's
//! own length, between nothing and the jitter.
//!
//! A delay drawn for each packet would be none on a fast line: if packets may not overtake each
//! other, the longest delay of thousands of packets holds up all others, always. Of this one, a
//! ping sees the whole width, a fast flow sees its packets crowd together and spread out, and
//! nothing overtakes anything, because the delay never shrinks faster than time passes.

use ringway_core::rng::Rng;
use ringway_core::{Moment, Span};

#[derive(Clone, Debug)]
pub(super) struct Jitter {
    seed: u64,
}

impl Jitter {
    pub(super) fn new(seed: u64) -> Jitter {
        Jitter { seed }
    }

    /// What is added to the delay of a packet that leaves then; at most `width`.
    pub(super) fn at(&self, left: Moment, width: Span) -> Span {
        if width == Span::ZERO {
            return Span::ZERO;
        }
        let (point, beyond) = (left.0 / width.0, left.0 % width.0);
        let [from, to] = [point, point + 1].map(|point| i128::from(self.point(point, width)));
        let rise = ((to - from) * i128::from(beyond)).div_euclid(i128::from(width.0));
        Span(u64::try_from(from + rise).expect("between two points that are not negative"))
    }

    /// A number of the point alone, so that nothing has to be remembered over a lull.
    fn point(&self, point: u64, width: Span) -> u64 {
        let apart = point.wrapping_mul(0x9E6C_63D0_876A_68EB);
        Rng::new(self.seed ^ apart).below(width.0 + 1)
    }
}
