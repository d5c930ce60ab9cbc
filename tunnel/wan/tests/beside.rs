//! Who leaves what to whom before one bottleneck, in the shortest runs that still tell: 20 s to
//! settle and 40 s to judge, in virtual time. The whole table with its times is a command.

use ringway_core::Span;
use ringway_wan::sim::rivals::{Row, beside};

/// Whoever takes all, or gives all away, is found out here.
#[test]
fn everybody_keeps_something() {
    let rows = beside(Span::from_s(20), Span::from_s(40), 1, |_| {});
    let with_others = |row: &&Row| row.name.contains("ours") && row.name.contains(", ");
    for row in rows.iter().filter(with_others) {
        assert!(row.shares.utilisation >= 0.9, "{row}");
        for flow in 0..row.shares.bits_per_s.len() {
            assert!(row.share(flow) >= 0.15, "{row}");
        }
    }
    // The bars themselves are those of the long run; here a few may miss them by chance.
    let below = rows.iter().filter(|row| !row.reached).count();
    assert!(below <= rows.len() / 4, "{below} of {} rows", rows.len());
}
