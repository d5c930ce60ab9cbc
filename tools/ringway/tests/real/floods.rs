//! What clients do that mean harm: however many they are, the server stays below `max_memory`, and
//! who means none is answered.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use ringway_coord_server::shares::Shares;
use rustix::net::sockopt::set_socket_recv_buffer_size;

use crate::crowds::SLACK;
use crate::support::{Server, Setup, Watch, granted, pass, until};

/// The preface of the native protocol.
pub(crate) const PREFACE: [u8; 16] = [0xB1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0];
/// What a single question may take while memory is short: then connections wait for it and are cut,
/// and on a busy machine that is a good part of a second now and then. No wait is for ever.
const BOUND: Duration = Duration::from_secs(5);
/// Bytes of the largest frame.
const FRAME_BYTES: usize = 256 * 1024;

/// Hundreds of connections pipeline requests and never read; hundreds more send the first part of
/// the largest frame, and nothing else. They could hold ten times of `max_memory`. The server stays
/// below it, counts what it refused, answers another client all the while, and gives the memory
/// back when they are gone.
#[test]
fn floods_stay_below_max_memory() {
    const MIB: u64 = 64;
    let server = Setup::new().shards(2).flag("--max-memory", format!("{MIB}MiB")).start();
    let idle = server.resident_bytes();
    let mut calm = server.client();
    granted(&mut calm, "mine");
    let lines = b"PORT.QUERY some-name other-name\r\n".repeat(500);
    let native = |frames: &[u8]| Hog::new(&server, &PREFACE, frames);
    let before = Watch::calm(&server);
    let watch = Watch::begin(&server);
    let mut crowd: Vec<Hog> = (0..300).map(|_| native(&native_frame(64).repeat(16))).collect();
    crowd.extend((0..300).map(|_| Hog::new(&server, b"", &lines)));
    crowd.extend((0..300).map(|_| native(&native_frame(4096))));
    let half = crowd.len() - 300;
    // Everybody writes as much as the server takes, in turns, until it takes nothing more.
    for round in 0.. {
        let mut moved = 0;
        for (index, hog) in crowd.iter_mut().enumerate() {
            let most = if index >= half { FRAME_BYTES - 1000 } else { 1 << 20 };
            moved += hog.write(most);
        }
        if moved == 0 || round > 200 {
            break;
        }
        pass(Duration::from_millis(5));
    }
    let (latency, peak) = (watch.end(), server.resident_bytes_max());
    let sent: usize = crowd.iter().map(|hog| hog.sent).sum();
    let cut = crowd.iter().filter(|hog| hog.cut).count();
    let stats = |key: &str| [0, 1].map(|shard| stat(&server, shard, key)).iter().sum::<u64>();
    println!(
        "idle {} KiB, peak {} KiB; {} KiB were sent; meanwhile another saw {latency:?}\n\
         buffers {} KiB, {} readers blocked, {} waits for memory, {} cut ({cut} seen)",
        idle >> 10,
        peak >> 10,
        sent >> 10,
        stats("buffer_bytes") >> 10,
        stats("readers_blocked"),
        stats("waits_for_memory"),
        stats("cut_for_memory"),
    );
    latency.assert_mostly_as(&before, SLACK);
    assert!(latency.worst < BOUND, "{latency:?}");
    assert!(peak < MIB << 20, "{} KiB resident", peak >> 10);
    assert!(stats("readers_blocked") + stats("cut_for_memory") > 0, "nothing was refused");
    // A command as large as they come finds room beside all of them, perhaps not at once: where
    // it arrives in parts while memory is spent, it is itself one of those that hold most.
    let names: Vec<String> = (0..4000).map(|index| format!("large/{index:040}")).collect();
    let names: Vec<&[u8]> = names.iter().map(String::as_bytes).collect();
    let answers = || server.client().query(&names).ok();
    assert_eq!(until("a large command is answered", answers).len(), names.len());
    calm.query_one(b"mine").expect("who asks for little has been there all the time");
    drop(crowd);
    until("the buffers are given back", || (stats("buffer_bytes") < 3 << 20).then_some(()));
    server.stop();
}

/// A connection that takes and takes, and never reads.
struct Hog {
    stream: TcpStream,
    bytes: Vec<u8>,
    at: usize,
    sent: usize,
    cut: bool,
}

impl Hog {
    fn new(server: &Server, first: &[u8], bytes: &[u8]) -> Hog {
        let mut stream = TcpStream::connect(server.addr).expect("connects");
        // The kernel holds little of what is not read, so that the server has to.
        set_socket_recv_buffer_size(&stream, 4096).expect("a socket");
        stream.write_all(first).expect("writes");
        stream.set_nonblocking(true).expect("a socket");
        Hog { stream, bytes: bytes.to_vec(), at: 0, sent: 0, cut: false }
    }

    /// Writes what the server takes now, up to `most` in all.
    fn write(&mut self, most: usize) -> usize {
        let before = self.sent;
        while self.sent < most && !self.cut {
            let end = self.bytes.len().min(self.at + most - self.sent);
            match self.stream.write(&self.bytes[self.at..end]) {
                Ok(many) => {
                    self.sent += many;
                    self.at = (self.at + many) % self.bytes.len();
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => self.cut = true,
            }
        }
        self.sent - before
    }
}

/// A frame of queries. The largest, of 4096 ops, has 256 KiB.
pub(crate) fn native_frame(ops: usize) -> Vec<u8> {
    let name = vec![b'n'; if ops > 1000 { 59 } else { 8 }];
    let op = [&[1, 0, name.len() as u8, 0][..], &name].concat();
    let mut frame = (16 + ops * op.len()).to_le_bytes()[..4].to_vec();
    frame.extend((ops as u16).to_le_bytes());
    frame.extend([0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    frame.extend(op.repeat(ops));
    frame
}

/// Clients pipeline thousands of pages, of lists of connections and of frames without ops, and read
/// what they get. A neighbour is answered meanwhile, nobody is cut, and in the end everybody has an
/// answer to everything.
#[test]
fn pipelined_pages_are_not_felt_by_others() {
    // Memory is not what this story is about: readers that a loaded machine makes slow hold much.
    let server = Setup::new().shards(2).flag("--max-memory", "1GiB").start();
    let mut calm = server.client();
    let opens: Vec<u8> = (1..2000_u64).flat_map(gateway_session).collect();
    let mut gateway = talk(&server, &[&PREFACE[..], &opens].concat());
    expect_frames(&mut gateway, 1999);
    granted(&mut calm, "mine");
    let sessions = |shard: u8| frame_of(&[(0x16, &[0, 0, 0, 0, shard, 0, 0, 0, 0, 4])]);
    let list = frame_of(&[(0x20, &[0, 0, 100, 0, 0, 0])]);
    let pages = [sessions(0), list, sessions(1)].concat().repeat(1000);
    let empty = frame_of(&[]).repeat(20_000);
    let before = Watch::calm(&server);
    let watch = Watch::begin(&server);
    let natives: Vec<_> = [(&pages, 3000), (&pages, 3000), (&empty, 20_000)]
        .map(|(frames, count)| {
            let stream = talk(&server, &[&PREFACE[..], frames].concat());
            std::thread::spawn(move || expect_frames(&mut { stream }, count))
        })
        .into();
    let commands = b"SESSION.LIST COUNT 1024\r\nCLIENT LIST\r\nINFO\r\n".repeat(1000);
    let mut redis = talk(&server, &[&commands[..], b"QUIT\r\n"].concat());
    let mut said = Vec::new();
    redis.read_to_end(&mut said).expect("every answer");
    assert!(said.ends_with(b"+OK\r\n"), "answered to the last");
    let ended: Vec<_> = natives.into_iter().map(|native| native.join().is_ok()).collect();
    for key in ["cut_for_memory", "waits_for_memory", "protocol_errors", "buffer_bytes"] {
        println!("{key}: {:?}", [0, 1].map(|shard| stat(&server, shard, key)));
    }
    assert_eq!(ended, [true; 3], "every answer");
    let latency = watch.end();
    println!("{} KiB of text; meanwhile another saw {latency:?}", said.len() >> 10);
    latency.assert_as(&before, SLACK);
    assert_eq!([0, 1].map(|shard| stat(&server, shard, "cut_for_memory")), [0, 0]);
    server.stop();
}

/// Writes everything from a thread of its own, so that replies can be read meanwhile.
fn talk(server: &Server, bytes: &[u8]) -> TcpStream {
    let stream = TcpStream::connect(server.addr).expect("connects");
    stream.set_read_timeout(Some(crate::support::PATIENCE)).expect("a socket");
    let (mut writer, bytes) = (stream.try_clone().expect("a socket"), bytes.to_vec());
    std::thread::spawn(move || writer.write_all(&bytes).expect("writes"));
    stream
}

/// Reads the preface and so many reply frames.
fn expect_frames(stream: &mut TcpStream, count: usize) {
    let mut header = [0; 16];
    stream.read_exact(&mut header).expect("the preface");
    for at in 0..count {
        stream.read_exact(&mut header).unwrap_or_else(|error| panic!("frame {at}: {error}"));
        let length = header.first_chunk().map_or(0, |length| u32::from_le_bytes(*length));
        let mut body = vec![0; length as usize - header.len()];
        stream.read_exact(&mut body).expect("the frame");
    }
}

/// A frame of ops, each a code and its body.
fn frame_of(ops: &[(u8, &[u8])]) -> Vec<u8> {
    let bytes: usize = ops.iter().map(|(_, body)| 4 + body.len()).sum();
    let mut frame = (16 + bytes as u32).to_le_bytes().to_vec();
    frame.extend((ops.len() as u16).to_le_bytes());
    frame.extend([0; 10]);
    for (code, body) in ops {
        frame.extend([*code, 0, body.len() as u8, 0]);
        frame.extend(*body);
    }
    frame
}

/// Opens a session of a node without binding the connection to it.
fn gateway_session(node: u64) -> Vec<u8> {
    let mut body = node.to_le_bytes().to_vec();
    body.extend([0; 4 + 16 + 1 + 2]);
    let mut frame = frame_of(&[(0x10, &body)]);
    frame[17] = 4;
    frame
}

/// A client breaks the protocol and goes on sending without reading: the server takes no more than
/// it says it discards, what the kernel has room for, and then hangs up.
#[test]
fn broken_and_talking_is_hung_up_on() {
    let server = Setup::new().start();
    let before = stat(&server, 0, "bytes_in");
    let mut stream = TcpStream::connect(server.addr).expect("connects");
    stream.set_write_timeout(Some(crate::support::PATIENCE)).expect("a socket");
    stream.write_all(&[&PREFACE[..], &[3; 16]].concat()).expect("writes");
    let noise = vec![7; 64 * 1024];
    let mut sent = 0_u64;
    // It ends because the server closes, not because the test is tired of it.
    while let Ok(many) = stream.write(&noise) {
        sent += many as u64;
        assert!(sent < 256 << 20, "the server reads on and on");
    }
    let read = stat(&server, 0, "bytes_in") - before;
    println!("{} KiB were sent, of which the server read {} KiB", sent >> 10, read >> 10);
    assert!(read < 2 * ringway_core::limits::DISCARD_BYTES_MAX as u64, "{read} bytes");
    server.stop();
}

/// One of the numbers that a shard tells of itself.
fn stat(server: &Server, shard: u8, key: &str) -> u64 {
    let text = server.client().shard_stats(ringway_core::ShardId(shard)).expect("stats");
    let stats: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    stats[key].as_u64().expect("a number")
}

/// Replies that were owed come before the word about the broken frame, and both come although the
/// client wrote much more before it read.
#[test]
fn last_words_come_last() {
    let server = Setup::new().shards(2).start();
    let mut stream = TcpStream::connect(server.addr).expect("connects");
    stream.set_read_timeout(Some(crate::support::PATIENCE)).expect("a socket");
    let frames = native_frame(64).repeat(100);
    let noise = vec![3; 512 * 1024];
    stream.write_all(&[&PREFACE[..], &frames, &noise].concat()).expect("writes");
    let mut said = Vec::new();
    stream.read_to_end(&mut said).expect("the end, not a reset");
    assert_eq!(said.len(), 16 + 100 * (16 + 64) + 20);
    let last = &said[said.len() - 20..];
    assert_eq!(last[..8], [20, 0, 0, 0, 1, 0, 2, 0], "a push with one notice");
    assert_eq!(last[16..], [3, 0, 0, 0], "PROTOCOL_ERROR");
    server.stop();
}

/// A gateway opens sessions with as much metadata as there may be until the server has no room for
/// more of it, then sessions without any until there are no places. Both are answered `FULL`, there
/// are as many as were to fit, and the server stays below `max_memory`.
#[test]
fn sessions_take_no_more_than_their_share() {
    const BYTES: u64 = 128 << 20;
    let shares = Shares::of(BYTES, 1);
    let server = Setup::new().shards(1).flag("--max-memory", BYTES).start();
    let mut gateway = TcpStream::connect(server.addr).expect("connects");
    gateway.write_all(&PREFACE).expect("writes");
    gateway.read_exact(&mut [0; 16]).expect("its preface");
    // What a first large frame touches is there for the next ones, and no session's.
    open_sessions(&mut gateway, 0, 400, 256);
    let (before, mut node) = (server.resident_bytes(), 400);
    let mut opened = [400, 0];
    for (index, metadata) in [256, 0].into_iter().enumerate() {
        loop {
            let more = open_sessions(&mut gateway, node, 400, metadata);
            (node, opened[index]) = (node + 400, opened[index] + more);
            if more < 400 {
                break;
            }
        }
    }
    let grown = server.resident_bytes().saturating_sub(before);
    let share = shares.info_bytes + shares.sessions_max * PLACE_BYTES;
    println!(
        "{} sessions with 256 bytes of metadata, {} without; {} KiB of {} KiB",
        opened[0],
        opened[1],
        grown >> 10,
        share >> 10
    );
    assert!(opened[0] * 320 <= shares.info_bytes && opened[0] * 340 > shares.info_bytes);
    assert_eq!(opened[0] + opened[1], shares.sessions_max);
    // Resident is more than what is in use: tables that grew left memory behind, which the
    // allocator keeps for a while, and gives to others.
    assert!(grown as usize <= 2 * share, "{} KiB of {} KiB", grown >> 10, share >> 10);
    assert!(server.resident_bytes_max() < BYTES);
    server.client().register_one(b"a").expect_err("the connection's own session is one too many");
    drop(gateway);
    server.stop();
}

/// What a server of one shard sets aside for a session beside its address and metadata.
const PLACE_BYTES: usize = 336;

/// Opens sessions for so many nodes; how many were granted. All others have to be `FULL`.
fn open_sessions(gateway: &mut TcpStream, node: u64, count: u64, metadata: usize) -> usize {
    const GATEWAY: u8 = 4;
    const FULL: u8 = 0xC7;
    const GRANTED_BYTES: usize = 5 + 33;
    let mut ops = Vec::new();
    for node in node..node + count {
        let len = (8 + 4 + 16 + 1 + 2 + metadata) as u16;
        ops.extend([0x10, GATEWAY]);
        ops.extend(len.to_le_bytes());
        ops.extend(node.to_le_bytes());
        ops.extend([0; 4 + 16 + 1]);
        ops.extend((metadata as u16).to_le_bytes());
        ops.extend(vec![b'm'; metadata]);
    }
    let mut frame = (16 + ops.len() as u32).to_le_bytes().to_vec();
    frame.extend((count as u16).to_le_bytes());
    frame.extend([0; 10]);
    frame.extend(ops);
    gateway.write_all(&frame).expect("writes");
    let mut header = [0; 16];
    gateway.read_exact(&mut header).expect("a reply");
    let len = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
    let mut replies = vec![0; len - header.len()];
    gateway.read_exact(&mut replies).expect("all of it");
    let (mut at, mut granted) = (0, 0);
    while at < replies.len() {
        let full = replies[at] == FULL;
        assert!(full || replies[at] == 0x80, "{:#x}", replies[at]);
        granted += usize::from(!full);
        at += if full { 1 } else { GRANTED_BYTES };
    }
    granted
}
