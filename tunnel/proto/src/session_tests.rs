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

    fn datagram(&mut self, channel: u64, bytes: &[u8]) {
        self.words.push(format!("datagram of {channel}: {} bytes", bytes.len()));
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
    Settings { role, window_first: 64 * 1024, memory: 64 << 20, flows_max: 8 }
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

/// A session with `memory` bytes, one carrier and many flows.
fn roomy(memory: u64) -> Story {
    let mut story = story(1);
    let settings = |role| Settings { memory, flows_max: 1000, ..settings(role) };
    story.near = Session::new(settings(Role::Initiator));
    story.far = Session::new(settings(Role::Responder));
    story.near.carrier_up(story.now);
    story.far.carrier_up(story.now);
    story.settle();
    story
}

impl Story {
    /// So many bytes go through a flow to an application that reads; its window after that.
    fn sends(&mut self, flow: FlowId, mut left: usize) -> u64 {
        while left > 0 {
            left -= self.near.write(flow, &vec![7; left.min(MB)]);
            self.settle();
            self.far.drained(self.now, flow, 0);
            self.settle();
        }
        self.far.flow(flow).expect("it is open").window
    }
}

/// A flow alone has nearly half of the memory; when it is over, all of it is back.
#[test]
fn a_flow_alone_has_nearly_half_of_the_memory() {
    let mut story = roomy(64 << 20);
    let flow = story.near.open(story.now).expect("few flows");
    let window = story.sends(flow, 256 * MB);
    assert!((28 << 20..32 << 20).contains(&window), "{window}");
    assert_eq!(story.far.account.held.windows, window - 64 * 1024);
    story.far.reset(flow, ResetCode::Broken);
    assert_eq!(story.far.account.held, Held::default());
}

/// A hundred flows have grown and say nothing any more: they leave what there is to who does. One
/// of them that comes back has its credit, and counts.
#[test]
fn idle_flows_leave_their_windows_to_others() {
    let mut story = roomy(64 << 20);
    let idle: Vec<_> = (0..100).map(|_| story.near.open(story.now).expect("few")).collect();
    for flow in &idle {
        story.sends(*flow, 8 * MB);
        story.wait(100);
    }
    let busy = story.near.open(story.now).expect("few");
    let beside = story.sends(busy, 64 * MB);
    story.wait(2_000);
    let alone = story.sends(busy, 64 * MB);
    assert!(alone > 28 << 20 && beside < alone, "{beside}, then {alone}");
    assert_eq!(story.far.account.held.windows, alone - 64 * 1024, "nobody else counts");
    // There is one entry for each that was in use, and no more.
    assert!(story.far.in_use.len() <= 1, "{}", story.far.in_use.len());
    let before = story.far.flow(idle[99]).expect("it is open").window;
    story.sends(idle[99], 1);
    assert_eq!(story.far.account.held.windows, alone + before - 2 * 64 * 1024);
}

/// Others come: the first one's window shrinks as it is used, until all have about as much, and
/// what is promised never exceeds what there is.
#[test]
fn windows_shrink_where_others_want_room() {
    let mut story = roomy(64 << 20);
    let flows: Vec<_> = (0..4).map(|_| story.near.open(story.now).expect("few")).collect();
    let alone = story.sends(flows[0], 256 * MB);
    for round in 0..60 {
        story.wait(10);
        for flow in &flows {
            story.sends(*flow, 16 * MB);
        }
        let windows = story.far.account.held.windows;
        assert!(windows <= 64 << 20, "{windows} in round {round}");
    }
    let windows: Vec<_> =
        flows.iter().map(|flow| story.far.flow(*flow).expect("it is open").window).collect();
    let (least, most) =
        (*windows.iter().min().expect("four"), *windows.iter().max().expect("four"));
    assert!(most < alone / 2 && most < 2 * least, "{alone}, then {windows:?}");
    assert!(windows.iter().sum::<u64>() > 24 << 20, "{windows:?}");
}

/// Applications do not read, and the flows' credit is more than there is room for: what is too much
/// is refused and stays with its sender. A flow whose application reads goes on beside them, and
/// when they read again, all comes.
#[test]
fn what_there_is_no_room_for_is_refused_and_comes_again() {
    let mut story = roomy(2 << 20);
    let lazy: Vec<_> = (0..8).map(|_| story.near.open(story.now).expect("few")).collect();
    for flow in &lazy {
        story.sends(*flow, 4 * MB);
        story.wait(2_000);
    }
    let promised: u64 =
        lazy.iter().map(|flow| story.far.flow(*flow).expect("it is open").window).sum();
    assert!(promised > 4 << 20, "{promised}: more than there is");
    let written: Vec<_> =
        lazy.iter().map(|flow| story.near.write(*flow, &[7; MB]) as u64).collect();
    story.settle();
    assert!(story.far.account.held.bytes <= 2 << 20, "{:?}", story.far.account.held);
    let taken = |story: &Story, flow| story.far.flow(flow).expect("it is open").delivered;
    let kept = |story: &Story, flow| story.near.flow(flow).expect("it is open").kept;
    assert!(lazy.iter().any(|flow| kept(&story, *flow) > 64 * 1024), "nothing was refused");
    let reads = story.near.open(story.now).expect("few");
    for _ in 0..100 {
        story.near.write(reads, &[7; 16 * 1024]);
        story.settle();
        story.far.drained(story.now, reads, 0);
        story.settle();
    }
    assert_eq!(taken(&story, reads), 100 * 16 * 1024, "it is not held up");
    // What was refused is not on its way: it takes nobody's place there.
    let on_its_way = |story: &Story| story.near.carrier(CarrierSlot(0)).expect("it is up").flying;
    assert!(on_its_way(&story) > 256 * 1024, "{}", on_its_way(&story));
    story.wait(1_100);
    story.near.tick(story.now, &mut Heard::default());
    story.settle();
    // Little of each goes again at first. Of what there is room for the word comes at once, and
    // twice as much goes then (W4 in `send.rs`).
    assert!(on_its_way(&story) <= 8 * 3 * 4096, "{}", on_its_way(&story));
    for _ in 0..8 {
        story.wait(1_100);
        story.near.tick(story.now, &mut Heard::default());
        lazy.iter().for_each(|flow| story.far.drained(story.now, *flow, 0));
        story.settle();
    }
    for (flow, written) in lazy.iter().zip(written) {
        assert_eq!(taken(&story, *flow), 4 * MB as u64 + written);
    }
}

/// A receiver promises to take everything and acknowledges nothing: it is written to for as long as
/// there is room, and others still are. What it acknowledges makes room again.
#[test]
fn who_acknowledges_nothing_is_written_to_no_more() {
    let mut story = roomy(2 << 20);
    let promises = |flow: FlowId, below: u64| {
        let mut record = Vec::new();
        write_ack(&mut record, flow, (below, 1 << 40), core::iter::empty());
        record
    };
    let flows: Vec<_> = (0..20).map(|_| story.near.open(story.now).expect("few")).collect();
    let mut written = vec![0; flows.len()];
    for _ in 0..100 {
        for (flow, written) in flows.iter().zip(&mut written) {
            *written += story.near.write(*flow, &[7; 32 * 1024]) as u64;
            drop(story.near_says(0));
            assert!(takes(&mut story.near, story.now, 0, &promises(*flow, 0)).is_empty());
        }
    }
    let kept = story.near.account.held.kept;
    assert_eq!(kept, written.iter().sum::<u64>());
    assert!((1 << 20..5 << 19).contains(&kept), "{kept}");
    assert!(written.iter().all(|one| *one >= 64 * 1024), "{written:?}");
    for (flow, written) in flows.iter().zip(written) {
        let heard = takes(&mut story.near, story.now, 0, &promises(*flow, written));
        assert_eq!(heard, [format!("{} writable", flow.0)]);
    }
    assert_eq!(story.near.account.held.kept, 0);
}

/// All the room is with early pieces that wait for one byte. It comes in, and what waited for it is
/// let go of.
#[test]
fn what_all_waits_for_comes_in() {
    let mut far =
        Session::new(Settings { memory: 1 << 20, flows_max: 100, ..settings(Role::Responder) });
    far.carrier_up(START);
    let mut heard = Heard::default();
    let mut piece = |far: &mut Session, flow: u64, offset: u64, len: usize| {
        let (mut record, bytes) = (Vec::new(), vec![7; len]);
        Frame::Stream { flow: FlowId(2 * flow), offset, bytes: &bytes, fin: false }
            .write(&mut record);
        far.received(START, CarrierSlot(0), &record, &mut heard).expect("it is within the credit");
        heard.bytes
    };
    for flow in 0..60 {
        piece(&mut far, flow, 1, 60_000);
    }
    let held = far.account.held.bytes;
    assert!((512 << 10..896 << 10).contains(&held), "{held}");
    let kept = (0..60).filter(|flow| far.flow(FlowId(2 * flow)).is_some_and(|one| one.early > 0));
    let kept: Vec<u64> = kept.collect();
    assert!(kept.len() < 20, "{kept:?}");
    for flow in &kept {
        let before = piece(&mut far, *flow, 1, 0);
        assert_eq!(piece(&mut far, *flow, 0, 1) - before, 60_001);
        far.drained(START, FlowId(2 * flow), 0);
    }
    assert_eq!(far.account.held.bytes, 0);
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

/// Who has much to say fills some records in a row before the next one does, and each has its turn.
#[test]
fn bulk_takes_turns_of_some_records() {
    let mut story = story(1);
    let flows = [(); 3].map(|()| story.near.open(story.now).expect("few flows"));
    for flow in flows {
        story.near.write(flow, &[7; 60_000]);
    }
    let mut turns: Vec<(String, u32)> = Vec::new();
    for _ in 0..24 {
        let (record, _) = fill(&mut story.near, story.now, 0, 1100);
        for word in story.far_hears(0, &record).iter().filter(|word| word.ends_with("bytes")) {
            let flow = word.split(':').next().expect("it begins with a flow");
            match turns.last_mut() {
                Some((last, records)) if last == flow => *records += 1,
                _ => turns.push((flow.into(), 1)),
            }
        }
    }
    let turn = |flow: &FlowId| (format!("{}", flow.0), TURN_RECORDS);
    let twice: Vec<_> = flows.iter().chain(&flows).map(turn).collect();
    assert_eq!(turns, twice);
}

/// What many bring together is acknowledged as soon as what one brings, though it is little of
/// each.
#[test]
fn what_many_bring_is_acknowledged_at_once() {
    let mut story = roomy(64 << 20);
    let little = 15_000;
    let enough = ACK_BYTES_ALL.div_ceil(little);
    for sent in 1..=enough {
        let flow = story.near.open(story.now).expect("few");
        story.near.write(flow, &vec![7; little as usize]);
        let record = story.near_says(0);
        story.far_hears(0, &record);
        assert_eq!(story.far.has_little(story.now), sent == enough, "after {sent} of {enough}");
    }
    let (record, _) = fill(&mut story.far, story.now, 0, 60_000);
    takes(&mut story.near, story.now, 0, &record);
    assert_eq!(story.near.carrier(CarrierSlot(0)).expect("it is up").flying, 0, "of all of them");
    assert!(!story.far.has_little(story.now));
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

/// A peer begins and ends flows without end and reads nothing: what is remembered of them does not
/// grow.
#[test]
fn flows_that_are_over_leave_nothing_in_queues() {
    let mut far = Session::new(settings(Role::Responder));
    let slot = far.carrier_up(START);
    for number in 0..20_000_u64 {
        let (flow, mut text) = (FlowId(2 * number), Vec::new());
        Frame::Stream { flow, offset: 0, bytes: b"x", fin: false }.write(&mut text);
        Frame::Reset { flow, code: ResetCode::Broken }.write(&mut text);
        far.received(START, slot, &text, &mut Heard::default()).unwrap();
    }
    assert_eq!(far.flow_count(), 0);
    assert!(far.acks.len() <= 2048, "{}", far.acks.len());
    // Flows of ours that it resets as soon as they have something to send.
    for number in 0..20_000_u64 {
        let flow = far.open(START).unwrap();
        far.write(flow, &[1; 100]);
        let mut text = Vec::new();
        Frame::Reset { flow, code: ResetCode::Broken }.write(&mut text);
        far.received(START, slot, &text, &mut Heard::default()).unwrap();
        let stands = far.ready[0].len() + far.watched.len() + far.in_use.len();
        assert!(stands <= 8192, "{stands} after {number}");
    }
}

/// Many flows are refused and nobody answers that: to say one more reset looks at one.
#[test]
fn a_reset_does_not_look_at_all_others() {
    let mut far = Session::new(Settings { flows_max: 2000, ..settings(Role::Responder) });
    let slot = far.carrier_up(START);
    let begin = |far: &mut Session, number: u64| {
        let (flow, mut text) = (FlowId(2 * number), Vec::new());
        Frame::Stream { flow, offset: 0, bytes: b"x", fin: false }.write(&mut text);
        far.received(START, slot, &text, &mut Heard::default()).unwrap();
    };
    (0..4000).for_each(|number| begin(&mut far, number));
    let mut said = Vec::new();
    while far.wants_any(START) {
        said.clear();
        far.fill(START, slot, 60_000, &mut said, &mut Heard::default());
    }
    assert_eq!((far.resetting.len(), far.resets_unsent.len()), (2000, 0));
    for _ in 0..5000 {
        begin(&mut far, 3999);
    }
    assert_eq!(far.resets_unsent.len(), 1, "asked often, it is said once");
    assert!(far.watched.len() <= 4000 + STALE, "{}", far.watched.len());
}

/// What `sweep_queues` lets stand.
const STALE: usize = 1024;

/// What nobody heard of for long goes by whatever carrier asks: perhaps no other one does.
#[test]
fn what_nobody_hears_of_goes_by_whoever_asks() {
    let mut near = Session::new(settings(Role::Initiator));
    let slots = [near.carrier_up(START), near.carrier_up(START)];
    let flow = near.open(START).unwrap();
    assert_eq!(near.write(flow, &[7; 40_000]), 40_000);
    let mut text = Vec::new();
    near.fill(START, slots[0], 60_000, &mut text, &mut Heard::default());
    assert!(text.len() > 40_000);
    // The carrier lives, and nobody says a word of what went by it.
    let later = START + Span::from_ms(1100);
    let mut lives = Vec::new();
    Frame::Ping { token: 1 }.write(&mut lives);
    near.received(later, slots[0], &lives, &mut Heard::default()).unwrap();
    near.tick(later, &mut Heard::default());
    let mut again = Vec::new();
    near.fill(later, slots[0], 60_000, &mut again, &mut Heard::default());
    assert!(again.len() > 1000, "{} bytes by the only one that asks", again.len());
}

/// Datagrams pass by streams, those first whose time is over first; what is too late is not sent,
/// and what was on a carrier that dies is not sent again.
#[test]
fn datagrams_are_sent_in_time_or_not_at_all() {
    let mut story = story(2);
    let flow = story.near.open(story.now).expect("few flows");
    story.near.write(flow, &[1; 60_000]);
    let at = |story: &Story, ms| story.now + Span::from_ms(ms);
    for (channel, ms) in [(1, 50), (2, 10), (3, 5), (4, 10)] {
        let deadline = at(&story, ms);
        story.near.send_datagram(story.now, channel, &[7; 100], deadline).expect("there is room");
    }
    story.wait(5);
    let record = story.near_says(0);
    assert_eq!(
        story.far_hears(0, &record)[..3],
        ["datagram of 2: 100 bytes", "datagram of 4: 100 bytes", "datagram of 1: 100 bytes"]
    );
    let deadline = at(&story, 10);
    story.near.send_datagram(story.now, 9, b"gone", deadline).expect("there is room");
    story.near_says(0);
    story.near.carrier_down(story.now, CarrierSlot(0));
    story.far.carrier_down(story.now, CarrierSlot(0));
    let words = story.settle();
    assert!(!words.iter().any(|word| word.contains("datagram")), "{words:?}");
    assert!(words.iter().any(|word| word.starts_with("far 0: ")), "its stream goes again");
    let report = story.near.datagrams();
    assert_eq!((report.sent, report.late, report.refused, report.waiting), (4, 1, 0, 0));
    assert_eq!(story.far.datagrams().came, 3);
}

/// What waits is bounded: where there is no room the new one is refused, unless others are late.
#[test]
fn datagrams_that_wait_are_bounded() {
    let mut story = story(0);
    let (now, near) = (story.now, &mut story.near);
    let (soon, later) = (now + Span::from_ms(1), now + Span::from_s(1));
    assert_eq!(
        near.send_datagram(now, 0, &[0; DATAGRAM_TEXT_MAX + 1], later),
        Err(DatagramRefused::TooLong)
    );
    assert_eq!(near.send_datagram(now, 0, b"", now), Err(DatagramRefused::Late));
    let full = std::iter::repeat_with(|| near.send_datagram(now, 0, &[0; DATAGRAM_TEXT_MAX], soon));
    let fit = full.take_while(Result::is_ok).count();
    assert_eq!(fit, (1 << 20) / DATAGRAM_TEXT_MAX);
    assert_eq!(near.send_datagram(now, 0, &[0; 900], later), Err(DatagramRefused::Full));
    assert!(near.wants_any(now) && !near.wants_any(soon), "nothing is worth sending any more");
    assert_eq!(near.send_datagram(soon, 0, &[0; 900], later), Ok(()));
    let many = std::iter::repeat_with(|| near.send_datagram(soon, 0, b"", later));
    assert_eq!(1 + many.take_while(Result::is_ok).count(), 4096);
    let report = near.datagrams();
    assert_eq!((report.late, report.waiting), (fit as u64, 4096));
}

/// A packet has room for the longest, and what is lost with it is not said again.
#[test]
fn datagrams_fit_into_packets() {
    let [mut near, mut far] = [Role::Initiator, Role::Responder].map(|role| {
        let mut session = Session::new(settings(role));
        let slot = session.packets_on_trial(START, 1200, 60);
        session.carriers[usize::from(slot.0)].heard(START);
        session
    });
    let (slot, mut now) = (CarrierSlot(0), START);
    let deadline = START + Span::from_s(9);
    for _ in 0..2 {
        let text = [3; DATAGRAM_TEXT_MAX];
        near.send_datagram(now, 1 << 40, &text, deadline).expect("there is room");
    }
    let mut came = Vec::new();
    for _ in 0..200 {
        now = now + Span::from_ms(10);
        for from_near in [true, false] {
            let (from, to) = if from_near { (&mut near, &mut far) } else { (&mut far, &mut near) };
            let mut heard = Heard::default();
            while from.wants_packet(now, slot) {
                let mut text = Vec::new();
                let out = (&mut text, &mut heard);
                let Some(number) = from.fill_packet(now, slot, 1024, out) else { break };
                // The first packet is lost.
                if number > 0 || !from_near {
                    let mut heard = Heard::default();
                    let packet = (number, text.len() as u64 + 60);
                    to.packet(now, slot, packet, &text, &mut heard).expect("both keep the rules");
                    came.extend(heard.words);
                }
            }
        }
    }
    assert_eq!(near.datagrams().sent, 2);
    assert_eq!(came, ["datagram of 1099511627776: 995 bytes"]);
}

/// What is soon too late does not wait until a window of what was lost has gone again.
#[test]
fn what_was_lost_does_not_hold_up_datagrams() {
    let [mut near, mut far] = [Role::Initiator, Role::Responder].map(|role| {
        let mut session = Session::new(settings(role));
        let slot = session.packets_on_trial(START, 1200, 60);
        session.carriers[usize::from(slot.0)].heard(START);
        session
    });
    let slot = CarrierSlot(0);
    let flow = near.open(START).expect("there is room");
    near.write(flow, &[1; 12_000]);
    let fill = |session: &mut Session, now: Moment| {
        let (mut text, mut heard) = (Vec::new(), Heard::default());
        let number = session.fill_packet(now, slot, 1024, (&mut text, &mut heard))?;
        Some((number, text.len() as u64 + 60, text))
    };
    // The last of a dozen comes, and nothing before it.
    let mut now = START;
    let train = core::iter::from_fn(|| {
        now = now + Span::from_ms(5);
        fill(&mut near, now)
    });
    let sent: Vec<_> = train.collect();
    let (number, bytes, text) = sent.last().expect("there was much");
    let later = now + Span::from_ms(50);
    far.packet(later, slot, (*number, *bytes), text, &mut Heard::default()).expect("it is ours");
    let report = fill(&mut far, later + Span::from_ms(20)).expect("it has something to say");
    let mut now = later + Span::from_ms(70);
    let packet = (report.0, report.1);
    near.packet(now, slot, packet, &report.2, &mut Heard::default()).expect("it is theirs");
    // The first one that leaves has a report, and room for control frames; the others have not.
    fill(&mut near, now).expect("it has much to say again");
    near.send_datagram(now, 9, &[2; 400], now + Span::from_ms(2)).expect("there is room");
    let mut came = Heard::default();
    while let Some((number, bytes, text)) = fill(&mut near, now).filter(|_| came.words.is_empty()) {
        far.packet(now, slot, (number, bytes), &text, &mut came).expect("it is ours");
        now = now + Span::from_ms(1);
    }
    assert!(came.words.iter().any(|word| word == "datagram of 9: 400 bytes"), "{:?}", came.words);
}
