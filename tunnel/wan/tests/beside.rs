//! Who leaves what to whom before one bottleneck, in the shortest runs that still tell: 20 s to
//! settle and 40 s to judge, in virtual time. The whole table with its times is a command.

use ringway_core::Span;
use ringway_wan::Link;
use ringway_wan::sim::rivals::{MEETINGS, Row, judged};

/// Whoever takes all, or gives all away, is found out here.
#[test]
fn everybody_keeps_something() {
    let times = (Span::from_s(20), Span::from_s(40));
    let rows = |queue: &str| {
        let link = Link::parse(&format!("rate=100mbit rtt=40ms queue={queue}")).expect("a link");
        judged(&link, 1, &MEETINGS.map(|meeting| meeting.meet(&link, times, 1)))
    };
    let rows: Vec<Row> = ["1bdp", "2bdp"].into_iter().flat_map(rows).collect();
    let with_others = |row: &&Row| row.who.contains("ours") && row.who.contains(", ");
    for row in rows.iter().filter(with_others) {
        assert!(row.used >= 0.9 && row.shares.iter().all(|share| *share >= 0.15), "{row:?}");
    }
    // The bars themselves are those of the long run; here a few may miss them by chance.
    let below = rows.iter().filter(|row| !row.misses().is_empty()).count();
    assert!(below <= rows.len() / 4, "{below} of {} rows", rows.len());
}
