//! What a record says: frames, one after the other.
//!
//! A frame is `kind u8 | length | body`. Numbers are variable-length integers of RFC 9000, section
//! 16, but for what is said otherwise. A kind whose highest bit is set may be skipped by who does
//! not know it; another unknown kind is an error, because it might matter.
//!
//! ```text
//! 00 PAD           anything; ignored
//! 01 PING          token u64, little-endian: answer on this carrier
//! 02 PONG          token u64
//! 03 LEAVE         nothing: no more records come on this carrier from here
//! 04 REKEY         epoch u32, little-endian, an X25519 key: an offer, or the answer to one
//! 05 KEYS          epoch u32: the next record of this carrier is under that epoch
//! 08 RESET         flow, code: the flow is over, what is on its way is dropped
//! 09 DONE          flow: I know nothing of it any more, and want nothing
//! 0a ACK           flow, below, credit, then up to 32 times (gap, length)
//! 10 STREAM        flow, offset, bytes to the end of the frame
//! 11 STREAM + end  the same, and the stream ends behind these bytes
//! 20 WANTED        floor, wait: report packets from number `floor` on, within `wait` nanoseconds
//! 21 REPORT        which packets have come (`path/report.rs`)
//! a0 DATAGRAM      channel, bytes to the end of the frame: not sent again
//! ```
//!
//! Positions of a stream are its byte offsets; its end takes one position more, so that it is sent,
//! acknowledged and lost like a byte. Every number is absolute: a frame may come twice, late, or in
//! another order, and says the same.
//!
//! Bounds: reading takes no memory and constant time a frame; an ACK has at most
//! [`ACK_RANGES_MAX`] ranges.

use alloc::vec::Vec;

use ringway_core::wire::{Reader, Truncated};

use crate::epochs::Exchange;
use crate::path::Report;

/// A flow of a session: even numbers are opened by the session's initiator, odd ones by its
/// responder; each side counts up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowId(pub u64);

/// Why a flow was reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ResetCode {
    /// The application's connection broke.
    Broken = 0,
    /// The other agent knows nothing of this flow: it was started anew.
    Gone = 1,
    /// The target may not be reached from here, by configuration.
    Denied = 2,
    /// The target's host or network cannot be reached.
    Unreachable = 3,
    /// The target refused the connection.
    Refused = 4,
    /// The target did not answer in time.
    TimedOut = 5,
    /// The target's name does not resolve.
    NoSuchName = 6,
    /// As many flows as may be are open.
    Busy = 7,
    /// What the other agent said of this flow makes no sense.
    Protocol = 8,
}

impl ResetCode {
    /// All of them, by number.
    pub const ALL: [ResetCode; 9] = [
        ResetCode::Broken,
        ResetCode::Gone,
        ResetCode::Denied,
        ResetCode::Unreachable,
        ResetCode::Refused,
        ResetCode::TimedOut,
        ResetCode::NoSuchName,
        ResetCode::Busy,
        ResetCode::Protocol,
    ];

    /// A code of a later version reads as [`ResetCode::Broken`].
    fn from_wire(number: u64) -> ResetCode {
        let known = usize::try_from(number).ok().and_then(|at| ResetCode::ALL.get(at));
        known.copied().unwrap_or(ResetCode::Broken)
    }
}

/// What a receiver has of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack<'a> {
    /// It has every position below this one.
    pub below: u64,
    /// It takes bytes up to this offset.
    pub credit: u64,
    ranges: &'a [u8],
}

/// Ranges of an ACK that are written and read, at most. What is not named is not lost by that.
pub(crate) const ACK_RANGES_MAX: usize = 32;

impl Ack<'_> {
    /// Positions above `below` that it has, as start and end, ascending and apart.
    pub fn ranges(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let mut reader = Reader::new(self.ranges);
        let mut at = self.below;
        core::iter::from_fn(move || {
            let (gap, len) = (varint(&mut reader).ok()?, varint(&mut reader).ok()?);
            let start = at.checked_add(gap)?;
            at = start.checked_add(len)?;
            Some((start, at))
        })
    }
}

/// One frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// To be answered by the same token on the same carrier.
    Ping {
        /// Any number.
        token: u64,
    },
    /// The answer.
    Pong {
        /// The ping's.
        token: u64,
    },
    /// No more records come on this carrier.
    Leave,
    /// An offer of the next epoch, or the answer to one.
    Rekey(Exchange),
    /// The next record of this carrier is under this epoch.
    Keys {
        /// Its number.
        epoch: u32,
    },
    /// The flow is over.
    Reset {
        /// Which.
        flow: FlowId,
        /// Why.
        code: ResetCode,
    },
    /// The sender knows nothing of the flow any more.
    Done {
        /// Which.
        flow: FlowId,
    },
    /// What the sender has of a stream.
    Ack {
        /// Of which flow.
        flow: FlowId,
        /// What.
        ack: Ack<'a>,
    },
    /// A piece of a stream.
    Stream {
        /// Of which flow.
        flow: FlowId,
        /// Where its first byte stands.
        offset: u64,
        /// The bytes; there may be none if the stream ends here.
        bytes: &'a [u8],
        /// The stream ends behind them.
        fin: bool,
    },
    /// How packets of the carrier are to be reported.
    Wanted {
        /// From this number on.
        floor: u64,
        /// Not later than this after they came, in nanoseconds.
        wait: u64,
    },
    /// Which packets of the carrier have come.
    Report(Report<'a>),
    /// What is not sent again.
    Datagram {
        /// Whose it is.
        channel: u64,
        /// All of it.
        bytes: &'a [u8],
    },
}

/// A record is not made of frames. The agents do not understand each other: the carrier is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl From<Truncated> for Malformed {
    fn from(Truncated: Truncated) -> Self {
        Malformed
    }
}

pub(crate) const PAD: u8 = 0x00;
const PING: u8 = 0x01;
const PONG: u8 = 0x02;
const LEAVE: u8 = 0x03;
const REKEY: u8 = 0x04;
const KEYS: u8 = 0x05;
const RESET: u8 = 0x08;
const DONE: u8 = 0x09;
const ACK: u8 = 0x0a;
const STREAM: u8 = 0x10;
const STREAM_FIN: u8 = 0x11;
const WANTED: u8 = 0x20;
const REPORT: u8 = 0x21;
const DATAGRAM: u8 = 0xa0;
/// Kinds with this bit may be skipped.
pub(crate) const IGNORABLE: u8 = 0x80;

/// The largest number that can be written.
pub(crate) const VARINT_MAX: u64 = (1 << 62) - 1;
/// Bytes before the bytes of a STREAM frame, at most: kind, length, flow, offset.
pub(crate) const STREAM_HEAD_MAX: usize = 1 + 4 + 8 + 8;
/// Bytes of a WANTED, at most.
pub(crate) const WANTED_MAX: usize = 2 + 8 + 8;
/// Bytes of a REKEY frame.
pub(crate) const REKEY_BYTES: usize = 2 + 4 + 32;
/// Bytes of a REPORT before its body, at most.
pub(crate) const REPORT_HEAD_MAX: usize = 1 + 4;
/// Bytes of a PAD before its body, at most.
pub(crate) const PAD_HEAD_MAX: usize = 1 + 4;
/// Bytes before the bytes of a DATAGRAM, at most: kind, length, channel.
pub(crate) const DATAGRAM_HEAD_MAX: usize = 1 + 2 + 8;
/// Bytes of a PING.
pub(crate) const PING_BYTES: usize = 10;
/// Bytes of any other frame that is written, at most.
pub(crate) const CONTROL_FRAME_MAX: usize = 1 + 4 + 3 * 8 + ACK_RANGES_MAX * 2 * 8;

pub(crate) fn varint(reader: &mut Reader<'_>) -> Result<u64, Truncated> {
    let first = reader.u8()?;
    let more = (1usize << (first >> 6)) - 1;
    let rest = reader.bytes(more)?;
    Ok(rest.iter().fold(u64::from(first & 0x3f), |value, byte| value << 8 | u64::from(*byte)))
}

pub(crate) fn put_varint(out: &mut Vec<u8>, value: u64) {
    match value {
        0..0x40 => out.push(value as u8),
        0x40..0x4000 => out.extend_from_slice(&(value as u16 | 0x4000).to_be_bytes()),
        0x4000..0x4000_0000 => out.extend_from_slice(&(value as u32 | 0x8000_0000).to_be_bytes()),
        _ => {
            debug_assert!(value <= VARINT_MAX, "positions are bounded");
            out.extend_from_slice(&(value | 0xc000_0000_0000_0000).to_be_bytes());
        }
    }
}

pub(crate) const fn varint_len(value: u64) -> usize {
    match value {
        0..0x40 => 1,
        0x40..0x4000 => 2,
        0x4000..0x4000_0000 => 4,
        _ => 8,
    }
}

/// The frames of a record's text.
#[derive(Clone, Debug)]
pub struct Frames<'a> {
    reader: Reader<'a>,
}

impl<'a> Frames<'a> {
    /// From the first one on.
    pub const fn new(text: &'a [u8]) -> Self {
        Self { reader: Reader::new(text) }
    }

    /// The next frame that means something; `None` at the end of the text.
    ///
    /// # Errors
    /// [`Malformed`]; the rest means nothing then.
    #[expect(clippy::should_implement_trait, reason = "an iterator would go on after an error")]
    pub fn next(&mut self) -> Result<Option<Frame<'a>>, Malformed> {
        while !self.reader.is_empty() {
            let kind = self.reader.u8()?;
            let len = usize::try_from(varint(&mut self.reader)?).map_err(|_| Malformed)?;
            let body = Reader::new(self.reader.bytes(len)?);
            if let Some(frame) = Self::body(kind, body)? {
                return Ok(Some(frame));
            }
        }
        Ok(None)
    }

    fn body(kind: u8, mut body: Reader<'a>) -> Result<Option<Frame<'a>>, Malformed> {
        let frame = match kind {
            PAD => return Ok(None),
            PING => Frame::Ping { token: body.u64()? },
            PONG => Frame::Pong { token: body.u64()? },
            LEAVE => Frame::Leave,
            REKEY => Frame::Rekey(Exchange { epoch: body.u32()?, public: body.array()? }),
            KEYS => Frame::Keys { epoch: body.u32()? },
            RESET => {
                let flow = FlowId(varint(&mut body)?);
                Frame::Reset { flow, code: ResetCode::from_wire(varint(&mut body)?) }
            }
            DONE => Frame::Done { flow: FlowId(varint(&mut body)?) },
            ACK => {
                let flow = FlowId(varint(&mut body)?);
                let (below, credit) = (varint(&mut body)?, varint(&mut body)?);
                let ack = Ack { below, credit, ranges: ranges(body.rest(), below)? };
                return Ok(Some(Frame::Ack { flow, ack }));
            }
            STREAM | STREAM_FIN => {
                let (flow, offset) = (FlowId(varint(&mut body)?), varint(&mut body)?);
                let (bytes, fin) = (body.rest(), kind == STREAM_FIN);
                let end = offset.checked_add(bytes.len() as u64 + u64::from(fin));
                if end.is_none_or(|end| end > VARINT_MAX) {
                    return Err(Malformed);
                }
                return Ok(Some(Frame::Stream { flow, offset, bytes, fin }));
            }
            WANTED => Frame::Wanted { floor: varint(&mut body)?, wait: varint(&mut body)? },
            DATAGRAM => {
                let channel = varint(&mut body)?;
                return Ok(Some(Frame::Datagram { channel, bytes: body.rest() }));
            }
            REPORT => return Ok(Some(Frame::Report(Report::read(body.rest())?))),
            _ if kind & IGNORABLE != 0 => return Ok(None),
            _ => return Err(Malformed),
        };
        if body.is_empty() { Ok(Some(frame)) } else { Err(Malformed) }
    }
}

/// The ranges of an ACK, checked: whole pairs, none empty, none touching the one before, and none
/// beyond the numbers there are.
fn ranges(bytes: &[u8], below: u64) -> Result<&[u8], Malformed> {
    let mut reader = Reader::new(bytes);
    let mut at = below;
    let mut count = 0;
    while !reader.is_empty() {
        let (gap, len) = (varint(&mut reader)?, varint(&mut reader)?);
        at = at.checked_add(gap).and_then(|at| at.checked_add(len)).ok_or(Malformed)?;
        count += 1;
        if gap == 0 || len == 0 || at > VARINT_MAX || count > ACK_RANGES_MAX {
            return Err(Malformed);
        }
    }
    Ok(bytes)
}

impl Frame<'_> {
    /// Appends the frame to a record's text.
    pub fn write(&self, out: &mut Vec<u8>) {
        match *self {
            Frame::Ping { token } => token_frame(out, PING, token),
            Frame::Pong { token } => token_frame(out, PONG, token),
            Frame::Leave => out.extend_from_slice(&[LEAVE, 0]),
            Frame::Rekey(Exchange { epoch, public }) => {
                out.extend_from_slice(&[REKEY, 36]);
                out.extend_from_slice(&epoch.to_le_bytes());
                out.extend_from_slice(&public);
            }
            Frame::Keys { epoch } => {
                out.extend_from_slice(&[KEYS, 4]);
                out.extend_from_slice(&epoch.to_le_bytes());
            }
            Frame::Reset { flow, code } => {
                out.push(RESET);
                put_varint(out, (varint_len(flow.0) + 1) as u64);
                put_varint(out, flow.0);
                out.push(code as u8);
            }
            Frame::Done { flow } => {
                out.push(DONE);
                put_varint(out, varint_len(flow.0) as u64);
                put_varint(out, flow.0);
            }
            Frame::Ack { flow, ack } => {
                let numbers = [flow.0, ack.below, ack.credit];
                let len: usize = numbers.iter().map(|number| varint_len(*number)).sum();
                out.push(ACK);
                put_varint(out, (len + ack.ranges.len()) as u64);
                numbers.iter().for_each(|number| put_varint(out, *number));
                out.extend_from_slice(ack.ranges);
            }
            Frame::Stream { flow, offset, bytes, fin } => {
                stream_head(out, flow, offset, (bytes.len(), fin));
                out.extend_from_slice(bytes);
            }
            Frame::Wanted { floor, wait } => {
                out.push(WANTED);
                put_varint(out, (varint_len(floor) + varint_len(wait)) as u64);
                put_varint(out, floor);
                put_varint(out, wait);
            }
            // What is said of packets is written as a body, by who knows of them.
            Frame::Report(report) => report_frame(out, report.body()),
            Frame::Datagram { channel, bytes } => {
                datagram_head(out, channel, bytes.len());
                out.extend_from_slice(bytes);
            }
        }
    }
}

/// Appends a REPORT with this body.
pub(crate) fn report_frame(out: &mut Vec<u8>, body: &[u8]) {
    out.push(REPORT);
    put_varint(out, body.len() as u64);
    out.extend_from_slice(body);
}

/// Appends a PAD with a body of so many bytes. Its head has 3 from 64 to 16 383 of those.
pub(crate) fn write_pad(out: &mut Vec<u8>, len: usize) {
    out.push(PAD);
    put_varint(out, len as u64);
    out.resize(out.len() + len, 0);
}

/// Appends what stands before the bytes of a DATAGRAM of `len` bytes.
pub(crate) fn datagram_head(out: &mut Vec<u8>, channel: u64, len: usize) {
    out.push(DATAGRAM);
    put_varint(out, (varint_len(channel) + len) as u64);
    put_varint(out, channel);
}

fn token_frame(out: &mut Vec<u8>, kind: u8, token: u64) {
    out.extend_from_slice(&[kind, 8]);
    out.extend_from_slice(&token.to_le_bytes());
}

/// Appends what stands before the bytes of a STREAM frame of `len` bytes.
pub(crate) fn stream_head(out: &mut Vec<u8>, flow: FlowId, offset: u64, (len, fin): (usize, bool)) {
    out.push(if fin { STREAM_FIN } else { STREAM });
    put_varint(out, (varint_len(flow.0) + varint_len(offset) + len) as u64);
    put_varint(out, flow.0);
    put_varint(out, offset);
}

/// Appends an ACK; `ranges` ascend, are apart, and lie above `below`.
pub(crate) fn write_ack(
    out: &mut Vec<u8>,
    flow: FlowId,
    (below, credit): (u64, u64),
    ranges: impl Iterator<Item = (u64, u64)>,
) {
    let mut written = Vec::new();
    let mut at = below;
    for (start, end) in ranges.take(ACK_RANGES_MAX) {
        put_varint(&mut written, start - at);
        put_varint(&mut written, end - start);
        at = end;
    }
    Frame::Ack { flow, ack: Ack { below, credit, ranges: &written } }.write(out);
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use proptest::prelude::*;

    use super::*;

    fn read(text: &[u8]) -> Result<Vec<Frame<'_>>, Malformed> {
        let mut frames = Frames::new(text);
        let mut all = Vec::new();
        while let Some(frame) = frames.next()? {
            all.push(frame);
        }
        Ok(all)
    }

    /// The bytes that `docs/tunnel-protocol.md` prints.
    #[test]
    fn frames_are_these_bytes() {
        let flow = FlowId(70);
        let cases: [(Frame<'_>, &[u8]); 9] = [
            (Frame::Keys { epoch: 3 }, &[5, 4, 3, 0, 0, 0]),
            (Frame::Ping { token: 1 }, &[1, 8, 1, 0, 0, 0, 0, 0, 0, 0]),
            (Frame::Pong { token: 2 }, &[2, 8, 2, 0, 0, 0, 0, 0, 0, 0]),
            (Frame::Leave, &[3, 0]),
            (Frame::Reset { flow, code: ResetCode::Refused }, &[8, 3, 0x40, 70, 4]),
            (Frame::Done { flow }, &[9, 2, 0x40, 70]),
            (
                Frame::Stream { flow, offset: 20_000, bytes: b"ab", fin: true },
                &[0x11, 8, 0x40, 70, 0x80, 0, 0x4e, 0x20, b'a', b'b'],
            ),
            (
                Frame::Ack { flow, ack: Ack { below: 3, credit: 9, ranges: &[1, 2, 5, 1] } },
                &[0x0a, 8, 0x40, 70, 3, 9, 1, 2, 5, 1],
            ),
            (Frame::Datagram { channel: 5, bytes: b"now" }, &[0xa0, 4, 5, b'n', b'o', b'w']),
        ];
        for (frame, bytes) in cases {
            let mut out = Vec::new();
            frame.write(&mut out);
            assert_eq!(out, bytes, "{frame:?}");
            assert_eq!(read(bytes), Ok(vec![frame]));
        }
    }

    #[test]
    fn exchanges_are_read_as_they_were_written() {
        let mut out = Vec::new();
        let frame = Frame::Rekey(Exchange { epoch: 7, public: [9; 32] });
        frame.write(&mut out);
        assert_eq!((out.len(), &out[..7]), (38, &[4, 36, 7, 0, 0, 0, 9][..]));
        assert_eq!(read(&out), Ok(vec![frame]));
    }

    #[test]
    fn ranges_are_read_as_they_were_written() {
        let mut out = Vec::new();
        let ranges = [(12, 13), (20, 4000), (5000, 1 << 40)];
        write_ack(&mut out, FlowId(1), (10, 99), ranges.into_iter());
        let frames = read(&out).expect("it was just written");
        let [Frame::Ack { ack, .. }] = frames[..] else { panic!("{frames:?}") };
        assert_eq!((ack.below, ack.credit), (10, 99));
        assert_eq!(ack.ranges().collect::<Vec<_>>(), ranges);
    }

    /// An unknown kind that may be skipped is; another one is not, because it might matter.
    #[test]
    fn unknown_kinds_are_skipped_only_if_they_say_so() {
        assert_eq!(read(&[0x85, 2, 7, 7, 3, 0, 0, 3, 1, 2, 3]), Ok(vec![Frame::Leave]));
        for bad in [
            &[0x05, 0][..],
            &[3, 1, 0],                   // LEAVE with a body
            &[1, 7, 0, 0, 0, 0, 0, 0, 0], // a short token
            &[0x10, 1, 1],                // no offset
            &[0x0a, 4, 1, 3, 9, 1],       // half a range
            &[0x0a, 5, 1, 3, 9, 0, 1],    // a range without a gap
            &[0x0a, 5, 1, 3, 9, 1, 0],    // an empty range
            &[3, 5],                      // cut
            &[0x40],
        ] {
            assert_eq!(read(bad), Err(Malformed), "{bad:?}");
        }
    }

    proptest! {
        /// Nothing that comes makes it panic, and what it makes of it reads the same again.
        #[test]
        fn any_bytes_are_frames_or_not(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(frames) = read(&text) {
                let mut again = Vec::new();
                frames.iter().for_each(|frame| frame.write(&mut again));
                prop_assert_eq!(read(&again), Ok(frames));
            }
        }

        #[test]
        fn numbers_go_both_ways(value in 0u64..=VARINT_MAX) {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            prop_assert_eq!(out.len(), varint_len(value));
            prop_assert_eq!(varint(&mut Reader::new(&out)), Ok(value));
        }
    }
}
