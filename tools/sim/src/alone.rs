//! One shard alone, driven as a reactor drives it: its buffers are used again, turn after turn.
//!
//! For benches and for counting what a turn allocates; [`crate::process`] is for stories. Nobody is
//! slow here but one who never reads, if there is one; nobody leaves, and no other shard is there
//! to be written to.

use ringway_coord_proto::access::Open;
use ringway_coord_proto::{Env, Shard};
use ringway_core::region::HeapRegion;
use ringway_core::{ConnId, Moment, ShardId, Span};

use crate::process::{Settings, make_shard};

/// How much later each turn is than the one before, unless a caller says so.
const TURN: Span = Span::from_us(1);

/// A shard and its connections.
pub struct Alone {
    /// The shard.
    pub shard: Shard<HeapRegion, Open>,
    sink: Sink,
    now: Moment,
    pace: Span,
}

impl Alone {
    /// A shard with so many connections, which have not said anything yet.
    pub fn new(settings: &Settings, conns: u32) -> Self {
        assert_eq!(settings.shards, 1, "it is alone");
        let shard = make_shard(settings, 0, Open::default());
        let sink = Sink { out: (0..conns).map(|_| Vec::new()).collect(), stuck: None };
        let mut alone = Self { shard, sink, now: settings.now + TURN, pace: TURN };
        for index in 0..conns {
            alone.shard.opened(alone.now, conn(index), &mut alone.sink);
        }
        alone.turn();
        alone
    }

    /// How much later each turn is than the one before, from now on.
    pub fn set_pace(&mut self, pace: Span) {
        self.pace = pace;
    }

    /// One connection never reads from now on.
    pub fn stick(&mut self, index: u32) {
        self.sink.stuck = Some(index);
    }

    /// Bytes of a connection, for the next turn.
    pub fn receive(&mut self, index: u32, bytes: &[u8]) {
        self.shard.received(self.now, conn(index), bytes, &mut self.sink);
    }

    /// Ends the turn. Nobody has read its replies yet.
    pub fn step(&mut self) {
        self.shard.turn(self.now, &mut self.sink);
        self.now = self.now + self.pace;
    }

    /// What was said to a connection and is not read yet.
    pub fn said(&self, index: u32) -> &[u8] {
        &self.sink.out[index as usize]
    }

    /// Everybody reads all that was said; how many bytes that were.
    pub fn read(&mut self) -> usize {
        let stuck = self.sink.stuck;
        let reads = |index: usize| stuck != Some(index as u32);
        let all = self.sink.out.iter_mut().enumerate().filter(|(index, _)| reads(*index));
        all.map(|(_, out)| {
            let bytes = out.len();
            out.clear();
            bytes
        })
        .sum()
    }

    /// Some connections read what was said to them.
    pub fn read_of(&mut self, indices: &[u32]) {
        indices.iter().for_each(|index| self.sink.out[*index as usize].clear());
    }

    /// Ends the turn, and everybody reads; how many bytes that were.
    pub fn turn(&mut self) -> usize {
        self.step();
        self.read()
    }
}

fn conn(index: u32) -> ConnId {
    ConnId { index, generation: 1 }
}

struct Sink {
    out: Vec<Vec<u8>>,
    stuck: Option<u32>,
}

impl Env for Sink {
    #[inline]
    fn out(&mut self, conn: ConnId) -> &mut Vec<u8> {
        &mut self.out[conn.index as usize]
    }
    fn backlog(&self, conn: ConnId) -> usize {
        if self.stuck == Some(conn.index) { self.out[conn.index as usize].len() } else { 0 }
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
