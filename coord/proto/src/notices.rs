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
//! Bounds: a connection that leaves more than [`NOTICE_BYTES_MAX`] unread is closed; no mail is
//! longer than [`MESSAGE_BYTES`] and one notice.
//! Not here: what notices say (`waiting`). Tests: `tests/waiting.rs`.

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
use crate::shard::Shard;
use crate::wire::{
    FRAME_BYTES_FLOOR, FRAME_HEADER_BYTES, FrameWriter, KIND_PUSH, OP_HEADER_BYTES, put_op,
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
    /// Nothing, for any of `shards` shards, in mails of one kind.
    pub(crate) fn new(shards: usize, kind: u8) -> Self {
        Self { of: (0..shards).map(|_| Bundle::default()).collect(), open: 0, kind }
    }

    /// Where the next notice for a shard goes.
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
        let out = self.begin(to.handle.home());
        mail::put_bound(out, Some(to));
        put_notice(out, code, put);
    }

    /// A notice for a connection of a shard.
    fn add_for_conn(&mut self, to: (ShardId, ConnId), notice: &Notice<'_>) {
        let out = self.begin(to.0);
        out.put_u32(to.1.index);
        out.put_u32(to.1.generation);
        put_notice(out, notice.code, |out| out.extend_from_slice(notice.body));
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

fn put_notice(out: &mut Vec<u8>, code: u8, put: impl FnOnce(&mut Vec<u8>)) {
    out.put_u8(code);
    let at = out.len();
    out.put_u16(0);
    put(out);
    let len = (out.len() - at - 2) as u16;
    out[at..at + 2].copy_from_slice(&len.to_le_bytes());
}

/// One notice as it travels.
struct Notice<'a> {
    code: u8,
    body: &'a [u8],
}

fn notice<'a>(reader: &mut Reader<'a>) -> Result<Notice<'a>, Truncated> {
    let code = reader.u8()?;
    let len = reader.u16()?;
    Ok(Notice { code, body: reader.bytes(usize::from(len))? })
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
        if !self.names.notices.is_empty() {
            self.send_all_notices(env);
        }
    }

    fn send_all_notices(&mut self, env: &mut impl Env) {
        while let Some((home, bundle)) = self.names.notices.take() {
            for mail in bundle.mails() {
                if home == self.id() {
                    let mut reader = Reader::new(&mail[1..]);
                    self.take_notices(&mut reader, env).expect("written by `Bundles`");
                } else {
                    env.post(home, mail);
                }
            }
            self.names.notices.give(home, bundle);
        }
    }

    /// Notices for sessions whose home is here: on to their connections.
    pub(crate) fn take_notices(
        &mut self,
        reader: &mut Reader<'_>,
        env: &mut impl Env,
    ) -> Result<(), Truncated> {
        while !reader.is_empty() {
            let to = mail::session(reader)?;
            let notice = notice(reader)?;
            match self.sessions.receiver(to) {
                Some(conn) if conn.shard == self.id() => self.notify(conn.conn, &notice, env),
                Some(conn) => self.pushes.add_for_conn((conn.shard, conn.conn), &notice),
                None => self.stats.notices_away += 1,
            }
        }
        while let Some((shard, bundle)) = self.pushes.take() {
            bundle.mails().for_each(|mail| env.post(shard, mail));
            self.pushes.give(shard, bundle);
        }
        Ok(())
    }

    /// Notices for connections of this shard.
    pub(crate) fn take_pushes(
        &mut self,
        reader: &mut Reader<'_>,
        env: &mut impl Env,
    ) -> Result<(), Truncated> {
        while !reader.is_empty() {
            let conn = ConnId { index: reader.u32()?, generation: reader.u32()? };
            let notice = notice(reader)?;
            self.notify(conn, &notice, env);
        }
        Ok(())
    }

    /// Tells a connection of this shard.
    fn notify(&mut self, conn: ConnId, notice: &Notice<'_>, env: &mut impl Env) {
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
    fn pack(&mut self, conn: ConnId, notice: &Notice<'_>, env: &mut impl Env) {
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
const PAGE_BYTES: usize = FRAME_BYTES_FLOOR as usize;

const _: () = assert!(FRAME_HEADER_BYTES + OP_HEADER_BYTES + 0x1_0000 <= FRAME_BYTES_MAX);
