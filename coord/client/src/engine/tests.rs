//! Stories of one session in virtual time. The server is the story's: it reads what the engine has
//! sent, op by op, and says what it is told to say.

use std::io;

use ringway_coord_proto::wire::{
    FrameHeader, FrameWriter, KIND_PUSH, KIND_REPLY, PREFACE_BYTES, Preface, next_op, next_reply,
    op, push, put_data, put_op, put_owner, status,
};
use ringway_core::wire::Put;
use ringway_core::{NodeId, Token};

use super::*;
use crate::blocking::Credentials;
use crate::notice::{ChangeKind, Owned};
use crate::op::{Events, Mode};

/// The session that the story's server gives.
const SESSION: SessionId = SessionId(77);

fn settings() -> Settings {
    Settings {
        node: NodeId(7),
        lease: Duration::from_secs(9),
        address: Vec::new(),
        metadata: Vec::new(),
        credentials: None,
        addresses: 1,
        at_risk_per_mille: 500,
        margin_per_mille: 50,
        open_within: Duration::from_secs(30),
        busy_within: Duration::from_secs(2),
        seed: 1,
    }
}

struct Story {
    engine: Engine,
    now: Moment,
    /// What came out and was not looked at.
    log: Vec<String>,
    attempt: Attempt,
    /// Frames that were sent and have no reply: their numbers, and how many ops they have.
    open: VecDeque<(u64, u16)>,
    unread: Vec<u8>,
    greeted: bool,
    without_lanes: bool,
}

impl Story {
    fn new(settings: Settings) -> Story {
        Story {
            engine: Engine::new(Moment(0), settings),
            now: Moment(0),
            log: Vec::new(),
            attempt: Attempt(0),
            open: VecDeque::new(),
            unread: Vec::new(),
            greeted: false,
            without_lanes: false,
        }
    }

    /// A session that is open, at time zero.
    fn opened() -> Story {
        let mut story = Story::new(settings());
        story.open_now();
        story.then("valid until 8550; opened 77");
        story
    }

    fn open_now(&mut self) {
        self.at_ms(self.now.0 / 1_000_000).then("connect 0");
        self.connected().says("OPEN, LANE").answers_opened(false);
    }

    /// After a break: connects again and resumes.
    #[track_caller]
    fn resume(&mut self, after_ms: u64) -> &mut Story {
        self.at_ms(after_ms).then("connect 0");
        self.connected().says("OPEN resume, LANE").answers_opened(true)
    }

    /// Time passes, and the engine is woken whenever it has asked for it.
    fn at_ms(&mut self, ms: u64) -> &mut Story {
        let until = Moment(ms * 1_000_000);
        while let Some(wake) = self.engine.wake_at().filter(|wake| *wake <= until) {
            let before = (self.now, self.log.len(), self.unread.len());
            self.now = self.now.max(wake);
            self.step(Input::Tick);
            let after = (self.now, self.log.len(), self.unread.len());
            assert!(before != after || self.engine.wake_at() != Some(wake), "it spins at {wake:?}");
        }
        self.now = until;
        self.step(Input::Tick)
    }

    fn step(&mut self, input: Input<'_>) -> &mut Story {
        let mut out = vec![];
        self.engine.step(self.now, input, &mut out);
        for output in out {
            if let Output::Connect(attempt, _) = output {
                self.attempt = attempt;
            }
            if output == Output::Disconnect {
                self.open.clear();
                self.unread.clear();
                self.greeted = false;
            }
            self.log.extend(told(&output));
        }
        self.write()
    }

    fn write(&mut self) -> &mut Story {
        let bytes = self.engine.transmit(self.now).to_vec();
        self.engine.sent(bytes.len());
        self.unread.extend(bytes);
        self
    }

    fn connected(&mut self) -> &mut Story {
        let attempt = self.attempt;
        self.step(Input::Connected(attempt));
        let preface = Preface::OURS.encode();
        self.step(Input::Received(&preface))
    }

    fn breaks(&mut self) -> &mut Story {
        let attempt = self.attempt;
        self.step(Input::Broken(attempt, LinkFault::Closed))
    }

    /// What the engine has sent since it was last looked at, frame by frame.
    #[track_caller]
    fn says(&mut self, expected: &str) -> &mut Story {
        let mut rest = self.unread.as_slice();
        if !self.greeted && !rest.is_empty() {
            rest = &rest[PREFACE_BYTES..];
            self.greeted = true;
        }
        let mut frames = vec![];
        while let Some(header) = FrameHeader::parse(rest).expect("a good frame") {
            let (frame, behind) = rest.split_at(header.len);
            let mut ops = &frame[FRAME_HEADER_BYTES..];
            let texts: Vec<_> = (0..header.count)
                .map(|_| asked(next_op(&mut ops).expect("as many ops as it says")))
                .collect();
            frames.push(texts.join(", "));
            self.open.push_back((header.sequence, header.count));
            rest = behind;
        }
        self.unread.clear();
        assert_eq!(frames.join(" | "), expected);
        self
    }

    /// The server answers the oldest frame with these replies.
    fn answers(&mut self, replies: &[u8]) -> &mut Story {
        let (sequence, count) = self.open.pop_front().expect("a frame without replies");
        let mut out = vec![];
        let mut frame = FrameWriter::begin(&mut out, KIND_REPLY, 0, sequence);
        out.extend_from_slice(replies);
        frame.add(count);
        frame.finish(&mut out);
        self.step(Input::Received(&out))
    }

    fn answers_opened(&mut self, resumed: bool) -> &mut Story {
        self.answers_opened_as(SESSION, resumed)
    }

    fn answers_opened_as(&mut self, session: SessionId, resumed: bool) -> &mut Story {
        let mut data = vec![];
        data.put_u64(session.0);
        data.extend_from_slice(&[3; 16]);
        data.put_u32(9000);
        data.put_u32(1);
        data.put_u8(u8::from(resumed));
        let mut reply = vec![];
        put_data(&mut reply, status::DATA, &data);
        match self.without_lanes {
            true => reply.push(status::UNKNOWN_OP),
            false => put_data(&mut reply, status::DATA, &[[0; 8], [1; 8]].concat()),
        }
        self.answers(&reply)
    }

    fn answers_owner(&mut self, status: u8, session: u64, token: u64) -> &mut Story {
        let mut reply = vec![];
        put_owner(&mut reply, status, SessionId(session), Token(token));
        self.answers(&reply)
    }

    fn answers_watching(&mut self, beginning: u8) -> &mut Story {
        let mut data = vec![beginning, 1, 0];
        data.put_u32(1);
        data.put_u64(10);
        let mut reply = vec![];
        put_data(&mut reply, status::DATA, &data);
        self.answers(&reply)
    }

    fn pushes(&mut self, code: u8, body: &[u8]) -> &mut Story {
        let mut out = vec![];
        let mut frame = FrameWriter::begin(&mut out, KIND_PUSH, 0, 0);
        put_op(&mut out, code, 0, body);
        frame.add(1);
        frame.finish(&mut out);
        self.step(Input::Received(&out))
    }

    fn pushes_granted(&mut self, ticket: u64, token: u64, name: &[u8]) -> &mut Story {
        let body = [&ticket.to_le_bytes()[..], &token.to_le_bytes(), &[0], name].concat();
        self.pushes(push::GRANTED, &body)
    }

    fn pushes_state(&mut self, watch: u32, token: u64, name: &[u8]) -> &mut Story {
        let mut body = vec![];
        body.put_u32(watch);
        body.put_u8(0);
        body.put_u64(5);
        body.put_u64(token);
        body.extend_from_slice(name);
        self.pushes(push::STATE, &body)
    }

    fn pushes_change(
        &mut self,
        watch: u32,
        kind: u8,
        at: u64,
        token: u64,
        name: &[u8],
    ) -> &mut Story {
        let mut body = vec![];
        body.put_u32(watch);
        body.extend_from_slice(&[0, 0, kind]);
        body.put_u32(1);
        body.put_u64(at);
        body.put_u64(5);
        body.put_u64(token);
        body.put_short_bytes(name);
        self.pushes(push::EVENT, &body)
    }

    fn pushes_end(&mut self, watch: u32) -> &mut Story {
        self.pushes(push::SNAPSHOT_END, &watch.to_le_bytes())
    }

    fn call(&mut self, id: u64, ops: &[Op<'_>], repeat: Repeat) -> &mut Story {
        let mut out = vec![];
        let input = Input::Call { id: CallId(id), ops: batch(ops), repeat };
        self.engine.step(self.now, input, &mut out);
        self.log.extend(out.iter().flat_map(told));
        self
    }

    fn wait(&mut self, id: u64, name: &[u8], until_ms: Option<u64>, lock: bool) -> &mut Story {
        let until = until_ms.map(|ms| Moment(ms * 1_000_000));
        let request = WaitRequest { name: name.to_vec(), mode: Mode::Exclusive, until, lock };
        self.step(Input::Wait(WaitId(id), request))
    }

    fn watch(&mut self, id: u64, filter: &[u8]) -> &mut Story {
        let request = WatchRequest { filter: filter.to_vec(), events: Events::OWNERS, budget: 0 };
        self.step(Input::Watch(WatcherId(id), request))
    }

    /// What the engine has said since it was last looked at.
    #[track_caller]
    fn then(&mut self, expected: &str) -> &mut Story {
        let log = std::mem::take(&mut self.log);
        assert_eq!(log.join("; "), expected);
        self
    }
}

fn batch(ops: &[Op<'_>]) -> Batch {
    let mut batch = Batch::default();
    ops.iter().for_each(|op| batch.push(op).expect("valid"));
    batch
}

fn ms(moment: Moment) -> u64 {
    moment.0 / 1_000_000
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn told(output: &Output) -> Option<String> {
    Some(match output {
        Output::Connect(_, address) => format!("connect {address}"),
        Output::Disconnect => return None,
        Output::Answer { id, result: Ok(answer) } => {
            let mut rest = answer.replies.as_slice();
            let statuses: Vec<_> = std::iter::from_fn(|| next_reply(&mut rest))
                .map(|reply| status::name(reply.status()))
                .collect();
            let again = if answer.repeated { " again" } else { "" };
            format!("answer {}:{again} {}", id.0, statuses.join(" "))
        }
        Output::Answer { id, result: Err(fault) } => format!("answer {}: {fault:?}", id.0),
        Output::Wait { id, result: Ok(owner) } => format!("grant {}: {}", id.0, owner.token),
        Output::Wait { id, result: Err(fault) } => format!("wait {}: {fault:?}", id.0),
        Output::Watch { id, item } => format!("watch {}: {}", id.0, told_item(item)),
        Output::Message(message) => format!("message {}", text(&message.payload)),
        Output::Event(event) => told_event(event),
        Output::ValidUntil(moment) => format!("valid until {}", ms(*moment)),
    })
}

fn told_item(item: &WatchItem) -> String {
    let owned = |owned: &Owned| format!("{}={}", text(&owned.name), owned.token);
    match item {
        WatchItem::Snapshot(names) => {
            format!("[{}]", names.iter().map(owned).collect::<Vec<_>>().join(" "))
        }
        WatchItem::Change(change) => match change.kind {
            ChangeKind::Acquired => format!("+{}", owned(&change.owned)),
            ChangeKind::Released => format!("-{}", owned(&change.owned)),
            other => format!("{other:?} {}", owned(&change.owned)),
        },
        other => format!("{other:?}").to_lowercase(),
    }
}

fn told_event(event: &Event) -> String {
    match event {
        Event::Opened(session) => format!("opened {}", session.0),
        Event::Interrupted(fault) => format!("interrupted {fault:?}"),
        Event::Resumed => "resumed".into(),
        Event::AtRisk { left } => format!("at risk, {} left", left.as_millis()),
        Event::Safe => "safe".into(),
        Event::Received { name, token, .. } => format!("received {}={token}", text(name)),
        Event::Taken { name, token, .. } => format!("taken {}={token}", text(name)),
        Event::Lost(over) => format!("lost: {over:?}"),
    }
}

fn asked(raw: ringway_coord_proto::wire::RawOp<'_>) -> String {
    let name = |from: usize| text(&raw.body[from..]);
    match raw.code {
        op::QUERY => format!("QUERY {}", name(0)),
        op::REGISTER => format!("REGISTER {}", name(0)),
        op::RELEASE if raw.flags == 0 => format!("RELEASE {}", name(0)),
        op::RELEASE => format!("RELEASE {}={}", name(8), raw.body[0]),
        op::WAIT => {
            let within = u32::from_le_bytes(raw.body[..4].try_into().expect("four bytes"));
            format!("WAIT {} {within}", name(4))
        }
        op::CANCEL => format!("CANCEL {} {}", name(8), raw.body[0]),
        op::OPEN if raw.flags == op::OPEN_RESUME => "OPEN resume".into(),
        op::OPEN => "OPEN".into(),
        op::LANE => "LANE".into(),
        op::RENEW => "RENEW".into(),
        op::CLOSE => "CLOSE".into(),
        op::AUTH => "AUTH".into(),
        op::WATCH if raw.flags & op::WATCH_RESUME != 0 => {
            format!("WATCH {} from {} {}", raw.body[0], raw.body[15], name(23))
        }
        op::WATCH => format!("WATCH {} {}", raw.body[0], name(9)),
        op::UNWATCH => format!("UNWATCH {}", raw.body[0]),
        op::SEND => "SEND".into(),
        other => format!("op {other:#x}"),
    }
}

const SEND: Op<'static> = Op::Send {
    letter: crate::op::Letter {
        target: crate::op::Target::Session(SESSION),
        fence: None,
        receipt: false,
        payload: b"hi",
    },
    same: false,
};

/// A lease is renewed at a third of it, and counts from when the renewal was sent, not from when
/// its answer came: the server may have got it right then.
#[test]
fn a_lease_is_renewed_and_counts_from_sending() {
    let mut story = Story::opened();
    story.at_ms(2999).says("").then("");
    story.at_ms(3000).says("RENEW").then("");
    story.at_ms(4200).answers(&[status::OK]).then("valid until 11550");
    story.at_ms(5999).says("");
    story.at_ms(6000).says("RENEW");
}

/// Nobody answers: first it is at risk, then it is over by our own clock, with everything that
/// waits. Nothing that comes later brings it back.
#[test]
fn a_lease_without_answer_is_at_risk_and_then_lost_for_good() {
    let mut story = Story::opened();
    story.at_ms(4499).says("RENEW").then("");
    story.at_ms(4500).then("at risk, 4050 left");
    story.call(1, &[Op::Query(b"a")], Repeat::Safe);
    story.wait(2, b"b", None, true).watch(3, b"c/");
    story.at_ms(6000).then("interrupted Silent; connect 0");
    story.at_ms(8549).then("connect 0");
    let lost = "valid until 0; lost: Expired; answer 1: Over(Expired); \
                wait 2: Fault(Over(Expired)); watch 3: ended(fault(over(expired)))";
    story.at_ms(8550).then(lost);
    story.connected().says("").then("");
    story.call(4, &[Op::Query(b"a")], Repeat::Safe).then("answer 4: Over(Expired)");
    story.at_ms(60_000).says("").then("");
}

/// The server is there and talks, but its confirmation comes when the lease is over by our clock:
/// too late, although the server may have renewed in time (R6).
#[test]
fn a_renewal_that_is_confirmed_too_late_revives_nothing() {
    let mut story = Story::opened();
    story.at_ms(3000).says("RENEW");
    for second in 4..=8 {
        story.at_ms(second * 1000).pushes(0x7F, b"");
    }
    story.then("at risk, 4050 left");
    story.now = Moment(8_550_000_000);
    story.answers(&[status::OK]).then("valid until 0; lost: Expired");
}

/// A renewal that is confirmed after the warning takes the warning back.
#[test]
fn a_late_renewal_is_safe_again() {
    let mut story = Story::opened();
    story.at_ms(3000).says("RENEW");
    story.at_ms(4600).then("at risk, 4050 left");
    story.answers(&[status::OK]).then("valid until 11550; safe");
    story.at_ms(6000).says("RENEW").answers(&[status::OK]).then("valid until 14550");
    story.at_ms(9000).says("RENEW").answers(&[status::BUSY]).then("");
    story.at_ms(10_500).says("RENEW").then("at risk, 4050 left");
}

/// Calls that come together share a frame; their answers are told apart again.
#[test]
fn calls_share_frames() {
    let mut story = Story::opened();
    story.call(1, &[Op::Query(b"a"), Op::Query(b"b")], Repeat::Safe);
    story.call(2, &[Op::Query(b"c")], Repeat::Safe);
    story.write().says("QUERY a, QUERY b, QUERY c");
    story.call(3, &[Op::Query(b"d")], Repeat::Safe).call(4, &[], Repeat::Safe);
    story.write().says("QUERY d").then("answer 4: ");
    story.answers(&[status::FREE, status::FREE, status::NOTOWNER]);
    story.then("answer 1: FREE FREE; answer 2: NOTOWNER");
    story.answers(&[status::FREE]).then("answer 3: FREE");
}

/// The connection breaks between ops and replies. The frames are sent again as they were, under
/// their numbers, before anything else; the server answers what it has executed as it did then.
#[test]
fn a_lost_reply_comes_once_more() {
    let mut story = Story::opened();
    story.call(1, &[Op::Query(b"a"), SEND], Repeat::Never).write().says("QUERY a, SEND");
    story.wait(2, b"n", None, true).says("WAIT n 0");
    story.call(3, &[SEND], Repeat::Never).write().says("SEND");
    let numbers: Vec<u64> = story.open.iter().map(|(sequence, _)| *sequence).collect();
    story.breaks().call(4, &[Op::Query(b"b")], Repeat::Safe).then("interrupted Closed");
    story.resume(100).then("valid until 8650; resumed");
    story.says("QUERY a, SEND | SEND | WAIT n 0 | QUERY b");
    let again: Vec<u64> = story.open.iter().map(|(sequence, _)| *sequence).collect();
    assert_eq!([again[0], again[1]], [numbers[0], numbers[2]]);
    assert!(numbers[2] < again[2] && again[2] < again[3], "{numbers:?} {again:?}");
    story.answers(&[status::FREE, status::OK]).answers(&[status::OK]);
    story.then("answer 1: FREE OK; answer 3: OK");
}

/// A server that was short of memory says that it has forgotten. Who may ask twice does not notice;
/// the others are told that nobody knows, and a batch of theirs does not go on.
#[test]
fn what_was_forgotten_is_asked_anew_or_unknown() {
    let mut story = Story::opened();
    story.call(1, &[Op::Query(b"a"), Op::Query(b"b")], Repeat::Safe).write();
    story.call(2, &vec![SEND; 8000], Repeat::Never).write();
    story.call(3, &[SEND], Repeat::Never);
    story.breaks().then("interrupted Closed");
    story.resume(100).then("valid until 8650; resumed");
    // As many as the server remembers, in four frames; the rest of them has to wait.
    let sent = [1820, 1820, 1820, 1814];
    let sends = sent.map(|count| vec!["SEND"; count].join(", ")).join(" | ");
    story.says(&format!("QUERY a, QUERY b | {sends}"));
    story.answers(&[status::FORGOTTEN; 2]).says("");
    story.answers(&[status::FORGOTTEN; 1820]).then("").says("SEND, QUERY a, QUERY b");
    for count in &sent[1..] {
        story.answers(&vec![status::OK; *count]);
    }
    story.then("answer 2: Unknown").answers(&[status::OK, status::FREE, status::FREE]);
    story.then("answer 3: OK; answer 1: again FREE FREE").says("");
}

/// A server without lanes: what may be done twice is sent again; the caller of the rest is told
/// that nobody knows; what was not sent was not done, and simply waits.
#[test]
fn without_lanes_a_lost_reply_is_repeated_or_unknown() {
    let mut story = Story::new(settings());
    story.without_lanes = true;
    story.open_now();
    story.then("valid until 8550; opened 77");
    story.call(1, &[Op::Query(b"a"), Op::Query(b"b")], Repeat::Safe);
    story.call(2, &[SEND], Repeat::Never).write().says("QUERY a, QUERY b, SEND");
    story.breaks().then("interrupted Closed; answer 2: Unknown");
    story.call(3, &[SEND], Repeat::Never);
    story.resume(100).then("valid until 8650; resumed").says("QUERY a, QUERY b, SEND");
    story.answers(&[status::FREE, status::FREE, status::OK]);
    story.then("answer 1: again FREE FREE; answer 3: OK");
}

/// Of a batch that takes several frames, only what has no answer is sent again.
#[test]
fn a_large_batch_goes_on_where_it_was_answered() {
    let mut story = Story::opened();
    let names: Vec<String> = (0..5000).map(|number| format!("n{number}")).collect();
    let ops: Vec<Op<'_>> = names.iter().map(|name| Op::Query(name.as_bytes())).collect();
    story.call(1, &ops, Repeat::Safe).write();
    let frames: Vec<String> = [&names[..4096], &names[4096..]]
        .map(|names| {
            names.iter().map(|name| format!("QUERY {name}")).collect::<Vec<_>>().join(", ")
        })
        .into();
    story.says(&frames.join(" | ")).answers(&[status::FREE; 4096]).then("");
    story.breaks().then("interrupted Closed");
    story.resume(100).then("valid until 8650; resumed").says(&frames[1]);
    story.answers(&[status::FREE; 904]);
    let answer = format!("answer 1: {}", vec!["FREE"; 5000].join(" "));
    story.then(&answer);
}

/// The session has ended while we were away: whatever the reason, it is over.
#[test]
fn a_session_that_is_gone_is_lost() {
    for (refusal, text) in [(status::NOSESSION, "NoSession"), (status::REFUSED, "Refused")] {
        let mut story = Story::opened();
        story.breaks().then("interrupted Closed");
        story
            .at_ms(20)
            .then("connect 0")
            .connected()
            .says("OPEN resume, LANE")
            .answers(&[refusal, status::NOSESSION]);
        story.then(&format!("valid until 0; lost: Gone({text})"));
    }
}

/// Another process of the same node, an operator, or one who knows the secret: all end it.
#[test]
fn a_replaced_session_is_lost_at_once() {
    for (code, reason, text) in [
        (push::SESSION_ENDED, Some(2), "Ended(Replaced)"),
        (push::SESSION_ENDED, Some(3), "Ended(Killed)"),
        (push::SESSION_MOVED, None, "Moved"),
    ] {
        let body =
            |session: u64| session.to_le_bytes().into_iter().chain(reason).collect::<Vec<_>>();
        let mut story = Story::opened();
        story.pushes(code, &body(5)).then("");
        story.pushes(code, &body(77)).then(&format!("valid until 0; lost: {text}"));
    }
}

/// A server under load answers an attempt to resume so late that it was given up, and what it asked
/// for reaches the server behind what the next attempt asks for. That is nobody else: the session
/// is taken back. Long after that it would be another process.
#[test]
fn a_late_attempt_of_our_own_is_no_other_process() {
    let mut story = Story::opened();
    story.breaks().at_ms(20).then("interrupted Closed; connect 0");
    story.connected().says("OPEN resume, LANE").at_ms(2270).then("");
    story.at_ms(2330).then("connect 0").connected().says("OPEN resume, LANE");
    story.answers_opened(true).then("valid until 10880; resumed");
    let moved = SESSION.0.to_le_bytes();
    story.pushes(push::SESSION_MOVED, &moved).then("interrupted Superseded");
    story.resume(2400).then("valid until 10950; resumed");
    story.pushes(push::LANE_MOVED, &7u32.to_le_bytes()).then("");
    story.pushes(push::LANE_MOVED, &0u32.to_le_bytes()).then("interrupted Superseded");
    story.resume(2500).then("valid until 11050; resumed").at_ms(5500).says("RENEW");
    story.answers(&[status::OK]).at_ms(8500).says("RENEW").answers(&[status::OK]);
    story.log.clear();
    story.at_ms(11_400).pushes(push::SESSION_MOVED, &moved).then("valid until 0; lost: Moved");
}

/// The grant was pushed while there was no connection. Waiting again tells it, with its token.
#[test]
fn a_grant_while_away_is_learnt_again() {
    let mut story = Story::opened();
    story.wait(1, b"n", None, true).says("WAIT n 0").answers_owner(status::QUEUED, 5, 40);
    story.breaks().then("interrupted Closed");
    story.resume(100).says("WAIT n 0").then("valid until 8650; resumed");
    story.answers_owner(status::GRANTED_EPHEMERAL, 77, 9).then("grant 1: 9");
    story.step(Input::Unlock(WaitId(1))).says("RELEASE n=9");
}

/// Two callers of one session want the same lock. The server would give both the same grant, so
/// the second one is asked for when the first has released.
#[test]
fn callers_of_one_session_exclude_each_other() {
    let mut story = Story::opened();
    story.wait(1, b"n", None, true).says("WAIT n 0");
    story.wait(2, b"n", None, true).wait(3, b"n", Some(500), true).says("");
    story.answers_owner(status::GRANTED_EPHEMERAL, 77, 9).then("grant 1: 9");
    story.at_ms(500).then("wait 3: TimedOut");
    story.step(Input::Unlock(WaitId(1))).says("RELEASE n=9").answers(&[status::OK]);
    story.says("WAIT n 0").answers_owner(status::QUEUED, 5, 41).then("");
    story.pushes_granted(41, 12, b"n").then("grant 2: 12");
}

/// A wait is given up while its grant is on its way. The caller hears that it was cancelled, and
/// what it does not know to hold is given back.
#[test]
fn a_cancelled_wait_that_crosses_its_grant_is_released() {
    let mut story = Story::opened();
    story.wait(1, b"n", None, true).says("WAIT n 0").answers_owner(status::QUEUED, 5, 40);
    story.step(Input::CancelWait(WaitId(1))).then("wait 1: Cancelled").says("CANCEL n 40");
    story.pushes_granted(40, 9, b"n").says("RELEASE n=9").then("");
    story.answers_owner(status::GRANTED_EPHEMERAL, 77, 9).answers(&[status::OK]).says("");
    // The same where only the answer tells it, and where the reply to the release is lost.
    story.wait(2, b"n", None, true).says("WAIT n 0").answers_owner(status::QUEUED, 5, 41);
    story.step(Input::CancelWait(WaitId(2))).says("CANCEL n 41");
    story.wait(3, b"n", None, true);
    story.answers_owner(status::GRANTED_EPHEMERAL, 77, 10).says("RELEASE n=10");
    story.breaks().then("wait 2: Cancelled; interrupted Closed");
    story.resume(100).says("RELEASE n=10").answers(&[status::NOTOWNER]).says("WAIT n 0");
}

/// A wait is given up before the server has answered it, and the connection breaks on top: asking
/// again tells the ticket, which is then cancelled.
#[test]
fn a_cancelled_wait_is_undone_after_a_break() {
    let mut story = Story::opened();
    story.wait(1, b"n", None, true).says("WAIT n 0");
    story.step(Input::CancelWait(WaitId(1))).then("wait 1: Cancelled").says("");
    story.breaks().then("interrupted Closed");
    story.resume(100).says("WAIT n 1").answers_owner(status::QUEUED, 5, 40).says("CANCEL n 40");
    story.answers(&[status::OK]);
    story.wait(2, b"n", None, true).says("WAIT n 0");
}

/// Waiting ends when its time is over: the server says so, or, if it does not, we do.
#[test]
fn a_wait_ends_with_its_time() {
    let mut story = Story::opened();
    story.wait(1, b"n", Some(800), true).says("WAIT n 800").answers_owner(status::QUEUED, 5, 40);
    story.at_ms(801).pushes(push::WAIT_ENDED, b"\x28\0\0\0\0\0\0\0\x01n").then("wait 1: TimedOut");
    story.wait(2, b"n", Some(1000), true).says("WAIT n 199").answers_owner(status::QUEUED, 5, 41);
    story.at_ms(1099).then("").at_ms(1100).then("wait 2: TimedOut").says("CANCEL n 41");
    // Without a connection, too.
    story.answers(&[status::OK]).wait(3, b"n", Some(1500), true).says("WAIT n 400");
    story.breaks().then("interrupted Closed");
    story.at_ms(1700).then("connect 0; wait 3: TimedOut");
    // Nothing is granted yet: it is asked for again, as long as there is time.
    story.connected().says("OPEN resume, LANE").answers_opened(true).says("WAIT n 1");
    story.answers(&[status::NOTOWNER]);
    story.wait(4, b"m", Some(2000), false).says("WAIT m 300");
    let mut starting = vec![];
    put_data(&mut starting, status::STARTING, &100u32.to_le_bytes());
    story.answers(&starting).at_ms(1799).says("").at_ms(1800).says("WAIT m 200");
    // There is not: the caller need not wait to hear that, nor why.
    let mut starting = vec![];
    put_data(&mut starting, status::STARTING, &201u32.to_le_bytes());
    story
        .answers(&starting)
        .then("valid until 10250; resumed; wait 4: NotYet(Starting(201ms))")
        .says("");
}

/// An operator takes a lock away. There is nothing to give back, and the next caller may ask.
#[test]
fn a_lock_that_was_taken_is_not_released() {
    let mut story = Story::opened();
    story.wait(1, b"n", None, true).says("WAIT n 0");
    story.answers_owner(status::GRANTED_EPHEMERAL, 77, 9).wait(2, b"n", None, true).says("");
    let body = [&9u64.to_le_bytes()[..], &0u64.to_le_bytes(), b"\x02n"].concat();
    story.pushes(push::LOST, &body).then("grant 1: 9; taken n=9").says("WAIT n 0");
    story.step(Input::Unlock(WaitId(1))).says("");
}

/// Every address is tried in turn, and the pauses grow from round to round.
#[test]
fn other_addresses_are_tried() {
    let mut story = Story::new(Settings { addresses: 3, ..settings() });
    story.open_now();
    story.then("valid until 8550; opened 77");
    story.breaks().at_ms(20).then("interrupted Closed; connect 1");
    let attempt = story.attempt;
    let refused = LinkFault::Connect(io::ErrorKind::ConnectionRefused);
    story.step(Input::Broken(attempt, refused)).at_ms(40).then("connect 2");
    story.step(Input::Connected(attempt)).says("").then("");
    story
        .connected()
        .says("OPEN resume, LANE")
        .answers_opened(true)
        .then("valid until 8590; resumed");
}

/// A server that is away is not hammered: over seconds there are few attempts.
#[test]
fn attempts_become_rare() {
    let mut story = Story::opened();
    story.breaks();
    let refused = LinkFault::Connect(io::ErrorKind::ConnectionRefused);
    let mut attempts = 0;
    for at in 1..8000 {
        story.at_ms(at);
        if story.log.iter().any(|line| line.starts_with("connect")) {
            attempts += 1;
            story.log.clear();
            let attempt = story.attempt;
            story.step(Input::Broken(attempt, refused));
        }
    }
    assert!((8..20).contains(&attempts), "{attempts} attempts");
}

/// Who cannot open a session is told why, at the end of the time that was given for it.
#[test]
fn an_unreachable_server_is_named() {
    let open_within = Duration::from_secs(1);
    let mut story = Story::new(Settings { open_within, ..settings() });
    story.at_ms(0).then("connect 0");
    let attempt = story.attempt;
    story.step(Input::Broken(attempt, LinkFault::NoHost)).at_ms(999);
    story.log.clear();
    story.at_ms(1000).then("valid until 0; lost: Unreachable(NoHost)");
}

/// With credentials AUTH goes first. Wrong ones end a session that is not open yet, and only
/// delay one that is: the server may be reading its credentials again.
#[test]
fn credentials_go_first() {
    let credentials = Some(Credentials { user: "ann".into(), password: "x".into() });
    let mut story = Story::new(Settings { credentials, ..settings() });
    story.at_ms(0).then("connect 0").connected().says("AUTH").answers(&[status::OK]);
    story.says("OPEN, LANE").answers_opened(false).then("valid until 8550; opened 77");
    story.breaks().at_ms(20).then("interrupted Closed; connect 0").connected();
    story.says("AUTH").answers(&[status::REFUSED]).at_ms(60).then("connect 0");
    let credentials = Some(Credentials { user: "ann".into(), password: "y".into() });
    let mut story = Story::new(Settings { credentials, ..settings() });
    story.at_ms(0).connected().says("AUTH").answers(&[status::REFUSED]);
    story.then("connect 0; valid until 0; lost: Refused(Refused)");
}

/// A watch hands over a state at one moment and then changes of it, goes on behind its cursor
/// after a break, and begins anew where the server has lost track.
#[test]
fn a_watch_has_no_holes() {
    let mut story = Story::opened();
    story.watch(1, b"s/").says("WATCH 1 s/").answers_watching(0);
    story.pushes_state(1, 3, b"s/a").pushes_state(1, 4, b"s/b").then("");
    story.pushes_change(1, 2, 11, 3, b"s/a").pushes_change(1, 1, 12, 6, b"s/c").then("");
    story.pushes_end(1).then("watch 1: [s/b=4 s/c=6]");
    story.pushes_change(1, 2, 13, 4, b"s/b").then("watch 1: -s/b=4");
    story.breaks().then("interrupted Closed; watch 1: interrupted");
    story.resume(100).says("WATCH 2 from 13 s/").answers_watching(1);
    story.then("valid until 8650; resumed; watch 1: resumed");
    story.pushes_change(1, 1, 14, 8, b"s/old").then("");
    story.pushes_change(2, 1, 14, 8, b"s/d").then("watch 1: +s/d=8");
    story.pushes(push::GAP, &2u32.to_le_bytes()).pushes_change(2, 1, 20, 9, b"s/e");
    story.pushes_state(2, 8, b"s/d").pushes_end(2).then("watch 1: [s/d=8 s/e=9]");
    // A break in the middle of a state, and a server that does not know the cursor.
    story.step(Input::WatchAgain(WatcherId(1))).says("UNWATCH 2, WATCH 3 s/").answers(&[0, 0xC8]);
    story.at_ms(150).says("WATCH 4 s/").answers_watching(0).pushes_state(4, 8, b"s/d");
    story.breaks().then("interrupted Closed");
    story.resume(200).says("WATCH 5 s/").answers_watching(0).pushes_end(5);
    story.then("valid until 8750; resumed; watch 1: []");
    story.breaks().then("interrupted Closed; watch 1: interrupted");
    story.resume(300).says("WATCH 6 from 10 s/").answers_watching(2).pushes_end(6);
    story.then("valid until 8850; resumed; watch 1: []");
    story.step(Input::Unwatch(WatcherId(1))).says("UNWATCH 6");
    story.pushes_change(6, 1, 21, 9, b"s/f").then("");
}

/// A whole state may overtake the answer to the question, the first time and after a break; changes
/// behind it are told all the same.
#[test]
fn a_state_may_come_before_the_answer() {
    let mut story = Story::opened();
    story.watch(1, b"s/").says("WATCH 1 s/").pushes_state(1, 4, b"s/b").pushes_end(1);
    story.then("watch 1: [s/b=4]").answers_watching(0).then("");
    story.pushes_change(1, 2, 13, 4, b"s/b").then("watch 1: -s/b=4");
    story.breaks().then("interrupted Closed; watch 1: interrupted");
    story.resume(100).says("WATCH 2 from 13 s/").pushes_state(2, 8, b"s/d").pushes_end(2);
    story.then("valid until 8650; resumed; watch 1: [s/d=8]").answers_watching(2).then("");
    story.pushes_change(2, 1, 20, 9, b"s/e").then("watch 1: +s/e=9");
}

/// Closing lets every call be answered first; then the server frees at once what was held.
#[test]
fn closing_is_orderly() {
    let mut story = Story::opened();
    story.call(1, &[Op::Query(b"a")], Repeat::Safe).write().says("QUERY a");
    story.step(Input::Close).says("").call(2, &[SEND], Repeat::Never);
    story.then("answer 2: Over(Closed)");
    story.answers(&[status::FREE]).says("CLOSE").then("answer 1: FREE");
    story.answers(&[status::OK]).then("valid until 0; lost: Closed");
    // The server may tell of the end before it answers: then not everything is free yet.
    let mut story = Story::opened();
    story.step(Input::Close).says("CLOSE").pushes(push::SESSION_ENDED, b"M\0\0\0\0\0\0\0\x04");
    story.then("").answers(&[status::OK]).then("valid until 0; lost: Closed");
    let mut story = Story::opened();
    story.breaks().step(Input::Close).then("interrupted Closed; valid until 0; lost: Closed");
}

/// A server that breaks the protocol loses the connection, not the session; one that gives another
/// session where ours was asked for has lost ours.
#[test]
fn hostile_servers_are_left() {
    let mut story = Story::opened();
    story.call(1, &[Op::Query(b"a")], Repeat::Safe).write().says("QUERY a");
    story.answers(&[status::FREE, status::FREE]);
    story.then("interrupted Stream(Body)");
    story.resume(50).says("QUERY a").then("valid until 8600; resumed");
    story.answers_owner(0x7F, 1, 1).then("answer 1: UNKNOWN_STATUS");
    story.pushes(push::MESSAGE, b"\x01").then("interrupted Stream(Body)");
    story.resume(100).then("valid until 8650; resumed");
    story.pushes(push::PROTOCOL_ERROR, b"").then("interrupted Stream(Reported)");
    story.at_ms(150).then("connect 0").connected().says("OPEN resume, LANE").answers_opened(false);
    story.then("valid until 0; lost: Gone(NoSession)");
    let mut story = Story::opened();
    story.breaks().at_ms(20).connected().says("OPEN resume, LANE");
    story.answers_opened_as(SessionId(78), true);
    story.then("interrupted Closed; connect 0; valid until 0; lost: Gone(NoSession)");
    let mut story = Story::new(settings());
    story.at_ms(0).then("connect 0");
    let attempt = story.attempt;
    story.step(Input::Connected(attempt));
    let preface = Preface { frame_bytes_max: 4096, ..Preface::OURS }.encode();
    story.step(Input::Received(&preface)).at_ms(20).then("connect 0");
    assert_eq!(story.engine.fault, LinkFault::SmallFrames(4096));
}

/// Back-pressure: the driver is told when the queue is full, and when there is room again.
#[test]
fn a_full_queue_says_so() {
    let mut story = Story::opened();
    let payload = [7; 32_000];
    let target = crate::op::Target::Name(b"n");
    let letter = crate::op::Letter { target, fence: None, receipt: false, payload: &payload };
    let mut id = 0;
    while story.engine.has_room() {
        id += 1;
        story.call(id, &[Op::Send { letter, same: false }], Repeat::Never);
    }
    assert_eq!(id as usize, calls::QUEUE_BYTES_MAX.div_ceil(32_006));
    let waiting = story.engine.transmit(story.now).len();
    assert!(waiting < OUTGOING_BYTES_MAX + 256 * 1024, "{waiting} bytes are encoded");
    story.write().says(
        "SEND, SEND, SEND, SEND, SEND, SEND, SEND, SEND | SEND, SEND, SEND, SEND, \
                        SEND, SEND, SEND, SEND | SEND, SEND, SEND, SEND, SEND, SEND, SEND, SEND",
    );
    story.answers(&[status::OK; 8]);
    assert!(story.engine.has_room());
}

/// A busy server did not do some ops of a call. It is asked for those alone, after a pause, and the
/// caller gets the replies in the order of the ops.
#[test]
fn what_a_server_has_no_time_for_is_asked_again() {
    let release = |name| Op::Release { name, token: None };
    let mut story = Story::opened();
    story.call(1, &[release(b"a"), release(b"b"), release(b"c")], Repeat::Never).write();
    story.says("RELEASE a, RELEASE b, RELEASE c");
    story.answers(&[status::BUSY, status::OK, status::BUSY]).then("").says("");
    story.call(2, &[Op::Query(b"d")], Repeat::Safe).write().says("QUERY d");
    story.at_ms(10).says("RELEASE a, RELEASE c");
    story.answers(&[status::FREE]).then("answer 2: FREE");
    story.answers(&[status::NOTOWNER, status::BUSY]).then("");
    story.at_ms(30).says("RELEASE c").answers(&[status::FULL]);
    story.then("answer 1: NOTOWNER OK FULL");
}

/// A server that stays busy is asked less and less often, and then the caller hears so. A message
/// is not asked again: it could arrive behind later ones.
#[test]
fn a_server_that_stays_busy_is_not_asked_for_ever() {
    let mut story = Story::opened();
    story.call(1, &[Op::Query(b"a"), SEND], Repeat::Never).write().says("QUERY a, SEND");
    story.answers(&[status::BUSY, status::BUSY]);
    let mut asked_at = vec![0];
    while story.log.is_empty() {
        let next = story.now.0 / 1_000_000 + 1;
        story.at_ms(next);
        if !story.unread.is_empty() {
            asked_at.push(next);
            story.says("QUERY a").answers(&[status::BUSY]);
        }
    }
    story.then("answer 1: BUSY BUSY");
    assert_eq!(asked_at.last(), Some(&2000));
    assert!((8..16).contains(&asked_at.len()), "{asked_at:?}");
    story.call(2, &[SEND], Repeat::Never).write().says("SEND");
    story.answers(&[status::BUSY]).then("answer 2: BUSY");
}

/// What waits for a busy server counts as asked: closing waits for it, and the end answers it.
#[test]
fn a_pause_ends_with_the_session() {
    let mut story = Story::opened();
    story.call(1, &[Op::Query(b"a")], Repeat::Safe).write().says("QUERY a");
    story.answers(&[status::BUSY]).step(Input::Close).says("");
    story.at_ms(10).says("QUERY a").answers(&[status::FREE]).then("answer 1: FREE").says("CLOSE");

    let mut story = Story::opened();
    story.call(1, &[Op::Query(b"a")], Repeat::Safe).write().says("QUERY a");
    story.answers(&[status::BUSY]);
    story.pushes(push::SESSION_ENDED, &[&SESSION.0.to_le_bytes()[..], &[3]].concat());
    story.then("valid until 0; lost: Ended(Killed); answer 1: Over(Ended(Killed))");
}

#[path = "lane_tests.rs"]
mod lanes;

mod properties {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Nothing that a server says makes the engine panic or spin, and whatever it says, each
        /// caller is answered once when the session is over.
        #[test]
        fn noise_ends_in_one_answer_each(
            noise in proptest::collection::vec(
                (0u8..4, 0u8..0x50, proptest::collection::vec(any::<u8>(), 0..60)), 0..20),
        ) {
            let mut story = Story::opened();
            story.call(1, &[Op::Query(b"a"), Op::Query(b"b")], Repeat::Safe);
            story.call(2, &[SEND], Repeat::Never);
            story.wait(3, b"n", Some(1000), true).watch(4, b"s/").write();
            let mut at = 0;
            for (what, code, body) in noise {
                match what {
                    0 => drop(story.step(Input::Received(&body))),
                    1 => drop(story.pushes(code, &body)),
                    2 => drop(story.breaks()),
                    _ => {
                        at += 100;
                        story.at_ms(at).connected();
                    }
                }
            }
            story.at_ms(60_000);
            for answered in ["answer 1:", "answer 2:", "wait 3:", "watch 4: ended", "lost:"] {
                let times = story.log.iter().filter(|line| line.starts_with(answered)).count();
                let granted = story.log.iter().filter(|line| line.starts_with("grant 3")).count();
                let times = times + if answered == "wait 3:" { granted } else { 0 };
                prop_assert_eq!(times, 1, "{} in {:?}", answered, story.log);
            }
        }
    }
}
