//! A session that has a carrier of packets, before a peer that says anything whatever by it.
//!
//! The oracles: packets are numbered without gaps, no longer than they may be, and made of frames;
//! what they say of a stream is what was written there, however often it goes again; a report of
//! what was never sent is refused, and no report frees a byte: only a flow's own words do; what is
//! held of what comes is bounded; in the end, whatever was heard, it speaks again.

use ringway_core::{Moment, Span};
use ringway_tunnel_proto::limits::{DATAGRAM_BYTES_MAX, DATAGRAM_BYTES_MIN};
use ringway_tunnel_proto::path::Report;
use ringway_tunnel_proto::{
    CarrierSlot, Exchange, FlowId, Frame, Frames, ResetCode, Role, Session, Settings,
};

use super::tunnel::Ear;
use crate::Target;

/// What happens, one after the other: an act, a length, and so many bytes for it.
pub const PACKETS: Target = Target {
    name: "tunnel_packets",
    run: packets,
    seeds: packets_seeds,
    words: &[],
    bytes_max: 4096,
};

/// The peer says this in a packet: the first byte says how many numbers did not come before it.
const PACKET: u8 = 0;
/// The peer reports, near the truth or not, and says the rest behind it.
const REPORT: u8 = 1;
/// So many packets leave, at most.
const SEND: u8 = 2;
/// So many milliseconds pass, or powers of two of nanoseconds.
const TIME: u8 = 3;
/// The application does something with its flow.
const APPLICATION: u8 = 4;
/// Something becomes of the path.
const PATH: u8 = 5;
/// The peer says this in a record of another carrier.
const RECORD: u8 = 6;
const ACTS: u8 = 7;

const WINDOW: u64 = 4096;
/// Bytes on the path around a datagram, and around its text; and what is sealed of a datagram.
const HEADS: u32 = 28;
const AROUND: u32 = 60;
const SEALED: usize = 32;
/// What packets bring of streams is held within this: seven eighths of the memory, and what
/// applications take at least.
const HELD_MAX: u64 = 7 * WINDOW + (64 << 10);

/// The flow that this side opens.
const MINE: FlowId = FlowId(1);

/// What stands at a place of its stream.
fn byte_at(place: u64) -> u8 {
    (place ^ place >> 8) as u8
}

struct Story {
    session: Session,
    ear: Ear,
    now: Moment,
    slot: CarrierSlot,
    records: CarrierSlot,
    written: u64,
    /// Packets of this carrier, their bytes on the path, and the peer's next number.
    packets: u64,
    bytes: u64,
    number: u64,
}

/// Lets all of it happen.
pub fn packets(data: &[u8]) {
    let now = Moment(1_000_000_000);
    let role = Role::Responder;
    let settings = Settings { role, window_first: WINDOW, memory: 8 * WINDOW, flows_max: 16 };
    let mut session = Session::new(settings);
    let slot = session.packets_on_trial(now, HEADS, AROUND);
    let records = session.carrier_on_trial(now);
    assert_eq!(session.open(now), Ok(MINE));
    let ear = Ear::default();
    let (written, packets, bytes, number) = (0, 0, 0, 0);
    let mut story = Story { session, ear, now, slot, records, written, packets, bytes, number };
    story.write(1000);
    let mut rest = data;
    while let [act, len, more @ ..] = rest {
        let (bytes, next) = more.split_at(more.len().min(usize::from(*len)));
        rest = next;
        let Some(()) = story.act(act % ACTS, bytes) else { return };
        story.session.tick(story.now, &mut story.ear);
        story.look();
    }
    story.speaks_again();
}

impl Story {
    /// Lets this happen; `None` if the session is to be given up.
    fn act(&mut self, act: u8, bytes: &[u8]) -> Option<()> {
        let [first, rest @ ..] = bytes else { return Some(()) };
        match act {
            PACKET => {
                self.number += u64::from(*first);
                return self.hears(rest, true);
            }
            REPORT => {
                let mut text = self.report(*first, rest.first_chunk().copied().unwrap_or_default());
                text.extend_from_slice(rest.get(8..).unwrap_or_default());
                return self.hears(&text, true);
            }
            SEND => {
                // It is heard of at once when nothing more leaves.
                let _ = (0..*first).all(|_| self.sends());
            }
            TIME if first & 128 == 0 => self.now = self.now + Span::from_ms(u64::from(*first)),
            TIME => self.now = self.now + Span(1 << (first % 40)),
            APPLICATION => self.application(*first),
            PATH => self.path(*first, rest.first().copied().unwrap_or(0)),
            _ => return self.hears(bytes, false),
        }
        Some(())
    }

    /// Text of the peer, by a packet or a record.
    fn hears(&mut self, text: &[u8], by_packet: bool) -> Option<()> {
        let before = self.session.flow(MINE).map(|report| report.kept);
        let Said { frees, nothing } = said(text, self.packets);
        let (now, ear) = (self.now, &mut self.ear);
        let heard = if by_packet {
            let packet = (self.number, text.len() as u64 + u64::from(AROUND));
            self.number += 1;
            self.session.packet(now, self.slot, packet, text, ear)
        } else {
            self.session.received(now, self.records, text, ear)
        };
        assert!(
            heard.is_err() || !nothing || !by_packet,
            "a report of what was never sent is taken"
        );
        heard.ok()?;
        if !frees {
            let after = self.session.flow(MINE).map(|report| report.kept);
            assert_eq!(after, before, "bytes are freed, and the flow's other end said nothing");
        }
        // As an agent does: who has left such a carrier listens to nothing on it.
        if self.ear.left.drain(..).any(|slot| slot == self.slot) {
            self.begin_anew();
        }
        Some(())
    }

    /// A report in a frame: near the truth, each part of it or not.
    fn report(&self, how: u8, part: [u8; 8]) -> Vec<u8> {
        let near = |bit: u8, truth: u64, at: usize| {
            if how & bit == 0 {
                truth
            } else {
                truth.wrapping_add(i64::from(part[at] as i8) as u64)
            }
        };
        let newest = near(1, self.packets.saturating_sub(1), 0);
        let packets = near(2, self.packets, 1);
        let bytes = near(4, self.bytes, 2);
        let held = if how & 8 == 0 { 0 } else { 1 << (part[3] % 60) };
        let arrived =
            if how & 16 == 0 { self.now.0 } else { self.now.0.rotate_left(part[4].into()) };
        let first = if how & 32 == 0 { newest / 64 * 64 } else { u64::from(part[5]) * 64 };
        // All of the last 64, or some.
        let word = if how & 64 == 0 { u64::MAX } else { u64::from_le_bytes(part) };
        let mut body = Vec::new();
        put(&mut body, newest);
        body.extend_from_slice(&arrived.to_le_bytes());
        [held, packets, bytes, 0, first, 1].into_iter().for_each(|one| put(&mut body, one));
        body.push(0);
        body.extend_from_slice(&word.to_le_bytes());
        let mut text = Vec::new();
        if let Ok(report) = Report::read(&body) {
            Frame::Report(report).write(&mut text);
        }
        text
    }

    /// A packet leaves, if there is one.
    fn sends(&mut self) -> bool {
        let (now, slot) = (self.now, self.slot);
        if !self.session.wants_packet(now, slot) {
            self.session.note_packets_idle(now, slot);
            return false;
        }
        let mut text = Vec::new();
        let used = self.session.datagram_bytes(slot);
        let asked = self.session.question(now, slot);
        let number = if let Some(bytes) = asked {
            let doubted = used == bytes && used > DATAGRAM_BYTES_MIN;
            assert!(
                (used < bytes || doubted) && bytes <= DATAGRAM_BYTES_MAX,
                "{bytes} beside {used}"
            );
            let number = self.session.fill_question(now, slot, bytes - SEALED, &mut text);
            assert_eq!(text.len(), bytes - SEALED, "the path is asked about another length");
            assert_eq!(self.session.question(now, slot), None, "one at a time");
            Some(number)
        } else {
            let out = (&mut text, &mut self.ear);
            let number = self.session.fill_packet(now, slot, used - SEALED, out);
            assert!(text.len() <= used - SEALED, "{} bytes, and {used} pass", text.len());
            number
        };
        self.sent(number, &text)
    }

    /// A packet was filled, or none.
    fn sent(&mut self, number: Option<u64>, text: &[u8]) -> bool {
        assert_eq!(number.is_none(), text.is_empty(), "who says something has a number for it");
        let Some(number) = number else { return false };
        assert_eq!(number, self.packets, "every packet has the next number");
        let most = self.session.datagram_bytes(self.slot).max(DATAGRAM_BYTES_MAX);
        assert!(text.len() + SEALED <= most, "{} bytes", text.len());
        self.packets += 1;
        self.bytes += text.len() as u64 + u64::from(AROUND);
        self.speaks(text);
        true
    }

    /// What it says is made of frames, and true.
    fn speaks(&self, text: &[u8]) {
        let mut frames = Frames::new(text);
        while let Some(frame) = frames.next().expect("what it says are frames") {
            if let Frame::Stream { flow: MINE, offset, bytes, fin } = frame {
                let end = offset + bytes.len() as u64;
                assert!(end <= self.written && (!fin || end == self.written), "more than there is");
                let same = |(place, byte): (u64, &u8)| byte_at(place) == *byte;
                assert!((offset..).zip(bytes).all(same), "other bytes than were written");
            }
        }
    }

    fn write(&mut self, many: u64) {
        let bytes: Vec<u8> = (self.written..self.written + many).map(byte_at).collect();
        self.written += self.session.write(MINE, &bytes) as u64;
    }

    fn application(&mut self, how: u8) {
        let flow = self.ear.opened.last().copied().unwrap_or(MINE);
        match how % 8 {
            0 => self.session.drained(self.now, flow, 0),
            1 => self.session.drained(self.now, flow, 5000),
            2 => self.session.finish(flow),
            3 => self.session.reset(flow, ResetCode::Broken),
            4 if flow != MINE && self.session.room(flow) > 0 => {
                self.session.write(flow, b"an answer");
            }
            _ if self.session.room(MINE) > 0 => self.write(u64::from(how) * 16),
            _ => {}
        }
    }

    fn path(&mut self, how: u8, much: u8) {
        let (now, slot) = (self.now, self.slot);
        match how % 10 {
            0 => self.session.packets_moved(now, slot),
            1 => self.session.set_by_records(now, much & 1 == 1),
            2 => self.session.ask_packets(now, slot),
            3 => {
                self.session.datagrams_refused(now, slot, usize::from(much) * 40);
                let bytes = self.session.datagram_bytes(slot);
                assert!(bytes == DATAGRAM_BYTES_MIN || bytes < usize::from(much) * 40, "{bytes}");
            }
            4 => self.session.note_dropped(slot, much.into()),
            5 => self.session.say_keys(Exchange { epoch: much.into(), public: [how; 32] }),
            6 => {
                let mut text = Vec::new();
                let number = self.session.fill_way(now, slot, much.into(), &mut text);
                self.sent(number, &text);
            }
            7 => drop(self.session.take_way(slot)),
            8 => {
                let mut text = Vec::new();
                let number = self.session.fill_farewell(now, slot, &mut text);
                self.sent(number, &text);
            }
            _ => self.begin_anew(),
        }
    }

    /// The carrier goes, and another one comes.
    fn begin_anew(&mut self) {
        self.session.carrier_down(self.now, self.slot);
        let next = self.session.packets_on_trial(self.now, HEADS, AROUND);
        assert_eq!(next, self.slot, "the place is used again");
        (self.packets, self.bytes, self.number) = (0, 0, 0);
    }

    fn look(&self) {
        assert!(self.session.held() <= HELD_MAX, "{} bytes are held", self.session.held());
        for flow in self.session.flows() {
            let report = self.session.flow(flow).expect("it was just named");
            assert!(report.early <= report.window, "more is kept than was promised: {report:?}");
            assert!(report.kept >= report.unsent, "what was not written is to be sent: {report:?}");
        }
        let report = self.session.packets_report(self.slot).expect("it is one of packets");
        assert!(report.flying <= self.bytes && report.came <= self.bytes, "{report:?}");
        let lengths = DATAGRAM_BYTES_MIN..=DATAGRAM_BYTES_MAX;
        assert!(lengths.contains(&report.datagram_bytes), "{report:?}");
    }

    /// Whatever was heard, a carrier that has something to say says it some time: it asks at least.
    fn speaks_again(&mut self) {
        let kept = self.session.flow(MINE).is_some_and(|report| report.flying > 0);
        for round in 0..1000_u64 {
            if !kept || self.sends() {
                return;
            }
            let wake = self.session.wake_at().expect("something is on its way");
            // The carrier of records may have something to say, too: here it is not heard.
            // Who was made to believe in round trips of hours waits for hours.
            self.now = wake.max(self.now + Span::from_ms(100 << (round / 50)));
            self.session.tick(self.now, &mut self.ear);
        }
        panic!("it is silent for ever");
    }
}

/// What a text says of what was sent.
struct Said {
    /// It may free bytes, or end the flow.
    frees: bool,
    /// It speaks of packets that there were never.
    nothing: bool,
}

fn said(text: &[u8], packets: u64) -> Said {
    let (mut frames, mut all) = (Frames::new(text), Said { frees: false, nothing: false });
    while let Ok(Some(frame)) = frames.next() {
        all.frees |= matches!(frame, Frame::Ack { .. } | Frame::Reset { .. } | Frame::Done { .. });
        all.nothing |= matches!(frame, Frame::Report(report) if report.totals.newest >= packets);
    }
    all
}

/// A varint of eight bytes, whatever its size; what does not fit loses its upper bits.
fn put(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&(number | 0xc000_0000_0000_0000).to_be_bytes());
}

fn packets_seeds() -> Vec<(&'static str, Vec<u8>)> {
    let act = |act: u8, bytes: &[u8]| [&[act, bytes.len() as u8], bytes].concat();
    let send = || act(SEND, &[30]);
    let truth = || [act(TIME, &[20]), act(REPORT, &[0])].concat();
    let lie = |how: u8, part: [u8; 8]| act(REPORT, &[&[how][..], &part].concat());
    let stream = |flow, offset, bytes: &[u8]| {
        let mut text = vec![0];
        Frame::Stream { flow: FlowId(flow), offset, bytes, fin: false }.write(&mut text);
        act(PACKET, &text)
    };
    let write = || act(APPLICATION, &[255]);
    let used = || [send(), truth(), send(), truth(), send()].concat();
    let path = |how: u8, much: u8| act(PATH, &[how, much]);
    let quiet = || [act(TIME, &[128 | 30]), send()].concat();
    vec![
        ("taken-to", [used(), truth(), write(), send(), truth()].concat()),
        ("losses", [used(), lie(64, [0x55; 8]), write(), send(), lie(64, [1; 8]), send()].concat()),
        ("optimist", [used(), lie(6, [0, 90, 90, 0, 0, 0, 0, 0]), send()].concat()),
        ("of-nothing", [used(), lie(1, [1, 0, 0, 0, 0, 0, 0, 0])].concat()),
        ("clock-mad", [used(), lie(24, [0, 0, 0, 40, 17, 0, 0, 0]), send(), truth()].concat()),
        ("gaps", [used(), stream(0, 4000, b"far"), stream(2, 50, b"x"), send()].concat()),
        ("overrun", [used(), stream(0, 5000, b"beyond credit")].concat()),
        ("silence", [used(), quiet(), quiet(), quiet(), quiet(), truth(), send()].concat()),
        ("moves", [used(), path(0, 0), send(), path(6, 1), truth(), path(7, 0), send()].concat()),
        ("refused", [used(), truth(), path(3, 30), send(), truth(), path(3, 1), send()].concat()),
        ("by-records", [used(), path(1, 1), write(), send(), path(1, 0), send()].concat()),
        ("anew", [used(), path(9, 0), send(), truth(), send()].concat()),
        ("keys-asked-left", [used(), path(5, 1), path(2, 0), send(), path(8, 0), send()].concat()),
        ("acked", {
            let text = [0, 0x0a, 4, 1, 24, 0x50, 0];
            [used(), act(PACKET, &text), act(RECORD, &text[1..]), send()].concat()
        }),
    ]
}
