//! Stories and seeds about whole agents: handshakes, carriers that join, outages, restarts, and
//! strangers.

mod net;

use net::{App, Net, Nobody, PEER, Shard, WAIT};
use ringway_core::{Moment, Span};
use ringway_crypto::{PublicKey, Refused, SessionId};
use ringway_tunnel_proto::{BondId, Dropped, FlowId, HALF_OPEN_MAX, NotLetIn, Note, ResetCode};

fn bytes(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|at| (at as u8).wrapping_mul(31) ^ seed ^ (at >> 8) as u8).collect()
}

/// Writes what is left of `data` as there is room; the far side takes everything at once.
fn pump(net: &mut Net, bond: BondId, flow: FlowId, data: &[u8], at: &mut usize) {
    let now = net.now;
    if *at < data.len() {
        let agent = &mut net.sites[0][0].agent;
        let room =
            agent.flow(bond, flow).map_or(0, |report| 65_536u64.saturating_sub(report.unsent));
        let more = (room as usize).min(data.len() - *at);
        if more > 0 {
            agent.push(bond, flow, &data[*at..*at + more]);
            *at += more;
        }
    }
    let waiting: Vec<_> =
        net.far_apps().map(|(shard, bond, flow, _)| (shard, bond, flow)).collect();
    for (shard, bond, flow) in waiting {
        net.sites[1][shard].agent.drained_by_application(now, bond, flow, 0);
    }
}

#[test]
fn two_sites_meet_and_a_flow_goes_both_ways() {
    let mut net = Net::new(1, [1, 1]);
    let bond = net.connect();
    let flow = net.open(bond, b"hello");
    net.run_until(Span::from_s(1), |net| net.far_apps().any(|(.., app)| app.read == b"hello"));
    let (shard, there, id, _) = net.far_apps().next().expect("it came");
    assert_eq!(id, flow);
    let far = &mut net.sites[1][shard].agent;
    far.push(there, flow, b"and back");
    far.finish(there, flow);
    net.sites[0][0].agent.finish(bond, flow);
    net.run_until(Span::from_s(1), |net| net.sites[0][0].desk.apps[&(bond, flow)].closed);
    let app = &net.sites[0][0].desk.apps[&(bond, flow)];
    assert!(app.finished && app.read == b"and back");
    assert_eq!(net.sites[0][0].desk.notes, [Note::Up(PEER)]);
    assert_eq!(net.wires(), 1);
}

/// Whatever shard of the far site a carrier reaches, it comes to the one that has the session.
#[test]
fn carriers_find_their_session_on_any_shard() {
    let mut net = Net::new(2, [1, 3]);
    let bond = net.connect();
    let data = bytes(3_000_000, 1);
    let flow = net.open(bond, &data[..10]);
    let mut at = 10;
    for _ in 0..12 {
        net.run(Span::from_ms(30));
        net.cut(|_| true);
        net.run_until(Span::from_s(5), |net| {
            pump(net, bond, flow, &data, &mut at);
            net.sites[0][0].agent.bond_to(PEER).is_some()
        });
    }
    net.run_until(Span::from_s(20), |net| {
        pump(net, bond, flow, &data, &mut at);
        net.far_apps().any(|(.., app)| app.read.len() == data.len())
    });
    assert!(net.far_apps().all(|(.., app)| app.read == data && app.reset.is_none()));
    assert_eq!(net.far_apps().count(), 1);
}

#[test]
fn flows_wait_out_an_outage_and_go_on_where_they_were() {
    let mut net = Net::new(3, [1, 1]);
    let bond = net.connect();
    let data = bytes(2_000_000, 7);
    let flow = net.open(bond, &data[..1000]);
    let mut at = 1000;
    net.run(Span::from_ms(20));
    pump(&mut net, bond, flow, &data, &mut at);
    net.sites[0][0].desk.cut_off = true;
    net.cut(|_| true);
    net.run(Span(WAIT.0 / 2));
    assert!(net.sites[0][0].agent.bond_to(PEER).is_none());
    net.sites[0][0].desk.cut_off = false;
    net.run_until(Span::from_s(60), |net| {
        pump(net, bond, flow, &data, &mut at);
        net.far_apps().any(|(.., app)| app.read.len() == data.len())
    });
    assert!(net.far_apps().all(|(.., app)| app.read == data));
    let notes = &net.sites[0][0].desk.notes;
    assert!(
        notes.contains(&Note::Alone(PEER, 1)) && notes.contains(&Note::Back(PEER)),
        "{notes:?}"
    );
}

#[test]
fn who_waits_too_long_gives_up_at_both_ends() {
    let mut net = Net::new(4, [1, 1]);
    let bond = net.connect();
    let flow = net.open(bond, b"x");
    net.run(Span::from_ms(20));
    net.sites[0][0].desk.cut_off = true;
    net.cut(|_| true);
    net.run(Span(WAIT.0 + Span::from_s(1).0));
    assert_eq!(net.sites[0][0].desk.apps[&(bond, flow)].reset, Some(ResetCode::Broken));
    assert!(net.far_apps().all(|(.., app)| app.reset == Some(ResetCode::Broken)));
    // Later they meet again, as if for the first time.
    net.sites[0][0].desk.cut_off = false;
    let bond = net.connect();
    net.open(bond, b"again");
    net.run_until(Span::from_s(5), |net| net.far_apps().any(|(.., app)| app.read == b"again"));
}

/// A stopped process finds, when it goes on, that nobody has waited for it.
#[test]
fn who_was_frozen_for_long_begins_anew() {
    for site in 0..2 {
        let mut net = Net::new(15, [1, 1]);
        let bond = net.connect();
        net.open(bond, b"before");
        net.run(Span::from_ms(50));
        net.freeze(site, Span(2 * WAIT.0));
        let most = net.wires();
        // It learns of it.
        net.run(Span::from_s(10));
        let bond = net.connect();
        net.open(bond, b"after");
        net.run_until(Span::from_s(5), |net| net.far_apps().any(|(.., app)| app.read == b"after"));
        net.run(Span::from_s(30));
        assert!(most < 30 && net.wires() <= 2, "{most} and then {} connections", net.wires());
    }
}

/// A machine that may be a copy says nothing more under the keys that it has: its flows are reset
/// at once, at its peer as soon as the two meet again, and that is by new keys. Whoever waited for
/// a session goes on waiting.
#[test]
fn who_may_be_a_copy_begins_anew() {
    for site in 0..2 {
        let mut net = Net::new(21, [1, 2]);
        let bond = net.connect();
        let data = bytes(300_000, 5);
        let flow = net.open(bond, &data);
        net.run_until(Span::from_s(1), |net| net.far_apps().next().is_some());
        let before = session(&mut net);
        // Both have more to say.
        let (shard, there, ..) = net.far_apps().next().expect("it came");
        net.sites[1][shard].agent.push(there, flow, b"an answer");
        net.sites[0][0].agent.push(bond, flow, &data);
        let (dropped, speaks) = net.begin_anew(site, b"chance");
        assert_eq!(dropped, Dropped { sessions: 1, flows: 1 });
        assert!(!speaks, "something left under a key of before");
        let its_own_end = |net: &Net| match site {
            0 => net.sites[0][0].desk.apps[&(bond, flow)].reset,
            _ => net.far_apps().next().expect("it came").3.reset,
        };
        assert_eq!(its_own_end(&net), Some(ResetCode::Gone));
        assert!(net.sites[site].iter().all(|shard| shard.agent.bond_to(PEER).is_none()));
        net.run_until(Span::from_s(20), |net| {
            net.sites[0][0].desk.apps[&(bond, flow)].reset == Some(ResetCode::Gone)
        });
        net.sites[0][0].desk.waiting.push(b"after".to_vec());
        net.run_until(Span::from_s(20), |net| net.far_apps().any(|(.., app)| app.read == b"after"));
        assert_ne!(session(&mut net), before);
        let gone = |app: &App| app.reset == Some(ResetCode::Gone);
        assert!(net.far_apps().all(|(.., app)| app.read == b"after" || gone(app)));
        net.run(Span::from_s(40));
        assert_eq!(net.wires(), 1);
    }
}

/// The number of the near site's session.
fn session(net: &mut Net) -> Option<SessionId> {
    let Shard { agent, desk } = &mut net.sites[0][0];
    agent.report(true, desk)[0].session
}

/// A machine and its copy, which are two nets of one seed, draw the same chance, and so the same
/// keys and messages. With chance of their own they do not, whatever else they share.
#[test]
fn copies_draw_different_keys() {
    let life = |fresh: Option<&[u8]>| {
        let mut net = Net::new(22, [1, 1]);
        net.connect();
        if let Some(fresh) = fresh {
            net.begin_anew(0, fresh);
        } else {
            net.cut(|_| true);
        }
        net.run_until(Span::from_s(5), |net| net.wires() == 1 && !net.first_said(0).is_empty());
        net.first_said(0)
    };
    assert_eq!(life(None), life(None), "copies say the same");
    assert_eq!(life(Some(b"one")), life(Some(b"one")), "as long as chance is the same");
    assert_ne!(life(Some(b"one"))[..32], life(Some(b"two"))[..32], "the salts");
}

/// Who waits for the session's first record has nothing to show after it. Handshakes that are under
/// way at either end are begun again.
#[test]
fn handshakes_that_are_under_way_are_begun_again() {
    for (site, steps) in [0, 1].into_iter().flat_map(|site| (0..12).map(move |at| (site, at))) {
        let mut net = Net::new(23, [1, 1]);
        net.bytes_per_step = 150;
        for _ in 0..steps {
            net.step();
        }
        assert!(!net.begin_anew(site, b"chance").1);
        let bond = net.connect();
        net.open(bond, b"hello");
        net.run_until(Span::from_s(5), |net| net.far_apps().any(|(.., app)| app.read == b"hello"));
        net.run(Span::from_s(60));
        assert_eq!(net.wires(), 1, "site {site} after {steps} steps");
    }
}

/// Attempts are far apart by now. Whoever comes to wait is not told to wait that long, and a crowd
/// makes no more attempts than one.
#[test]
fn who_waits_is_not_kept_waiting() {
    let mut net = Net::new(3, [1, 1]);
    net.sites[0][0].desk.cut_off = true;
    net.run(Span::from_s(60));
    let before = net.sites[0][0].desk.attempts;
    for _ in 0..3000 {
        let (now, Shard { agent, .. }) = (net.now, &mut net.sites[0][0]);
        agent.hurry(now, PEER);
        net.step();
    }
    let attempts = net.sites[0][0].desk.attempts - before;
    assert!((3..=5).contains(&attempts), "{attempts} attempts in 3 s");
    net.run(Span::from_s(30));
    net.sites[0][0].desk.cut_off = false;
    let (now, Shard { agent, .. }) = (net.now, &mut net.sites[0][0]);
    agent.hurry(now, PEER);
    net.run_until(Span::from_ms(200), |net| net.sites[0][0].agent.bond_to(PEER).is_some());
}

/// A far site that takes nobody, and says nothing, is not flooded with attempts.
#[test]
fn attempts_are_spaced() {
    let mut net = Net::new(16, [1, 1]);
    let bond = net.connect();
    let before = net.dialled;
    net.silence(|_| true);
    net.open(bond, b"anybody?");
    for _ in 0..60_000 {
        net.step();
        net.silence(|_| true);
    }
    let many = net.dialled - before;
    assert!((5..=25).contains(&many), "{many} in a minute");
}

/// Of the far site's addresses some refuse and some are silent. The next one follows at once upon
/// those, and after 2.5 s upon these; the last one of a round is given all the time there is, and
/// rounds are followed by pauses.
#[test]
fn other_addresses_are_not_waited_for() {
    use Nobody::{Refuses, Silent};
    let times = |nobody: &[(Nobody, bool)]| {
        let mut net = Net::new(23, [1, 1]);
        net.sites[0][0].desk.nobody = nobody.iter().copied().collect();
        let before = net.now;
        net.connect();
        net.now.since(before).0 / 1_000_000
    };
    let without = times(&[]);
    assert!(times(&[(Refuses, true); 15]) <= without + 30, "each takes a turn");
    let silent = times(&[(Silent, true), (Refuses, true), (Silent, true)]);
    assert!((5000..5030).contains(&(silent - without)), "{silent} ms");
    // A round of three, and the first of the next.
    let rounds = times(&[(Refuses, true), (Refuses, true), (Silent, false), (Refuses, true)]);
    assert!((5100..5230).contains(&(rounds - without)), "{rounds} ms");
    // Ten rounds of two: as many pauses as one address would have.
    let rounds: Vec<_> = (0..20).map(|at| (Refuses, at % 2 == 0)).collect();
    let pauses = 200 * (1 + 2 + 4 + 8 + 16 + 32) + 4 * 10_000;
    assert!((pauses / 2..pauses + 100).contains(&times(&rounds)), "about {pauses} ms");
}

/// The far site is a process at one address; then it is another one, at the next. The first is
/// silent: once it has had its time the other one is asked, not joined, and answers at once.
#[test]
fn another_process_at_another_address_is_found_soon() {
    let mut net = Net::new(24, [1, 1]);
    let bond = net.connect();
    let flow = net.open(bond, b"before");
    net.run(Span::from_ms(50));
    net.start(1, 1);
    net.sites[0][0].desk.nobody.push_back((Nobody::Silent, true));
    let before = net.now;
    net.run_until(Span::from_s(5), |net| {
        net.sites[0][0].desk.apps[&(bond, flow)].reset == Some(ResetCode::Gone)
    });
    net.connect();
    let took = net.now.since(before);
    assert!(took < Span::from_ms(2800), "{took:?}");
}

/// All carriers fall silent, as when packets are dropped: nobody is told, and it is found out.
#[test]
fn silence_is_found_out_and_other_carriers_go_on() {
    let mut net = Net::new(5, [1, 1]);
    let bond = net.connect();
    let data = bytes(500_000, 3);
    let flow = net.open(bond, &data[..100]);
    let mut at = 100;
    net.run(Span::from_ms(30));
    net.silence(|_| true);
    let before = net.now;
    net.run_until(Span::from_s(20), |net| {
        pump(net, bond, flow, &data, &mut at);
        net.far_apps().any(|(.., app)| app.read.len() == data.len())
    });
    assert!(net.far_apps().all(|(.., app)| app.read == data));
    let took = net.now.since(before);
    assert!(took < Span::from_s(3), "{took:?}");
}

#[test]
fn a_restarted_far_site_resets_its_flows_and_says_so() {
    let mut net = Net::new(6, [1, 2]);
    let bond = net.connect();
    let flow = net.open(bond, b"before");
    net.run(Span::from_ms(50));
    net.start(1, 2);
    net.run_until(Span::from_s(30), |net| {
        net.sites[0][0].desk.apps[&(bond, flow)].reset == Some(ResetCode::Gone)
    });
    assert!(net.sites[0][0].desk.notes.contains(&Note::Forgotten(PEER, 1)));
    let bond = net.connect();
    net.open(bond, b"after");
    net.run_until(Span::from_s(5), |net| net.far_apps().any(|(.., app)| app.read == b"after"));
}

#[test]
fn a_restarted_near_site_replaces_its_session() {
    let mut net = Net::new(7, [1, 2]);
    let bond = net.connect();
    net.open(bond, b"before");
    net.run(Span::from_ms(50));
    net.start(0, 1);
    let bond = net.connect();
    net.open(bond, b"after");
    net.run_until(Span::from_s(5), |net| net.far_apps().any(|(.., app)| app.read == b"after"));
    // It may have been on another shard, which is told.
    net.run_until(Span::from_s(1), |net| {
        let mut before = net.far_apps().filter(|(.., app)| app.read == b"before");
        before.all(|(.., app)| app.reset == Some(ResetCode::Gone))
    });
    assert_eq!(net.far_apps().filter(|(.., app)| app.read == b"before").count(), 1);
}

/// What waits for a session goes with its first record, and the far site hears of the session
/// before it hears of the flow.
#[test]
fn who_waits_goes_with_the_first_record() {
    let mut net = Net::new(18, [1, 2]);
    net.sites[0][0].desk.waiting.push(b"early".to_vec());
    net.run_until(Span::from_s(5), |net| net.far_apps().any(|(.., app)| app.read == b"early"));
    assert_eq!(net.sites[0][0].desk.notes, [Note::Up(PEER)]);
}

/// The first carrier is lost after the answer and before the far site has heard anything more: it
/// knows of no session. Whoever waits goes on waiting, and is served by the next one.
#[test]
fn a_first_carrier_that_is_lost_at_once_takes_no_flow_with_it() {
    let mut net = Net::new(20, [1, 2]);
    // A first record takes several steps.
    net.bytes_per_step = 10;
    net.sites[0][0].desk.waiting.push(b"early".to_vec());
    net.run_until(Span::from_s(5), |net| {
        let Shard { agent, desk } = &mut net.sites[0][0];
        agent.report(true, desk).iter().any(|bond| bond.session.is_some())
    });
    net.step();
    assert!(net.sites[1].iter().all(|shard| shard.agent.bond_to(PEER).is_none()));
    net.cut(|_| true);
    net.bytes_per_step = 100_000;
    net.run_until(Span::from_s(30), |net| net.far_apps().any(|(.., app)| app.read == b"early"));
    assert!(net.sites[0][0].desk.apps.values().all(|app| app.reset.is_none()));
    assert_eq!(net.sites[0][0].desk.notes.last(), Some(&Note::Up(PEER)));
}

/// A peer's key is taken away: what began by it ends, at once. One that is added changes nothing.
#[test]
fn a_key_that_is_trusted_no_more_ends_its_session() {
    let mut net = Net::new(19, [1, 1]);
    let bond = net.connect();
    let flow = net.open(bond, b"before");
    net.run(Span::from_ms(50));
    net.trust(1, &[1, 7]);
    net.run(Span::from_ms(50));
    assert!(net.far_apps().all(|(.., app)| app.reset.is_none()), "its key is still good");
    net.trust(1, &[7]);
    assert!(net.far_apps().all(|(.., app)| app.reset == Some(ResetCode::Denied)));
    net.run(Span::from_s(20));
    assert!(net.sites[1][0].agent.bond_to(PEER).is_none(), "it is nobody now");
    net.trust(1, &[1]);
    net.run_until(Span::from_s(60), |net| {
        net.sites[0][0].desk.apps[&(bond, flow)].reset == Some(ResetCode::Gone)
    });
    net.connect();
}

/// Under which keys the session counts, in the order of [`Net::counts_under`].
fn under(near: u8, far: u8) -> [Option<PublicKey>; 3] {
    let public = |byte| Some(net::key(byte).public());
    [public(near), public(far), public(near)]
}

/// Both sites get new keys while a flow runs. As soon as who dials shows the new ones first the
/// session counts under them, whichever shard of the far site hears of it; then the old ones go,
/// from either site first, and nothing ends.
#[test]
fn a_session_moves_over_to_new_keys() {
    for first_to_forget in 0..2 {
        let mut net = Net::new(24, [1, 3]);
        let bond = net.connect();
        let data = bytes(3_000_000, 8);
        let flow = net.open(bond, &data[..100]);
        let mut at = 100;
        let mut go_on = |net: &mut Net, time| {
            let end = net.now + time;
            net.run_until(Span::from_s(100), |net| {
                pump(net, bond, flow, &data, &mut at);
                net.now >= end
            });
        };
        go_on(&mut net, Span::from_ms(20));
        let before = session(&mut net);
        assert_eq!(net.counts_under(), under(1, 2));
        net.keys(1, &[8, 2], &[1, 7]);
        go_on(&mut net, Span::from_ms(20));
        assert_eq!(net.counts_under(), under(1, 2), "who dials decides");
        net.keys(0, &[7, 1], &[8, 2]);
        go_on(&mut net, Span::from_ms(100));
        assert_eq!(net.counts_under(), under(7, 8));
        for site in [first_to_forget, 1 - first_to_forget] {
            let (own, theirs) = if site == 0 { (7, 8) } else { (8, 7) };
            net.keys(site, &[own], &[theirs]);
            go_on(&mut net, Span::from_ms(20));
        }
        // Also where all carriers have to come back.
        net.cut(|_| true);
        net.run_until(Span::from_s(60), |net| {
            pump(net, bond, flow, &data, &mut at);
            net.far_apps().any(|(.., app)| app.read.len() == data.len())
        });
        assert!(net.far_apps().all(|(.., app)| app.read == data && app.reset.is_none()));
        assert_eq!(session(&mut net), before);
        let notes = |net: &Net, site: usize| {
            let all = net.sites[site].iter().flat_map(|shard| &shard.desk.notes);
            all.filter(|note| **note == Note::Moved(PEER)).count()
        };
        assert_eq!([notes(&net, 0), notes(&net, 1)], [1, 1]);
    }
}

/// A far site that does not know the new key yet, as when the steps are taken in another order: the
/// session goes on under the old one, is offered once a minute and not faster, and moves when it
/// can. Carriers that are lost meanwhile come back at once.
#[test]
fn a_key_that_is_not_known_yet_disturbs_nobody() {
    let mut net = Net::new(25, [1, 1]);
    let bond = net.connect();
    let flow = net.open(bond, b"x");
    net.run(Span::from_ms(50));
    let before = net.dialled;
    net.keys(0, &[7, 1], &[2]);
    net.run(Span::from_s(300));
    let asked = net.dialled - before;
    assert!((4..=6).contains(&asked), "{asked} in five minutes");
    let notes = net.sites[0][0].desk.notes.iter();
    assert_eq!(notes.filter(|note| **note == Note::NotMoved(PEER)).count(), asked);
    assert!(!net.sites[0][0].desk.notes.contains(&Note::NoAnswer(PEER)), "it is connected");
    assert_eq!(net.counts_under(), under(1, 2));
    net.cut(|_| true);
    net.run_until(Span::from_s(1), |net| net.sites[0][0].agent.bond_to(PEER).is_some());
    net.keys(1, &[2], &[1, 7]);
    net.run_until(Span::from_s(61), |net| net.counts_under() == under(7, 2));
    net.keys(1, &[2], &[7]);
    net.run(Span::from_s(5));
    assert!(net.far_apps().all(|(.., app)| app.reset.is_none()));
    assert!(net.sites[0][0].desk.apps[&(bond, flow)].reset.is_none());
}

/// Asked under new keys, a far site that has no such session is another than who has it: who stood
/// between the two by stolen keys, and had one with each, is left at once.
#[test]
fn a_session_that_the_new_key_does_not_have_ends() {
    let mut net = Net::new(26, [1, 1]);
    let bond = net.connect();
    let flow = net.open(bond, b"x");
    net.run(Span::from_ms(50));
    let before = session(&mut net);
    net.forget(before.expect("it is there"));
    net.keys(1, &[8, 2], &[1]);
    net.keys(0, &[1], &[8, 2]);
    net.run_until(Span::from_s(1), |net| {
        net.sites[0][0].desk.apps[&(bond, flow)].reset == Some(ResetCode::Gone)
    });
    net.connect();
    assert_ne!(session(&mut net), before);
    assert_eq!(net.counts_under(), under(1, 8));
}

/// The far site's address is taken away: what is there goes on, and what breaks is not dialled.
#[test]
fn who_has_no_address_any_more_is_not_dialled() {
    let mut net = Net::new(21, [1, 1]);
    let bond = net.connect();
    let flow = net.open(bond, b"before");
    net.run(Span::from_ms(50));
    net.know_address(false);
    net.sites[0][0].agent.push(bond, flow, b" and after");
    net.run_until(Span::from_s(1), |net| {
        net.far_apps().any(|(.., app)| app.read == b"before and after")
    });
    let before = net.dialled;
    net.cut(|_| true);
    net.run(Span(WAIT.0 + Span::from_s(1).0));
    assert_eq!(net.dialled, before);
    assert_eq!(net.sites[0][0].desk.apps[&(bond, flow)].reset, Some(ResetCode::Broken));
    assert!(net.sites[0][0].agent.report(true, &net.sites[0][0].desk).is_empty());
    net.know_address(true);
    let bond = net.connect();
    net.open(bond, b"again");
    net.run_until(Span::from_s(5), |net| net.far_apps().any(|(.., app)| app.read == b"again"));
}

/// The near side's wait is over before the far side has noticed anything: its ends of the flows
/// have nothing to say. They hear that the flows are over as soon as a carrier is back.
#[test]
fn flows_that_were_given_up_end_at_the_far_side_too() {
    let mut net = Net::new(22, [1, 1]);
    let bond = net.connect();
    let flow = net.open(bond, b"x");
    net.run(Span::from_s(1));
    net.sites[0][0].agent.push(bond, flow, b"y");
    net.sites[0][0].desk.cut_off = true;
    net.silence(|_| true);
    net.run(Span(WAIT.0 + Span::from_s(1).0));
    assert_eq!(net.sites[0][0].desk.apps[&(bond, flow)].reset, Some(ResetCode::Broken));
    assert!(net.far_apps().all(|(.., app)| app.reset.is_none()));
    net.sites[0][0].desk.cut_off = false;
    net.connect();
    net.run_until(Span::from_s(5), |net| {
        net.far_apps().all(|(.., app)| app.reset == Some(ResetCode::Broken))
    });
}

/// Keys are old, and nothing little is to be said beside bulk: they change all the same.
#[test]
fn keys_change_beside_bulk_alone() {
    let mut net = Net::new(23, [1, 1]);
    net.bytes_per_step = 4000;
    let bond = net.connect();
    let data = bytes(1_000_000, 1);
    let bulk = net.open(bond, &data);
    net.open(bond, b"a second flow");
    let epoch = |net: &Net| net.sites[0][0].agent.report(true, &net.sites[0][0].desk)[0].epoch;
    while net.now < Moment(Span::from_s(63).0) {
        // There is always more.
        let agent = &mut net.sites[0][0].agent;
        if agent.flow(bond, bulk).is_some_and(|report| report.unsent < 200_000) {
            agent.push(bond, bulk, &data);
        }
        pump(&mut net, bond, bulk, &[], &mut 0);
        net.step();
        net.sites[1][0].desk.apps.values_mut().for_each(|app| app.read.clear());
    }
    assert_eq!(epoch(&net), 1);
}

/// A crowd comes between a carrier's first message and its first record: the carrier is the oldest
/// of those that have not proved themselves, and goes. Its session goes on.
#[test]
fn a_carrier_that_a_crowd_pushes_out_is_missed_by_its_session() {
    let mut net = Net::new(24, [1, 1]);
    let bond = net.connect();
    let flow = net.open(bond, b"before");
    net.run(Span::from_ms(50));
    net.bytes_per_step = 10;
    net.cut(|_| true);
    net.run_until(Span::from_s(5), |net| {
        let reports = net.sites[1][0].agent.report(true, &net.sites[1][0].desk);
        reports[0].members.iter().any(|member| !member.carrier.proved)
    });
    for _ in 0..HALF_OPEN_MAX {
        net.knock(0, &mut []);
    }
    net.bytes_per_step = 100_000;
    net.sites[0][0].agent.push(bond, flow, b" and after");
    net.run_until(Span::from_s(20), |net| {
        net.far_apps().any(|(.., app)| app.read == b"before and after")
    });
}

/// A session ends beside another one and a crowd of strangers: its connections are closed, and
/// nobody else's.
#[test]
fn the_end_of_a_session_closes_its_own_connections() {
    let mut net = Net::new(27, [2, 1]);
    let up = |net: &mut Net| net.sites[0].iter().all(|it| it.agent.bond_to(PEER).is_some());
    net.run_until(Span::from_s(5), up);
    let strangers: Vec<_> = (0..100).map(|_| net.knock(0, &mut [])).collect();
    let now = net.now;
    let Shard { agent, desk } = &mut net.sites[1][0];
    let [ends, stays] = &agent.report(false, desk)[..] else { panic!("two sessions") };
    let conns = [ends, stays].map(|one| one.members.iter().map(|it| it.conn).collect::<Vec<_>>());
    agent.replaced(now, ends.session.expect("it is up"), desk);
    let open = |conns: &[_]| conns.iter().filter(|conn| net.is_open(0, **conn)).count();
    assert_eq!(conns.each_ref().map(|conns| (conns.len(), open(conns))), [(1, 0), (1, 1)]);
    assert_eq!(open(&strangers), 100);
    // Its near end notices, and begins another one.
    net.run_until(Span::from_s(5), |net| !up(net));
    net.run_until(Span::from_s(5), up);
    let lost = |shard: usize| net.sites[0][shard].desk.notes.iter().any(|n| *n != Note::Up(PEER));
    assert_eq!([lost(0), lost(1)].iter().filter(|lost| **lost).count(), 1);
}

/// Each shard of the near site has a session of its own, and none replaces another's.
#[test]
fn shards_have_sessions_of_their_own() {
    let mut net = Net::new(8, [3, 2]);
    net.run_until(Span::from_s(5), |net| {
        net.sites[0].iter().all(|shard| shard.agent.bond_to(PEER).is_some())
    });
    net.run(Span::from_s(2));
    assert_eq!(net.wires(), 3);
    assert!(net.sites[0].iter().all(|shard| shard.desk.notes == [Note::Up(PEER)]));
}

/// The first message of a session, heard on the wire, is worth nothing to who says it again; nor is
/// one that joins.
#[test]
fn what_was_heard_cannot_be_said_again() {
    let mut net = Net::new(9, [1, 1]);
    net.run_until(Span::from_s(1), |net| net.wires() == 1);
    let mut first = net.first_said(0);
    assert!(first.len() > 72);
    net.connect();
    let conn = net.knock(0, &mut first.clone());
    assert_eq!(net.said_to(0, conn), 0);
    assert_eq!(net.sites[1][0].desk.notes.last(), Some(&Note::NotLetIn(NotLetIn::Replayed)));
    // A join.
    net.cut(|_| true);
    net.run_until(Span::from_s(5), |net| net.wires() == 1);
    let mut join = net.first_said(0);
    net.connect();
    let conn = net.knock(0, &mut join.clone());
    assert_eq!(net.said_to(0, conn), 0);
    assert_eq!(net.sites[1][0].desk.notes.last(), Some(&Note::NotLetIn(NotLetIn::Replayed)));
    // Neither with a bit changed: whichever it is.
    for message in [&mut first, &mut join] {
        for at in (0..message.len()).step_by(7) {
            let mut bad = message.clone();
            bad[at] ^= 4;
            let conn = net.knock(0, &mut bad);
            assert_eq!(net.said_to(0, conn), 0, "byte {at}");
        }
    }
    assert!(net.sites[0][0].agent.bond_to(PEER).is_some());
}

/// Strangers hear nothing, are dropped at a time that their address decides, and cost nothing
/// beyond a bound.
#[test]
fn strangers_hear_nothing_and_cost_little() {
    let mut net = Net::new(10, [1, 1]);
    let bond = net.connect();
    let mut dropped_at = Vec::new();
    let probes: [&[u8]; 4] = [b"", b"GET / HTTP/1.1\r\n\r\n", &[0x16; 71], &[7; 5000]];
    for probe in probes {
        let conn = net.knock(0, &mut probe.to_vec());
        let start = net.now;
        net.run_until(Span::from_s(60), |net| !net.is_open(0, conn));
        assert_eq!(net.said_to(0, conn), 0);
        dropped_at.push(net.now.since(start));
    }
    let spread =
        dropped_at.iter().max().expect("some").0 - dropped_at.iter().min().expect("some").0;
    assert!(spread <= 2 * net::STEP.0, "{dropped_at:?}");
    let first = net.knock(0, &mut []);
    for _ in 0..HALF_OPEN_MAX {
        net.knock(0, &mut [1; 80]);
    }
    assert!(!net.is_open(0, first), "the oldest has gone");
    let crowded = net.sites[1][0].desk.notes.iter();
    let crowded = crowded.filter(|note| **note == Note::NotLetIn(NotLetIn::Crowded)).count();
    assert_eq!(crowded, 1);
    // Who belongs here is not disturbed.
    net.open(bond, b"hello");
    net.run_until(Span::from_s(1), |net| net.far_apps().any(|(.., app)| app.read == b"hello"));
}

#[test]
fn a_wrong_clock_is_silence_and_a_note() {
    let mut net = Net::new(11, [1, 1]);
    net.sites[1][0].desk.ahead_ms = 45_000;
    net.run(Span::from_s(15));
    assert!(net.sites[0][0].agent.bond_to(PEER).is_none());
    let behind = |note: &Note| match note {
        Note::NotLetIn(NotLetIn::Refused(Refused::Clock { ahead_ms })) => *ahead_ms < -44_000,
        _ => false,
    };
    assert!(net.sites[1][0].desk.notes.iter().any(behind));
    assert!(net.sites[0][0].desk.notes.contains(&Note::NoAnswer(PEER)));
    net.sites[1][0].desk.ahead_ms = 0;
    net.connect();
}

/// Keys change every minute while something is said, and nothing is lost by it.
#[test]
fn keys_change_under_flows() {
    let mut net = Net::new(12, [1, 1]);
    let bond = net.connect();
    let data = bytes(200_000, 9);
    let flow = net.open(bond, &data[..100]);
    let mut at = 100;
    while at < data.len() {
        let end = (at + 1000).min(data.len());
        net.sites[0][0].agent.push(bond, flow, &data[at..end]);
        at = end;
        net.run(Span::from_s(1));
        pump(&mut net, bond, flow, &[], &mut 0);
    }
    net.run(Span::from_s(1));
    assert!(net.far_apps().all(|(.., app)| app.read == data));
    let Shard { agent, desk } = &mut net.sites[0][0];
    let reports = agent.report(true, desk);
    assert!((2..=4).contains(&reports[0].epoch), "{}", reports[0].epoch);
    // A carrier that comes now joins under the present epoch.
    net.cut(|_| true);
    net.run_until(Span::from_s(5), |net| net.sites[0][0].agent.bond_to(PEER).is_some());
}

/// The near side has new keys, and before it says so all carriers are lost. The next one joins
/// under them, which says the same.
#[test]
fn a_carrier_that_joins_under_new_keys_announces_them() {
    let mut net = Net::new(25, [1, 1]);
    let bond = net.connect();
    let flow = net.open(bond, b"x");
    let epochs = |net: &Net| {
        [0, 1].map(|site| {
            let Shard { agent, desk } = &net.sites[site][0];
            agent.report(true, desk)[0].epoch
        })
    };
    let (mut said, mut lost) = (1, false);
    while net.now < Moment(Span::from_s(125).0) {
        net.step();
        if !lost && epochs(&net) == [1, 0] {
            net.cut(|_| true);
            lost = true;
        }
        if net.now.0.is_multiple_of(Span::from_ms(500).0) {
            net.sites[0][0].agent.push(bond, flow, b"x");
            said += 1;
        }
    }
    assert!(lost);
    net.run(Span::from_s(1));
    assert_eq!(epochs(&net), [2, 2]);
    assert!(net.far_apps().all(|(.., app)| app.read.len() == said && app.reset.is_none()));
}

/// A carrier joins, and what it says is late: keys have changed on the other one meanwhile. It
/// comes in under the former ones, and changes over.
#[test]
fn a_carrier_that_joins_under_the_former_keys_comes_in() {
    let mut net = Net::new(27, [1, 1]);
    net.bytes_per_step = 4000;
    let bond = net.connect();
    let flow = net.open(bond, b"x");
    net.run(Span(Span::from_s(60).0 - 100_000_000 - net.now.0));
    let data = bytes(20_000_000, 9);
    let (bulk, mut at) = (net.open(bond, &data[..100]), 100);
    let epochs = |net: &Net| {
        [0, 1].map(|site| {
            let Shard { agent, desk } = &net.sites[site][0];
            agent.report(true, desk)[0].epoch
        })
    };
    net.run_until(Span::from_s(2), |net| {
        pump(net, bond, bulk, &data, &mut at);
        net.wires() == 2
    });
    assert_eq!(epochs(&net), [0, 0]);
    let before = net.now;
    net.wires[1].pipes[0].stalled_until = Moment(u64::MAX);
    net.run_until(Span::from_s(1), |net| {
        net.sites[0][0].agent.push(bond, flow, b"x");
        pump(net, bond, bulk, &data, &mut at);
        epochs(net) == [1, 1]
    });
    net.wires[1].pipes[0].stalled_until = before;
    net.run_until(Span::from_s(2), |net| {
        let Shard { agent, desk } = &net.sites[1][0];
        agent.report(true, desk)[0].members.iter().filter(|one| one.carrier.usable).count() == 2
    });
    assert_eq!(net.wires(), 2, "it is the same");
    let refused = |note: &Note| matches!(note, Note::NotLetIn(_));
    assert!(!net.sites[1][0].desk.notes.iter().any(refused));
}

/// Who says little is not behind who says much, once there is a carrier for it.
#[test]
fn chatter_does_not_wait_behind_bulk() {
    let mut net = Net::new(17, [1, 1]);
    net.bytes_per_step = 4000;
    let bond = net.connect();
    let data = bytes(8_000_000, 1);
    let bulk = net.open(bond, &data[..100]);
    let chat = net.open(bond, b"");
    let mut at = 100;
    let (mut said, mut said_at, mut waits) = (0, net.now, Vec::new());
    let until = net.now + Span::from_s(20);
    while waits.len() < 40 {
        assert!(net.now < until, "{waits:?}");
        pump(&mut net, bond, bulk, &data, &mut at);
        let heard = net.far_apps().find(|(.., flow, _)| *flow == chat);
        if heard.map_or(0, |(.., app)| app.read.len()) == said {
            if said > 0 {
                waits.push(net.now.since(said_at).0 / 1_000_000);
            }
            (said, said_at) = (said + 1, net.now);
            net.sites[0][0].agent.push(bond, chat, b"x");
        }
        net.step();
    }
    assert!(at < data.len(), "there was bulk all the time");
    // The first ones wait for the second carrier.
    let late = &mut waits[20..];
    late.sort_unstable();
    assert!(late[late.len() - 2] <= 5, "{late:?} ms");
}

/// More carriers where more carry more.
#[test]
fn a_slow_path_gets_more_carriers_and_an_idle_one_gives_them_back() {
    let mut net = Net::new(13, [1, 1]);
    (net.bytes_per_step, net.carry_every) = (8000, 4);
    let bond = net.connect();
    let data = bytes(20_000_000, 9);
    let flow = net.open(bond, &data[..100]);
    let mut at = 100;
    net.run_until(Span::from_s(20), |net| {
        pump(net, bond, flow, &data, &mut at);
        net.wires() == 4
    });
    let end = net.now + Span::from_s(1);
    net.run_until(Span::from_s(2), |net| {
        pump(net, bond, flow, &data, &mut at);
        net.now > end
    });
    net.sites[0][0].agent.reset(bond, flow, ResetCode::Broken);
    net.run_until(Span::from_s(200), |net| net.wires() == 1);
    assert!(net.sites[0][0].agent.bond_to(PEER).is_some());
    let lost = [0, 1].map(|site: usize| net.sites[site][0].desk.lost.len());
    assert_eq!(lost, [0, 0], "they left, they were not lost");
    net.cut(|_| true);
    let lost = [0, 1].map(|site: usize| net.sites[site][0].desk.lost.len());
    assert_eq!(lost, [1, 1], "who breaks is");
}

/// A carrier that its peer ends between two records and with nothing on its way is not lost; in the
/// middle of a record, or with something on its way, it is.
#[test]
fn only_what_ends_in_order_is_not_lost() {
    let ended = |said: &[u8], cut: bool| {
        let mut net = Net::new(25, [1, 1]);
        let bond = net.connect();
        net.run(Span::from_ms(100));
        if !said.is_empty() {
            net.open(bond, said);
        }
        if cut {
            net.bytes_per_step = 10;
        }
        for _ in 0..2 {
            net.step();
        }
        let conn = net.conn_of(1, 0);
        let Shard { agent, desk } = &mut net.sites[1][0];
        agent.ended(net.now, conn, desk);
        desk.lost.len()
    };
    assert_eq!(ended(b"", false), 0);
    assert_eq!(ended(b"of this nothing waits", true), 1, "a record was cut");
    let mut net = Net::new(26, [1, 1]);
    let bond = net.connect();
    let data = bytes(1000, 3);
    net.open(bond, &data);
    net.run_until(Span::from_s(1), |net| net.far_apps().any(|(.., app)| app.read == data));
    let (_, bond, flow, _) = net.far_apps().next().expect("it has come");
    net.silence(|_| true);
    let conn = net.conn_of(1, 0);
    let Shard { agent, desk } = &mut net.sites[1][0];
    agent.push(bond, flow, b"on its way");
    agent.settle(net.now, desk);
    agent.ended(net.now, conn, desk);
    assert_eq!(desk.lost.len(), 1, "something was on its way");
}

#[test]
fn an_idle_session_has_little_to_do() {
    let mut net = Net::new(14, [1, 1]);
    net.connect();
    net.run(Span::from_s(5));
    assert_eq!(net.sites[0][0].agent.wake_at(), None);
    assert_eq!(net.sites[1][0].agent.wake_at(), None);
}

/// Connections die, fall silent, and sites are cut off, at random: what is read is what was
/// written, and once there is peace all of it.
#[test]
fn seeds_of_trouble() {
    for seed in 0..40 {
        let mut net = Net::new(1000 + seed, [1, 1 + (seed % 3) as u8]);
        net.bytes_per_step = 3000 + net.rng.below(50_000) as usize;
        let bond = net.connect();
        let data = bytes(400_000, seed as u8);
        let flow = net.open(bond, &data[..1]);
        let mut at = 1;
        let peace = Moment(net.now.0 + Span::from_s(8).0);
        while net.now < peace {
            pump(&mut net, bond, flow, &data, &mut at);
            net.step();
            let wires = net.wires() as u64;
            if wires > 0 && net.rng.below(150) == 0 {
                let which = net.rng.below(wires) as usize;
                match net.rng.below(3) {
                    0 => net.cut(|at| at == which),
                    1 => net.cut(|_| true),
                    _ => net.silence(|at| at == which),
                }
            }
            let away = net.rng.below(400);
            let desk = &mut net.sites[0][0].desk;
            desk.cut_off = away == 0 || desk.cut_off && away > 10;
        }
        net.sites[0][0].desk.cut_off = false;
        net.run_until(Span::from_s(120), |net| {
            pump(net, bond, flow, &data, &mut at);
            net.far_apps().any(|(.., app)| app.read.len() == data.len())
        });
        assert!(net.far_apps().all(|(.., app)| app.read == data && app.reset.is_none()), "{seed}");
    }
}
