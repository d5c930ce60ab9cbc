//! Whole connections against a whole process: bytes cut anywhere, on three connections of one to
//! three shards, with lost connections and passing time between them.
//!
//! The oracle for a native connection is the header of each frame it sent: every whole frame is
//! answered once, in order, with as many replies as it had ops, unless the connection was closed,
//! which needs a reason. In the end nothing is left in any shard.

use ringway_coord_proto::residue::Residue;
use ringway_coord_proto::wire::{
    FRAME_HEADER_BYTES, FrameHeader, FrameWriter, KIND_REQUEST, MAGIC, PREFACE_BYTES, Preface,
    TLS_HANDSHAKE, next_op, op, push, put_op,
};
use ringway_core::Span;
use ringway_sim::process::{Link, Process, Settings};
use ringway_sim::stream::{Heard, Stream};

use crate::Target;

/// A process and its connections. An input is one byte that says how many shards there are, then
/// chunks: what to do (see [`Step`]), a length, so many bytes for one of the connections.
pub const CONN: Target = Target {
    name: "conn",
    run: conn,
    seeds,
    words: &[
        &[MAGIC, 1, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0],
        &[1, 0, 1, 0, b'a'],
        &[2, 0, 1, 0, b'a'],
        b"SET a b NX PX 100\r\n",
        b"PORT.REGISTER a\r\n",
        b"PORT.WAIT a 0\r\n",
        b"PORT.META a SET b\r\n",
        b"HELLO 3\r\n",
        b"PORT.SEND a b RECEIPT\r\n",
        b"PORT.WATCH a b/ SNAPSHOT\r\n",
    ],
    bytes_max: 1024,
};

/// Connections of an input.
const CONNS: usize = 3;
/// Longer than any lease that a server of the simulator grants.
const ALL_LEASES: Span = Span::from_s(31);

/// What a chunk's first byte says, beside its connection in the low two bits.
#[derive(Clone, Copy, Debug)]
struct Step(u8);

impl Step {
    const TURN_ONE: u8 = 0x04;
    const SETTLE: u8 = 0x08;
    const PASS: u8 = 0x10;
    const HALF_CLOSE: u8 = 0x20;
    const DROP: u8 = 0x40;

    const fn conn(self) -> usize {
        (self.0 & 3) as usize % CONNS
    }

    const fn does(self, bit: u8) -> bool {
        self.0 & bit != 0
    }
}

/// A connection: what it sent, and what it has to hear.
struct Client {
    link: Link,
    native: Option<bool>,
    sent: Vec<u8>,
    half_closed: bool,
    stream: Stream,
    answered: usize,
    /// A session ended, or moved to another connection: that may close this one.
    excused: bool,
}

/// What a native client has sent, as the protocol's document understands it.
struct Asked {
    /// Sequence and ops of each whole frame.
    frames: Vec<(u64, u16)>,
    /// It cannot be followed beyond these.
    broken: bool,
    /// There is a LANE among them.
    laned: bool,
    /// A frame of a number that is over is broken. Over a lane nobody reads it; if the lane was
    /// refused, it ends the connection. What follows is not judged.
    unsure: bool,
}

/// Runs one input.
pub fn conn(data: &[u8]) {
    let Some((first, mut rest)) = data.split_first() else { return };
    let shards = 1 + usize::from(*first) % 3;
    let mut process = Process::start(&Settings { shards, ..Settings::default() });
    let mut clients: Vec<Option<Client>> = (0..CONNS).map(|_| None).collect();
    while let Some(([step, len], after)) = rest.split_first_chunk::<2>() {
        let (bytes, after) = after.split_at(after.len().min(usize::from(*len)));
        rest = after;
        let step = Step(*step);
        let client = clients[step.conn()]
            .get_or_insert_with(|| Client::connect(&mut process, step.conn() % shards));
        client.send(&mut process, bytes);
        advance(&mut process, client.link.shard, step);
        if client.does_end(&mut process, step) {
            clients[step.conn()] = None;
        }
    }
    process.settle();
    for client in clients.iter_mut().flatten() {
        client.hear(&mut process);
        client.check_all_answered(&process);
        process.disconnect(client.link);
    }
    process.run_for(ALL_LEASES);
    for shard in 0..shards {
        assert_eq!(process.shard(shard).residue(), Residue::default(), "shard {shard} leaks");
    }
    assert_eq!(process.strays(), 0, "bytes for connections that are gone");
}

fn advance(process: &mut Process, shard: usize, step: Step) {
    if step.does(Step::TURN_ONE) {
        process.turn(shard, usize::MAX);
    }
    if step.does(Step::SETTLE) {
        process.settle();
    }
    if step.does(Step::PASS) {
        process.settle();
        process.run_for(Span::from_ms(60));
    }
}

impl Client {
    fn connect(process: &mut Process, shard: usize) -> Self {
        Self {
            link: process.connect(shard),
            native: None,
            sent: Vec::new(),
            half_closed: false,
            stream: Stream::default(),
            answered: 0,
            excused: false,
        }
    }

    fn send(&mut self, process: &mut Process, bytes: &[u8]) {
        if self.half_closed || bytes.is_empty() {
            return;
        }
        self.native.get_or_insert(bytes[0] == MAGIC);
        self.sent.extend_from_slice(bytes);
        process.send(self.link, bytes);
    }

    /// Whether the step, or the server, ended the connection.
    fn does_end(&mut self, process: &mut Process, step: Step) -> bool {
        if step.does(Step::HALF_CLOSE) && !self.half_closed && !process.is_closed(self.link) {
            self.half_closed = true;
            process.end(self.link);
        }
        self.hear(process);
        let closed = process.is_closed(self.link);
        if closed {
            self.check_all_answered(process);
        }
        if closed || step.does(Step::DROP) {
            process.disconnect(self.link);
        }
        closed || step.does(Step::DROP)
    }

    /// Reads what has come, frame by frame.
    fn hear(&mut self, process: &mut Process) {
        let bytes = process.take(self.link);
        if self.native != Some(true) {
            return;
        }
        let asked = Asked::read(&self.sent);
        self.excused |= asked.unsure;
        for heard in self.stream.take(&bytes).expect("the server keeps to its protocol") {
            match heard {
                Heard::Replies(sequence, got) => {
                    let expected = asked.frames.get(self.answered);
                    let got = (sequence, got.len() as u16);
                    // Over a lane a number that was used is answered as it was then, whatever the
                    // frame says now.
                    let same = expected.is_some_and(|(sequence, _)| *sequence == got.0);
                    let then = asked.frames.iter().take(self.answered).any(|frame| *frame == got);
                    if !(asked.laned && same && then || expected.is_none() && asked.unsure) {
                        assert_eq!(Some(&got), expected, "frame {}", self.answered);
                    }
                    self.answered += 1;
                }
                Heard::Notice(push::PROTOCOL_ERROR, ..) => {
                    assert!(asked.broken || asked.unsure, "a proper stream is called broken");
                }
                Heard::Notice(..) => self.excused = true,
                Heard::Told(..) => {}
            }
        }
    }

    /// All that was asked is answered; or the connection was closed for a reason.
    fn check_all_answered(&self, process: &Process) {
        if self.native != Some(true) {
            return;
        }
        let asked = Asked::read(&self.sent);
        let closed = process.is_closed(self.link);
        if closed && self.excused || asked.unsure {
            return;
        }
        assert_eq!(self.answered, asked.frames.len(), "frames answered");
        assert!(!closed || asked.broken || self.half_closed, "closed for no reason");
        assert!(closed || !asked.broken, "a broken stream is still open");
    }
}

impl Asked {
    fn read(sent: &[u8]) -> Self {
        let mut asked = Self { frames: Vec::new(), broken: false, laned: false, unsure: false };
        let Some((preface, mut rest)) = sent.split_first_chunk::<PREFACE_BYTES>() else {
            return asked;
        };
        if Preface::parse(preface).is_none_or(|theirs| theirs.major != Preface::OURS.major) {
            asked.broken = true;
            return asked;
        }
        loop {
            let header = match FrameHeader::parse(rest) {
                Ok(Some(header)) if header.kind == KIND_REQUEST => header,
                Ok(None) => return asked,
                Ok(Some(_)) | Err(_) => {
                    asked.broken = true;
                    return asked;
                }
            };
            let Some((frame, after)) = rest.split_at_checked(header.len) else { return asked };
            asked.frames.push((header.sequence, header.count));
            let mut ops = &frame[FRAME_HEADER_BYTES..];
            let laned = &mut asked.laned;
            let mut next = || next_op(&mut ops).inspect(|op| *laned |= op.code == op::LANE);
            let whole = (0..header.count).all(|_| next().is_some());
            if !whole || !ops.is_empty() {
                // Ops that do not fill their frame: it is answered, then nothing is believed.
                let before = &asked.frames[..asked.frames.len() - 1];
                let again = before.iter().any(|(sequence, _)| *sequence >= header.sequence);
                asked.unsure = asked.laned && again;
                asked.broken = !ops.is_empty() && !asked.unsure;
                if asked.broken || asked.unsure {
                    return asked;
                }
            }
            rest = after;
        }
    }
}

fn chunk(step: u8, bytes: &[u8]) -> Vec<u8> {
    assert!(bytes.len() < 256, "a chunk holds 255 bytes");
    let mut out = vec![step, bytes.len() as u8];
    out.extend_from_slice(bytes);
    out
}

fn frame(sequence: u64, ops: &[(u8, u8, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = FrameWriter::begin(&mut out, KIND_REQUEST, 0, sequence);
    for (code, flags, body) in ops {
        put_op(&mut out, *code, *flags, body);
        writer.add(1);
    }
    writer.finish(&mut out);
    out
}

fn native(frames: &[Vec<u8>]) -> Vec<u8> {
    [Preface::OURS.encode().to_vec(), frames.concat()].concat()
}

/// Messages of every kind, and what is none.
fn messages() -> (Vec<u8>, Vec<u8>) {
    use ringway_core::{SessionId, Token};
    use ringway_sim::native::{broadcast, register, send, send_fenced, send_to_session};
    let messages = native(&[
        frame(1, &[register("a"), register("b"), send(0, "b", b"hello")]),
        frame(
            2,
            &[
                send(op::SEND_RECEIPT, "a", b"one"),
                send(op::SEND_SAME, "b", b""),
                (op::PING, 0, vec![]),
                send(op::SEND_SAME | op::SEND_RECEIPT, "free", b""),
                send_fenced(op::SEND_RECEIPT, ("a", Token(1 << 44 | 1)), "b", b"two"),
                send_fenced(0, ("b", Token(9)), "a", b"old"),
                send_to_session(op::SEND_RECEIPT, SessionId(9), b"nobody"),
                broadcast(op::SEND_RECEIPT, b"all"),
                broadcast(0, b"again"),
            ],
        ),
    ]);
    let broken_messages = native(&[frame(
        1,
        &[
            send(op::SEND_SAME, "a", b""),
            send(op::SEND_SAME, "a", b"x"),
            (op::SEND, op::SEND_FENCED, b"\x01a\x01b\x00".to_vec()),
            (op::SEND, op::SEND_SESSION, vec![1; 7]),
            (op::SEND, 0x80, vec![1, b'a']),
            (op::SEND, 0, vec![]),
        ],
    )]);
    (messages, broken_messages)
}

/// Watches of a name and a prefix, with what happens to them, and a lane over which a frame is sent
/// again; then what is neither.
fn watches_and_lanes() -> [Vec<u8>; 3] {
    use ringway_sim::native::{open, register, release, unwatch, watch, watch_with};
    let lane = |number: u32| (op::LANE, 0, number.to_le_bytes().to_vec());
    let watched = native(&[
        frame(1, &[register("a"), watch_with(op::WATCH_SNAPSHOT, 1, "a"), watch(2, "b/")]),
        frame(2, &[register("b/1"), release("a"), register("a"), release("b/1"), unwatch(1)]),
        frame(3, &[watch(1, "b/"), register("b/2"), (op::CLOSE, 0, vec![])]),
    ]);
    let again = frame(2, &[register("a"), register("b"), (op::META, 0, b"a".to_vec())]);
    let laned = native(&[
        frame(1, &[open(0, 7, 100, None), lane(8)]),
        again.clone(),
        again,
        frame(3, &[release("a"), lane(8)]),
    ]);
    let neither = native(&[frame(
        1,
        &[
            watch(1, ""),
            watch_with(0x80, 1, "a"),
            (op::WATCH, op::WATCH_RESUME, vec![1, 0, 0, 0, 15, 0, 0, 0, 0, 200, 1]),
            (op::WATCH, 0, vec![1]),
            (op::UNWATCH, 0, vec![]),
            lane(0),
            (op::LANE, 0, vec![1]),
        ],
    )]);
    [watched, laned, neither]
}

/// Redis clients of which one holds a name and others wait for it; and such as watch and write.
fn redis_clients() -> (Vec<u8>, Vec<u8>) {
    let holds = b"PORT.WAIT a 0\r\nPORT.META a SET b VERSION 0\r\nPORT.META a\r\n";
    let waits = b"PORT.WAIT a 50\r\nPORT.WAIT a 0 MODE SHARED\r\nPORT.WAITERS a\r\nPING\r\n";
    let blocked = [
        chunk(Step::SETTLE, holds),
        chunk(1 | Step::PASS, waits),
        chunk(2 | Step::PASS, waits),
        chunk(1 | Step::DROP, b""),
        chunk(Step::SETTLE, b"PORT.REVOKE a\r\nPORT.WAIT a 0\r\nPING\r\n"),
        chunk(Step::HALF_CLOSE, b""),
    ];
    let watches = b"HELLO 3\r\nPORT.WATCH a b/ SNAPSHOT\r\nPORT.REGISTER a\r\nPING\r\n";
    let sends = b"PORT.REGISTER b/1 b/2\r\nPORT.SEND a hi RECEIPT\r\nPORT.BROADCAST ho\r\n";
    let told = [
        chunk(Step::SETTLE, watches),
        chunk(1 | Step::SETTLE, sends),
        chunk(2 | Step::TURN_ONE, watches),
        chunk(Step::SETTLE, b"PORT.UNWATCH b/\r\nPORT.WATCH b/\r\nHELLO 2\r\nPORT.WATCH a\r\n"),
        chunk(2 | Step::DROP, b""),
    ];
    (blocked.concat(), told.concat())
}

fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    use ringway_sim::native::{open, query, register, release};
    let names = native(&[
        frame(1, &[register("a"), register("b"), query("c")]),
        frame(2, &[release("a"), (op::RENEW, 0, vec![])]),
    ]);
    let session = native(&[
        frame(1, &[register("a"), open(0, 7, 100, None), register("b")]),
        frame(2, &[(op::CLOSE, 0, vec![]), register("c")]),
    ]);
    let (messages, broken_messages) = messages();
    let [watched, laned, neither] = watches_and_lanes();
    let bare = native(&[frame(1, &[open(op::OPEN_BARE, 7, 100, None), register("a")])]);
    let looks = native(&[frame(
        9,
        &[
            (op::PING, 0, b"hi".to_vec()),
            (op::LIST, 0, vec![0, 0, 9, 0, 0, 0]),
            (op::SESSIONS, 0, vec![0, 0, 0, 0, 0, 0, 0, 0, 9, 0]),
            (op::SHARD_STATS, 0, vec![0]),
            (0x7E, 0, vec![1]),
        ],
    )]);
    let bytewise: Vec<u8> = names.iter().flat_map(|byte| chunk(Step::TURN_ONE, &[*byte])).collect();
    let broken = [names.clone(), vec![1, 0, 0, 0], vec![0; 12]].concat();
    let locks = b"SET lock me NX PX 100\r\nGET lock\r\nPORT.REGISTER a b\r\nDEL lock\r\n".to_vec();
    let (blocked, told) = redis_clients();
    let replaced = [
        chunk(Step::SETTLE, &bare),
        chunk(1 | Step::SETTLE, &bare),
        chunk(Step::PASS, &frame(2, &[register("b")])),
        chunk(1 | Step::PASS, &frame(2, &[register("b")])),
    ];
    let lost = [chunk(Step::DROP, &session), chunk(1 | Step::SETTLE, &session)];
    vec![
        ("names", [vec![0], chunk(Step::SETTLE, &names)].concat()),
        ("names-two-shards", [vec![1], chunk(Step::SETTLE, &names)].concat()),
        ("names-byte-by-byte", [vec![2], bytewise].concat()),
        ("session", [vec![2], chunk(Step::SETTLE, &session)].concat()),
        ("blocked", [vec![0], blocked.clone()].concat()),
        ("blocked-three-shards", [vec![2], blocked].concat()),
        ("told", [vec![0], told.clone()].concat()),
        ("told-three-shards", [vec![2], told].concat()),
        ("replaced", [vec![1], replaced.concat()].concat()),
        ("lost", [vec![2], lost.concat()].concat()),
        ("messages", [vec![0], chunk(Step::SETTLE, &messages)].concat()),
        ("messages-three-shards", [vec![2], chunk(Step::PASS, &messages)].concat()),
        ("messages-lost", [vec![1], chunk(Step::DROP, &messages)].concat()),
        ("messages-broken", [vec![1], chunk(Step::SETTLE, &broken_messages)].concat()),
        ("watches", [vec![0], chunk(Step::SETTLE, &watched)].concat()),
        ("watches-three-shards", [vec![2], chunk(Step::PASS, &watched)].concat()),
        ("lanes", [vec![0], chunk(Step::SETTLE, &laned)].concat()),
        ("lanes-lost", [vec![2], chunk(Step::DROP, &laned)].concat()),
        ("watches-and-lanes-broken", [vec![1], chunk(Step::SETTLE, &neither)].concat()),
        ("looks", [vec![1], chunk(1 | Step::HALF_CLOSE, &looks)].concat()),
        ("broken", [vec![1], chunk(0, &broken)].concat()),
        ("resp", [vec![1], chunk(Step::PASS, &locks), chunk(1, &locks)].concat()),
        ("tls", [vec![0], chunk(0, &[TLS_HANDSHAKE, 3, 1])].concat()),
    ]
}
