//! Stories of how long packets are: as long as the path passes them, and no longer.

use ringway_core::Span;
use ringway_tunnel_proto::sabotage::Rule;

use super::{Flow, meet, packets_work, report, sent};
use crate::net::{Net, Shard};

/// Bytes of a site's datagrams.
fn length(net: &Net, site: usize) -> usize {
    report(net, site).packets[0].packets.datagram_bytes
}

/// Each side finds what the path passes whole, whatever it loses beside; and streams are whole.
pub(crate) fn datagrams_are_as_long_as_the_path_passes(broken: Option<Rule>, seed: u64) {
    for (mtu, least, most) in [(1500, 1420, 1420), (9000, 8086, 8920), (1280, 1200, 1200)] {
        let mut net = Net::without(broken, seed, [1, 1]);
        net.give_air(seed);
        (net.air().mtu, net.air().lost_per_mille) = (mtu, 50);
        let bond = net.connect();
        net.run_until(Span::from_s(5), |net| packets_work(net, 0) && packets_work(net, 1));
        net.run(Span::from_s(10));
        for site in [0, 1] {
            let found = length(&net, site);
            assert!((least..=most).contains(&found), "{found} of {mtu} at {site}");
        }
        let mut flow = Flow::open(&mut net, bond, 500_000, 1);
        flow.run_to_end(&mut net, Span::from_s(20));
        assert_eq!(sent(&net, 0)[0], 0, "nothing goes by records");
    }
}

/// A question about a length that is lost, as every fifth packet is, is put again: jumbo packets
/// are found all the same.
pub(crate) fn what_is_lost_was_not_too_long(broken: Option<Rule>, seed: u64) {
    let mut net = Net::without(broken, seed, [1, 1]);
    net.give_air(seed);
    (net.air().mtu, net.air().lost_per_mille) = (9000, 200);
    net.connect();
    net.run_until(Span::from_s(5), |net| packets_work(net, 0) && packets_work(net, 1));
    net.run(Span::from_s(20));
    for site in [0, 1] {
        assert_eq!(length(&net, site), 8920, "at {site}");
    }
}

/// Nothing passes for some seconds, and a question about a length is on its way: that was not too
/// long. What all is too long for is asked about again after minutes.
pub(crate) fn an_outage_is_no_length(broken: Option<Rule>, seed: u64) {
    for down in [500, 2000, 6000] {
        let mut net = Net::without(broken, seed, [1, 1]);
        net.give_air(seed);
        net.air().mtu = 9000;
        net.connect();
        net.run_until(Span::from_s(5), |net| length(net, 0) == 1420);
        net.air().blocked = [true; 2];
        net.run(Span::from_ms(down));
        net.air().blocked = [false; 2];
        net.run(Span::from_s(40));
        assert_eq!(length(&net, 0), 8920, "after {down} ms");
    }
}

/// The path passes less in the middle of a stream: the stream goes on by packets that do pass.
pub(crate) fn a_path_that_becomes_narrower_is_found(broken: Option<Rule>, seed: u64) {
    for (before, after, length_after) in [(9000, 1500, 1420), (1500, 1280, 1200)] {
        let (mut net, bond) = meet(broken, seed, [1, 1]);
        net.air().mtu = before;
        let mut flow = Flow::open(&mut net, bond, 20_000_000, 1);
        net.run(Span::from_s(1));
        flow.run_to(&mut net, 1_000_000, Span::from_s(10));
        assert!(length(&net, 0) > length_after);
        net.air().mtu = after;
        let read = flow.read(&net);
        flow.run_to(&mut net, read + 3_000_000, Span::from_s(15));
        flow.run_to(&mut net, read + 6_000_000, Span::from_s(15));
        assert_eq!(length(&net, 0), length_after, "from {before} to {after}");
    }
}

/// The path passes less, and who writes waits for each message to be read: none of them fills a
/// packet, but they are too long all the same.
pub(crate) fn short_messages_find_a_narrower_path(broken: Option<Rule>, seed: u64) {
    const MESSAGE: usize = 1290;
    let (mut net, bond) = meet(broken, seed, [1, 1]);
    net.air().mtu = 1500;
    let mut flow = Flow::open(&mut net, bond, 30_000, 1);
    net.run(Span::from_s(2));
    assert_eq!(length(&net, 0), 1420);
    let mut slow = 0;
    for message in 1..=20 {
        if message == 3 {
            net.air().mtu = 1280;
        }
        let begin = net.now;
        let Shard { agent, .. } = &mut net.sites[0][0];
        agent.push(flow.bond, flow.flow, &flow.data[flow.at..flow.at + MESSAGE]);
        flow.at += MESSAGE;
        let Flow { at, .. } = flow;
        net.run_until(Span::from_s(10), |net| flow.read(net) == at);
        slow += u32::from(net.now.since(begin) > Span::from_ms(500));
    }
    assert_eq!(length(&net, 0), 1200);
    assert!(slow <= 1, "{slow} of 20 messages took long");
}
