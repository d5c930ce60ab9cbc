//! Notices for sessions, on their way to the connections that receive them.
//!
//! Whoever decides that a session is to hear something (`names`) adds it here; what was added
//! travels at the end of the batch, all for one shard together: first to the session's home, which
//! knows the receiving connection, then to that connection's shard, which packs all that a
//! connection gets in a turn into one push frame.
//!
//! Always: notices for one session from one shard arrive in the order in which they were added.
//! They are told at most once: a session without a receiving connection is *away* and hears
//! nothing. What it must not miss it asks again when it is back (a wait is idempotent).
//!
//! Messages are the one kind of notice that a client makes as many of as it likes. So each shard
//! counts the bytes that it has under way to each other one, until that says that it took them, and
//! asks [`Bundles::has_room`] first: no shard holds more than half of what is free, so that one
//! that stands still stops nobody's messages to others. And a message may carry a ticket: whoever
//! it ends with answers it, through [`Shard::receipt`].
//!
//! Bounds: a connection that leaves more than [`NOTICE_BYTES_MAX`] unread is closed; no mail is
//! longer than [`MESSAGE_BYTES`] and one notice; of messages no more than `MESSAGES_UNDER_WAY_MAX`
//! bytes are under way from one shard on each part of the way; receipts are no more than the ops
//! that wait for them.
//! Not here: what notices say (`waiting`, `messages`).
//! Tests: `tests/waiting.rs`, `tests/messages.rs`.

use alloc::boxed::Box;
use alloc::vec::Vec;

use ringway_core::limits::{FRAME_BYTES_MAX, FRAME_OPS_MAX};
use ringway_core::wire::{Put, Reader, Truncated};
use ringway_core::{ConnId, Region, ShardId};

use crate::access::Access;
use crate::conn::Speech;
use crate::env::Env;
use crate::handle::Bound;
use crate::mail;
use crate::messages::Message;
use crate::sabotage::{Rule, Sabotage};
use crate::sessions::{ConnRef, Ticket};
use crate::shard::Shard;
use crate::tallies::Tallies;
use crate::wire::{
    FRAME_BYTES_FLOOR, FRAME_HEADER_BYTES, FrameWriter, KIND_PUSH, OP_HEADER_BYTES, push, put_op,
    status,
};

/// A connection that leaves so many bytes unread when it is to hear something is closed.
pub const NOTICE_BYTES_MAX: usize = 2 * 1024 * 1024;
/// A mail that has become this long is followed by another one.
const MESSAGE_BYTES: usize = 64 * 1024;
/// A buffer that has grown larger is given back once it was posted.
const KEPT_BYTES: usize = 256 * 1024;

/// What waits to be posted, for each shard.
pub(crate) struct Bundles {
    of: Vec<Bundle>,
    /// Shards for which anything waits, a bit each.
    open: u128,
    kind: u8,
    /// Bytes for each shard that it has not taken yet, as far as is known here.
    under_way: Vec<usize>,
    /// Their sum, and what that may be.
    total: usize,
    most: usize,
    pub(crate) sabotage: Sabotage,
}

#[derive(Default)]
struct Bundle {
    bytes: Vec<u8>,
    /// Where mails end, but for the last.
    ends: Vec<usize>,
    /// Where the last mail starts.
    start: usize,
}

impl Bundles {
    /// Nothing, for any of `shards` shards, in mails of one kind, of which so many bytes may be
    /// under way.
    pub(crate) fn new(shards: usize, kind: u8, most: usize) -> Self {
        Self {
            of: (0..shards).map(|_| Bundle::default()).collect(),
            open: 0,
            kind,
            under_way: alloc::vec![0; shards],
            total: 0,
            most,
            sabotage: Sabotage::NONE,
        }
    }

    /// Whether so many bytes more for a shard leave as much room for all others together.
    #[inline]
    pub(crate) fn has_room(&self, to: ShardId, bytes: usize) -> bool {
        self.under_way[to.index()] + bytes <= self.most.saturating_sub(self.total) / 2
    }

    /// A shard has taken bytes.
    pub(crate) fn taken(&mut self, by: ShardId, bytes: usize) {
        self.under_way[by.index()] -= bytes;
        self.total -= bytes;
    }

    /// Adds something for a shard.
    #[inline]
    pub(crate) fn put(&mut self, to: ShardId, put: impl FnOnce(&mut Vec<u8>)) {
        let before = self.of[to.index()].bytes.len();
        let out = self.begin(to);
        put(out);
        let added = out.len() - before;
        self.under_way[to.index()] += added;
        self.total += added;
    }

    /// Where the next thing for a shard goes.
    #[inline]
    fn begin(&mut self, to: ShardId) -> &mut Vec<u8> {
        self.open |= 1 << to.index();
        let bundle = &mut self.of[to.index()];
        if bundle.bytes.is_empty() || bundle.bytes.len() - bundle.start > MESSAGE_BYTES {
            if !bundle.bytes.is_empty() {
                bundle.ends.push(bundle.bytes.len());
            }
            bundle.start = bundle.bytes.len();
            bundle.bytes.push(self.kind);
        }
        &mut bundle.bytes
    }

    /// A notice for a session: its home finds the connection.
    pub(crate) fn add(&mut self, to: Bound, code: u8, put: impl FnOnce(&mut Vec<u8>)) {
        self.put(to.handle.home(), |out| {
            mail::put_bound(out, Some(to));
            put_notice(out, (code, None), put);
        });
    }

    /// A message for a session.
    #[inline]
    pub(crate) fn add_message(
        &mut self,
        to: Bound,
        message: &Message<'_>,
        receipt: Option<Ticket>,
    ) {
        let before = self.of[to.handle.home().index()].bytes.len();
        self.put(to.handle.home(), |out| {
            out.extend_from_slice(&mail::session_bytes(to));
            put_notice(out, (push::MESSAGE, receipt), |out| message.put(out));
        });
        if self.sabotage.breaks(Rule::MessagesInOrder) {
            let bundle = &mut self.of[to.handle.home().index()];
            let added = bundle.bytes.len() - before.max(bundle.start + 1);
            bundle.bytes[bundle.start + 1..].rotate_right(added);
        }
    }

    /// A notice for a connection of a shard.
    pub(crate) fn add_for_conn(&mut self, to: ConnRef, notice: &Notice<'_>) {
        self.put(to.shard, |out| {
            out.put_u32(to.conn.index);
            out.put_u32(to.conn.generation);
            put_notice(out, (notice.code, notice.receipt), |out| {
                out.extend_from_slice(notice.body);
            });
        });
    }

    /// Posts everything to other shards.
    #[inline]
    pub(crate) fn post(&mut self, env: &mut impl Env) {
        while let Some((shard, bundle)) = self.take() {
            bundle.mails().for_each(|mail| env.post(shard, mail));
            self.give(shard, bundle);
        }
    }

    /// Takes all mails for one shard, if there are any for anybody.
    fn take(&mut self) -> Option<(ShardId, Bundle)> {
        if self.open == 0 {
            return None;
        }
        let to = self.open.trailing_zeros();
        self.open &= self.open - 1;
        Some((ShardId(to as u8), core::mem::take(&mut self.of[to as usize])))
    }

    /// Gives a buffer back, to be used again.
    fn give(&mut self, to: ShardId, mut bundle: Bundle) {
        if self.of[to.index()].bytes.is_empty() && bundle.bytes.capacity() <= KEPT_BYTES {
            bundle.bytes.clear();
            bundle.ends.clear();
            self.of[to.index()] = Bundle { start: 0, ..bundle };
        }
    }

    /// Whether nothing waits.
    #[inline]
    pub(crate) const fn is_empty(&self) -> bool {
        self.open == 0
    }
}

impl Bundle {
    fn mails(&self) -> impl Iterator<Item = &[u8]> {
        let starts = core::iter::once(0).chain(self.ends.iter().copied());
        let ends = self.ends.iter().copied().chain([self.bytes.len()]);
        starts.zip(ends).map(|(start, end)| &self.bytes[start..end])
    }
}

/// Set in the code of a notice that has a ticket.
const WITH_RECEIPT: u8 = 0x80;

#[inline]
fn put_notice(
    out: &mut Vec<u8>,
    (code, receipt): (u8, Option<Ticket>),
    put: impl FnOnce(&mut Vec<u8>),
) {
    out.extend_from_slice(&[code | if receipt.is_some() { WITH_RECEIPT } else { 0 }, 0, 0]);
    let at = out.len();
    if let Some(ticket) = receipt {
        mail::put_ticket(out, &ticket);
    }
    let body_at = out.len();
    put(out);
    let len = (out.len() - body_at) as u16;
    out[at - 2..at].copy_from_slice(&len.to_le_bytes());
}

/// One notice as it travels.
#[derive(Clone, Copy)]
pub(crate) struct Notice<'a> {
    pub(crate) code: u8,
    pub(crate) body: &'a [u8],
    /// Who wants to know what became of it.
    pub(crate) receipt: Option<Ticket>,
}

#[inline]
fn notice<'a>(reader: &mut Reader<'a>) -> Result<Notice<'a>, Truncated> {
    let [code, low, high] = reader.array()?;
    let receipt = if code & WITH_RECEIPT == 0 { None } else { Some(mail::ticket(reader)?) };
    let body = reader.bytes(usize::from(u16::from_le_bytes([low, high])))?;
    Ok(Notice { code: code & !WITH_RECEIPT, body, receipt })
}

/// What a mail of notices says: each behind whom it is for, which `to` reads.
#[inline]
fn notices<'a, T>(
    reader: &mut Reader<'a>,
    to: impl Fn(&mut Reader<'a>) -> Result<T, Truncated>,
) -> impl Iterator<Item = Result<(T, Notice<'a>), Truncated>> {
    core::iter::from_fn(move || {
        (!reader.is_empty()).then(|| to(reader).and_then(|to| Ok((to, notice(reader)?))))
    })
}

/// What was taken of each shard's mail and is not told to it yet, by kind of mail.
struct Taken {
    of: Vec<[usize; 3]>,
    /// From so many bytes on it is told.
    least: usize,
}

/// What a shard has under way beside notices.
pub(crate) struct Messaging {
    /// Fenced messages for the shards of their targets.
    pub(crate) relays: Bundles,
    /// What became of messages, for those who asked.
    pub(crate) receipts: Bundles,
    /// What was for several and is not answered yet.
    pub(crate) tallies: Tallies,
    /// Messages to all that this shard began.
    pub(crate) broadcasts: usize,
    taken: Taken,
}

impl Messaging {
    /// Nothing, for shards that may have so many bytes under way.
    pub(crate) fn new(shards: usize, under_way: usize) -> Self {
        Self {
            relays: Bundles::new(shards, mail::RELAYS, under_way),
            receipts: Bundles::new(shards, mail::RECEIPTS, usize::MAX),
            tallies: Tallies::default(),
            broadcasts: 0,
            taken: Taken::new(shards, under_way),
        }
    }
}

impl Taken {
    /// Nothing, while shards have so many bytes under way. What is not told of all shards together
    /// leaves three quarters of that.
    fn new(shards: usize, most: usize) -> Self {
        Self { of: alloc::vec![[0; 3]; shards], least: (most / 4 / shards).min(MESSAGE_BYTES) }
    }
}

/// Push frames of a turn that more notices may join, by the connection's index: two connections
/// that share a place only make more frames than they would have to.
pub(crate) struct Packings(Box<[Packing; PACKINGS]>);

const PACKINGS: usize = 256;

impl Default for Packings {
    fn default() -> Self {
        Self(Box::new([Packing::default(); PACKINGS]))
    }
}

/// One of them.
#[derive(Clone, Copy, Debug, Default)]
struct Packing {
    conn: Option<ConnId>,
    /// The turn in which it was begun.
    turn: u32,
    /// Where it stands in the connection's output.
    at: u32,
    /// Where it ends: what was written behind it closes it.
    end: u32,
    count: u16,
}

impl<R: Region, A: Access> Shard<R, A> {
    /// Sends all notices on their way.
    #[inline]
    pub(crate) fn send_notices(&mut self, env: &mut impl Env) {
        self.messaging.relays.post(env);
        if !self.names.notices.is_empty() {
            self.send_all_notices(env);
        }
        self.messaging.receipts.post(env);
    }

    fn send_all_notices(&mut self, env: &mut impl Env) {
        while let Some((home, bundle)) = self.names.notices.take() {
            for mail in bundle.mails() {
                if home == self.id() {
                    self.names.notices.taken(home, mail.len());
                    let mut reader = Reader::new(&mail[1..]);
                    self.take_notices(&mut reader, env).expect("written by `Bundles`");
                } else {
                    env.post(home, mail);
                }
            }
            self.names.notices.give(home, bundle);
        }
    }

    /// Mail about notices, messages and what became of them.
    pub(crate) fn read_notices(
        &mut self,
        kind: u8,
        from: ShardId,
        message: &[u8],
        env: &mut impl Env,
    ) -> Result<(), Truncated> {
        let mut reader = Reader::new(&message[1..]);
        match kind {
            mail::NOTICES => self.take_notices(&mut reader, env)?,
            mail::PUSHES => self.take_pushes(&mut reader, env)?,
            mail::RELAYS => self.take_relays(&mut reader, env)?,
            mail::TAKEN => return self.was_taken(from, &mut reader),
            mail::RECEIPTS => return self.take_receipts(&mut reader, env),
            mail::BROADCAST => return self.take_broadcast(&mut reader, env),
            mail::BROADCASTED => return self.take_broadcasted(&mut reader, env),
            _ => return Err(Truncated),
        }
        self.took(kind, from, message.len(), env);
        Ok(())
    }

    /// Notices for sessions whose home is here: on to their connections.
    pub(crate) fn take_notices(
        &mut self,
        reader: &mut Reader<'_>,
        env: &mut impl Env,
    ) -> Result<(), Truncated> {
        let room = self.receiver_room(env);
        for found in notices(reader, mail::session) {
            let (to, notice) = found?;
            match self.sessions.receiver(to) {
                Ok(conn) => self.pass_on(conn, &notice, room, env),
                Err(status) if notice.code == push::MESSAGE => self.conclude(&notice, status, env),
                Err(_) => self.stats.notices_away += 1,
            }
        }
        self.pushes.post(env);
        Ok(())
    }

    /// A notice for a connection, of this shard or of another.
    #[inline]
    pub(crate) fn pass_on(
        &mut self,
        to: ConnRef,
        notice: &Notice<'_>,
        room: usize,
        env: &mut impl Env,
    ) {
        let is_message = notice.code == push::MESSAGE;
        if to.shard == self.id() {
            self.notify(to.conn, notice, room, env);
        } else if is_message && !self.pushes.has_room(to.shard, notice.body.len()) {
            self.conclude(notice, status::BUSY, env);
        } else {
            self.pushes.add_for_conn(to, notice);
        }
    }

    /// Mail of a kind that is counted was taken; whoever posted it hears so, now and then.
    pub(crate) fn took(&mut self, kind: u8, from: ShardId, bytes: usize, env: &mut impl Env) {
        let place = match kind {
            mail::NOTICES => 0,
            mail::PUSHES => 1,
            _ => 2,
        };
        let taken = &mut self.messaging.taken.of[from.index()][place];
        *taken += bytes;
        if *taken >= self.messaging.taken.least {
            env.post(from, &mail::taken_message(kind, core::mem::take(taken) as u32));
        }
    }

    /// Mail of this shard was taken by another.
    pub(crate) fn was_taken(
        &mut self,
        by: ShardId,
        reader: &mut Reader<'_>,
    ) -> Result<(), Truncated> {
        let bundles = match reader.u8()? {
            mail::NOTICES => &mut self.names.notices,
            mail::PUSHES => &mut self.pushes,
            _ => &mut self.messaging.relays,
        };
        bundles.taken(by, reader.u32()? as usize);
        Ok(())
    }

    /// Notices for connections of this shard.
    pub(crate) fn take_pushes(
        &mut self,
        reader: &mut Reader<'_>,
        env: &mut impl Env,
    ) -> Result<(), Truncated> {
        let room = self.receiver_room(env);
        for found in notices(reader, mail::conn) {
            let (conn, notice) = found?;
            self.notify(conn, &notice, room, env);
        }
        Ok(())
    }

    /// Tells a connection of this shard. `room` is what it may have unread to be sent a message.
    #[inline]
    fn notify(&mut self, conn: ConnId, notice: &Notice<'_>, room: usize, env: &mut impl Env) {
        if notice.code == push::MESSAGE {
            return self.hand_over(conn, notice, room, env);
        }
        let Some(state) = self.conn_mut(conn).filter(|state| !state.closing) else {
            self.stats.pushes_dropped += 1;
            return;
        };
        let speech = state.speech;
        if env.backlog(conn) > NOTICE_BYTES_MAX {
            self.stats.pushes_dropped += 1;
            return self.cut(conn, env);
        }
        match speech {
            Speech::Native => self.pack(conn, notice, env),
            Speech::Resp3 => {
                crate::resp_reply::push_notice(env.out(conn), notice.code, notice.body);
            }
            Speech::Resp2 | Speech::Unknown => self.stats.notices_away += 1,
        }
    }

    /// Adds a notice to the push frame at the end of a connection's output, or begins one.
    pub(crate) fn pack(&mut self, conn: ConnId, notice: &Notice<'_>, env: &mut impl Env) {
        let turn = self.stats.turns as u32;
        let out = env.out(conn);
        let room = usize::from(self.conns[conn.index as usize].frame_pages) * PAGE_BYTES;
        let place = &mut self.packings.0[conn.index as usize % PACKINGS];
        let open = *place;
        let joins = (open.conn, open.turn, open.end as usize) == (Some(conn), turn, out.len())
            && usize::from(open.count) < FRAME_OPS_MAX
            && out.len() - open.at as usize + OP_HEADER_BYTES + notice.body.len() <= room;
        let mut frame = if joins {
            FrameWriter::resume(open.at as usize, open.count)
        } else {
            FrameWriter::begin(out, KIND_PUSH, 0, 0)
        };
        put_op(out, notice.code, 0, notice.body);
        frame.add(1);
        let at = out.len() - frame.len(out);
        let (at, end, count) = (at as u32, out.len() as u32, frame.count());
        *place = Packing { conn: Some(conn), turn, at, end, count };
        frame.finish(out);
    }
}

/// The unit of `Conn::frame_pages`.
pub(crate) const PAGE_BYTES: usize = FRAME_BYTES_FLOOR as usize;

const _: () = assert!(FRAME_HEADER_BYTES + OP_HEADER_BYTES + 0x1_0000 <= FRAME_BYTES_MAX);
