//! Native connections that one thread serves: frames out, whole frames in.
//!
//! What comes unasked is as welcome as a reply: whoever takes frames tells them apart. Always
//! holds: a frame is given whole and once, those of one connection in their order; a connection
//! whose bytes cannot be followed ends the run.
//!
//! Bounds: [`READ_BYTES`] for all connections, and what each has of an unfinished frame. What is
//! not written yet is bounded by whoever puts frames. Tests: below.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use ringway_client::Op;
use ringway_coord_proto::wire::{
    FRAME_HEADER_BYTES, FrameHeader, FrameWriter, KIND_REPLY, KIND_REQUEST, Reply, next_reply,
};
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};

use crate::error::{Broken, LoadError};
use crate::report::Progress;

/// Bytes read at once; at least a frame.
const READ_BYTES: usize = 512 * 1024;
/// Connections looked at after one wait.
const EVENTS: usize = 512;

/// Takes the frames of all connections: which one, the frame's header, and what follows it.
pub(crate) trait Take: FnMut(usize, FrameHeader, &[u8]) -> Result<(), Broken> {}
impl<T: FnMut(usize, FrameHeader, &[u8]) -> Result<(), Broken>> Take for T {}

/// The connections, by number.
pub(crate) struct Links {
    addr: SocketAddr,
    epoll: OwnedFd,
    links: Vec<Link>,
    inbox: Vec<u8>,
    events: Vec<epoll::Event>,
}

struct Link {
    /// `None`: it was closed by us.
    stream: Option<TcpStream>,
    /// The unfinished frame at the end of what was read.
    part: Vec<u8>,
    out: Vec<u8>,
    sequence: u64,
    /// The kernel takes no more at the moment.
    blocked: bool,
}

impl Links {
    /// None yet, to a server.
    pub(crate) fn new(addr: SocketAddr) -> Result<Links, LoadError> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(system)?;
        let (inbox, events) = (vec![0; READ_BYTES], Vec::with_capacity(EVENTS));
        Ok(Links { addr, epoll, links: Vec::new(), inbox, events })
    }

    /// Takes a greeted connection in; its number is how many there were before.
    pub(crate) fn add(&mut self, stream: TcpStream) -> Result<usize, LoadError> {
        let at = self.links.len();
        let data = epoll::EventData::new_u64(at as u64);
        epoll::add(&self.epoll, &stream, data, epoll::EventFlags::IN).map_err(system)?;
        let (part, out) = (Vec::new(), Vec::new());
        self.links.push(Link { stream: Some(stream), part, out, sequence: 1, blocked: false });
        Ok(at)
    }

    /// Closes a connection; its number is not used again.
    pub(crate) fn close(&mut self, at: usize) {
        self.links[at].stream = None;
    }

    /// No longer reads a connection, until it is heard again.
    pub(crate) fn ignore(&mut self, at: usize) -> Result<(), LoadError> {
        self.modify(at, epoll::EventFlags::empty())
    }

    /// Reads a connection again.
    pub(crate) fn hear(&mut self, at: usize) -> Result<(), LoadError> {
        self.modify(at, epoll::EventFlags::IN)
    }

    /// Where a connection's next request frame goes, and its number. [`Links::flush`] sends it.
    pub(crate) fn begin(&mut self, at: usize) -> (FrameWriter, &mut Vec<u8>, u64) {
        let link = &mut self.links[at];
        let sequence = link.sequence;
        link.sequence += 1;
        (FrameWriter::begin(&mut link.out, KIND_REQUEST, 0, sequence), &mut link.out, sequence)
    }

    /// Puts ops into a frame of a connection; its number.
    pub(crate) fn put<'op>(
        &mut self,
        at: usize,
        ops: impl IntoIterator<Item = Op<'op>>,
    ) -> Result<u64, LoadError> {
        let (mut frame, out, sequence) = self.begin(at);
        for op in ops {
            // Whoever asks has checked sizes and counts.
            op.put(out).map_err(|error| LoadError::System {
                doing: "encoding an op",
                source: io::Error::other(error),
            })?;
            frame.add(1);
        }
        frame.finish(out);
        Ok(sequence)
    }

    /// Writes what the kernel takes; the rest goes when there is room, from [`Links::take`].
    pub(crate) fn flush(&mut self, at: usize) -> Result<(), LoadError> {
        let link = &mut self.links[at];
        let Some(stream) = &mut link.stream else { return Ok(()) };
        let mut sent = 0;
        while sent < link.out.len() {
            match stream.write(&link.out[sent..]) {
                Ok(len) => sent += len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(LoadError::Io { conn: at, addr: self.addr, source }),
            }
        }
        if sent == link.out.len() {
            link.out.clear();
        } else {
            link.out.drain(..sent);
        }
        let blocked = !link.out.is_empty();
        if blocked != link.blocked {
            link.blocked = blocked;
            let mut flags = epoll::EventFlags::IN;
            flags.set(epoll::EventFlags::OUT, blocked);
            self.modify(at, flags)?;
        }
        Ok(())
    }

    /// Sends ops and waits for their replies, which it gives by their place in the frame. Other
    /// frames go to `others`.
    pub(crate) fn call<'op>(
        &mut self,
        (at, timeout): (usize, Duration),
        ops: impl IntoIterator<Item = Op<'op>>,
        mut each: impl FnMut(usize, Reply<'_>) -> Result<(), Broken>,
        others: &mut impl Take,
    ) -> Result<(), LoadError> {
        let due = self.put(at, ops)?;
        self.flush(at)?;
        let patience = Instant::now() + timeout;
        let mut answered = false;
        while !answered {
            if Instant::now() > patience {
                return Err(late("a request was not answered"));
            }
            self.take(10_000_000, &mut |link, header: FrameHeader, body: &[u8]| {
                if (link, header.kind, header.sequence) != (at, KIND_REPLY, due) {
                    return others(link, header, body);
                }
                answered = true;
                replies(header, body, &mut each)
            })?;
        }
        Ok(())
    }

    /// Waits for `nap_ns` at most, then gives all whole frames that have come.
    pub(crate) fn take(&mut self, nap_ns: u64, each: &mut impl Take) -> Result<(), LoadError> {
        let nap = Timespec { tv_sec: 0, tv_nsec: nap_ns as i64 };
        self.events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&nap)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(system(errno)),
        }
        let events = std::mem::take(&mut self.events);
        for event in &events {
            let (flags, at) = (event.flags, event.data.u64() as usize);
            if flags.contains(epoll::EventFlags::OUT) {
                self.flush(at)?;
            }
            self.read(at, each)?;
        }
        self.events = events;
        Ok(())
    }

    fn read(&mut self, at: usize, each: &mut impl Take) -> Result<(), LoadError> {
        let addr = self.addr;
        let link = &mut self.links[at];
        let Some(stream) = &mut link.stream else { return Ok(()) };
        let kept = link.part.len();
        self.inbox[..kept].copy_from_slice(&link.part);
        let filled = match stream.read(&mut self.inbox[kept..]) {
            Ok(0) => return Err(LoadError::Closed { addr, conn: at, due: 0 }),
            Ok(len) => kept + len,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(source) => return Err(LoadError::Io { conn: at, addr, source }),
        };
        let bytes = &self.inbox[..filled];
        let used = frames(bytes, &mut |header, body| each(at, header, body))
            .map_err(|what| LoadError::Broken { addr, conn: at, what })?;
        link.part.clear();
        link.part.extend_from_slice(&bytes[used..]);
        Ok(())
    }

    fn modify(&mut self, at: usize, flags: epoll::EventFlags) -> Result<(), LoadError> {
        let Some(stream) = &self.links[at].stream else { return Ok(()) };
        let data = epoll::EventData::new_u64(at as u64);
        epoll::modify(&self.epoll, stream, data, flags).map_err(system)
    }
}

/// Gives all whole frames at the front of `bytes`; how many bytes they are.
fn frames(
    bytes: &[u8],
    each: &mut impl FnMut(FrameHeader, &[u8]) -> Result<(), Broken>,
) -> Result<usize, Broken> {
    let mut used = 0;
    while let Some(header) = FrameHeader::parse(&bytes[used..]).map_err(|_| Broken::Header)? {
        let Some(frame) = bytes[used..].get(..header.len) else { break };
        used += header.len;
        each(header, &frame[FRAME_HEADER_BYTES..])?;
    }
    Ok(used)
}

/// Gives the replies of a frame with their places in it.
pub(crate) fn replies(
    header: FrameHeader,
    mut body: &[u8],
    each: &mut impl FnMut(usize, Reply<'_>) -> Result<(), Broken>,
) -> Result<(), Broken> {
    for place in 0..usize::from(header.count) {
        each(place, next_reply(&mut body).ok_or(Broken::Body)?)?;
    }
    if body.is_empty() { Ok(()) } else { Err(Broken::Body) }
}

/// For calls during which nothing else may come.
pub(crate) fn nothing_else(_: usize, _: FrameHeader, _: &[u8]) -> Result<(), Broken> {
    Err(Broken::Unasked)
}

/// What did not come in time.
pub(crate) fn late(what: &'static str) -> LoadError {
    let source = io::Error::other(format!("{what} in time"));
    LoadError::System { doing: "waiting for the server", source }
}

fn system(errno: rustix::io::Errno) -> LoadError {
    LoadError::System { doing: "epoll", source: errno.into() }
}

/// Tells the progress about once a second.
pub(crate) struct Teller<'a> {
    tell: &'a mut dyn FnMut(&Progress),
    start: Instant,
    last: (f64, u64),
    /// The slowest since the last time.
    pub(crate) worst_ns: u64,
}

impl<'a> Teller<'a> {
    pub(crate) fn new(tell: &'a mut dyn FnMut(&Progress)) -> Teller<'a> {
        Teller { tell, start: Instant::now(), last: (f64::NEG_INFINITY, 0), worst_ns: 0 }
    }

    /// `ops` since the beginning.
    pub(crate) fn tell(&mut self, phase: &'static str, done: f64, ops: u64) {
        let elapsed_s = self.start.elapsed().as_secs_f64();
        let (then, ops_then) = self.last;
        if elapsed_s - then < 1.0 {
            return;
        }
        let ops_per_s = (ops - ops_then) as f64 / (elapsed_s - then);
        let worst_us = std::mem::take(&mut self.worst_ns) as f64 / 1e3;
        self.last = (elapsed_s, ops);
        (self.tell)(&Progress { phase, elapsed_s, done, ops, ops_per_s, worst_us });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(sequence: u64, body: &[u8]) -> Vec<u8> {
        let mut out = vec![];
        let mut frame = FrameWriter::begin(&mut out, KIND_REPLY, 0, sequence);
        out.extend_from_slice(body);
        frame.add(body.len() as u16);
        frame.finish(&mut out);
        out
    }

    /// Wherever a read ends, each frame is given once and whole, and what is left is the part that
    /// the next read goes on with.
    #[test]
    fn frames_are_given_whole_wherever_a_read_ends() {
        let all = [frame(1, &[0]), frame(2, &[0, 0, 0]), frame(3, &[])].concat();
        for cut in 0..=all.len() {
            let mut seen = vec![];
            let mut each = |header: FrameHeader, body: &[u8]| {
                seen.push((header.sequence, body.len()));
                Ok(())
            };
            let used = frames(&all[..cut], &mut each).expect("frames");
            let rest = [&all[used..cut], &all[cut..]].concat();
            assert_eq!(frames(&rest, &mut each), Ok(rest.len()), "cut at {cut}");
            assert_eq!(seen, [(1, 1), (2, 3), (3, 0)], "cut at {cut}");
        }
        assert_eq!(frames(&[0xFF; 16], &mut |_, _| Ok(())), Err(Broken::Header));
    }

    /// A frame with fewer replies than it says, or with more, is broken.
    #[test]
    fn replies_fill_their_frame() {
        let read = |count, body: &[u8]| {
            let header = FrameHeader { len: 0, count, kind: KIND_REPLY, flags: 0, sequence: 1 };
            replies(header, body, &mut |_, _| Ok(()))
        };
        assert_eq!(read(2, &[0, 0]), Ok(()));
        assert_eq!(read(3, &[0, 0]), Err(Broken::Body));
        assert_eq!(read(1, &[0, 0]), Err(Broken::Body));
    }
}
