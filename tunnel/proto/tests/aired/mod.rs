//! Stories of whole agents whose sessions have carriers of packets beside those of records. Each is
//! told with a seed, and perhaps with a rule switched off. Of how long packets are: `lengths`.

mod lengths;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ringway_core::Span;
use ringway_tunnel_proto::sabotage::Rule;
use ringway_tunnel_proto::{BondId, BondReport, DatagramRefused, FlowId, Note, ResetCode};

use crate::net::air::{FAR, LISTENS};
use crate::net::{Net, PEER, Shard};
pub(crate) use lengths::*;

/// A story.
pub(crate) type Story = fn(Option<Rule>, u64);

/// All of them.
#[allow(dead_code, reason = "each test file uses its part")]
pub(crate) const STORIES: [Story; 24] = [
    a_session_takes_to_packets,
    packets_may_be_lost_doubled_and_late,
    datagrams_go_beside_streams,
    a_session_falls_back_to_records_and_returns,
    what_was_suspect_goes_on,
    packets_carry_a_session_alone,
    keys_change_under_packets,
    what_does_not_verify_moves_nothing,
    a_path_follows_the_newest_packet,
    what_is_old_moves_no_path_back,
    nobody_is_flooded_by_a_moved_path,
    two_addresses_in_turn_are_one_path,
    packets_find_their_session_on_any_shard,
    packets_can_be_switched_off_and_on,
    the_far_site_switches_packets_off_and_on,
    a_way_there_and_none_back_is_not_used,
    who_moves_in_silence_is_found,
    datagrams_are_as_long_as_the_path_passes,
    what_is_lost_was_not_too_long,
    an_outage_is_no_length,
    a_path_that_becomes_narrower_is_found,
    short_messages_find_a_narrower_path,
    who_stops_says_so_by_packets,
    who_died_is_missed_by_packets,
];

/// Those of packets that are held back, which take minutes of virtual time.
#[allow(dead_code, reason = "each test file uses its part")]
pub(crate) const LONG_STORIES: [Story; 4] = [
    where_packets_are_held_back_streams_leave_and_return,
    slow_records_are_left_alone,
    a_look_takes_little_of_a_link,
    what_is_lost_goes_before_what_is_new,
];

fn bytes(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|at| (at as u8).wrapping_mul(31) ^ seed ^ (at >> 8) as u8).collect()
}

/// A flow from the near site, and how much of it was written.
struct Flow {
    bond: BondId,
    flow: FlowId,
    data: Vec<u8>,
    at: usize,
}

impl Flow {
    fn open(net: &mut Net, bond: BondId, len: usize, seed: u8) -> Flow {
        let data = bytes(len, seed);
        let flow = net.open(bond, &data[..10]);
        Flow { bond, flow, data, at: 10 }
    }

    /// Writes more as there is room; the far side takes everything at once.
    fn pump(&mut self, net: &mut Net) {
        let now = net.now;
        let agent = &mut net.sites[0][0].agent;
        let unsent = agent.flow(self.bond, self.flow).map_or(0, |report| report.unsent);
        let room = 65_536u64.saturating_sub(unsent) as usize;
        let more = room.min(self.data.len() - self.at);
        if more > 0 {
            agent.push(self.bond, self.flow, &self.data[self.at..self.at + more]);
            self.at += more;
        }
        let waiting: Vec<_> =
            net.far_apps().map(|(shard, bond, flow, _)| (shard, bond, flow)).collect();
        for (shard, bond, flow) in waiting {
            net.sites[1][shard].agent.drained_by_application(now, bond, flow, 0);
        }
    }

    fn read_of<'net>(&self, net: &'net Net) -> &'net [u8] {
        let read = net.far_apps().find(|(_, _, flow, _)| *flow == self.flow);
        read.map_or(&[][..], |(.., app)| &app.read)
    }

    /// What the far site has read of it: always a prefix.
    fn read(&self, net: &Net) -> usize {
        let read = self.read_of(net);
        assert!(self.data.starts_with(read), "what was read is not what was written");
        read.len()
    }

    fn run_to(&mut self, net: &mut Net, part: usize, most: Span) {
        let far = Flow { data: Vec::new(), ..*self };
        self.run_until(net, most, |net| far.read_of(net).len() >= part);
    }

    /// Looks at what was read once, at the end: that takes as long as there is much of it.
    fn run_until(&mut self, net: &mut Net, most: Span, mut so: impl FnMut(&Net) -> bool) {
        net.run_until(most, |net| {
            self.pump(net);
            so(net)
        });
        self.read(net);
    }

    fn run_to_end(&mut self, net: &mut Net, most: Span) {
        self.run_to(net, self.data.len(), most);
    }
}

fn report(net: &Net, site: usize) -> BondReport {
    let shards = net.sites[site].iter();
    let mut all = shards.flat_map(|Shard { agent, desk }| agent.report(false, desk));
    all.next().expect("there is a session")
}

/// Bytes of streams that went by records, and by packets, from a site.
fn sent(net: &Net, site: usize) -> [u64; 2] {
    let report = report(net, site);
    let records = report.members.iter().map(|member| member.carrier.sent).sum();
    [records, report.packets.iter().map(|member| member.carrier.sent).sum()]
}

fn packets_work(net: &Net, site: usize) -> bool {
    let works = |report: BondReport| report.packets.iter().any(|member| member.carrier.usable);
    works(report(net, site))
}

/// Two sites with a session whose packets get through.
fn meet(broken: Option<Rule>, seed: u64, shards: [u8; 2]) -> (Net, BondId) {
    let mut net = Net::without(broken, seed, shards);
    net.give_air(seed);
    let bond = net.connect();
    net.run_until(Span::from_s(1), |net| packets_work(net, 0) && packets_work(net, 1));
    (net, bond)
}

/// The same over a path of 30 ms that loses packets.
fn meet_over(broken: Option<Rule>, seed: u64, lost_per_mille: u64) -> (Net, BondId) {
    let mut net = Net::without(broken, seed, [1, 1]);
    net.give_air(seed);
    (net.air().delay, net.air().lost_per_mille) = (Span::from_ms(15), lost_per_mille);
    let bond = net.connect();
    net.run_until(Span::from_s(2), |net| packets_work(net, 0) && packets_work(net, 1));
    (net, bond)
}

/// Datagrams go before streams, each once and whole, or not at all: most of them where packets are
/// lost, and all of them by records. Who has no session is told so.
pub(crate) fn datagrams_go_beside_streams(broken: Option<Rule>, seed: u64) {
    let (mut net, bond) = meet_over(broken, seed, 100);
    let mut flow = Flow::open(&mut net, bond, 12_000_000, 7);
    let said = |number: u64| bytes(40 + (number as usize * 97) % 900, number as u8);
    for (numbers, records) in [(0..40, false), (40..80, true)] {
        if records {
            net.air().blocked = [true; 2];
            flow.run_until(&mut net, Span::from_s(20), |net| !packets_work(net, 0));
        }
        for number in numbers {
            let (now, agent) = (net.now, &mut net.sites[0][0].agent);
            let deadline = now + Span::from_s(2);
            let sent = agent.send_datagram(now, bond, (number, &said(number)), deadline);
            assert_eq!(sent, Ok(()));
            let until = now + Span::from_ms(5);
            flow.run_until(&mut net, Span::from_s(1), |net| net.now >= until);
        }
        net.run(Span::from_s(1));
    }
    let (now, agent) = (net.now, &mut net.sites[0][0].agent);
    let refused = |sent: Result<(), DatagramRefused>| sent.expect_err("nobody can send it");
    assert_eq!(refused(agent.send_datagram(now, bond, (1, b"late"), now)), DatagramRefused::Late);
    let nobody = agent.send_datagram(now, BondId(99), (1, b"lost"), now + Span::from_s(1));
    assert_eq!(refused(nobody), DatagramRefused::NoSession);
    flow.run_to_end(&mut net, Span::from_s(60));
    let came = &net.sites[1][0].desk.datagrams;
    let mut numbers: Vec<u64> = came.iter().map(|(number, _)| *number).collect();
    assert!(came.iter().all(|(number, bytes)| *bytes == said(*number)), "another one's bytes");
    numbers.sort_unstable();
    assert!(numbers.windows(2).all(|two| two[0] < two[1]), "each comes once: {numbers:?}");
    let (packets, records) = numbers.split_at(numbers.partition_point(|number| *number < 40));
    assert!((28..=40).contains(&packets.len()), "{packets:?}");
    assert_eq!(records.len(), 40, "records lose none");
}

/// Streams go by packets as soon as those get through, and by records not at all; one carrier of
/// records stands by.
pub(crate) fn a_session_takes_to_packets(broken: Option<Rule>, seed: u64) {
    let (mut net, bond) = meet(broken, seed, [1, 1]);
    let before = sent(&net, 0);
    let mut flow = Flow::open(&mut net, bond, 3_000_000, 1);
    flow.run_to_end(&mut net, Span::from_s(20));
    let [records, packets] = sent(&net, 0);
    assert_eq!(records, before[0]);
    assert!(packets >= 3_000_000, "{packets}");
    assert_eq!(net.wires(), 1);
    let far = report(&net, 1);
    assert_eq!(far.packets.len(), 1);
    assert_eq!(far.packets[0].route.to.ip(), IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)));
    assert!(far.packets[0].wire.total()[1] > 3_000_000);
}

/// Whatever happens to each packet, streams are whole.
pub(crate) fn packets_may_be_lost_doubled_and_late(broken: Option<Rule>, seed: u64) {
    for harm in 0..4 {
        let (mut net, bond) = meet(broken, seed, [1, 1]);
        let air = net.air();
        (air.lost_per_mille, air.twice_per_mille) = (20 + harm * 60, 50);
        air.jitter = Span::from_ms(harm * 4);
        let mut flow = Flow::open(&mut net, bond, 400_000, seed as u8);
        flow.run_to_end(&mut net, Span::from_s(60));
        assert_eq!(sent(&net, 0)[0], 0, "harm {harm}");
    }
}

/// Packets get through no more: the session goes on by records, and by packets again when those
/// get through, without a word from anybody.
pub(crate) fn a_session_falls_back_to_records_and_returns(broken: Option<Rule>, seed: u64) {
    for blocked in [[true, true], [true, false], [false, true]] {
        let (mut net, bond) = meet(broken, seed, [1, 1]);
        let mut flow = Flow::open(&mut net, bond, 6_000_000, 1);
        flow.run_to(&mut net, 500_000, Span::from_s(10));
        net.air().blocked = blocked;
        let read = flow.read(&net);
        flow.run_to(&mut net, read + 1_000_000, Span::from_s(5));
        assert!(!packets_work(&net, 0) || !packets_work(&net, 1), "{blocked:?}");
        let [records, packets] = sent(&net, 0);
        assert!(records > 0 || blocked == [false, true], "{blocked:?}");
        net.run(Span::from_s(20));
        net.air().blocked = [false; 2];
        net.run_until(Span::from_s(35), |net| packets_work(net, 0) && packets_work(net, 1));
        let records = sent(&net, 0)[0].max(records);
        flow.run_to_end(&mut net, Span::from_s(20));
        let after = sent(&net, 0);
        assert_eq!(after[0], records, "records stand by again: {blocked:?}");
        assert!(after[1] > packets, "{blocked:?}");
    }
}

/// Packets get through no more for some seconds, which is too short for a carrier to be given up:
/// it goes on as soon as they do.
pub(crate) fn what_was_suspect_goes_on(broken: Option<Rule>, seed: u64) {
    for ms in [1000, 2000, 4000] {
        let (mut net, bond) = meet(broken, seed, [1, 1]);
        let mut flow = Flow::open(&mut net, bond, 6_000_000, 1);
        flow.run_to(&mut net, 500_000, Span::from_s(10));
        net.air().blocked = [true; 2];
        let end = net.now + Span::from_ms(ms);
        flow.run_until(&mut net, Span::from_ms(ms + 1), |net| net.now >= end);
        assert!(!packets_work(&net, 0), "{ms} ms are enough to suspect");
        net.air().blocked = [false; 2];
        net.run_until(Span::from_ms(1000 + ms), |net| packets_work(net, 0) && packets_work(net, 1));
        flow.run_to_end(&mut net, Span::from_s(20));
        let [records, packets] = sent(&net, 0);
        Flow::open(&mut net, bond, 100_000, 2).run_to_end(&mut net, Span::from_s(5));
        assert_eq!(sent(&net, 0), [records, packets + 100_000], "after {ms} ms");
    }
}

/// Packets get through no more for long, so that they are tried less and less; whoever asks when
/// they do again hears of it at once.
#[allow(dead_code, reason = "no rule is switched off in it")]
pub(crate) fn who_asks_silence_hears_soon(broken: Option<Rule>, seed: u64) {
    let (mut net, _) = meet(broken, seed, [1, 1]);
    let ask = |net: &mut Net| {
        let now = net.now;
        net.sites[0][0].agent.ask_packets(now);
    };
    net.air().blocked = [true; 2];
    ask(&mut net);
    net.run_until(Span::from_s(5), |net| !packets_work(net, 0));
    net.run(Span::from_s(60));
    let put = net.air().put[1];
    for _ in 0..20 {
        ask(&mut net);
        net.run(Span::from_ms(200));
    }
    let asked = net.air().put[1] - put;
    assert!((1..2000).contains(&asked), "{asked} bytes for twenty questions in four seconds");
    net.air().blocked = [false; 2];
    ask(&mut net);
    net.run_until(Span::from_ms(1100), |net| packets_work(net, 0));
}

/// Carriers of records are lost, and nobody can be dialled: packets carry the session on, new keys
/// included.
pub(crate) fn packets_carry_a_session_alone(broken: Option<Rule>, seed: u64) {
    let (mut net, bond) = meet(broken, seed, [1, 1]);
    net.sites[0][0].desk.cut_off = true;
    net.cut(|_| true);
    let mut flow = Flow::open(&mut net, bond, 200_000, 1);
    flow.run_to(&mut net, 100_000, Span::from_s(5));
    let attempts = net.sites[0][0].desk.attempts;
    let end = net.now + Span::from_s(150);
    net.run_until(Span::from_s(160), |net| {
        // Something is said now and then.
        let part = (net.now.0 / 1_000_000_000) as usize * 100;
        flow.at = flow.at.max(100_000);
        let more = (100_000 + part).min(flow.data.len()).saturating_sub(flow.at);
        let Shard { agent, .. } = &mut net.sites[0][0];
        agent.push(flow.bond, flow.flow, &flow.data[flow.at..flow.at + more]);
        flow.at += more;
        net.now >= end
    });
    assert_eq!((report(&net, 0).epoch, report(&net, 1).epoch), (2, 2));
    let attempts = net.sites[0][0].desk.attempts - attempts;
    assert!((10..60).contains(&attempts), "{attempts} attempts to have records again");
    net.sites[0][0].desk.cut_off = false;
    flow.run_to_end(&mut net, Span::from_s(30));
    net.run_until(Span::from_s(30), |net| net.wires() == 1);
}

/// New keys come in the midst of it, and nothing is lost by them.
pub(crate) fn keys_change_under_packets(broken: Option<Rule>, seed: u64) {
    let (mut net, bond) = meet(broken, seed, [1, 1]);
    // Nobody does better by records.
    (net.bytes_per_step, net.air().jitter) = (100, Span::from_ms(30));
    net.run(Span::from_s(59));
    let mut flow = Flow::open(&mut net, bond, 16_000_000, 9);
    flow.run_to_end(&mut net, Span::from_s(60));
    assert_eq!((report(&net, 0).epoch, report(&net, 1).epoch), (1, 1));
    assert_eq!(sent(&net, 0)[0], 0);
    let counts = [0, 1].map(|site| net.sites[site][0].agent.datagram_counts());
    assert!(counts.iter().all(|counts| counts.forged == 0 && counts.strange == 0), "{counts:?}");
}

/// Records have fallen silent beside packets, as where a translator of addresses has forgotten who
/// says nothing: keys are offered there, the silence is noticed, and they change all the same, by
/// other records or by packets, long before the kernels give the connection up.
#[allow(dead_code, reason = "no rule is switched off in it")]
pub(crate) fn keys_are_not_offered_to_silence(broken: Option<Rule>, seed: u64) {
    for cut_off in [false, true] {
        let (mut net, bond) = meet(broken, seed, [1, 1]);
        net.run(Span::from_s(58));
        net.silence(|_| true);
        net.sites[0][0].desk.cut_off = cut_off;
        let flow = net.open(bond, b"Nothing of it is lost.");
        for _ in 0..7 {
            net.run(Span::from_s(1));
            net.sites[0][0].agent.push(bond, flow, b"And more.");
        }
        let epochs = [0, 1].map(|site| report(&net, site).epoch);
        assert_eq!(epochs, [1, 1], "nobody can be dialled: {cut_off}");
    }
}

/// Datagrams that are on their way to the far site and will not come, of the length that most of
/// them have.
fn held_back(net: &mut Net, flow: &mut Flow) -> Vec<Vec<u8>> {
    flow.run_until(net, Span::from_s(1), |net| {
        net.air.as_ref().is_some_and(|air| air.on_the_way(1) >= 24)
    });
    let heard = net.air().take_away(1);
    let mut by_length = BTreeMap::<usize, Vec<_>>::new();
    for datagram in heard {
        by_length.entry(datagram.len()).or_default().push(datagram);
    }
    by_length.into_values().max_by_key(Vec::len).unwrap_or_default()
}

/// What the far site has made of datagrams: how many were forged, replayed, strange, and another
/// shard's, and the bytes of those that were good.
fn made_of(net: &Net) -> [u64; 5] {
    let counts = net.sites[1].iter().map(|shard| shard.agent.datagram_counts());
    let good = report(net, 1).packets[0].wire.total()[1];
    counts.fold([0, 0, 0, 0, good], |all, one| {
        let [forged, replayed, strange, elsewhere, good] = all;
        [
            forged + one.forged,
            replayed + one.replayed,
            strange + one.strange,
            elsewhere + one.elsewhere,
            good,
        ]
    })
}

/// Datagrams come at once, as a kernel merges them: each that is good counts, once, and every other
/// one as what it is, wherever it stands between them and on whatever shard they come.
#[allow(dead_code, reason = "each test file uses its part")]
pub(crate) fn junk_within_trains_moves_nothing(broken: Option<Rule>, seed: u64) {
    let (mut net, bond) = meet(broken, seed, [1, 2]);
    let mut flow = Flow::open(&mut net, bond, 3_000_000, 9);
    flow.run_to(&mut net, 300_000, Span::from_s(10));
    let mut elsewhere = 0;
    for turn in 0..6 {
        let mut good = held_back(&mut net, &mut flow);
        assert!(good.len() >= 6, "{} were sent", good.len());
        // Two come neither whole nor alone.
        let [cut, long] = [good.pop(), good.pop()].map(|one| one.expect("there are more"));
        net.air().turn = turn;
        let (len, many) = (good[0].len(), good.len());
        let (mut train, mut wanted) = (Vec::new(), [0, 0, 0, 0, (many * len) as u64]);
        for (at, datagram) in good.iter().enumerate() {
            let mut forged = datagram.clone();
            forged[16 + (at * 7) % (len - 16)] ^= 1;
            let strange = bytes(len, (at * 6 + turn) as u8 ^ seed as u8);
            let [first, second] = [at % 2 == 0, at % 3 == 0];
            for (kind, other) in [(0, forged), (1, good[0].clone()), (2, strange)] {
                let stands = match kind {
                    0 => first,
                    1 => at > 0,
                    _ => second,
                };
                if stands {
                    train.extend(other);
                    wanted[kind] += 1;
                }
            }
            train.extend(datagram);
        }
        // The last one is shorter: it was cut.
        train.extend(&cut[..len / 2]);
        wanted[0] += 1;
        let before = made_of(&net);
        let near = SocketAddr::new(net.air().near.into(), 1000);
        net.deliver_train(1, (near, FAR), (train, len));
        // One that is longer than any, and as long as the kernel's buffers.
        let long = [&long[..], &vec![7; 65_507 - len]].concat();
        net.deliver_train(1, (near, FAR), (long, 65_507));
        wanted[0] += 1;
        let after = made_of(&net);
        let mut made: Vec<u64> = after.iter().zip(before).map(|(after, one)| after - one).collect();
        let to_others = std::mem::take(&mut made[3]);
        // All of them or none came to another shard. What is strange may look like another's.
        let all = wanted[0] + wanted[1] + many as u64;
        let by_chance = to_others % all;
        assert!(to_others < 2 * all && by_chance <= 3, "{to_others} of {all}");
        elsewhere += to_others - by_chance;
        assert_eq!(made, wanted, "turn {turn}");
        let read = flow.read(&net);
        flow.run_to(&mut net, read + 100_000, Span::from_s(5));
    }
    assert!(elsewhere > 0, "some came to another shard than theirs");
    flow.run_to_end(&mut net, Span::from_s(30));
}

/// Forged, replayed, cut, lengthened and strange datagrams move nothing and are answered by nobody.
pub(crate) fn what_does_not_verify_moves_nothing(broken: Option<Rule>, seed: u64) {
    let (mut net, bond) = meet(broken, seed, [1, 2]);
    net.air().heard = Some(Vec::new());
    net.air().lost_per_mille = 100;
    let mut flow = Flow::open(&mut net, bond, 300_000, 9);
    flow.run_to_end(&mut net, Span::from_s(10));
    net.air().lost_per_mille = 0;
    net.run(Span::from_s(2));
    let heard = net.air().heard.take().expect("it was kept");
    let before = report(&net, 1);
    let said = net.air().came[0];
    let stranger = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7)), 4601);
    for (at, (lost, datagram)) in heard.iter().enumerate() {
        let mut forged = datagram.clone();
        forged[16 + at % (datagram.len() - 16)] ^= 1;
        let mut other_header = datagram.clone();
        other_header[at % 16] ^= 1;
        let cut = datagram[..at % datagram.len()].to_vec();
        let long = [&datagram[..], &[0; 60]].concat();
        let chance = vec![at as u8; at % 1400];
        for bad in [forged, other_header, cut, long, chance] {
            net.deliver(1, (stranger, FAR), bad);
        }
        if !lost {
            net.deliver(1, (stranger, FAR), datagram.clone());
        }
    }
    net.run(Span::from_s(2));
    let after = report(&net, 1);
    assert_eq!(after.packets.len(), 1);
    assert_eq!(after.packets[0].route, before.packets[0].route);
    assert_eq!(after.packets[0].wire.total()[1], before.packets[0].wire.total()[1]);
    assert!(net.air().came[0] <= said + 2, "nobody is answered");
    let counts = net.sites[1].iter().map(|shard| shard.agent.datagram_counts());
    let all = counts.fold([0; 3], |all, one| {
        [all[0] + one.forged, all[1] + one.replayed, all[2] + one.strange]
    });
    assert!(all.iter().all(|count| *count > 10), "{all:?}");
    flow.data.extend(bytes(50_000, 77));
    flow.run_to_end(&mut net, Span::from_s(10));
}

/// The near site's address changes: the far one follows the next packet, and what was on its way to
/// nobody goes again.
pub(crate) fn a_path_follows_the_newest_packet(broken: Option<Rule>, seed: u64) {
    let (mut net, bond) = meet(broken, seed, [1, 1]);
    let mut flow = Flow::open(&mut net, bond, 3_000_000, 1);
    flow.run_to(&mut net, 1_000_000, Span::from_s(10));
    let moved = Ipv4Addr::new(198, 51, 100, 77);
    net.air().near = moved;
    flow.run_to(&mut net, 1_500_000, Span::from_s(10));
    let to = |net: &Net| report(net, 1).packets[0].route.to;
    assert_eq!(to(&net).ip(), IpAddr::V4(moved));
    flow.run_to_end(&mut net, Span::from_s(20));
    assert_eq!(to(&net).ip(), IpAddr::V4(moved));
    assert_eq!(sent(&net, 0)[0], 0, "records were not needed");
}

/// A packet that was held up on the old way comes when newer ones have come by the new one.
pub(crate) fn what_is_old_moves_no_path_back(broken: Option<Rule>, seed: u64) {
    let (mut net, bond) = meet(broken, seed, [1, 1]);
    let mut flow = Flow::open(&mut net, bond, 100_000, 1);
    flow.run_to_end(&mut net, Span::from_s(10));
    net.run(Span::from_s(1));
    let old = SocketAddr::new(IpAddr::V4(net.air().near), 1000);
    // All that leaves now is kept from the far site for a while.
    net.air().delay = Span::from_s(3);
    flow.data.extend(bytes(100, 3));
    flow.pump(&mut net);
    net.run(Span::from_ms(20));
    net.air().delay = Span::from_ms(5);
    net.air().near = Ipv4Addr::new(198, 51, 100, 77);
    flow.data.extend(bytes(50_000, 4));
    flow.run_to_end(&mut net, Span::from_s(10));
    let moved = report(&net, 1).packets[0].route.to;
    assert_ne!(moved, old);
    let came = report(&net, 1).packets[0].wire.total()[1];
    net.run(Span::from_s(4));
    assert!(report(&net, 1).packets[0].wire.total()[1] > came, "it came, late");
    assert_eq!(report(&net, 1).packets[0].route.to, moved);
}

/// Somebody on the path sends the near site's packets on from an address that is not its: hardly
/// anything goes there, and what goes to the near site goes on.
pub(crate) fn nobody_is_flooded_by_a_moved_path(broken: Option<Rule>, seed: u64) {
    let (mut net, bond) = meet_over(broken, seed, 0);
    let mut flow = Flow::open(&mut net, bond, 4_000_000, 1);
    flow.run_to(&mut net, 500_000, Span::from_s(10));
    let victim = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9)), 53);
    let mut taken = 0;
    for _ in 0..200 {
        net.air().heard = Some(Vec::new());
        let until = net.now + Span::from_ms(10);
        flow.run_until(&mut net, Span::from_s(1), |net| net.now >= until);
        let heard = net.air().heard.take().expect("it was kept");
        // It is faster than the path.
        if let Some((_, newest)) = heard.last() {
            taken += newest.len() as u64;
            net.deliver(1, (victim, FAR), newest.clone());
        }
    }
    let astray = net.air().astray;
    assert!(taken > 10_000 && astray < 4000, "{astray} bytes went to somebody else for {taken}");
    flow.run_to_end(&mut net, Span::from_s(20));
    assert_eq!(sent(&net, 0)[0], 0, "records were not needed");
}

/// A translator of addresses has two, and takes them in turn: what goes to the near site goes by
/// one path, of which nothing is forgotten.
pub(crate) fn two_addresses_in_turn_are_one_path(broken: Option<Rule>, seed: u64) {
    let (mut net, bond) = meet_over(broken, seed, 0);
    net.air().twin = Some(Ipv4Addr::new(198, 51, 100, 2));
    net.air().link = Some(5000);
    let mut flow = Flow::open(&mut net, bond, 100_000, 1);
    flow.run_to_end(&mut net, Span::from_s(10));
    let (before, end) = (sent(&net, 1)[0], net.now + Span::from_s(3));
    let id = flow.flow;
    net.run_until(Span::from_s(4), |net| {
        let now = net.now;
        let (_, back, ..) = net.far_apps().find(|(_, _, flow, _)| *flow == id).expect("it is open");
        let far = &mut net.sites[1][0].agent;
        let unsent = far.flow(back, id).map_or(0, |report| report.unsent);
        far.push(back, id, &vec![7; (1usize << 20).saturating_sub(unsent as usize)]);
        net.sites[0][0].agent.drained_by_application(now, bond, id, 0);
        now >= end
    });
    let read = net.sites[0][0].desk.apps[&(bond, id)].read.len();
    assert!(read > 10_000_000, "{read} bytes came in three seconds");
    assert_eq!(sent(&net, 1)[0], before, "records were not needed");
    assert_eq!(report(&net, 1).packets[0].carrier.resent, 0);
}

/// Datagrams that come to another shard than their session's are given to that one, whichever it
/// is, and the answers come from there.
pub(crate) fn packets_find_their_session_on_any_shard(broken: Option<Rule>, seed: u64) {
    for turn in 0..3 {
        let mut net = Net::without(broken, seed, [1, 3]);
        net.give_air(seed);
        net.air().turn = turn;
        let bond = net.connect();
        net.run_until(Span::from_s(1), |net| packets_work(net, 0));
        let mut flow = Flow::open(&mut net, bond, 1_000_000, 5);
        flow.run_to_end(&mut net, Span::from_s(20));
        assert_eq!(sent(&net, 0)[0], 0);
        let (came, forwarded) = (net.air().came[1], net.air().forwarded);
        let owner = report(&net, 1).session.expect("it has a number").0 & 0xff;
        let right = (1000 + turn) as u64 % 3 == owner;
        assert_eq!(forwarded, if right { 0 } else { came }, "of {came}");
    }
}

/// One side's file takes packets back: its session goes on by records, and by packets when they
/// are allowed again, by another carrier.
pub(crate) fn packets_can_be_switched_off_and_on(broken: Option<Rule>, seed: u64) {
    let (mut net, bond) = meet(broken, seed, [1, 1]);
    let mut flow = Flow::open(&mut net, bond, 3_000_000, 1);
    flow.run_to(&mut net, 500_000, Span::from_s(10));
    net.allow_packets(false);
    flow.run_to(&mut net, 1_500_000, Span::from_s(10));
    assert!(report(&net, 0).packets.is_empty() && report(&net, 1).packets.is_empty());
    assert!(sent(&net, 0)[0] > 0);
    net.allow_packets(true);
    net.run_until(Span::from_s(12), |net| packets_work(net, 0) && packets_work(net, 1));
    assert_eq!(report(&net, 0).packets[0].slot, 1, "a slot is used once");
    flow.run_to_end(&mut net, Span::from_s(20));
    assert_eq!(net.sites[0][0].agent.bond_to(PEER), Some(bond));
}

/// The far site alone switches packets off, and later on again, whether or not the near one hears
/// of it: it comes back to them by itself.
pub(crate) fn the_far_site_switches_packets_off_and_on(broken: Option<Rule>, seed: u64) {
    for heard in [true, false] {
        for busy in [true, false] {
            let (mut net, bond) = meet(broken, seed, [1, 1]);
            let mut flow = Flow::open(&mut net, bond, 3_000_000, 1);
            flow.run_to(&mut net, 100_000, Span::from_s(10));
            net.air().blocked = [false, !heard];
            net.allow_packets_at(1, false);
            net.run(Span::from_ms(200));
            net.air().blocked = [false; 2];
            assert!(report(&net, 1).packets.is_empty());
            assert_eq!(report(&net, 0).packets.is_empty(), heard, "busy: {busy}");
            if busy {
                flow.run_to(&mut net, 1_000_000, Span::from_s(20));
            }
            net.run(Span::from_s(7));
            net.allow_packets_at(1, true);
            net.run_until(Span::from_s(90), |net| {
                flow.pump(net);
                packets_work(net, 0) && packets_work(net, 1)
            });
            flow.run_to_end(&mut net, Span::from_s(20));
            assert_eq!(net.sites[0][0].agent.bond_to(PEER), Some(bond));
        }
    }
}

/// From the near site packets get through, and none back: nothing is put on them, at either site,
/// but what asks. Once there is a way back, all goes by them.
pub(crate) fn a_way_there_and_none_back_is_not_used(broken: Option<Rule>, seed: u64) {
    let mut net = Net::without(broken, seed, [1, 1]);
    net.give_air(seed);
    net.air().blocked = [false, true];
    let bond = net.connect();
    let mut flow = Flow::open(&mut net, bond, 400_000, 5);
    net.run_until(Span::from_s(10), |net| {
        flow.pump(net);
        assert!(
            !packets_work(net, 0)
                && (net.sites[1][0].agent.bond_to(PEER).is_none() || !packets_work(net, 1))
        );
        flow.read(net) == 400_000
    });
    assert!(net.air().came[1] > 0, "they came");
    net.air().blocked = [false; 2];
    net.run_until(Span::from_s(35), |net| packets_work(net, 0) && packets_work(net, 1));
}

/// The near site moves while nobody has anything to say: the far one hears from it all the same,
/// and what it has to say later goes by packets.
pub(crate) fn who_moves_in_silence_is_found(broken: Option<Rule>, seed: u64) {
    let (mut net, bond) = meet(broken, seed, [1, 1]);
    let mut flow = Flow::open(&mut net, bond, 1000, 1);
    flow.run_to_end(&mut net, Span::from_s(5));
    net.run(Span::from_s(1));
    let moved = Ipv4Addr::new(198, 51, 100, 78);
    net.air().near = moved;
    net.run(Span::from_s(17));
    assert_eq!(report(&net, 1).packets[0].route.to.ip(), IpAddr::V4(moved));
    assert!(packets_work(&net, 1), "nobody has noticed anything");
}

/// The network passes few packets, and records as before: streams go by those, and by packets again
/// when more pass.
pub(crate) fn where_packets_are_held_back_streams_leave_and_return(
    broken: Option<Rule>,
    seed: u64,
) {
    let (mut net, bond) = meet(broken, seed, [1, 1]);
    (net.bytes_per_step, net.narrow, net.air().police) = (200, true, Some(50));
    let mut flow = Flow::open(&mut net, bond, 50_000_000, 1);
    flow.run_until(&mut net, Span::from_s(20), |net| sent(net, 0)[0] > 500_000);
    assert!(packets_work(&net, 0), "nothing was silent");
    // What is dropped all the same is not poured in for long.
    let (put, came) = (net.air().put[1], net.air().bytes[1]);
    assert!(put < 6 * came, "{put} bytes were sent, and {came} came");
    let told = |net: &Net, note: Note| {
        let notes = net.sites[0][0].desk.notes.iter();
        notes.filter(|one| **one == note).count()
    };
    assert_eq!([told(&net, Note::HeldBack(PEER)), told(&net, Note::NotHeldBack(PEER))], [1, 0]);
    // They stay there for a while, but for a trial.
    let [_, packets] = sent(&net, 0);
    let end = net.now + Span::from_s(80);
    flow.run_until(&mut net, Span::from_s(81), |net| net.now >= end);
    let more = sent(&net, 0)[1] - packets;
    assert!((1..3_000_000).contains(&more), "{more} bytes by packets");
    net.air().police = None;
    flow.run_until(&mut net, Span::from_s(150), |net| told(net, Note::NotHeldBack(PEER)) == 1);
    let [records, _] = sent(&net, 0);
    let (id, all) = (flow.flow, flow.data.len());
    flow.run_until(&mut net, Span::from_s(150), |net| {
        net.far_apps().any(|(_, _, flow, app)| flow == id && app.read.len() == all)
    });
    // One that is not needed any more may have gone, with what it sent.
    assert!(sent(&net, 0)[0] <= records, "records stand by");
}

/// Packets are held back, so that streams go by records; then those are lost, and nobody can be
/// dialled: what packets still carry is more than nothing.
#[allow(dead_code, reason = "no rule is switched off in it")]
pub(crate) fn who_is_held_back_and_alone_goes_on(broken: Option<Rule>, seed: u64) {
    let (mut net, bond) = meet(broken, seed, [1, 1]);
    (net.bytes_per_step, net.narrow, net.air().police) = (200, true, Some(50));
    let mut flow = Flow::open(&mut net, bond, 50_000_000, 1);
    flow.run_until(&mut net, Span::from_s(20), |net| {
        net.sites[0][0].desk.notes.contains(&Note::HeldBack(PEER))
    });
    net.sites[0][0].desk.cut_off = true;
    net.cut(|_| true);
    let [_, packets] = sent(&net, 0);
    flow.run_until(&mut net, Span::from_ms(100), |net| sent(net, 0)[1] > packets);
}

/// Packets are held back, and the far site begins anew: nothing is known of its packets, which is
/// said, and so is that they are held back still.
#[allow(dead_code, reason = "no rule is switched off in it")]
pub(crate) fn who_begins_anew_finds_out_again(broken: Option<Rule>, seed: u64) {
    let (mut net, bond) = meet(broken, seed, [1, 1]);
    (net.bytes_per_step, net.narrow, net.air().police) = (200, true, Some(50));
    let told = |net: &Net| {
        let notes = net.sites[0][0].desk.notes.iter();
        let both = [Note::HeldBack(PEER), Note::NotHeldBack(PEER)];
        notes.copied().filter(|one| both.contains(one)).collect::<Vec<_>>()
    };
    let mut flow = Flow::open(&mut net, bond, 50_000_000, 1);
    flow.run_until(&mut net, Span::from_s(20), |net| told(net) == [Note::HeldBack(PEER)]);
    net.start(1, 1);
    net.run_until(Span::from_s(30), |net| {
        let notes = net.sites[0][0].desk.notes.iter().rev();
        let mut since = notes.take_while(|one| **one != Note::NotHeldBack(PEER));
        told(net).len() == 2 && since.any(|one| *one == Note::Packets(PEER, true))
    });
    let bond = net.connect();
    let mut flow = Flow::open(&mut net, bond, 50_000_000, 2);
    flow.run_until(&mut net, Span::from_s(60), |net| told(net).len() > 2);
    let all = [Note::HeldBack(PEER), Note::NotHeldBack(PEER), Note::HeldBack(PEER)];
    assert_eq!(told(&net), all);
}

/// Packets are held back, and nobody says that records are lost: they fall silent, and nobody else
/// can be dialled. Packets carry what there is long before those carriers are given up.
pub(crate) fn who_is_held_back_and_silent_goes_on(broken: Option<Rule>, seed: u64) {
    let (mut net, bond) = meet(broken, seed, [1, 1]);
    (net.bytes_per_step, net.narrow, net.air().police) = (200, true, Some(50));
    let mut flow = Flow::open(&mut net, bond, 50_000_000, 1);
    flow.run_until(&mut net, Span::from_s(20), |net| {
        net.sites[0][0].desk.notes.contains(&Note::HeldBack(PEER))
    });
    // At whatever moment: meanwhile carriers are opened, and become full.
    let silent_at = net.now + Span::from_ms(seed % 16 * 625);
    flow.run_until(&mut net, Span::from_s(11), |net| net.now >= silent_at);
    net.sites[0][0].desk.cut_off = true;
    net.silence(|_| true);
    let [_, packets] = sent(&net, 0);
    // Behind what fills them a round trip is more than half a second.
    flow.run_until(&mut net, Span::from_s(8), |net| sent(net, 0)[1] > packets + 10_000);
    assert!(!report(&net, 0).members.is_empty(), "they are not given up yet");
}

/// Keys have changed by packets, and records have said nothing under the new ones. Then packets are
/// held back on their way to the near site: the far one looks beside them all the same.
#[allow(dead_code, reason = "no rule is switched off in it")]
pub(crate) fn who_has_new_keys_looks_beside(broken: Option<Rule>, seed: u64) {
    let (mut net, bond) = meet(broken, seed, [1, 1]);
    let flow = net.open(bond, b"Something is said now and then.");
    for _ in 0..13 {
        net.run(Span::from_s(5));
        net.sites[0][0].agent.push(bond, flow, b"And more.");
    }
    assert_eq!([0, 1].map(|site| report(&net, site).epoch), [1, 1]);
    let (_, far, ..) = net.far_apps().next().expect("it has come");
    (net.bytes_per_step, net.narrow, net.air().police) = (200, true, Some(50));
    let data = bytes(65_536, 3);
    net.run_until(Span::from_s(20), |net| {
        let now = net.now;
        net.sites[0][0].agent.drained_by_application(now, bond, flow, 0);
        let Shard { agent, desk } = &mut net.sites[1][0];
        if agent.flow(far, flow).expect("it is open").unsent < 65_536 {
            agent.push(far, flow, &data);
        }
        desk.notes.contains(&Note::HeldBack(PEER))
    });
}

/// Packets are lost and the bound, and records are no faster: filler finds that out, and no stream
/// is ever stuck there.
pub(crate) fn slow_records_are_left_alone(broken: Option<Rule>, seed: u64) {
    let (mut net, bond) = meet(broken, seed, [1, 1]);
    (net.bytes_per_step, net.air().police) = (20, Some(100));
    net.air().lost_per_mille = 50;
    let mut flow = Flow::open(&mut net, bond, 10_000_000, 1);
    let end = net.now + Span::from_s(50);
    flow.run_until(&mut net, Span::from_s(51), |net| net.now >= end);
    let [records, packets] = sent(&net, 0);
    assert!(records == 0 && packets > 2_500_000, "{records} {packets}");
}

/// Packets have a whole link, and records could have half of it: the look that finds that out costs
/// a few round trips, and nobody takes filler for somebody who has come to stay.
pub(crate) fn a_look_takes_little_of_a_link(broken: Option<Rule>, seed: u64) {
    let (mut net, bond) = meet_over(broken, seed, 10);
    (net.bytes_per_step, net.narrow, net.air().link) = (700, true, Some(1400));
    let mut flow = Flow::open(&mut net, bond, 25_000_000, 1);
    let mut came = |net: &mut Net, time| {
        let (before, end) = (net.air().bytes[1], net.now + time);
        flow.run_until(net, Span(time.0 + 1_000_000), |net| net.now >= end);
        net.air().bytes[1] - before
    };
    came(&mut net, Span::from_s(1));
    let alone = came(&mut net, Span::from_s(1));
    // What packets alone bring differs by some percent from second to second.
    let beside = came(&mut net, Span::from_s(6));
    assert!(beside * 100 > alone * 6 * 90, "{beside} bytes in 6 s, {alone} in one");
    assert!(net.wires.iter().any(|wire| wire.pipes[0].arrived > 20_000), "nobody looked");
    assert_eq!(sent(&net, 0)[0], 0);
}

/// There is always more to send, and much is lost: it goes again before all that, so that little
/// waits for it.
pub(crate) fn what_is_lost_goes_before_what_is_new(broken: Option<Rule>, seed: u64) {
    let (mut net, bond) = meet_over(broken, seed, 50);
    net.air().link = Some(1400);
    let mut flow = Flow::open(&mut net, bond, 25_000_000, 1);
    let (id, end, mut early) = (flow.flow, net.now + Span::from_s(3), 0);
    flow.run_until(&mut net, Span::from_s(4), |net| {
        let bond = net.sites[1][0].agent.bond_to(PEER).expect("it is up");
        let far = net.sites[1][0].agent.flow(bond, id);
        early = far.map_or(early, |far| far.early.max(early));
        net.now >= end
    });
    // What a link of 40 ms holds is 56 kB; four round trips, and some packets.
    assert!((1..300_000).contains(&early), "{early} bytes waited");
}

/// The far side's host drops datagrams at the socket by which ours come: the near side hears of it.
/// What it had dropped before is none of ours.
#[allow(dead_code, reason = "there is no rule to switch off")]
pub(crate) fn drops_of_a_host_are_told(broken: Option<Rule>, seed: u64) {
    let mut net = Net::without(broken, seed, [1, 1]);
    net.give_air(seed);
    net.sites[1][0].agent.datagrams_dropped(LISTENS, 1000);
    let bond = net.connect();
    net.run_until(Span::from_s(1), |net| packets_work(net, 0) && packets_work(net, 1));
    let mut flow = Flow::open(&mut net, bond, 400_000, 1);
    flow.run_to(&mut net, 100_000, Span::from_s(10));
    net.sites[1][0].agent.datagrams_dropped(LISTENS, 7);
    flow.run_to_end(&mut net, Span::from_s(10));
    net.run(Span::from_s(1));
    let told = |site| report(&net, site).packets[0].why.clone();
    assert_eq!((told(0).dropped, told(1).dropped), (7, 0));
    assert!(told(0).repair().contains("7 datagrams") && !told(1).repair().contains("datagrams"));
}

/// The far side stops: the near one knows at once, though it has packets that were good a moment
/// ago, and nobody else told it.
pub(crate) fn who_stops_says_so_by_packets(broken: Option<Rule>, seed: u64) {
    let (mut net, bond) = meet(broken, seed, [1, 1]);
    let mut flow = Flow::open(&mut net, bond, 10_000, 1);
    flow.run_to_end(&mut net, Span::from_s(5));
    net.run(Span::from_s(2));
    net.air().lost_per_mille = 200;
    for Shard { agent, desk } in &mut net.sites[0] {
        agent.reset(flow.bond, flow.flow, ResetCode::Broken);
        desk.cut_off = true;
    }
    net.run(Span::from_s(1));
    let far = &mut net.sites[1][0].agent;
    far.stop();
    assert!(!far.is_quiet(), "it has something to say");
    net.run_until(Span::from_ms(50), |net| report(net, 0).packets.is_empty());
    assert!(net.sites[1][0].agent.is_quiet() && report(&net, 1).packets.is_empty());
    net.cut(|_| true);
    net.run_until(Span::from_ms(50), |net| !report(net, 0).up);
}

/// The far side is gone without a word: its carriers of records are, and so packets are asked.
pub(crate) fn who_died_is_missed_by_packets(broken: Option<Rule>, seed: u64) {
    let (mut net, bond) = meet(broken, seed, [1, 1]);
    let mut flow = Flow::open(&mut net, bond, 10_000, 1);
    flow.run_to_end(&mut net, Span::from_s(5));
    net.run(Span::from_s(2));
    net.sites[0][0].desk.cut_off = true;
    net.air().blocked = [true; 2];
    net.cut(|_| true);
    net.run_until(Span::from_s(2), |net| !report(net, 0).up);
}
