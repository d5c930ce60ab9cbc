//! The protocol without the network: ops in, bytes out; bytes in, replies and notices out.
//!
//! The driver moves bytes and nothing else: it writes [`Core::outgoing`], reports how much went
//! with [`Core::sent`], hands what came to [`Core::receive`], and drains [`Core::poll`] before it
//! reads again. No socket, clock or thread is known here.
//!
//! Invariants:
//! - C1  A reply is handed out with the sequence of its request, in the order of the requests, and
//!   holds exactly as many replies as the request held ops; anything else is a [`StreamError`].
//! - C2  No frame is larger than the peer accepts: 4096 bytes until its preface has told more.
//! - C3  After an error the core hands out nothing but that error.
//!
//! Bounds: [`FRAMES_IN_FLIGHT_MAX`] requests wait for replies; incoming bytes are kept until the
//! frame they belong to is whole, at most one frame beyond what the driver handed in.
//! Not here: reconnecting, leases, retries. Tests: below, and over a socket in `blocking`.

use std::collections::VecDeque;
use std::iter::Peekable;

use ringway_coord_proto::wire::{
    FLAG_BARRIER, FRAME_BYTES_FLOOR, FRAME_HEADER_BYTES, FrameHeader, FrameWriter, KIND_PUSH,
    KIND_REPLY, KIND_REQUEST, MAGIC, MAJOR, PREFACE_BYTES, Preface, Reply, next_op, next_reply,
};
use ringway_core::limits::{FRAME_BYTES_MAX, FRAME_OPS_MAX};

use crate::error::{OpError, StreamError};
use crate::notice::Notice;
use crate::op::Op;

/// Requests that may wait for their replies at once.
pub const FRAMES_IN_FLIGHT_MAX: usize = 1024;
/// Read bytes at the front of the inbox that are tolerated before they are moved out.
const COMPACT_BYTES: usize = 64 * 1024;

/// One connection's protocol state.
#[derive(Debug)]
pub struct Core {
    outgoing: Vec<u8>,
    sent: usize,
    incoming: Vec<u8>,
    read: usize,
    pending: VecDeque<Request>,
    next_sequence: u64,
    peer: Option<Preface>,
    failed: Option<StreamError>,
}

/// A request frame that was encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its number; the reply repeats it.
    pub sequence: u64,
    /// Its ops.
    pub count: u16,
}

/// What came.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// The server's preface: it is a Ringway of our major version.
    Ready(Preface),
    /// The replies to one request frame.
    Reply(Request, Replies<'a>),
    /// Notices that nobody asked for.
    Push(Notices),
}

/// The replies of one frame, in the order of its ops.
#[derive(Clone, Debug)]
pub struct Replies<'a> {
    bytes: &'a [u8],
}

impl<'a> Replies<'a> {
    /// Takes the next `count` replies as they came; fewer if there are no more.
    pub fn take_raw(&mut self, count: usize) -> &'a [u8] {
        let whole = self.bytes;
        self.by_ref().take(count).for_each(drop);
        &whole[..whole.len() - self.bytes.len()]
    }
}

impl<'a> Iterator for Replies<'a> {
    type Item = Reply<'a>;

    fn next(&mut self) -> Option<Reply<'a>> {
        next_reply(&mut self.bytes)
    }
}

/// The notices of one push frame.
#[derive(Clone, Debug)]
pub struct Notices {
    parsed: std::vec::IntoIter<Notice>,
}

impl Iterator for Notices {
    type Item = Notice;

    fn next(&mut self) -> Option<Notice> {
        self.parsed.next()
    }
}

impl Default for Core {
    fn default() -> Self {
        Self::new()
    }
}

impl Core {
    /// A new connection; its preface is the first thing to send.
    pub fn new() -> Self {
        Core {
            outgoing: Preface::OURS.encode().to_vec(),
            sent: 0,
            incoming: Vec::new(),
            read: 0,
            pending: VecDeque::new(),
            next_sequence: 1,
            peer: None,
            failed: None,
        }
    }

    /// Takes as many ops as one frame holds and encodes them. `None` when `ops` is empty; call
    /// again until then. An op that cannot be sent stays in `ops`, and the frame before it stands.
    pub fn submit<'a>(
        &mut self,
        ops: &mut Peekable<impl Iterator<Item = Op<'a>>>,
    ) -> Result<Option<Request>, OpError> {
        self.submit_with(0, ops)
    }

    /// As [`Core::submit`], but the server executes the frame only after it has answered all
    /// earlier frames of this connection.
    pub fn submit_barrier<'a>(
        &mut self,
        ops: &mut Peekable<impl Iterator<Item = Op<'a>>>,
    ) -> Result<Option<Request>, OpError> {
        self.submit_with(FLAG_BARRIER, ops)
    }

    /// The next frame has this number; those behind it grow from there. Replies are told by their
    /// frame's number, whatever it is.
    pub fn number_from(&mut self, sequence: u64) {
        self.next_sequence = sequence;
    }

    /// Takes ops that are encoded already, by [`Op::put`], as one frame. `body` holds `count` of
    /// them.
    ///
    /// # Panics
    /// If they are more than the peer takes in one frame: the caller has asked
    /// [`Core::frame_bytes_max`].
    pub fn submit_encoded(&mut self, body: &[u8], count: u16) -> Request {
        let bytes = FRAME_HEADER_BYTES + body.len();
        assert!(bytes <= self.frame_bytes_max() && usize::from(count) <= FRAME_OPS_MAX);
        let request = Request { sequence: self.next_sequence, count };
        let mut frame = FrameWriter::begin(&mut self.outgoing, KIND_REQUEST, 0, self.next_sequence);
        self.outgoing.extend_from_slice(body);
        frame.add(count);
        frame.finish(&mut self.outgoing);
        self.next_sequence += 1;
        self.pending.push_back(request);
        request
    }

    fn submit_with<'a>(
        &mut self,
        flags: u8,
        ops: &mut Peekable<impl Iterator<Item = Op<'a>>>,
    ) -> Result<Option<Request>, OpError> {
        let Some(first) = ops.peek() else { return Ok(None) };
        first.check()?;
        if self.pending.len() >= FRAMES_IN_FLIGHT_MAX {
            return Err(OpError::Backlog(self.pending.len()));
        }
        let most = self.frame_bytes_max();
        let sequence = self.next_sequence;
        let mut frame = FrameWriter::begin(&mut self.outgoing, KIND_REQUEST, flags, sequence);
        let mut payload = None;
        while let Some(op) = ops.peek() {
            let op = &elide(*op, &mut payload);
            let fits = frame.len(&self.outgoing) + op.encoded_len() <= most
                && usize::from(frame.count()) < FRAME_OPS_MAX;
            // A bad op behind good ones is reported when it comes first in a frame of its own.
            if !fits || op.put(&mut self.outgoing).is_err() {
                break;
            }
            frame.add(1);
            ops.next();
        }
        let request = Request { sequence, count: frame.count() };
        frame.finish(&mut self.outgoing);
        self.next_sequence += 1;
        self.pending.push_back(request);
        Ok(Some(request))
    }

    /// The largest frame that the peer is known to accept.
    pub fn frame_bytes_max(&self) -> usize {
        let stated = self.peer.map_or(FRAME_BYTES_FLOOR, |peer| peer.frame_bytes_max);
        (stated as usize).min(FRAME_BYTES_MAX)
    }

    /// The server's preface, once it has come.
    pub fn peer(&self) -> Option<&Preface> {
        self.peer.as_ref()
    }

    /// Requests that wait for their replies.
    pub fn in_flight(&self) -> usize {
        self.pending.len()
    }

    /// Bytes to be written to the server.
    pub fn outgoing(&self) -> &[u8] {
        &self.outgoing[self.sent..]
    }

    /// `bytes` more of [`Core::outgoing`] have been written.
    ///
    /// # Panics
    /// If more is reported than there was.
    pub fn sent(&mut self, bytes: usize) {
        self.sent += bytes;
        assert!(self.sent <= self.outgoing.len(), "more was sent than there was");
        if self.sent == self.outgoing.len() {
            self.outgoing.clear();
            self.sent = 0;
        }
    }

    /// Hands in bytes that came from the server. Drain [`Core::poll`] afterwards.
    pub fn receive(&mut self, bytes: &[u8]) {
        if self.read == self.incoming.len() || self.read > COMPACT_BYTES {
            self.incoming.drain(..self.read);
            self.read = 0;
        }
        self.incoming.extend_from_slice(bytes);
    }

    /// The next thing that came whole; `None` asks for more bytes.
    pub fn poll(&mut self) -> Result<Option<Event<'_>>, StreamError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        match self.take() {
            Ok(None) => Ok(None),
            Ok(Some(Taken::Preface(preface))) => Ok(Some(Event::Ready(preface))),
            Ok(Some(Taken::Reply(request, from, to))) => {
                Ok(Some(Event::Reply(request, Replies { bytes: &self.incoming[from..to] })))
            }
            Ok(Some(Taken::Push(notices))) => {
                Ok(Some(Event::Push(Notices { parsed: notices.into_iter() })))
            }
            Err(error) => {
                self.failed = Some(error);
                Err(error)
            }
        }
    }

    fn take(&mut self) -> Result<Option<Taken>, StreamError> {
        let rest = &self.incoming[self.read..];
        if self.peer.is_none() {
            return self.take_preface();
        }
        let Some(header) = FrameHeader::parse(rest).map_err(StreamError::Frame)? else {
            return Ok(None);
        };
        let Some(frame) = rest.get(..header.len) else { return Ok(None) };
        let body = &frame[FRAME_HEADER_BYTES..];
        let (from, to) = (self.read + FRAME_HEADER_BYTES, self.read + header.len);
        let taken = match header.kind {
            KIND_REPLY => {
                check_replies(body, header.count)?;
                Taken::Reply(self.match_request(header)?, from, to)
            }
            KIND_PUSH => Taken::Push(parse_notices(body, header.count)?),
            _ => return Err(StreamError::Request),
        };
        self.read = to;
        Ok(Some(taken))
    }

    fn take_preface(&mut self) -> Result<Option<Taken>, StreamError> {
        let rest = &self.incoming[self.read..];
        // The first byte alone tells another service, which may never send sixteen.
        if rest.first().is_some_and(|first| *first != MAGIC) {
            return Err(StreamError::NotRingway);
        }
        let Some((bytes, _)) = rest.split_first_chunk::<PREFACE_BYTES>() else { return Ok(None) };
        let preface = Preface::parse(bytes).ok_or(StreamError::NotRingway)?;
        if preface.major != MAJOR {
            return Err(StreamError::Version(preface.major));
        }
        self.peer = Some(preface);
        self.read += PREFACE_BYTES;
        Ok(Some(Taken::Preface(preface)))
    }

    fn match_request(&mut self, header: FrameHeader) -> Result<Request, StreamError> {
        let due = self.pending.front().map_or(0, |request| request.sequence);
        let Some(request) = self.pending.pop_front_if(|due| due.sequence == header.sequence) else {
            return Err(StreamError::OutOfOrder { got: header.sequence, due });
        };
        if request.count != header.count {
            return Err(StreamError::Count { got: header.count, due: request.count });
        }
        Ok(request)
    }
}

/// A SEND without its payload if the op before it in the frame has sent the same.
fn elide<'a>(op: Op<'a>, payload: &mut Option<&'a [u8]>) -> Op<'a> {
    let before = payload.take();
    let Op::Send { letter, .. } = op else { return op };
    *payload = Some(letter.payload);
    Op::Send { letter, same: before == Some(letter.payload) }
}

/// What `take` found; replies as a range, so that the inbox is borrowed after its last change.
enum Taken {
    Preface(Preface),
    Reply(Request, usize, usize),
    Push(Vec<Notice>),
}

fn check_replies(mut body: &[u8], count: u16) -> Result<(), StreamError> {
    for _ in 0..count {
        next_reply(&mut body).ok_or(StreamError::Body)?;
    }
    if body.is_empty() { Ok(()) } else { Err(StreamError::Body) }
}

fn parse_notices(mut body: &[u8], count: u16) -> Result<Vec<Notice>, StreamError> {
    // An empty-bodied push is how a server reports a broken stream (section 2).
    if body.is_empty() {
        return Err(StreamError::Reported);
    }
    let mut notices = Vec::with_capacity(usize::from(count));
    for _ in 0..count {
        notices.push(next_op(&mut body).and_then(Notice::parse).ok_or(StreamError::Body)?);
    }
    if body.is_empty() { Ok(notices) } else { Err(StreamError::Body) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use ringway_coord_proto::wire::{push, put_op, put_owner, status};
    use ringway_core::{SessionId, Token};

    fn reply_frame(sequence: u64, count: u16, body: &[u8]) -> Vec<u8> {
        let mut out = vec![];
        let mut frame = FrameWriter::begin(&mut out, KIND_REPLY, 0, sequence);
        out.extend_from_slice(body);
        frame.add(count);
        frame.finish(&mut out);
        out
    }

    fn ready_core() -> Core {
        let mut core = Core::new();
        core.receive(&Preface::OURS.encode());
        assert!(matches!(core.poll(), Ok(Some(Event::Ready(_)))));
        let preface = core.outgoing().len();
        core.sent(preface);
        core
    }

    fn submit_queries(core: &mut Core, names: usize) -> Vec<Request> {
        let mut ops = (0..names).map(|_| Op::Query(b"sixteen bytes ok")).peekable();
        let mut requests = vec![];
        while let Some(request) = core.submit(&mut ops).expect("valid") {
            requests.push(request);
        }
        requests
    }

    /// A batch larger than a frame becomes several; none exceeds 4096 ops.
    #[test]
    fn batches_split_by_count() {
        let mut core = ready_core();
        let counts: Vec<_> = submit_queries(&mut core, 10_000).iter().map(|r| r.count).collect();
        assert_eq!(counts, [4096, 4096, 1808]);
    }

    /// Until the server has told what it accepts, frames stay at the smallest allowed maximum.
    #[test]
    fn batches_split_by_bytes() {
        let mut core = Core::new();
        let before = core.outgoing().len();
        let counts: Vec<_> = submit_queries(&mut core, 300).iter().map(|r| r.count).collect();
        assert_eq!(counts, [204, 96], "204 ops of 20 bytes and a header are 4096 bytes");
        assert_eq!(core.outgoing().len() - before, 2 * 16 + 300 * 20);

        let mut core = ready_core();
        let name = [b'n'; 255];
        let mut ops = std::iter::repeat_n(Op::Query(&name), 1500).peekable();
        let first = core.submit(&mut ops).expect("valid").expect("a frame");
        assert_eq!(usize::from(first.count), (FRAME_BYTES_MAX - 16) / 259);
        assert!(core.outgoing().len() <= FRAME_BYTES_MAX);
    }

    /// A bad op in the middle of a batch is reported; what stood before it is sent as it is.
    #[test]
    fn a_bad_op_does_not_spoil_the_frame_before_it() {
        let mut core = ready_core();
        let mut ops = [Op::Query(b"good"), Op::Query(b"")].into_iter().peekable();
        assert_eq!(core.submit(&mut ops), Ok(Some(Request { sequence: 1, count: 1 })));
        assert_eq!(core.submit(&mut ops), Err(OpError::Name(0)));
        assert_eq!(core.in_flight(), 1);
    }

    /// One payload to many names crosses the wire once a frame, and each frame has its own copy.
    #[test]
    fn a_payload_is_sent_once_a_frame() {
        let mut core = ready_core();
        let payload = vec![7; 30_000];
        let letter = |name| {
            let target = crate::op::Target::Name(name);
            let letter =
                crate::op::Letter { target, fence: None, receipt: false, payload: &payload };
            Op::Send { letter, same: false }
        };
        let mut ops = vec![letter(b"a"); 5000].into_iter().peekable();
        while core.submit(&mut ops).expect("valid").is_some() {}
        assert_eq!(core.in_flight(), 2);
        let headers = 2 * FRAME_HEADER_BYTES + 5000 * (4 + 2);
        assert_eq!(core.outgoing().len(), headers + 2 * payload.len());
    }

    /// A reply to the wrong frame, or with the wrong number of replies, would give one name's
    /// owner to another. Both end the connection, for good.
    #[test]
    fn mismatched_replies_end_the_connection() {
        let mut core = ready_core();
        submit_queries(&mut core, 1);
        core.receive(&reply_frame(2, 1, &[status::FREE]));
        let error = StreamError::OutOfOrder { got: 2, due: 1 };
        assert_eq!(core.poll().err(), Some(error));
        core.receive(&reply_frame(1, 1, &[status::FREE]));
        assert_eq!(core.poll().err(), Some(error), "C3");

        let mut core = ready_core();
        submit_queries(&mut core, 2);
        core.receive(&reply_frame(1, 1, &[status::FREE]));
        assert_eq!(core.poll().err(), Some(StreamError::Count { got: 1, due: 2 }));

        let mut core = ready_core();
        submit_queries(&mut core, 1);
        core.receive(&reply_frame(1, 1, &[status::FREE, status::FREE]));
        assert_eq!(core.poll().err(), Some(StreamError::Body));
    }

    /// Redis, a web server, or a Ringway of another time: each is told by name.
    #[test]
    fn other_servers_are_recognised() {
        let mut core = Core::new();
        core.receive(b"-");
        assert_eq!(core.poll().err(), Some(StreamError::NotRingway));
        let mut core = Core::new();
        core.receive(&Preface { major: 2, ..Preface::OURS }.encode());
        assert_eq!(core.poll().err(), Some(StreamError::Version(2)));
    }

    /// What a stream says, as text, so that two ways of cutting it can be compared.
    fn transcript(core: &mut Core, chunks: &[&[u8]]) -> Vec<String> {
        let mut said = vec![];
        for chunk in chunks {
            core.receive(chunk);
            while let Some(event) = core.poll().expect("a good stream") {
                said.push(match event {
                    Event::Ready(preface) => format!("{preface:?}"),
                    Event::Reply(request, replies) => {
                        format!("{request:?} {:?}", replies.collect::<Vec<_>>())
                    }
                    Event::Push(notices) => format!("{:?}", notices.collect::<Vec<_>>()),
                });
            }
        }
        said
    }

    fn stream() -> Vec<u8> {
        let mut body = vec![status::FREE];
        put_owner(&mut body, status::OWNED_EPHEMERAL, SessionId(5), Token(6));
        let mut bytes = Preface::OURS.encode().to_vec();
        bytes.extend_from_slice(&reply_frame(1, 2, &body));
        let mut push_frame = vec![];
        let mut frame = FrameWriter::begin(&mut push_frame, KIND_PUSH, 0, 0);
        put_op(&mut push_frame, push::SESSION_ENDED, 0, &[5, 0, 0, 0, 0, 0, 0, 0, 1]);
        frame.add(1);
        frame.finish(&mut push_frame);
        bytes.extend_from_slice(&push_frame);
        bytes.extend_from_slice(&reply_frame(2, 2, &body));
        bytes
    }

    proptest! {
        /// TCP may cut anywhere; what is read does not depend on where.
        #[test]
        fn any_split_reads_the_same(cuts in proptest::collection::vec(0usize..200, 0..12)) {
            let bytes = stream();
            let core = || {
                let mut core = Core::new();
                submit_queries(&mut core, 2);
                submit_queries(&mut core, 2);
                core
            };
            let whole = transcript(&mut core(), &[&bytes]);
            prop_assert_eq!(whole.len(), 4);
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut % bytes.len()).collect();
            cuts.push(0);
            cuts.push(bytes.len());
            cuts.sort_unstable();
            let chunks: Vec<_> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            prop_assert_eq!(transcript(&mut core(), &chunks), whole);
        }

        /// Nothing a server sends can crash us or make us loop.
        #[test]
        fn noise_never_panics(noise in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut core = ready_core();
            submit_queries(&mut core, 3);
            core.receive(&noise);
            for _ in 0..=noise.len() {
                match core.poll() {
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => break,
                }
            }
        }
    }
}
