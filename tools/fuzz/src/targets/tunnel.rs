//! The tunnel: frames of records, a session that hears them, handshakes and records on the wire.
//!
//! The oracles: frames that were read are written and read the same; a session never keeps more
//! than it gave credit for, and what it says is made of frames; whatever is done to a handshake or
//! to a record is noticed, and if nothing was done it is taken.

use ringway_core::{Moment, Span};
use ringway_crypto::{
    Backend, CarrierKind, Credentials, Dial, Direction, Entropy, FIRST_BYTES, Initiator, Listener,
    NetworkKey, PrivateKey, Psk, RECORD_HEADER_BYTES, RECORD_OVERHEAD, RecordOpener, RecordSealer,
    Refused, Secret, SessionId, Suite, SuiteSet, write_join,
};
use ringway_tunnel_proto::{
    CarrierSlot, Event, Exchange, FlowId, Frame, Frames, Outlet, ResetCode, Role, Session, Settings,
};

use crate::Target;

/// The text of one record.
pub const FRAMES: Target =
    Target { name: "tunnel_frames", run: frames, seeds: frames_seeds, words: &[], bytes_max: 2048 };

/// Records of a peer, each behind a byte that says what happens before it.
pub const SESSION: Target = Target {
    name: "tunnel_session",
    run: session,
    seeds: session_seeds,
    words: &[],
    bytes_max: 4096,
};

/// Which message of a handshake, and what is done to it: places and what is xored there.
pub const HANDSHAKE: Target = Target {
    name: "tunnel_handshake",
    run: handshake,
    seeds: handshake_seeds,
    words: &[],
    bytes_max: 64,
};

/// What is done to a stream of three records.
pub const RECORDS: Target = Target {
    name: "tunnel_records",
    run: records,
    seeds: records_seeds,
    words: &[],
    bytes_max: 64,
};

fn read(text: &[u8]) -> Option<Vec<Frame<'_>>> {
    let mut frames = Frames::new(text);
    let mut all = Vec::new();
    loop {
        match frames.next() {
            Ok(Some(frame)) => all.push(frame),
            Ok(None) => return Some(all),
            Err(_) => return None,
        }
    }
}

/// Reads a record's text; what it is made of reads the same when it is written again.
pub fn frames(data: &[u8]) {
    let Some(read_once) = read(data) else { return };
    let mut again = Vec::new();
    read_once.iter().for_each(|frame| frame.write(&mut again));
    assert_eq!(read(&again), Some(read_once));
}

fn written(frames: &[Frame<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    frames.iter().for_each(|frame| frame.write(&mut out));
    out
}

fn frames_seeds() -> Vec<(&'static str, Vec<u8>)> {
    let flow = FlowId(4);
    vec![
        ("ping-pong-leave", {
            written(&[Frame::Ping { token: 7 }, Frame::Pong { token: 9 }, Frame::Leave])
        }),
        ("stream", written(&[Frame::Stream { flow, offset: 70_000, bytes: b"bytes", fin: false }])),
        ("end", written(&[Frame::Stream { flow, offset: 5, bytes: b"", fin: true }])),
        ("rekey-keys", {
            let exchange = Exchange { epoch: 1, public: [9; 32] };
            written(&[Frame::Rekey(exchange), Frame::Keys { epoch: 1 }])
        }),
        ("reset-done", {
            written(&[Frame::Reset { flow, code: ResetCode::Denied }, Frame::Done { flow }])
        }),
        ("ack-with-ranges", vec![0x0a, 8, 4, 3, 0x40, 99, 1, 2, 5, 1]),
        ("skipped", vec![0x85, 2, 7, 7, 3, 0, 0, 3, 1, 2, 3]),
        ("unknown", vec![0x40, 0]),
    ]
}

/// Notes what is heard of a session.
#[derive(Default)]
pub(super) struct Ear {
    /// Flows that the peer has opened.
    pub(super) opened: Vec<FlowId>,
    /// Carriers by which it has said that nothing more comes.
    pub(super) left: Vec<CarrierSlot>,
}

impl Outlet for Ear {
    fn data(&mut self, _: FlowId, bytes: &[u8]) {
        assert!(!bytes.is_empty(), "nothing is no news");
    }

    fn rekey(&mut self, _: Exchange) {}

    fn keys(&mut self, _: u32) {}

    fn event(&mut self, event: Event) {
        match event {
            Event::Opened(flow) => self.opened.push(flow),
            Event::Left(slot) => self.left.push(slot),
            _ => {}
        }
    }
}

const WINDOW: u64 = 4096;

/// What a session makes of a peer that says anything whatever. Each record stands behind a byte of
/// what happens first and a byte of its length.
pub fn session(data: &[u8]) {
    let mut session = Session::new(Settings {
        role: Role::Responder,
        window_first: WINDOW,
        memory: 8 * WINDOW,
        flows_max: 16,
    });
    let mut now = Moment(1_000_000_000);
    let mut ear = Ear::default();
    let carriers = [session.carrier_up(now), session.carrier_up(now)];
    let mine = session.open(now).expect("the first");
    session.write(mine, b"something to acknowledge");
    let mut rest = data;
    while let [act, len, more @ ..] = rest {
        let slot = carriers[usize::from(act & 1)];
        let (record, next) = more.split_at(more.len().min(usize::from(*len)));
        rest = next;
        now = now + Span::from_ms(u64::from(act >> 5) * 100);
        acts(&mut session, now, *act, slot, &mut ear);
        if session.received(now, slot, record, &mut ear).is_err() {
            return;
        }
        session.tick(now, &mut ear);
        // Seven eighths, and for what applications take at least 64 KiB.
        assert!(session.held() <= 7 * WINDOW + (64 << 10), "{} bytes are held", session.held());
        for flow in session.flows() {
            let report = session.flow(flow).expect("it was just named");
            assert!(report.early <= report.window, "more is kept than was promised: {report:?}");
        }
    }
}

/// What else may happen: the application reads, writes, ends; records leave; carriers die.
fn acts(session: &mut Session, now: Moment, act: u8, slot: CarrierSlot, ear: &mut Ear) {
    let flow = ear.opened.last().copied().unwrap_or(FlowId(1));
    match (act >> 1) & 15 {
        0 => session.drained(now, flow, 0),
        1 => session.reset(flow, ResetCode::Broken),
        2 => {
            session.carrier_down(now, slot);
            assert_eq!(session.carrier_up(now), slot, "the place is used again");
        }
        3 if session.room(flow) > 0 => {
            session.write(flow, b"an answer");
        }
        4 => session.finish(flow),
        _ => {
            let mut out = Vec::new();
            session.fill(now, slot, 1024, &mut out, ear);
            assert!(out.len() <= 1024 && read(&out).is_some(), "what it says are frames");
        }
    }
}

fn session_seeds() -> Vec<(&'static str, Vec<u8>)> {
    let stream =
        |flow, offset, bytes, fin| Frame::Stream { flow: FlowId(flow), offset, bytes, fin };
    let records = |acts: &[(u8, Vec<u8>)]| {
        acts.iter()
            .flat_map(|(act, text)| [&[*act, text.len() as u8], &text[..]].concat())
            .collect()
    };
    let opened = written(&[stream(0, 0, b"question", false)]);
    vec![
        ("opened-answered", {
            records(&[
                (0xfe, opened.clone()),
                (6, written(&[stream(0, 8, b"", true)])),
                (8, vec![0x0a, 5, 0, 10, 0x50, 0, 0]),
                (0xfe, vec![]),
            ])
        }),
        ("early-then-late", {
            records(&[
                (0x10, written(&[stream(0, 4, b"tail", true)])),
                (0x11, written(&[stream(0, 0, b"head", false)])),
            ])
        }),
        ("carrier-dies", records(&[(0xfe, opened.clone()), (4, opened), (0xff, vec![])])),
        ("reset-crosses", {
            let reset = Frame::Reset { flow: FlowId(0), code: ResetCode::TimedOut };
            records(&[
                (0, written(&[stream(0, 0, b"x", false)])),
                (2, written(&[reset])),
                (0xfe, vec![]),
            ])
        }),
        ("acked", records(&[(0x1e, vec![]), (0x1e, vec![0x0a, 4, 1, 24, 0x50, 0])])),
        ("overrun", records(&[(0, written(&[stream(0, 5000, b"far", false)]))])),
    ]
}

fn secret(byte: u8) -> Secret {
    Secret::new([byte; 32])
}

/// Xors triples of (place, place, bits) into `bytes`. Returns whether anything changed.
fn harm(bytes: &mut [u8], what: &[u8]) -> bool {
    let before = bytes.to_vec();
    for triple in what.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([triple[0], triple[1]])) % bytes.len();
        bytes[at] ^= triple[2];
    }
    bytes != before
}

/// Does harm to one message of a handshake. It is taken exactly if none was done.
pub fn handshake(data: &[u8]) {
    let [which, what @ ..] = data else { return };
    let network = NetworkKey::new(secret(1));
    let key = |byte| PrivateKey::new(secret(byte));
    let credentials = if which & 1 == 0 {
        Credentials::Keys { mine: key(2), theirs: key(3).public(), psk: None }
    } else {
        Credentials::Shared(Psk::new(secret(4)))
    };
    let listener = Listener {
        networks: vec![network.clone()],
        identities: vec![key(3)],
        shared: vec![Psk::new(secret(4))],
        suites: Suite::ALL.to_vec(),
    };
    let mut entropy = Entropy::from_seed(secret(5));
    let dial = Dial {
        network: &network,
        credentials: &credentials,
        kind: CarrierKind::Tcp,
        suites: SuiteSet::ALL,
        now_ms: 0,
    };
    let mut message = Vec::new();
    let initiator = Initiator::start(&dial, b"payload", &mut entropy, &mut message);
    let harmed = which & 2 == 0 && harm(&mut message, what);
    let taken = accept(&listener, &mut message, &mut entropy);
    assert_eq!(taken.is_err(), harmed, "the first message");
    let Ok((theirs, mut answer)) = taken else { return };
    let harmed = which & 2 != 0 && harm(&mut answer, what);
    let ours = finish(initiator, &mut answer);
    assert_eq!(ours.is_err(), harmed, "the answer");
    let mut join = Vec::new();
    let to = (&network, CarrierKind::Tcp, 0);
    write_join(to, (SessionId(9), 1, 0), &theirs, &mut entropy, &mut join);
    let harmed = which & 4 != 0 && harm(&mut join, what);
    assert_eq!(joins(&listener, &mut join, &theirs).is_err(), harmed, "the join");
}

type Epoch = ringway_crypto::EpochSecret;

fn accept(
    listener: &Listener,
    message: &mut [u8],
    entropy: &mut Entropy,
) -> Result<(Epoch, Vec<u8>), Refused> {
    let (first, body) = message.split_first_chunk_mut::<FIRST_BYTES>().expect("a whole message");
    let visitor = listener.knock(first, 0)?.read(listener, body, entropy)?;
    let mut answer = Vec::new();
    let theirs = visitor.accept(None, b"welcome", entropy, &mut answer)?;
    assert_eq!(*theirs.payload, b"payload");
    Ok((theirs.secret, answer))
}

fn finish(mut initiator: Initiator, answer: &mut [u8]) -> Result<(), Refused> {
    let (first, body) = answer.split_first_chunk_mut::<FIRST_BYTES>().expect("a whole message");
    if initiator.answered(first)? != body.len() {
        return Err(Refused::Length);
    }
    initiator.finish(body).map(|ours| assert_eq!(*ours.payload, b"welcome"))
}

fn joins(listener: &Listener, join: &mut [u8], secret: &Epoch) -> Result<(), Refused> {
    let (first, body) = join.split_first_chunk_mut::<FIRST_BYTES>().expect("a whole message");
    listener.knock(first, 0)?.read_join(body)?.verify(secret)
}

fn handshake_seeds() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("unharmed-keys", vec![0]),
        ("unharmed-shared", vec![1]),
        ("salt", vec![0, 3, 0, 1]),
        ("head", vec![1, 40, 0, 1]),
        ("body", vec![0, 100, 0, 0x80]),
        ("answer", vec![2, 200, 0, 4]),
        ("join", vec![6, 0, 0, 0]),
        ("join-proof", vec![4 | 2 | 1, 90, 0, 1]),
        ("twice-is-never", vec![0, 9, 0, 1, 9, 0, 1]),
    ]
}

/// Does harm to three records on a stream. Those before the first harm are taken, and none after.
pub fn records(data: &[u8]) {
    let mut entropy = Entropy::from_seed(secret(5));
    let (listener, mut message) = (
        Listener {
            networks: vec![NetworkKey::new(secret(1))],
            identities: Vec::new(),
            shared: vec![Psk::new(secret(4))],
            suites: vec![Suite::Aes128Gcm],
        },
        Vec::new(),
    );
    let dial = Dial {
        network: &listener.networks[0],
        credentials: &Credentials::Shared(Psk::new(secret(4))),
        kind: CarrierKind::Tcp,
        suites: SuiteSet::ALL,
        now_ms: 0,
    };
    Initiator::start(&dial, b"payload", &mut entropy, &mut message);
    let (epoch, _) = accept(&listener, &mut message, &mut entropy).expect("nothing was done to it");
    let keys = epoch.traffic(Suite::Aes128Gcm, Direction::ToResponder, 1);
    let mut sealer = RecordSealer::new(&keys, Backend::AwsLc);
    let mut stream = Vec::new();
    let mut ends = Vec::new();
    for text in [&b"one"[..], b"", b"three three three"] {
        let mut record = vec![0; text.len() + RECORD_OVERHEAD];
        record[RECORD_HEADER_BYTES..][..text.len()].copy_from_slice(text);
        sealer.seal(&mut record).expect("the key is fresh");
        stream.extend_from_slice(&record);
        ends.push(stream.len());
    }
    let good = stream.clone();
    harm(&mut stream, data);
    let first_harm = good.iter().zip(&stream).position(|(a, b)| a != b).unwrap_or(good.len());
    let wanted = ends.iter().filter(|end| **end <= first_harm).count();
    assert_eq!(opened(RecordOpener::new(&keys, Backend::Ring), &mut stream), wanted);
}

/// How many records at the beginning of a stream open.
fn opened(mut opener: RecordOpener, mut stream: &mut [u8]) -> usize {
    let mut count = 0;
    while let Some((header, rest)) = stream.split_first_chunk_mut::<RECORD_HEADER_BYTES>() {
        let Ok(len) = opener.body_len(header) else { break };
        let Some((body, rest)) = rest.split_at_mut_checked(len) else { break };
        if opener.open(body).is_err() {
            break;
        }
        count += 1;
        stream = rest;
    }
    count
}

fn records_seeds() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("unharmed", vec![0, 0, 0]),
        ("first-header", vec![9, 0, 1]),
        ("first-text", vec![17, 0, 1]),
        ("second-tag", vec![60, 0, 1]),
        ("third-header", vec![70, 0, 0xff]),
    ]
}
