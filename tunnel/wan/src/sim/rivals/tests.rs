//! The rivals are what they are known to be: else the table of who leaves what to whom means
//! nothing.

use super::*;
use crate::line::Loss;

fn judged(kinds: &[Kind], (bits_per_s, rtt_ms): (u64, u64), buffer: f64, ppm: u64) -> Shares {
    let rtt = Span::from_ms(rtt_ms);
    let queue_bytes = (bytes_in(bits_per_s, rtt) as f64 * buffer) as u64;
    let line = Line { queue_bytes, loss: Loss::Alone { ppm }, ..Line::of(bits_per_s, rtt) };
    let entrants = kinds.iter().enumerate().map(|(at, kind)| Entrant {
        kind: *kind,
        rtt,
        from: Moment(at as u64 * Span::from_s(3).0),
    });
    let mut street = Street::new(Scene {
        line,
        changes: Vec::new(),
        back: Line::of(bits_per_s, rtt),
        entrants: entrants.collect(),
        mtu: 1500,
        seed: 1,
    });
    street.run_until(Moment(0) + Span::from_s(30));
    street.judge(Span::from_s(60))
}

/// With a round trip of buffer, a window that falls to 0.7 leaves the line full.
#[test]
fn cubic_alone_fills_the_line() {
    let shares = judged(&[Kind::Cubic], (100_000_000, 40), 1.0, 0);
    assert!(shares.utilisation > 0.95, "{shares:?}");
}

#[test]
fn two_cubics_are_fair() {
    let shares = judged(&[Kind::Cubic, Kind::Cubic], (100_000_000, 40), 1.0, 0);
    assert!(shares.utilisation > 0.95 && shares.jain > 0.9, "{shares:?}");
}

/// At 1 % and 100 ms CUBIC is as fast as Reno: the window is about 1.2 / sqrt(p) packets, and with
/// CUBIC's own law 1.054 (rtt / p)^0.75 / rtt, which is 16 here (RFC 9438, 5.1).
#[test]
fn cubic_follows_the_law_of_loss() {
    let shares = judged(&[Kind::Cubic], (100_000_000, 100), 1.0, 10_000);
    let window = shares.bits_per_s[0] * 0.1 / 8.0 / 1500.0;
    assert!((9.0..17.0).contains(&window), "{window}");
}

/// It fills a line that loses 10 %, and falls off a cliff where the rate it tries does not get
/// through any more: 1.25 x (1 - 0.2) = 1.
#[test]
fn bbr_has_its_cliff() {
    let at = |ppm| judged(&[Kind::Bbr], (100_000_000, 40), 1.0, ppm).utilisation;
    let (clean, five, thirty) = (at(0), at(50_000), at(300_000));
    assert!(clean > 0.93, "{clean}");
    assert!(five > 0.85, "{five}");
    assert!(thirty < 0.2, "{thirty}");
}

/// Cardwell's and others' measurements: a buffer of half a round trip is BBR's, one of eight is
/// CUBIC's.
#[test]
fn the_buffer_says_who_wins() {
    let share = |buffer| {
        let shares = judged(&[Kind::Cubic, Kind::Bbr], (100_000_000, 40), buffer, 0);
        shares.bits_per_s[1] / 1e8
    };
    let (small, deep) = (share(0.5), share(8.0));
    assert!(small > 0.6, "{small}");
    assert!(deep < 0.4, "{deep}");
}
