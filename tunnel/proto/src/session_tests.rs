//! Stories of two agents; `tests/swarm.rs` tells them by the thousand.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use super::*;

const MB: usize = 1 << 20;
const START: Moment = Moment(1_000_000_000);

/// What an application heard, in words.
#[derive(Default)]
struct Heard {
    words: Vec<String>,
    bytes: usize,
}

impl Outlet for Heard {
    fn data(&mut self, flow: FlowId, bytes: &[u8]) {
        self.bytes += bytes.len();
        self.words.push(match core::str::from_utf8(bytes) {
            Ok(text) if text.len() < 20 => format!("{}: {text}", flow.0),
            _ => format!("{}: {} bytes", flow.0, bytes.len()),
        });
    }

    fn rekey(&mut self, exchange: Exchange) {
        self.words.push(format!("rekey to {}", exchange.epoch));
    }

    fn keys(&mut self, epoch: u32) {
        self.words.push(format!("keys of {epoch}"));
    }

    fn event(&mut self, event: Event) {
        self.words.push(match event {
            Event::Opened(flow) => format!("{} opened", flow.0),
            Event::Finished(flow) => format!("{} finished", flow.0),
            Event::Writable(flow) => format!("{} writable", flow.0),
            Event::Reset(flow, code) => format!("{} reset: {code:?}", flow.0),
            Event::Closed(flow) => format!("{} closed", flow.0),
            Event::Suspect(slot) => format!("carrier {} suspect", slot.0),
            Event::Recovered(slot) => format!("carrier {} recovered", slot.0),
            Event::Left(slot) => format!("carrier {} left", slot.0),
        });
    }
}

/// Two sessions; records go where and when the story says.
struct Story {
    now: Moment,
    near: Session,
    far: Session,
}

fn settings(role: Role) -> Settings {
    Settings { role, window_first: 64 * 1024, window_budget: 64 << 20, flows_max: 8 }
}

/// Both agents know `carriers` of each other, and have answered each other's first pings.
fn story(carriers: usize) -> Story {
    let [near, far] = [Role::Initiator, Role::Responder].map(|role| Session::new(settings(role)));
    let mut story = Story { now: START, near, far };
    for _ in 0..carriers {
        story.near.carrier_up(story.now);
        story.far.carrier_up(story.now);
    }
    story.settle();
    story
}

fn fill(session: &mut Session, now: Moment, slot: u16, room: usize) -> (Vec<u8>, Heard) {
    let (mut record, mut heard) = (Vec::new(), Heard::default());
    session.fill(now, CarrierSlot(slot), room, &mut record, &mut heard);
    (record, heard)
}

fn takes(session: &mut Session, now: Moment, slot: u16, record: &[u8]) -> Vec<String> {
    let mut heard = Heard::default();
    session.received(now, CarrierSlot(slot), record, &mut heard).expect("both keep the rules");
    heard.words
}

impl Story {
    fn wait(&mut self, ms: u64) {
        self.now = self.now + Span::from_ms(ms);
    }

    /// What the near side puts on a carrier.
    fn near_says(&mut self, slot: u16) -> Vec<u8> {
        fill(&mut self.near, self.now, slot, 60_000).0
    }

    /// What the far side makes of a record.
    fn far_hears(&mut self, slot: u16, record: &[u8]) -> Vec<String> {
        takes(&mut self.far, self.now, slot, record)
    }

    /// Everything there is to say goes both ways by all carriers, until there is nothing.
    fn settle(&mut self) -> Vec<String> {
        let mut words = Vec::new();
        let mut said = true;
        while said {
            said = false;
            for slot in 0..self.near.carriers.len() as u16 {
                let (there, heard) = fill(&mut self.near, self.now, slot, 60_000);
                words.extend(heard.words.into_iter().map(|word| format!("near {word}")));
                let (back, heard) = fill(&mut self.far, self.now, slot, 60_000);
                words.extend(heard.words.into_iter().map(|word| format!("far {word}")));
                said |= !there.is_empty() || !back.is_empty();
                let far = takes(&mut self.far, self.now, slot, &there);
                words.extend(far.into_iter().map(|word| format!("far {word}")));
                let near = takes(&mut self.near, self.now, slot, &back);
                words.extend(near.into_iter().map(|word| format!("near {word}")));
            }
        }
        words
    }
}

#[test]
fn a_flow_from_its_beginning_to_its_end() {
    let mut story = story(1);
    let flow = story.near.open(story.now).expect("few flows");
    assert_eq!(story.near.write(flow, b"question"), 8);
    story.near.finish(flow);
    assert_eq!(story.settle(), ["far 0 opened", "far 0: question", "far 0 finished"]);
    story.far.write(flow, b"answer");
    story.far.finish(flow);
    assert_eq!(
        story.settle(),
        ["near 0: answer", "near 0 finished", "near 0 closed", "far 0 closed"]
    );
    assert!(story.near.is_quiet() && story.far.is_quiet());
}

/// T3: the end overtakes the bytes before it, by another carrier, and waits for them.
#[test]
fn the_end_waits_for_everything_before_it() {
    let mut story = story(2);
    let flow = story.near.open(story.now).expect("few flows");
    story.near.write(flow, b"first, ");
    let slow = story.near_says(0);
    story.near.write(flow, b"last");
    story.near.finish(flow);
    let fast = story.near_says(1);
    assert_eq!(story.far_hears(1, &fast), ["0 opened"]);
    assert_eq!(story.far_hears(0, &slow), ["0: first, ", "0: last", "0 finished"]);
    assert!(story.far_hears(0, &slow).is_empty(), "twice says nothing new");
}

/// X1: what was on a carrier that died goes by the other, and the late original does no harm.
#[test]
fn what_was_on_a_dead_carrier_goes_by_another() {
    let mut story = story(2);
    let flow = story.near.open(story.now).expect("few flows");
    story.near.write(flow, b"precious");
    let lost = story.near_says(0);
    story.near.carrier_down(story.now, CarrierSlot(0));
    let again = story.near_says(1);
    assert_eq!(story.far_hears(1, &again), ["0 opened", "0: precious"]);
    assert!(story.far_hears(0, &lost).is_empty());
}

/// A carrier that says nothing is suspect after a while; what was on it goes by another, and it
/// gets nothing new until it answers.
#[test]
fn a_silent_carrier_is_found_and_forgiven() {
    let mut story = story(2);
    let flow = story.near.open(story.now).expect("few flows");
    story.wait(200);
    story.near.write(flow, b"precious");
    let kept = story.near_says(0);
    story.wait(1500);
    let mut heard = Heard::default();
    story.near.tick(story.now, &mut heard);
    assert_eq!(heard.words, ["carrier 0 suspect"]);
    assert!(story.near_says(0).is_empty());
    let again = story.near_says(1);
    assert_eq!(story.far_hears(1, &again), ["0 opened", "0: precious"]);
    // What was kept arrives after all, and is answered.
    assert!(story.far_hears(0, &kept).is_empty());
    let (answer, _) = fill(&mut story.far, story.now, 0, 60_000);
    assert_eq!(takes(&mut story.near, story.now, 0, &answer), ["carrier 0 recovered"]);
}

/// A piece that crawls on one carrier, while later ones arrive by another, goes again by that one.
#[test]
fn a_crawling_carrier_holds_nobody_up() {
    let mut story = story(2);
    let flow = story.near.open(story.now).expect("few flows");
    story.near.write(flow, b"crawls");
    let _crawling = story.near_says(0);
    story.wait(25);
    story.near.write(flow, b" walks");
    let record = story.near_says(1);
    assert_eq!(story.far_hears(1, &record), ["0 opened"]);
    story.wait(10);
    let (ack, _) = fill(&mut story.far, story.now, 1, 60_000);
    assert!(takes(&mut story.near, story.now, 1, &ack).is_empty());
    assert!(!story.near.wants(story.now, CarrierSlot(0)) || story.near_says(0).is_empty());
    let record = story.near_says(1);
    assert_eq!(story.far_hears(1, &record), ["0: crawls", "0:  walks"]);
}

/// A receiver whose application does not read gets what it gave credit for, and nothing more; the
/// sender's memory is bounded by it, too.
#[test]
fn who_does_not_read_gets_no_more() {
    let mut story = story(1);
    let flow = story.near.open(story.now).expect("few flows");
    let taken = story.near.write(flow, &vec![7; MB]);
    assert_eq!(taken, 128 * 1024, "what the receiver takes, and one block to be ready");
    story.settle();
    let report = story.far.flow(flow).expect("it is open");
    assert_eq!((report.delivered, report.window), (64 * 1024, 64 * 1024));
    let report = story.near.flow(flow).expect("it is open");
    assert!(report.out_of_credit && report.kept == 64 * 1024);
    // It reads all: the sender hears of it, and of a window that has grown.
    story.far.drained(story.now, flow, 0);
    let words = story.settle();
    assert!(words.contains(&"near 0 writable".into()), "{words:?}");
    assert_eq!(story.far.flow(flow).expect("it is open").window, 128 * 1024);
}

/// Windows grow from one budget and no further than an eighth of it, and come back to it.
#[test]
fn windows_come_from_one_budget() {
    let mut story = story(1);
    let flow = story.near.open(story.now).expect("few flows");
    let mut left = 64 * MB;
    while left > 0 {
        left -= story.near.write(flow, &vec![7; left.min(MB)]);
        story.settle();
        story.far.drained(story.now, flow, 0);
        story.settle();
    }
    let window = story.far.flow(flow).expect("it is open").window;
    assert!(window > 4 << 20 && window <= (8 << 20) + 64 * 1024, "{window}");
    assert_eq!(story.far.windows, window - 64 * 1024);
    story.far.reset(flow, ResetCode::Broken);
    assert_eq!(story.far.windows, 0);
}

/// Who has little to say goes before those with much, in the same record.
#[test]
fn chatter_goes_before_bulk() {
    let mut story = story(1);
    let [bulk, chat] = [(), ()].map(|()| story.near.open(story.now).expect("few flows"));
    story.near.write(bulk, &[7; 65_000]);
    story.near.write(chat, b"hello");
    let record = story.near_says(0);
    let words = story.far_hears(0, &record);
    assert_eq!(words[..2], ["2 opened", "2: hello"], "{words:?}");
    assert!(words[3].starts_with("0: "), "{words:?}");
}

/// An agent that was started anew knows nothing of the flow, and says so.
#[test]
fn a_restarted_agent_resets_what_it_does_not_know() {
    let mut story = story(1);
    let flow = story.near.open(story.now).expect("few flows");
    story.near.write(flow, b"question");
    story.settle();
    // It has come far enough to know that this number was used.
    let mut far = Session::new(settings(Role::Responder));
    far.carrier_up(story.now);
    far.opened_there = 1;
    story.far = far;
    story.near.write(flow, b"!");
    let words = story.settle();
    assert_eq!(words, ["near 0 reset: Gone"]);
}

/// Resets that cross end the flow once at each end and are forgotten at both.
#[test]
fn resets_that_cross_end_in_peace() {
    let mut story = story(1);
    let flow = story.near.open(story.now).expect("few flows");
    story.near.write(flow, b"question");
    story.settle();
    story.near.reset(flow, ResetCode::Broken);
    story.far.reset(flow, ResetCode::TimedOut);
    assert!(story.settle().is_empty());
    assert!(story.near.is_quiet() && story.far.is_quiet());
}

#[test]
fn more_flows_than_may_be_are_busy() {
    let mut story = story(1);
    let flows: Vec<_> = (0..8).map(|_| story.near.open(story.now).expect("eight")).collect();
    assert_eq!(story.near.open(story.now), Err(FlowsFull));
    // The other side allows eight, too, and has one of its own.
    story.far.open(story.now).expect("the first");
    flows.iter().for_each(|flow| assert_eq!(story.near.write(*flow, b"x"), 1));
    let words = story.settle();
    assert_eq!(words.iter().filter(|word| word.ends_with("opened")).count(), 7);
    assert!(words.contains(&"near 14 reset: Busy".into()), "{words:?}");
}

/// What cannot be is told apart from what is merely late.
#[test]
fn what_cannot_be_ends_the_session() {
    let hears = |frame: Frame<'_>| {
        let mut story = story(1);
        let flow = story.near.open(story.now).expect("few flows");
        story.near.write(flow, b"question");
        story.settle();
        let mut record = Vec::new();
        frame.write(&mut record);
        story.far.received(story.now, CarrierSlot(0), &record, &mut Heard::default())
    };
    let stream = |flow, offset, fin| Frame::Stream { flow: FlowId(flow), offset, bytes: b"x", fin };
    let ack = |flow: u64, below: u64| {
        let mut out = Vec::new();
        write_ack(&mut out, FlowId(flow), (below, 0), core::iter::empty());
        out
    };
    assert_eq!(hears(stream(0, 8, true)), Ok(()));
    assert_eq!(hears(stream(0, 65_536, false)), Err(Violation::Overrun(FlowId(0))));
    assert_eq!(hears(stream(0, 3, true)), Err(Violation::Overrun(FlowId(0))), "it cuts bytes off");
    assert_eq!(hears(stream(1, 0, false)), Err(Violation::FlowFromNowhere(FlowId(1))));
    assert_eq!(hears(stream(1 << 40, 0, false)), Err(Violation::FlowFromNowhere(FlowId(1 << 40))));
    let hears = |record: &[u8]| {
        let mut far = Session::new(settings(Role::Responder));
        far.carrier_up(START);
        far.received(START, CarrierSlot(0), record, &mut Heard::default())
    };
    assert_eq!(hears(&ack(0, 1)), Err(Violation::AckOfNothing(FlowId(0))));
    assert_eq!(hears(&[0x40, 0]), Err(Violation::Malformed));
}

/// A stream that comes in crumbs, every other one missing, costs no more than its window allows;
/// once the others come, and what was not kept comes again, it is whole.
#[test]
fn crumbs_that_come_early_are_bounded() {
    let mut far = Session::new(settings(Role::Responder));
    far.carrier_up(START);
    let mut heard = Heard::default();
    let mut crumb = |far: &mut Session, offset: u64| {
        let mut record = Vec::new();
        Frame::Stream { flow: FlowId(0), offset, bytes: b"x", fin: false }.write(&mut record);
        far.received(START, CarrierSlot(0), &record, &mut heard).expect("it is within the credit");
        heard.bytes
    };
    for offset in (1..60_000).step_by(2) {
        crumb(&mut far, offset);
    }
    let early = far.flow(FlowId(0)).expect("it is open").early;
    assert_eq!(early, 1024 + 64);
    let delivered = (0..60_000).map(|offset| crumb(&mut far, offset)).last();
    assert_eq!(delivered, Some(60_000));
}

/// Who opens flow after flow and never answers that they are reset does not listen.
#[test]
fn resets_that_nobody_answers_have_a_bound() {
    let mut far = Session::new(settings(Role::Responder));
    far.carrier_up(START);
    let opened = |far: &mut Session, number: u64| {
        let mut record = Vec::new();
        let flow = FlowId(2 * number);
        Frame::Stream { flow, offset: 0, bytes: b"x", fin: false }.write(&mut record);
        let mut heard = Heard::default();
        let result = far.received(START, CarrierSlot(0), &record, &mut heard);
        far.reset(flow, ResetCode::Denied);
        result
    };
    let most = 2 * 8 + RESETS_UNHEARD_MAX as u64;
    for number in 0..most {
        assert_eq!(opened(&mut far, number), Ok(()), "{number}");
    }
    assert_eq!(opened(&mut far, most), Err(Violation::ResetsUnheard));
    // The same with somebody who listens goes on for ever.
    let mut far = Session::new(settings(Role::Responder));
    far.carrier_up(START);
    for number in 0..2 * most {
        assert_eq!(opened(&mut far, number), Ok(()), "{number}");
        let mut record = Vec::new();
        Frame::Done { flow: FlowId(2 * number) }.write(&mut record);
        let heard = far.received(START, CarrierSlot(0), &record, &mut Heard::default());
        assert_eq!(heard, Ok(()));
    }
}
