//! The native protocol at the speed of a load generator: frames are filled in place, replies are
//! scanned by their status bytes alone.
//!
//! Always holds: every reply is looked at, its kind must be one that an op of its frame can get,
//! and a frame has as many of each kind as were asked; anything else fails the run.
//! Cost: a few nanoseconds an op in both directions, no allocation. Tests: below.

use ringway_coord_proto::wire::{
    FRAME_HEADER_BYTES, FrameHeader, KIND_PUSH, KIND_REPLY, KIND_REQUEST, OP_HEADER_BYTES, op,
    status,
};

use super::{Request, Wire};
use crate::error::Broken;
use crate::mix::Kind;
use crate::source::{Lane, Source};
use crate::tally::Tally;

/// Encodes and scans frames of a fixed number of ops.
#[derive(Clone, Debug)]
pub(crate) struct Native {
    frame_ops: usize,
    next_sequence: u64,
}

/// Bytes of a reply with an owner.
const OWNER_BYTES: usize = 17;

impl Native {
    /// Frames of `frame_ops` ops, which is at most 4096 and fits 256 KiB.
    pub(crate) fn new(frame_ops: usize) -> Native {
        Native { frame_ops, next_sequence: 1 }
    }
}

impl Wire for Native {
    fn ops(&self) -> u64 {
        self.frame_ops as u64
    }

    #[inline]
    fn put(&mut self, source: &mut Source, lane: &mut Lane, out: &mut Vec<u8>) -> Option<Request> {
        let turn = source.turn(lane);
        let start = out.len();
        let op_bytes = OP_HEADER_BYTES + source.names.length();
        out.resize(start + FRAME_HEADER_BYTES + self.frame_ops * op_bytes, 0);
        let mut request = Request { sequence: self.next_sequence, ..Request::default() };
        for slot in out[start + FRAME_HEADER_BYTES..].chunks_exact_mut(op_bytes) {
            let Some((kind, index)) = source.next(lane, turn) else { break };
            let code = match kind {
                Kind::Query => {
                    request.queries += 1;
                    op::QUERY
                }
                Kind::Register => {
                    request.registers += 1;
                    op::REGISTER
                }
                Kind::Release => {
                    request.releases += 1;
                    op::RELEASE
                }
            };
            let (header, name) = slot.split_at_mut(OP_HEADER_BYTES);
            header[0] = code;
            header[2] = name.len() as u8;
            source.names.write(index, name);
        }
        let ops = request.ops() as usize;
        let len = if ops == 0 { 0 } else { FRAME_HEADER_BYTES + ops * op_bytes };
        out.truncate(start + len);
        let header = out[start..].first_chunk_mut::<FRAME_HEADER_BYTES>()?;
        header[..4].copy_from_slice(&(len as u32).to_le_bytes());
        header[4..6].copy_from_slice(&(ops as u16).to_le_bytes());
        header[6] = KIND_REQUEST;
        header[8..].copy_from_slice(&self.next_sequence.to_le_bytes());
        self.next_sequence += 1;
        Some(request)
    }

    #[inline]
    fn take(
        &self,
        bytes: &[u8],
        due: &Request,
        tally: &mut Tally,
    ) -> Result<Option<usize>, Broken> {
        let Some(header) = FrameHeader::parse(bytes).map_err(|_| Broken::Header)? else {
            return Ok(None);
        };
        let Some(frame) = bytes.get(..header.len) else { return Ok(None) };
        let body = &frame[FRAME_HEADER_BYTES..];
        match header.kind {
            KIND_REPLY => {}
            KIND_PUSH => return Err(Broken::Notice(body.first().copied().unwrap_or(0))),
            _ => return Err(Broken::Header),
        }
        if header.sequence != due.sequence {
            return Err(Broken::OutOfOrder { got: header.sequence, due: due.sequence });
        }
        let (got, asked) = (usize::from(header.count), due.ops() as usize);
        if got != asked {
            return Err(Broken::Count { got, due: asked });
        }
        scan(body, due, tally)?;
        Ok(Some(header.len))
    }
}

/// What the scan has seen of each kind.
#[derive(Default)]
struct Seen {
    queries: usize,
    registers: usize,
    releases: usize,
    errors: usize,
}

/// Walks the replies in runs of equal statuses: most frames are one run.
#[inline]
fn scan(body: &[u8], due: &Request, tally: &mut Tally) -> Result<(), Broken> {
    let mut seen = Seen::default();
    let mut at = 0;
    while let Some(&status) = body.get(at) {
        let mut run = 1;
        match status >> 6 {
            0b01 => {
                at += OWNER_BYTES;
                while body.get(at) == Some(&status) {
                    at += OWNER_BYTES;
                    run += 1;
                }
            }
            0b10 => {
                let len = body.get(at + 1..at + 5).ok_or(Broken::Body)?;
                at += 5 + u32::from_le_bytes([len[0], len[1], len[2], len[3]]) as usize;
            }
            _ => {
                at += 1;
                while body.get(at) == Some(&status) {
                    at += 1;
                    run += 1;
                }
            }
        }
        count(status, run, &mut seen, tally);
    }
    let got = seen.queries + seen.registers + seen.releases + seen.errors;
    if at != body.len() || got != due.ops() as usize {
        return Err(Broken::Body);
    }
    // Without refusals the kinds must match one for one; a refusal may stand for any of them.
    let over = |seen: usize, due: u16| seen > usize::from(due);
    if over(seen.queries, due.queries)
        || over(seen.registers, due.registers)
        || over(seen.releases, due.releases)
    {
        return Err(Broken::Count { got: seen.queries, due: usize::from(due.queries) });
    }
    Ok(())
}

#[inline]
fn count(status: u8, run: usize, seen: &mut Seen, tally: &mut Tally) {
    match status {
        status::OWNED_EPHEMERAL | status::OWNED_REPLICATED | status::FREE => {
            seen.queries += run;
            tally.query(status, run as u64);
        }
        status::GRANTED_EPHEMERAL | status::GRANTED_REPLICATED => {
            seen.registers += run;
            tally.done(status, run as u64);
        }
        status::OK => {
            seen.releases += run;
            tally.done(status, run as u64);
        }
        _ => {
            seen.errors += run;
            tally.not_done(status, run as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::{NameMaker, NameSpec};
    use crate::tally::Expect;
    use proptest::prelude::*;
    use ringway_coord_proto::wire::{FrameWriter, next_op, put_data, put_owner};
    use ringway_core::{SessionId, Token};

    fn source(mix: &str) -> (Source, Lane) {
        let spec = NameSpec { count: 100, length: 20, ..NameSpec::default() };
        let names = NameMaker::new(&spec, 1000).expect("valid");
        let source = Source::new(&spec, names, &mix.parse().expect("valid"), 0).expect("valid");
        (source, Lane::new(100, 400, 0, 1))
    }

    fn reply(sequence: u64, statuses: &[u8]) -> Vec<u8> {
        let mut out = vec![];
        let mut frame = FrameWriter::begin(&mut out, KIND_REPLY, 0, sequence);
        for status in statuses {
            match status >> 6 {
                0b01 => put_owner(&mut out, *status, SessionId(0x4040), Token(u64::MAX)),
                0b10 => put_data(&mut out, *status, &[0x40; 40]),
                _ => out.push(*status),
            }
        }
        frame.add(statuses.len() as u16);
        frame.finish(&mut out);
        out
    }

    fn due(queries: u16, registers: u16, releases: u16) -> Request {
        Request { sequence: 5, queries, registers, releases, ..Request::default() }
    }

    fn take(frame: &[u8], due: Request) -> (Result<Option<usize>, Broken>, Tally) {
        let mut tally = Tally::new(Expect::Any);
        (Native::new(4).take(frame, &due, &mut tally), tally)
    }

    /// What is filled in place is what the protocol's own parser reads back, op for op.
    #[test]
    fn frames_are_what_the_server_parses() {
        let (mut source, mut lane) = source("query=2,register=1,release=1");
        let mut wire = Native::new(50);
        let mut out = vec![0xEE; 3];
        for sequence in 1..20 {
            out.truncate(3);
            let request = wire.put(&mut source, &mut lane, &mut out).expect("never ends");
            let header = FrameHeader::parse(&out[3..]).expect("valid").expect("whole");
            assert_eq!((header.len + 3, header.sequence), (out.len(), sequence));
            assert_eq!((header.count, request.ops()), (50, 50));
            let mut ops = &out[3 + FRAME_HEADER_BYTES..];
            let mut counts = [0; 4];
            while let Some(raw) = next_op(&mut ops) {
                assert_eq!((raw.flags, raw.body.len()), (0, 20));
                counts[usize::from(raw.code)] += 1;
            }
            assert!(ops.is_empty());
            assert_eq!(counts, [0, request.queries, request.registers, request.releases]);
        }
    }

    /// A lane that runs out gives a shorter last frame, then none; nothing stays in the buffer.
    #[test]
    fn the_last_frame_is_shorter() {
        let (mut source, mut lane) = source("register=1");
        let mut wire = Native::new(300);
        let mut out = vec![];
        let mut counts = vec![];
        while let Some(request) = wire.put(&mut source, &mut lane, &mut out) {
            counts.push(request.registers);
        }
        assert_eq!(counts, [300, 100]);
        assert_eq!(out.len(), 2 * 16 + 400 * 24);
    }

    /// Every status is counted under its own name, and only those that fit are fine.
    #[test]
    fn statuses_are_counted_and_judged() {
        let frame = reply(5, &[0x40, 0x40, 0x01, 0x48, 0x00, 0x00]);
        let (taken, tally) = take(&frame, due(3, 1, 2));
        assert_eq!((taken, tally.unexpected), (Ok(Some(frame.len())), 0));
        assert_eq!(tally.words()["OWNED"], 2);

        let (taken, tally) = take(&reply(5, &[0x50, 0xC5, 0x81, 0x3F]), due(1, 2, 1));
        assert!(matches!(taken, Ok(Some(_))));
        assert_eq!((tally.unexpected, tally.first_unexpected()), (4, Some("HELD")));
        assert_eq!(tally.words()["0x3F"], 1, "a status of a newer server is told by number");
    }

    /// The wrong frame, number or kind of replies ends the run: any of them means that one
    /// request got another's answer.
    #[test]
    fn mismatches_are_broken() {
        let broken = |frame: &[u8], due| take(frame, due).0.expect_err("broken");
        let two = reply(5, &[0x40, 0x40]);
        assert_eq!(broken(&two, due(3, 0, 0)), Broken::Count { got: 2, due: 3 });
        assert_eq!(broken(&two, due(1, 1, 0)), Broken::Count { got: 2, due: 1 });
        let other = Request { sequence: 6, ..due(2, 0, 0) };
        assert_eq!(broken(&two, other), Broken::OutOfOrder { got: 5, due: 6 });
        let mut short = two.clone();
        short.pop();
        short[0] -= 1;
        assert_eq!(broken(&short, due(2, 0, 0)), Broken::Body);
        let mut push = two;
        push[6] = KIND_PUSH;
        assert_eq!(broken(&push, due(2, 0, 0)), Broken::Notice(0x40));
    }

    proptest! {
        /// A frame cut anywhere asks for more and counts nothing; whole, it is taken once.
        #[test]
        fn partial_frames_wait(
            statuses in proptest::collection::vec(
                prop_oneof![Just(0x40u8), Just(0x01), Just(0xC8), Just(0x81)], 1..40),
            cut in 0usize..700,
        ) {
            let frame = reply(5, &statuses);
            let cut = cut % frame.len();
            let due = due(statuses.len() as u16, 0, 0);
            let (taken, tally) = take(&frame[..cut], due);
            prop_assert_eq!((taken, tally.words().len()), (Ok(None), 0));
            let mut more = frame.clone();
            more.extend_from_slice(&frame[..cut]);
            let (taken, tally) = take(&more, due);
            prop_assert_eq!(taken, Ok(Some(frame.len())));
            prop_assert_eq!(tally.words().values().sum::<u64>(), statuses.len() as u64);
        }

        /// Nothing a server sends can crash the generator.
        #[test]
        fn noise_never_panics(mut noise in proptest::collection::vec(any::<u8>(), 16..200)) {
            let _ = take(&noise, due(3, 0, 0));
            let len = (noise.len() as u32).to_le_bytes();
            noise[..4].copy_from_slice(&len);
            noise[4..16].copy_from_slice(&[3, 0, 1, 0, 5, 0, 0, 0, 0, 0, 0, 0]);
            let _ = take(&noise, due(3, 0, 0));
        }
    }
}
