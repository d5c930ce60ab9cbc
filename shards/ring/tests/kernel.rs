//! The habits of the kernel that the ring leans on, one test each. A test that fails here on a
//! new kernel names the habit that changed.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use ringway_core::Span;
use ringway_ring::{
    Bell, Buffers, Completion, Errno, Feature, Features, Group, ProbeMask, Received, Ring,
    RingConfig, SendMode, Tag, Wait, net, probe,
};

/// Small queues, so that tests reach their ends.
const SMALL: RingConfig = RingConfig {
    entries: 16,
    completions: 64,
    buffers: 8,
    buffer_bytes: 1024,
    second: None,
    datagrams: None,
};

fn features() -> Features {
    probe(ProbeMask::default()).unwrap().features
}

fn features_without(feature: Feature) -> Features {
    probe(ProbeMask::default().without(feature)).unwrap().features
}

/// A ring, and what it has said so far.
struct Story {
    ring: Ring,
    heard: Vec<Completion>,
}

impl Story {
    fn new(features: Features) -> Story {
        Story { ring: Ring::new(&SMALL, features).unwrap(), heard: Vec::new() }
    }

    /// Waits until something matches, and takes it out of what was heard.
    fn until(&mut self, wanted: impl Fn(&Completion) -> bool) -> Completion {
        loop {
            if let Some(at) = self.heard.iter().position(&wanted) {
                return self.heard.remove(at);
            }
            self.ring.submit_and_wait(Wait::AtMost(Span::from_s(20))).unwrap();
            let before = self.heard.len();
            self.ring.reap(&mut self.heard).unwrap();
            assert!(self.heard.len() > before, "nothing happened; heard {:?}", self.heard);
        }
    }

    /// Submits without waiting and says how many completions that gave.
    fn submit(&mut self) -> usize {
        let before = self.heard.len();
        self.ring.submit_and_wait(Wait::No).unwrap();
        self.ring.reap(&mut self.heard).unwrap();
        self.heard.len() - before
    }

    /// Everything received under a tag, until its end or error; re-arms nothing.
    fn receive_until_end(&mut self, tag: Tag) -> (Vec<u8>, Result<(), Errno>) {
        let mut bytes = Vec::new();
        loop {
            let got = self.until(|c| matches!(c, Completion::Received { tag: t, .. } if *t == tag));
            let Completion::Received { result, more, .. } = got else { unreachable!() };
            match result {
                Ok(Received::Bytes(filled)) => {
                    bytes.extend_from_slice(self.ring.bytes(&filled));
                    self.ring.recycle(filled);
                }
                Ok(Received::End) => return (bytes, Ok(())),
                Err(errno) => return (bytes, Err(errno)),
            }
            if !more {
                return (bytes, Ok(()));
            }
        }
    }
}

fn is_sent(completion: &Completion) -> bool {
    matches!(completion, Completion::Sent { .. })
}

fn is_received(completion: &Completion) -> bool {
    matches!(completion, Completion::Received { .. })
}

/// One request receives many times, in order, and a peer that goes ends it.
#[test]
fn one_request_receives_again_and_again() {
    for features in [features(), features_without(Feature::DeferTaskrun)] {
        let mut story = Story::new(features);
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        story.ring.receive(&ours, Group::First, Tag(5));
        for word in [b"one", b"two"] {
            theirs.write_all(word).unwrap();
            let got = story.until(is_received);
            let Completion::Received { tag, result: Ok(Received::Bytes(filled)), more } = got
            else {
                panic!("{got:?}")
            };
            assert_eq!((tag, story.ring.bytes(&filled), more), (Tag(5), &word[..], true));
            story.ring.recycle(filled);
        }
        drop(theirs);
        assert_eq!(story.receive_until_end(Tag(5)), (Vec::new(), Ok(())));
        assert_eq!(story.ring.in_flight(), 0);
    }
}

/// Without multishot each receive ends, and says so.
#[test]
fn single_receives_end_each_time() {
    let mut story = Story::new(features_without(Feature::MultishotReceive));
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    for _ in 0..3 {
        story.ring.receive(&ours, Group::First, Tag(1));
        theirs.write_all(b"x").unwrap();
        assert_eq!(story.receive_until_end(Tag(1)), (b"x".to_vec(), Ok(())));
    }
    assert_eq!(story.ring.in_flight(), 0);
}

/// When no buffer is free the receive ends with ENOBUFS, no byte is lost, and a new one goes on.
#[test]
fn no_buffers_ends_a_receive_and_loses_nothing() {
    let mut story = Story::new(features());
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let sent: Vec<u8> = (0..20 * 1024).map(|i| (i / 7) as u8).collect();
    theirs.write_all(&sent).unwrap();
    drop(theirs);
    let (mut got, mut held, mut starved) = (Vec::new(), Vec::new(), 0);
    story.ring.receive(&ours, Group::First, Tag(0));
    while got.len() < sent.len() {
        let Completion::Received { result, more, .. } = story.until(is_received) else { panic!() };
        match result {
            Ok(Received::Bytes(filled)) => {
                got.extend_from_slice(story.ring.bytes(&filled));
                held.push(filled);
            }
            Ok(Received::End) => panic!("the end came before the bytes"),
            Err(errno) => {
                assert_eq!((errno, more), (Errno::NO_BUFFERS, false));
                assert_eq!(held.len(), 8, "all buffers were ours");
                held.drain(..).for_each(|filled| story.ring.recycle(filled));
                story.ring.receive(&ours, Group::First, Tag(0));
                starved += 1;
            }
        }
    }
    assert!(starved > 0 && got == sent);
}

/// A second group has buffers of its own, of another size: while one group has none left the other
/// goes on, and what is cancelled in one is not in the other.
#[test]
fn two_groups_do_not_starve_each_other() {
    let config = RingConfig { second: Some(Buffers { count: 2, bytes: 4096 }), ..SMALL };
    let ring = Ring::new(&config, features()).unwrap();
    let mut story = Story { ring, heard: Vec::new() };
    let (first, mut to_first) = UnixStream::pair().unwrap();
    let (second, mut to_second) = UnixStream::pair().unwrap();
    to_second.write_all(&[7; 3 * 4096]).unwrap();
    story.ring.receive(&second, Group::Second, Tag(4));
    let mut held = Vec::new();
    loop {
        let Completion::Received { result, .. } = story.until(is_received) else { panic!() };
        match result {
            Ok(Received::Bytes(filled)) => held.push(filled),
            Ok(Received::End) => panic!("the end came before the bytes"),
            Err(errno) => break assert_eq!(errno, Errno::NO_BUFFERS),
        }
    }
    assert!(held.len() == 2 && held.iter().all(|filled| filled.len() == 4096));
    assert_eq!(story.ring.buffers_held(), 0, "those of the first group");
    story.ring.receive(&first, Group::First, Tag(4));
    to_first.write_all(b"free").unwrap();
    let Completion::Received { result: Ok(Received::Bytes(filled)), more: true, .. } =
        story.until(is_received)
    else {
        panic!("{:?}", story.heard)
    };
    assert_eq!(story.ring.bytes(&filled), b"free");
    story.ring.recycle(filled);
    for mut filled in held {
        assert!(story.ring.bytes_mut(&mut filled).iter().all(|byte| *byte == 7));
        story.ring.recycle(filled);
    }
    story.ring.receive(&second, Group::Second, Tag(4));
    story.ring.stop_receiving(Group::First, Tag(4));
    assert_eq!(story.receive_until_end(Tag(4)).1, Err(Errno::CANCELLED));
    to_second.write_all(b"still").unwrap();
    drop(to_second);
    let (bytes, end) = story.receive_until_end(Tag(4));
    assert!(bytes.ends_with(b"still") && end == Ok(()), "{bytes:?} {end:?}");
}

/// A cancelled receive may have taken bytes: they come before the cancellation, which is last.
#[test]
fn a_cancelled_receive_still_delivers() {
    let mut story = Story::new(features());
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    story.ring.receive(&ours, Group::First, Tag(9));
    story.submit();
    theirs.write_all(b"late").unwrap();
    story.ring.stop_receiving(Group::First, Tag(9));
    let (bytes, end) = story.receive_until_end(Tag(9));
    assert_eq!(end, Err(Errno::CANCELLED));
    // Whether the bytes were taken is the kernel's choice; that none is lost is not.
    theirs.write_all(b"r").unwrap();
    drop(theirs);
    let mut rest = Vec::new();
    (&ours).read_to_end(&mut rest).unwrap();
    assert_eq!([bytes, rest].concat(), b"later");
}

/// Silence after the submission means that everything was taken: the habit of `send_quietly`.
#[test]
fn a_quiet_send_that_fits_costs_no_completion() {
    let mut story = Story::new(features());
    assert!(story.ring.features().has(Feature::QuietSend));
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    story.ring.send(&ours, b"-hello".to_vec(), 1..6, SendMode::AtOnce, Tag(3));
    assert_eq!(story.submit(), 1);
    let Completion::Sent { tag, buffer, result } = story.until(is_sent) else { panic!() };
    assert_eq!((tag, buffer.as_slice(), result), (Tag(3), &b"-hello"[..], Ok(5)));
    let mut got = [0; 5];
    theirs.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"hello");
    // The wait is for news of others, not for the send: nobody has any.
    story.ring.send(&ours, b"again".to_vec(), 0..5, SendMode::AtOnce, Tag(3));
    let start = ringway_ring::host::now();
    story.ring.submit_and_wait(Wait::AtMost(Span::from_ms(20))).unwrap();
    assert!(ringway_ring::host::now().since(start) >= Span::from_ms(20));
}

/// A quiet send into a full socket tells how much was taken; a patient one takes the rest as
/// the reader reads. Not a byte is lost or doubled in between.
#[test]
fn a_short_send_is_reported_and_resumed() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut theirs, _) = listener.accept().unwrap();
    let sent: Vec<u8> = (0..32 << 20).map(|i: u32| (i / 251) as u8).collect();
    let mut story = Story::new(features());
    story.ring.send(&ours, sent.clone(), 0..sent.len(), SendMode::AtOnce, Tag(1));
    assert_eq!(story.submit(), 1, "a short send reports at once");
    let Completion::Sent { buffer, result, .. } = story.until(is_sent) else { panic!() };
    let taken = result.unwrap() as usize;
    assert!(0 < taken && taken < sent.len(), "{taken} bytes taken");
    story.ring.send(&ours, buffer, taken..sent.len(), SendMode::AtOnce, Tag(1));
    assert_eq!(story.submit(), 1);
    let Completion::Sent { buffer, result, .. } = story.until(is_sent) else { panic!() };
    let taken = taken + result.unwrap() as usize;
    story.ring.send(&ours, buffer, taken..sent.len(), SendMode::Patient, Tag(1));
    assert_eq!(story.submit(), 0, "a patient send waits for the reader");
    let reader = std::thread::spawn(move || {
        let mut got = Vec::new();
        theirs.read_to_end(&mut got).unwrap();
        got
    });
    let Completion::Sent { result, .. } = story.until(is_sent) else { panic!() };
    assert_eq!(result, Ok((sent.len() - taken) as u32));
    drop(ours);
    assert!(reader.join().unwrap() == sent);
}

/// Without quiet sends every send reports its end, and nothing else changes.
#[test]
fn sends_report_without_the_quiet_habit() {
    let mut story = Story::new(features_without(Feature::QuietSend));
    let (ours, _theirs) = UnixStream::pair().unwrap();
    story.ring.send(&ours, b"hello".to_vec(), 0..5, SendMode::AtOnce, Tag(3));
    let Completion::Sent { buffer, result, .. } = story.until(is_sent) else { panic!() };
    assert_eq!((buffer.as_slice(), result), (&b"hello"[..], Ok(5)));
}

/// A peer that is gone is an error of the send, not a signal to the process.
#[test]
fn sending_to_nobody_is_an_error() {
    let mut story = Story::new(features());
    let (ours, theirs) = UnixStream::pair().unwrap();
    drop(theirs);
    for mode in [SendMode::AtOnce, SendMode::Patient] {
        story.ring.send(&ours, vec![1], 0..1, mode, Tag(0));
        let Completion::Sent { result, .. } = story.until(is_sent) else { panic!() };
        assert_eq!(result, Err(Errno(libc::EPIPE)));
    }
}

/// A patient send that is cancelled gives its buffer back.
#[test]
fn a_cancelled_send_returns_its_buffer() {
    let mut story = Story::new(features());
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let send = story.ring.send(&ours, vec![7; 8 << 20], 0..8 << 20, SendMode::Patient, Tag(0));
    assert_eq!(story.submit(), 0);
    story.ring.stop_sending(send);
    let Completion::Sent { buffer, .. } = story.until(is_sent) else { panic!() };
    assert_eq!(buffer.len(), 8 << 20);
    assert_eq!(story.ring.in_flight(), 0);
}

/// More requests than the queue holds, and more completions than theirs: none is lost.
#[test]
fn full_queues_lose_nothing() {
    let mut story = Story::new(features_without(Feature::QuietSend));
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    for i in 0..200u8 {
        story.ring.send(&ours, vec![i], 0..1, SendMode::AtOnce, Tag(u32::from(i)));
    }
    for i in 0..200u32 {
        let Completion::Sent { tag, .. } = story.until(is_sent) else { panic!() };
        assert_eq!(tag, Tag(i));
    }
    let mut got = [0u8; 200];
    theirs.read_exact(&mut got).unwrap();
    assert!(got.iter().enumerate().all(|(i, byte)| i == usize::from(*byte)));
    assert_eq!(story.ring.in_flight(), 0);
}

/// One request accepts many connections, with and without multishot.
#[test]
fn connections_are_accepted() {
    for features in [features(), features_without(Feature::MultishotAccept)] {
        let mut story = Story::new(features);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        story.ring.accept(&listener, Tag(2));
        for _ in 0..3 {
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let Completion::Accepted { tag, result, more } =
                story.until(|c| matches!(c, Completion::Accepted { .. }))
            else {
                panic!()
            };
            let served = TcpStream::from(result.unwrap());
            assert_eq!(served.peer_addr().unwrap(), client.local_addr().unwrap());
            assert_eq!((tag, more), (Tag(2), features.has(Feature::MultishotAccept)));
            if !more {
                story.ring.accept(&listener, Tag(2));
            }
        }
        story.ring.stop_accepting(Tag(2));
        let Completion::Accepted { result, more: false, .. } =
            story.until(|c| matches!(c, Completion::Accepted { .. }))
        else {
            panic!()
        };
        assert_eq!(result.unwrap_err(), Errno::CANCELLED);
    }
}

/// A bell wakes a ring each time it is rung, also when nobody has read its counter.
#[test]
fn bells_are_heard() {
    let mut story = Story::new(features());
    let bell = Bell::new().unwrap();
    story.ring.watch(&bell, Tag(4));
    story.submit();
    for _ in 0..3 {
        bell.ring();
        let heard = story.until(|c| matches!(c, Completion::Watched { .. }));
        assert!(matches!(heard, Completion::Watched { tag: Tag(4), more: true }));
    }
    assert!(bell.hush());
    assert!(!bell.hush());
}

/// One ring wakes another that sleeps in the kernel, in silence on its own side.
#[test]
fn rings_wake_each_other() {
    if !features().has(Feature::RingToRing) {
        return;
    }
    let (to_us, from_peer) = std::sync::mpsc::channel();
    let peer = std::thread::spawn(move || {
        let mut story = Story::new(features());
        to_us.send(story.ring.handle().unwrap()).unwrap();
        let heard = story.until(|c| matches!(c, Completion::Rung { .. }));
        assert!(matches!(heard, Completion::Rung { tag: Tag(77) }));
    });
    let handle = from_peer.recv().unwrap();
    let mut story = Story::new(features());
    story.ring.ring_peer(&handle, Tag(77), Tag(1));
    assert_eq!(story.submit(), 0, "success is silent");
    peer.join().unwrap();
}

/// A ring dropped in the middle of everything neither hangs nor lets the kernel write into
/// memory that is somebody else's by then.
#[test]
fn a_ring_can_be_dropped_any_time() {
    for features in [features(), features_without(Feature::DeferTaskrun)] {
        let mut story = Story::new(features);
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let (full, _kept) = UnixStream::pair().unwrap();
        let bell = Bell::new().unwrap();
        story.ring.receive(&ours, Group::First, Tag(0));
        story.ring.watch(&bell, Tag(1));
        story.ring.send(&full, vec![1; 8 << 20], 0..8 << 20, SendMode::Patient, Tag(2));
        story.submit();
        theirs.write_all(b"nobody reads this").unwrap();
        drop(story);
        assert!(theirs.write_all(b"the socket lives on").is_ok());
    }
}

fn is_connected(completion: &Completion) -> bool {
    matches!(completion, Completion::Connected { .. })
}

/// A listening socket whose queue is full: the kernel drops what asks for more, as if nobody were
/// there. What fills the queue comes along.
fn nobody_answers() -> (TcpListener, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // SAFETY: passes a descriptor and a number, touches no memory.
    assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
    let filling = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (listener, filling)
}

/// Connects end with the truth, in both families: there, or refused.
#[test]
fn connects_tell_their_end() {
    let mut story = Story::new(features());
    for any in ["127.0.0.1:0", "[::1]:0"] {
        let Ok(listener) = TcpListener::bind(any) else { continue };
        let address = listener.local_addr().unwrap();
        let socket = net::socket_for(address).unwrap();
        story.ring.connect(&socket, address, Tag(6));
        let got = story.until(is_connected);
        assert!(matches!(got, Completion::Connected { tag: Tag(6), result: Ok(()) }), "{got:?}");
        assert_eq!(listener.accept().unwrap().1, socket.local_addr().unwrap());
        drop(listener);
        let socket = net::socket_for(address).unwrap();
        story.ring.connect(&socket, address, Tag(7));
        let Completion::Connected { result, .. } = story.until(is_connected) else { panic!() };
        assert_eq!(result, Err(Errno::REFUSED));
    }
    assert_eq!(story.ring.in_flight(), 0);
}

/// A connect that nobody answers waits until it is cancelled; its address is the ring's meanwhile.
#[test]
fn a_connect_can_be_cancelled() {
    let (listener, _filling) = nobody_answers();
    let address = listener.local_addr().unwrap();
    let mut story = Story::new(features());
    let socket = net::socket_for(address).unwrap();
    let connect = story.ring.connect(&socket, address, Tag(1));
    assert_eq!(story.submit(), 0, "nobody answers");
    story.ring.stop_connecting(connect);
    let Completion::Connected { result, .. } = story.until(is_connected) else { panic!() };
    assert_eq!(result, Err(Errno::CANCELLED));
    assert_eq!(story.ring.in_flight(), 0);
    // And a ring that is dropped amid one does not hang.
    let socket = net::socket_for(address).unwrap();
    story.ring.connect(&socket, address, Tag(2));
    story.submit();
    drop(story);
}

/// A patient send that is cancelled amid its bytes tells exactly how many were taken: those that
/// the reader finds, no more and no fewer. A connection that changes its shard leans on it.
#[test]
fn a_cancelled_send_tells_how_much_was_taken() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut theirs, _) = listener.accept().unwrap();
    let mut story = Story::new(features());
    let send = story.ring.send(&ours, vec![7; 32 << 20], 0..32 << 20, SendMode::Patient, Tag(0));
    assert_eq!(story.submit(), 0);
    // It goes on a little, and is cancelled wherever it is then.
    theirs.read_exact(&mut vec![0; 3 << 20]).unwrap();
    story.submit();
    story.ring.stop_sending(send);
    let Completion::Sent { result, .. } = story.until(is_sent) else { panic!() };
    let taken = result.unwrap() as usize;
    assert!(taken > 3 << 20, "{taken}");
    drop(ours);
    let mut rest = Vec::new();
    theirs.read_to_end(&mut rest).unwrap();
    assert_eq!((3 << 20) + rest.len(), taken);
}
