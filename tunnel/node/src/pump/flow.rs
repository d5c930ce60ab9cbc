//! A user's connection and its flow, at one end.
//!
//! What always holds:
//! - F1  `held` is in order before all that comes later: while something is held for the decoder,
//!   what comes is appended to it.
//! - F2  Text is decoded no further than 256 KiB and a block ahead of an application that does not
//!   read; and once what the shard holds has reached its memory, no further than 16 KiB and a
//!   block.
//!
//! Bounds: `held` has at most a head, or what the flow's window let through. Not here: which stage
//! follows which (`desk.rs` for the far side, the pump itself for the near one).

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use ringway_core::{ConnId, Moment};
use ringway_shards::Io;
use ringway_tunnel_coding::{Coder, Decoder, Malformed};
use ringway_tunnel_proto::{BondId, FlowId, Meter, Opening, PeerId, Target};

use super::pending::Pending;
use super::rate::Way;

/// Text that is decoded ahead of an application that does not read it.
const TEXT_AHEAD_MAX: usize = 256 * 1024;
/// The same while there is no memory for it: an application that reads goes on.
const TEXT_AHEAD_LEAST: usize = 16 * 1024;

/// A flow of this shard, by its place.
pub(crate) type FlowKey = u32;

/// What the application expects to hear about how its connection goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speaks {
    /// Nothing: it believes to be connected already.
    Nothing,
    /// A reply of SOCKS5.
    Socks,
    /// A response to CONNECT.
    Connect,
}

/// How far a flow has come.
#[derive(Debug)]
pub(crate) enum Stage {
    /// Near: the application says where it wants to.
    Greeting,
    /// Near: likewise, its second word.
    Request,
    /// Near: no session to the peer can be used; what the flow will begin with.
    Waiting(Box<Opening>),
    /// Near: it is opened, and what the far side says first has not come.
    Asked,
    /// Far: where it is to go is not whole.
    Opening,
    /// Far: a name is being resolved.
    Resolving(Sought),
    /// Far: the service is being connected to; addresses to try after this one.
    Connecting(VecDeque<SocketAddr>),
    /// Bytes go through.
    Joined,
    /// The session has no more of it; its application has not read all.
    Leaving,
}

/// A name that is being resolved for a flow.
#[derive(Debug)]
pub(crate) struct Sought {
    pub(crate) target: Target,
    pub(crate) named_by: NamedBy,
    /// Its question counts as long as this is here.
    pub(crate) _wanted: Arc<()>,
}

/// Whose word a name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NamedBy {
    /// Our own configuration's: a service is there, and no rule is asked about its addresses.
    Service,
    /// The peer's: each address has to be allowed.
    Peer,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Flow {
    pub(crate) key: FlowKey,
    pub(crate) peer: PeerId,
    pub(crate) conn: Option<ConnId>,
    pub(crate) place: Option<(BondId, FlowId)>,
    pub(crate) stage: Stage,
    pub(crate) speaks: Speaks,
    /// What came before it could go anywhere. At most a head, or a first window.
    pub(crate) held: Pending,
    /// Since when it waits for a session, if it does.
    pub(crate) waits_since: Option<Moment>,
    /// The application will write nothing more.
    pub(crate) ended_here: bool,
    /// The other side's application will not, either; all that it wrote was delivered.
    pub(crate) ended_there: bool,
    /// The connection is to be told of who connects, before anything else.
    pub(crate) proxy: bool,
    /// Who connects.
    pub(crate) from: Option<SocketAddr>,
    /// The service's address.
    pub(crate) to: Option<SocketAddr>,
    /// Where to, in words.
    pub(crate) target: String,
    pub(crate) coder: Option<Box<Coder>>,
    pub(crate) decoder: Option<Box<Decoder>>,
    pub(crate) began: Moment,
    /// Bytes that its application has still to read, after it has left its session.
    pub(crate) left: u64,
    /// By [`Way`]: bytes from our application, and to it. [`super::own::Own::count`] counts them.
    pub(crate) meter: Meter,
    /// What compression saved, as far as its peer's tally has it.
    pub(crate) saved_counted: i64,
    /// In the list of those whose application got something in this turn.
    pub(crate) touched: bool,
    /// By [`Way`]: its place in the line of those who wait until their peer's rate allows more.
    /// While it has one our application is not read, or the peer gets no more room.
    pub(crate) shut: [Option<u64>; 2],
    /// Not read because its carriers or its other end are behind.
    pub(crate) blocked: bool,
    /// A run of the coder is open.
    pub(crate) run: bool,
}

impl Flow {
    pub(crate) fn new(key: FlowKey, peer: PeerId, stage: Stage, now: Moment) -> Flow {
        Flow {
            key,
            peer,
            conn: None,
            place: None,
            stage,
            speaks: Speaks::Nothing,
            held: Pending::default(),
            waits_since: None,
            ended_here: false,
            ended_there: false,
            proxy: false,
            from: None,
            to: None,
            target: String::new(),
            coder: None,
            decoder: None,
            began: now,
            left: 0,
            meter: Meter::new(now),
            saved_counted: 0,
            touched: false,
            shut: [None; 2],
            blocked: false,
            run: false,
        }
    }

    /// Gives text to the application, until it is behind; carried bytes beyond that are held: what
    /// they would become may be 250 times as much. Returns how many bytes of text it was given.
    pub(crate) fn decode(
        &mut self,
        conn: ConnId,
        mut carried: &[u8],
        (room, io): (&mut u64, &mut Io<'_>),
    ) -> Result<u64, Malformed> {
        let Some(decoder) = self.decoder.as_deref_mut() else { return Ok(0) };
        let given = decode_until_behind(decoder, &mut carried, room, reader(conn, io))?;
        self.held.extend_from_slice(carried);
        Ok(given)
    }

    /// Likewise, of what is held.
    pub(crate) fn decode_held(
        &mut self,
        conn: ConnId,
        (room, io): (&mut u64, &mut Io<'_>),
    ) -> Result<u64, Malformed> {
        let Some(decoder) = self.decoder.as_deref_mut() else { return Ok(0) };
        let mut carried = &self.held[..];
        let given = decode_until_behind(decoder, &mut carried, room, reader(conn, io))?;
        let taken = self.held.len() - carried.len();
        self.held.take(taken);
        Ok(given)
    }

    /// Bytes that the tunnel did not have to carry, both ways; below zero if heads cost more.
    pub(crate) fn saved(&self) -> i64 {
        let coder = self.coder.iter().map(|coder| coder.counters().saved());
        coder.chain(self.decoder.iter().map(|decoder| decoder.counters().saved())).sum()
    }

    /// Whether a way is shut by its peer's rate.
    pub(crate) fn is_shut(&self, way: Way) -> bool {
        self.shut[way as usize].is_some()
    }

    /// Whether any way is.
    pub(crate) fn is_throttled(&self) -> bool {
        Way::BOTH.into_iter().any(|way| self.is_shut(way))
    }

    /// Whether our application may be read.
    pub(crate) fn may_read(&self) -> bool {
        !self.blocked && !self.is_shut(Way::ToPeer)
    }

    /// Whether carried bytes wait to be decoded.
    pub(crate) fn has_held_text(&self) -> bool {
        self.decoder.is_some() && !self.held.is_empty() && self.is_answered()
    }

    /// Whether the stream ends where it cannot.
    pub(crate) fn is_cut(&self) -> bool {
        self.decoder.as_ref().is_some_and(|decoder| decoder.end().is_err())
    }

    /// Whether the near side's application was told, or believes, that it is connected.
    pub(crate) fn is_answered(&self) -> bool {
        matches!(self.stage, Stage::Joined | Stage::Leaving)
    }
}

/// Gives text to an application, and says how much it has not read.
fn reader(conn: ConnId, io: &mut Io<'_>) -> impl FnMut(&[u8]) -> usize {
    move |text| {
        io.out(conn).extend_from_slice(text);
        io.backlog(conn)
    }
}

/// Decodes from the front of what was carried until its application is behind, or nothing is left.
/// What was not compressed waits for nobody: it would take as much room here.
/// `room` is what the shard may hold more.
fn decode_until_behind(
    decoder: &mut Decoder,
    carried: &mut &[u8],
    room: &mut u64,
    mut give: impl FnMut(&[u8]) -> usize,
) -> Result<u64, Malformed> {
    let (mut given, mut unread) = (0, give(&[]));
    loop {
        let behind = unread >= if *room > 0 { TEXT_AHEAD_MAX } else { TEXT_AHEAD_LEAST };
        let next = if behind { decoder.next_stored(carried) } else { decoder.next(carried) };
        let Some(text) = next? else { break };
        unread = give(text);
        given += text.len() as u64;
        *room = room.saturating_sub(text.len() as u64);
    }
    Ok(given)
}

#[cfg(test)]
mod tests {
    use ringway_tunnel_coding::Mode;

    use super::*;

    /// A kilobyte that becomes a quarter of a megabyte, for each of many applications that do not
    /// read: together they get what there is room for, and then a block each. One that reads gets
    /// all of it, room or not.
    #[test]
    fn text_is_decoded_as_far_as_there_is_memory() {
        const BLOCK: usize = 64 * 1024;
        const ROOM: usize = 4 << 20;
        const FLOWS: usize = 1000;
        let mut carried = Vec::new();
        let zeros = vec![0; BLOCK];
        let mut coder = Coder::new(Mode::Auto);
        (0..16).for_each(|_| coder.encode(&zeros, true, &mut carried));
        let (mut room, mut unread) = (ROOM as u64, 0);
        for _ in 0..FLOWS {
            let (mut held, mut backlog) = (&carried[..], 0);
            let given = decode_until_behind(&mut Decoder::new(), &mut held, &mut room, |text| {
                backlog += text.len();
                backlog
            });
            assert_eq!(given.expect("what our coder wrote"), backlog as u64);
            assert!((BLOCK..=TEXT_AHEAD_MAX).contains(&backlog), "{backlog}");
            unread += backlog;
        }
        assert!(unread <= ROOM + TEXT_AHEAD_MAX + FLOWS * BLOCK, "{unread} bytes");
        assert_eq!(room, 0);
        let mut held = &carried[..];
        let read = decode_until_behind(&mut Decoder::new(), &mut held, &mut room, |_| 0);
        assert_eq!((read.expect("it is good"), held.len()), (16 * BLOCK as u64, 0));
    }

    /// What was stored is given to who is behind, up to what was compressed.
    #[test]
    fn stored_text_waits_for_nobody() {
        let (mut stored, mut carried) = (Vec::new(), Vec::new());
        Coder::new(Mode::Off).encode(&vec![7; 1 << 20], false, &mut stored);
        Coder::new(Mode::Auto).encode(&vec![7; 1 << 20], false, &mut carried);
        let all = [&stored[..], &carried[..]].concat();
        let (mut held, mut decoder) = (&all[..], Decoder::new());
        let given = decode_until_behind(&mut decoder, &mut held, &mut 0, |_| usize::MAX);
        assert_eq!(given.expect("what our coder wrote"), 1 << 20);
        assert!(!held.is_empty() && held.len() <= carried.len());
        let given = decode_until_behind(&mut decoder, &mut held, &mut 0, |_| 0);
        assert_eq!((given.expect("it goes on"), held.len()), (1 << 20, 0));
    }
}
