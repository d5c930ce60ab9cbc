//! Stories of packets on their way, and all orders in which they may come.

use alloc::collections::BTreeMap;

use proptest::prelude::*;

use super::super::arrivals::Arrivals;
use super::*;

const MS: u64 = 1_000_000;

/// A flight and the arrivals at its other end; every packet takes 50 ms unless said otherwise.
#[derive(Default)]
struct Story {
    flight: Flight<u64>,
    arrivals: Arrivals,
    fates: BTreeMap<u64, Vec<Fate>>,
}

impl Story {
    fn send(&mut self, at_ms: u64) -> u64 {
        let number = self.flight.next();
        self.flight.send(Moment(at_ms * MS), 1000, true, number)
    }

    fn arrives(&mut self, at_ms: u64, number: u64) -> &mut Self {
        self.arrivals.note(Moment(at_ms * MS), number, 1000, true);
        self
    }

    /// Reports that are made at one moment are heard at another.
    fn report(&mut self, made_ms: u64, heard_ms: u64) -> Option<Heard> {
        let (flight, fates) = (&mut self.flight, &mut self.fates);
        let mut heard = None;
        self.arrivals.report(Moment(made_ms * MS), 1200, |body| {
            let report = Report::read(body).unwrap();
            let each = |carried: &u64, fate| fates.entry(*carried).or_default().push(fate);
            heard = flight.heard(Moment(heard_ms * MS), &report, each).unwrap();
        });
        heard
    }

    fn fate(&self, number: u64) -> &[Fate] {
        self.fates.get(&number).map_or(&[], Vec::as_slice)
    }
}

/// A datagram is counted by the shortest path that passes it, whatever is around it.
#[test]
fn lengths_are_those_of_datagrams() {
    for (place, mtu) in MTUS.into_iter().enumerate() {
        let bytes = datagram_bytes_max(mtu) as u32;
        assert_eq!(place_of(bytes), place);
        assert_eq!(place_of(bytes + 1), (place + 1).min(MTUS.len() - 1));
    }
    let mut story = Story::default();
    story.flight.count_lengths(Some(28));
    let whole = story.flight.send(Moment(0), 1420 + 28, true, 0);
    story.arrives(50, whole).report(60, 110);
    assert_eq!(story.flight.take_lengths().came[4], 1);
    assert_eq!(story.flight.take_lengths(), Lengths::default());
}

#[test]
fn a_packet_is_lost_when_one_sent_later_has_arrived() {
    let mut story = Story::default();
    for at in 0..20 {
        story.send(at);
    }
    for number in (0..20).filter(|number| *number != 3) {
        story.arrives(50 + number, number);
    }
    let heard = story.report(70, 120).expect("it says something");
    assert_eq!(heard.rtt, Some(Span::from_ms(100)), "50 there, 50 back, 1 held");
    assert_eq!(story.fate(3), [Fate::Lost]);
    assert_eq!(story.fate(4), [Fate::Arrived]);
    assert_eq!(story.flight.flying(), 0);
    assert!(story.flight.last_asked().is_none(), "all is settled");
}

/// One that others have just overtaken may still come; it is given time, and more of it when it was
/// given up too early.
#[test]
fn who_is_overtaken_gets_time() {
    let mut story = Story::default();
    for at in 0..40 {
        story.send(at);
    }
    for number in 0..=10 {
        story.arrives(50 + number, number);
    }
    story.arrives(61, 12);
    story.report(62, 112);
    assert_eq!(story.fate(11), [], "sent 1 ms before the newest");
    for number in 13..=38 {
        story.arrives(50 + number, number);
    }
    story.report(90, 140);
    assert_eq!(story.fate(11), [Fate::Lost]);
    let before = story.flight.reorder();
    story.arrives(91, 11).arrives(92, 39);
    story.report(95, 145);
    assert_eq!(story.fate(11), [Fate::Lost, Fate::Late]);
    assert!(story.flight.reorder() >= Span::from_ms(28) && before < Span::from_ms(13));
    assert_eq!(story.flight.flying(), 0, "counted once");
}

/// Reports that are lost lose nothing: a later one says it all.
#[test]
fn lost_reports_lose_nothing() {
    let mut story = Story::default();
    for at in 0..300 {
        story.send(at);
    }
    for number in 0..300 {
        if number % 3 != 0 {
            story.arrives(50 + number, number);
        }
        if number < 290 {
            // Nobody hears these.
            story.arrivals.report(Moment((50 + number) * MS), 1200, |_| {});
        }
    }
    for at in 0..4 {
        story.report(400 + at * 30, 450 + at * 30);
        story.arrives(405 + at * 30, 299);
    }
    for number in 0..280 {
        let fate = if number % 3 == 0 { Fate::Lost } else { Fate::Arrived };
        assert_eq!(story.fate(number), [fate], "{number}");
    }
}

#[test]
fn a_report_of_what_was_never_sent_is_refused() {
    let mut story = Story::default();
    story.send(0);
    story.arrives(50, 1);
    story.arrivals.report(Moment(60 * MS), 1200, |body| {
        let report = Report::read(body).unwrap();
        let heard = story.flight.heard(Moment(100 * MS), &report, |_, _| panic!("not looked at"));
        assert!(matches!(heard, Err(Violation::ReportOfNothing)));
    });
}

/// A pause that looked like silence: what was given up in it comes all the same, and is heard for
/// two round trips, though reports on newer packets come first.
#[test]
fn what_was_given_up_unheard_is_heard_late() {
    let mut story = Story::default();
    for at in 0..100 {
        story.send(at);
    }
    story.arrives(60, 0);
    story.report(61, 110);
    story.flight.lose_all(|_| {});
    for round in 0..6 {
        let number = story.send(111 + 12 * round);
        story.arrives(112 + 12 * round, number);
        story.report(113 + 12 * round, 115 + 12 * round);
        let floor = story.flight.floor();
        story.arrivals.wanted(floor, Span::from_ms(1));
    }
    for number in 1..100 {
        story.arrives(180, number);
    }
    for turn in 0..3 {
        story.report(181 + 2 * turn, 182 + 2 * turn);
        let number = story.send(183 + 2 * turn);
        story.arrives(183 + 2 * turn, number);
    }
    assert!(
        (1..100).all(|number| story.fate(number).last() == Some(&Fate::Late)),
        "{:?}",
        story.fates
    );
    // And not for ever: nobody asks for those any more.
    for at in 0..8 {
        let number = story.send(500 + 20 * at);
        story.arrives(501 + 20 * at, number);
        story.report(502 + 20 * at, 503 + 20 * at);
    }
    assert!(story.flight.floor() > 100);
}

/// The ring grows while its oldest word is half settled: a report whose newest number is in that
/// word finds when that packet was sent.
#[test]
fn a_ring_that_grows_keeps_the_oldest_word() {
    let mut story = Story::default();
    for at in 0..40 {
        story.send(1000 + at);
    }
    for number in 0..39 {
        story.arrives(1050 + number, number);
    }
    // Heard late, behind what is sent meanwhile; all up to here is settled, and more is sent.
    let mut early = Vec::new();
    story.arrivals.report(Moment(1100 * MS), 1200, |body| early.push(body.to_vec()));
    story.flight.lose_all(|_| {});
    (story.flight.floor, story.flight.floor_next) = (40, 40);
    for at in 0..300 {
        story.send(1150 + at / 4);
    }
    let report = Report::read(&early[0]).unwrap();
    let heard = story.flight.heard(Moment(1250 * MS), &report, |_, _| {}).unwrap();
    let heard = heard.expect("its word is there");
    assert_eq!(heard.newest_at, Moment(1038 * MS));
    assert!(heard.rtt.is_some_and(|rtt| rtt < Span::from_ms(250)), "{:?}", heard.rtt);
}

proptest! {
    /// Whatever is lost, doubled or reordered, both ways: every packet that came is found in the
    /// end, none that did not is, and each is counted once (F1).
    #[test]
    fn all_that_came_is_found(
        packets in prop::collection::vec((any::<bool>(), 0..30_u64), 1..400),
        heard in prop::collection::vec(any::<bool>(), 500),
    ) {
        let mut story = Story::default();
        let mut arriving: Vec<(u64, u64)> = Vec::new();
        for (at, (arrives, jitter)) in packets.iter().enumerate() {
            let number = story.send(at as u64);
            if *arrives {
                arriving.push((50 + at as u64 + jitter, number));
            }
        }
        arriving.sort_unstable();
        let mut came = arriving.iter().peekable();
        let mut heard = heard.into_iter();
        for now in 50..packets.len() as u64 + 400 {
            while let Some((_, number)) = came.next_if(|(at, _)| *at <= now) {
                story.arrives(now, *number);
            }
            if now % 5 == 0 {
                if heard.next().unwrap_or(true) {
                    story.report(now, now + 50);
                    let base = story.flight.floor();
                    story.arrivals.wanted(base, Span::from_ms(1));
                } else {
                    story.arrivals.report(Moment(now * MS), 1200, |_| {});
                }
            }
        }
        // What is heard last covers all: something comes that makes the receiver speak.
        for at in 0..40 {
            let number = story.send(packets.len() as u64 + 500 + at * 30);
            story.arrives(packets.len() as u64 + 550 + at * 30, number);
            let said = packets.len() as u64 + 551 + at * 30;
            story.report(said, said + 49);
        }
        for (number, (arrives, _)) in packets.iter().enumerate() {
            let fates = story.fate(number as u64);
            if *arrives {
                prop_assert!(
                    matches!(fates, [Fate::Arrived] | [Fate::Lost] | [Fate::Lost, Fate::Late]),
                    "{number}: {fates:?}"
                );
            } else {
                prop_assert_eq!(fates, [Fate::Lost]);
            }
        }
        prop_assert_eq!(story.flight.flying(), 0);
        prop_assert!(story.flight.last_asked().is_none(), "all is settled");
    }
}
