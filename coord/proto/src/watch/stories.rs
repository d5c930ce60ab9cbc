//! Stories of one shard's feeds and topics, which tell each other everything at once.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use ringway_core::limits::watch::{BUDGET_DEFAULT, LINGER, LOG_BYTES_MAX, WATCHERS_PER_TURN};
use ringway_core::wire::{Put, Reader};
use ringway_core::{ConnId, Epoch, Moment, SessionId, ShardId, Span, Token};

use super::Letters;
use super::event::{Change, Event, Kind, MASK_ALL, Notices, SKIPPED};
use super::feed::Feeds;
use super::mails::{self, What};
use super::topic::{Cursor, Outlet, Topics, Wish};
use crate::keyed::KeyedState;
use crate::mail;
use crate::outcome::Answer;
use crate::placement::SlotMap;
use crate::sessions::Ticket;
use crate::wire::{FRAME_BYTES_FLOOR, FRAME_HEADER_BYTES, FrameHeader, next_op, push, status};

const ME: ShardId = ShardId(0);
/// The shortest that a client may take.
const FRAME_BYTES: usize = FRAME_BYTES_FLOOR as usize;
const MB: usize = 1 << 20;

/// What was written to a connection and not read; whether it is awaited.
#[derive(Default)]
struct Pipes(BTreeMap<u32, (Vec<u8>, bool)>);

impl Outlet for Pipes {
    fn room(&mut self, conn: ConnId, budget: u32) -> usize {
        let unread = self.0.entry(conn.index).or_default().0.len();
        (budget as usize).saturating_sub(unread)
    }
    fn await_drain(&mut self, conn: ConnId) {
        self.0.entry(conn.index).or_default().1 = true;
    }
    fn notices<'a>(&'a mut self, conn: ConnId, watch: u32, _: &'a [u8]) -> Notices<'a> {
        Notices::new(&mut self.0.entry(conn.index).or_default().0, watch, FRAME_BYTES)
    }
}

struct Story {
    now: Moment,
    feeds: Feeds,
    topics: Topics,
    pipes: Pipes,
    answers: Vec<(u32, Answer)>,
    owners: BTreeMap<String, u64>,
}

fn conn(index: u32) -> ConnId {
    ConnId { index, generation: 1 }
}

fn wish(index: u32, filter: &str) -> Wish<'_> {
    let conn = conn(index);
    let ticket = Ticket { shard: ME, pending: conn.index, generation: 0, index: 0 };
    let (watch, budget) = (7, BUDGET_DEFAULT);
    let (mask, snapshot, resume, filter) = (MASK_ALL, false, None, filter.as_bytes());
    Wish { ticket, conn, watch: Some(watch), mask, budget, snapshot, resume, filter }
}

impl Story {
    fn new(feed_bytes: usize, topic_bytes: usize) -> Self {
        let keys = || KeyedState::new([1, 2]);
        Self {
            now: Moment(0),
            feeds: Feeds::new((ME, Epoch(4)), keys(), feed_bytes),
            topics: Topics::new(Epoch(4), SlotMap::new(1), keys(), topic_bytes),
            pipes: Pipes::default(),
            answers: Vec::new(),
            owners: BTreeMap::new(),
        }
    }

    fn watch(&mut self, wish: Wish<'_>) -> Result<(), u8> {
        let done = self.topics.watch(wish);
        self.settle();
        done
    }

    /// The answer that the last `WATCH` of a connection got: how it was resumed, and the number.
    fn answer(&mut self, index: u32) -> (u8, u64) {
        let at = self.answers.iter().position(|(conn, _)| *conn == index).expect("answered");
        let (_, answer) = self.answers.remove(at);
        let Answer::Data(_, data) = answer else { panic!("{answer:?}") };
        (data[0], u64::from_le_bytes(data[7..15].try_into().unwrap()))
    }

    /// A name is acquired, or released with token zero.
    fn change(&mut self, name: &str, token: u64) {
        let kind = if token > 0 { Kind::Acquired } else { Kind::Released };
        let before = self.owners.insert(name.to_string(), token).unwrap_or(0);
        let token = Token(token.max(before));
        let change = Change {
            kind,
            session: SessionId(1),
            token,
            extra: 0,
            shared: false,
            name: name.as_bytes(),
        };
        self.feeds.changed(&change);
    }

    /// One turn: everything is told that there is time for.
    fn turn(&mut self) {
        self.arrive();
        self.topics.step(&mut self.pipes);
        self.settle();
    }

    /// What feeds have to tell comes to the topics, which have not told it yet.
    fn arrive(&mut self) {
        self.feeds.expire(self.now);
        let mut letters = Letters::default();
        while self.feeds.flush_next(&mut letters) {}
        self.carry(&letters);
        self.settle();
    }

    fn settle(&mut self) {
        while !self.topics.out.letters.is_empty() {
            let letters = core::mem::take(&mut self.topics.out.letters);
            self.carry(&letters);
        }
        for (ticket, answer) in self.topics.out.answers.drain(..) {
            self.answers.push((ticket.pending, answer));
        }
    }

    fn carry(&mut self, letters: &Letters) {
        for (_, message) in letters.iter() {
            let mut more = Letters::default();
            let mut reader = Reader::new(message);
            let (feeds, topics) = (&mut self.feeds, &mut self.topics);
            let kind = reader.u8().unwrap();
            if kind == mail::FEED_ASK {
                let asked = mails::asked(&mut reader).unwrap();
                let feed = mails::read_ref(&mut reader).unwrap();
                if asked.what == What::Resume {
                    let from = mails::from(&mut reader).unwrap();
                    feeds.resume((ME, asked), feed, from, &mut more);
                } else {
                    let filter = feeds.filter(feed).unwrap().to_vec();
                    let out = feeds.begin_page((ME, asked), feed, &mut more);
                    out.extend_from_slice(&[1, 0, 0, 0]);
                    for (name, token) in self.owners.iter().filter(|(_, token)| **token > 0) {
                        if name.as_bytes().starts_with(&filter) {
                            out.put_u64(1);
                            out.put_u64(*token);
                            out.put_short_bytes(name.as_bytes());
                        }
                    }
                }
                self.carry(&more);
                continue;
            }
            if kind == mail::FEED_EVENTS {
                topics.take_events(ME, &mut reader, message.len()).unwrap();
                continue;
            }
            if kind == mail::FEED_TOLD {
                topics.take_told(ME, &mut reader, &mut self.pipes).unwrap();
                continue;
            }
            let at = mails::read_ref(&mut reader).unwrap();
            match kind {
                mail::FEED_OPEN => feeds.open((ME, at), reader.rest(), &mut more),
                mail::FEED_OPENED => topics.opened(ME, at, mails::opened(&mut reader).unwrap()),
                mail::FEED_CLOSE => {
                    feeds.close(self.now, (ME, at), mails::read_ref(&mut reader).unwrap());
                }
                mail::FEED_TAKEN => {
                    feeds.acknowledged(ME, at, reader.u32().unwrap() as usize);
                }
                kind => panic!("mail of kind {kind}"),
            }
            self.carry(&more);
        }
    }

    /// A connection reads all there is, in words.
    fn read(&mut self, index: u32) -> String {
        let (bytes, awaited) = self.pipes.0.remove(&index).unwrap_or_default();
        if awaited {
            self.topics.drained(conn(index));
        }
        let (mut rest, mut words) = (bytes.as_slice(), Vec::new());
        while let Some(header) = FrameHeader::parse(rest).unwrap() {
            assert!(header.len <= FRAME_BYTES);
            let mut ops = &rest[FRAME_HEADER_BYTES..header.len];
            while let Some(notice) = next_op(&mut ops) {
                words.push(in_words(notice.code, &notice.body[4..]));
            }
            rest = &rest[header.len..];
        }
        words.join(" ")
    }

    fn unread(&self, index: u32) -> usize {
        self.pipes.0.get(&index).map_or(0, |pipe| pipe.0.len())
    }
}

fn in_words(code: u8, body: &[u8]) -> String {
    match code {
        push::EVENT => {
            let event = Event(body);
            let name = String::from_utf8_lossy(event.name()).into_owned();
            let token = u64::from_le_bytes(body[23..31].try_into().unwrap());
            let sign = if event.kind() == Kind::Acquired { '+' } else { '-' };
            let skipped = if body[1] & SKIPPED != 0 { "!" } else { "" };
            format!("{name}{sign}{token}{skipped}")
        }
        push::STATE => {
            let token = u64::from_le_bytes(body[9..17].try_into().unwrap());
            format!("{}={token}", String::from_utf8_lossy(&body[17..]))
        }
        push::SNAPSHOT_END => "end".into(),
        push::GAP => "GAP".into(),
        code => panic!("notice {code}"),
    }
}

/// A change is told to whoever watches the name or a prefix of it that ends with a slash, once a
/// watch, and to nobody else; while nobody watches, it is not even counted.
#[test]
fn a_change_reaches_those_who_watch_it() {
    let mut story = Story::new(MB, MB);
    story.change("a/b/c", 1);
    assert_eq!((story.feeds.is_empty(), story.feeds.sequence()), (true, 0));
    let filters = ["a/", "a/b/", "a/b/c", "a/b/cd", "b/", "a/b/c/"];
    for (index, filter) in filters.iter().enumerate() {
        story.watch(wish(index as u32, filter)).unwrap();
    }
    story.change("a/b/c", 2);
    story.change("a/b", 1);
    story.turn();
    let heard: Vec<_> = (0..6).map(|index| story.read(index)).collect();
    assert_eq!(heard, ["a/b/c+2 a/b+1", "a/b/c+2", "a/b/c+2", "", "", ""]);
}

/// Topics that end with something to tell leave their turn to others, and to whoever takes their
/// places: all that is left is told in one turn, to nobody else.
#[test]
fn who_ends_before_its_turn_takes_nobodys() {
    let mut story = Story::new(MB, MB);
    let names: Vec<_> = (0..40).map(|index| format!("n{index}")).collect();
    for (index, name) in (0..40).zip(&names) {
        story.watch(wish(index, name)).unwrap();
        story.change(name, 1);
    }
    story.arrive();
    (0..40).step_by(2).for_each(|index| story.topics.closed(conn(index)));
    story.settle();
    for (index, name) in (0..40).zip(&names).skip(20) {
        story.watch(wish(100 + index, &format!("m{name}"))).unwrap();
    }
    story.turn();
    for index in 0..40 {
        let expected = if index % 2 == 0 { String::new() } else { format!("n{index}+1") };
        assert_eq!((story.read(index), story.read(100 + index)), (expected, String::new()));
        assert_eq!(story.topics.len_of(conn(index)), usize::from(index % 2 == 1));
    }
    assert_eq!((story.topics.len(), story.topics.is_active()), (40, false));
    (0..140).for_each(|index| story.topics.closed(conn(index)));
    assert_eq!((story.topics.len(), story.topics.bytes()), (0, 0));
}

/// A watch hears of the kinds that it asked for, and one that it did not ask for never hides one
/// that it did.
#[test]
fn a_mask_hides_nothing_that_is_wanted() {
    let mut story = Story::new(MB, MB);
    story.watch(Wish { mask: Kind::Acquired.bit(), ..wish(0, "x") }).unwrap();
    story.watch(Wish { mask: Kind::Waiting.bit(), ..wish(1, "x") }).unwrap();
    story.change("x", 1);
    for (kind, extra) in [(Kind::Waiting, 1), (Kind::Changed, 2)] {
        let (session, token) = (SessionId(1), Token(1));
        story.feeds.changed(&Change { kind, session, token, extra, shared: false, name: b"x" });
    }
    story.turn();
    assert_eq!(story.read(0), "x+1");
    let waiting = &story.pipes.0[&1].0;
    assert_eq!(waiting[waiting.len() - 4..], 1u32.to_le_bytes(), "how many wait");
}

/// Who does not read costs its budget and no more: it is passed over, others are told at once.
/// When it has read it hears the newest of every name, that something was skipped, and no gap.
#[test]
fn a_slow_reader_hears_the_newest() {
    let mut story = Story::new(MB, MB);
    for index in 0..2 {
        story.watch(Wish { budget: 4_096, ..wish(index, "n/") }).unwrap();
    }
    let bytes = story.topics.bytes();
    for token in 1..=200 {
        story.change(&format!("n/{}", token % 5), token);
        story.turn();
        assert_eq!(story.read(0), format!("n/{}+{token}", token % 5), "nobody waits");
    }
    let unread = story.unread(1);
    assert!((4_096..4_300).contains(&unread), "{unread} bytes");
    let first = story.read(1);
    assert!(first.starts_with("n/1+1 n/2+2 ") && !first.contains('!'), "{first}");
    story.turn();
    assert_eq!(story.read(1), "n/1+196! n/2+197! n/3+198! n/4+199! n/0+200!");
    story.change("n/0", 0);
    story.turn();
    assert_eq!(story.read(1), "n/0-200", "it has caught up");
    assert_eq!(story.topics.bytes(), bytes, "nobody needs the log any more");
}

/// A log that is full forgets its oldest changes. Who has not read them hears `GAP`, goes on from
/// there, and gets what there is if it asked for snapshots.
#[test]
fn a_log_that_moves_on_is_a_gap() {
    let mut story = Story::new(8 * MB, 8 * MB);
    story.watch(Wish { budget: 4_096, ..wish(0, "n/") }).unwrap();
    story.watch(Wish { budget: 4_096, snapshot: true, ..wish(1, "n/") }).unwrap();
    story.turn();
    assert_eq!(story.read(1), "end", "nothing is owned");
    let names = LOG_BYTES_MAX as u64 / 50;
    for index in 0..names {
        story.change(&format!("n/{index}"), 1);
        if index % 100 == 0 {
            story.turn();
        }
    }
    for index in 1..names {
        story.change(&format!("n/{index}"), 0);
        if index % 100 == 0 {
            story.turn();
        }
    }
    (0..2).for_each(|index| drop(story.read(index)));
    story.turn();
    assert!(story.read(0).starts_with("GAP n/"), "the newest that are left follow");
    let mut heard = story.read(1);
    assert!(heard.starts_with("GAP n/"));
    for _ in 0..1_000 {
        story.turn();
        heard = story.read(1);
        if heard.contains('=') {
            break;
        }
    }
    assert!(heard.ends_with("n/0=1 end"), "{heard}");
}

/// Whoever lost its connection goes on where it was, within a minute. Behind that, in another
/// life of the service, or when the log has moved on, it hears that there is a gap.
#[test]
fn a_watch_resumes_where_it_was() {
    let mut story = Story::new(MB, MB);
    story.watch(wish(0, "n/")).unwrap();
    let (fresh, sequence) = story.answer(0);
    assert_eq!(fresh, 0);
    story.topics.closed(conn(0));
    story.settle();
    story.change("n/1", 1);
    story.change("n/2", 1);
    story.change("n/1", 0);
    story.now = story.now + LINGER - Span(1);
    story.turn();
    let from = |epoch, sequence| {
        let cursor = Cursor { shard: ME, epoch: Epoch(epoch), sequence };
        Wish { resume: Some([cursor].into()), ..wish(0, "n/") }
    };
    story.watch(from(4, sequence)).unwrap();
    let (resumed, sequence) = story.answer(0);
    assert_eq!((resumed, story.read(0).as_str()), (1, "n/2+1 n/1-1!"));
    story.topics.closed(conn(0));
    story.watch(from(3, sequence)).unwrap();
    assert_eq!(story.answer(0).0, 2, "another life");
    story.topics.closed(conn(0));
    story.watch(from(4, sequence + 1)).unwrap();
    assert_eq!(story.answer(0).0, 2, "a number that was never given");
    story.topics.closed(conn(0));
    story.settle();
    for _ in 0..2 {
        story.now = story.now + LINGER;
        story.turn();
    }
    assert!(story.feeds.is_empty(), "the feed has ended");
    story.change("n/3", 1);
    story.watch(from(4, sequence)).unwrap();
    assert_eq!(story.answer(0).0, 2, "nobody wrote down what happened");
}

/// A round goes on over several turns. Who leaves meanwhile costs nobody else its news, whether it
/// was told already or not; and nobody hears anything twice.
#[test]
fn a_round_survives_those_who_leave() {
    let mut story = Story::new(MB, MB);
    let count = 3 * WATCHERS_PER_TURN as u32;
    (0..count).for_each(|index| story.watch(wish(index, "x")).unwrap());
    story.change("x", 1);
    story.turn();
    let told = (0..count).filter(|index| story.unread(*index) > 0).count();
    assert_eq!(told, WATCHERS_PER_TURN, "a slice");
    let leaves = |index: u32| index.is_multiple_of(3);
    (0..count).filter(|index| leaves(*index)).for_each(|index| story.topics.closed(conn(index)));
    story.turn();
    assert!(story.topics.is_active());
    story.turn();
    for index in (0..count).filter(|index| !leaves(*index)) {
        assert_eq!(story.read(index), "x+1", "{index}");
    }
    assert!(!story.topics.is_active());
}

/// The changes of a name that many watch do not hold up those of another name for longer than a
/// slice.
#[test]
fn topics_take_turns() {
    let mut story = Story::new(MB, MB);
    let many = 4 * WATCHERS_PER_TURN as u32;
    (0..many).for_each(|index| story.watch(wish(index, "many")).unwrap());
    story.watch(wish(many, "one")).unwrap();
    story.change("many", 1);
    story.turn();
    story.change("one", 1);
    story.turn();
    assert_eq!(story.read(many), "one+1");
    assert!(story.topics.is_active(), "the many are not through");
}

/// What does not fit is refused, and everything that was is given back when it ends.
#[test]
fn room_is_bounded_and_given_back() {
    let mut story = Story::new(MB, 4_000);
    let mut fits = 0;
    while story.watch(wish(fits, "x")).is_ok() {
        fits += 1;
    }
    assert!((10..60).contains(&fits), "{fits} watchers in 4000 bytes");
    assert_eq!(story.watch(wish(fits, "x")), Err(status::FULL));
    assert_eq!(story.watch(wish(0, "y")), Err(status::EXISTS));
    (0..fits).for_each(|index| story.topics.closed(conn(index)));
    story.settle();
    assert_eq!((story.topics.bytes(), story.topics.len()), (0, 0));

    // A feed that is full says so, and whoever waited hears it.
    let mut story = Story::new(100, MB);
    story.watch(wish(0, "x")).unwrap();
    let (_, answer) = story.answers.remove(0);
    assert_eq!(answer, Answer::plain(status::FULL));
    assert_eq!((story.topics.bytes(), story.feeds.bytes()), (0, 0));

    // Feeds that nobody uses make room for new ones.
    let mut story = Story::new(4_000, MB);
    for index in 0..100 {
        story.watch(wish(0, &format!("n{index}"))).unwrap();
        assert_eq!(story.answer(0).0, 0, "{index}");
        story.topics.closed(conn(0));
        story.settle();
    }
    assert!(story.feeds.bytes() <= 4_000 && story.feeds.len() > 1);
}

/// A feed waits for a shard that does not take what it sends, and goes on when it does.
#[test]
fn a_feed_does_not_flood_a_shard() {
    let mut story = Story::new(8 * MB, 8 * MB);
    story.watch(wish(0, "n/")).unwrap();
    let mut letters = Letters::default();
    let mut posted = 0;
    for index in 0..20_000 {
        story.change(&format!("n/{index}"), 1);
        while story.feeds.flush_next(&mut letters) {}
        posted += letters.iter().map(|(_, message)| message.len()).sum::<usize>();
        if index < 100 {
            story.carry(&letters);
            (posted, letters) = (0, Letters::default());
        }
        letters.clear();
    }
    assert!(posted > 100_000 && posted < 300_000, "{posted} bytes on their way");
}
