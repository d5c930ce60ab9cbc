//! The habits of the kernel that trains of datagrams lean on, one test each.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::net::UdpSocket;

use ringway_core::Span;
use ringway_ring::{
    Arrival, Buffers, Completion, Cut, DatagramSocket, Errno, Feature, Features, Filled, Group,
    Left, ProbeMask, Ring, RingConfig, SocketMemory, Tag, Towards, Train, Wait, probe,
};

const SMALL: RingConfig = RingConfig {
    entries: 16,
    completions: 256,
    buffers: 8,
    buffer_bytes: 1024,
    second: None,
    datagrams: Some(Buffers::for_trains(8)),
};

fn features(mask: ProbeMask) -> Features {
    probe(mask).unwrap().features
}

/// Receives that go on by themselves, and those that do not.
fn both_receives() -> [Features; 2] {
    let all = ProbeMask::default();
    [features(all), features(all.without(Feature::MultishotReceiveMessage))]
}

fn bound() -> DatagramSocket {
    let socket =
        DatagramSocket::bind("127.0.0.1:0".parse().unwrap(), SocketMemory::default()).unwrap();
    socket.put_together().unwrap();
    socket
}

/// A ring with a socket at which it receives, and what it has said so far.
struct Story {
    ring: Ring,
    socket: DatagramSocket,
    receive: u32,
    heard: Vec<Completion>,
}

impl Story {
    fn new(features: Features) -> Story {
        let (mut ring, socket) = (Ring::new(&SMALL, features).unwrap(), bound());
        let receive = ring.receive_trains(&socket, Group::Datagrams, Tag(5));
        Story { ring, socket, receive, heard: Vec::new() }
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

    /// The next end of a receive; one that is over is begun again.
    fn received(&mut self) -> Result<Option<Filled>, Errno> {
        let got = self.until(|c| matches!(c, Completion::TrainReceived { .. }));
        let Completion::TrainReceived { tag: Tag(5), result, more } = got else {
            panic!("{got:?}")
        };
        if !more {
            self.receive = self.ring.receive_trains(&self.socket, Group::Datagrams, Tag(5));
        }
        result
    }

    /// The next train, in memory of our own.
    fn train(&mut self) -> (Arrival, Vec<u8>) {
        let mut filled = self.received().unwrap().expect("not an empty one");
        let (arrival, bytes) = self.ring.arrival(&mut filled).expect("a whole one");
        let bytes = bytes.to_vec();
        self.ring.recycle(filled);
        (arrival, bytes)
    }

    fn send(&mut self, from: &DatagramSocket, train: Train) -> (Train, Left) {
        self.ring.send_train(from, train, Tag(9));
        let sent = self.until(|c| matches!(c, Completion::TrainSent { .. }));
        let Completion::TrainSent { tag: Tag(9), train } = sent else { panic!("{sent:?}") };
        self.ring.take_train(train)
    }

    fn towards(&self, segment: u16) -> Towards {
        Towards::new(self.socket.local_address().unwrap(), segment)
    }
}

/// A train is one request to the kernel and arrives as one, or as its datagrams; its memory comes
/// back, and silence was success.
#[test]
fn trains_go_and_come() {
    for mask in [ProbeMask::default(), ProbeMask::default().without(Feature::QuietSend)] {
        for cut in [Cut::ByKernel, Cut::Here] {
            let mut story = Story::new(features(mask));
            let sender = bound();
            let towards = story.towards(1000);
            let bytes: Vec<u8> = (0..3500).map(|at| (at / 9) as u8).collect();
            let sent = Train { towards, bytes: bytes.clone(), cut };
            let address = sent.bytes.as_ptr();
            let (back, left) = story.send(&sender, sent);
            assert_eq!((back.bytes.as_ptr(), left), (address, Left::default()));
            let sizes: &[usize] =
                if cut == Cut::ByKernel { &[3500] } else { &[1000, 1000, 1000, 500] };
            let mut from = 0;
            for size in sizes {
                let (arrival, got) = story.train();
                assert_eq!(arrival.from, sender.local_address().unwrap());
                assert_eq!(arrival.segment_bytes, 1000.min(*size));
                assert!(got == bytes[from..][..*size]);
                from += size;
            }
            story.ring.stop_receiving_trains(story.receive);
            let end = story.until(|c| matches!(c, Completion::TrainReceived { .. }));
            let Completion::TrainReceived { result, more: false, .. } = end else { panic!() };
            assert_eq!(result.unwrap_err(), Errno::CANCELLED);
            assert_eq!(story.ring.in_flight(), 0);
        }
    }
}

/// Each datagram has an end of its own where we cut, and all share one where the kernel does.
#[test]
fn failures_are_told_apart() {
    let mut story = Story::new(features(ProbeMask::default()));
    let sender = bound();
    // Port 0 is nobody's: the kernel refuses it. Too long is one that no datagram can be.
    for (port, bytes, segment, why) in
        [(0, 3000, 1000, Errno::INVALID), (9, 65_508, u16::MAX, Errno::TOO_LONG)]
    {
        for cut in [Cut::ByKernel, Cut::Here] {
            let towards = Towards::new(([127, 0, 0, 1], port).into(), segment);
            let train = Train { towards, bytes: vec![7; bytes], cut };
            let all = (1 << train.datagrams()) - 1;
            let (back, left) = story.send(&sender, train);
            assert_eq!((left.failed, left.waiting, left.why), (all, 0, Some(why)));
            assert_eq!(back.bytes.len(), bytes);
        }
    }
}

/// No buffer means an end that says so, and no datagram lost: they wait in the socket.
#[test]
fn no_buffers_loses_nothing() {
    for features in both_receives() {
        let mut story = Story::new(features);
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = story.socket.local_address().unwrap();
        for number in 0..20u8 {
            sender.send_to(&[number; 100], to).unwrap();
        }
        let (mut held, mut starved, mut next) = (Vec::new(), 0, 0);
        while next < 20 {
            match story.received() {
                Ok(got) => held.push(got.expect("not an empty one")),
                // The next receive may have begun before all were given back.
                Err(errno) => {
                    assert_eq!(errno, Errno::NO_BUFFERS);
                    assert!(held.len() == 8 || starved > 0, "all buffers were ours");
                    starved += 1;
                }
            }
            if held.len() == 8 && starved > 0 || usize::from(next) + held.len() == 20 {
                for mut filled in held.drain(..) {
                    let (_, bytes) = story.ring.arrival(&mut filled).unwrap();
                    assert_eq!((bytes.len(), bytes[0]), (100, next));
                    next += 1;
                    story.ring.recycle(filled);
                }
            }
        }
        assert!(starved > 0);
    }
}

/// An empty datagram is one, and those behind it arrive; so is one that fills a buffer to the end.
#[test]
fn the_shortest_and_the_longest_arrive() {
    for features in both_receives() {
        let mut story = Story::new(features);
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = story.socket.local_address().unwrap();
        for bytes in [0, 1, 0, 0, 65_507, 9] {
            sender.send_to(&vec![3; bytes], to).unwrap();
        }
        let mut got = Vec::new();
        while got.len() < 6 {
            let Some(mut filled) = story.received().unwrap() else {
                got.push(0);
                continue;
            };
            got.push(story.ring.arrival(&mut filled).map_or(0, |(arrival, bytes)| {
                assert_eq!(arrival.segment_bytes, bytes.len());
                bytes.len()
            }));
            story.ring.recycle(filled);
        }
        assert_eq!(got, [0, 1, 0, 0, 65_507, 9]);
    }
}

/// What does not fit into a buffer is recognised, not delivered as if it were whole.
#[test]
fn what_is_cut_off_is_recognised() {
    for features in both_receives() {
        let few = Buffers { count: 8, bytes: 1024 };
        let config = RingConfig { datagrams: Some(few), ..SMALL };
        let mut story = Story::new(features);
        story.ring = Ring::new(&config, features).unwrap();
        story.receive = story.ring.receive_trains(&story.socket, Group::Datagrams, Tag(5));
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = story.socket.local_address().unwrap();
        sender.send_to(&[1; 769], to).unwrap();
        sender.send_to(&[2; 768], to).unwrap();
        let mut filled = story.received().unwrap().expect("not an empty one");
        assert!(story.ring.arrival(&mut filled).is_none());
        story.ring.recycle(filled);
        assert_eq!(story.train().1, [2; 768]);
    }
}

/// ECN bits and the address to send from travel with a train, in both families and between them.
#[test]
fn what_stands_around_travels_along() {
    use ringway_ring::Ecn::{Able0, Able1, Congested, Unable};
    let memory = SocketMemory::default();
    for (bind, from, to) in [
        ("0.0.0.0:0", "127.0.0.2", "127.0.0.3"),
        ("[::]:0", "::1", "::1"),
        ("[::]:0", "127.0.0.2", "127.0.0.3"),
    ] {
        let Ok(sender) = DatagramSocket::bind(bind.parse().unwrap(), memory) else { continue };
        for features in both_receives() {
            let mut story = Story::new(features);
            let Ok(socket) = DatagramSocket::bind(bind.parse().unwrap(), memory) else { continue };
            story.ring = Ring::new(&SMALL, features).unwrap();
            story.socket = socket;
            story.receive = story.ring.receive_trains(&story.socket, Group::Datagrams, Tag(5));
            let port = story.socket.local_address().unwrap().port();
            for ecn in [Unable, Able1, Able0, Congested] {
                let to = (to.parse::<std::net::IpAddr>().unwrap(), port).into();
                let from = Some(from.parse().unwrap());
                let towards = Towards { ecn, from, ..Towards::new(to, 100) };
                let train = Train { towards, bytes: vec![1; 50], cut: Cut::ByKernel };
                assert_eq!(story.send(&sender, train).1, Left::default());
                let (arrival, _) = story.train();
                assert_eq!(arrival.ecn, ecn);
                assert_eq!((Some(arrival.from.ip()), arrival.to), (from, Some(to.ip())));
            }
        }
    }
}

/// A socket with room says so at once, once.
#[test]
fn room_is_told_once() {
    let mut story = Story::new(features(ProbeMask::default()));
    let sender = bound();
    story.ring.await_room(&sender, Tag(3));
    let has_room = |c: &Completion| matches!(c, Completion::HasRoom { tag: Tag(3) });
    story.until(has_room);
    assert_eq!(story.ring.in_flight(), 1, "the receive");
    story.ring.stop_awaiting_room(Tag(3));
    story.ring.submit_and_wait(Wait::No).unwrap();
    assert_eq!(story.ring.in_flight(), 1);
}

/// A ring dropped in the middle of everything neither hangs nor lets the kernel write into memory
/// that is somebody else's by then.
#[test]
fn a_ring_can_be_dropped_any_time() {
    for features in both_receives() {
        let mut story = Story::new(features);
        story.ring.submit_and_wait(Wait::No).unwrap();
        let to = story.socket.local_address().unwrap();
        let (sender, kept) = (bound(), UdpSocket::bind("127.0.0.1:0").unwrap());
        let train = Train { towards: story.towards(9), bytes: vec![1; 90], cut: Cut::Here };
        story.ring.send_train(&sender, train, Tag(0));
        kept.send_to(b"nobody reads this", to).unwrap();
        drop(story);
        let _ = kept.send_to(b"nor this", to);
    }
}
