//! What does it cost to list all names of a shard, and how long does that keep others waiting?
//!
//! `cargo run --release -p ringway-coord-proto --example listing -- [--tag] 1M 10M`
//!
//! For each count: registers random 16-byte names in a shard, lists all of them in pages as large
//! as they may be, and prints the processor time of the listing, its pages, and its worst turn.
//! With `--tag` all names are of one slot, which is the worst that names can do to a listing.

use std::time::Duration;

use ringway_coord_proto::access::Open;
use ringway_coord_proto::wire::{self, FrameWriter, KIND_REQUEST, Preface, Reply, op, put_op};
use ringway_coord_proto::{Env, LeaseRules, Shard, ShardStart, SlotMap};
use ringway_core::limits::{FRAME_OPS_MAX, LEASE_DEFAULT, LEASE_MAX_DEFAULT, LEASE_MIN};
use ringway_core::region::HeapRegion;
use ringway_core::rng::Rng;
use ringway_core::wire::{Put, Reader};
use ringway_core::{ConnId, Epoch, Moment, ShardId, Span};
use ringway_table::{HashKey, Regions, Table};

const CONN: ConnId = ConnId { index: 0, generation: 1 };
const FILL_FRAME: u64 = 4_000;

fn main() {
    let mut tag = false;
    println!("     names | list all    pages  worst turn");
    for arg in std::env::args().skip(1) {
        match arg.as_str() {
            "--tag" => tag = true,
            count => run(parse(count), tag),
        }
    }
}

fn parse(count: &str) -> u64 {
    let digits = count.trim_end_matches(['k', 'M']);
    let number: u64 = digits.parse().expect("a count such as 10M");
    number
        * if count.ends_with('M') {
            1_000_000
        } else if count.ends_with('k') {
            1_000
        } else {
            1
        }
}

fn run(count: u64, tag: bool) {
    let mut one = One::start();
    for first in (0..count).step_by(FILL_FRAME as usize) {
        let last = (first + FILL_FRAME).min(count);
        let names = (first..last).map(|index| name(index, tag));
        one.receive(&frame(names.map(|name| (op::REGISTER, name))));
        one.turn();
        one.sink.out.clear();
    }
    assert_eq!(one.shard.names().table().len() as u64, count);
    let (mut slot, mut after, mut seen, mut pages) = (0u16, Vec::new(), 0, 0);
    let (mut all, mut worst) = (Duration::ZERO, Duration::ZERO);
    loop {
        let mut body = Vec::new();
        body.put_u16(slot);
        body.put_u16(FRAME_OPS_MAX as u16);
        body.put_short_bytes(&after);
        body.put_short_bytes(b"");
        one.receive(&frame([(op::LIST, body)].into_iter()));
        while one.sink.out.is_empty() {
            let turn = one.turn();
            all += turn;
            worst = worst.max(turn);
        }
        pages += 1;
        let answer = std::mem::take(&mut one.sink.out);
        let mut replies = &answer[wire::FRAME_HEADER_BYTES..];
        let Some(Reply::Data(_, page)) = wire::next_reply(&mut replies) else {
            panic!("a list is answered with a page");
        };
        let mut page = Reader::new(page);
        let done = page.u8().expect("done") != 0;
        slot = page.u16().expect("a slot");
        after = page.short_bytes().expect("a name").to_vec();
        seen += u64::from(page.u16().expect("a count"));
        if done {
            break;
        }
    }
    assert_eq!(seen, count, "every name once");
    let (all, worst) = (all.as_secs_f64(), worst.as_secs_f64() * 1e3);
    println!("{count:>10} | {all:>7.3} s {pages:>8}  {worst:>7.3} ms");
}

fn name(index: u64, tag: bool) -> Vec<u8> {
    let mut rng = Rng::new(index);
    let (low, high) = (rng.next_u64(), rng.next_u64());
    if tag {
        return format!("{{t}}{low:013x}").into_bytes();
    }
    (u128::from(low) | u128::from(high) << 64).to_le_bytes().to_vec()
}

fn frame(ops: impl Iterator<Item = (u8, Vec<u8>)>) -> Vec<u8> {
    let mut out = Vec::new();
    let mut frame = FrameWriter::begin(&mut out, KIND_REQUEST, 0, 1);
    for (code, body) in ops {
        put_op(&mut out, code, 0, &body);
        frame.add(1);
    }
    frame.finish(&mut out);
    out
}

/// One shard with one connection.
struct One {
    shard: Shard<HeapRegion, Open>,
    sink: Sink,
    now: Moment,
}

impl One {
    fn start() -> Self {
        let region = || HeapRegion::new(usize::MAX / 4);
        let regions =
            Regions { records: region(), index: region(), arena: region(), lines: region() };
        let table = Table::new(regions, HashKey([1, 2])).expect("an empty table fits");
        let start = ShardStart {
            id: ShardId(0),
            map: SlotMap::new(1),
            epoch: Epoch(1),
            rules: LeaseRules { min: LEASE_MIN, max: LEASE_MAX_DEFAULT, default: LEASE_DEFAULT },
            lease_allowed: LEASE_MAX_DEFAULT,
            sessions_max: 1 << 20,
            session_info_bytes: 1 << 30,
            side_bytes: 1 << 30,
            buffer_bytes: 1 << 30,
            grants_from: Moment(0),
            keys: [3, 4],
            own_ports: vec![0],
            base_port: 7400,
            unix_at_zero: Span::ZERO,
            host: b"127.0.0.1".to_vec(),
        };
        let shard = Shard::new(Moment(0), start, table, Open::default());
        let mut one = One { shard, sink: Sink::default(), now: Moment(1) };
        one.shard.opened(one.now, CONN, &mut one.sink);
        one.receive(&Preface::OURS.encode());
        one.turn();
        one.sink.out.clear();
        one
    }

    fn receive(&mut self, bytes: &[u8]) {
        self.shard.received(self.now, CONN, bytes, &mut self.sink);
    }

    /// A turn, and the processor time it took.
    fn turn(&mut self) -> Duration {
        let before = cpu_time();
        self.shard.turn(self.now, &mut self.sink);
        self.now = self.now + Span(1_000);
        cpu_time() - before
    }
}

/// The processor time of this thread: others on the same core do not count.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[derive(Default)]
struct Sink {
    out: Vec<u8>,
}

impl Env for Sink {
    fn out(&mut self, _conn: ConnId) -> &mut Vec<u8> {
        &mut self.out
    }
    fn backlog(&self, _conn: ConnId) -> usize {
        0
    }
    fn await_drain(&mut self, _conn: ConnId) {}
    fn buffered(&mut self) -> usize {
        0
    }
    fn buffered_for(&self, _conn: ConnId) -> usize {
        0
    }
    fn release_spare(&mut self) {}
    fn cut(&mut self, _conn: ConnId) {}
    fn call_overdue(&mut self, _conn: ConnId, _after: Span) {}
    fn pause(&mut self, _conn: ConnId) {}
    fn resume(&mut self, _conn: ConnId) {}
    fn close(&mut self, _conn: ConnId) {}
    fn post(&mut self, _to: ShardId, _message: &[u8]) {}
    fn random(&mut self) -> [u8; 16] {
        [7; 16]
    }
    fn describe(&mut self, _json: &mut Vec<u8>) {}
    fn again(&mut self) {}
}
