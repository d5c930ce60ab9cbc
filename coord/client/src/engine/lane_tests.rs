//! Stories of lost replies, with a server that remembers as much of a lane as it has to, and not a
//! byte more.

use std::collections::BTreeMap;

use proptest::prelude::*;
use ringway_coord_proto::wire::RawOp;

use super::*;
use crate::op::ListQuery;
use ringway_core::Slot;

/// What a call asks for.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Not to be done twice, with as large an answer as there is.
    Once,
    /// May be done twice.
    Often,
    /// As large an answer as only reading has.
    Read,
}

/// A server that executes everything, and counts it.
#[derive(Default)]
struct Server {
    last: u64,
    replies: VecDeque<(u64, Vec<u8>)>,
    /// How often each op was executed, by its name.
    done: BTreeMap<Vec<u8>, u32>,
    forgotten: u32,
}

/// A client, its connection, and the server behind it.
struct World {
    engine: Engine,
    server: Server,
    now: Moment,
    attempt: Option<Attempt>,
    greeted: bool,
    laned: bool,
    /// Frames on their way to the server, and from it.
    there: VecDeque<Vec<u8>>,
    back: VecDeque<Vec<u8>>,
    answers: BTreeMap<CallId, Result<Answer, Fault>>,
    calls: BTreeMap<CallId, (Kind, usize)>,
}

impl Server {
    /// The reply to a frame, of which so many ops are executed before its connection is gone.
    fn take(&mut self, frame: &[u8], laned: &mut bool, most: usize) -> Vec<u8> {
        let header = FrameHeader::parse(frame).expect("a good frame").expect("a whole one");
        let was_laned = *laned;
        if was_laned && header.sequence <= self.last {
            let known = self.replies.iter().find(|(sequence, _)| *sequence == header.sequence);
            let forgotten = vec![status::FORGOTTEN; usize::from(header.count)];
            self.forgotten += u32::from(known.is_none());
            return known.map_or_else(|| reply(&header, &forgotten), |(_, known)| known.clone());
        }
        let (mut ops, mut replies) = (&frame[FRAME_HEADER_BYTES..], vec![]);
        for at in 0..usize::from(header.count) {
            let op = next_op(&mut ops).expect("as many as it says");
            *laned |= op.code == op::LANE;
            match at < most {
                true => self.execute(op, &mut replies),
                false => replies.push(status::BUSY),
            }
        }
        let reply = reply(&header, &replies);
        if was_laned {
            self.last = header.sequence;
            self.remember(header.sequence, &reply);
        }
        reply
    }

    fn remember(&mut self, sequence: u64, reply: &[u8]) {
        if reply.len() > lane::BYTES_REMEMBERED {
            return;
        }
        self.replies.push_back((sequence, reply.to_vec()));
        let bytes = |replies: &VecDeque<(u64, Vec<u8>)>| -> usize {
            replies.iter().map(|(_, reply)| reply.len()).sum()
        };
        while self.replies.len() > lane::FRAMES_REMEMBERED
            || bytes(&self.replies) > lane::BYTES_REMEMBERED
        {
            self.replies.pop_front();
        }
    }

    fn execute(&mut self, op: RawOp<'_>, out: &mut Vec<u8>) {
        match op.code {
            op::OPEN => {
                let resumed = op.flags & op::OPEN_RESUME;
                let lease = 9_000_000u32.to_le_bytes();
                let data = [&SESSION.0.to_le_bytes()[..], &[3; 16], &lease, &[1, 0, 0, 0]].concat();
                put_data(out, status::DATA, &[&data, &[resumed][..]].concat());
            }
            op::LANE => {
                put_data(out, status::DATA, &[self.last.to_le_bytes(), [0; 8]].concat());
            }
            op::SET_META => {
                *self.done.entry(op.body[2..].to_vec()).or_default() += 1;
                put_data(out, status::CONFLICT, &[7; 4 + 256]);
            }
            op::QUERY => {
                *self.done.entry(op.body.to_vec()).or_default() += 1;
                put_owner(out, status::OWNED_EPHEMERAL, SESSION, Token(3));
            }
            op::LIST => {
                *self.done.entry(op.body[6..].to_vec()).or_default() += 1;
                put_data(out, status::DATA, &[7; 60_000]);
            }
            op::WAIT => put_owner(out, status::QUEUED, SessionId(5), Token(40)),
            _ => out.push(status::OK),
        }
    }
}

fn reply(header: &FrameHeader, replies: &[u8]) -> Vec<u8> {
    let mut out = vec![];
    let mut frame = FrameWriter::begin(&mut out, KIND_REPLY, 0, header.sequence);
    out.extend_from_slice(replies);
    frame.add(header.count);
    frame.finish(&mut out);
    out
}

impl World {
    fn new() -> World {
        let lease = Duration::from_secs(9000);
        let open_within = Duration::from_secs(9000);
        let settings = Settings { lease, open_within, ..settings() };
        let mut world = World {
            engine: Engine::new(Moment(0), settings),
            server: Server::default(),
            now: Moment(0),
            attempt: None,
            greeted: false,
            laned: false,
            there: VecDeque::new(),
            back: VecDeque::new(),
            answers: BTreeMap::new(),
            calls: BTreeMap::new(),
        };
        world.connect();
        world
    }

    fn step(&mut self, input: Input<'_>) {
        let mut out = vec![];
        self.engine.step(self.now, input, &mut out);
        for output in out {
            match output {
                Output::Connect(attempt, _) => self.attempt = Some(attempt),
                Output::Answer { id, result } => {
                    assert!(self.answers.insert(id, result).is_none(), "{id:?} is answered twice");
                }
                Output::Event(Event::Lost(over)) => panic!("lost: {over}"),
                _ => {}
            }
        }
        // As on a socket: what was given is written, and then there is room for more.
        loop {
            let bytes = self.engine.transmit(self.now).to_vec();
            if bytes.is_empty() {
                return;
            }
            self.engine.sent(bytes.len());
            let greeting = if self.greeted { 0 } else { PREFACE_BYTES };
            self.greeted = true;
            let mut rest = &bytes[greeting..];
            while let Some(header) = FrameHeader::parse(rest).expect("a good frame") {
                let (frame, behind) = rest.split_at(header.len);
                self.there.push_back(frame.to_vec());
                rest = behind;
            }
        }
    }

    /// Time passes until there is an attempt, which succeeds.
    fn connect(&mut self) {
        while self.attempt.is_none() {
            self.now = self.engine.wake_at().expect("it tries").max(self.now);
            self.step(Input::Tick);
        }
        let attempt = self.attempt.take().expect("there is one");
        self.step(Input::Connected(attempt));
        self.step(Input::Received(&Preface::OURS.encode()));
        self.back.clear();
        (1..=2).for_each(|_| self.reaches(1));
        self.answers_come(2);
        self.attempt = None;
    }

    fn breaks(&mut self) {
        let attempt = self.engine.attempt;
        (self.greeted, self.laned, self.attempt) = (false, false, None);
        self.there.clear();
        self.back.clear();
        self.step(Input::Broken(attempt, LinkFault::Closed));
        self.connect();
    }

    /// So many frames reach the server.
    fn reaches(&mut self, frames: usize) {
        for _ in 0..frames {
            let Some(frame) = self.there.pop_front() else { return };
            self.back.push_back(self.server.take(&frame, &mut self.laned, usize::MAX));
        }
    }

    /// The connection breaks while the server is at a frame, so many ops of which it has executed.
    fn breaks_after(&mut self, ops: usize) {
        if let Some(frame) = self.there.pop_front() {
            self.server.take(&frame, &mut self.laned, ops);
        }
        self.breaks();
    }

    /// So many replies reach the client.
    fn answers_come(&mut self, frames: usize) {
        for _ in 0..frames {
            let Some(reply) = self.back.pop_front() else { return };
            self.step(Input::Received(&reply));
        }
    }

    fn call(&mut self, kind: Kind, ops: usize) {
        let id = CallId(self.calls.len() as u64);
        let mut batch = Batch::default();
        let names = (0..ops).map(|at| name(id, at));
        names.for_each(|name| batch.push(&op_of(kind, &name)).expect("valid"));
        let repeat = if matches!(kind, Kind::Once) { Repeat::Never } else { Repeat::Safe };
        self.calls.insert(id, (kind, ops));
        self.step(Input::Call { id, ops: batch, repeat });
    }

    fn settle(&mut self) {
        loop {
            while !self.there.is_empty() || !self.back.is_empty() {
                self.reaches(1);
                self.answers_come(1);
            }
            if self.answers.len() == self.calls.len() {
                return;
            }
            self.now = self.engine.wake_at().expect("a pause").max(self.now);
            self.step(Input::Tick);
        }
    }

    /// Everybody has an answer, and what must not be done twice was done once.
    fn check(&self) {
        for (id, (kind, ops)) in &self.calls {
            let Some(Ok(answer)) = self.answers.get(id) else {
                panic!("{id:?} is answered {:?}", self.answers.get(id));
            };
            let mut rest = answer.replies.as_slice();
            let said: Vec<_> = std::iter::from_fn(|| next_reply(&mut rest)).collect();
            assert_eq!(said.len(), *ops);
            assert!(said.iter().all(|reply| reply.status() != status::BUSY), "{id:?}: {said:?}");
            for at in 0..*ops {
                let name = name(*id, at);
                let done = self.server.done.get(&name).copied().unwrap_or(0);
                let most = if matches!(kind, Kind::Once) { 1 } else { u32::MAX };
                assert!((1..=most).contains(&done), "{kind:?} {id:?} was done {done} times");
            }
        }
    }
}

fn name(id: CallId, at: usize) -> Vec<u8> {
    format!("{}-{at}", id.0).into_bytes()
}

fn op_of(kind: Kind, name: &[u8]) -> Op<'_> {
    match kind {
        Kind::Once => Op::SetMeta { name, version: None, metadata: b"" },
        Kind::Often => Op::Query(name),
        Kind::Read => {
            let slot = Slot::from_bits(0);
            Op::List(ListQuery { slot, most: 4096, after: b"", prefix: name })
        }
    }
}

/// The reply is lost at every place where one can be lost, and then at every place once more: each
/// op is executed once, whatever it is, and each call gets its answer.
#[test]
fn a_reply_may_be_lost_anywhere() {
    for (reached, heard, again) in
        (0..=6).flat_map(|a| (0..=a).flat_map(move |b| (0..=6).map(move |c| (a, b, c))))
    {
        let mut world = World::new();
        for at in 0..6 {
            world.call(if at % 2 == 0 { Kind::Once } else { Kind::Often }, 1 + at % 3);
        }
        world.reaches(reached);
        world.answers_come(heard);
        world.breaks();
        world.call(Kind::Once, 1);
        world.reaches(again);
        world.breaks();
        world.settle();
        world.check();
        assert!(world.server.done.values().all(|times| *times == 1), "{:?}", world.server.done);
    }
}

/// The connection breaks while the server is in the middle of a frame, and it answers later that it
/// had no time for the rest. Nobody hears of that: the rest is asked for again, and everything is
/// done once.
#[test]
fn what_a_break_cuts_off_is_asked_again() {
    for (first, second) in (0..=5).flat_map(|a| (0..=5).map(move |b| (a, b))) {
        let mut world = World::new();
        world.call(Kind::Once, 3);
        world.call(Kind::Often, 2);
        world.breaks_after(first);
        world.reaches(1);
        world.answers_come(1);
        world.now = world.engine.wake_at().expect("a pause").max(world.now);
        world.step(Input::Tick);
        world.breaks_after(second);
        world.settle();
        world.check();
        assert!(world.server.done.values().all(|times| *times == 1), "{:?}", world.server.done);
    }
}

/// More is asked for than a server remembers: what must not be done twice waits for its turn, and
/// never stands behind more than that.
#[test]
fn no_more_is_due_than_is_remembered() {
    let mut world = World::new();
    world.call(Kind::Once, 2000);
    world.call(Kind::Read, 1);
    world.call(Kind::Once, 1);
    let mut frames = 0;
    while world.answers.len() < world.calls.len() {
        world.reaches(usize::MAX);
        world.breaks();
        world.reaches(usize::MAX);
        world.answers_come(1);
        frames += 1;
        assert!(frames < 1000, "it gets on");
    }
    world.check();
    assert!(frames > 2000 / 62, "a few ops go in each frame: {frames}");
}

#[derive(Clone, Debug)]
enum Act {
    Call(Kind, usize),
    Wait(u8),
    Reaches(usize),
    AnswersCome(usize),
    Breaks,
    BreaksAfter(usize),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let kind = prop_oneof![Just(Kind::Once), Just(Kind::Often), Just(Kind::Read)];
    let act = prop_oneof![
        4 => (kind, prop_oneof![1usize..5, 200usize..900]).prop_map(|(kind, ops)| match kind {
            Kind::Read => Act::Call(kind, 1),
            _ => Act::Call(kind, ops),
        }),
        3 => any::<u8>().prop_map(Act::Wait),
        4 => (1usize..12).prop_map(Act::Reaches),
        4 => (1usize..12).prop_map(Act::AnswersCome),
        2 => Just(Act::Breaks),
        1 => (0usize..300).prop_map(Act::BreaksAfter),
    ];
    proptest::collection::vec(act, 1..80)
}

proptest! {
    /// Whatever is asked, and wherever connections break: no call is left without an answer, and
    /// what must not be done twice is done once.
    #[test]
    fn what_must_not_be_done_twice_is_done_once(acts in acts()) {
        let mut world = World::new();
        for (number, act) in acts.into_iter().enumerate() {
            match act {
                Act::Call(kind, ops) => world.call(kind, ops),
                Act::Wait(name) => {
                    let mode = Mode::Exclusive;
                    let request = WaitRequest { name: vec![name], mode, until: None, lock: true };
                    world.step(Input::Wait(WaitId(number as u64), request));
                }
                Act::Reaches(frames) => world.reaches(frames),
                Act::AnswersCome(frames) => world.answers_come(frames),
                Act::Breaks => world.breaks(),
                Act::BreaksAfter(ops) => world.breaks_after(ops),
            }
        }
        world.settle();
        world.check();
    }
}
