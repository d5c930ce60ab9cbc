//! Ops on their way to other shards, gathered until the batch is executed.
//!
//! All that the connections of this shard ask of another one in a turn travels together: a
//! message is a run of units, each with who asks and its ops. So a forwarded op costs its bytes,
//! and its owner hashes, prefetches and executes it with everything else of its own turn.
//!
//! Always: ops for one shard leave in the order in which they were parsed, and before any other
//! mail that the shard decides on afterwards (`execute` posts them first).
//!
//! Bounds: ops of a turn, which the in-flight limit bounds; no message is longer than
//! [`MESSAGE_BYTES`] and one op.

use alloc::vec::Vec;

use ringway_core::ShardId;
use ringway_core::wire::Put;

use crate::env::Env;
use crate::mail::{self, Asker};
use crate::turn::{HEADED, Op, Turn};
use crate::wire::op;

/// A message that has become this long is followed by another one.
const MESSAGE_BYTES: usize = 64 * 1024;
/// A buffer that has grown larger is given back once it was posted.
const KEPT_BYTES: usize = 256 * 1024;

/// What waits to be posted, for each shard.
pub(crate) struct Requests {
    bundles: Vec<Bundle>,
    /// Shards for which anything waits, a bit each.
    open: u128,
}

/// Messages for one shard.
#[derive(Default)]
struct Bundle {
    bytes: Vec<u8>,
    /// Where messages end, but for the last.
    ends: Vec<usize>,
    /// Where the last message starts.
    start: usize,
    /// The unit that the last op belongs to.
    unit: Option<(u32, u32)>,
    /// Which payload the unit's last message has.
    payload: Option<u64>,
    /// Its ops, and where their count goes.
    count: u16,
    count_at: usize,
}

impl Requests {
    /// Nothing, for any of `shards` shards.
    pub(crate) fn new(shards: usize) -> Self {
        Self { bundles: (0..shards).map(|_| Bundle::default()).collect(), open: 0 }
    }

    /// Adds an op whose body `put` appends. Ops of one unit follow each other.
    #[inline]
    pub(crate) fn add(
        &mut self,
        to: ShardId,
        asker: &Asker,
        op: &Op,
        put: impl FnOnce(&mut Vec<u8>),
    ) {
        let bytes = self.begin(to, asker);
        let at = mail::begin_request_op(bytes, op);
        put(bytes);
        mail::finish_request_op(bytes, at);
    }

    /// Adds an op whose body is its name, of up to 16 bytes.
    #[inline]
    pub(crate) fn add_short(&mut self, to: ShardId, asker: &Asker, op: &Op) {
        mail::put_short_request_op(self.begin(to, asker), op);
    }

    /// Adds a message: its payload only if the message before it in the unit has another, however
    /// its client said it. Returns what the op weighs.
    pub(crate) fn add_send(
        &mut self,
        to: ShardId,
        asker: &Asker,
        (batch, op): (&Turn, &Op),
    ) -> u32 {
        self.begin(to, asker);
        let bundle = &mut self.bundles[to.index()];
        let place = batch.payload_place(op);
        let same = bundle.payload.replace(place) == Some(place);
        let flags = op.flags & !op::SEND_SAME | if same { op::SEND_SAME } else { 0 };
        let op = Op { flags, ..*op };
        let out = &mut bundle.bytes;
        let at = mail::begin_request_op(out, &op);
        out.push(op.len);
        batch.put_name(&op, out);
        let (payload, head) = batch.message(&op);
        if flags & HEADED != 0 {
            out.put_long_bytes(head);
        }
        if !same {
            out.extend_from_slice(payload);
        }
        mail::finish_request_op(out, at);
        batch.weight(&op)
    }

    /// Where the next op of a unit for a shard goes.
    #[inline]
    fn begin(&mut self, to: ShardId, asker: &Asker) -> &mut Vec<u8> {
        self.open |= 1 << to.index();
        let bundle = &mut self.bundles[to.index()];
        let is_long = bundle.bytes.len() - bundle.start > MESSAGE_BYTES;
        if bundle.unit != Some(asker.pending) || is_long {
            bundle.begin_unit(asker, is_long);
        }
        bundle.count += 1;
        &mut bundle.bytes
    }

    /// Posts everything.
    #[inline]
    pub(crate) fn post(&mut self, env: &mut impl Env) {
        while self.open != 0 {
            let to = self.open.trailing_zeros();
            self.open &= self.open - 1;
            self.bundles[to as usize].post(ShardId(to as u8), env);
        }
    }
}

impl Bundle {
    /// Starts a unit; in a new message if there is none, or that is long enough.
    fn begin_unit(&mut self, asker: &Asker, is_long: bool) {
        self.end_unit();
        if self.bytes.is_empty() || is_long {
            if is_long {
                self.ends.push(self.bytes.len());
            }
            self.start = self.bytes.len();
            self.bytes.push(mail::REQUEST);
        }
        self.unit = Some(asker.pending);
        self.payload = None;
        self.count_at = mail::put_unit(&mut self.bytes, asker);
    }

    fn end_unit(&mut self) {
        if self.unit.take().is_some() {
            mail::set_count(&mut self.bytes, self.count_at, self.count);
        }
        self.count = 0;
    }

    fn post(&mut self, to: ShardId, env: &mut impl Env) {
        self.end_unit();
        let mut from = 0;
        for end in self.ends.drain(..).chain([self.bytes.len()]) {
            env.post(to, &self.bytes[from..end]);
            from = end;
        }
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_BYTES);
        self.start = 0;
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use ringway_core::limits::{MAIL_BYTES_MAX, SHARDS_MAX};
    use ringway_core::wire::Reader;
    use ringway_core::{ConnId, Span};

    use super::*;
    use crate::parse::answered;
    use crate::sessions::Principal;

    const _: () = assert!(MESSAGE_BYTES + 0x1_0000 + 64 <= MAIL_BYTES_MAX);
    const _: () = assert!(SHARDS_MAX <= u128::BITS as usize);

    #[derive(Default)]
    struct Post(Vec<(ShardId, Vec<u8>)>);

    impl Env for Post {
        fn out(&mut self, _conn: ConnId) -> &mut Vec<u8> {
            unreachable!("requests write to no connection")
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
        fn post(&mut self, to: ShardId, message: &[u8]) {
            self.0.push((to, message.into()));
        }
        fn random(&mut self) -> [u8; 16] {
            [0; 16]
        }
        fn describe(&mut self, _json: &mut Vec<u8>) {}
        fn again(&mut self) {}
    }

    fn asker(unit: u32) -> Asker {
        let conn = ConnId { index: unit, generation: 1 };
        Asker { pending: (unit, 7), bound: None, principal: Principal(0), operator: false, conn }
    }

    /// Ops of several units arrive at their shards, in order, with who asked; long ones in more
    /// messages than one, none of which is too long for a mailbox.
    #[test]
    fn units_travel_together_and_in_order() {
        let mut requests = Requests::new(3);
        let body = vec![5; 300];
        let mut sent = Vec::new();
        for unit in 0..4 {
            for index in 0..200 {
                let to = ShardId(1 + (index % 2) as u8);
                let op = Op { index, code: 1, ..answered(0) };
                requests.add(to, &asker(unit), &op, |out| out.extend_from_slice(&body));
                sent.push((to, unit, index));
            }
        }
        let mut env = Post::default();
        requests.post(&mut env);
        let mut got = Vec::new();
        for (to, message) in &env.0 {
            assert!(message.len() <= MESSAGE_BYTES + 400);
            let mut reader = Reader::new(message);
            assert_eq!(reader.u8().unwrap(), mail::REQUEST);
            while !reader.is_empty() {
                let (who, count) = mail::unit(&mut reader).unwrap();
                assert_eq!(who, asker(who.pending.0));
                for _ in 0..count {
                    let op = mail::request_op(&mut reader).unwrap();
                    assert_eq!(op.body, body);
                    got.push((*to, who.pending.0, op.index));
                }
            }
        }
        sent.sort_by_key(|(to, ..)| *to);
        assert_eq!(got, sent);
        assert!(env.0.len() > 2 && env.0.len() < 8, "{} messages", env.0.len());
        env.0.clear();
        requests.post(&mut env);
        assert!(env.0.is_empty(), "everything was posted already");
    }
}
